//! Groups that memory has no room for, in files, by the hash of their keys.
//!
//! ```text
//! pane     runs, oldest first, and in memory what came since the last of them
//! run      stretch 0 │ stretch 1 │ …      groups by the first bits of their keys' hash, 2^bits stretches; a key is there once
//! given    part by part of the hashes: that of each run, then that of memory, merged and finished
//! ```
//!
//! So what is given takes memory for one part at a time. As many runs of one *level* as the store says become one of the next level, part by part, too: a row of state is
//! written again once a level. That is done beside the machine, which goes on with the runs that it has until the next time that the pane goes to files. What goes there, and when,
//! is said by an arrival ([`super::Arrival::Spill`]), so a machine that takes the same arrivals again has the same runs, and adds the same numbers in the same order.
//!
//! The machine knows no files. It is given a [`Store`]; what a picture has of a run is its file's name, length and checksum, and where its stretches are.

mod beside;
mod parts;
mod run;
mod share;
mod stretch;

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

pub(crate) use self::{
    beside::{Beside, GivenUp},
    parts::{Parted, Parting, hash_of, part_of},
    run::{Merging, Reader, Run, RunHead, Writing, join},
    share::Share,
};
use datafusion::common::DataFusionError;

use super::state_file::StateFile;
use crate::{Error, Result};

/// Where state goes that memory has no room for.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// Begins a file.
    fn create(&self) -> Result<Box<dyn Filling>>;

    /// The file that a picture names. It stays as long as what is returned.
    fn adopt(&self, file: &StateFile) -> Arc<dyn Kept>;

    /// Bytes of state, uncompressed, that a stretch is to have about.
    fn stretch_bytes(&self) -> usize {
        256 << 10
    }

    /// Bytes that a block of a table is to have about.
    fn block_bytes(&self) -> usize {
        4 << 10
    }

    /// Does work that nobody waits for.
    fn beside(&self, work: Box<dyn FnOnce() + Send>) -> Result<()>;

    /// So many runs, or tables, of a level become one.
    fn runs_max(&self) -> usize {
        8
    }
}

/// A file that is being written.
pub(crate) trait Filling {
    fn put(&mut self, bytes: &[u8]) -> Result<()>;

    fn finish(self: Box<Self>) -> Result<Arc<dyn Kept>>;
}

/// A file that was written. It is there as long as somebody has this, or a checkpoint names it.
pub(crate) trait Kept: fmt::Debug + Send + Sync {
    fn file(&self) -> &StateFile;

    /// For messages.
    fn path(&self) -> PathBuf;

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>>;

    /// At return it survives a power loss.
    fn sync(&self) -> Result<()>;
}

/// Those that are to become one, of files whose levels fall from the oldest to the newest: the first `most` of the lowest level that has so many.
pub(crate) fn full_level(levels: &[u8], most: usize) -> Option<Range<usize>> {
    let most = most.max(2);
    let mut end = levels.len();
    while let Some(level) = end.checked_sub(1).map(|last| levels[last]) {
        let same = levels[..end].iter().rev().take_while(|of| **of == level).count();
        if same >= most {
            return Some(end - same..end - same + most);
        }
        end -= same;
    }
    None
}

/// As operators say it; [`Error`] gets it back.
pub(crate) fn failed(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The number of bits of which a state of so many bytes has stretches of about the right size.
pub(crate) fn bits_for(bytes: usize, stretch_bytes: usize) -> u8 {
    let stretches = bytes.div_ceil(stretch_bytes.max(1)).max(1);
    (stretches.next_power_of_two().trailing_zeros() as u8).min(BITS_MAX)
}

/// Stretches of a run are 2 to the power of this at most.
const BITS_MAX: u8 = 8;
