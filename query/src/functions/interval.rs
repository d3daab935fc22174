//! Arithmetic of dates, timestamps and intervals where DataFusion's differs or has none.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int32Array, IntervalMonthDayNanoArray,
        TimestampMicrosecondArray,
    },
    datatypes::{
        DataType, Date32Type, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
        TimestampMicrosecondType,
    },
};
use chrono::{DateTime, Months};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use tidemill_storage::schema::UTC;

use super::{
    simple::{Call, Returns, Simple, any},
    zone::Zone,
};
use crate::{SqlError, rules::types};

const DAY_US: i64 = 86_400_000_000;
const DAY_NS: f64 = 86_400e9;

/// The type of what intervals are compared by.
pub(crate) const KEY: DataType = DataType::Decimal128(38, 0);

/// Intervals as nanoseconds: two are equal, or one is more than the other, as these are. A month is 30 days, a day 24 hours.
pub(crate) fn keys(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let intervals = call.cast(0, &types::interval())?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let keys = intervals.iter().map(|interval| interval.map(length));
    Ok(Arc::new(keys.collect::<Decimal128Array>().with_precision_and_scale(38, 0)?))
}

/// Nanoseconds.
pub(crate) fn length(interval: IntervalMonthDayNano) -> i128 {
    let IntervalMonthDayNano { months, days, nanoseconds } = interval;
    let days = i128::from(months) * 30 + i128::from(days);
    days * i128::from(DAY_US) * 1000 + i128::from(nanoseconds)
}

/// interval × double: months and days that come out broken are carried down (a month is 30 days, a day 24 hours).
pub(crate) fn scale() -> Arc<ScalarUDF> {
    Simple::udf("interval_multiply", any(2, Volatility::Immutable), Returns::Type(types::interval()), |call| {
        scaled(call, multiplied)
    })
}

pub(crate) fn divide() -> Arc<ScalarUDF> {
    Simple::udf("interval_divide", any(2, Volatility::Immutable), Returns::Type(types::interval()), |call| {
        scaled(call, |value, factor| {
            if factor == 0.0 {
                return Err(SqlError::division_by_zero());
            }
            multiplied(value, 1.0 / factor)
        })
    })
}

fn scaled(
    call: &Call<'_>,
    each: impl Fn(IntervalMonthDayNano, f64) -> Result<IntervalMonthDayNano, SqlError>,
) -> Result<ArrayRef, DataFusionError> {
    let intervals = call.cast(0, &types::interval())?;
    let factors = call.cast(1, &DataType::Float64)?;
    let (intervals, factors) =
        (intervals.as_primitive::<IntervalMonthDayNanoType>(), factors.as_primitive::<Float64Type>());
    let mut out = Vec::with_capacity(call.rows);
    for (interval, factor) in intervals.iter().zip(factors.iter()) {
        out.push(match (interval, factor) {
            (Some(interval), Some(factor)) => Some(each(interval, factor)?),
            _ => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()))
}

fn multiplied(value: IntervalMonthDayNano, factor: f64) -> Result<IntervalMonthDayNano, SqlError> {
    let months = f64::from(value.months) * factor;
    let days = f64::from(value.days) * factor;
    let whole_months = months.trunc();
    let mut whole_days = days.trunc();
    // Rounded to microseconds first, so that 1.1 × 30 does not leave crumbs.
    let carried = ((months - whole_months) * 30.0 * 1e6).round() / 1e6;
    whole_days += carried.trunc();
    let crumbs = ((days - days.trunc() + carried - carried.trunc()) * DAY_NS / 1000.0).round() * 1000.0;
    let nanoseconds = (value.nanoseconds as f64 * factor / 1000.0).round() * 1000.0 + crumbs;
    let fits = whole_months.abs() <= f64::from(i32::MAX)
        && whole_days.abs() <= f64::from(i32::MAX)
        && nanoseconds.abs() < 9.2e18;
    if !fits {
        return Err(SqlError::new("22008", "interval out of range"));
    }
    Ok(IntervalMonthDayNano { months: whole_months as i32, days: whole_days as i32, nanoseconds: nanoseconds as i64 })
}

/// date ± integer.
pub(crate) fn date_add_days() -> Arc<ScalarUDF> {
    Simple::udf("date_add_days", any(2, Volatility::Immutable), Returns::Type(DataType::Date32), |call| {
        let days = call.cast(1, &DataType::Int64)?;
        let (dates, days) = (call.arrays[0].as_primitive::<Date32Type>(), days.as_primitive::<Int64Type>());
        let mut out = Vec::with_capacity(call.rows);
        for (date, days) in dates.iter().zip(days.iter()) {
            out.push(match (date, days) {
                (Some(date), Some(days)) => Some(
                    i64::from(date)
                        .checked_add(days)
                        .and_then(|sum| i32::try_from(sum).ok())
                        .ok_or_else(|| SqlError::new("22008", "date out of range"))?,
                ),
                _ => None,
            });
        }
        Ok(Arc::new(out.into_iter().collect::<Date32Array>()))
    })
}

/// date − date, in days.
pub(crate) fn date_difference() -> Arc<ScalarUDF> {
    Simple::udf("date_difference", any(2, Volatility::Immutable), Returns::Type(DataType::Int32), |call| {
        let (a, b) = (call.arrays[0].as_primitive::<Date32Type>(), call.arrays[1].as_primitive::<Date32Type>());
        let days: Int32Array = arrow::compute::try_binary(a, b, |a, b| {
            a.checked_sub(b).ok_or_else(|| SqlError::out_of_range("integer").into())
        })?;
        Ok(Arc::new(days))
    })
}

/// timestamp − timestamp: days and a time of day.
pub(crate) fn timestamp_difference() -> Arc<ScalarUDF> {
    Simple::udf("timestamp_difference", any(2, Volatility::Immutable), Returns::Type(types::interval()), |call| {
        let (a, b) = (micros(call, 0)?, micros(call, 1)?);
        let mut out = Vec::with_capacity(call.rows);
        for (a, b) in a.iter().zip(b.iter()) {
            out.push(match (a, b) {
                (Some(a), Some(b)) => {
                    let us = a.checked_sub(b).ok_or_else(|| SqlError::new("22008", "interval out of range"))?;
                    Some(IntervalMonthDayNano {
                        months: 0,
                        days: (us / DAY_US) as i32,
                        nanoseconds: us % DAY_US * 1000,
                    })
                }
                _ => None,
            });
        }
        Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()))
    })
}

