//! Terms and the rows that have them: what indexes of documents and of words are made of.
//!
//! ```text
//! terms:  … error  failed  timeout …        sorted by their bytes, front-coded in blocks
//! rows:     3 8    0       0 3              of each term, as an inverted index has them
//! ```
//!
//! Terms beside each other, such as all that begin alike, are one range of keys.

use std::{
    collections::HashMap,
    ops::{Bound, Range},
};

use arrow::buffer::Buffer;

use super::postings::{self, Postings, u32_at};
use crate::{Result, bitpack::Bitmask, forward::format::corrupt};

/// Terms of a block, of which the first is written out.
const BLOCK: usize = 16;
/// The terms and their rows.
const TERMS: u8 = 0;
/// Nothing: the rows have too much.
const NOTHING: u8 = 1;
/// Terms of all rows, counted in each.
const PAIRS_MAX: usize = 1 << 28;
/// Bytes of all terms.
const BYTES_MAX: usize = 1 << 30;

/// From the first bytes up to those that are no longer of it.
pub(super) type TermRange = (Vec<u8>, Bound<Vec<u8>>);

/// What follows all that begin with `prefix`, whose last byte is not 0xff.
pub(super) fn after(prefix: &[u8]) -> Bound<Vec<u8>> {
    match prefix.split_last() {
        None => Bound::Unbounded,
        Some((last, before)) => Bound::Excluded([before, &[last + 1]].concat()),
    }
}

/// The one term.
pub(super) fn only(term: Vec<u8>) -> TermRange {
    let mut after = term.clone();
    after.push(0);
    (term, Bound::Excluded(after))
}

/// Collects terms row by row.
#[derive(Default)]
pub(super) struct Collected {
    numbers: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    /// The terms of each row, as numbers, and where those of the next begin.
    found: Vec<u32>,
    ends: Vec<usize>,
    bytes: usize,
}

impl Collected {
    /// The next row, with its terms, possibly one several times: `terms` is given what takes them.
    pub(super) fn row(&mut self, terms: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        let first = self.found.len();
        if !self.is_too_much() {
            let Self { numbers, found, bytes, .. } = self;
            terms(&mut |term| {
                let next = numbers.len() as u32;
                found.push(match numbers.get(term) {
                    Some(number) => *number,
                    None => {
                        *bytes += term.len();
                        numbers.insert(term.into(), next);
                        next
                    }
                });
            });
            found[first..].sort_unstable();
            let mut kept = first;
            for at in first..found.len() {
                if at == first || found[at] != found[kept - 1] {
                    found[kept] = found[at];
                    kept += 1;
                }
            }
            found.truncate(kept);
        }
        self.ends.push(self.found.len());
    }

    fn is_too_much(&self) -> bool {
        self.found.len() > PAIRS_MAX || self.bytes > BYTES_MAX
    }

    /// The sections: layout and number of terms, starts of the blocks of terms, the terms, then their rows.
    pub(super) fn sections(mut self) -> Result<Vec<Vec<u8>>> {
        if self.is_too_much() {
            return Ok(vec![vec![NOTHING, 0, 0, 0, 0]]);
        }
        let mut sorted: Vec<(Box<[u8]>, u32)> = self.numbers.into_iter().collect();
        sorted.sort_unstable();
        let mut places = vec![0u32; sorted.len()];
        sorted.iter().enumerate().for_each(|(place, (_, number))| places[*number as usize] = place as u32);
        self.found.iter_mut().for_each(|number| *number = places[*number as usize]);

        let mut head = vec![TERMS];
        head.extend_from_slice(&(sorted.len() as u32).to_le_bytes());
        let (starts, data) = front_coded(sorted.iter().map(|(term, _)| term.as_ref()));
        let mut sections = vec![head, starts, data];
        let (found, ends) = (&self.found, &self.ends);
        let each = |out: &mut dyn FnMut(u32, u32)| {
            let mut first = 0;
            for (row, end) in ends.iter().enumerate() {
                found[first..*end].iter().for_each(|term| out(row as u32, *term));
                first = *end;
            }
        };
        sections.extend(postings::encode_each(ends.len() as u32, sorted.len() as u32, each)?);
        Ok(sections)
    }
}

