//! What a document is: its type, its length, its text in lines, itself without nulls.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::{jsonb, tree::Json};
use crate::{
    SqlError,
    functions::simple::{Call, Returns, Simple, any},
};

pub(super) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let text = || Returns::Type(DataType::Utf8View);
    vec![
        Simple::aliased("jsonb_typeof", &["json_typeof"], any(1, Immutable), text(), |call| {
            each(call, |json| Ok(json.type_name().to_owned()))
        }),
        Simple::udf("jsonb_pretty", any(1, Immutable), text(), |call| each(call, |json| Ok(json.pretty()))),
        Simple::aliased("jsonb_strip_nulls", &["json_strip_nulls"], any(1, Immutable), jsonb(), |call| {
            each(call, |json| Ok(stripped(json).to_string()))
        }),
        Simple::aliased(
            "jsonb_array_length",
            &["json_array_length"],
            any(1, Immutable),
            Returns::Type(DataType::Int32),
            |call| {
                let lengths = call.text(0)?.iter().map(|text| text.map(length).transpose()).collect::<Result<_, _>>();
                let lengths: Int32Array = lengths?;
                Ok(Arc::new(lengths))
            },
        ),
    ]
}

fn each(call: &Call<'_>, show: impl Fn(&Json) -> Result<String, SqlError>) -> Result<ArrayRef, DataFusionError> {
    let texts = call.text(0)?;
    let shown = texts.iter().map(|text| text.map(|text| show(&text.parse()?)).transpose());
    Ok(Arc::new(shown.collect::<Result<StringViewArray, SqlError>>()?))
}

fn length(text: &str) -> Result<i32, SqlError> {
    match text.parse()? {
        Json::Array(items) => i32::try_from(items.len()).map_err(|_| SqlError::out_of_range("integer")),
        Json::Object(_) => Err(SqlError::invalid_parameter("cannot get array length of a non-array")),
        _ => Err(SqlError::invalid_parameter("cannot get array length of a scalar")),
    }
}

/// Without the members that are null; items of arrays stay.
fn stripped(json: &Json) -> Json {
    match json {
        Json::Object(members) => Json::Object(
            members
                .iter()
                .filter(|(_, value)| !matches!(value, Json::Null))
                .map(|(key, value)| (key.clone(), stripped(value)))
                .collect(),
        ),
        Json::Array(items) => Json::Array(items.iter().map(stripped).collect()),
        other => other.clone(),
    }
}
