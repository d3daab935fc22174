//! A text taken apart by a pattern.

use chrono::NaiveDate;

use super::{DAY_US, DAYS, MONTHS, Node, Reading, is_separator};
use crate::SqlError;

/// Fields as they are found.
#[derive(Debug, Default)]
pub(super) struct Reader {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    is_twelve: bool,
    is_pm: Option<bool>,
    minute: i64,
    second: i64,
    seconds_of_day: Option<i64>,
    us: i64,
    is_before_christ: bool,
    zone_sign: i64,
    zone_hours: Option<i64>,
    zone_minutes: i64,
}

impl Reader {
    pub(super) fn read(mut self, nodes: &[Node], text: &str) -> Result<Reading, SqlError> {
        let mut rest = text;
        // Characters passed over beyond those that the pattern has: text in the pattern need not pass over them again.
        let mut ahead = 0i64;
        for (index, node) in nodes.iter().enumerate() {
            if rest.is_empty() {
                break;
            }
            if index == 0 || matches!(node, Node::Field { .. }) {
                ahead += skip_blanks(&mut rest);
            }
            match node {
                Node::Separator(_) => {
                    ahead -= 1;
                    if let Some(c) = rest.chars().next().filter(|c| is_separator(*c)) {
                        rest = &rest[c.len_utf8()..];
                        ahead += 1;
                    }
                }
                Node::Text(_) => {
                    if ahead > 0 {
                        ahead -= 1;
                    } else if let Some(c) = rest.chars().next() {
                        rest = &rest[c.len_utf8()..];
                    }
                }
                Node::Field { name, is_bare, ordinal, .. } => {
                    // Digits run on where nothing that begins with a digit follows.
                    let open = *is_bare
                        || ordinal.is_some()
                        || match nodes.get(index + 1) {
                            Some(Node::Field { name, .. }) => !is_number(name),
                            Some(Node::Separator(c) | Node::Text(c)) => !c.is_ascii_digit(),
                            None => true,
                        };
                    self.field(name, open, &mut rest)?;
                    if ordinal.is_some() {
                        rest = rest.get(2..).unwrap_or_default();
                    }
                    ahead = skip_blanks(&mut rest);
                }
            }
        }
        self.reading(text)
    }

