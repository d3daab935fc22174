//! Texts or bytes of many distinct values, in blocks of about 64 KiB, each compressed by itself.
//!
//! ```text
//! ends:       where each row's bytes end in the uncompressed whole (integers)
//! directory:  24 bytes per block: first row u32 · raw bytes u32 · raw start u64 · stored at u64
//! data:       the blocks, each a zstd frame or LZ4 block, or raw when it did not shrink
//! ```
//!
//! A block holds whole rows. What a run of rows needs is decompressed and nothing else; sparse selections copy their values out, so that
//! a few rows do not keep whole blocks in memory.

use std::ops::Range;

use arrow::{
    array::ArrayRef,
    buffer::{Buffer, NullBuffer},
};

use super::{
    EncodeOptions, Picked,
    codec::{Codec, Compressor, decompress},
    format::{Reader, Writer, corrupt},
    integers::{self, Integers},
    strings::for_each_bytes,
};
use crate::{Error, Result, bitpack::views::ViewsBuilder, schema::DataType};

/// A block is closed when it has this many raw bytes.
const BLOCK_BYTES: usize = 64 * 1024;
const ENTRY_BYTES: usize = 24;

pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<Writer> {
    let mut compressor = Compressor::new(options.compression.codec(), options.zstd_level)?;
    let (mut ends, mut end) = (Vec::new(), 0i64);
    let (mut directory, mut data, mut raw) = (Vec::new(), Vec::new(), Vec::with_capacity(2 * BLOCK_BYTES));
    let (mut first_row, mut raw_start, mut failure) = (0u32, 0u64, None);
    let mut close = |raw: &mut Vec<u8>, next_row: u32| {
        if next_row == first_row {
            return;
        }
        directory.extend_from_slice(&first_row.to_le_bytes());
        directory.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        directory.extend_from_slice(&raw_start.to_le_bytes());
        directory.extend_from_slice(&(data.len() as u64).to_le_bytes());
        if let Err(error) = compressor.append(raw, &mut data) {
            failure = Some(error);
        }
        (first_row, raw_start) = (next_row, raw_start + raw.len() as u64);
        raw.clear();
    };
    for_each_bytes(data_type, chunks, |value| {
        let value = value.unwrap_or_default();
        if !raw.is_empty() && raw.len() + value.len() > BLOCK_BYTES {
            close(&mut raw, ends.len() as u32);
        }
        raw.extend_from_slice(value);
        end += value.len() as i64;
        ends.push(end);
    });
    close(&mut raw, ends.len() as u32);
    if let Some(error) = failure {
        return Err(error);
    }
    let mut writer = Writer::default();
    writer.u32((directory.len() / ENTRY_BYTES) as u32);
    writer.section(integers::encode(&ends));
    writer.section(directory);
    writer.section(data);
    Ok(writer)
}

