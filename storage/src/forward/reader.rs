//! Reading an encoded column.

use std::ops::Range;

use arrow::{
    array::{ArrayRef, BooleanArray, new_null_array},
    buffer::{Buffer, NullBuffer},
    compute::filter,
};

use super::{
    Encoding,
    fixed::{Bits, Fixed},
    format::{Reader, corrupt},
    list::List,
    strings::Strings,
};
use crate::{Error, Result, bitpack::Bitmask, nulls::Nulls, schema::DataType};

/// An opened column of a segment. Cheap to open: what is derived from the bytes (views of a dictionary, expanded null rows) is made at
/// first use and kept.
#[derive(Debug)]
pub struct ColumnReader {
    data_type: DataType,
    rows: u32,
    encoding: Encoding,
    nulls: Option<Nulls>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    AllNull,
    Fixed(Fixed),
    Bits(Bits),
    Strings(Strings),
    List(List),
}

impl ColumnReader {
    /// Opens the `sections` that [`encode_column`](super::encode_column) made of a column of `data_type`: `encoding` and `rows` as
    /// the segment recorded them. Errors: [`Error::Corrupt`], with an empty path ([`Error::at`] adds it).
    pub fn open(data_type: &DataType, encoding: u8, rows: u32, sections: Vec<Buffer>) -> Result<Self> {
        let mut reader = Reader::new(sections)?;
        let column = Self::open_node(data_type, Some(rows), &mut reader)?;
        reader.finish()?;
        if column.encoding as u8 != encoding {
            return Err(corrupt("column encoding", encoding, column.encoding as u8));
        }
        Ok(column)
    }

    /// A column or a column inside one, at the reader's place; with `rows` rows where that is known from elsewhere.
    pub(super) fn open_node(data_type: &DataType, rows: Option<u32>, reader: &mut Reader) -> Result<Self> {
        let encoding = Encoding::of_byte(reader.u8("encoding")?)?;
        let found = reader.u32("rows")?;
        if let Some(rows) = rows.filter(|rows| *rows != found) {
            return Err(corrupt("rows of the column", rows, found));
        }
        let nulls = match reader.u8("null rows")? {
            0 => None,
            1 => Some(Nulls::open(&reader.section("null rows")?, found)?),
            other => return Err(corrupt("null rows", "0 or 1", other)),
        };
        let misfit = || corrupt("column encoding", format!("one that type {data_type} has"), encoding.name());
        let values = match (encoding, data_type) {
            (Encoding::AllNull, _) => Values::AllNull,
            (Encoding::Bits, DataType::Boolean) => Values::Bits(Bits::open(found, reader)?),
            (Encoding::Strings, DataType::Text | DataType::Uuid | DataType::Jsonb | DataType::Bytea) => {
                Values::Strings(Strings::open(data_type, found, reader)?)
            }
            (Encoding::List, DataType::Array(item)) => Values::List(List::open(item, found, reader)?),
            (Encoding::Fixed, _) if data_type.arrow().is_primitive() => {
                Values::Fixed(Fixed::open(data_type, found, reader)?)
            }
            _ => return Err(misfit()),
        };
        Ok(Self { data_type: data_type.clone(), rows: found, encoding, nulls, values })
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// For `rt.segments`: one word or two.
    pub fn encoding_name(&self) -> String {
        self.encoding.name().to_owned()
    }

    /// The values of a run of rows, in the Arrow form of the column's type.
    pub fn decode(&self, rows: Range<u32>) -> Result<ArrayRef> {
        let rows = self.check(rows)?;
        if rows.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.data_type.arrow()));
        }
        let nulls = self.nulls.as_ref().and_then(|nulls| nulls.range(rows.clone()));
        match &self.values {
            Values::AllNull => Ok(new_null_array(&self.data_type.arrow(), rows.len())),
            Values::Fixed(values) => values.decode(rows, nulls),
            Values::Bits(values) => Ok(values.decode(rows, nulls)),
            Values::Strings(values) => values.decode(rows, nulls),
            Values::List(values) => values.decode(rows, nulls),
        }
    }

    /// The values of those rows of `rows` that `selection` (one bit per row of the range) holds.
    pub fn decode_selected(&self, rows: Range<u32>, selection: &Bitmask) -> Result<ArrayRef> {
        if selection.len() != rows.len() {
            return Err(Error::Invalid(format!("a selection of {} rows for {} rows", selection.len(), rows.len())));
        }
        let all = self.decode(rows)?;
        Ok(filter(&all, &BooleanArray::new(selection.to_boolean_buffer(), None))?)
    }

    /// Which rows of the range are not null; `None`: all.
    pub fn validity(&self, rows: Range<u32>) -> Result<Option<NullBuffer>> {
        let rows = self.check(rows)?;
        Ok(match &self.values {
            Values::AllNull => Some(NullBuffer::new_null(rows.len())),
            _ => self.nulls.as_ref().and_then(|nulls| nulls.range(rows)),
        })
    }

    /// The distinct non-null values, ascending, if the column is kept by dictionary: the value of id `i` is at index `i`.
    pub fn dictionary(&self) -> Result<Option<ArrayRef>> {
        Ok(None)
    }

    /// Puts the dictionary ids of the rows into `out` (cleared first); a null row has the id one past the last. An error when the
    /// column has no dictionary.
    pub fn ids(&self, rows: Range<u32>, out: &mut Vec<u32>) -> Result<()> {
        self.check(rows)?;
        out.clear();
        Err(Error::Invalid(format!("a column kept as {} has no dictionary", self.encoding_name())))
    }

    /// Null rows of the whole column.
    pub fn null_count(&self) -> u64 {
        match &self.values {
            Values::AllNull => u64::from(self.rows),
            _ => self.nulls.as_ref().map_or(0, Nulls::count),
        }
    }

    pub(super) fn check(&self, rows: Range<u32>) -> Result<Range<usize>> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::Invalid(format!("rows {rows:?} of a column of {} rows", self.rows)));
        }
        Ok(rows.start as usize..rows.end as usize)
    }
}
