//! Dates and times from text, in the forms that PostgreSQL reads and that people and programs write.
//!
//! `2026-01-31`, `20260131`, `2026/1/31`, `1/31/2026`, `Jan 31, 2026`, `31 January 2026`; then, after a blank or `T`, `12:34[:56[.789]]`,
//! `123456`, with AM or PM; then `Z`, `+05:30` or a zone's name; then AD or BC. `epoch`, `now`, `today`, `tomorrow`, `yesterday` stand for what they say.

use chrono::NaiveDate;

use crate::{
    SqlError,
    functions::zone::{self, Zone},
};

const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// A date and time as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The wall clock that was written.
    pub(crate) local_us: i64,
    /// The zone that was written, if one was.
    pub(crate) zone: Option<Zone>,
}

impl Moment {
    /// The instant, where a text without a zone is meant in `zone`.
    pub(crate) fn instant_us(&self, zone: Zone) -> i64 {
        self.zone.unwrap_or(zone).to_instant(self.local_us)
    }
}

pub(crate) fn timestamp(
    text: &str,
    zone: Zone,
    now: &dyn Fn() -> i64,
    type_name: &'static str,
) -> Result<Moment, SqlError> {
    let invalid = || SqlError::invalid_datetime(type_name, text);
    let trimmed = text.trim();
    let today = || zone.to_local(now()).div_euclid(DAY_US) * DAY_US;
    let plain = |local_us| Ok(Moment { local_us, zone: None });
    match trimmed.to_lowercase().as_str() {
        "epoch" => return Ok(Moment { local_us: 0, zone: Some(Zone::UTC) }),
        "now" => return plain(zone.to_local(now())),
        "today" => return plain(today()),
        "tomorrow" => return plain(today() + DAY_US),
        "yesterday" => return plain(today() - DAY_US),
        "infinity" | "-infinity" => return Err(SqlError::not_supported("an infinite timestamp")),
        _ => {}
    }
    let (trimmed, is_before_christ) = era(trimmed);
    let (days, rest) = date_part(trimmed, is_before_christ).ok_or_else(invalid)?;
    let days = days.map_err(|()| field_range(text))?;
    let rest = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
    let (time_us, rest) = time_part(rest).ok_or_else(invalid)?;
    if time_us > DAY_US {
        return Err(field_range(text));
    }
    let rest = rest.trim();
    let zone = match rest {
        "" => None,
        rest => Some(match zone::offset(rest) {
            Some(seconds) => Zone::Fixed(seconds),
            None => Zone::parse(rest).map_err(|_| invalid())?,
        }),
    };
    let local_us = days
        .checked_mul(DAY_US)
        .and_then(|us| us.checked_add(time_us))
        .ok_or_else(|| SqlError::new("22008", format!("timestamp out of range: \"{text}\"")))?;
    Ok(Moment { local_us, zone })
}

/// Days since 1970. A time that follows is read and left out.
pub(crate) fn date(text: &str, zone: Zone, now: &dyn Fn() -> i64) -> Result<i32, SqlError> {
    let moment = timestamp(text, zone, now, "date")?;
    i32::try_from(moment.local_us.div_euclid(DAY_US)).map_err(|_| SqlError::new("22008", "date out of range"))
}

/// Microseconds since midnight.
pub(crate) fn time(text: &str) -> Result<i64, SqlError> {
    match time_part(text.trim()) {
        Some((us, rest)) if rest.trim().is_empty() && !text.trim().is_empty() && us <= DAY_US => Ok(us),
        _ => Err(SqlError::invalid_datetime("time", text)),
    }
}

fn field_range(text: &str) -> SqlError {
    SqlError::new("22008", format!("date/time field value out of range: \"{text}\""))
}

/// Digits at the start of `text`, and the rest.
fn number(text: &str) -> Option<(u32, usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let digits = &text[..end];
    (!digits.is_empty() && digits.len() <= 9).then(|| Some((digits.parse().ok()?, end, &text[end..])))?
}

/// `text` without AD or BC at its end, and whether it was BC.
fn era(text: &str) -> (&str, bool) {
    let word = |word: &str| {
        let (before, last) = text.split_at_checked(text.len().checked_sub(word.len())?)?;
        let stands_alone = before.ends_with(|c: char| c.is_ascii_digit() || c.is_whitespace());
        (last.eq_ignore_ascii_case(word) && stands_alone).then(|| before.trim_end())
    };
    match (word("BC"), word("AD")) {
        (Some(before), _) => (before, true),
        (None, Some(before)) => (before, false),
        (None, None) => (text, false),
    }
}

