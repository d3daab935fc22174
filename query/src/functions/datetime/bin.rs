//! `date_bin(stride, at, origin)`: the beginning of the bin of this length that a moment lies in.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};

use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any_of},
        text_input,
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf("date_bin", any_of(&[2, 3], Volatility::Stable), Returns::Of(returned), bin)]
}

fn returned(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    let is_zoned = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(_)));
    Ok(if arguments.iter().any(is_zoned) { types::timestamptz() } else { types::timestamp() })
}

fn bin(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let strides = argument(call, 0, &types::interval())?;
    let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
    let moments = argument(call, 1, call.returns.data_type())?;
    let moments = moments.as_primitive::<TimestampMicrosecondType>();
    let origins = if call.arrays.len() == 3 { Some(argument(call, 2, call.returns.data_type())?) } else { None };
    let origins = origins.as_ref().map(|origins| origins.as_primitive::<TimestampMicrosecondType>());
    let bins = (0..call.rows).map(|row| {
        if strides.is_null(row) || moments.is_null(row) || origins.is_some_and(|origins| origins.is_null(row)) {
            return Ok(None);
        }
        let stride = length_us(strides.value(row))?;
        let origin = origins.map_or(0, |origins| origins.value(row));
        let since = moments.value(row).checked_sub(origin).ok_or_else(out_of_range)?;
        let begins = since.checked_sub(since.rem_euclid(stride)).and_then(|begins| begins.checked_add(origin));
        begins.map(Some).ok_or_else(out_of_range)
    });
    let bins = bins.collect::<Result<TimestampMicrosecondArray, SqlError>>()?;
    let zone = if let DataType::Timestamp(_, zone) = call.returns.data_type() { zone.clone() } else { None };
    Ok(Arc::new(bins.with_timezone_opt(zone)))
}

/// Argument `index` as `data_type`; a text is one that was written without its type.
pub(super) fn argument(call: &Call<'_>, index: usize, data_type: &DataType) -> Result<ArrayRef, DataFusionError> {
    let given = call.arrays[index].data_type();
    if types::is_text(given) {
        let field = Field::new("", data_type.clone(), true);
        return text_input::column(&call.text(index)?, &field, call.zone()?, call.session());
    }
    let fits = match data_type {
        DataType::Interval(_) => matches!(given, DataType::Interval(_) | DataType::Null),
        _ => matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Null),
    };
    if !fits {
        let given: Vec<String> = call.fields.iter().map(|field| types::name(field)).collect();
        return Err(SqlError::new(
            "42883",
            format!("function {}({}) does not exist", call.returns.name(), given.join(", ")),
        )
        .with_hint("It takes an interval and timestamps.")
        .into());
    }
    if let (DataType::Timestamp(_, Some(_)), DataType::Date32 | DataType::Timestamp(_, None)) = (data_type, given) {
        let (zone, clocks) = (call.zone()?, call.cast(index, &types::timestamp())?);
        let clocks = clocks.as_primitive::<TimestampMicrosecondType>();
        let instants: TimestampMicrosecondArray = clocks.unary(|clock| zone.to_instant(clock));
        return Ok(Arc::new(instants));
    }
    call.cast(index, data_type)
}

pub(super) fn length_us(stride: IntervalMonthDayNano) -> Result<i64, SqlError> {
    if stride.months != 0 {
        return Err(SqlError::not_supported("a bin of months or years"));
    }
    let days = i64::from(stride.days).checked_mul(DAY_US);
    let length = days.and_then(|days| days.checked_add(stride.nanoseconds / 1000)).ok_or_else(out_of_range)?;
    match length {
        1.. => Ok(length),
        _ => Err(SqlError::new("22008", "stride must be greater than zero")),
    }
}

pub(super) fn out_of_range() -> SqlError {
    SqlError::new("22008", "timestamp out of range")
}
