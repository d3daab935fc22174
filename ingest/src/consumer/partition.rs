//! One table partition that takes rows: its one writer, its ended segments on their way to disk, its dead letters.
//!
//! ```text
//!            append               rotate                 sealing thread: seal_next
//! rows ───────────────► consuming ──────► sealing, sealing ──────────────────────► committed
//! offsets, dead letters travel with them           (in order, one at a time)
//! ```
//!
//! What always holds: the offsets of a stream are appended without holes and without overlap; a job in the queue holds the rows, the offsets and the
//! dead letters of the same messages; jobs are committed in the order of their segments.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt,
    path::PathBuf,
    sync::Arc,
};

use arrow::{array::RecordBatch, compute::concat_batches};
use parking_lot::{Mutex, RwLock};
use tidemill_storage::{
    ids::{OffsetRange, PartitionId, SegmentId, SourceId, StreamId, TableId},
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, consuming::ConsumingSegment},
    table::{KeyMapFile, Partition, PartitionKeys, PartitionWriter, Rewriting},
    upsert::Provenance,
};
use tokio::sync::Notify;

use super::{
    feed::FeedState,
    key_map::KeyMapState,
    replay::{Retried, Run},
};
use crate::{
    Error, Result,
    backpressure::Holder,
    commit::{Account, PartitionChange, PartitionState, SegmentCommit, SegmentRecord},
    dead_letters::{DeadLetter, DeadLetterBuffer, DeadLetterFile},
    events::{Event, Severity},
    landmark::{Landmark, Place},
    message::Reject,
    quarantine, retention,
    runtime::IngestRuntime,
    seal::{Learned, SealFacts, SealPolicy, should_seal},
};

/// Bytes of dead letters that wait for a commit; more end the segment.
const DEAD_LETTER_BYTES_MAX: usize = 16 << 20;

/// The feeds of a table, by source.
pub(crate) type Feeds = Arc<RwLock<BTreeMap<SourceId, Arc<FeedState>>>>;

/// An ended segment and what is committed with it.
#[derive(Debug)]
pub(crate) struct SealJob {
    pub(crate) segment: Arc<ConsumingSegment>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// A file of dead letters that the commit forgets: what is left of it is in `dead_letters`.
    pub(crate) replaces: Option<Arc<DeadLetterFile>>,
    /// Largest watermark of the segment's streams.
    pub(crate) watermarks: Vec<(StreamId, i64)>,
    /// The last message of the segment's streams.
    pub(crate) landmarks: Vec<(StreamId, Landmark)>,
    /// Bytes in the memory budget.
    pub(crate) bytes: u64,
    /// Files that an earlier try may have left behind.
    pub(crate) leftovers: Mutex<Vec<String>>,
    /// Which row each row of the file was, of the last file that was written, where they are in another order.
    pub(crate) order: Mutex<Option<Arc<[u32]>>>,
}

/// What one batch brings.
pub(crate) struct Batch<'a> {
    /// Schema generation that the rows were made for.
    pub(crate) generation: u64,
    /// The table's, as the rows have it.
    pub(crate) schema: &'a TableSchema,
    pub(crate) rows: &'a RecordBatch,
    /// The offset that each row came from; never decreasing.
    pub(crate) row_offsets: &'a [u64],
    pub(crate) range: OffsetRange,
    pub(crate) source: &'a str,
    /// To be kept as dead letters.
    pub(crate) rejects: &'a [Reject],
    /// Largest watermark of the messages.
    pub(crate) watermark_us: Option<i64>,
    /// The last message of the range, where it has any.
    pub(crate) landmark: Option<Landmark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    Done,
    /// The table's schema changed since the rows were made; make them again.
    Outdated,
    /// The partition takes nothing any more.
    Closed,
}

pub(crate) struct PartitionIngest {
    pub(crate) table: TableId,
    pub(crate) table_name: String,
    pub(crate) id: PartitionId,
    pub(crate) directory: PathBuf,
    pub(crate) runtime: Arc<IngestRuntime>,
    pub(crate) feeds: Feeds,
    pub(crate) partition: Arc<Partition>,
    pub(super) state: Mutex<State>,
    /// Held while a job is carried out.
    pub(super) working: Mutex<()>,
    /// Held while dead letters are replayed.
    pub(super) replaying: Mutex<()>,
    /// Rang after every job, done or failed.
    pub(super) sealed: Notify,
}

