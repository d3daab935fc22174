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

    /// Where the rows in the cells, which ascend, lie in the index.
    pub(crate) fn find(&self, cells: &[RangeInclusive<u64>]) -> Result<Inside> {
        let mut finder = self.0.finder();
        let mut places: Vec<Range<u32>> = Vec::with_capacity(cells.len());
        for range in cells {
            let found = finder.between(i128::from(*range.start()), i128::from(*range.end()))?;
            match places.last_mut() {
                Some(last) if last.end == found.start => last.end = found.end,
                _ if found.is_empty() => {}
                _ => places.push(found),
            }
        }
        Ok(Inside(places))
    }

    /// Those of `rows`, bit 0 for row `base`.
    pub(crate) fn list(&self, inside: &Inside, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let mut found = Bitmask::none((rows.end - base) as usize);
        for places in &inside.0 {
            self.0.add(places, rows, base, &mut found)?;
        }
        Ok(found)
    }
}

/// Rows of a segment that lie in some cells, as places in its index.
#[derive(Debug)]
pub(crate) struct Inside(Vec<Range<u32>>);

impl Inside {
    pub(crate) fn rows(&self) -> u64 {
        self.0.iter().map(|places| places.len() as u64).sum()
    }
}
