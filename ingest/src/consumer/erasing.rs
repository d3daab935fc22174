//! Rows whose bytes are to be in no file any more: what `CALL rt.forget` asks for.
//!
//! DELETE takes rows out of sight and leaves, of a table with a key, tombstones that have the key; older versions of a key lie in their segments until a
//! good part of these is stale. Here segments are written again for single rows. Tombstones among them go where the value is one that tombstones keep (of the key, of the version):
//! then an older row of such a key that comes later still is seen as a new one, and what they have beaten before is lost for good, as the log is told. Where they do not keep it
//! they stay, with nothing in its place.

use std::sync::Arc;

use tidemill_storage::{
    ids::{PartitionId, SegmentId},
    row_set::RowSet,
    scan::Addresses,
    segment::Segment,
};

use super::{TableIngest, partition::PartitionIngest, table::TableShared};
use crate::{
    Result,
    compaction::Why,
    dead_letters::{DeadLetter, DeadLetterReader},
    runtime::blocking,
};

/// What became of rows that are to be erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Segments that were written again.
    pub segments: u64,
    /// Rows that stay where they are: readers see them, or they lost against rows in memory alone, so that a crash would bring them back.
    pub held: u64,
}

impl TableIngest {
    /// Takes those of the rows that nobody sees out of their files, all rows that statements deleted, and what is left of columns that were dropped and had the name.
    /// Blocks.
    pub fn erase(&self, rows: &Addresses, column: &str) -> Result<Erased> {
        self.shared.erase(rows, column)
    }

    /// Whether files have a column of the name that was dropped.
    pub fn had_column(&self, column: &str) -> bool {
        let partitions = self.shared.partitions();
        partitions.iter().any(|partition| !partition.with_dropped(&self.shared, column).is_empty())
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
    fn erase(&self, rows: &Addresses, column: &str) -> Result<Erased> {
        let mut erased = Erased::default();
        // The table's files stay as long as this is held.
        let closed = self.compacting.lock();
        if *closed {
            return Ok(erased);
        }
        let schema = self.table.schema();
        let id = schema.columns.iter().find(|known| known.name == column).map(|known| known.id);
        let is_kept = self.table.key().zip(id).is_some_and(|(key, id)| key.needs(id));
        for partition in self.partitions().iter() {
            let (facts, _) = partition.compaction_facts();
            let mut todo: Vec<(SegmentId, Why)> =
                facts.iter().filter(|facts| facts.deleted_us.is_some()).map(|facts| (facts.id, Why::Purge)).collect();
            let named = rows.segments().filter(|(of, ..)| *of == partition.id).map(|(_, id, _)| id);
            for id in named.chain(partition.with_dropped(self, column)) {
                if !todo.iter().any(|(known, _)| *known == id) {
                    todo.push((id, Why::Erased));
                }
            }
            for (id, why) in todo {
                let of_segment = of(rows, partition.id, id);
                erased.held += partition.held_back(id, &of_segment)?;
                let dropped = if is_kept { of_segment } else { RowSet::default() };
                erased.segments += u64::from(partition.rewrite(self, why, &[id], &dropped)?);
            }
        }
        Ok(erased)
    }
}

fn of(rows: &Addresses, partition: PartitionId, segment: SegmentId) -> RowSet {
    let named = rows.segments().find(|(of, id, _)| (*of, *id) == (partition, segment));
    named.map_or_else(RowSet::default, |(.., rows)| rows.clone())
}

impl PartitionIngest {
    /// Committed segments that have a column of the name which the table has no more.
    fn with_dropped(&self, table: &TableShared, column: &str) -> Vec<SegmentId> {
        let schema = table.table.schema();
        let had = |segment: &&Arc<dyn Segment>| {
            segment.as_committed().is_some()
                && segment
                    .schema()
                    .columns
                    .iter()
                    .any(|known| known.name == column && schema.column(known.id).is_none())
        };
        self.partition.view().segments().filter(had).map(|segment| segment.id()).collect()
    }

    /// How many of the rows stay for readers, or for what a crash would leave.
    fn held_back(&self, id: SegmentId, rows: &RowSet) -> Result<u64> {
        let view = self.partition.view();
        let beaten = self.state.lock().writer.needed(id)?.beaten;
        let is_seen = |row: u32| view.validities().of(id).is_none_or(|validity| validity.is_valid(row));
        Ok(rows.iter().filter(|row| is_seen(*row) || beaten.contains(*row)).count() as u64)
    }

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
