//! Facts about exact numbers and their quotients: `div`, `scale`, `min_scale`, `trim_scale`, `bit_count`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array},
    datatypes::{DataType, Decimal128Type, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility::Immutable},
    scalar::ScalarValue,
};

use super::simple::{Call, Returns, Simple, any};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("div", any(2, Immutable), Returns::Type(DataType::Decimal128(38, 0)), quotients),
        Simple::udf("scale", any(1, Immutable), Returns::Type(DataType::Int32), |call| {
            let (values, scale) = exact(call, 0)?;
            let scales = values.iter().map(|value| value.map(|_| i32::from(scale)));
            Ok(Arc::new(scales.collect::<Int32Array>()))
        }),
        Simple::udf("min_scale", any(1, Immutable), Returns::Type(DataType::Int32), |call| {
            let (values, scale) = exact(call, 0)?;
            let scales = values.iter().map(|value| value.map(|value| least_scale(value, scale)));
            Ok(Arc::new(scales.collect::<Int32Array>()))
        }),
        // One scale for a column: of a constant it is the least, of other values it stays as it is.
        Simple::udf("trim_scale", any(1, Immutable), Returns::Field(trimmed_type), |call| {
            let (values, scale) = exact(call, 0)?;
            let DataType::Decimal128(precision, to) = *call.returns.data_type() else {
                return Err(DataFusionError::Internal("trim_scale gives a numeric".to_owned()));
            };
            let divisor = 10i128.pow(u32::from((scale - to).unsigned_abs()));
            let trimmed: Decimal128Array = values.unary(|value| value / divisor);
            Ok(Arc::new(trimmed.with_precision_and_scale(precision, to)?))
        }),
        Simple::udf("bit_count", any(1, Immutable), Returns::Type(DataType::Int64), |call| {
            let bytes = call.cast(0, &DataType::BinaryView)?;
            let counts = bytes
                .as_binary_view()
                .iter()
                .map(|bytes| bytes.map(|bytes| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum()));
            Ok(Arc::new(counts.collect::<Int64Array>()))
        }),
    ]
}

fn trimmed_type(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let scale = match (args.arg_fields[0].data_type(), args.scalar_arguments.first().copied().flatten()) {
        (_, Some(ScalarValue::Decimal128(Some(value), _, scale))) => least_scale(*value, *scale) as i8,
        (DataType::Decimal128(_, scale), _) => *scale,
        _ => 0,
    };
    Ok(Arc::new(Field::new("trimmed", DataType::Decimal128(38, scale), true)))
}

/// Argument `index` as unscaled integers, and their scale.
fn exact(call: &Call<'_>, index: usize) -> Result<(Decimal128Array, i8), DataFusionError> {
    let scale = match call.arrays[index].data_type() {
        DataType::Decimal128(_, scale) => *scale,
        DataType::Float32 | DataType::Float64 => {
            return Err(SqlError::new("42883", "no function of this name takes double precision")
                .with_hint("Cast the value to numeric.")
                .into());
        }
        _ => 0,
    };
    let values = call.cast(index, &DataType::Decimal128(38, scale))?;
    Ok((values.as_primitive::<Decimal128Type>().clone(), scale))
}

fn least_scale(value: i128, scale: i8) -> i32 {
    let (mut value, mut scale) = (value, i32::from(scale));
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    scale
}

/// Whole quotients, cut off towards zero.
fn quotients(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let ((left, left_scale), (right, right_scale)) = (exact(call, 0)?, exact(call, 1)?);
    let scale = left_scale.max(right_scale);
    let at = |value: i128, from: i8| {
        let factor = 10i128.checked_pow(u32::from((scale - from).unsigned_abs()))?;
        value.checked_mul(factor)
    };
    let rows = left.iter().zip(right.iter()).map(|(left, right)| match (left, right) {
        (Some(_), Some(0)) => Err(SqlError::division_by_zero()),
        (Some(left), Some(right)) => match (at(left, left_scale), at(right, right_scale)) {
            (Some(left), Some(right)) => Ok(Some(left / right)),
            _ => Err(SqlError::new("22003", "numeric field overflow")),
        },
        _ => Ok(None),
    });
    let quotients: Decimal128Array = rows.collect::<Result<_, SqlError>>()?;
    Ok(Arc::new(quotients.with_precision_and_scale(38, 0)?))
}
