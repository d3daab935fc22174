//! Items of arrays, keys and values of objects, as arrays that `unnest` makes rows of.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ListBuilder, StringViewBuilder},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};

use super::tree::Json;
use crate::{
    SqlError,
    functions::{
        rows::{JSON_ELEMENTS, JSON_ELEMENTS_TEXT, JSON_KEYS, JSON_VALUES, JSON_VALUES_TEXT},
        simple::{Call, Returns, Simple, any},
    },
};

pub(super) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let define = |name, body| {
        let returns = Returns::Type(DataType::new_list(DataType::Utf8View, true));
        Simple::udf(name, any(1, Volatility::Immutable), returns, body)
    };
    vec![
        define(JSON_ELEMENTS, |call| each(call, |json| items(json, |item| Some(item.to_string())))),
        define(JSON_ELEMENTS_TEXT, |call| each(call, |json| items(json, Json::text))),
        define(JSON_KEYS, |call| each(call, |json| members(json, |key, _| Some(key.to_owned())))),
        define(JSON_VALUES, |call| each(call, |json| members(json, |_, value| Some(value.to_string())))),
        define(JSON_VALUES_TEXT, |call| each(call, |json| members(json, |_, value| value.text()))),
    ]
}

fn each(
    call: &Call<'_>,
    rows: impl Fn(&Json) -> Result<Vec<Option<String>>, SqlError>,
) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for document in &documents {
        match document {
            Some(document) => {
                for value in rows(&document.parse()?)? {
                    out.values().append_option(value);
                }
                out.append(true);
            }
            None => out.append(false),
        }
    }
    debug_assert_eq!(documents.len(), call.rows);
    Ok(Arc::new(out.finish()))
}

fn items(json: &Json, show: impl Fn(&Json) -> Option<String>) -> Result<Vec<Option<String>>, SqlError> {
    match json {
        Json::Array(items) => Ok(items.iter().map(show).collect()),
        Json::Object(_) => Err(SqlError::invalid_parameter("cannot extract elements from an object")),
        _ => Err(SqlError::invalid_parameter("cannot extract elements from a scalar")),
    }
}

fn members(json: &Json, show: impl Fn(&str, &Json) -> Option<String>) -> Result<Vec<Option<String>>, SqlError> {
    match json {
        Json::Object(members) => Ok(members.iter().map(|(key, value)| show(key, value)).collect()),
        Json::Array(_) => Err(SqlError::invalid_parameter("cannot deconstruct an array as an object")),
        _ => Err(SqlError::invalid_parameter("cannot deconstruct a scalar")),
    }
}
