//! Groups and partial aggregates where the rows are: in the segment, on encoded values.
//!
//! A query that asks for a handful of numbers per group need not see a row. An [`AggregateRequest`] says what is to be known of each
//! group; a segment answers for a run of its rows with one row per group: its keys, then a state for each aggregate, which the
//! layer above merges with those of other segments.
//!
//! ```text
//! GROUP BY city: dictionary ids, unpacked in blocks that stay in the cache
//! ids    [ 3  7  3  1 …]
//! counts [ .  +  .  ++ .  .  .  + ]     one place per id: no hashing, no text is touched
//! sums   [ .  v  .  vv .  .  .  v ]
//! at the end: ids that occurred ─► their texts
//! ```
//!
//! - `request`: what is asked, what the answer's columns are.
//! - `block`: how segments hand over a window's values; `keys`, `groups`: from values to the number of a group (`table`: hashing,
//!   `divide`: rounding down); `computed`: values that the layer above computes; `states`: counts, sums, extremes; `sets`: distinct values; `sketches`: what approximate answers are made of; `engine` puts these together; `values`: back to Arrow.
//! - `merged`: places for all groups of all segments, where their keys lie close together.
//! - `metadata`: what a segment's statistics answer alone; `results`: answers kept for when they are asked for again.
//!
//! What always holds: an answer is exact (integers and decimals to the digit; floats are added in the order of the rows within a run);
//! rows are those that a scan with the same predicate gives; a run may be cut anywhere, its parts' answers merge to the same. Not here: DISTINCT of other
//! aggregates than count, ORDER BY inside of aggregates.
//!
//! The plain twin is [`testing::aggregate`](crate::testing), which groups the rows of a scan one by one.

pub(crate) mod block;
pub(crate) mod computed;
mod divide;
pub(crate) mod ends;
pub(crate) mod engine;
mod groups;
pub(crate) mod keys;
mod merged;
pub(crate) mod metadata;
pub(crate) mod moments;
mod request;
mod results;
mod sets;
mod sketches;
pub(crate) mod states;
pub(crate) mod table;
mod values;

use std::{fmt, ops::Range, sync::Arc};

use arrow::array::RecordBatch;

pub use computed::{Computation, Computed};
pub(crate) use merged::not_merged;
pub use merged::{Bounds, MergedGroups, bounds};
pub use request::{Aggregate, AggregateRequest, Bin, Function, GroupKey, SUM_PRECISION, state_type};
pub use results::ResultCache;

use crate::{
    Result,
    scan::{ScanMetrics, ScanUnit},
};

/// One run of rows on its way to its answer.
pub trait Aggregation: Send + fmt::Debug {
    /// Reads on: about [`STEP_ROWS`] rows. `false` when all are read. After an error there is nothing more to be had.
    fn step(&mut self) -> Result<bool>;

    /// Memory that the groups take so far.
    fn memory_bytes(&self) -> usize;

    /// The groups of the rows read since the last time, in no order, as columns of the request's output schema.
    fn take(&mut self) -> Result<RecordBatch>;

    /// The groups, for the next segment to go on with; only where it went on with those of others itself.
    fn into_groups(self: Box<Self>) -> Result<MergedGroups> {
        Err(not_merged())
    }

    /// How the answer comes about, a few words for those who look at plans.
    fn way(&self) -> &'static str;
}

/// The way of an aggregation that reads documents of a star-tree instead of rows.
pub const BY_STAR_TREE: &str = "star tree";

/// The same, less what the rows were that are not valid any more.
pub const BY_STAR_TREE_LESS_ROWS: &str = "star tree less rows";

/// Rows that a step reads: short enough to look for a cancelled query in between.
pub const STEP_ROWS: usize = 64 * 1024;

/// Rows of a window: the ids and values of a few columns stay in the second-level cache, and compressed columns unpack as many at a time.
pub(crate) const WINDOW_ROWS: usize = 8 * 1024;

impl ScanUnit {
    /// Whether both are of one segment.
    pub fn is_beside(&self, other: &Self) -> bool {
        let address = |unit: &Self| Arc::as_ptr(&unit.segment).cast::<()>();
        self.segment.id() == other.segment.id() && address(self) == address(other)
    }

    /// Begins the aggregation of the unit's rows.
    pub fn aggregate(
        &self,
        request: &Arc<AggregateRequest>,
        metrics: &Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        match &request.results {
            // Nobody can tell whether two computations are the same.
            Some(cache) if !request.computes() => {
                results::begin(cache, &self.segment, self.rows.clone(), request, metrics)
            }
            _ => Arc::clone(&self.segment).aggregate(self.rows.clone(), Arc::clone(request), Arc::clone(metrics)),
        }
    }
}

/// The units with neighbours of one segment put together up to `rows` rows: fewer partial groups come out.
pub fn joined(units: &[ScanUnit], rows: u32) -> Vec<ScanUnit> {
    let mut out: Vec<ScanUnit> = Vec::new();
    for unit in units {
        match out.last_mut() {
            Some(last)
                if last.is_beside(unit)
                    && last.rows.end == unit.rows.start
                    && unit.rows.end - last.rows.start <= rows =>
            {
                last.rows = Range { start: last.rows.start, end: unit.rows.end };
            }
            _ => out.push(unit.clone()),
        }
    }
    out
}
