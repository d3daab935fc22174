//! Texts or bytes one after the other, uncompressed, with their ends. For short columns; and the values of dictionaries.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, BinaryViewArray, StringViewArray, make_view},
    buffer::{Buffer, NullBuffer, ScalarBuffer},
};

use super::format::{Reader, Writer, corrupt};
use crate::{Error, Result, schema::DataType};

/// Calls `each` with the bytes of every row of consecutive chunks of texts or bytes; `None` where a row is null.
pub(super) fn for_each_bytes<'a>(data_type: &DataType, chunks: &'a [ArrayRef], mut each: impl FnMut(Option<&'a [u8]>)) {
    for chunk in chunks {
        match data_type {
            DataType::Bytea => chunk.as_binary_view().iter().for_each(&mut each),
            _ => chunk.as_string_view().iter().for_each(|value| each(value.map(str::as_bytes))),
        }
    }
}

pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef]) -> Result<Writer> {
    let (mut ends, mut bytes, mut end) = (Vec::new(), Vec::new(), 0usize);
    for_each_bytes(data_type, chunks, |value| {
        let value = value.unwrap_or_default();
        end += value.len();
        if end <= i32::MAX as usize {
            bytes.extend_from_slice(value);
        }
        ends.extend_from_slice(&(end as u32).to_le_bytes());
    });
    if end > i32::MAX as usize {
        return Err(Error::Invalid(format!("{end} bytes of texts do not fit one column of a segment")));
    }
    let mut writer = Writer::default();
    writer.section(ends);
    writer.section(bytes);
    Ok(writer)
}

#[derive(Debug)]
pub(super) struct Strings {
    utf8: bool,
    ends: Buffer,
    bytes: Buffer,
}

impl Strings {
    pub(super) fn open(data_type: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let ends = reader.section_of("ends of texts", u64::from(rows) * 4)?;
        let bytes = reader.section("texts")?;
        if bytes.len() > i32::MAX as usize {
            return Err(corrupt("texts", "less than 2 GiB", bytes.len()));
        }
        Ok(Self { utf8: *data_type != DataType::Bytea, ends, bytes })
    }

    fn end(&self, row: usize) -> usize {
        self.ends.get(row * 4..).and_then(<[u8]>::first_chunk).map_or(0, |end| u32::from_le_bytes(*end) as usize)
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let mut start = if rows.start == 0 { 0 } else { self.end(rows.start - 1) };
        let mut views = Vec::with_capacity(rows.len());
        for row in rows {
            let end = self.end(row);
            let value = self.bytes.get(start..end).ok_or_else(|| {
                corrupt("ends of texts", format!("ascending up to {}", self.bytes.len()), format!("{start} then {end}"))
            })?;
            views.push(make_view(value, 0, start as u32));
            start = end;
        }
        views_array(self.utf8, views, self.bytes.clone(), nulls)
    }
}

/// An array of the views after checking them.
pub(super) fn views_array(utf8: bool, views: Vec<u128>, bytes: Buffer, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let views = ScalarBuffer::from(views);
    let damaged = |error| corrupt("texts", "valid UTF-8", error);
    Ok(if utf8 {
        Arc::new(StringViewArray::try_new(views, vec![bytes], nulls).map_err(damaged)?)
    } else {
        Arc::new(BinaryViewArray::try_new(views, vec![bytes], nulls).map_err(damaged)?)
    })
}
