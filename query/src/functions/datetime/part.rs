//! `extract(field FROM x)` and `date_part('field', x)`: numeric and double, in the session's zone for timestamptz.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, Decimal128Array, Float64Array},
    datatypes::{
        DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
        TimeUnit, TimestampMicrosecondType,
    },
};
use chrono::{DateTime, Datelike};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility},
    scalar::ScalarValue,
};

use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any},
        zone::Zone,
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;
/// Parts are computed as millionths.
const SCALE: i8 = 6;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        extract(),
        Simple::aliased(
            "date_part",
            &["datepart"],
            any(2, Volatility::Stable),
            Returns::Type(DataType::Float64),
            |call| {
                let parts = parts(call)?.into_iter().map(|part| part.map(|millionths| millionths as f64 / 1e6));
                Ok(Arc::new(parts.collect::<Float64Array>()))
            },
        ),
    ]
}

pub(crate) fn extract() -> Arc<ScalarUDF> {
    Simple::udf("extract", any(2, Volatility::Stable), Returns::Field(extracted), |call| {
        let DataType::Decimal128(precision, scale) = *call.returns.data_type() else {
            return Err(DataFusionError::Internal("extract gives numeric".to_owned()));
        };
        let divisor = 10i128.pow(u32::try_from(SCALE - scale).unwrap_or(0));
        let parts = parts(call)?.into_iter().map(|part| part.map(|millionths| i128::from(millionths) / divisor));
        let parts: Decimal128Array = parts.collect();
        Ok(Arc::new(parts.with_precision_and_scale(precision, scale)?))
    })
}

/// As many decimals as PostgreSQL shows: six for seconds and the epoch, three for milliseconds, none for whole fields.
fn extracted(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let name = match args.scalar_arguments.first() {
        Some(Some(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)))) => name.to_lowercase(),
        _ => String::new(),
    };
    let scale = match name.as_str() {
        "second" | "seconds" | "sec" | "s" | "epoch" | "julian" | "" => SCALE,
        "millisecond" | "milliseconds" | "ms" | "msec" => 3,
        _ => 0,
    };
    Ok(Arc::new(Field::new("extract", DataType::Decimal128(26, scale), true)))
}

/// The part of that name of the value in a row.
type ReadPart = Box<dyn Fn(usize, &str) -> Result<i64, SqlError>>;

fn parts(call: &Call<'_>) -> Result<Vec<Option<i64>>, DataFusionError> {
    let names = call.text(0)?;
    let source = &call.arrays[1];
    let zone = call.zone()?;
    let read: ReadPart = match source.data_type() {
        DataType::Date32 => {
            let days = source.as_primitive::<Date32Type>().clone();
            Box::new(move |row, name| of_clock(name, i64::from(days.value(row)) * DAY_US, None))
        }
        DataType::Timestamp(_, zoned) => {
            let is_zoned = zoned.is_some();
            let us = call.cast(1, &DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?;
            let us = us.as_primitive::<TimestampMicrosecondType>().clone();
            Box::new(move |row, name| of_clock(name, us.value(row), is_zoned.then_some(zone)))
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let intervals = call.cast(1, &types::interval())?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>().clone();
            Box::new(move |row, name| of_interval(name, intervals.value(row)))
        }
        DataType::Time64(_) | DataType::Time32(_) => {
            let us = call.cast(1, &DataType::Time64(TimeUnit::Microsecond))?;
            let us = us.as_primitive::<Time64MicrosecondType>().clone();
            Box::new(move |row, name| of_clock(name, us.value(row), None))
        }
        DataType::Null => return Ok(vec![None; call.rows]),
        other => {
            let field = Field::new("", other.clone(), true);
            return Err(SqlError::new(
                "42883",
                format!("function pg_catalog.extract(unknown, {}) does not exist", types::name(&field)),
            )
            .into());
        }
    };
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let present = names.is_valid(row) && source.is_valid(row);
        out.push(if present { Some(read(row, &names.value(row).to_lowercase())?) } else { None });
    }
    Ok(out)
}

