//! A feed: one source of one table, and what is known of its streams while it runs.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex, RwLock};
use tidemill_storage::ids::{PartitionId, SourceId, StreamId};
use tokio::sync::Notify;

use super::{
    group::Group,
    status::{PartitionStatus, StreamRun},
};
use crate::{
    Error, Result,
    dead_letters::OnError,
    decode::Decoder,
    pipeline::{Checks, Transform, Watermark},
    source::{Connector, Start, rate::Pace},
};

/// Makes a decoder for one consuming thread.
pub type DecoderFactory = Arc<dyn Fn() -> Result<Box<dyn Decoder>> + Send + Sync>;

/// What happens when messages that were not read are gone from the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// The partition stops there, with an event, until it is resumed.
    #[default]
    Stop,
    /// It goes on after the gap, with an event.
    Skip,
}

impl OnGap {
    /// `stop` or `skip`.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "stop" => Ok(Self::Stop),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::Definition {
                message: format!("option 'on_gap' has the value '{text}'"),
                hint: Some("it takes stop or skip".into()),
            }),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
        }
    }
}

/// How soon a few rows must be visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Latency {
    /// Within a few milliseconds: small polls are paced, so that they cost little.
    #[default]
    Paced,
    /// At once: somebody waits for them (INSERT).
    Prompt,
}

/// One source of a table.
#[derive(Clone)]
pub struct Feed {
    pub source: SourceId,
    /// Name of the source, for messages.
    pub name: String,
    pub connector: Arc<dyn Connector>,
    /// Where streams begin that were never read.
    pub start: Start,
    /// Called once per consuming thread that gets messages; connectors that give rows never need it.
    pub decoder: DecoderFactory,
    pub checks: Arc<Checks>,
    pub transform: Arc<Transform>,
    pub watermark: Option<Arc<Watermark>>,
    pub on_error: OnError,
    /// At first; [`TableIngest::set_on_gap`](super::TableIngest::set_on_gap) changes it.
    pub on_gap: OnGap,
    pub latency: Latency,
    /// How fast it is read at most.
    pub pace: Arc<Pace>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("source", &self.source)
            .field("name", &self.name)
            .field("connector", &self.connector)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// A transform and the generation of the table's schema that it writes for.
#[derive(Debug)]
pub(crate) struct VersionedTransform {
    pub(crate) generation: u64,
    pub(crate) transform: Arc<Transform>,
}

/// Looks at a source's end that wait for their messages to become visible, at most.
const LOOKS_MAX: usize = 64;
/// Unknown high watermark.
const UNKNOWN: u64 = u64::MAX;
const NO_WATERMARK: i64 = i64::MIN;

/// What is known of one stream. Written by its consuming thread and by the sealer, read by everyone.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) id: StreamId,
    partition: AtomicU32,
    /// Next offset that is not visible yet.
    pub(crate) position: AtomicU64,
    pub(crate) committed: AtomicU64,
    /// How far each table partition that has rows of the stream has committed it.
    committed_in: Mutex<BTreeMap<PartitionId, u64>>,
    high: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) skipped: AtomicU64,
    /// Messages without a value.
    pub(crate) tombstones: AtomicU64,
    /// Tables that the fetch of this stream serves, this one included.
    pub(crate) sharing: AtomicU32,
    /// Age of the newest message when it became visible, milliseconds; -1 when unknown.
    pub(crate) freshness_ms: AtomicI64,
    /// Largest watermark of the rows that became visible, microseconds since 1970.
    watermark_us: AtomicI64,
    /// Where the source's partition ended, and when it was asked (monotonic microseconds), oldest first: what is not visible yet.
    looks: Mutex<VecDeque<(i64, u64)>>,
    /// The latest such moment of which everything is visible.
    fresh_us: AtomicI64,
    run: Mutex<StreamRun>,
    /// What its source's partition waits for.
    waits_for: Mutex<Option<String>>,
}

