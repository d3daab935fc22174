//! Texts or bytes one after the other with their ends: the values of dictionaries, and columns too small to compress.
//!
//! The bytes are stored as they are, and arrays made of them refer to the mapped file; or, when there are many and they shrink well, compressed
//! as a whole, which is decompressed at the first use and kept.

use std::{ops::Range, sync::OnceLock};

use arrow::{
    array::{ArrayRef, AsArray},
    buffer::{Buffer, NullBuffer},
};

use super::{
    EncodeOptions,
    codec::{Codec, Compressor, decompress},
    format::{Reader, Writer, corrupt},
    integers::{self, Integers},
};
use crate::{Error, Result, bitpack::views::ViewsBuilder, schema::DataType};

/// Fewer bytes than this are never compressed.
const COMPRESS_BYTES_MIN: usize = 16 * 1024;

/// Calls `each` with the bytes of every row of consecutive chunks of texts or bytes; `None` where a row is null.
pub(super) fn for_each_bytes<'a>(data_type: &DataType, chunks: &'a [ArrayRef], mut each: impl FnMut(Option<&'a [u8]>)) {
    for chunk in chunks {
        match data_type {
            DataType::Bytea => chunk.as_binary_view().iter().for_each(&mut each),
            _ => chunk.as_string_view().iter().for_each(|value| each(value.map(str::as_bytes))),
        }
    }
}

pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<Writer> {
    let (mut ends, mut bytes, mut end) = (Vec::new(), Vec::new(), 0usize);
    for_each_bytes(data_type, chunks, |value| {
        let value = value.unwrap_or_default();
        end += value.len();
        if end <= i32::MAX as usize {
            bytes.extend_from_slice(value);
        }
        ends.push(end as i64);
    });
    if end > i32::MAX as usize {
        return Err(Error::Invalid(format!("{end} bytes of texts do not fit one dictionary")));
    }
    let raw_bytes = bytes.len();
    if raw_bytes >= COMPRESS_BYTES_MIN {
        let mut packed = Vec::new();
        Compressor::new(options.compression.codec(), options.zstd_level)?.append(&bytes, &mut packed)?;
        let most = if options.compression.is_wanted() { raw_bytes / 20 * 19 } else { raw_bytes / 5 * 4 };
        if packed.len() < most {
            bytes = packed;
        }
    }
    let mut writer = Writer::default();
    writer.u32(raw_bytes as u32);
    writer.section(integers::encode(&ends));
    writer.section(bytes);
    Ok(writer)
}

#[derive(Debug)]
pub(super) struct Strings {
    utf8: bool,
    codec: Codec,
    ends: Integers,
    raw_bytes: usize,
    stored: Buffer,
    raw: OnceLock<Buffer>,
}

impl Strings {
    pub(super) fn open(data_type: &DataType, codec: Codec, rows: u32, reader: &mut Reader) -> Result<Self> {
        let raw_bytes = reader.u32("bytes of texts")? as usize;
        let ends = Integers::open(reader.section("ends of texts")?, rows as usize)?;
        let stored = reader.section("texts")?;
        if raw_bytes > i32::MAX as usize {
            return Err(corrupt("texts", "less than 2 GiB", raw_bytes));
        }
        Ok(Self { utf8: *data_type != DataType::Bytea, codec, ends, raw_bytes, stored, raw: OnceLock::new() })
    }

    fn raw(&self) -> Result<&Buffer> {
        if self.stored.len() == self.raw_bytes {
            return Ok(&self.stored);
        }
        if let Some(raw) = self.raw.get() {
            return Ok(raw);
        }
        let mut raw = Vec::new();
        if !decompress(self.codec, &self.stored, self.raw_bytes, 0, &mut raw)? {
            let expected = format!("{} bytes by {}", self.raw_bytes, self.codec.name());
            return Err(corrupt("texts", expected, "other bytes"));
        }
        Ok(self.raw.get_or_init(|| Buffer::from_vec(raw)))
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let damaged = || corrupt("texts", "ascending ends and valid UTF-8", "others");
        let before = rows.start.saturating_sub(1);
        let mut ends = self.ends.decode(before..rows.end, |end| usize::try_from(end).unwrap_or(usize::MAX))?;
        if rows.start == 0 {
            ends.insert(0, 0);
        }
        let mut views = ViewsBuilder::new(self.utf8, rows.len());
        if !views.buffer(self.raw()?.clone()) || !ends.windows(2).all(|pair| views.push(pair[0], pair[1])) {
            return Err(damaged());
        }
        views.finish(nulls).ok_or_else(|| Error::Invalid("null rows do not fit the values".into()))
    }
}
