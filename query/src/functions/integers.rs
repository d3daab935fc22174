//! `gcd` and `lcm`, in the type that PostgreSQL gives them in, and `chr`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, StringViewArray},
    datatypes::{DataType, Decimal128Type, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any};
use crate::{SqlError, rules::types};

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("gcd", any(2, Immutable), Returns::Of(returned), |call| of_both(call, "gcd", gcd)),
        Simple::udf("lcm", any(2, Immutable), Returns::Of(returned), |call| of_both(call, "lcm", lcm)),
        Simple::udf("chr", any(1, Immutable), Returns::Type(DataType::Utf8View), |call| {
            let numbers = call.cast(0, &DataType::Int64)?;
            let characters = numbers.as_primitive::<Int64Type>().iter().map(|number| number.map(character).transpose());
            Ok(Arc::new(characters.collect::<Result<StringViewArray, SqlError>>()?))
        }),
    ]
}

/// bigint if one is, integer for smaller ones, and numeric where there is one.
fn returned(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    let scale = |data_type: &DataType| if let DataType::Decimal128(_, scale) = data_type { Some(*scale) } else { None };
    let whole =
        |data_type: &DataType| types::is_int(data_type) || types::is_text(data_type) || *data_type == DataType::Null;
    match arguments.iter().filter_map(scale).max() {
        Some(scale) => Ok(DataType::Decimal128(38, scale)),
        None if !arguments.iter().all(whole) => {
            Err(SqlError::new("42883", "function gcd and lcm take whole or exact numbers")
                .with_hint("Cast to bigint or numeric.")
                .into())
        }
        None if arguments.contains(&DataType::Int64) => Ok(DataType::Int64),
        None => Ok(DataType::Int32),
    }
}

fn of_both(call: &Call<'_>, name: &str, of: fn(i128, i128) -> Option<i128>) -> Result<ArrayRef, DataFusionError> {
    let returns = call.returns.data_type();
    let wide = if let DataType::Decimal128(_, scale) = returns { *scale } else { 0 };
    let wide = DataType::Decimal128(38, wide);
    let (left, right) = (call.cast(0, &wide)?, call.cast(1, &wide)?);
    let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
    let both = left.iter().zip(right).map(|(left, right)| match (left, right) {
        (Some(left), Some(right)) => of(left, right).map(Some).ok_or_else(|| SqlError::out_of_range("bigint")),
        _ => Ok(None),
    });
    let both = both.collect::<Result<Vec<_>, SqlError>>()?;
    let narrow = |value: &Option<i128>, type_name: &str| {
        value.map(|value| i64::try_from(value).map_err(|_| SqlError::out_of_range(type_name))).transpose()
    };
    Ok(match returns {
        DataType::Decimal128(precision, scale) => {
            Arc::new(both.into_iter().collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Int32 => {
            let values = both.iter().map(|value| match narrow(value, "integer")? {
                Some(value) => i32::try_from(value).map(Some).map_err(|_| SqlError::out_of_range("integer")),
                None => Ok(None),
            });
            Arc::new(values.collect::<Result<Int32Array, SqlError>>()?)
        }
        DataType::Int64 => {
            let values = both.iter().map(|value| narrow(value, "bigint"));
            Arc::new(values.collect::<Result<Int64Array, SqlError>>()?)
        }
        other => return Err(DataFusionError::Internal(format!("{name} gives no {other}"))),
    })
}

fn gcd(left: i128, right: i128) -> Option<i128> {
    let (mut a, mut b) = (left.checked_abs()?, right.checked_abs()?);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Some(a)
}

fn lcm(left: i128, right: i128) -> Option<i128> {
    match gcd(left, right)? {
        0 => Some(0),
        common => (left / common).checked_mul(right)?.checked_abs(),
    }
}

fn character(number: i64) -> Result<String, SqlError> {
    let refused = |message: String| SqlError::new("54000", message);
    match number {
        0 => Err(refused("null character not permitted".to_owned())),
        ..0 => Err(SqlError::invalid_parameter("character number must be positive")),
        0x11_0000.. => Err(refused(format!("requested character too large for encoding: {number}"))),
        _ => match u32::try_from(number).ok().and_then(char::from_u32) {
            Some(character) => Ok(character.to_string()),
            None => Err(refused(format!("requested character not valid for encoding: {number}"))),
        },
    }
}
