//! Very many groups, merged over segments while they are read.
//!
//! Where nearly every row of a segment is of a group of its own, a partial answer per segment saves nothing, and each group has to be found again
//! in a hash table above. When the bounds of the keys over *all* segments are known and not too far apart, every possible group has a place
//! ahead: one array of places per lane takes the rows of all its segments, and in the end lanes add their arrays up.
//!
//! ```text
//! customer 7 ─► place 7 ─► rows[7] += 1, sums[7] += price        no hashing, no partial answers
//! ```

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;

use super::{
    AggregateRequest, Aggregation, Function,
    engine::{Engine, Layout, bounds_in, bounds_of},
};
use crate::{
    Error, Result,
    evaluate::default_array,
    scan::{ScanMetrics, ScanUnit},
    schema::{Column, DataType},
    segment::Segment,
};

/// Smallest and largest of the integers that stand for a key's values.
pub type Bounds = (i64, i64);

/// The groups of all rows read so far, whatever segments they are of.
#[derive(Debug)]
pub struct MergedGroups {
    pub(crate) engine: Engine,
    /// Groups handed out.
    given: usize,
}

/// The bounds of each key over all units; `None` when a key or an aggregate has no place known ahead.
pub fn bounds(units: &[ScanUnit], request: &AggregateRequest) -> Result<Option<Vec<Bounds>>> {
    let fits = |function: &Function| -> Result<bool> {
        let column = function.column().map(|id| request.column(id)).transpose()?;
        let data_type = column.map(|column| &column.data_type);
        Ok(match function {
            Function::Rows | Function::Count(_) | Function::And(_) | Function::Or(_) | Function::Sum(_) => true,
            Function::Mean(_) | Function::Squares(_) => true,
            Function::Min(_) | Function::Max(_) => data_type.is_some_and(|data_type| *data_type != DataType::Text),
            _ => false,
        })
    };
    for aggregate in &request.aggregates {
        if !fits(&aggregate.function)? {
            return Ok(None);
        }
    }
    let mut all = Vec::with_capacity(request.keys.len());
    for key in &request.keys {
        match bounds_over(units, request.column(key.column)?)? {
            Some(bounds) => all.push(bounds),
            None => return Ok(None),
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

fn bounds_over(units: &[ScanUnit], column: &Column) -> Result<Option<Bounds>> {
    use DataType::{BigInt, Boolean, Date, Int, Numeric, SmallInt, Timestamp, TimestampTz};
    if column.data_type == Boolean {
        return Ok(Some((0, 1)));
    }
    if !matches!(column.data_type, SmallInt | Int | BigInt | Date | Timestamp | TimestampTz | Numeric { .. }) {
        return Ok(None);
    }
    let mut all: Option<(i128, i128)> = None;
    for of_segment in units.chunk_by(ScanUnit::is_beside) {
        let segment: &dyn Segment = of_segment[0].segment.as_ref();
        let here = match segment.schema().column(column.id) {
            None => bounds_of(&default_array(column, 1)?),
            Some(written) => match segment.stats(column.id) {
                Some(stats) => bounds_in(stats, u64::from(segment.rows()), &written.data_type, &column.data_type),
                None => return Ok(None),
            },
        };
        if let Some((min, max)) = here {
            let (least, greatest) = all.unwrap_or((min, max));
            all = Some((min.min(least), max.max(greatest)));
        }
    }
    let (min, max) = all.unwrap_or((0, 0));
    Ok(i64::try_from(min).ok().zip(i64::try_from(max).ok()))
}

impl MergedGroups {
    /// No rows yet. Errors: `Invalid` for what [`bounds`] has none for.
    pub fn new(request: &Arc<AggregateRequest>, bounds: &[Bounds]) -> Result<Self> {
        let layout = Arc::new(Layout::merged(request, bounds)?);
        Ok(Self::of(Engine::of_all_segments(layout)?))
    }

    pub(crate) fn of(engine: Engine) -> Self {
        Self { engine, given: 0 }
    }

    /// How many groups there could be; `None`: too many to number.
    pub fn places(request: &AggregateRequest, bounds: &[Bounds]) -> Option<u64> {
        request.keys.iter().zip(bounds).try_fold(1u64, |all, (key, (min, max))| {
            let span = max.abs_diff(*min) / key.bin.map_or(1, |bin| bin.width.unsigned_abs().max(1));
            // Null, and the bin that the last value begins.
            all.checked_mul(span.checked_add(3)?)
        })
    }

    /// Bytes that each place takes, at most.
    pub fn bytes_per_place(request: &AggregateRequest) -> u64 {
        let count = size_of::<u64>();
        let of = |function: &Function| match function {
            Function::Rows => 0,
            Function::Count(_) => count,
            // In 64 bits, and in 128.
            Function::Sum(_) => count + size_of::<i64>() + size_of::<i128>(),
            Function::Mean(_) | Function::Squares(_) => count + 3 * size_of::<f64>(),
            _ => count + size_of::<i128>(),
        };
        (count + request.aggregates.iter().map(|aggregate| of(&aggregate.function)).sum::<usize>()) as u64
    }

    /// Begins to read a unit's rows; [`Aggregation::into_groups`] gives the groups back.
    pub fn read(self, unit: &ScanUnit, metrics: &Arc<ScanMetrics>) -> Result<Box<dyn Aggregation>> {
        let rows: Range<u32> = unit.rows.clone();
        Arc::clone(&unit.segment).aggregate_into(rows, self, Arc::clone(metrics))
    }

    /// Takes what another lane has found to the same request.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.engine.merge(other.engine)
    }

    pub fn memory_bytes(&self) -> usize {
        self.engine.memory_bytes()
    }

    /// The next groups, of about `places` places, as columns of the request's output schema; `None` when all are given.
    pub fn take(&mut self, places: usize) -> Result<Option<RecordBatch>> {
        let all = self.engine.groups();
        if self.given >= all {
            return Ok(None);
        }
        let range = self.given..all.min(self.given + places.max(1));
        self.given = range.end;
        self.engine.groups_of(range).map(Some)
    }
}

/// For aggregations of segments that do not go on with the groups of others.
pub(crate) fn not_merged() -> Error {
    Error::Invalid("groups of a segment of its own are not those of all".into())
}