pub(super) struct State {
    pub(super) writer: PartitionWriter,
    generation: u64,
    pub(super) schema: Arc<TableSchema>,
    pub(super) policy: SealPolicy,
    /// Next offset to append, per stream.
    positions: HashMap<StreamId, u64>,
    /// Largest watermark of what was appended, ever, per stream.
    watermarks: HashMap<StreamId, i64>,
    /// The last message that was appended, per stream.
    landmarks: HashMap<StreamId, Landmark>,
    dead_letters: DeadLetterBuffer,
    /// Monotonic time of the first row or offset of the consuming segment.
    since_us: Option<i64>,
    /// Bytes of the consuming segment that the budget knows of.
    accounted: u64,
    pub(super) jobs: VecDeque<Arc<SealJob>>,
    /// The partition stands in the sealer's queue, or a thread works on it.
    pub(super) queued: bool,
    pub(super) failures: u32,
    pub(super) last_error: Option<String>,
    /// Segments ended, and of these committed, since the start.
    rotated: u64,
    pub(super) done: u64,
    pub(super) segments: Vec<SegmentRecord>,
    /// Of the sizes of segments.
    pub(super) learned: Learned,
    /// Rows that statements deleted, of segments that have some.
    pub(super) deleted: BTreeMap<SegmentId, RowSet>,
    /// Monotonic time at which statements deleted rows of a segment that are still in its file.
    pub(super) deleted_at_us: HashMap<SegmentId, i64>,
    /// Rows that were kept for a crash when a segment was written again: until the next commit they would be again.
    pub(super) held: HashMap<SegmentId, u32>,
    /// Segments that have no tombstones to forget, although all their rows are old enough.
    pub(super) unforgettable: HashSet<SegmentId>,
    pub(super) dead_letter_files: Vec<Arc<DeadLetterFile>>,
    pub(super) key_map: KeyMapState,
    pub(super) closed: bool,
}

impl PartitionIngest {
    #[expect(clippy::too_many_arguments, reason = "built in one place")]
    pub(crate) fn new(
        table: TableId,
        table_name: String,
        directory: PathBuf,
        runtime: Arc<IngestRuntime>,
        feeds: Feeds,
        partition: Arc<Partition>,
        schema: Arc<TableSchema>,
        policy: SealPolicy,
        recovered: PartitionState,
    ) -> Result<Arc<Self>> {
        let dead_letter_files = recovered.dead_letters.into_iter();
        let dead_letter_files =
            dead_letter_files.map(|record| Arc::new(DeadLetterFile::new(&directory, record))).collect();
        let now_us = runtime.clock.monotonic_us();
        let has_more = |(id, rows): &&(SegmentId, RowSet)| {
            recovered.segments.iter().any(|segment| segment.id == *id && rows.rows() > segment.purged)
        };
        let deleted_at_us = recovered.deleted.iter().filter(has_more).map(|(id, _)| (*id, now_us)).collect();
        let (next, deleted, lost) = (recovered.next_segment, &recovered.deleted, &recovered.lost);
        let file = KeyMapFile { directory: &directory, table };
        let left = recovered.segments.iter().filter_map(|segment| Some((segment.id, segment.keys_left_us?)));
        let left: Vec<(SegmentId, i64)> = left.collect();
        let (opened, at) = (Arc::clone(&partition), Arc::clone(&schema));
        let (writer, used) = PartitionWriter::open_with(opened, at, next, deleted, lost, &left, Some(file))?;
        let ingest = Arc::new(Self {
            table,
            table_name,
            id: partition.id(),
            directory,
            feeds,
            partition,
            state: Mutex::new(State {
                writer,
                generation: 0,
                schema,
                policy,
                positions: recovered.positions.into_iter().collect(),
                watermarks: recovered.watermarks.into_iter().collect(),
                landmarks: recovered.landmarks.into_iter().collect(),
                dead_letters: DeadLetterBuffer::new(DEAD_LETTER_BYTES_MAX),
                since_us: None,
                accounted: 0,
                jobs: VecDeque::new(),
                queued: false,
                failures: 0,
                last_error: None,
                rotated: 0,
                done: 0,
                learned: Learned::of(&recovered.segments, policy.bytes),
                segments: recovered.segments,
                deleted: recovered.deleted.into_iter().collect(),
                deleted_at_us,
                held: HashMap::new(),
                unforgettable: HashSet::new(),
                dead_letter_files,
                key_map: KeyMapState::of(&used, now_us),
                closed: false,
            }),
            working: Mutex::new(()),
            replaying: Mutex::new(()),
            sealed: Notify::new(),
            runtime,
        });
        ingest.key_map_used(&used);
        let holder: Arc<dyn Holder> = Arc::clone(&ingest) as Arc<dyn Holder>;
        ingest.runtime.budget.register(Arc::downgrade(&holder));
        Ok(ingest)
    }

