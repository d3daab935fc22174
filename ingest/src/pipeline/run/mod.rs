//! A pipeline while it runs.
//!
//! ```text
//! input (thread a source) ─ decoded rows, bounded ─► runner (thread) ─► machine ─► log behind the pipeline ─► tables
//!                                                      ├─ picture ─► writer (thread) ─► checkpoint
//!                                                      └─ log ─► delivery (thread a sink) ─► sinks
//! ```
//!
//! Arrivals since the last checkpoint are kept: should a step fail half-way, the machine is made again from that checkpoint and these, without giving
//! their rows a second time, and the step is tried again after a while. What always holds: offsets, state and the end of the log that a checkpoint names belong
//! together; nothing is committed by a table that no checkpoint covers.

mod checkpoint;
mod checkpoints;
mod copies;
mod delivery;
mod diary;
mod forgetting;
mod input;
mod inputs;
mod letters;
mod limit;
mod open;
mod output;
mod renewal;
mod replay;
mod runner;
mod shared;
mod spilled;
mod stepper;
mod warm;
mod watch;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use parking_lot::Mutex;
use tidemill_storage::ids::{SourceId, StreamId, TableId};

pub use self::{
    checkpoint::{CheckpointLog, CheckpointRecord, KEPT},
    delivery::{DeliveryStatus, SinkSpec},
    input::Input,
    open::{Opened, Opening, open},
    output::Output,
    warm::{Positions, Warming},
};
use self::{
    checkpoints::Checkpoints,
    delivery::{Behind, Deliveries, Delivering},
    inputs::Inputs,
    runner::{Runner, Works},
    shared::Shared,
    spilled::Spilled,
};
use super::{
    late::Late,
    machine::{Counts, Settings, spill::Store},
    plan::Plan,
    services::{HttpService, ServiceOptions},
    tables::TableRows,
};
use crate::{
    Error, Result,
    consumer::TableIngest,
    dead_letters::{self, DeadLetter, DeadLetterReader},
    deep_store::DeepStore,
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
    /// A pipeline that does nothing about what waits for it starts again after that; 0: never.
    pub stuck_after_us: i64,
    /// Lanes of each operator that has keys, and threads that read a source.
    pub parallelism: usize,
    pub late: Late,
    pub services: ServiceOptions,
}

impl RunOptions {
    fn settings(&self, store: Arc<dyn Store>) -> Settings {
        Settings { jump_max_us: self.watermark_jump_us, late: self.late, store, lanes: self.parallelism.max(1) }
    }
}

/// What a pipeline is made of.
pub struct PipelineSpec {
    pub id: TableId,
    pub name: String,
    pub directory: PathBuf,
    /// Where its checkpoints are copied to.
    pub deep_store: Option<DeepStore>,
    pub plan: Arc<Plan>,
    pub inputs: Vec<Input>,
    pub sinks: Vec<SinkSpec>,
    /// What the log behind it is called as a source.
    pub log: SourceId,
    /// Those that rows look into, in the plan's order.
    pub tables: Vec<Arc<dyn TableRows>>,
    pub options: RunOptions,
    pub checkpoints: Arc<dyn CheckpointLog>,
    pub is_paused: bool,
}

/// What is known of a running pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineStatus {
    /// "starting", "running", "held" (by a sink), "paused", "failing" or "stopped".
    pub state: &'static str,
    pub error: Option<String>,
    pub counts: Counts,
    /// Microseconds since 1970; `None` before anything is known.
    pub watermark_us: Option<i64>,
    pub state_bytes: u64,
    /// State in files.
    pub spilled_bytes: u64,
    pub open_groups: u64,
    pub restarts: u64,
    /// When it is tried again, of one that failed (microseconds since 1970).
    pub retry_at_us: Option<i64>,
    /// The last one.
    pub checkpoint: Option<u64>,
    pub checkpoint_at_us: Option<i64>,
    /// Whether no partition without rows keeps windows from being given.
    pub is_settled: bool,
    /// Next offset of each stream that was not processed.
    pub positions: BTreeMap<StreamId, u64>,
    /// Messages of the sources that were not processed, as was seen some seconds ago at most; `None` before anything is known.
    pub lag: Option<u64>,
    /// Thousandths of the last second in which the sources had something and nothing was taken.
    pub backpressure_permille: u32,
    /// The end of the log behind it.
    pub end: u64,
}

