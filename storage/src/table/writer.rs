//! The one writer of a partition.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::SchemaRef,
};

use super::Partition;
use crate::{
    Error, Result,
    ids::{OffsetRange, SegmentId},
    schema::TableSchema,
    segment::{Segment, SegmentState, consuming::ConsumingSegment, quarantined::QuarantinedSegment},
    upsert::{Provenance, Winners},
};

/// See the module.
#[derive(Debug)]
pub struct PartitionWriter {
    partition: Arc<Partition>,
    consuming: Arc<ConsumingSegment>,
    /// Of a table with a key.
    winners: Option<Winners>,
}

impl PartitionWriter {
    /// Begins with an empty consuming segment `next`, which is above the id of every segment the partition ever had. For tables without a key.
    pub fn new(partition: Arc<Partition>, schema: Arc<TableSchema>, next: SegmentId) -> Self {
        Self { partition, consuming: Arc::new(ConsumingSegment::new(next, schema)), winners: None }
    }

    /// The same, also for tables with a key: reads the keys of all rows that are in the partition, and decides which of them are valid. Of a
    /// segment that is damaged nobody knows which rows of others lose against its own, so that from then on every query needs it, and fails.
    pub fn open(partition: Arc<Partition>, schema: Arc<TableSchema>, next: SegmentId) -> Result<Self> {
        let Some(key) = partition.key.clone() else { return Ok(Self::new(partition, schema, next)) };
        let written = Arc::new(key.written(&schema));
        let mut winners = Winners::new(key, &schema)?;
        for segment in partition.view().segments() {
            if let Err(error) = winners.add(segment) {
                let (schema, offsets) = (Arc::clone(segment.schema()), segment.offsets().to_vec());
                let (id, rows, bytes) = (segment.id(), segment.rows(), segment.bytes());
                partition.put(Arc::new(QuarantinedSegment::new(id, rows, bytes, schema, offsets, None, error)));
            }
        }
        partition.publish(None, Some(winners.validities()));
        let consuming = Arc::new(ConsumingSegment::new(next, written));
        Ok(Self { partition, consuming, winners: Some(winners) })
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The consuming segment as readers see it now.
    pub fn consuming(&self) -> &ConsumingSegment {
        &self.consuming
    }

    /// Keys of the partition, deleted ones among them, and the bytes of memory that the map of them takes; nothing without a key.
    pub fn keys(&self) -> (u64, u64) {
        self.winners.as_ref().map_or((0, 0), |winners| (winners.keys(), winners.bytes()))
    }

    /// Appends rows and the offsets they came from; both are visible to every snapshot taken after the return. `batch` has the columns
    /// of the table's schema, in order. Each range must begin where the previous one of its stream ended. An
    /// empty batch moves offsets alone. For tables without a key.
    pub fn append(&mut self, batch: &RecordBatch, progress: &[OffsetRange]) -> Result<()> {
        if self.winners.is_some() {
            return Err(Error::Invalid("rows of a table with a key came from nowhere".into()));
        }
        self.consuming = Arc::new(self.consuming.with(batch, progress)?);
        self.publish();
        Ok(())
    }

    /// As [`Self::append`], for all tables; `provenance` has an entry for each row. In a table with a key the rows that lose by it, and those
    /// that lose against them, are not there for readers from the same moment on. An error leaves everything as it was.
    pub fn append_from(
        &mut self,
        batch: &RecordBatch,
        provenance: impl FnOnce() -> Provenance,
        progress: &[OffsetRange],
    ) -> Result<()> {
        self.prepare(batch, provenance, progress)?;
        self.publish();
        Ok(())
    }

    /// The same, not visible before [`Self::publish`], which must come before anything else.
    pub fn prepare(
        &mut self,
        batch: &RecordBatch,
        provenance: impl FnOnce() -> Provenance,
        progress: &[OffsetRange],
    ) -> Result<()> {
        let Some(winners) = &mut self.winners else {
            self.consuming = Arc::new(self.consuming.with(batch, progress)?);
            return Ok(());
        };
        let written = self.consuming.schema();
        let arrow = written.arrow();
        let columns = winners.with_provenance(batch, &provenance())?;
        let mut arriving = winners.arriving(written, &columns)?;
        let mut rows = batch_of(&arrow, columns, batch.num_rows())?;
        if let Some(wanted) = winners.wanted(&arriving) {
            rows = filter_record_batch(&rows, &wanted)?;
            arriving = winners.arriving(written, rows.columns())?;
        }
        let next = Arc::new(self.consuming.with(&rows, progress)?);
        if rows.num_rows() > 0 {
            winners.appended(Arc::clone(&next) as Arc<dyn Segment>, self.consuming.rows(), &arriving);
        }
        self.consuming = next;
        Ok(())
    }

    /// Shows readers what was prepared.
    pub fn publish(&mut self) {
        let consuming = Arc::clone(&self.consuming) as Arc<dyn Segment>;
        self.partition.publish(Some(consuming), self.winners.as_ref().map(Winners::validities));
    }

    /// Ends the consuming segment and begins the next one, under `schema`. The ended segment stays visible as *sealing* until
    /// [`Self::replace`] is told of its file. `None` when it has neither rows nor offsets; then the schema is changed in place.
    pub fn rotate(&mut self, schema: Arc<TableSchema>) -> Option<Arc<ConsumingSegment>> {
        if self.consuming.rows() == 0 && self.consuming.offsets().is_empty() {
            self.consuming = Arc::new(ConsumingSegment::new(self.consuming.id(), self.written(schema)));
            return None;
        }
        Some(self.end(schema))
    }

    /// The same, also when it has neither.
    pub fn end(&mut self, schema: Arc<TableSchema>) -> Arc<ConsumingSegment> {
        let ended = Arc::new(self.consuming.with_state(SegmentState::Sealing));
        self.partition.put(Arc::clone(&ended) as Arc<dyn Segment>);
        let next = SegmentId(ended.id().0 + 1);
        self.consuming = Arc::new(ConsumingSegment::new(next, self.written(schema)));
        ended
    }

    /// The schema that segments of the table's schema are written under.
    fn written(&self, schema: Arc<TableSchema>) -> Arc<TableSchema> {
        match &self.partition.key {
            Some(key) => Arc::new(key.written(&schema)),
            None => schema,
        }
    }

    /// Puts a segment in the place of the one that it was written from. `order` has for each of its rows which it was there, where that is another.
    /// An error leaves everything as it was.
    pub fn replace(&mut self, segment: Arc<dyn Segment>, order: Option<&[u32]>) -> Result<()> {
        let Some(winners) = &mut self.winners else {
            self.partition.put(segment);
            return Ok(());
        };
        winners.replace(Arc::clone(&segment), order)?;
        self.partition.publish(Some(segment), Some(winners.validities()));
        Ok(())
    }
}

fn batch_of(arrow: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(arrow), columns, &options)
        .map_err(|error| Error::Invalid(format!("a batch does not fit the table's columns: {error}")))
}
