//! Integers packed: for each block the mode and the width that take the fewest bits.

use arrow::buffer::Buffer;

use super::{
    BLOCK, CHUNK_BLOCKS, ENTRY_BYTES, EXCEPTION_BYTES, HEADER_BYTES, Integers, LZ4, Mode, SLOPE_BITS, ZSTD, on_slope,
};
use crate::{
    Result,
    bitpack::{PADDING, pack, width_of},
    forward::{EncodeOptions, chunks::compress, codec::Codec},
};

/// At most one in this many terms of a block is an exception.
const LEFT_OUT_MAX: usize = 16;

/// How the terms of a block are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) base: i64,
    pub(super) width: u8,
    pub(super) cost_bits: usize,
}

pub(crate) fn encode(values: &[i64]) -> Vec<u8> {
    let (offset, factor) = factor_of(values);
    let blocks = values.len().div_ceil(BLOCK);
    let mut directory = Vec::with_capacity(HEADER_BYTES + blocks * ENTRY_BYTES);
    directory.extend_from_slice(&offset.to_le_bytes());
    directory.extend_from_slice(&factor.to_le_bytes());
    let mut data = Vec::new();
    let mut scratch = Scratch::default();
    let mut reduced = Vec::with_capacity(BLOCK);
    for block in values.chunks(BLOCK) {
        reduced.clear();
        if factor == 1 {
            reduced.extend_from_slice(block);
        } else {
            reduced.extend(block.iter().map(|value| (value - offset) / factor));
        }
        encode_block(&reduced, &mut scratch, &mut directory, &mut data);
    }
    directory.extend_from_slice(&data);
    directory.resize(directory.len() + PADDING, 0);
    directory
}

/// What [`encode`] made of `len` values, with compressed data; `None` where that does not pay.
pub(in crate::forward) fn compressed(section: &[u8], len: usize, options: &EncodeOptions) -> Result<Option<Vec<u8>>> {
    let integers = Integers::open(Buffer::from_slice_ref(section), len)?;
    let (blocks, data) = (len.div_ceil(BLOCK), integers.data);
    let starts: Vec<usize> = (0..blocks)
        .step_by(CHUNK_BLOCKS)
        .map(|block| data + integers.entry(block).at)
        .chain([section.len() - PADDING])
        .collect();
    let chunks: Vec<&[u8]> = starts.windows(2).map(|pair| &section[pair[0]..pair[1]]).collect();
    Ok(compress(&chunks, len, options)?.map(|(codec, packed)| {
        let header = match codec {
            Codec::Zstd => &ZSTD,
            Codec::Lz4 => &LZ4,
        };
        [header, &section[..data], &packed].concat()
    }))
}

