//! AVX-512 VBMI kernels: one permutation of 64 bytes brings the bytes of each value into its lane, a shift and a mask finish it.
#![expect(unsafe_code, reason = "vector instructions; every function here has a scalar twin it is tested against")]

use std::arch::x86_64::{
    __m512i, _mm256_storeu_si256, _mm512_and_si512, _mm512_cmple_epi64_mask, _mm512_cmple_epu32_mask,
    _mm512_cmplt_epu32_mask, _mm512_cvtepi64_epi32, _mm512_loadu_si512, _mm512_mask_cmple_epi64_mask,
    _mm512_mask_i32gather_epi32, _mm512_mask_test_epi32_mask, _mm512_maskz_compress_epi32, _mm512_maskz_compress_epi64,
    _mm512_permutexvar_epi8, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi32,
    _mm512_srli_epi32, _mm512_srlv_epi32, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi32,
};

use super::scalar;

/// Widest values whose bytes fit a lane of 32 bits at any of the eight bit offsets.
pub(super) const LANE32_WIDTH_MAX: u8 = 25;
/// The same for lanes of 64 bits.
const LANE64_WIDTH_MAX: u8 = 57;

/// Which byte goes where, and by how much each lane is shifted.
#[repr(C, align(64))]
struct Plan {
    bytes: [u8; 64],
    shifts: [u8; 64],
}

/// The plan for lanes of `lane` bytes: lane `i` takes the bytes from bit `i · width` on.
const fn plan(width: usize, lane: usize) -> Plan {
    let mut plan = Plan { bytes: [0; 64], shifts: [0; 64] };
    let mut i = 0;
    while i < 64 / lane {
        let bit = i * width;
        plan.shifts[i * lane] = (bit % 8) as u8;
        let mut k = 0;
        while k < lane {
            plan.bytes[i * lane + k] = ((bit / 8 + k) % 64) as u8;
            k += 1;
        }
        i += 1;
    }
    plan
}

static LANE32: [Plan; LANE32_WIDTH_MAX as usize + 1] = {
    let mut plans = [const { plan(0, 4) }; LANE32_WIDTH_MAX as usize + 1];
    let mut width = 0;
    while width < plans.len() {
        plans[width] = plan(width, 4);
        width += 1;
    }
    plans
};

static LANE64: [Plan; LANE64_WIDTH_MAX as usize + 1] = {
    let mut plans = [const { plan(0, 8) }; LANE64_WIDTH_MAX as usize + 1];
    let mut width = 0;
    while width < plans.len() {
        plans[width] = plan(width, 8);
        width += 1;
    }
    plans
};

