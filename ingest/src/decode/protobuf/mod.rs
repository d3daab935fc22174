//! Protobuf messages straight into columns.
//!
//! ```text
//! message ─ frame? ─► schema of its id ─► type of its index path ─► walk along the paths of the columns ─► convert ─► append
//!                                                                   (lengths of everything, values of what is wanted)
//! ```
//!
//! A field is found by its name in the .proto, or by its name in JSON. What has a presence of its own and is not there is NULL; what has none is its
//! type's zero, as Protobuf says. Of fields that come twice the last one counts, messages in pieces are put together. The plain twin in the
//! tests is prost-reflect's dynamic message, which also writes what is read.

mod columns;
mod examples;
mod message;
mod plan;
mod schema;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};

pub(super) use self::columns::{columns_of_given, columns_of_registered, path_of};
pub(super) use self::examples::examples;
pub(crate) use self::schema::compile;
pub(super) use self::schema::{compile_file, descriptor_set};
use self::{
    message::{Finds, Found, What},
    plan::{Kinds, Plan},
    schema::{Kind, MessageKind, by_indices},
    wire::{Raw, Wrong},
};
use super::{
    Decoded, Decoder, SourceColumn,
    column::Column,
    cursor::{Cursor, Unfit},
    number::Misfit,
    path::display_path,
    registry::{FRAME_BYTES, Registered, SchemasById, frame},
    rows::{Fault, Rows},
    value::Value,
};
use crate::{Error, Result, message::MessageBatch};

/// Longest path of indices to a message's type.
const INDICES_MAX: i64 = 65;

pub(super) struct ProtobufDecoder {
    columns: Vec<SourceColumn>,
    rows: Rows,
    types: Types,
    room: Room,
}

/// Reused buffers.
#[derive(Default)]
struct Room {
    json: String,
    text: String,
    joined: Vec<u8>,
}

/// The types that messages are of.
enum Types {
    /// All of one.
    One(Box<Plan>),
    /// Each of the one that its id and path of indices say.
    ById(SchemasById<FileTypes>),
}

/// The types of one .proto, as far as messages were of them.
#[derive(Debug)]
pub(super) struct FileTypes {
    file: FileDescriptor,
    plans: HashMap<Vec<i32>, Plan>,
}

impl ProtobufDecoder {
    /// For bare messages, all of the type named `message`, or of the only one there is. `Definition` when there is none such, or when a column
    /// has no place in it.
    pub(super) fn with_message(
        files: &(DescriptorPool, Option<FileDescriptor>),
        message: Option<&str>,
        columns: &[SourceColumn],
    ) -> Result<Self> {
        let descriptor = the_type(files, message)?;
        let plan = Plan::new(&descriptor, columns);
        if let Some(absent) = plan.absent.first() {
            let column = &columns[*absent];
            let fields: Vec<_> = descriptor.fields().map(|field| field.name().to_owned()).collect();
            return Err(Error::Definition {
                message: format!(
                    "column \"{}\" is not in the Protobuf message {}: it has no {}",
                    column.name,
                    descriptor.full_name(),
                    display_path(&column.path)
                ),
                hint: Some(format!("the message has {}", fields.join(", "))),
            });
        }
        Ok(Self::new(Types::One(Box::new(plan)), columns))
    }

    /// For messages that carry the id of their schema.
    pub(super) fn with_registry(schemas: SchemasById<FileTypes>, columns: &[SourceColumn]) -> Self {
        Self::new(Types::ById(schemas), columns)
    }

    /// Has a schema, by its id, without asking for it.
    pub(super) fn knowing(mut self, known: Option<(u32, &Registered)>) -> Self {
        if let (Types::ById(schemas), Some((id, registered))) = (&mut self.types, known) {
            schemas.hold(id, file_types(registered));
        }
        self
    }

    fn new(types: Types, columns: &[SourceColumn]) -> Self {
        Self { columns: columns.to_vec(), rows: Rows::new(columns), types, room: Room::default() }
    }

