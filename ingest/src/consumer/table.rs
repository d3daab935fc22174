//! What the threads of one table share.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_storage::{
    ids::{SourceId, TableId},
    table::Table,
};

use super::{
    committing::panic_text,
    discovery::discover,
    feed::{FeedState, StreamState},
    group::{Consumer, Group},
    partition::{Feeds, PartitionIngest},
    status::StreamRun,
};
use crate::{
    Result,
    events::{Event, Severity},
    route,
    runtime::{IngestRuntime, spawn},
};

/// No retention.
const FOR_EVER: i64 = i64::MAX;

#[derive(Debug)]
pub(crate) struct TableShared {
    pub(crate) runtime: Arc<IngestRuntime>,
    pub(crate) id: TableId,
    pub(crate) name: String,
    pub(crate) table: Arc<Table>,
    partitions: ArcSwap<Vec<Arc<PartitionIngest>>>,
    pub(crate) feeds: Feeds,
    /// Microseconds that rows are kept, by the time column.
    keep_us: AtomicI64,
    /// Retention was looked at since the table was opened.
    retained: AtomicBool,
    /// The table was dropped, and its files with it.
    pub(super) removed: AtomicBool,
    pub(super) threads: Mutex<Vec<(SourceId, JoinHandle<()>)>>,
    /// Held by the statement that changes rows, and while segments are replaced by others.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Held for reading while rows come to the table, those of dead letters among them, and for writing by the statement that wants none to come: not
    /// to give rows newer versions beneath it, or because all of them go.
    pub(super) still: Arc<tokio::sync::RwLock<()>>,
    /// Held while segments are written again; true when the table is closed and none may be.
    pub(crate) compacting: Mutex<bool>,
    /// Held while an index is built; true when the table is closed and none may be begun.
    pub(crate) indexing: Mutex<bool>,
}

impl TableShared {
    pub(super) fn new(
        runtime: Arc<IngestRuntime>,
        name: String,
        table: Arc<Table>,
        partitions: Vec<Arc<PartitionIngest>>,
        feeds: Feeds,
        keep_us: Option<i64>,
    ) -> Self {
        Self {
            runtime,
            id: table.id(),
            name,
            table,
            partitions: ArcSwap::from_pointee(partitions),
            feeds,
            keep_us: AtomicI64::new(keep_us.unwrap_or(FOR_EVER)),
            retained: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            threads: Mutex::default(),
            changing: Arc::default(),
            still: Arc::default(),
            compacting: Mutex::new(false),
            indexing: Mutex::new(false),
        }
    }

    /// The partitions that it has now. They become others only while [`Self::still`] is held.
    /// Whether the table was dropped, and its files with it.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(crate) fn partitions(&self) -> Arc<Vec<Arc<PartitionIngest>>> {
        self.partitions.load_full()
    }

    /// The table has these from now on.
    pub(super) fn set_partitions(&self, partitions: Vec<Arc<PartitionIngest>>) {
        self.partitions.store(Arc::new(partitions));
    }

    /// The table partition that takes the rows of a source partition.
    pub(crate) fn partition_of(&self, source_partition: u32) -> Arc<PartitionIngest> {
        let partitions = self.partitions();
        Arc::clone(&partitions[route::table_partition(source_partition, partitions.len() as u32).0 as usize])
    }

    /// The table partitions that take rows of a source partition: of a table with a key all of them, and each of them all its offsets.
    pub(crate) fn targets(&self, source_partition: u32) -> Arc<Vec<Arc<PartitionIngest>>> {
        match self.table.key() {
            Some(_) => self.partitions(),
            None => Arc::new(vec![self.partition_of(source_partition)]),
        }
    }

    pub(super) fn set_retention(&self, keep_us: Option<i64>) {
        self.keep_us.store(keep_us.unwrap_or(FOR_EVER), Ordering::Relaxed);
        // To be looked at now.
        self.retained.store(false, Ordering::Relaxed);
    }

    /// What has to be done from time to time.
    pub(crate) fn tend(&self, retain: bool) {
        for partition in self.partitions().iter() {
            partition.seal_aged();
        }
        let keep_us = self.keep_us.load(Ordering::Relaxed);
        // Segments do not go while a statement or a compaction is at them: another time will do.
        if (retain || !self.retained.load(Ordering::Relaxed))
            && keep_us != FOR_EVER
            && self.may_retain()
            && let Ok(_turn) = self.changing.try_lock()
        {
            self.retained.store(true, Ordering::Relaxed);
            for partition in self.partitions().iter() {
                if let Err(error) = partition.retain(keep_us) {
                    let message = format!("retention of table '{}' failed: {error}; it is tried again", self.name);
                    self.event(Severity::Warning, "retention_failed", message);
                }
            }
        }
    }

    /// In a table that merges rows a segment must not go before the rows are here again that a crash took back and that were merged with its own: at
    /// first all is read that the sources have, as far as they answer.
    fn may_retain(&self) -> bool {
        let is_here = |stream: &Arc<StreamState>| stream.run() != StreamRun::Running || stream.fresh_us().is_some();
        let is_read = |feed: &Arc<FeedState>| {
            feed.is_paused()
                || feed.error.lock().is_some()
                || feed.connected.load(Ordering::SeqCst) && feed.streams.read().values().all(is_here)
        };
        self.retained.load(Ordering::Relaxed)
            || !self.table.key().is_some_and(|key| key.merges)
            || self.feeds.read().values().all(is_read)
    }

    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: String) {
        self.runtime.events.record(Event {
            at_us: self.runtime.clock.now_us(),
            severity,
            kind,
            table: Some(self.id),
            partition: None,
            stream: None,
            message,
        });
    }

    pub(super) fn spawn_discovery(self: &Arc<Self>, feed: &Arc<FeedState>) -> Result<()> {
        let (table, state) = (Arc::clone(self), Arc::clone(feed));
        let body = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| discover(&table, &state))) {
                let text = panic_text(&*panic);
                *state.error.lock() = Some(format!("looking for partitions panicked: {text}"));
                let message = format!("looking for partitions of source '{}' panicked: {text}", state.feed.name);
                table.event(Severity::Page, "discovery_panic", message);
            }
        };
        let thread = spawn(format!("discover-{}", feed.feed.name), body)?;
        self.threads.lock().push((feed.feed.source, thread));
        Ok(())
    }

    pub(super) fn spawn_consumer(
        self: &Arc<Self>,
        feed: &Arc<FeedState>,
        group: &Arc<Group>,
        index: usize,
    ) -> Result<()> {
        let mut consumer = Consumer::new(Arc::clone(self), Arc::clone(feed), Arc::clone(group));
        let body = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| consumer.run())) {
                consumer.abandon(&panic_text(&*panic));
            }
        };
        let thread = spawn(format!("consume-{}-{index}", feed.feed.name), body)?;
        self.threads.lock().push((feed.feed.source, thread));
        Ok(())
    }
}
