//! Integers in blocks of 1024, each packed in the way that suits it.
//!
//! ```text
//! section:  offset i64 · factor i64 │ directory: 24 bytes per block │ data of the blocks │ 64 zeros
//! entry:    at u32 · width u8 · mode u8 · exceptions u16 · base i64 · extra i64
//! block:    1024 residuals of `width` bits │ exceptions: positions u16 …, terms i64 …
//! ```
//!
//! Row `i` of a block is `offset + factor · v(i)`. Its term `t(i)` is `base` plus residual `i`, or what the exceptions say, and
//!
//! | mode | v(i) | good for |
//! |---|---|---|
//! | 0, frame | t(i) | anything of a small range |
//! | 1, slope | t(i) + (extra · i >> 16) | values that grow steadily, with jitter: event times, counters |
//! | 2, delta | extra + t(0) + … + t(i) | sorted values with uneven steps: ids, ends |
//!
//! All arithmetic wraps at 64 bits, so that every run of integers has a representation. Frames and slopes read one value at a time;
//! a delta reads the block up to it. Exceptions keep few outliers (late events) from widening their block.
//!
//! Where the data of the blocks repeat, they may be kept as compressed chunks of eight blocks each ([`compressed`]); a factor of 0, which
//! is none, says so.

use std::ops::Range;

use arrow::buffer::Buffer;

use super::{
    EncodeOptions,
    chunks::{CHUNK_ROWS, Chunks, compress},
    codec::Codec,
    format::corrupt,
};
use crate::{
    Result,
    bitpack::{Bitmask, PADDING, Packed, lanes, pack, packed_bytes, range_mask_i64, width_of},
};

/// Values of a block.
pub(crate) const BLOCK: usize = 1024;
const HEADER_BYTES: usize = 16;
/// What stands in the place of offset and factor where the data are compressed; these follow.
const ZSTD: [u8; HEADER_BYTES] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LZ4: [u8; HEADER_BYTES] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CHUNK_BLOCKS: usize = CHUNK_ROWS / BLOCK;
const ENTRY_BYTES: usize = 24;
/// An exception: its position and its term.
const EXCEPTION_BYTES: usize = 10;
const SLOPE_BITS: u32 = 16;
/// At most one in this many terms of a block is an exception.
const LEFT_OUT_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Frame = 0,
    Slope = 1,
    Delta = 2,
}

/// How the terms of a block are packed.
#[derive(Clone, Copy, Debug)]
struct Fit {
    base: i64,
    width: u8,
    cost_bits: usize,
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
pub(super) fn compressed(section: &[u8], len: usize, options: &EncodeOptions) -> Result<Option<Vec<u8>>> {
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
fn fit(terms: &[i64], ends: &mut Vec<i64>) -> Fit {
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

#[inline]
fn on_slope(step: i64, row: usize) -> i64 {
    step.wrapping_mul(row as i64) >> SLOPE_BITS
}

/// An opened section of integers.
#[derive(Debug)]
pub(crate) struct Integers {
    section: Buffer,
    len: usize,
    offset: i64,
    factor: i64,
    /// Where the directory begins, and the data after it.
    directory: usize,
    data: usize,
    /// The data, where they are compressed.
    chunks: Option<Chunks>,
}

/// One entry of the directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    block: usize,
    /// In the data of all blocks.
    at: usize,
    rows: usize,
    width: u8,
    mode: Mode,
    exceptions: usize,
    base: i64,
    extra: i64,
}

impl Entry {
    fn bytes(&self) -> usize {
        packed_bytes(self.rows, self.width) + self.exceptions * EXCEPTION_BYTES
    }

    /// The residuals in the block's `data`.
    fn packed<'d>(&self, data: &'d [u8]) -> Packed<'d> {
        Packed::new(data, self.width, self.rows).expect("invariant: open checked the block's length")
    }