/// An offset and the largest factor such that each value is the offset plus a multiple of the factor. (0, 1) when that says nothing.
fn factor_of(values: &[i64]) -> (i64, i64) {
    let Some(&first) = values.first() else { return (0, 1) };
    let mut factor = 0u64;
    let (mut min, mut max) = (first, first);
    for &value in values {
        (min, max) = (min.min(value), max.max(value));
        let distance = value.abs_diff(first);
        if factor == 0 || distance % factor != 0 {
            factor = gcd(factor, distance);
            if factor == 1 {
                return (0, 1);
            }
        }
    }
    // The differences to the first value must fit.
    let fits = max.checked_sub(first).is_some() && min.checked_sub(first).is_some();
    match i64::try_from(factor) {
        Ok(factor) if factor > 1 && fits => (first, factor),
        _ => (0, 1),
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[derive(Debug, Default)]
struct Scratch {
    terms: [Vec<i64>; 3],
    sorted: Vec<i64>,
}

fn encode_block(values: &[i64], scratch: &mut Scratch, directory: &mut Vec<u8>, data: &mut Vec<u8>) {
    let Scratch { terms, sorted } = scratch;
    let [frame, slope, delta] = terms;
    frame.clear();
    frame.extend_from_slice(values);
    let mut best = (Mode::Frame, fit(frame, sorted), 0i64);
    if best.1.width > 1 && values.len() >= 16 {
        delta.clear();
        delta.extend(values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
        let fitted = fit(delta, sorted);
        if fitted.cost_bits < best.1.cost_bits {
            // The first term is the base itself, its residual zero.
            best = (Mode::Delta, fitted, values[0].wrapping_sub(fitted.base));
        }
        delta.insert(0, fitted.base);
        if let Some(step) = slope_of(values, sorted) {
            slope.clear();
            slope.extend(values.iter().enumerate().map(|(i, value)| value.wrapping_sub(on_slope(step, i))));
            let fitted = fit(slope, sorted);
            // A slope reads single values; a delta must save something to be worth it.
            let slack = if best.0 == Mode::Delta { values.len() / 2 } else { 0 };
            if fitted.cost_bits < best.1.cost_bits + slack {
                best = (Mode::Slope, fitted, step);
            }
        }
    }
    let (mode, Fit { base, width, .. }, extra) = best;
    let terms = match mode {
        Mode::Frame => frame,
        Mode::Slope => slope,
        Mode::Delta => delta,
    };
    let top = u64::MAX.checked_shr(64 - u32::from(width)).unwrap_or(0);
    let residual = |term: i64| Some(term.wrapping_sub(base) as u64).filter(|residual| *residual <= top);
    let exceptions: Vec<usize> = (0..terms.len()).filter(|i| residual(terms[*i]).is_none()).collect();
    directory.extend_from_slice(&(data.len() as u32).to_le_bytes());
    directory.extend_from_slice(&[width, mode as u8]);
    directory.extend_from_slice(&(exceptions.len() as u16).to_le_bytes());
    directory.extend_from_slice(&base.to_le_bytes());
    directory.extend_from_slice(&extra.to_le_bytes());
    pack(terms.iter().map(|term| residual(*term).unwrap_or(0)), width, data);
    exceptions.iter().for_each(|i| data.extend_from_slice(&(*i as u16).to_le_bytes()));
    exceptions.iter().for_each(|i| data.extend_from_slice(&terms[*i].to_le_bytes()));
}

/// The base and width that pack `terms` into the fewest bits, when a few may be exceptions: as if the terms were sorted and each run of
/// enough of them tried, of which only the ends need to be in order.
pub(super) fn fit(terms: &[i64], ends: &mut Vec<i64>) -> Fit {
    let n = terms.len();
    let (min, max) = terms.iter().fold((i64::MAX, i64::MIN), |(min, max), term| (min.min(*term), max.max(*term)));
    if n == 0 {
        return Fit { base: 0, width: 0, cost_bits: 0 };
    }
    let width = width_of(max.wrapping_sub(min) as u64);
    let mut best = Fit { base: min, width, cost_bits: n * usize::from(width) };
    let most = n / LEFT_OUT_MAX;
    if width <= 2 || n < 32 || !may_narrow(terms, min, width, n - most) {
        return best;
    }
    ends.clear();
    ends.extend_from_slice(terms);
    let (low, ..) = ends.select_nth_unstable(most + 1);
    low.sort_unstable();
    ends[most + 1..].select_nth_unstable(n - 2 * most - 2);
    ends[n - most - 1..].sort_unstable();
    for left_out in [1, n / 256, n / 64, n / 32, most] {
        let kept = n - left_out;
        let span = |from: usize| ends[from + kept - 1].wrapping_sub(ends[from]) as u64;
        let from = (0..=left_out).min_by_key(|from| span(*from)).unwrap_or(0);
        let width = width_of(span(from));
        let cost_bits = n * usize::from(width) + left_out * EXCEPTION_BYTES * 8;
        if cost_bits < best.cost_bits {
            best = Fit { base: ends[from], width, cost_bits };
        }
    }
    best
}

/// False when no `kept` of the terms, all within `width` bits (more than 2) above `min`, fit a bit less: what is half as wide touches
/// five neighbouring eighths at most. It spares most blocks the search for exceptions.
fn may_narrow(terms: &[i64], min: i64, width: u8, kept: usize) -> bool {
    let mut eighths = [[0u16; 8]; 2];
    let eighth = |term: i64| (term.wrapping_sub(min) as u64 >> (width - 3)) as usize & 7;
    for pair in terms.chunks(2) {
        // Two counters, since the same one twice in a row would wait for itself.
        pair.iter().zip(&mut eighths).for_each(|(term, counts)| counts[eighth(*term)] += 1);
    }
    let counts: [usize; 8] = std::array::from_fn(|at| usize::from(eighths[0][at]) + usize::from(eighths[1][at]));
    counts.windows(5).any(|five| five.iter().sum::<usize>() >= kept)
}

/// Growth per row in 1/65536, between the medians of the first and the last eighth; `None` for short or wild blocks.
fn slope_of(values: &[i64], sorted: &mut Vec<i64>) -> Option<i64> {
    let eighth = values.len() / 8;
    if eighth < 4 {
        return None;
    }
    let mut median = |part: &[i64]| {
        sorted.clear();
        sorted.extend_from_slice(part);
        *sorted.select_nth_unstable(eighth / 2).1
    };
    let (first, last) = (median(&values[..eighth]), median(&values[values.len() - eighth..]));
    let step = ((i128::from(last) - i128::from(first)) << SLOPE_BITS) / (values.len() - eighth) as i128;
    // So small that the product with any row number of a block stays in range.
    i64::try_from(step).ok().filter(|step| step.unsigned_abs() < 1 << 52 && *step != 0)
}
