//! The checkpoints of a running pipeline: when one is made, and the thread that writes it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use tidemill_storage::ids::TableId;

use super::{
    super::machine::{Machine, Settings, state_file::StateFile},
    CheckpointLog, CheckpointRecord, Output,
    checkpoint::{self, Content, Draft},
    copies::Copies,
    diary::{self, Diary},
    limit::Retained,
    open::Opened,
    renewal::{Blueprint, Made, Renewal},
    shared::Shared,
    spilled::Spilled,
};
use crate::{
    Error, Result,
    commit::DeadLetterRecord,
    consumer::{committing::panic_text, pace::backoff},
    deep_store::DeepStore,
    events::Severity,
    runtime::{join, spawn},
};

/// Below that a picture costs no more than naming a file.
const STATE_BYTES_MIN: usize = 1 << 20;
/// From there on a new picture is made beside the pipeline, which would stand still for longer than one wants to wait.
const STATE_BYTES_LARGE: usize = 8 << 20;
/// A diary takes one part in so many of the state. A start has that to derive again.
const DIARY_SHARE: u64 = 8;
/// What comes from one checkpoint to the next takes one part in so many of the state: else a picture costs less than what was done in that time, and less than the arrivals.
const ARRIVALS_SHARE: u64 = 2;
/// A diary of a large state, while a new picture is made, takes so many times the state at most.
const DIARY_TIMES_MAX: u64 = 4;

/// Openings of the pipeline that are known for who signed deliveries.
const LINEAGE: usize = 64;

pub(super) struct Checkpoints {
    shared: Arc<Shared>,
    output: Arc<Output>,
    /// The last one, and the last number that one had.
    base: Option<CheckpointRecord>,
    newest: u64,
    lineage: Vec<i64>,
    begun_us: i64,
    writing: Option<Writing>,
    /// Files of dead letters that were taken again since the last one.
    replayed: Vec<String>,
    failures: u32,
    directory: PathBuf,
    renewal: Option<Renewal>,
    /// After one failed the next waits for a diary of so many bytes.
    renewal_from: u64,
    log: Arc<dyn CheckpointLog>,
    jobs: Sender<Job>,
    done: Receiver<Result<CheckpointRecord>>,
    writer: Option<JoinHandle<()>>,
}

struct Job {
    draft: Draft,
    record: CheckpointRecord,
    after: u64,
}

/// A checkpoint that is being written.
struct Writing {
    /// How much of what is retained it covers.
    retained: usize,
    letters: usize,
    replayed: usize,
}

/// What became of one.
pub(super) enum Written {
    /// It covers so many of the arrivals that were retained.
    Kept(usize),
    Failed(Error),
}

/// Whether what came since the last checkpoint is written in the place of a picture: as long as all that came since the last picture is a small part of the state, so that a start
/// has little to derive again. Where the state is large it may be more, until a new picture is there.
fn keeps_arrivals(base: &CheckpointRecord, retained: &Retained, state_bytes: usize) -> bool {
    let (known, came) = (base.diary.as_ref().map_or(0, |diary| diary.plain), retained.bytes() as u64);
    let state = state_bytes as u64;
    if state_bytes < STATE_BYTES_LARGE {
        return state_bytes >= STATE_BYTES_MIN && (known + came).saturating_mul(DIARY_SHARE) <= state;
    }
    came.saturating_mul(ARRIVALS_SHARE) <= state && known + came <= state.saturating_mul(DIARY_TIMES_MAX)
}

