//! Values, rows and groups of rows as JSON: `to_json`, `row_to_json`, and what `json_agg` and its kin make of gathered values.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility::Stable},
};

use super::{
    json, json_build,
    jsonb::{json_field, tree::quoted},
    simple::{self, Call, Returns, Simple, any_of},
    text_output,
};
use crate::SqlError;

/// Names and values one after the other, as an object without spaces.
pub(crate) const ROW: &str = "tidemill_row_json";
/// A key and a value as text, for the objects below.
pub(crate) const MEMBER: &str = "tidemill_json_member";
pub(crate) const BINARY_MEMBER: &str = "tidemill_jsonb_member";
/// Arrays and objects of gathered texts; the binary ones are canonical.
pub(crate) const ARRAY: &str = "tidemill_json_array";
pub(crate) const BINARY_ARRAY: &str = "tidemill_jsonb_array";
pub(crate) const OBJECT: &str = "tidemill_json_object";
pub(crate) const BINARY_OBJECT: &str = "tidemill_jsonb_object";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let json = || Returns::Field(|_| Ok(json_field("json")));
    let jsonb = || Returns::Field(|_| Ok(json_field("jsonb")));
    // Text of timestamps depends on the session.
    let many = || Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Stable);
    let aliases = ["row_to_json", "array_to_json"];
    vec![
        Simple::aliased("to_json", &aliases, any_of(&[1, 2], Stable), json(), |call| one(call, false)),
        Simple::udf("to_jsonb", any_of(&[1], Stable), jsonb(), |call| one(call, true)),
        Simple::udf("jsonb_build_object", many(), jsonb(), |call| canonical(&json_build::object(call)?)),
        Simple::udf("jsonb_build_array", many(), jsonb(), |call| canonical(&json_build::array(call)?)),
        Simple::udf(ROW, many(), json(), row),
        Simple::udf(MEMBER, any_of(&[2], Stable), Returns::Type(DataType::Utf8View), |call| member(call, "22004")),
        Simple::udf(BINARY_MEMBER, any_of(&[2], Stable), Returns::Type(DataType::Utf8View), |call| {
            member(call, "22023")
        }),
        Simple::udf(ARRAY, any_of(&[1], Stable), json(), |call| gathered(call, ["[", ", ", "]"])),
        Simple::udf(OBJECT, any_of(&[1], Stable), json(), |call| gathered(call, ["{ ", ", ", " }"])),
        Simple::udf(BINARY_ARRAY, any_of(&[1], Stable), jsonb(), |call| canonical(&gathered(call, ["[", ", ", "]"])?)),
        Simple::udf(BINARY_OBJECT, any_of(&[1], Stable), jsonb(), |call| canonical(&gathered(call, ["{", ", ", "}"])?)),
    ]
}

fn canonical(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let texts = simple::text(array)?;
    let texts = texts.iter().map(|text| text.map(json::canonical).transpose());
    Ok(Arc::new(texts.collect::<Result<StringViewArray, SqlError>>()?))
}

/// NULL stays NULL.
fn one(call: &Call<'_>, is_binary: bool) -> Result<ArrayRef, DataFusionError> {
    let values = json_build::column(&call.arrays[0], &call.fields[0], call.zone()?)?;
    let rows = values.into_iter().enumerate().map(|(row, json)| match call.arrays[0].is_null(row) {
        true => Ok(None),
        false if is_binary => json::canonical(&json).map(Some),
        false => Ok(Some(json)),
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
}

fn row(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let zone = call.zone()?;
    let names = (0..call.arrays.len()).step_by(2).map(|index| call.text(index)).collect::<Result<Vec<_>, _>>()?;
    let values = json_build::values(call, zone, 1, 2)?;
    let rows = (0..call.rows).map(|row| {
        let members = names.iter().zip(&values).map(|(names, values)| {
            let name = if names.is_valid(row) { names.value(row) } else { "" };
            format!("{}:{}", quoted(name), values[row])
        });
        Some(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
    });
    Ok(Arc::new(rows.collect::<StringViewArray>()))
}

/// `keyless` is the SQLSTATE of a key that is NULL, which PostgreSQL has two of.
fn member(call: &Call<'_>, keyless: &'static str) -> Result<ArrayRef, DataFusionError> {
    let zone = call.zone()?;
    let keys = simple::text(&text_output::column(&call.arrays[0], zone)?)?;
    let values = json_build::column(&call.arrays[1], &call.fields[1], zone)?;
    let rows = (0..call.rows).map(|row| match keys.is_valid(row) {
        true => Ok(format!("{} : {}", quoted(keys.value(row)), values[row])),
        false => Err(SqlError::new(keyless, "field name must not be null")),
    });
    Ok(Arc::new(rows.collect::<Result<Vec<String>, SqlError>>()?.into_iter().map(Some).collect::<StringViewArray>()))
}

/// The texts of each array between brackets; a NULL among them is `null`.
fn gathered(call: &Call<'_>, [open, between, close]: [&str; 3]) -> Result<ArrayRef, DataFusionError> {
    let DataType::List(_) = call.arrays[0].data_type() else {
        return Ok(Arc::new(StringViewArray::new_null(call.rows)));
    };
    let lists = call.arrays[0].as_list::<i32>();
    let rows = (0..call.rows).map(|row| {
        if lists.is_null(row) {
            return Ok(None);
        }
        let items = simple::text(&lists.value(row))?;
        let items: Vec<&str> = items.iter().map(|item| item.unwrap_or("null")).collect();
        Ok(Some(format!("{open}{}{close}", items.join(between))))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, DataFusionError>>()?))
}
