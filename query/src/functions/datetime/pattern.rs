//! PostgreSQL's date and time patterns: `YYYY-MM-DD HH24:MI:SS.MS`, `FMDay, DD FMMonth`, `HH12:MI AM`, …
//!
//! A pattern is read once into [`Node`]s: fields, and text that stands for itself. [`Pattern::write`] shows a wall clock by it (to_char) and
//! [`Pattern::read`] takes a text apart by it (to_timestamp, to_date). What is not known here (TM, FX, SP, RM; in reading also week
//! fields and zone names) is an error 0A000, never text that looks like an answer.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};

use crate::{SqlError, functions::zone::Zone};

const DAY_US: i64 = 86_400_000_000;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Every field, the longer of two that begin alike first.
const FIELDS: [&str; 51] = [
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2", "FF3", "FF4", "FF5",
    "FF6", "FX", "HH24", "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I", "J", "MI", "MM", "MONTH", "MON",
    "MS", "OF", "P.M.", "PM", "Q", "RM", "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY",
];
const SHORT_YEARS: [&str; 3] = ["YYY", "YY", "Y"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
    Capital,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Field {
        name: &'static str,
        case: Case,
        /// FM: no blanks, no zeros in front.
        is_bare: bool,
        /// TH or th follows.
        ordinal: Option<Case>,
    },
    /// A blank or a sign: it may match another one, or nothing, when a text is read.
    Separator(char),
    Text(char),
}

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(super) nodes: Vec<Node>,
}

/// What was read: a wall clock, and the offset if TZH stood in the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) local_us: i64,
    /// Seconds east of Greenwich.
    pub(crate) offset: Option<i32>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, SqlError> {
        let mut nodes = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                rest = quoted(&rest[1..], &mut nodes);
                continue;
            }
            if first == '\\' && rest[1..].starts_with('"') {
                nodes.push(Node::Text('"'));
                rest = &rest[2..];
                continue;
            }
            if rest.starts_with("TM") || rest.starts_with("tm") {
                return Err(unsupported("TM"));
            }
            let is_bare = rest.starts_with("FM") || rest.starts_with("fm");
            if is_bare {
                rest = &rest[2..];
            }
            if let Some((name, case)) = field(rest) {
                rest = &rest[name.len()..];
                if matches!(name, "FX" | "RM") {
                    return Err(unsupported(name));
                }
                if rest.starts_with("SP") {
                    return Err(unsupported("SP"));
                }
                let ordinal = match rest.get(..2) {
                    Some("TH") => Some(Case::Upper),
                    Some("th") => Some(Case::Lower),
                    _ => None,
                };
                if ordinal.is_some() {
                    rest = &rest[2..];
                }
                nodes.push(Node::Field { name, case, is_bare, ordinal });
            } else if let Some(first) = rest.chars().next() {
                nodes.push(match is_separator(first) {
                    true => Node::Separator(first),
                    false => Node::Text(first),
                });
                rest = &rest[first.len_utf8()..];
            }
        }
        Ok(Self { nodes })
    }

    /// The clock `local_us` shown by the pattern. `at` is the zone and the instant, for a time that has them.
    pub(crate) fn write(&self, local_us: i64, at: Option<(Zone, i64)>, out: &mut String) -> Result<(), SqlError> {
        let date = DateTime::from_timestamp(local_us.div_euclid(DAY_US) * 86_400, 0)
            .ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?
            .date_naive();
        let clock = Clock { date, day_us: local_us.rem_euclid(DAY_US), at };
        for node in &self.nodes {
            match node {
                Node::Separator(c) | Node::Text(c) => out.push(*c),
                Node::Field { name, case, is_bare, ordinal } => clock.write(name, *case, *is_bare, *ordinal, out),
            }
        }
        Ok(())
    }

    pub(crate) fn read(&self, text: &str) -> Result<Reading, SqlError> {
        Reader::default().read(&self.nodes, text)
    }
}

fn unsupported(field: &str) -> SqlError {
    SqlError::not_supported(format!("formatting field \"{field}\""))
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || (c.is_ascii() && c > ' ' && c < '\x7f' && !c.is_ascii_alphanumeric())
}

/// Text in double quotes, taken as it is; the rest after the closing quote.
fn quoted<'a>(text: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return &text[index + 1..],
            '\\' => {
                if let Some((_, escaped)) = chars.next() {
                    nodes.push(Node::Text(escaped));
                }
            }
            c => nodes.push(Node::Text(c)),
        }
    }
    ""
}

/// The field that `text` begins with. Fields are written in capitals or small letters; names of days and months also with one capital.
fn field(text: &str) -> Option<(&'static str, Case)> {
    FIELDS.iter().chain(&SHORT_YEARS).find_map(|name| {
        let written = text.get(..name.len())?;
        if written == *name {
            return Some((*name, Case::Upper));
        }
        if !written.eq_ignore_ascii_case(name) {
            return None;
        }
        let small = |text: &str| !text.bytes().any(|b| b.is_ascii_uppercase());
        if small(written) {
            return Some((*name, Case::Lower));
        }
        let named = matches!(*name, "DAY" | "DY" | "MONTH" | "MON");
        (named && small(&written[1..])).then_some((*name, Case::Capital))
    })
}

struct Clock {
    date: NaiveDate,
    day_us: i64,
    at: Option<(Zone, i64)>,
}

impl Clock {
    fn write(&self, name: &str, case: Case, is_bare: bool, ordinal: Option<Case>, out: &mut String) {
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

pub(super) fn cased(text: &str, case: Case, out: &mut String) {
    match case {
        Case::Upper => out.push_str(&text.to_uppercase()),
        Case::Lower => out.push_str(&text.to_lowercase()),
        Case::Capital => out.push_str(text),
    }
}

/// st, nd, rd or th.
pub(super) fn suffix(value: i64, ordinal: Option<Case>, out: &mut String) {
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

/// Fields as they are found.
#[derive(Debug, Default)]
struct Reader {
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
    fn read(mut self, nodes: &[Node], text: &str) -> Result<Reading, SqlError> {
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
