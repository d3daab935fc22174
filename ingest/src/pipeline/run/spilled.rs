//! Files of state that memory has no room for, in the directory of the pipeline. Their bytes are described in `ingest/README.md`.
//!
//! ```text
//! machine ─ runs ─► s…042.spill, not yet synced          it stays as long as a machine, or a picture that is to be written, has it
//! checkpoint ─ its picture names runs ─► the files synced ─► record, which names them, too
//! clean ─► files that no kept record names, and nobody has, go
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tidemill_storage::Error as StorageError;

use super::super::machine::{
    spill::{Filling, Kept, Store},
    state_file::StateFile,
};
use crate::{Result, runtime::spawn};

pub(super) const ENDING: &str = ".spill";
const BUFFER_BYTES: usize = 1 << 20;

/// The files of one pipeline.
#[derive(Clone)]
pub(super) struct Spilled(Arc<Files>);

struct Files {
    /// Called while a step reads or writes, which may take long.
    goes_on: Box<dyn Fn() + Send + Sync>,
    directory: PathBuf,
    next: AtomicU64,
    /// Files that somebody has, and how many do.
    live: Mutex<BTreeMap<String, usize>>,
}

impl std::fmt::Debug for Spilled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spilled({})", self.0.directory.display())
    }
}

/// Somebody has the file of that name.
struct Hold {
    files: Arc<Files>,
    name: String,
}

impl Hold {
    fn new(files: &Arc<Files>, name: &str) -> Self {
        *files.live.lock().entry(name.to_owned()).or_default() += 1;
        Self { files: Arc::clone(files), name: name.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.files.directory.join(&self.name)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut live = self.files.live.lock();
        match live.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = live.remove(&self.name),
        }
    }
}

struct Writing {
    hold: Hold,
    file: BufWriter<File>,
    bytes: u64,
    checksum: u32,
}

struct Whole {
    hold: Hold,
    file: StateFile,
    /// Since somebody read of it.
    open: OnceLock<File>,
    is_synced: AtomicBool,
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.file)
    }
}

impl Spilled {
    pub(super) fn new(directory: &Path, goes_on: impl Fn() + Send + Sync + 'static) -> Self {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let last = entries.filter_map(|entry| number_of(entry.file_name().to_str()?)).max();
        let (goes_on, directory) = (Box::new(goes_on), directory.to_owned());
        let next = AtomicU64::new(last.map_or(1, |last| last + 1));
        Self(Arc::new(Files { goes_on, directory, next, live: Mutex::default() }))
    }

    /// Whether somebody has the file of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.live.lock().contains_key(name)
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix('s')?.strip_suffix(ENDING)?.parse().ok()
}

impl Store for Spilled {
    fn create(&self) -> Result<Box<dyn Filling>> {
        loop {
            let name = format!("s{:020}{ENDING}", self.0.next.fetch_add(1, Ordering::SeqCst));
            let hold = Hold::new(&self.0, &name);
            let path = hold.path();
            return match File::create_new(&path) {
                Ok(file) => {
                    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                    Ok(Box::new(Writing { hold, file, bytes: 0, checksum: 0 }))
                }
                // Of a step that was left alone.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => Err(StorageError::io("creating a file of spilled state", path, &error).into()),
            };
        }
    }

    fn adopt(&self, file: &StateFile) -> Arc<dyn Kept> {
        let hold = Hold::new(&self.0, &file.file);
        Arc::new(Whole { hold, file: file.clone(), open: OnceLock::new(), is_synced: AtomicBool::new(true) })
    }

    fn beside(&self, work: Box<dyn FnOnce() + Send>) -> Result<()> {
        // It ends soon after nobody waits for it any more.
        spawn("spilled-state".into(), work).map(|_| ())
    }
}

