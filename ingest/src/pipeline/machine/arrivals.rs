//! Arrivals as bytes: what a checkpoint adds to a picture of a machine instead of taking another one. Described in `ingest/README.md`.
//!
//! A machine that is fed the same arrivals after the same picture is the same machine, so these are as good as its state, and where the state is large and little came they are
//! much less.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_storage::ids::{SourceId, StreamId};

use super::{Arrival, Flow};
use crate::{
    Error, Result,
    landmark::Landmark,
    message::{Reject, SourceBatch},
    pipeline::tables::Answers,
};

/// What an arrival is beside its rows.
#[derive(Serialize, Deserialize)]
struct Head {
    kind: Kind,
    batches: Vec<BatchHead>,
    /// How many answers of tables and services follow.
    answers: usize,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Rows(usize, Option<Landmark>),
    Begin(StreamId, u64),
    Known(SourceId),
    Flow(StreamId, Flow),
    Skip(StreamId, u64),
    Again(Vec<usize>),
    Give,
    Spill(usize, Vec<i64>),
}

#[derive(Serialize, Deserialize)]
struct BatchHead {
    stream: StreamId,
    from: u64,
    to: u64,
    newest_timestamp_ms: i64,
    rejects: Vec<RejectHead>,
}

/// A reject without its message, which is a dead letter already.
#[derive(Serialize, Deserialize)]
struct RejectHead {
    offset: u64,
    timestamp_ms: i64,
    column: Option<String>,
    reason: String,
}

fn failed(error: impl ToString) -> Error {
    Error::Commit(error.to_string())
}

impl BatchHead {
    fn of(batch: &SourceBatch) -> Self {
        let reject = |reject: &Reject| RejectHead {
            offset: reject.offset,
            timestamp_ms: reject.timestamp_ms,
            column: reject.column.clone(),
            reason: reject.reason.clone(),
        };
        Self {
            stream: batch.stream,
            from: batch.from,
            to: batch.to,
            newest_timestamp_ms: batch.newest_timestamp_ms,
            rejects: batch.rejects.iter().map(reject).collect(),
        }
    }

    fn batch(self, rest: &mut &[u8]) -> Result<SourceBatch, String> {
        let (offsets, left) = taken(rest)?.as_chunks::<8>();
        let rows = batch(taken(rest)?)?;
        if !left.is_empty() || offsets.len() != rows.num_rows() {
            return Err(format!("{} offsets of {} rows", offsets.len(), rows.num_rows()));
        }
        let reject = |head: RejectHead| {
            let RejectHead { offset, timestamp_ms, column, reason } = head;
            Reject { offset, timestamp_ms, column, reason, raw: Bytes::new() }
        };
        Ok(SourceBatch {
            stream: self.stream,
            rows,
            row_offsets: offsets.iter().map(|offset| u64::from_le_bytes(*offset)).collect(),
            from: self.from,
            to: self.to,
            newest_timestamp_ms: self.newest_timestamp_ms,
            rejects: self.rejects.into_iter().map(reject).collect(),
            origin: None,
        })
    }
}

/// Appends an arrival, and what tables and services said for it.
pub(crate) fn encode(arrival: &Arrival, answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
    let (kind, batches): (Kind, Vec<&SourceBatch>) = match arrival {
        Arrival::Rows { source, batch, landmark } => (Kind::Rows(*source, *landmark), vec![batch]),
        Arrival::Begin { stream, offset } => (Kind::Begin(*stream, *offset), Vec::new()),
        Arrival::Known { source } => (Kind::Known(*source), Vec::new()),
        Arrival::Flow { stream, flow } => (Kind::Flow(*stream, *flow), Vec::new()),
        Arrival::Skip { stream, to } => (Kind::Skip(*stream, *to), Vec::new()),
        Arrival::Again { batches } => {
            let sources = batches.iter().map(|(source, _)| *source).collect();
            (Kind::Again(sources), batches.iter().map(|(_, batch)| batch).collect())
        }
        Arrival::Give => (Kind::Give, Vec::new()),
        Arrival::Spill { operator, at } => (Kind::Spill(*operator, at.clone()), Vec::new()),
    };
    let heads = batches.iter().map(|batch| BatchHead::of(batch)).collect();
    let head = Head { kind, batches: heads, answers: answers.0.len() };
    part(out, &serde_json::to_vec(&head).map_err(failed)?);
    for batch in batches {
        let offsets: Vec<u8> = batch.row_offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        part(out, &offsets);
        table(out, &batch.rows)?;
    }
    answers.0.iter().try_for_each(|answer| table(out, answer))
}

fn table(out: &mut Vec<u8>, rows: &RecordBatch) -> Result<()> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    part(out, &writer.into_inner().map_err(failed)?);
    Ok(())
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes an arrival off the front. The error says what was found.
pub(crate) fn decode(rest: &mut &[u8]) -> Result<(Arrival, Answers), String> {
    let Head { kind, batches, answers } = serde_json::from_slice(taken(rest)?).map_err(|error| error.to_string())?;
    let batches = batches.into_iter().map(|head| head.batch(rest)).collect::<Result<Vec<_>, String>>()?;
    let answers = Answers((0..answers).map(|_| batch(taken(rest)?)).collect::<Result<_, String>>()?);
    let count = batches.len();
    let mut batches = batches.into_iter();
    let arrival = match kind {
        Kind::Rows(source, landmark) => {
            let batch = Box::new(batches.next().ok_or("rows without a batch")?);
            Arrival::Rows { source, batch, landmark }
        }
        Kind::Begin(stream, offset) => Arrival::Begin { stream, offset },
        Kind::Known(source) => Arrival::Known { source },
        Kind::Flow(stream, flow) => Arrival::Flow { stream, flow },
        Kind::Skip(stream, to) => Arrival::Skip { stream, to },
        Kind::Again(sources) if sources.len() == count => {
            Arrival::Again { batches: sources.into_iter().zip(batches).collect() }
        }
        Kind::Again(sources) => return Err(format!("{count} batches of {} sources", sources.len())),
        Kind::Give => Arrival::Give,
        Kind::Spill(operator, at) => Arrival::Spill { operator, at },
    };
    Ok((arrival, answers))
}

fn taken<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let cut = || "an arrival that was cut off".to_owned();
    let (length, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
    let (part, after) = after.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok(part)
}

fn batch(bytes: &[u8]) -> Result<RecordBatch, String> {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
    match reader.next() {
        Some(batch) => batch.map_err(|error| error.to_string()),
        None => {
            let options = RecordBatchOptions::new().with_row_count(Some(0));
            RecordBatch::try_new_with_options(Arc::clone(&reader.schema()), Vec::new(), &options)
                .map_err(|error| error.to_string())
        }
    }
}
