//! The server-wide side of ingestion: the threads, and what all tables share. The only file of the package that spawns.
//!
//! | thread | how many | does |
//! |---|---|---|
//! | `consume-…` | one per partition group of a feed | poll, decode, transform, append |
//! | `discover-…` | one per feed | finds partitions, asks for watermarks |
//! | `seal-n` | [`RuntimeOptions::seal_threads`] | writes and commits ended segments |
//! | `index` | one | builds indexes of segments that are there |
//! | `compact` | one | writes segments again, without rows that nobody sees |
//! | `key-maps` | one | lets old keys go, writes key maps down |
//! | `deep-store` | one, where there is one | copies segments to it, and damaged ones back |
//! | `ingest-clock` | one | ends segments by age, retention |
//! | `ahead` | one while a pipeline's state is read | reads the next part of it |

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use tidemill_storage::{
    clock::Clock,
    ids::{PartitionId, TableId},
    upsert::KeyMemory,
};

use crate::{
    Error, Result,
    backpressure::MemoryBudget,
    commit::{MetadataLog, SegmentRecord},
    compaction::Compactor,
    consumer::table::TableShared,
    deep_store::{DeepStore, segments::SegmentKeeper},
    events::EventSink,
    indexing::Indexer,
    key_maps::KeyMapKeeper,
    seal::Sealer,
};

/// What ingestion needs of the server.
#[derive(Clone)]
pub struct RuntimeOptions {
    pub log: Arc<dyn MetadataLog>,
    pub clock: Arc<dyn Clock>,
    pub events: Arc<dyn EventSink>,
    /// Bytes that consuming and sealing segments of all tables may hold; see [`crate::backpressure`].
    pub memory_bytes: u64,
    /// What the key maps of all tables share; an event says when they take more than its bound.
    pub key_memory: Arc<KeyMemory>,
    /// Segments that are written at the same time; 1 or 2 are enough.
    pub seal_threads: usize,
    /// Consuming threads per feed, at most: the cores.
    pub consume_threads: usize,
    /// Where segments are copied to.
    pub segment_store: Option<DeepStore>,
    /// Share of one processor that building indexes of existing segments may take, above 0 and up to 1.
    pub index_share: f64,
    /// The same of writing segments again.
    pub compact_share: f64,
}

/// What all tables share. [`IngestRuntime::stop`] it last.
pub struct IngestRuntime {
    pub(crate) log: Arc<dyn MetadataLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) budget: MemoryBudget,
    pub(crate) sealer: Sealer,
    pub(crate) indexer: Indexer,
    compactor: Compactor,
    key_maps: KeyMapKeeper,
    segment_keeper: Option<SegmentKeeper>,
    pub(crate) consume_threads: usize,
    tables: Mutex<Vec<Weak<TableShared>>>,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How often ages are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often retention is looked at.
const RETENTION_EVERY_US: i64 = 60_000_000;

