//! JSONB as canonical text, the way PostgreSQL prints it: `{"a": 1, "bb": [true, null]}`, keys by length and then bytes, the last of
//! equal keys kept. Digits of numbers stay as they were given.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::simple::{Call, Returns, Simple, any};
use crate::SqlError;

/// The canonical form of `text`, or 22P02.
pub(crate) fn canonical(text: &str) -> Result<String, SqlError> {
    // serde_json checks the grammar and the depth (128); what follows may rely on both.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(SqlError::new("22P02", "invalid input syntax for type json").with_detail(error.to_string()));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim_start();
    write(&mut rest, &mut out);
    Ok(out)
}

fn write(rest: &mut &str, out: &mut String) {
    match rest.as_bytes().first() {
        Some(b'{') => object(rest, out),
        Some(b'[') => {
            *rest = rest[1..].trim_start();
            out.push('[');
            let mut first = true;
            while !rest.starts_with(']') && !rest.is_empty() {
                if !std::mem::take(&mut first) {
                    out.push_str(", ");
                }
                write(rest, out);
                *rest = rest.trim_start();
                *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            }
            *rest = rest.get(1..).unwrap_or("");
            out.push(']');
        }
        Some(b'"') => {
            let length = string_length(rest);
            let (token, after) = rest.split_at(length);
            *rest = after;
            match serde_json::from_str::<String>(token) {
                Ok(value) => out.push_str(&Value::String(value).to_string()),
                Err(_) => out.push_str(token),
            }
        }
        _ => {
            let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            out.push_str(token);
            *rest = after;
        }
    }
}

fn object(rest: &mut &str, out: &mut String) {
    *rest = rest[1..].trim_start();
    let mut members: Vec<(String, String)> = Vec::new();
    while !rest.starts_with('}') && !rest.is_empty() {
        let length = string_length(rest);
        let (token, after) = rest.split_at(length);
        let key = serde_json::from_str::<String>(token).unwrap_or_else(|_| token.to_owned());
        *rest = after.trim_start();
        *rest = rest.strip_prefix(':').unwrap_or(rest).trim_start();
        let mut value = String::new();
        write(rest, &mut value);
        members.push((key, value));
        *rest = rest.trim_start();
        *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    *rest = rest.get(1..).unwrap_or("");
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    out.push('{');
    let mut is_first = true;
    for (index, (key, value)) in members.iter().enumerate() {
        // Equal keys lie side by side, in the order they were given.
        if members.get(index + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push_str(", ");
        }
        out.push_str(&Value::String(key.clone()).to_string());
        out.push_str(": ");
        out.push_str(value);
    }
    out.push('}');
}

/// Bytes of the string token at the start, quotes included.
pub(crate) fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
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

fn contains(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (left, right) = (call.text(0)?, call.text(1)?);
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| SqlError::invalid_text("json", text));
    let mut out = Vec::with_capacity(call.rows);
    for (a, b) in left.iter().zip(right.iter()) {
        out.push(match (a, b) {
            (Some(a), Some(b)) => {
                let (a, b) = (read(a)?, read(b)?);
                // An array may hold a bare element.
                let bare = matches!((&a, &b), (Value::Array(items), b) if !b.is_array() && !b.is_object() && items.contains(b));
                Some(bare || within(&a, &b))
            }
            _ => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<BooleanArray>()))
}

/// Whether `a` holds all of `b`, level by level.
fn within(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            b.iter().all(|(key, wanted)| a.get(key).is_some_and(|found| within(found, wanted)))
        }
        (Value::Array(a), Value::Array(b)) => b.iter().all(|wanted| a.iter().any(|found| within(found, wanted))),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_as_postgresql_prints() {
        for (given, printed) in [
            (r#"{"b":1,"a":2,"aa":3}"#, r#"{"a": 2, "b": 1, "aa": 3}"#),
            (r#" { "a" : [ 1 ,2.50, {} ] } "#, r#"{"a": [1, 2.50, {}]}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            (r#""A\n\"""#, r#""A\n\"""#),
            ("12345678901234567890.10", "12345678901234567890.10"),
            ("[]", "[]"),
            ("null", "null"),
            (r#"{"a":{"z":1},"b":{"x":{"y":[]}}}"#, r#"{"a": {"z": 1}, "b": {"x": {"y": []}}}"#),
        ] {
            assert_eq!(canonical(given).unwrap(), printed);
        }
        for bad in ["", "{", "{a:1}", "[1,]", "01", "nul"] {
            assert_eq!(canonical(bad).unwrap_err().sqlstate, "22P02", "{bad}");
        }
        assert!(canonical(&"[".repeat(10_000)).is_err());
    }
}
