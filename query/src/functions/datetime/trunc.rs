//! `date_trunc(field, x [, zone])`, in the session's zone (or the one given) for timestamptz.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray},
    datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType},
};
use chrono::{DateTime, Datelike, Days, Months, NaiveDate};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use tidemill_storage::schema::UTC;

use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any_of},
        zone::Zone,
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf("date_trunc", any_of(&[2, 3], Volatility::Stable), Returns::Of(returned), truncate)]
}

/// A date is taken as a timestamptz, as in PostgreSQL.
fn returned(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match arguments.get(1) {
        Some(DataType::Timestamp(_, None)) => types::timestamp(),
        Some(DataType::Timestamp(_, Some(_)) | DataType::Date32) => types::timestamptz(),
        Some(DataType::Interval(_)) => types::interval(),
        Some(DataType::Utf8 | DataType::Utf8View | DataType::Null) => types::timestamptz(),
        _ => {
            return Err(SqlError::new("42883", "function date_trunc of these types does not exist")
                .with_hint("It takes a unit and a timestamp, a date or an interval.")
                .into());
        }
    })
}

fn truncate(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let units = call.text(0)?;
    let source = &call.arrays[1];
    if let DataType::Interval(_) = source.data_type() {
        let intervals = call.cast(1, &types::interval())?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let mut out = Vec::with_capacity(call.rows);
        for (unit, value) in units.iter().zip(intervals.iter()) {
            out.push(match (unit, value) {
                (Some(unit), Some(value)) => Some(interval(unit, value)?),
                _ => None,
            });
        }
        return Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()));
    }
    let session = call.zone()?;
    let is_zoned = matches!(call.returns.data_type(), DataType::Timestamp(_, Some(_)));
    let zones = if call.arrays.len() == 3 { Some(call.text(2)?) } else { None };
    let times = match source.data_type() {
        DataType::Date32 => {
            let days = call.cast(1, &types::timestamp())?;
            let locals = days.as_primitive::<TimestampMicrosecondType>();
            locals.unary(|local| session.to_instant(local))
        }
        DataType::Timestamp(_, zone) => {
            let us = call.cast(1, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            us.as_primitive::<TimestampMicrosecondType>().clone()
        }
        _ => {
            let zoned = crate::functions::text_input::column(
                &call.text(1)?,
                &arrow::datatypes::Field::new("", types::timestamptz(), true),
                session,
                call.session(),
            )?;
            zoned.as_primitive::<TimestampMicrosecondType>().clone()
        }
    };
    // The unit and the zone are constant but for queries made to test this.
    let mut known: Option<(String, Unit)> = None;
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if units.is_null(row) || times.is_null(row) || zones.as_ref().is_some_and(|zones| zones.is_null(row)) {
            out.push(None);
            continue;
        }
        let text = units.value(row);
        let unit = match &known {
            Some((known, unit)) if known == text => *unit,
            _ => {
                let unit = Unit::parse(
                    text,
                    if is_zoned { "timestamp with time zone" } else { "timestamp without time zone" },
                )?;
                known = Some((text.to_owned(), unit));
                unit
            }
        };
        let zone = match &zones {
            Some(zones) => Zone::parse(zones.value(row))?,
            _ if is_zoned => session,
            _ => Zone::UTC,
        };
        let value =
            unit.floor(times.value(row), zone).ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?;
        out.push(Some(value));
    }
    let out: TimestampMicrosecondArray = out.into_iter().collect();
    Ok(Arc::new(if is_zoned { out.with_timezone(UTC) } else { out }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Of the clock, in microseconds; at most an hour.
    Clock(i64),
    Day,
    Week,
    /// Of the calendar, in months.
    Months(i32),
    Decade,
    Century,
    Millennium,
}

impl Unit {
    pub(crate) fn parse(text: &str, type_name: &str) -> Result<Self, SqlError> {
        Ok(match text.to_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" => Self::Clock(1),
            "millisecond" | "milliseconds" | "ms" | "msec" => Self::Clock(1000),
            "second" | "seconds" | "sec" | "s" => Self::Clock(1_000_000),
            "minute" | "minutes" | "min" | "m" => Self::Clock(60_000_000),
            "hour" | "hours" | "h" => Self::Clock(3_600_000_000),
            "day" | "days" | "d" => Self::Day,
            "week" | "weeks" | "w" => Self::Week,
            "month" | "months" | "mon" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" | "years" | "y" => Self::Months(12),
            "decade" | "decades" => Self::Decade,
            "century" | "centuries" => Self::Century,
            "millennium" | "millennia" => Self::Millennium,
            _ => {
                return Err(SqlError::invalid_parameter(format!(
                    "unit \"{text}\" not recognized for type {type_name}"
                )));
            }
        })
    }

    pub(crate) fn floor(self, us: i64, zone: Zone) -> Option<i64> {
        let local = zone.to_local(us);
        if let Self::Clock(size) = self {
            // Taken off the instant, so that an hour that happens twice stays the hour it is.
            return us.checked_sub(local.rem_euclid(size));
        }
        let day = local.div_euclid(DAY_US);
        if self == Self::Day {
            return Some(zone.to_instant(day * DAY_US));
        }
        let date = DateTime::from_timestamp(day * 86_400, 0)?.date_naive();
        let first = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1);
        let date = match self {
            Self::Week => date.checked_sub_days(Days::new(u64::from(date.weekday().num_days_from_monday())))?,
            Self::Months(12) => first(date.year())?,
            Self::Months(count) => {
                let month = date.month0() as i32 / count * count;
                NaiveDate::from_ymd_opt(date.year(), month as u32 + 1, 1)?
            }
            Self::Decade => first(date.year().div_euclid(10) * 10)?,
            Self::Century => first((date.year() - 1).div_euclid(100) * 100 + 1)?,
            _ => first((date.year() - 1).div_euclid(1000) * 1000 + 1)?,
        };
        let days = date.signed_duration_since(NaiveDate::default()).num_days();
        Some(zone.to_instant(days * DAY_US))
    }

    /// Where the next one of a wall clock begins, after the one that begins at `local`.
    pub(crate) fn next(self, local: i64) -> Option<i64> {
        let months = match self {
            Self::Clock(size) => return local.checked_add(size),
            Self::Day => return local.checked_add(DAY_US),
            Self::Week => return local.checked_add(7 * DAY_US),
            Self::Months(count) => count.unsigned_abs(),
            Self::Decade => 120,
            Self::Century => 1200,
            Self::Millennium => 12_000,
        };
        let date = DateTime::from_timestamp(local.div_euclid(DAY_US) * 86_400, 0)?.date_naive();
        let next = date.checked_add_months(Months::new(months))?;
        Some(next.signed_duration_since(NaiveDate::default()).num_days() * DAY_US)
    }

    /// Length and first multiple of one that has one length in UTC, in microseconds.
    pub(crate) fn fixed_length(self) -> Option<(i64, i64)> {
        match self {
            Self::Clock(size) => Some((size, 0)),
            Self::Day => Some((DAY_US, 0)),
            // 1970 began on a Thursday.
            Self::Week => Some((7 * DAY_US, 4 * DAY_US)),
            _ => None,
        }
    }
}

