//! What can be asked about a topic without reading it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::RDKafkaErrorCode,
};

use parking_lot::Mutex;
use tidemill_storage::{clock::Clock, ids::TableId};

use super::{
    client::{Client, Endpoint},
    fetcher::KafkaFetcher,
    progress::Progress,
    recognition::recognize,
};
use crate::{
    Error, Result,
    landmark::{Place, Recognition},
    source::{
        Connector, OpenTransaction, Reader, Start, Watermarks,
        share::{Fetcher, Share},
    },
};

/// The client that only asks fetches nothing.
const ASKING_KIB: usize = 1;

pub(super) struct KafkaConnector {
    endpoint: Endpoint,
    client: Client,
    fetcher: Arc<KafkaFetcher>,
    share: Arc<Share>,
    clock: Arc<dyn Clock>,
    /// How far the tables are that read the topic.
    progress: Mutex<Progress>,
}

impl fmt::Debug for KafkaConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConnector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl KafkaConnector {
    pub(super) fn new(endpoint: Endpoint, clock: Arc<dyn Clock>) -> Result<Self> {
        let client = endpoint.client(ASKING_KIB)?;
        let fetcher = KafkaFetcher::new(endpoint.clone(), Arc::clone(&clock));
        let share = Share::new(Arc::clone(&fetcher) as Arc<dyn Fetcher>, Arc::clone(&clock));
        Ok(Self { endpoint, client, fetcher, share, clock, progress: Mutex::default() })
    }

    /// Answers to commits wait in the client's queue until somebody looks.
    fn serve_callbacks(&self) {
        // A poll that only handed a log line on looks like one that found nothing.
        for _ in 0..32 {
            let _ = self.client.poll(Duration::ZERO);
        }
    }

    /// Commits to the consumer group, without waiting for its answer.
    fn tell_group(&self, positions: &BTreeMap<u32, u64>) {
        if positions.is_empty() {
            return;
        }
        let list = topic_partitions(
            &self.endpoint,
            positions.iter().map(|(partition, offset)| (*partition, Offset::Offset(*offset as i64))),
        );
        let told = list.map(|list| self.client.commit(&list, CommitMode::Async));
        if let Ok(Err(error)) = told {
            tracing::debug!(%error, group = self.endpoint.group, "the consumer group was not told our offsets");
        }
    }

    fn list(&self, partitions: &[u32], offset: impl Fn(u32) -> Offset) -> Result<TopicPartitionList> {
        topic_partitions(&self.endpoint, partitions.iter().map(|partition| (*partition, offset(*partition))))
    }

    /// The offset each answer holds; `other` for partitions whose answer is no offset.
    fn offsets(
        &self,
        answer: &TopicPartitionList,
        partitions: &[u32],
        other: impl Fn(Watermarks) -> u64,
    ) -> Result<BTreeMap<u32, u64>> {
        let mut offsets = BTreeMap::new();
        for element in answer.elements_for_topic(&self.endpoint.topic) {
            element.error().map_err(|error| self.endpoint.failed("looking up offsets", &error))?;
            if let (Ok(partition), Offset::Offset(offset)) = (u32::try_from(element.partition()), element.offset()) {
                offsets.insert(partition, u64::try_from(offset).unwrap_or(0));
            }
        }
        for partition in partitions {
            if !offsets.contains_key(partition) {
                offsets.insert(*partition, other(self.watermarks(*partition)?));
            }
        }
        Ok(offsets)
    }
}

