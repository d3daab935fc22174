//! Text into values, as PostgreSQL's input functions read it: 22P02 and 22007 for what is no value, 22003 for what does not fit.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringViewArray,
        Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, IntervalUnit, TimeUnit},
};
use datafusion::error::DataFusionError;
use tidemill_storage::schema::UTC;

use super::{
    datetime::{interval_text, parse as datetime},
    json, jsonb, search,
    session::SessionFacts,
    uuid,
    zone::Zone,
};
use crate::{SqlError, rules::casts::marker};

/// Reads each text as a value of `target`.
pub(crate) fn column(
    texts: &StringViewArray,
    target: &Field,
    zone: Zone,
    session: Option<&SessionFacts>,
) -> Result<ArrayRef, DataFusionError> {
    let now = || session.map_or(0, SessionFacts::now_us);
    let moment = |text: &str, type_name: &'static str| datetime::timestamp(text, zone, &now, type_name);
    Ok(match target.data_type() {
        DataType::Utf8View if marker(target) == Some("uuid") => {
            strings(texts, |text| uuid::canonical(text).ok_or_else(|| SqlError::invalid_text("uuid", text)))?
        }
        DataType::Utf8View if marker(target) == Some("jsonb") => strings(texts, json::canonical)?,
        DataType::Utf8View if marker(target) == Some("tsquery") => strings(texts, search::canonical_query)?,
        DataType::Utf8View if marker(target) == Some("jsonpath") => strings(texts, jsonb::path::canonical)?,
        DataType::Utf8View if marker(target) == Some("tsvector") => strings(texts, search::canonical_vector)?,
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => {
            arrow::compute::cast(&(Arc::new(texts.clone()) as ArrayRef), target.data_type())?
        }
        DataType::Boolean => Arc::new(each(texts, boolean)?.into_iter().collect::<BooleanArray>()),
        DataType::Int16 => {
            let read = |text: &str| integer(text, "smallint", i64::from(i16::MIN), i64::from(i16::MAX));
            Arc::new(each(texts, |text| read(text).map(|v| v as i16))?.into_iter().collect::<Int16Array>())
        }
        DataType::Int32 => {
            let read = |text: &str| integer(text, "integer", i64::from(i32::MIN), i64::from(i32::MAX));
            Arc::new(each(texts, |text| read(text).map(|v| v as i32))?.into_iter().collect::<Int32Array>())
        }
        DataType::Int64 => Arc::new(
            each(texts, |text| integer(text, "bigint", i64::MIN, i64::MAX))?.into_iter().collect::<Int64Array>(),
        ),
        DataType::Float32 => Arc::new(
            each(texts, |text| {
                let value = float(text, "real")?;
                let narrow = value as f32;
                if narrow.is_infinite() && value.is_finite() {
                    return Err(float_range(text, "real"));
                }
                Ok(narrow)
            })?
            .into_iter()
            .collect::<Float32Array>(),
        ),
        DataType::Float64 => {
            Arc::new(each(texts, |text| float(text, "double precision"))?.into_iter().collect::<Float64Array>())
        }
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let values = each(texts, |text| numeric(text, precision, scale))?;
            Arc::new(values.into_iter().collect::<Decimal128Array>().with_precision_and_scale(precision, scale)?)
        }
        DataType::BinaryView => Arc::new(each(texts, bytea)?.into_iter().collect::<BinaryViewArray>()),
        DataType::Date32 => {
            Arc::new(each(texts, |text| datetime::date(text, zone, &now))?.into_iter().collect::<Date32Array>())
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => Arc::new(
            each(texts, |text| Ok(moment(text, "timestamp")?.local_us))?
                .into_iter()
                .collect::<TimestampMicrosecondArray>(),
        ),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Arc::new(
            each(texts, |text| Ok(moment(text, "timestamp with time zone")?.instant_us(zone)))?
                .into_iter()
                .collect::<TimestampMicrosecondArray>()
                .with_timezone(UTC),
        ),
        DataType::Time64(TimeUnit::Microsecond) => {
            Arc::new(each(texts, datetime::time)?.into_iter().collect::<Time64MicrosecondArray>())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Arc::new(each(texts, interval_text::parse)?.into_iter().collect::<IntervalMonthDayNanoArray>())
        }
        DataType::List(item) => list(texts, item, zone, session)?,
        other => {
            let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
            let array: ArrayRef = Arc::new(texts.clone());
            arrow::compute::cast_with_options(&array, other, &options)?
        }
    })
}

