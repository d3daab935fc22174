//! What JSON documents have at their paths.

use serde_json::Value as Json;
use tidemill_storage::schema::DataType;

use super::{super::time, DEPTH_MAX, Found};
use crate::message::MessageBatch;

/// Members of one object that are told apart.
const MEMBERS_MAX: usize = 1000;
/// An object with more kinds of members than this, each of them in less than half of the objects, is a map.
const MAP_MEMBERS: usize = 16;
/// Numbers with a fraction that must have been seen for their digits to mean something.
const FRACTIONS_MIN: u64 = 20;
/// Digits after the point that money and its like have.
const FRACTION_DIGITS_MAX: usize = 4;

/// Everything that was seen in one place.
#[derive(Debug, Default)]
struct Seen {
    nulls: u64,
    booleans: u64,
    integers: Integers,
    fractions: Fractions,
    strings: Strings,
    objects: u64,
    /// In the order in which they came.
    members: Vec<(String, Seen)>,
    arrays: u64,
    items: Option<Box<Seen>>,
}

#[derive(Debug, Default)]
struct Integers {
    count: u64,
    /// Those that BIGINT does not hold.
    long: u64,
    least: i64,
    greatest: i64,
}

#[derive(Debug, Default)]
struct Fractions {
    count: u64,
    digits_max: usize,
    has_exponent: bool,
}

#[derive(Debug, Default)]
struct Strings {
    count: u64,
    uuids: u64,
    dates: u64,
    times: u64,
    zoned: u64,
}

pub(super) fn columns(sample: &[MessageBatch]) -> Vec<Found> {
    let mut root = Seen::default();
    for batch in sample {
        for message in batch.messages.iter().filter(|message| !message.is_null) {
            if let Ok(document) = serde_json::from_slice::<Json>(batch.payload(message)) {
                root.add(&document);
            }
        }
    }
    let mut found = Vec::new();
    root.flatten(&mut Vec::new(), &mut found);
    found
}

impl Seen {
    /// `serde_json` bounds the depth.
    fn add(&mut self, value: &Json) {
        match value {
            Json::Null => self.nulls += 1,
            Json::Bool(_) => self.booleans += 1,
            Json::Number(number) => self.number(&number.to_string()),
            Json::String(text) => self.strings.add(text),
            Json::Array(items) => {
                self.arrays += 1;
                let seen = self.items.get_or_insert_default();
                items.iter().for_each(|item| seen.add(item));
            }
            Json::Object(members) => {
                self.objects += 1;
                for (name, value) in members {
                    let known = self.members.iter().position(|(known, _)| known == name);
                    let at = match known {
                        Some(at) => at,
                        None if self.members.len() >= MEMBERS_MAX => continue,
                        None => {
                            self.members.push((name.clone(), Self::default()));
                            self.members.len() - 1
                        }
                    };
                    self.members[at].1.add(value);
                }
            }
        }
    }