    /// Where the streams of `source` go on, as far as they were ever read.
    pub(crate) fn positions(&self, source: SourceId) -> Vec<(StreamId, u64)> {
        let state = self.state.lock();
        state.positions.iter().filter(|(stream, _)| stream.source == source).map(|(s, p)| (*s, *p)).collect()
    }

    /// Where a stream goes on, if it was ever begun.
    pub(crate) fn position(&self, stream: StreamId) -> Option<u64> {
        self.state.lock().positions.get(&stream).copied()
    }

    /// The last message that was read of a stream, and where it goes on.
    pub(crate) fn place(&self, stream: StreamId) -> Option<Place> {
        let state = self.state.lock();
        Some(Place { landmark: *state.landmarks.get(&stream)?, position: *state.positions.get(&stream)? })
    }

    /// The metadata log had the stream go on elsewhere. While nobody reads it, and after a seal.
    pub(crate) fn moved(&self, stream: StreamId, to: Option<u64>) {
        let mut state = self.state.lock();
        state.landmarks.remove(&stream);
        match to {
            Some(offset) => state.positions.insert(stream, offset),
            None => state.positions.remove(&stream),
        };
    }

    /// Largest watermark of a stream, over all that was ever appended.
    pub(crate) fn watermark_us(&self, stream: StreamId) -> Option<i64> {
        self.state.lock().watermarks.get(&stream).copied()
    }

    /// Records where streams begin that were never read, durably, so that a restart begins at the same offset.
    pub(crate) fn begin(&self, streams: &[(StreamId, u64)]) -> Result<()> {
        if streams.is_empty() {
            return Ok(());
        }
        let progress = streams.iter().map(|(stream, at)| OffsetRange { stream: *stream, from: *at, to: *at }).collect();
        let commit = SegmentCommit {
            table: self.table,
            partition: self.id,
            segment: None,
            progress,
            watermarks: Vec::new(),
            landmarks: Vec::new(),
            dead_letters: None,
            replaced_dead_letters: None,
            lost: Vec::new(),
        };
        self.runtime.log.commit(&commit)?;
        self.state.lock().positions.extend(streams.iter().copied());
        Ok(())
    }

    /// Appends one batch; it is visible when this returns. An error leaves the partition as it was.
    pub(crate) fn append(self: &Arc<Self>, batch: &Batch<'_>) -> Result<Appended> {
        let mut held = self.hold();
        let appended = held.prepare(batch)?;
        if appended == Appended::Done {
            held.publish();
            held.finish();
        }
        Ok(appended)
    }

