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
enum Head {
    Rows {
        source: usize,
        stream: StreamId,
        from: u64,
        to: u64,
        newest_timestamp_ms: i64,
        landmark: Option<Landmark>,
        rejects: Vec<RejectHead>,
        answers: usize,
    },
    Begin(StreamId, u64),
    Known(SourceId),
    Flow(StreamId, Flow),
    Skip(StreamId, u64),
    Give,
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

/// Appends an arrival, and what tables said for it.
pub(crate) fn encode(arrival: &Arrival, answers: &Answers, out: &mut Vec<u8>) -> Result<()> {
    let (head, batch) = match arrival {
        Arrival::Rows { source, batch, landmark } => {
            let reject = |reject: &Reject| RejectHead {
                offset: reject.offset,
                timestamp_ms: reject.timestamp_ms,
                column: reject.column.clone(),
                reason: reject.reason.clone(),
            };
            let head = Head::Rows {
                source: *source,
                stream: batch.stream,
                from: batch.from,
                to: batch.to,
                newest_timestamp_ms: batch.newest_timestamp_ms,
                landmark: *landmark,
                rejects: batch.rejects.iter().map(reject).collect(),
                answers: answers.0.len(),
            };
            (head, Some(batch))
        }
        Arrival::Begin { stream, offset } => (Head::Begin(*stream, *offset), None),
        Arrival::Known { source } => (Head::Known(*source), None),
        Arrival::Flow { stream, flow } => (Head::Flow(*stream, *flow), None),
        Arrival::Skip { stream, to } => (Head::Skip(*stream, *to), None),
        Arrival::Give => (Head::Give, None),
    };
    part(out, &serde_json::to_vec(&head).map_err(failed)?);
    if let Some(batch) = batch {
        let offsets: Vec<u8> = batch.row_offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        part(out, &offsets);
        for rows in std::iter::once(&batch.rows).chain(&answers.0) {
            let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).map_err(failed)?;
            writer.write(rows).map_err(failed)?;
            part(out, &writer.into_inner().map_err(failed)?);
        }
    }
    Ok(())
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes an arrival off the front. The error says what was found.
pub(crate) fn decode(rest: &mut &[u8]) -> Result<(Arrival, Answers), String> {
    let head = serde_json::from_slice(taken(rest)?).map_err(|error| error.to_string())?;
    let arrival = match head {
        Head::Rows { source, stream, from, to, newest_timestamp_ms, landmark, rejects, answers } => {
            let (offsets, left) = taken(rest)?.as_chunks::<8>();
            let rows = batch(taken(rest)?)?;
            if !left.is_empty() || offsets.len() != rows.num_rows() {
                return Err(format!("{} offsets of {} rows", offsets.len(), rows.num_rows()));
            }
            let reject = |head: RejectHead| {
                let RejectHead { offset, timestamp_ms, column, reason } = head;
                Reject { offset, timestamp_ms, column, reason, raw: Bytes::new() }
            };
            let batch_of_rows = SourceBatch {
                stream,
                rows,
                row_offsets: offsets.iter().map(|offset| u64::from_le_bytes(*offset)).collect(),
                from,
                to,
                newest_timestamp_ms,
                rejects: rejects.into_iter().map(reject).collect(),
                origin: None,
            };
            let answers = (0..answers).map(|_| batch(taken(rest)?)).collect::<Result<_, String>>()?;
            return Ok((Arrival::Rows { source, batch: Box::new(batch_of_rows), landmark }, Answers(answers)));
        }
        Head::Begin(stream, offset) => Arrival::Begin { stream, offset },
        Head::Known(source) => Arrival::Known { source },
        Head::Flow(stream, flow) => Arrival::Flow { stream, flow },
        Head::Skip(stream, to) => Arrival::Skip { stream, to },
        Head::Give => Arrival::Give,
    };
    Ok((arrival, Answers::default()))
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
