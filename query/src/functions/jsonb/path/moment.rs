//! Dates and times in paths: read from ISO forms, compared among their kinds, printed as ISO 8601.

use std::{cmp::Ordering, fmt};

use chrono::{DateTime, NaiveDate};

use crate::SqlError;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
}

/// A wall clock and, where the kind has one, its zone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) kind: Kind,
    /// Since 1970, or since midnight.
    local_us: i64,
    /// East of Greenwich.
    offset_s: i64,
}

impl Moment {
    /// `2026-01-31`, `12:34:56[.789]`, or both with a blank or a `T` between them; times with `Z` or `+05[:30]` behind them, too.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text.trim_matches(' ') };
        let day = match reader.rest.find(['-', ':']) {
            Some(at) if reader.rest[at..].starts_with('-') => Some(reader.date()?),
            _ => None,
        };
        if let (Some(day), true) = (day, reader.rest.is_empty()) {
            return Some(Self { kind: Kind::Date, local_us: day * DAY_US, offset_s: 0 });
        }
        if day.is_some() && !reader.eat('T') {
            if !reader.eat(' ') {
                return None;
            }
            reader.rest = reader.rest.trim_start_matches(' ');
        }
        let time = reader.time()?;
        let offset = reader.offset()?;
        let kind = match (day, offset) {
            (None, None) => Kind::Time,
            (None, Some(_)) => Kind::TimeTz,
            (Some(_), None) => Kind::Timestamp,
            (Some(_), Some(_)) => Kind::TimestampTz,
        };
        Some(Self { kind, local_us: day.unwrap_or(0) * DAY_US + time, offset_s: offset.unwrap_or(0) })
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Date => "date",
            Kind::Time => "time without time zone",
            Kind::TimeTz => "time with time zone",
            Kind::Timestamp => "timestamp without time zone",
            Kind::TimestampTz => "timestamp with time zone",
        }
    }

    /// The same as another kind, where it has what that shows. 0A000 for what only the session's zone would tell.
    pub(super) fn to(self, kind: Kind) -> Result<Option<Self>, SqlError> {
        let local_us = match (self.kind, kind) {
            (from, to) if from == to => self.local_us,
            (Kind::Timestamp, Kind::Date) => self.local_us.div_euclid(DAY_US) * DAY_US,
            (Kind::Timestamp, Kind::Time) => self.local_us.rem_euclid(DAY_US),
            (Kind::Date, Kind::Timestamp) => self.local_us,
            // The time of another day has no zone of its own.
            (Kind::TimestampTz, Kind::TimeTz) => {
                return Ok(Some(Self { kind, local_us: self.instant_us().rem_euclid(DAY_US), offset_s: 0 }));
            }
            (Kind::TimestampTz, Kind::Date | Kind::Time | Kind::Timestamp)
            | (Kind::TimeTz, Kind::Time)
            | (Kind::Time, Kind::TimeTz)
            | (Kind::Date | Kind::Timestamp, Kind::TimestampTz) => return Err(needs_zone(self.kind, kind)),
            _ => return Ok(None),
        };
        Ok(Some(Self { kind, local_us, offset_s: self.offset_s }))
    }

    /// Halves away from zero, to `digits` of a second.
    pub(super) fn rounded(self, digits: u32) -> Self {
        let unit = 10i64.pow(6 - digits.min(6));
        let half = if self.local_us < 0 { -unit / 2 } else { unit / 2 };
        Self { local_us: (self.local_us + half) / unit * unit, ..self }
    }

    fn instant_us(&self) -> i64 {
        self.local_us - self.offset_s * SECOND_US
    }

    /// `None` where the kinds do not compare. 0A000 where only the session's zone would tell.
    pub(super) fn order(&self, other: &Self) -> Result<Option<Ordering>, SqlError> {
        Ok(Some(match (self.kind, other.kind) {
            (Kind::Date | Kind::Timestamp, Kind::Date | Kind::Timestamp) | (Kind::Time, Kind::Time) => {
                self.local_us.cmp(&other.local_us)
            }
            (Kind::TimestampTz, Kind::TimestampTz) => self.instant_us().cmp(&other.instant_us()),
            (Kind::TimeTz, Kind::TimeTz) => {
                self.instant_us().cmp(&other.instant_us()).then_with(|| other.offset_s.cmp(&self.offset_s))
            }
            (Kind::Date | Kind::Timestamp, Kind::TimestampTz) => return Err(needs_zone(self.kind, Kind::TimestampTz)),
            (Kind::TimestampTz, Kind::Date | Kind::Timestamp) => return Err(needs_zone(other.kind, Kind::TimestampTz)),
            (Kind::Time, Kind::TimeTz) | (Kind::TimeTz, Kind::Time) => {
                return Err(needs_zone(Kind::Time, Kind::TimeTz));
            }
            _ => return Ok(None),
        }))
    }
}

