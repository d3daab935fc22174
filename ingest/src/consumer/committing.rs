//! From an ended segment to a committed one, step by step; see [`crate::commit`] for the order and why.
//!
//! | a crash after | leaves | and then |
//! |---|---|---|
//! | the segment file | a file that nothing names | it is deleted at start, its offsets are read again |
//! | the dead letters' file | the same | the same |
//! | the transaction | everything in place | the next start opens the file |
//!
//! A step that fails is not repeated on the same file: what a failed fsync left behind cannot be trusted. When the *transaction* fails, the log is
//! asked whether it took place after all.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use tidemill_storage::{
    ids::{PartitionId, SegmentId, TableId},
    index::{IndexKind, IndexSpec},
    row_set::RowSet,
    segment::{
        Segment,
        builder::{SealContext, seal_sorted},
        committed::{Expected, Watcher, open_watched},
        consuming::ConsumingSegment,
    },
    table::PartitionWriter,
};

use super::partition::{PartitionIngest, SealJob, tell};
use crate::{
    Error, Result,
    commit::{DeadLetterRecord, PartitionChange, SegmentCommit, SegmentRecord},
    dead_letters::{self, DeadLetterFile},
    events::Severity,
    quarantine::Alarm,
    runtime::IngestRuntime,
    seal::SealStep,
};

/// A committed job.
struct Committed {
    /// `None` when there were no rows.
    segment: Option<(SegmentRecord, Arc<dyn Segment>)>,
    dead_letters: Option<DeadLetterRecord>,
    lost: Lost,
}

/// Rows of segments that are not valid whatever becomes of others.
type Lost = Vec<(SegmentId, RowSet)>;

/// A segment file that nothing names yet.
pub(super) struct Written {
    pub(super) record: SegmentRecord,
    pub(super) segment: Arc<dyn Segment>,
    /// Which row each row of the file was, where they are in another order.
    pub(super) order: Option<Arc<[u32]>>,
}

/// Where segments of a partition are written.
pub(super) struct Folder<'a> {
    pub(super) runtime: &'a Arc<IngestRuntime>,
    pub(super) table: TableId,
    pub(super) table_name: &'a str,
    pub(super) id: PartitionId,
    pub(super) directory: &'a Path,
    /// Those that segments are to have.
    pub(super) indexes: &'a [IndexSpec],
}

impl Folder<'_> {
    /// Writes the file and opens it again: what is committed has been read back. `leftovers` gets the names of files that an error leaves.
    pub(super) fn write_segment(&self, rows: &ConsumingSegment, leftovers: &mut Vec<String>) -> Result<Written> {
        let id = rows.id();
        let file = segment_file(id);
        let created_at_us = self.runtime.clock.now_us();
        let context = SealContext { table: self.table, partition: self.id, created_at_us };
        leftovers.extend([file.clone(), format!("{file}.tmp")]);
        let sorted = self.indexes.iter().find(|spec| spec.kind == IndexKind::Sorted);
        let by = sorted.map_or(&[][..], |spec| spec.columns.as_slice());
        let sealed = seal_sorted(rows, self.directory, &file, &context, by)?;
        let expected = Expected { id, bytes: sealed.bytes, checksum: sealed.checksum };
        let watcher = Alarm::watcher(self.runtime, self.table, self.table_name, self.id, self.directory);
        let segment = open_watched(&sealed.path, &expected, watcher)?;
        if segment.rows() != rows.rows() || segment.offsets() != rows.offsets() {
            return Err(Error::Storage(tidemill_storage::Error::corrupt(
                &sealed.path,
                "rows and offsets",
                rows.rows(),
                segment.rows(),
            )));
        }
        let record = SegmentRecord {
            id,
            file,
            bytes: sealed.bytes,
            checksum: sealed.checksum,
            rows: sealed.rows,
            schema_version: sealed.schema_version,
            time_range: sealed.time_range,
            offsets: sealed.offsets,
            committed_at_us: created_at_us,
            tombstones: 0,
            purged: 0,
            keys_left_us: None,
        };
        Ok(Written { record, segment, order: sealed.order })
    }

    /// Gives a new segment its indexes. It is committed and readable without them: what fails is left to the background.
    pub(super) fn index(&self, segment: &Arc<dyn Segment>) {
        let Some(committed) = segment.as_committed() else { return };
        for spec in self.indexes.iter().filter(|spec| committed.wants_index(spec)) {
            if let Err(error) = committed.build_index(spec) {
                tracing::warn!(index = spec.name, segment = segment.id().0, %error, "an index is built later");
                self.runtime.indexer.request();
            }
        }
    }
}

/// Name of the file of segment `id` in its partition's directory.
pub(crate) fn segment_file(id: SegmentId) -> String {
    format!("s{:020}.seg", id.0)
}