/// A pipeline that runs. Dropping it leaves its threads running: call [`Pipeline::stop`].
pub struct Pipeline {
    shared: Arc<Shared>,
    output: Arc<Output>,
    deliveries: Arc<Deliveries>,
    inputs: Vec<Input>,
    directory: PathBuf,
    checkpoints: Arc<dyn CheckpointLog>,
    runner: Mutex<Option<JoinHandle<()>>>,
    /// One replay at a time.
    replaying: tokio::sync::Mutex<()>,
    /// Of the sinks.
    deliverers: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Begins to process in the background, from where `opened` says.
    pub fn start(runtime: &Arc<IngestRuntime>, spec: PipelineSpec, opened: Opened) -> Result<Arc<Self>> {
        let shared = Shared::new(spec.id, spec.name, spec.options, runtime, spec.is_paused);
        let output = Arc::clone(&opened.output);
        let deliveries = Arc::new(Deliveries::new(&spec.sinks));
        let mark = shared.clock.now_us();
        let known = opened.from.as_ref().map_or_else(Vec::new, |record| record.delivered.clone());
        let going_on = Arc::clone(&shared);
        let spilled = Spilled::new(&spec.directory, move || going_on.step_goes_on());
        let log = Arc::clone(&spec.checkpoints);
        let checkpoints =
            Checkpoints::new(&shared, spec.directory.clone(), log, opened, &spilled, spec.deep_store, mark);
        let behind = Behind {
            shared: Arc::clone(&shared),
            output: Arc::clone(&output),
            log: spec.log,
            checkpoints: Arc::clone(&spec.checkpoints),
            directory: spec.directory.clone(),
            lineage: checkpoints.lineage().to_vec(),
            mark,
        };
        let mut tables = spec.tables;
        for address in spec.plan.services() {
            let (options, asking) = (shared.options().services, Arc::clone(&shared));
            let clock = Arc::clone(&shared.clock);
            let service = HttpService::new(address.clone(), options, clock, move || {
                // Requests end by themselves.
                asking.step_goes_on();
                asking.gives_up()
            })?;
            tables.push(Arc::new(service));
        }
        let works = Works {
            plan: spec.plan,
            tables: tables.into(),
            inputs: Inputs::new(&shared, spec.inputs.clone()),
            directory: spec.directory.clone(),
            output: Arc::clone(&output),
            deliveries: Arc::clone(&deliveries),
            checkpoints,
            spilled,
        };
        let runner = Runner::new(Arc::clone(&shared), works)?;
        let thread = spawn(format!("pipeline-{}", shared.name), move || runner.run())?;
        let pipeline = Arc::new(Self {
            shared,
            output,
            deliveries,
            inputs: spec.inputs,
            directory: spec.directory,
            checkpoints: spec.checkpoints,
            runner: Mutex::new(Some(thread)),
            replaying: tokio::sync::Mutex::default(),
            deliverers: Mutex::default(),
        });
        for (at, sink) in spec.sinks.into_iter().enumerate() {
            let known = known.iter().find(|(id, _)| *id == sink.id).map(|(_, position)| *position);
            let name = format!("sink-{}-{at}", pipeline.shared.name);
            let delivering = Delivering::new(sink, &pipeline.deliveries, at, known, &behind);
            match spawn(name, move || delivering.run()) {
                Ok(thread) => pipeline.deliverers.lock().push(thread),
                Err(error) => {
                    pipeline.stop();
                    return Err(error);
                }
            }
        }
        Ok(pipeline)
    }

