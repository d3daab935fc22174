//! AVX2 kernels: byte shuffles within halves of 16 bytes bring the bytes of each value into its lane, a shift and a mask finish it.
#![expect(unsafe_code, reason = "vector instructions; every function here has a scalar twin it is tested against")]

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_castps_si256, _mm256_castsi256_pd, _mm256_castsi256_ps,
    _mm256_cmpeq_epi32, _mm256_cmpgt_epi64, _mm256_loadu_si256, _mm256_min_epu32, _mm256_movemask_pd,
    _mm256_movemask_ps, _mm256_or_si256, _mm256_permute4x64_epi64, _mm256_set_m128i, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_shuffle_epi8, _mm256_shuffle_ps, _mm256_srlv_epi32, _mm256_srlv_epi64,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

use super::scalar;

/// Widest values whose bytes fit a lane of 32 bits at any of the eight bit offsets.
const LANE32_WIDTH_MAX: u8 = 25;
/// The same for lanes of 64 bits.
const LANE64_WIDTH_MAX: u8 = 57;

/// Where each half is loaded from, which of its bytes goes where, and by how much each lane is shifted.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Plan {
    bytes: [u8; 32],
    shifts: [u8; 32],
    at: [usize; 2],
}

/// The plan for lanes of `lane` bytes that take the values from value `first` on.
const fn plan(width: usize, lane: usize, first: usize) -> Plan {
    let mut plan = Plan { bytes: [0; 32], shifts: [0; 32], at: [0; 2] };
    let per_half = 16 / lane;
    let mut half = 0;
    while half < 2 {
        let begin = (first + half * per_half) * width;
        plan.at[half] = begin / 8;
        let mut i = 0;
        while i < per_half {
            let bit = begin % 8 + i * width;
            plan.shifts[half * 16 + i * lane] = (bit % 8) as u8;
            let mut k = 0;
            while k < lane {
                plan.bytes[half * 16 + i * lane + k] = ((bit / 8 + k) % 16) as u8;
                k += 1;
            }
            i += 1;
        }
        half += 1;
    }
    plan
}

static LANE32: [Plan; LANE32_WIDTH_MAX as usize + 1] = {
    let mut plans = [plan(0, 4, 0); LANE32_WIDTH_MAX as usize + 1];
    let mut width = 0;
    while width < plans.len() {
        plans[width] = plan(width, 4, 0);
        width += 1;
    }
    plans
};

/// Eight values take two vectors of four.
static LANE64: [[Plan; 2]; LANE64_WIDTH_MAX as usize + 1] = {
    let mut plans = [[plan(0, 8, 0); 2]; LANE64_WIDTH_MAX as usize + 1];
    let mut width = 0;
    while width < plans.len() {
        plans[width] = [plan(width, 8, 0), plan(width, 8, 4)];
        width += 1;
    }
    plans
};

/// A plan in registers.
#[derive(Clone, Copy)]
struct Shuffle {
    bytes: __m256i,
    shifts: __m256i,
    keep: __m256i,
    at: [usize; 2],
}

#[target_feature(enable = "avx2")]
fn shuffle(plan: &Plan, keep: __m256i) -> Shuffle {
    Shuffle {
        // SAFETY: both arrays have 32 bytes.
        bytes: unsafe { _mm256_loadu_si256(plan.bytes.as_ptr().cast()) },
        // SAFETY: as above.
        shifts: unsafe { _mm256_loadu_si256(plan.shifts.as_ptr().cast()) },
        keep,
        at: plan.at,
    }
}

/// The bytes of each lane, unshifted.
#[target_feature(enable = "avx2")]
fn load(packed: &[u8], at: usize, shuffle: Shuffle) -> __m256i {
    debug_assert!(at + 64 <= packed.len(), "invariant: eight values and a vector lie in the buffer");
    // SAFETY: every caller loops only while `at + 64 <= packed.len()` ([`whole`]), and a half begins at most 43 bytes after `at`.
    let (low, high) = unsafe {
        (
            _mm_loadu_si128(packed.as_ptr().add(at + shuffle.at[0]).cast()),
            _mm_loadu_si128(packed.as_ptr().add(at + shuffle.at[1]).cast()),
        )
    };
    _mm256_shuffle_epi8(_mm256_set_m128i(high, low), shuffle.bytes)
}

/// How many of the `count` values from `start` (a multiple of 8) on can be read 8 at a time with 64 bytes in reach.
fn whole(packed: &[u8], width: u8, start: usize, count: usize) -> usize {
    let stride = usize::from(width);
    let steps = match packed.len().checked_sub(start / 8 * stride + 64) {
        Some(room) if stride > 0 => (room / stride + 1).min(count / 8),
        Some(_) => count / 8,
        None => 0,
    };
    steps * 8
}

/// Values before the first one that begins at a whole byte.
fn unaligned(start: usize, count: usize) -> usize {
    (start.next_multiple_of(8) - start).min(count)
}

