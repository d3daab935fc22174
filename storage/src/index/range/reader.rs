//! Asking a range index.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::{
    super::{
        Found, Part,
        inverted::by_ids,
        postings::{Postings, add_packed, row_width},
    },
    BY_ID, BY_VALUE, NOTHING, of_scalar,
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, Packed},
    forward::{
        ColumnReader, ColumnTest,
        format::corrupt,
        integers::{BLOCK, Integers},
    },
    predicate::{CompareOp, Predicate},
    schema::DataType,
};

/// Values of an IN that are looked up one by one.
const LOOKUPS_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct RangeIndex {
    segment_rows: u32,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    ById(Postings),
    ByValue {
        count: usize,
        rows: Buffer,
        values: Integers,
        /// Of each block of values.
        firsts: Vec<i64>,
    },
    Nothing,
}

impl RangeIndex {
    pub(in crate::index) fn open(sections: &[Buffer], segment_rows: u32) -> Result<Self> {
        let head = sections.first().map(Buffer::as_slice).unwrap_or_default();
        let &[layout, a, b, c, d] = head else {
            return Err(corrupt("head of a range index", "5 bytes", head.len()));
        };
        let layout = match (layout, &sections[1..]) {
            (BY_ID, postings) => Layout::ById(Postings::open(postings, segment_rows)?),
            (BY_VALUE, [rows, values]) => {
                let count = u32::from_le_bytes([a, b, c, d]);
                let packed = Packed::new(rows, row_width(segment_rows), count as usize);
                if count > segment_rows || packed.is_none() {
                    return Err(corrupt("rows of a range index", format!("at most {segment_rows}"), count));
                }
                let (count, values) = (count as usize, Integers::open(values.clone(), count as usize)?);
                let mut firsts = Vec::with_capacity(count.div_ceil(BLOCK));
                for at in (0..count).step_by(BLOCK) {
                    firsts.extend(values.decode(at..at + 1, |value| value)?);
                }
                Layout::ByValue { count, rows: rows.clone(), values, firsts }
            }
            (NOTHING, []) => Layout::Nothing,
            _ => return Err(corrupt("layout of a range index", "0, 1 or 2 and its sections", layout)),
        };
        Ok(Self { segment_rows, layout })
    }

    /// The rows that pass `leaf`, which is `test` in the terms of `column`; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate, test: &ColumnTest, column: &ColumnReader) -> Result<Option<Found>> {
        match &self.layout {
            Layout::Nothing => Ok(None),
            Layout::ById(postings) => match test.ids() {
                Some(ids) => by_ids(postings, &ids),
                None => Ok(None),
            },
            Layout::ByValue { .. } => self.by_value(leaf, column.data_type()),
        }
    }

    fn by_value(&self, leaf: &Predicate, data_type: &DataType) -> Result<Option<Found>> {
        let mut found = Found { exact: true, ..Found::default() };
        let mut push = |low: i128, high: i128| -> Result<()> {
            let places = self.between(low, high)?;
            found.rows += places.len() as u64;
            found.parts.push(Part::Places(places));
            Ok(())
        };
        match leaf {
            Predicate::Compare { op, value, .. } => {
                let Some(value) = of_scalar(value, data_type) else { return Ok(None) };
                match op {
                    CompareOp::Eq => push(value, value)?,
                    CompareOp::Less => push(i128::MIN, value.saturating_sub(1))?,
                    CompareOp::LessEq => push(i128::MIN, value)?,
                    CompareOp::Greater => push(value.saturating_add(1), i128::MAX)?,
                    CompareOp::GreaterEq => push(value, i128::MAX)?,
                    CompareOp::NotEq => {
                        push(i128::MIN, value.saturating_sub(1))?;
                        push(value.saturating_add(1), i128::MAX)?;
                    }
                }
            }
            Predicate::In { values, negated: false, .. } if values.len() <= LOOKUPS_MAX => {
                for value in values {
                    let Some(value) = of_scalar(value, data_type) else { return Ok(None) };
                    push(value, value)?;
                }
            }
            _ => return Ok(None),
        }
        Ok(Some(found))
    }

    /// The places of the values from `low` to `high`.
    fn between(&self, low: i128, high: i128) -> Result<Range<u32>> {
        let (from, to) = (self.point(low, false)?, self.point(high, true)?);
        Ok(from as u32..to.max(from) as u32)
    }

    /// Values below `bound`, or up to it.
    fn point(&self, bound: i128, up_to: bool) -> Result<usize> {
        let Layout::ByValue { count, values, firsts, .. } = &self.layout else {
            return Err(Error::Invalid("a range index without values".into()));
        };
        let before = |value: &i64| if up_to { i128::from(*value) <= bound } else { i128::from(*value) < bound };
        let Some(block) = firsts.partition_point(before).checked_sub(1) else { return Ok(0) };
        let start = block * BLOCK;
        let inside = values.decode(start..(start + BLOCK).min(*count), |value| value)?;
        Ok(start + inside.partition_point(before))
    }

    /// Adds the rows of a part that lie in `rows` to `out`, whose bit 0 is row `base`.
    pub(in crate::index) fn add(&self, part: &Part, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        match (&self.layout, part) {
            (Layout::ById(postings), Part::Keys(keys)) => postings.add(keys.clone(), rows, base, out),
            (Layout::ByValue { count, rows: packed, .. }, Part::Places(places)) => {
                let packed = Packed::new(packed, row_width(self.segment_rows), *count)
                    .ok_or_else(|| Error::Invalid("invariant: the rows of a range index were measured".into()))?;
                add_packed(&packed, places.start as usize..places.end as usize, self.segment_rows, rows, base, out)
            }
            _ => Err(Error::Invalid("rows that another index found".into())),
        }
    }
}