fn needs_zone(from: Kind, to: Kind) -> SqlError {
    let name = |kind| match kind {
        Kind::Date => "date",
        Kind::Time => "time",
        Kind::TimeTz => "timetz",
        Kind::Timestamp => "timestamp",
        Kind::TimestampTz => "timestamptz",
    };
    let message = format!("cannot convert value from {} to {} without time zone usage", name(from), name(to));
    SqlError::new("0A000", message).with_hint("Write the zone into the text, or compare outside of the path.")
}

impl fmt::Display for Moment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = DateTime::from_timestamp_micros(self.local_us).unwrap_or_default().naive_utc();
        if matches!(self.kind, Kind::Date | Kind::Timestamp | Kind::TimestampTz) {
            write!(out, "{}", clock.format("%Y-%m-%d"))?;
        }
        if self.kind == Kind::Date {
            return Ok(());
        }
        if matches!(self.kind, Kind::Timestamp | Kind::TimestampTz) {
            out.write_str("T")?;
        }
        let is_midnight_after = self.local_us == DAY_US && matches!(self.kind, Kind::Time | Kind::TimeTz);
        match is_midnight_after {
            true => out.write_str("24:00:00")?,
            false => write!(out, "{}", clock.format("%H:%M:%S"))?,
        }
        let fraction = self.local_us.rem_euclid(SECOND_US);
        if fraction > 0 {
            let digits = format!("{fraction:06}");
            write!(out, ".{}", digits.trim_end_matches('0'))?;
        }
        if matches!(self.kind, Kind::TimeTz | Kind::TimestampTz) {
            let size = self.offset_s.abs();
            write!(out, "{}{:02}:{:02}", if self.offset_s < 0 { '-' } else { '+' }, size / 3600, size / 60 % 60)?;
            if size % 60 > 0 {
                write!(out, ":{:02}", size % 60)?;
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A number of up to `digits_max` digits.
    fn number(&mut self, digits_max: usize) -> Option<(i64, usize)> {
        let length = self.rest.bytes().take(digits_max).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some((digits.parse().ok()?, length))
    }

    /// Days since 1970.
    fn date(&mut self) -> Option<i64> {
        let (year, _) = self.number(4)?;
        let (month, day) = (self.after('-')?, self.after('-')?);
        let date =
            NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?)?;
        Some(date.signed_duration_since(NaiveDate::default()).num_days())
    }

    fn after(&mut self, sign: char) -> Option<i64> {
        if self.eat(sign) { Some(self.number(2)?.0) } else { None }
    }

    /// Microseconds since midnight.
    fn time(&mut self) -> Option<i64> {
        let (hour, _) = self.number(2)?;
        let (minute, second) = (self.after(':')?, self.after(':')?);
        let mut fraction = 0;
        if self.eat('.') {
            let (digits, length) = self.number(6)?;
            fraction = digits * 10i64.pow(6 - u32::try_from(length).ok()?);
        }
        let is_valid = hour < 24 && minute < 60 && second < 60;
        is_valid.then_some((hour * 3600 + minute * 60 + second) * SECOND_US + fraction)
    }

    /// What stands at the end: nothing or a zone.
    fn offset(&mut self) -> Option<Option<i64>> {
        self.rest = self.rest.trim_start_matches(' ');
        if self.rest.is_empty() {
            return Some(None);
        }
        if self.rest.eq_ignore_ascii_case("z") || self.rest.eq_ignore_ascii_case("utc") {
            return Some(Some(0));
        }
        let is_west = self.eat('-');
        if !is_west && !self.eat('+') {
            return None;
        }
        let (hours, _) = self.number(2)?;
        let minutes = if self.rest.is_empty() { 0 } else { self.after(':')? };
        let seconds = if self.rest.is_empty() { 0 } else { self.after(':')? };
        if !self.rest.is_empty() || hours > 15 || minutes > 59 || seconds > 59 {
            return None;
        }
        let size = hours * 3600 + minutes * 60 + seconds;
        Some(Some(if is_west { -size } else { size }))
    }
}
