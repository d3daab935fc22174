//! Values of a run of rows as plain numbers, for aggregation: into buffers that are used again and again.

use std::ops::Range;

use super::{ColumnReader, Encoding, format::corrupt, reader::Values};
use crate::{
    Error, Result,
    bitpack::{Bitmask, lanes},
};

impl ColumnReader {
    /// How the values are laid out, whatever compressed them.
    pub(crate) fn encoding(&self) -> Encoding {
        match self.values() {
            Values::AllNull => Encoding::AllNull,
            Values::Dictionary(_) => Encoding::Dictionary,
            Values::Integers(_) => Encoding::Integers,
            Values::Scaled(_) => Encoding::Scaled,
            Values::Ordered(_) => Encoding::Ordered,
            Values::Blocks(_) => Encoding::Blocks,
            Values::Uuids(_) => Encoding::Uuids,
            Values::Fixed(_) => Encoding::Fixed,
            Values::Bits(_) => Encoding::Bits,
            Values::Strings(_) => Encoding::Strings,
            Values::List(_) => Encoding::List,
        }
    }

    /// The dictionary ids of those rows that `selection` (one bit per row of the range) holds; those of null rows mean nothing. An error
    /// when the column has no dictionary.
    pub(crate) fn fill_ids(&self, rows: Range<u32>, selection: Option<&Bitmask>, out: &mut Vec<u32>) -> Result<()> {
        let rows = self.check(rows)?;
        let Values::Dictionary(dictionary) = self.values() else { return Err(self.has_no("dictionary")) };
        match selection {
            None => dictionary.ids().read(rows, out)?,
            Some(selection) => dictionary.ids().gather_into(rows, selection, out)?,
        }
        let largest = lanes::largest(out);
        if largest >= dictionary.len() && !out.is_empty() {
            return Err(corrupt("ids", format!("below {}", dictionary.len()), largest));
        }
        Ok(())
    }

    /// As [`Self::fill_ids`], for a column kept as integers.
    pub(crate) fn fill_integers(
        &self,
        rows: Range<u32>,
        selection: Option<&Bitmask>,
        out: &mut Vec<i64>,
    ) -> Result<()> {
        let rows = self.check(rows)?;
        let Values::Integers(integers) = self.values() else { return Err(self.has_no("integers")) };
        match selection {
            None => integers.fill_as_they_are(rows, out),
            Some(selection) => integers.gather_into(rows, selection, out),
        }
    }

    /// As [`Self::fill_ids`], for a column kept as scaled floats.
    pub(crate) fn fill_floats(&self, rows: Range<u32>, selection: Option<&Bitmask>, out: &mut Vec<f64>) -> Result<()> {
        let rows = self.check(rows)?;
        let Values::Scaled(floats) = self.values() else { return Err(self.has_no("scaled floats")) };
        floats.fill(rows, selection, out)
    }

    fn has_no(&self, what: &str) -> Error {
        Error::Invalid(format!("a column kept as {} has no {what}", self.encoding_name()))
    }
}
