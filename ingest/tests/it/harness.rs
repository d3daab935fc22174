//! A topic in memory, a metadata log in memory, and a table between them that can be stopped at any moment and opened again.
//!
//! Message `n` of partition `p` is the text `n`, or `bad` for every seventh; every fifth offset has no message, as after compaction. So what a
//! table must hold is known for every position, and [`Rig::verify`] compares all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tidemill_ingest::{
    Error, Result,
    commit::{MetadataLog, PartitionChange, PartitionState, SegmentCommit, StreamReset},
    consumer::{Feed, Latency, OnGap, TableIngest, TableSpec},
    dead_letters::OnError,
    decode::{Decoded, Decoder},
    events::EventRing,
    landmark::{Landmark, Place, Recognition},
    message::{Message, MessageBatch, Reject},
    pipeline::{Checks, Transform, Watermark},
    runtime::{IngestRuntime, RuntimeOptions},
    seal::SealPolicy,
    source::{Connector, Fetched, Reader, Start, Watermarks},
};
use tidemill_storage::{
    clock::{Clock, SystemClock},
    ids::{ColumnId, PartitionId, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::{Column, DataType, TableSchema},
    table::Table,
    upsert::KeyMemory,
};

pub const SOURCE: SourceId = SourceId(3);
pub const TABLE: TableId = TableId(7);

/// Tests that set failpoints take it for writing, all others for reading: failpoints are the whole process's.
pub static FAILPOINTS: RwLock<()> = RwLock::new(());

pub fn has_message(offset: u64) -> bool {
    offset % 5 != 4
}

pub fn is_bad(offset: u64) -> bool {
    offset % 7 == 3
}

/// A small generator of pseudo-random numbers (xorshift), so that a seed replays a run.
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A topic: partition → (low, high). The messages follow from the offsets.
#[derive(Debug, Default)]
pub struct Topic {
    partitions: Mutex<Vec<(u64, u64)>>,
    /// Polls to refuse.
    pub refuse_polls: AtomicU32,
    /// Messages without bad ones, for tests that count.
    pub all_good: AtomicBool,
    /// From now on a bad message is decoded to its offset.
    pub forgiving: AtomicBool,
    pub committed: Mutex<BTreeMap<u32, u64>>,
    /// How often it was made anew: the time of its messages.
    incarnation: AtomicI64,
    /// The topic is deleted.
    pub missing: AtomicBool,
    seed: AtomicU64,
}

impl Topic {
    pub fn new(partitions: usize) -> Arc<Self> {
        let topic = Self::default();
        *topic.partitions.lock() = vec![(0, 0); partitions];
        Arc::new(topic)
    }

    pub fn produce(&self, partition: usize, messages: u64) {
        self.partitions.lock()[partition].1 += messages;
    }

    pub fn add_partition(&self) {
        self.partitions.lock().push((0, 0));
    }

    pub fn lose_below(&self, partition: usize, low: u64) {
        self.partitions.lock()[partition].0 = low;
    }

    /// Deletes it and makes another one of the same name, with so many messages in each partition.
    pub fn remake(&self, messages: u64) {
        self.partitions.lock().iter_mut().for_each(|partition| *partition = (0, messages));
        self.incarnation.fetch_add(1, Ordering::SeqCst);
    }

    fn messages(&self, partition: u32, from: u64, to: u64) -> MessageBatch {
        let timestamp_ms = self.incarnation.load(Ordering::SeqCst) - 1;
        messages(partition, from, to, self.all_good.load(Ordering::Relaxed), timestamp_ms)
    }

    pub fn high(&self, partition: u32) -> u64 {
        self.partitions.lock()[partition as usize].1
    }

    fn count(&self) -> u32 {
        self.partitions.lock().len() as u32
    }
}

/// A handle of its own type, as `Connector` is the table's view of the topic.
#[derive(Debug)]
struct TopicConnector(Arc<Topic>);

impl Connector for TopicConnector {
    fn partitions(&self) -> Result<Vec<u32>> {
        if self.0.missing.load(Ordering::SeqCst) {
            return Err(Error::Missing("the topic does not exist".into()));
        }
        Ok((0..self.0.count()).collect())
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let known = self.0.partitions.lock();
        Ok(partitions
            .iter()
            .map(|partition| {
                let (low, high) = known[*partition as usize];
                (*partition, if *start == Start::Latest { high } else { low })
            })
            .collect())
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        let (low, high) = self.0.partitions.lock()[partition as usize];
        Ok(Watermarks { low, high })
    }

    fn recognize(&self, places: &BTreeMap<u32, Place>) -> Result<BTreeMap<u32, Recognition>> {
        let answer = |partition: u32, place: &Place| {
            let (low, high) = self.0.partitions.lock()[partition as usize];
            let offset = place.landmark.offset;
            if high < place.position {
                return Recognition::Short;
            }
            let there = self.0.messages(partition, offset.max(low), high);
            match there.messages.first().and_then(|first| Landmark::last_below(&there, first.offset + 1)) {
                Some(found) => place.recognize(&found),
                None => Recognition::Gone,
            }
        };
        Ok(places.iter().map(|(partition, place)| (*partition, answer(*partition, place))).collect())
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        let seed = self.0.seed.fetch_add(1, Ordering::Relaxed) + 0x9E37_79B9;
        Ok(Box::new(TopicReader { topic: Arc::clone(&self.0), positions: positions.clone(), rng: Rng(seed) }))
    }

    fn committed(&self, _table: TableId, positions: &BTreeMap<u32, u64>) {
        self.0.committed.lock().extend(positions);
    }
}

struct TopicReader {
    topic: Arc<Topic>,
    positions: BTreeMap<u32, u64>,
    rng: Rng,
}

impl Reader for TopicReader {
    fn poll(&mut self, max_messages: usize, _max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        if self.topic.refuse_polls.load(Ordering::SeqCst) > 0 {
            self.topic.refuse_polls.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Unavailable("the topic refuses".into()));
        }
        let mut fetched = Vec::new();
        for (partition, position) in &mut self.positions {
            let (low, high) = self.topic.partitions.lock()[*partition as usize];
            if *position < low {
                fetched.push(Fetched::Gap { partition: *partition, wanted: *position, found: low });
                continue;
            }
            if *position >= high {
                continue;
            }
            let most = (high - *position).min(max_messages as u64);
            let to = *position + 1 + self.rng.below(most);
            fetched.push(Fetched::Messages(self.topic.messages(*partition, *position, to)));
            *position = to;
        }
        if fetched.is_empty() {
            std::thread::sleep(timeout.min(Duration::from_millis(1)));
        }
        Ok(fetched)
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.positions.insert(partition, offset);
        Ok(())
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.positions.insert(partition, offset);
        Ok(())
    }
}

