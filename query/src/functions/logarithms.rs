//! `ln`, `log` and `log10`, which have no value at zero and below.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray},
    compute::binary,
    datatypes::{DataType, Float64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any, any_of};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let returns = || Returns::Type(DataType::Float64);
    vec![
        Simple::udf("ln", any(1, Immutable), returns(), |call| each(call, f64::ln)),
        Simple::udf("log10", any(1, Immutable), returns(), |call| each(call, f64::log10)),
        // Of ten, or of the first argument.
        Simple::udf("log", any_of(&[1, 2], Immutable), returns(), |call| {
            if call.arrays.len() == 1 {
                return each(call, f64::log10);
            }
            let (bases, values) = (call.cast(0, &DataType::Float64)?, call.cast(1, &DataType::Float64)?);
            let (bases, values) = (bases.as_primitive::<Float64Type>(), values.as_primitive::<Float64Type>());
            for value in bases.iter().chain(values.iter()).flatten() {
                positive(value)?;
            }
            if bases.iter().zip(values.iter()).any(|pair| matches!(pair, (Some(1.0), Some(_)))) {
                return Err(SqlError::division_by_zero().into());
            }
            let logarithms = binary::<_, _, _, Float64Type>(bases, values, |base, value| match base {
                2.0 => value.log2(),
                10.0 => value.log10(),
                other => value.ln() / other.ln(),
            })?;
            Ok(Arc::new(logarithms))
        }),
    ]
}

fn each(call: &Call<'_>, logarithm: impl Fn(f64) -> f64) -> Result<ArrayRef, DataFusionError> {
    let values = call.cast(0, &DataType::Float64)?;
    let of_positive = |value: f64| positive(value).map(&logarithm);
    Ok(Arc::new(values.as_primitive::<Float64Type>().try_unary::<_, Float64Type, SqlError>(of_positive)?))
}

fn positive(value: f64) -> Result<f64, SqlError> {
    if value == 0.0 {
        return Err(SqlError::new("2201E", "cannot take logarithm of zero"));
    }
    if value < 0.0 {
        return Err(SqlError::new("2201E", "cannot take logarithm of a negative number"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_numbers_have_logarithms() {
        assert_eq!(positive(2.0).unwrap(), 2.0);
        assert!(positive(f64::NAN).unwrap().is_nan());
        assert_eq!(positive(0.0).unwrap_err().sqlstate, "2201E");
        assert_eq!(positive(-1.0).unwrap_err().sqlstate, "2201E");
    }
}
