//! Forms of values: what the bytes of a record's value are, by the sink's `format`.
//!
//! ```text
//! format, columns ─► Form ─ wire (asks the registry, once) ─► Wire { frame, numbers }
//! row ─ Form + Wire ─► bytes that a source of the same format reads as the same row
//! ```

mod avro;
mod csv;
mod debezium;
mod protobuf;
mod registration;
#[cfg(test)]
mod tests;

use tidemill_storage::schema::Column as SchemaColumn;

pub use self::registration::{Registration, Wire};
use self::{avro::AvroForm, csv::CsvForm, debezium::DebeziumForm, protobuf::ProtobufForm};
use super::json::Column;
use crate::{
    Error, Result,
    decode::{CsvOptions, json::jsonb::write_string, trial::Writer},
    schemas::Kind,
};

/// What the option `format` and its like say.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SinkFormat {
    #[default]
    Json,
    Csv(CsvOptions),
    Raw,
    /// With the column that is true in rows of what was deleted.
    Debezium(String),
    Avro(Registration),
    Protobuf(Registration),
}

impl SinkFormat {
    /// Asks the registry, of formats that need one, whether it is there. Blocks.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Json | Self::Csv(_) | Self::Raw | Self::Debezium(_) => Ok(()),
            Self::Avro(registration) | Self::Protobuf(registration) => registration.latest().map(|_| ()),
        }
    }
}

/// A format over columns, by position.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// And `"name":` of each.
    Json(Vec<(String, usize)>),
    Csv(CsvForm),
    Raw(usize),
    Debezium(DebeziumForm),
    Avro(AvroForm),
    Protobuf(ProtobufForm),
}

impl Form {
    /// `Definition` when the format has no form for the columns. `timestamp`: the column that is the time of a record.
    pub(super) fn new(
        format: &SinkFormat,
        columns: &[(usize, &SchemaColumn)],
        timestamp: Option<usize>,
    ) -> Result<Self> {
        Ok(match format {
            SinkFormat::Json => Self::Json(members(columns)),
            SinkFormat::Debezium(deleted) => Self::Debezium(DebeziumForm::new(deleted, columns, timestamp)?),
            SinkFormat::Csv(options) => Self::Csv(CsvForm::new(options, columns)),
            SinkFormat::Raw => match columns {
                [(at, _)] => Self::Raw(*at),
                several => {
                    return Err(Error::Definition {
                        message: format!(
                            "format 'raw' is the bytes of one column, and the value has {}",
                            several.len()
                        ),
                        hint: Some("put others into the key or into headers, and say value_columns = 'rest'".into()),
                    });
                }
            },
            SinkFormat::Avro(registration) => Self::Avro(AvroForm::new(registration, columns)?),
            SinkFormat::Protobuf(registration) => Self::Protobuf(ProtobufForm::new(registration, columns)?),
        })
    }

    /// Asks the registry, of formats that need one. Blocks. `Mismatch` when it refuses the schema, `Unavailable` when it does not answer.
    pub(super) fn wire(&self) -> Result<Wire> {
        match self {
            Self::Json(_) | Self::Csv(_) | Self::Raw(_) | Self::Debezium(_) => Ok(Wire::default()),
            Self::Avro(form) => form.wire(),
            Self::Protobuf(form) => form.wire(),
        }
    }

    /// The schema that would be registered after the subject's newest one, of formats that have any.
    pub(super) fn schema_after(&self, latest: Option<&Writer<'_>>) -> Result<Option<(Kind, String)>> {
        let latest = latest.filter(|latest| latest.kind == Kind::Protobuf);
        Ok(match self {
            Self::Json(_) | Self::Csv(_) | Self::Raw(_) | Self::Debezium(_) => None,
            Self::Avro(form) => Some((Kind::Avro, form.text().to_owned())),
            Self::Protobuf(form) => {
                let text = form.schema_after(latest.map(|latest| (latest.text, latest.references)))?;
                Some((Kind::Protobuf, text))
            }
        })
    }

    /// Writes the value of a row. The error says what the format has no form for.
    pub(super) fn write(
        &self,
        wire: &Wire,
        columns: &[Column<'_>],
        row: usize,
        scratch: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        match self {
            Self::Json(members) => {
                scratch.clear();
                scratch.push('{');
                for (at, (name, column)) in members.iter().enumerate() {
                    if at > 0 {
                        scratch.push(',');
                    }
                    scratch.push_str(name);
                    columns[*column].write(row, scratch)?;
                }
                scratch.push('}');
                out.extend_from_slice(scratch.as_bytes());
                Ok(())
            }
            Self::Csv(form) => form.write(columns, row, scratch, out),
            Self::Raw(column) if columns[*column].is_null(row) => {
                Err("a raw value cannot be NULL: a record without a value deletes its key".into())
            }
            Self::Raw(column) => columns[*column].write_plain(row, scratch, out),
            Self::Debezium(form) => form.write(columns, row, scratch, out),
            Self::Avro(form) => {
                out.extend_from_slice(wire.frame());
                form.write(columns, row, out)
            }
            Self::Protobuf(form) => {
                out.extend_from_slice(wire.frame());
                form.write(wire.numbers(), columns, row, scratch, out)
            }
        }
    }
}

/// `"name":` of columns, and their positions.
fn members(columns: &[(usize, &SchemaColumn)]) -> Vec<(String, usize)> {
    let named = |(at, column): &(usize, &SchemaColumn)| {
        let mut name = String::new();
        write_string(&column.name, &mut name);
        name.push(':');
        (name, *at)
    };
    columns.iter().map(named).collect()
}

/// A name that Avro and Protobuf have, too.
fn check_name(format: &str, name: &str) -> Result<()> {
    let is_right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match is_right {
        true => Ok(()),
        false => Err(Error::Definition {
            message: format!("column \"{name}\" cannot be a field of {format}"),
            hint: Some("names of fields are ASCII letters, digits and underscores, and begin with no digit; give another one with AS".into()),
        }),
    }
}

/// The bytes of an integer, the highest first, as few as hold it.
fn shortest(value: i128) -> ([u8; 16], usize) {
    let bytes = value.to_be_bytes();
    let is_spare = |at: usize| (bytes[at] == 0 && bytes[at + 1] < 0x80) || (bytes[at] == 0xff && bytes[at + 1] >= 0x80);
    let first = (0..15).take_while(|at| is_spare(*at)).count();
    (bytes, first)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
