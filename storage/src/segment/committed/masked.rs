//! A committed segment some of whose rows are not valid: one view's eyes on it.
//!
//! Scans and aggregations have one more set of rows that all others are intersected with. What is known of all rows is known of more than the
//! valid ones, so statistics are bounds and what a star-tree says has to be set right ([`star::less`]); kept answers are out of reach.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use arrow::array::ArrayRef;

use super::{
    super::{ColumnStats, Lineage, Segment, SegmentState},
    CommittedSegment, aggregate, distinct,
    scan::CommittedScan,
    star,
};
use crate::{
    Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups, metadata},
    ids::{ColumnId, IndexId, OffsetRange, SegmentId},
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
    upsert::Validity,
};

#[derive(Debug)]
pub(super) struct MaskedSegment {
    segment: Arc<CommittedSegment>,
    validity: Arc<Validity>,
    /// By index in the schema.
    stats: OnceLock<Box<[ColumnStats]>>,
}

impl MaskedSegment {
    pub(super) fn new(segment: Arc<CommittedSegment>, validity: Arc<Validity>) -> Self {
        Self { segment, validity, stats: OnceLock::new() }
    }
}

impl ColumnStats {
    /// What these say of some of the rows: bounds, of `nulls` and `distinct` too.
    pub(crate) fn of_some(&self) -> Self {
        Self { exact: false, ..self.clone() }
    }
}

impl Segment for MaskedSegment {
    fn id(&self) -> SegmentId {
        self.segment.id
    }

    fn state(&self) -> SegmentState {
        self.segment.state()
    }

    fn rows(&self) -> u32 {
        self.segment.rows
    }

    fn lineage(&self) -> Lineage {
        self.segment.lineage()
    }

    fn bytes(&self) -> u64 {
        self.segment.bytes()
    }

    fn schema(&self) -> &Arc<TableSchema> {
        &self.segment.schema
    }

    fn offsets(&self) -> &[OffsetRange] {
        &self.segment.offsets
    }

    fn stats(&self, column: ColumnId) -> Option<&ColumnStats> {
        let index = self.segment.schema.index_of(column)?;
        let stats = self.stats.get_or_init(|| self.segment.stats.iter().map(ColumnStats::of_some).collect());
        stats.get(index)
    }

    fn encoding(&self, column: ColumnId) -> Option<String> {
        self.segment.encoding(column)
    }

    fn column_bytes(&self, column: ColumnId) -> Option<u64> {
        self.segment.column_bytes(column)
    }

    fn answering_tree(&self, request: &AggregateRequest) -> Option<(IndexId, u32)> {
        star::less::tree(&self.segment, &self.validity, request)
    }

    fn answers_by_metadata(&self, request: &AggregateRequest) -> bool {
        let validity = Some(self.validity.as_ref());
        distinct::is_known(&self.segment, validity, request)
            || metadata::answers_all(self.segment.as_ref(), validity, request)
    }

    fn take(&self, columns: &[ColumnId], rows: &[u32]) -> Result<Vec<ArrayRef>> {
        self.segment.take(columns, rows)
    }

    fn masked(self: Arc<Self>, validity: Arc<Validity>) -> Arc<dyn Segment> {
        Arc::new(Self::new(Arc::clone(&self.segment), validity))
    }

    fn scan(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator> {
        self.segment.contains(&rows)?;
        let segment = Arc::clone(&self.segment);
        Ok(Box::new(CommittedScan::new(segment, rows, Some(&self.validity), request, metrics)?))
    }

    fn aggregate(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<AggregateRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        self.segment.contains(&rows)?;
        aggregate::begin(&self.segment, rows, Some(&self.validity), &request, &metrics)
    }

    fn aggregate_into(
        self: Arc<Self>,
        rows: Range<u32>,
        groups: MergedGroups,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        self.segment.contains(&rows)?;
        aggregate::go_on_with(groups, &self.segment, rows, Some(&self.validity), &metrics)
    }
}
