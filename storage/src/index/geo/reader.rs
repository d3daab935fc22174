//! Asking an index of places.

use std::ops::{Range, RangeInclusive};

use arrow::buffer::Buffer;

use super::super::{ordered::OrderedRows, postings::u32_at};
use crate::{Result, bitpack::Bitmask, forward::format::corrupt};

#[derive(Debug)]
pub(crate) struct GeoIndex(OrderedRows);

impl GeoIndex {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32) -> Result<Self> {
        match sections {
            [count, listed, cells] if count.len() == 4 => {
                Ok(Self(OrderedRows::open(listed, cells, u32_at(count, 0), rows)?))
            }
            _ => Err(corrupt("sections of an index of places", "3", sections.len())),
        }
    }

    /// Rows in the cells.
    pub(crate) fn count(&self, cells: &[RangeInclusive<u64>]) -> Result<u64> {
        let mut sum = 0;
        for range in cells {
            sum += self.places(range)?.len() as u64;
        }
        Ok(sum)
    }

    /// The rows of `rows` that lie in the cells, bit 0 for row `base`.
    pub(crate) fn list(&self, cells: &[RangeInclusive<u64>], rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let mut found = Bitmask::none((rows.end - base) as usize);
        for range in cells {
            self.0.add(&self.places(range)?, rows, base, &mut found)?;
        }
        Ok(found)
    }

    fn places(&self, cells: &RangeInclusive<u64>) -> Result<Range<u32>> {
        self.0.between(i128::from(*cells.start()), i128::from(*cells.end()))
    }
}
