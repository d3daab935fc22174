//! Schemas as a registry keeps them: what is one, which two are the same, and what may follow what.
//!
//! ```text
//! text (+ texts that it refers to) ─ parse ─► Schema { text, identity, shape }
//! reader, writer ─ misfits ─► why the one cannot read what was written with the other; nothing is "it can"
//! ```
//!
//! Nothing here keeps anything: ids, subjects and versions are the server's.

mod avro;
mod json;
mod level;
mod protobuf;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use self::level::Level;

/// Longest text of a schema.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Reasons that are listed.
const MISFITS_MAX: usize = 50;

/// The language of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Avro,
    Protobuf,
    Json,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Avro, Self::Protobuf, Self::Json];

    /// As registries call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// A schema that can be used.
#[derive(Debug)]
pub struct Schema {
    pub kind: Kind,
    /// As it is kept and given to readers.
    pub text: String,
    /// The same for schemas that differ in spaces, comments (Protobuf) and the order of members (JSON) alone, and for no others.
    pub identity: String,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Avro(avro::Schema),
    Protobuf(protobuf::Schema),
    Json(Json),
}

impl Schema {
    /// Reads a schema; `referenced` are the texts that it may name, by the names that it has for them, what others refer to before them.
    /// The error tells a person what is wrong.
    pub fn parse(kind: Kind, text: &str, referenced: &[(String, String)]) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let (text, identity, shape) = match kind {
            Kind::Avro => {
                let (schema, json) = avro::Schema::parse(text, referenced)?;
                (text.to_owned(), canonical(&avro::plain(&json)), Shape::Avro(schema))
            }
            Kind::Protobuf => {
                let (schema, text) = protobuf::Schema::parse(text, referenced)?;
                (text, schema.identity(), Shape::Protobuf(schema))
            }
            Kind::Json => {
                let schema = json::parse(text)?;
                (text.to_owned(), canonical(&schema), Shape::Json(schema))
            }
        };
        Ok(Self { kind, text, identity, shape })
    }

    /// The file of a Protobuf schema as its serialized FileDescriptorProto; `None` of other kinds.
    pub fn descriptor(&self) -> Option<Vec<u8>> {
        match &self.shape {
            Shape::Protobuf(schema) => Some(schema.descriptor()),
            _ => None,
        }
    }
}

/// Why something written with one schema cannot be read with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// As Confluent's registry calls it, where it has a name for it.
    pub kind: &'static str,
    /// Where in the reader's schema.
    pub path: String,
    pub description: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, path, description } = self;
        write!(f, "{{errorType:'{kind}', description:'{description} (path '{path}')'}}")
    }
}

/// What of `writer`'s data `reader` cannot read: nothing when it can read all of it.
pub fn misfits(reader: &Schema, writer: &Schema) -> Vec<Misfit> {
    let mut misfits = match (&reader.shape, &writer.shape) {
        (Shape::Avro(reader), Shape::Avro(writer)) => avro::misfits(reader, writer),
        (Shape::Protobuf(reader), Shape::Protobuf(writer)) => protobuf::misfits(reader, writer),
        (Shape::Json(reader), Shape::Json(writer)) => json::misfits(reader, writer),
        _ => vec![Misfit {
            kind: "SCHEMA_TYPE_CHANGED",
            path: "/".into(),
            description: format!("one schema is {}, the other {}", reader.kind.name(), writer.kind.name()),
        }],
    };
    misfits.truncate(MISFITS_MAX);
    misfits
}

/// JSON with the members of objects in order, without spaces.
fn canonical(json: &Json) -> String {
    fn write(json: &Json, out: &mut String) {
        match json {
            Json::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                sorted.sort_by_key(|(name, _)| *name);
                out.push('{');
                for (at, (name, value)) in sorted.into_iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&Json::from(name.as_str()).to_string());
                    out.push(':');
                    write(value, out);
                }
                out.push('}');
            }
            Json::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write(item, out);
                }
                out.push(']');
            }
            other => out.push_str(&other.to_string()),
        }
    }
    let mut out = String::new();
    write(json, &mut out);
    out
}