    /// Makes ready what the batch's messages need.
    fn prepare(&mut self, messages: &MessageBatch) -> Result<()> {
        let Types::ById(schemas) = &mut self.types else { return Ok(()) };
        schemas.prepare(messages, file_types)?;
        let mut last: Option<(u32, &[u8])> = None;
        for message in messages.messages.iter().filter(|message| !message.is_null) {
            let Ok((id, framed)) = frame(messages.payload(message)) else { continue };
            if last.is_some_and(|(known, path)| known == id && framed.starts_with(path)) {
                continue;
            }
            let Ok((path, datum)) = indices(framed) else { continue };
            last = Some((id, &framed[..framed.len() - datum.len()]));
            let Some(types) = schemas.get_mut(id) else { continue };
            if !types.plans.contains_key(&path)
                && let Some(descriptor) = by_indices(&types.file, &path)
            {
                types.plans.insert(path, Plan::new(&descriptor, &self.columns));
            }
        }
        Ok(())
    }
}

/// The type of bare messages.
fn the_type(files: &(DescriptorPool, Option<FileDescriptor>), message: Option<&str>) -> Result<MessageDescriptor> {
    let (pool, file) = files;
    let names = || -> Vec<String> {
        let own = |message: &MessageDescriptor| {
            !message.full_name().starts_with("google.protobuf.")
                && !message.is_map_entry()
                && file.as_ref().is_none_or(|file| message.parent_file() == *file)
        };
        pool.all_messages().filter(own).map(|message| message.full_name().to_owned()).collect()
    };
    let hint = |names: Vec<String>| Some(format!("the schema has {}", names.join(", "))).filter(|_| !names.is_empty());
    if let Some(name) = message {
        let name = name.trim().trim_start_matches('.');
        return pool.get_message_by_name(name).ok_or_else(|| Error::Definition {
            message: format!("the Protobuf schema has no message '{name}'"),
            hint: hint(names()),
        });
    }
    let names = names();
    let top: Vec<_> = names
        .iter()
        .filter_map(|name| pool.get_message_by_name(name))
        .filter(|message| message.parent_message().is_none())
        .collect();
    match top.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::Definition {
            message: "format 'protobuf' needs the option 'message': the name of the messages' type".into(),
            hint: hint(names),
        }),
    }
}

fn file_types(registered: &Registered) -> Result<FileTypes, String> {
    if !registered.is_protobuf() {
        return Err(format!("it is a schema of {}, and the source's format is protobuf", registered.kind.name()));
    }
    Ok(FileTypes { file: compile(&registered.text, &registered.references)?, plans: HashMap::new() })
}

/// The path of indices before a message, and the message.
fn indices(framed: &[u8]) -> Result<(Vec<i32>, &[u8]), Fault> {
    let mut cursor = Cursor::new(framed, FRAME_BYTES);
    let count = cursor.zigzag()?;
    if count == 0 {
        // One zero stands for the path to the first type.
        return Ok((vec![0], cursor.rest));
    }
    if !(1..=INDICES_MAX).contains(&count) {
        return Err(cursor.broken(format!("{count} is no length of a path to a type")).into());
    }
    let mut path = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let index = cursor.zigzag()?;
        let index = i32::try_from(index).ok().filter(|index| *index >= 0);
        path.push(index.ok_or_else(|| cursor.broken("the path to a type has no index"))?);
    }
    Ok((path, cursor.rest))
}

impl Decoder for ProtobufDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        self.prepare(messages)?;
        let mut finds = Finds::new(self.columns.len());
        while let Some(message) = self.rows.next(messages) {
            let payload = messages.payload(message);
            let result = read(&self.types, payload, &mut finds)
                .and_then(|plan| append(plan, &finds, &self.columns, &mut self.rows, &mut self.room));
            self.rows.end_row(result, messages, message);
        }
        Ok(self.rows.finish())
    }
}

/// Reads one message to its end.
fn read<'a>(types: &'a Types, payload: &'a [u8], finds: &mut Finds<'a>) -> Result<&'a Plan, Fault> {
    let (plan, bytes) = match types {
        Types::One(plan) => (&**plan, payload),
        Types::ById(schemas) => {
            let (id, framed) = frame(payload)?;
            let types = schemas.get(id)?;
            let (path, bytes) = indices(framed)?;
            let plan = types.plans.get(&path).ok_or_else(|| {
                Fault::message(format!("the schema with id {id} has no message at the path {path:?} of the frame"))
            })?;
            (plan, bytes)
        }
    };
    finds.read(plan, bytes, payload.len() - bytes.len())?;
    Ok(plan)
}

