//! How the values of one column of a sealed segment are kept, and how they are read.
//!
//! [`encode_column`] tries the encodings that fit the type, takes the one that promises the fewest bytes and returns its sections,
//! which the segment file stores as they are. [`ColumnReader`] opens those sections and answers for any run of rows:
//! the values ([`ColumnReader::decode`]), those of selected rows, or which rows pass a test.
//!
//! What always holds: every value comes back exactly, to the bit; the reader trusts no byte: whatever the sections hold, the worst
//! that happens is [`Error::Corrupt`](crate::Error::Corrupt). The bytes are described in `storage/README.md`, "Column encodings".

mod blocks;
mod by_dictionary;
pub(crate) mod chunks;
pub(crate) mod codec;
mod computed;
mod encode;
mod fill;
mod fixed;
pub(crate) mod format;
pub(crate) mod integers;
mod list;
mod numbers;
mod ordered;
mod reader;
mod scaled;
mod select;
mod strings;
#[cfg(test)]
mod tests;
mod uuids;

pub use encode::{EncodeOptions, EncodedColumn, encode_column};
pub use format::SECTIONS_MAX;
pub use reader::ColumnReader;
pub(crate) use reader::Picked;
pub use select::ColumnTest;
pub(crate) use select::IdTest;

use crate::{Result, forward::format::corrupt};

/// How the values of a column are laid out; the byte of it on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Every row is null: no data.
    AllNull = 0,
    /// Fixed-width values, little-endian.
    Fixed = 1,
    /// One bit per boolean.
    Bits = 2,
    /// Texts or bytes one after the other, with their ends. Only inside dictionaries.
    Strings = 3,
    /// Lists: their ends, and all items as a column.
    List = 4,
    /// Distinct values and an id for each row, or for each run of rows.
    Dictionary = 5,
    /// Integers in packed blocks: frame of reference, slope or delta.
    Integers = 6,
    /// Floats as integers divided by a power of ten.
    Scaled = 7,
    /// Texts or bytes in compressed blocks.
    Blocks = 8,
    /// UUIDs as two columns of integers.
    Uuids = 9,
    /// Floats by their bits, as integers.
    Ordered = 10,
    /// As [`Self::Strings`], compressed by LZ4.
    Lz4Strings = 11,
    /// As [`Self::Blocks`], compressed by LZ4.
    Lz4Blocks = 12,
}

impl Encoding {
    pub(crate) fn of_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            0 => Self::AllNull,
            1 => Self::Fixed,
            2 => Self::Bits,
            3 => Self::Strings,
            4 => Self::List,
            5 => Self::Dictionary,
            6 => Self::Integers,
            7 => Self::Scaled,
            8 => Self::Blocks,
            9 => Self::Uuids,
            10 => Self::Ordered,
            11 => Self::Lz4Strings,
            12 => Self::Lz4Blocks,
            other => return Err(corrupt("column encoding", "one of 0 to 12", other)),
        })
    }

    /// One word, as `rt.segments` shows it behind how it is compressed.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllNull => "null",
            Self::Fixed => "plain",
            Self::Bits => "bits",
            Self::Strings | Self::Lz4Strings => "strings",
            Self::List => "list",
            Self::Dictionary => "dictionary",
            Self::Integers => "integers",
            Self::Scaled => "scaled",
            Self::Blocks | Self::Lz4Blocks => "blocks",
            Self::Uuids => "uuids",
            Self::Ordered => "ordered",
        }
    }
}
