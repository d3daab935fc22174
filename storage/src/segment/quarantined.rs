//! A committed segment whose file is missing or damaged: it keeps its place, and queries that need it fail with the reason.

use std::{ops::Range, sync::Arc};

use super::{ColumnStats, Segment, SegmentState};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation},
    ids::{ColumnId, OffsetRange, SegmentId},
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
};

#[derive(Debug)]
pub struct QuarantinedSegment {
    id: SegmentId,
    rows: u32,
    bytes: u64,
    schema: Arc<TableSchema>,
    offsets: Vec<OffsetRange>,
    error: Error,
}

impl QuarantinedSegment {
    /// `rows`, `bytes` and `offsets` as they were committed; `error` is what every scan returns.
    pub fn new(
        id: SegmentId,
        rows: u32,
        bytes: u64,
        schema: Arc<TableSchema>,
        offsets: Vec<OffsetRange>,
        error: Error,
    ) -> Self {
        Self { id, rows, bytes, schema, offsets, error }
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

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    fn offsets(&self) -> &[OffsetRange] {
        &self.offsets
    }

    fn stats(&self, _column: ColumnId) -> Option<&ColumnStats> {
        None
    }

    fn encoding(&self, _column: ColumnId) -> Option<String> {
        None
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
}