    /// Locks the partition for a batch; see [`Held`].
    pub(crate) fn hold(self: &Arc<Self>) -> Held<'_> {
        Held { ingest: self, state: self.state.lock() }
    }

    /// Moves a stream's offsets over messages that are gone, up to `to`.
    pub(crate) fn skip(self: &Arc<Self>, source: &str, stream: StreamId, to: u64) -> Result<()> {
        let mut held = self.hold();
        let (generation, schema) = (held.state.generation, Arc::clone(&held.state.schema));
        let Some(from) = held.position(stream).filter(|from| *from < to) else { return Ok(()) };
        let appended = held.prepare(&Batch {
            generation,
            schema: &schema,
            rows: &RecordBatch::new_empty(schema.arrow()),
            row_offsets: &[],
            range: OffsetRange { stream, from, to },
            source,
            rejects: &[],
            watermark_us: None,
            landmark: None,
        })?;
        if appended == Appended::Done {
            held.publish();
            held.finish();
        }
        Ok(())
    }

    /// Ends the consuming segment when it is over its age.
    pub(crate) fn seal_aged(self: &Arc<Self>) {
        let now_us = self.runtime.clock.monotonic_us();
        let mut state = self.state.lock();
        if !state.closed && should_seal(&state.policy, &state.facts(now_us)) {
            self.rotate(&mut state);
        }
    }

    /// Ends the consuming segment now. [`Self::wait_sealed`] takes the number that this returns.
    pub(crate) fn seal_now(self: &Arc<Self>) -> u64 {
        let mut state = self.state.lock();
        if !state.closed {
            self.rotate(&mut state);
        }
        state.rotated
    }

    /// Returns when the first `wanted` ended segments are committed, or one of them could not be.
    pub(crate) async fn wait_sealed(&self, wanted: u64) -> Result<()> {
        loop {
            let rang = self.sealed.notified();
            tokio::pin!(rang);
            rang.as_mut().enable();
            {
                let state = self.state.lock();
                if state.done >= wanted {
                    return Ok(());
                }
                if state.closed {
                    return Err(Error::Unavailable(format!("table '{}' is being closed", self.table_name)));
                }
                if let Some(error) = state.last_error.as_ref().filter(|_| state.failures > 0) {
                    return Err(Error::Unavailable(format!(
                        "sealing partition {} of table '{}' failed and is tried again: {error}",
                        self.id, self.table_name
                    )));
                }
            }
            rang.await;
        }
    }

    /// How often the schema changed since the start.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// The schema that rows come in, how often it changed since the start, and when segments end.
    pub(super) fn settings(&self) -> (Arc<TableSchema>, u64, SealPolicy) {
        let state = self.state.lock();
        (Arc::clone(&state.schema), state.generation, state.policy)
    }

    /// Of a partition that takes the place of others, before the first row comes.
    pub(super) fn set_generation(&self, generation: u64) {
        self.state.lock().generation = generation;
    }

    /// The schema that segments are written under.
    pub(super) fn written(&self, schema: Arc<TableSchema>) -> Arc<TableSchema> {
        self.state.lock().writer.written(schema)
    }

    /// An id that no segment of the partition has or had.
    pub(super) fn take_segment_id(&self) -> SegmentId {
        self.state.lock().writer.take_id()
    }

    /// Rows of a segment that statements deleted.
    pub(super) fn deleted_rows(&self, segment: SegmentId) -> RowSet {
        self.state.lock().deleted.get(&segment).cloned().unwrap_or_default()
    }

    /// What the metadata log says of the partition, all of whose rows are committed.
    pub(super) fn logged(&self) -> Result<PartitionState> {
        let state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable(format!("table '{}' is being closed", self.table_name)));
        }
        let logged = self.runtime.log.partition(self.table, self.id)?;
        let is_known = logged.segments.len() == state.segments.len()
            && logged.segments.iter().all(|record| state.segments.iter().any(|known| known.id == record.id));
        let is_committed = state.writer.consuming().rows() == 0 && state.jobs.is_empty();
        if !is_known || !is_committed {
            return Err(Error::Unavailable(format!(
                "partition {} of table '{}' is not as the metadata log has it",
                self.id, self.table_name
            )));
        }
        Ok(logged)
    }

    /// Deletes the files of all segments, which others have replaced.
    pub(super) fn remove_segment_files(&self) {
        let files: Vec<String> = self.state.lock().segments.iter().map(|record| record.file.clone()).collect();
        files.iter().for_each(|file| self.remove_segment_file(file));
    }

    pub(crate) fn set_policy(&self, policy: SealPolicy) {
        self.state.lock().policy = policy;
    }

    /// None without a primary key.
    pub(crate) fn keys(&self) -> PartitionKeys {
        self.state.lock().writer.keys()
    }

    /// Rows that came too late to win since the start.
    pub(crate) fn late_rows(&self) -> u64 {
        self.state.lock().writer.late_rows()
    }

    /// Locks the partition for a change of schema; see [`SchemaChange`].
    pub(crate) fn begin_schema_change(self: &Arc<Self>) -> SchemaChange<'_> {
        SchemaChange { ingest: self, state: self.state.lock() }
    }

    /// Takes nothing any more, and waits for the seal at hand. Rows that are not committed are given up here; they are still in the source.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        let _working = self.working.lock();
        let mut state = self.state.lock();
        let budget = &self.runtime.budget;
        for job in state.jobs.drain(..) {
            budget.released(job.bytes);
        }
        budget.consuming_changed(state.accounted, 0);
        state.accounted = 0;
        drop(state);
        self.sealed.notify_waiters();
    }

    /// Committed files of dead letters, then those in memory, oldest first.
    pub(crate) fn dead_letters(&self) -> (Vec<Arc<DeadLetterFile>>, Vec<DeadLetter>) {
        let state = self.state.lock();
        let files = state.dead_letter_files.clone();
        let waiting = state.jobs.iter().flat_map(|job| job.dead_letters.iter());
        (files, waiting.chain(state.dead_letters.letters()).cloned().collect())
    }

    /// Committed files of dead letters, oldest first.
    /// Its committed segments.
    pub(crate) fn segment_records(&self) -> Vec<SegmentRecord> {
        self.state.lock().segments.clone()
    }

    pub(crate) fn dead_letter_files(&self) -> Vec<Arc<DeadLetterFile>> {
        self.state.lock().dead_letter_files.clone()
    }

    /// Segments ended so far: what [`Self::wait_sealed`] takes.
    pub(super) fn rotated(&self) -> u64 {
        self.state.lock().rotated
    }

    /// Makes the retried rows visible and the rest of the file letters that wait for the commit. False when the rows are outdated.
    pub(super) fn replace_letters(self: &Arc<Self>, file: &Arc<DeadLetterFile>, retried: Retried) -> Result<bool> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable(format!("table '{}' is being closed", self.table_name)));
        }
        if state.generation != retried.generation {
            return Ok(false);
        }
        self.rotate(&mut state);
        // All at once: nobody may see half of them.
        let (rows, origin) = joined(&state.schema, retried.rows.into_iter().map(Run::origin))?;
        state.writer.append_from(&rows, || origin, &[])?;
        self.account(&mut state);
        state.dead_letter_files.retain(|known| !Arc::ptr_eq(known, file));
        self.end_segment(&mut state, Some((Arc::clone(file), retried.kept)));
        Ok(true)
    }

    /// Puts some of a file's letters in its place; they wait for the commit.
    pub(super) fn keep_letters(self: &Arc<Self>, file: &Arc<DeadLetterFile>, kept: Vec<DeadLetter>) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable(format!("table '{}' is being closed", self.table_name)));
        }
        self.rotate(&mut state);
        state.dead_letter_files.retain(|known| !Arc::ptr_eq(known, file));
        self.end_segment(&mut state, Some((Arc::clone(file), kept)));
        Ok(())
    }

    /// Takes rows that were dead letters of another partition: they are committed when [`Self::wait_sealed`] of the number has returned. `None`
    /// when they are outdated.
    pub(super) fn take_retried(self: &Arc<Self>, generation: u64, rows: &[Origin]) -> Result<Option<u64>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Unavailable(format!("table '{}' is being closed", self.table_name)));
        }
        if state.generation != generation {
            return Ok(None);
        }
        let (rows, origin) = joined(&state.schema, rows.iter().cloned())?;
        state.writer.append_from(&rows, || origin, &[])?;
        self.account(&mut state);
        self.rotate(&mut state);
        Ok(Some(state.rotated))
    }

    /// Retires the segments that are older than the table keeps rows, and deletes their files. A consuming segment that is older is ended; the next
    /// call after its commit retires it.
    pub(crate) fn retain(self: &Arc<Self>, keep_us: i64) -> Result<()> {
        let (schema, segments) = {
            let state = self.state.lock();
            (Arc::clone(&state.schema), state.segments.clone())
        };
        let Some(cutoff) = retention::cutoff(&schema, self.runtime.clock.now_us(), keep_us) else { return Ok(()) };
        {
            let mut state = self.state.lock();
            if !state.closed && retention::is_consuming_expired(state.writer.consuming(), cutoff) {
                self.rotate(&mut state);
            }
        }
        let expired = retention::expired(&segments, cutoff);
        if expired.is_empty() {
            return Ok(());
        }
        fail::fail_point!("retention::before_log", |_| Err(Error::Unavailable("failpoint".into())));
        let expired = self.retire(expired)?;
        fail::fail_point!("retention::after_log", |_| Err(Error::Unavailable("failpoint".into())));
        for segment in segments.iter().filter(|segment| expired.contains(&segment.id)) {
            self.remove_segment_file(&segment.file);
        }
        if expired.is_empty() {
            return Ok(());
        }
        let rows: u64 = segments.iter().filter(|s| expired.contains(&s.id)).map(|s| u64::from(s.rows)).sum();
        self.event(
            Severity::Info,
            "retention",
            None,
            format!(
                "retention removed {} segments ({rows} rows) of table '{}' partition {}",
                expired.len(),
                self.table_name,
                self.id
            ),
        );
        Ok(())
    }

    /// Takes committed segments away, and with a key the keys whose rows are in them; which it took.
    fn retire(self: &Arc<Self>, mut gone: Vec<SegmentId>) -> Result<Vec<SegmentId>> {
        // Rows in memory that lost against these are lost with the commit of their segment: none may be on its way meanwhile.
        let _working = self.working.lock();
        let mut state = self.state.lock();
        if state.writer.merges() {
            // A crash would take back what rows in memory are merged with these, and find nothing to merge them with again: they are committed first.
            let mut waiting = Vec::new();
            for id in &gone {
                if !state.writer.needed(*id)?.beaten.is_empty() {
                    waiting.push(*id);
                }
            }
            gone.retain(|id| !waiting.contains(id));
            if !waiting.is_empty() && !state.closed {
                self.rotate(&mut state);
            }
            if gone.is_empty() {
                return Ok(gone);
            }
        }
        let is_gone = |record: &&SegmentRecord| gone.contains(&record.id);
        let rows = |record: &SegmentRecord| (record.id, (0..record.rows).collect::<RowSet>());
        // What lost against rows that go now would win at the next start. Of rows in memory the writer keeps that in mind.
        let lost = state.writer.lost_for_good(&gone)?;
        let prepared = state.writer.prepare_rewrite(Rewriting {
            dropped: state.segments.iter().filter(is_gone).map(rows).collect(),
            retired: gone.clone(),
            lost: lost.clone(),
            ..Default::default()
        })?;
        let retired = || state.segments.iter().filter(is_gone);
        let account = Account {
            made: 0,
            removed: retired().map(|record| u64::from(record.rows)).sum(),
            offsets: retired().flat_map(|record| record.offsets.iter().copied()).collect(),
        };
        let change = PartitionChange { partition: self.id, lost, retired: gone.clone(), account, ..Default::default() };
        self.runtime.log.change(self.table, &[change])?;
        state.forget(&gone);
        state.writer.rewrite(prepared);
        Ok(gone)
    }

    /// Deletes the file of a segment that nothing names any more, and what lies beside it. Readers that still hold the segment keep its pages: an unlinked
    /// file lives until its last map is gone.
    pub(super) fn remove_segment_file(&self, file: &str) {
        self.remove_file(file);
        quarantine::remove_note(&self.directory, file);
        for spec in self.partition.indexes().iter() {
            self.remove_file(&tidemill_storage::index::file_name(file, spec.id));
        }
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str, stream: Option<StreamId>, message: String) {
        self.runtime.events.record(Event {
            at_us: self.runtime.clock.now_us(),
            severity,
            kind,
            table: Some(self.table),
            partition: Some(self.id),
            stream,
            message,
        });
    }

    fn account(&self, state: &mut State) {
        let bytes = state.writer.consuming().bytes() + state.dead_letters.bytes() as u64;
        self.runtime.budget.consuming_changed(state.accounted, bytes);
        state.accounted = bytes;
    }

    /// Ends the consuming segment, if there is anything in it.
    fn rotate(self: &Arc<Self>, state: &mut State) {
        self.end_segment(state, None);
    }

    /// The same; after a replay with the file that was replayed and the letters that are left of it.
    fn end_segment(self: &Arc<Self>, state: &mut State, replayed: Option<(Arc<DeadLetterFile>, Vec<DeadLetter>)>) {
        let schema = Arc::clone(&state.schema);
        let segment = match state.writer.rotate(schema) {
            Some(segment) => segment,
            // Its letters became rows of other partitions.
            None if replayed.is_some() => state.writer.end(Arc::clone(&state.schema)),
            None => return,
        };
        let (replaces, dead_letters) = match replayed {
            Some((file, kept)) => (Some(file), kept),
            None => (None, state.dead_letters.take()),
        };
        self.runtime.budget.rotated(state.accounted);
        let streams = || segment.offsets().iter().map(|range| range.stream);
        let watermarks = streams().filter_map(|stream| Some((stream, *state.watermarks.get(&stream)?))).collect();
        let landmarks = streams().filter_map(|stream| Some((stream, *state.landmarks.get(&stream)?))).collect();
        state.jobs.push_back(Arc::new(SealJob {
            segment,
            dead_letters,
            replaces,
            watermarks,
            landmarks,
            bytes: state.accounted,
            leftovers: Mutex::default(),
            order: Mutex::default(),
        }));
        state.accounted = 0;
        state.since_us = None;
        state.rotated += 1;
        if !state.queued {
            state.queued = true;
            self.runtime.sealer.submit(Arc::clone(self));
        }
    }
}

