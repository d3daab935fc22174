//! The smallest and largest values of many segments, column by column: a plan over thousands of segments looks at two arrays of integers
//! instead of at every segment. It only finds early what [`judge`](crate::prune::judge) would say, for the predicates that come most: comparisons
//! of integers, decimals, dates, timestamps and texts that must all hold. A text is compared by its first eight bytes, as a number, and where
//! these are the same, as a whole.
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
    /// Keys, by segment; the smallest and the largest of all where nothing is known.
    min: Vec<i64>,
    max: Vec<i64>,
    /// Of texts, which are only told apart by their first bytes there.
    texts: Texts,
    /// Segments of which nothing is known.
    unknown: Vec<usize>,
}

/// The smallest and the largest text of each segment, one behind the other.
#[derive(Clone, Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    /// Two for each segment.
    ends: Vec<usize>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn of(&self, segment: usize) -> (&[u8], &[u8]) {
        let end = |index: usize| index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let (start, middle) = (end(2 * segment), end(2 * segment + 1));
        (&self.bytes[start..middle], &self.bytes[middle..end(2 * segment + 2)])
    }
}

impl ColumnBounds {
    fn push(&mut self, segment: &dyn Segment) {
        let is_known = |segment: &&dyn Segment| {
            segment.schema().column(self.column).is_some_and(|written| written.data_type == self.data_type)
        };
        let stats = Some(segment).filter(is_known).and_then(|segment| segment.stats(self.column));
        let bounds = stats.and_then(|stats| stats.min.as_ref().zip(stats.max.as_ref()));
        let (min, max) = bounds.and_then(|(min, max)| key(min).zip(key(max))).unwrap_or_else(|| {
            self.unknown.push(self.min.len());
            (i64::MIN, i64::MAX)
        });
        self.min.push(min);
        self.max.push(max);
        if self.data_type == DataType::Text {
            for bound in [bounds.map(|(min, _)| min), bounds.map(|(_, max)| max)] {
                self.texts.push(if let Some(Scalar::Text(text)) = bound { text } else { "" });
            }
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
        let data_type = leaf.data_type.clone();
        let mut made =
            ColumnBounds { column: leaf.column, data_type, min, max, texts: Texts::default(), unknown: Vec::new() };
        segments.iter().for_each(|segment| made.push(segment.as_ref()));
        let made = Arc::new(made);
        columns.push(Arc::clone(&made));
        made
    }

    /// Takes out of `mask`, one bit for each of `segments`, those in which no row can pass `leaf`; puts into `unknown` those that only their
    /// statistics can judge.
    pub(super) fn select(
        &self,
        leaf: &Leaf<'_>,
        segments: &[Arc<dyn Segment>],
        mask: &mut Bitmask,
        unknown: &mut Bitmask,
    ) {
        let bounds = self.column(leaf, segments);
        bounds.unknown.iter().for_each(|at| unknown.set(*at));
        // From the lowest to the highest that may be; none where they are the wrong way round.
        let mut within = |values: &[i64], (low, high): (i64, i64)| {
            let mut words = vec![0; values.len().div_ceil(64)];
            if low <= high {
                range_mask_i64(values, low, high, &mut words);
            }
            mask.and_bits(0, values.len(), &words);
        };
        const NOTHING: (i64, i64) = (1, 0);
        let (key, text) = (leaf.key, leaf.text);
        match leaf.op {
            CompareOp::Eq => {
                within(&bounds.min, (i64::MIN, key));
                within(&bounds.max, (key, i64::MAX));
            }
            CompareOp::NotEq => {}
            CompareOp::Less if text.is_none() => {
                within(&bounds.min, key.checked_sub(1).map_or(NOTHING, |below| (i64::MIN, below)));
            }
            CompareOp::Greater if text.is_none() => {
                within(&bounds.max, key.checked_add(1).map_or(NOTHING, |above| (above, i64::MAX)));
            }
            CompareOp::Less | CompareOp::LessEq => within(&bounds.min, (i64::MIN, key)),
            CompareOp::Greater | CompareOp::GreaterEq => within(&bounds.max, (key, i64::MAX)),
        }
        let Some(text) = text else { return };
        for (at, (min, max)) in bounds.min.iter().zip(&bounds.max).enumerate() {
            if (*min == key || *max == key) && mask.get(at) && !unknown.get(at) {
                let (min, max) = bounds.texts.of(at);
                let may_be = match leaf.op {
                    CompareOp::Eq => min <= text && text <= max,
                    CompareOp::NotEq => true,
                    CompareOp::Less => min < text,
                    CompareOp::LessEq => min <= text,
                    CompareOp::Greater => max > text,
                    CompareOp::GreaterEq => max >= text,
                };
                if !may_be {
                    mask.clear_in(at..at + 1);
                }
            }
        }
    }
}

/// A number whose order is that of the values of its type; of texts, as far as it tells them apart. `None` for those that have none.
fn key(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Int(value) => Some(*value),
        Scalar::Decimal(value) => i64::try_from(*value).ok(),
        Scalar::Text(text) => {
            let mut first = [0; 8];
            first.iter_mut().zip(text.as_bytes()).for_each(|(to, from)| *to = *from);
            Some(u64::from_be_bytes(first).wrapping_sub(1 << 63).cast_signed())
        }
        Scalar::Boolean(_) | Scalar::Float(_) | Scalar::Bytes(_) => None,
    }
}