/// Where each block of terms begins, and the terms: of each how many bytes it shares with the one before (none, for the first of a block), how many
/// follow, and these.
fn front_coded<'a>(terms: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<u8>) {
    let (mut starts, mut data, mut last): (Vec<u8>, Vec<u8>, &[u8]) = (Vec::new(), Vec::new(), &[]);
    for (place, term) in terms.enumerate() {
        let shared = if place.is_multiple_of(BLOCK) {
            starts.extend_from_slice(&(data.len() as u32).to_le_bytes());
            0
        } else {
            term.iter().zip(last).take_while(|(a, b)| a == b).count()
        };
        for length in [shared, term.len() - shared] {
            // Terms are short: a word, or sixteen keys of 66 bytes and a text.
            data.extend_from_slice(&(length as u16).to_le_bytes());
        }
        data.extend_from_slice(&term[shared..]);
        last = term;
    }
    (starts, data)
}

/// The terms of a segment with their rows.
#[derive(Debug)]
pub(super) struct Lexicon {
    count: u32,
    starts: Buffer,
    data: Buffer,
    postings: Postings,
}

impl Lexicon {
    /// Opens what [`Collected`] made of `rows` rows; `None` when that is nothing.
    pub(super) fn open(sections: &[Buffer], rows: u32) -> Result<Option<Self>> {
        let head = sections.first().map(Buffer::as_slice).unwrap_or_default();
        let &[layout, a, b, c, d] = head else {
            return Err(corrupt("head of an index of terms", "5 bytes", head.len()));
        };
        let count = u32::from_le_bytes([a, b, c, d]);
        match (layout, &sections[1..]) {
            (NOTHING, []) => Ok(None),
            (TERMS, [starts, data, postings @ ..]) => {
                let blocks = (count as usize).div_ceil(BLOCK);
                if starts.len() != blocks * 4 {
                    return Err(corrupt("blocks of terms", blocks, starts.len() / 4));
                }
                let postings = Postings::open_lists(postings, rows)?;
                if postings.keys() != count {
                    return Err(corrupt("terms with rows", count, postings.keys()));
                }
                Ok(Some(Self { count, starts: starts.clone(), data: data.clone(), postings }))
            }
            _ => Err(corrupt("layout of an index of terms", "0 or 1 and its sections", layout)),
        }
    }

    /// Rows of the terms of a range, counted for each.
    pub(super) fn count(&self, range: &TermRange) -> Result<u64> {
        self.postings.count(&self.keys(range)?)
    }

    /// Adds the rows of the terms of a range, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`.
    pub(super) fn add(&self, range: &TermRange, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        self.postings.add(self.keys(range)?, rows, base, out)
    }

    /// The terms of a range.
    fn keys(&self, (start, end): &TermRange) -> Result<Range<u32>> {
        let first = self.first_from(start)?;
        let last = match end {
            Bound::Unbounded => self.count,
            Bound::Excluded(end) | Bound::Included(end) => self.first_from(end)?,
        };
        Ok(first..last.max(first))
    }

    /// The first term at or above `bytes`.
    fn first_from(&self, bytes: &[u8]) -> Result<u32> {
        let (mut low, mut high) = (0, (self.count as usize).div_ceil(BLOCK));
        let mut term = Vec::with_capacity(64);
        // The first block whose first term is above.
        while low < high {
            let middle = (low + high) / 2;
            self.term_at(self.start(middle), true, &mut term)?;
            if term.as_slice() <= bytes { low = middle + 1 } else { high = middle }
        }
        let Some(block) = low.checked_sub(1) else { return Ok(0) };
        let (mut place, first) = (self.start(block), block * BLOCK);
        for number in first..(first + BLOCK).min(self.count as usize) {
            place = self.term_at(place, number == first, &mut term)?;
            if term.as_slice() >= bytes {
                return Ok(number as u32);
            }
        }
        Ok(((first + BLOCK) as u32).min(self.count))
    }

    fn start(&self, block: usize) -> usize {
        u32_at(&self.starts, block * 4) as usize
    }

    /// Makes the term at a place of the one before it; gives the place of the next.
    fn term_at(&self, place: usize, is_first: bool, term: &mut Vec<u8>) -> Result<usize> {
        let short = || corrupt("terms", "whole ones", format!("one at {place} of {} bytes", self.data.len()));
        let &[a, b, c, d] = self.data.get(place..place + 4).ok_or_else(short)? else { return Err(short()) };
        let (shared, length) = (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])));
        let end = place + 4 + length;
        let rest = self.data.get(place + 4..end).ok_or_else(short)?;
        if is_first {
            term.clear();
        }
        if shared > term.len() {
            return Err(corrupt("a term", format!("at most {} shared bytes", term.len()), shared));
        }
        term.truncate(shared);
        term.extend_from_slice(rest);
        Ok(end)
    }
}
