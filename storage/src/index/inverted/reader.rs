//! Asking an inverted index.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::{
    super::{Found, Part, postings::Postings},
    BY_HASH, BY_ID,
};
use crate::{
    Result,
    forward::{IdTest, format::corrupt},
    hash,
    predicate::{CompareOp, Predicate},
    schema::DataType,
};

/// Ids of a set, or values of an IN, that are looked up one by one.
const LOOKUPS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Inverted {
    by_hash: bool,
    postings: Postings,
}

/// The bucket of a hash; `keys` is a power of two.
pub(super) fn bucket(hash: u64, keys: u32) -> u32 {
    ((u128::from(hash) * u128::from(keys)) >> 64) as u32
}

impl Inverted {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32) -> Result<Self> {
        let [layout, postings @ ..] = sections else {
            return Err(corrupt("sections of an inverted index", 5, 0));
        };
        let by_hash = match layout.as_slice() {
            [BY_ID] => false,
            [BY_HASH] => true,
            other => return Err(corrupt("layout of an inverted index", "0 or 1", format!("{other:?}"))),
        };
        let postings = Postings::open(postings, rows)?;
        if by_hash && !postings.keys().is_power_of_two() {
            return Err(corrupt("buckets of an inverted index", "a power of two", postings.keys()));
        }
        Ok(Self { by_hash, postings })
    }

    pub(in crate::index) fn postings(&self) -> &Postings {
        &self.postings
    }

    /// The rows that may pass `leaf`, on a column of the type, which is about these ids if it has a dictionary; `None` when the index
    /// has nothing to say.
    pub(crate) fn find(
        &self,
        leaf: &Predicate,
        ids: Option<IdTest<'_>>,
        data_type: &DataType,
    ) -> Result<Option<Found>> {
        match ids {
            _ if self.by_hash => self.by_hash(leaf, data_type),
            Some(ids) => by_ids(&self.postings, &ids),
            None => Ok(None),
        }
    }

    fn by_hash(&self, leaf: &Predicate, data_type: &DataType) -> Result<Option<Found>> {
        let values = match leaf {
            Predicate::Compare { op: CompareOp::Eq, value, .. } => std::slice::from_ref(value),
            Predicate::In { values, negated: false, .. } if values.len() <= LOOKUPS_MAX => values.as_slice(),
            _ => return Ok(None),
        };
        let mut found = Found::default();
        for value in values {
            let Some(hash) = hash::of_scalar(value, data_type) else { return Ok(None) };
            let bucket = bucket(hash, self.postings.keys());
            found.push(&self.postings, bucket..bucket + 1)?;
        }
        Ok(Some(found))
    }
}

impl Found {
    fn push(&mut self, postings: &Postings, keys: Range<u32>) -> Result<()> {
        let (bitmaps, rows) = postings.bitmaps(&keys);
        self.rows += postings.count(&keys)?;
        self.as_bits += rows;
        self.bitmaps += bitmaps;
        self.parts.push(Part::Keys(keys));
        Ok(())
    }
}

/// The rows of dictionary ids.
pub(in crate::index) fn by_ids(postings: &Postings, ids: &IdTest<'_>) -> Result<Option<Found>> {
    let mut found = Found { exact: true, ..Found::default() };
    let mut push =
        |keys: Range<u32>| -> Result<()> { if keys.is_empty() { Ok(()) } else { found.push(postings, keys) } };
    match ids {
        IdTest::Inside(low, high) => push(*low..*high + 1)?,
        IdTest::Outside(low, high) => {
            push(0..*low)?;
            push(*high + 1..postings.keys().max(*high + 1))?;
        }
        IdTest::Among(set) => {
            let (mut start, mut runs) = (None::<u32>, 0);
            for id in 0..=postings.keys() {
                match (id < postings.keys() && set.contains(id), start) {
                    (true, None) => start = Some(id),
                    (false, Some(from)) => {
                        runs += 1;
                        if runs > LOOKUPS_MAX {
                            return Ok(None);
                        }
                        push(from..id)?;
                        start = None;
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(Some(found))
}