fn each<T>(
    texts: &StringViewArray,
    read: impl Fn(&str) -> Result<T, SqlError>,
) -> Result<Vec<Option<T>>, DataFusionError> {
    Ok(texts.iter().map(|text| text.map(&read).transpose()).collect::<Result<Vec<_>, SqlError>>()?)
}

fn strings(
    texts: &StringViewArray,
    read: impl Fn(&str) -> Result<String, SqlError>,
) -> Result<ArrayRef, DataFusionError> {
    Ok(Arc::new(each(texts, read)?.into_iter().collect::<StringViewArray>()))
}

pub(crate) fn boolean(text: &str) -> Result<bool, SqlError> {
    let lower = text.trim().to_lowercase();
    let is = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if lower == "1" || is("true", 1) || is("yes", 1) || is("on", 2) {
        Ok(true)
    } else if lower == "0" || is("false", 1) || is("no", 1) || is("off", 2) {
        Ok(false)
    } else {
        Err(SqlError::invalid_text("boolean", text))
    }
}

fn integer(text: &str, type_name: &str, least: i64, most: i64) -> Result<i64, SqlError> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SqlError::invalid_text(type_name, text));
    }
    match trimmed.parse::<i64>() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(SqlError::new("22003", format!("value \"{text}\" is out of range for type {type_name}"))),
    }
}

fn float_range(text: &str, type_name: &str) -> SqlError {
    SqlError::new("22003", format!("\"{text}\" is out of range for type {type_name}"))
}

fn float(text: &str, type_name: &str) -> Result<f64, SqlError> {
    let trimmed = text.trim();
    let value: f64 = trimmed.parse().map_err(|_| SqlError::invalid_text(type_name, text))?;
    if value.is_infinite() && trimmed.bytes().any(|b| b.is_ascii_digit()) {
        return Err(float_range(text, type_name));
    }
    Ok(value)
}

/// The unscaled integer at `scale`, halves away from zero.
pub(crate) fn numeric(text: &str, precision: u8, scale: i8) -> Result<i128, SqlError> {
    let invalid = || SqlError::invalid_text("numeric", text);
    let overflow = || {
        SqlError::new("22003", "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
            i16::from(precision) - i16::from(scale)
        ))
    };
    let trimmed = text.trim();
    let (negative, rest) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| invalid())?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits_only = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits_only(whole) || !digits_only(fraction) {
        return Err(invalid());
    }
    // The value is 0.<whole><fraction> × 10^point; digits up to `scale` after the point are kept.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(i64::from(exponent));
    let kept = point.saturating_add(i64::from(scale));
    let mut value: i128 = 0;
    let mut round_up = false;
    for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let digit = i128::from(digit - b'0');
        if index < kept {
            value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or_else(overflow)?;
        } else {
            round_up = index == kept && digit >= 5;
            break;
        }
    }
    let given = i64::try_from(whole.len() + fraction.len()).unwrap_or(i64::MAX);
    if value != 0 {
        for _ in given..kept {
            value = value.checked_mul(10).ok_or_else(overflow)?;
        }
    }
    value += i128::from(round_up);
    if value >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(overflow());
    }
    Ok(if negative { -value } else { value })
}

fn bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    let invalid = || SqlError::invalid_text("bytea", text);
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        if !digits.len().is_multiple_of(2) {
            return Err(SqlError::new("22023", "invalid hexadecimal data: odd number of digits"));
        }
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8).ok_or_else(invalid);
        return digits.chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            out.push(byte);
            rest = after;
        } else if let [b'\\', more @ ..] = after {
            out.push(b'\\');
            rest = more;
        } else if let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..] = after {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = more;
        } else {
            return Err(invalid());
        }
    }
    Ok(out)
}

