//! How a value of one type becomes a value of a table's column, and which never do by themselves.
//!
//! Implicit is what keeps the value: widening, an integer into any integer type or NUMERIC that has room for it (a row whose value has no room is
//! refused), any number into DOUBLE, text into JSONB or UUID when it reads as one. What would round or cut (DOUBLE → INT, NUMERIC to fewer
//! decimals, TIMESTAMP → DATE) needs a CAST that says so.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType as ArrowType, Field},
    util::display::FormatOptions,
};
use tidemill_storage::schema::{Column, DataType};

use crate::{Error, Result, decode::parse_texts};

/// How to bring an array into a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    AsIs,
    /// A cast that fails where a value does not fit.
    Cast,
    /// Read from text.
    Parse,
}

/// The way from `from` to the column. `Definition`, worded as Postgres' 42804, where there is none.
pub(super) fn assign(from: &Field, column: &Column) -> Result<Assignment> {
    let to = &column.data_type;
    let wanted = to.arrow();
    let sql = DataType::of_field(from);
    if sql.as_ref() == Some(to) {
        return Ok(Assignment::AsIs);
    }
    if let (Some(DataType::Text), DataType::Jsonb | DataType::Uuid) = (&sql, to) {
        return Ok(Assignment::Parse);
    }
    if let (Some(DataType::Jsonb | DataType::Uuid), DataType::Text) = (&sql, to) {
        return Ok(Assignment::AsIs);
    }
    let is_marked_text = matches!(sql, Some(DataType::Jsonb | DataType::Uuid));
    if !is_marked_text && fits(from.data_type(), to) {
        return Ok(if from.data_type() == &wanted { Assignment::AsIs } else { Assignment::Cast });
    }
    let found = sql.map_or_else(|| from.data_type().to_string(), |sql| sql.to_string());
    Err(Error::Definition {
        message: format!("column \"{}\" is of type {to} but expression is of type {found}", column.name),
        hint: Some("you will need to rewrite or cast the expression".into()),
    })
}

fn fits(from: &ArrowType, to: &DataType) -> bool {
    use ArrowType as A;
    use DataType as D;
    let is_integer = from.is_integer();
    match (from, to) {
        (A::Null, _) => true,
        (A::Dictionary(_, values), to) => fits(values, to),
        (_, D::SmallInt | D::Int | D::BigInt) => is_integer,
        (A::Float16 | A::Float32, D::Real) => true,
        (A::Float16 | A::Float32 | A::Float64 | A::Decimal128(..) | A::Decimal256(..), D::Double) => true,
        (_, D::Double) if is_integer => true,
        (
            A::Decimal32(_, s) | A::Decimal64(_, s) | A::Decimal128(_, s) | A::Decimal256(_, s),
            D::Numeric { scale, .. },
        ) => scale >= s,
        (_, D::Numeric { .. }) => is_integer,
        (A::Utf8 | A::LargeUtf8 | A::Utf8View, D::Text) => true,
        (A::Binary | A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_), D::Bytea) => true,
        (A::Date32, D::Date | D::Timestamp | D::TimestampTz) => true,
        (A::Timestamp(..), D::Timestamp | D::TimestampTz) => true,
        (A::Boolean, D::Boolean) => true,
        (A::List(item) | A::LargeList(item) | A::ListView(item) | A::FixedSizeList(item, _), D::Array(to)) => {
            fits(item.data_type(), to) && !matches!(**to, D::Jsonb | D::Uuid)
                || DataType::of_field(item).as_ref() == Some(to)
        }
        _ => false,
    }
}

impl Assignment {
    /// The array in the column's type, or what is wrong with one of its values.
    pub(super) fn apply(self, array: &ArrayRef, column: &Column) -> Result<ArrayRef, String> {
        match self {
            Self::AsIs => Ok(Arc::clone(array)),
            Self::Cast => cast_checked(array, &column.data_type.arrow())
                .map_err(|reason| format!("column \"{}\" ({}): {reason}", column.name, column.data_type)),
            Self::Parse => {
                let texts = cast_checked(array, &ArrowType::Utf8View)?;
                parse_texts(&column.name, &column.data_type, texts.as_string_view().iter())
            }
        }
    }
}

/// A cast that fails instead of giving NULL.
pub(super) fn cast_checked(array: &ArrayRef, to: &ArrowType) -> Result<ArrayRef, String> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(array, to, &options).map_err(|error| match error {
        arrow::error::ArrowError::CastError(text) | arrow::error::ArrowError::InvalidArgumentError(text) => text,
        other => other.to_string(),
    })
}
