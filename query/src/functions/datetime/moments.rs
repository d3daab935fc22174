//! `timezone` (which `AT TIME ZONE` is), `age`, `justify_hours` and its kin, `make_interval`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray},
    datatypes::{
        DataType, Date32Type, Field, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
        TimestampMicrosecondType,
    },
};
use chrono::{DateTime, Datelike};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use tidemill_storage::schema::UTC;

use crate::{
    SqlError,
    functions::{
        simple::{Call, Returns, Simple, any, any_of},
        text_input,
        zone::{self, Zone},
    },
    rules::types,
};

const DAY_US: i64 = 86_400_000_000;
const DAY_NS: i64 = DAY_US * 1000;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    use Volatility::{Immutable, Stable};
    let interval = || Returns::Type(types::interval());
    vec![
        Simple::udf("timezone", any(2, Stable), Returns::Of(moved_type), in_zone),
        Simple::udf("age", any_of(&[1, 2], Stable), interval(), age),
        Simple::udf("justify_hours", any(1, Immutable), interval(), |call| each(call, justify_hours)),
        Simple::udf("justify_days", any(1, Immutable), interval(), |call| each(call, justify_days)),
        Simple::udf("justify_interval", any(1, Immutable), interval(), |call| each(call, justify_interval)),
        Simple::udf("make_interval", any_of(&[0, 1, 2, 3, 4, 5, 6, 7], Immutable), interval(), make_interval),
    ]
}

/// An instant becomes a wall clock, a wall clock an instant.
fn moved_type(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match arguments.get(1) {
        Some(DataType::Timestamp(_, None)) => types::timestamptz(),
        Some(DataType::Timestamp(..) | DataType::Date32 | DataType::Null) => types::timestamp(),
        Some(data_type) if types::is_text(data_type) => types::timestamp(),
        _ => {
            return Err(SqlError::new("42883", "function timezone of these types does not exist")
                .with_hint("AT TIME ZONE takes a timestamp, a timestamptz or a date.")
                .into());
        }
    })
}

fn in_zone(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let session = call.zone()?;
    let to_instant = matches!(call.returns.data_type(), DataType::Timestamp(_, Some(_)));
    let source = if to_instant { wall_clocks(call, 1, session)? } else { instants(call, 1, session)? };
    let zones = zones(call)?;
    let mut out = Vec::with_capacity(call.rows);
    for (row, zone) in zones.iter().enumerate() {
        out.push(match zone {
            Some(zone) if source.is_valid(row) => Some(match to_instant {
                true => zone.to_instant(source.value(row)),
                false => zone.to_local(source.value(row)),
            }),
            _ => None,
        });
    }
    let out: TimestampMicrosecondArray = out.into_iter().collect();
    Ok(Arc::new(if to_instant { out.with_timezone(UTC) } else { out }))
}

/// Zones by name, or as an interval east of Greenwich. An offset as text counts westwards, as POSIX has it.
fn zones(call: &Call<'_>) -> Result<Vec<Option<Zone>>, DataFusionError> {
    if let DataType::Interval(_) = call.arrays[0].data_type() {
        let intervals = call.cast(0, &types::interval())?;
        return intervals
            .as_primitive::<IntervalMonthDayNanoType>()
            .iter()
            .map(|interval| {
                interval
                    .map(|interval| match (interval.months, interval.days) {
                        (0, 0) => i32::try_from(interval.nanoseconds / 1_000_000_000)
                            .map(Zone::Fixed)
                            .map_err(|_| SqlError::invalid_parameter("time zone interval out of range").into()),
                        _ => {
                            Err(SqlError::invalid_parameter("interval time zone must not include months or days")
                                .into())
                        }
                    })
                    .transpose()
            })
            .collect();
    }
    let names = call.text(0)?;
    let mut known: Option<(String, Zone)> = None;
    let mut out = Vec::with_capacity(call.rows);
    for name in &names {
        let Some(name) = name else {
            out.push(None);
            continue;
        };
        let zone = match &known {
            Some((same, zone)) if same == name => *zone,
            _ => {
                let zone = match zone::offset(name.trim()) {
                    Some(seconds) => Zone::Fixed(-seconds),
                    None => Zone::parse(name)?,
                };
                known = Some((name.to_owned(), zone));
                zone
            }
        };
        out.push(Some(zone));
    }
    Ok(out)
}