    fn number(&mut self, text: &str) {
        if let Ok(value) = text.parse::<i64>() {
            let seen = &mut self.integers;
            (seen.least, seen.greatest) = match seen.count - seen.long {
                0 => (value, value),
                _ => (seen.least.min(value), seen.greatest.max(value)),
            };
            seen.count += 1;
        } else if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            self.integers.count += 1;
            self.integers.long += 1;
        } else {
            self.fractions.count += 1;
            self.fractions.has_exponent |= text.contains(['e', 'E']);
            let digits = text.split_once('.').map_or(0, |(_, digits)| digits.trim_end_matches('0').len());
            self.fractions.digits_max = self.fractions.digits_max.max(digits);
        }
    }

    /// Values that are not null.
    fn count(&self) -> u64 {
        self.booleans + self.integers.count + self.fractions.count + self.strings.count + self.objects + self.arrays
    }

    fn is_map(&self) -> bool {
        let is_rare = |(_, seen): &(String, Self)| (seen.count() + seen.nulls) * 2 < self.objects;
        self.members.len() > MAP_MEMBERS && self.members.iter().all(is_rare)
    }

    fn flatten(&self, path: &mut Vec<String>, found: &mut Vec<Found>) {
        let is_taken_apart = self.objects > 0
            && self.objects == self.count()
            && !self.members.is_empty()
            && path.len() < DEPTH_MAX
            && (path.is_empty() || !self.is_map());
        // Of a message that is an array or a number, nothing has a name.
        if path.is_empty() && self.objects == 0 {
            return;
        }
        if is_taken_apart || path.is_empty() {
            for (name, seen) in &self.members {
                path.push(name.clone());
                seen.flatten(path, found);
                path.pop();
            }
            return;
        }
        let name = path.last().map_or("", String::as_str);
        let (of, epoch) = self.column(name);
        found.push(Found { epoch, ..Found::new(path, of) });
    }

    /// The type of a column called `name`, and what its numbers count where they are times.
    fn column(&self, name: &str) -> (DataType, Option<&'static str>) {
        if self.arrays > 0 && self.arrays == self.count() {
            let items = self.items.as_deref();
            let of = items.filter(|items| items.count() > 0).map(Self::scalar);
            return match of {
                Some(Some(of)) => (DataType::Array(Box::new(of)), None),
                _ => (DataType::Jsonb, None),
            };
        }
        if self.integers.count > 0
            && self.integers.count == self.count()
            && self.integers.long == 0
            && is_called_time(name)
            && let Some(unit) = epoch(self.integers.least, self.integers.greatest)
        {
            return (DataType::TimestampTz, Some(unit));
        }
        (self.scalar().unwrap_or(DataType::Jsonb), None)
    }

    /// The type of values that are of one kind and neither objects nor arrays.
    fn scalar(&self) -> Option<DataType> {
        let count = self.count();
        let numbers = self.integers.count + self.fractions.count;
        if count == 0 {
            return None;
        }
        if self.booleans == count {
            return Some(DataType::Boolean);
        }
        if self.strings.count == count {
            return Some(self.strings.of());
        }
        if numbers != count {
            return None;
        }
        Some(match (&self.fractions, &self.integers) {
            (Fractions { count: 0, .. }, Integers { long: 0, .. }) => DataType::BigInt,
            (Fractions { count: 0, .. }, _) => DataType::Numeric { precision: 38, scale: 0 },
            (fractions, integers) if fractions.is_decimal() && integers.long == 0 => {
                DataType::Numeric { precision: 18, scale: fractions.digits_max.max(2) as i8 }
            }
            // DOUBLE PRECISION refuses integers that it does not hold.
            (_, integers) if integers.long > 0 => return None,
            _ => DataType::Double,
        })
    }
}

impl Fractions {
    /// Amounts have few digits after the point, and always; measurements have as many as there are.
    fn is_decimal(&self) -> bool {
        self.count >= FRACTIONS_MIN && !self.has_exponent && (1..=FRACTION_DIGITS_MAX).contains(&self.digits_max)
    }
}

impl Strings {
    fn add(&mut self, text: &str) {
        self.count += 1;
        let bytes = text.as_bytes();
        let is_uuid = bytes.len() == 36 && uuid::Uuid::try_parse(text).is_ok();
        self.uuids += u64::from(is_uuid);
        // Texts as "2024" read as times, too, and are none.
        let looks_dated = bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-';
        if !looks_dated {
            return;
        }
        if bytes.len() == 10 {
            self.dates += u64::from(time::date(text).is_ok());
        } else if matches!(bytes[10], b'T' | b't' | b' ') && time::timestamp(text).is_ok() {
            self.times += 1;
            let clock = &text[11..];
            self.zoned += u64::from(clock.ends_with(['Z', 'z']) || clock.contains(['+', '-']));
        }
    }

    fn of(&self) -> DataType {
        match self {
            Self { count, uuids, .. } if uuids == count => DataType::Uuid,
            Self { count, dates, .. } if dates == count => DataType::Date,
            Self { count, times, zoned, .. } if times == count && zoned == count => DataType::TimestampTz,
            Self { count, times, zoned: 0, .. } if times == count => DataType::Timestamp,
            _ => DataType::Text,
        }
    }
}

/// Whether a member's name says that it is a moment.
fn is_called_time(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = ["ts", "at", "time", "timestamp", "date", "datetime", "created", "updated"];
    words.contains(&lower.as_str())
        || ["_ts", "_at", "_time", "_timestamp", "_date", "_ms", "_us", "timestamp"]
            .iter()
            .any(|end| lower.ends_with(end))
        || ["Ts", "At", "Time", "Date"].iter().any(|end| name.ends_with(end))
}

/// What numbers count that are all between the years 2000 and 2100.
fn epoch(least: i64, greatest: i64) -> Option<&'static str> {
    const FROM_S: i64 = 946_684_800;
    const TO_S: i64 = 4_102_444_800;
    let units = [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)];
    let is_within =
        |factor: i64| least >= FROM_S * factor && i128::from(greatest) < i128::from(TO_S) * i128::from(factor);
    units.into_iter().find(|(_, factor)| is_within(*factor)).map(|(unit, _)| unit)
}
