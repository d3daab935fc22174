//! The consuming clients of one source.
//!
//! A client can be at one place in a partition at a time: where tables read the same partition at two places, the second has another client. A
//! client is never given a partition twice, so that what librdkafka still knows of the first time cannot move the second.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    Message as _, Offset,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::RDKafkaErrorCode,
};
use tidemill_storage::clock::Clock;

use super::{
    client::{Client, Endpoint, Tracing},
    connector::topic_partitions,
    lane::{KafkaLane, code_of, position},
};
use crate::{
    Error, Result,
    source::{
        OpenTransaction,
        share::{Bell, Fetcher, Lane},
    },
};

/// Bytes that are fetched ahead for all partitions of a source together, and bounds for one.
const PREFETCH_KIB: usize = 64 << 10;
const PREFETCH_KIB_MIN: usize = 256;
const PREFETCH_KIB_MAX: usize = 16 << 10;
/// Tables that read on their own fetch less ahead: what is fetched when they join the others is thrown away.
const PREFETCH_ALONE: usize = 8;
/// How old a look at librdkafka's positions may be.
const POSITIONS_US: i64 = 20_000;
/// Events that are handled at a time.
const EVENTS_MAX: usize = 64;

pub(super) struct KafkaFetcher {
    endpoint: Endpoint,
    clock: Arc<dyn Clock>,
    clients: Mutex<Vec<Arc<FetchClient>>>,
    partitions: AtomicUsize,
    /// For lanes, which outlive no fetcher.
    this: Weak<Self>,
}

impl KafkaFetcher {
    pub(super) fn new(endpoint: Endpoint, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            endpoint,
            clock,
            clients: Mutex::default(),
            partitions: AtomicUsize::new(1),
            this: Weak::clone(this),
        })
    }

    pub(super) fn set_partitions(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// A client that never had the partition.
    fn client(&self, partition: u32) -> Result<Arc<FetchClient>> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.iter().find(|client| client.given.lock().insert(partition)) {
            client.lanes.fetch_add(1, Ordering::Relaxed);
            return Ok(Arc::clone(client));
        }
        let share = (PREFETCH_KIB / self.partitions()).clamp(PREFETCH_KIB_MIN, PREFETCH_KIB_MAX);
        let prefetch_kib = if clients.is_empty() { share } else { share.div_ceil(PREFETCH_ALONE) };
        let client = Arc::new(FetchClient {
            client: Arc::new(self.endpoint.client(prefetch_kib)?),
            given: Mutex::new(BTreeSet::from([partition])),
            lanes: AtomicUsize::new(1),
            strays: AtomicBool::new(false),
            serving: Mutex::default(),
            positions: Mutex::default(),
        });
        clients.push(Arc::clone(&client));
        Ok(client)
    }

    /// As the client knows it that has heard of the end of the partition last.
    pub(super) fn open_transaction(&self, partition: u32) -> Option<OpenTransaction> {
        let clients = self.clients.lock();
        let ends = clients.iter().filter_map(|client| client.client.context().ends_of(partition));
        let (stable, end) = ends.max_by_key(|(stable, end)| (*end, *stable))?;
        (stable < end).then_some(OpenTransaction { from: stable, to: end })
    }

    /// A lane of the client ended. A client without lanes ends too.
    pub(super) fn release(&self, client: &Arc<FetchClient>) {
        let ended = {
            let mut clients = self.clients.lock();
            let last = client.lanes.fetch_sub(1, Ordering::Relaxed) == 1;
            let place = clients.iter().position(|known| Arc::ptr_eq(known, client));
            place.filter(|_| last).map(|place| clients.remove(place))
        };
        // Closing a client waits for its threads: not under the lock.
        drop(ended);
    }
}

impl Fetcher for KafkaFetcher {
    fn lane(&self, partition: u32, offset: u64, bell: &Arc<Bell>) -> Result<Box<dyn Lane>> {
        let client = self.client(partition)?;
        let begun = begin(&self.endpoint, &client, partition, offset, bell);
        match begun {
            Ok(queue) => {
                let lane = KafkaLane::new(
                    self.endpoint.clone(),
                    Weak::clone(&self.this),
                    Arc::clone(&client),
                    queue,
                    partition,
                    offset,
                );
                Ok(Box::new(lane))
            }
            Err(error) => {
                self.release(&client);
                Err(error)
            }
        }
    }