fn messages(partition: u32, from: u64, to: u64, all_good: bool, timestamp_ms: i64) -> MessageBatch {
    let mut payloads = Vec::new();
    let mut messages = Vec::new();
    for offset in (from..to).filter(|offset| has_message(*offset)) {
        let start = payloads.len() as u32;
        let text = if is_bad(offset) && !all_good { "bad".into() } else { offset.to_string() };
        payloads.extend_from_slice(text.as_bytes());
        let payload = start..payloads.len() as u32;
        messages.push(Message { payload, is_null: false, offset, timestamp_ms });
    }
    MessageBatch { partition, payloads: payloads.into(), messages, from, to }
}

/// Decodes a number `n` to the row (partition, n, n seconds).
struct NumberDecoder(Arc<Topic>);

impl Decoder for NumberDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        let (mut values, mut row_offsets, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        for message in &messages.messages {
            let raw = messages.payload(message);
            let forgiven = self.0.forgiving.load(Ordering::Relaxed).then_some(message.offset as i64);
            match std::str::from_utf8(raw).ok().and_then(|text| text.parse::<i64>().ok()).or(forgiven) {
                Some(value) => {
                    values.push(value);
                    row_offsets.push(message.offset);
                }
                None => rejects.push(Reject {
                    offset: message.offset,
                    timestamp_ms: -1,
                    column: None,
                    reason: "not a number".into(),
                    raw: messages.payloads.slice_ref(raw),
                }),
            }
        }
        let partitions: ArrayRef = Arc::new(Int64Array::from(vec![i64::from(messages.partition); values.len()]));
        let times: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from_iter_values(values.iter().map(|n| n * 1_000_000)).with_timezone("UTC"),
        );
        let columns = vec![partitions, Arc::new(Int64Array::from(values)), times];
        let rows = RecordBatch::try_new(schema(1).arrow(), columns).unwrap();
        Ok(Decoded { rows, row_offsets, rejects, taken: messages.messages.len() })
    }
}

/// The table's columns; from version 2 on with another one.
pub fn schema(version: u32) -> Arc<TableSchema> {
    let column = |id: u32, name: &str, data_type| Column::new(ColumnId(id), name, data_type);
    let mut columns = vec![
        column(1, "partition", DataType::BigInt),
        column(2, "n", DataType::BigInt),
        column(3, "at", DataType::TimestampTz),
    ];
    if version > 1 {
        columns.push(column(4, "later", DataType::Text));
    }
    Arc::new(TableSchema { version: SchemaVersion(version), columns, time_column: Some(ColumnId(3)) })
}

pub fn transform(version: u32) -> Arc<Transform> {
    let state = SessionContext::new().state();
    Arc::new(Transform::compile(&state, &schema(1).arrow(), None, &schema(version)).unwrap())
}