impl Filling for Writing {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        (self.hold.files.goes_on)();
        fail::fail_point!("pipeline::spill", |_| Err(crate::Error::Unavailable("failpoint pipeline::spill".into())));
        let written = self.file.write_all(bytes);
        written.map_err(|error| StorageError::io("writing spilled state", self.hold.path(), &error))?;
        self.bytes += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Arc<dyn Kept>> {
        let flushed = self.file.flush();
        flushed.map_err(|error| StorageError::io("writing spilled state", self.hold.path(), &error))?;
        let Self { hold, bytes, checksum, .. } = *self;
        let file = StateFile { file: hold.name.clone(), bytes, checksum };
        Ok(Arc::new(Whole { hold, file, open: OnceLock::new(), is_synced: AtomicBool::new(false) }))
    }
}

impl Kept for Whole {
    fn file(&self) -> &StateFile {
        &self.file
    }

    fn path(&self) -> PathBuf {
        self.hold.path()
    }

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        (self.hold.files.goes_on)();
        let path = self.hold.path();
        // A length that a damaged picture had would be asked of the memory.
        if at.checked_add(bytes as u64).is_none_or(|end| end > self.file.bytes) {
            let wanted = format!("{} bytes", self.file.bytes);
            return Err(
                StorageError::corrupt(path, "spilled state of a pipeline", wanted, format!("{bytes} at {at}")).into()
            );
        }
        let mut found = vec![0; bytes];
        let opened = || match self.open.get() {
            Some(file) => Ok(file),
            None => File::open(&path).map(|file| self.open.get_or_init(|| file)),
        };
        let read = opened().and_then(|file| file.read_exact_at(&mut found, at));
        read.map_err(|error| StorageError::io("reading spilled state", path, &error))?;
        Ok(found)
    }

    fn sync(&self) -> Result<()> {
        if !self.is_synced.load(Ordering::SeqCst) {
            let path = self.hold.path();
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|error| StorageError::io("syncing spilled state", path, &error))?;
            self.is_synced.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::machine::state_file::check, *};

    fn file(store: &Spilled, parts: &[&[u8]]) -> Arc<dyn Kept> {
        let mut filling = store.create().unwrap();
        parts.iter().for_each(|part| filling.put(part).unwrap());
        filling.finish().unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let store = Spilled::new(directory.path(), || {});
        let kept = file(&store, &[b"some", b"", b"thing"]);
        assert_eq!(kept.read(4, 5).unwrap(), b"thing");
        let error = kept.read(5, 5).unwrap_err().to_string();
        assert!(error.contains("9 bytes"), "{error}");
        check(directory.path(), kept.file()).unwrap();
        let path = kept.path();
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            let error = check(directory.path(), kept.file()).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        fs::write(&path, &sound[1..]).unwrap();
        check(directory.path(), kept.file()).unwrap_err();
        fs::remove_file(&path).unwrap();
        check(directory.path(), kept.file()).unwrap_err();
        // Who has it open still reads it.
        assert_eq!(kept.read(0, 1).unwrap(), b"o");
        store.adopt(kept.file()).read(0, 1).unwrap_err();
    }

    /// Nobody writes into a file that is there, whoever made it, and what somebody has is not deleted.
    #[test]
    fn files_stay_as_long_as_somebody_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Spilled::new(directory.path(), || {});
        let (first, second) = (file(&store, &[b"a"]), file(&store, &[b"b"]));
        let other = Spilled::new(directory.path(), || {});
        let (third, fourth) = (file(&other, &[b"c"]), file(&store, &[b"d"]));
        assert_eq!(names(directory.path()).len(), 4);
        let again = store.adopt(first.file());
        drop((first, second));
        super::super::checkpoint::clean(directory.path(), &[], &[], None, Some(&store));
        assert_eq!(names(directory.path()), [again.file().file.clone(), fourth.file().file.clone()]);
        assert_eq!(again.read(0, 1).unwrap(), b"a");
        drop((third, fourth));
        super::super::checkpoint::clean(directory.path(), &[], &[], None, None);
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
