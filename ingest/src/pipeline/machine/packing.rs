//! Rows of columns as bytes and back, so that single ones can be kept, found and taken out. These bytes live in memory only: files have columns.

use std::collections::HashMap;

use arrow::{
    array::ArrayRef,
    compute::{SortOptions, cast},
    datatypes::DataType as ArrowType,
    row::{RowConverter, Rows, SortField},
};
use datafusion::common::DataFusionError;

type Result<T> = std::result::Result<T, DataFusionError>;

/// What is found by a packed row, or by a number that stands for one. Hashes are quick, and others at each start, so that nobody can choose keys that collide.
pub(crate) type ByRow<V, K = Box<[u8]>> = HashMap<K, V, foldhash::fast::RandomState>;

/// For columns of certain types. Equal rows have equal bytes.
pub(crate) struct Packing {
    converter: RowConverter,
    types: Vec<ArrowType>,
}

/// Rows as bytes. Of no columns all rows are empty.
pub(crate) struct Packed(Option<Rows>);

impl Packed {
    pub(crate) fn row(&self, at: usize) -> &[u8] {
        match &self.0 {
            // The bytes outlive the row that names them.
            Some(rows) => rows.row(at).data(),
            None => &[],
        }
    }
}

impl Packing {
    pub(crate) fn new(types: Vec<ArrowType>) -> Result<Self> {
        Self::ordered(types.into_iter().map(|data_type| (data_type, SortOptions::default())).collect())
    }

    /// Bytes that are ordered as the options say.
    pub(crate) fn ordered(fields: Vec<(ArrowType, SortOptions)>) -> Result<Self> {
        let sorted = fields.iter().map(|(of, options)| SortField::new_with_options(of.clone(), *options));
        let converter = RowConverter::new(sorted.collect())?;
        Ok(Self { converter, types: fields.into_iter().map(|(data_type, _)| data_type).collect() })
    }

    pub(crate) fn pack(&self, columns: &[ArrayRef]) -> Result<Packed> {
        let fits = |(column, data_type): (&ArrayRef, &ArrowType)| column.data_type().equals_datatype(data_type);
        if columns.len() != self.types.len() || !columns.iter().zip(&self.types).all(fits) {
            return Err(super::foreign("columns of other types"));
        }
        match columns.is_empty() {
            true => Ok(Packed(None)),
            false => Ok(Packed(Some(self.converter.convert_columns(columns)?))),
        }
    }

    pub(crate) fn unpack<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.map(|row| parser.parse(row)))?;
        let restored = columns.into_iter().zip(&self.types).map(|(column, data_type)| {
            // What had a dictionary comes back without it.
            Ok(if column.data_type() == data_type { column } else { cast(&column, data_type)? })
        });
        restored.collect()
    }
}