/// Days since 1970 (an error where there is no such day) and what follows the date. 1 BC is the year before 1; there is no year 0.
fn date_part(text: &str, is_before_christ: bool) -> Option<(Result<i64, ()>, &str)> {
    let days = |year: u32, month: u32, day: u32| {
        let year = i32::try_from(year).ok().filter(|year| *year > 0).ok_or(())?;
        let year = if is_before_christ { 1 - year } else { year };
        let date = NaiveDate::from_ymd_opt(year, month, day).ok_or(())?;
        Ok(date.signed_duration_since(NaiveDate::default()).num_days())
    };
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        // Jan 31, 2026
        let (month, rest) = month_name(text)?;
        let (day, _, rest) = number(rest.trim_start_matches([' ', '-']))?;
        let (year, _, rest) = number(rest.trim_start_matches([' ', ',', '-']))?;
        return Some((days(year, month, day), rest));
    }
    let (first, length, rest) = number(text)?;
    if length == 8 && !rest.starts_with(['-', '/']) {
        return Some((days(first / 10_000, first / 100 % 100, first % 100), rest));
    }
    let separator = rest.chars().next()?;
    let after = &rest[separator.len_utf8()..];
    if after.starts_with(|c: char| c.is_ascii_alphabetic()) && matches!(separator, ' ' | '-') {
        // 31 Jan 2026
        let (month, rest) = month_name(after)?;
        let (year, _, rest) = number(rest.trim_start_matches([' ', '-', ',']))?;
        return Some((days(year, month, first), rest));
    }
    if !matches!(separator, '-' | '/' | '.') {
        return None;
    }
    let (second, _, rest) = number(after)?;
    let (third, _, rest) = number(rest.strip_prefix(separator)?)?;
    // Year first where it has more than two digits; otherwise month, day, year.
    let result = if length > 2 { days(first, second, third) } else { days(third, first, second) };
    Some((result, rest))
}

fn month_name(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let word = text[..end].to_lowercase();
    let names = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let index = names.iter().position(|name| word.len() >= 3 && name.starts_with(&word))?;
    Some((index as u32 + 1, text[end..].trim_start_matches('.')))
}

/// Microseconds since midnight and what follows; nothing at all is midnight.
fn time_part(text: &str) -> Option<(i64, &str)> {
    if text.is_empty() {
        return Some((0, text));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        // A zone may follow a bare date.
        return Some((0, text));
    }
    let (first, length, mut rest) = number(text)?;
    let (hour, minute, mut second) = match length {
        6 => (first / 10_000, first / 100 % 100, first % 100),
        4 => (first / 100, first % 100, 0),
        1 | 2 => match rest.strip_prefix(':') {
            Some(after) => {
                let (minute, _, after) = number(after)?;
                rest = after;
                (first, minute, 0)
            }
            None => (first, u32::MAX, 0),
        },
        _ => return None,
    };
    if length <= 2
        && minute != u32::MAX
        && let Some(after) = rest.strip_prefix(':')
    {
        let (value, _, after) = number(after)?;
        second = value;
        rest = after;
    }
    let mut fraction_us = 0i64;
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        fraction_us = format!("0.{}", &after[..end]).parse::<f64>().map_or(0, |f| (f * 1e6).round_ties_even() as i64);
        rest = &after[end..];
    }
    let word = rest.trim_start();
    // A zone's name may begin with these letters too.
    let ends = !word.get(2..).is_some_and(|after| after.starts_with(|c: char| c.is_alphanumeric()));
    let meridiem = word.get(..2).map(str::to_lowercase).filter(|w| ends && (w == "am" || w == "pm"));
    let mut hour = hour;
    if let Some(meridiem) = meridiem {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + if meridiem == "pm" { 12 } else { 0 };
        rest = &word[2..];
    }
    let minute = match minute {
        u32::MAX => return None,
        minute => minute,
    };
    if hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let us = i64::from(hour) * HOUR_US + i64::from(minute) * 60_000_000 + i64::from(second) * 1_000_000 + fraction_us;
    Some((us, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<Moment, SqlError> {
        timestamp(text, Zone::UTC, &|| 0, "timestamp")
    }

    #[test]
    fn forms_of_one_moment() {
        let wanted = 1_769_862_896_789_000; // 2026-01-31 12:34:56.789
        for text in [
            "2026-01-31 12:34:56.789",
            "2026-01-31T12:34:56.789",
            "20260131 123456.789",
            "20260131T123456.789",
            "2026/1/31 12:34:56.789",
            "1/31/2026 12:34:56.789",
            "Jan 31, 2026 12:34:56.789",
            "31 January 2026 12:34:56.789 PM",
        ] {
            let moment = at(text).unwrap();
            assert_eq!((moment.local_us, moment.zone), (wanted, None), "{text}");
        }
        for text in [
            "2026-01-31 12:34:56.789Z",
            "2026-01-31 14:34:56.789+02",
            "2026-01-31 18:04:56.789 +05:30",
            "2026-01-31 13:34:56.789 Europe/Berlin",
            "2026-01-31 07:34:56.789 America/New_York",
        ] {
            assert_eq!(at(text).unwrap().instant_us(Zone::Fixed(3600)), wanted, "{text}");
        }
        assert_eq!(at("2026-01-31").unwrap().local_us, 1_769_817_600_000_000);
        assert_eq!(at("2026-01-31").unwrap().instant_us(Zone::Fixed(3600)), 1_769_814_000_000_000);
    }

    #[test]
    fn what_is_no_moment() {
        for text in ["", "tomorrowish", "2026-01-31 25:00", "2026-13", "12:00", "2026-01-31 12:00 Mars/Olympus"] {
            assert_eq!(at(text).unwrap_err().sqlstate, "22007", "{text}");
        }
        assert_eq!(at("2026-02-30").unwrap_err().sqlstate, "22008");
        assert_eq!(at("0000-01-01").unwrap_err().sqlstate, "22008");
    }

    #[test]
    fn years_before_christ() {
        let day = |text: &str| at(text).unwrap().local_us / DAY_US;
        assert_eq!(day("0001-01-01 AD") - day("0001-12-31 BC"), 1);
        assert_eq!(day("0001-01-01") - day("0001-01-01 bc"), 366);
        assert_eq!(at("0044-03-15 12:00:00+00 BC").unwrap().zone, Some(Zone::Fixed(0)));
    }
}