impl State {
    /// Segments are gone.
    pub(super) fn forget(&mut self, gone: &[SegmentId]) {
        self.segments.retain(|segment| !gone.contains(&segment.id));
        for id in gone {
            self.deleted.remove(id);
            self.deleted_at_us.remove(id);
            self.held.remove(id);
            self.unforgettable.remove(id);
        }
    }

    fn facts(&self, now_us: i64) -> SealFacts {
        SealFacts {
            rows: u64::from(self.writer.consuming().rows()),
            bytes: self.accounted,
            age_us: self.since_us.map(|since_us| now_us - since_us),
            dead_letters_full: self.dead_letters.is_full(),
            learned: self.learned,
        }
    }
}

impl Holder for PartitionIngest {
    fn consuming_bytes(&self) -> u64 {
        self.state.lock().accounted
    }

    fn seal_early(self: Arc<Self>) {
        self.seal_now();
    }
}

impl fmt::Debug for PartitionIngest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionIngest").field("table", &self.table).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Rows and where they came from.
pub(super) type Origin = (RecordBatch, Provenance);

fn joined(schema: &TableSchema, rows: impl Iterator<Item = Origin>) -> Result<Origin> {
    let (batches, origins): (Vec<RecordBatch>, Vec<Provenance>) = rows.unzip();
    // As the rows have them: in a table that merges rows some may be NULL that are not in its segments.
    let columns = batches.first().map_or_else(|| schema.arrow(), RecordBatch::schema);
    let batch = concat_batches(&columns, &batches).map_err(tidemill_storage::Error::from)?;
    Ok((batch, Provenance::concat(&origins)?))
}

