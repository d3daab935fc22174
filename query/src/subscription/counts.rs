//! Two multisets of rows, and what tells one from the other.
//!
//! A row is the bytes that Arrow's row format gives its values, so that rows are equal when all their values are, NULLs too.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::DataType,
    row::{RowConverter, RowParser, SortField},
};

use super::limits::Held;
use crate::SqlError;

/// What an entry takes beside the bytes of its row.
const ENTRY_BYTES: usize = 64;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before = 0,
    Now = 1,
}

/// Some of all rows, by their hashes: `number` of `parts`, which is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) parts: u64,
}

impl Part {
    pub(crate) const ALL: Self = Self { number: 0, parts: 1 };

    /// Two halves.
    pub(crate) fn halves(self) -> [Self; 2] {
        let parts = self.parts * 2;
        [Self { number: self.number, parts }, Self { number: self.number + self.parts, parts }]
    }

    fn has(self, hash: u64) -> bool {
        hash & (self.parts - 1) == self.number
    }
}

/// A row that one side has more often: its bytes, and how much more often it is there now.
pub(crate) type Difference<'a> = (&'a [u8], i64);

/// See the module.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Made for the types of the first batch.
    rows: Option<(RowConverter, RowParser)>,
    counts: HashMap<Box<[u8]>, [i64; 2]>,
    hashes: RandomState,
    held: Held,
}

impl Counts {
    pub(crate) fn new(held: Held) -> Self {
        Self { rows: None, counts: HashMap::new(), hashes: RandomState::new(), held }
    }

    /// The same, empty, that divides rows into parts as this one does.
    pub(crate) fn alike(&self, held: Held) -> Self {
        Self { hashes: self.hashes.clone(), ..Self::new(held) }
    }

    /// Counts those rows that are of the part. 53200 when there is no memory for them.
    pub(crate) fn add(&mut self, batch: &RecordBatch, side: Side, part: Part) -> Result<(), SqlError> {
        let count = batch.num_rows();
        if batch.num_columns() == 0 {
            // All rows are the same.
            return match part.number {
                0 => self.count(&[], side, count as i64),
                _ => Ok(()),
            };
        }
        let converter = match &mut self.rows {
            Some((converter, _)) => converter,
            rows => {
                let types = batch.columns().iter().map(|column| column.data_type().clone());
                let converter = RowConverter::new(types.map(SortField::new).collect())?;
                let parser = converter.parser();
                &mut rows.insert((converter, parser)).0
            }
        };
        let rows = converter.convert_columns(batch.columns())?;
        for row in &rows {
            let row = row.data();
            if part == Part::ALL || part.has(self.hashes.hash_one(row)) {
                self.count(row, side, 1)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, row: &[u8], side: Side, count: i64) -> Result<(), SqlError> {
        if let Some(counts) = self.counts.get_mut(row) {
            counts[side as usize] += count;
            return Ok(());
        }
        self.held.grow(row.len() + ENTRY_BYTES)?;
        self.counts.entry(row.into()).or_default()[side as usize] = count;
        Ok(())
    }

    /// Rows that are there less often now come first; those of either kind are in the order of their bytes.
    pub(crate) fn differences(&self) -> Vec<Difference<'_>> {
        let differences = self.counts.iter().map(|(row, [before, now])| (row.as_ref(), now - before));
        let mut differences: Vec<_> = differences.filter(|(_, count)| *count != 0).collect();
        differences.sort_unstable_by_key(|(row, count)| (*count > 0, *row));
        differences
    }

    /// What is there now is what was there before the next rows come.
    pub(crate) fn settle(&mut self) {
        let mut freed = 0;
        self.counts.retain(|row, counts| {
            *counts = [counts[Side::Now as usize], 0];
            let stays = counts[0] != 0;
            freed += if stays { 0 } else { row.len() + ENTRY_BYTES };
            stays
        });
        self.held.shrink(freed);
    }

    /// The columns of rows, as batches brought them.
    pub(crate) fn columns(&self, rows: &[Difference<'_>]) -> Result<Vec<ArrayRef>, SqlError> {
        let Some((converter, parser)) = &self.rows else { return Ok(Vec::new()) };
        Ok(converter.convert_rows(rows.iter().map(|(row, _)| parser.parse(row)))?)
    }
}

/// Whether rows of such a column can be compared.
pub(crate) fn can_be_compared(data_type: &DataType) -> bool {
    RowConverter::supports_fields(&[SortField::new(data_type.clone())])
}

#[cfg(test)]
mod tests;
