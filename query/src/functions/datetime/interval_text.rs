//! Intervals from text: `1 year 2 months 3 days 04:05:06.7`, `-1 day +02:03`, `1.5 hours ago`, `1-2`, `P1Y2M3DT4H5M6S`.

use arrow::datatypes::IntervalMonthDayNano;

use crate::SqlError;

const HOUR_US: f64 = 3_600e6;
const DAY_US: f64 = 86_400e6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// In microseconds.
    Clock(i64),
    /// In days.
    Days(i64),
    Months(i64),
}

/// Sums of what was read. Fractions are carried down: of a month to days, of a day to the clock.
#[derive(Debug, Default)]
struct Sum {
    months: f64,
    days: f64,
    us: f64,
}

impl Sum {
    fn add(&mut self, value: f64, unit: Unit) {
        match unit {
            Unit::Clock(us) => self.us += value * us as f64,
            Unit::Days(days) => {
                let days = value * days as f64;
                self.days += days.trunc();
                self.us += days.fract() * DAY_US;
            }
            Unit::Months(1) => {
                self.months += value.trunc();
                let days = value.fract() * 30.0;
                self.days += days.trunc();
                self.us += days.fract() * DAY_US;
            }
            // Fractions of years and more are rounded to months.
            Unit::Months(months) => self.months += (value * months as f64).round_ties_even(),
        }
    }

    fn interval(self, sign: f64) -> Option<IntervalMonthDayNano> {
        let int = |value: f64| (value.abs() <= f64::from(i32::MAX)).then_some(value as i32);
        let us = (self.us * sign).round_ties_even();
        (us.abs() < 9.2e15).then_some(())?;
        Some(IntervalMonthDayNano {
            months: int(self.months * sign)?,
            days: int(self.days * sign)?,
            nanoseconds: us as i64 * 1000,
        })
    }
}

pub(crate) fn parse(text: &str) -> Result<IntervalMonthDayNano, SqlError> {
    let invalid = || SqlError::invalid_datetime("interval", text);
    let range = || SqlError::new("22008", format!("interval field value out of range: \"{text}\""));
    let lower = text.trim().to_lowercase();
    let mut rest = lower.as_str();
    if let Some(iso) = rest.strip_prefix('p') {
        return iso8601(iso).ok_or_else(invalid)?.interval(1.0).ok_or_else(range);
    }
    let mut sum = Sum::default();
    let mut sign = 1.0;
    let mut found = false;
    rest = rest.strip_prefix('@').unwrap_or(rest).trim_start();
    while !rest.is_empty() {
        if rest == "ago" && found {
            sign = -1.0;
            break;
        }
        let (value, after) = number(rest).ok_or_else(invalid)?;
        let is_negative = rest.starts_with('-');
        found = true;
        if let Some(mut clock) = after.strip_prefix(':') {
            let mut us = value.abs() * HOUR_US;
            let (minutes, next) = number(clock).filter(|(v, _)| (0.0..60.0).contains(v)).ok_or_else(invalid)?;
            us += minutes * 60e6;
            clock = next;
            if let Some(seconds) = clock.strip_prefix(':') {
                let (seconds, next) = number(seconds).filter(|(v, _)| (0.0..=60.0).contains(v)).ok_or_else(invalid)?;
                us += seconds * 1e6;
                clock = next;
            }
            sum.us += if is_negative { -us } else { us };
            rest = clock.trim_start();
            continue;
        }
        // 1-2: years and months.
        if let Some((months, next)) = after.strip_prefix('-').and_then(number) {
            if !(0.0..12.0).contains(&months) || months.fract() != 0.0 {
                return Err(range());
            }
            let months = value.abs() * 12.0 + months;
            sum.months += if is_negative { -months } else { months };
            rest = next.trim_start();
            continue;
        }
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (word, next) = after.split_at(end);
        let unit = match word {
            // A bare number is days before a clock, else seconds at the end.
            "" if next.is_empty() => Unit::Clock(1_000_000),
            "" if number(next).is_some_and(|(_, after)| after.starts_with(':')) => Unit::Days(1),
            "ago" => {
                sum.add(value, Unit::Clock(1_000_000));
                rest = after;
                continue;
            }
            word => unit(word).ok_or_else(invalid)?,
        };
        sum.add(value, unit);
        rest = next.trim_start();
    }
    if !found {
        return Err(invalid());
    }
    sum.interval(sign).ok_or_else(range)
}

/// A number with a sign and decimals at the start, and what follows.
fn number(text: &str) -> Option<(f64, &str)> {
    let signed = usize::from(text.starts_with(['+', '-']));
    let end = text[signed..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |end| end + signed);
    let value: f64 = text[..end].trim_start_matches('+').parse().ok()?;
    Some((value, &text[end..]))
}

fn unit(word: &str) -> Option<Unit> {
    Some(match word {
        "us" | "usec" | "usecs" | "microsecond" | "microseconds" => Unit::Clock(1),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Unit::Clock(1000),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Clock(1_000_000),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Clock(60_000_000),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Clock(3_600_000_000),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennium" | "millennia" => Unit::Months(12_000),
        _ => return None,
    })
}

/// What follows the P of ISO 8601's durations with designators.
fn iso8601(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut rest = text;
    let mut is_clock = false;
    let mut found = false;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('t')
            && !is_clock
        {
            is_clock = true;
            rest = after;
            continue;
        }
        let (value, after) = number(rest)?;
        let unit = match (after.chars().next()?, is_clock) {
            ('y', false) => Unit::Months(12),
            ('m', false) => Unit::Months(1),
            ('w', false) => Unit::Days(7),
            ('d', false) => Unit::Days(1),
            ('h', true) => Unit::Clock(3_600_000_000),
            ('m', true) => Unit::Clock(60_000_000),
            ('s', true) => Unit::Clock(1_000_000),
            _ => return None,
        };
        sum.add(value, unit);
        found = true;
        rest = &after[1..];
    }
    found.then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::text_output;

    #[test]
    fn forms_as_postgresql_15_reads_them() {
        for (text, wanted) in [
            ("1 year 2 months 3 days 04:05:06.7", "1 year 2 mons 3 days 04:05:06.7"),
            ("-1 day 2:3", "-1 days +02:03:00"),
            ("1.5 years", "1 year 6 mons"),
            ("1y2mon3d4h5m6s", "1 year 2 mons 3 days 04:05:06"),
            ("P1Y2M3DT4H5M6S", "1 year 2 mons 3 days 04:05:06"),
            ("90 minutes ago", "-01:30:00"),
            ("-00:00:01.5", "-00:00:01.5"),
            ("3 4:05", "3 days 04:05:00"),
            ("1.5 days", "1 day 12:00:00"),
            ("5", "00:00:05"),
            ("1 week 2.25 hours", "7 days 02:15:00"),
            ("1-2", "1 year 2 mons"),
            ("0.5 months", "15 days"),
        ] {
            let mut out = String::new();
            text_output::interval(parse(text).unwrap(), &mut out);
            assert_eq!(out, wanted, "{text}");
        }
        for text in ["", "x", "1 parsec", "1:99", "P", "P1H", "1 day ago 2", "--1 day"] {
            assert_eq!(parse(text).unwrap_err().sqlstate, "22007", "{text}");
        }
        assert_eq!(parse("9999999999 years").unwrap_err().sqlstate, "22008");
    }
}
