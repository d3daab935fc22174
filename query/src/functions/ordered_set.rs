//! Ordered-set aggregates over the sorted array of their values: `percentile_disc` and `mode`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, UInt64Array, new_null_array},
    buffer::OffsetBuffer,
    compute::{cast, take},
    datatypes::{DataType, Float64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
    scalar::ScalarValue,
};

use super::{
    floats,
    simple::{Call, Returns, Simple, any},
};
use crate::SqlError;

pub(crate) const PERCENTILE_DISC: &str = "tidemill_percentile_disc";
pub(crate) const MODE: &str = "tidemill_mode";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf(PERCENTILE_DISC, any(2, Immutable), Returns::Of(percentile_type), percentile_disc),
        Simple::udf(MODE, any(1, Immutable), Returns::Of(|arguments| item(&arguments[0])), mode),
    ]
}

fn item(list: &DataType) -> Result<DataType, DataFusionError> {
    match list {
        DataType::List(item) => Ok(item.data_type().clone()),
        other => Ok(other.clone()),
    }
}

/// One value for one fraction, an array for an array of them.
fn percentile_type(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    let item = item(&arguments[0])?;
    Ok(if matches!(arguments[1], DataType::List(_)) { DataType::new_list(item, true) } else { item })
}

/// The sorted values of each row.
fn lists<'a>(call: &'a Call<'_>) -> Result<Option<&'a ListArray>, DataFusionError> {
    match call.arrays[0].data_type() {
        DataType::List(_) => Ok(Some(call.arrays[0].as_list::<i32>())),
        DataType::Null => Ok(None),
        _ => Err(SqlError::datatype_mismatch("sorted values are an array").into()),
    }
}

/// The first value that stands at or behind `fraction` of all.
fn place(fraction: f64, values: usize) -> Result<Option<usize>, SqlError> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(SqlError::new("22003", format!("percentile value {fraction} is not between 0 and 1")));
    }
    let row = (fraction * values as f64).ceil() as usize;
    Ok((values > 0).then(|| row.max(1) - 1))
}

fn percentile_disc(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let Some(lists) = lists(call)? else { return Ok(new_null_array(call.returns.data_type(), call.rows)) };
    let many = match call.arrays[1].data_type() {
        DataType::List(_) => Some(call.arrays[1].as_list::<i32>()),
        _ => None,
    };
    let one = if many.is_none() { Some(call.cast(1, &DataType::Float64)?) } else { None };
    let mut places: Vec<Option<u64>> = Vec::new();
    let mut lengths = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let fractions: Vec<Option<f64>> = match (&many, &one) {
            (Some(many), _) if many.is_valid(row) => {
                cast(&many.value(row), &DataType::Float64)?.as_primitive::<Float64Type>().iter().collect()
            }
            (None, Some(one)) => {
                let one = one.as_primitive::<Float64Type>();
                vec![one.is_valid(row).then(|| one.value(row))]
            }
            _ => Vec::new(),
        };
        let start = lists.value_offsets()[row] as u64;
        let count = if lists.is_valid(row) { lists.value_length(row) as usize } else { 0 };
        for fraction in &fractions {
            let place = match fraction {
                Some(fraction) => place(*fraction, count)?,
                None => None,
            };
            places.push(place.map(|place| start + place as u64));
        }
        lengths.push(fractions.len());
    }
    let values = take(lists.values(), &UInt64Array::from(places), None)?;
    match call.returns.data_type() {
        DataType::List(item) if many.is_some() => {
            let offsets = OffsetBuffer::from_lengths(lengths);
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, lists.nulls().cloned())?))
        }
        _ => Ok(values),
    }
}

/// The value that stands there most often; of several the first.
fn mode(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let Some(lists) = lists(call)? else { return Ok(new_null_array(call.returns.data_type(), call.rows)) };
    let compared = floats::within(lists.values())?;
    let mut places: Vec<Option<u64>> = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if lists.is_null(row) || lists.value_length(row) == 0 {
            places.push(None);
            continue;
        }
        let values = compared.slice(lists.value_offsets()[row] as usize, lists.value_length(row) as usize);
        let (mut best, mut best_length) = (0, 0);
        let mut start = 0;
        let mut first = ScalarValue::try_from_array(&values, 0)?;
        for index in 1..=values.len() {
            let next = if index < values.len() { Some(ScalarValue::try_from_array(&values, index)?) } else { None };
            if next.as_ref() == Some(&first) {
                continue;
            }
            if index - start > best_length {
                (best, best_length) = (start, index - start);
            }
            start = index;
            if let Some(next) = next {
                first = next;
            }
        }
        places.push(Some(lists.value_offsets()[row] as u64 + best as u64));
    }
    Ok(take(lists.values(), &UInt64Array::from(places), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_is_there() {
        for (fraction, values, wanted) in [(0.0, 4, 0), (0.25, 4, 0), (0.26, 4, 1), (0.5, 5, 2), (1.0, 5, 4)] {
            assert_eq!(place(fraction, values).unwrap(), Some(wanted), "{fraction} of {values}");
        }
        assert_eq!(place(0.5, 0).unwrap(), None);
        assert_eq!(place(1.5, 3).unwrap_err().sqlstate, "22003");
    }
}
