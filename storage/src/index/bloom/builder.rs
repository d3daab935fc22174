//! Making a Bloom filter of a column.

use super::super::source::Source;
use crate::{Result, hash, split_block};

/// One section: the blocks.
pub(in crate::index) fn build(source: &Source<'_>, fpp: f64) -> Result<Vec<Vec<u8>>> {
    let mut hashes = Vec::new();
    match source.dictionary()? {
        Some(values) => hash::of_array(&values, |hash| hashes.extend(hash))?,
        None => source.each_array(|array| hash::of_array(array, |hash| hashes.extend(hash)))?,
    }
    hashes.sort_unstable();
    hashes.dedup();
    let mut bytes = vec![0u8; split_block::bytes_for(hashes.len(), fpp)];
    hashes.into_iter().for_each(|hash| split_block::add(&mut bytes, hash));
    Ok(vec![bytes])
}
