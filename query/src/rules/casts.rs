//! Casts that Arrow does otherwise than PostgreSQL become our own: text in and out, rounding, time zones, uuid, jsonb, plain numeric.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::{
    common::{DFSchema, ScalarValue, tree_node::Transformed},
    config::ConfigOptions,
    error::DataFusionError,
    logical_expr::{
        Cast, ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, cast, expr::ScalarFunction,
    },
};
use tidemill_storage::schema::TYPE_KEY;

use super::types;
use crate::{SqlError, functions::cast::CastTo};

/// The SQL type that the field's metadata names.
pub(crate) fn marker(field: &Field) -> Option<&str> {
    field.metadata().get(TYPE_KEY).map(String::as_str)
}

/// Refuses casts that Arrow knows and PostgreSQL does not: between numbers and moments.
pub(crate) fn refuse(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::Cast(Cast { expr: operand, field: target }) = &expr else { return Ok(Transformed::no(expr)) };
    let Ok((_, source)) = operand.to_field(schema) else { return Ok(Transformed::no(expr)) };
    let is_moment = |data_type: &DataType| {
        matches!(data_type, DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_) | DataType::Interval(_))
    };
    let is_plain = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Boolean;
    let is_list = |data_type: &DataType| matches!(data_type, DataType::List(_));
    let (from, to) = (source.data_type(), target.data_type());
    let refused = is_moment(from) && is_plain(to)
        || is_plain(from) && is_moment(to)
        || is_list(from) && (is_plain(to) || is_moment(to))
        || is_list(to) && (is_plain(from) || is_moment(from));
    if refused {
        let (from, to) = (types::name(&source), types::name(target));
        return Err(SqlError::new("42846", format!("cannot cast type {from} to {to}")).into());
    }
    Ok(Transformed::no(expr))
}

/// Replaces one cast. What is left is what Arrow casts as PostgreSQL does.
pub(crate) fn convert(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::Cast(Cast { expr: operand, field: target }) = expr else { return Ok(Transformed::no(expr)) };
    let target = microseconds(target);
    let Ok((_, source)) = operand.to_field(schema) else {
        return Ok(Transformed::no(Expr::Cast(Cast { expr: operand, field: target })));
    };
    let (from, to) = (source.data_type().clone(), target.data_type().clone());
    let same_marker = marker(&source) == marker(&target);
    if matches!(to, DataType::Timestamp(..)) && from == to && same_marker {
        return Ok(Transformed::yes(*operand));
    }
    if matches!(operand.as_ref(), Expr::Placeholder(_)) && from == to && same_marker {
        return Ok(Transformed::yes(*operand));
    }
    if marker(&target) == Some("numeric") {
        let to = match (&from, operand.as_ref()) {
            (DataType::Decimal128(..), _) => return Ok(Transformed::yes(*operand)),
            (DataType::Int8 | DataType::Int16, _) => DataType::Decimal128(5, 0),
            (DataType::Int32, _) => DataType::Decimal128(10, 0),
            (DataType::Int64, _) => DataType::Decimal128(19, 0),
            (data_type, Expr::Literal(value, _)) if types::is_text(data_type) => literal_numeric(value),
            _ => types::NUMERIC,
        };
        let plain = cast(*operand, to);
        return Ok(Transformed::yes(convert(plain, schema)?.data));
    }
    let ours = match (&from, &to) {
        (DataType::Null, _) => false,
        _ if marker(&target).is_some() => {
            if same_marker {
                return Ok(Transformed::yes(*operand));
            }
            true
        }
        // Arrow's cast would leave the text known as what it was, and so compared as such.
        (a, b) if types::is_text(a) && types::is_text(b) => matches!(marker(&source), Some("jsonb" | "json" | "uuid")),
        // Texts in an array become what the array is to hold, one by one.
        (DataType::List(a), DataType::List(b)) => {
            marker(b).is_some() && marker(a) != marker(b) && types::is_text(a.data_type())
        }
        (a, b) if types::is_text(a) || types::is_text(b) => true,
        (a, b) if types::is_float(a) && types::is_int(b) => true,
        (a, b) if types::is_decimal(a) && types::is_int(b) => true,
        // Arrow's is off by a rounding.
        (DataType::Decimal128(..), DataType::Float32 | DataType::Float64) => true,
        (DataType::Timestamp(..), DataType::Date32 | DataType::Time64(_)) => true,
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (DataType::Timestamp(_, a), DataType::Timestamp(_, b)) => a.is_some() != b.is_some(),
        _ => false,
    };
    if !ours {
        return Ok(Transformed::no(Expr::Cast(Cast { expr: operand, field: target })));
    }
    let target = Arc::new(target.as_ref().clone().with_name("cast").with_nullable(true));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(CastTo::udf(target), vec![*operand]))))
}

/// DataFusion compares dates with timestamps in nanoseconds, which hold no more than the years from 1677 to 2262.
fn microseconds(target: FieldRef) -> FieldRef {
    match target.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            Arc::new(target.as_ref().clone().with_data_type(micros))
        }
        _ => target,
    }
}

/// Reads a quoted literal that is cast, so that one that is no value of its type is an error when the statement is planned.
pub(crate) fn check_literal(expr: &Expr, options: &Arc<ConfigOptions>) -> Result<(), DataFusionError> {
    let Expr::ScalarFunction(call) = expr else { return Ok(()) };
    let ([Expr::Literal(value, _)], true) = (call.args.as_slice(), call.func.inner().is::<CastTo>()) else {
        return Ok(());
    };
    if !types::is_text(&value.data_type()) {
        return Ok(());
    }
    let field: FieldRef = Arc::new(Field::new("", value.data_type(), true));
    let return_field = call.func.return_field_from_args(ReturnFieldArgs {
        arg_fields: std::slice::from_ref(&field),
        scalar_arguments: &[Some(value)],
    })?;
    call.func.invoke_with_args(ScalarFunctionArgs {
        args: vec![ColumnarValue::Scalar(value.clone())],
        arg_fields: vec![field],
        number_rows: 1,
        return_field,
        config_options: Arc::clone(options),
    })?;
    Ok(())
}

/// The numeric type that holds the literal's digits.
fn literal_numeric(value: &ScalarValue) -> DataType {
    let text = match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => text,
        _ => return types::NUMERIC,
    };
    let (digits, exponent) = text.trim().split_once(['e', 'E']).unwrap_or((text.trim(), "0"));
    let Ok(exponent) = exponent.parse::<i32>() else { return types::NUMERIC };
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = i32::try_from(fraction).unwrap_or(i32::MAX).saturating_sub(exponent).clamp(0, 37);
    DataType::Decimal128(38, scale as i8)
}
