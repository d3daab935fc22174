//! A group: one thread that reads some partitions of a source, decodes, transforms and appends.
//!
//! What always holds: a stream is read by one group; its batches are appended in order; a batch ends in the table as a whole, in the dead letters,
//! or its stream stops in front of what it could not take, with an event. Nothing is skipped in silence.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidemill_storage::ids::{OffsetRange, StreamId};

use super::{
    batch::{cut_at, cut_transformed_at, first_reject},
    feed::{FeedState, StreamState},
    pace::{BYTES_MAX, MESSAGES_MAX, POLL_TIMEOUT, backoff, rest_us},
    partition::{Appended, Batch},
    status::StreamRun,
    table::TableShared,
};
use crate::{
    Error, Result,
    dead_letters::OnError,
    decode::{Decoder, decode_batch},
    events::Severity,
    landmark::Landmark,
    message::SourceBatch,
    source::{Fetched, Reader},
};

/// The partitions of one consuming thread.
#[derive(Debug, Default)]
pub(crate) struct Group {
    partitions: Mutex<BTreeSet<u32>>,
    /// The set, or what may be read of it, changed.
    changed: AtomicBool,
}

impl Group {
    pub(crate) fn add(&self, partition: u32) {
        self.partitions.lock().insert(partition);
        self.changed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn load(&self) -> usize {
        self.partitions.lock().len()
    }

    /// Has the thread look again at which of its streams run.
    pub(crate) fn refresh(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }
}

/// What is to be done about a stream whose offsets mean nothing in its source any more.
pub(super) fn reset_hint(source: &str) -> String {
    format!("ALTER SOURCE {source} RESET OFFSETS TO 'earliest' reads it from its start, after the rows that are here")
}

/// The body of a consuming thread.
pub(crate) struct Consumer {
    table: Arc<TableShared>,
    feed: Arc<FeedState>,
    group: Arc<Group>,
    reader: Option<Box<dyn Reader>>,
    decoder: Option<Box<dyn Decoder>>,
    /// What the reader reads.
    reading: BTreeMap<u32, Arc<StreamState>>,
    failures: u32,
    /// A partition whose messages could not be taken when the last failure came: polls that bring nothing of it prove nothing.
    stuck: Option<u32>,
}

impl Consumer {
    pub(crate) fn new(table: Arc<TableShared>, feed: Arc<FeedState>, group: Arc<Group>) -> Self {
        Self { table, feed, group, reader: None, decoder: None, reading: BTreeMap::new(), failures: 0, stuck: None }
    }

    /// Returns when the feed stops.
    pub(crate) fn run(&mut self) {
        while !self.feed.is_stopping() {
            if let Err(error) = self.turn() {
                self.failed(&error);
            }
        }
    }

    /// Stops every stream of the group, after a panic.
    pub(crate) fn abandon(&self, panic: &str) {
        for stream in self.reading.values() {
            self.stop_stream(stream, "consumer_panic", format!("reading panicked: {panic}"));
        }
    }

