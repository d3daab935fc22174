//! Asking an index of documents.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::{super::lexicon::Lexicon, terms};
use crate::{Result, bitpack::Bitmask, documents::DocumentTest};

/// With this many times as many rows, the next condition of an AND is not worth its list.
const MORE_ROWS: u64 = 16;

#[derive(Debug)]
pub(crate) struct JsonIndex(Option<Lexicon>);

impl JsonIndex {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32) -> Result<Self> {
        Ok(Self(Lexicon::open(sections, rows)?))
    }

    /// How many rows would be listed for the test, at most; `None` when the index has nothing to say.
    pub(crate) fn count(&self, test: &DocumentTest) -> Result<Option<u64>> {
        let Some(terms) = &self.0 else { return Ok(None) };
        counted(terms, test).map(Some)
    }

    /// The rows of `rows` that may pass the test, bit 0 for row `base`.
    pub(crate) fn list(&self, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let all = || {
            let mut all = Bitmask::none((rows.end - base) as usize);
            all.set_in((rows.start - base) as usize..(rows.end - base) as usize);
            all
        };
        let Some(terms) = &self.0 else { return Ok(all()) };
        let mut found = listed(terms, test, rows, base)?;
        terms.add(&terms::unreadable(), rows, base, &mut found)?;
        Ok(found)
    }
}

fn counted(lexicon: &Lexicon, test: &DocumentTest) -> Result<u64> {
    Ok(match test {
        DocumentTest::And(tests) => {
            let mut least = u64::MAX;
            for test in tests {
                least = least.min(counted(lexicon, test)?);
            }
            least
        }
        DocumentTest::Or(tests) => {
            let mut sum = 0u64;
            for test in tests {
                sum += counted(lexicon, test)?;
            }
            sum
        }
        DocumentTest::At { path, value, .. } => {
            let mut sum = 0;
            for range in terms::of_question(path, value) {
                sum += lexicon.count(&range)?;
            }
            sum
        }
    })
}

fn listed(lexicon: &Lexicon, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
    let mut found = Bitmask::none((rows.end - base) as usize);
    match test {
        DocumentTest::And(tests) => {
            let mut by_rows = Vec::with_capacity(tests.len());
            for test in tests {
                by_rows.push((counted(lexicon, test)?, test));
            }
            by_rows.sort_by_key(|(count, _)| *count);
            let mut all: Option<Bitmask> = None;
            for (count, test) in by_rows {
                all = Some(match all {
                    None => listed(lexicon, test, rows, base)?,
                    Some(all) if count > MORE_ROWS * all.count() as u64 => all,
                    Some(mut all) => {
                        all.and(&listed(lexicon, test, rows, base)?);
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
                found.or(&listed(lexicon, test, rows, base)?);
            }
        }
        DocumentTest::At { path, value, .. } => {
            for range in terms::of_question(path, value) {
                lexicon.add(&range, rows, base, &mut found)?;
            }
        }
    }
    Ok(found)
}