    fn field(&mut self, name: &'static str, open: bool, rest: &mut &str) -> Result<(), SqlError> {
        match name {
            "AM" | "PM" | "A.M." | "P.M." => {
                let is_dotted = name.len() == 4;
                let names = if is_dotted { ["A.M.", "P.M."] } else { ["AM", "PM"] };
                self.is_pm = Some(one_of(&names, name, rest)? == 1);
                self.is_twelve = true;
            }
            "AD" | "BC" => self.is_before_christ = one_of(&["AD", "BC"], name, rest)? == 1,
            "A.D." | "B.C." => self.is_before_christ = one_of(&["A.D.", "B.C."], name, rest)? == 1,
            "MONTH" => self.month = Some(one_of(&MONTHS, name, rest)? as i64 + 1),
            "MON" => self.month = Some(one_of(&MONTHS.map(|month| &month[..3]), name, rest)? as i64 + 1),
            // The day of the week says nothing that the date does not.
            "DAY" => drop(one_of(&DAYS, name, rest)?),
            "DY" => drop(one_of(&DAYS.map(|day| &day[..3]), name, rest)?),
            "HH" | "HH12" => {
                self.hour = number(name, 2, open, rest)?.0;
                self.is_twelve = true;
            }
            "HH24" => self.hour = number(name, 2, open, rest)?.0,
            "MI" => self.minute = number(name, 2, open, rest)?.0,
            "SS" => self.second = number(name, 2, open, rest)?.0,
            "SSSS" | "SSSSS" => self.seconds_of_day = Some(number(name, 5, open, rest)?.0),
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = match name {
                    "MS" => 3,
                    "US" => 6,
                    _ => usize::from(name.as_bytes()[2] - b'0'),
                };
                self.us = fraction(name, digits, rest)?;
            }
            "MM" => self.month = Some(number(name, 2, open, rest)?.0),
            "DD" => self.day = Some(number(name, 2, open, rest)?.0),
            "DDD" => self.day_of_year = Some(number(name, 3, open, rest)?.0),
            "J" => self.julian = Some(number(name, usize::MAX, true, rest)?.0),
            "YYYY" => self.year = number(name, 4, open, rest)?.0,
            "YYY" | "YY" | "Y" => {
                let (year, length) = number(name, name.len(), open, rest)?;
                self.year = if length < 4 { near_2020(year) } else { year };
            }
            "Y,YYY" => {
                let (thousands, _) = number(name, usize::MAX, true, rest)?;
                *rest = rest.strip_prefix(',').ok_or_else(|| invalid(name, rest))?;
                self.year = thousands * 1000 + number(name, 3, false, rest)?.0;
            }
            "TZH" => {
                self.zone_sign = if rest.starts_with('-') { -1 } else { 1 };
                *rest = rest.trim_start_matches(['+', '-', ' ']);
                self.zone_hours = Some(number(name, 2, open, rest)?.0);
            }
            "TZM" => self.zone_minutes = number(name, 2, open, rest)?.0,
            other => {
                return Err(SqlError::new(
                    "0A000",
                    format!("formatting field \"{other}\" is only supported in to_char"),
                ));
            }
        }
        Ok(())
    }

    fn reading(self, text: &str) -> Result<Reading, SqlError> {
        let range = || SqlError::new("22008", format!("date/time field value out of range: \"{text}\""));
        let within = |value: i64, least: i64, most: i64| match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err(range()),
        };
        let mut hour = self.hour;
        if self.is_twelve {
            if !(1..=12).contains(&hour) {
                return Err(SqlError::new("22007", format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                    .with_hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            if let Some(is_pm) = self.is_pm {
                hour = hour % 12 + if is_pm { 12 } else { 0 };
            }
        }
        let (hour, minute, second) = match self.seconds_of_day {
            Some(seconds) => {
                let seconds = within(seconds, 0, 86_399)?;
                (seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            None => (within(hour, 0, 23)?, within(self.minute, 0, 59)?, within(self.second, 0, 59)?),
        };
        let year = if self.is_before_christ { 1 - self.year } else { self.year };
        let year = i32::try_from(year).map_err(|_| range())?;
        let date = match (self.julian, self.day_of_year) {
            (Some(julian), _) => NaiveDate::default()
                .checked_add_signed(chrono::TimeDelta::try_days(julian.saturating_sub(2_440_588)).ok_or_else(range)?),
            (None, Some(day)) if self.month.is_none() => {
                u32::try_from(day).ok().and_then(|day| NaiveDate::from_yo_opt(year, day))
            }
            _ => {
                let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
                match (u32::try_from(month), u32::try_from(day)) {
                    (Ok(month), Ok(day)) => NaiveDate::from_ymd_opt(year, month, day),
                    _ => None,
                }
            }
        };
        let days = date.ok_or_else(range)?.signed_duration_since(NaiveDate::default()).num_days();
        let day_us = ((hour * 60 + minute) * 60 + second) * 1_000_000 + self.us;
        let local_us = days.checked_mul(DAY_US).and_then(|us| us.checked_add(day_us)).ok_or_else(range)?;
        let offset = match self.zone_hours {
            Some(hours) => {
                let seconds = within(hours, 0, 15)? * 3600 + within(self.zone_minutes, 0, 59)? * 60;
                Some(i32::try_from(self.zone_sign * seconds).map_err(|_| range())?)
            }
            None => None,
        };
        Ok(Reading { local_us, offset })
    }
}

/// Two digits and three are years near 2020.
fn near_2020(year: i64) -> i64 {
    year + match year {
        0..70 => 2000,
        70..100 => 1900,
        100..520 => 2000,
        520..1000 => 1000,
        _ => 0,
    }
}

fn is_number(name: &str) -> bool {
    !matches!(
        name,
        "A.D."
            | "A.M."
            | "AD"
            | "AM"
            | "B.C."
            | "BC"
            | "DAY"
            | "DY"
            | "MONTH"
            | "MON"
            | "OF"
            | "P.M."
            | "PM"
            | "TZ"
            | "TZH"
    )
}

fn skip_blanks(rest: &mut &str) -> i64 {
    let trimmed = rest.trim_start();
    let skipped = rest[..rest.len() - trimmed.len()].chars().count();
    *rest = trimmed;
    skipped as i64
}

fn invalid(name: &str, rest: &str) -> SqlError {
    let shown: String = rest.chars().take(name.len().max(2)).collect();
    SqlError::new("22007", format!("invalid value \"{shown}\" for \"{name}\""))
}

/// Digits (with a sign where their number is open) and how many characters they took.
fn number(name: &str, length: usize, open: bool, rest: &mut &str) -> Result<(i64, usize), SqlError> {
    skip_blanks(rest);
    let text: &str = rest;
    let signed = text.strip_prefix(['+', '-']);
    let sign = usize::from(signed.is_some());
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let taken = if open { sign + digits } else { (sign + digits).min(length) };
    if digits == 0 || taken <= sign {
        return Err(invalid(name, text));
    }
    if !open && taken < length && length != usize::MAX {
        return Err(SqlError::new("22007", format!("source string too short for \"{name}\" formatting field"))
            .with_detail(format!("Field requires {length} characters, but only {taken} remain."))
            .with_hint("If your source string is not fixed-width, try using the \"FM\" modifier."));
    }
    let value = text[..taken]
        .parse::<i64>()
        .ok()
        .filter(|value| i32::try_from(*value).is_ok())
        .ok_or_else(|| SqlError::new("22008", format!("value for \"{name}\" in source string is out of range")))?;
    *rest = &text[taken..];
    Ok((value, taken))
}

/// Up to `digits` digits after the point, as microseconds.
fn fraction(name: &str, digits: usize, rest: &mut &str) -> Result<i64, SqlError> {
    skip_blanks(rest);
    let found = rest.bytes().take_while(u8::is_ascii_digit).count().min(digits);
    if found == 0 {
        return Err(invalid(name, rest));
    }
    let value: i64 = rest[..found].parse().map_err(|_| invalid(name, rest))?;
    *rest = &rest[found..];
    Ok(value * 10i64.pow(6 - found as u32))
}

/// Which of the names the text begins with, in any case.
fn one_of(names: &[&str], field: &str, rest: &mut &str) -> Result<usize, SqlError> {
    skip_blanks(rest);
    let found = names
        .iter()
        .position(|name| rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name)))
        .ok_or_else(|| invalid(field, rest))?;
    *rest = &rest[names[found].len()..];
    Ok(found)
}
