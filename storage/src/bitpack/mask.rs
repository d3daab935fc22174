//! A set of rows of one range, one bit per row, in words of 64. Bit 0 of word 0 is the first row of the range. Bits at and
//! above the length are always zero.

use arrow::buffer::{BooleanBuffer, Buffer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmask {
    words: Vec<u64>,
    len: usize,
}

impl Bitmask {
    /// Every one of `len` rows.
    pub fn all(len: usize) -> Self {
        let mut mask = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        mask.clear_tail();
        mask
    }

    /// None of `len` rows.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    pub fn from_boolean_buffer(buffer: &BooleanBuffer) -> Self {
        let mut words: Vec<u64> = buffer.bit_chunks().iter_padded().collect();
        words.truncate(buffer.len().div_ceil(64));
        Self { words, len: buffer.len() }
    }

    pub fn to_boolean_buffer(&self) -> BooleanBuffer {
        BooleanBuffer::new(Buffer::from_slice_ref(&self.words), 0, self.len)
    }

    /// Rows in the range, set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words to change in place; the caller must leave the bits at and above the length zero.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Rows that are set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_none(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub fn is_all(&self) -> bool {
        self.count() == self.len
    }

    pub fn get(&self, row: usize) -> bool {
        row < self.len && self.words[row / 64] >> (row % 64) & 1 == 1
    }

    pub fn set(&mut self, row: usize) {
        assert!(row < self.len, "invariant: row {row} is in a mask of {} rows", self.len);
        self.words[row / 64] |= 1 << (row % 64);
    }

    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Keeps the rows that are also in `other`, which has the same length.
    pub fn and(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "invariant: masks of one range");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// Adds the rows of `other`, which has the same length.
    pub fn or(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "invariant: masks of one range");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Keeps the rows that are not in `other`, which has the same length.
    pub fn and_not(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "invariant: masks of one range");
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    /// Keeps only the first `limit` set rows.
    pub fn truncate_set(&mut self, limit: usize) {
        let mut left = limit;
        for word in &mut self.words {
            let ones = word.count_ones() as usize;
            if ones <= left {
                left -= ones;
                continue;
            }
            let mut kept = 0u64;
            while left > 0 {
                let lowest = *word & word.wrapping_neg();
                kept |= lowest;
                *word ^= lowest;
                left -= 1;
            }
            *word = kept;
        }
    }

    /// The set rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| SetBits(*word).map(move |bit| index * 64 + bit))
    }

    fn clear_tail(&mut self) {
        if let Some(last) = self.words.last_mut()
            && self.len % 64 != 0
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

struct SetBits(u64);

impl Iterator for SetBits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_a_set_of_rows(bits in prop::collection::vec(any::<bool>(), 0..300), limit in 0usize..300) {
            let mut mask = Bitmask::from_boolean_buffer(&BooleanBuffer::from(bits.clone()));
            let set: Vec<usize> = (0..bits.len()).filter(|i| bits[*i]).collect();
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), set.clone());
            prop_assert_eq!(mask.count(), set.len());
            prop_assert_eq!(mask.to_boolean_buffer(), BooleanBuffer::from(bits.clone()));
            let mut rest = Bitmask::all(bits.len());
            rest.and_not(&mask);
            prop_assert_eq!(rest.count() + mask.count(), bits.len());
            rest.or(&mask);
            prop_assert!(rest.is_all());
            mask.truncate_set(limit);
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), set.into_iter().take(limit).collect::<Vec<_>>());
        }
    }
}