    fn serve(&self) -> Result<()> {
        let clients = self.clients.lock().clone();
        clients.iter().try_for_each(|client| client.serve(&self.endpoint))
    }

    fn partitions(&self) -> usize {
        self.partitions.load(Ordering::Relaxed).max(1)
    }
}

/// Has the client fetch a partition into a queue of its own.
fn begin(
    endpoint: &Endpoint,
    client: &Arc<FetchClient>,
    partition: u32,
    offset: u64,
    bell: &Arc<Bell>,
) -> Result<PartitionQueue<Tracing>> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    // Before it is assigned: nothing must reach the client's common queue.
    let mut queue = client.client.split_partition_queue(&endpoint.topic, number).ok_or_else(|| {
        Error::Unavailable(format!("partition {partition} of kafka topic '{}' has no queue", endpoint.topic))
    })?;
    let bell = Arc::clone(bell);
    queue.set_nonempty_callback(move || bell.ring());
    let list = topic_partitions(endpoint, std::iter::once((partition, position(offset))))?;
    client
        .client
        .incremental_assign(&list)
        .map_err(|error| endpoint.failed(&format!("assigning partition {partition}"), &error))?;
    Ok(queue)
}

/// One librdkafka client that fetches some partitions, each into a queue of its own.
pub(super) struct FetchClient {
    pub(super) client: Arc<Client>,
    /// Partitions that it has, or had.
    given: Mutex<BTreeSet<u32>>,
    lanes: AtomicUsize,
    /// A message came by the wrong queue: where it belongs it is missing.
    strays: AtomicBool,
    serving: Mutex<()>,
    positions: Mutex<Positions>,
}

#[derive(Default)]
struct Positions {
    read_at_us: Option<i64>,
    positions: BTreeMap<u32, u64>,
}

impl FetchClient {
    /// Handles what waits in the client's common queue: statistics, errors, answers.
    fn serve(&self, endpoint: &Endpoint) -> Result<()> {
        let Some(_serving) = self.serving.try_lock() else { return Ok(()) };
        for _ in 0..EVENTS_MAX {
            match self.client.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    tracing::warn!(
                        topic = endpoint.topic,
                        partition = message.partition(),
                        offset = message.offset(),
                        "a message came by the common queue: its partitions are fetched anew"
                    );
                    self.strays.store(true, Ordering::SeqCst);
                }
                Some(Err(error)) => match code_of(&error) {
                    // librdkafka goes on by itself after these.
                    Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::BrokerTransportFailure) => {
                        tracing::debug!(%error, topic = endpoint.topic, "reading goes on");
                    }
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition,
                    ) => return Err(endpoint.no_topic()),
                    _ => return Err(endpoint.failed("reading", &error)),
                },
            }
        }
        Ok(())
    }

    pub(super) fn has_strays(&self) -> bool {
        self.strays.load(Ordering::SeqCst)
    }

    /// Where librdkafka stands in a partition: behind what was taken from its queue, transaction markers included. May be a moment
    /// old, and then lower.
    pub(super) fn position(&self, endpoint: &Endpoint, clock: &dyn Clock, partition: u32) -> Option<u64> {
        let now_us = clock.monotonic_us();
        let mut known = self.positions.lock();
        if known.read_at_us.is_none_or(|read_at_us| now_us - read_at_us >= POSITIONS_US) {
            let list = self.client.position().ok()?;
            known.read_at_us = Some(now_us);
            known.positions = list
                .elements_for_topic(&endpoint.topic)
                .into_iter()
                .filter_map(|element| match element.offset() {
                    Offset::Offset(offset) => {
                        Some((u32::try_from(element.partition()).ok()?, u64::try_from(offset).ok()?))
                    }
                    _ => None,
                })
                .collect();
        }
        known.positions.get(&partition).copied()
    }
}

impl KafkaFetcher {
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}
