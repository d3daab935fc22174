//! What key maps are kept in: memory, up to a bound for all of them together, and files beyond it.
//!
//! A file is mapped, so that a map works in it as in memory; the kernel keeps those of its pages in memory that are asked for. It has no name and says
//! nothing to anybody: a start makes maps from segments and checkpoints. Each shard of a map is in the one or the other, and it is decided anew when it is
//! resized, so that maps go to files bit by bit.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Result, mmap::FileMemory};

/// An entry of a map as two words; no entry is all zeros, which is what a page holds that could not be read again.
pub(super) type Words = [u64; 2];

/// Less than a page of a file takes as much room as memory.
const FILE_BYTES_MIN: u64 = 4096;

/// What the key maps of several tables take, and where they go beyond their bound.
#[derive(Debug)]
pub struct KeyMemory {
    /// Beyond so many bytes files are used, if there is a directory for them.
    bytes_max: u64,
    directory: Option<PathBuf>,
    in_memory: AtomicU64,
    in_files: AtomicU64,
}

impl KeyMemory {
    /// Without a bound.
    pub fn unbounded() -> Arc<Self> {
        Arc::new(Self {
            bytes_max: u64::MAX,
            directory: None,
            in_memory: AtomicU64::new(0),
            in_files: AtomicU64::new(0),
        })
    }

    /// At most so many bytes of memory; beyond them, files in the directory.
    pub fn bounded(bytes_max: u64, directory: &Path) -> Arc<Self> {
        let directory = Some(directory.to_owned());
        Arc::new(Self { bytes_max, directory, in_memory: AtomicU64::new(0), in_files: AtomicU64::new(0) })
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of memory that all maps take.
    pub fn in_memory(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Bytes of files that they take beside it.
    pub fn in_files(&self) -> u64 {
        self.in_files.load(Ordering::Relaxed)
    }

    /// Takes bytes of memory if they are within the bound.
    fn take(&self, bytes: u64) -> bool {
        let within = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= self.bytes_max);
        self.in_memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }
}

/// Places of a shard, zeros at first.
#[derive(Debug)]
pub(super) struct Entries {
    kept: Kept,
    memory: Arc<KeyMemory>,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<Words>),
    File(FileMemory),
}

impl Entries {
    pub(super) fn new(memory: &Arc<KeyMemory>, length: usize) -> Self {
        Self { kept: Self::kept(memory, length), memory: Arc::clone(memory) }
    }

    fn kept(memory: &KeyMemory, length: usize) -> Kept {
        let bytes = (length * size_of::<Words>()) as u64;
        if memory.take(bytes) {
            return Kept::Memory(vec![[0; 2]; length]);
        }
        let directory = memory.directory.as_ref().filter(|_| bytes >= FILE_BYTES_MIN);
        match directory.map(|directory| FileMemory::new(directory, length)) {
            Some(Ok(file)) => {
                memory.in_files.fetch_add(bytes, Ordering::Relaxed);
                Kept::File(file)
            }
            // Nothing is lost for want of a file: memory it is, beyond its bound, of which there is an event.
            failed => {
                if let Some(Err(error)) = failed {
                    tracing::warn!(%error, "a key map stays in memory beyond memory.key_map_bytes");
                }
                memory.in_memory.fetch_add(bytes, Ordering::Relaxed);
                Kept::Memory(vec![[0; 2]; length])
            }
        }
    }

    /// The same memory for others.
    pub(super) fn memory(&self) -> &Arc<KeyMemory> {
        &self.memory
    }

    pub(super) fn words(&self) -> &[Words] {
        match &self.kept {
            Kept::Memory(words) => words,
            Kept::File(file) => file.pairs(),
        }
    }

    pub(super) fn words_mut(&mut self) -> &mut [Words] {
        match &mut self.kept {
            Kept::Memory(words) => words,
            Kept::File(file) => file.pairs_mut(),
        }
    }

    /// Bytes, and how many of them are in a file.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let bytes = size_of_val(self.words()) as u64;
        (bytes, if matches!(self.kept, Kept::File(_)) { bytes } else { 0 })
    }

    /// `Ok` when all that was read was there.
    pub(super) fn check(&self) -> Result<()> {
        match &self.kept {
            Kept::Memory(_) => Ok(()),
            Kept::File(file) => file.check(),
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let (bytes, in_file) = self.bytes();
        self.memory.in_files.fetch_sub(in_file, Ordering::Relaxed);
        self.memory.in_memory.fetch_sub(bytes - in_file, Ordering::Relaxed);
    }
}
