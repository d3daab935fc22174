//! A pipeline while it runs.
//!
//! ```text
//! input (thread a source) ─ decoded rows, bounded ─► runner (thread) ─► machine ─► log behind the pipeline ─► tables
//!                                                      └─ picture ─► writer (thread) ─► checkpoint
//! ```
//!
//! Arrivals since the last checkpoint are kept: should a step fail half-way, the machine is made again from that checkpoint and these, without giving
//! their rows a second time, and the step is tried again after a while. What always holds: offsets, state and the end of the log that a checkpoint names belong
//! together; nothing is committed by a table that no checkpoint covers.

mod checkpoint;
mod input;
mod open;
mod runner;
mod sink;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    clock::Clock,
    ids::{SourceId, StreamId, TableId},
};
use tokio::sync::Notify;

use self::runner::Runner;
pub use self::{
    checkpoint::{CheckpointLog, CheckpointRecord, KEPT},
    input::Input,
    open::{Opened, Opening, open},
    sink::Sink,
};
use super::{
    late::Late,
    machine::{Counts, Settings},
    plan::Plan,
    tables::TableRows,
};
use crate::{
    Error, Result,
    consumer::TableIngest,
    dead_letters::{DeadLetter, DeadLetterReader},
    events::{Event, Severity},
    runtime::{IngestRuntime, blocking, join, spawn},
};

/// How a pipeline runs. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    pub checkpoint_interval_us: i64,
    pub idle_timeout_us: i64,
    pub watermark_jump_us: i64,
    /// Bytes of state.
    pub memory_limit: u64,
    pub late: Late,
}

impl RunOptions {
    fn settings(&self) -> Settings {
        Settings { jump_max_us: self.watermark_jump_us, late: self.late }
    }
}

/// What a pipeline is made of.
pub struct PipelineSpec {
    pub id: TableId,
    pub name: String,
    pub directory: PathBuf,
    pub plan: Arc<Plan>,
    pub inputs: Vec<Input>,
    /// Those that rows look into, in the plan's order.
    pub tables: Vec<Arc<dyn TableRows>>,
    pub options: RunOptions,
    pub checkpoints: Arc<dyn CheckpointLog>,
    pub is_paused: bool,
}

/// What is known of a running pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineStatus {
    /// "starting", "running", "paused", "failing" or "stopped".
    pub state: &'static str,
    pub error: Option<String>,
    pub counts: Counts,
    /// Microseconds since 1970; `None` before anything is known.
    pub watermark_us: Option<i64>,
    pub state_bytes: u64,
    pub open_groups: u64,
    pub restarts: u64,
    /// The last one.
    pub checkpoint: Option<u64>,
    pub checkpoint_at_us: Option<i64>,
    /// Whether no partition without rows keeps windows from being given.
    pub is_settled: bool,
    /// Next offset of each stream that was not processed.
    pub positions: BTreeMap<StreamId, u64>,
    /// The end of the log behind it.
    pub end: u64,
}

/// What the threads of one pipeline share.
pub(crate) struct Shared {
    pub(crate) id: TableId,
    pub(crate) name: String,
    pub(crate) clock: Arc<dyn Clock>,
    options: Mutex<RunOptions>,
    pub(crate) runtime: Arc<IngestRuntime>,
    pub(crate) status: Mutex<PipelineStatus>,
    input_errors: Mutex<BTreeMap<SourceId, String>>,
    letters: Mutex<Vec<DeadLetter>>,
    stopping: AtomicBool,
    paused: AtomicBool,
    connected: AtomicBool,
    /// When the first row came since the start (monotonic); `i64::MAX` before.
    first_row_us: AtomicI64,
    /// Rang when anything above changes.
    changed: Notify,
    nudge: Mutex<()>,
    wake: Condvar,
}

impl Shared {
    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: String) {
        let at_us = self.clock.now_us();
        self.runtime.events.record(Event {
            at_us,
            severity,
            kind,
            table: None,
            partition: None,
            stream: None,
            message,
        });
    }

    fn options(&self) -> RunOptions {
        self.options.lock().clone()
    }

    pub(crate) fn set_input_error(&self, source: SourceId, error: Option<String>) {
        let mut errors = self.input_errors.lock();
        match error {
            Some(error) => _ = errors.insert(source, error),
            None => _ = errors.remove(&source),
        }
    }

    /// A row came.
    fn begun(&self, now_us: i64) {
        self.first_row_us.fetch_min(now_us, Ordering::Relaxed);
    }

    /// When the first row came, or `since` if that is later.
    fn first_row_us(&self, since: i64) -> i64 {
        self.first_row_us.load(Ordering::Relaxed).max(since)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    fn ring(&self) {
        self.wake.notify_all();
        self.changed.notify_waiters();
    }
}

