//! `array_fill`, `trim_array`, `array_dims`, and subscripts.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StringViewArray, UInt64Array},
    buffer::{NullBuffer, OffsetBuffer},
    compute::take,
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any};
use crate::SqlError;

/// Items of one filled array.
const ITEMS_MAX: i64 = 10_000_000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf(
            "array_fill",
            any(2, Immutable),
            Returns::Of(|arguments| Ok(DataType::new_list(arguments[0].clone(), true))),
            fill,
        ),
        Simple::udf("array_dims", any(1, Immutable), Returns::Type(DataType::Utf8View), |call| {
            let DataType::List(_) = call.arrays[0].data_type() else {
                return Err(SqlError::new("42883", "function array_dims of this type does not exist").into());
            };
            let lists = call.arrays[0].as_list::<i32>();
            let length = |row| if lists.is_valid(row) { lists.value_length(row) } else { 0 };
            let rows = (0..call.rows).map(|row| (length(row) > 0).then(|| format!("[1:{}]", length(row))));
            Ok(Arc::new(rows.collect::<StringViewArray>()))
        }),
        Simple::udf("array_length", any(2, Immutable), Returns::Type(DataType::Int32), lengths),
        Simple::udf("trim_array", any(2, Immutable), Returns::Of(|arguments| Ok(arguments[0].clone())), trim),
        subscript_udf(),
    ]
}

/// A subscript for functions that count from the end where it is negative: there is nothing before the first item.
pub(crate) fn subscript_udf() -> Arc<ScalarUDF> {
    Simple::udf("tidemill_subscript", any(1, Immutable), Returns::Type(DataType::Int64), |call| {
        let subscripts = call.cast(0, &DataType::Int64)?;
        let subscripts = subscripts.as_primitive::<Int64Type>().iter().map(|subscript| match subscript {
            Some(subscript) if i32::try_from(subscript).is_err() => Err(SqlError::out_of_range("integer")),
            subscript => Ok(subscript.map(|subscript| subscript.max(0))),
        });
        Ok(Arc::new(subscripts.collect::<Result<Int64Array, SqlError>>()?))
    })
}

/// `array_length(array, dimension)`: an empty array has no dimensions.
fn lengths(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let dimensions = call.cast(1, &DataType::Int64)?;
    let dimensions = dimensions.as_primitive::<Int64Type>();
    if !matches!(call.arrays[0].data_type(), DataType::List(_) | DataType::Null) {
        return Err(SqlError::new("42883", "function array_length of this type does not exist").into());
    }
    let length = |row: usize| {
        let (mut array, mut row, mut dimension) = (Arc::clone(&call.arrays[0]), row, dimensions.value(row));
        loop {
            let items = array.as_list_opt::<i32>().filter(|lists| lists.is_valid(row))?.value(row);
            match dimension {
                _ if items.is_empty() => return None,
                1 => return i32::try_from(items.len()).ok(),
                ..1 => return None,
                _ => (array, row, dimension) = (items, 0, dimension - 1),
            }
        }
    };
    let rows = (0..call.rows).map(|row| if dimensions.is_valid(row) { length(row) } else { None });
    Ok(Arc::new(rows.collect::<Int32Array>()))
}

/// `array_fill(value, ARRAY[length])`.
fn fill(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let DataType::List(item) = call.returns.data_type() else {
        return Err(DataFusionError::Internal("array_fill gives an array".to_owned()));
    };
    let lengths = call.cast(1, &DataType::new_list(DataType::Int64, true))?;
    let lengths = lengths.as_list::<i32>();
    let (mut places, mut sizes, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..call.rows {
        if lengths.is_null(row) {
            return Err(SqlError::new("22004", "dimension array or low bound array cannot be null").into());
        }
        let dimensions = lengths.value(row);
        if dimensions.len() != 1 || dimensions.is_null(0) {
            return Err(SqlError::not_supported("an array of more than one dimension").into());
        }
        let length = dimensions.as_primitive::<Int64Type>().value(0);
        if !(0..=ITEMS_MAX).contains(&length) || places.len() as i64 + length > ITEMS_MAX {
            return Err(SqlError::new("54000", format!("array size exceeds the maximum allowed ({ITEMS_MAX})")).into());
        }
        let size = usize::try_from(length).unwrap_or(0);
        places.extend(std::iter::repeat_n(row as u64, size));
        sizes.push(size);
        valid.push(true);
    }
    let values = take(&call.arrays[0], &UInt64Array::from(places), None)?;
    let offsets = OffsetBuffer::from_lengths(sizes);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, Some(NullBuffer::from(valid)))?))
}

/// Without the last `n` items.
fn trim(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let DataType::List(item) = call.arrays[0].data_type() else {
        return Err(SqlError::new("42883", "function trim_array of these types does not exist").into());
    };
    let lists = call.arrays[0].as_list::<i32>();
    let counts = call.cast(1, &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    let (mut places, mut sizes, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..call.rows {
        let is_valid = lists.is_valid(row) && counts.is_valid(row);
        let length = if is_valid { i64::from(lists.value_length(row)) } else { 0 };
        let count = if is_valid { counts.value(row) } else { 0 };
        if !(0..=length).contains(&count) {
            let message = format!("number of elements to trim must be between 0 and {length}");
            return Err(SqlError::new("2202E", message).into());
        }
        let start = i64::from(lists.value_offsets()[row]);
        places.extend((start..start + length - count).map(|place| place as u64));
        sizes.push(usize::try_from(length - count).unwrap_or(0));
        valid.push(is_valid);
    }
    let values = take(lists.values(), &UInt64Array::from(places), None)?;
    let offsets = OffsetBuffer::from_lengths(sizes);
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, Some(NullBuffer::from(valid)))?))
}