impl PartitionIngest {
    /// Carries out the oldest job. Called by sealing threads.
    pub(crate) fn seal_next(self: &Arc<Self>) -> SealStep {
        let _working = self.working.lock();
        let (job, failures) = {
            let mut state = self.state.lock();
            match state.jobs.front() {
                Some(job) if !state.closed => (Arc::clone(job), state.failures),
                _ => {
                    state.queued = false;
                    return SealStep::Idle;
                }
            }
        };
        let carried_out = catch_unwind(AssertUnwindSafe(|| self.carry_out(&job, failures)))
            .unwrap_or_else(|panic| Err(Error::Unavailable(format!("sealing panicked: {}", panic_text(&*panic)))));
        match carried_out {
            Ok(committed) => self.publish(&job, committed).unwrap_or_else(|error| self.failed(&job, &error)),
            Err(error) => self.failed(&job, &error),
        }
    }

    fn carry_out(&self, job: &SealJob, failures: u32) -> Result<Committed> {
        if failures > 0 {
            if let Some(committed) = self.already_committed(job)? {
                return Ok(committed);
            }
            self.remove_leftovers(job);
        }
        fail::fail_point!("commit::begin", |_| Err(Error::Unavailable("failpoint commit::begin".into())));
        for range in job.segment.offsets().iter().filter(|range| range.to > range.from) {
            let feed = self.feeds.read().get(&range.stream.source).cloned();
            if let Some(feed) = feed {
                feed.feed.connector.settle(range.stream.partition, range.to)?;
            }
        }
        let segment = if job.segment.rows() > 0 { Some(self.write_ended(job)?) } else { None };
        fail::fail_point!("commit::segment_written", |_| Err(Error::Unavailable("failpoint".into())));
        let dead_letters = if job.dead_letters.is_empty() {
            None
        } else {
            let record = dead_letters::write(&self.directory, job.segment.id(), &job.dead_letters)?;
            job.leftovers.lock().push(record.file.clone());
            Some(record)
        };
        fail::fail_point!("commit::before_log", |_| Err(Error::Unavailable("failpoint commit::before_log".into())));
        let lost = lost_with(&self.state.lock().writer, job)?;
        self.runtime.log.commit(&SegmentCommit {
            table: self.table,
            partition: self.id,
            segment: segment.as_ref().map(|(record, _)| record.clone()),
            progress: job.segment.offsets().to_vec(),
            watermarks: job.watermarks.clone(),
            landmarks: job.landmarks.clone(),
            dead_letters: dead_letters.clone(),
            replaced_dead_letters: job.replaces.as_ref().map(|file| file.record.file.clone()),
            lost: lost.clone(),
        })?;
        fail::fail_point!("commit::after_log", |_| Err(Error::Unavailable("failpoint commit::after_log".into())));
        if let Some((_, segment)) = &segment {
            self.index(segment);
        }
        Ok(Committed { segment, dead_letters, lost })
    }

    fn write_ended(&self, job: &SealJob) -> Result<(SegmentRecord, Arc<dyn Segment>)> {
        let written = self.write_segment(&job.segment, &mut job.leftovers.lock())?;
        *job.order.lock() = written.order;
        Ok((written.record, written.segment))
    }

    /// Writes the file and opens it again; see [`Folder::write_segment`].
    pub(super) fn write_segment(&self, rows: &ConsumingSegment, leftovers: &mut Vec<String>) -> Result<Written> {
        self.folder(&self.partition.indexes()).write_segment(rows, leftovers)
    }

    fn watcher(&self) -> Arc<dyn Watcher> {
        Alarm::watcher(&self.runtime, self.table, &self.table_name, self.id, &self.directory)
    }

    /// Gives a new segment its indexes; see [`Folder::index`].
    pub(super) fn index(&self, segment: &Arc<dyn Segment>) {
        self.folder(&self.partition.indexes()).index(segment);
    }

    fn folder<'a>(&'a self, indexes: &'a [IndexSpec]) -> Folder<'a> {
        Folder {
            runtime: &self.runtime,
            table: self.table,
            table_name: &self.table_name,
            id: self.id,
            directory: &self.directory,
            indexes,
        }
    }

    /// Whether an earlier try got through although it reported an error.
    fn already_committed(&self, job: &SealJob) -> Result<Option<Committed>> {
        let known = self.runtime.log.partition(self.table, self.id)?;
        let moved = job.segment.offsets().iter().filter(|range| range.to > range.from).all(|range| {
            known.positions.iter().any(|(stream, position)| *stream == range.stream && *position >= range.to)
        });
        let is_named = |file: &str| known.dead_letters.iter().any(|record| record.file == file);
        if !moved || job.replaces.as_ref().is_some_and(|file| is_named(&file.record.file)) {
            return Ok(None);
        }
        let dead_letters = if job.dead_letters.is_empty() { None } else { known.dead_letters.last().cloned() };
        if job.segment.rows() == 0 {
            return Ok(Some(Committed { segment: None, dead_letters, lost: Vec::new() }));
        }
        let Some(record) = known.segments.into_iter().find(|segment| segment.id == job.segment.id()) else {
            return Ok(None);
        };
        let expected = Expected { id: record.id, bytes: record.bytes, checksum: record.checksum };
        let segment = open_watched(&self.directory.join(&record.file), &expected, self.watcher())?;
        Ok(Some(Committed { segment: Some((record, segment)), dead_letters, lost: known.lost }))
    }