impl Connector for KafkaConnector {
    fn partitions(&self) -> Result<Vec<u32>> {
        self.serve_callbacks();
        let metadata =
            self.client.fetch_metadata(Some(&self.endpoint.topic), self.endpoint.timeout).map_err(|error| {
                self.serve_callbacks();
                match self.client.context().refusal() {
                    Some(reason) => self.endpoint.refused(&reason),
                    None => self.endpoint.failed("asking for the partitions", &error),
                }
            })?;
        self.client.context().let_in();
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.endpoint.topic);
        let topic = topic.ok_or_else(|| self.endpoint.no_topic())?;
        if let Some(error) = topic.error() {
            let code = RDKafkaErrorCode::from(error);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => self.endpoint.no_topic(),
                _ => {
                    self.endpoint.failed("asking for the partitions", &rdkafka::error::KafkaError::MetadataFetch(code))
                }
            });
        }
        let mut partitions: Vec<u32> = topic.partitions().iter().filter_map(|p| u32::try_from(p.id()).ok()).collect();
        partitions.sort_unstable();
        if partitions.is_empty() {
            return Err(self.endpoint.no_topic());
        }
        self.fetcher.set_partitions(partitions.len());
        Ok(partitions)
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        match start {
            Start::Earliest => partitions.iter().map(|p| Ok((*p, self.watermarks(*p)?.low))).collect(),
            Start::Latest => partitions.iter().map(|p| Ok((*p, self.watermarks(*p)?.high))).collect(),
            Start::Offsets(offsets) => partitions
                .iter()
                .map(|p| Ok((*p, offsets.get(p).copied().map_or_else(|| self.watermarks(*p).map(|w| w.low), Ok)?)))
                .collect(),
            Start::TimestampMs(ms) => {
                let answer = self
                    .client
                    .offsets_for_times(self.list(partitions, |_| Offset::Offset(*ms))?, self.endpoint.timeout)
                    .map_err(|error| self.endpoint.failed("looking up a timestamp", &error))?;
                // No message at or after that time: the next one that comes.
                self.offsets(&answer, partitions, |watermarks| watermarks.high)
            }
            Start::Committed => {
                let answer = self
                    .client
                    .committed_offsets(self.list(partitions, |_| Offset::Invalid)?, self.endpoint.timeout)
                    .map_err(|error| {
                        self.endpoint.failed(&format!("asking consumer group '{}'", self.endpoint.group), &error)
                    })?;
                self.offsets(&answer, partitions, |watermarks| watermarks.low)
            }
        }
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        watermarks(&self.endpoint, &self.client, partition)
    }

    fn open_transaction(&self, partition: u32) -> Option<OpenTransaction> {
        self.fetcher.open_transaction(partition)
    }

    fn recognize(&self, places: &BTreeMap<u32, Place>) -> Result<BTreeMap<u32, Recognition>> {
        recognize(&self.endpoint, &self.client, &*self.clock, places)
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        Ok(self.share.reader(positions))
    }

    fn committed(&self, table: TableId, positions: &BTreeMap<u32, u64>) {
        self.serve_callbacks();
        // Told under the lock, so that of two tables' commits the later one is the last that the group hears of.
        let mut progress = self.progress.lock();
        self.tell_group(&progress.committed(table, positions));
    }

    fn forget(&self, table: TableId) {
        let mut progress = self.progress.lock();
        self.tell_group(&progress.forget(table));
    }
}

/// Asks the leader for the first offset and, as the isolation sees it, the one after the last.
pub(super) fn watermarks(endpoint: &Endpoint, client: &Client, partition: u32) -> Result<Watermarks> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let (low, high) = client.fetch_watermarks(&endpoint.topic, number, endpoint.timeout).map_err(|error| {
        match error.rdkafka_error_code() {
            // What librdkafka says when it has not heard of a leader in time.
            Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::LeaderNotAvailable) => {
                Error::Unavailable(format!(
                    "no leader of partition {partition} of kafka topic '{}' at {} answers within {:?}",
                    endpoint.topic, endpoint.brokers, endpoint.timeout
                ))
            }
            _ => endpoint.failed(&format!("asking for the offsets of partition {partition}"), &error),
        }
    })?;
    Ok(Watermarks { low: u64::try_from(low).unwrap_or(0), high: u64::try_from(high).unwrap_or(0) })
}

pub(super) fn topic_partitions(
    endpoint: &Endpoint,
    offsets: impl Iterator<Item = (u32, Offset)>,
) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&endpoint.topic, i32::try_from(partition).unwrap_or(i32::MAX), offset)
            .map_err(|error| endpoint.failed(&format!("partition {partition}"), &error))?;
    }
    Ok(list)
}
