//! Reading an encoded column.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, new_null_array},
    buffer::{BooleanBuffer, Buffer, NullBuffer},
    compute::filter,
};

use super::{
    Encoding,
    blocks::Blocks,
    codec::Codec,
    fixed::{Bits, Fixed},
    format::{Reader, corrupt},
    integers::Integers,
    list::List,
    numbers::{Read, array_of, is_integral},
    ordered::Ordered,
    scaled::Scaled,
    strings::Strings,
    uuids::Uuids,
};
use crate::{Error, Result, bitpack::Bitmask, dictionary::Dictionary, nulls::Nulls, schema::DataType};

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

/// Those of `rows` that `selection` (one bit per row of the range) holds, and which of these are null.
pub(crate) struct Picked<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) selection: &'a Bitmask,
    pub(crate) nulls: Option<NullBuffer>,
}

#[derive(Debug)]
pub(super) enum Values {
    AllNull,
    Dictionary(Dictionary),
    Integers(Integers),
    Scaled(Scaled),
    Ordered(Ordered),
    Blocks(Blocks),
    Uuids(Uuids),
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
        let column = Self::open_node(data_type, Some(rows), true, &mut reader)?;
        reader.finish()?;
        if column.encoding as u8 != encoding {
            return Err(corrupt("column encoding", encoding, column.encoding as u8));
        }
        Ok(column)
    }

    /// A column or a column inside one, at the reader's place; with `rows` rows where that is known from elsewhere; by dictionary only
    /// where it `may_nest`.
    pub(crate) fn open_node(
        data_type: &DataType,
        rows: Option<u32>,
        may_nest: bool,
        reader: &mut Reader,
    ) -> Result<Self> {
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
            (Encoding::Strings | Encoding::Lz4Strings, _) if is_text(data_type) => {
                Values::Strings(Strings::open(data_type, text_codec(encoding), found, reader)?)
            }
            (Encoding::Blocks | Encoding::Lz4Blocks, _) if is_text(data_type) => {
                Values::Blocks(Blocks::open(data_type, text_codec(encoding), found, reader)?)
            }
            (Encoding::Dictionary, DataType::Boolean | DataType::Array(_)) => return Err(misfit()),
            (Encoding::Dictionary, _) if may_nest => {
                Values::Dictionary(Dictionary::open(data_type, found as usize, reader)?)
            }
            (Encoding::Integers, _) if is_integral(data_type) => {
                Values::Integers(Integers::open(reader.section("integers")?, found as usize)?)
            }
            (Encoding::Scaled, DataType::Real | DataType::Double) => {
                Values::Scaled(Scaled::open(data_type, found, reader)?)
            }
            (Encoding::Ordered, DataType::Real | DataType::Double) => {
                Values::Ordered(Ordered::open(data_type, found, reader)?)
            }
            (Encoding::Uuids, DataType::Uuid) => Values::Uuids(Uuids::open(found, reader)?),
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

    /// For `rt.segments`: how it is compressed, if it is, the encoding, and for dictionaries the number of values.
    pub fn encoding_name(&self) -> String {
        let codec = match &self.values {
            Values::Dictionary(dictionary) => return dictionary.name(),
            Values::Integers(integers) => integers.codec(),
            Values::Scaled(floats) => floats.integers().codec(),
            Values::Ordered(floats) => floats.integers().codec(),
            Values::Uuids(uuids) => uuids.codec(),
            Values::Blocks(blocks) => blocks.codec(),
            _ => None,
        };
        match codec {
            Some(codec) => format!("{} {}", codec.name(), self.encoding.name()),
            None => self.encoding.name().to_owned(),
        }
    }

    pub(super) fn values(&self) -> &Values {
        &self.values
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
            Values::Dictionary(values) => values.decode(rows, nulls),
            Values::Integers(values) => array_of(&self.data_type, Run(values, rows), nulls),
            Values::Scaled(values) => values.decode(rows, nulls),
            Values::Ordered(values) => values.decode(rows, nulls),
            Values::Blocks(values) => values.decode(rows, nulls),
            Values::Uuids(values) => values.decode(rows, nulls),
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
        if selection.is_all() {
            return self.decode(rows);
        }
        let range = self.check(rows.clone())?;
        let nulls = || {
            let valid = self.nulls.as_ref()?.valid_range(range.clone());
            let selected = Bitmask::from_boolean_buffer(&valid);
            let bits = BooleanBuffer::from_iter(selection.iter().map(|row| selected.get(row)));
            Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0)
        };
        let picked = || Picked { rows: range.clone(), selection, nulls: nulls() };
        match &self.values {
            Values::AllNull => Ok(new_null_array(&self.data_type.arrow(), selection.count())),
            Values::Dictionary(values) => values.gather(picked()),
            Values::Integers(values) => array_of(&self.data_type, Selected(values, range.clone(), selection), nulls()),
            Values::Scaled(values) => values.gather(picked()),
            Values::Ordered(values) => values.gather(picked()),
            Values::Blocks(values) => values.gather(picked()),
            Values::Uuids(values) => values.gather(picked()),
            // Reading these copies nothing, or they are read whole by nature.
            Values::Fixed(_) | Values::Bits(_) | Values::Strings(_) | Values::List(_) => {
                let all = self.decode(rows)?;
                Ok(filter(&all, &BooleanArray::new(selection.to_boolean_buffer(), None))?)
            }
        }
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
        match &self.values {
            Values::Dictionary(dictionary) => Ok(Some(Arc::clone(dictionary.values()?))),
            _ => Ok(None),
        }
    }

    /// Puts the dictionary ids of the rows into `out` (cleared first); a null row has the id one past the last. An error when the
    /// column has no dictionary.
    pub fn ids(&self, rows: Range<u32>, out: &mut Vec<u32>) -> Result<()> {
        let rows = self.check(rows)?;
        let Values::Dictionary(dictionary) = &self.values else {
            return Err(Error::Invalid(format!("a column kept as {} has no dictionary", self.encoding_name())));
        };
        dictionary.ids().read(rows.clone(), out)?;
        if let Some(largest) = out.iter().max().filter(|largest| **largest >= dictionary.len()) {
            return Err(corrupt("ids", format!("below {}", dictionary.len()), largest));
        }
        if let Some(nulls) = self.nulls.as_ref().and_then(|nulls| nulls.range(rows)) {
            (!nulls.inner()).set_indices().for_each(|row| out[row] = dictionary.len());
        }
        Ok(())
    }

    /// Null rows of the whole column.
    pub fn null_count(&self) -> u64 {
        match &self.values {
            Values::AllNull => u64::from(self.rows),
            _ => self.nulls.as_ref().map_or(0, Nulls::count),
        }
    }

    /// Whether no row behind a null one has a value.
    pub(crate) fn nulls_are_last(&self) -> bool {
        self.nulls.as_ref().is_none_or(Nulls::are_last)
    }

    pub(super) fn check(&self, rows: Range<u32>) -> Result<Range<usize>> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::Invalid(format!("rows {rows:?} of a column of {} rows", self.rows)));
        }
        Ok(rows.start as usize..rows.end as usize)
    }
}

/// Whether columns of the type hold texts or bytes.
fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Uuid | DataType::Jsonb | DataType::Bytea)
}

fn text_codec(encoding: Encoding) -> Codec {
    match encoding {
        Encoding::Lz4Strings | Encoding::Lz4Blocks => Codec::Lz4,
        _ => Codec::Zstd,
    }
}

/// A run of rows of integers.
struct Run<'a>(&'a Integers, Range<usize>);

impl Read for Run<'_> {
    fn integers<T>(self, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        self.0.decode(self.1, of)
    }
}

/// Selected rows of integers.
struct Selected<'a>(&'a Integers, Range<usize>, &'a Bitmask);

impl Read for Selected<'_> {
    fn integers<T>(self, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        self.0.gather(self.1, self.2, of)
    }
}
