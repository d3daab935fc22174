//! Rows whose bytes are to be in no file any more: what `CALL rt.forget` asks for.
//!
//! DELETE takes rows out of sight and leaves, of a table with a key, tombstones that have the key; older versions of a key lie in their segments until a
//! good part of these is stale. Here segments are written again for single rows, and without the tombstones among them: so an older row of such a key that
//! comes later still is seen as a new one. What tombstones have beaten before is lost for good, as the log is told.

use std::sync::Arc;

use tidemill_storage::{ids::SegmentId, row_set::RowSet, scan::Addresses};

use super::{TableIngest, partition::PartitionIngest, table::TableShared};
use crate::{
    Result,
    compaction::Why,
    dead_letters::{DeadLetter, DeadLetterReader},
    runtime::blocking,
};

impl TableIngest {
    /// Takes those of the rows that nobody sees out of their files, and all rows that statements deleted; how many segments were written again. Rows that
    /// readers see stay, and so do those that only lost against rows in memory: a crash would bring them back. Blocks.
    pub fn erase(&self, rows: &Addresses) -> Result<u64> {
        self.shared.erase(rows)
    }

    /// Takes dead letters of all sources away for good; how many. Blocks.
    pub async fn erase_letters(&self, is_one: impl Fn(&DeadLetter) -> bool + Clone + Send + 'static) -> Result<u64> {
        // Letters in memory belong to offsets that are not committed yet.
        self.seal().await?;
        let mut erased = 0;
        for partition in self.shared.partitions().iter() {
            let (task, is_one) = (Arc::clone(partition), is_one.clone());
            let (letters, wanted) = blocking(move || task.erase_letters(&is_one)).await?;
            if letters > 0 {
                partition.wait_sealed(wanted).await?;
            }
            erased += letters;
        }
        Ok(erased)
    }
}

impl TableShared {
    fn erase(&self, rows: &Addresses) -> Result<u64> {
        // The table's files stay as long as this is held.
        let closed = self.compacting.lock();
        if *closed {
            return Ok(0);
        }
        let mut written = 0;
        for partition in self.partitions().iter() {
            let (facts, _) = partition.compaction_facts();
            let is_purged = |id: SegmentId| facts.iter().any(|facts| facts.id == id && facts.deleted_us.is_some());
            for facts in facts.iter().filter(|facts| facts.deleted_us.is_some()) {
                let named = rows.segments().find(|(of, id, _)| (*of, *id) == (partition.id, facts.id));
                let named = named.map_or_else(RowSet::default, |(.., rows)| rows.clone());
                written += u64::from(partition.rewrite(self, Why::Purge, &[facts.id], &named)?);
            }
            for (_, id, rows) in rows.segments().filter(|(of, ..)| *of == partition.id) {
                if !is_purged(id) {
                    written += u64::from(partition.rewrite(self, Why::Erased, &[id], rows)?);
                }
            }
        }
        Ok(written)
    }
}

impl PartitionIngest {
    /// Returns how many letters went; the files without them are committed before [`Self::wait_sealed`] of the second number returns. Blocks.
    fn erase_letters(self: &Arc<Self>, is_one: &dyn Fn(&DeadLetter) -> bool) -> Result<(u64, u64)> {
        let _alone = self.replaying.lock();
        let mut erased = 0;
        for file in self.dead_letter_files() {
            let mut kept = DeadLetterReader::open(file.path())?.collect::<Result<Vec<_>>>()?;
            let before = kept.len();
            kept.retain(|letter| !is_one(letter));
            if kept.len() < before {
                erased += (before - kept.len()) as u64;
                self.keep_letters(&file, kept)?;
            }
        }
        Ok((erased, self.rotated()))
    }
}
