//! Schemas that the options of a source hold, or the files that they name.
//!
//! The option `schema` is the schema itself, or the path of a file on this machine. A file is read once, when the source is made, and its content takes
//! the path's place in the source's definition: what a source means must not change when a file does.

use std::{collections::BTreeMap, fs, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{DescriptorPool, FileDescriptor};

use super::protobuf::{compile, compile_file, descriptor_set};
use crate::{Error, Result};

/// Longest file of a schema.
const FILE_BYTES_MAX: u64 = 8 << 20;
const BASE64: &str = "base64:";

/// Puts a schema's content where its options name a file that can be read.
pub fn settle(options: &mut BTreeMap<String, String>) {
    let format = options.get("format").map(|format| format.trim().to_ascii_lowercase()).unwrap_or_default();
    let keys = ["schema", "avro.schema", "protobuf.schema"];
    let Some(schema) = keys.iter().find_map(|key| options.get(*key).map(|_| *key)).and_then(|key| options.get_mut(key))
    else {
        return;
    };
    let path = schema.trim();
    let content = match format.as_str() {
        "avro" if !is_avro(path) => read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
        "protobuf" if !is_protobuf(path) => {
            let compiled = if path.ends_with(".proto") {
                // With all that it imports. Its own file stands last.
                compile_file(Path::new(path)).ok().map(|file| file.parent_pool().encode_to_vec())
            } else {
                read(path).ok()
            };
            compiled.map(|bytes| format!("{BASE64}{}", STANDARD.encode(bytes)))
        }
        _ => None,
    };
    if let Some(content) = content {
        *schema = content;
    }
}

/// The text of an Avro schema. `Definition` when its file cannot be read.
pub(super) fn avro(schema: &str) -> Result<String> {
    let schema = schema.trim();
    if is_avro(schema) {
        return Ok(schema.to_owned());
    }
    let bytes = read(schema).map_err(|reason| unreadable(schema, &reason))?;
    String::from_utf8(bytes).map_err(|_| unreadable(schema, "it is not UTF-8"))
}

/// The types of a Protobuf schema, and the file that was meant, where it is known.
pub(super) fn protobuf(schema: &str) -> Result<(DescriptorPool, Option<FileDescriptor>)> {
    let schema = schema.trim();
    let unusable = |reason: String| Error::Definition {
        message: format!("the Protobuf schema cannot be used: {reason}"),
        hint: Some(
            "give the text of a .proto (proto2 or proto3), or the path of one, or of a serialized FileDescriptorSet"
                .into(),
        ),
    };
    let of_file = |file: FileDescriptor| (file.parent_pool().clone(), Some(file));
    let bytes = match schema.strip_prefix(BASE64) {
        Some(digits) => STANDARD.decode(digits.trim()).map_err(|error| unusable(format!("its Base64: {error}")))?,
        None if is_protobuf(schema) => return compile(schema, &[]).map(of_file).map_err(unusable),
        None if schema.ends_with(".proto") => return compile_file(Path::new(schema)).map(of_file).map_err(unusable),
        None => read(schema).map_err(|reason| unreadable(schema, &reason))?,
    };
    let pool = descriptor_set(&bytes).map_err(unusable)?;
    // protoc and its like write a file after those that it imports.
    let last = pool.files().last();
    Ok((pool, last))
}

/// JSON, or the name of a type, rather than a path.
fn is_avro(schema: &str) -> bool {
    let schema = schema.trim_start();
    schema.starts_with(['{', '[', '"'])
        || matches!(schema.trim_end(), "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

/// The text of a .proto or Base64, rather than a path.
fn is_protobuf(schema: &str) -> bool {
    schema.starts_with(BASE64) || schema.contains(['{', ';', '\n'])
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn unreadable(path: &str, reason: &str) -> Error {
    Error::Definition {
        message: format!("option 'schema': file '{path}' cannot be read: {reason}"),
        hint: Some("give the schema itself, or the path of its file on the server".into()),
    }
}
