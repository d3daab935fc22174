//! Lengths, pieces and places, of text in characters and of bytea in bytes.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, Int32Array, StringViewArray},
    datatypes::{DataType, Field, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::{
    simple::{Call, Returns, Simple, any, any_of},
    text_input,
};
use crate::{
    SqlError,
    rules::{casts, types},
};

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let int = || Returns::Type(DataType::Int32);
    vec![
        Simple::aliased("length", &["char_length", "character_length"], any(1, Immutable), int(), |call| {
            numbers(call, "length", |text| text.chars().count(), <[u8]>::len)
        }),
        Simple::udf("octet_length", any(1, Immutable), int(), |call| {
            numbers(call, "octet_length", str::len, <[u8]>::len)
        }),
        Simple::udf("bit_length", any(1, Immutable), int(), |call| {
            numbers(call, "bit_length", |text| text.len() * 8, |bytes| bytes.len() * 8)
        }),
        substr_udf(),
        strpos_udf(),
    ]
}

pub(crate) fn substr_udf() -> Arc<ScalarUDF> {
    Simple::aliased("substr", &["substring"], any_of(&[2, 3], Immutable), Returns::Of(of_first), substr)
}

pub(crate) fn strpos_udf() -> Arc<ScalarUDF> {
    Simple::aliased("strpos", &["position", "instr"], any(2, Immutable), Returns::Type(DataType::Int32), strpos)
}

pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn of_first(types: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match types.first() {
        Some(first) if is_bytes(first) => DataType::BinaryView,
        _ => DataType::Utf8View,
    })
}

/// 42883 for what is neither text nor bytea.
pub(super) fn check(call: &Call<'_>, index: usize, function: &str) -> Result<(), DataFusionError> {
    let data_type = call.arrays[index].data_type();
    let is_document = matches!(casts::marker(&call.fields[index]), Some("jsonb" | "json"));
    if types::is_text(data_type) && !is_document || is_bytes(data_type) || *data_type == DataType::Null {
        return Ok(());
    }
    Err(no_function(function, &call.fields[index]).into())
}

/// 42883 for a function of one such argument.
pub(super) fn no_function(function: &str, argument: &Field) -> SqlError {
    SqlError::new("42883", format!("function {function}({}) does not exist", types::name(argument)))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

/// Argument `index` as bytea; a text is one that was written without its type.
pub(super) fn bytes(call: &Call<'_>, index: usize) -> Result<BinaryViewArray, DataFusionError> {
    if types::is_text(call.arrays[index].data_type()) {
        let field = Arc::new(Field::new("", DataType::BinaryView, true));
        let read = text_input::column(&call.text(index)?, &field, call.zone()?, call.session())?;
        return Ok(read.as_binary_view().clone());
    }
    Ok(call.cast(index, &DataType::BinaryView)?.as_binary_view().clone())
}

fn numbers(
    call: &Call<'_>,
    function: &str,
    of_text: impl Fn(&str) -> usize,
    of_bytes: impl Fn(&[u8]) -> usize,
) -> Result<ArrayRef, DataFusionError> {
    check(call, 0, function)?;
    let number = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    Ok(Arc::new(match is_bytes(call.arrays[0].data_type()) {
        true => bytes(call, 0)?.iter().map(|bytes| bytes.map(|bytes| number(of_bytes(bytes)))).collect::<Int32Array>(),
        false => call.text(0)?.iter().map(|text| text.map(|text| number(of_text(text)))).collect(),
    }))
}

/// The places, from 0, that `substr` takes out of a value: from a start that counts from 1 and may lie before it.
fn places(start: i64, length: Option<i64>) -> Result<std::ops::Range<usize>, SqlError> {
    if length.is_some_and(|length| length < 0) {
        return Err(SqlError::new("22011", "negative substring length not allowed"));
    }
    let end = length.map_or(i64::MAX, |length| start.saturating_add(length));
    let place = |at: i64| usize::try_from(at.saturating_sub(1)).unwrap_or(0);
    Ok(place(start)..place(end).max(place(start)))
}

fn substr(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    check(call, 0, "substr")?;
    let starts = call.cast(1, &DataType::Int64)?;
    let starts = starts.as_primitive::<Int64Type>();
    let lengths = if call.arrays.len() > 2 { Some(call.cast(2, &DataType::Int64)?) } else { None };
    let lengths = lengths.as_ref().map(|lengths| lengths.as_primitive::<Int64Type>());
    let range = |row: usize| -> Result<Option<std::ops::Range<usize>>, SqlError> {
        if starts.is_null(row) || lengths.is_some_and(|lengths| lengths.is_null(row)) {
            return Ok(None);
        }
        places(starts.value(row), lengths.map(|lengths| lengths.value(row))).map(Some)
    };
    if is_bytes(call.arrays[0].data_type()) {
        let values = bytes(call, 0)?;
        let piece = |(row, value): (usize, Option<&[u8]>)| {
            let (Some(value), Some(range)) = (value, range(row)?) else { return Ok(None) };
            Ok(Some(value[range.start.min(value.len())..range.end.min(value.len())].to_vec()))
        };
        let pieces = values.iter().enumerate().map(piece).collect::<Result<Vec<_>, SqlError>>()?;
        return Ok(Arc::new(pieces.into_iter().collect::<BinaryViewArray>()));
    }
    let values = call.text(0)?;
    let piece = |(row, value): (usize, Option<&str>)| {
        let (Some(value), Some(range)) = (value, range(row)?) else { return Ok(None) };
        Ok(Some(match value.is_ascii() {
            true => value[range.start.min(value.len())..range.end.min(value.len())].to_owned(),
            false => value.chars().skip(range.start).take(range.len()).collect(),
        }))
    };
    let pieces = values.iter().enumerate().map(piece).collect::<Result<Vec<_>, SqlError>>()?;
    Ok(Arc::new(pieces.into_iter().collect::<StringViewArray>()))
}

fn strpos(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    check(call, 0, "strpos")?;
    let number = |place: usize| i32::try_from(place + 1).unwrap_or(i32::MAX);
    if is_bytes(call.arrays[0].data_type()) {
        let (values, wanted) = (bytes(call, 0)?, bytes(call, 1)?);
        let found = values.iter().zip(&wanted).map(|(value, wanted)| {
            let (value, wanted) = (value?, wanted?);
            let at =
                if wanted.is_empty() { Some(0) } else { value.windows(wanted.len()).position(|piece| piece == wanted) };
            Some(at.map_or(0, number))
        });
        return Ok(Arc::new(found.collect::<Int32Array>()));
    }
    let (values, wanted) = (call.text(0)?, call.text(1)?);
    let found = values.iter().zip(&wanted).map(|(value, wanted)| {
        let (value, wanted) = (value?, wanted?);
        Some(value.find(wanted).map_or(0, |at| number(value[..at].chars().count())))
    });
    Ok(Arc::new(found.collect::<Int32Array>()))
}