pub(super) fn unpack_u32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let head = unaligned(start, out.len());
    scalar::unpack_u32(packed, width, start, &mut out[..head]);
    let (start, out) = (start + head, &mut out[head..]);
    let done = whole(packed, width, start, out.len());
    // SAFETY: `level` found AVX2.
    unsafe {
        if width <= LANE32_WIDTH_MAX {
            unpack_lane32(packed, width, start, &mut out[..done]);
        } else {
            unpack_lane64_u32(packed, width, start, &mut out[..done]);
        }
    }
    scalar::unpack_u32(packed, width, start + done, &mut out[done..]);
}

#[target_feature(enable = "avx2")]
fn unpack_lane32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let shuffle = shuffle(&LANE32[usize::from(width)], _mm256_set1_epi32(((1u32 << width) - 1) as i32));
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(8) {
        let values = _mm256_and_si256(_mm256_srlv_epi32(load(packed, at, shuffle), shuffle.shifts), shuffle.keep);
        // SAFETY: the chunk has 8 values of 4 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), values) };
        at += usize::from(width);
    }
}

#[target_feature(enable = "avx2")]
fn shuffles64(width: u8) -> [Shuffle; 2] {
    let keep = _mm256_set1_epi64x(((1u64 << width) - 1) as i64);
    let [low, high] = &LANE64[usize::from(width)];
    [shuffle(low, keep), shuffle(high, keep)]
}

#[target_feature(enable = "avx2")]
fn lanes64(packed: &[u8], at: usize, shuffle: Shuffle) -> __m256i {
    _mm256_and_si256(_mm256_srlv_epi64(load(packed, at, shuffle), shuffle.shifts), shuffle.keep)
}

#[target_feature(enable = "avx2")]
fn unpack_lane64_u32(packed: &[u8], width: u8, start: usize, out: &mut [u32]) {
    let [low, high] = shuffles64(width);
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(8) {
        let (a, b) = (lanes64(packed, at, low), lanes64(packed, at, high));
        // The low halves of the lanes: a0 a1 b0 b1 | a2 a3 b2 b3, then in order.
        let mixed =
            _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
        let values = _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed);
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
        done = whole(packed, width, start, out.len());
        // SAFETY: `level` found AVX2.
        unsafe { unpack_lane64(packed, width, start, &mut out[..done]) };
    }
    scalar::unpack_u64(packed, width, start + done, &mut out[done..]);
}

#[target_feature(enable = "avx2")]
fn unpack_lane64(packed: &[u8], width: u8, start: usize, out: &mut [u64]) {
    let [low, high] = shuffles64(width);
    let mut at = start / 8 * usize::from(width);
    for out in out.chunks_exact_mut(8) {
        // SAFETY: the chunk has 8 values of 8 bytes, two vectors.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), lanes64(packed, at, low));
            _mm256_storeu_si256(out.as_mut_ptr().add(4).cast(), lanes64(packed, at, high));
        }
        at += usize::from(width);
    }
}

pub(super) fn range_mask_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    if low > high {
        return out.fill(0);
    }
    let whole = values.len() / 64;
    // SAFETY: `level` found AVX2.
    unsafe { range_words_u32(&values[..whole * 64], low, high, &mut out[..whole]) };
    scalar::range_mask_u32(&values[whole * 64..], low, high, &mut out[whole..]);
}

#[target_feature(enable = "avx2")]
fn range_words_u32(values: &[u32], low: u32, high: u32, out: &mut [u64]) {
    let (first, span) = (_mm256_set1_epi32(low as i32), _mm256_set1_epi32(high.wrapping_sub(low) as i32));
    for (values, word) in values.chunks_exact(64).zip(out) {
        *word = 0;
        for (part, values) in values.chunks_exact(8).enumerate() {
            // SAFETY: the chunk has 8 values of 4 bytes.
            let values = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
            let above = _mm256_sub_epi32(values, first);
            let passed = _mm256_cmpeq_epi32(_mm256_min_epu32(above, span), above);
            *word |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(passed)) as u8) << (part * 8);
        }
    }
}

pub(super) fn range_mask_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    let whole = values.len() / 64;
    // SAFETY: `level` found AVX2.
    unsafe { range_words_i64(&values[..whole * 64], low, high, &mut out[..whole]) };
    scalar::range_mask_i64(&values[whole * 64..], low, high, &mut out[whole..]);
}

#[target_feature(enable = "avx2")]
fn range_words_i64(values: &[i64], low: i64, high: i64, out: &mut [u64]) {
    let (low, high) = (_mm256_set1_epi64x(low), _mm256_set1_epi64x(high));
    for (values, word) in values.chunks_exact(64).zip(out) {
        *word = 0;
        for (part, values) in values.chunks_exact(4).enumerate() {
            // SAFETY: the chunk has 4 values of 8 bytes.
            let values = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
            let outside = _mm256_or_si256(_mm256_cmpgt_epi64(low, values), _mm256_cmpgt_epi64(values, high));
            let failed = _mm256_movemask_pd(_mm256_castsi256_pd(outside)) as u64;
            *word |= (!failed & 0b1111) << (part * 4);
        }
    }
}
