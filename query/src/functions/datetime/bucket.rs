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
    vec![udf()]
}

pub(crate) fn udf() -> Arc<ScalarUDF> {
    Simple::udf(TIME_BUCKET, any_of(&[2, 3], Volatility::Stable), Returns::Of(returned), bucket)
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
    Ok(shift.zone.to_instant(begin_local(width, shift.zone.to_local(us), shift)?))
}

/// The same of the wall clock's time.
fn begin_local(width: IntervalMonthDayNano, local: i64, shift: Shift) -> Result<i64, SqlError> {
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
    begins.checked_add(shift.offset).ok_or_else(out_of_range)
}

/// All buckets of one width, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buckets {
    width: IntervalMonthDayNano,
    zone: Zone,
}

/// Where a bucket begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begin {
    /// By the wall clock of the zone.
    local: i64,
    /// The instant, as `time_bucket` gives it.
    pub(crate) at: i64,
}

impl Buckets {
    /// `time_bucket(width, …, zone)`; of dates if `is_date`.
    pub(crate) fn new(width: IntervalMonthDayNano, zone: Zone, is_date: bool) -> Result<Self, SqlError> {
        if is_date && width.nanoseconds != 0 {
            return Err(SqlError::invalid_parameter("interval must not have sub-day precision"));
        }
        // What is no width is refused here, before there is a row.
        begin_local(width, ORIGIN_US, UNSHIFTED)?;
        Ok(Self { width, zone })
    }

    /// The bucket that a moment lies in.
    pub(crate) fn of(self, us: i64) -> Result<Begin, SqlError> {
        let local = begin_local(self.width, self.zone.to_local(us), UNSHIFTED)?;
        Ok(Begin { local, at: self.zone.to_instant(local) })
    }

    /// The next bucket that some moment lies in; none where time ends.
    pub(crate) fn after(self, begin: Begin) -> Option<Begin> {
        let mut local = self.moved(begin.local, 1)?;
        let at = self.zone.to_instant(local);
        if at > begin.at && self.of(at).ok()?.local == local {
            return Some(Begin { local, at });
        }
        // Clocks are put forward here. Times that they leave out are read as later ones, which lie in buckets of their own.
        local = self.moved(self.of(at).ok()?.local, -1)?;
        loop {
            let at = self.zone.to_instant(local);
            if at > begin.at && self.of(at).ok()?.local == local {
                return Some(Begin { local, at });
            }
            local = self.moved(local, 1)?;
        }
    }

    /// `times` widths later.
    fn moved(self, local: i64, times: i32) -> Option<i64> {
        match self.width.months {
            0 => local.checked_add(length_us(self.width).ok()?.checked_mul(times.into())?),
            months => month_begin(month_of(local).ok()?.checked_add(months.checked_mul(times)?)?).ok(),
        }
    }
}

fn date_of(us: i64) -> Result<NaiveDate, SqlError> {
    let moment = DateTime::from_timestamp(us.div_euclid(DAY_US) * 86_400, 0).ok_or_else(out_of_range)?;
    Ok(moment.date_naive())
}

/// Months since the year 0.
fn month_of(us: i64) -> Result<i32, SqlError> {
    let date = date_of(us)?;
    Ok(date.year() * 12 + date.month0() as i32)
}

/// Where the month of this number begins.
fn month_begin(month: i32) -> Result<i64, SqlError> {
    let day = NaiveDate::from_ymd_opt(month.div_euclid(12), month.rem_euclid(12) as u32 + 1, 1);
    let days = day.ok_or_else(out_of_range)?.signed_duration_since(NaiveDate::default()).num_days();
    days.checked_mul(DAY_US).ok_or_else(out_of_range)
}

/// Buckets of months begin with a month: that of the origin, or January 2000.
fn of_months(months: i32, us: i64, origin: Option<i64>) -> Result<i64, SqlError> {
    let first = match origin {
        None => 2000 * 12,
        Some(origin) => {
            if date_of(origin)?.day() != 1 || origin.rem_euclid(DAY_US) != 0 {
                return Err(SqlError::invalid_parameter("origin must be the first day of a month"));
            }
            month_of(origin)?
        }
    };
    let month = month_of(us)?;
    let begins = first.checked_add((month - first).div_euclid(months).checked_mul(months).ok_or_else(out_of_range)?);
    month_begin(begins.ok_or_else(out_of_range)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walking along the buckets finds what rounding each moment does: over both changes of the clocks, with widths that do not fit into them.
    /// (A moment soon after clocks were put forward may lie in a bucket that begins at a time they left out, which is read as one after the moment:
    /// such a bucket is no step of the walk.)
    #[test]
    fn buckets_follow_each_other_as_moments_are_rounded() {
        let minute = 60_000_000_i64;
        let zones = ["UTC", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "+05:30"];
        let widths = [7, 15, 20, 30, 40, 60, 90, 120, 180, 1440, 7 * 1440];
        let from = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let places = [
            "2026-03-07T00:00:00Z",
            "2026-03-28T00:00:00Z",
            "2026-10-03T00:00:00Z",
            "2026-10-24T00:00:00Z",
            "2026-10-31T00:00:00Z",
            "2011-12-29T00:00:00Z",
        ];
        for zone in zones.map(|zone| Zone::parse(zone).unwrap()) {
            for width in widths {
                let width = IntervalMonthDayNano::new(0, 0, width * minute * 1000);
                for from in places.map(from) {
                    let to = from + 3 * 1440 * minute;
                    let buckets = Buckets::new(width, zone, false).unwrap();
                    let rounded: std::collections::BTreeSet<i64> = (from..to)
                        .step_by(minute as usize)
                        .map(|us| (us, begin(width, us, Shift { zone, ..UNSHIFTED }).unwrap()))
                        .filter(|(us, begin)| begin <= us)
                        .map(|(_, begin)| begin)
                        .collect();
                    let last = *rounded.last().unwrap();
                    let walked = std::iter::successors(buckets.of(from).ok(), |begin| buckets.after(*begin));
                    let walked: Vec<i64> = walked.map(|begin| begin.at).take_while(|at| *at <= last).collect();
                    assert_eq!(walked, rounded.into_iter().collect::<Vec<_>>(), "{zone:?} {width:?} {from}");
                }
            }
        }
    }

    #[test]
    fn buckets_of_months_follow_the_calendar() {
        let buckets =
            Buckets::new(IntervalMonthDayNano::new(1, 0, 0), Zone::parse("Europe/Oslo").unwrap(), false).unwrap();
        let march = DateTime::parse_from_rfc3339("2026-03-15T12:00:00Z").unwrap().timestamp_micros();
        let shown = |begin: Begin| DateTime::from_timestamp_micros(begin.at).unwrap().to_rfc3339();
        let first = buckets.of(march).unwrap();
        assert_eq!(shown(first), "2026-02-28T23:00:00+00:00");
        assert_eq!(shown(buckets.after(first).unwrap()), "2026-03-31T22:00:00+00:00");
        assert!(Buckets::new(IntervalMonthDayNano::new(0, 0, 0), Zone::UTC, false).is_err());
        assert!(Buckets::new(IntervalMonthDayNano::new(0, 0, 1_000_000), Zone::UTC, true).is_err());
    }
}
