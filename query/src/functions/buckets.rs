//! `width_bucket`: the number of the bucket that a value falls into.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any_of};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf("width_bucket", any_of(&[2, 4], Immutable), Returns::Type(DataType::Int32), |call| {
        if call.arrays.len() == 2 { among_thresholds(call) } else { of_equal_width(call) }
    })]
}

fn of_equal_width(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let number = |index| -> Result<_, DataFusionError> {
        Ok(call.cast(index, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
    };
    let (values, lows, highs) = (number(0)?, number(1)?, number(2)?);
    let counts = call.cast(3, &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    let rows = (0..call.rows).map(|row| {
        if values.is_null(row) || lows.is_null(row) || highs.is_null(row) || counts.is_null(row) {
            return Ok(None);
        }
        bucket(values.value(row), lows.value(row), highs.value(row), counts.value(row)).map(Some)
    });
    Ok(Arc::new(rows.collect::<Result<Int32Array, SqlError>>()?))
}

/// 0 below the range, `count` + 1 from its end on. The range may run downwards.
fn bucket(value: f64, low: f64, high: f64, count: i64) -> Result<i32, SqlError> {
    let refused = |message: &str| SqlError::new("2201G", message);
    let count = i32::try_from(count).ok().filter(|count| *count > 0);
    let count = count.ok_or_else(|| refused("count must be greater than zero"))?;
    if value.is_nan() || low.is_nan() || high.is_nan() {
        return Err(refused("operand, lower bound, and upper bound cannot be NaN"));
    }
    if low.is_infinite() || high.is_infinite() {
        return Err(refused("lower and upper bounds must be finite"));
    }
    if low == high {
        return Err(refused("lower bound cannot equal upper bound"));
    }
    let (before, behind) = if low < high { (value < low, value >= high) } else { (value > low, value <= high) };
    if before {
        return Ok(0);
    }
    if behind {
        return count.checked_add(1).ok_or_else(|| SqlError::out_of_range("integer"));
    }
    let share = (value - low) / (high - low);
    Ok(((share * f64::from(count)).floor() as i32).min(count - 1) + 1)
}

/// How many of the sorted thresholds are at or below the value.
fn among_thresholds(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let DataType::List(item) = call.arrays[1].data_type() else {
        return Err(SqlError::new("42883", "function width_bucket of these types does not exist").into());
    };
    let lists = call.arrays[1].as_list::<i32>();
    // Whole numbers beside fractions are compared as fractions.
    let target = match (call.arrays[0].data_type(), item.data_type()) {
        (value, item) if value == item => item.clone(),
        (value, item) if value.is_numeric() && item.is_numeric() => DataType::Float64,
        (_, item) => item.clone(),
    };
    let values = call.cast(0, &target)?;
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if values.is_null(row) || lists.is_null(row) {
            out.push(None);
            continue;
        }
        let thresholds = cast(&lists.value(row), &target)?;
        if thresholds.null_count() > 0 {
            return Err(SqlError::new("22004", "thresholds array must not contain NULLs").into());
        }
        let value = ScalarValue::try_from_array(&values, row)?;
        let mut below = 0;
        for index in 0..thresholds.len() {
            let threshold = ScalarValue::try_from_array(&thresholds, index)?;
            below += i32::from(threshold.partial_cmp(&value).is_some_and(std::cmp::Ordering::is_le));
        }
        out.push(Some(below));
    }
    Ok(Arc::new(out.into_iter().collect::<Int32Array>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_as_postgresql_15_counts_them() {
        for (value, low, high, count, wanted) in [
            (5.35, 0.024, 10.06, 5, 3),
            (5.0, 0.0, 10.0, 5, 3),
            (-1.0, 0.0, 10.0, 5, 0),
            (10.0, 0.0, 10.0, 5, 6),
            (10.0, 10.0, 0.0, 5, 1),
            (0.0, 10.0, 0.0, 5, 6),
            (11.0, 10.0, 0.0, 5, 0),
        ] {
            assert_eq!(bucket(value, low, high, count).unwrap(), wanted, "{value} {low} {high}");
        }
        assert!(bucket(1.0, 0.0, 0.0, 5).is_err());
        assert!(bucket(1.0, 0.0, 1.0, 0).is_err());
    }
}
