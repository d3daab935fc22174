//! `to_char`, `to_timestamp` and `to_date`: patterns of dates and of numbers, by the type of what is formatted.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, StringViewArray, StringViewBuilder, TimestampMicrosecondArray},
    datatypes::{DataType, Date32Type, Float64Type, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use tidemill_storage::schema::UTC;

use super::pattern::{Pattern, Reading};
use crate::{
    SqlError,
    functions::{
        number_pattern::{self, NumberPattern},
        simple::{Call, Returns, Simple, any, any_of},
        zone::Zone,
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("to_char", any(2, Volatility::Stable), Returns::Type(DataType::Utf8View), to_char),
        Simple::udf("to_timestamp", any_of(&[1, 2], Volatility::Stable), Returns::Type(types::timestamptz()), |call| {
            match call.arrays.len() {
                1 => from_epoch(call),
                _ => to_timestamp(call),
            }
        }),
        Simple::udf("to_date", any(2, Volatility::Immutable), Returns::Type(DataType::Date32), to_date),
    ]
}

/// Applies `each` to a row and its pattern; a pattern is taken apart once as long as it stays the same.
fn patterned<P, T>(
    patterns: &StringViewArray,
    parse: impl Fn(&str) -> Result<P, SqlError>,
    is_null: impl Fn(usize) -> bool,
    mut each: impl FnMut(usize, &P) -> Result<T, SqlError>,
) -> Result<Vec<Option<T>>, SqlError> {
    let mut known: Option<(String, P)> = None;
    let mut out = Vec::with_capacity(patterns.len());
    for row in 0..patterns.len() {
        if patterns.is_null(row) || is_null(row) {
            out.push(None);
            continue;
        }
        let text = patterns.value(row);
        let pattern = match known.take() {
            Some((same, pattern)) if same == text => (same, pattern),
            _ => (text.to_owned(), parse(text)?),
        };
        out.push(Some(each(row, &pattern.1)?));
        known = Some(pattern);
    }
    Ok(out)
}

fn strings(values: Vec<Option<String>>) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(values.len());
    for value in values {
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

fn to_char(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let patterns = call.text(1)?;
    let source = &call.arrays[0];
    let shown = |us: &TimestampMicrosecondArray, zone: Option<Zone>| {
        patterned(
            &patterns,
            Pattern::parse,
            |row| us.is_null(row),
            |row, pattern| {
                let us = us.value(row);
                let mut out = String::new();
                let local = zone.map_or(us, |zone| zone.to_local(us));
                pattern.write(local, zone.map(|zone| (zone, us)), &mut out)?;
                Ok(out)
            },
        )
    };
    let values = match source.data_type() {
        DataType::Timestamp(_, zoned) => {
            let us = call.cast(0, &DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?;
            let zone = if zoned.is_some() { Some(call.zone()?) } else { None };
            shown(us.as_primitive::<TimestampMicrosecondType>(), zone)?
        }
        // A date is shown as midnight in the session's zone.
        DataType::Date32 => {
            let zone = call.zone()?;
            let days = source.as_primitive::<Date32Type>();
            let us: TimestampMicrosecondArray = days.unary(|day| zone.to_instant(i64::from(day) * DAY_US));
            shown(&us, Some(zone))?
        }
        data_type if data_type.is_numeric() => {
            let number = number_pattern::reader(source)?;
            patterned(&patterns, NumberPattern::parse, |row| source.is_null(row), |row, pattern| number(row, pattern))?
        }
        DataType::Interval(_) => {
            let intervals = call.cast(0, &types::interval())?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
            patterned(
                &patterns,
                Pattern::parse,
                |row| intervals.is_null(row),
                |row, pattern| {
                    let mut out = String::new();
                    pattern.write_interval(intervals.value(row), &mut out)?;
                    Ok(out)
                },
            )?
        }
        DataType::Null => vec![None; call.rows],
        _ => {
            let name = types::name(&call.fields[0]);
            return Err(SqlError::not_supported(format!("to_char of type {name}")).into());
        }
    };
    Ok(strings(values))
}

fn readings(call: &Call<'_>) -> Result<Vec<Option<Reading>>, DataFusionError> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    Ok(patterned(&patterns, Pattern::parse, |row| texts.is_null(row), |row, pattern| pattern.read(texts.value(row)))?)
}

fn to_timestamp(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let session = call.zone()?;
    let instants = readings(call)?
        .into_iter()
        .map(|reading| reading.map(|reading| reading.offset.map_or(session, Zone::Fixed).to_instant(reading.local_us)));
    Ok(Arc::new(instants.collect::<TimestampMicrosecondArray>().with_timezone(UTC)))
}

fn to_date(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let days = readings(call)?
        .into_iter()
        .map(|reading| {
            reading
                .map(|reading| i32::try_from(reading.local_us.div_euclid(DAY_US)))
                .transpose()
                .map_err(|_| SqlError::new("22008", "date out of range"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(days.into_iter().collect::<Date32Array>()))
}

/// Seconds since 1970.
fn from_epoch(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let source = call.arrays[0].data_type();
    if !source.is_numeric() && !matches!(source, DataType::Null) {
        return Err(SqlError::new(
            "42883",
            format!("function to_timestamp({}) does not exist", types::name(&call.fields[0])),
        )
        .with_hint("A text is cast (x::timestamptz) or read by a pattern: to_timestamp(x, 'YYYY-MM-DD').")
        .into());
    }
    let seconds = call.cast(0, &DataType::Float64)?;
    let mut out = Vec::with_capacity(call.rows);
    for seconds in seconds.as_primitive::<Float64Type>() {
        out.push(match seconds {
            None => None,
            Some(seconds) if (seconds * 1e6).abs() < 9.2e18 => Some((seconds * 1e6).round_ties_even() as i64),
            Some(seconds) => {
                return Err(SqlError::new("22008", format!("timestamp out of range: \"{seconds}\"")).into());
            }
        });
    }
    Ok(Arc::new(out.into_iter().collect::<TimestampMicrosecondArray>().with_timezone(UTC)))
}
