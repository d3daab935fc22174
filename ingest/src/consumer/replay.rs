//! Dead letters once more: after the cause is gone (a column was widened, a constraint dropped), messages become rows after all.
//!
//! ```text
//! file of letters ─ decode, checks, transform ─┬─ rows ───► a segment of their own ─┐
//!                                              └─ still bad ► a new file ────────────┴─ one commit, which forgets the old file
//! ```
//!
//! What always holds: a letter is in `rt.dlq` or its rows are in the table, never both and never neither, also after a crash at any moment:
//! until the commit the old file counts, and the rows are in memory alone.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use bytes::BytesMut;
use tidemill_storage::{ids::StreamId, upsert::Provenance};

use super::{
    feed::FeedState,
    partition::{Origin, PartitionIngest},
    table::TableShared,
};
use crate::{
    Error, Result,
    dead_letters::{DeadLetter, DeadLetterFile, DeadLetterReader},
    decode::{Decoder, decode_batch},
    message::{Message, MessageBatch},
    route,
};

/// Rows that came out of one file of letters, and what stays behind.
pub(super) struct Retried {
    pub(super) rows: Vec<Run>,
    pub(super) kept: Vec<DeadLetter>,
    /// Schema generation that the rows were made for.
    pub(super) generation: u64,
    pub(super) resolved: u64,
}

/// Rows of one stream.
pub(super) struct Run {
    stream: StreamId,
    rows: RecordBatch,
    /// Of the letters that they were.
    offsets: Vec<u64>,
}

impl Run {
    pub(super) fn origin(self) -> Origin {
        let provenance = Provenance::of(self.stream, &self.offsets);
        (self.rows, provenance)
    }
}

impl PartitionIngest {
    /// Tries the committed letters of the feed's source again. Returns how many became rows; these are committed before
    /// [`Self::wait_sealed`] of the second number returns. Blocks.
    pub(super) fn replay(self: &Arc<Self>, feed: &FeedState, table: &TableShared) -> Result<(u64, u64)> {
        let _alone = self.replaying.lock();
        let files = self.dead_letter_files();
        // A source that brings rows has no decoder; it rarely has letters, too.
        if files.is_empty() {
            return Ok((0, self.rotated()));
        }
        let mut decoder = (feed.feed.decoder)()?;
        let mut resolved = 0;
        for file in files {
            loop {
                let _moving = table.still.blocking_read();
                let mut retried = self.retry(&file, feed, &mut *decoder)?;
                if retried.rows.is_empty() {
                    break;
                }
                let letters = retried.resolved;
                if !self.lend(feed, table, &mut retried)? {
                    continue;
                }
                // The columns may have changed since the rows were made; then they are made again.
                if self.replace_letters(&file, retried)? {
                    resolved += letters;
                    break;
                }
            }
        }
        Ok((resolved, self.rotated()))
    }

    /// Gives the rows whose keys other partitions own to these, and returns when they have committed them; those of its own stay. After a crash in
    /// between the letters are tried again, and rows that come twice are one: they have the same key and the same rank. False when the rows are outdated.
    fn lend(&self, feed: &FeedState, table: &TableShared, retried: &mut Retried) -> Result<bool> {
        let all = table.partitions();
        let partitions = all.len() as u32;
        let Some(key) = table.table.key().filter(|_| partitions > 1) else { return Ok(true) };
        let versioned = feed.transform.load_full();
        if versioned.generation != retried.generation {
            return Ok(false);
        }
        let mut of_others: BTreeMap<usize, Vec<Origin>> = BTreeMap::new();
        let mut own = Vec::new();
        for run in retried.rows.drain(..) {
            let parts = route::split(key, versioned.transform.target(), &run.rows, &run.offsets, partitions)?;
            for (owner, (rows, offsets)) in parts.into_iter().enumerate().filter(|(_, (rows, _))| rows.num_rows() > 0) {
                let run = Run { stream: run.stream, rows, offsets };
                if owner == self.id.0 as usize {
                    own.push(run)
                } else {
                    of_others.entry(owner).or_default().push(run.origin())
                }
            }
        }
        retried.rows = own;
        for (owner, rows) in of_others {
            let Some(wanted) = all[owner].take_retried(retried.generation, &rows)? else {
                return Ok(false);
            };
            futures::executor::block_on(all[owner].wait_sealed(wanted))?;
        }
        Ok(true)
    }

    /// Decodes one file's letters without changing anything.
    fn retry(&self, file: &DeadLetterFile, feed: &FeedState, decoder: &mut dyn Decoder) -> Result<Retried> {
        let versioned = feed.transform.load_full();
        let mut kept = Vec::new();
        let mut streams: BTreeMap<StreamId, BTreeMap<u64, DeadLetter>> = BTreeMap::new();
        for letter in DeadLetterReader::open(file.path())? {
            let letter = letter?;
            // Of a message that was cut the rest is gone.
            let whole = letter.raw_length == letter.reject.raw.len() as u64;
            if letter.stream.source != feed.feed.source || !whole {
                kept.push(letter);
                continue;
            }
            // One message may have several letters when it had several rows; then the letter does not hold the message, but the row.
            if let Some(twin) = streams.entry(letter.stream).or_default().insert(letter.reject.offset, letter) {
                kept.push(twin);
            }
        }
        let mut rows = Vec::new();
        let mut resolved = 0;
        for (stream, mut letters) in streams {
            let mut rest = Some(messages_of(stream, &letters)?);
            while let Some(batch) = rest {
                let decoded;
                (decoded, rest) = decode_batch(decoder, stream, batch)?;
                let batch = feed.feed.checks.apply(decoded);
                let transformed = versioned.transform.apply(&batch);
                for reject in batch.rejects.iter().chain(&transformed.rejects) {
                    if let Some(mut letter) = letters.remove(&reject.offset) {
                        letter.reject.reason.clone_from(&reject.reason);
                        letter.reject.column.clone_from(&reject.column);
                        kept.push(letter);
                    }
                }
                for offset in &transformed.row_offsets {
                    resolved += u64::from(letters.remove(offset).is_some());
                }
                if transformed.rows.num_rows() > 0 {
                    rows.push(Run { stream, rows: transformed.rows, offsets: transformed.row_offsets });
                }
            }
            // What the table's WHERE leaves out stays a letter: it is no row.
            kept.extend(letters.into_values());
        }
        kept.sort_by_key(|letter| (letter.at_us, letter.stream, letter.reject.offset));
        Ok(Retried { rows, kept, generation: versioned.generation, resolved })
    }
}

/// The letters of one stream as the messages that they were.
pub(crate) fn messages_of(stream: StreamId, letters: &BTreeMap<u64, DeadLetter>) -> Result<MessageBatch> {
    let mut payloads = BytesMut::new();
    let mut messages = Vec::with_capacity(letters.len());
    for (offset, letter) in letters {
        let start = payloads.len();
        payloads.extend_from_slice(&letter.reject.raw);
        let position = |at: usize| {
            u32::try_from(at).map_err(|_| Error::Unavailable("a file of dead letters holds more than 4 GB".into()))
        };
        messages.push(Message {
            payload: position(start)?..position(payloads.len())?,
            is_null: false,
            offset: *offset,
            timestamp_ms: letter.reject.timestamp_ms,
        });
    }
    let from = letters.keys().next().copied().unwrap_or(0);
    let to = letters.keys().next_back().map_or(from, |last| last + 1);
    Ok(MessageBatch { partition: stream.partition, payloads: payloads.freeze(), messages, from, to })
}
