//! From Arrow chunks to the sections of an encoded column.

use arrow::array::{Array, ArrayRef};

use super::{Encoding, fixed, format::Writer, list, strings};
use crate::{Error, Result, nulls, schema::DataType, segment::ColumnStats, stats::column_stats};

/// What a writer may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// zstd level of compressed blocks.
    pub zstd_level: i32,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { zstd_level: 3 }
    }
}

/// A column as it is stored.
#[derive(Clone, Debug)]
pub struct EncodedColumn {
    pub encoding: Encoding,
    /// In order; at most [`SECTIONS_MAX`](super::SECTIONS_MAX). Each is to be stored at an offset that is a multiple of 64.
    pub sections: Vec<Vec<u8>>,
    pub stats: ColumnStats,
    pub rows: u32,
}

/// Encodes the values of consecutive `chunks`, all of the Arrow form of `data_type`; together less than 2³² rows.
pub fn encode_column(data_type: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<EncodedColumn> {
    let wanted = data_type.arrow();
    if let Some(other) = chunks.iter().find(|chunk| chunk.data_type() != &wanted) {
        return Err(Error::Invalid(format!(
            "a chunk of {} does not fit a column of type {data_type}",
            other.data_type()
        )));
    }
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let rows = u32::try_from(rows).map_err(|_| Error::Invalid(format!("{rows} rows do not fit a segment")))?;
    let stats = column_stats(data_type, chunks);
    let (encoding, writer) = encode_node(data_type, chunks, rows, options)?;
    Ok(EncodedColumn { encoding, sections: writer.finish(), stats, rows })
}

/// A column or a column inside one: encoding, null rows, rows, then what the encoding adds.
pub(super) fn encode_node(
    data_type: &DataType,
    chunks: &[ArrayRef],
    rows: u32,
    options: &EncodeOptions,
) -> Result<(Encoding, Writer)> {
    let nulls = nulls::encode(chunks)?;
    let all_null = chunks.iter().all(|chunk| chunk.null_count() == chunk.len());
    let (encoding, values) =
        if all_null { (Encoding::AllNull, Writer::default()) } else { encode_values(data_type, chunks, options)? };
    let mut writer = Writer::default();
    writer.u8(encoding as u8);
    writer.u32(rows);
    match nulls.filter(|_| !all_null) {
        None => writer.u8(0),
        Some(bitmap) => {
            writer.u8(1);
            writer.section(bitmap);
        }
    }
    writer.append(values);
    Ok((encoding, writer))
}

fn encode_values(data_type: &DataType, chunks: &[ArrayRef], options: &EncodeOptions) -> Result<(Encoding, Writer)> {
    Ok(match data_type {
        DataType::Boolean => (Encoding::Bits, fixed::encode_bits(chunks)?),
        DataType::Text | DataType::Uuid | DataType::Jsonb | DataType::Bytea => {
            (Encoding::Strings, strings::encode(data_type, chunks)?)
        }
        DataType::Array(item) => (Encoding::List, list::encode(item, chunks, options)?),
        _ => (Encoding::Fixed, fixed::encode(data_type, chunks)?),
    })
}
