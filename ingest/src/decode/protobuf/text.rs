//! Messages as values and as JSON texts.
//!
//! Protobuf's own mapping to JSON, with these differences: members have the names of the .proto, 64-bit integers are numbers, and what
//! has no presence of its own is there also when it is zero or empty.

use std::collections::BTreeMap;

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::{
    message::{PIECES_MAX, entry},
    schema::{Kind, Known, MessageKind},
    wire::{Raw, Scalar, Wrong, field},
};
use crate::decode::{
    cursor::{Broken, Cursor, DEPTH_MAX, Unfit, check_size},
    json::jsonb::write_string,
    number::Misfit,
    value::{Moment, Unscaled, Value},
};

/// Longest duration of Protobuf: 10,000 years.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;

impl From<Wrong<'_>> for Unfit {
    fn from(wrong: Wrong<'_>) -> Self {
        match wrong {
            Wrong::Type => Self::Broken(Broken::new("a field has another type than the schema says")),
            Wrong::Misfit(misfit, _) => Self::Misfit(misfit),
        }
    }
}

/// The value of a message that means one; `None` of others. `text` is room for it.
pub(super) fn value<'a>(known: Known, bytes: &'a [u8], text: &'a mut String) -> Result<Option<Value<'a>>, Unfit> {
    let mut fields = [None; 3];
    let mut read = || -> Result<[Option<Raw<'a>>; 3], Broken> {
        let mut cursor = Cursor::new(bytes, 0);
        while !cursor.is_at_end() {
            let (number, raw) = field(&mut cursor)?;
            if let Some(slot) = fields.get_mut(number as usize - 1) {
                *slot = Some(raw);
            }
        }
        Ok(fields)
    };
    let integer = |scalar: Scalar, raw: Option<Raw<'a>>| match raw.map(|raw| scalar.value(raw)) {
        Some(Ok(Value::Integer(value))) => Ok(value),
        Some(_) => Err(Unfit::from(Wrong::Type)),
        None => Ok(0),
    };
    Ok(Some(match known {
        Known::No | Known::Struct | Known::Value | Known::List => return Ok(None),
        Known::Wrapper(scalar) => {
            let [first, ..] = read()?;
            first.map_or(Ok(scalar.zero()), |raw| scalar.value(raw))?
        }
        Known::Timestamp => {
            let [seconds, nanos, _] = read()?;
            let (seconds, nanos) = (integer(Scalar::Int64, seconds)?, integer(Scalar::Int32, nanos)?);
            let nanos = i32::try_from(nanos).map_err(|_| Misfit::Range)?;
            Value::Moment(Moment::Instant { seconds, nanos })
        }
        Known::Duration => {
            let [seconds, nanos, _] = read()?;
            duration(integer(Scalar::Int64, seconds)?, integer(Scalar::Int32, nanos)?, text)?;
            Value::String(text)
        }
        Known::Decimal => {
            let [bytes, _, scale] = read()?;
            let scale = u32::try_from(integer(Scalar::Int32, scale)?).map_err(|_| Misfit::Range)?;
            match bytes.map(|raw| Scalar::Bytes.value(raw)) {
                None | Some(Ok(Value::Bytes([]))) => Value::Integer(0),
                Some(Ok(Value::Bytes(bytes))) => Value::Decimal(Unscaled { bytes, scale }),
                Some(_) => return Err(Wrong::Type.into()),
            }
        }
    }))
}

