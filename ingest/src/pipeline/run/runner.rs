//! The thread that processes: arrivals into the machine, its rows into the log, its pictures to the writer.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use tidemill_storage::ids::{SourceId, StreamId};

use super::{
    super::{
        machine::{Arrival, Machine, MachineSource, NEVER, Outcome, state_file, state_file::StateFile},
        plan::Plan,
        tables::{Answers, TableRows},
    },
    CheckpointLog, CheckpointRecord, Input, Shared, Sink,
    checkpoint::{self, Draft},
    input::{Known, Reading},
    open::Opened,
};
use crate::{
    Error, Result,
    consumer::{committing::panic_text, pace::backoff},
    dead_letters::{DeadLetterBuffer, OnError},
    events::Severity,
    runtime::{join, spawn},
};

/// Arrivals between an input and the runner.
const QUEUE: usize = 4;
/// Bytes of arrivals since the last checkpoint after which another one is made at once.
const RETAINED_BYTES: usize = 64 << 20;
/// Bytes of these at which nothing more is taken.
const RETAINED_BYTES_MAX: usize = 256 << 20;
/// Rows of one frame of the log.
const FRAME_ROWS: usize = 64 * 1024;
const TURN: Duration = Duration::from_millis(20);
/// State that a few batches of any source may bring: so much more is taken when they may free what others brought.
const BATCHES_BYTES: u64 = 32 << 20;
/// Groups that change are given so often.
const GIVE_EVERY_US: i64 = 100_000;
/// How often the size of the state is asked.
const SIZE_EVERY_US: i64 = 50_000;

pub(super) struct Runner {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    sources: Arc<[MachineSource]>,
    tables: Arc<[Arc<dyn TableRows>]>,
    inputs: Vec<Input>,
    directory: PathBuf,
    sink: Arc<Sink>,
    machine: Machine,
    /// The last checkpoint, and the last number that one had.
    base: Option<CheckpointRecord>,
    newest: u64,
    /// What was applied since the base, what tables said for it, and its bytes.
    retained: VecDeque<(Arrival, Answers, usize)>,
    retained_bytes: usize,
    /// Something is to be kept.
    is_dirty: bool,
    begun_us: i64,
    sized_us: i64,
    given_us: i64,
    writing: Option<Writing>,
    running: Option<Running>,
    jobs: Sender<Job>,
    done: Receiver<Result<CheckpointRecord>>,
    checkpoint_failures: u32,
    writer: Option<JoinHandle<()>>,
    over_limit: Option<OverLimit>,
}

/// The state takes more than it may.
struct OverLimit {
    limit: u64,
    /// Bytes when that was seen, and now.
    first: u64,
    now: u64,
}

impl OverLimit {
    /// Whether what was read to let the watermark go on did not help.
    fn is_far(&self) -> bool {
        self.now >= self.first.saturating_add(self.limit.max(BATCHES_BYTES))
    }
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
}