    pub fn output(&self) -> &Arc<Output> {
        &self.output
    }

    pub fn status(&self) -> PipelineStatus {
        let mut status = self.shared.status.lock().clone();
        status.end = self.output.end();
        let ends = self.shared.ends.lock();
        let behind = |(stream, end): (&StreamId, &u64)| Some(end.saturating_sub(*status.positions.get(stream)?));
        status.lag = (!ends.is_empty()).then(|| ends.iter().filter_map(behind).sum());
        drop(ends);
        if status.error.is_none() {
            status.error = self.shared.input_errors.lock().values().next().cloned();
        }
        if status.error.is_none() {
            status.error = self.deliveries.trouble();
        }
        status
    }

    /// What is known of the deliveries into each sink.
    pub fn deliveries(&self) -> Vec<(TableId, DeliveryStatus)> {
        self.deliveries.boards.iter().map(|board| (board.id, board.status.lock().clone())).collect()
    }

    /// Returns when every sink has what is before `end` in the log behind it. An error when one cannot take it for now.
    pub async fn delivered(&self, end: u64) -> Result<()> {
        self.wait(|| {
            for board in &self.deliveries.boards {
                let status = board.status.lock();
                if status.position.is_some_and(|position| position >= end) {
                    continue;
                }
                return match status.state {
                    "failing" | "refused" | "stopped" => Err(Error::Unavailable(format!(
                        "sink '{}' of pipeline '{}' takes nothing: {}",
                        board.name(),
                        self.shared.name,
                        status.error.clone().unwrap_or_default()
                    ))),
                    _ => Ok(false),
                };
            }
            Ok(true)
        })
        .await
    }

    /// Goes on delivering into a sink as it is from now on. Nothing is lost or comes twice: what was put is committed first, or not at all.
    pub fn alter_sink(&self, spec: SinkSpec) {
        if let Some(board) = self.deliveries.boards.iter().find(|board| board.id == spec.id) {
            board.alter(spec);
            self.shared.ring();
        }
    }

    /// Returns when the sink's thread goes on as [`Pipeline::alter_sink`] said.
    pub async fn altered(&self, sink: TableId) -> Result<()> {
        let board = self.deliveries.boards.iter().find(|board| board.id == sink);
        self.wait(|| Ok(board.is_none_or(|board| !board.is_altered()))).await
    }

    /// Stops reading until [`Pipeline::resume`], after a checkpoint. Returns when it stands still.
    pub async fn pause(&self) -> Result<()> {
        self.shared.paused.store(true, Ordering::SeqCst);
        self.shared.ring();
        self.wait(|| Ok(self.shared.status.lock().state == "paused")).await
    }

    /// Has it start again from its last checkpoint: what it took since is taken again, and what came of that is not given twice. A step that does not end is left
    /// alone. Returns when it is seen to.
    pub async fn restart(&self) -> Result<()> {
        let before = self.shared.status.lock().restarts;
        self.shared.ask_restart();
        self.wait(|| Ok(self.shared.status.lock().restarts > before)).await
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
        self.shared.ring();
    }

    /// Goes on with other intervals and limits. What becomes of late rows and of jumps, and how services are asked, stays as it was.
    pub fn set_options(&self, options: RunOptions) {
        {
            let mut known = self.shared.options.lock();
            let (late, watermark_jump_us, services) = (known.late, known.watermark_jump_us, known.services.clone());
            *known = RunOptions { late, watermark_jump_us, services, ..options };
        }
        self.shared.ring();
    }