fn unknown(name: &str, type_name: &str) -> SqlError {
    SqlError::invalid_parameter(format!("unit \"{name}\" not recognized for type {type_name}"))
}

/// Millionths of the named field. `us` is an instant where there is a zone, else a wall clock.
fn of_clock(name: &str, us: i64, zone: Option<Zone>) -> Result<i64, SqlError> {
    let type_name = if zone.is_some() { "timestamp with time zone" } else { "timestamp without time zone" };
    let offset = zone.map_or(0, |zone| zone.offset_at(us));
    if name == "epoch" {
        return Ok(us);
    }
    let local = us + i64::from(offset) * 1_000_000;
    let in_day = local.rem_euclid(DAY_US);
    let date = DateTime::from_timestamp(local.div_euclid(DAY_US) * 86_400, 0)
        .ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?
        .date_naive();
    let year = i64::from(date.year());
    let whole = match name {
        "second" | "seconds" | "sec" | "s" => return Ok(in_day % 60_000_000),
        "millisecond" | "milliseconds" | "ms" | "msec" => return Ok(in_day % 60_000_000 * 1000),
        "microsecond" | "microseconds" | "us" | "usec" => in_day % 60_000_000,
        "minute" | "minutes" | "min" | "m" => in_day / 60_000_000 % 60,
        "hour" | "hours" | "h" => in_day / 3_600_000_000,
        "day" | "days" | "d" => i64::from(date.day()),
        "month" | "months" | "mon" => i64::from(date.month()),
        "quarter" => i64::from(date.month0() / 3 + 1),
        "year" | "years" | "y" => {
            if year > 0 {
                year
            } else {
                year - 1
            }
        }
        "isoyear" => i64::from(date.iso_week().year()),
        "week" | "weeks" | "w" => i64::from(date.iso_week().week()),
        "dow" => i64::from(date.weekday().num_days_from_sunday()),
        "isodow" => i64::from(date.weekday().number_from_monday()),
        "doy" => i64::from(date.ordinal()),
        "decade" => year.div_euclid(10),
        "century" => {
            if year > 0 {
                (year + 99) / 100
            } else {
                -((-year) / 100 + 1)
            }
        }
        "millennium" => {
            if year > 0 {
                (year + 999) / 1000
            } else {
                -((-year) / 1000 + 1)
            }
        }
        "julian" => {
            let days = local.div_euclid(DAY_US) + 2_440_588;
            return Ok(days * 1_000_000 + (in_day as f64 / DAY_US as f64 * 1e6).round() as i64);
        }
        "timezone" if zone.is_some() => i64::from(offset),
        "timezone_hour" if zone.is_some() => i64::from(offset / 3600),
        "timezone_minute" if zone.is_some() => i64::from(offset / 60 % 60),
        _ => return Err(unknown(name, type_name)),
    };
    Ok(whole * 1_000_000)
}

fn of_interval(name: &str, value: IntervalMonthDayNano) -> Result<i64, SqlError> {
    let us = value.nanoseconds / 1000;
    let months = i64::from(value.months);
    let whole = match name {
        "epoch" => {
            // A year is 365.25 days, a month beyond whole years 30.
            let days = (months / 12 * 1461 * DAY_US / 4) + months % 12 * 30 * DAY_US + i64::from(value.days) * DAY_US;
            return Ok(days + us);
        }
        "second" | "seconds" | "sec" | "s" => return Ok(us % 60_000_000),
        "millisecond" | "milliseconds" | "ms" => return Ok(us % 60_000_000 * 1000),
        "microsecond" | "microseconds" | "us" => us % 60_000_000,
        "minute" | "minutes" | "min" | "m" => us / 60_000_000 % 60,
        "hour" | "hours" | "h" => us / 3_600_000_000,
        "day" | "days" | "d" => i64::from(value.days),
        "month" | "months" | "mon" => months % 12,
        "quarter" => months % 12 / 3 + 1,
        "year" | "years" | "y" => months / 12,
        "decade" => months / 120,
        "century" => months / 1200,
        "millennium" => months / 12_000,
        _ => return Err(unknown(name, "interval")),
    };
    Ok(whole * 1_000_000)
}
