//! From Arrow chunks to the sections of an encoded column: which encoding, and its bytes.

use arrow::array::{Array, ArrayRef};

use super::{
    Encoding, blocks,
    by_dictionary::{Budget, by_dictionary},
    codec::Codec,
    fixed,
    format::Writer,
    integers, list,
    numbers::integers_of,
    ordered, scaled, strings, uuids,
};
use crate::{
    Error, Result,
    dictionary::compress_ids,
    nulls,
    schema::{Compression, DataType},
    segment::ColumnStats,
    stats::{column_stats, sorted_stats},
};

/// What a writer may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    pub compression: Compression,
    /// zstd level of compressed blocks.
    pub zstd_level: i32,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { compression: Compression::Default, zstd_level: 3 }
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
    let node = encode_node(data_type, chunks, rows, Place::Column, options)?;
    let mut stats = match &node.dictionary {
        // A look at the two ends instead of one at every text.
        Some(dictionary) if matches!(data_type, DataType::Text | DataType::Uuid | DataType::Bytea) => {
            sorted_stats(data_type, &dictionary.values, chunks, dictionary.ascending)
        }
        _ => column_stats(data_type, chunks),
    };
    stats.distinct = node.dictionary.map(|dictionary| dictionary.values.len() as u64);
    Ok(EncodedColumn { encoding: node.encoding, sections: node.writer.finish(), stats, rows })
}

/// Where a column is: dictionaries hold no dictionaries, and their texts are kept so that they can be read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Column,
    Dictionary,
}

pub(super) struct Node {
    encoding: Encoding,
    pub(super) writer: Writer,
    dictionary: Option<Values>,
}

/// A column or a column inside one: encoding, rows, null rows, then what the encoding adds.
pub(super) fn encode_node(
    data_type: &DataType,
    chunks: &[ArrayRef],
    rows: u32,
    place: Place,
    options: &EncodeOptions,
) -> Result<Node> {
    let all_null = chunks.iter().all(|chunk| chunk.null_count() == chunk.len());
    let nulls = if all_null { None } else { nulls::encode(chunks)? };
    let choice = if all_null {
        Choice::of(Encoding::AllNull, Writer::default())
    } else {
        let mut choice = choose(data_type, chunks, place, options)?;
        if place == Place::Column {
            compress(&mut choice, rows as usize, options)?;
        }
        choice
    };
    let mut writer = Writer::default();
    writer.u8(choice.encoding as u8);
    writer.u32(rows);
    match nulls {
        None => writer.u8(0),
        Some(bitmap) => {
            writer.u8(1);
            writer.section(bitmap);
        }
    }
    writer.append(choice.writer);
    Ok(Node { encoding: choice.encoding, writer, dictionary: choice.dictionary })
}

/// One way to keep the values of a column.
pub(super) struct Choice {
    pub(super) encoding: Encoding,
    pub(super) writer: Writer,
    pub(super) dictionary: Option<Values>,
}

/// What a dictionary was made of.
pub(super) struct Values {
    /// Ascending.
    pub(super) values: ArrayRef,
    /// The ids never decrease from row to row.
    pub(super) ascending: bool,
}

impl Choice {
    fn of(encoding: Encoding, writer: Writer) -> Self {
        Self { encoding, writer, dictionary: None }
    }
}

/// Compresses what is packed where that pays. After the choice, not before: what repeats is as small in any encoding, and then it is better kept by
/// dictionary.
fn compress(choice: &mut Choice, rows: usize, options: &EncodeOptions) -> Result<()> {
    let sections = match choice.encoding {
        Encoding::Integers | Encoding::Scaled | Encoding::Ordered => 0..1,
        // Most are random, which is not worth trying.
        Encoding::Uuids if options.compression.is_wanted() => 0..2,
        Encoding::Dictionary => return compress_ids(&mut choice.writer, rows, options),
        _ => return Ok(()),
    };
    for index in sections {
        let integers = choice.writer.sections().get(index).map(|section| integers::compressed(section, rows, options));
        if let Some(section) = integers.transpose()?.flatten() {
            choice.writer.replace_section(index, section);
        }
    }
    Ok(())
}

