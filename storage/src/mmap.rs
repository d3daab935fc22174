//! Files mapped into memory, and what happens when one shrinks under us.
//!
//! A mapped file whose bytes go away (truncated by somebody, or on a disk that fails) raises SIGBUS in whoever reads it. That must not
//! end the server. So every map is entered in a process-wide registry, and one signal handler looks there:
//!
//! ```text
//! read of a page that is gone ─► SIGBUS ─► handler: is the address in one of our maps?
//!      yes ─► raise the map's poison flag, put a page of zeros there, return: the read goes on and yields zeros
//!      no  ─► put the previous handler back and let the fault happen again: not ours to hide
//! ```
//!
//! What always holds: the poison flag is up before a zero can be read, so whoever reads bytes *and then* finds
//! [`MappedFile::check`] to be `Ok` has read true bytes. Whoever hands out bytes of a map (or a [`Buffer`] of it) checks after the last read.
//!
//! The registry only grows (blocks of slots that are used again, never freed), so that the handler can walk it without a lock: it may
//! neither wait nor allocate.
#![expect(unsafe_code, reason = "mapping memory and handling a signal; see the SAFETY comments")]

use std::{
    fs::File,
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    },
};

use arrow::buffer::Buffer;
use memmap2::{Mmap, MmapMut};
use parking_lot::Mutex;

use crate::{Error, Result};

