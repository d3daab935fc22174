//! Whether readers of one file understand what was written with another one.
//!
//! Fields are their numbers on the wire, so names and order are free; a field that one side does not have is passed over or absent. What is refused is what Confluent's registry refuses:
//! another package, messages and oneofs that are gone, types that are written otherwise, required fields that come or go. `int64` read as `int32` is taken, as Protobuf's own
//! documentation has it, and readers cut such numbers off (ours refuses them).

use std::collections::BTreeMap;

use prost_reflect::{Cardinality, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};

use super::Schema;
use crate::schemas::Misfit;

pub(in crate::schemas) fn misfits(reader: &Schema, writer: &Schema) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let (new, old) = (&reader.file, &writer.file);
    if new.package_name() != old.package_name() {
        misfits.push(Misfit {
            kind: "PACKAGE_CHANGED",
            path: "/".into(),
            description: format!(
                "the reader's package is \"{}\", the writer's \"{}\"",
                new.package_name(),
                old.package_name()
            ),
        });
        return misfits;
    }
    let known = messages(new);
    for (name, old) in messages(old) {
        match known.get(&name) {
            Some(new) => compare(new, &old, &mut misfits),
            None => misfits.push(Misfit {
                kind: "MESSAGE_REMOVED",
                path: format!("/{name}"),
                description: format!("the reader's schema has no message \"{name}\""),
            }),
        }
    }
    misfits
}

/// All messages of a file by full name, without the entries of maps.
fn messages(file: &FileDescriptor) -> BTreeMap<String, MessageDescriptor> {
    let mut found = BTreeMap::new();
    let mut open: Vec<MessageDescriptor> = file.messages().collect();
    while let Some(message) = open.pop() {
        if !message.is_map_entry() {
            open.extend(message.child_messages());
            found.insert(message.full_name().to_owned(), message);
        }
    }
    found
}

fn compare(new: &MessageDescriptor, old: &MessageDescriptor, out: &mut Vec<Misfit>) {
    let mut tell = |kind, field: &FieldDescriptor, description: String| {
        out.push(Misfit { kind, path: format!("/{}/{}", new.full_name(), field.number()), description });
    };
    for field in old.fields() {
        let name = field.name();
        let Some(now) = new.get_field(field.number()) else {
            if oneof(&field).is_some() {
                tell("ONEOF_FIELD_REMOVED", &field, format!("the reader's schema has not \"{name}\" of a oneof"));
            } else if field.cardinality() == Cardinality::Required {
                tell("REQUIRED_FIELD_REMOVED", &field, format!("the reader's schema has not the required \"{name}\""));
            }
            continue;
        };
        if let Some(kind) = type_change(&now, &field) {
            let (now, then) = (described(&now), described(&field));
            tell(kind, &field, format!("\"{name}\" is {now} for the reader and {then} for the writer"));
        }
        if let (Some(into), None) = (oneof(&now), oneof(&field)) {
            // One field may begin a oneof of its own; in one with others it takes their place, or they take its.
            let others = new.fields().filter(|other| oneof(other).as_deref() == Some(into.as_str()));
            let was_there =
                |other: &FieldDescriptor| other.number() != now.number() && old.get_field(other.number()).is_some();
            if others.into_iter().any(|other| was_there(&other)) {
                tell("FIELD_MOVED_TO_EXISTING_ONEOF", &field, format!("\"{name}\" came to others in oneof \"{into}\""));
            }
        }
    }
    for field in new.fields() {
        if field.cardinality() == Cardinality::Required && old.get_field(field.number()).is_none() {
            tell(
                "REQUIRED_FIELD_ADDED",
                &field,
                format!("\"{}\" is required, and the writer has it not", field.name()),
            );
        }
    }
}

/// The oneof of a field that has one in the .proto.
fn oneof(field: &FieldDescriptor) -> Option<String> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned())
}

fn type_change(new: &FieldDescriptor, old: &FieldDescriptor) -> Option<&'static str> {
    if new.is_map() || old.is_map() {
        if !(new.is_map() && old.is_map()) {
            return Some("FIELD_KIND_CHANGED");
        }
        let (Kind::Message(new), Kind::Message(old)) = (new.kind(), old.kind()) else {
            return Some("FIELD_KIND_CHANGED");
        };
        let key = type_change(&new.map_entry_key_field(), &old.map_entry_key_field());
        return key.or_else(|| type_change(&new.map_entry_value_field(), &old.map_entry_value_field()));
    }
    match (new.kind(), old.kind()) {
        (Kind::Message(new), Kind::Message(old)) if new.full_name() != old.full_name() => {
            return Some("FIELD_NAMED_TYPE_CHANGED");
        }
        (Kind::Enum(new), Kind::Enum(old)) if new.full_name() != old.full_name() => {
            return Some("FIELD_NAMED_TYPE_CHANGED");
        }
        (Kind::Message(_), Kind::Message(_)) => {}
        (Kind::Message(_), _) | (_, Kind::Message(_)) => return Some("FIELD_KIND_CHANGED"),
        (now, then) if wire(&now) != wire(&then) => return Some("FIELD_SCALAR_KIND_CHANGED"),
        _ => {}
    }
    // The last of several stands for all where one is read; numbers may be packed, which one number is not.
    let is_of_bytes = matches!(new.kind(), Kind::String | Kind::Bytes | Kind::Message(_));
    (new.is_list() != old.is_list() && !is_of_bytes).then_some("FIELD_NUMERIC_LABEL_CHANGED")
}

/// Kinds of one number are written alike.
fn wire(kind: &Kind) -> u8 {
    match kind {
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Bool | Kind::Enum(_) => 0,
        Kind::Sint32 | Kind::Sint64 => 1,
        Kind::Fixed32 | Kind::Sfixed32 => 2,
        Kind::Fixed64 | Kind::Sfixed64 => 3,
        Kind::String | Kind::Bytes => 4,
        Kind::Float => 5,
        Kind::Double => 6,
        Kind::Message(_) => 7,
    }
}

fn described(field: &FieldDescriptor) -> String {
    let label = if field.is_list() { "repeated " } else { "" };
    match field.kind() {
        Kind::Message(message) if message.is_map_entry() => "a map".into(),
        Kind::Message(message) => format!("{label}{}", message.full_name()),
        Kind::Enum(words) => format!("{label}{}", words.full_name()),
        scalar => format!("{label}{scalar:?}").to_ascii_lowercase(),
    }
}