/// Argument `index` as instants; a date or a text is meant in the session's zone.
fn instants(call: &Call<'_>, index: usize, session: Zone) -> Result<TimestampMicrosecondArray, DataFusionError> {
    let array = &call.arrays[index];
    Ok(match array.data_type() {
        DataType::Timestamp(_, Some(zone)) => {
            let us = call.cast(index, &DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))))?;
            us.as_primitive::<TimestampMicrosecondType>().clone()
        }
        data_type if types::is_text(data_type) => {
            let target = Field::new("", types::timestamptz(), true);
            let us = text_input::column(&call.text(index)?, &target, session, call.session())?;
            us.as_primitive::<TimestampMicrosecondType>().clone()
        }
        _ => wall_clocks(call, index, session)?.unary(|local| session.to_instant(local)),
    })
}

/// Argument `index` as wall clocks; an instant is shown in the session's zone.
fn wall_clocks(call: &Call<'_>, index: usize, session: Zone) -> Result<TimestampMicrosecondArray, DataFusionError> {
    let array = &call.arrays[index];
    Ok(match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().unary(|day| i64::from(day) * DAY_US),
        DataType::Timestamp(_, None) => {
            let us = call.cast(index, &types::timestamp())?;
            us.as_primitive::<TimestampMicrosecondType>().clone()
        }
        DataType::Null => TimestampMicrosecondArray::new_null(array.len()),
        data_type if matches!(data_type, DataType::Timestamp(..)) || types::is_text(data_type) => {
            instants(call, index, session)?.unary(|instant| session.to_local(instant))
        }
        _ => {
            let name = types::name(&call.fields[index]);
            return Err(SqlError::new("42883", format!("a timestamp is needed, not {name}")).into());
        }
    })
}

fn age(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let session = call.zone()?;
    let (later, earlier) = match call.arrays.len() {
        2 => (Some(wall_clocks(call, 0, session)?), wall_clocks(call, 1, session)?),
        _ => (None, wall_clocks(call, 0, session)?),
    };
    // With one argument: from midnight of today.
    let today = call.session().map(|facts| session.to_local(facts.now_us()).div_euclid(DAY_US) * DAY_US);
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let from = match &later {
            Some(later) => later.is_valid(row).then(|| later.value(row)),
            None => today,
        };
        out.push(match from {
            Some(from) if earlier.is_valid(row) => Some(
                between(from, earlier.value(row)).ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?,
            ),
            _ => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()))
}

/// Years, months and days of the calendar between two wall clocks, and the rest of the clock.
fn between(later: i64, earlier: i64) -> Option<IntervalMonthDayNano> {
    if later < earlier {
        let IntervalMonthDayNano { months, days, nanoseconds } = elapsed(earlier, later)?;
        return Some(IntervalMonthDayNano { months: -months, days: -days, nanoseconds: -nanoseconds });
    }
    elapsed(later, earlier)
}

/// `later` ≥ `earlier`. Days are borrowed from the earlier one's month.
fn elapsed(later: i64, earlier: i64) -> Option<IntervalMonthDayNano> {
    let date = |us: i64| DateTime::from_timestamp(us.div_euclid(DAY_US) * 86_400, 0).map(|time| time.date_naive());
    let (a, b) = (date(later)?, date(earlier)?);
    let mut us = later.rem_euclid(DAY_US) - earlier.rem_euclid(DAY_US);
    let mut days = a.day() as i32 - b.day() as i32;
    let mut months = (a.year() - b.year()) * 12 + a.month() as i32 - b.month() as i32;
    if us < 0 {
        us += DAY_US;
        days -= 1;
    }
    let borrowed = i32::from(b.num_days_in_month());
    while days < 0 {
        days += borrowed;
        months -= 1;
    }
    Some(IntervalMonthDayNano { months, days, nanoseconds: us * 1000 })
}

