//! What indexes are built from: a column of a sealed segment, or an array of a consuming one.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};

use super::{IndexKind, IndexSpec, bloom, geo, inverted, json, range, text};
use crate::{
    Error, Result,
    forward::{ColumnReader, Encoding},
};

/// Rows that are decoded at a time.
const STEP: u32 = 64 * 1024;

/// The values that an index is built from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(super) rows: u32,
    values: Values<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    Encoded(&'a ColumnReader),
    Array(&'a ArrayRef),
}

impl<'a> Source<'a> {
    pub(crate) fn encoded(rows: u32, column: &'a ColumnReader) -> Self {
        Self { rows, values: Values::Encoded(column) }
    }

    pub(crate) fn array(array: &'a ArrayRef) -> Self {
        Self { rows: array.len() as u32, values: Values::Array(array) }
    }

    pub(super) fn values_of(&self, rows: Range<u32>) -> Result<ArrayRef> {
        match self.values {
            Values::Encoded(column) => column.decode(rows),
            Values::Array(array) => Ok(array.slice(rows.start as usize, rows.len())),
        }
    }

    /// Calls `each` with the values of all rows, some at a time.
    pub(super) fn each_array(&self, mut each: impl FnMut(&ArrayRef) -> Result<()>) -> Result<()> {
        for rows in self.steps() {
            each(&self.values_of(rows)?)?;
        }
        Ok(())
    }

    pub(super) fn null_count(&self) -> u64 {
        match self.values {
            Values::Encoded(column) => column.null_count(),
            Values::Array(array) => array.null_count() as u64,
        }
    }

    /// The distinct values, where rows are kept as ids of these.
    pub(super) fn dictionary(&self) -> Result<Option<ArrayRef>> {
        match self.values {
            Values::Encoded(column) if column.encoding() == Encoding::Dictionary => column.dictionary(),
            _ => Ok(None),
        }
    }

    /// The dictionary id of each row, of a null one past the last, and how many there are; `None` without a dictionary.
    pub(super) fn ids(&self) -> Result<Option<(Vec<u32>, u32)>> {
        let (Some(values), Values::Encoded(column)) = (self.dictionary()?, self.values) else { return Ok(None) };
        let mut all = Vec::with_capacity(self.rows as usize);
        let mut some = Vec::new();
        for rows in self.steps() {
            column.ids(rows, &mut some)?;
            all.extend_from_slice(&some);
        }
        Ok(Some((all, values.len() as u32)))
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let rows = self.rows;
        (0..rows).step_by(STEP as usize).map(move |start| start..rows.min(start.saturating_add(STEP)))
    }
}

/// Builds an index that is neither a star-tree nor an order of rows: its sections. `second` is that of a second column, if it has one.
pub(crate) fn sections(source: &Source<'_>, second: Option<&Source<'_>>, spec: &IndexSpec) -> Result<Vec<Vec<u8>>> {
    match (&spec.kind, second) {
        (IndexKind::Inverted, _) => inverted::build(source),
        (IndexKind::Range, _) => range::build(source),
        (IndexKind::Bloom { fpp }, _) => bloom::build(source, *fpp),
        (IndexKind::Json | IndexKind::JsonPaths(_), _) => json::build(source, spec.kind.paths()),
        (IndexKind::Text, _) => text::build(source),
        (IndexKind::Geo, Some(lng)) => geo::build(source, lng),
        (IndexKind::Geo, None) => Err(Error::Invalid("an index of places has two columns".into())),
        (IndexKind::StarTree(_) | IndexKind::Sorted, _) => {
            Err(Error::Invalid(format!("an index of kind {} is not made of columns alone", spec.kind.name())))
        }
    }
}
