//! Parts of documents by key, place and path, and whether they are there.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, Volatility::Immutable},
};

use super::{jsonb, member, tree::Json};
use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any},
        text_input,
    },
};

pub(super) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let json = |name, aliases: &[&str], signature, returns| {
        Simple::aliased(name, aliases, signature, returns, |call| parts(call, |json| Some(json.to_string())))
    };
    let text = |name, aliases: &[&str], signature| {
        Simple::aliased(name, aliases, signature, Returns::Type(DataType::Utf8View), |call| parts(call, Json::text))
    };
    let many = || Signature::variadic_any(Immutable);
    vec![
        json("jsonb_extract_path", &["json_extract_path"], many(), jsonb()),
        text("jsonb_extract_path_text", &["json_extract_path_text"], many()),
        path_udf(),
        text_path_udf(),
        member::udf(),
        member::text_udf(),
        exists_udf(),
        exists_any_udf(),
        exists_all_udf(),
        delete_udf(),
    ]
}

/// `doc #> path`.
pub(crate) fn path_udf() -> Arc<ScalarUDF> {
    Simple::udf("tidemill_json_path", any(2, Immutable), jsonb(), |call| at_paths(call, |json| Some(json.to_string())))
}

/// `doc #>> path`.
pub(crate) fn text_path_udf() -> Arc<ScalarUDF> {
    let returns = Returns::Type(DataType::Utf8View);
    Simple::udf("tidemill_json_path_text", any(2, Immutable), returns, |call| at_paths(call, Json::text))
}

/// `doc ? key`.
pub(crate) fn exists_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_exists", any(2, Immutable), Returns::Type(DataType::Boolean), |call| {
        let keys = call.text(1)?;
        truths(call, |json, row| keys.is_valid(row).then(|| holds(json, keys.value(row))))
    })
}

/// `doc ?| keys`.
pub(crate) fn exists_any_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_exists_any", any(2, Immutable), Returns::Type(DataType::Boolean), |call| {
        let keys = texts(call, 1)?;
        truths(call, |json, row| Some(keys[row].as_ref()?.iter().flatten().any(|key| holds(json, key))))
    })
}

/// `doc ?& keys`.
pub(crate) fn exists_all_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_exists_all", any(2, Immutable), Returns::Type(DataType::Boolean), |call| {
        let keys = texts(call, 1)?;
        truths(call, |json, row| Some(keys[row].as_ref()?.iter().flatten().all(|key| holds(json, key))))
    })
}

/// `doc - key`, `doc - place`, `doc - keys`.
pub(crate) fn delete_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_delete", any(2, Immutable), jsonb(), |call| {
        let by_place = call.arrays[1].data_type().is_integer();
        let keys = if by_place { vec![None; call.rows] } else { texts(call, 1)? };
        let places = if by_place { Some(call.cast(1, &DataType::Int64)?) } else { None };
        let documents = call.text(0)?;
        let rows = (0..call.rows).map(|row| {
            let place = match &places {
                Some(places) if places.is_null(row) => return Ok(None),
                Some(places) => Some(places.as_primitive::<arrow::datatypes::Int64Type>().value(row)),
                None if keys[row].is_none() => return Ok(None),
                None => None,
            };
            if documents.is_null(row) {
                return Ok(None);
            }
            let json: Json = documents.value(row).parse()?;
            Ok(Some(without(json, place, keys[row].as_deref().unwrap_or_default())?.to_string()))
        });
        Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
    })
}

fn without(json: Json, place: Option<i64>, keys: &[Option<String>]) -> Result<Json, SqlError> {
    Ok(match (json, place) {
        (Json::Array(mut items), Some(place)) => {
            if let Some(place) = super::tree::place(items.len(), place) {
                items.remove(place);
            }
            Json::Array(items)
        }
        (Json::Object(_), Some(_)) => {
            return Err(SqlError::invalid_parameter("cannot delete from object using integer index"));
        }
        (Json::Object(members), None) => Json::Object(
            members.into_iter().filter(|(name, _)| !keys.iter().flatten().any(|key| key == name)).collect(),
        ),
        (Json::Array(items), None) => Json::Array(
            items
                .into_iter()
                .filter(|item| !matches!(item, Json::Text(text) if keys.iter().flatten().any(|key| key == text)))
                .collect(),
        ),
        _ => return Err(SqlError::invalid_parameter("cannot delete from scalar")),
    })
}

/// A key of an object, a text of an array, or the text itself.
fn holds(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(_) => json.member(key).is_some(),
        Json::Array(items) => items.iter().any(|item| matches!(item, Json::Text(text) if text == key)),
        Json::Text(text) => text == key,
        _ => false,
    }
}

fn truths(call: &Call<'_>, of: impl Fn(&Json, usize) -> Option<bool>) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let rows = documents.iter().enumerate().map(|(row, text)| match text {
        Some(text) => Ok(of(&text.parse()?, row)),
        None => Ok(None),
    });
    Ok(Arc::new(rows.collect::<Result<BooleanArray, SqlError>>()?))
}

/// What the arguments after the first, one after the other, lead to.
fn parts(call: &Call<'_>, show: impl Fn(&Json) -> Option<String>) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let steps = (1..call.arrays.len()).map(|index| call.text(index)).collect::<Result<Vec<_>, _>>()?;
    let rows = (0..call.rows).map(|row| {
        if documents.is_null(row) || steps.iter().any(|steps| steps.is_null(row)) {
            return Ok(None);
        }
        let json: Json = documents.value(row).parse()?;
        Ok(json.at(steps.iter().map(|steps| steps.value(row))).and_then(&show))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
}

fn at_paths(call: &Call<'_>, show: impl Fn(&Json) -> Option<String>) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let paths = texts(call, 1)?;
    let rows = documents.iter().zip(&paths).map(|(text, path)| {
        let (Some(text), Some(path)) = (text, path) else { return Ok(None) };
        let Some(path) = path.iter().map(Option::as_deref).collect::<Option<Vec<&str>>>() else { return Ok(None) };
        let json: Json = text.parse()?;
        Ok(json.at(path).and_then(&show))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
}

/// Argument `index` as arrays of text: an array, its text (`{a,b}`), or, of another text, that one.
pub(super) fn texts(call: &Call<'_>, index: usize) -> Result<Vec<Option<Vec<Option<String>>>>, DataFusionError> {
    let array = &call.arrays[index];
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            (0..array.len())
                .map(|row| {
                    if lists.is_null(row) {
                        return Ok(None);
                    }
                    let items = cast(&lists.value(row), &DataType::Utf8View)?;
                    Ok(Some(items.as_string_view().iter().map(|item| item.map(str::to_owned)).collect()))
                })
                .collect()
        }
        _ => call
            .text(index)?
            .iter()
            .map(|text| match text {
                Some(text) if text.trim_start().starts_with('{') => Ok(Some(text_input::elements(text)?)),
                Some(text) => Ok(Some(vec![Some(text.to_owned())])),
                None => Ok(None),
            })
            .collect(),
    }
}
