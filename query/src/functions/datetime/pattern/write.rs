//! A wall clock, field by field as a pattern asks.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};

use super::{Case, DAYS, MONTHS};
use crate::functions::zone::Zone;

pub(super) struct Clock {
    pub(super) date: NaiveDate,
    pub(super) day_us: i64,
    pub(super) at: Option<(Zone, i64)>,
}

impl Clock {
    pub(super) fn write(&self, name: &str, case: Case, is_bare: bool, ordinal: Option<Case>, out: &mut String) {
        let seconds = self.day_us / 1_000_000;
        let us = self.day_us % 1_000_000;
        let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        let weekday = self.date.weekday();
        let day_name = DAYS[weekday.num_days_from_sunday() as usize];
        let month_name = MONTHS[self.date.month0() as usize];
        let (year, iso) = (i64::from(self.date.year()), self.date.iso_week());
        // There is no year 0 in the calendar that is shown.
        let era = |year: i64| if year > 0 { year } else { 1 - year };
        let (shown, iso_year) = (era(year), era(i64::from(iso.year())));
        let iso_day = |week: u32| i64::from(week - 1) * 7 + i64::from(weekday.number_from_monday());
        let (value, width): (i64, usize) = match name {
            "A.M." | "P.M." => return cased(if hour < 12 { "A.M." } else { "P.M." }, case, out),
            "AM" | "PM" => return cased(if hour < 12 { "AM" } else { "PM" }, case, out),
            "A.D." | "B.C." => return cased(if year > 0 { "A.D." } else { "B.C." }, case, out),
            "AD" | "BC" => return cased(if year > 0 { "AD" } else { "BC" }, case, out),
            "DAY" | "MONTH" => {
                let start = out.len();
                let text = if name == "DAY" { day_name } else { month_name };
                cased(text, case, out);
                let written = out.len() - start;
                if !is_bare {
                    out.extend(std::iter::repeat_n(' ', 9usize.saturating_sub(written)));
                }
                return;
            }
            "DY" => return cased(&day_name[..3], case, out),
            "MON" => return cased(&month_name[..3], case, out),
            "TZ" => {
                let (text, _) = self.zone();
                return cased(&text, case, out);
            }
            "TZH" | "TZM" | "OF" => {
                let (_, offset) = self.zone();
                let (hours, minutes) = (offset.abs() / 3600, offset.abs() / 60 % 60);
                let sign = if offset < 0 { '-' } else { '+' };
                out.push_str(&match name {
                    "TZH" => format!("{sign}{hours:02}"),
                    "TZM" => format!("{minutes:02}"),
                    _ if minutes != 0 => format!("{sign}{hours:02}:{minutes:02}"),
                    _ => format!("{sign}{hours:02}"),
                });
                return;
            }
            "Y,YYY" => {
                out.push_str(&format!("{},{:03}", shown / 1000, shown % 1000));
                return suffix(shown, ordinal, out);
            }
            "HH" | "HH12" => (twelve, 2),
            "HH24" => (hour, 2),
            "MI" => (minute, 2),
            "SS" => (seconds % 60, 2),
            "SSSS" | "SSSSS" => (seconds, 0),
            // A fraction keeps its zeros.
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = match name {
                    "MS" => 3,
                    "US" => 6,
                    _ => usize::from(name.as_bytes()[2] - b'0'),
                };
                let text = format!("{us:06}");
                out.push_str(&text[..digits]);
                return suffix(us / 10i64.pow(6 - digits as u32), ordinal, out);
            }
            "DDD" => (i64::from(self.date.ordinal()), 3),
            "IDDD" => (iso_day(iso.week()), 3),
            "DD" => (i64::from(self.date.day()), 2),
            "D" => (i64::from(weekday.number_from_sunday()), 0),
            "ID" => (i64::from(weekday.number_from_monday()), 0),
            "MM" => (i64::from(self.date.month()), 2),
            "WW" => (i64::from(self.date.ordinal0() / 7 + 1), 2),
            "IW" => (i64::from(iso.week()), 2),
            "W" => (i64::from(self.date.day0() / 7 + 1), 0),
            "Q" => (i64::from(self.date.month0() / 3 + 1), 0),
            "CC" => (if year > 0 { (year + 99) / 100 } else { -((-year) / 100 + 1) }, 2),
            "J" => (self.date.signed_duration_since(NaiveDate::default()).num_days() + 2_440_588, 0),
            "YYYY" => (shown, 4),
            "YYY" => (shown % 1000, 3),
            "YY" => (shown % 100, 2),
            "Y" => (shown % 10, 1),
            "IYYY" => (iso_year, 4),
            "IYY" => (iso_year % 1000, 3),
            "IY" => (iso_year % 100, 2),
            _ => (iso_year % 10, 1),
        };
        let width = match (is_bare, value < 0) {
            (true, _) => 0,
            (false, negative) => width + usize::from(negative),
        };
        out.push_str(&format!("{value:0width$}"));
        suffix(value, ordinal, out);
    }

    /// The zone's abbreviation and offset; nothing and 0 for a time without a zone.
    fn zone(&self) -> (String, i32) {
        let Some((zone, instant_us)) = self.at else { return (String::new(), 0) };
        let offset = zone.offset_at(instant_us);
        let text = match zone {
            Zone::Named(named) => {
                DateTime::from_timestamp(instant_us.div_euclid(1_000_000), 0).map_or_else(String::new, |time| {
                    use chrono_tz::OffsetName;
                    let local = named.offset_from_utc_datetime(&time.naive_utc());
                    debug_assert_eq!(local.fix().local_minus_utc(), offset);
                    local.abbreviation().unwrap_or_default().to_owned()
                })
            }
            Zone::Fixed(0) => "UTC".to_owned(),
            Zone::Fixed(seconds) => {
                let sign = if seconds < 0 { '-' } else { '+' };
                let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
                if minutes == 0 { format!("{sign}{hours:02}") } else { format!("{sign}{hours:02}:{minutes:02}") }
            }
        };
        (text, offset)
    }
}

pub(in super::super) fn cased(text: &str, case: Case, out: &mut String) {
    match case {
        Case::Upper => out.push_str(&text.to_uppercase()),
        Case::Lower => out.push_str(&text.to_lowercase()),
        Case::Capital => out.push_str(text),
    }
}

/// st, nd, rd or th.
pub(in super::super) fn suffix(value: i64, ordinal: Option<Case>, out: &mut String) {
    let Some(case) = ordinal else { return };
    let text = match (value % 10, value % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    cased(text, case, out);
}