/// A partition that takes a batch: [`Self::prepare`], and when that was done [`Self::publish`] and [`Self::finish`].
pub(crate) struct Held<'a> {
    ingest: &'a Arc<PartitionIngest>,
    state: parking_lot::MutexGuard<'a, State>,
}

impl Held<'_> {
    /// The next offset of a stream.
    pub(crate) fn position(&self, stream: StreamId) -> Option<u64> {
        self.state.positions.get(&stream).copied()
    }

    /// Appends the batch without showing it to readers. An error leaves the partition as it was.
    pub(crate) fn prepare(&mut self, batch: &Batch<'_>) -> Result<Appended> {
        let runtime = &self.ingest.runtime;
        let (now_us, at_us) = (runtime.clock.monotonic_us(), runtime.clock.now_us());
        let state = &mut *self.state;
        if state.closed {
            return Ok(Appended::Closed);
        }
        if state.generation != batch.generation {
            return Ok(Appended::Outdated);
        }
        let stream = batch.range.stream;
        if state.positions.get(&stream) != Some(&batch.range.from) {
            return Err(Error::Storage(tidemill_storage::Error::Invalid(format!(
                "offsets {} to {} of partition {} of source '{}' do not continue at {:?}",
                batch.range.from,
                batch.range.to,
                stream.partition,
                batch.source,
                state.positions.get(&stream)
            ))));
        }
        let late_before = state.writer.late_rows();
        state.writer.prepare(batch.rows, || Provenance::of(stream, batch.row_offsets), &[batch.range])?;
        let late = state.writer.late_rows() - late_before;
        if late > 0 {
            metrics::counter!("tidemill_late_rows_total").increment(late);
        }
        state.positions.insert(stream, batch.range.to);
        if let Some(landmark) = batch.landmark {
            state.landmarks.insert(stream, landmark);
        }
        for reject in batch.rejects {
            state.dead_letters.push(batch.source, stream, reject.clone(), at_us);
        }
        if let Some(us) = batch.watermark_us {
            let watermark = state.watermarks.entry(stream).or_insert(us);
            *watermark = us.max(*watermark);
        }
        state.since_us.get_or_insert(now_us);
        Ok(Appended::Done)
    }

    pub(crate) fn publish(&mut self) {
        self.state.writer.publish();
    }

    /// Ends the consuming segment if it is due.
    pub(crate) fn finish(mut self) {
        let now_us = self.ingest.runtime.clock.monotonic_us();
        self.ingest.account(&mut self.state);
        if should_seal(&self.state.policy, &self.state.facts(now_us)) {
            self.ingest.rotate(&mut self.state);
        }
    }
}

