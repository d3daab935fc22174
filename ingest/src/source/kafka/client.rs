//! Making librdkafka clients, and what their errors mean.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::KafkaOptions;
use crate::{Error, Result};

pub(super) type Client = BaseConsumer<Tracing>;

/// One topic at one cluster, and how to speak to it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) topic: String,
    pub(super) brokers: String,
    pub(super) group: String,
    pub(super) timeout: Duration,
    options: KafkaOptions,
}

impl Endpoint {
    pub(super) fn new(options: &KafkaOptions, group: String) -> Self {
        Self {
            topic: options.topic.clone(),
            brokers: options.brokers.clone(),
            group,
            timeout: options.timeout,
            options: options.clone(),
        }
    }

    /// A client that connects in the background and fetches up to `prefetch_kib` of each partition ahead of polls.
    pub(super) fn client(&self, prefetch_kib: usize) -> Result<Client> {
        self.make(&self.config(prefetch_kib))
    }

    /// A client that reads a message here and there: it fetches little ahead, and tells when there is nothing.
    pub(super) fn client_for_single_messages(&self) -> Result<Client> {
        let mut config = self.config(1);
        config
            .set("queued.min.messages", "1")
            .set("fetch.message.max.bytes", (64 << 10).to_string())
            .set("statistics.interval.ms", "0")
            .set("enable.partition.eof", "true");
        self.make(&config)
    }

    fn config(&self, prefetch_kib: usize) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "tidemill")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", prefetch_kib.to_string())
            // Brokers send a message that is larger than this all the same, one at a time.
            .set("fetch.message.max.bytes", (4 << 20).to_string())
            .set("fetch.max.bytes", (16 << 20).to_string())
            .set("fetch.wait.max.ms", "250")
            // The default of one second would leave a drained queue empty for that long.
            .set("fetch.queue.backoff.ms", "2")
            .set("fetch.error.backoff.ms", "200")
            .set("reconnect.backoff.max.ms", "2000")
            .set("check.crcs", "true")
            .set("socket.keepalive.enable", "true")
            .set("statistics.interval.ms", "5000");
        for (key, value) in &self.options.properties {
            config.set(key, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group)
            .set("isolation.level", self.options.isolation.name())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn make(&self, config: &ClientConfig) -> Result<Client> {
        config.create_with_context(Tracing::new(&self.topic)).map_err(|error| match error {
            KafkaError::ClientConfig(_, reason, key, value) => Error::Definition {
                message: format!("option 'properties.{key}' cannot be '{value}': {reason}"),
                hint: Some("properties.<key> takes the settings of librdkafka".into()),
            },
            other => {
                Error::Definition { message: format!("kafka client for topic '{}': {other}", self.topic), hint: None }
            }
        })
    }

    /// Says which thing at which broker did not go well.
    pub(super) fn failed(&self, what: &str, error: &KafkaError) -> Error {
        let reason = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve,
            ) => return self.unreachable(what, error),
            Some(code) => format!("{code}"),
            None => format!("{error}"),
        };
        Error::Unavailable(format!("kafka topic '{}' at {}: {what}: {reason}", self.topic, self.brokers))
    }

    pub(super) fn refused(&self, reason: &str) -> Error {
        Error::Unavailable(format!("kafka at {} does not let us read topic '{}': {reason}", self.brokers, self.topic))
    }

    pub(super) fn no_topic(&self) -> Error {
        Error::Missing(format!("kafka topic '{}' does not exist at {}", self.topic, self.brokers))
    }

    fn unreachable(&self, what: &str, error: &KafkaError) -> Error {
        let code = error.rdkafka_error_code().map_or_else(String::new, |code| format!(" ({code})"));
        Error::Unavailable(format!(
            "no kafka broker at {} answers within {:?}: {what} of topic '{}'{code}",
            self.brokers, self.timeout, self.topic
        ))
    }
}

/// Brings librdkafka's logs, errors and commit answers to `tracing`, its counters to the metrics.
#[derive(Debug)]
pub(super) struct Tracing {
    topic: String,
    /// What the metrics know already.
    counted: Mutex<Received>,
    /// Of each partition that is fetched the last stable offset and the end.
    ends: Mutex<BTreeMap<u32, (u64, u64)>>,
    /// Why a broker did not take our name and password.
    refused: Mutex<Option<String>>,
}

/// Of librdkafka's statistics, where partitions end.
#[derive(Debug, Default, serde::Deserialize)]
struct Topics {
    #[serde(default)]
    topics: BTreeMap<String, Partitions>,
}

#[derive(Debug, serde::Deserialize)]
struct Partitions {
    partitions: BTreeMap<i64, Ends>,
}

#[derive(Debug, serde::Deserialize)]
struct Ends {
    /// High watermark; negative when unknown.
    hi_offset: i64,
    /// Last stable offset; negative when unknown, and that of the last answer to a fetch otherwise.
    ls_offset: i64,
}

/// Of librdkafka's statistics, what a client has received from brokers since it began.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
struct Received {
    /// All bytes, as they came over the wire.
    rx_bytes: u64,
    /// Messages, and their bytes after decompression.
    rxmsgs: u64,
    rxmsg_bytes: u64,
}

impl Tracing {
    fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), counted: Mutex::default(), ends: Mutex::default(), refused: Mutex::default() }
    }

    /// The last stable offset of a partition and its end, as of the last statistics.
    pub(super) fn ends_of(&self, partition: u32) -> Option<(u64, u64)> {
        self.ends.lock().get(&partition).copied()
    }

    fn note_ends(&self, statistics: &[u8]) {
        let Ok(mut all) = serde_json::from_slice::<Topics>(statistics) else { return };
        let Some(topic) = all.topics.remove(&self.topic) else { return };
        let known = topic.partitions.into_iter().filter_map(|(partition, ends)| {
            let ends = (u64::try_from(ends.ls_offset).ok()?, u64::try_from(ends.hi_offset).ok()?);
            Some((u32::try_from(partition).ok()?, ends))
        });
        *self.ends.lock() = known.collect();
    }

    /// What a broker last said when it did not take our name and password.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// A broker took them.
    pub(super) fn let_in(&self) {
        *self.refused.lock() = None;
    }
}

impl ClientContext for Tracing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            // A broker that is away is reported by whoever waits for it; librdkafka repeats it for every try.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::trace!(target: "librdkafka", facility, "{message}")
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            *self.refused.lock() = Some(reason.to_owned());
        }
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.note_ends(statistics);
        let Ok(now) = serde_json::from_slice::<Received>(statistics) else { return };
        let before = std::mem::replace(&mut *self.counted.lock(), now);
        for (name, before, now) in [
            ("tidemill_kafka_received_bytes_total", before.rx_bytes, now.rx_bytes),
            ("tidemill_kafka_messages_total", before.rxmsgs, now.rxmsgs),
            ("tidemill_kafka_message_bytes_total", before.rxmsg_bytes, now.rxmsg_bytes),
        ] {
            metrics::counter!(name, "topic" => self.topic.clone()).increment(now.saturating_sub(before));
        }
    }
}

impl ConsumerContext for Tracing {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(target: "librdkafka", %error, "the consumer group did not take our offsets");
        }
    }
}
