//! `num_nulls`, `num_nonnulls`, `quote_nullable`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ScalarUDF, Signature,
        Volatility::{Immutable, Stable},
    },
};

use super::{
    simple::{Call, Returns, Simple, any},
    text_output,
};

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let count = || Returns::Type(DataType::Int32);
    vec![
        Simple::udf("num_nulls", Signature::variadic_any(Immutable), count(), |call| counted(call, false)),
        Simple::udf("num_nonnulls", Signature::variadic_any(Immutable), count(), |call| counted(call, true)),
        Simple::udf("quote_nullable", any(1, Stable), Returns::Type(DataType::Utf8View), |call| {
            if *call.arrays[0].data_type() == DataType::Null {
                return Ok(Arc::new(StringViewArray::from(vec!["NULL"; call.rows])));
            }
            let texts = text_output::column(&call.arrays[0], call.zone()?)?;
            let quoted = texts.as_string_view().iter().map(|text| match text {
                Some(text) if text.contains('\\') => {
                    Some(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
                }
                Some(text) => Some(format!("'{}'", text.replace('\'', "''"))),
                None => Some("NULL".to_owned()),
            });
            Ok(Arc::new(quoted.collect::<StringViewArray>()))
        }),
    ]
}

fn counted(call: &Call<'_>, valid: bool) -> Result<ArrayRef, DataFusionError> {
    let nulls: Vec<_> = call.arrays.iter().map(|array| array.logical_nulls()).collect();
    let is_valid = |row: usize| {
        nulls.iter().zip(&call.arrays).filter(move |(nulls, array)| {
            *array.data_type() != DataType::Null && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
        })
    };
    let counts = (0..call.rows).map(|row| {
        let present = is_valid(row).count();
        Some(if valid { present as i32 } else { (call.arrays.len() - present) as i32 })
    });
    Ok(Arc::new(counts.collect::<Int32Array>()))
}