/// A pipeline that runs. Dropping it leaves its threads running: call [`Pipeline::stop`].
pub struct Pipeline {
    shared: Arc<Shared>,
    sink: Arc<Sink>,
    inputs: Vec<Input>,
    directory: PathBuf,
    checkpoints: Arc<dyn CheckpointLog>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Begins to process in the background, from where `opened` says.
    pub fn start(runtime: &Arc<IngestRuntime>, spec: PipelineSpec, opened: Opened) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            id: spec.id,
            name: spec.name,
            clock: Arc::clone(&runtime.clock),
            options: Mutex::new(spec.options),
            runtime: Arc::clone(runtime),
            status: Mutex::new(PipelineStatus { state: "starting", ..PipelineStatus::default() }),
            input_errors: Mutex::default(),
            letters: Mutex::default(),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(spec.is_paused),
            connected: AtomicBool::new(false),
            first_row_us: AtomicI64::new(i64::MAX),
            changed: Notify::new(),
            nudge: Mutex::new(()),
            wake: Condvar::new(),
        });
        let sink = Arc::clone(&opened.sink);
        let runner = Runner::new(
            Arc::clone(&shared),
            spec.plan,
            spec.inputs.clone(),
            spec.tables.into(),
            spec.directory.clone(),
            Arc::clone(&spec.checkpoints),
            opened,
        )?;
        let thread = spawn(format!("pipeline-{}", shared.name), move || runner.run())?;
        Ok(Arc::new(Self {
            shared,
            sink,
            inputs: spec.inputs,
            directory: spec.directory,
            checkpoints: spec.checkpoints,
            threads: Mutex::new(vec![thread]),
        }))
    }

    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    pub fn status(&self) -> PipelineStatus {
        let mut status = self.shared.status.lock().clone();
        status.end = self.sink.end();
        if status.error.is_none() {
            status.error = self.shared.input_errors.lock().values().next().cloned();
        }
        status
    }

    /// Stops reading until [`Pipeline::resume`], after a checkpoint. Returns when it stands still.
    pub async fn pause(&self) -> Result<()> {
        self.shared.paused.store(true, Ordering::SeqCst);
        self.shared.ring();
        self.wait(|| Ok(self.shared.status.lock().state == "paused")).await
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
        self.shared.ring();
    }

    /// Goes on with other intervals and limits. What becomes of late rows and of jumps stays as it was.
    pub fn set_options(&self, options: RunOptions) {
        {
            let mut known = self.shared.options.lock();
            let (late, watermark_jump_us) = (known.late, known.watermark_jump_us);
            *known = RunOptions { late, watermark_jump_us, ..options };
        }
        self.shared.ring();
    }

    /// Stops the threads, after a last checkpoint. Blocks.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.ring();
        for thread in self.threads.lock().drain(..) {
            join(thread);
        }
    }

    /// Returns when it is durable where every present partition of its sources begins.
    pub async fn connected(&self) -> Result<()> {
        self.wait(|| Ok(self.shared.connected.load(Ordering::SeqCst))).await
    }

    /// Returns when all that is in a source now was processed: the offset in the log behind the pipeline up to which rows came of it.
    pub async fn drain(&self, source: SourceId) -> Result<u64> {
        let Some(input) = self.inputs.iter().find(|input| input.id == source) else { return Ok(self.sink.end()) };
        let connector = Arc::clone(&input.connector);
        let highs = blocking(move || {
            let ends = connector
                .partitions()?
                .into_iter()
                .map(|partition| Ok((partition, connector.watermarks(partition)?.high)));
            ends.collect::<Result<Vec<_>>>()
        });
        let highs = highs.await?;
        self.wait(|| {
            let status = self.shared.status.lock();
            let is_read = |(partition, high): &(u32, u64)| {
                *high == 0
                    || status
                        .positions
                        .get(&StreamId { source, partition: *partition })
                        .is_some_and(|position| position >= high)
            };
            if highs.iter().all(is_read) && status.is_settled {
                return Ok(true);
            }
            match status.state {
                "paused" => {
                    Err(Error::Unavailable(format!("pipeline '{}' is paused; resume it first", self.shared.name)))
                }
                "stopped" | "failing" => Err(Error::Unavailable(format!(
                    "pipeline '{}' is {}: {}",
                    self.shared.name,
                    status.state,
                    status.error.clone().unwrap_or_default()
                ))),
                _ => Ok(false),
            }
        })
        .await?;
        Ok(self.sink.end())
    }

    /// Returns when everything that it gave before the call is visible in a table that reads from it as `source`.
    pub async fn visible_in(&self, table: &TableIngest, source: SourceId, end: u64) -> Result<()> {
        table.wait_visible(StreamId { source, partition: 0 }, end).await
    }

    /// Dead letters of the pipeline: those of checkpoints from their files, then those in memory.
    pub fn dead_letters(&self) -> Result<impl Iterator<Item = Result<DeadLetter>> + Send + use<>> {
        let files = self.checkpoints.dead_letters(self.shared.id)?;
        let waiting = self.shared.letters.lock().clone();
        let directory = self.directory.clone();
        let kept = files.into_iter().flat_map(move |record| -> Box<dyn Iterator<Item = Result<DeadLetter>> + Send> {
            match DeadLetterReader::open(&directory.join(record.file)) {
                Ok(reader) => Box::new(reader),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        Ok(kept.chain(waiting.into_iter().map(Ok)))
    }

    async fn wait(&self, done: impl Fn() -> Result<bool>) -> Result<()> {
        loop {
            let rang = self.shared.changed.notified();
            tokio::pin!(rang);
            rang.as_mut().enable();
            if done()? {
                return Ok(());
            }
            if self.shared.is_stopping() {
                return Err(Error::Unavailable(format!("pipeline '{}' is being stopped", self.shared.name)));
            }
            rang.await;
        }
    }
}