/// The threads of the inputs.
struct Running {
    /// Of each input.
    arrivals: Vec<(SourceId, Receiver<Arrival>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Runner {
    pub(super) fn new(
        shared: Arc<Shared>,
        plan: Arc<Plan>,
        inputs: Vec<Input>,
        tables: Arc<[Arc<dyn TableRows>]>,
        directory: PathBuf,
        log: Arc<dyn CheckpointLog>,
        opened: Opened,
    ) -> Result<Self> {
        let sources: Arc<[MachineSource]> =
            inputs.iter().map(|input| MachineSource { id: input.id, watermark: input.watermark.clone() }).collect();
        let (jobs, taken) = bounded::<Job>(1);
        let (finished, done) = bounded(1);
        let of_writer = (Arc::clone(&shared), directory.clone(), log, Arc::clone(&opened.sink));
        let writer = spawn(format!("checkpoint-{}", shared.name), move || {
            let (shared, directory, log, sink) = of_writer;
            let now = || shared.clock.now_us();
            for job in taken {
                let write = || checkpoint::write(&directory, &sink.log, &*log, &job.draft, job.record, job.after, &now);
                let written = catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|panic| {
                    Err(Error::Unavailable(format!("the checkpoint panicked: {}", panic_text(&*panic))))
                });
                if finished.send(written).is_err() {
                    return;
                }
            }
        });
        // The checkpoint is read when the thread begins.
        let (of_plan, of_sources) = (Arc::clone(&plan), Arc::clone(&sources));
        let machine = Machine::new(of_plan, of_sources, Arc::clone(&tables), shared.options().settings())?;
        Ok(Self {
            shared,
            plan,
            sources,
            tables,
            inputs,
            directory,
            sink: opened.sink,
            machine,
            base: opened.from,
            newest: opened.newest,
            retained: VecDeque::new(),
            retained_bytes: 0,
            is_dirty: false,
            begun_us: 0,
            sized_us: 0,
            given_us: 0,
            writing: None,
            running: None,
            jobs,
            done,
            checkpoint_failures: 0,
            writer: writer.ok(),
            over_limit: None,
        })
    }

    pub(super) fn run(mut self) {
        let mut failures = 0;
        let mut is_sound = self.rebuild();
        loop {
            let worked = match is_sound {
                Ok(()) => catch_unwind(AssertUnwindSafe(|| self.work(&mut failures)))
                    .unwrap_or_else(|panic| Err(Error::Unavailable(format!("it panicked: {}", panic_text(&*panic))))),
                Err(error) => Err(error),
            };
            self.stop_inputs();
            match worked {
                Ok(()) => break,
                Err(error) => {
                    failures += 1;
                    self.failed(&error, failures);
                    self.rest(backoff(failures));
                    if self.shared.is_stopping() {
                        // What was applied half-way is given up; the last checkpoint stands.
                        self.finish_writing();
                        self.end_writer();
                        return;
                    }
                    is_sound = self.rebuild();
                }
            }
        }
        self.finish_writing();
        if let Err(error) = self.checkpoint_now() {
            tracing::warn!(%error, pipeline = self.shared.name, "the last checkpoint of a pipeline failed; what is past the one before is derived again");
        }
        self.end_writer();
    }

    fn end_writer(&mut self) {
        let (closed, _) = bounded(1);
        self.jobs = closed;
        if let Some(writer) = self.writer.take() {
            join(writer);
        }
    }

    fn failed(&mut self, error: &Error, failures: u32) {
        {
            let mut status = self.shared.status.lock();
            status.state = "failing";
            status.error = Some(error.to_string());
            status.restarts += 1;
        }
        if failures.is_power_of_two() {
            let message = format!(
                "pipeline '{}' failed ({failures} times): {error}; it starts again from its last checkpoint",
                self.shared.name
            );
            self.shared.event(Severity::Page, "pipeline_failed", message);
        }
        self.shared.changed.notify_waiters();
    }

    fn rest(&self, time: Duration) {
        let mut nudge = self.shared.nudge.lock();
        if !self.shared.is_stopping() {
            self.shared.wake.wait_for(&mut nudge, time);
        }
    }

    /// Makes the machine as it was after the last step that went well: from the last checkpoint, and what came since.
    fn rebuild(&mut self) -> Result<()> {
        self.finish_writing();
        let (plan, sources, tables) = (Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::clone(&self.tables));
        let settings = self.shared.options().settings();
        let mut machine = match &self.base {
            Some(record) => {
                let picture = state_file::read(&self.directory, &record.state)?;
                Machine::restore(plan, sources, tables, settings, picture)?
            }
            None => Machine::new(plan, sources, tables, settings)?,
        };
        let mut end = self.base.as_ref().map_or(0, |record| record.end);
        for (arrival, answers, _) in &self.retained {
            let outcome = machine.apply_again(arrival, answers.clone())?;
            end += outcome.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        }
        if end != self.sink.log.end() {
            return Err(Error::Unavailable(format!(
                "it was derived again up to row {end} of its log, which has {}; it goes on when the server starts again",
                self.sink.log.end()
            )));
        }
        self.machine = machine;
        Ok(())
    }

    /// Processes until the pipeline stops.
    fn work(&mut self, failures: &mut u32) -> Result<()> {
        self.publish_status();
        while !self.shared.is_stopping() {
            self.take_checkpoint();
            self.size();
            if self.shared.is_paused() {
                self.stop_inputs();
                self.give(0)?;
                self.finish_writing();
                self.checkpoint_now()?;
                self.set_state("paused");
                self.rest(Duration::from_millis(100));
                continue;
            }
            if self.is_checkpoint_due() {
                self.begin_checkpoint()?;
            }
            let behind = self.machine.behind();
            let is_full = self.over_limit.as_ref().is_some_and(|over| behind.is_empty() || over.is_far());
            if is_full || self.retained_bytes >= RETAINED_BYTES_MAX {
                self.give(0)?;
                self.rest(TURN);
                continue;
            }
            self.start_inputs()?;
            match self.next(&behind)? {
                Some(arrival) => {
                    self.apply(arrival)?;
                    self.give(GIVE_EVERY_US)?;
                    *failures = 0;
                    if self.over_limit.is_none() {
                        self.set_state("running");
                    }
                }
                // Nothing comes: what changed is given at once.
                None => self.give(0)?,
            }
        }
        Ok(())
    }

    /// What comes next, within a turn. Sources that hold others back go first, so that less has to be kept; beyond the limit nothing comes of others.
    fn next(&self, behind: &[SourceId]) -> Result<Option<Arrival>> {
        let ended = || Error::Unavailable("its inputs ended".into());
        let Some(running) = &self.running else { return Ok(None) };
        let first = running.arrivals.iter().filter(|(source, _)| behind.contains(source));
        for (_, arrivals) in first {
            match arrivals.try_recv() {
                Ok(arrival) => return Ok(Some(arrival)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(ended()),
            }
        }
        let allowed = |source: &SourceId| self.over_limit.is_none() || behind.contains(source);
        let mut select = Select::new();
        let waited: Vec<&Receiver<Arrival>> =
            running.arrivals.iter().filter(|(source, _)| allowed(source)).map(|(_, arrivals)| arrivals).collect();
        for arrivals in &waited {
            select.recv(arrivals);
        }
        let Ok(ready) = select.select_timeout(TURN) else { return Ok(None) };
        let arrivals = waited[ready.index()];
        ready.recv(arrivals).map(Some).map_err(|_| ended())
    }

    fn limit(&self) -> u64 {
        self.shared.options().memory_limit
    }

    fn set_state(&self, state: &'static str) {
        let mut status = self.shared.status.lock();
        if status.state != state {
            status.state = state;
            status.error = None;
            drop(status);
            self.shared.changed.notify_waiters();
        }
    }

    fn apply(&mut self, arrival: Arrival) -> Result<()> {
        let outcome = self.machine.apply(&arrival)?;
        let answers = self.machine.answers();
        fail::fail_point!("pipeline::applied", |_| Err(Error::Unavailable("failpoint pipeline::applied".into())));
        self.put(&outcome)?;
        let is_known = matches!(arrival, Arrival::Known { .. });
        self.keep(outcome);
        let kept = light(arrival);
        let bytes = weight(&kept) + answers.bytes();
        self.retained_bytes += bytes;
        self.retained.push_back((kept, answers, bytes));
        self.is_dirty = true;
        if is_known && !self.shared.connected.load(Ordering::SeqCst) {
            // Where streams begin is durable before anything of them is taken.
            self.finish_writing();
            self.checkpoint_now()?;
            self.shared.connected.store(true, Ordering::SeqCst);
        }
        self.publish_status();
        Ok(())
    }

    /// Has groups given that changed, when the last time is long ago.
    fn give(&mut self, every_us: i64) -> Result<()> {
        let now_us = self.shared.clock.monotonic_us();
        if !self.machine.is_waiting() || now_us - self.given_us < every_us {
            return Ok(());
        }
        self.given_us = now_us;
        self.apply(Arrival::Give)
    }

    /// Gives rows to those who read the log.
    fn put(&self, outcome: &Outcome) -> Result<()> {
        let schema = self.plan.output();
        for rows in &outcome.rows {
            let mut at = 0;
            while at < rows.num_rows() {
                let count = FRAME_ROWS.min(rows.num_rows() - at);
                let end = self.sink.log.publish(schema, &[rows.slice(at, count)])?;
                self.sink.end.store(end, Ordering::SeqCst);
                at += count;
            }
        }
        Ok(())
    }

    /// Puts what were no rows among the dead letters.
    fn keep(&self, outcome: Outcome) {
        if outcome.rejects.is_empty() && outcome.late.is_empty() {
            return;
        }
        let at_us = self.shared.clock.now_us();
        let mut buffer = DeadLetterBuffer::new(usize::MAX);
        let input = |stream: StreamId| self.inputs.iter().find(|input| input.id == stream.source);
        for (stream, reject) in outcome.rejects {
            if let Some(input) = input(stream).filter(|input| input.on_error != OnError::Skip) {
                buffer.push(&input.name, stream, reject, at_us);
            }
        }
        // What becomes of late rows is said by the pipeline, not by the source.
        for (stream, reject) in outcome.late {
            if let Some(input) = input(stream) {
                buffer.push(&input.name, stream, reject, at_us);
            }
        }
        self.shared.letters.lock().extend(buffer.take());
    }

    fn publish_status(&self) {
        let progress = self.machine.progress();
        {
            let mut status = self.shared.status.lock();
            status.counts = self.machine.counts();
            status.watermark_us = Some(self.machine.watermark()).filter(|us| *us != NEVER);
            status.is_settled = self.machine.is_settled();
            status.positions = progress.positions.into_iter().collect();
            if let Some(base) = &self.base {
                status.checkpoint = Some(base.id);
                status.checkpoint_at_us = Some(base.at_us);
            }
        }
        self.shared.changed.notify_waiters();
    }

    fn size(&mut self) {
        let now_us = self.shared.clock.monotonic_us();
        if now_us - self.sized_us < SIZE_EVERY_US {
            return;
        }
        self.sized_us = now_us;
        let (bytes, groups) = self.machine.size();
        let limit = self.limit();
        let is_over = bytes as u64 > limit;
        let mut status = self.shared.status.lock();
        status.state_bytes = bytes as u64;
        status.open_groups = groups as u64;
        if is_over && self.over_limit.is_none() {
            let error = format!("its state takes {bytes} bytes, and memory_limit is {limit}; it stands still");
            status.state = "failing";
            status.error = Some(error.clone());
            drop(status);
            let message = format!("pipeline '{}': {error}", self.shared.name);
            self.shared.event(Severity::Page, "pipeline_memory", message);
            self.shared.changed.notify_waiters();
        } else if !is_over && self.over_limit.is_some() {
            drop(status);
            self.set_state("running");
        }
        let (first, now) = (self.over_limit.as_ref().map_or(bytes as u64, |over| over.first), bytes as u64);
        self.over_limit = is_over.then_some(OverLimit { limit, first, now });
    }

    fn is_checkpoint_due(&self) -> bool {
        let elapsed_us = self.shared.clock.monotonic_us() - self.begun_us;
        self.writing.is_none()
            && self.is_dirty
            && (elapsed_us >= self.shared.options().checkpoint_interval_us
                || self.sink.is_checkpoint_wanted()
                || self.retained_bytes >= RETAINED_BYTES)
            && (self.checkpoint_failures == 0 || elapsed_us >= backoff(self.checkpoint_failures).as_micros() as i64)
    }

    /// Hands a picture to the writer.
    fn begin_checkpoint(&mut self) -> Result<()> {
        self.begun_us = self.shared.clock.monotonic_us();
        self.sink.checkpoint_begins();
        let picture = self.machine.picture()?;
        let letters = self.shared.letters.lock().clone();
        let groups = picture.groups();
        let end = self.sink.log.end();
        self.newest += 1;
        let record = CheckpointRecord {
            pipeline: self.shared.id,
            id: self.newest,
            at_us: self.shared.clock.now_us(),
            duration_us: 0,
            state: StateFile { file: String::new(), bytes: 0, checksum: 0 },
            groups,
            end,
            positions: picture.progress.positions.clone(),
            dead_letters: None,
        };
        self.writing = Some(Writing { retained: self.retained.len(), letters: letters.len() });
        let after = self.base.as_ref().map_or(0, |base| base.id);
        let job = Job { draft: Draft { picture, letters }, record, after };
        self.is_dirty = false;
        self.jobs.send(job).map_err(|_| Error::Unavailable("the writer of checkpoints has ended".into()))
    }

    /// Takes the outcome of the checkpoint that is being written, if there is one.
    fn take_checkpoint(&mut self) {
        if self.writing.is_some()
            && let Ok(done) = self.done.try_recv()
        {
            self.checkpoint_done(done);
        }
    }

    fn finish_writing(&mut self) {
        if self.writing.is_some()
            && let Ok(done) = self.done.recv()
        {
            self.checkpoint_done(done);
        }
    }

    fn checkpoint_done(&mut self, done: Result<CheckpointRecord>) {
        let Some(writing) = self.writing.take() else { return };
        match done {
            Ok(record) => {
                for (.., bytes) in self.retained.drain(..writing.retained.min(self.retained.len())) {
                    self.retained_bytes -= bytes;
                }
                {
                    let mut letters = self.shared.letters.lock();
                    let count = writing.letters.min(letters.len());
                    letters.drain(..count);
                }
                self.sink.set_durable(record.end);
                for input in &self.inputs {
                    let of_input = record.positions.iter().filter(|(stream, _)| stream.source == input.id);
                    let positions = of_input.map(|(stream, offset)| (stream.partition, *offset)).collect();
                    input.connector.committed(self.shared.id, &positions);
                }
                self.base = Some(record);
                self.checkpoint_failures = 0;
            }
            Err(error) => {
                self.is_dirty = true;
                self.checkpoint_failures += 1;
                if self.checkpoint_failures.is_power_of_two() {
                    let message = format!(
                        "a checkpoint of pipeline '{}' failed ({} times): {error}; it is tried again",
                        self.shared.name, self.checkpoint_failures
                    );
                    self.shared.event(Severity::Warning, "checkpoint_failed", message);
                }
            }
        }
    }

    /// A checkpoint that covers everything, when anything is new. Waits for it.
    fn checkpoint_now(&mut self) -> Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        self.begin_checkpoint()?;
        if self.writing.is_some() {
            let done = self.done.recv().unwrap_or_else(|_| Err(Error::Unavailable("the writer has ended".into())));
            let failed = done.as_ref().err().cloned();
            self.checkpoint_done(done);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    fn start_inputs(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let progress = self.machine.progress();
        let landmarks: BTreeMap<StreamId, _> = progress.landmarks.into_iter().collect();
        let mut known: BTreeMap<SourceId, BTreeMap<u32, _>> = BTreeMap::new();
        for (stream, position) in progress.positions {
            let has_rows = progress.time.has_rows(stream);
            let place = Known { position, landmark: landmarks.get(&stream).copied(), has_rows };
            known.entry(stream.source).or_default().insert(stream.partition, place);
        }
        if progress.counts.rows_in > 0 {
            self.shared.begun(self.shared.clock.monotonic_us());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Running { arrivals: Vec::new(), stop: Arc::clone(&stop), threads: Vec::new() };
        for (place, input) in self.inputs.iter().enumerate() {
            let known = known.remove(&input.id).unwrap_or_default();
            let (sender, arrivals) = bounded(QUEUE);
            running.arrivals.push((input.id, arrivals));
            let reading = Reading::new(Arc::clone(&self.shared), place, input.clone(), sender, Arc::clone(&stop));
            let name = format!("consume-{}-{place}", self.shared.name);
            running.threads.push(spawn(name, move || reading.run(&known))?);
        }
        self.running = Some(running);
        Ok(())
    }

    /// What they sent and nobody took is read again.
    fn stop_inputs(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::SeqCst);
            drop(running.arrivals);
            running.threads.into_iter().for_each(join);
        }
    }
}

/// An arrival without the bytes of its messages.
fn light(mut arrival: Arrival) -> Arrival {
    if let Arrival::Rows { batch, .. } = &mut arrival {
        batch.origin = None;
        for reject in &mut batch.rejects {
            mem::take(&mut reject.raw);
        }
    }
    arrival
}

fn weight(arrival: &Arrival) -> usize {
    match arrival {
        Arrival::Rows { batch, .. } => batch.rows.get_array_memory_size() + batch.row_offsets.len() * 8,
        _ => mem::size_of::<Arrival>(),
    }
}
