//! A committed segment whose file is missing or damaged: it keeps its place, and queries that need it fail with the reason.

use std::{ops::Range, sync::Arc};

use arrow::array::ArrayRef;

use super::{ColumnStats, Lineage, Segment, SegmentState};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups},
    ids::{ColumnId, OffsetRange, SegmentId},
    scalar::Scalar,
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
    upsert::Validity,
};

#[derive(Debug)]
pub struct QuarantinedSegment {
    id: SegmentId,
    lineage: Lineage,
    rows: u32,
    bytes: u64,
    schema: Arc<TableSchema>,
    offsets: Vec<OffsetRange>,
    /// Of the time column, so that queries about other times go on.
    time: Option<ColumnStats>,
    error: Error,
}

impl QuarantinedSegment {
    /// `rows`, `bytes`, `offsets` and `time_range` (of the schema's time column, where that is known) as they were committed; `error` is what
    /// every scan returns.
    pub fn new(
        id: SegmentId,
        rows: u32,
        bytes: u64,
        schema: Arc<TableSchema>,
        offsets: Vec<OffsetRange>,
        time_range: Option<(i64, i64)>,
        error: Error,
    ) -> Self {
        let time = time_range.filter(|_| rows > 1).map(|(min, max)| ColumnStats {
            min: Some(Scalar::Int(min)),
            max: Some(Scalar::Int(max)),
            // How many nulls there are is not known: some, but not all, proves nothing.
            nulls: 1,
            ..ColumnStats::default()
        });
        Self { id, lineage: Lineage::new(), rows, bytes, schema, offsets, time, error }
    }

    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl Segment for QuarantinedSegment {
    fn id(&self) -> SegmentId {
        self.id
    }

    fn state(&self) -> SegmentState {
        SegmentState::Quarantined
    }

    fn rows(&self) -> u32 {
        self.rows
    }

    fn lineage(&self) -> Lineage {
        self.lineage
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    fn offsets(&self) -> &[OffsetRange] {
        &self.offsets
    }

    fn stats(&self, column: ColumnId) -> Option<&ColumnStats> {
        self.time.as_ref().filter(|_| self.schema.time_column == Some(column))
    }

    fn encoding(&self, _column: ColumnId) -> Option<String> {
        None
    }

    fn take(&self, _columns: &[ColumnId], _rows: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(self.error.clone())
    }

    fn masked(self: Arc<Self>, _validity: Arc<Validity>) -> Arc<dyn Segment> {
        self
    }

    fn scan(
        self: Arc<Self>,
        _rows: Range<u32>,
        _request: Arc<ScanRequest>,
        _metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator> {
        Err(self.error.clone())
    }

    fn aggregate(
        self: Arc<Self>,
        _rows: Range<u32>,
        _request: Arc<AggregateRequest>,
        _metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        Err(self.error.clone())
    }

    fn aggregate_into(
        self: Arc<Self>,
        _rows: Range<u32>,
        _groups: MergedGroups,
        _metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        Err(self.error.clone())
    }
}
