//! Values of packed integers: a run of rows, selected rows, one row.

use std::ops::Range;

use super::{
    BLOCK, Integers, Mode, SLOPE_BITS,
    entry::{Data, Entry},
    on_slope,
};
use crate::{
    Result,
    bitpack::{Bitmask, compact::compact, lanes},
    forward::format::corrupt,
};

/// So many values of a block are read one by one; for more of them the block is unpacked.
const POINTS_MAX: usize = 64;

impl Integers {
    /// Decodes a block, but for offset and factor; gives the values as many as the block has.
    pub(super) fn decode_reduced<'b>(
        &self,
        entry: &Entry,
        data: &mut Data<'_>,
        out: &'b mut [i64],
    ) -> Result<&'b mut [i64]> {
        let mut kept = std::mem::take(&mut data.residuals);
        let bytes = data.of(entry)?;
        let packed = entry.packed(bytes);
        let out = &mut out[..entry.rows];
        if entry.width == 0 {
            out.fill(entry.base);
        } else if entry.width <= 32 {
            kept.resize(BLOCK, 0);
            let residuals = &mut kept[..entry.rows];
            packed.unpack_u32(0, residuals);
            lanes::raised(residuals, entry.base, out);
        } else {
            let mut residuals = [0u64; BLOCK];
            let residuals = &mut residuals[..entry.rows];
            packed.unpack_u64(0, residuals);
            for (value, residual) in out.iter_mut().zip(&*residuals) {
                *value = entry.base.wrapping_add(*residual as i64);
            }
        }
        for index in 0..entry.exceptions {
            let (position, term) = entry.exception(bytes, index);
            match out.get_mut(position) {
                Some(value) => *value = term,
                None => return Err(corrupt("integers, exception", format!("a row below {}", entry.rows), position)),
            }
        }
        match entry.mode {
            Mode::Frame => {}
            Mode::Slope => lanes::add_slope(out, entry.extra, SLOPE_BITS),
            Mode::Delta => {
                let mut sum = entry.extra;
                for value in out.iter_mut() {
                    sum = sum.wrapping_add(*value);
                    *value = sum;
                }
            }
        }
        data.residuals = kept;
        Ok(out)
    }

    pub(super) fn decode_block<'b>(
        &self,
        entry: &Entry,
        data: &mut Data<'_>,
        out: &'b mut [i64],
    ) -> Result<&'b mut [i64]> {
        let out = self.decode_reduced(entry, data, out)?;
        if self.factor != 1 || self.offset != 0 {
            lanes::restore(out, self.offset, self.factor);
        }
        Ok(out)
    }

    #[inline]
    fn restore(&self, reduced: i64) -> i64 {
        self.offset.wrapping_add(self.factor.wrapping_mul(reduced))
    }

    /// The parts of `rows` in each block: entry, rows within the block, rows before.
    pub(super) fn parts(&self, rows: Range<usize>) -> impl Iterator<Item = (Entry, Range<usize>, usize)> + '_ {
        assert!(rows.start <= rows.end && rows.end <= self.len, "invariant: {rows:?} of {} integers", self.len);
        let blocks = if rows.is_empty() { 0..0 } else { rows.start / BLOCK..rows.end.div_ceil(BLOCK) };
        blocks.map(move |block| {
            let first = block * BLOCK;
            let within = rows.start.max(first) - first..rows.end.min(first + BLOCK) - first;
            let before = first + within.start - rows.start;
            (self.entry(block), within, before)
        })
    }

    /// The values of `rows`, each as `of` makes it.
    pub(crate) fn decode<T>(&self, rows: Range<usize>, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        let mut out = Vec::new();
        self.fill(rows, &mut out, of)?;
        Ok(out)
    }

    /// As [`Self::decode`], into `out`, which is cleared first.
    pub(crate) fn fill<T>(&self, rows: Range<usize>, out: &mut Vec<T>, of: impl Fn(i64) -> T) -> Result<()> {
        out.clear();
        out.reserve(rows.len());
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, _) in self.parts(rows) {
            let values = self.decode_block(&entry, &mut data, &mut buffer)?;
            out.extend(values[within].iter().map(|value| of(*value)));
        }
        Ok(())
    }

    /// As [`Self::fill`], as they are: whole blocks are decoded where they are to be.
    pub(crate) fn fill_as_they_are(&self, rows: Range<usize>, out: &mut Vec<i64>) -> Result<()> {
        // What is in it is written over, not cleared first.
        out.resize(rows.len(), 0);
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, before) in self.parts(rows) {
            let place = &mut out[before..before + within.len()];
            if within.len() == entry.rows {
                self.decode_block(&entry, &mut data, place)?;
            } else {
                place.copy_from_slice(&self.decode_block(&entry, &mut data, &mut buffer)?[within]);
            }
        }
        Ok(())
    }

    /// The value of one row.
    pub(crate) fn get(&self, row: usize) -> Result<i64> {
        assert!(row < self.len, "invariant: row {row} of {} integers", self.len);
        let entry = self.entry(row / BLOCK);
        self.get_in(&entry, &mut self.data(), row % BLOCK)
    }

    pub(super) fn get_in(&self, entry: &Entry, data: &mut Data<'_>, row: usize) -> Result<i64> {
        if entry.mode == Mode::Delta {
            let mut buffer = [0; BLOCK];
            return Ok(self.decode_block(entry, data, &mut buffer)?[row]);
        }
        let data = data.of(entry)?;
        let exception = (0..entry.exceptions).map(|i| entry.exception(data, i)).find(|(position, _)| *position == row);
        let term = match exception {
            Some((_, term)) => term,
            None => entry.base.wrapping_add(entry.packed(data).get(row) as i64),
        };
        let slope = if entry.mode == Mode::Slope { on_slope(entry.extra, row) } else { 0 };
        Ok(self.restore(term.wrapping_add(slope)))
    }

    /// The values of the rows of `rows` that `selection` holds, each as `of` makes it.
    pub(crate) fn gather<T>(&self, rows: Range<usize>, selection: &Bitmask, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        let mut values = Vec::new();
        self.gather_into(rows, selection, &mut values)?;
        Ok(values.into_iter().map(of).collect())
    }

    /// As [`Self::gather`], as they are, into `out`, which is cleared first.
    pub(crate) fn gather_into(&self, rows: Range<usize>, selection: &Bitmask, out: &mut Vec<i64>) -> Result<()> {
        out.clear();
        out.reserve(selection.count());
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        let mut positions = Vec::new();
        for (entry, within, before) in self.parts(rows) {
            let places = before..before + within.len();
            let count = selection.count_in(places.clone());
            if count == 0 {
                continue;
            }
            let few = entry.is_simple() && count <= POINTS_MAX;
            let one_by_one = count <= 16 && entry.mode != Mode::Delta && entry.exceptions <= 16;
            if !few && !one_by_one && before.is_multiple_of(64) {
                let values = self.decode_block(&entry, &mut data, &mut buffer)?;
                compact(&values[within], &selection.words()[before / 64..], out);
                continue;
            }
            selection.positions_in(places, &mut positions);
            let picks = || positions.iter().map(|position| *position as usize + within.start);
            if few {
                let packed = entry.packed(data.of(&entry)?);
                out.extend(picks().map(|row| {
                    let slope = if entry.mode == Mode::Slope { on_slope(entry.extra, row) } else { 0 };
                    self.restore(entry.base.wrapping_add(packed.get(row) as i64).wrapping_add(slope))
                }));
            } else if one_by_one {
                for row in picks() {
                    out.push(self.get_in(&entry, &mut data, row)?);
                }
            } else {
                let values = self.decode_block(&entry, &mut data, &mut buffer)?;
                out.extend(picks().map(|row| values[row]));
            }
        }
        Ok(())
    }
}
