//! Single rows of a committed segment: what the key map asks for when a key is met again.

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    compute::concat,
};

use super::{CommittedSegment, detach::detach};
use crate::{Error, Result, bitpack::Bitmask, ids::ColumnId};

/// Rows of a step: the codecs decode blocks of so many.
const BLOCK_ROWS: u32 = 1024;
/// Neighbouring blocks that are decoded at once, at most.
const BLOCKS_MAX: u32 = 64;

impl CommittedSegment {
    /// The values of rows that ascend.
    pub(super) fn values_of(&self, columns: &[ColumnId], rows: &[u32]) -> Result<Vec<ArrayRef>> {
        if !rows.is_sorted_by(|a, b| a < b) || rows.last().is_some_and(|last| *last >= self.rows) {
            return Err(Error::Invalid(format!("rows of a segment of {} that do not ascend in it", self.rows)));
        }
        let runs = runs(rows);
        let mut taken = Vec::with_capacity(columns.len());
        for id in columns {
            let missing = || Error::Invalid(format!("the segment has no column with id {id}"));
            let index = self.schema.index_of(*id).ok_or_else(missing)?;
            let reader = self.reader(index)?;
            let decode = |(start, mask): &(u32, Bitmask)| {
                let range = *start..start + mask.len() as u32;
                let array = reader.decode_selected(range, mask).map_err(|error| self.named(error, index))?;
                detach(&self.file, &array)
            };
            let parts = runs.iter().map(decode).collect::<Result<Vec<ArrayRef>>>()?;
            taken.push(match parts.as_slice() {
                [] => new_empty_array(&self.schema.columns[index].data_type.arrow()),
                [one] => ArrayRef::clone(one),
                many => concat(&many.iter().map(|part| part.as_ref() as &dyn Array).collect::<Vec<_>>())?,
            });
        }
        // Nothing that was taken points into the map, which is sound now.
        self.file.check()?;
        Ok(taken)
    }
}

/// Blocks that have rows, neighbours together: where they begin, and which of their rows are wanted.
fn runs(rows: &[u32]) -> Vec<(u32, Bitmask)> {
    let block = |row: &u32| row / BLOCK_ROWS;
    let mut runs = Vec::new();
    let mut left = rows;
    while let Some(first) = left.first() {
        let start = block(first);
        let mut end = start + 1;
        let mut taken = 0;
        while let Some(row) =
            left.get(taken).filter(|row| block(row) < end || block(row) == end && end < start + BLOCKS_MAX)
        {
            end = end.max(block(row) + 1);
            taken += 1;
        }
        let (run, rest) = left.split_at(taken);
        let (from, to) = (start * BLOCK_ROWS, run[taken - 1] + 1);
        let mut mask = Bitmask::none((to - from) as usize);
        run.iter().for_each(|row| mask.set((row - from) as usize));
        runs.push((from, mask));
        left = rest;
    }
    runs
}
