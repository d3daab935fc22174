//! Making a Bloom filter of a column.

use super::{super::source::Source, BLOCK_BYTES, place};
use crate::{Result, hash};

/// Blocks at most: 128 MiB.
const BLOCKS_MAX: f64 = (1u64 << 22) as f64;

/// One section: the blocks.
pub(in crate::index) fn build(source: &Source<'_>, fpp: f64) -> Result<Vec<Vec<u8>>> {
    let mut hashes = Vec::new();
    match source.dictionary()? {
        Some(values) => hash::of_array(&values, |hash| hashes.extend(hash))?,
        None => source.each_array(|array| hash::of_array(array, |hash| hashes.extend(hash)))?,
    }
    hashes.sort_unstable();
    hashes.dedup();
    let blocks = blocks_for(hashes.len(), fpp);
    let mut bytes = vec![0u8; blocks * BLOCK_BYTES];
    for hash in hashes {
        let (block, bits) = place(hash, blocks as u64);
        for (word, bit) in bytes[block * BLOCK_BYTES..].chunks_exact_mut(4).zip(bits) {
            word.iter_mut().zip(bit.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
        }
    }
    Ok(vec![bytes])
}

/// Blocks for so many values and this share of false answers.
fn blocks_for(values: usize, fpp: f64) -> usize {
    let bits = -8.0 * values as f64 / (1.0 - fpp.clamp(1e-9, 0.999).powf(1.0 / 8.0)).ln();
    (bits / (BLOCK_BYTES * 8) as f64).ceil().clamp(1.0, BLOCKS_MAX) as usize
}
