//! Formats: from message bytes to Arrow columns of the source's schema.
//!
//! A [`Format`] is what the source's WITH options say; with the source's columns it becomes a [`Decoder`]. Every decoder keeps
//! these rules: each message ends in rows or in one reject; a bad message never touches its neighbours; no value is narrowed or
//! rounded in silence (DOUBLE and REAL take the nearest value of a decimal number, timestamps round to microseconds, both
//! as Postgres does). A message without a value (a tombstone) is no row and no reject.

mod avro;
mod column;
mod csv;
mod cursor;
mod debezium;
mod format;
mod given;
pub mod infer;
pub(crate) mod json;
mod number;
mod path;
pub(crate) mod protobuf;
mod raw;
pub(crate) mod registry;
mod rows;
mod time;
pub mod trial;
mod value;

#[cfg(test)]
#[path = "../../../tests/fuzz/src/messages.rs"]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Schema, SchemaRef},
};
use tidemill_storage::{ids::StreamId, schema::DataType};

pub(crate) use self::format::nearest;
use self::registry::{Registered, SchemasById};
pub use self::{
    format::{CsvOptions, DebeziumOptions, DecimalMode, Format, SchemaSource},
    given::settle as settle_schema,
    path::{PathStep, parse_path},
    registry::RegistryAddress,
    time::EpochUnit,
};
use crate::{
    Error, Result,
    message::{MessageBatch, Reject, SourceBatch},
};

/// Turns messages into rows. One per thread; keeps its buffers between calls.
pub trait Decoder: Send {
    /// Every message that is taken ends in exactly one of rows (0..n of them) and rejects. Never panics, whatever the bytes. Fails as a whole,
    /// with `Unavailable`, only when a schema registry does not answer: then nothing of the batch is taken, and it may be decoded again later.
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded>;
}

#[derive(Clone, Debug)]
pub struct Decoded {
    /// The columns of the source's schema, in order, in the Arrow types of `tidemill_storage::schema`.
    pub rows: RecordBatch,
    /// The offset of each row's message.
    pub row_offsets: Vec<u64>,
    pub rejects: Vec<Reject>,
    /// Messages of the batch that these are: the first ones, all unless their rows became very much larger than they are.
    pub taken: usize,
}

/// One column of a source: its type and where in a message its value stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceColumn {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// Steps from the message to the value; by default one step, the field of the column's name. Empty means the whole message.
    pub path: Vec<PathStep>,
    /// Whether no path was given.
    pub by_name: bool,
    /// Whether the column is of the PRIMARY KEY, by which a change stream tells rows apart.
    pub in_key: bool,
    /// What a number in a DATE, TIMESTAMP or TIMESTAMPTZ column counts.
    pub epoch: EpochUnit,
}

impl SourceColumn {
    /// A column read from the field of its own name.
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        let name = name.into();
        let path = vec![PathStep::Field(name.clone())];
        Self { name, data_type, nullable, path, by_name: true, in_key: false, epoch: EpochUnit::ByMagnitude }
    }

    pub fn with_path(mut self, path: Vec<PathStep>) -> Self {
        self.path = path;
        self.by_name = false;
        self
    }

    pub fn with_key(mut self, in_key: bool) -> Self {
        self.in_key = in_key;
        self
    }

    pub fn with_epoch(mut self, epoch: EpochUnit) -> Self {
        self.epoch = epoch;
        self
    }
}

/// The Arrow schema of the rows that a decoder of these columns makes.
pub fn source_schema(columns: &[SourceColumn]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|c| c.data_type.field(&c.name, c.nullable)).collect::<Vec<_>>()))
}

/// A decoder of `format` into `columns`. `Definition` when the two do not fit.
pub fn decoder(format: &Format, columns: &[SourceColumn]) -> Result<Box<dyn Decoder>> {
    decoder_with(format, columns, None)
}

