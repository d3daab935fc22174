//! Where arrays and objects stand in PostgreSQL's binary form of a document, which `.keyvalue()` shows as ids.
//!
//! A container is four bytes, four more for each item (two times four for each member), then the texts of keys, then the values: texts as they are,
//! numbers and containers at the next multiple of four. Null, true and false take nothing.

use crate::functions::jsonb::tree::Json;

const WORD: i64 = 4;

/// The places of all containers of `document`, itself at 0.
pub(super) fn places<'a>(document: &'a Json, out: &mut Vec<(&'a Json, i64)>) {
    end(document, 0, &mut |json, place| out.push((json, place)));
}

/// Where the value of `{"id": id, "key": key, "value": …}` stands, if it is a container.
pub(super) fn of_value(id: &Json, key: &Json) -> i64 {
    let keys = WORD * (1 + 6) + ("id".len() + "key".len() + "value".len()) as i64;
    aligned(end(key, end(id, keys, &mut |_, _| ()), &mut |_, _| ()))
}

fn aligned(at: i64) -> i64 {
    (at + WORD - 1) / WORD * WORD
}

/// The end of a value whose predecessor ends at `at`.
fn end<'a>(json: &'a Json, at: i64, note: &mut impl FnMut(&'a Json, i64)) -> i64 {
    match json {
        Json::Null | Json::Bool(_) => at,
        Json::Text(text) => at + text.len() as i64,
        Json::Number(digits) => aligned(at) + number_bytes(digits),
        Json::Array(items) => {
            let start = aligned(at);
            note(json, start);
            items.iter().fold(start + WORD * (1 + items.len() as i64), |at, item| end(item, at, note))
        }
        Json::Object(members) => {
            let start = aligned(at);
            note(json, start);
            let keys: i64 = members.iter().map(|(key, _)| key.len() as i64).sum();
            let values = start + WORD * (1 + 2 * members.len() as i64) + keys;
            members.iter().fold(values, |at, (_, value)| end(value, at, note))
        }
    }
}

/// A numeric has digits to the base of 10000, two bytes each, behind six bytes or eight.
fn number_bytes(plain: &str) -> i64 {
    const SHORT_SCALE_MAX: usize = 63;
    let plain = plain.strip_prefix('-').unwrap_or(plain);
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let digits = format!("{whole}{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let is_zero = |group: &&[u8]| group.iter().all(|digit| *digit == b'0');
    let groups: Vec<&[u8]> = digits.as_bytes().chunks(4).collect();
    let leading = groups.iter().take_while(|group| is_zero(group)).count();
    let trailing = groups.iter().rev().take_while(|group| is_zero(group)).count();
    let count = groups.len().saturating_sub(leading + trailing);
    let weight = if count == 0 { 0 } else { (whole.len() / 4) as i64 - 1 - leading as i64 };
    let is_short = fraction.len() <= SHORT_SCALE_MAX && (-64..=63).contains(&weight);
    (if is_short { 6 } else { 8 }) + 2 * count as i64
}