/// What a commit does that should fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is changed.
    Before,
    /// It took place, and reports an error all the same.
    After,
}

/// The metadata log's promises, in memory.
#[derive(Debug, Default)]
pub struct MemoryLog {
    partitions: Mutex<BTreeMap<PartitionId, PartitionState>>,
    pub faults: Mutex<Vec<Fault>>,
    pub commits: AtomicU64,
}

impl MetadataLog for MemoryLog {
    fn partition(&self, _table: TableId, partition: PartitionId) -> Result<PartitionState> {
        Ok(self.partitions.lock().get(&partition).cloned().unwrap_or_default())
    }

    fn commit(&self, commit: &SegmentCommit) -> Result<()> {
        let fault = self.faults.lock().pop();
        if fault == Some(Fault::Before) {
            return Err(Error::Commit("the disk is full".into()));
        }
        let mut partitions = self.partitions.lock();
        let state = partitions.entry(commit.partition).or_default();
        let mut next = state.clone();
        for range in &commit.progress {
            match next.positions.iter_mut().find(|(stream, _)| *stream == range.stream) {
                Some((_, position)) if *position != range.from => {
                    return Err(Error::Commit(format!("{range:?} does not begin at {position}")));
                }
                Some((_, position)) => *position = range.to,
                None => next.positions.push((range.stream, range.to)),
            }
        }
        for (stream, landmark) in &commit.landmarks {
            next.landmarks.retain(|(known, _)| known != stream);
            next.landmarks.push((*stream, *landmark));
        }
        for (stream, us) in &commit.watermarks {
            next.watermarks.retain(|(known, _)| known != stream);
            next.watermarks.push((*stream, *us));
        }
        if let Some(segment) = &commit.segment {
            if segment.id < next.next_segment {
                return Err(Error::Commit(format!("segment {} is not new", segment.id)));
            }
            next.next_segment = SegmentId(segment.id.0 + 1);
            next.segments.push(segment.clone());
        }
        next.dead_letters.retain(|letters| Some(&letters.file) != commit.replaced_dead_letters.as_ref());
        next.dead_letters.extend(commit.dead_letters.clone());
        *state = next;
        self.commits.fetch_add(1, Ordering::SeqCst);
        match fault {
            Some(Fault::After) => Err(Error::Commit("the disk failed".into())),
            _ => Ok(()),
        }
    }

    fn reset(&self, resets: &[StreamReset]) -> Result<()> {
        let mut partitions = self.partitions.lock();
        for StreamReset { partition, stream, to, .. } in resets {
            let state = partitions.entry(*partition).or_default();
            state.positions.retain(|(known, _)| known != stream);
            state.landmarks.retain(|(known, _)| known != stream);
            state.positions.extend(to.map(|offset| (*stream, offset)));
        }
        Ok(())
    }

    fn change(&self, _table: TableId, changes: &[PartitionChange]) -> Result<()> {
        let mut partitions = self.partitions.lock();
        for change in changes {
            let state = partitions.entry(change.partition).or_default();
            state.segments.retain(|segment| !change.retired.contains(&segment.id));
            state.segments.extend(change.added.iter().cloned());
            state.deleted.extend(change.deleted.iter().cloned());
            state.account.add(&change.account);
        }
        Ok(())
    }

    fn truncate(&self, _tables: &[TableId]) -> Result<()> {
        for state in self.partitions.lock().values_mut() {
            (state.segments, state.deleted, state.lost) = (Vec::new(), Vec::new(), Vec::new());
        }
        Ok(())
    }
}