/// A partition that stands still while the schema changes: take one of every partition, change the transforms, then [`Self::finish`] each.
pub(crate) struct SchemaChange<'a> {
    ingest: &'a Arc<PartitionIngest>,
    state: parking_lot::MutexGuard<'a, State>,
}

impl SchemaChange<'_> {
    pub(crate) fn generation(&self) -> u64 {
        self.state.generation
    }

    pub(crate) fn finish(mut self, generation: u64, schema: &Arc<TableSchema>) {
        self.state.generation = generation;
        self.state.schema = Arc::clone(schema);
        let pending = self.state.writer.consuming();
        if pending.rows() == 0 && pending.offsets().is_empty() {
            self.state.writer.rotate(Arc::clone(schema));
        } else {
            self.ingest.rotate(&mut self.state);
        }
    }
}

/// Tells sources and status how far the commit of one of the table's partitions went.
pub(super) fn tell(feeds: &Feeds, table: TableId, partition: PartitionId, progress: &[OffsetRange]) {
    let mut by_source: BTreeMap<SourceId, BTreeMap<u32, u64>> = BTreeMap::new();
    for range in progress {
        by_source.entry(range.stream.source).or_default().insert(range.stream.partition, range.to);
    }
    for (source, mut positions) in by_source {
        let Some(feed) = feeds.read().get(&source).cloned() else { continue };
        // How far the others are with a stream that nobody reads now is told when it is read again.
        positions.retain(|source_partition, offset| match feed.stream(*source_partition) {
            Some(stream) => {
                *offset = stream.committed_in(partition, *offset);
                true
            }
            None => false,
        });
        feed.feed.connector.committed(table, &positions);
    }
}
