//! Asking a range index.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::{
    super::{Found, Part, inverted::by_ids, ordered::OrderedRows, postings::Postings},
    BY_ID, BY_VALUE, NOTHING, of_scalar,
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    forward::{IdTest, format::corrupt},
    predicate::{CompareOp, Predicate},
    schema::DataType,
};

/// Values of an IN that are looked up one by one.
const LOOKUPS_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct RangeIndex(Layout);

#[derive(Debug)]
enum Layout {
    ById(Postings),
    ByValue(OrderedRows),
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
                Layout::ByValue(OrderedRows::open(rows, values, count, segment_rows)?)
            }
            (NOTHING, []) => Layout::Nothing,
            _ => return Err(corrupt("layout of a range index", "0, 1 or 2 and its sections", layout)),
        };
        Ok(Self(layout))
    }

    /// The rows that pass `leaf`, on a column of the type, which is about these ids if it has a dictionary; `None` when the index has
    /// nothing to say.
    pub(crate) fn find(
        &self,
        leaf: &Predicate,
        ids: Option<IdTest<'_>>,
        data_type: &DataType,
    ) -> Result<Option<Found>> {
        match (&self.0, ids) {
            (Layout::ById(postings), Some(ids)) => by_ids(postings, &ids),
            (Layout::ByValue(ordered), _) => by_value(ordered, leaf, data_type),
            (Layout::ById(_), None) | (Layout::Nothing, _) => Ok(None),
        }
    }

    /// Adds the rows of a part that lie in `rows` to `out`, whose bit 0 is row `base`.
    pub(in crate::index) fn add(&self, part: &Part, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        match (&self.0, part) {
            (Layout::ById(postings), Part::Keys(keys)) => postings.add(keys.clone(), rows, base, out),
            (Layout::ByValue(ordered), Part::Places(places)) => ordered.add(places, rows, base, out),
            _ => Err(Error::Invalid("rows that another index found".into())),
        }
    }
}

fn by_value(ordered: &OrderedRows, leaf: &Predicate, data_type: &DataType) -> Result<Option<Found>> {
    let mut found = Found { exact: true, ..Found::default() };
    let mut push = |low: i128, high: i128| -> Result<()> {
        let places = ordered.between(low, high)?;
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