/// A comparison of a column of integers, decimals, dates, timestamps or texts with a value.
#[derive(Debug)]
pub(super) struct Leaf<'p> {
    pub(super) column: ColumnId,
    data_type: &'p DataType,
    op: CompareOp,
    key: i64,
    /// The value, where the key may not be all of it.
    text: Option<&'p [u8]>,
}

/// The comparisons that must all hold for a predicate to, as far as bounds can judge them.
#[derive(Debug)]
pub(super) struct Leaves<'p> {
    /// Of the time column.
    pub(super) by_time: Vec<Leaf<'p>>,
    pub(super) others: Vec<Leaf<'p>>,
    /// The predicate has no other part.
    pub(super) are_all: bool,
    /// A part of the predicate is about the time column.
    pub(super) about_time: bool,
}

impl<'p> Leaves<'p> {
    pub(super) fn of(predicate: Option<&'p Predicate>, schema: &'p TableSchema) -> Self {
        let time = schema.time_column;
        let mut leaves = Self { by_time: Vec::new(), others: Vec::new(), are_all: true, about_time: false };
        let mut parts = Vec::from_iter(predicate);
        while let Some(part) = parts.pop() {
            let leaf = match part {
                Predicate::And(children) => {
                    parts.extend(children);
                    continue;
                }
                Predicate::Compare { column, op, value } if *op != CompareOp::NotEq => {
                    let data_type = schema.column(*column).map(|column| &column.data_type);
                    let data_type = data_type.filter(|data_type| has_key(data_type, value));
                    let text = if let Scalar::Text(text) = value { Some(text.as_bytes()) } else { None };
                    data_type.zip(key(value)).map(|(data_type, key)| Leaf {
                        column: *column,
                        data_type,
                        op: *op,
                        key,
                        text,
                    })
                }
                _ => None,
            };
            match leaf {
                Some(leaf) if Some(leaf.column) == time => {
                    leaves.about_time = true;
                    leaves.by_time.push(leaf);
                }
                Some(leaf) => leaves.others.push(leaf),
                None => {
                    leaves.are_all = false;
                    leaves.about_time |= time.is_some_and(|time| mentions(part, time));
                }
            }
        }
        leaves
    }
}

/// Whether values of the type, and this one, are compared as their keys are.
fn has_key(data_type: &DataType, value: &Scalar) -> bool {
    use DataType::{BigInt, Date, Int, Numeric, SmallInt, Text, Timestamp, TimestampTz};
    match value {
        Scalar::Int(_) => matches!(data_type, SmallInt | Int | BigInt | Date | Timestamp | TimestampTz),
        Scalar::Decimal(_) => matches!(data_type, Numeric { .. }),
        Scalar::Text(_) => *data_type == Text,
        Scalar::Boolean(_) | Scalar::Float(_) | Scalar::Bytes(_) => false,
    }
}

fn mentions(predicate: &Predicate, id: ColumnId) -> bool {
    match predicate {
        // An empty one is true or false for every column alike.
        Predicate::And(children) | Predicate::Or(children) => {
            children.is_empty() || children.iter().any(|child| mentions(child, id))
        }
        leaf => leaf.column() == Some(id),
    }
}
