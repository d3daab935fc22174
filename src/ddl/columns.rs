//! From parsed columns to schemas: names once, defaults as values.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};
use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value};
use tidemill_storage::{
    evaluate::scalar_array,
    ids::ColumnId,
    scalar::Scalar,
    schema::{Column, Compression, DataType},
};

use crate::{
    session::error::{Result, SqlError, state},
    sql::ast::{ColumnDefinition, Name},
};

/// 42701 at the second column of a name.
pub(super) fn check_names<'a>(names: impl IntoIterator<Item = &'a Name>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(&name.value) {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", name.value),
            )
            .at(name.position));
        }
    }
    Ok(())
}

/// The columns of a PRIMARY KEY are those of the object, each once.
pub(super) fn check_key_names(key: &[Name], columns: &[ColumnDefinition]) -> Result<()> {
    for name in key {
        if !columns.iter().any(|column| column.name.value == name.value) {
            return Err(SqlError::new(
                state::UNDEFINED_COLUMN,
                format!("column \"{}\" named in key does not exist", name.value),
            )
            .at(name.position));
        }
    }
    check_names(key)
}

/// A column of a table.
pub(super) fn table_column(id: ColumnId, column: &ColumnDefinition) -> Result<Column> {
    if column.path.is_some() || column.epoch.is_some() {
        return Err(SqlError::unsupported("PATH and EPOCH belong to the columns of a source")
            .at(column.name.position)
            .with_hint("say them in CREATE SOURCE; the table takes the source's columns by name"));
    }
    let default = match &column.default {
        Some(expression) => {
            default_value(expression, &column.data_type).map_err(|error| error.at(column.name.position))?
        }
        None => None,
    };
    let compression = column.compression.unwrap_or_default();
    check_compression(&column.name, &column.data_type, compression)?;
    Ok(Column {
        compression,
        merge: column.merge.map(|(merge, _)| merge).unwrap_or_default(),
        nullable: !column.not_null,
        default,
        ..Column::new(id, column.name.value.clone(), column.data_type.clone())
    })
}

/// Columns of some types have nothing to compress.
pub(super) fn check_compression(name: &Name, data_type: &DataType, compression: Compression) -> Result<()> {
    if compression.is_default() || data_type.is_compressible() {
        return Ok(());
    }
    let message = format!("column data type {data_type} does not support compression");
    Err(SqlError::unsupported(message).at(name.position))
}

/// The value of a constant expression; `None` is NULL.
fn default_value(expression: &Expr, data_type: &DataType) -> Result<Option<Scalar>> {
    match literal(expression)? {
        None => Ok(None),
        Some(text) => parse(&text, data_type).map(Some),
    }
}

