//! Messages of a type to try columns out with: each field with its smallest, its largest and its usual values, and without any.

use std::collections::HashMap;

use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value, prost::Message as _,
};

use super::schema::{by_indices, compile};
use crate::decode::{
    PathStep, SourceColumn,
    trial::{self, Choices, inside},
};

/// Messages within messages that are written; deeper ones are left out.
const DEPTH_MAX: u32 = 8;
const WORDS: [&str; 5] = ["1", "text", "", "2024-02-29T12:00:00Z", "0b1a51e6-7d8b-4d5a-9c0e-00000000002a"];
/// 2024-02-29T12:00:00Z.
const SECONDS: i64 = 1_709_208_000;

/// Messages of the file's first type that differ where the columns look. The error says why there are none.
pub(in crate::decode) fn examples(
    text: &str,
    references: &[(String, String)],
    columns: &[SourceColumn],
) -> Result<Vec<Vec<u8>>, String> {
    let file = compile(text, references)?;
    let descriptor = by_indices(&file, &[0]).ok_or("it has no message")?;
    let paths: Vec<&[PathStep]> = columns.iter().map(|column| &column.path[..]).collect();
    trial::examples(|choices| Ok(message(&descriptor, &paths, choices, 0).encode_to_vec()))
}

fn choose(choices: &mut Choices, paths: &[&[PathStep]], options: usize) -> usize {
    if paths.is_empty() { 0 } else { choices.choose(options) }
}

fn message(descriptor: &MessageDescriptor, paths: &[&[PathStep]], choices: &mut Choices, depth: u32) -> DynamicMessage {
    let mut made = DynamicMessage::new(descriptor.clone());
    if matches!(descriptor.full_name(), "google.protobuf.Timestamp" | "google.protobuf.Duration") {
        made.set_field_by_name("seconds", Value::I64(SECONDS));
        return made;
    }
    // Of a oneof one member is there: the first, or one of those that are looked at.
    for oneof in descriptor.oneofs() {
        let members: Vec<FieldDescriptor> = oneof.fields().collect();
        let wanted: Vec<_> = members.iter().map(|field| through(paths, field)).collect();
        let is_wanted = wanted.iter().any(|paths| !paths.is_empty());
        let is_list = descriptor.full_name() == "google.protobuf.Value";
        let (place, chosen) = choices.open(if is_wanted { members.len() + 1 } else { 1 });
        // A value of JSON that is null comes first, and what holds others is not gone into.
        if let Some(field) = members.get(chosen)
            && !(is_list && depth >= DEPTH_MAX / 2)
        {
            set(&mut made, field, &wanted[chosen], choices, depth);
        }
        choices.close(place);
    }
    for field in descriptor.fields().filter(|field| field.containing_oneof().is_none()) {
        let wanted = through(paths, &field);
        let is_left_out = field.cardinality() != Cardinality::Required;
        let (place, chosen) = choices.open(if is_left_out && !wanted.is_empty() { 2 } else { 1 });
        if chosen == 0 {
            set(&mut made, &field, &wanted, choices, depth);
        }
        choices.close(place);
    }
    made
}

/// A field is found by its name, or by that in JSON.
fn through<'p>(paths: &[&'p [PathStep]], field: &FieldDescriptor) -> Vec<&'p [PathStep]> {
    inside(paths, |step| matches!(step, PathStep::Field(name) if name == field.name() || name == field.json_name()))
}

fn set(made: &mut DynamicMessage, field: &FieldDescriptor, paths: &[&[PathStep]], choices: &mut Choices, depth: u32) {
    let value = if field.is_map() {
        map(field, paths, choices, depth)
    } else if field.is_list() {
        let last = paths.iter().filter_map(|path| match path.first() {
            Some(PathStep::Index(index)) => Some(index + 1),
            _ => None,
        });
        let count = last.max().unwrap_or(1).min(32);
        let element = |at: usize| inside(paths, |step| *step == PathStep::Index(at));
        let elements = (0..count).filter_map(|at| one(&field.kind(), &element(at), choices, depth));
        Some(Value::List(elements.collect()))
    } else {
        one(&field.kind(), paths, choices, depth)
    };
    if let Some(value) = value {
        made.set_field(field, value);
    }
}

fn map(field: &FieldDescriptor, paths: &[&[PathStep]], choices: &mut Choices, depth: u32) -> Option<Value> {
    let Kind::Message(entry) = field.kind() else { return None };
    let mut keys: Vec<&str> = paths
        .iter()
        .filter_map(|path| match path.first() {
            Some(PathStep::Field(key)) => Some(key.as_str()),
            _ => None,
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        keys.push("1");
    }
    let mut entries = HashMap::new();
    for key in keys {
        let made = match entry.map_entry_key_field().kind() {
            Kind::String => Some(MapKey::String(key.to_owned())),
            Kind::Bool => key.parse().ok().map(MapKey::Bool),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => key.parse().ok().map(MapKey::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => key.parse().ok().map(MapKey::I64),
            Kind::Uint32 | Kind::Fixed32 => key.parse().ok().map(MapKey::U32),
            _ => key.parse().ok().map(MapKey::U64),
        };
        let wanted = inside(paths, |step| matches!(step, PathStep::Field(name) if name == key));
        let value = one(&entry.map_entry_value_field().kind(), &wanted, choices, depth);
        entries.extend(made.zip(value));
    }
    Some(Value::Map(entries))
}

/// `None` for messages that are too deep.
fn one(kind: &Kind, paths: &[&[PathStep]], choices: &mut Choices, depth: u32) -> Option<Value> {
    let mut pick = |options: usize| choose(choices, paths, options);
    Some(match kind {
        Kind::Double => Value::F64([1.0, 0.5, 0.1, f64::MAX, f64::NAN][pick(5)]),
        Kind::Float => Value::F32([1.0, 0.5, f32::MAX, f32::NAN][pick(4)]),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32([1, i32::MAX, i32::MIN][pick(3)]),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64([1, i64::MAX, i64::MIN][pick(3)]),
        Kind::Uint32 | Kind::Fixed32 => Value::U32([1, u32::MAX][pick(2)]),
        Kind::Uint64 | Kind::Fixed64 => Value::U64([1, u64::MAX][pick(2)]),
        Kind::Bool => Value::Bool(pick(2) == 0),
        Kind::String => Value::String(WORDS[pick(WORDS.len())].to_owned()),
        Kind::Bytes => Value::Bytes([&b"1"[..], b"", &[0xff; 20]][pick(3)].to_vec().into()),
        Kind::Enum(of) => {
            let numbers: Vec<i32> = of.values().map(|value| value.number()).collect();
            Value::EnumNumber(*numbers.get(pick(numbers.len()))?)
        }
        Kind::Message(of) if of.full_name() == "confluent.type.Decimal" => {
            let (digits, scale): (&[u8], i32) = [(&b"\x64"[..], 2), (&[0x7f; 15][..], 2), (&b"\x01"[..], 20)][pick(3)];
            let mut made = DynamicMessage::new(of.clone());
            made.set_field_by_name("value", Value::Bytes(digits.to_vec().into()));
            made.set_field_by_name("precision", Value::U32(38));
            made.set_field_by_name("scale", Value::I32(scale));
            Value::Message(made)
        }
        Kind::Message(of) => {
            if depth >= DEPTH_MAX {
                return None;
            }
            Value::Message(message(of, paths, choices, depth + 1))
        }
    })
}
