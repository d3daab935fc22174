//! The machine that moves rows from sources into a table's partitions, each exactly once.
//!
//! ```text
//! feed ── discovery ── partitions 0..n, where each begins
//!   └─ group (thread) ── poll ─ decode ─ checks ─ transform ─┐
//!   └─ group (thread) ── …                                   ├─► PartitionIngest ─ append ─ rotate ─► sealing threads ─► commit
//! ```
//!
//! What always holds: a message is visible at most once, and after a crash exactly once, because offsets become durable only with the rows that
//! came from them; a source partition feeds one table partition, or all of a table with a key; whatever stops a stream says so in its status and in an event.

pub(crate) mod batch;
mod changing;
pub(crate) mod committing;
pub(crate) mod discovery;
mod erasing;
pub(crate) mod feed;
mod freshness;
mod group;
mod healing;
mod key_map;
mod leaving;
pub(crate) mod pace;
pub(crate) mod partition;
mod partitioning;
mod replay;
mod reset;
mod rewriting;
mod spread;
mod status;
pub(crate) mod table;
mod truncating;
mod waiting;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidemill_storage::{
    ids::{ColumnId, IndexId, PartitionId, SegmentId, SourceId, StreamId},
    index::IndexSpec,
    schema::TableSchema,
    table::{Partition, PartitionKeys, Table},
};

pub(crate) use self::replay::messages_of;
pub use self::{
    changing::RowChange,
    erasing::Erased,
    feed::{DecoderFactory, Feed, Latency, OnGap},
    freshness::Stale,
    key_map::KeyMapStatus,
    partitioning::{NotRecorded, RecordPartitions},
    reset::reset,
    status::PartitionStatus,
    truncating::truncate,
};
use self::{
    feed::{FeedState, StreamState, VersionedTransform},
    partition::{Feeds, PartitionIngest},
    status::StreamRun,
    table::TableShared,
};
use crate::{
    Error, Result,
    consistency::Line,
    dead_letters::{DeadLetter, DeadLetterFile, DeadLetterReader},
    events::Severity,
    pipeline::Transform,
    quarantine::Alarm,
    recovery,
    runtime::{IngestRuntime, blocking, join, side_by_side},
    seal::SealPolicy,
};

/// What a table's ingestion is made of.
#[derive(Debug)]
pub struct TableSpec {
    /// Fresh: without segments, and with the indexes that they are to have. Recovery fills it.
    pub table: Arc<Table>,
    /// For messages.
    pub name: String,
    /// The table's own directory; partitions are directories in it.
    pub directory: PathBuf,
    pub policy: SealPolicy,
    /// How long rows are kept by the time column, microseconds.
    pub retention_us: Option<i64>,
    pub feeds: Vec<Feed>,
    /// Sources that are not read until [`TableIngest::resume`], not even for the first poll.
    pub paused: Vec<SourceId>,
}

/// One table's ingestion while it runs. Dropping it leaves the threads running: call [`Self::stop`].
#[derive(Debug)]
pub struct TableIngest {
    shared: Arc<TableShared>,
    directory: PathBuf,
}

