//! Dates and timestamps: ISO 8601 text and epoch numbers, to days and microseconds since 1970-01-01.
//!
//! Years 1 to 9999. Digits after the sixth of a second are rounded, halves to the even microsecond. An offset or `Z`
//! is applied to both time types, so a TIMESTAMP from a text with an offset holds UTC; a text without one is taken as UTC.

use super::number::{Decimal, Misfit};

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0001-01-01T00:00:00 and 9999-12-31T23:59:59.999999.
pub(super) const MICROS_MIN: i64 = -62_135_596_800 * MICROS_PER_SECOND;
pub(super) const MICROS_MAX: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// What a number in a time column counts since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EpochUnit {
    /// Told by size: seconds below 10^11, milliseconds below 10^14, microseconds below 10^17, nanoseconds above.
    #[default]
    ByMagnitude,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl EpochUnit {
    /// `auto`, `s`, `ms`, `us`, `ns`, or a unit's name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "auto" => Self::ByMagnitude,
            "s" | "sec" | "seconds" => Self::Seconds,
            "ms" | "millis" | "milliseconds" => Self::Milliseconds,
            "us" | "micros" | "microseconds" => Self::Microseconds,
            "ns" | "nanos" | "nanoseconds" => Self::Nanoseconds,
            _ => return None,
        })
    }
}

/// Microseconds from a number of `unit`s.
pub(super) fn epoch(text: &str, unit: EpochUnit) -> Result<i64, Misfit> {
    let number = Decimal::parse(text).ok_or(Misfit::Syntax)?;
    let unit = match unit {
        EpochUnit::ByMagnitude => unit_by_magnitude(number.truncated()?.unsigned_abs()),
        unit => unit,
    };
    let micros = match unit {
        EpochUnit::ByMagnitude | EpochUnit::Seconds => number.rounded(6)?,
        EpochUnit::Milliseconds => number.rounded(3)?,
        EpochUnit::Microseconds => number.rounded(0)?,
        EpochUnit::Nanoseconds => number.thousandth_rounded()?,
    };
    in_range(micros)
}

/// As [`epoch`], for a number that is an integer already.
pub(super) fn epoch_integer(number: i64, unit: EpochUnit) -> Result<i64, Misfit> {
    let unit = match unit {
        EpochUnit::ByMagnitude => unit_by_magnitude(number.unsigned_abs().into()),
        unit => unit,
    };
    let number = i128::from(number);
    in_range(match unit {
        EpochUnit::ByMagnitude | EpochUnit::Seconds => number * 1_000_000,
        EpochUnit::Milliseconds => number * 1000,
        EpochUnit::Microseconds => number,
        EpochUnit::Nanoseconds => {
            let (whole, rest) = (number.div_euclid(1000), number.rem_euclid(1000));
            whole + i128::from(rest > 500 || (rest == 500 && whole % 2 != 0))
        }
    })
}

fn unit_by_magnitude(size: u128) -> EpochUnit {
    match size {
        0..100_000_000_000 => EpochUnit::Seconds,
        100_000_000_000..100_000_000_000_000 => EpochUnit::Milliseconds,
        100_000_000_000_000..100_000_000_000_000_000 => EpochUnit::Microseconds,
        _ => EpochUnit::Nanoseconds,
    }
}

fn in_range(micros: i128) -> Result<i64, Misfit> {
    i64::try_from(micros).ok().filter(|micros| (MICROS_MIN..=MICROS_MAX).contains(micros)).ok_or(Misfit::Range)
}

/// Days from `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Result<i32, Misfit> {
    let (days, rest) = leading_date(text.as_bytes())?;
    if rest.is_empty() { Ok(days) } else { Err(Misfit::Syntax) }
}

/// Microseconds from `YYYY-MM-DD[(T| )HH:MM[:SS[.fraction]][ ][Z|±HH[[:]MM]]]`.
pub(super) fn timestamp(text: &str) -> Result<i64, Misfit> {
    let (days, rest) = leading_date(text.as_bytes())?;
    let midnight = i64::from(days) * SECONDS_PER_DAY;
    let (separator, rest) = match rest.split_first() {
        None => return in_range(i128::from(midnight) * i128::from(MICROS_PER_SECOND)),
        Some(split) => split,
    };
    if !matches!(separator, b'T' | b't' | b' ') {
        return Err(Misfit::Syntax);
    }
    let (hour, rest) = two_digits(rest)?;
    let (minute, mut rest) = two_digits(after(rest, b':')?)?;
    let (mut second, mut micros) = (0, 0);
    if let Some((b':', tail)) = rest.split_first() {
        (second, rest) = two_digits(tail)?;
        if let Some((b'.' | b',', tail)) = rest.split_first() {
            let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            micros = fraction_micros(&tail[..digits])?;
            rest = &tail[digits..];
        }
    }
    // 24:00:00 is the end of the day, :60 a leap second, as in Postgres.
    if hour > 24 || minute > 59 || second > 60 || (hour == 24 && (minute, second, micros) != (0, 0, 0)) {
        return Err(Misfit::Range);
    }
    let offset = offset_seconds(rest)?;
    let seconds = midnight + hour * 3600 + minute * 60 + second - offset;
    in_range(i128::from(seconds) * i128::from(MICROS_PER_SECOND) + i128::from(micros))
}

