//! The data directory: one process at a time, and what lies where in it.
//!
//! ```text
//!   server.lock       locked (flock) by the process that owns the directory; its pid is inside
//!   metadata.redb     definitions, committed segments, offsets
//!   tables/<id>/      segments and dead letters of a table
//!   logs/<id>/        the log behind INSERT, COPY and HTTP push of a table
//!   pipelines/<id>/   checkpoints of a pipeline, and the log behind it
//!   functions/        modules of functions, by the hash of their content
//!   spill/            of running queries; emptied at start
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use tidemill_storage::ids::TableId;

use crate::server::Error;

/// How often, and how far apart, the lock is tried: a process that was killed keeps it until the system has taken its memory back.
const LOCK_ATTEMPTS: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where tables and pipelines have directories of their own.
const PARTS: [&str; 3] = ["tables", "logs", "pipelines"];

/// And where modules are.
const FUNCTIONS: &str = "functions";

/// A data directory that this process owns until it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory when it is not there. Fails when another process owns it and does not end within three seconds, naming
    /// that one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |action: &str, path: &Path, error: std::io::Error| {
            Error(format!("cannot {action} {}: {error}", path.display()))
        };
        fs::create_dir_all(path).map_err(|error| io("make the data directory", path, error))?;
        let path = path.canonicalize().map_err(|error| io("find", path, error))?;
        let lock_path = path.join("server.lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| io("open", &lock_path, error))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                return Err(Error(format!(
                    "the data directory {} is in use by process {}; stop that server first, or choose another --data-dir",
                    path.display(),
                    owner.trim()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(io("lock", &lock_path, error)),
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| io("write", &lock_path, error))?;
        let directory = Self { path, _lock: lock };
        for part in PARTS.into_iter().chain([FUNCTIONS]) {
            let part = directory.path.join(part);
            fs::create_dir_all(&part).map_err(|error| io("make", &part, error))?;
        }
        // Nobody else can be spilling here.
        let spill = directory.spill();
        if let Err(error) = fs::remove_dir_all(&spill)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(io("empty", &spill, error));
        }
        fs::create_dir_all(&spill).map_err(|error| io("make", &spill, error))?;
        Ok(directory)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> PathBuf {
        self.path.join("metadata.redb")
    }

    pub fn spill(&self) -> PathBuf {
        self.path.join("spill")
    }

    pub fn table(&self, id: TableId) -> PathBuf {
        self.path.join("tables").join(id.to_string())
    }

    pub fn log(&self, id: TableId) -> PathBuf {
        self.path.join("logs").join(id.to_string())
    }

    pub fn functions(&self) -> PathBuf {
        self.path.join(FUNCTIONS)
    }

    pub fn pipeline(&self, id: TableId) -> PathBuf {
        self.path.join("pipelines").join(id.to_string())
    }

    /// Deletes what belongs to tables and pipelines that are no more: a crash may come between a DROP and the deletion.
    pub fn remove_orphans(&self, known: &BTreeSet<TableId>) -> std::io::Result<()> {
        for part in PARTS {
            for entry in fs::read_dir(self.path.join(part))? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(TableId);
                // What has no number for a name is not ours.
                if id.is_some_and(|id| !known.contains(&id)) {
                    tracing::info!(path = %entry.path().display(), "deleting what a dropped table left");
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

fn try_lock(lock: &File) -> Result<(), TryLockError> {
    let mut attempt = 1;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                if attempt == 1 {
                    tracing::info!("another process has the data directory; waiting for its end");
                }
                attempt += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_owns_a_directory_and_orphans_go() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(&temporary.path().join("data")).unwrap();
        let error = DataDirectory::open(&temporary.path().join("data")).unwrap_err();
        assert!(error.0.contains(&format!("in use by process {}", std::process::id())), "{error}");
        // One whose owner was killed and is not quite gone yet.
        let dying = DataDirectory::open(&temporary.path().join("dying")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(LOCK_PAUSE * 3);
                drop(dying);
            });
            DataDirectory::open(&temporary.path().join("dying")).unwrap();
        });
        for id in [1, 2] {
            fs::create_dir_all(directory.table(TableId(id))).unwrap();
            fs::create_dir_all(directory.log(TableId(id))).unwrap();
        }
        fs::create_dir_all(directory.path().join("tables/mine")).unwrap();
        directory.remove_orphans(&BTreeSet::from([TableId(2)])).unwrap();
        let there = |path: std::path::PathBuf| path.try_exists().unwrap();
        assert!(!there(directory.table(TableId(1))) && !there(directory.log(TableId(1))));
        assert!(there(directory.table(TableId(2))) && there(directory.path().join("tables/mine")));
    }
}
