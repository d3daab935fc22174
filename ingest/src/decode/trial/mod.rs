//! Trials: what would become of messages that are written with a schema, before anybody writes one.
//!
//! ```text
//! schema, columns ─► example messages (each way that a value can be there) ─ the source's own decoder ─► rows, rejects
//! ```
//!
//! Nothing here knows which types go into which: a trial is true because it is done with the code that will do it.

mod choices;
mod json;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use tidemill_storage::ids::StreamId;

pub(super) use self::choices::{Choices, examples};
use super::{
    Decoder, Format, PathStep, SourceColumn, avro, decode_batch, decoder_with, protobuf,
    registry::{Kind, Registered},
};
use crate::{
    Error, Result,
    message::{Message, MessageBatch, SourceBatch},
    schemas,
};

/// The id under which examples are framed.
const ID: u32 = 1;
/// Reasons that a column's fate keeps.
const REFUSALS_MAX: usize = 50;

/// What messages are written with.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub kind: schemas::Kind,
    pub text: &'a str,
    /// Name and text; what others refer to comes before them.
    pub references: &'a [(String, String)],
}

/// What becomes of one column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Messages that were tried.
    pub messages: usize,
    /// Those that gave it a value.
    pub values: usize,
    /// Those that become no row.
    pub refused: usize,
    /// Different reasons why messages were refused, and whether it is the column's fault.
    pub refusals: Vec<(String, bool)>,
}

impl Fate {
    /// No message gives it a value, and none is refused.
    pub fn is_null(&self) -> bool {
        self.values == 0 && self.refused == 0
    }
}

/// What becomes of a column of a source of `format`, whatever becomes of the others. An error when no example can be made of the schema.
pub fn fate(format: &Format, column: &SourceColumn, writer: &Writer<'_>) -> Result<Fate> {
    let batch = rows(format, std::slice::from_ref(column), writer)?;
    let mut fate = Fate { refused: batch.rejects.len(), ..Fate::default() };
    fate.messages = batch.rows.num_rows() + batch.rejects.len();
    if let Some(array) = batch.rows.columns().first() {
        fate.values = array.len() - array.null_count();
    }
    for reject in batch.rejects {
        let refusal = (reject.reason, reject.column.is_some());
        if fate.refusals.len() < REFUSALS_MAX && !fate.refusals.contains(&refusal) {
            fate.refusals.push(refusal);
        }
    }
    Ok(fate)
}

/// What becomes of whole messages: rows of all columns, and rejects.
pub fn rows(format: &Format, columns: &[SourceColumn], writer: &Writer<'_>) -> Result<SourceBatch> {
    let unusable = |reason: String| Error::Definition {
        message: format!("no example can be made of the {} schema: {reason}", writer.kind.name()),
        hint: None,
    };
    let framed = |prefix: &[u8], messages: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        let frame = [&[0], &ID.to_be_bytes()[..], prefix].concat();
        messages.into_iter().map(|message| [&frame[..], &message[..]].concat()).collect()
    };
    let messages = match writer.kind {
        schemas::Kind::Avro => framed(&[], avro::examples(writer.text, writer.references, columns).map_err(unusable)?),
        // The first message of the file.
        schemas::Kind::Protobuf => {
            framed(&[0], protobuf::examples(writer.text, writer.references, columns).map_err(unusable)?)
        }
        schemas::Kind::Json => json::examples(writer.text, columns).map_err(unusable)?,
    };
    let mut decoder = decoder_of(format, columns, writer)?;
    let (batch, _) = decode_batch(&mut *decoder, StreamId::default(), batch_of(&messages)?)?;
    Ok(batch)
}

/// The source's decoder, which has the schema already.
fn decoder_of(format: &Format, columns: &[SourceColumn], writer: &Writer<'_>) -> Result<Box<dyn Decoder>> {
    let registered = Registered {
        kind: match writer.kind {
            schemas::Kind::Avro => Kind::Avro,
            schemas::Kind::Protobuf => Kind::Protobuf,
            schemas::Kind::Json => Kind::Other("JSON".into()),
        },
        text: writer.text.to_owned(),
        references: writer.references.to_vec(),
    };
    decoder_with(format, columns, Some((ID, &registered)))
}

/// What of the paths leads through a step; of one that ends here, every part is wanted.
pub(super) fn inside<'p>(paths: &[&'p [PathStep]], is_step: impl Fn(&PathStep) -> bool) -> Vec<&'p [PathStep]> {
    let through = paths.iter().filter_map(|path| match path.split_first() {
        None => Some(*path),
        Some((step, rest)) => is_step(step).then_some(rest),
    });
    through.collect()
}

fn batch_of(messages: &[Vec<u8>]) -> Result<MessageBatch> {
    let mut payloads = BytesMut::new();
    let mut all = Vec::with_capacity(messages.len());
    for (offset, message) in messages.iter().enumerate() {
        let at = |at: usize| u32::try_from(at).map_err(|_| Error::Unavailable("the examples are too large".into()));
        let start = at(payloads.len())?;
        payloads.extend_from_slice(message);
        let payload = start..at(payloads.len())?;
        all.push(Message { payload, is_null: false, offset: offset as u64, timestamp_ms: -1 });
    }
    let payloads: Bytes = payloads.freeze();
    Ok(MessageBatch { partition: 0, payloads, messages: all, from: 0, to: messages.len() as u64 })
}
