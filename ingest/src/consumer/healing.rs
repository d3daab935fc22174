//! A segment that turned out damaged, put right by a copy of it.

use std::sync::Arc;

use tidemill_storage::{
    Error as StorageError,
    ids::SegmentId,
    segment::{
        Segment, SegmentState,
        committed::{CommittedSegment, Expected, open_watched},
    },
};

use super::{partition::PartitionIngest, table::TableShared};
use crate::{
    Result,
    commit::SegmentRecord,
    deep_store::segments::object_in_partition,
    quarantine::{self, Alarm},
    recovery,
};

impl TableShared {
    /// Fetches segments that are damaged and of which there is a copy; which were. Blocks.
    pub(crate) fn heal(
        &self,
        partition: &PartitionIngest,
        has_copy: impl Fn(&SegmentRecord) -> bool,
    ) -> Result<Vec<SegmentId>> {
        let view = partition.partition.view();
        let is_damaged = |segment: &&Arc<dyn Segment>| {
            segment.state() == SegmentState::Quarantined
                // The key map does not know the keys of one that was damaged at the start; the next start fetches it.
                && (self.table.key().is_none() || segment.as_committed().is_some())
        };
        let damaged: Vec<SegmentId> = view.segments().filter(is_damaged).map(|segment| segment.id()).collect();
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let mut healed = Vec::new();
        // Nobody puts another segment in its place meanwhile.
        let closed = self.compacting.lock();
        let records = partition.segment_records();
        for record in records.iter().filter(|record| damaged.contains(&record.id) && has_copy(record)) {
            if *closed {
                break;
            }
            partition.heal(self, record)?;
            healed.push(record.id);
        }
        Ok(healed)
    }
}

impl PartitionIngest {
    fn heal(&self, table: &TableShared, record: &SegmentRecord) -> Result<()> {
        let Some(store) = self.runtime.copies_of(self.table, self.id) else { return Ok(()) };
        let path = self.directory.join(&record.file);
        // Readers keep the pages of the damaged file.
        store.fetch(&[object_in_partition(record)], &path)?;
        let expected = Expected { id: record.id, bytes: record.bytes, checksum: record.checksum };
        let alarm = Alarm::watcher(&self.runtime, self.table, &self.table_name, self.id, &self.directory);
        let segment = open_watched(&path, &expected, alarm)?;
        segment.as_committed().map_or(Ok(()), CommittedSegment::verify)?;
        if segment.rows() != record.rows {
            return Err(StorageError::corrupt(&path, "rows", record.rows, segment.rows()).into());
        }
        recovery::attach(&segment, &table.table.indexes());
        self.state.lock().writer.heal(segment);
        quarantine::remove_note(&self.directory, &record.file);
        Ok(())
    }
}