/// The text of a literal; `None` is NULL.
fn literal(expression: &Expr) -> Result<Option<String>> {
    Ok(Some(match expression {
        Expr::Nested(inner) => return literal(inner),
        Expr::Cast { expr, .. } => return literal(expr),
        Expr::Value(value) => match &value.value {
            Value::Null => return Ok(None),
            Value::Number(number, _) => number.clone(),
            Value::Boolean(value) => value.to_string(),
            value => match value.clone().into_string() {
                Some(text) => text,
                None => return Err(not_constant()),
            },
        },
        Expr::TypedString(typed) => match typed.value.value.clone().into_string() {
            Some(text) => text,
            None => return Err(not_constant()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            Some(number) if !number.starts_with('-') => format!("-{number}"),
            _ => return Err(not_constant()),
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => return literal(expr),
        _ => return Err(not_constant()),
    }))
}

fn not_constant() -> SqlError {
    SqlError::unsupported("DEFAULT must be a constant")
        .with_hint("write a literal such as 0, 'x', true or DATE '2026-01-01'; derive values with AS SELECT")
}

/// A value from its text, by the type's rules; nothing is rounded or cut.
fn parse(text: &str, data_type: &DataType) -> Result<Scalar> {
    let wrong = || {
        SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("invalid default for type {data_type}: \"{text}\""))
    };
    match data_type {
        DataType::Text => Ok(Scalar::Text(text.into())),
        DataType::Jsonb => Ok(Scalar::Text(tidemill_query::canonical_json(text).map_err(|_| wrong())?.into())),
        DataType::Uuid => Ok(Scalar::Text(uuid::Uuid::try_parse(text).map_err(|_| wrong())?.to_string().into())),
        DataType::Bytea => {
            let Some(hex) = text.strip_prefix("\\x") else { return Ok(Scalar::Bytes(text.as_bytes().into())) };
            let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or_else(wrong);
            let pairs = hex.as_bytes().chunks(2);
            pairs
                .map(|pair| match pair {
                    [high, low] => Ok(digit(*high)? << 4 | digit(*low)?),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<_>>>()
                .map(|bytes| Scalar::Bytes(bytes.into()))
        }
        DataType::Array(_) => Err(SqlError::unsupported("a default of an array is not supported")),
        DataType::Boolean => match text.to_lowercase().as_str() {
            "true" | "t" | "yes" | "on" | "1" => Ok(Scalar::Boolean(true)),
            "false" | "f" | "no" | "off" | "0" => Ok(Scalar::Boolean(false)),
            _ => Err(wrong()),
        },
        DataType::Numeric { scale, .. } => {
            // Arrow rounds digits that do not fit; a default that is not what was written is refused.
            let digits = text.split_once('.').map_or("", |(_, digits)| digits).trim_end_matches('0');
            if digits.len() > *scale as usize || digits.contains(['e', 'E']) {
                return Err(wrong());
            }
            convert(&(Arc::new(StringArray::from(vec![text])) as ArrayRef), data_type).map_err(|_| wrong())
        }
        _ => convert(&(Arc::new(StringArray::from(vec![text])) as ArrayRef), data_type).map_err(|_| wrong()),
    }
}

/// A default under a column's new type.
pub(super) fn widen(value: &Scalar, from: &DataType, to: &DataType) -> Result<Scalar> {
    convert(&scalar_array(value, from).map_err(|error| SqlError::internal(error.to_string()))?, to)
}

/// The one value of an array, cast to a type.
fn convert(one: &ArrayRef, data_type: &DataType) -> Result<Scalar> {
    let failed = |error: &dyn std::fmt::Display| SqlError::new(state::INVALID_TEXT_REPRESENTATION, error.to_string());
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let array = cast_with_options(one, &data_type.arrow(), &options).map_err(|error| failed(&error))?;
    if array.len() != 1 || array.is_null(0) {
        return Err(failed(&"not a value"));
    }
    Ok(match array.data_type() {
        ArrowType::Boolean => Scalar::Boolean(array.as_boolean().value(0)),
        ArrowType::Int16 => Scalar::Int(array.as_primitive::<Int16Type>().value(0).into()),
        ArrowType::Int32 => Scalar::Int(array.as_primitive::<Int32Type>().value(0).into()),
        ArrowType::Int64 => Scalar::Int(array.as_primitive::<Int64Type>().value(0)),
        ArrowType::Date32 => Scalar::Int(array.as_primitive::<Date32Type>().value(0).into()),
        ArrowType::Timestamp(..) => Scalar::Int(array.as_primitive::<TimestampMicrosecondType>().value(0)),
        ArrowType::Float32 => Scalar::Float(array.as_primitive::<Float32Type>().value(0).into()),
        ArrowType::Float64 => Scalar::Float(array.as_primitive::<Float64Type>().value(0)),
        ArrowType::Decimal128(..) => Scalar::Decimal(array.as_primitive::<Decimal128Type>().value(0)),
        ArrowType::Utf8View => Scalar::Text(array.as_string_view().value(0).into()),
        ArrowType::BinaryView => Scalar::Bytes(array.as_binary_view().value(0).into()),
        other => return Err(failed(&format!("a constant of {other} is not supported"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_exact_or_refused() {
        let numeric = DataType::Numeric { precision: 6, scale: 2 };
        for (text, data_type, value) in [
            ("7", DataType::SmallInt, Scalar::Int(7)),
            ("-2.5", DataType::Double, Scalar::Float(-2.5)),
            ("12.30", numeric.clone(), Scalar::Decimal(1230)),
            ("t", DataType::Boolean, Scalar::Boolean(true)),
            ("1970-01-02", DataType::Date, Scalar::Int(1)),
            ("1970-01-01T00:00:01Z", DataType::TimestampTz, Scalar::Int(1_000_000)),
            ("\\x00ff", DataType::Bytea, Scalar::Bytes([0, 255].into())),
            ("{\"a\": 1}", DataType::Jsonb, Scalar::Text("{\"a\": 1}".into())),
        ] {
            assert_eq!(parse(text, &data_type).unwrap(), value, "{text} as {data_type}");
        }
        for (text, data_type) in [
            ("70000", DataType::SmallInt),
            ("1.5", DataType::Int),
            ("1.234", numeric.clone()),
            ("99999999", numeric),
            ("x", DataType::Uuid),
            ("\\x0", DataType::Bytea),
            ("yesterday", DataType::TimestampTz),
            ("{", DataType::Jsonb),
        ] {
            assert!(parse(text, &data_type).is_err(), "{text} as {data_type}");
        }
        assert_eq!(
            widen(&Scalar::Int(5), &DataType::Int, &DataType::Numeric { precision: 12, scale: 2 }).unwrap(),
            Scalar::Decimal(500)
        );
        assert_eq!(widen(&Scalar::Int(1), &DataType::Date, &DataType::Timestamp).unwrap(), Scalar::Int(86_400_000_000));
    }
}
