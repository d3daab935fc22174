//! Split-block Bloom filters as in Parquet (Putze, Sanders, Singler 2007), as plain bytes: a value sets eight bits, one in each of the eight words of one
//! block of 32 bytes, so that asking touches one cache line. 1.2 bytes a value give one false answer in a hundred.

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 32;
/// Blocks at most: 128 MiB.
const BLOCKS_MAX: f64 = (1u64 << 22) as f64;

/// What spreads one hash over the words of a block.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Bytes of a filter for so many values and this share of false answers.
pub fn bytes_for(values: usize, fpp: f64) -> usize {
    let bits = -8.0 * values as f64 / (1.0 - fpp.clamp(1e-9, 0.999).powf(1.0 / 8.0)).ln();
    (bits / (BLOCK_BYTES * 8) as f64).ceil().clamp(1.0, BLOCKS_MAX) as usize * BLOCK_BYTES
}

/// Adds a value by its hash ([`crate::hash`]). `filter` is whole blocks, at least one.
pub fn add(filter: &mut [u8], hash: u64) {
    let (block, bits) = place(hash, (filter.len() / BLOCK_BYTES) as u64);
    for (word, bit) in filter[block * BLOCK_BYTES..].chunks_exact_mut(4).zip(bits) {
        word.iter_mut().zip(bit.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
    }
}

/// Whether a value of that hash may have been added.
pub fn may_have(filter: &[u8], hash: u64) -> bool {
    let (block, bits) = place(hash, (filter.len() / BLOCK_BYTES) as u64);
    let words = filter[block * BLOCK_BYTES..].chunks_exact(4);
    words.zip(bits).all(|(word, bit)| u32::from_le_bytes([word[0], word[1], word[2], word[3]]) & bit != 0)
}

/// The block of a hash, of `blocks`, and the bit of each of its words.
fn place(hash: u64, blocks: u64) -> (usize, [u32; 8]) {
    let block = ((hash >> 32) * blocks) >> 32;
    (block as usize, SALTS.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27)))
}
