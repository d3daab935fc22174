//! Numbers beside the items of arrays: WITH ORDINALITY and `generate_subscripts`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Builder, Int64Builder, ListBuilder},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, Volatility},
};

use super::{ORDINALS, SUBSCRIPTS};
use crate::{
    SqlError,
    functions::simple::{Call, Returns, Simple, any_of},
};

/// As bigints.
pub(crate) fn ordinals_udf() -> Arc<ScalarUDF> {
    let returns = Returns::Type(DataType::new_list(DataType::Int64, true));
    Simple::udf(ORDINALS, Signature::variadic_any(Volatility::Immutable), returns, |call| {
        let mut out = ListBuilder::new(Int64Builder::new());
        for row in 0..call.rows {
            let lengths = call.arrays.iter().map(|array| length(array, row)).collect::<Result<Vec<_>, _>>()?;
            let longest = lengths.into_iter().flatten().max().unwrap_or(0);
            for ordinal in 1..=longest {
                out.values().append_value(ordinal as i64);
            }
            out.append(true);
        }
        Ok(Arc::new(out.finish()))
    })
}

/// Of the array's one dimension; of others there are none.
pub(crate) fn subscripts_udf() -> Arc<ScalarUDF> {
    let returns = Returns::Type(DataType::new_list(DataType::Int32, true));
    Simple::udf(SUBSCRIPTS, any_of(&[2, 3], Volatility::Immutable), returns, subscripts)
}

fn subscripts(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let dimensions = call.cast(1, &DataType::Int64)?;
    let dimensions = dimensions.as_primitive::<Int64Type>();
    let reverse = match call.arrays.len() {
        3 => Some(call.cast(2, &DataType::Boolean)?),
        _ => None,
    };
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..call.rows {
        let one = dimensions.is_valid(row) && dimensions.value(row) == 1;
        let count = if one { length(&call.arrays[0], row)?.unwrap_or(0) } else { 0 };
        let backwards = reverse.as_ref().is_some_and(|r| r.is_valid(row) && r.as_boolean().value(row));
        for index in 1..=count {
            let subscript = if backwards { count + 1 - index } else { index };
            out.values().append_value(i32::try_from(subscript).map_err(|_| SqlError::out_of_range("integer"))?);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// Items of the array in `row`, if there is an array.
fn length(array: &ArrayRef, row: usize) -> Result<Option<usize>, DataFusionError> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(match array.data_type() {
        DataType::Null => None,
        DataType::List(_) => Some(array.as_list::<i32>().value(row).len()),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row).len()),
        DataType::FixedSizeList(_, size) => usize::try_from(*size).ok(),
        _ => return Err(SqlError::new("42804", "an array is needed to number its items").into()),
    })
}
