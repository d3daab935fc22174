//! Moments from their parts, and whether periods overlap: `make_time`, `make_timestamp`, `make_timestamptz`, `isfinite`, `overlaps`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Time64MicrosecondArray, TimestampMicrosecondArray},
    datatypes::{
        DataType, Date32Type, Field, Float64Type, Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit,
        TimestampMicrosecondType,
    },
};
use chrono::NaiveDate;
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ScalarUDF,
        Volatility::{Immutable, Stable},
    },
};
use tidemill_storage::schema::UTC;

use crate::{
    SqlError,
    functions::{
        interval,
        simple::{Call, Returns, Simple, any, any_of},
        text_input,
        zone::Zone,
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("make_timestamp", any(6, Immutable), Returns::Type(types::timestamp()), |call| {
            Ok(Arc::new(made(call, |local, _| Ok(local))?))
        }),
        Simple::udf("make_time", any(3, Immutable), Returns::Type(DataType::Time64(TimeUnit::Microsecond)), |call| {
            let part = |index| -> Result<_, DataFusionError> {
                Ok(call.cast(index, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            };
            let (hours, minutes) = (part(0)?, part(1)?);
            let seconds = call.cast(2, &DataType::Float64)?;
            let seconds = seconds.as_primitive::<Float64Type>();
            let rows = (0..call.rows).map(|row| {
                if hours.is_null(row) || minutes.is_null(row) || seconds.is_null(row) {
                    return Ok(None);
                }
                clock(hours.value(row), minutes.value(row), seconds.value(row)).map(Some)
            });
            Ok(Arc::new(rows.collect::<Result<Time64MicrosecondArray, SqlError>>()?))
        }),
        Simple::udf("make_timestamptz", any_of(&[6, 7], Stable), Returns::Type(types::timestamptz()), |call| {
            let session = call.zone()?;
            let zones = if call.arrays.len() == 7 { Some(call.text(6)?) } else { None };
            let instants = made(call, |local, row| {
                let zone = match &zones {
                    Some(zones) if zones.is_valid(row) => Zone::parse(zones.value(row))?,
                    _ => session,
                };
                Ok(zone.to_instant(local))
            })?;
            Ok(Arc::new(instants.with_timezone(UTC)))
        }),
        // Values here are finite, all of them.
        Simple::udf("isfinite", any(1, Immutable), Returns::Type(DataType::Boolean), |call| {
            let nulls = call.arrays[0].logical_nulls();
            let truths = (0..call.rows).map(|row| nulls.as_ref().is_none_or(|n| n.is_valid(row)).then_some(true));
            Ok(Arc::new(truths.collect::<BooleanArray>()))
        }),
        Simple::udf("overlaps", any(4, Stable), Returns::Type(DataType::Boolean), overlaps),
    ]
}

fn made(
    call: &Call<'_>,
    place: impl Fn(i64, usize) -> Result<i64, SqlError>,
) -> Result<TimestampMicrosecondArray, DataFusionError> {
    let whole = (0..5)
        .map(|index| Ok(call.cast(index, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    let seconds = call.cast(5, &DataType::Float64)?;
    let seconds = seconds.as_primitive::<Float64Type>();
    let rows = (0..call.rows).map(|row| {
        if whole.iter().any(|part| part.is_null(row))
            || seconds.is_null(row)
            || call.arrays.iter().any(|a| a.is_null(row))
        {
            return Ok(None);
        }
        let [year, month, day, hour, minute] = [0, 1, 2, 3, 4].map(|index| whole[index].value(row));
        let local = wall_clock([year, month, day, hour, minute], seconds.value(row))?;
        place(local, row).map(Some)
    });
    Ok(rows.collect::<Result<TimestampMicrosecondArray, SqlError>>()?)
}

/// Microseconds of the wall clock.
fn wall_clock(parts: [i64; 5], seconds: f64) -> Result<i64, SqlError> {
    let [year, month, day, hour, minute] = parts;
    let out_of_range = || SqlError::new("22008", format!("date field value out of range: {year}-{month:02}-{day:02}"));
    let calendar_year = if year < 0 { year + 1 } else { year };
    if year == 0 {
        return Err(out_of_range());
    }
    let part = |value: i64| u32::try_from(value).ok();
    let date = i32::try_from(calendar_year)
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, part(month)?, part(day)?))
        .ok_or_else(out_of_range)?;
    let us = clock(hour, minute, seconds)?;
    let days = date.signed_duration_since(NaiveDate::default()).num_days();
    days.checked_mul(DAY_US).and_then(|start| start.checked_add(us)).ok_or_else(out_of_range)
}

/// Microseconds of the day; a minute may have a sixtieth second, and the day end at 24:00.
fn clock(hour: i64, minute: i64, seconds: f64) -> Result<i64, SqlError> {
    let is_midnight = hour == 24 && minute == 0 && seconds == 0.0;
    if !is_midnight && (!(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&seconds)) {
        return Err(SqlError::new("22008", format!("time field value out of range: {hour}:{minute:02}:{seconds}")));
    }
    Ok((hour * 60 + minute) * 60_000_000 + (seconds * 1e6).round() as i64)
}

/// `overlaps(start, end, start, end)`; an end may be an interval from its start. Ends belong to no period, but for one of no length.
fn overlaps(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let zone = call.zone()?;
    let starts = [moments(call, 0, zone)?, moments(call, 2, zone)?];
    let ends = [ends(call, 1, &starts[0], zone)?, ends(call, 3, &starts[1], zone)?];
    let rows = (0..call.rows).map(|row| {
        let of = |side: usize| (starts[side][row], ends[side][row]);
        period_overlap(of(0), of(1))
    });
    Ok(Arc::new(rows.collect::<BooleanArray>()))
}

type Period = (Option<i64>, Option<i64>);

/// In three-valued logic, as the standard has it.
fn period_overlap(one: Period, other: Period) -> Option<bool> {
    // NULL first goes behind; the greater of two goes behind.
    let ordered = |(start, end): Period| match (start, end) {
        (Some(start), Some(end)) if start > end => (Some(end), Some(start)),
        (None, end) => (end, None),
        both => both,
    };
    let ((s1, e1), (s2, e2)) = (ordered(one), ordered(other));
    let (s1, s2) = (s1?, s2?);
    let open = |start: i64, end: Option<i64>| match end {
        Some(end) => (start < end).then_some(true).or(Some(false)),
        None => None,
    };
    match s1.cmp(&s2) {
        std::cmp::Ordering::Greater => match open(s1, e2) {
            Some(true) => Some(true),
            None => None,
            Some(false) => Some(false),
        },
        std::cmp::Ordering::Less => match open(s2, e1) {
            Some(true) => Some(true),
            None => None,
            Some(false) => Some(false),
        },
        std::cmp::Ordering::Equal => (e1.is_some() && e2.is_some()).then_some(true),
    }
}

type Moments = Vec<Option<i64>>;

/// Argument `index` as microseconds, all in one scale: times of the day, or instants of the session's zone.
fn moments(call: &Call<'_>, index: usize, zone: Zone) -> Result<Moments, DataFusionError> {
    let array = &call.arrays[index];
    Ok(match array.data_type() {
        DataType::Date32 => array
            .as_primitive::<Date32Type>()
            .iter()
            .map(|day| day.map(|day| zone.to_instant(i64::from(day).saturating_mul(DAY_US))))
            .collect(),
        DataType::Timestamp(_, None) => {
            let local = call.cast(index, &types::timestamp())?;
            local.as_primitive::<TimestampMicrosecondType>().iter().map(|us| us.map(|us| zone.to_instant(us))).collect()
        }
        DataType::Timestamp(..) => {
            let instants = call.cast(index, &types::timestamptz())?;
            instants.as_primitive::<TimestampMicrosecondType>().iter().collect()
        }
        DataType::Time64(_) | DataType::Time32(_) => {
            let times = call.cast(index, &DataType::Time64(TimeUnit::Microsecond))?;
            times.as_primitive::<Time64MicrosecondType>().iter().collect()
        }
        DataType::Null => vec![None; call.rows],
        data_type if types::is_text(data_type) => {
            let target = Field::new("", types::timestamptz(), true);
            let instants = text_input::column(&call.text(index)?, &target, zone, call.session())?;
            instants.as_primitive::<TimestampMicrosecondType>().iter().collect()
        }
        _ => {
            return Err(SqlError::new("42883", "OVERLAPS takes dates, times and timestamps").into());
        }
    })
}

fn ends(call: &Call<'_>, index: usize, starts: &Moments, zone: Zone) -> Result<Moments, DataFusionError> {
    if !matches!(call.arrays[index].data_type(), DataType::Interval(_)) {
        return moments(call, index, zone);
    }
    let lengths = call.cast(index, &types::interval())?;
    let lengths = lengths.as_primitive::<IntervalMonthDayNanoType>();
    Ok(starts.iter().zip(lengths.iter()).map(|(start, length)| interval::add((*start)?, length?, 1, zone)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_overlap_as_in_postgresql_15() {
        let some = |start, end| (Some(start), Some(end));
        assert_eq!(period_overlap(some(1, 3), some(2, 4)), Some(true));
        assert_eq!(period_overlap(some(1, 2), some(2, 4)), Some(false));
        assert_eq!(period_overlap(some(2, 2), some(2, 4)), Some(true));
        assert_eq!(period_overlap(some(4, 2), some(3, 3)), Some(true));
        assert_eq!(period_overlap((Some(1), None), some(2, 4)), None);
        assert_eq!(period_overlap((None, None), some(2, 4)), None);
    }

    #[test]
    fn clocks_from_parts() {
        assert_eq!(wall_clock([1970, 1, 1, 0, 0], 1.5).unwrap(), 1_500_000);
        assert_eq!(wall_clock([1970, 1, 1, 24, 0], 0.0).unwrap(), DAY_US);
        assert!(wall_clock([2024, 2, 30, 0, 0], 0.0).is_err());
        assert!(wall_clock([2024, 2, 1, 25, 0], 0.0).is_err());
    }
}
