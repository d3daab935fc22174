//! Rows in the order of an integer that each has, or has not.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::postings::{add_packed, row_width};
use crate::{
    Error, Result,
    bitpack::{Bitmask, PADDING, Packed, pack},
    forward::{
        format::corrupt,
        integers::{self, BLOCK, Integers},
    },
};

/// The sections: the rows, packed, and their integers, ascending.
pub(super) fn encode(mut pairs: Vec<(i64, u32)>, segment_rows: u32) -> [Vec<u8>; 2] {
    pairs.sort_unstable();
    let values: Vec<i64> = pairs.iter().map(|(value, _)| *value).collect();
    let mut rows = Vec::new();
    pack(pairs.iter().map(|(_, row)| u64::from(*row)), row_width(segment_rows), &mut rows);
    rows.resize(rows.len() + PADDING, 0);
    [rows, integers::encode(&values)]
}

#[derive(Debug)]
pub(super) struct OrderedRows {
    segment_rows: u32,
    count: usize,
    rows: Buffer,
    values: Integers,
    /// Of each block of values.
    firsts: Vec<i64>,
}

impl OrderedRows {
    /// Opens what [`encode`] made of `count` pairs.
    pub(super) fn open(rows: &Buffer, values: &Buffer, count: u32, segment_rows: u32) -> Result<Self> {
        let packed = Packed::new(rows, row_width(segment_rows), count as usize);
        if count > segment_rows || packed.is_none() {
            return Err(corrupt("rows in the order of their values", format!("at most {segment_rows}"), count));
        }
        let (count, values) = (count as usize, Integers::open(values.clone(), count as usize)?);
        let mut firsts = Vec::with_capacity(count.div_ceil(BLOCK));
        for at in (0..count).step_by(BLOCK) {
            firsts.extend(values.decode(at..at + 1, |value| value)?);
        }
        Ok(Self { segment_rows, count, rows: rows.clone(), values, firsts })
    }

    /// The places of the integers from `low` to `high`.
    pub(super) fn between(&self, low: i128, high: i128) -> Result<Range<u32>> {
        self.finder().between(low, high)
    }

    /// Finds places one after the other.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder { of: self, block: None, inside: Vec::new() }
    }

    /// Adds the rows at places, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`.
    pub(super) fn add(&self, places: &Range<u32>, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        let packed = Packed::new(&self.rows, row_width(self.segment_rows), self.count)
            .ok_or_else(|| Error::Invalid("invariant: the rows by value were measured when they were opened".into()))?;
        add_packed(&packed, places.start as usize..places.end as usize, self.segment_rows, rows, base, out)
    }
}

/// Keeps the block that it looked into last: a block is decoded once for all ascending questions that end in it.
pub(super) struct Finder<'a> {
    of: &'a OrderedRows,
    block: Option<usize>,
    inside: Vec<i64>,
}

impl Finder<'_> {
    /// The places of the integers from `low` to `high`.
    pub(super) fn between(&mut self, low: i128, high: i128) -> Result<Range<u32>> {
        let (from, to) = (self.point(low, false)?, self.point(high, true)?);
        Ok(from as u32..to.max(from) as u32)
    }

    /// Integers below `bound`, or up to it.
    fn point(&mut self, bound: i128, up_to: bool) -> Result<usize> {
        let before = |value: &i64| if up_to { i128::from(*value) <= bound } else { i128::from(*value) < bound };
        let Some(block) = self.of.firsts.partition_point(before).checked_sub(1) else { return Ok(0) };
        let start = block * BLOCK;
        if self.block != Some(block) {
            self.block = None;
            self.of.values.fill(start..(start + BLOCK).min(self.of.count), &mut self.inside, |value| value)?;
            self.block = Some(block);
        }
        Ok(start + self.inside.partition_point(before))
    }
}