impl StreamState {
    pub(crate) fn new(id: StreamId, partition: PartitionId, position: u64) -> Self {
        Self {
            id,
            partition: AtomicU32::new(partition.0),
            position: AtomicU64::new(position),
            committed: AtomicU64::new(position),
            committed_in: Mutex::default(),
            high: AtomicU64::new(UNKNOWN),
            rows: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            sharing: AtomicU32::new(0),
            freshness_ms: AtomicI64::new(-1),
            watermark_us: AtomicI64::new(NO_WATERMARK),
            looks: Mutex::default(),
            fresh_us: AtomicI64::new(i64::MIN),
            run: Mutex::new(StreamRun::Running),
            waits_for: Mutex::default(),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// The table partition that accounts for the stream, of a table with a key the first one that does.
    pub(crate) fn partition(&self) -> PartitionId {
        PartitionId(self.partition.load(Ordering::Relaxed))
    }

    /// The table has other partitions.
    pub(crate) fn set_partition(&self, partition: PartitionId) {
        self.partition.store(partition.0, Ordering::Relaxed);
    }

    /// The table partitions that rows of the stream go to, and how far they have committed it.
    pub(crate) fn set_targets(&self, targets: impl Iterator<Item = (PartitionId, u64)>) {
        let mut committed_in = self.committed_in.lock();
        committed_in.clear();
        committed_in.extend(targets);
        if let Some(least) = committed_in.values().min() {
            self.committed.store(*least, Ordering::Relaxed);
        }
    }

    /// A table partition has committed the stream up to `offset`. Returns how far all have.
    pub(crate) fn committed_in(&self, partition: PartitionId, offset: u64) -> u64 {
        let mut committed_in = self.committed_in.lock();
        committed_in.insert(partition, offset);
        let least = committed_in.values().min().copied().unwrap_or(offset);
        self.committed.store(least, Ordering::Relaxed);
        least
    }

    /// The source's partition ended at `high` after `at_us`, when it was asked.
    pub(crate) fn set_high(&self, high: u64, at_us: i64) {
        self.high.store(high, Ordering::Relaxed);
        let mut looks = self.looks.lock();
        // With so many before it, the oldest is what tells.
        if looks.len() < LOOKS_MAX {
            looks.push_back((at_us, high));
        }
    }

    /// Everything that was in the source at this moment is visible.
    pub(crate) fn set_fresh(&self, at_us: i64) {
        self.fresh_us.fetch_max(at_us, Ordering::Relaxed);
    }

    /// The latest moment (monotonic microseconds) of which it is known that everything that was in the source then is visible.
    pub(crate) fn fresh_us(&self) -> Option<i64> {
        let position = self.position();
        let mut looks = self.looks.lock();
        while let Some((at_us, high)) = looks.front().copied()
            && high <= position
        {
            looks.pop_front();
            self.set_fresh(at_us);
        }
        Some(self.fresh_us.load(Ordering::Relaxed)).filter(|us| *us != i64::MIN)
    }

    pub(crate) fn run(&self) -> StreamRun {
        self.run.lock().clone()
    }

    pub(crate) fn set_run(&self, run: StreamRun) {
        *self.run.lock() = run;
    }

    /// What holds back the rest of the source's partition, if anything does.
    pub(crate) fn set_waits_for(&self, what: Option<String>) {
        *self.waits_for.lock() = what;
    }

    /// A watermark never goes back.
    pub(crate) fn raise_watermark(&self, us: i64) {
        self.watermark_us.fetch_max(us, Ordering::Relaxed);
    }

    fn watermark_us(&self) -> Option<i64> {
        Some(self.watermark_us.load(Ordering::Relaxed)).filter(|us| *us != NO_WATERMARK)
    }

    pub(super) fn high(&self) -> Option<u64> {
        match self.high.load(Ordering::Relaxed) {
            UNKNOWN => None,
            high => Some(high.max(self.position())),
        }
    }
}

/// A feed that runs.
#[derive(Debug)]
pub(crate) struct FeedState {
    pub(crate) feed: Feed,
    pub(crate) transform: ArcSwap<VersionedTransform>,
    pub(crate) streams: RwLock<BTreeMap<u32, Arc<StreamState>>>,
    pub(crate) groups: Mutex<Vec<Arc<Group>>>,
    /// Rang whenever positions or states of streams change.
    pub(crate) changed: Notify,
    /// The first positions are durable.
    pub(crate) connected: AtomicBool,
    stopping: AtomicBool,
    paused: AtomicBool,
    skips_gaps: AtomicBool,
    /// How often there was reason to think that the source is another one than the one that was read, and how many of these reasons were
    /// looked into: as long as they differ nothing is read.
    doubts: AtomicU64,
    trusted: AtomicU64,
    /// What is wrong with the source as a whole, as long as it is.
    pub(crate) error: Mutex<Option<String>>,
    /// Discovery is wanted now.
    nudged: Mutex<bool>,
    wake: Condvar,
}

impl FeedState {
    pub(crate) fn new(feed: Feed, generation: u64) -> Self {
        let transform = Arc::new(VersionedTransform { generation, transform: Arc::clone(&feed.transform) });
        Self {
            skips_gaps: AtomicBool::new(feed.on_gap == OnGap::Skip),
            feed,
            transform: ArcSwap::new(transform),
            streams: RwLock::default(),
            groups: Mutex::default(),
            changed: Notify::new(),
            connected: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            doubts: AtomicU64::new(0),
            trusted: AtomicU64::new(0),
            error: Mutex::default(),
            nudged: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn on_gap(&self) -> OnGap {
        if self.skips_gaps.load(Ordering::SeqCst) { OnGap::Skip } else { OnGap::Stop }
    }

    pub(crate) fn set_on_gap(&self, on_gap: OnGap) {
        self.skips_gaps.store(on_gap == OnGap::Skip, Ordering::SeqCst);
    }

    pub(crate) fn stream(&self, partition: u32) -> Option<Arc<StreamState>> {
        self.streams.read().get(&partition).cloned()
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.nudge();
        self.changed.notify_waiters();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.nudge();
        self.changed.notify_waiters();
    }

    /// Nothing is read until discovery has found that the source is the one that was read.
    pub(crate) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// The first `doubts` doubts were looked into.
    pub(crate) fn trust(&self, doubts: u64) {
        self.trusted.store(doubts, Ordering::SeqCst);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubts() != self.trusted.load(Ordering::SeqCst)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Wakes all threads of the feed, and has discovery look at once.
    pub(crate) fn nudge(&self) {
        *self.nudged.lock() = true;
        self.wake.notify_all();
    }

    /// Waits until something about the feed changes, or `timeout` is over.
    pub(crate) fn rest(&self, timeout: Duration) {
        let mut nudged = self.nudged.lock();
        if !self.is_stopping() {
            self.wake.wait_for(&mut nudged, timeout);
        }
    }

    /// As [`Self::rest`], for discovery: a nudge that came before counts.
    pub(crate) fn rest_until_nudged(&self, timeout: Duration) {
        let mut nudged = self.nudged.lock();
        if !*nudged && !self.is_stopping() {
            self.wake.wait_for(&mut nudged, timeout);
        }
        *nudged = false;
    }

    /// Ends a stream's reading; `error` says why and what to do.
    pub(crate) fn stop_stream(&self, stream: &StreamState, error: String) {
        stream.set_run(StreamRun::Stopped { error });
        self.changed.notify_waiters();
    }

    pub(crate) fn status(&self) -> Vec<PartitionStatus> {
        let streams = self.streams.read();
        streams.values().map(|stream| self.status_of(stream, stream.run().name())).collect()
    }

    /// A stream's status; `state` is what it is called as long as the feed is not paused.
    pub(super) fn status_of(&self, stream: &StreamState, state: &'static str) -> PartitionStatus {
        let run = stream.run();
        PartitionStatus {
            source: self.feed.source,
            source_name: self.feed.name.clone(),
            source_partition: stream.id.partition,
            table_partition: stream.partition(),
            position: stream.position(),
            committed: stream.committed.load(Ordering::Relaxed),
            high: stream.high(),
            watermark_us: stream.watermark_us(),
            freshness_ms: Some(stream.freshness_ms.load(Ordering::Relaxed)).filter(|age| *age >= 0),
            rows: stream.rows.load(Ordering::Relaxed),
            dead_letters: stream.dead_letters.load(Ordering::Relaxed),
            skipped: stream.skipped.load(Ordering::Relaxed),
            tombstones: stream.tombstones.load(Ordering::Relaxed),
            sharing: stream.sharing.load(Ordering::Relaxed),
            state: if self.is_paused() && run == StreamRun::Running { "paused" } else { state },
            error: match run {
                StreamRun::Stopped { error } => Some(error),
                StreamRun::Running | StreamRun::Ended => {
                    self.error.lock().clone().or_else(|| stream.waits_for.lock().clone())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The plain twin keeps every look. With very many of them waiting the stream may seem staler than it is, never fresher.
        #[test]
        fn a_stream_is_as_fresh_as_the_last_look_that_was_reached(steps in prop::collection::vec((0u64..5, 0u64..5), 1..200)) {
            let stream = StreamState::new(StreamId::default(), PartitionId(0), 0);
            let mut looks = Vec::new();
            let (mut high, mut position) = (0, 0);
            for (at_us, (written, read)) in (0..).zip(steps) {
                high += written;
                stream.set_high(high, at_us);
                looks.push((at_us, high));
                position = (position + read).min(high);
                stream.position.store(position, Ordering::Release);
                let wanted = looks.iter().filter(|(_, high)| *high <= position).map(|(at_us, _)| *at_us).max();
                let waiting = looks.iter().filter(|(_, high)| *high > position).count();
                let found = stream.fresh_us();
                prop_assert!(found <= wanted, "{found:?} {wanted:?}");
                if waiting < LOOKS_MAX / 2 && looks.len() < LOOKS_MAX {
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
