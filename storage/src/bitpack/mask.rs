//! A set of rows of one range, one bit per row, in words of 64. Bit 0 of word 0 is the first row of the range. Bits at and
//! above the length are always zero.

use std::ops::Range;

use arrow::buffer::{BooleanBuffer, Buffer};

use super::lanes;

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
        lanes::ones(&self.words)
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

    pub fn unset(&mut self, row: usize) {
        assert!(row < self.len, "invariant: row {row} is in a mask of {} rows", self.len);
        self.words[row / 64] &= !(1 << (row % 64));
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

    /// Keeps the rows that are also in `other`, whose row `offset` is the first of these. Rows beyond its end go.
    pub fn and_at(&mut self, other: &Self, offset: usize) {
        let (place, shift) = (offset / 64, offset % 64);
        let word = |at: usize| other.words.get(at).copied().unwrap_or(0);
        for (index, mine) in self.words.iter_mut().enumerate() {
            *mine &= match shift {
                0 => word(place + index),
                _ => word(place + index) >> shift | word(place + index + 1) << (64 - shift),
            };
        }
    }

    /// Keeps the set rows that are set in `among`, which has one bit for each set row of this mask, in order.
    pub fn keep(&mut self, among: &Self) {
        let mut at = 0;
        for word in &mut self.words {
            for bit in SetBits(*word) {
                if !among.get(at) {
                    *word &= !(1 << bit);
                }
                at += 1;
            }
        }
    }

    /// The first set row at or above `row`.
    pub fn next_from(&self, row: usize) -> Option<usize> {
        let first = self.words.get(row / 64)? & u64::MAX << (row % 64);
        if first != 0 {
            return Some(row / 64 * 64 + first.trailing_zeros() as usize);
        }
        let place = (row / 64 + 1..self.words.len()).find(|place| self.words[*place] != 0)?;
        Some(place * 64 + self.words[place].trailing_zeros() as usize)
    }

    /// The last set row below `row`.
    pub fn last_below(&self, row: usize) -> Option<usize> {
        let row = row.min(self.len);
        let place = (0..row.div_ceil(64)).rev().find(|place| self.word_in(*place, &(0..row)) != 0)?;
        Some(place * 64 + 63 - self.word_in(place, &(0..row)).leading_zeros() as usize)
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

    /// Keeps, of the `count` rows from `at` on, those whose bit is set in `words`, whose bit 0 stands for row `at`. Other rows stay.
    pub fn and_bits(&mut self, at: usize, count: usize, words: &[u64]) {
        assert!(at + count <= self.len && words.len() == count.div_ceil(64), "invariant: {count} rows from {at} on");
        for (index, &word) in words.iter().enumerate() {
            let rows = (count - index * 64).min(64);
            let others = if rows == 64 { 0 } else { u64::MAX << rows };
            let keep = word | others;
            let (place, shift) = ((at + index * 64) / 64, (at + index * 64) % 64);
            if shift == 0 {
                self.words[place] &= keep;
            } else {
                self.words[place] &= keep << shift | ((1 << shift) - 1);
                if let Some(next) = self.words.get_mut(place + 1) {
                    *next &= keep >> (64 - shift) | u64::MAX << shift;
                }
            }
        }
    }

    /// Adds the rows `rows`, which lie below the length.
    pub fn set_in(&mut self, rows: Range<usize>) {
        assert!(rows.end <= self.len, "invariant: rows {rows:?} are in a mask of {} rows", self.len);
        let places = rows.start / 64..rows.end.div_ceil(64);
        let whole = rows.start.div_ceil(64)..rows.end / 64;
        if whole.len() < 2 {
            places.for_each(|place| self.words[place] |= bits_in(place, &rows));
            return;
        }
        self.words[whole.clone()].fill(u64::MAX);
        for place in (places.start..whole.start).chain(whole.end..places.end) {
            self.words[place] |= bits_in(place, &rows);
        }
    }

    /// Takes out the rows `rows`, which lie below the length.
    pub fn clear_in(&mut self, rows: Range<usize>) {
        for place in rows.start / 64..rows.end.div_ceil(64) {
            self.words[place] &= !self.word_in(place, &rows);
        }
    }

    /// Word `place`, without the rows outside `rows`.
    fn word_in(&self, place: usize, rows: &Range<usize>) -> u64 {
        self.words[place] & bits_in(place, rows)
    }

    /// Set rows among `rows`, which lie below the length.
    pub fn count_in(&self, rows: Range<usize>) -> usize {
        if let Some(words) = self.whole_words(&rows) {
            return lanes::ones(words);
        }
        let places = rows.start / 64..rows.end.div_ceil(64);
        places.map(|place| self.word_in(place, &rows).count_ones() as usize).sum()
    }

    /// Whether any row of `rows`, which lie below the length, is set.
    pub fn any_in(&self, rows: Range<usize>) -> bool {
        match self.whole_words(&rows) {
            Some(words) => words.iter().any(|word| *word != 0),
            None => (rows.start / 64..rows.end.div_ceil(64)).any(|place| self.word_in(place, &rows) != 0),
        }
    }

    /// The words of `rows`, if these have no word in part.
    fn whole_words(&self, rows: &Range<usize>) -> Option<&[u64]> {
        let whole = rows.start.is_multiple_of(64) && (rows.end.is_multiple_of(64) || rows.end == self.len);
        if whole { self.words.get(rows.start / 64..rows.end.div_ceil(64)) } else { None }
    }

    /// Puts the set rows among `rows`, which lie below the length and 2^32, into `out`, cleared first, ascending and counted from the first of `rows`.
    pub fn positions_in(&self, rows: Range<usize>, out: &mut Vec<u32>) {
        out.clear();
        match self.whole_words(&rows) {
            Some(words) => {
                out.resize(lanes::ones(words) + lanes::SLACK, 0);
                let count = lanes::positions(words, 0, out);
                out.truncate(count);
            }
            None => out.extend(self.iter_in(rows.clone()).map(|row| (row - rows.start) as u32)),
        }
    }

    /// The set rows among `rows`, which lie below the length, ascending.
    pub fn iter_in(&self, rows: Range<usize>) -> impl Iterator<Item = usize> + '_ {
        let places = rows.start / 64..rows.end.div_ceil(64);
        places.flat_map(move |place| SetBits(self.word_in(place, &rows)).map(move |bit| place * 64 + bit))
    }

    /// The set rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| SetBits(*word).map(move |bit| index * 64 + bit))
    }

    fn clear_tail(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(64)
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

/// The bits of word `place` that lie in `rows`; the word is one that `rows` touches.
fn bits_in(place: usize, rows: &Range<usize>) -> u64 {
    let (first, last) = (place * 64, place * 64 + 64);
    let mut bits = u64::MAX;
    if rows.start > first {
        bits &= u64::MAX << (rows.start - first).min(63);
    }
    if rows.end < last {
        bits &= u64::MAX >> (last - rows.end).min(63);
    }
    if rows.is_empty() { 0 } else { bits }
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
            let (from, to) = (limit.min(bits.len()) / 3, limit.min(bits.len()));
            let inner: Vec<usize> = set.iter().copied().filter(|row| (from..to).contains(row)).collect();
            prop_assert_eq!(mask.iter_in(from..to).collect::<Vec<_>>(), inner.clone());
            prop_assert_eq!(mask.count_in(from..to), inner.len());
            let mut cut = Bitmask::all(bits.len());
            let pattern: Vec<u64> = (0..(to - from).div_ceil(64)).map(|i| 0x9e37_79b9_7f4a_7c15u64.rotate_left(i as u32)).collect();
            cut.and_bits(from, to - from, &pattern);
            for row in 0..bits.len() {
                let kept = !(from..to).contains(&row) || pattern[(row - from) / 64] >> ((row - from) % 64) & 1 == 1;
                prop_assert_eq!(cut.get(row), kept);
            }
            let mut wider = mask.clone();
            wider.set_in(from..to);
            prop_assert_eq!(wider.iter().collect::<Vec<_>>(), (0..bits.len()).filter(|row| bits[*row] || (from..to).contains(row)).collect::<Vec<_>>());
            prop_assert_eq!(mask.next_from(limit), set.iter().copied().find(|row| *row >= limit));
            prop_assert_eq!(mask.last_below(limit), set.iter().copied().rfind(|row| *row < limit));
            let mut part = Bitmask::all(bits.len() - from);
            part.and_at(&mask, from);
            let after: Vec<usize> = set.iter().filter(|row| **row >= from).map(|row| row - from).collect();
            prop_assert_eq!(part.iter().collect::<Vec<_>>(), after);
            let mut kept = mask.clone();
            let odd: Vec<bool> = (0..set.len()).map(|at| at % 2 == 1).collect();
            kept.keep(&Bitmask::from_boolean_buffer(&BooleanBuffer::from(odd)));
            prop_assert_eq!(kept.iter().collect::<Vec<_>>(), set.iter().copied().skip(1).step_by(2).collect::<Vec<_>>());
            mask.truncate_set(limit);
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), set.into_iter().take(limit).collect::<Vec<_>>());
        }
    }
}
