//! Every kernel without vector instructions and without `unsafe`: the twin that the others are tested against.

/// Value `index` of `packed`; bits beyond the end of the buffer read as zero.
#[inline]
pub fn get(packed: &[u8], width: u8, index: usize) -> u64 {
    if width == 0 {
        return 0;
    }
    let bit = index * usize::from(width);
    let (byte, shift) = (bit / 8, bit % 8);
    let keep = u64::MAX >> (64 - u32::from(width));
    let tail = packed.get(byte..).unwrap_or_default();
    match tail.first_chunk::<8>() {
        Some(word) if shift + usize::from(width) <= 64 => u64::from_le_bytes(*word) >> shift & keep,
        _ => {
            let mut word = [0u8; 16];
            let count = tail.len().min(9);
            word[..count].copy_from_slice(&tail[..count]);
            (u128::from_le_bytes(word) >> shift) as u64 & keep
        }
    }
}

pub fn unpack_u32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    for (index, value) in out.iter_mut().enumerate() {
        *value = get(packed, width, start + index) as u32;
    }
}

pub fn unpack_u64(packed: &[u8], width: u8, start: usize, out: &mut [u64]) {
    for (index, value) in out.iter_mut().enumerate() {
        *value = get(packed, width, start + index);
    }
}

/// One bit per value: whether it lies in `low..=high`.
pub fn range_mask_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    mask(values, out, |value| (low..=high).contains(&value));
}

/// One bit per value: whether it lies in `low..=high`.
pub fn range_mask_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    mask(values, out, |value| (low..=high).contains(&value));
}

/// One bit per value: whether the bit of that number is set in `set`.
pub fn set_mask_u32(values: &[u32], set: &[u32], out: &mut [u64]) {
    mask(values, out, |value| set.get(value as usize / 32).is_some_and(|word| word >> (value % 32) & 1 == 1));
}

fn mask<T: Copy>(values: &[T], out: &mut [u64], test: impl Fn(T) -> bool) {
    for (values, word) in values.chunks(64).zip(out) {
        *word = values.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(test(*value)) << bit);
    }
}
