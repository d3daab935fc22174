//! Which rows of packed integers pass a test: on the residuals, where it can be asked of them.

use std::ops::Range;

use super::{BLOCK, Integers, Mode, SLOPE_BITS, entry::Entry};
use crate::{
    Result,
    bitpack::{Bitmask, range_mask_i64},
};

/// Where fewer than one in this many rows of a block are left, their values are looked at one by one.
const SPARSE: usize = 32;

impl Integers {
    /// Takes out of `mask` (one bit per row of `rows`) the rows whose value lies inside `low..=high`, or outside when `inside` is false.
    pub(crate) fn select_range(
        &self,
        rows: Range<usize>,
        low: i64,
        high: i64,
        inside: bool,
        mask: &mut Bitmask,
    ) -> Result<()> {
        let asked = (low, high);
        // The bounds on the reduced values.
        let (low, high) = (i128::from(low) - i128::from(self.offset), i128::from(high) - i128::from(self.offset));
        let factor = i128::from(self.factor);
        let (low, high) = (-(-low).div_euclid(factor), high.div_euclid(factor));
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        let mut positions = Vec::new();
        for (entry, within, before) in self.parts(rows) {
            let count = within.len();
            match mask.count_in(before..before + count) {
                0 => continue,
                few if few < count / SPARSE && entry.is_simple() => {
                    mask.positions_in(before..before + count, &mut positions);
                    for position in &positions {
                        let position = *position as usize;
                        let value = self.get_in(&entry, &mut data, within.start + position)?;
                        if (asked.0..=asked.1).contains(&value) != inside {
                            mask.unset(before + position);
                        }
                    }
                    continue;
                }
                _ => {}
            }
            let mut words = [0u64; BLOCK / 64];
            let words = &mut words[..count.div_ceil(64)];
            if entry.mode == Mode::Frame && entry.exceptions == 0 && entry.width <= 32 {
                // On the residuals, without unpacking them first.
                let (low, high) = (low - i128::from(entry.base), high - i128::from(entry.base));
                let top = (1i128 << entry.width) - 1;
                if high >= 0 && low <= top && low <= high {
                    if low <= 0 && high >= top {
                        words.fill(u64::MAX);
                    } else {
                        let (low, high) = (low.max(0) as u32, high.min(top) as u32);
                        entry.packed(data.of(&entry)?).select_range(within.start, count, low, high, words);
                    }
                }
            } else if let Some((least, most)) = on_slope_alone(&entry).filter(|ends| is_settled(*ends, (low, high))) {
                if low <= least && most <= high {
                    words.fill(u64::MAX);
                }
            } else if low <= high {
                let clamp = |bound: i128| bound.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
                if low <= i128::from(i64::MAX) && high >= i128::from(i64::MIN) {
                    let values = self.decode_reduced(&entry, &mut data, &mut buffer)?;
                    range_mask_i64(&values[within], clamp(low), clamp(high), words);
                }
            }
            if !inside {
                words.iter_mut().for_each(|word| *word = !*word);
            }
            mask.and_bits(before, count, words);
        }
        Ok(())
    }

    /// Takes out of `mask` the rows whose value does not pass `test`.
    pub(crate) fn select(&self, rows: Range<usize>, test: impl Fn(i64) -> bool, mask: &mut Bitmask) -> Result<()> {
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, before) in self.parts(rows) {
            if !mask.any_in(before..before + within.len()) {
                continue;
            }
            let values = &self.decode_block(&entry, &mut data, &mut buffer)?[within];
            let mut words = [0u64; BLOCK / 64];
            for (values, word) in values.chunks(64).zip(&mut words) {
                *word = values.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(test(*value)) << bit);
            }
            mask.and_bits(before, values.len(), &words[..values.len().div_ceil(64)]);
        }
        Ok(())
    }
}

/// Between which terms all values of a block on a slope lie; `None` where that is not known without reading it.
fn on_slope_alone(entry: &Entry) -> Option<(i128, i128)> {
    if entry.mode != Mode::Slope || entry.exceptions > 0 || entry.rows == 0 {
        return None;
    }
    let rise = i128::from(entry.extra.checked_mul(entry.rows as i64 - 1)? >> SLOPE_BITS);
    let base = i128::from(entry.base);
    let (least, most) = (base + rise.min(0), base + rise.max(0) + (1i128 << entry.width) - 1);
    (least >= i128::from(i64::MIN) && most <= i128::from(i64::MAX)).then_some((least, most))
}

/// Whether all values or none lie between the bounds, both within.
fn is_settled((least, most): (i128, i128), (low, high): (i128, i128)) -> bool {
    most < low || high < least || low > high || (low <= least && most <= high)
}