fn micros(call: &Call<'_>, index: usize) -> Result<TimestampMicrosecondArray, DataFusionError> {
    let zone = match call.arrays[index].data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = call.cast(index, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(array.as_primitive::<TimestampMicrosecondType>().clone())
}

/// timestamp[tz] + interval: months and days go by the calendar of the session's zone, the rest by the clock.
pub(crate) fn timestamp_add() -> Arc<ScalarUDF> {
    Simple::udf("timestamp_add", any(2, Volatility::Stable), Returns::Of(same_timestamp), |call| moved(call, 1))
}

/// timestamp[tz] − interval.
pub(crate) fn timestamp_subtract() -> Arc<ScalarUDF> {
    Simple::udf("timestamp_subtract", any(2, Volatility::Stable), Returns::Of(same_timestamp), |call| moved(call, -1))
}

fn same_timestamp(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match arguments.first() {
        Some(DataType::Timestamp(_, Some(_))) => types::timestamptz(),
        _ => types::timestamp(),
    })
}

fn moved(call: &Call<'_>, sign: i64) -> Result<ArrayRef, DataFusionError> {
    let is_zoned = matches!(call.returns.data_type(), DataType::Timestamp(_, Some(_)));
    let zone = if is_zoned { call.zone()? } else { Zone::UTC };
    let times = micros(call, 0)?;
    let intervals = call.cast(1, &types::interval())?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let mut out = Vec::with_capacity(call.rows);
    for (time, interval) in times.iter().zip(intervals.iter()) {
        out.push(match (time, interval) {
            (Some(time), Some(interval)) => {
                Some(add(time, interval, sign, zone).ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?)
            }
            _ => None,
        });
    }
    let out: TimestampMicrosecondArray = out.into_iter().collect();
    Ok(Arc::new(if is_zoned { out.with_timezone(UTC) } else { out }))
}

pub(crate) fn add(us: i64, interval: IntervalMonthDayNano, sign: i64, zone: Zone) -> Option<i64> {
    let mut us = us;
    if interval.months != 0 || interval.days != 0 {
        let mut local = zone.to_local(us);
        if interval.months != 0 {
            let date = DateTime::from_timestamp(local.div_euclid(DAY_US) * 86_400, 0)?.date_naive();
            let months = i64::from(interval.months) * sign;
            let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
            let date = if months >= 0 { date.checked_add_months(count)? } else { date.checked_sub_months(count)? };
            let days = date.signed_duration_since(chrono::NaiveDate::default()).num_days();
            local = days.checked_mul(DAY_US)?.checked_add(local.rem_euclid(DAY_US))?;
        }
        local = local.checked_add(i64::from(interval.days).checked_mul(DAY_US)?.checked_mul(sign)?)?;
        us = zone.to_instant(local);
    }
    us.checked_add(sign.checked_mul(interval.nanoseconds / 1000)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_end_where_the_month_ends() {
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let month = IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 };
        assert_eq!(add(at("2026-01-31T10:00:00Z"), month, 1, Zone::UTC), Some(at("2026-02-28T10:00:00Z")));
        let day = IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 0 };
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        // The clock says the same a day later, though the day has 23 hours.
        assert_eq!(add(at("2026-03-28T12:00:00+01:00"), day, 1, berlin), Some(at("2026-03-29T12:00:00+02:00")));
    }

    #[test]
    fn fractions_are_carried_down() {
        let month = IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 };
        let half = multiplied(month, 0.5).unwrap();
        assert_eq!((half.months, half.days, half.nanoseconds), (0, 15, 0));
        let minutes = IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 300_000_000_000 };
        assert_eq!(multiplied(minutes, 7.0).unwrap().nanoseconds, 2_100_000_000_000);
    }
}
