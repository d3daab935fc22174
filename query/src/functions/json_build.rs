//! `json_build_object` and `json_build_array`: values into JSON, in the form that PostgreSQL writes (`{"a" : 1, "b" : [1,2]}`).

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray, StringViewArray},
    datatypes::{DataType, Field},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility},
};
use tidemill_storage::schema::TYPE_KEY;

use super::{
    simple::{Call, Returns, Simple, text},
    text_output,
    zone::Zone,
};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    // Text of timestamps depends on the session.
    let any = || Signature::one_of(vec![TypeSignature::VariadicAny, TypeSignature::Nullary], Volatility::Stable);
    vec![
        Simple::udf("json_build_object", any(), Returns::Field(|_| Ok(json_field("json_build_object"))), object),
        Simple::udf("json_build_array", any(), Returns::Field(|_| Ok(json_field("json_build_array"))), array),
    ]
}

fn json_field(name: &str) -> Arc<Field> {
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), "json".to_owned())]);
    Arc::new(Field::new(name, DataType::Utf8, true).with_metadata(metadata))
}

pub(super) fn object(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    if !call.arrays.len().is_multiple_of(2) {
        return Err(SqlError::invalid_parameter("argument list must have even number of elements")
            .with_hint("The arguments of json_build_object() must consist of alternating keys and values.")
            .into());
    }
    let zone = call.zone()?;
    let keys = call.arrays.iter().step_by(2).map(|keys| text(&text_output::column(keys, zone)?));
    let keys = keys.collect::<Result<Vec<StringViewArray>, DataFusionError>>()?;
    let values = values(call, zone, 1, 2)?;
    let rows = (0..call.rows).map(|row| {
        let mut out = String::from("{");
        for (i, (keys, values)) in keys.iter().zip(&values).enumerate() {
            if keys.is_null(row) {
                return Err(SqlError::new("22004", format!("argument {}: key must not be null", 2 * i + 1)).into());
            }
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(&quoted(keys.value(row)));
            out.push_str(" : ");
            out.push_str(&values[row]);
        }
        out.push('}');
        Ok(Some(out))
    });
    Ok(Arc::new(rows.collect::<Result<StringArray, DataFusionError>>()?))
}

pub(super) fn array(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let values = values(call, call.zone()?, 0, 1)?;
    let rows = (0..call.rows).map(|row| {
        let items: Vec<&str> = values.iter().map(|values| values[row].as_str()).collect();
        Some(format!("[{}]", items.join(", ")))
    });
    Ok(Arc::new(rows.collect::<StringArray>()))
}

/// The JSON of every `step`th argument from `first` on, row by row.
pub(super) fn values(
    call: &Call<'_>,
    zone: Zone,
    first: usize,
    step: usize,
) -> Result<Vec<Vec<String>>, DataFusionError> {
    let arguments = call.arrays.iter().zip(call.fields).skip(first).step_by(step);
    arguments.map(|(array, field)| column(array, field, zone)).collect()
}

/// Each value as JSON.
pub(super) fn column(array: &ArrayRef, field: &Field, zone: Zone) -> Result<Vec<String>, DataFusionError> {
    let or_null = |row: usize, json: &dyn Fn() -> String| if array.is_null(row) { "null".to_owned() } else { json() };
    if *array.data_type() == DataType::Null {
        return Ok(vec!["null".to_owned(); array.len()]);
    }
    if let DataType::List(item) = array.data_type() {
        let lists = array.as_list::<i32>();
        return (0..array.len())
            .map(|row| match lists.is_null(row) {
                true => Ok("null".to_owned()),
                false => Ok(format!("[{}]", column(&lists.value(row), item, zone)?.join(","))),
            })
            .collect();
    }
    if let DataType::Struct(members) = array.data_type() {
        let row_of = array.as_struct();
        let columns = row_of.columns().iter().zip(members).map(|(array, field)| column(array, field, zone));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        // The parts of ROW(…) have no names of their own.
        let names: Vec<String> = members
            .iter()
            .enumerate()
            .map(|(index, member)| match member.name() == &format!("c{index}") {
                true => quoted(&format!("f{}", index + 1)),
                false => quoted(member.name()),
            })
            .collect();
        return Ok((0..array.len())
            .map(|row| {
                or_null(row, &|| {
                    let members = names.iter().zip(&columns).map(|(name, values)| format!("{name}:{}", values[row]));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                })
            })
            .collect());
    }
    let texts = text(&text_output::column(array, zone)?)?;
    let is_json = matches!(field.metadata().get(TYPE_KEY).map(String::as_str), Some("json" | "jsonb"));
    let is_number = array.data_type().is_numeric();
    let is_moment = matches!(array.data_type(), DataType::Timestamp(..));
    let is_zoned = matches!(array.data_type(), DataType::Timestamp(_, Some(_)));
    Ok((0..array.len())
        .map(|row| {
            or_null(row, &|| match texts.value(row) {
                plain if is_json || *array.data_type() == DataType::Boolean => plain.to_owned(),
                number if is_number && !number.contains(['N', 'I']) => number.to_owned(),
                moment if is_moment => quoted(&iso(moment, is_zoned)),
                other => quoted(other),
            })
        })
        .collect())
}

/// A moment as ISO 8601 has it: a T in its middle, and minutes in the distance to UTC.
fn iso(moment: &str, is_zoned: bool) -> String {
    let mut iso = moment.replacen(' ', "T", 1);
    let hours_only = iso.len().checked_sub(3).is_some_and(|at| matches!(iso.as_bytes()[at], b'+' | b'-'));
    if is_zoned && hours_only {
        iso.push_str(":00");
    }
    iso
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int64Array};

    use super::*;

    fn json(array: ArrayRef) -> Vec<String> {
        let field = Field::new("", array.data_type().clone(), true);
        column(&array, &field, Zone::Fixed(0)).unwrap()
    }

    #[test]
    fn values_have_the_json_of_their_type() {
        assert_eq!(json(Arc::new(Int64Array::from(vec![Some(-5), None]))), ["-5", "null"]);
        assert_eq!(json(Arc::new(BooleanArray::from(vec![true, false]))), ["true", "false"]);
        assert_eq!(
            json(Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::INFINITY]))),
            ["1.5", "\"NaN\"", "\"Infinity\""]
        );
        assert_eq!(json(Arc::new(StringArray::from(vec!["a\"b"]))), ["\"a\\\"b\""]);
        let mut lists = arrow::array::ListBuilder::new(arrow::array::Int64Builder::new());
        lists.append_value([Some(1), None]);
        lists.append_null();
        assert_eq!(json(Arc::new(lists.finish())), ["[1,null]", "null"]);
    }
}
