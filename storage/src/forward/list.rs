//! Arrays: where each ends, and the items of all as a column of their own.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray},
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
};

use super::{
    ColumnReader,
    encode::{EncodeOptions, encode_node},
    format::{Reader, Writer, corrupt},
};
use crate::{Error, Result, schema::DataType};

pub(super) fn encode(item: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<Writer> {
    let (mut ends, mut items, mut end) = (Vec::new(), Vec::new(), 0u64);
    for chunk in chunks {
        let list = chunk.as_list::<i32>();
        let offsets = list.value_offsets();
        // A null row may still cover items: they are cut out, so that the items of the column are just those of its rows.
        for row in 0..list.len() {
            let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
            if list.is_valid(row) && to > from {
                end += (to - from) as u64;
                items.push(list.values().slice(from, to - from));
            }
            ends.push(end);
        }
    }
    let rows = u32::try_from(end).ok().filter(|rows| *rows <= i32::MAX as u32);
    let rows =
        rows.ok_or_else(|| Error::Invalid(format!("{end} items of arrays do not fit one column of a segment")))?;
    let mut writer = Writer::default();
    writer.section(ends.iter().flat_map(|end| (*end as u32).to_le_bytes()).collect());
    let (_, inner) = encode_node(item, &items, rows, options)?;
    writer.append(inner);
    Ok(writer)
}

#[derive(Debug)]
pub(super) struct List {
    item: DataType,
    ends: Buffer,
    items: Box<ColumnReader>,
}

impl List {
    pub(super) fn open(item: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let ends = reader.section_of("ends of arrays", u64::from(rows) * 4)?;
        let items = Box::new(ColumnReader::open_node(item, None, reader)?);
        Ok(Self { item: item.clone(), ends, items })
    }

    fn end(&self, row: usize) -> u32 {
        self.ends.get(row * 4..).and_then(<[u8]>::first_chunk).map_or(0, |end| u32::from_le_bytes(*end))
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let start = if rows.start == 0 { 0 } else { self.end(rows.start - 1) };
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        offsets.push(0);
        let mut last = start;
        for row in rows {
            let end = self.end(row);
            if end < last || end > self.items.rows() {
                let expected = format!("ascending up to {}", self.items.rows());
                return Err(corrupt("ends of arrays", expected, format!("{last} then {end}")));
            }
            offsets.push((end - start) as i32);
            last = end;
        }
        let items = self.items.decode(start..last)?;
        let field = Arc::new(self.item.field("item", true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ScalarBuffer::from(offsets)), items, nulls)?))
    }
}
