//! The log behind a pipeline: its rows on their way into tables, which read it as a source of their own, and into sinks.
//!
//! Rows are there for readers at once, and on disk at the next checkpoint: a table commits no more of them than a checkpoint covers. So a crash takes back what is past
//! the last checkpoint in the log and in the tables alike, and it is derived again. What goes outside is seen there no earlier, either.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use tidemill_storage::ids::{SourceId, TableId};

use crate::{
    Error, Result,
    source::{Connector, Reader, Start, Watermarks, log::Log},
};

/// How long a commit waits for a checkpoint before it is tried again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The log and how far it is safe.
#[derive(Debug)]
pub struct Output {
    name: String,
    pub(crate) log: Arc<Log>,
    inner: Arc<dyn Connector>,
    /// The end of the last checkpoint.
    durable: Mutex<u64>,
    /// `durable` grew.
    settled: Condvar,
    /// Somebody waits for a checkpoint.
    wanted: AtomicBool,
    /// Rings when somebody does.
    bell: (Sender<()>, Receiver<()>),
    /// How far each table has committed, and what went into each sink.
    committed: Mutex<BTreeMap<TableId, Option<u64>>>,
    /// Rows that were given, for those who wait.
    pub(crate) end: AtomicU64,
}

impl Output {
    pub(crate) fn new(name: &str, log: Arc<Log>, source: SourceId, durable: u64, targets: &[TableId]) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            inner: log.connector(source),
            end: AtomicU64::new(log.end()),
            log,
            durable: Mutex::new(durable),
            settled: Condvar::new(),
            wanted: AtomicBool::new(false),
            bell: bounded(1),
            committed: Mutex::new(targets.iter().map(|table| (*table, None)).collect()),
        })
    }

    /// The log as a source of tables.
    pub fn connector(self: &Arc<Self>) -> Arc<dyn Connector> {
        Arc::new(OutputConnector(Arc::clone(self)))
    }

    /// Everything before it is in a checkpoint.
    pub(crate) fn set_durable(&self, end: u64) {
        *self.durable.lock() = end;
        self.settled.notify_all();
    }

    /// Rings when a checkpoint is wanted.
    pub(crate) fn bell(&self) -> &Receiver<()> {
        &self.bell.1
    }

    pub(crate) fn want_checkpoint(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        // It rings already when there is no room.
        let _ = self.bell.0.try_send(());
    }

    /// Waits until everything before `to` is in a checkpoint, which is asked for; false when it is not after `patience`.
    pub(crate) fn await_durable(&self, to: u64, patience: Duration) -> bool {
        let mut durable = self.durable.lock();
        if *durable >= to {
            return true;
        }
        self.want_checkpoint();
        !self.settled.wait_while_for(&mut durable, |durable| *durable < to, patience).timed_out()
    }

    /// What is before `offset` went to a table or into a sink for good.
    pub(crate) fn committed(&self, target: TableId, offset: u64) {
        let least = {
            let mut committed = self.committed.lock();
            committed.insert(target, Some(offset));
            committed.values().copied().min().flatten()
        };
        if let Some(least) = least {
            self.log.trim(least);
        }
    }

    pub(crate) fn is_checkpoint_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// A checkpoint of all rows so far is begun.
    pub(crate) fn checkpoint_begins(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// The offset after the last row that was given.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct OutputConnector(Arc<Output>);

impl Connector for OutputConnector {
    fn offsets_are_rows(&self) -> bool {
        true
    }

    fn partitions(&self) -> Result<Vec<u32>> {
        self.0.inner.partitions()
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        self.0.inner.resolve(start, partitions)
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        self.0.inner.watermarks(partition)
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        self.0.inner.open(positions)
    }

    fn committed(&self, table: TableId, positions: &BTreeMap<u32, u64>) {
        if let Some(offset) = positions.get(&0) {
            self.0.committed(table, *offset);
        }
    }

    fn forget(&self, table: TableId) {
        self.0.committed.lock().remove(&table);
    }

    fn settle(&self, _partition: u32, to: u64) -> Result<()> {
        match self.0.await_durable(to, SETTLE_TIMEOUT) {
            true => Ok(()),
            false => Err(Error::Unavailable(format!(
                "pipeline '{}' has made no checkpoint of its rows up to {to}; rt.pipelines says why",
                self.0.name
            ))),
        }
    }
}