impl TableIngest {
    /// Puts the committed segments into the table, deletes files that nothing names, and begins to consume in the background. A source
    /// that does not answer does not fail it; its error shows in [`Self::status`]. Blocks.
    pub fn open(runtime: &Arc<IngestRuntime>, spec: TableSpec) -> Result<Arc<Self>> {
        let feeds: Feeds = Feeds::default();
        let schema = spec.table.schema();
        partitioning::remove_others(&spec.directory, spec.table.partitions().len() as u32);
        // Keys that are not in the file of a key map are read when a partition is opened, which may take as long as all else together.
        let open = |partition: &Arc<Partition>| -> Result<Arc<PartitionIngest>> {
            let directory = partition_directory(&spec.directory, partition.id());
            let alarm = Alarm::watcher(runtime, spec.table.id(), &spec.name, partition.id(), &directory);
            // The indexes were set before: those that are there are taken, the others built in the background.
            let recovered = recovery::recover(
                &*runtime.log,
                &spec.table,
                partition.id(),
                &directory,
                &alarm,
                runtime.copies_of(spec.table.id(), partition.id()).as_ref(),
            )?;
            for segment in recovered.segments {
                partition.put(segment);
            }
            let ingest = PartitionIngest::new(
                spec.table.id(),
                spec.name.clone(),
                directory,
                Arc::clone(runtime),
                Arc::clone(&feeds),
                Arc::clone(partition),
                Arc::clone(&schema),
                spec.policy,
                recovered.state,
            )?;
            for (segment, error) in recovered.fetched {
                let message =
                    format!("segment {segment} of table '{}' was fetched from the deep store: {error}", spec.name);
                ingest.event(Severity::Warning, "segment_fetched", None, message);
            }
            for (segment, error) in recovered.quarantined {
                let message = format!("segment {segment} of table '{}' is quarantined: {error}", spec.name);
                ingest.event(Severity::Page, "quarantined", None, message);
            }
            Ok(ingest)
        };
        let opened = side_by_side(&spec.table.partitions(), runtime.consume_threads, open);
        let partitions = opened.into_iter().collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(TableShared::new(
            Arc::clone(runtime),
            spec.name,
            spec.table,
            partitions,
            feeds,
            spec.retention_us,
        ));
        runtime.register(Arc::downgrade(&shared));
        runtime.indexer.request();
        let ingest = Arc::new(Self { shared, directory: spec.directory });
        for feed in spec.feeds {
            let is_paused = spec.paused.contains(&feed.source);
            ingest.begin_feed(feed, is_paused)?;
        }
        Ok(ingest)
    }

    /// Begins to read another source.
    pub fn add_feed(&self, feed: Feed) -> Result<()> {
        self.begin_feed(feed, false)
    }

    fn begin_feed(&self, feed: Feed, is_paused: bool) -> Result<()> {
        let generation = self.shared.partitions().first().map_or(0, |partition| partition.generation());
        let source = feed.source;
        let state = Arc::new(FeedState::new(feed, generation));
        if is_paused {
            state.set_paused(true);
        }
        {
            let mut feeds = self.shared.feeds.write();
            if feeds.contains_key(&source) {
                return Err(Error::Definition {
                    message: format!("table '{}' already reads from source {source}", self.shared.name),
                    hint: None,
                });
            }
            feeds.insert(source, Arc::clone(&state));
        }
        self.shared.spawn_discovery(&state)
    }

    /// Stops reading a source. Rows that are visible stay; its offsets stay in the metadata log. Blocks for a poll's time.
    pub fn remove_feed(&self, source: SourceId) -> Result<()> {
        let feed = self.feed(source)?;
        feed.stop();
        self.join(Some(source));
        self.shared.feeds.write().remove(&source);
        feed.feed.connector.forget(self.shared.id);
        Ok(())
    }

    /// [`Self::stop`] after what makes the next start fast was written. Blocks.
    pub fn end(&self) {
        self.stop_feeds();
        self.shared.keep_key_maps_at_end();
        self.stop();
    }

    /// Stops all threads of the table. Seals nothing and loses nothing: what is not committed is read again. Blocks for a poll's time,
    /// or until the seal at hand is done.
    pub fn stop(&self) {
        self.stop_feeds();
        *self.shared.indexing.lock() = true;
        *self.shared.compacting.lock() = true;
        for partition in self.shared.partitions().iter() {
            partition.close();
        }
    }

    fn stop_feeds(&self) {
        let feeds: Vec<Arc<FeedState>> = self.shared.feeds.read().values().cloned().collect();
        for feed in &feeds {
            feed.stop();
        }
        self.join(None);
    }

