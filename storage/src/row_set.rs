//! A set of rows of one segment.

use roaring::RoaringBitmap;

use crate::{Error, Result};

/// Row numbers; few bytes for runs and for few.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSet(RoaringBitmap);

impl RowSet {
    /// False when the row was in the set.
    pub fn insert(&mut self, row: u32) -> bool {
        self.0.insert(row)
    }

    pub fn contains(&self, row: u32) -> bool {
        self.0.contains(row)
    }

    pub fn rows(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn last(&self) -> Option<u32> {
        self.0.max()
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// The rows of both.
    pub fn add(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Roaring's portable format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        // A vector takes whatever is written.
        let _ = self.0.serialize_into(&mut bytes);
        bytes
    }

    /// Errors: `Invalid` for bytes that [`Self::to_bytes`] did not make.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let read = RoaringBitmap::deserialize_from(bytes);
        read.map(Self).map_err(|error| Error::Invalid(format!("a set of rows cannot be read: {error}")))
    }
}

impl FromIterator<u32> for RowSet {
    fn from_iter<T: IntoIterator<Item = u32>>(rows: T) -> Self {
        Self(rows.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_its_bytes_and_from_no_others() {
        let rows = RowSet::from_iter((0..70_000).step_by(3).chain([u32::MAX]));
        let bytes = rows.to_bytes();
        assert_eq!(RowSet::from_bytes(&bytes).unwrap(), rows);
        for length in 0..bytes.len().min(200) {
            assert!(RowSet::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