/// `YYYY-MM-DD` at the front: days, and what follows.
fn leading_date(text: &[u8]) -> Result<(i32, &[u8]), Misfit> {
    let (century, rest) = two_digits(text)?;
    let (year, rest) = two_digits(rest)?;
    let (month, rest) = two_digits(after(rest, b'-')?)?;
    let (day, rest) = two_digits(after(rest, b'-')?)?;
    let year = century * 100 + year;
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return Err(Misfit::Range);
    }
    Ok((days_from_civil(year, month, day), rest))
}

fn two_digits(text: &[u8]) -> Result<(i64, &[u8]), Misfit> {
    match text {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', rest @ ..] => Ok((i64::from(a - b'0') * 10 + i64::from(b - b'0'), rest)),
        _ => Err(Misfit::Syntax),
    }
}

fn after(text: &[u8], byte: u8) -> Result<&[u8], Misfit> {
    match text.split_first() {
        Some((first, rest)) if *first == byte => Ok(rest),
        _ => Err(Misfit::Syntax),
    }
}

/// Microseconds of the digits after the point, halves to even.
fn fraction_micros(digits: &[u8]) -> Result<i64, Misfit> {
    if digits.is_empty() {
        return Err(Misfit::Syntax);
    }
    let digit = |at: usize| digits.get(at).map_or(0, |digit| i64::from(digit - b'0'));
    let micros = (0..6).fold(0, |micros, at| micros * 10 + digit(at));
    let beyond_half = digits.iter().skip(7).any(|digit| *digit != b'0');
    let up = match digit(6) {
        0..=4 => false,
        5 => beyond_half || micros % 2 == 1,
        _ => true,
    };
    Ok(micros + i64::from(up))
}

