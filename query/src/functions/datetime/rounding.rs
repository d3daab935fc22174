//! Functions of a moment that never go back: where they reach a value.
//!
//! `date_trunc`, `date_bin`, `time_bucket` and casts between moments and dates give the same or more for a later moment. So what is asked of
//! their result can be asked of the moment itself: `f(x) >= c` is `x >= l` for the least `l` with `f(l) >= c`, and every other
//! comparison is made of such. Where a zone's clocks are changed within two days of `l` only bounds of it are told.

use arrow::{
    array::{Array, AsArray, StringViewArray},
    datatypes::{DataType, Field, IntervalMonthDayNanoType, TimestampMicrosecondType},
};
use datafusion::common::ScalarValue;

use super::{
    bin,
    bucket::{ORIGIN_US, TIME_BUCKET},
    trunc::Unit,
};
use crate::{
    functions::{text_input, zone::Zone},
    rules::types,
};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 86_400_000_000;
/// No zone was ever further from Greenwich.
const FURTHEST_US: i64 = 16 * HOUR_US;
/// Moments beyond, 250,000 years from now, are left to the functions themselves.
const LATEST_US: i64 = 8_000_000_000_000_000_000;

/// One function, of microseconds or days to microseconds or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The beginning of a bin.
    Bins { width: i64, origin: i64 },
    /// `date_trunc` where units do not have one length.
    Unit(Unit, Zone),
    /// The day of a moment.
    Date(Zone),
    /// The moment that a day begins.
    Midnight(Zone),
    /// Between wall clocks and instants, this much later.
    Later(i64),
}

/// Where a function reaches a value: not before `low`, at `high` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Least {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Least {
    fn at(value: i64) -> Self {
        Self { low: value, high: value }
    }

    pub(crate) fn is_exact(self) -> bool {
        self.low == self.high
    }
}

/// The beginning of the bin that `value` lies in; `None` when it leaves 64 bits.
pub(crate) fn floor(value: i64, width: i64, origin: i64) -> Option<i64> {
    let (value, width, origin) = (i128::from(value), i128::from(width), i128::from(origin));
    i64::try_from(origin + (value - origin).div_euclid(width) * width).ok()
}