fn choose(data_type: &DataType, chunks: &[ArrayRef], place: Place, options: &EncodeOptions) -> Result<Choice> {
    let with_dictionary = |other: Choice, key_bytes: usize| -> Result<Choice> {
        if place == Place::Dictionary {
            return Ok(other);
        }
        let bytes = other.writer.bytes();
        // Reading a dictionary costs no more than reading the values, and predicates and groups run on its ids: a tie is its win.
        let budget = Budget { bytes: bytes + bytes / 50, key_bytes };
        Ok(by_dictionary(data_type, chunks, budget, options)?.unwrap_or(other))
    };
    Ok(match data_type {
        DataType::Boolean => Choice::of(Encoding::Bits, fixed::encode_bits(chunks)?),
        DataType::Array(item) => Choice::of(Encoding::List, list::encode(item, chunks, options)?),
        DataType::Real | DataType::Double => {
            let plain = || Ok(Choice::of(Encoding::Fixed, fixed::encode(data_type, chunks)?));
            if place == Place::Dictionary {
                return plain();
            }
            // A REAL has so few digits that each is some decimal; often a long one, whose bits are shorter.
            let scaled = scaled::encode(data_type, chunks)?;
            let ordered = match &scaled {
                Some(_) if *data_type == DataType::Double => None,
                _ => ordered::encode(data_type, chunks)?,
            };
            let bytes = |writer: &Option<Writer>| writer.as_ref().map_or(usize::MAX, Writer::bytes);
            let by_bits = bytes(&ordered) < bytes(&scaled);
            let other = match (scaled, ordered) {
                (_, Some(writer)) if by_bits => Choice::of(Encoding::Ordered, writer),
                (Some(writer), _) => Choice::of(Encoding::Scaled, writer),
                _ => plain()?,
            };
            with_dictionary(other, 8)?
        }
        DataType::Uuid => match uuids::encode(chunks) {
            Some(writer) => with_dictionary(Choice::of(Encoding::Uuids, writer), 16)?,
            None => texts(data_type, chunks, place, options)?,
        },
        DataType::Text | DataType::Jsonb | DataType::Bytea => texts(data_type, chunks, place, options)?,
        _ => match integers_of(data_type, chunks) {
            Some(values) => {
                let mut writer = Writer::default();
                writer.section(integers::encode(&values));
                with_dictionary(Choice::of(Encoding::Integers, writer), 3)?
            }
            None => with_dictionary(Choice::of(Encoding::Fixed, fixed::encode(data_type, chunks)?), 16)?,
        },
    })
}

fn texts(data_type: &DataType, chunks: &[ArrayRef], place: Place, options: &EncodeOptions) -> Result<Choice> {
    let by_lz4 = options.compression.codec() == Some(Codec::Lz4);
    if place == Place::Dictionary {
        let encoding = if by_lz4 { Encoding::Lz4Strings } else { Encoding::Strings };
        return Ok(Choice::of(encoding, strings::encode(data_type, chunks, options)?));
    }
    let (mut bytes, mut rows) = (0usize, 0usize);
    strings::for_each_bytes(data_type, chunks, |value| {
        bytes += value.map_or(0, <[u8]>::len);
        rows += 1;
    });
    // Ends take about a byte and a half per row.
    let blocks = (bytes as f64 * blocks::sampled_ratio(data_type, chunks, options)?) as usize + rows * 3 / 2;
    // A dictionary may take somewhat more than blocks: it is read far faster. Not where somebody said how the texts are to be kept.
    let slack = if options.compression.is_default() { blocks / 4 } else { 0 };
    let budget = Budget { bytes: blocks + slack + 64, key_bytes: 2 };
    match by_dictionary(data_type, chunks, budget, options)? {
        Some(choice) => Ok(choice),
        None => {
            let encoding = if by_lz4 { Encoding::Lz4Blocks } else { Encoding::Blocks };
            Ok(Choice::of(encoding, blocks::encode(data_type, chunks, options)?))
        }
    }
}