fn duration(seconds: i64, nanos: i64, out: &mut String) -> Result<(), Misfit> {
    let agree = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    if seconds.unsigned_abs() > DURATION_SECONDS_MAX || nanos.unsigned_abs() > 999_999_999 || !agree {
        return Err(Misfit::Range);
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    *out = match nanos {
        0 => format!("{sign}{seconds}s"),
        _ if nanos.is_multiple_of(1_000_000) => format!("{sign}{seconds}.{:03}s", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1000) => format!("{sign}{seconds}.{:06}s", nanos / 1000),
        _ => format!("{sign}{seconds}.{nanos:09}s"),
    };
    Ok(())
}

/// Appends a message as JSON.
pub(super) fn write_message(kind: &MessageKind, bytes: &[u8], out: &mut String, depth: u32) -> Result<(), Unfit> {
    check_size(out)?;
    if depth >= DEPTH_MAX {
        return Err(Broken::new(format!("messages are nested deeper than {DEPTH_MAX} levels")).into());
    }
    let mut text = String::new();
    if let Some(value) = value(kind.known, bytes, &mut text)? {
        value.write_json(out)?;
        return Ok(());
    }
    let first = kind.descriptor.get_field(1);
    match (kind.known, first) {
        (Known::Struct, Some(fields)) if fields.is_map() => {
            let raws = occurrences(bytes)?.into_iter().filter(|(number, _)| *number == 1).map(|(_, raw)| raw);
            write_map(&fields, raws, out, depth)
        }
        (Known::List, Some(values)) if values.is_list() => {
            let raws = occurrences(bytes)?.into_iter().filter(|(number, _)| *number == 1).map(|(_, raw)| raw);
            write_list(&Kind::of(values.kind()), raws, out, depth)
        }
        (Known::Value, _) => {
            // One of six; the last that came counts.
            let last = occurrences(bytes)?.into_iter().rfind(|(number, _)| (1..=6).contains(number));
            match last.and_then(|(number, raw)| Some((number, kind.descriptor.get_field(number)?, raw))) {
                Some((number, of, raw)) if number > 1 => write_value(&Kind::of(of.kind()), raw, out, depth),
                _ => {
                    out.push_str("null");
                    Ok(())
                }
            }
        }
        _ => write_record(&kind.descriptor, bytes, out, depth),
    }
}

fn occurrences(bytes: &[u8]) -> Result<Vec<(u32, Raw<'_>)>, Broken> {
    let mut cursor = Cursor::new(bytes, 0);
    let mut all = Vec::new();
    while !cursor.is_at_end() {
        if all.len() >= PIECES_MAX {
            return Err(Broken::new(format!("a message has more than {PIECES_MAX} fields")));
        }
        all.push(field(&mut cursor)?);
    }
    Ok(all)
}

/// Of the members of a oneof the last one that came counts, from where it came after another one.
fn last_members(descriptor: &MessageDescriptor, all: &mut Vec<(u32, Raw<'_>)>) {
    for oneof in descriptor.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let members: Vec<u32> = oneof.fields().map(|field| field.number()).collect();
        let is_member = |number: &u32| members.contains(number);
        let Some((last, _)) = all.iter().rfind(|(number, _)| is_member(number)).copied() else { continue };
        let begin = all.iter().rposition(|(number, _)| *number != last && is_member(number));
        let mut at = 0..;
        all.retain(|(number, _)| {
            let is_before = at.next() <= begin;
            !(is_member(number) && is_before && begin.is_some())
        });
    }
}

fn write_record(descriptor: &MessageDescriptor, bytes: &[u8], out: &mut String, depth: u32) -> Result<(), Unfit> {
    let mut all = occurrences(bytes)?;
    last_members(descriptor, &mut all);
    // Stable: occurrences of a field keep their order.
    all.sort_by_key(|(number, _)| *number);
    out.push('{');
    let mut is_first = true;
    for field in descriptor.fields() {
        let number = field.number();
        let begin = all.partition_point(|(other, _)| *other < number);
        let raws = all[begin..].iter().take_while(|(other, _)| *other == number).map(|(_, raw)| *raw);
        let is_there = raws.clone().next().is_some();
        if !is_there && field.supports_presence() {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        write_string(field.name(), out);
        out.push(':');
        let kind = Kind::of(field.kind());
        if field.is_map() {
            write_map(&field, raws, out, depth)?;
        } else if field.is_list() {
            write_list(&kind, raws, out, depth)?;
        } else if let Kind::Message(message) = &kind {
            let mut pieces = Vec::new();
            for raw in raws {
                pieces.push(raw.message().ok_or(Wrong::Type)?);
            }
            match pieces.as_slice() {
                [one] => write_message(message, one, out, depth + 1)?,
                several => write_message(message, &several.concat(), out, depth + 1)?,
            }
        } else {
            match raws.last() {
                Some(raw) => write_value(&kind, raw, out, depth)?,
                None => write_zero(&kind, out)?,
            }
        }
    }
    out.push('}');
    Ok(())
}

/// Appends the occurrences of a repeated field, packed or not.
pub(super) fn write_list<'a>(
    kind: &Kind,
    raws: impl Iterator<Item = Raw<'a>>,
    out: &mut String,
    depth: u32,
) -> Result<(), Unfit> {
    out.push('[');
    let mut is_first = true;
    let mut one = |raw: Raw<'a>| {
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        write_value(kind, raw, out, depth)
    };
    for raw in raws {
        match kind.scalar() {
            Some(scalar) => scalar.each(raw, 0, &mut one)?,
            None => one(raw)?,
        }
    }
    out.push(']');
    Ok(())
}