/// A file mapped read-only. The file may be deleted while it is mapped; it must not be changed.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    slot: &'static Slot,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file. An empty file is `Corrupt`: no file of ours is empty.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        install_handler();
        let file = File::open(path).map_err(|error| Error::io("open", path, &error))?;
        let length = file.metadata().map_err(|error| Error::io("read the length of", path, &error))?.len();
        if length == 0 {
            return Err(Error::corrupt(path, "file", "a segment", "0 bytes"));
        }
        // SAFETY: the map is read-only and private to this type. Segment files are written under another name, synced and only then
        // renamed to the name that is opened; nothing in this program writes to them afterwards. Should somebody else shrink one,
        // the handler below turns the fault into zeros and a raised flag.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io("map", path, &error))?;
        let start = map.as_ptr() as usize;
        let slot = register(start, start + map.len());
        Ok(Arc::new(Self { path: path.to_owned(), slot, map }))
    }

    /// Maps these bytes in a file of the directory that has no name and goes with the map. Errors: `Io`, when there is no room for them too.
    pub fn unnamed(directory: &Path, bytes: &[u8]) -> Result<Arc<Self>> {
        install_handler();
        let (mut file, path) = nameless(directory)?;
        file.write_all(bytes).map_err(|error| Error::io("write", &path, &error))?;
        // SAFETY: the map is read-only; the file was made here and has no name, so nobody else writes to it or shrinks it.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io("map", &path, &error))?;
        let start = map.as_ptr() as usize;
        let slot = register(start, start + map.len());
        Ok(Arc::new(Self { path, slot, map }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when it was mapped.
    pub fn length(&self) -> usize {
        self.map.len()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// A part of the file as an Arrow buffer, which keeps the map alive. `None` when the range is not inside the file.
    pub fn buffer(self: &Arc<Self>, range: Range<usize>) -> Option<Buffer> {
        let bytes = self.map.get(range)?;
        let owner: Arc<Self> = Arc::clone(self);
        let start = NonNull::from(bytes).cast::<u8>();
        // SAFETY: `start` and the length are those of a live slice of the map. `owner` holds the map, which is neither moved nor unmapped
        // before the last clone of the buffer drops it, and nothing writes through it.
        Some(unsafe { Buffer::from_custom_allocation(start, bytes.len(), owner) })
    }

    /// Tells the kernel that a range is about to be read. A hint: errors do not matter.
    pub fn will_need(&self, range: Range<usize>) {
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
    }

    /// Whether a read of this map ever failed. Never goes back to false.
    pub fn is_poisoned(&self) -> bool {
        // The fence keeps the reads of map bytes before this load.
        fence(Ordering::SeqCst);
        self.slot.poisoned.load(Ordering::SeqCst)
    }

    /// `Ok` when everything read from this map so far was really in the file.
    pub fn check(&self) -> Result<()> {
        if self.is_poisoned() { Err(Error::Poisoned { path: self.path.clone() }) } else { Ok(()) }
    }
}

impl Drop for MappedFile {
    /// Leaves the registry; the map itself is undone after this, when its field is dropped.
    fn drop(&mut self) {
        unregister(self.slot);
    }
}

/// Memory, zeros at first, whose pages the kernel may write to a file and take away until they are asked for. The file has no name and goes with it.
#[derive(Debug)]
pub struct FileMemory {
    directory: PathBuf,
    slot: &'static Slot,
    map: MmapMut,
    pairs: usize,
}

impl FileMemory {
    /// So many pairs of words in a file of the directory. Errors: `Io` when there is no room for them, which is taken at once.
    pub fn new(directory: &Path, pairs: usize) -> Result<Self> {
        install_handler();
        let (file, path) = nameless(directory)?;
        let bytes = (pairs * size_of::<[u64; 2]>()).max(1) as u64;
        reserve(&file, bytes).map_err(|error| Error::io("make room for", &path, &error))?;
        // SAFETY: the file was made here and has no name, so nobody else writes to it or shrinks it; the map is private to this type. What a disk
        // does not give back the handler below turns into zeros and a raised flag.
        let map = unsafe { MmapMut::map_mut(&file) }.map_err(|error| Error::io("map", &path, &error))?;
        // A hint: errors do not matter.
        let _ = map.advise(memmap2::Advice::Random);
        let start = map.as_ptr() as usize;
        let slot = register(start, start + map.len());
        Ok(Self { directory: directory.to_owned(), slot, map, pairs })
    }

    pub fn pairs(&self) -> &[[u64; 2]] {
        // SAFETY: any bytes are words, and a map begins at a page.
        let (_, pairs, _) = unsafe { self.map.align_to() };
        &pairs[..self.pairs]
    }

    pub fn pairs_mut(&mut self) -> &mut [[u64; 2]] {
        // SAFETY: any bytes are words, and any words are bytes; a map begins at a page.
        let (_, pairs, _) = unsafe { self.map.align_to_mut() };
        &mut pairs[..self.pairs]
    }

    /// `Ok` when all that was read so far was really there.
    pub fn check(&self) -> Result<()> {
        // The fence keeps the reads of map bytes before this load.
        fence(Ordering::SeqCst);
        match self.slot.poisoned.load(Ordering::SeqCst) {
            true => Err(Error::Poisoned { path: self.directory.clone() }),
            false => Ok(()),
        }
    }
}

impl Drop for FileMemory {
    fn drop(&mut self) {
        unregister(self.slot);
    }
}

/// A new file of the directory that has no name any more, and the name it had.
fn nameless(directory: &Path) -> Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}.nameless.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|error| Error::io("create", &path, &error))?;
    std::fs::remove_file(&path).map_err(|error| Error::io("delete", &path, &error))?;
    Ok((file, path))
}

/// Makes the file so long, with room on the disk, so that writing to a map of it finds some.
fn reserve(file: &File, bytes: u64) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let length = libc::off_t::try_from(bytes).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        // SAFETY: a plain call with the descriptor of an open file.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 => Ok(()),
            code => Err(std::io::Error::from_raw_os_error(code)),
        }
    }
    #[cfg(not(target_os = "linux"))]
    file.set_len(bytes)
}

/// One entry of the registry. `version` is odd while `start` and `end` change (a sequence lock whose reader is the handler).
#[derive(Debug)]
struct Slot {
    version: AtomicU64,
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    fn set(&self, start: usize, end: usize) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the address is inside. A slot that is being changed belongs to a map that nobody reads yet, or any more.
    fn contains(&self, address: usize) -> bool {
        let before = self.version.load(Ordering::SeqCst);
        let inside = self.start.load(Ordering::SeqCst) <= address && address < self.end.load(Ordering::SeqCst);
        inside && before.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == before
    }
}

const BLOCK_SLOTS: usize = 256;

/// Slots that are never freed, in a list that only grows at its head.
struct Block {
    slots: [Slot; BLOCK_SLOTS],
    next: *const Block,
}