fn each(
    call: &Call<'_>,
    change: impl Fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<ArrayRef, DataFusionError> {
    let source = &call.arrays[0];
    let intervals = match types::is_text(source.data_type()) {
        true => {
            let target = Field::new("", types::interval(), true);
            text_input::column(&call.text(0)?, &target, call.zone()?, call.session())?
        }
        false => call.cast(0, &types::interval())?,
    };
    let mut out = Vec::with_capacity(call.rows);
    for interval in intervals.as_primitive::<IntervalMonthDayNanoType>() {
        out.push(match interval {
            Some(interval) => Some(change(interval).ok_or_else(|| SqlError::new("22008", "interval out of range"))?),
            None => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()))
}

/// Full days of the clock become days, of the same sign as what is left.
fn justify_hours(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let mut days = i64::from(value.days) + value.nanoseconds / DAY_NS;
    let mut nanoseconds = value.nanoseconds % DAY_NS;
    if days > 0 && nanoseconds < 0 {
        nanoseconds += DAY_NS;
        days -= 1;
    } else if days < 0 && nanoseconds > 0 {
        nanoseconds -= DAY_NS;
        days += 1;
    }
    Some(IntervalMonthDayNano { months: value.months, days: i32::try_from(days).ok()?, nanoseconds })
}

/// Thirty days become a month.
fn justify_days(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let mut months = i64::from(value.months) + i64::from(value.days / 30);
    let mut days = value.days % 30;
    if months > 0 && days < 0 {
        days += 30;
        months -= 1;
    } else if months < 0 && days > 0 {
        days -= 30;
        months += 1;
    }
    Some(IntervalMonthDayNano { months: i32::try_from(months).ok()?, days, nanoseconds: value.nanoseconds })
}

/// Both, so that all parts have one sign.
fn justify_interval(value: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let days = i64::from(value.days) + value.nanoseconds / DAY_NS;
    let nanoseconds = value.nanoseconds % DAY_NS;
    let mut months = i64::from(value.months) + days / 30;
    let mut days = days % 30;
    let mut nanoseconds = nanoseconds;
    if months > 0 && (days < 0 || (days == 0 && nanoseconds < 0)) {
        days += 30;
        months -= 1;
    } else if months < 0 && (days > 0 || (days == 0 && nanoseconds > 0)) {
        days -= 30;
        months += 1;
    }
    if days > 0 && nanoseconds < 0 {
        nanoseconds += DAY_NS;
        days -= 1;
    } else if days < 0 && nanoseconds > 0 {
        nanoseconds -= DAY_NS;
        days += 1;
    }
    Some(IntervalMonthDayNano { months: i32::try_from(months).ok()?, days: i32::try_from(days).ok()?, nanoseconds })
}

/// Years, months, weeks, days, hours, minutes, seconds; what is left out is 0.
fn make_interval(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let whole = (0..call.arrays.len().min(6))
        .map(|index| Ok(call.cast(index, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    let seconds = match call.arrays.len() {
        7 => Some(call.cast(6, &DataType::Float64)?.as_primitive::<Float64Type>().clone()),
        _ => None,
    };
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let is_null = whole.iter().any(|part| part.is_null(row)) || seconds.as_ref().is_some_and(|s| s.is_null(row));
        let part = |index: usize| whole.get(index).map_or(0, |part| part.value(row));
        let interval = || {
            let months = part(0).checked_mul(12)?.checked_add(part(1))?;
            let days = part(2).checked_mul(7)?.checked_add(part(3))?;
            let minutes = part(4).checked_mul(60)?.checked_add(part(5))?;
            let seconds = (seconds.as_ref().map_or(0.0, |seconds| seconds.value(row)) * 1e6).round_ties_even();
            (seconds.abs() < 9.2e15).then_some(())?;
            let us = minutes.checked_mul(60_000_000)?.checked_add(seconds as i64)?;
            Some(IntervalMonthDayNano {
                months: i32::try_from(months).ok()?,
                days: i32::try_from(days).ok()?,
                nanoseconds: us.checked_mul(1000)?,
            })
        };
        out.push(match is_null {
            true => None,
            false => Some(interval().ok_or_else(|| SqlError::new("22008", "interval out of range"))?),
        });
    }
    Ok(Arc::new(out.into_iter().collect::<IntervalMonthDayNanoArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::text_output;

    #[test]
    fn ages_as_postgresql_15_gives_them() {
        let at = |text: &str| {
            chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
        };
        for (later, earlier, wanted) in [
            ("2026-07-01 00:00", "2025-05-20 00:00", "1 year 1 mon 12 days"),
            ("2025-05-20 10:00", "2026-07-01 09:00", "-1 years -1 mons -11 days -23:00:00"),
            ("2026-03-31 00:00", "2026-02-28 00:00", "1 mon 3 days"),
        ] {
            let mut out = String::new();
            text_output::interval(between(at(later), at(earlier)).unwrap(), &mut out);
            assert_eq!(out, wanted, "{later} {earlier}");
        }
    }
}