fn write_map<'a>(
    field: &FieldDescriptor,
    raws: impl Iterator<Item = Raw<'a>>,
    out: &mut String,
    depth: u32,
) -> Result<(), Unfit> {
    let prost_reflect::Kind::Message(of) = field.kind() else { return Err(Wrong::Type.into()) };
    let key = Kind::of(of.map_entry_key_field().kind()).scalar().unwrap_or(Scalar::String);
    write_entries(key, &Kind::of(of.map_entry_value_field().kind()), raws, out, depth)
}

/// Appends the entries of a map; of equal keys the last one counts.
pub(super) fn write_entries<'a>(
    key: Scalar,
    value: &Kind,
    raws: impl Iterator<Item = Raw<'a>>,
    out: &mut String,
    depth: u32,
) -> Result<(), Unfit> {
    let mut entries = BTreeMap::new();
    for raw in raws {
        let (raw_key, raw_value) = entry(raw.message().ok_or(Wrong::Type)?, 0)?;
        let mut text = String::new();
        raw_key.map_or(Ok(key.zero()), |raw| key.value(raw))?.write_text(&mut text)?;
        entries.insert(text, raw_value);
    }
    out.push('{');
    for (at, (key, raw)) in entries.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_string(&key, out);
        out.push(':');
        match (raw, value) {
            (Some(raw), _) => write_value(value, raw, out, depth)?,
            (None, Kind::Message(message)) => write_message(message, &[], out, depth + 1)?,
            (None, _) => write_zero(value, out)?,
        }
    }
    out.push('}');
    Ok(())
}

fn write_value(kind: &Kind, raw: Raw<'_>, out: &mut String, depth: u32) -> Result<(), Unfit> {
    check_size(out)?;
    match kind {
        Kind::Message(message) => {
            return write_message(message, raw.message().ok_or(Wrong::Type)?, out, depth + 1);
        }
        Kind::Enum(words) => match Scalar::Enum.value(raw)? {
            Value::Integer(number) => match words.get_value(number as i32) {
                Some(word) => write_string(word.name(), out),
                None => Value::Integer(number).write_json(out)?,
            },
            other => other.write_json(out)?,
        },
        Kind::Scalar(scalar) => scalar.value(raw)?.write_json(out)?,
    }
    Ok(())
}

fn write_zero(kind: &Kind, out: &mut String) -> Result<(), Unfit> {
    match kind {
        Kind::Enum(words) => match words.get_value(0) {
            Some(word) => write_string(word.name(), out),
            None => out.push('0'),
        },
        Kind::Scalar(scalar) => scalar.zero().write_json(out)?,
        Kind::Message(_) => out.push_str("null"),
    }
    Ok(())
}