static HEAD: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

fn register(start: usize, end: usize) -> &'static Slot {
    let mut free = FREE.lock();
    let slot = free.pop().unwrap_or_else(|| {
        let block = Box::leak(Box::new(Block {
            slots: [const { Slot::new() }; BLOCK_SLOTS],
            next: HEAD.load(Ordering::SeqCst),
        }));
        HEAD.store(ptr::from_mut(block), Ordering::SeqCst);
        let (first, others) = block.slots.split_first().expect("invariant: a block has slots");
        free.extend(others);
        first
    });
    slot.poisoned.store(false, Ordering::SeqCst);
    slot.set(start, end);
    slot
}

fn unregister(slot: &'static Slot) {
    slot.set(0, 0);
    FREE.lock().push(slot);
}

/// Safe in a signal handler: only atomic loads and reads of memory that is never freed.
fn find(address: usize) -> Option<&'static Slot> {
    let mut block: *const Block = HEAD.load(Ordering::SeqCst);
    // SAFETY: blocks are leaked, so a pointer to one is valid for ever; they are only shared, and their slots are atomics.
    while let Some(present) = unsafe { block.as_ref() } {
        if let Some(slot) = present.slots.iter().find(|slot| slot.contains(address)) {
            return Some(slot);
        }
        block = present.next;
    }
    None
}

/// What SIGBUS did before we came; null until known.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: plain calls of libc with pointers to live values. The handler is async-signal-safe (see there). It is asked to run on the
        // alternative stack, which the standard library sets up for each of its threads.
        unsafe {
            if let Ok(bytes) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) {
                PAGE_BYTES.store(bytes, Ordering::SeqCst);
            }
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous) == 0 {
                PREVIOUS.store(Box::leak(Box::new(previous)), Ordering::SeqCst);
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) != 0 {
                tracing::warn!("no handler for SIGBUS: a segment file that shrinks will end the process");
            }
        }
    });
}

/// Runs where the fault was. Only async-signal-safe things: atomics, `mmap`, `sigaction`, `raise`; `errno` is kept.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid `info` to a handler installed with SA_SIGINFO; `si_addr` is meaningful for a fault (code above 0).
    let (fault, address) = unsafe { ((*info).si_code > 0, (*info).si_addr() as usize) };
    if fault && let Some(slot) = find(address) {
        // First the flag, then the zeros: nobody may read a zero and find the flag down.
        slot.poisoned.store(true, Ordering::SeqCst);
        if put_zeros(address) {
            return;
        }
    }
    let previous = PREVIOUS.load(Ordering::SeqCst);
    // SAFETY: `previous` is null or a leaked, fully written action. After this the fault happens again under the previous handler;
    // a signal that a process sent does not happen again by itself, so it is raised once more.
    unsafe {
        if previous.is_null() {
            libc::signal(signal, libc::SIG_DFL);
        } else {
            libc::sigaction(signal, previous, ptr::null_mut());
        }
        if !fault {
            libc::raise(signal);
        }
    }
}