/// Compressed size per raw byte, judged by blocks spread over the column.
pub(super) fn sampled_ratio(data_type: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<f64> {
    let Some(codec) = options.compression.codec() else { return Ok(1.0) };
    let mut total = 0;
    for_each_bytes(data_type, chunks, |value| total += value.map_or(0, <[u8]>::len));
    let every = (total / (4 * BLOCK_BYTES)).max(1);
    let (mut samples, mut raw, mut block, mut at) = (Vec::new(), Vec::new(), 0, 0);
    for_each_bytes(data_type, chunks, |value| {
        let value = value.unwrap_or_default();
        if block % every == 0 {
            raw.extend_from_slice(value);
        }
        at += value.len();
        if at / BLOCK_BYTES != block {
            block = at / BLOCK_BYTES;
            samples.push(std::mem::take(&mut raw));
        }
    });
    samples.push(raw);
    let mut compressor = Compressor::new(Some(codec), options.zstd_level)?;
    let mut data = Vec::new();
    for raw in &samples {
        compressor.append(raw, &mut data)?;
    }
    let seen = samples.iter().map(Vec::len).sum::<usize>();
    Ok(if seen == 0 { 1.0 } else { data.len() as f64 / seen as f64 })
}

#[derive(Debug)]
pub(super) struct Blocks {
    utf8: bool,
    codec: Codec,
    rows: usize,
    blocks: usize,
    ends: Integers,
    directory: Buffer,
    data: Buffer,
}

/// One entry of the directory, and where the next block begins.
#[derive(Debug)]
struct Entry {
    rows: Range<usize>,
    raw_bytes: usize,
    raw_start: u64,
    stored: Range<usize>,
}

impl Blocks {
    pub(super) fn open(data_type: &DataType, codec: Codec, rows: u32, reader: &mut Reader) -> Result<Self> {
        let rows = rows as usize;
        let blocks = reader.u32("number of blocks")? as usize;
        let ends = Integers::open(reader.section("ends of texts")?, rows)?;
        let directory = reader.section_of("directory of blocks", blocks as u64 * ENTRY_BYTES as u64)?;
        let data = reader.section("blocks")?;
        if rows > 0 && blocks == 0 {
            return Err(corrupt("number of blocks", "at least 1", 0));
        }
        let column = Self { utf8: *data_type != DataType::Bytea, codec, rows, blocks, ends, directory, data };
        let (mut row, mut stored) = (0, 0);
        for block in 0..blocks {
            let entry = column.entry(block);
            if entry.rows.start != row
                || entry.rows.end <= row
                || entry.rows.end > rows
                || entry.stored.start != stored
                || entry.stored.end < stored
                || entry.stored.end > column.data.len()
            {
                let what = format!("block {block}");
                return Err(corrupt(what, format!("one from row {row}, byte {stored} on"), format!("{entry:?}")));
            }
            (row, stored) = (entry.rows.end, entry.stored.end);
        }
        Ok(column)
    }

    fn entry(&self, block: usize) -> Entry {
        let field = |block: usize, at: usize| {
            let bytes = self.directory.get(block * ENTRY_BYTES + at..).and_then(<[u8]>::first_chunk::<8>);
            bytes.map(|bytes| u64::from_le_bytes(*bytes))
        };
        // The first row is the low half of the first field, the raw bytes the high half.
        let first_row = |block| field(block, 0).map(|both| both as u32 as usize);
        let stored_at = |block| field(block, 16).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
        Entry {
            rows: first_row(block).unwrap_or(self.rows)..first_row(block + 1).unwrap_or(self.rows),
            raw_bytes: field(block, 0).map_or(0, |both| (both >> 32) as usize),
            raw_start: field(block, 8).unwrap_or(0),
            stored: stored_at(block).unwrap_or(0)..stored_at(block + 1).unwrap_or(self.data.len()),
        }
    }

    /// The block of a row.
    fn block_of(&self, row: usize) -> usize {
        let (mut low, mut high) = (0, self.blocks);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.entry(middle).rows.start <= row { low = middle } else { high = middle }
        }
        low
    }

    /// How they are compressed; `None` where no block is.
    pub(super) fn codec(&self) -> Option<Codec> {
        let is_raw = |entry: Entry| entry.stored.len() == entry.raw_bytes;
        (!(0..self.blocks).all(|block| is_raw(self.entry(block)))).then_some(self.codec)
    }

    fn raw(&self, block: usize, entry: &Entry) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        match decompress(self.codec, &self.data[entry.stored.clone()], entry.raw_bytes, 0, &mut raw)? {
            true => Ok(raw),
            false => Err(corrupt(
                format!("block {block}"),
                format!("{} bytes by {}", entry.raw_bytes, self.codec.name()),
                "other bytes",
            )),
        }
    }

    /// Calls `each` with block, entry, its raw bytes, the rows of `rows` in it, and the ends of these rows within the block, the end
    /// before the first of them in front; only for blocks that `wanted` takes.
    fn for_each_block(
        &self,
        rows: Range<usize>,
        wanted: impl Fn(Range<usize>) -> bool,
        mut each: impl FnMut(Vec<u8>, Range<usize>, &[usize]) -> Option<()>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for block in self.block_of(rows.start)..self.blocks {
            let entry = self.entry(block);
            let part = rows.start.max(entry.rows.start)..rows.end.min(entry.rows.end);
            if part.is_empty() {
                break;
            }
            if !wanted(part.clone()) {
                continue;
            }
            let raw = self.raw(block, &entry)?;
            // Below the start wraps to far above the length, which is then refused.
            let within = |end: i64| usize::try_from((end as u64).wrapping_sub(entry.raw_start)).unwrap_or(usize::MAX);
            let ends = if part.start == entry.rows.start {
                let mut ends = vec![0];
                ends.extend(self.ends.decode(part.clone(), within)?);
                ends
            } else {
                self.ends.decode(part.start - 1..part.end, within)?
            };
            each(raw, part, &ends)
                .ok_or_else(|| corrupt(format!("block {block}"), "valid texts at their ends", "others"))?;
        }
        Ok(())
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let mut views = ViewsBuilder::new(self.utf8, rows.len());
        self.for_each_block(
            rows,
            |_| true,
            |raw, _, ends| {
                let sound = views.buffer(Buffer::from_vec(raw));
                (sound && ends.windows(2).all(|pair| views.push(pair[0], pair[1]))).then_some(())
            },
        )?;
        finish(views, nulls)
    }

    pub(super) fn gather(&self, Picked { rows, selection, nulls }: Picked<'_>) -> Result<ArrayRef> {
        let start = rows.start;
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(selection.count()));
        self.for_each_block(
            rows,
            |part| selection.any_in(part.start - start..part.end - start),
            |raw, part, ends| {
                for row in selection.iter_in(part.start - start..part.end - start) {
                    let at = row + start - part.start;
                    let from = bytes.len();
                    bytes.extend_from_slice(raw.get(ends[at]..ends[at + 1])?);
                    places.push((from, bytes.len()));
                }
                Some(())
            },
        )?;
        let mut views = ViewsBuilder::new(self.utf8, places.len());
        if !views.buffer(Buffer::from_vec(bytes)) || !places.iter().all(|(from, to)| views.push(*from, *to)) {
            return Err(corrupt("blocks", "valid UTF-8 and less than 2 GiB selected", "other bytes"));
        }
        finish(views, nulls)
    }
}

fn finish(views: ViewsBuilder, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    views.finish(nulls).ok_or_else(|| Error::Invalid("null rows do not fit the values".into()))
}