/// Seconds east of Greenwich.
fn offset_seconds(text: &[u8]) -> Result<i64, Misfit> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, rest) = match text.split_first() {
        None => return Ok(0),
        Some((b'Z' | b'z', [])) => return Ok(0),
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        Some(_) => return Err(Misfit::Syntax),
    };
    let (hours, rest) = two_digits(rest)?;
    let (minutes, rest) =
        if rest.is_empty() { (0, rest) } else { two_digits(rest.strip_prefix(b":").unwrap_or(rest))? };
    if !rest.is_empty() {
        return Err(Misfit::Syntax);
    }
    // Postgres takes offsets up to 15:59:59.
    if hours > 15 || minutes > 59 {
        return Err(Misfit::Range);
    }
    Ok(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) as i32
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    #[test]
    fn timestamps() {
        let noon = micros("2024-02-29T12:00:00Z");
        for text in [
            "2024-02-29T12:00:00Z",
            "2024-02-29 12:00:00",
            "2024-02-29 12:00",
            "2024-02-29T12:00:00.000000000Z",
            "2024-02-29T14:00:00+02:00",
            "2024-02-29T14:00:00+0200",
            "2024-02-29 14:00:00 +02",
            "2024-02-29T02:30:00-09:30",
            "2024-02-29t12:00:00z",
        ] {
            assert_eq!(timestamp(text), Ok(noon), "{text}");
        }
        assert_eq!(timestamp("2024-02-29"), Ok(micros("2024-02-29T00:00:00Z")));
        assert_eq!(timestamp("2024-02-29T24:00:00"), Ok(micros("2024-03-01T00:00:00Z")));
        assert_eq!(timestamp("2024-02-29T23:59:60"), Ok(micros("2024-03-01T00:00:00Z")));
        assert_eq!(timestamp("1969-12-31T23:59:59.999999Z"), Ok(-1));
    }

    #[test]
    fn fractions_round_half_to_even() {
        let at = |fraction: &str| timestamp(&format!("1970-01-01T00:00:00.{fraction}")).unwrap();
        assert_eq!(at("1"), 100_000);
        assert_eq!(at("0000005"), 0);
        assert_eq!(at("0000015"), 2);
        assert_eq!(at("00000050001"), 1);
        assert_eq!(at("9999999"), 1_000_000);
        assert_eq!(at("123456789"), 123_457);
    }

    #[test]
    fn what_is_not_a_time() {
        for bad in [
            "",
            "2024",
            "2024-1-1",
            "2024-02-30",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "0000-01-01",
            "2024-02-29T",
            "2024-02-29T1:00",
            "2024-02-29T25:00",
            "2024-02-29T12:60",
            "2024-02-29T12:00:61",
            "2024-02-29T24:00:01",
            "2024-02-29T12:00:00.",
            "2024-02-29T12:00:00X",
            "2024-02-29T12:00:00+",
            "2024-02-29T12:00:00+2",
            "2024-02-29T12:00:00+16:00",
            "2024-02-29T12:00:00Z ",
            "2024-02-29_12:00:00",
            "20240229",
            "2024-02-29T12:00:00+02:00:00",
            "now",
            "infinity",
            "９999-01-01",
            "9999-12-31T23:59:59.9999999",
        ] {
            assert!(timestamp(bad).is_err(), "{bad}");
        }
        assert_eq!(date("2024-02-29T00:00:00"), Err(Misfit::Syntax));
        assert_eq!(date("2024-02-29"), Ok(19782));
    }

    #[test]
    fn epochs() {
        let noon = micros("2024-02-29T12:00:00Z");
        for text in
            ["1709208000", "1709208000000", "1709208000000000", "1709208000000000000", "1709208000.0", "1.709208e9"]
        {
            assert_eq!(epoch(text, EpochUnit::ByMagnitude), Ok(noon), "{text}");
        }
        assert_eq!(epoch("1709208000.1234565", EpochUnit::ByMagnitude), Ok(noon + 123_456));
        assert_eq!(epoch("1709208000000000500", EpochUnit::ByMagnitude), Ok(noon));
        assert_eq!(epoch("1709208000000001500", EpochUnit::ByMagnitude), Ok(noon + 2));
        assert_eq!(epoch("-1500", EpochUnit::Nanoseconds), Ok(-2));
        assert_eq!(epoch("-500", EpochUnit::Nanoseconds), Ok(0));
        assert_eq!(epoch("-0.501e3", EpochUnit::Nanoseconds), Ok(-1));
        assert_eq!(epoch("5", EpochUnit::Milliseconds), Ok(5000));
        assert_eq!(epoch("99999999999", EpochUnit::Milliseconds), Ok(99_999_999_999_000));
        assert_eq!(epoch("1709208000000", EpochUnit::Seconds), Err(Misfit::Range));
        assert_eq!(epoch("1e30", EpochUnit::ByMagnitude), Err(Misfit::Range));
        assert_eq!(epoch("soon", EpochUnit::ByMagnitude), Err(Misfit::Syntax));
    }

    proptest! {
        #[test]
        fn every_day_is_chronos(days in -719_162i32..2_932_896) {
            let day = NaiveDate::from_num_days_from_ce_opt(days + 719_163).unwrap();
            prop_assert_eq!(date(&day.format("%Y-%m-%d").to_string()), Ok(days));
            prop_assert!(day.year() >= 1);
        }

        #[test]
        fn every_instant_is_chronos(instant in MICROS_MIN / 2..MICROS_MAX, hours in -15i32..=15, minutes in 0i32..60) {
            let offset = chrono::FixedOffset::east_opt(hours * 3600 + hours.signum() * minutes * 60).unwrap();
            let text = DateTime::from_timestamp_micros(instant).unwrap().with_timezone(&offset).to_rfc3339();
            prop_assume!(!text.starts_with('+'));
            prop_assert_eq!(timestamp(&text), Ok(instant));
        }

        #[test]
        fn integers_are_read_as_their_digits(number in prop_oneof![any::<i64>(), -200_000i64..200_000, 99_999_999_000i64..100_000_001_000]) {
            use EpochUnit::{ByMagnitude, Microseconds, Milliseconds, Nanoseconds, Seconds};
            for unit in [ByMagnitude, Seconds, Milliseconds, Microseconds, Nanoseconds] {
                prop_assert_eq!(epoch_integer(number, unit), epoch(&number.to_string(), unit));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = (timestamp(&text), date(&text), epoch(&text, EpochUnit::ByMagnitude));
        }
    }
}
