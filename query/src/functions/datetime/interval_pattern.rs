//! `to_char` of an interval: hours beyond 24, days beyond 31, and no field of a calendar.

use arrow::datatypes::IntervalMonthDayNano;

use super::pattern::{Node, Pattern, cased, suffix};
use crate::SqlError;

impl Pattern {
    /// `value` shown by the pattern. 22007 for fields that only a date has.
    pub(crate) fn write_interval(&self, value: IntervalMonthDayNano, out: &mut String) -> Result<(), SqlError> {
        let (year, month, day) = (i64::from(value.months / 12), i64::from(value.months % 12), i64::from(value.days));
        let us = value.nanoseconds / 1000;
        let (seconds, us) = (us / 1_000_000, us % 1_000_000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        // A month is 30 days.
        let day_of_year = (year * 12 + month) * 30 + day;
        for node in &self.nodes {
            let (name, case, is_bare, ordinal) = match node {
                Node::Separator(c) | Node::Text(c) => {
                    out.push(*c);
                    continue;
                }
                Node::Field { name, case, is_bare, ordinal } => (*name, *case, *is_bare, *ordinal),
            };
            let (value, width): (i64, usize) = match name {
                "AM" | "PM" | "A.M." | "P.M." => {
                    let is_long = name.contains('.');
                    let text = match (hour % 24 >= 12, is_long) {
                        (true, true) => "P.M.",
                        (true, false) => "PM",
                        (false, true) => "A.M.",
                        (false, false) => "AM",
                    };
                    cased(text, case, out);
                    continue;
                }
                "HH" | "HH12" => (if hour % 12 == 0 { 12 } else { hour % 12 }, 2),
                "HH24" => (hour, 2),
                "MI" => (minute, 2),
                "SS" => (second, 2),
                "SSSS" | "SSSSS" => {
                    out.push_str(&seconds.to_string());
                    suffix(seconds, ordinal, out);
                    continue;
                }
                "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                    let digits = match name {
                        "MS" => 3,
                        "US" => 6,
                        _ => usize::from(name.as_bytes()[2] - b'0'),
                    };
                    let value = us / 10i64.pow(6 - digits as u32);
                    let sign = if us < 0 { "-" } else { "" };
                    out.push_str(&format!("{sign}{:0digits$}", value.abs()));
                    suffix(value, ordinal, out);
                    continue;
                }
                "Y,YYY" => {
                    out.push_str(&format!("{},{:03}", year / 1000, year % 1000));
                    suffix(year, ordinal, out);
                    continue;
                }
                "YYYY" => (year, 4),
                "YYY" => (year % 1000, 3),
                "YY" => (year % 100, 2),
                "Y" => (year % 10, 1),
                "CC" => (year / 100, 2),
                "Q" if month == 0 => continue,
                "Q" => ((month - 1) / 3 + 1, 0),
                "MM" => (month, 2),
                "DD" => (day, 2),
                "DDD" => (day_of_year, 3),
                "WW" => ((day_of_year - 1) / 7 + 1, 2),
                "W" => ((day - 1) / 7 + 1, 0),
                _ => {
                    return Err(SqlError::new("22007", "invalid format specification for an interval value")
                        .with_hint("Intervals are not tied to specific calendar dates."));
                }
            };
            // The sign of days stands in their two or three places, as PostgreSQL has it.
            let of_days = matches!(name, "DD" | "DDD" | "WW");
            let width = if is_bare || width == 0 { 0 } else { width + usize::from(value < 0 && !of_days) };
            out.push_str(&format!("{value:0width$}"));
            suffix(value, ordinal, out);
        }
        Ok(())
    }
}
