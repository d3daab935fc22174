//! Making an inverted index of a column.

use super::{
    super::{postings, source::Source},
    BY_HASH, BY_ID,
};
use crate::{Result, bitpack::width_of, hash};

/// The sections: the layout, then the postings.
pub(in crate::index) fn build(source: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    let (layout, keys_of, keys) = match source.ids()? {
        Some((ids, keys)) => (BY_ID, ids, keys),
        None => {
            let rows = u64::from(source.rows) - source.null_count();
            let bits = width_of(rows.saturating_sub(1));
            let keys = 1u32 << bits.min(31);
            let mut keys_of = Vec::with_capacity(source.rows as usize);
            source.each_array(|array| {
                hash::of_array(array, |hash| keys_of.push(hash.map_or(keys, |hash| super::reader::bucket(hash, keys))))
            })?;
            (BY_HASH, keys_of, keys)
        }
    };
    let mut sections = vec![vec![layout]];
    sections.extend(postings::encode(&keys_of, keys)?);
    Ok(sections)
}