impl Checkpoints {
    /// `mark`: when the pipeline was opened.
    pub(super) fn new(
        shared: &Arc<Shared>,
        directory: PathBuf,
        log: Arc<dyn CheckpointLog>,
        opened: Opened,
        spilled: &Spilled,
        deep_store: Option<DeepStore>,
        mark: i64,
    ) -> Self {
        let (jobs, taken) = bounded::<Job>(1);
        let (finished, done) = bounded(1);
        let of_writer =
            (Arc::clone(shared), Arc::clone(&opened.output), Arc::clone(&log), directory.clone(), spilled.clone());
        let writer = spawn(format!("checkpoint-{}", shared.name), move || {
            let (shared, output, log, directory, spilled) = of_writer;
            let now = || shared.clock.now_us();
            let mut diaries = diary::Writer::default();
            let mut copies = deep_store.map(Copies::new);
            for job in taken {
                let write = || {
                    let Job { draft, record, after } = job;
                    checkpoint::write(
                        &directory,
                        &output.log,
                        &*log,
                        &mut diaries,
                        copies.as_mut(),
                        &spilled,
                        &draft,
                        record,
                        after,
                        &now,
                    )
                };
                let written = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
                    Err(Error::Unavailable(format!("the checkpoint panicked: {}", panic_text(&*panic))))
                });
                if finished.send(written).is_err() {
                    return;
                }
            }
        });
        shared.letters.begin(opened.newest);
        let mut lineage = opened.from.as_ref().map_or_else(Vec::new, |record| record.lineage.clone());
        lineage.push(mark);
        lineage.drain(..lineage.len().saturating_sub(LINEAGE));
        Self {
            shared: Arc::clone(shared),
            output: opened.output,
            base: opened.from,
            newest: opened.newest,
            lineage,
            begun_us: 0,
            writing: None,
            replayed: Vec::new(),
            failures: 0,
            directory,
            renewal: None,
            renewal_from: 0,
            log,
            jobs,
            done,
            writer: writer.ok(),
        }
    }

    /// The last one.
    pub(super) fn base(&self) -> Option<&CheckpointRecord> {
        self.base.as_ref()
    }

    /// Who signed deliveries so far, this opening included.
    pub(super) fn lineage(&self) -> &[i64] {
        &self.lineage
    }

    /// Has something when one was written, or was not.
    pub(super) fn done(&self) -> &Receiver<Result<CheckpointRecord>> {
        &self.done
    }

    /// Whether one is to begin, when anything is new. `is_urgent`: too much is kept for the next one.
    pub(super) fn is_due(&self, interval_us: i64, is_urgent: bool) -> bool {
        let elapsed_us = self.shared.clock.monotonic_us() - self.begun_us;
        self.writing.is_none()
            && (elapsed_us >= interval_us || is_urgent || self.output.is_checkpoint_wanted())
            && (self.failures == 0 || elapsed_us >= backoff(self.failures).as_micros() as i64)
    }

    /// Hands a picture to the writer, or what was retained since the last one, if it need not be `whole`. It covers the retained arrivals that there are.
    pub(super) fn begin(
        &mut self,
        machine: &mut Machine,
        retained: &Retained,
        delivered: Vec<(TableId, u64)>,
        whole: bool,
    ) -> Result<()> {
        self.begun_us = self.shared.clock.monotonic_us();
        self.output.checkpoint_begins();
        let progress = machine.progress();
        let (state_bytes, groups) = machine.size();
        let renewed = self.renewed();
        let base = self.base.as_ref().filter(|base| !whole && keeps_arrivals(base, retained, state_bytes));
        let (content, (state, spilled, diary)) = match base {
            Some(base) => {
                let arrivals = retained.iter().map(|(arrival, answers)| (arrival.clone(), answers.clone()));
                let kept = match renewed {
                    Some((made, since)) => (made.state, made.spilled, Some(since)),
                    None => (base.state.clone(), base.spilled.clone(), base.diary.clone()),
                };
                (Content::Arrivals(arrivals.collect()), kept)
            }
            None => {
                let none = StateFile { file: String::new(), bytes: 0, checksum: 0 };
                (Content::Picture(machine.picture()?), (none, Vec::new(), None))
            }
        };
        let letters = self.shared.letters.all();
        let end = self.output.log.end();
        self.newest += 1;
        let record = CheckpointRecord {
            pipeline: self.shared.id,
            id: self.newest,
            at_us: self.shared.clock.now_us(),
            duration_us: 0,
            state,
            spilled,
            diary,
            groups: groups as u64,
            end,
            positions: progress.positions,
            delivered,
            lineage: self.lineage.clone(),
            dead_letters: None,
            replayed: self.replayed.clone(),
        };
        self.writing =
            Some(Writing { retained: retained.len(), letters: letters.len(), replayed: self.replayed.len() });
        let after = self.base.as_ref().map_or(0, |base| base.id);
        let spared = self.renewal.as_ref().map(|renewal| renewal.file().to_owned());
        let job = Job { draft: Draft { content, letters, spared }, record, after };
        self.jobs.send(job).map_err(|_| Error::Unavailable("the writer of checkpoints has ended".into()))
    }

    /// A picture that was made since the last checkpoint, and what of the diary came since.
    fn renewed(&mut self) -> Option<(Made, Diary)> {
        let (base, renewal) = (self.base.as_ref()?, self.renewal.as_mut()?);
        match renewal.take(base) {
            Ok(renewed) => renewed,
            Err(error) => {
                self.renewal = None;
                self.renewal_from = base.diary.as_ref().map_or(0, |diary| diary.plain + diary.plain / 2);
                let message = format!(
                    "the picture of pipeline '{}' that was to replace the one of checkpoint {} could not be made: {error}; it is tried again",
                    self.shared.name, base.id
                );
                self.shared.event(Severity::Warning, "checkpoint_failed", message);
                None
            }
        }
    }

    /// Begins a new picture beside the pipeline when one is wanted.
    pub(super) fn renew(&mut self, blueprint: &Blueprint, settings: Settings, state_bytes: usize) {
        let Some(base) = &self.base else { return };
        if self.renewal.as_ref().is_some_and(|renewal| !renewal.follows(base)) {
            self.renewal = None;
        }
        if base.diary.is_none() {
            self.renewal_from = 0;
        }
        let known = base.diary.as_ref().map_or(0, |diary| diary.plain);
        let is_wanted = state_bytes >= STATE_BYTES_LARGE
            && known >= self.renewal_from
            && known.saturating_mul(DIARY_SHARE) > state_bytes as u64;
        if is_wanted && self.renewal.is_none() {
            let directory = self.directory.clone();
            self.renewal = Renewal::begin(&self.shared.name, blueprint.clone(), settings, directory, base);
        }
    }

    /// What became of the one that is being written, if that is known.
    pub(super) fn take(&mut self) -> Option<Written> {
        self.writing.as_ref()?;
        let done = self.done.try_recv().ok()?;
        self.settle(done)
    }

    /// The same, waiting for it.
    pub(super) fn finish(&mut self) -> Option<Written> {
        self.writing.as_ref()?;
        let done = self.done.recv().unwrap_or_else(|_| Err(Error::Unavailable("the writer has ended".into())));
        self.settle(done)
    }

    fn settle(&mut self, done: Result<CheckpointRecord>) -> Option<Written> {
        let writing = self.writing.take()?;
        match done {
            Ok(record) => {
                self.shared.letters.keep(writing.letters, record.id);
                self.replayed.drain(..writing.replayed);
                self.output.set_durable(record.end);
                for (sink, delivered) in &record.delivered {
                    self.output.committed(*sink, *delivered);
                }
                self.base = Some(record);
                self.failures = 0;
                Some(Written::Kept(writing.retained))
            }
            Err(error) => {
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    let message = format!(
                        "a checkpoint of pipeline '{}' failed ({} times): {error}; it is tried again",
                        self.shared.name, self.failures
                    );
                    self.shared.event(Severity::Warning, "checkpoint_failed", message);
                }
                Some(Written::Failed(error))
            }
        }
    }

    /// Files of dead letters that count.
    pub(super) fn letters(&self) -> Result<Vec<DeadLetterRecord>> {
        let mut all = self.log.dead_letters(self.shared.id)?;
        all.retain(|record| !self.replayed.contains(&record.file));
        Ok(all)
    }

    /// The next one forgets a file of dead letters, which were taken again.
    pub(super) fn replace_letters(&mut self, file: String) {
        self.replayed.push(file);
    }

    /// Ends the thread that writes.
    pub(super) fn end(&mut self) {
        self.renewal = None;
        let (closed, _) = bounded(1);
        self.jobs = closed;
        if let Some(writer) = self.writer.take() {
            join(writer);
        }
    }
}
