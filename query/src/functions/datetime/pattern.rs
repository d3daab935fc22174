//! PostgreSQL's date and time patterns: `YYYY-MM-DD HH24:MI:SS.MS`, `FMDay, DD FMMonth`, `HH12:MI AM`, …
//!
//! A pattern is read once into [`Node`]s: fields, and text that stands for itself. [`Pattern::write`] shows a wall clock by it (to_char) and
//! [`Pattern::read`] takes a text apart by it (to_timestamp, to_date). What is not known here (TM, FX, SP, RM; in reading also week
//! fields and zone names) is an error 0A000, never text that looks like an answer.

mod read;
mod write;

use chrono::DateTime;

pub(super) use self::write::{cased, suffix};
use self::{read::Reader, write::Clock};
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
