//! Comparisons that answer with one bit per value.

use std::ops::Range;

use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::{Level, avx2, avx512, level};

/// A set of dictionary ids, one bit per id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdSet {
    words: Vec<u32>,
}

impl IdSet {
    /// The set ids of `0..ids`.
    pub fn of(ids: usize, set: impl IntoIterator<Item = u32>) -> Self {
        let mut words = vec![0u32; ids.div_ceil(32)];
        for id in set.into_iter().filter(|id| (*id as usize) < ids) {
            words[id as usize / 32] |= 1 << (id % 32);
        }
        Self { words }
    }

    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The set ids, as runs without a gap, ascending.
    pub fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let (end, mut at) = (self.words.len() as u32 * 32, 0);
        std::iter::from_fn(move || {
            let start = (at..end).find(|id| self.contains(*id))?;
            at = (start..end).find(|id| !self.contains(*id)).unwrap_or(end);
            Some(start..at)
        })
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }
}

/// One bit per value: whether it lies in `low..=high`. `out` has one word for each 64 values begun.
pub fn range_mask_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 => return avx512::range_mask_u32(values, low, high, out),
        Level::Avx2 => return avx2::range_mask_u32(values, low, high, out),
        Level::Scalar => {}
    }
    scalar::range_mask_u32(values, low, high, out);
}

/// As [`range_mask_u32`], for signed values of 64 bits.
pub fn range_mask_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 => return avx512::range_mask_i64(values, low, high, out),
        Level::Avx2 => return avx2::range_mask_i64(values, low, high, out),
        Level::Scalar => {}
    }
    scalar::range_mask_i64(values, low, high, out);
}
