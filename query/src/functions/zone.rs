//! The session's time zone: between instants (microseconds since 1970 in UTC) and wall clocks (the same count of local time).

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};
use datafusion::config::ConfigOptions;

use crate::SqlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich.
    Fixed(i32),
}

const SECOND: i64 = 1_000_000;

impl Zone {
    pub(crate) const UTC: Self = Self::Fixed(0);

    pub(crate) fn of(options: &ConfigOptions) -> Result<Self, SqlError> {
        Self::parse(options.execution.time_zone.as_deref().unwrap_or("UTC"))
    }

    /// A name of the tz database in any case, an abbreviation of UTC, or an offset `+hh[:mm]`.
    pub(crate) fn parse(text: &str) -> Result<Self, SqlError> {
        let text = text.trim();
        if matches!(text.to_lowercase().as_str(), "utc" | "z" | "zulu" | "gmt" | "etc/utc") {
            return Ok(Self::UTC);
        }
        if let Ok(zone) = text.parse::<chrono_tz::Tz>() {
            return Ok(Self::Named(zone));
        }
        if let Some(seconds) = offset(text) {
            return Ok(Self::Fixed(seconds));
        }
        chrono_tz::TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(text))
            .map(|zone| Self::Named(*zone))
            .ok_or_else(|| SqlError::invalid_parameter(format!("time zone \"{text}\" not recognized")))
    }

    /// Seconds east of Greenwich at an instant.
    pub(crate) fn offset_at(self, instant_us: i64) -> i32 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::Named(zone) => DateTime::from_timestamp(instant_us.div_euclid(SECOND), 0)
                .map_or(0, |time| zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()),
        }
    }

    pub(crate) fn to_local(self, instant_us: i64) -> i64 {
        instant_us.saturating_add(i64::from(self.offset_at(instant_us)) * SECOND)
    }

    /// A wall clock's instant. Where clocks were put back the later one (standard time) is meant; a time that clocks jumped over is
    /// read by the offset before the jump.
    pub(crate) fn to_instant(self, local_us: i64) -> i64 {
        let seconds = match self {
            Self::Fixed(seconds) => seconds,
            Self::Named(zone) => match naive(local_us.div_euclid(SECOND)) {
                None => 0,
                Some(local) => match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset.fix().local_minus_utc(),
                    LocalResult::None => match naive(local_us.div_euclid(SECOND) - 86_400) {
                        None => 0,
                        Some(before) => zone
                            .offset_from_local_datetime(&before)
                            .earliest()
                            .map_or(0, |offset| offset.fix().local_minus_utc()),
                    },
                },
            },
        };
        local_us.saturating_sub(i64::from(seconds) * SECOND)
    }
}

fn naive(seconds: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp(seconds, 0).map(|time| time.naive_utc())
}

/// "+05:30", "-8", "+0530", "+05:30:15" as seconds.
pub(crate) fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (hours, minutes, seconds): (&str, &str, &str) = match parts.as_slice() {
        [h] if h.len() <= 2 => (h, "0", "0"),
        [h] if h.len() == 4 && h.is_ascii() => (&h[..2], &h[2..], "0"),
        [h, m] => (h, m, "0"),
        [h, m, s] => (h, m, s),
        _ => return None,
    };
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
    (hours <= 15 && minutes < 60 && seconds < 60).then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_overlaps_are_read_as_postgresql_does() {
        let berlin = Zone::parse("europe/berlin").unwrap();
        let local =
            |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros();
        let shown = |us: i64| DateTime::from_timestamp_micros(us).unwrap().format("%Y-%m-%d %H:%M").to_string();
        // PostgreSQL 15: select '2026-03-29 02:30 Europe/Berlin'::timestamptz at time zone 'UTC' and so on.
        assert_eq!(shown(berlin.to_instant(local("2026-03-29 02:30"))), "2026-03-29 01:30");
        assert_eq!(shown(berlin.to_instant(local("2026-10-25 02:30"))), "2026-10-25 01:30");
        assert_eq!(shown(berlin.to_instant(local("2026-07-01 12:00"))), "2026-07-01 10:00");
        assert_eq!(shown(berlin.to_local(local("2026-07-01 10:00"))), "2026-07-01 12:00");
    }

    #[test]
    fn offsets_have_several_forms() {
        assert_eq!(offset("+05:30"), Some(19_800));
        assert_eq!(offset("-08"), Some(-28_800));
        assert_eq!(offset("+0530"), Some(19_800));
        assert_eq!(offset("5"), None);
        assert_eq!(offset("+99"), None);
    }
}