    /// Position and term of exception `index` in the block's `data`.
    fn exception(&self, data: &[u8], index: usize) -> (usize, i64) {
        let positions = packed_bytes(self.rows, self.width);
        let terms = positions + self.exceptions * 2;
        let position = bytes_at(data, positions + index * 2).map_or(0, u16::from_le_bytes);
        let term = bytes_at(data, terms + index * 8).map_or(0, i64::from_le_bytes);
        (usize::from(position), term)
    }
}

/// Gives the data of blocks, one after the other; holds the chunk it decompressed last.
struct Data<'a> {
    integers: &'a Integers,
    chunk: Option<usize>,
    bytes: Vec<u8>,
}

impl Data<'_> {
    /// The bytes from the block's first on.
    fn of(&mut self, entry: &Entry) -> Result<&[u8]> {
        let Some(chunks) = &self.integers.chunks else {
            return Ok(&self.integers.section[self.integers.data + entry.at..]);
        };
        let chunk = entry.block / CHUNK_BLOCKS;
        let range = self.integers.chunk(chunk);
        if self.chunk != Some(chunk) {
            self.chunk = None;
            chunks.read(chunk, range.len(), PADDING, &mut self.bytes)?;
            self.chunk = Some(chunk);
        }
        Ok(&self.bytes[entry.at - range.start..])
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

impl Integers {
    /// Checks that every block lies within the section.
    pub(crate) fn open(section: Buffer, len: usize) -> Result<Self> {
        let blocks = len.div_ceil(BLOCK);
        let short =
            || corrupt("integers", format!("a directory of {blocks} blocks"), format!("{} bytes", section.len()));
        let codec = match section.first_chunk() {
            Some(&ZSTD) => Some(Codec::Zstd),
            Some(&LZ4) => Some(Codec::Lz4),
            _ => None,
        };
        let header = if codec.is_some() { HEADER_BYTES } else { 0 };
        let directory = header + HEADER_BYTES;
        let data = directory + blocks * ENTRY_BYTES;
        if section.len() < data {
            return Err(short());
        }
        let offset = bytes_at(&section, header).map(i64::from_le_bytes).ok_or_else(short)?;
        let factor = bytes_at(&section, header + 8).map(i64::from_le_bytes).ok_or_else(short)?;
        if factor < 1 {
            return Err(corrupt("integers", "a factor above 0", factor));
        }
        let mut integers = Self { section, len, offset, factor, directory, data, chunks: None };
        let room = integers.section.len() - data;
        let mut next = 0;
        for block in 0..blocks {
            let mode = integers.section[directory + block * ENTRY_BYTES + 5];
            if mode > Mode::Delta as u8 {
                return Err(corrupt(format!("integers, block {block}"), "mode 0 to 2", mode));
            }
            let entry = integers.entry(block);
            // Compressed blocks follow each other without gaps, so that the chunks have no other bytes.
            let placed = if codec.is_some() { entry.at == next } else { entry.at + entry.bytes() <= room };
            if entry.width > 64 || entry.exceptions > entry.rows || !placed {
                return Err(corrupt(
                    format!("integers, block {block}"),
                    if codec.is_some() { format!("a block at {next}") } else { format!("a block within {room} bytes") },
                    format!("{entry:?}"),
                ));
            }
            next = entry.at + entry.bytes();
        }
        if let Some(codec) = codec {
            let chunks = blocks.div_ceil(CHUNK_BLOCKS);
            let section = integers.section.clone();
            integers.chunks = Some(Chunks::open(codec, section, data, chunks, |chunk| integers.chunk(chunk).len())?);
        }
        Ok(integers)
    }

    fn entry(&self, block: usize) -> Entry {
        let at = self.directory + block * ENTRY_BYTES;
        let entry: [u8; ENTRY_BYTES] =
            bytes_at(&self.section, at).expect("invariant: open checked the directory's length");
        let [a, b, c, d, width, mode, e, f, rest @ ..] = entry;
        let (base, extra) = rest.split_at(8);
        let i64_of = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_le_bytes);
        Entry {
            block,
            at: u32::from_le_bytes([a, b, c, d]) as usize,
            rows: (self.len - block * BLOCK).min(BLOCK),
            width,
            mode: match mode {
                0 => Mode::Frame,
                1 => Mode::Slope,
                _ => Mode::Delta,
            },
            exceptions: usize::from(u16::from_le_bytes([e, f])),
            base: i64_of(base),
            extra: i64_of(extra),
        }
    }

    /// The bytes of a chunk among the data of all blocks.
    fn chunk(&self, chunk: usize) -> Range<usize> {
        let last = ((chunk + 1) * CHUNK_BLOCKS).min(self.len.div_ceil(BLOCK)) - 1;
        let last = self.entry(last);
        self.entry(chunk * CHUNK_BLOCKS).at..last.at + last.bytes()
    }

    fn data(&self) -> Data<'_> {
        Data { integers: self, chunk: None, bytes: Vec::new() }
    }

    /// How the data are compressed, if they are.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.chunks.as_ref().map(Chunks::codec)
    }

    /// Decodes a block, but for offset and factor; gives the values as many as the block has.
    fn decode_reduced<'b>(
        &self,
        entry: &Entry,
        data: &mut Data<'_>,
        out: &'b mut [i64; BLOCK],
    ) -> Result<&'b mut [i64]> {
        let data = data.of(entry)?;
        let packed = entry.packed(data);
        let out = &mut out[..entry.rows];
        if entry.width == 0 {
            out.fill(entry.base);
        } else if entry.width <= 32 {
            let mut residuals = [0u32; BLOCK];
            let residuals = &mut residuals[..entry.rows];
            packed.unpack_u32(0, residuals);
            lanes::raised(residuals, entry.base, out);
        } else {
            let mut residuals = [0u64; BLOCK];
            let residuals = &mut residuals[..entry.rows];
            packed.unpack_u64(0, residuals);
            for (value, residual) in out.iter_mut().zip(&*residuals) {
                *value = entry.base.wrapping_add(*residual as i64);
            }
        }
        for index in 0..entry.exceptions {
            let (position, term) = entry.exception(data, index);
            match out.get_mut(position) {
                Some(value) => *value = term,
                None => return Err(corrupt("integers, exception", format!("a row below {}", entry.rows), position)),
            }
        }
        match entry.mode {
            Mode::Frame => {}
            Mode::Slope => lanes::add_slope(out, entry.extra, SLOPE_BITS),
            Mode::Delta => {
                let mut sum = entry.extra;
                for value in out.iter_mut() {
                    sum = sum.wrapping_add(*value);
                    *value = sum;
                }
            }
        }
        Ok(out)
    }

    fn decode_block<'b>(&self, entry: &Entry, data: &mut Data<'_>, out: &'b mut [i64; BLOCK]) -> Result<&'b mut [i64]> {
        let out = self.decode_reduced(entry, data, out)?;
        if self.factor != 1 || self.offset != 0 {
            lanes::restore(out, self.offset, self.factor);
        }
        Ok(out)
    }

    #[inline]
    fn restore(&self, reduced: i64) -> i64 {
        self.offset.wrapping_add(self.factor.wrapping_mul(reduced))
    }

    /// The parts of `rows` in each block: entry, rows within the block, rows before.
    fn parts(&self, rows: Range<usize>) -> impl Iterator<Item = (Entry, Range<usize>, usize)> + '_ {
        assert!(rows.start <= rows.end && rows.end <= self.len, "invariant: {rows:?} of {} integers", self.len);
        let blocks = if rows.is_empty() { 0..0 } else { rows.start / BLOCK..rows.end.div_ceil(BLOCK) };
        blocks.map(move |block| {
            let first = block * BLOCK;
            let within = rows.start.max(first) - first..rows.end.min(first + BLOCK) - first;
            let before = first + within.start - rows.start;
            (self.entry(block), within, before)
        })
    }

    /// The values of `rows`, each as `of` makes it.
    pub(crate) fn decode<T>(&self, rows: Range<usize>, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        let mut out = Vec::new();
        self.fill(rows, &mut out, of)?;
        Ok(out)
    }

    /// As [`Self::decode`], into `out`, which is cleared first.
    pub(crate) fn fill<T>(&self, rows: Range<usize>, out: &mut Vec<T>, of: impl Fn(i64) -> T) -> Result<()> {
        out.clear();
        out.reserve(rows.len());
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, _) in self.parts(rows) {
            let values = self.decode_block(&entry, &mut data, &mut buffer)?;
            out.extend(values[within].iter().map(|value| of(*value)));
        }
        Ok(())
    }

    /// The value of one row.
    pub(crate) fn get(&self, row: usize) -> Result<i64> {
        assert!(row < self.len, "invariant: row {row} of {} integers", self.len);
        let entry = self.entry(row / BLOCK);
        self.get_in(&entry, &mut self.data(), row % BLOCK)
    }

    fn get_in(&self, entry: &Entry, data: &mut Data<'_>, row: usize) -> Result<i64> {
        if entry.mode == Mode::Delta {
            let mut buffer = [0; BLOCK];
            return Ok(self.decode_block(entry, data, &mut buffer)?[row]);
        }
        let data = data.of(entry)?;
        let exception = (0..entry.exceptions).map(|i| entry.exception(data, i)).find(|(position, _)| *position == row);
        let term = match exception {
            Some((_, term)) => term,
            None => entry.base.wrapping_add(entry.packed(data).get(row) as i64),
        };
        let slope = if entry.mode == Mode::Slope { on_slope(entry.extra, row) } else { 0 };
        Ok(self.restore(term.wrapping_add(slope)))
    }

    /// The values of the rows of `rows` that `selection` holds, each as `of` makes it.
    pub(crate) fn gather<T>(&self, rows: Range<usize>, selection: &Bitmask, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        let mut out = Vec::with_capacity(selection.count());
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, before) in self.parts(rows) {
            let selected = selection.count_in(before..before + within.len());
            let picks = || selection.iter_in(before..before + within.len()).map(|row| row - before + within.start);
            if selected == 0 {
                continue;
            }
            if selected <= 16 && entry.mode != Mode::Delta && entry.exceptions <= 16 {
                for row in picks() {
                    out.push(of(self.get_in(&entry, &mut data, row)?));
                }
            } else {
                let values = self.decode_block(&entry, &mut data, &mut buffer)?;
                out.extend(picks().map(|row| of(values[row])));
            }
        }
        Ok(out)
    }

    /// Takes out of `mask` (one bit per row of `rows`) the rows whose value lies inside `low..=high`, or outside when `inside` is false.
    pub(crate) fn select_range(
        &self,
        rows: Range<usize>,
        low: i64,
        high: i64,
        inside: bool,
        mask: &mut Bitmask,
    ) -> Result<()> {
        // The bounds on the reduced values.
        let (low, high) = (i128::from(low) - i128::from(self.offset), i128::from(high) - i128::from(self.offset));
        let factor = i128::from(self.factor);
        let (low, high) = (-(-low).div_euclid(factor), high.div_euclid(factor));
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, before) in self.parts(rows) {
            let count = within.len();
            if mask.count_in(before..before + count) == 0 {
                continue;
            }
            let mut words = [0u64; BLOCK / 64];
            let words = &mut words[..count.div_ceil(64)];
            if entry.mode == Mode::Frame && entry.exceptions == 0 && entry.width <= 32 {
                // On the residuals, without unpacking them first.
                let (low, high) = (low - i128::from(entry.base), high - i128::from(entry.base));
                let top = (1i128 << entry.width) - 1;
                if high >= 0 && low <= top && low <= high {
                    if low <= 0 && high >= top {
                        words.fill(u64::MAX);
                    } else {
                        let (low, high) = (low.max(0) as u32, high.min(top) as u32);
                        entry.packed(data.of(&entry)?).select_range(within.start, count, low, high, words);
                    }
                }
            } else if low <= high {
                let clamp = |bound: i128| bound.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
                if low <= i128::from(i64::MAX) && high >= i128::from(i64::MIN) {
                    let values = self.decode_reduced(&entry, &mut data, &mut buffer)?;
                    range_mask_i64(&values[within], clamp(low), clamp(high), words);
                }
            }
            if !inside {
                words.iter_mut().for_each(|word| *word = !*word);
            }
            mask.and_bits(before, count, words);
        }
        Ok(())
    }

    /// Takes out of `mask` the rows whose value does not pass `test`.
    pub(crate) fn select(&self, rows: Range<usize>, test: impl Fn(i64) -> bool, mask: &mut Bitmask) -> Result<()> {
        let (mut buffer, mut data) = ([0; BLOCK], self.data());
        for (entry, within, before) in self.parts(rows) {
            if mask.count_in(before..before + within.len()) == 0 {
                continue;
            }
            let values = &self.decode_block(&entry, &mut data, &mut buffer)?[within];
            let mut words = [0u64; BLOCK / 64];
            for (values, word) in values.chunks(64).zip(&mut words) {
                *word = values.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(test(*value)) << bit);
            }
            mask.and_bits(before, values.len(), &words[..values.len().div_ceil(64)]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(values: &[i64]) -> Integers {
        Integers::open(Buffer::from_vec(encode(values)), values.len()).expect("own bytes are sound")
    }

    fn bits(values: &[i64]) -> f64 {
        encode(values).len() as f64 * 8.0 / values.len() as f64
    }

    prop_compose! {
        /// Shapes that lead to each mode, and extremes.
        fn integers()(
            n in 0usize..3000, seed in any::<u64>(), shape in 0..7, step in -5000i64..5000, jitter in 1u64..3000,
            factor in prop_oneof![Just(1i64), Just(1000)],
        ) -> Vec<i64> {
            let mut state = seed | 1;
            let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
            let mut last = 1_700_000_000_000_000i64;
            (0..n as i64).map(|i| match shape {
                0 => random() as i64,
                1 => (random() % jitter) as i64 * factor,
                2 => (1_700_000_000 + i * step + (random() % jitter) as i64) * factor,
                3 => { last += (random() % jitter) as i64 * factor; last }
                4 => if random() % 100 == 0 { random() as i64 } else { i * step },
                5 => [i64::MIN, i64::MAX, 0, -1][(random() % 4) as usize],
                _ => 7,
            }).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn integers_come_back(values in integers(), ends in any::<(prop::sample::Index, prop::sample::Index)>()) {
            let column = open(&values);
            let (a, b) = (ends.0.index(values.len() + 1), ends.1.index(values.len() + 1));
            let rows = a.min(b)..a.max(b);
            prop_assert_eq!(&column.decode(rows.clone(), |v| v).expect("decodes"), &values[rows.clone()]);
            for row in rows.clone().step_by(97) {
                prop_assert_eq!(column.get(row).expect("decodes"), values[row]);
            }
            for every in [1, 3, 200] {
                let mut mask = Bitmask::none(rows.len());
                (0..rows.len()).step_by(every).for_each(|row| mask.set(row));
                let expected: Vec<i64> = values[rows.clone()].iter().copied().step_by(every).collect();
                prop_assert_eq!(column.gather(rows.clone(), &mask, |v| v).expect("decodes"), expected);
            }
        }

        /// The plain twin: everything sorted, every run of enough terms tried.
        #[test]
        fn a_block_is_fitted_as_by_sorting_it(values in integers()) {
            for terms in values.chunks(BLOCK) {
                let found = fit(terms, &mut Vec::new());
                let mut sorted = terms.to_vec();
                sorted.sort_unstable();
                let n = terms.len();
                let cost = |left_out: usize| {
                    let kept = n - left_out;
                    let span = |from: usize| sorted[from + kept - 1].wrapping_sub(sorted[from]) as u64;
                    let width = (0..=left_out).map(|from| width_of(span(from))).min().expect("a run");
                    n * usize::from(width) + left_out * EXCEPTION_BYTES * 8
                };
                let plain = cost(0);
                let allowed = plain > 2 * n && n >= 32;
                let best = [1, n / 256, n / 64, n / 32, n / 16].into_iter().filter(|_| allowed).map(cost).min();
                prop_assert_eq!(found.cost_bits, best.map_or(plain, |best| best.min(plain)));
            }
        }

        #[test]
        fn ranges_are_selected_as_on_decoded_values(
            values in integers(),
            ends in any::<(prop::sample::Index, prop::sample::Index)>(),
            bounds in any::<(prop::sample::Index, prop::sample::Index)>(),
            shift in -1i64..2, inside in any::<bool>(),
        ) {
            let column = open(&values);
            let (a, b) = (ends.0.index(values.len() + 1), ends.1.index(values.len() + 1));
            let rows = a.min(b)..a.max(b);
            let bound = |index: prop::sample::Index| {
                values.get(index.index(values.len() + 1)).map_or(i64::MAX, |value| value.saturating_add(shift))
            };
            let (low, high) = (bound(bounds.0), bound(bounds.1));
            let mut mask = Bitmask::all(rows.len());
            column.select_range(rows.clone(), low, high, inside, &mut mask).expect("selects");
            let passes = |value: &i64| (low..=high).contains(value) == inside;
            let expected: Vec<usize> = (0..rows.len()).filter(|row| passes(&values[rows.start + row])).collect();
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected.clone());
            let mut mask = Bitmask::all(rows.len());
            column.select(rows, |value| passes(&value), &mut mask).expect("selects");
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected);
        }

        #[test]
        fn hostile_bytes_are_an_error_or_some_integers(
            values in integers(), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..8), cut in 0usize..200,
        ) {
            let mut bytes = encode(&values);
            for (at, byte) in flips {
                let at = at.index(bytes.len().min(600));
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Ok(column) = Integers::open(Buffer::from_vec(bytes), values.len()) {
                let rows = 0..values.len();
                let mut mask = Bitmask::all(values.len());
                let _ = column.select_range(rows.clone(), -5, 1_700_000_000_000_000, true, &mut mask);
                let _ = column.gather(rows.clone(), &mask, |v| v);
                if let Ok(decoded) = column.decode(rows.clone(), |v| v) {
                    prop_assert_eq!(decoded.len(), values.len());
                    rows.step_by(300).for_each(|row| { let _ = column.get(row); });
                }
            }
        }
    }

    #[test]
    fn shapes_take_the_bits_they_deserve() {
        let rows = 0..20_000i64;
        let jitter = |i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) as u64 >> 44; // 20 bits
        assert!(bits(&rows.clone().map(|i| 1_700_000_000 + i * 12_345).collect::<Vec<_>>()) < 0.3);
        // Milliseconds in microseconds: the factor takes the three zeros away.
        assert!(bits(&rows.clone().map(|i| (i * 20 + (jitter(i) % 64) as i64) * 1000).collect::<Vec<_>>()) < 7.5);
        // One late event in a hundred does not widen the others.
        let late = |i: i64| if i % 100 == 3 { 3_600_000_000 } else { 0 };
        assert!(bits(&rows.map(|i| i * 20 + (jitter(i) % 64) as i64 - late(i)).collect::<Vec<_>>()) < 9.0);
    }
}
