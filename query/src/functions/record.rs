//! Whole rows of a relation as text, and the one value of a subquery.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray, UInt64Array, new_null_array},
    compute::take,
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Signature, TypeSignature, Volatility},
};

use super::{
    simple::{Call, Returns, Simple, any},
    text::outputs,
};
use crate::SqlError;

/// Names and values one after the other, as PostgreSQL prints a row: `(1,"a b",)`.
pub(crate) const ROW_TEXT: &str = "tidemill_row_text";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let many = Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Volatility::Stable);
    vec![Simple::udf(ROW_TEXT, many, Returns::Type(DataType::Utf8View), row_text), only_udf()]
}

/// A row without any value is NULL: outer joins make such where a side is missing.
fn row_text(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let columns = outputs(call, 0)?;
    let rows = (0..call.rows).map(|row| {
        let values = || columns.iter().skip(1).step_by(2);
        if values().all(|values| values.is_null(row)) {
            return None;
        }
        let parts: Vec<String> = values()
            .map(|values| if values.is_null(row) { String::new() } else { quoted(values.value(row)) })
            .collect();
        Some(format!("({})", parts.join(",")))
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

fn quoted(value: &str) -> String {
    let asks = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '"' | '\\');
    if !value.is_empty() && !value.contains(asks) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\"\""))
}

/// Its argument, which may be null whatever the planner knows of it. Volatile, so that nobody looks through it.
pub(crate) fn nullable_udf() -> Arc<ScalarUDF> {
    let field = |args: &ReturnFieldArgs<'_>| match args.arg_fields {
        [field] => Ok(Arc::new(field.as_ref().clone().with_nullable(true))),
        _ => Err(DataFusionError::Internal("tidemill_nullable takes one argument".to_owned())),
    };
    Simple::udf("tidemill_nullable", any(1, Volatility::Volatile), Returns::Field(field), |call| {
        Ok(Arc::clone(&call.arrays[0]))
    })
}

/// The item of an array of one; NULL of an empty one or of NULL. 21000 for more.
pub(crate) fn only_udf() -> Arc<ScalarUDF> {
    let item = |arguments: &[DataType]| match arguments {
        [DataType::List(item)] => Ok(item.data_type().clone()),
        _ => Ok(DataType::Null),
    };
    Simple::udf("tidemill_only", any(1, Volatility::Immutable), Returns::Of(item), |call| {
        let DataType::List(_) = call.arrays[0].data_type() else {
            return Ok(new_null_array(call.returns.data_type(), call.rows));
        };
        let lists = call.arrays[0].as_list::<i32>();
        let places = (0..call.rows).map(|row| match if lists.is_null(row) { 0 } else { lists.value_length(row) } {
            0 => Ok(None),
            1 => Ok(u64::try_from(lists.value_offsets()[row]).ok()),
            _ => Err(SqlError::new("21000", "more than one row returned by a subquery used as an expression")),
        });
        Ok(take(lists.values(), &places.collect::<Result<UInt64Array, SqlError>>()?, None)?)
    })
}
