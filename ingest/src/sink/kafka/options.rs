//! WITH options of a Kafka sink.
//!
//! | option | meaning |
//! |---|---|
//! | `brokers` (or `properties.bootstrap.servers`), `topic`, `timeout` | as those of a source |
//! | `create_topic` | `true` makes the topic when it is not there, with `partitions` (1) and `replication` (the broker's default) |
//! | `transaction_timeout` | after how long the broker gives up a transaction of a server that is silent: `60s` by default; it must not be above the broker's `transaction.max.timeout.ms` |
//! | `transactional_id_prefix` | how the names of transactions and of the consumer group that keeps the place begin: `tidemill` by default, for brokers with access lists |
//! | `properties.<key>` | any other setting of librdkafka, except those that exactly-once stands on |

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    Error, Result,
    source::{
        OptionReader,
        kafka::{check_security, is_topic, take_topic},
        parse_duration, wrong,
    },
};

/// Settings that exactly-once stands on; refused as `properties.…`.
const HELD: [&str; 9] = [
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "group.id",
    "isolation.level",
];

/// Its `Debug` form has the names of `properties` alone: values may be passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSinkOptions {
    pub brokers: String,
    pub topic: String,
    /// How long a call waits for a broker's answer.
    pub timeout: Duration,
    /// To make the topic with: partitions, and replicas where they are given.
    pub create: Option<(i32, Option<i32>)>,
    pub transaction_timeout: Duration,
    pub prefix: String,
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaSinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { brokers, topic, properties, .. } = self;
        f.debug_struct("KafkaSinkOptions")
            .field("brokers", brokers)
            .field("topic", topic)
            .field("properties", &properties.keys())
            .finish_non_exhaustive()
    }
}

impl KafkaSinkOptions {
    pub(in crate::sink) fn take(options: &mut OptionReader) -> Result<Self> {
        let mut properties = options.prefixed("properties.");
        let (brokers, topic) = take_topic(options, &mut properties)?;
        let time = |options: &mut OptionReader, key: &'static str, default: Duration, max_ms: u128, wanted: &str| {
            match options.text(key) {
                None => Ok(default),
                Some(text) => parse_duration(&text)
                    .filter(|time| (100..=max_ms).contains(&time.as_millis()))
                    .ok_or_else(|| wrong(key, &text, wanted)),
            }
        };
        let seconds = Duration::from_secs;
        let timeout = time(options, "timeout", seconds(5), 300_000, "a time between 100ms and 300s, as in 5s")?;
        let wanted = "a time between 100ms and 15min, as in 60s";
        let transaction_timeout = time(options, "transaction_timeout", seconds(60), 900_000, wanted)?;
        let is_made = options.boolean("create_topic")?.unwrap_or(false);
        let partitions = options.value("partitions", "a number from 1 to 10000", |n: &i32| (1..=10_000).contains(n))?;
        let replication = options.value("replication", "a number from 1 to 100", |n: &i32| (1..=100).contains(n))?;
        let prefix = options.text("transactional_id_prefix").unwrap_or_else(|| "tidemill".into());
        if !is_topic(&prefix) || prefix.len() > 100 {
            let wanted = "at most 100 letters, digits, dots, underscores and hyphens";
            return Err(wrong("transactional_id_prefix", &prefix, wanted));
        }
        if let Some(held) = properties.keys().find(|key| HELD.contains(&key.as_str())) {
            return Err(Error::Definition {
                message: format!("option 'properties.{held}' cannot be set: delivery stands on it"),
                hint: Some("use 'delivery', 'transaction_timeout' and 'transactional_id_prefix'".into()),
            });
        }
        check_security(&properties)?;
        let create = is_made.then(|| (partitions.unwrap_or(1), replication));
        Ok(Self { brokers, topic, timeout, create, transaction_timeout, prefix, properties })
    }
}
