//! Messages of a source once more, as the rows that they are in a table.

use std::{collections::BTreeMap, sync::atomic::AtomicBool, time::Duration};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use tidemill_storage::{ids::StreamId, schema::TableSchema};

use super::{Readable, go_on};
use crate::{
    Error, Result,
    decode::decode_batch,
    message::SourceBatch,
    source::{Connector, Fetched, bounded},
};

/// Messages that are asked for at a time, and their bytes.
const MESSAGES: usize = 16 * 1024;
const BYTES: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_millis(200);
/// So often nothing may come before the source is taken not to answer.
const SILENT_MAX: usize = 150;

/// How many dead letters a message is.
pub(super) type Letters = BTreeMap<(StreamId, u64), u64>;

/// Rows of one stream.
pub(super) struct SourceRows<'a> {
    pub(super) stream: StreamId,
    pub(super) rows: RecordBatch,
    /// As long as the rows; never decreasing.
    pub(super) offsets: Vec<u64>,
    pub(super) schema: &'a TableSchema,
}

/// Gives all rows of the messages that can be compared.
pub(super) fn read(
    readable: &Readable,
    letters: &Letters,
    cancelled: &AtomicBool,
    mut each: impl FnMut(SourceRows<'_>) -> Result<()>,
) -> Result<()> {
    let feed = &readable.feed.feed;
    let mut left = readable.streams.len();
    if left == 0 {
        return Ok(());
    }
    let stops = readable.streams.iter().map(|(partition, (_, to))| (*partition, *to)).collect();
    let from = readable.streams.iter().map(|(partition, (from, _))| (*partition, *from)).collect();
    let mut reader = bounded(feed.connector.clone(), stops).open(&from)?;
    let transform = readable.feed.transform.load_full();
    let mut decoder = None;
    let mut given = |batch: SourceBatch| -> Result<()> {
        let batch = feed.checks.apply(batch);
        let made = transform.transform.apply(&batch);
        let rejects: Vec<u64> = batch.rejects.iter().chain(&made.rejects).map(|reject| reject.offset).collect();
        let (rows, offsets) = without_letters(made.rows, made.row_offsets, &rejects, batch.stream, letters)?;
        each(SourceRows { stream: batch.stream, rows, offsets, schema: transform.transform.target() })
    };
    let mut silent = 0;
    while left > 0 {
        go_on(cancelled)?;
        let polled = reader.poll(MESSAGES, BYTES, PATIENCE)?;
        silent = if polled.is_empty() { silent + 1 } else { 0 };
        if silent > SILENT_MAX {
            let message = format!("source '{}' gives no messages below its committed offsets", feed.name);
            return Err(Error::Unavailable(message));
        }
        for fetched in polled {
            match fetched {
                Fetched::End { .. } => left -= 1,
                Fetched::Gap { partition, found, .. } => reader.seek(partition, found)?,
                Fetched::Rows(mut batch) => {
                    batch.stream.source = feed.source;
                    given(batch)?;
                }
                Fetched::Messages(batch) => {
                    let id = readable.id(batch.partition);
                    let mut rest = Some(batch);
                    while let Some(batch) = rest {
                        let decoder = match &mut decoder {
                            Some(decoder) => decoder,
                            None => decoder.insert((feed.decoder)()?),
                        };
                        let decoded;
                        (decoded, rest) = decode_batch(&mut **decoder, id, batch)?;
                        given(decoded)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Messages that are dead letters may be rows by now, after ALTER TABLE: as long as nobody has replayed them the table does not have them.
fn without_letters(
    rows: RecordBatch,
    offsets: Vec<u64>,
    rejects: &[u64],
    stream: StreamId,
    letters: &Letters,
) -> Result<(RecordBatch, Vec<u64>)> {
    let is_letter = |offset: &u64| {
        let Some(letters) = letters.get(&(stream, *offset)) else { return false };
        let count = |all: &[u64]| all.iter().filter(|one| *one == offset).count() as u64;
        *letters == count(rejects) + count(&offsets)
    };
    let stays: Vec<bool> = offsets.iter().map(|offset| !is_letter(offset)).collect();
    if stays.iter().all(|stays| *stays) {
        return Ok((rows, offsets));
    }
    let rows = filter_record_batch(&rows, &BooleanArray::from(stays.clone()))?;
    Ok((rows, offsets.into_iter().zip(stays).filter(|(_, stays)| *stays).map(|(offset, _)| offset).collect()))
}
