//! Tables, partitions, and the snapshots that queries read.
//!
//! ```text
//! Table ── Partition 0 ── view ─► [segment][segment]…[sealing][consuming]      one pointer swap publishes a new view
//!       ├─ Partition 1 ── view ─► …
//! TableSnapshot = the schema and one view of each partition, taken once at the start of a query
//! ```
//!
//! What always holds: a view never changes; a row is in exactly one segment of a view; a segment that is sealed replaces the consuming
//! one it was written from in one swap, so that no reader sees its rows twice or not at all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use parking_lot::Mutex;

use crate::{
    Error, Result,
    ids::{OffsetRange, PartitionId, SegmentId, TableId},
    scan::{ScanPlan, ScanRequest, ScanUnit},
    schema::TableSchema,
    segment::{Segment, SegmentState, consuming::ConsumingSegment},
};

/// Rows a lane takes at a time.
const UNIT_ROWS: u32 = 256 * 1024;

#[derive(Debug)]
pub struct Table {
    id: TableId,
    schema: ArcSwap<TableSchema>,
    partitions: Vec<Arc<Partition>>,
}

impl Table {
    /// An empty table.
    pub fn new(id: TableId, schema: Arc<TableSchema>, partitions: u32) -> Self {
        Self {
            id,
            schema: ArcSwap::new(schema),
            partitions: (0..partitions).map(|id| Arc::new(Partition::new(PartitionId(id)))).collect(),
        }
    }

    pub fn id(&self) -> TableId {
        self.id
    }

    pub fn schema(&self) -> Arc<TableSchema> {
        self.schema.load_full()
    }

    /// From now on snapshots answer in `schema`. Writers rotate their consuming segment on their own.
    pub fn set_schema(&self, schema: Arc<TableSchema>) {
        self.schema.store(schema);
    }

    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    pub fn snapshot(&self) -> TableSnapshot {
        TableSnapshot {
            schema: self.schema(),
            views: self.partitions.iter().map(|partition| partition.view.load_full()).collect(),
        }
    }
}

#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    view: ArcSwap<PartitionView>,
    /// Held while a new view is made from the present one.
    edit: Mutex<()>,
}

impl Partition {
    fn new(id: PartitionId) -> Self {
        Self { id, view: ArcSwap::default(), edit: Mutex::new(()) }
    }

    pub fn id(&self) -> PartitionId {
        self.id
    }

    pub fn view(&self) -> Arc<PartitionView> {
        self.view.load_full()
    }

    /// Puts `segment` in the place of the one with its id, or at the end when there is none.
    pub fn put(&self, segment: Arc<dyn Segment>) {
        let _edit = self.edit.lock();
        let mut segments = self.view.load().segments.clone();
        match segments.iter_mut().find(|known| known.id() == segment.id()) {
            Some(known) => *known = segment,
            None => segments.push(segment),
        }
        self.view.store(Arc::new(PartitionView { segments }));
    }

    /// Takes segments out of every later view. Readers keep what they hold.
    pub fn remove(&self, ids: &[SegmentId]) {
        let _edit = self.edit.lock();
        let mut segments = self.view.load().segments.clone();
        segments.retain(|segment| !ids.contains(&segment.id()));
        self.view.store(Arc::new(PartitionView { segments }));
    }
}

/// The segments of one partition at one moment, in the order in which they were begun.
#[derive(Debug, Default)]
pub struct PartitionView {
    segments: Vec<Arc<dyn Segment>>,
}

impl PartitionView {
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<dyn Segment>> {
        self.segments.iter()
    }

    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.rows())).sum()
    }
}

/// What one query sees of a table.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    pub schema: Arc<TableSchema>,
    pub views: Vec<Arc<PartitionView>>,
}

impl TableSnapshot {
    pub fn rows(&self) -> u64 {
        self.views.iter().map(|view| view.rows()).sum()
    }

    /// The units that may hold rows the request selects.
    pub fn plan(&self, request: &ScanRequest) -> ScanPlan {
        let _ = &request.predicate;
        let mut plan = ScanPlan::default();
        for segment in self.views.iter().flat_map(|view| view.segments()) {
            plan.segments_total += 1;
            let mut start = 0;
            while start < segment.rows() {
                let end = segment.rows().min(start.saturating_add(UNIT_ROWS));
                plan.units.push(ScanUnit { segment: Arc::clone(segment), rows: start..end });
                start = end;
            }
        }
        plan
    }
}

/// The one writer of a partition.
#[derive(Debug)]
pub struct PartitionWriter {
    partition: Arc<Partition>,
    consuming: ConsumingSegment,
}

impl PartitionWriter {
    /// Begins with an empty consuming segment `next`, which is above the id of every segment the partition ever had.
    pub fn new(partition: Arc<Partition>, schema: Arc<TableSchema>, next: SegmentId) -> Self {
        Self { partition, consuming: ConsumingSegment::new(next, schema) }
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The consuming segment as readers see it now.
    pub fn consuming(&self) -> &ConsumingSegment {
        &self.consuming
    }

    /// Appends rows and the offsets they came from; both are visible to every snapshot taken after the return. `batch` has the columns
    /// of the consuming segment's schema, in order. Each range must begin where the previous one of its stream ended. An
    /// empty batch moves offsets alone.
    pub fn append(&mut self, batch: &RecordBatch, progress: &[OffsetRange]) -> Result<()> {
        let expected = self.consuming.schema().arrow();
        if batch.schema().fields().len() != expected.fields().len()
            || batch.schema().fields().iter().zip(expected.fields()).any(|(a, b)| a.data_type() != b.data_type())
        {
            return Err(Error::Invalid(format!(
                "a batch of {:?} does not fit the table's columns {expected:?}",
                batch.schema()
            )));
        }
        self.consuming = self.consuming.with(batch, progress)?;
        self.partition.put(Arc::new(self.consuming.clone()));
        Ok(())
    }

    /// Ends the consuming segment and begins the next one, under `schema`. The ended segment stays visible as *sealing* until
    /// [`Partition::put`] replaces it. `None` when it has neither rows nor offsets; then the schema is changed in place.
    pub fn rotate(&mut self, schema: Arc<TableSchema>) -> Option<Arc<ConsumingSegment>> {
        let id = self.consuming.id();
        if self.consuming.rows() == 0 && self.consuming.offsets().is_empty() {
            self.consuming = ConsumingSegment::new(id, schema);
            return None;
        }
        let ended = Arc::new(self.consuming.with_state(SegmentState::Sealing));
        self.partition.put(Arc::clone(&ended) as Arc<dyn Segment>);
        self.consuming = ConsumingSegment::new(SegmentId(id.0 + 1), schema);
        Some(ended)
    }
}
