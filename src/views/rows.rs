//! Rows of a view, and the Arrow batch that they become.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryViewBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringViewBuilder,
        TimestampMicrosecondBuilder,
    },
    datatypes::{Schema, SchemaRef},
};
use tidemill_query::SqlError;
use tidemill_storage::schema::{DataType, UTC};

/// What a column of a view holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Boolean,
    /// Microseconds since 1970, shown as TIMESTAMPTZ.
    Time,
    Bytes,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
    Boolean(bool),
    Time(i64),
    Bytes(bytes::Bytes),
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

pub(super) fn schema(columns: &[(&str, Kind)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| {
        let data_type = match kind {
            Kind::Text => DataType::Text,
            Kind::Int => DataType::BigInt,
            Kind::Float => DataType::Double,
            Kind::Boolean => DataType::Boolean,
            Kind::Time => DataType::TimestampTz,
            Kind::Bytes => DataType::Bytea,
        };
        data_type.field(name, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn batch(columns: &[(&str, Kind)], rows: Vec<Vec<Cell>>) -> Result<RecordBatch, SqlError> {
    let misfit = |column: &str, cell: &Cell| {
        SqlError::internal(format!("column \"{column}\" of a system view cannot hold {cell:?}"))
    };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (index, (name, kind)) in columns.iter().enumerate() {
        macro_rules! collect {
            ($builder:expr, $($variant:pat => $value:expr),+) => {{
                let mut builder = $builder;
                for row in &rows {
                    match row.get(index) {
                        None | Some(Cell::Null) => builder.append_null(),
                        $(Some($variant) => builder.append_value($value),)+
                        Some(other) => return Err(misfit(name, other)),
                    }
                }
                Arc::new(builder.finish()) as ArrayRef
            }};
        }
        arrays.push(match kind {
            Kind::Text => collect!(StringViewBuilder::new(), Cell::Text(text) => text),
            Kind::Int => collect!(Int64Builder::new(), Cell::Int(value) => *value),
            Kind::Float => {
                collect!(Float64Builder::new(), Cell::Float(value) => *value, Cell::Int(value) => *value as f64)
            }
            Kind::Boolean => collect!(BooleanBuilder::new(), Cell::Boolean(value) => *value),
            Kind::Time => collect!(
                TimestampMicrosecondBuilder::new().with_timezone(UTC),
                Cell::Time(value) => *value,
                Cell::Int(value) => *value
            ),
            Kind::Bytes => collect!(BinaryViewBuilder::new(), Cell::Bytes(bytes) => bytes),
        });
    }
    Ok(RecordBatch::try_new(schema(columns), arrays)?)
}