    /// Stops the threads, after a last checkpoint; what can be delivered soon is. Blocks.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.ring();
        let runner = self.runner.lock().take();
        runner.into_iter().for_each(join);
        self.deliveries.finish(self.shared.clock.monotonic_us());
        let deliverers = std::mem::take(&mut *self.deliverers.lock());
        deliverers.into_iter().for_each(join);
    }

    /// Returns when it is durable where every present partition of its sources begins.
    pub async fn connected(&self) -> Result<()> {
        self.wait(|| Ok(self.shared.connected.load(Ordering::SeqCst))).await
    }

    /// Returns when all that is in a source now was processed: the offset in the log behind the pipeline up to which rows came of it.
    pub async fn drain(&self, source: SourceId) -> Result<u64> {
        let Some(input) = self.inputs.iter().find(|input| input.id == source) else { return Ok(self.output.end()) };
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
                // Right after RESUME its thread has not said so yet.
                "paused" if self.shared.is_paused() => {
                    Err(Error::Unavailable(format!("pipeline '{}' is paused; resume it first", self.shared.name)))
                }
                "stopped" | "failing" => Err(Error::Unavailable(format!(
                    "pipeline '{}' is {}: {}",
                    self.shared.name,
                    status.state,
                    status.error.clone().unwrap_or_default()
                ))),
                "held" => match self.deliveries.trouble() {
                    Some(trouble) => {
                        Err(Error::Unavailable(format!("pipeline '{}' waits: {trouble}", self.shared.name)))
                    }
                    None => Ok(false),
                },
                _ => Ok(false),
            }
        })
        .await?;
        Ok(self.output.end())
    }

    /// Returns when everything that it gave before the call is visible in a table that reads from it as `source`.
    pub async fn visible_in(&self, table: &TableIngest, source: SourceId, end: u64) -> Result<()> {
        table.wait_visible(StreamId { source, partition: 0 }, end).await
    }

    /// Takes its dead letters again, as the pipeline is now. The number that became rows, or that its conditions leave out; they are durable.
    pub async fn replay(&self) -> Result<u64> {
        let _alone = self.replaying.lock().await;
        self.shared.replay.want();
        self.shared.ring();
        let done = Mutex::new(None);
        let waited = self.wait(|| {
            if let Some(found) = self.shared.replay.done() {
                *done.lock() = Some(found);
                return Ok(true);
            }
            let status = self.shared.status.lock();
            let stands = matches!(status.state, "paused" | "failing" | "held" | "stopped");
            if stands && self.shared.replay.withdraw() {
                let why = status.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                let name = &self.shared.name;
                return Err(Error::Unavailable(format!(
                    "pipeline '{name}' is {}, and takes nothing now{why}",
                    status.state
                )));
            }
            Ok(false)
        });
        waited.await?;
        done.into_inner().unwrap_or(Ok(0))
    }

    /// Sends dead letters of a sink again, as it is now. The number that became records; these are in the topic.
    pub async fn send_again(&self, sink: TableId) -> Result<u64> {
        let _alone = self.replaying.lock().await;
        let Some(board) = self.deliveries.boards.iter().find(|board| board.id == sink) else { return Ok(0) };
        board.ask_again();
        self.shared.ring();
        let done = Mutex::new(None);
        let waited = self.wait(|| {
            if let Some(found) = board.answer() {
                *done.lock() = Some(found);
                return Ok(true);
            }
            Ok(false)
        });
        waited.await?;
        done.into_inner().unwrap_or(Ok(0))
    }

    /// Dead letters of the pipeline: those of checkpoints from their files, then those in memory.
    pub fn dead_letters(&self) -> Result<impl Iterator<Item = Result<DeadLetter>> + Send + use<>> {
        let (files, waiting) = loop {
            let (settled, waiting) = self.shared.letters.behind();
            let mut files = self.checkpoints.dead_letters(self.shared.id)?;
            if self.shared.letters.behind().0 == settled {
                // What a later checkpoint has is among those that wait.
                files.retain(|record| dead_letters::number_of(&record.file).is_none_or(|number| number <= settled));
                break (files, waiting);
            }
        };
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