fn list(
    texts: &StringViewArray,
    item: &Arc<Field>,
    zone: Zone,
    session: Option<&SessionFacts>,
) -> Result<ArrayRef, DataFusionError> {
    let mut values: Vec<Option<String>> = Vec::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts {
        let before = values.len();
        if let Some(text) = text {
            values.extend(elements(text)?);
        }
        lengths.push(values.len() - before);
    }
    let items: StringViewArray = values.into_iter().collect();
    let items = column(&items, item, zone, session)?;
    let nulls: Option<NullBuffer> = texts.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls)?))
}

/// `{a,"b c",NULL}` as its elements; arrays of arrays are refused.
pub(crate) fn elements(text: &str) -> Result<Vec<Option<String>>, SqlError> {
    let malformed =
        |detail: &str| SqlError::new("22P02", format!("malformed array literal: \"{text}\"")).with_detail(detail);
    let inner = text
        .trim()
        .strip_prefix('{')
        .ok_or_else(|| malformed("Array value must start with \"{\" or dimension information."))?
        .strip_suffix('}')
        .ok_or_else(|| malformed("Unexpected end of input."))?;
    if inner.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let mut is_quoted = false;
        if chars.next_if_eq(&'"').is_some() {
            is_quoted = true;
            loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => value.push(chars.next().ok_or_else(|| malformed("Unexpected end of input."))?),
                    Some(c) => value.push(c),
                    None => return Err(malformed("Unexpected end of input.")),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                match c {
                    '{' | '}' => return Err(SqlError::not_supported("an array of arrays")),
                    '"' => return Err(malformed("Incorrectly quoted array element.")),
                    '\\' => value.push(chars.next().ok_or_else(|| malformed("Unexpected end of input."))?),
                    c => value.push(c),
                }
            }
            value.truncate(value.trim_end().len());
            if value.is_empty() {
                return Err(malformed("Unexpected \",\" character."));
            }
        }
        out.push(if !is_quoted && value.eq_ignore_ascii_case("null") { None } else { Some(value) });
        match chars.next() {
            None => return Ok(out),
            Some(',') => {}
            Some(_) => return Err(malformed("Unexpected array element.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_round_and_overflow() {
        assert_eq!(numeric(" -12.345 ", 10, 2).unwrap(), -1235);
        assert_eq!(numeric("1.5e3", 10, 2).unwrap(), 150_000);
        assert_eq!(numeric("5e-3", 10, 2).unwrap(), 1);
        assert_eq!(numeric("5e-4", 10, 2).unwrap(), 0);
        assert_eq!(numeric("0e999999999", 10, 2).unwrap(), 0);
        assert_eq!(numeric("99999999.995", 10, 2).unwrap_err().sqlstate, "22003");
        assert_eq!(numeric("1e999999999", 10, 2).unwrap_err().sqlstate, "22003");
        for bad in ["", "-", ".", "1.2.3", "0x10", "1e"] {
            assert_eq!(numeric(bad, 10, 2).unwrap_err().sqlstate, "22P02", "{bad}");
        }
    }

    #[test]
    fn arrays_have_quotes_and_nulls() {
        let read = |text: &str| elements(text).unwrap();
        assert_eq!(read("{}"), Vec::<Option<String>>::new());
        assert_eq!(
            read(r#"{a, "b,\"c" ,NULL,"NULL"}"#),
            [Some("a".to_owned()), Some("b,\"c".to_owned()), None, Some("NULL".to_owned())]
        );
        for bad in ["a,b", "{a", "{a,,b}", "{\"a}"] {
            assert_eq!(elements(bad).unwrap_err().sqlstate, "22P02", "{bad}");
        }
    }

    #[test]
    fn words_for_truth() {
        assert!(boolean(" T ").unwrap() && boolean("on").unwrap() && !boolean("of").unwrap());
        assert_eq!(boolean("o").unwrap_err().sqlstate, "22P02");
    }
}
