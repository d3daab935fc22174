//! Unsigned integers of a fixed number of bits, one behind the other, and the kernels that read and compare them.
//!
//! ```text
//! width 5:   byte 0        byte 1        byte 2 …
//!            b b b a a a a a│c d … : value i occupies the bits i·5 … i·5+4, counted from the lowest bit of byte 0
//! ```
//!
//! This one layout serves both ways of reading: one value costs one unaligned load of 8 bytes ([`Packed::get`]), and since
//! eight values of any width fill whole bytes, runs of them are unpacked by byte shuffles: 16 at a time with AVX-512 VBMI, 8 with
//! AVX2, chosen at run time. [`scalar`] is the plain twin of every kernel, and what other processors use.
//!
//! What always holds: a [`Packed`] covers at least the bytes of its values, so that no index below its length reads out of
//! bounds. Kernels load whole vectors only where these lie inside the buffer; the last values of a buffer that is not followed by
//! [`PADDING`] bytes take the scalar way.
//!
//! [`lanes`] has loops over numbers that are unpacked already.
//!
//! [`views`] is here for another reason: it makes Arrow string views from dictionary ids without checking every string again,
//! which needs `unsafe`, which lives here.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod compact;
mod compare;
pub(crate) mod lanes;
mod mask;
pub mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod views;

pub use compare::{IdSet, range_mask_i64, range_mask_u32};
pub use mask::Bitmask;

/// Bytes of zeros behind packed values that let every one of them be read by the vector kernels.
pub const PADDING: usize = 64;

/// Values that are unpacked at a time to have some of them picked.
const CHUNK: usize = 512;

/// Where fewer than one in this many values are wanted, they are read one by one.
const SPARSE: usize = 6;

/// Bits that `value` needs.
pub fn width_of(value: u64) -> u8 {
    (64 - value.leading_zeros()) as u8
}

/// Bytes that `count` values of `width` bits take, padding aside. Saturates.
pub fn packed_bytes(count: usize, width: u8) -> usize {
    count.saturating_mul(usize::from(width)).div_ceil(8)
}

/// Appends the low `width` bits of each value to `out`, beginning at a whole byte.
pub fn pack(values: impl IntoIterator<Item = u64>, width: u8, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let width = u32::from(width);
    let keep = u64::MAX >> (64 - width);
    let (mut word, mut used) = (0u64, 0u32);
    for value in values {
        let value = value & keep;
        word |= value << used;
        used += width;
        if used >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            used -= 64;
            word = if used == 0 { 0 } else { value >> (width - used) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..used.div_ceil(8) as usize]);
}

/// What the processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        // The standard library asks the processor once and keeps the answer.
        if is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512f")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") {
            return Level::Avx2;
        }
    }
    Level::Scalar
}

/// `len` values of `width` bits.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    bytes: &'a [u8],
    width: u8,
    len: usize,
}

impl<'a> Packed<'a> {
    /// `None` when `bytes` is too short or the width above 64. Bytes behind the values are welcome as padding.
    pub fn new(bytes: &'a [u8], width: u8, len: usize) -> Option<Self> {
        (width <= 64 && bytes.len() >= packed_bytes(len, width)).then_some(Self { bytes, width, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn width(&self) -> u8 {
        self.width
    }

    /// Value `index`, which is below the length.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        debug_assert!(index < self.len, "invariant: index {index} is below {}", self.len);
        scalar::get(self.bytes, self.width, index)
    }

    /// The values from `start` on, as many as `out` takes. The width is at most 32 and all of them lie below the length.
    pub fn unpack_u32(&self, start: usize, out: &mut [u32]) {
        self.check(start, out.len(), 32);
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::unpack_u32(self.bytes, self.width, start, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::unpack_u32(self.bytes, self.width, start, out),
            Level::Scalar => scalar::unpack_u32(self.bytes, self.width, start, out),
        }
    }

    /// As [`Self::unpack_u32`], for any width.
    pub fn unpack_u64(&self, start: usize, out: &mut [u64]) {
        self.check(start, out.len(), 64);
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::unpack_u64(self.bytes, self.width, start, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::unpack_u64(self.bytes, self.width, start, out),
            Level::Scalar => scalar::unpack_u64(self.bytes, self.width, start, out),
        }
    }

    /// The values of those indexes `start + i` whose bit `i` is set in `mask`, in order, appended to `out`.
    pub fn gather_u32(&self, start: usize, mask: &Bitmask, out: &mut Vec<u32>) {
        self.check(start, mask.len(), 32);
        if mask.count() < mask.len() / SPARSE {
            let mut positions = Vec::new();
            mask.positions_in(0..mask.len(), &mut positions);
            let before = out.len();
            out.resize(before + positions.len(), 0);
            return lanes::picked(self.bytes, self.width, start, &positions, &mut out[before..]);
        }
        let mut buffer = [0u32; CHUNK];
        for (index, words) in mask.words().chunks(CHUNK / 64).enumerate() {
            if words.iter().all(|word| *word == 0) {
                continue;
            }
            let before = index * CHUNK;
            let buffer = &mut buffer[..(mask.len() - before).min(CHUNK)];
            self.unpack_u32(start + before, buffer);
            compact::compact(buffer, words, out);
        }
    }

    /// One bit for each of the `count` values from `start` on: whether it lies in `low..=high`. The width is at most 32; `out` has one
    /// word for each 64 values begun.
    pub fn select_range(&self, start: usize, count: usize, low: u32, high: u32, out: &mut [u64]) {
        self.check(start, count, 32);
        assert_eq!(out.len(), count.div_ceil(64), "invariant: one word for 64 values");
        #[cfg(target_arch = "x86_64")]
        if level() == Level::Avx512 && start.is_multiple_of(8) && self.width <= avx512::LANE32_WIDTH_MAX {
            return avx512::select_range(self.bytes, self.width, start, count, low, high, out);
        }
        self.each_block(start, count, |values, at| {
            range_mask_u32(values, low, high, &mut out[at / 64..(at + values.len()).div_ceil(64)]);
        });
    }

    /// As [`Self::select_range`], for membership in a set of ids.
    pub fn select_set(&self, start: usize, count: usize, set: &IdSet, out: &mut [u64]) {
        self.check(start, count, 32);
        assert_eq!(out.len(), count.div_ceil(64), "invariant: one word for 64 values");
        #[cfg(target_arch = "x86_64")]
        if level() == Level::Avx512 && start.is_multiple_of(8) && self.width <= avx512::LANE32_WIDTH_MAX {
            return avx512::select_set(self.bytes, self.width, start, count, set.words(), out);
        }
        self.each_block(start, count, |values, at| {
            scalar::set_mask_u32(values, set.words(), &mut out[at / 64..(at + values.len()).div_ceil(64)]);
        });
    }

    /// Calls `each` with runs of values that stay in the first-level cache, and how many came before.
    fn each_block(&self, start: usize, count: usize, mut each: impl FnMut(&[u32], usize)) {
        let mut buffer = [0u32; 1024];
        for at in (0..count).step_by(buffer.len()) {
            let values = &mut buffer[..(count - at).min(1024)];
            self.unpack_u32(start + at, values);
            each(values, at);
        }
    }

    fn check(&self, start: usize, count: usize, width_max: u8) {
        assert!(
            self.width <= width_max && start.checked_add(count).is_some_and(|end| end <= self.len),
            "invariant: {count} values from {start} on of {} of {} bits",
            self.len,
            self.width
        );
    }
}
