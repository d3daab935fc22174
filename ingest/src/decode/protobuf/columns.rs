//! Columns that a message's type has.

use prost_reflect::{DescriptorPool, FileDescriptor, MessageDescriptor};
use tidemill_storage::schema::DataType;

use super::{
    compile, indices,
    schema::{Kind, Known, by_indices},
    the_type,
    wire::Scalar,
};
use crate::{
    Result,
    decode::{
        infer::{COLUMNS_MAX, DEPTH_MAX, Found, Leaf},
        registry::Registered,
    },
};

pub(in crate::decode) fn columns_of_given(
    files: &(DescriptorPool, Option<FileDescriptor>),
    message: Option<&str>,
) -> Result<Vec<Found>> {
    let descriptor = the_type(files, message)?;
    Ok(columns(&descriptor))
}

/// Those of the type that a path of indices leads to. The error tells a person what is wrong with the schema.
pub(in crate::decode) fn columns_of_registered(registered: &Registered, path: &[i32]) -> Result<Vec<Found>, String> {
    let file = compile(&registered.text, &registered.references)?;
    let descriptor = by_indices(&file, path).ok_or("it has no message where its frames say")?;
    Ok(columns(&descriptor))
}

/// The path of indices before a message.
pub(in crate::decode) fn path_of(framed: &[u8]) -> Option<Vec<i32>> {
    indices(framed).ok().map(|(path, _)| path)
}

fn columns(descriptor: &MessageDescriptor) -> Vec<Found> {
    let mut found = Vec::new();
    walk(descriptor, &mut Vec::new(), &mut found);
    found
}

fn walk(message: &MessageDescriptor, path: &mut Vec<String>, found: &mut Vec<Found>) {
    for field in message.fields() {
        if found.len() >= COLUMNS_MAX {
            return;
        }
        path.push(field.name().to_owned());
        let kind = Kind::of(field.kind());
        let leaf = if field.is_map() { Leaf::Document } else { leaf(&kind) };
        let of = match (field.is_list(), leaf) {
            (true, Leaf::Column(of)) => Some(DataType::Array(Box::new(of))),
            (true, _) => Some(DataType::Jsonb),
            (false, leaf) => leaf.data_type(),
        };
        match (of, kind) {
            (Some(of), _) => found.push(Found::new(path, of)),
            // A message of its own type has no end.
            (None, Kind::Message(nested)) if path.len() < DEPTH_MAX && nested.descriptor != *message => {
                walk(&nested.descriptor, path, found);
            }
            _ => found.push(Found::new(path, DataType::Jsonb)),
        }
        path.pop();
    }
}

fn leaf(kind: &Kind) -> Leaf {
    let scalar = |scalar: Scalar| {
        Leaf::Column(match scalar {
            Scalar::Double => DataType::Double,
            Scalar::Float => DataType::Real,
            Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => DataType::Int,
            Scalar::Uint32 | Scalar::Fixed32 | Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => DataType::BigInt,
            Scalar::Uint64 | Scalar::Fixed64 => DataType::Numeric { precision: 20, scale: 0 },
            Scalar::Bool => DataType::Boolean,
            Scalar::String | Scalar::Enum => DataType::Text,
            Scalar::Bytes => DataType::Bytea,
        })
    };
    match kind {
        Kind::Scalar(of) => scalar(*of),
        Kind::Enum(_) => Leaf::Column(DataType::Text),
        Kind::Message(message) => match message.known {
            Known::No => Leaf::Record,
            Known::Timestamp => Leaf::Column(DataType::TimestampTz),
            Known::Duration => Leaf::Column(DataType::Text),
            Known::Wrapper(of) => scalar(of),
            Known::Decimal => Leaf::Column(DataType::Numeric { precision: 38, scale: 10 }),
            Known::Struct | Known::Value | Known::List => Leaf::Document,
        },
    }
}
