//! The smallest and largest values of many segments, column by column: a plan over thousands of segments looks at two arrays of integers
//! instead of at every segment. It only finds early what [`judge`](crate::prune::judge) would say, for the predicates that come most: comparisons
//! of integers, dates and timestamps that must all hold.
//!
//! A column's arrays are made when a plan first asks for them, and go on to the next view, to which a commit adds one value.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::{
    bitpack::{Bitmask, range_mask_i64},
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{DataType, TableSchema},
    segment::Segment,
};

/// Of segments that do not change.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    columns: RwLock<Vec<Arc<ColumnBounds>>>,
}

#[derive(Clone, Debug)]
struct ColumnBounds {
    column: ColumnId,
    /// The type in which the bounds are; a segment that was written under another one has none.
    data_type: DataType,
    /// By segment; the smallest and the largest integer of all where nothing is known.
    min: Vec<i64>,
    max: Vec<i64>,
}

impl ColumnBounds {
    fn push(&mut self, segment: &dyn Segment) {
        let (min, max) = self.of(segment).unwrap_or((i64::MIN, i64::MAX));
        self.min.push(min);
        self.max.push(max);
    }

    fn of(&self, segment: &dyn Segment) -> Option<(i64, i64)> {
        let written = segment.schema().column(self.column)?;
        let stats = segment.stats(self.column)?;
        match (&stats.min, &stats.max) {
            (Some(Scalar::Int(min)), Some(Scalar::Int(max))) if written.data_type == self.data_type => {
                Some((*min, *max))
            }
            _ => None,
        }
    }
}

impl Bounds {
    /// Those of the same segments and, behind them, `more`.
    pub(super) fn extended(&self, more: &[Arc<dyn Segment>]) -> Self {
        let mut columns = self.columns.read().clone();
        for column in &mut columns {
            let column = Arc::make_mut(column);
            more.iter().for_each(|segment| column.push(segment.as_ref()));
        }
        Self { columns: RwLock::new(columns) }
    }

    fn column(&self, leaf: &Leaf<'_>, segments: &[Arc<dyn Segment>]) -> Arc<ColumnBounds> {
        let find = |columns: &[Arc<ColumnBounds>]| {
            columns.iter().find(|known| known.column == leaf.column && known.data_type == *leaf.data_type).cloned()
        };
        if let Some(known) = find(&self.columns.read()) {
            return known;
        }
        let mut columns = self.columns.write();
        if let Some(known) = find(&columns) {
            return known;
        }
        let (min, max) = (Vec::with_capacity(segments.len()), Vec::with_capacity(segments.len()));
        let mut made = ColumnBounds { column: leaf.column, data_type: leaf.data_type.clone(), min, max };
        segments.iter().for_each(|segment| made.push(segment.as_ref()));
        let made = Arc::new(made);
        columns.push(Arc::clone(&made));
        made
    }

    /// Takes out of `mask`, one bit for each of `segments`, those in which no row can pass `leaf`.
    pub(super) fn select(&self, leaf: &Leaf<'_>, segments: &[Arc<dyn Segment>], mask: &mut Bitmask) {
        let bounds = self.column(leaf, segments);
        // From the lowest to the highest that may be; none where they are the wrong way round.
        let mut within = |values: &[i64], (low, high): (i64, i64)| {
            let mut words = vec![0; values.len().div_ceil(64)];
            if low <= high {
                range_mask_i64(values, low, high, &mut words);
            }
            mask.and_bits(0, values.len(), &words);
        };
        const NOTHING: (i64, i64) = (1, 0);
        let value = leaf.value;
        match leaf.op {
            CompareOp::Eq => {
                within(&bounds.min, (i64::MIN, value));
                within(&bounds.max, (value, i64::MAX));
            }
            CompareOp::NotEq => {}
            CompareOp::Less => within(&bounds.min, value.checked_sub(1).map_or(NOTHING, |below| (i64::MIN, below))),
            CompareOp::LessEq => within(&bounds.min, (i64::MIN, value)),
            CompareOp::Greater => within(&bounds.max, value.checked_add(1).map_or(NOTHING, |above| (above, i64::MAX))),
            CompareOp::GreaterEq => within(&bounds.max, (value, i64::MAX)),
        }
    }
}

/// A comparison of a column of integers, dates or timestamps with a value.
#[derive(Debug)]
pub(super) struct Leaf<'p> {
    pub(super) column: ColumnId,
    data_type: &'p DataType,
    op: CompareOp,
    value: i64,
}

/// The comparisons that must all hold for `predicate` to, as far as bounds can judge them, and whether any other part of it is about
/// `time`.
pub(super) fn leaves<'p>(
    predicate: &'p Predicate,
    schema: &'p TableSchema,
    time: Option<ColumnId>,
) -> (Vec<Leaf<'p>>, bool) {
    let (mut leaves, mut time_elsewhere) = (Vec::new(), false);
    let mut parts = vec![predicate];
    while let Some(part) = parts.pop() {
        match part {
            Predicate::And(children) => parts.extend(children),
            Predicate::Compare { column, op, value: Scalar::Int(value) } if *op != CompareOp::NotEq => {
                match schema.column(*column).map(|column| &column.data_type).filter(|data_type| is_integer(data_type)) {
                    Some(data_type) => leaves.push(Leaf { column: *column, data_type, op: *op, value: *value }),
                    None => time_elsewhere |= Some(*column) == time,
                }
            }
            other => time_elsewhere |= time.is_some_and(|time| mentions(other, time)),
        }
    }
    (leaves, time_elsewhere)
}

/// Types whose values are [`Scalar::Int`].
fn is_integer(data_type: &DataType) -> bool {
    use DataType::{BigInt, Date, Int, SmallInt, Timestamp, TimestampTz};
    matches!(data_type, SmallInt | Int | BigInt | Date | Timestamp | TimestampTz)
}

fn mentions(predicate: &Predicate, id: ColumnId) -> bool {
    match predicate {
        // An empty one is true or false for every column alike.
        Predicate::And(children) | Predicate::Or(children) => {
            children.is_empty() || children.iter().any(|child| mentions(child, id))
        }
        Predicate::Compare { column, .. }
        | Predicate::In { column, .. }
        | Predicate::Like { column, .. }
        | Predicate::IsNull { column, .. } => *column == id,
    }
}