/// Length and first multiple of a unit that has one length in UTC, in microseconds.
pub(crate) fn fixed_length(unit: &str) -> Option<(i64, i64)> {
    Unit::parse(unit, "").ok()?.fixed_length()
}

fn interval(unit: &str, value: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let mut value = value;
    match Unit::parse(unit, "interval")? {
        Unit::Clock(us) => value.nanoseconds -= value.nanoseconds % (us * 1000),
        Unit::Week => return Err(SqlError::invalid_parameter("unit \"week\" not supported for type interval")),
        Unit::Day => value.nanoseconds = 0,
        unit => {
            let months = match unit {
                Unit::Months(count) => count,
                Unit::Decade => 120,
                Unit::Century => 1200,
                _ => 12_000,
            };
            value = IntervalMonthDayNano { months: value.months - value.months % months, days: 0, nanoseconds: 0 };
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_where_the_zone_says() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let cases = [
            ("day", "2026-07-01T23:30:00Z", "2026-07-02T00:00:00+02:00"),
            ("hour", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z"),
            ("hour", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z"),
            ("week", "2026-07-05T12:00:00Z", "2026-06-29T00:00:00+02:00"),
            ("quarter", "2026-08-15T12:00:00Z", "2026-07-01T00:00:00+02:00"),
            ("century", "2026-08-15T12:00:00Z", "2001-01-01T00:00:00+01:00"),
        ];
        for (unit, given, wanted) in cases {
            assert_eq!(Unit::parse(unit, "").unwrap().floor(at(given), berlin), Some(at(wanted)), "{unit} {given}");
        }
    }

    #[test]
    fn units_of_one_length_are_those_multiples() {
        for unit in ["us", "ms", "second", "minute", "hour", "day", "week"] {
            let (width, origin) = fixed_length(unit).unwrap();
            for us in [0, -1, 1_785_000_123_456_789, -99_999_999_999_999] {
                let floor = origin + (us - origin).div_euclid(width) * width;
                assert_eq!(Unit::parse(unit, "").unwrap().floor(us, Zone::UTC), Some(floor), "{unit} {us}");
            }
        }
        assert_eq!(fixed_length("month"), None);
    }
}
