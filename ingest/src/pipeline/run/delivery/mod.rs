//! One thread for each sink of a pipeline: rows of the log behind it into the sink.
//!
//! ```text
//! take over ─► place ─► read the log from there ─► records ─► (a checkpoint covers them) ─► commit {records, place} ─► …
//! ```
//!
//! What always holds: nothing is committed that no checkpoint covers, since a crash would take it back here and not there; a pipeline takes no row before all of its sinks were taken over, so
//! that two servers with copies of one directory cannot both go on; the place is signed with the time when the pipeline was opened, and one that is signed by somebody who is not in the lineage of our checkpoints is of a
//! history that is not ours: then nothing is delivered any more. Without transactions the place is kept in checkpoints alone, and records come again after a crash.

mod again;
mod letters;
mod thread;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use parking_lot::Mutex;
use tidemill_storage::ids::TableId;

use self::again::Asked;
pub(super) use self::thread::{Behind, Delivering};
use super::Output;
use crate::{
    pipeline::Transform,
    sink::{Connector, Delivery, Shape},
};

/// A sink as a pipeline writes into it.
#[derive(Clone)]
pub struct SinkSpec {
    pub id: TableId,
    pub name: String,
    /// Of this pipeline and sink for ever, and of nobody else: who delivers under it takes over from whoever did before.
    pub identity: String,
    pub connector: Arc<dyn Connector>,
    pub delivery: Delivery,
    pub commit_interval_us: i64,
    /// Bytes of the log that may wait.
    pub backlog: u64,
    /// From the pipeline's output to the columns of the sink.
    pub transform: Arc<Transform>,
    pub shape: Arc<Shape>,
}

/// What is known of the deliveries into one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// "starting", "delivering", "failing", "refused" or "stopped".
    pub state: &'static str,
    pub error: Option<String>,
    /// The offset in the log behind the pipeline before which everything was delivered.
    pub position: Option<u64>,
    /// Since the server started.
    pub rows: u64,
    pub dead_letters: u64,
    pub commits: u64,
    pub committed_at_us: Option<i64>,
    pub restarts: u64,
    /// When it is tried again, of one that failed (microseconds since 1970).
    pub retry_at_us: Option<i64>,
}

/// What the runner and the thread of a sink tell each other.
pub(super) struct Board {
    pub(super) id: TableId,
    /// Name and backlog.
    told: Mutex<(String, u64)>,
    pub(super) status: Mutex<DeliveryStatus>,
    /// It was taken over, and nobody else has since.
    is_ours: AtomicBool,
    /// The sink as it was altered, until its thread goes on with that.
    next: Mutex<Option<SinkSpec>>,
    /// Whether somebody wants its dead letters sent again.
    again: Mutex<Asked>,
}

impl Board {
    pub(super) fn name(&self) -> String {
        self.told.lock().0.clone()
    }

    /// Has the thread go on with another spec of the same sink, after what it has put is committed.
    pub(super) fn alter(&self, spec: SinkSpec) {
        *self.told.lock() = (spec.name.clone(), spec.backlog);
        *self.next.lock() = Some(spec);
    }

    /// Whether the thread does not yet go on as the sink was altered.
    pub(super) fn is_altered(&self) -> bool {
        self.next.lock().is_some()
    }
}

/// All sinks of a pipeline.
pub(super) struct Deliveries {
    pub(super) boards: Vec<Arc<Board>>,
    signals: Arc<Signals>,
}

#[derive(Default)]
struct Signals {
    /// A checkpoint has our mark.
    may_begin: AtomicBool,
    /// When the server began to end (monotonic); 0 before.
    finishing_us: AtomicI64,
}

impl Deliveries {
    pub(super) fn new(sinks: &[SinkSpec]) -> Self {
        let board = |sink: &SinkSpec| {
            Arc::new(Board {
                id: sink.id,
                told: Mutex::new((sink.name.clone(), sink.backlog)),
                status: Mutex::new(DeliveryStatus { state: "starting", ..DeliveryStatus::default() }),
                is_ours: AtomicBool::new(false),
                next: Mutex::default(),
                again: Mutex::default(),
            })
        };
        Self { boards: sinks.iter().map(board).collect(), signals: Arc::default() }
    }

    /// A checkpoint has our mark: sinks may be taken over.
    pub(super) fn begin(&self) {
        self.signals.may_begin.store(true, Ordering::SeqCst);
    }

    /// What can be delivered soon is, and then the threads end.
    pub(super) fn finish(&self, now_us: i64) {
        self.signals.finishing_us.store(now_us.max(1), Ordering::SeqCst);
    }

    /// Whether rows may be made: every sink is ours.
    pub(super) fn are_ours(&self) -> bool {
        self.boards.iter().all(|board| board.is_ours.load(Ordering::SeqCst))
    }

    /// Why the pipeline waits for a sink, when it does.
    pub(super) fn trouble(&self) -> Option<String> {
        self.boards.iter().find_map(|board| {
            let status = board.status.lock();
            let error = status.error.clone()?;
            Some(format!("sink '{}': {error}", board.name()))
        })
    }

    /// A sink that takes so little that too much waits for it, and how many rows wait.
    pub(super) fn full(&self, output: &Output) -> Option<String> {
        self.boards.iter().find_map(|board| {
            let position = board.status.lock().position?;
            let bytes = output.log.bytes_after(position);
            let (name, limit) = board.told.lock().clone();
            (bytes > limit).then(|| {
                let rows = output.end().saturating_sub(position);
                format!("{rows} rows ({bytes} bytes) wait for sink '{name}', whose backlog is {limit}")
            })
        })
    }

    /// How far each sink is, as far as that is known.
    pub(super) fn delivered(&self) -> Vec<(TableId, u64)> {
        let known = self.boards.iter().filter_map(|board| Some((board.id, board.status.lock().position?)));
        known.collect()
    }
}