impl Step {
    /// What a call of `name` does with a moment of type `source`. `first` stands before the moment, `third` behind it.
    pub(crate) fn of_call(
        name: &str,
        first: &ScalarValue,
        third: Option<&ScalarValue>,
        source: &DataType,
        session: Zone,
    ) -> Option<Self> {
        let DataType::Timestamp(_, zone) = source else { return None };
        let is_zoned = zone.is_some();
        match name {
            "date_trunc" => {
                let unit = Unit::parse(text(first)?, "").ok()?;
                let zone = match third {
                    None if is_zoned => session,
                    None => Zone::UTC,
                    Some(zone) if is_zoned => Zone::parse(text(zone)?).ok()?,
                    Some(_) => return None,
                };
                Some(Self::of_unit(unit, zone))
            }
            "date_bin" => {
                let (months, width) = width(first, session)?;
                let origin = third.map_or(Some(0), |origin| moment(origin, is_zoned, session))?;
                (months == 0).then(|| Self::bins(width, origin))
            }
            TIME_BUCKET => {
                let (months, width) = width(first, session)?;
                match (months, third) {
                    (0, None) => Some(Self::bins(width, ORIGIN_US)),
                    (0, Some(ScalarValue::IntervalMonthDayNano(Some(offset)))) if offset.months == 0 => {
                        let days = i64::from(offset.days).checked_mul(DAY_US)?;
                        let offset = days.checked_add(offset.nanoseconds / 1000)?;
                        Some(Self::bins(width, ORIGIN_US.checked_add(offset)?))
                    }
                    (0, Some(origin)) if Zone::parse(text(origin).unwrap_or("?")).is_err() => {
                        Some(Self::bins(width, moment(origin, is_zoned, session)?))
                    }
                    // January 2000 begins a year.
                    (1 | 2 | 3 | 4 | 6 | 12, None) => Some(Self::Unit(Unit::Months(months), Zone::UTC)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What a cast does.
    pub(crate) fn of_cast(source: &DataType, target: &DataType, session: Zone) -> Option<Self> {
        use DataType::{Date32, Timestamp};
        let fixed = |sign: i64| match session {
            Zone::Fixed(seconds) => Some(Self::Later(sign * i64::from(seconds) * SECOND_US)),
            Zone::Named(_) => None,
        };
        match (source, target) {
            (Timestamp(_, None), Date32) => Some(Self::Date(Zone::UTC)),
            (Timestamp(_, Some(_)), Date32) => Some(Self::Date(session)),
            (Date32, Timestamp(_, None)) => Some(Self::Midnight(Zone::UTC)),
            (Date32, Timestamp(_, Some(_))) => Some(Self::Midnight(session)),
            (Timestamp(_, Some(_)), Timestamp(_, None)) => fixed(1),
            (Timestamp(_, None), Timestamp(_, Some(_))) => fixed(-1),
            _ => None,
        }
    }

    /// Whichever beginning of a bin is named, of the same bins it is the same step.
    fn bins(width: i64, origin: i64) -> Self {
        Self::Bins { width, origin: origin.rem_euclid(width) }
    }

    pub(crate) fn of_unit(unit: Unit, zone: Zone) -> Self {
        match (zone, unit.fixed_length()) {
            (Zone::Fixed(seconds), Some((width, origin))) => Self::bins(width, origin - i64::from(seconds) * SECOND_US),
            _ => Self::Unit(unit, zone),
        }
    }

    /// The least argument for which the result is at least `wanted`; `None` when that is not known.
    pub(crate) fn least(self, wanted: i64) -> Option<Least> {
        if wanted.unsigned_abs() > LATEST_US.unsigned_abs() {
            return None;
        }
        match self {
            Self::Bins { width, origin } => {
                let (width, origin) = (i128::from(width), i128::from(origin));
                let least = origin - (origin - i128::from(wanted)).div_euclid(width) * width;
                i64::try_from(least).ok().map(Least::at)
            }
            Self::Unit(Unit::Clock(size), zone) => {
                let (before, after) = (zone.offset_at(wanted), zone.offset_at(wanted.checked_add(size)?));
                let shift = i64::from(before) * SECOND_US;
                // Clocks that are put on by whole units leave units where they are.
                if (i64::from(after) * SECOND_US - shift) % size == 0 {
                    return Some(Least::at(wanted.checked_add((-wanted.checked_add(shift)?).rem_euclid(size))?));
                }
                Some(Least { low: wanted, high: wanted.checked_add(size)? })
            }
            Self::Unit(unit, zone) => begins(first(unit, zone, wanted)?, zone),
            Self::Date(zone) => begins(wanted.checked_mul(DAY_US)?, zone),
            Self::Midnight(zone) => Some(Least::at(first(Unit::Day, zone, wanted)?.div_euclid(DAY_US))),
            Self::Later(by) => wanted.checked_sub(by).map(Least::at),
        }
    }
}

/// The first unit, by its wall clock, that begins at the instant `wanted` or later.
fn first(unit: Unit, zone: Zone, wanted: i64) -> Option<i64> {
    // That clocks are changed moves nothing by two days.
    let mut local = unit.floor(zone.to_local(wanted).checked_sub(2 * DAY_US)?, Zone::UTC)?;
    for _ in 0..8 {
        if zone.to_instant(local) >= wanted {
            return Some(local);
        }
        local = unit.next(local)?;
    }
    None
}

/// The instant from which on a wall clock shows `local` or more.
fn begins(local: i64, zone: Zone) -> Option<Least> {
    if local.unsigned_abs() > LATEST_US.unsigned_abs() {
        return None;
    }
    let instant = zone.to_instant(local);
    let Zone::Named(_) = zone else { return Some(Least::at(instant)) };
    let offset = zone.offset_at(instant);
    // Nobody ever changed clocks there and back within the hour. Beyond these hours no offset makes up for the distance.
    let is_steady = (-34..=34).all(|hours| zone.offset_at(instant + hours * HOUR_US) == offset);
    Some(match is_steady {
        true => Least::at(instant),
        false => Least { low: instant - 2 * FURTHEST_US, high: instant + 2 * FURTHEST_US },
    })
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            Some(text)
        }
        _ => None,
    }
}

/// Months, and microseconds where there are no months.
fn width(value: &ScalarValue, session: Zone) -> Option<(i32, i64)> {
    let width = match value {
        ScalarValue::IntervalMonthDayNano(Some(width)) => *width,
        other => {
            let texts = StringViewArray::from_iter_values([text(other)?]);
            let read = text_input::column(&texts, &Field::new("", types::interval(), true), session, None).ok()?;
            let read = read.as_primitive::<IntervalMonthDayNanoType>();
            read.is_valid(0).then(|| read.value(0))?
        }
    };
    match width.months {
        0 => Some((0, bin::length_us(width).ok()?)),
        months => (width.days == 0 && width.nanoseconds == 0).then_some((months, 0)),
    }
}

/// A moment of the zonedness, in microseconds; not one that is another tomorrow.
fn moment(value: &ScalarValue, is_zoned: bool, session: Zone) -> Option<i64> {
    match value {
        ScalarValue::TimestampMicrosecond(Some(us), zone) => (zone.is_some() == is_zoned).then_some(*us),
        other => {
            let text = text(other).filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))?;
            let target = if is_zoned { types::timestamptz() } else { types::timestamp() };
            let texts = StringViewArray::from_iter_values([text]);
            let read = text_input::column(&texts, &Field::new("", target, true), session, None).ok()?;
            let read = read.as_primitive::<TimestampMicrosecondType>();
            read.is_valid(0).then(|| read.value(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the functions give.
    fn apply(step: Step, x: i64) -> Option<i64> {
        match step {
            Step::Bins { width, origin } => floor(x, width, origin),
            Step::Unit(unit, zone) => unit.floor(x, zone),
            Step::Date(zone) => Some(zone.to_local(x).div_euclid(DAY_US)),
            Step::Midnight(zone) => Some(zone.to_instant(x * DAY_US)),
            Step::Later(by) => x.checked_add(by),
        }
    }

    const UNITS: [&str; 12] = [
        "us",
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "quarter",
        "year",
        "decade",
        "century",
        "millennium",
    ];
    /// With clocks changed by an hour, by half of one, at midnight and just after it; a skipped day and one that came twice.
    const ZONES: [&str; 12] = [
        "UTC",
        "+05:30",
        "-08",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "America/St_Johns",
        "Pacific/Apia",
        "Asia/Manila",
        "Africa/Monrovia",
        "Asia/Kathmandu",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6000))]

        /// The bounds that are told are right for moments around them, near and far, and around changes of clocks.
        #[test]
        fn values_are_reached_where_it_says(
            unit in 0..UNITS.len(),
            zone in 0..ZONES.len(),
            kind in 0..4u8,
            wanted in prop_oneof![
                Just(1_774_746_000_000_000i64), Just(1_792_890_000_000_000), Just(1_325_239_200_000_000),
                -5_000_000_000_000_000i64..5_000_000_000_000_000, 1_500_000_000_000_000i64..1_800_000_000_000_000,
            ],
            snap in any::<bool>(),
            shift in -200_000_000_000i64..200_000_000_000,
            near in prop::collection::vec(-300_000_000_000i64..300_000_000_000, 8),
            far in prop::collection::vec(-9_000_000_000_000_000i64..9_000_000_000_000_000, 4),
        ) {
            let zone = Zone::parse(ZONES[zone]).unwrap();
            let unit = Unit::parse(UNITS[unit], "").unwrap();
            let step = match kind {
                0 | 1 => Step::of_unit(unit, zone),
                2 => Step::Date(zone),
                _ => Step::Bins { width: shift.abs() + 1, origin: near[0] },
            };
            let wanted = wanted + shift;
            let wanted = if snap { apply(step, wanted).unwrap() } else if kind == 2 { wanted / DAY_US } else { wanted };
            let Some(least) = step.least(wanted) else { return Ok(()) };
            prop_assert!(least.low <= least.high);
            let around = [least.low - 1, least.low, least.high - 1, least.high];
            let others = near.iter().map(|by| least.low + by).chain(far);
            for x in around.into_iter().chain(others) {
                let reached = apply(step, x).unwrap() >= wanted;
                prop_assert!(!reached || x >= least.low, "{step:?} {wanted} {x} {least:?}");
                prop_assert!(reached || x < least.high, "{step:?} {wanted} {x} {least:?}");
            }
        }

        /// So do days that become moments.
        #[test]
        fn days_begin_where_it_says(zone in 0..ZONES.len(), wanted in -5_000_000_000_000_000i64..5_000_000_000_000_000, snap in any::<bool>()) {
            let step = Step::Midnight(Zone::parse(ZONES[zone]).unwrap());
            let wanted = if snap { apply(step, wanted / DAY_US).unwrap() } else { wanted };
            let least = step.least(wanted).unwrap();
            prop_assert!(least.is_exact());
            for day in least.low - 40..least.low + 40 {
                prop_assert_eq!(apply(step, day).unwrap() >= wanted, day >= least.low, "{:?} {} {}", step, wanted, day);
            }
        }
    }

    #[test]
    fn only_days_beside_a_change_of_clocks_are_told_by_bounds() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let at = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let day = Step::of_unit(Unit::Day, berlin);
        assert_eq!(day.least(at("2026-07-01T12:00:00Z")), Some(Least::at(at("2026-07-01T22:00:00Z"))));
        assert!(!day.least(at("2026-03-29T00:00:00Z")).unwrap().is_exact());
        // Hours begin with hours there, whatever the clocks do.
        let hour = Step::of_unit(Unit::Clock(HOUR_US), berlin);
        assert_eq!(hour.least(at("2026-03-29T00:30:00Z")), Some(Least::at(at("2026-03-29T01:00:00Z"))));
    }
}
