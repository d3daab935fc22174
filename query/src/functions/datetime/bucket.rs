//! `time_bucket(width, at [, origin | offset | zone])`, as TimescaleDB has it: `date_bin` with an origin of its own, months and time zones.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray},
    datatypes::{DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType},
};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};

use super::bin::{argument, length_us, out_of_range};
use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any_of},
        zone::Zone,
    },
    rules::types,
};

pub(crate) const TIME_BUCKET: &str = "time_bucket";

const DAY_US: i64 = 86_400_000_000;

/// Buckets of days and less begin on Monday 2000-01-03, so that those of seven days are weeks.
pub(crate) const ORIGIN_US: i64 = 10_959 * DAY_US;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf(TIME_BUCKET, any_of(&[2, 3], Volatility::Stable), Returns::Of(returned), bucket)]
}

fn returned(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match arguments.get(1) {
        Some(DataType::Timestamp(_, None)) => types::timestamp(),
        Some(DataType::Timestamp(_, Some(_)) | DataType::Null) => types::timestamptz(),
        Some(DataType::Date32) => DataType::Date32,
        _ => {
            return Err(SqlError::new("42883", "function time_bucket of these types does not exist")
                .with_hint("It takes an interval and a timestamp or a date.")
                .into());
        }
    })
}

/// What the third argument says about one row.
#[derive(Clone, Copy)]
struct Shift {
    /// Where some bucket begins: a wall clock, or an instant without a zone.
    origin: Option<i64>,
    /// Added to where buckets begin.
    offset: i64,
    zone: Zone,
}

fn bucket(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let is_date = *call.returns.data_type() == DataType::Date32;
    let clock = if is_date { types::timestamp() } else { call.returns.data_type().clone() };
    let widths = argument(call, 0, &types::interval())?;
    let widths = widths.as_primitive::<IntervalMonthDayNanoType>();
    let moments = match call.arrays[1].data_type() {
        DataType::Date32 => {
            let days = call.arrays[1].as_primitive::<Date32Type>();
            days.unary::<_, TimestampMicrosecondType>(|day| i64::from(day) * DAY_US)
        }
        _ => call.cast(1, &clock)?.as_primitive::<TimestampMicrosecondType>().clone(),
    };
    let shifts = shifts(call, &clock)?;
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let shift = shifts.as_ref().map_or(Some(UNSHIFTED), |shifts| shifts.get(row).copied().flatten());
        out.push(match shift {
            Some(shift) if widths.is_valid(row) && moments.is_valid(row) => {
                let width = widths.value(row);
                if is_date && width.nanoseconds != 0 {
                    let message = "interval must not have sub-day precision";
                    return Err(SqlError::invalid_parameter(message).into());
                }
                Some(begin(width, moments.value(row), shift)?)
            }
            _ => None,
        });
    }
    if is_date {
        let days = out.into_iter().map(|us| us.map(|us| i32::try_from(us.div_euclid(DAY_US))).transpose());
        let days = days.collect::<Result<Date32Array, _>>().map_err(|_| SqlError::new("22008", "date out of range"))?;
        return Ok(Arc::new(days));
    }
    let zone = if let DataType::Timestamp(_, zone) = &clock { zone.clone() } else { None };
    Ok(Arc::new(out.into_iter().collect::<TimestampMicrosecondArray>().with_timezone_opt(zone)))
}

const UNSHIFTED: Shift = Shift { origin: None, offset: 0, zone: Zone::UTC };

/// The third argument by row; `None` where there is none, an item of `None` where it is null.
fn shifts(call: &Call<'_>, clock: &DataType) -> Result<Option<Vec<Option<Shift>>>, DataFusionError> {
    let Some(third) = call.arrays.get(2) else { return Ok(None) };
    if let DataType::Interval(_) = third.data_type() {
        let offsets = call.cast(2, &types::interval())?;
        let each = offsets.as_primitive::<IntervalMonthDayNanoType>().iter().map(|offset| {
            let Some(offset) = offset else { return Ok(None) };
            let days = i64::from(offset.days).checked_mul(DAY_US);
            let us = days.and_then(|days| days.checked_add(offset.nanoseconds / 1000)).ok_or_else(out_of_range)?;
            match offset.months {
                0 => Ok(Some(Shift { offset: us, ..UNSHIFTED })),
                _ => Err(SqlError::not_supported("an offset of months or years")),
            }
        });
        return Ok(Some(each.collect::<Result<_, SqlError>>()?));
    }
    // A name of a zone; any other text is an origin.
    if types::is_text(third.data_type()) && matches!(clock, DataType::Timestamp(_, Some(_))) {
        let each = call.text(2)?;
        let zones: Option<Vec<Option<Shift>>> = each
            .iter()
            .map(|name| match name {
                None => Some(None),
                Some(name) => Zone::parse(name).ok().map(|zone| Some(Shift { zone, ..UNSHIFTED })),
            })
            .collect();
        if zones.is_some() {
            return Ok(zones);
        }
    }
    let origins = argument(call, 2, clock)?;
    let origins = origins.as_primitive::<TimestampMicrosecondType>().iter();
    Ok(Some(origins.map(|origin| origin.map(|origin| Shift { origin: Some(origin), ..UNSHIFTED })).collect()))
}

/// Where the bucket of a moment begins.
fn begin(width: IntervalMonthDayNano, us: i64, shift: Shift) -> Result<i64, SqlError> {
    let local = shift.zone.to_local(us);
    let moved = local.checked_sub(shift.offset).ok_or_else(out_of_range)?;
    let begins = match width.months {
        0 => {
            let (width, origin) = (length_us(width)?, shift.origin.unwrap_or(ORIGIN_US));
            super::rounding::floor(moved, width, origin).ok_or_else(out_of_range)?
        }
        months if months > 0 && width.days == 0 && width.nanoseconds == 0 => of_months(months, moved, shift.origin)?,
        months if months > 0 => {
            return Err(SqlError::invalid_parameter("month intervals cannot have day or time component"));
        }
        _ => return Err(SqlError::new("22008", "stride must be greater than zero")),
    };
    let begins = begins.checked_add(shift.offset).ok_or_else(out_of_range)?;
    Ok(shift.zone.to_instant(begins))
}

/// Buckets of months begin with a month: that of the origin, or January 2000.
fn of_months(months: i32, us: i64, origin: Option<i64>) -> Result<i64, SqlError> {
    let date = |us: i64| DateTime::from_timestamp(us.div_euclid(DAY_US) * 86_400, 0).map(|time| time.date_naive());
    let number = |date: NaiveDate| date.year() * 12 + date.month0() as i32;
    let first = match origin {
        None => 2000 * 12,
        Some(origin) => {
            let day = date(origin).ok_or_else(out_of_range)?;
            if day.day() != 1 || origin.rem_euclid(DAY_US) != 0 {
                return Err(SqlError::invalid_parameter("origin must be the first day of a month"));
            }
            number(day)
        }
    };
    let month = number(date(us).ok_or_else(out_of_range)?);
    let begins = first.checked_add((month - first).div_euclid(months).checked_mul(months).ok_or_else(out_of_range)?);
    let begins = begins.ok_or_else(out_of_range)?;
    let day = NaiveDate::from_ymd_opt(begins.div_euclid(12), begins.rem_euclid(12) as u32 + 1, 1);
    let days = day.ok_or_else(out_of_range)?.signed_duration_since(NaiveDate::default()).num_days();
    days.checked_mul(DAY_US).ok_or_else(out_of_range)
}