fn append(
    plan: &Plan,
    finds: &Finds<'_>,
    columns: &[SourceColumn],
    rows: &mut Rows,
    room: &mut Room,
) -> Result<(), Fault> {
    for (at, found) in finds.found.iter().enumerate() {
        let column = rows.column(at);
        match *found {
            Found::Nothing if !columns[at].nullable => {
                return Err(Fault::not_null(&columns[at], !plan.absent.contains(&at)));
            }
            Found::Nothing => column.append_null(),
            Found::Value(value) => column.append(value)?,
            Found::Misfit { misfit, bytes } => return Err(column.refusal(Value::Bytes(bytes), misfit).into()),
            Found::Pieces { what, place, from } => {
                let pieces = || finds.pieces(place, from);
                let (shown, result) = match what {
                    What::Message(kind) => ("a message", one_message(kind, pieces(), column, room)),
                    What::Many(kinds) if column.takes_json() => {
                        room.json.clear();
                        let written = text::write_list(&kinds.kind, pieces(), &mut room.json, 0);
                        ("a list", written.and_then(|()| Ok(column.append(Value::Json(&room.json))?)))
                    }
                    What::Many(kinds) => {
                        let filled = column.append_list(|item| elements(kinds, pieces(), item, room));
                        ("a list", filled.unwrap_or(Err(Unfit::Misfit(Misfit::Kind))))
                    }
                    What::Map(kinds) if column.takes_json() => {
                        room.json.clear();
                        let written = text::write_entries(kinds.key, &kinds.value.kind, pieces(), &mut room.json, 0);
                        ("a map", written.and_then(|()| Ok(column.append(Value::Json(&room.json))?)))
                    }
                    What::Map(_) => ("a map", Err(Unfit::Misfit(Misfit::Kind))),
                };
                result.map_err(|unfit| match unfit {
                    Unfit::Broken(broken) => broken.into(),
                    Unfit::Fault(fault) => fault,
                    Unfit::Misfit(misfit) => Fault::from(column.refusal(Value::Json(shown), misfit)),
                })?;
            }
        }
    }
    Ok(())
}

/// Appends the message whose pieces these are.
fn one_message<'a>(
    kind: &MessageKind,
    mut pieces: impl Iterator<Item = Raw<'a>>,
    column: &mut Column,
    room: &mut Room,
) -> Result<(), Unfit> {
    let first = pieces.next().and_then(Raw::message).unwrap_or_default();
    let mut rest = pieces.filter_map(Raw::message).peekable();
    if rest.peek().is_none() {
        return message(kind, first, column, &mut room.json, &mut room.text);
    }
    room.joined.clear();
    room.joined.extend_from_slice(first);
    rest.for_each(|piece| room.joined.extend_from_slice(piece));
    message(kind, &room.joined, column, &mut room.json, &mut room.text)
}

fn message(
    kind: &MessageKind,
    bytes: &[u8],
    column: &mut Column,
    json: &mut String,
    scratch: &mut String,
) -> Result<(), Unfit> {
    if let Some(value) = text::value(kind.known, bytes, scratch)? {
        column.append(value)?;
        return Ok(());
    }
    if !column.takes_json() {
        return Err(Misfit::Kind.into());
    }
    json.clear();
    text::write_message(kind, bytes, json, 0)?;
    column.append(Value::Json(json))?;
    Ok(())
}

/// Appends the elements of a repeated field to a column of their type.
fn elements<'a>(
    kinds: &Kinds,
    pieces: impl Iterator<Item = Raw<'a>>,
    item: &mut Column,
    room: &mut Room,
) -> Result<(), Unfit> {
    for raw in pieces {
        match (&kinds.kind, kinds.kind.scalar()) {
            (Kind::Message(kind), _) => {
                let bytes = raw.message().ok_or(Wrong::Type)?;
                message(kind, bytes, item, &mut room.json, &mut room.text)?;
            }
            (_, Some(scalar)) => scalar.each(raw, 0, &mut |raw| match kinds.value(raw) {
                Some(Ok(value)) => Ok(item.append(value)?),
                Some(Err(Wrong::Misfit(misfit, bytes))) => Err(Unfit::from(item.refusal(Value::Bytes(bytes), misfit))),
                Some(Err(wrong)) => Err(wrong.into()),
                None => Ok(()),
            })?,
            _ => {}
        }
    }
    Ok(())
}
