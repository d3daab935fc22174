//! One block of packed integers: what the directory says of it, and its data.

use super::{CHUNK_BLOCKS, EXCEPTION_BYTES, Integers, Mode};
use crate::{
    Result,
    bitpack::{PADDING, Packed, packed_bytes},
};

/// One entry of the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) block: usize,
    /// In the data of all blocks.
    pub(super) at: usize,
    pub(super) rows: usize,
    pub(super) width: u8,
    pub(super) mode: Mode,
    pub(super) exceptions: usize,
    pub(super) base: i64,
    pub(super) extra: i64,
}

impl Entry {
    /// Whether a value can be had without the others of its block.
    pub(super) fn is_simple(&self) -> bool {
        self.mode != Mode::Delta && self.exceptions == 0
    }

    pub(super) fn bytes(&self) -> usize {
        packed_bytes(self.rows, self.width) + self.exceptions * EXCEPTION_BYTES
    }

    /// The residuals in the block's `data`.
    pub(super) fn packed<'d>(&self, data: &'d [u8]) -> Packed<'d> {
        Packed::new(data, self.width, self.rows).expect("invariant: open checked the block's length")
    }

    /// Position and term of exception `index` in the block's `data`.
    pub(super) fn exception(&self, data: &[u8], index: usize) -> (usize, i64) {
        let positions = packed_bytes(self.rows, self.width);
        let terms = positions + self.exceptions * 2;
        let position = bytes_at(data, positions + index * 2).map_or(0, u16::from_le_bytes);
        let term = bytes_at(data, terms + index * 8).map_or(0, i64::from_le_bytes);
        (usize::from(position), term)
    }
}

/// Gives the data of blocks, one after the other; holds the chunk it decompressed last.
pub(super) struct Data<'a> {
    pub(super) integers: &'a Integers,
    pub(super) chunk: Option<usize>,
    pub(super) bytes: Vec<u8>,
    /// Of the block that was decoded last: made once for many blocks.
    pub(super) residuals: Vec<u32>,
}

impl Data<'_> {
    /// The bytes from the block's first on.
    pub(super) fn of(&mut self, entry: &Entry) -> Result<&[u8]> {
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

pub(super) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}