/// Maps a page of zeros over the one that holds `address`.
fn put_zeros(address: usize) -> bool {
    let bytes = PAGE_BYTES.load(Ordering::SeqCst);
    let page = address & !(bytes - 1);
    // SAFETY: the page is inside a map of ours (the caller looked it up), which stays mapped because the faulting thread borrows it; so this
    // replaces only our own pages. They were readable and stay so, and those of a map that is written to stay writable. `errno` belongs to the code that was interrupted.
    unsafe {
        let errno = *errno_location();
        let done = libc::mmap(
            page as *mut libc::c_void,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        *errno_location() = errno;
        done != libc::MAP_FAILED
    }
}

fn errno_location() -> *mut libc::c_int {
    // SAFETY: returns the address of the calling thread's errno; always valid.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::__errno_location()
    }
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    unsafe {
        libc::__error()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn file(bytes: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7u8; bytes]).unwrap();
        (dir, path)
    }

    fn shrink(path: &Path, to: u64) {
        OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
    }

    #[test]
    fn a_map_reads_the_file_and_outlives_its_name() {
        let (dir, path) = file(100_000);
        let map = MappedFile::open(&path).unwrap();
        let buffer = map.buffer(10..90_000).unwrap();
        assert!(map.buffer(10..100_001).is_none());
        drop(map);
        drop(dir);
        assert!(buffer.iter().all(|byte| *byte == 7) && buffer.len() == 89_990);
    }

    #[test]
    fn a_file_that_shrinks_poisons_its_own_map_only() {
        let (_dir, path) = file(100_000);
        let (_dir2, sound) = file(100_000);
        let map = MappedFile::open(&path).unwrap();
        let other = MappedFile::open(&sound).unwrap();
        assert!(map.check().is_ok());
        shrink(&path, 4096);
        assert_eq!(map.bytes()[50_000], 0);
        assert!(matches!(map.check(), Err(Error::Poisoned { path: p }) if p == path));
        assert_eq!(map.bytes()[10], 7);
        assert_eq!(other.bytes()[99_999], 7);
        assert!(other.check().is_ok());
        // The slot is free again and clean for the next map.
        drop(map);
        let again = MappedFile::open(&sound).unwrap();
        assert!(again.check().is_ok());
    }

    #[test]
    fn many_maps_come_and_go() {
        let (_dir, path) = file(5000);
        let maps: Vec<_> = (0..2 * BLOCK_SLOTS + 3).map(|_| MappedFile::open(&path).unwrap()).collect();
        for map in &maps {
            let start = map.bytes().as_ptr() as usize;
            assert!(find(start).is_some_and(|slot| ptr::eq(slot, map.slot)));
            assert!(find(start + 4999).is_some_and(|slot| ptr::eq(slot, map.slot)));
        }
    }

    #[test]
    fn memory_in_a_file_is_as_other_memory_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for pairs in [0, 1, 100_000] {
            let mut memory = FileMemory::new(dir.path(), pairs).unwrap();
            assert_eq!(memory.pairs(), vec![[0; 2]; pairs]);
            for (at, pair) in memory.pairs_mut().iter_mut().enumerate() {
                *pair = [at as u64, u64::MAX];
            }
            assert!(memory.pairs().iter().enumerate().all(|(at, pair)| *pair == [at as u64, u64::MAX]));
            assert!(memory.check().is_ok());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(matches!(FileMemory::new(&dir.path().join("none"), 1), Err(Error::Io { .. })));
    }

    #[test]
    fn memory_whose_file_cannot_be_read_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = FileMemory::new(dir.path(), 100_000).unwrap();
        memory.pairs_mut()[50_000] = [1, 1];
        // As a disk that does not give a page back.
        assert!(put_zeros_where(&memory, 50_000));
        assert_eq!(memory.pairs()[50_000], [0, 0]);
        memory.pairs_mut()[50_000] = [2, 2];
        assert!(matches!(memory.check(), Err(Error::Poisoned { .. })));
    }

    fn put_zeros_where(memory: &FileMemory, pair: usize) -> bool {
        let address = memory.map.as_ptr() as usize + pair * 16;
        let slot = find(address).unwrap();
        slot.poisoned.store(true, Ordering::SeqCst);
        put_zeros(address)
    }

    #[test]
    fn an_empty_file_is_refused() {
        let (_dir, path) = file(0);
        assert!(matches!(MappedFile::open(&path), Err(Error::Corrupt { .. })));
    }

    /// A fault outside our maps must still end the process: this test runs itself as a child.
    #[test]
    fn a_fault_that_is_not_ours_still_ends_the_process() {
        const KEY: &str = "TIDEMILL_TEST_SIGBUS";
        if std::env::var_os(KEY).is_some() {
            install_handler();
            let (_dir, path) = file(100_000);
            let file = File::open(&path).unwrap();
            // SAFETY: a test's own file.
            let map = unsafe { Mmap::map(&file) }.unwrap();
            shrink(&path, 1);
            let byte = map[50_000];
            panic!("read {byte} from nothing");
        }
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "mmap::tests::a_fault_that_is_not_ours_still_ends_the_process"])
            .env(KEY, "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGBUS));
    }
}
