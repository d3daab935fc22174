//! Whether a topic is still the one that was read: the last message that was read of each partition is fetched once more.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Message as _,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};
use tidemill_storage::clock::Clock;

use super::{
    client::{Client, Endpoint},
    connector::{topic_partitions, watermarks},
    lane::{code_of, position},
};
use crate::{
    Result,
    landmark::{Landmark, Place, Recognition},
};

/// How long one wait for messages is, so that the time limit is kept.
const WAIT: Duration = Duration::from_millis(100);

/// Partitions that do not answer in time are not in the answer; an error when none does. Costs a message of each, and a client.
pub(super) fn recognize(
    endpoint: &Endpoint,
    asking: &Client,
    clock: &dyn Clock,
    places: &BTreeMap<u32, Place>,
) -> Result<BTreeMap<u32, Recognition>> {
    let mut answers = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    let mut failure = None;
    for (partition, place) in places {
        match watermarks(endpoint, asking, *partition) {
            Ok(there) if there.high < place.position => _ = answers.insert(*partition, Recognition::Short),
            Ok(there) if there.low > place.landmark.offset => _ = answers.insert(*partition, Recognition::Gone),
            Ok(_) => _ = wanted.insert(*partition, *place),
            Err(error) => failure = Some(error),
        }
    }
    if !wanted.is_empty() {
        fetch(endpoint, clock, &mut wanted, &mut answers)?;
    }
    match failure {
        Some(error) if answers.is_empty() => Err(error),
        _ => Ok(answers),
    }
}

fn fetch(
    endpoint: &Endpoint,
    clock: &dyn Clock,
    wanted: &mut BTreeMap<u32, Place>,
    answers: &mut BTreeMap<u32, Recognition>,
) -> Result<()> {
    let client = endpoint.client_for_single_messages()?;
    let offsets = wanted.iter().map(|(partition, place)| (*partition, position(place.landmark.offset)));
    client
        .assign(&topic_partitions(endpoint, offsets)?)
        .map_err(|error| endpoint.failed("fetching the messages that were read last", &error))?;
    let deadline_us = clock.monotonic_us() + endpoint.timeout.as_micros() as i64;
    while !wanted.is_empty() && clock.monotonic_us() < deadline_us {
        match client.poll(WAIT) {
            None => {}
            Some(Ok(message)) => {
                let (Ok(partition), Ok(offset)) = (u32::try_from(message.partition()), u64::try_from(message.offset()))
                else {
                    continue;
                };
                let Some(place) = wanted.get(&partition) else { continue };
                // A compressed batch begins before the offset that was asked for.
                if offset >= place.landmark.offset {
                    let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
                    let found = Landmark::new(offset, timestamp_ms, message.payload());
                    answers.insert(partition, place.recognize(&found));
                    wanted.remove(&partition);
                }
            }
            // Nothing but markers and holes from there on.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some((partition, _)) = u32::try_from(partition).ok().and_then(|one| wanted.remove_entry(&one)) {
                    answers.insert(partition, Recognition::Gone);
                }
            }
            Some(Err(error)) => match code_of(&error) {
                // A broker that comes back, a message that went just now: who has no answer asks again.
                Some(
                    RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange,
                ) => tracing::debug!(%error, topic = endpoint.topic, "fetching the last message again"),
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition,
                ) => return Err(endpoint.no_topic()),
                _ => return Err(endpoint.failed("fetching the messages that were read last", &error)),
            },
        }
    }
    Ok(())
}