    fn turn(&mut self) -> Result<()> {
        if self.group.changed.swap(false, Ordering::SeqCst) {
            self.regroup();
        }
        if self.feed.is_paused() || self.feed.is_doubtful() || self.reading.is_empty() {
            // A reader that does not poll would hold up others with which it shares a fetch.
            self.close();
            self.feed.rest(Duration::from_millis(100));
            return Ok(());
        }
        let runtime = Arc::clone(&self.table.runtime);
        if !runtime.budget.admit(POLL_TIMEOUT) {
            return Ok(());
        }
        let begun_us = runtime.clock.monotonic_us();
        let pace = &self.feed.feed.pace;
        let wait_us = pace.wait_us(begun_us);
        if wait_us > 0 {
            self.feed.rest(Duration::from_micros(wait_us as u64).min(POLL_TIMEOUT));
            return Ok(());
        }
        let (most, bytes) = pace.batch(MESSAGES_MAX, BYTES_MAX);
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let positions =
                    self.reading.iter().map(|(partition, stream)| (*partition, stream.position())).collect();
                self.reader.insert(self.feed.feed.connector.open(&positions)?)
            }
        };
        let fetched = reader.poll(most, bytes, POLL_TIMEOUT)?;
        pace.took(&fetched);
        for (partition, stream) in &self.reading {
            stream.sharing.store(reader.sharing(*partition) as u32, Ordering::Relaxed);
        }
        let mut messages = 0;
        let mut failed: Option<(u32, Error)> = None;
        for one in fetched {
            let partition = one.partition();
            if failed.as_ref().is_some_and(|(stuck, _)| *stuck == partition) {
                continue;
            }
            match self.take(one) {
                Ok(taken) => {
                    messages += taken;
                    self.stuck = self.stuck.filter(|stuck| *stuck != partition);
                }
                // Other partitions may go on: what they want may be known.
                Err(error) => failed = failed.or(Some((partition, error))),
            }
        }
        if let Some((partition, error)) = failed {
            // What was not taken is dropped; a new reader begins at the positions and brings it again.
            self.close();
            self.stuck = Some(partition);
            return Err(error);
        }
        let stuck = self.stuck.is_some_and(|partition| self.reading.contains_key(&partition));
        if self.failures > 0 && !stuck {
            (self.failures, self.stuck) = (0, None);
            *self.feed.error.lock() = None;
        }
        let rest = rest_us(self.feed.feed.latency, messages, runtime.clock.monotonic_us() - begun_us);
        if rest > 0 {
            self.feed.rest(Duration::from_micros(rest as u64));
        }
        Ok(())
    }

    /// Reading goes on with a new reader, from the streams' positions.
    fn close(&mut self) {
        if self.reader.take().is_some() {
            for stream in self.reading.values() {
                stream.sharing.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Brings what is read in line with what should be. A reader cannot leave a partition: then a new one is opened.
    fn regroup(&mut self) {
        let wanted: BTreeMap<u32, Arc<StreamState>> = self
            .group
            .partitions
            .lock()
            .iter()
            .filter_map(|partition| self.feed.stream(*partition).map(|stream| (*partition, stream)))
            .filter(|(_, stream)| !matches!(stream.run(), StreamRun::Stopped { .. }))
            .collect();
        if let Some(reader) = &mut self.reader {
            let only_grows = self.reading.keys().all(|partition| wanted.contains_key(partition));
            let new = wanted.iter().filter(|(partition, _)| !self.reading.contains_key(partition));
            let added = only_grows
                && new.map(|(partition, stream)| reader.add(*partition, stream.position())).all(|added| added.is_ok());
            if !added {
                self.close();
            }
        }
        self.reading = wanted;
    }

    /// Takes what a poll brought; returns how many messages it was.
    fn take(&mut self, fetched: Fetched) -> Result<usize> {
        let partition = fetched.partition();
        let Some(stream) = self.reading.get(&partition).cloned() else { return Ok(0) };
        match fetched {
            _ if matches!(stream.run(), StreamRun::Stopped { .. }) => Ok(0),
            Fetched::Messages(batch) => {
                let messages = batch.messages.len();
                let mut rest = Some(batch);
                let id = StreamId { source: self.feed.feed.source, partition };
                while let Some(batch) = rest.take_if(|_| !matches!(stream.run(), StreamRun::Stopped { .. })) {
                    let decoder = match &mut self.decoder {
                        Some(decoder) => decoder,
                        None => self.decoder.insert((self.feed.feed.decoder)()?),
                    };
                    let decoded;
                    (decoded, rest) = decode_batch(&mut **decoder, id, batch)?;
                    self.take_rows(&stream, decoded);
                }
                Ok(messages)
            }
            Fetched::Rows(mut batch) => {
                batch.stream.source = self.feed.feed.source;
                let rows = batch.rows.num_rows();
                self.take_rows(&stream, batch);
                Ok(rows)
            }
            Fetched::Gap { wanted, found, .. } => {
                self.gap(&stream, wanted, found)?;
                Ok(0)
            }
            Fetched::End { .. } => {
                if stream.run() == StreamRun::Running {
                    stream.set_run(StreamRun::Ended);
                    self.feed.changed.notify_waiters();
                }
                Ok(0)
            }
        }
    }

    fn take_rows(&mut self, stream: &Arc<StreamState>, batch: SourceBatch) {
        if batch.to == batch.from && batch.rows.num_rows() == 0 {
            return;
        }
        if let Err(error) = self.store(stream, batch) {
            // Later batches must not pass this one, and the reader is past it: the stream stops where it is.
            self.stop_stream(stream, "append_failed", error.to_string());
        }
    }

    /// Checks, transforms and appends one batch.
    fn store(&self, stream: &Arc<StreamState>, batch: SourceBatch) -> Result<()> {
        let feed = &self.feed.feed;
        let mut batch = feed.checks.apply(batch);
        let mut bad = None;
        if feed.on_error == OnError::Stop
            && let Some(reject) = first_reject(&batch.rejects)
        {
            bad = Some(reject.clone());
            cut_at(&mut batch, reject.offset);
        }
        let watermark_us = feed.watermark.as_ref().and_then(|watermark| watermark.of(&batch.rows));
        loop {
            let versioned = self.feed.transform.load_full();
            let mut transformed = versioned.transform.apply(&batch);
            let mut to = batch.to;
            let mut stop = bad.clone();
            if feed.on_error == OnError::Stop
                && let Some(reject) = first_reject(&transformed.rejects)
            {
                to = reject.offset;
                cut_transformed_at(&mut transformed, reject.offset);
                stop = Some(reject);
            }
            let mut rejects = std::mem::take(&mut transformed.rejects);
            rejects.extend(batch.rejects.iter().filter(|reject| reject.offset < to).cloned());
            rejects.sort_by_key(|reject| reject.offset);
            let range = OffsetRange { stream: stream.id, from: batch.from, to };
            if range.to > range.from {
                let kept = if feed.on_error == OnError::Dlq { rejects.as_slice() } else { &[] };
                let appended = self.table.append(&Batch {
                    generation: versioned.generation,
                    schema: versioned.transform.target(),
                    rows: &transformed.rows,
                    row_offsets: &transformed.row_offsets,
                    range,
                    source: &feed.name,
                    rejects: kept,
                    watermark_us,
                    landmark: batch.origin.as_ref().and_then(|messages| Landmark::last_below(messages, to)),
                })?;
                match appended {
                    Appended::Done => {}
                    Appended::Outdated => continue,
                    Appended::Closed => return Ok(()),
                }
                if let Some(us) = watermark_us {
                    stream.raise_watermark(us);
                }
                self.count(stream, &batch, transformed.rows.num_rows() as u64, rejects.len() as u64, range.to);
            }
            if let Some(reject) = stop {
                let column = reject.column.map_or(String::new(), |column| format!(", column '{column}'"));
                self.stop_stream(
                    stream,
                    "bad_message",
                    format!(
                        "the message at offset {}{column} is bad and on_error is stop: {}",
                        reject.offset, reject.reason
                    ),
                );
            }
            return Ok(());
        }
    }

    fn count(&self, stream: &StreamState, batch: &SourceBatch, rows: u64, rejects: u64, to: u64) {
        stream.rows.fetch_add(rows, Ordering::Relaxed);
        if batch.newest_timestamp_ms >= 0 {
            let age_ms = self.table.runtime.clock.now_us() / 1000 - batch.newest_timestamp_ms;
            stream.freshness_ms.store(age_ms.max(0), Ordering::Relaxed);
        }
        metrics::counter!("tidemill_rows_ingested_total").increment(rows);
        let messages = batch.origin.iter().flat_map(|origin| &origin.messages);
        let tombstones = messages.filter(|message| message.is_null && message.offset < to).count() as u64;
        if tombstones > 0 {
            stream.tombstones.fetch_add(tombstones, Ordering::Relaxed);
            metrics::counter!("tidemill_tombstones_total").increment(tombstones);
        }
        if rejects > 0 {
            let (counter, metric) = match self.feed.feed.on_error {
                OnError::Dlq => (&stream.dead_letters, "tidemill_dead_letters_total"),
                OnError::Skip | OnError::Stop => (&stream.skipped, "tidemill_skipped_total"),
            };
            counter.fetch_add(rejects, Ordering::Relaxed);
            metrics::counter!(metric).increment(rejects);
        }
        stream.position.store(to, Ordering::Release);
        if stream.run() == StreamRun::Ended {
            stream.set_run(StreamRun::Running);
        }
        self.feed.changed.notify_waiters();
    }

    /// Messages between `wanted` and `found` are gone.
    fn gap(&mut self, stream: &Arc<StreamState>, wanted: u64, found: u64) -> Result<()> {
        let feed = &self.feed.feed;
        let lost = format!(
            "offsets {wanted} to {found} (excluded) of partition {} of source '{}' are gone before they were read",
            stream.id.partition, feed.name
        );
        let position = stream.position();
        if found < position {
            let hint = reset_hint(&feed.name);
            self.stop_stream(stream, "gap", format!("{lost}; the topic was truncated or made anew; {hint}"));
            return Ok(());
        }
        if self.feed.on_gap() == super::OnGap::Stop {
            let hint = format!("ALTER SOURCE {} SET (on_gap = 'skip') goes on without them", feed.name);
            self.stop_stream(stream, "gap", format!("{lost}; {hint}"));
            return Ok(());
        }
        self.event(Severity::Warning, "gap", stream, format!("{lost}; skipped, as on_gap says"));
        // An empty step moves the offsets, so that the log has no hole.
        self.table.skip(&feed.name, stream.id, found)?;
        stream.position.store(found, Ordering::Release);
        self.feed.changed.notify_waiters();
        match &mut self.reader {
            Some(reader) => reader.seek(stream.id.partition, found),
            None => Ok(()),
        }
    }

    fn stop_stream(&self, stream: &StreamState, kind: &'static str, error: String) {
        self.event(
            Severity::Page,
            kind,
            stream,
            format!(
                "partition {} of source '{}' stopped at offset {} for table '{}': {error}",
                stream.id.partition,
                self.feed.feed.name,
                stream.position(),
                self.table.name
            ),
        );
        self.feed.stop_stream(stream, error);
        self.group.refresh();
    }

    fn event(&self, severity: Severity, kind: &'static str, stream: &StreamState, message: String) {
        self.table.partition_of(stream.id.partition).event(severity, kind, Some(stream.id), message);
    }

    /// The source does not answer: try again later, with the same reader where the error may pass.
    fn failed(&mut self, error: &Error) {
        self.failures += 1;
        if matches!(error, Error::Missing(_)) {
            self.feed.doubt();
        }
        *self.feed.error.lock() = Some(error.to_string());
        if !matches!(error, Error::Unavailable(_)) || self.failures > 3 {
            self.close();
        }
        if self.failures == 1 {
            self.table.event(
                Severity::Warning,
                "source_unavailable",
                format!("source '{}' of table '{}': {error}; it is tried again", self.feed.feed.name, self.table.name),
            );
        }
        self.feed.rest(backoff(self.failures));
    }
}
