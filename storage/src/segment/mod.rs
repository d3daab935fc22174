//! A segment: a run of rows of one partition. *Consuming* in memory and growing, then *sealed* into one immutable file.
//! Both answer through the trait [`Segment`].

pub mod builder;
mod chunk;
pub mod committed;
mod compact;
pub mod consuming;
pub(crate) mod format;
pub mod inspect;
mod lineage;
mod order;
pub mod quarantined;

use std::{cmp::Ordering, fmt, ops::Range, sync::Arc};

use arrow::array::ArrayRef;

pub use self::lineage::Lineage;
use crate::{
    Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups},
    ids::{ColumnId, IndexId, OffsetRange, SegmentId},
    scalar::Scalar,
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
    upsert::Validity,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentState {
    /// In memory and growing.
    Consuming,
    /// No longer growing; its file is being written or waits for its commit.
    Sealing,
    /// In the metadata log.
    Committed,
    /// Its bytes are damaged; queries that need it fail.
    Quarantined,
}

impl SegmentState {
    /// As `rt.segments.state` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consuming => "consuming",
            Self::Sealing => "sealing",
            Self::Committed => "committed",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Statistics of one column in one segment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnStats {
    /// Smallest and largest non-null value; `None` when all are null, or when they are not kept (arrays, JSONB). A long text may be cut: then `min` is a lower and `max` an upper bound and `exact` is false.
    pub min: Option<Scalar>,
    pub max: Option<Scalar>,
    pub exact: bool,
    pub nulls: u64,
    /// Distinct non-null values where they were counted (dictionary-encoded columns); of a masked segment as `nulls`: of all its rows, so at most so many.
    pub distinct: Option<u64>,
    /// Values never decrease from row to row, nulls aside.
    pub sorted: bool,
}

impl ColumnStats {
    /// The statistics of both runs of rows together, apart from `distinct` and `sorted`. Bounds must be kept for both or neither.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let pick = |a: &Option<Scalar>, b: &Option<Scalar>, keep: fn(Ordering) -> bool| match (a, b) {
            (Some(a), Some(b)) => Some(if a.compare(b).is_none_or(keep) { a.clone() } else { b.clone() }),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self {
            min: pick(&self.min, &other.min, Ordering::is_le),
            max: pick(&self.max, &other.max, Ordering::is_ge),
            exact: self.exact && other.exact,
            nulls: self.nulls + other.nulls,
            distinct: None,
            sorted: false,
        }
    }
}

/// An immutable run of rows, whatever it is kept in.
pub trait Segment: Send + Sync + fmt::Debug {
    fn id(&self) -> SegmentId;
    fn state(&self) -> SegmentState;
    /// Rows; they are numbered from 0 without gaps.
    fn rows(&self) -> u32;
    /// Of segments with the same one, row n of one is row n of the other as far as both have it: they are versions of one run of rows.
    fn lineage(&self) -> Lineage;
    /// Bytes of memory (consuming, sealing) or of file (committed).
    fn bytes(&self) -> u64;
    /// The schema that the rows were written under.
    fn schema(&self) -> &Arc<TableSchema>;
    /// Which messages of which streams the rows came from.
    fn offsets(&self) -> &[OffsetRange];
    /// `None` when nothing is known about the column, for instance because the segment is older than it.
    fn stats(&self, column: ColumnId) -> Option<&ColumnStats>;
    /// One word per column for `rt.segments`: how its values are kept.
    fn encoding(&self, column: ColumnId) -> Option<String>;
    /// Bytes of the column in the segment's file; `None` where it has no file or no such column.
    fn column_bytes(&self, _column: ColumnId) -> Option<u64> {
        None
    }
    /// The rows of `rows` that the request selects, in row order, in batches of the request's output schema. No batch is empty.
    fn scan(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator>;
    /// The values of some rows, which ascend, in the types that they were written in. Errors: `Invalid` for a column that the segment does not
    /// have.
    fn take(&self, columns: &[ColumnId], rows: &[u32]) -> Result<Vec<ArrayRef>>;
    /// The same rows and numbers, of which only the valid ones are there for scans and aggregations.
    fn masked(self: Arc<Self>, validity: Arc<Validity>) -> Arc<dyn Segment>;
    /// The segment as one that has a file, beside which its indexes lie; `None` for rows in memory, for damaged segments and for masked ones.
    fn as_committed(&self) -> Option<&committed::CommittedSegment> {
        None
    }
    /// The star-tree that answers the request for all valid rows, if one does, and how many rows are read to be taken off what it says.
    fn answering_tree(&self, _request: &AggregateRequest) -> Option<(IndexId, u32)> {
        None
    }
    /// Whether statistics and dictionaries answer the request for all valid rows, so that none is read.
    fn answers_by_metadata(&self, _request: &AggregateRequest) -> bool {
        false
    }
    /// The segment as one that still takes rows.
    fn as_consuming(&self) -> Option<&consuming::ConsumingSegment> {
        None
    }
    /// Makes documents of star-trees anew for these valid rows, where requests asked for it: of how many trees. Blocks on processor and disk.
    fn renew_star_trees(self: Arc<Self>, _validity: &Validity) -> Result<usize> {
        Ok(0)
    }
    /// Begins to group the rows of `rows` that the request selects.
    fn aggregate(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<AggregateRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>>;
    /// The same, going on with the groups of other segments.
    fn aggregate_into(
        self: Arc<Self>,
        rows: Range<u32>,
        groups: MergedGroups,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>>;
}
