//! Asking an index of documents.

use std::{borrow::Cow, ops::Range, sync::Arc};

use arrow::buffer::Buffer;

use super::{
    super::{Found, Part, lexicon::Lexicon},
    paths::JsonPaths,
    terms,
};
use crate::{Result, bitpack::Bitmask, documents::DocumentTest, predicate::Predicate};

/// With this many times as many rows, the next condition of an AND is not worth its list.
const MORE_ROWS: u64 = 16;

#[derive(Debug)]
pub(crate) struct JsonIndex {
    terms: Option<Lexicon>,
    /// What it is limited to.
    paths: Option<JsonPaths>,
    levels: usize,
}

impl JsonIndex {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32, paths: Option<&JsonPaths>) -> Result<Self> {
        let levels = paths.map_or(terms::DEPTH_MAX, JsonPaths::levels);
        Ok(Self { terms: Lexicon::open(sections, rows)?, paths: paths.cloned(), levels })
    }

    /// The part of the test that the index can answer.
    fn covered<'a>(&self, test: &'a DocumentTest) -> Option<Cow<'a, DocumentTest>> {
        match &self.paths {
            None => Some(Cow::Borrowed(test)),
            Some(paths) => paths.covered(test).map(Cow::Owned),
        }
    }

    /// The rows that may pass `leaf`; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate) -> Result<Option<Found>> {
        let Predicate::Holds { condition, .. } = leaf else { return Ok(None) };
        let Some(test) = condition.documents() else { return Ok(None) };
        let Some(rows) = self.count(test)? else { return Ok(None) };
        Ok(Some(Found { parts: vec![Part::Documents(Arc::clone(test))], rows, ..Found::default() }))
    }

    /// How many rows would be listed for the test, at most; `None` when the index has nothing to say.
    pub(super) fn count(&self, test: &DocumentTest) -> Result<Option<u64>> {
        let (Some(terms), Some(test)) = (&self.terms, self.covered(test)) else { return Ok(None) };
        self.counted(terms, &test).map(Some)
    }

    /// The rows of `rows` that may pass the test, bit 0 for row `base`.
    pub(crate) fn list(&self, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let all = || {
            let mut all = Bitmask::none((rows.end - base) as usize);
            all.set_in((rows.start - base) as usize..(rows.end - base) as usize);
            all
        };
        let (Some(terms), Some(test)) = (&self.terms, self.covered(test)) else { return Ok(all()) };
        let mut found = self.listed(terms, &test, rows, base)?;
        terms.add(&terms::unreadable(), rows, base, &mut found)?;
        Ok(found)
    }

    fn counted(&self, lexicon: &Lexicon, test: &DocumentTest) -> Result<u64> {
        Ok(match test {
            DocumentTest::And(tests) => {
                let mut least = u64::MAX;
                for test in tests {
                    least = least.min(self.counted(lexicon, test)?);
                }
                least
            }
            DocumentTest::Or(tests) => {
                let mut sum = 0u64;
                for test in tests {
                    sum += self.counted(lexicon, test)?;
                }
                sum
            }
            DocumentTest::At { path, value, .. } => {
                let mut sum = 0;
                for range in terms::of_question(path, value, self.levels) {
                    sum += lexicon.count(&range)?;
                }
                sum
            }
        })
    }

    fn listed(&self, lexicon: &Lexicon, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let mut found = Bitmask::none((rows.end - base) as usize);
        match test {
            DocumentTest::And(tests) => {
                let mut by_rows = Vec::with_capacity(tests.len());
                for test in tests {
                    by_rows.push((self.counted(lexicon, test)?, test));
                }
                by_rows.sort_by_key(|(count, _)| *count);
                let mut all: Option<Bitmask> = None;
                for (count, test) in by_rows {
                    all = Some(match all {
                        None => self.listed(lexicon, test, rows, base)?,
                        Some(all) if count > MORE_ROWS * all.count() as u64 => all,
                        Some(mut all) => {
                            all.and(&self.listed(lexicon, test, rows, base)?);
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
                    found.or(&self.listed(lexicon, test, rows, base)?);
                }
            }
            DocumentTest::At { path, value, .. } => {
                for range in terms::of_question(path, value, self.levels) {
                    lexicon.add(&range, rows, base, &mut found)?;
                }
            }
        }
        Ok(found)
    }
}
