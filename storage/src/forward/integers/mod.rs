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

mod encode;
mod entry;
mod read;
mod select;
#[cfg(test)]
mod tests;

use std::ops::Range;

use arrow::buffer::Buffer;

pub(super) use self::encode::compressed;
pub(crate) use self::encode::encode;
use self::entry::{Data, Entry, bytes_at};
use super::{
    chunks::{CHUNK_ROWS, Chunks},
    codec::Codec,
    format::corrupt,
};
use crate::Result;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Frame = 0,
    Slope = 1,
    Delta = 2,
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
        Data { integers: self, chunk: None, bytes: Vec::new(), residuals: Vec::new() }
    }

    /// How the data are compressed, if they are.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.chunks.as_ref().map(Chunks::codec)
    }
}