impl IngestRuntime {
    /// Starts the shared threads.
    pub fn start(options: RuntimeOptions) -> Result<Arc<Self>> {
        let runtime = Arc::new(Self {
            log: options.log,
            clock: options.clock,
            events: options.events,
            budget: MemoryBudget::new(options.memory_bytes),
            sealer: Sealer::default(),
            indexer: Indexer::new(options.index_share),
            compactor: Compactor::new(options.compact_share),
            key_maps: KeyMapKeeper::new(options.key_memory),
            segment_keeper: options.segment_store.map(SegmentKeeper::new),
            consume_threads: options.consume_threads.max(1),
            tables: Mutex::default(),
            stopping: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        for index in 0..options.seal_threads.max(1) {
            let this = Arc::clone(&runtime);
            let thread = spawn(format!("seal-{index}"), move || this.sealer.run(&*this.clock))?;
            runtime.threads.lock().push(thread);
        }
        let this = Arc::clone(&runtime);
        let thread = spawn("index".into(), move || this.indexer.run(&*this.clock, || this.tables()))?;
        runtime.threads.lock().push(thread);
        let this = Arc::clone(&runtime);
        let thread = spawn("compact".into(), move || this.compactor.run(&*this.clock, || this.tables()))?;
        runtime.threads.lock().push(thread);
        let this = Arc::clone(&runtime);
        let thread =
            spawn("key-maps".into(), move || this.key_maps.run(&*this.clock, &*this.events, || this.tables()))?;
        runtime.threads.lock().push(thread);
        if runtime.segment_keeper.is_some() {
            let this = Arc::clone(&runtime);
            let run = move || this.segment_keeper.iter().for_each(|keeper| keeper.run(|| this.tables()));
            let thread = spawn("deep-store".into(), run)?;
            runtime.threads.lock().push(thread);
        }
        let this = Arc::clone(&runtime);
        let thread = spawn("ingest-clock".into(), move || this.keep_time())?;
        runtime.threads.lock().push(thread);
        Ok(runtime)
    }

    /// What the key maps of all tables share.
    pub fn key_memory(&self) -> &Arc<KeyMemory> {
        self.key_maps.memory()
    }

    /// Bytes held by consuming and sealing segments, and the bound.
    pub fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Stops the shared threads; returns when the seals at hand are done. Stop the tables first.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.sealer.stop();
        self.indexer.stop();
        self.compactor.stop();
        self.key_maps.stop();
        if let Some(keeper) = &self.segment_keeper {
            keeper.stop();
        }
        for thread in self.threads.lock().drain(..) {
            join(thread);
        }
    }

    /// The copies of a partition's segments, where there are some.
    pub(crate) fn copies_of(&self, table: TableId, partition: PartitionId) -> Option<DeepStore> {
        self.segment_keeper.as_ref().map(|keeper| keeper.partition(table, partition))
    }

    /// Makes copies the same as segments, so that what was erased of those is in no copy; the tables where that failed. Blocks.
    pub fn renew_copies(&self) -> Vec<(TableId, Error)> {
        let Some(keeper) = &self.segment_keeper else { return Vec::new() };
        let tables = self.tables();
        tables.iter().filter_map(|table| keeper.keep(table).err().map(|error| (table.id, error))).collect()
    }

    /// Whether there is a copy of a segment in the deep store.
    pub fn has_copy(&self, table: TableId, partition: PartitionId, segment: &SegmentRecord) -> bool {
        self.segment_keeper.as_ref().is_some_and(|keeper| keeper.has(table, partition, segment))
    }

    pub(crate) fn register(&self, table: Weak<TableShared>) {
        let mut tables = self.tables.lock();
        tables.retain(|known| known.strong_count() > 0);
        tables.push(table);
    }

    fn tables(&self) -> Vec<Arc<TableShared>> {
        self.tables.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn keep_time(&self) {
        let mut retention_due_us = self.clock.monotonic_us();
        while !self.stopping.load(Ordering::SeqCst) {
            let tables = self.tables();
            let now_us = self.clock.monotonic_us();
            let retain = now_us >= retention_due_us;
            if retain {
                retention_due_us = now_us + RETENTION_EVERY_US;
            }
            for table in tables {
                table.tend(retain);
            }
            thread::sleep(TICK);
        }
    }
}

impl fmt::Debug for IngestRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngestRuntime").field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Documents and conditions on them are walked by recursion, with frames of kilobytes in debug builds. It is address space: memory is taken as deep as a
/// thread ever went.
const STACK_BYTES: usize = 32 << 20;

/// Begins a named thread.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.clone())
        .stack_size(STACK_BYTES)
        .spawn(body)
        .map_err(|error| Error::Unavailable(format!("thread {name} cannot be started: {error}")))
}

/// Does something with each of the items, up to `threads` of them at a time, and returns when all are done; what came of them, in their order.
pub(crate) fn side_by_side<I: Sync, R: Send>(items: &[I], threads: usize, each: impl Fn(&I) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    let work = || {
        while let Some((at, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
        {
            let result = each(item);
            done.lock().push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            let thread = thread::Builder::new().name("open".into()).stack_size(STACK_BYTES);
            // Without it the others do its share.
            drop(thread.spawn_scoped(scope, work));
        }
        work();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Has a thread make things a little ahead of who takes them. `make` is told whether anybody still wants what it gives.
pub(crate) fn ahead<T: Send, R>(
    make: impl FnOnce(&mut dyn FnMut(T) -> bool) + Send,
    take: impl FnOnce(&mut dyn Iterator<Item = T>) -> Result<R>,
) -> Result<R> {
    let (made, taken) = bounded(1);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("ahead".into()).stack_size(STACK_BYTES);
        let started = thread.spawn_scoped(scope, move || make(&mut |thing| made.send(thing).is_ok()));
        started.map_err(|error| Error::Unavailable(format!("a thread could not be started: {error}")))?;
        // The thread is waited for after that, and knows by then that nobody wants more.
        take(&mut taken.into_iter())
    })
}

/// Waits for a thread. A panic in it was reported where it happened.
pub(crate) fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    if thread.join().is_err() {
        tracing::error!(name, "a thread of ingestion panicked");
    }
}

/// Runs blocking work beside the async runtime.
pub(crate) async fn blocking<T: Send + 'static>(body: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(body).await {
        Ok(result) => result,
        Err(error) => Err(Error::Unavailable(format!("a background task failed: {error}"))),
    }
}