/// The same; of formats with a registry one that knows a schema without asking for it.
fn decoder_with(
    format: &Format,
    columns: &[SourceColumn],
    known: Option<(u32, &Registered)>,
) -> Result<Box<dyn Decoder>> {
    if columns.is_empty() {
        return Err(Error::Definition { message: "a source needs at least one column".into(), hint: None });
    }
    let mut columns = columns.to_vec();
    let with_epoch = |columns: &mut [SourceColumn], epoch: EpochUnit| {
        for column in columns.iter_mut().filter(|column| column.epoch == EpochUnit::ByMagnitude) {
            column.epoch = epoch;
        }
    };
    Ok(match format {
        Format::Json { epoch } => {
            with_epoch(&mut columns, *epoch);
            Box::new(json::JsonDecoder::new(&columns))
        }
        Format::DebeziumJson { options, epoch } => {
            debezium::set_epochs(&mut columns);
            with_epoch(&mut columns, *epoch);
            Box::new(debezium::DebeziumDecoder::new(options, &columns)?)
        }
        Format::Csv { options, epoch } => {
            with_epoch(&mut columns, *epoch);
            Box::new(csv::CsvDecoder::new(options.clone(), &columns)?)
        }
        Format::Raw => Box::new(raw::RawDecoder::new(&columns)?),
        Format::Avro { schema, epoch } => {
            with_epoch(&mut columns, *epoch);
            Box::new(match schema {
                SchemaSource::Registry(address) => {
                    avro::AvroDecoder::with_registry(SchemasById::new(address), &columns).knowing(known)
                }
                SchemaSource::Given { schema, .. } => avro::AvroDecoder::with_schema(&given::avro(schema)?, &columns)?,
            })
        }
        Format::Protobuf { schema, epoch } => {
            with_epoch(&mut columns, *epoch);
            Box::new(match schema {
                SchemaSource::Registry(address) => {
                    protobuf::ProtobufDecoder::with_registry(SchemasById::new(address), &columns).knowing(known)
                }
                SchemaSource::Given { schema, message } => {
                    let files = given::protobuf(schema)?;
                    protobuf::ProtobufDecoder::with_message(&files, message.as_deref(), &columns)?
                }
            })
        }
    })
}

/// Decodes the first messages of a batch of `stream`, as many as may be in memory as rows together, mostly all; the others come back. Rows and
/// rejects account for the whole range of offsets. Fails as [`Decoder::decode`] does.
pub fn decode_batch(
    decoder: &mut dyn Decoder,
    stream: StreamId,
    mut messages: MessageBatch,
) -> Result<(SourceBatch, Option<MessageBatch>)> {
    let Decoded { rows, row_offsets, rejects, taken } = decoder.decode(&messages)?;
    let rest = messages.split_off(taken);
    let batch = SourceBatch {
        stream,
        rows,
        row_offsets,
        from: messages.from,
        to: messages.to,
        newest_timestamp_ms: messages.messages.iter().map(|message| message.timestamp_ms).max().unwrap_or(-1),
        rejects,
        origin: Some(messages),
    };
    Ok((batch, rest))
}

/// Appends the JSONB that `text` is to `out`, or says why it is none; then `out` holds rubbish.
pub(crate) fn parse_json(text: &str, out: &mut String) -> Result<(), String> {
    json::jsonb::canonical(text, out).map_err(|misfit| misfit.to_string())
}

/// Reads texts as values of a type by the rules of untyped formats; the error names the first value that does not fit.
pub(crate) fn parse_texts<'a>(
    name: &str,
    data_type: &DataType,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> Result<ArrayRef, String> {
    let mut column = column::Column::new(&SourceColumn::new(name, data_type.clone(), true));
    for text in texts {
        let value = text.map_or(value::Value::Null, value::Value::Text);
        column.append(value).map_err(|refusal| refusal.to_string())?;
    }
    Ok(column.finish())
}
