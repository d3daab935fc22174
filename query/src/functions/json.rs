//! JSONB as text, and whether one document holds another.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringViewArray};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};

use super::{
    jsonb::{key::key, tree::Json},
    simple::{Call, Returns, Simple, any},
};
use crate::SqlError;

/// The one text that a jsonb value has: as PostgreSQL prints it. 22P02, 22P05 or 22003 for a text that is none.
pub fn canonical(text: &str) -> Result<String, SqlError> {
    Ok(text.parse::<Json>()?.to_string())
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf(
        "jsonb_contains",
        any(2, Volatility::Immutable),
        Returns::Type(arrow::datatypes::DataType::Boolean),
        contains,
    )]
}

pub(crate) fn contains_udf() -> Arc<ScalarUDF> {
    udfs().remove(0)
}

/// The document if it is an object, and NULL if not.
pub(crate) fn object_udf() -> Arc<ScalarUDF> {
    let returns = Returns::Type(arrow::datatypes::DataType::Utf8View);
    Simple::udf("tidemill_json_object", any(1, Volatility::Immutable), returns, |call| {
        let documents = call.text(0)?;
        let is_object = |text: &&str| text.trim_start().starts_with('{');
        let objects = documents.iter().map(|document| document.filter(is_object));
        Ok(Arc::new(objects.collect::<StringViewArray>()))
    })
}

fn contains(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (left, right) = (call.text(0)?, call.text(1)?);
    let mut out = Vec::with_capacity(call.rows);
    for (a, b) in left.iter().zip(right.iter()) {
        out.push(match (a, b) {
            (Some(a), Some(b)) => {
                let (a, b): (Json, Json) = (a.parse()?, b.parse()?);
                // An array may hold a bare element.
                let bare =
                    matches!(&a, Json::Array(items) if b.is_scalar() && items.iter().any(|item| equal(item, &b)));
                Some(bare || within(&a, &b))
            }
            _ => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<BooleanArray>()))
}

fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(_), Json::Number(_)) => key(a) == key(b),
        (Json::Text(a), Json::Text(b)) => a == b,
        (Json::Bool(a), Json::Bool(b)) => a == b,
        (Json::Null, Json::Null) => true,
        _ => false,
    }
}

/// Whether `a` holds all of `b`, level by level.
fn within(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Object(_), Json::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| a.member(key).is_some_and(|found| within(found, wanted)))
        }
        (Json::Array(a), Json::Array(b)) => b.iter().all(|wanted| a.iter().any(|found| within(found, wanted))),
        (a, b) => equal(a, b),
    }
}
