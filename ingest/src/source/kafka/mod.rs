//! Kafka topics, read with explicit partition assignment and offsets of our own.
//!
//! ```text
//! KafkaConnector ── one idle client: metadata, watermarks, times, the consumer group's mirror of our offsets
//!   └─ open ─► Share ── readers of all tables; each partition is fetched once for those that are at about the same place
//!                └─ KafkaFetcher ── consuming clients ── KafkaLane: one partition with a queue of its own
//! ```
//!
//! What always holds: librdkafka never chooses an offset (`auto.offset.reset=error`) and never stores one; what the group's committed
//! offsets say is advice for people and tools. An offset that the topic no longer has is told as a gap; one that the topic does not have
//! yet means that it is another topic than the one we read, and stops the source. No call waits longer than the option `timeout`
//! for each thing it asks a broker.

mod client;
mod connector;
mod fetcher;
mod lane;
mod options;
mod progress;
mod recognition;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::options::flink_start;
pub use self::options::{Isolation, KafkaOptions};
pub(crate) use self::options::{check_security, is_topic, parse_duration, take_topic};
use self::{client::Endpoint, connector::KafkaConnector};
use super::{ConnectContext, Connector};
use crate::Result;

/// A connector for one topic. Fails on settings that librdkafka refuses; waits for no broker.
pub(super) fn connect(options: &KafkaOptions, context: &ConnectContext) -> Result<Arc<dyn Connector>> {
    let group = options.group.clone().unwrap_or_else(|| format!("tidemill-{}", context.name));
    Ok(Arc::new(KafkaConnector::new(Endpoint::new(options, group), Arc::clone(&context.clock))?))
}