/// A plan in registers.
#[derive(Clone, Copy)]
struct Shuffle {
    bytes: __m512i,
    shifts: __m512i,
    keep: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn shuffle32(width: u8) -> Shuffle {
    let plan = &LANE32[usize::from(width)];
    Shuffle {
        // SAFETY: both arrays have 64 bytes.
        bytes: unsafe { _mm512_loadu_si512(plan.bytes.as_ptr().cast()) },
        // SAFETY: as above.
        shifts: unsafe { _mm512_loadu_si512(plan.shifts.as_ptr().cast()) },
        keep: _mm512_set1_epi32(((1u32 << width) - 1) as i32),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn shuffle64(width: u8) -> Shuffle {
    let plan = &LANE64[usize::from(width)];
    Shuffle {
        // SAFETY: both arrays have 64 bytes.
        bytes: unsafe { _mm512_loadu_si512(plan.bytes.as_ptr().cast()) },
        // SAFETY: as above.
        shifts: unsafe { _mm512_loadu_si512(plan.shifts.as_ptr().cast()) },
        keep: _mm512_set1_epi64(((1u64 << width) - 1) as i64),
    }
}

/// The 64 bytes from `at` on; the caller keeps `at + 64` within the buffer.
#[target_feature(enable = "avx512f")]
fn load(packed: &[u8], at: usize) -> __m512i {
    debug_assert!(at + 64 <= packed.len(), "invariant: a whole vector lies in the buffer");
    // SAFETY: every caller loops only while `at + 64 <= packed.len()` ([`whole`]).
    unsafe { _mm512_loadu_si512(packed.as_ptr().add(at).cast()) }
}

/// How many of the `count` values from `start` (a multiple of 8) on can be read `step` at a time by loads of 64 bytes.
fn whole(packed: &[u8], width: u8, start: usize, count: usize, step: usize) -> usize {
    let stride = step / 8 * usize::from(width);
    let first = start / 8 * usize::from(width);
    let steps = match packed.len().checked_sub(first + 64) {
        Some(room) if stride > 0 => (room / stride + 1).min(count / step),
        Some(_) => count / step,
        None => 0,
    };
    steps * step
}

/// Values before the first one that begins at a whole byte.
fn unaligned(start: usize, count: usize) -> usize {
    (start.next_multiple_of(8) - start).min(count)
}

pub(super) fn unpack_u32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let head = unaligned(start, out.len());
    scalar::unpack_u32(packed, width, start, &mut out[..head]);
    let (start, out) = (start + head, &mut out[head..]);
    let step = if width <= LANE32_WIDTH_MAX { 16 } else { 8 };
    let done = whole(packed, width, start, out.len(), step);
    // SAFETY: `level` found the features.
    unsafe {
        if width <= LANE32_WIDTH_MAX {
            unpack_lane32(packed, width, start, &mut out[..done]);
        } else {
            unpack_lane64_u32(packed, width, start, &mut out[..done]);
        }
    }
    scalar::unpack_u32(packed, width, start + done, &mut out[done..]);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_lane32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let shuffle = shuffle32(width);
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(16) {
        let values = lanes32(load(packed, at), shuffle);
        // SAFETY: the chunk has 16 values of 4 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
        at += 2 * usize::from(width);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn lanes32(bytes: __m512i, shuffle: Shuffle) -> __m512i {
    let lanes = _mm512_permutexvar_epi8(shuffle.bytes, bytes);
    _mm512_and_si512(_mm512_srlv_epi32(lanes, shuffle.shifts), shuffle.keep)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn lanes64(bytes: __m512i, shuffle: Shuffle) -> __m512i {
    let lanes = _mm512_permutexvar_epi8(shuffle.bytes, bytes);
    _mm512_and_si512(_mm512_srlv_epi64(lanes, shuffle.shifts), shuffle.keep)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_lane64_u32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let shuffle = shuffle64(width);
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(8) {
        let values = _mm512_cvtepi64_epi32(lanes64(load(packed, at), shuffle));
        // SAFETY: the chunk has 8 values of 4 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), values) };
        at += usize::from(width);
    }
}

pub(super) fn unpack_u64(packed: &[u8], width: u8, start: usize, out: &mut [u64]) {
    let head = unaligned(start, out.len());
    scalar::unpack_u64(packed, width, start, &mut out[..head]);
    let (start, out) = (start + head, &mut out[head..]);
    let mut done = 0;
    if width <= LANE64_WIDTH_MAX {
        done = whole(packed, width, start, out.len(), 8);
        // SAFETY: `level` found the features.
        unsafe { unpack_lane64(packed, width, start, &mut out[..done]) };
    }
    scalar::unpack_u64(packed, width, start + done, &mut out[done..]);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_lane64(packed: &[u8], width: u8, start: usize, out: &mut [u64]) {
    let shuffle = shuffle64(width);
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(8) {
        let values = lanes64(load(packed, at), shuffle);
        // SAFETY: the chunk has 8 values of 8 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), values) };
        at += usize::from(width);
    }
}

/// `start` is a multiple of 8 and the width at most [`LANE32_WIDTH_MAX`].
pub(super) fn select_range(packed: &[u8], width: u8, start: usize, count: usize, low: u32, high: u32, out: &mut [u64]) {
    if low > high {
        return out.fill(0);
    }
    let done = whole(packed, width, start, count, 16) / 64 * 64;
    // SAFETY: `level` found the features.
    unsafe { select_range_words(packed, width, start, low, high, &mut out[..done / 64]) };
    let mut buffer = [0u32; 64];
    for (index, word) in out.iter_mut().enumerate().skip(done / 64) {
        let values = &mut buffer[..(count - index * 64).min(64)];
        unpack_u32(packed, width, start + index * 64, values);
        range_mask_u32(values, low, high, std::slice::from_mut(word));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn select_range_words(packed: &[u8], width: u8, start: usize, low: u32, high: u32, out: &mut [u64]) {
    let shuffle = shuffle32(width);
    let (first, span) = (_mm512_set1_epi32(low as i32), _mm512_set1_epi32(high.wrapping_sub(low) as i32));
    let mut at = start / 8 * usize::from(width);
    for word in out {
        *word = 0;
        for part in 0..4 {
            let values = lanes32(load(packed, at), shuffle);
            let passed = _mm512_cmple_epu32_mask(_mm512_sub_epi32(values, first), span);
            *word |= u64::from(passed) << (part * 16);
            at += 2 * usize::from(width);
        }
    }
}

/// As [`select_range`]; `set` has one bit per id.
pub(super) fn select_set(packed: &[u8], width: u8, start: usize, count: usize, set: &[u32], out: &mut [u64]) {
    let done = whole(packed, width, start, count, 16) / 64 * 64;
    // SAFETY: `level` found the features.
    unsafe { select_set_words(packed, width, start, set, &mut out[..done / 64]) };
    let mut buffer = [0u32; 64];
    for (index, word) in out.iter_mut().enumerate().skip(done / 64) {
        let values = &mut buffer[..(count - index * 64).min(64)];
        unpack_u32(packed, width, start + index * 64, values);
        scalar::set_mask_u32(values, set, std::slice::from_mut(word));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn select_set_words(packed: &[u8], width: u8, start: usize, set: &[u32], out: &mut [u64]) {
    let shuffle = shuffle32(width);
    let one = _mm512_set1_epi32(1);
    let low_bits = _mm512_set1_epi32(31);
    // Ids have at most 25 bits, so that the number of words fits.
    let words = _mm512_set1_epi32(set.len().min(1 << 27) as i32);
    let mut at = start / 8 * usize::from(width);
    for out in out {
        *out = 0;
        for part in 0..4 {
            let values = lanes32(load(packed, at), shuffle);
            let word = _mm512_srli_epi32::<5>(values);
            let known = _mm512_cmplt_epu32_mask(word, words);
            // SAFETY: only lanes whose word number is below `set.len()` are read.
            let found =
                unsafe { _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), known, word, set.as_ptr().cast()) };
            let bit = _mm512_sllv_epi32(one, _mm512_and_si512(values, low_bits));
            *out |= u64::from(_mm512_mask_test_epi32_mask(known, found, bit)) << (part * 16);
            at += 2 * usize::from(width);
        }
    }
}

pub(super) fn range_mask_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    if low > high {
        return out.fill(0);
    }
    let whole = values.len() / 64;
    // SAFETY: `level` found the features.
    unsafe { range_words_u32(&values[..whole * 64], low, high, &mut out[..whole]) };
    scalar::range_mask_u32(&values[whole * 64..], low, high, &mut out[whole..]);
}

#[target_feature(enable = "avx512f")]
fn range_words_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    let (first, span) = (_mm512_set1_epi32(low as i32), _mm512_set1_epi32(high.wrapping_sub(low) as i32));
    for (values, word) in values.chunks_exact(64).zip(out) {
        *word = 0;
        for (part, values) in values.chunks_exact(16).enumerate() {
            // SAFETY: the chunk has 16 values of 4 bytes.
            let values = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
            let passed = _mm512_cmple_epu32_mask(_mm512_sub_epi32(values, first), span);
            *word |= u64::from(passed) << (part * 16);
        }
    }
}

pub(super) fn range_mask_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    let whole = values.len() / 64;
    // SAFETY: `level` found the features.
    unsafe { range_words_i64(&values[..whole * 64], low, high, &mut out[..whole]) };
    scalar::range_mask_i64(&values[whole * 64..], low, high, &mut out[whole..]);
}

#[target_feature(enable = "avx512f")]
fn range_words_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    let (low, high) = (_mm512_set1_epi64(low), _mm512_set1_epi64(high));
    for (values, word) in values.chunks_exact(64).zip(out) {
        *word = 0;
        for (part, values) in values.chunks_exact(8).enumerate() {
            // SAFETY: the chunk has 8 values of 8 bytes.
            let values = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
            let passed = _mm512_mask_cmple_epi64_mask(_mm512_cmple_epi64_mask(low, values), values, high);
            *word |= u64::from(passed) << (part * 8);
        }
    }
}

/// Defines a kernel that packs the values whose bit is set, `$lanes` of a register at a time.
macro_rules! compress {
    ($name:ident, $kernel:ident, $instruction:ident, $mask:ty, $bytes:literal, $lanes:literal) => {
        /// Appends those values whose bit is set; there is a word for each 64 values begun.
        pub(super) fn $name<T: Copy>(values: &[T], words: &[u64], out: &mut Vec<T>) {
            const { assert!(size_of::<T>() == $bytes, "lanes of another width") }
            // SAFETY: the caller has asked the processor; of memory nothing is asked but what the arguments say.
            unsafe { $kernel(values, words, out) }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,popcnt")]
        fn $kernel<T: Copy>(values: &[T], words: &[u64], out: &mut Vec<T>) {
            // Whole registers are written, of which the last values are overwritten or left out.
            out.reserve(values.len() + $lanes);
            let (mut count, whole) = (out.len(), values.len() / 64);
            for (values, word) in values.chunks_exact(64).zip(words) {
                for part in 0..64 / $lanes {
                    let mask = (*word >> (part * $lanes)) as $mask;
                    // SAFETY: the chunk has 64 values; so many more are reserved as there are values in all and in a register.
                    unsafe {
                        let lanes = _mm512_loadu_si512(values.as_ptr().add(part * $lanes).cast());
                        let packed = $instruction(mask, lanes);
                        _mm512_storeu_si512(out.as_mut_ptr().add(count).cast(), packed);
                    }
                    count += mask.count_ones() as usize;
                }
            }
            // SAFETY: so many values were written.
            unsafe { out.set_len(count) };
            let rest = values[whole * 64..].iter().enumerate();
            out.extend(rest.filter(|(bit, _)| words[whole] >> bit & 1 == 1).map(|(_, value)| *value));
        }
    };
}

compress!(compress32, compress32_lanes, _mm512_maskz_compress_epi32, u16, 4, 16);
compress!(compress64, compress64_lanes, _mm512_maskz_compress_epi64, u8, 8, 8);