    fn remove_leftovers(&self, job: &SealJob) {
        job.leftovers.lock().drain(..).for_each(|file| self.remove_file(&file));
    }

    /// Deletes a file that nothing names, if it is there.
    pub(super) fn remove_file(&self, file: &str) {
        match fs::remove_file(self.directory.join(file)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file, %error, "a file that nothing names stays until the next start"),
        }
    }

    /// An error leaves everything as it was; the next try finds that the job is committed.
    fn publish(&self, job: &SealJob, committed: Committed) -> Result<SealStep> {
        let rows = job.segment.rows();
        let step = {
            let mut state = self.state.lock();
            match committed.segment {
                Some((record, segment)) => {
                    self.lose_more(&state.writer, job, &committed.lost)?;
                    state.writer.replace(segment, job.order.lock().as_deref())?;
                    state.writer.lose(&committed.lost);
                    let wanted = state.policy.bytes;
                    state.learned.learn(record.rows.into(), record.bytes, wanted);
                    state.segments.push(record);
                    state.held.clear();
                }
                None => self.partition.remove(&[job.segment.id()]),
            }
            let letters = committed.dead_letters.into_iter();
            state
                .dead_letter_files
                .extend(letters.map(|record| Arc::new(DeadLetterFile::new(&self.directory, record))));
            state.jobs.pop_front();
            state.done += 1;
            if state.failures > 0 {
                self.event(
                    Severity::Info,
                    "seal_recovered",
                    None,
                    format!("sealing works again for table '{}' partition {}", self.table_name, self.id),
                );
            }
            state.failures = 0;
            state.last_error = None;
            state.queued = !state.jobs.is_empty();
            if state.queued { SealStep::Again } else { SealStep::Idle }
        };
        self.runtime.budget.released(job.bytes);
        if let Some(file) = &job.replaces {
            file.replaced();
        }
        metrics::counter!("tidemill_segments_committed_total").increment(1);
        metrics::counter!("tidemill_rows_committed_total").increment(u64::from(rows));
        tell(&self.feeds, self.table, self.id, job.segment.offsets());
        self.sealed.notify_waiters();
        Ok(step)
    }

    /// Tells the log of rows that were lost only after the commit.
    fn lose_more(&self, writer: &PartitionWriter, job: &SealJob, known: &Lost) -> Result<()> {
        let id = job.segment.id();
        let known = known.iter().find(|(known, _)| *known == id).map(|(_, rows)| rows);
        let lost = in_file(writer.lost(id), job);
        let more: RowSet = lost.iter().filter(|row| known.is_none_or(|known| !known.contains(*row))).collect();
        if more.is_empty() {
            return Ok(());
        }
        let change = PartitionChange { partition: self.id, lost: vec![(id, more)], ..Default::default() };
        self.runtime.log.change(self.table, &[change])
    }

    fn failed(&self, job: &SealJob, error: &Error) -> SealStep {
        let failures = {
            let mut state = self.state.lock();
            state.failures += 1;
            state.last_error = Some(error.to_string());
            state.failures
        };
        // The first failure, then ever more rarely: a full disk must not fill the events too.
        if failures.is_power_of_two() {
            self.event(
                Severity::Warning,
                "seal_failed",
                None,
                format!(
                    "sealing segment {} of table '{}' partition {} failed ({failures} times): {error}; \
                     nothing is lost, it is tried again",
                    job.segment.id(),
                    self.table_name,
                    self.id
                ),
            );
        }
        metrics::counter!("tidemill_seal_failures_total").increment(1);
        self.sealed.notify_waiters();
        SealStep::Failed { failures }
    }
}

/// What is lost for good with the commit of a job; rows of its segment as they are in its file.
fn lost_with(writer: &PartitionWriter, job: &SealJob) -> Result<Lost> {
    let mut lost = writer.lost_with(job.segment.id())?;
    for (_, rows) in lost.iter_mut().filter(|(id, _)| *id == job.segment.id()) {
        *rows = in_file(std::mem::take(rows), job);
    }
    Ok(lost)
}

/// Rows of a job's segment as its file has them.
fn in_file(rows: RowSet, job: &SealJob) -> RowSet {
    match job.order.lock().as_deref().filter(|_| !rows.is_empty()) {
        Some(order) => (0..).zip(order).filter(|(_, row)| rows.contains(**row)).map(|(place, _)| place).collect(),
        None => rows,
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}