    /// Deletes the table's files. After [`Self::stop`], and after the metadata log forgot the table.
    pub fn remove_files(&self) -> Result<()> {
        self.shared.removed.store(true, Ordering::SeqCst);
        for feed in self.shared.feeds.read().values() {
            feed.feed.connector.forget(self.shared.id);
        }
        match fs::remove_dir_all(&self.directory) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::Storage(tidemill_storage::Error::io("deleting", &self.directory, &error))),
        }
    }

    /// Stops polling a source until [`Self::resume`]. What was read stays visible.
    pub fn pause(&self, source: SourceId) -> Result<()> {
        self.feed(source)?.set_paused(true);
        Ok(())
    }

    /// What happens from now on at gaps of a source. Partitions that stopped go on with [`Self::resume`].
    pub fn set_on_gap(&self, source: SourceId, on_gap: OnGap) -> Result<()> {
        self.feed(source)?.set_on_gap(on_gap);
        Ok(())
    }

    /// Goes on with a source, and with those of its partitions that stopped on an error.
    pub fn resume(&self, source: SourceId) -> Result<()> {
        let feed = self.feed(source)?;
        for stream in feed.streams.read().values() {
            if matches!(stream.run(), StreamRun::Stopped { .. }) {
                // It may have stopped because the source is another one.
                feed.doubt();
                stream.set_run(StreamRun::Running);
            }
        }
        for group in feed.groups.lock().iter() {
            group.refresh();
        }
        feed.set_paused(false);
        Ok(())
    }

    /// The indexes that the table has from now on. Those that are gone leave the segments and the disk; new ones are built in the background,
    /// and for new segments when they are sealed. Blocks for the deletion of files.
    pub fn set_indexes(&self, indexes: Vec<IndexSpec>) {
        let table = &self.shared.table;
        let gone: Vec<_> = table
            .indexes()
            .iter()
            .map(|known| known.id)
            .filter(|id| !indexes.iter().any(|spec| spec.id == *id))
            .collect();
        table.set_indexes(indexes);
        for id in gone {
            for segment in table.partitions().iter().flat_map(|partition| {
                let view = partition.view();
                view.segments().cloned().collect::<Vec<_>>()
            }) {
                if let Some(Err(error)) = segment.as_committed().map(|segment| segment.drop_index(id)) {
                    tracing::warn!(%error, "the file of a dropped index stays until the next start");
                }
            }
            self.shared.runtime.indexer.forget(self.shared.id, id);
        }
        self.shared.runtime.indexer.request();
    }

    /// Why an index could not be built for some segment yet.
    pub fn index_error(&self, index: IndexId) -> Option<String> {
        self.shared.runtime.indexer.error_of(self.shared.id, index)
    }

    /// Of all partitions; none without a primary key.
    pub fn keys(&self) -> PartitionKeys {
        let partitions = self.shared.partitions();
        let of_partitions = partitions.iter().map(|partition| partition.keys());
        of_partitions.fold(PartitionKeys::default(), |all, more| PartitionKeys {
            keys: all.keys + more.keys,
            bytes: all.bytes + more.bytes,
            bytes_in_files: all.bytes_in_files + more.bytes_in_files,
        })
    }

    /// Rows that came too late since the table was opened, to win or by their age, where the table tells rows by that.
    pub fn late_rows(&self) -> Option<u64> {
        self.shared.table.key().filter(|key| key.late.is_some() || key.ages.is_some())?;
        Some(self.shared.partitions().iter().map(|partition| partition.late_rows()).sum())
    }

    /// What is known of the key map of each partition; nothing without a primary key.
    pub fn key_maps(&self) -> Vec<KeyMapStatus> {
        let Some(key) = self.shared.table.key() else { return Vec::new() };
        self.shared.partitions().iter().map(|partition| partition.key_map_status(key)).collect()
    }

    /// The segments of a partition whose keys a start takes from the file of its key map. `None` without a primary key.
    pub fn key_map_segments(&self, partition: PartitionId) -> Option<HashSet<SegmentId>> {
        self.shared.table.key()?;
        self.shared.partitions().get(partition.0 as usize).map(|partition| partition.key_map_segments())
    }

    pub fn set_policy(&self, policy: SealPolicy) {
        for partition in self.shared.partitions().iter() {
            partition.set_policy(policy);
        }
    }

    /// How long rows are kept by the time column, microseconds; `None` for ever.
    pub fn set_retention(&self, keep_us: Option<i64>) {
        self.shared.set_retention(keep_us);
    }

    /// Changes the table's columns. `transforms` has one for each feed, compiled for `schema`. Rows that are visible are read through the new schema;
    /// rows that come later are written under it. Returns at once.
    pub fn set_schema(&self, schema: &Arc<TableSchema>, transforms: &BTreeMap<SourceId, Arc<Transform>>) -> Result<()> {
        let feeds = self.shared.feeds.read();
        if let Some(source) = feeds.keys().find(|source| !transforms.contains_key(source)) {
            return Err(Error::Definition {
                message: format!(
                    "source {source} of table '{}' has no transform for the new columns",
                    self.shared.name
                ),
                hint: None,
            });
        }
        let partitions = self.shared.partitions();
        let changes: Vec<_> = partitions.iter().map(|partition| partition.begin_schema_change()).collect();
        let generation = changes.first().map_or(0, |change| change.generation()) + 1;
        for (source, feed) in feeds.iter() {
            feed.transform
                .store(Arc::new(VersionedTransform { generation, transform: Arc::clone(&transforms[source]) }));
        }
        self.shared.table.set_schema(Arc::clone(schema));
        for change in changes {
            change.finish(generation, schema);
        }
        Ok(())
    }

    /// Returns when it is durable where every present partition of the source begins. Waits as long as the source does not answer.
    pub async fn connected(&self, source: SourceId) -> Result<()> {
        let feed = self.feed(source)?;
        self.wait_for(&feed, || Ok(feed.connected.load(Ordering::SeqCst))).await
    }

    /// Returns when all that is in the source now is visible. An error when a partition stopped before that, or the source is paused.
    pub async fn drain(&self, source: SourceId) -> Result<()> {
        let feed = self.feed(source)?;
        let now_us = self.shared.runtime.clock.monotonic_us();
        self.read_to_the_end(&feed, now_us).await
    }

    /// Returns when all rows of `stream` below `offset` are visible to snapshots taken from now on.
    pub async fn wait_visible(&self, stream: StreamId, offset: u64) -> Result<()> {
        let feed = self.feed(stream.source)?;
        self.wait_position(&feed, stream.partition, offset).await
    }

    /// Ends the consuming segments; returns when all that was visible at the call is committed.
    pub async fn seal(&self) -> Result<()> {
        let partitions = self.shared.partitions();
        let wanted: Vec<u64> = partitions.iter().map(|partition| partition.seal_now()).collect();
        for (partition, wanted) in partitions.iter().zip(wanted) {
            partition.wait_sealed(wanted).await?;
        }
        Ok(())
    }

    /// Waits until no other statement changes rows of the table, and keeps others waiting as long as it is held. To be taken before the rows are read.
    pub async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.shared.changing).lock_owned().await
    }

    /// Keeps rows that come to the table waiting as long as it is held. After [`Self::turn`].
    pub async fn still(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.still).write_owned().await
    }

    /// Carries out what a statement changes; durable and visible at return. An error leaves the table as it was. Blocks. While [`Self::turn`] is held.
    pub fn change_rows(&self, change: &RowChange) -> Result<()> {
        self.shared.change_rows(change)
    }

    /// Gives the table another number of partitions; see `consumer/partitioning.rs`. `record` makes it durable together with what the partitions hold, and
    /// says of an error whether it is known that nothing happened. Blocks.
    pub fn repartition(&self, count: u32, record: &RecordPartitions<'_>) -> Result<()> {
        self.shared.repartition(&self.directory, count, record)
    }

    /// Takes rows that nobody sees out of the files and puts small segments together, at once; how many segments were written again. Blocks.
    pub fn compact(&self) -> Result<u64> {
        self.shared.compact_at_once()
    }

    /// Compares what is committed, after a seal, with the sources; values by the columns `original`, those that the table was made with. Ends with an error soon after `cancelled` is true.
    pub async fn check_consistency(&self, original: Vec<ColumnId>, cancelled: Arc<AtomicBool>) -> Result<Vec<Line>> {
        self.seal().await?;
        let table = Arc::clone(&self.shared);
        blocking(move || table.check_consistency(&original, &cancelled)).await
    }

    /// Tries the dead letters of a source again, as the table is now. Returns how many became rows, when these are committed. Those that are
    /// still bad stay, with the reason of this try.
    pub async fn replay_dead_letters(&self, source: SourceId) -> Result<u64> {
        let feed = self.feed(source)?;
        // Letters in memory belong to offsets that are not committed yet.
        self.seal().await?;
        let mut resolved = 0;
        for partition in self.shared.partitions().iter() {
            let (partition, feed, table) = (Arc::clone(partition), Arc::clone(&feed), Arc::clone(&self.shared));
            let task = Arc::clone(&partition);
            let (letters, wanted) = blocking(move || task.replay(&feed, &table)).await?;
            if letters > 0 {
                partition.wait_sealed(wanted).await?;
            }
            resolved += letters;
        }
        Ok(resolved)
    }

    /// One entry per source partition, by source and partition; also for partitions that were read before the start, whose source has not
    /// answered since.
    pub fn status(&self) -> Vec<PartitionStatus> {
        let feeds = self.shared.feeds.read();
        let mut all = Vec::new();
        for (source, feed) in feeds.iter() {
            let mut of_feed = feed.status();
            for partition in self.shared.partitions().iter() {
                for (stream, position) in partition.positions(*source) {
                    if !of_feed.iter().any(|known| known.source_partition == stream.partition) {
                        of_feed.push(feed.status_of(&StreamState::new(stream, partition.id, position), "waiting"));
                    }
                }
            }
            of_feed.sort_unstable_by_key(|status| status.source_partition);
            all.extend(of_feed);
        }
        all
    }

    /// Errors of sources that show no partition yet, by source.
    pub fn feed_errors(&self) -> Vec<(SourceId, String)> {
        let feeds = self.shared.feeds.read();
        feeds.iter().filter_map(|(source, feed)| Some((*source, feed.error.lock().clone()?))).collect()
    }

    /// All dead letters of the table at the call: committed ones from their files, then those in memory. Reads files as it goes; a replay
    /// meanwhile changes nothing about them. Ends early when the table is dropped.
    pub fn dead_letters(&self) -> impl Iterator<Item = Result<DeadLetter>> + Send + use<> {
        let parts: Vec<_> = self.shared.partitions().iter().map(|partition| partition.dead_letters()).collect();
        let shared = Arc::clone(&self.shared);
        parts.into_iter().flat_map(move |(files, waiting)| {
            let shared = Arc::clone(&shared);
            let open = move |file: Arc<DeadLetterFile>| -> Box<dyn Iterator<Item = Result<DeadLetter>> + Send> {
                match DeadLetterReader::open(file.path()) {
                    Ok(reader) => Box::new(reader),
                    Err(_) if shared.removed.load(Ordering::SeqCst) => Box::new(std::iter::empty()),
                    Err(error) => Box::new(std::iter::once(Err(error))),
                }
            };
            let committed = files.into_iter().flat_map(open);
            committed.chain(waiting.into_iter().map(Ok))
        })
    }

    fn feed(&self, source: SourceId) -> Result<Arc<FeedState>> {
        self.shared.feeds.read().get(&source).cloned().ok_or_else(|| Error::Definition {
            message: format!("table '{}' does not read from source {source}", self.shared.name),
            hint: None,
        })
    }

    async fn wait_position(&self, feed: &FeedState, partition: u32, offset: u64) -> Result<()> {
        self.wait_for(feed, || {
            let Some(stream) = feed.stream(partition) else { return Ok(false) };
            if stream.position() >= offset {
                return Ok(true);
            }
            let name = &feed.feed.name;
            match stream.run() {
                StreamRun::Stopped { error } => Err(Error::Unavailable(format!(
                    "partition {partition} of source '{name}' stopped at offset {}: {error}",
                    stream.position()
                ))),
                _ if feed.is_paused() => Err(Error::Unavailable(format!("source '{name}' is paused; resume it first"))),
                _ => Ok(false),
            }
        })
        .await
    }

    /// Waits until `done`, which is asked again whenever something about the feed changes.
    async fn wait_for(&self, feed: &FeedState, done: impl Fn() -> Result<bool>) -> Result<()> {
        loop {
            let rang = feed.changed.notified();
            tokio::pin!(rang);
            rang.as_mut().enable();
            if done()? {
                return Ok(());
            }
            if feed.is_stopping() {
                return Err(Error::Unavailable(format!("table '{}' is being closed", self.shared.name)));
            }
            rang.await;
        }
    }

    fn join(&self, source: Option<SourceId>) {
        // A discovery thread may begin consuming threads until it has ended.
        loop {
            let ended: Vec<_> = {
                let mut threads = self.shared.threads.lock();
                threads.extract_if(.., |(of, _)| source.is_none_or(|source| source == *of)).collect()
            };
            if ended.is_empty() {
                return;
            }
            for (_, thread) in ended {
                join(thread);
            }
        }
    }
}

/// Where the files of a partition are.
pub fn partition_directory(table: &std::path::Path, partition: PartitionId) -> PathBuf {
    table.join(format!("p{:05}", partition.0))
}
