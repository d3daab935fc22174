//! Values of a result as JSON and as CSV.
//!
//! Nothing is lost on the way: NUMERIC, and BIGINT beyond 2^53 (which JavaScript would round), are strings; so are NaN and the infinities.
//! JSONB is JSON, arrays are arrays, times are ISO 8601, bytes are `\x` and hex digits.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType as ArrowType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::Value;
use tidemill_storage::schema::DataType;

/// Whole numbers up to here are the same in JavaScript.
const SAFE: i64 = 1 << 53;

const FORMAT: FormatOptions<'static> = FormatOptions::new()
    .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"))
    .with_date_format(Some("%Y-%m-%d"));

/// The SQL name of a column's type.
pub(super) fn type_name(field: &Field) -> String {
    if let Some(data_type) = DataType::of_field(field) {
        return data_type.to_string();
    }
    match field.data_type() {
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Null => "text".into(),
        ArrowType::Int8 | ArrowType::UInt8 => "smallint".into(),
        ArrowType::UInt16 => "integer".into(),
        ArrowType::UInt32 => "bigint".into(),
        ArrowType::UInt64 => "numeric(20,0)".into(),
        ArrowType::Binary | ArrowType::LargeBinary => "bytea".into(),
        ArrowType::Interval(_) | ArrowType::Duration(_) => "interval".into(),
        ArrowType::Timestamp(_, None) => "timestamp without time zone".into(),
        ArrowType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        ArrowType::Time32(_) | ArrowType::Time64(_) => "time without time zone".into(),
        ArrowType::Dictionary(_, value) => type_name(&Field::new("", value.as_ref().clone(), true)),
        other => other.to_string().to_lowercase(),
    }
}

/// One value as JSON.
pub(super) fn json(field: &Field, array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) || array.data_type() == &ArrowType::Null {
        return Value::Null;
    }
    match array.data_type() {
        ArrowType::Boolean => array.as_boolean().value(row).into(),
        ArrowType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        ArrowType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        ArrowType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        ArrowType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        ArrowType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        ArrowType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        ArrowType::Int64 => match array.as_primitive::<Int64Type>().value(row) {
            value if (-SAFE..=SAFE).contains(&value) => value.into(),
            value => value.to_string().into(),
        },
        ArrowType::UInt64 => match array.as_primitive::<UInt64Type>().value(row) {
            value if value <= SAFE as u64 => value.into(),
            value => value.to_string().into(),
        },
        ArrowType::Float32 => float(array.as_primitive::<Float32Type>().value(row).to_string()),
        ArrowType::Float64 => float(array.as_primitive::<Float64Type>().value(row).to_string()),
        ArrowType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|index| json(item, &items, index)).collect()
        }
        _ => {
            let text = text(array, row);
            match DataType::of_field(field) {
                Some(DataType::Jsonb) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                _ => Value::String(text),
            }
        }
    }
}

/// The shortest text that gives the number back, as a JSON number where JSON has it.
fn float(text: String) -> Value {
    match serde_json::from_str::<serde_json::Number>(&text) {
        Ok(number) => Value::Number(number),
        // JSON has no NaN and no infinity.
        Err(_) => Value::String(match text.as_str() {
            "inf" => "Infinity".into(),
            "-inf" => "-Infinity".into(),
            _ => text,
        }),
    }
}

fn text(array: &ArrayRef, row: usize) -> String {
    match array.data_type() {
        ArrowType::Binary => hex(array.as_binary::<i32>().value(row)),
        ArrowType::BinaryView => hex(array.as_binary_view().value(row)),
        ArrowType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            let us = array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(row);
            match chrono::DateTime::from_timestamp_micros(us) {
                Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                None => us.to_string(),
            }
        }
        _ => match ArrayFormatter::try_new(array.as_ref(), &FORMAT) {
            Ok(formatter) => formatter.value(row).to_string(),
            Err(error) => error.to_string(),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Appends one value as a CSV field: NULL is empty, the empty text is `""`.
pub(super) fn csv(field: &Field, array: &ArrayRef, row: usize, out: &mut String) {
    let value = match json(field, array, row) {
        Value::Null => return,
        Value::String(text) => text,
        other => other.to_string(),
    };
    csv_text(&value, out);
}

pub(super) fn csv_text(value: &str, out: &mut String) {
    if value.is_empty() || value.contains(['"', ',', '\n', '\r']) {
        out.push('"');
        out.push_str(&value.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryViewArray, Decimal128Array, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray,
    };
    use serde_json::json as j;

    use super::*;

    fn one(data_type: DataType, array: ArrayRef) -> Value {
        json(&data_type.field("c", true), &array, 0)
    }

    #[test]
    fn no_value_is_lost() {
        assert_eq!(one(DataType::BigInt, Arc::new(Int64Array::from(vec![7]))), j!(7));
        assert_eq!(one(DataType::BigInt, Arc::new(Int64Array::from(vec![i64::MIN]))), j!("-9223372036854775808"));
        assert_eq!(one(DataType::Double, Arc::new(Float64Array::from(vec![0.1]))), j!(0.1));
        assert_eq!(one(DataType::Double, Arc::new(Float64Array::from(vec![f64::NEG_INFINITY]))), j!("-Infinity"));
        let numeric = Decimal128Array::from(vec![12_340]).with_precision_and_scale(10, 3).unwrap();
        assert_eq!(one(DataType::Numeric { precision: 10, scale: 3 }, Arc::new(numeric)), j!("12.340"));
        assert_eq!(one(DataType::Jsonb, Arc::new(StringViewArray::from(vec!["{\"a\":[1]}"]))), j!({"a": [1]}));
        assert_eq!(one(DataType::Bytea, Arc::new(BinaryViewArray::from(vec![&[0u8, 255][..]]))), j!("\\x00ff"));
        let time = TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC");
        assert_eq!(one(DataType::TimestampTz, Arc::new(time)), j!("1970-01-01T00:00:01.500Z"));
        assert_eq!(one(DataType::Text, Arc::new(StringViewArray::from(vec![None::<&str>]))), Value::Null);
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        for (value, field) in [("a", "a"), ("", "\"\""), ("a,b", "\"a,b\""), ("say \"x\"", "\"say \"\"x\"\"\"")] {
            let mut out = String::new();
            csv_text(value, &mut out);
            assert_eq!(out, field);
        }
    }
}
