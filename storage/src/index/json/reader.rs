//! Asking an index of documents.

use std::ops::{Bound, Range};

use arrow::buffer::Buffer;

use super::{
    super::postings::{Postings, u32_at},
    BLOCK, NOTHING, TERMS,
    terms::{self, TermRange},
};
use crate::{
    Result,
    bitpack::Bitmask,
    documents::{DocumentTest, Step, ValueTest},
    forward::format::corrupt,
};

/// With this many times as many rows, the next condition of an AND is not worth its list.
const MORE_ROWS: u64 = 16;

#[derive(Debug)]
pub(crate) struct JsonIndex(Option<Terms>);

#[derive(Debug)]
struct Terms {
    count: u32,
    starts: Buffer,
    data: Buffer,
    postings: Postings,
}

impl JsonIndex {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32) -> Result<Self> {
        let head = sections.first().map(Buffer::as_slice).unwrap_or_default();
        let &[layout, a, b, c, d] = head else {
            return Err(corrupt("head of an index of documents", "5 bytes", head.len()));
        };
        let count = u32::from_le_bytes([a, b, c, d]);
        match (layout, &sections[1..]) {
            (NOTHING, []) => Ok(Self(None)),
            (TERMS, [starts, data, postings @ ..]) => {
                let blocks = (count as usize).div_ceil(BLOCK);
                if starts.len() != blocks * 4 {
                    return Err(corrupt("blocks of terms", blocks, starts.len() / 4));
                }
                let postings = Postings::open_lists(postings, rows)?;
                if postings.keys() != count {
                    return Err(corrupt("terms with rows", count, postings.keys()));
                }
                Ok(Self(Some(Terms { count, starts: starts.clone(), data: data.clone(), postings })))
            }
            _ => Err(corrupt("layout of an index of documents", "0 or 1 and its sections", layout)),
        }
    }

    /// How many rows would be listed for the test, at most; `None` when the index has nothing to say.
    pub(crate) fn count(&self, test: &DocumentTest) -> Result<Option<u64>> {
        let Some(terms) = &self.0 else { return Ok(None) };
        terms.rows(test).map(Some)
    }

    /// The rows of `rows` that may pass the test, bit 0 for row `base`.
    pub(crate) fn list(&self, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let all = || {
            let mut all = Bitmask::none((rows.end - base) as usize);
            all.set_in((rows.start - base) as usize..(rows.end - base) as usize);
            all
        };
        let Some(terms) = &self.0 else { return Ok(all()) };
        let mut found = terms.list(test, rows, base)?;
        let unreadable = terms.keys(&terms::unreadable())?;
        terms.postings.add(unreadable, rows, base, &mut found)?;
        Ok(found)
    }
}

impl Terms {
    fn rows(&self, test: &DocumentTest) -> Result<u64> {
        Ok(match test {
            DocumentTest::And(tests) => {
                let mut least = u64::MAX;
                for test in tests {
                    least = least.min(self.rows(test)?);
                }
                least
            }
            DocumentTest::Or(tests) => {
                let mut sum = 0u64;
                for test in tests {
                    sum += self.rows(test)?;
                }
                sum
            }
            DocumentTest::At { path, value, .. } => {
                let mut sum = 0;
                for keys in self.ranges(path, value)? {
                    sum += self.postings.count(&keys)?;
                }
                sum
            }
        })
    }

    fn list(&self, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let mut found = Bitmask::none((rows.end - base) as usize);
        match test {
            DocumentTest::And(tests) => {
                let mut counted = Vec::with_capacity(tests.len());
                for test in tests {
                    counted.push((self.rows(test)?, test));
                }
                counted.sort_by_key(|(count, _)| *count);
                let mut all: Option<Bitmask> = None;
                for (count, test) in counted {
                    all = Some(match all {
                        None => self.list(test, rows, base)?,
                        Some(all) if count > MORE_ROWS * all.count() as u64 => all,
                        Some(mut all) => {
                            all.and(&self.list(test, rows, base)?);
                            all
                        }
                    });
                }
                match all {
                    Some(all) => found = all,
                    None => found.set_in((rows.start - base) as usize..(rows.end - base) as usize),
                }
            }
            DocumentTest::Or(tests) => {
                for test in tests {
                    found.or(&self.list(test, rows, base)?);
                }
            }
            DocumentTest::At { path, value, .. } => {
                for keys in self.ranges(path, value)? {
                    self.postings.add(keys, rows, base, &mut found)?;
                }
            }
        }
        Ok(found)
    }

    fn ranges(&self, path: &[Step], value: &ValueTest) -> Result<Vec<Range<u32>>> {
        let ranges = terms::of_question(path, value);
        ranges.iter().map(|range| self.keys(range)).collect()
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