/// How a rig is built.
#[derive(Clone)]
pub struct Options {
    pub partitions: u32,
    pub policy: SealPolicy,
    pub memory_bytes: u64,
    pub on_error: OnError,
    pub on_gap: OnGap,
    pub start: Start,
    pub retention_us: Option<i64>,
    /// The source's WATERMARK.
    pub watermark: Option<&'static str>,
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 2,
            policy: SealPolicy { rows: Some(1000), bytes: 1 << 30, after_us: i64::MAX },
            memory_bytes: 1 << 30,
            on_error: OnError::Dlq,
            on_gap: OnGap::Stop,
            start: Start::Earliest,
            retention_us: None,
            watermark: None,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// A running table and its surroundings.
pub struct Rig {
    pub table: Arc<Table>,
    pub ingest: Arc<TableIngest>,
    pub runtime: Arc<IngestRuntime>,
    pub events: Arc<EventRing>,
    pub topic: Arc<Topic>,
}

impl Rig {
    pub fn open(directory: &Path, log: Arc<dyn MetadataLog>, topic: &Arc<Topic>, options: &Options) -> Self {
        let events = Arc::new(EventRing::new(1000));
        let runtime = IngestRuntime::start(RuntimeOptions {
            segment_store: None,
            log,
            clock: Arc::clone(&options.clock),
            events: Arc::clone(&events) as _,
            memory_bytes: options.memory_bytes,
            key_memory: KeyMemory::unbounded(),
            seal_threads: 2,
            consume_threads: 2,
            index_share: 1.0,
            compact_share: 1.0,
        })
        .unwrap();
        let table = Arc::new(Table::new(TABLE, schema(1), options.partitions));
        let state = SessionContext::new().state();
        let ingest = TableIngest::open(
            &runtime,
            TableSpec {
                table: Arc::clone(&table),
                name: "numbers".into(),
                directory: directory.join("numbers"),
                policy: options.policy,
                retention_us: options.retention_us,
                paused: Vec::new(),
                feeds: vec![Feed {
                    source: SOURCE,
                    name: "topic".into(),
                    connector: Arc::new(TopicConnector(Arc::clone(topic))),
                    start: options.start.clone(),
                    decoder: {
                        let topic = Arc::clone(topic);
                        Arc::new(move || Ok(Box::new(NumberDecoder(Arc::clone(&topic)))))
                    },
                    checks: Arc::new(Checks::compile(&state, &schema(1).arrow(), &[]).unwrap()),
                    transform: transform(1),
                    on_error: options.on_error,
                    on_gap: options.on_gap,
                    watermark: options
                        .watermark
                        .map(|text| Arc::new(Watermark::compile(&state, &schema(1).arrow(), text).unwrap())),
                    latency: Latency::Prompt,
                    pace: Arc::default(),
                }],
            },
        )
        .unwrap();
        Self { table, ingest, runtime, events, topic: Arc::clone(topic) }
    }

    /// What a kill leaves: nothing is written on the way out.
    pub fn crash(self) {
        self.ingest.stop();
        self.runtime.stop();
    }

    /// Waits for a future, at most a minute.
    pub fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), future).await.expect("this takes too long")
        })
    }

    pub fn drain(&self) -> Result<()> {
        self.wait(self.ingest.drain(SOURCE))
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..6_000 {
            if done(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("waited in vain until {what}; status {:?}; events {:?}", self.ingest.status(), self.events.recent());
    }

    /// Every row of the table: source partition → numbers, in table order.
    pub fn rows(&self) -> BTreeMap<u32, Vec<u64>> {
        let snapshot = self.table.snapshot();
        let request = Arc::new(ScanRequest {
            schema: Arc::clone(&snapshot.schema),
            projection: vec![ColumnId(1), ColumnId(2)],
            predicate: None,
            limit: None,
            batch_rows: 8192,
            hints: ScanHints::default(),
        });
        let metrics = Arc::new(ScanMetrics::default());
        let mut rows: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for unit in snapshot.plan(&request).units {
            for batch in unit.scan(&request, &metrics).unwrap() {
                let batch = batch.unwrap();
                let (p, n) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
                for row in 0..batch.num_rows() {
                    assert!(p.is_valid(row) && n.is_valid(row));
                    rows.entry(p.value(row) as u32).or_default().push(n.value(row) as u64);
                }
            }
        }
        rows
    }

    /// Table and dead letters together hold every message of the topic exactly once, in order.
    pub fn verify(&self) {
        let rows = self.rows();
        let mut dead: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for letter in self.ingest.dead_letters() {
            let letter = letter.unwrap();
            assert_eq!((&*letter.reject.raw, letter.source.as_str()), (&b"bad"[..], "topic"));
            dead.entry(letter.stream.partition).or_default().push(letter.reject.offset);
        }
        let all_good = self.topic.all_good.load(Ordering::Relaxed);
        for partition in 0..self.topic.count() {
            let all = (0..self.topic.high(partition)).filter(|offset| has_message(*offset));
            let (bad, good): (Vec<u64>, Vec<u64>) = all.partition(|offset| is_bad(*offset) && !all_good);
            let found = rows.get(&partition).cloned().unwrap_or_default();
            let distinct: BTreeSet<u64> = found.iter().copied().collect();
            assert_eq!(found.len(), distinct.len(), "partition {partition} holds rows twice");
            assert!(found == good, "partition {partition}: {} rows found, {} expected", found.len(), good.len());
            let found = dead.get(&partition).cloned().unwrap_or_default();
            assert!(found == bad, "partition {partition}: dead letters {found:?}, expected {bad:?}");
        }
    }

    pub fn stream(partition: u32) -> StreamId {
        StreamId { source: SOURCE, partition }
    }

    pub fn has_event(&self, kind: &str) -> bool {
        self.events.recent().iter().any(|event| event.kind == kind)
    }
}

pub fn no_failpoints() -> RwLockReadGuard<'static, ()> {
    FAILPOINTS.read()
}
