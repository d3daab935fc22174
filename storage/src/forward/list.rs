//! Arrays: where each ends, and the items of all as a column of their own.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray},
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
};

use super::{
    ColumnReader,
    encode::{EncodeOptions, Place, encode_node},
    format::{Reader, Writer, corrupt},
    integers::{self, Integers},
};
use crate::{Error, Result, schema::DataType};

pub(super) fn encode(item: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<Writer> {
    let (mut ends, mut items, mut end) = (Vec::new(), Vec::new(), 0u64);
    for chunk in chunks {
        let list = chunk.as_list::<i32>();
        let offsets = list.value_offsets();
        let mut run = 0..0;
        for row in 0..list.len() {
            // A null row may still cover items: they are cut out, so that the items of the column are just those of its rows.
            let row_items = offsets[row] as usize..offsets[row + 1] as usize;
            if list.is_valid(row) && !row_items.is_empty() {
                end += row_items.len() as u64;
                if run.end != row_items.start {
                    items.push(list.values().slice(run.start, run.len()));
                    run.start = row_items.start;
                }
                run.end = row_items.end;
            }
            ends.push(end as i64);
        }
        items.push(list.values().slice(run.start, run.len()));
    }
    let rows = u32::try_from(end).ok().filter(|rows| *rows <= i32::MAX as u32);
    let rows =
        rows.ok_or_else(|| Error::Invalid(format!("{end} items of arrays do not fit one column of a segment")))?;
    let mut writer = Writer::default();
    writer.section(integers::encode(&ends));
    writer.append(encode_node(item, &items, rows, Place::Column, options)?.writer);
    Ok(writer)
}

#[derive(Debug)]
pub(super) struct List {
    item: DataType,
    ends: Integers,
    items: Box<ColumnReader>,
}

impl List {
    pub(super) fn open(item: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let ends = Integers::open(reader.section("ends of arrays")?, rows as usize)?;
        let items = Box::new(ColumnReader::open_node(item, None, true, reader)?);
        Ok(Self { item: item.clone(), ends, items })
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let start = if rows.start == 0 { 0 } else { self.ends.get(rows.start - 1)? };
        let ends = self.ends.decode(rows, |end| end)?;
        let last = ends.last().copied().unwrap_or(start);
        let ascending = start >= 0 && ends.first().is_none_or(|first| *first >= start) && ends.is_sorted();
        if !ascending || last > i64::from(self.items.rows()) || last > i64::from(i32::MAX) {
            let expected = format!("ascending from {start} to at most {}", self.items.rows());
            return Err(corrupt("ends of arrays", expected, format!("a last end of {last}")));
        }
        let items = self.items.decode(start as u32..last as u32)?;
        let offsets: Vec<i32> = std::iter::once(0).chain(ends.iter().map(|end| (end - start) as i32)).collect();
        let field = Arc::new(self.item.field("item", true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ScalarBuffer::from(offsets)), items, nulls)?))
    }
}
