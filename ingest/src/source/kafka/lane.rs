//! One partition of a topic while it is fetched.
//!
//! A poll empties the partition's queue into a growing batch and hands it over. Offsets that hold no message for us (transaction markers,
//! aborted and compacted messages) are covered by the batches' `from` and `to`: between two messages by the second one's offset,
//! behind the last by librdkafka's position, which follows the markers.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use rdkafka::{
    Message as _, Offset,
    consumer::{Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    client::{Endpoint, Tracing},
    connector::{topic_partitions, watermarks},
    fetcher::{FetchClient, KafkaFetcher},
};
use crate::{
    Error, Result,
    message::{Message, MessageBatch},
    source::share::{Caught, Lane},
};

/// Payload positions are 32 bits wide; a batch may go over its limit by one message, which is below 2 GiB.
const BATCH_BYTES_MAX: usize = 1 << 30;

pub(super) struct KafkaLane {
    endpoint: Endpoint,
    fetcher: Weak<KafkaFetcher>,
    client: Arc<FetchClient>,
    queue: PartitionQueue<Tracing>,
    partition: u32,
    /// First offset that no batch has spoken for.
    from: u64,
    /// First offset not yet seen; `from` unless the batch under way has something.
    next: u64,
    messages: Vec<Message>,
    payloads: Vec<u8>,
    /// An error that came after messages, told at the next poll.
    held: Option<Error>,
    /// The offset is not in the topic.
    out_of_range: bool,
    /// Told of a gap.
    ended: bool,
}

impl KafkaLane {
    pub(super) fn new(
        endpoint: Endpoint,
        fetcher: Weak<KafkaFetcher>,
        client: Arc<FetchClient>,
        queue: PartitionQueue<Tracing>,
        partition: u32,
        offset: u64,
    ) -> Self {
        Self {
            endpoint,
            fetcher,
            client,
            queue,
            partition,
            from: offset,
            next: offset,
            messages: Vec::new(),
            payloads: Vec::new(),
            held: None,
            out_of_range: false,
            ended: false,
        }
    }

    /// Moves what the queue holds into the batch, until the queue is empty (true) or the batch is full.
    fn drain(&mut self, max_messages: usize, max_bytes: usize) -> bool {
        while self.messages.len() < max_messages && self.payloads.len() < max_bytes {
            match self.queue.poll(Duration::ZERO) {
                None => return true,
                Some(Ok(message)) => push(&mut self.next, &mut self.payloads, &mut self.messages, &message),
                Some(Err(error)) => match code_of(&error) {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        self.out_of_range = true;
                        return false;
                    }
                    // librdkafka goes on by itself after these.
                    Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::BrokerTransportFailure) => {
                        tracing::debug!(%error, topic = self.endpoint.topic, "reading goes on");
                    }
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition,
                    ) => {
                        self.held = Some(self.endpoint.no_topic());
                        return false;
                    }
                    _ => {
                        self.held = Some(self.endpoint.failed("reading", &error));
                        return false;
                    }
                },
            }
        }
        false
    }

    /// Moves over what lies behind the last message.
    fn follow_markers(&mut self) {
        let Some(fetcher) = self.fetcher.upgrade() else { return };
        if let Some(position) = self.client.position(&self.endpoint, fetcher.clock(), self.partition) {
            self.next = self.next.max(position);
        }
    }

    /// Finds out why the offset is not there.
    fn find_out_of_range(&mut self) -> Result<Caught> {
        let there = watermarks(&self.endpoint, &self.client.client, self.partition)?;
        if self.next > there.high {
            return Err(Error::Definition {
                message: format!(
                    "partition {} of kafka topic '{}' ends at offset {}, but {} is the next to read",
                    self.partition, self.endpoint.topic, there.high, self.next
                ),
                hint: Some(
                    "the topic was made anew or lost messages: ALTER SOURCE … RESET OFFSETS TO 'earliest' reads it from its start"
                        .into(),
                ),
            });
        }
        if self.next < there.low {
            self.ended = true;
            return Ok(Caught::Gap { wanted: self.next, found: there.low });
        }
        // It is there after all.
        Ok(Caught::Broken)
    }
}

impl Lane for KafkaLane {
    fn poll(&mut self, max_messages: usize, max_bytes: usize) -> Result<Caught> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        if self.ended {
            return Ok(Caught::Nothing);
        }
        if self.client.has_strays() {
            return Ok(Caught::Broken);
        }
        if self.out_of_range {
            return self.find_out_of_range();
        }
        if self.drain(max_messages, max_bytes.min(BATCH_BYTES_MAX)) {
            self.follow_markers();
        }
        if self.next == self.from {
            return match self.held.take() {
                Some(error) => Err(error),
                None if self.out_of_range => self.find_out_of_range(),
                None => Ok(Caught::Nothing),
            };
        }
        let (messages, payloads) = (self.messages.len(), self.payloads.len());
        let batch = MessageBatch {
            partition: self.partition,
            payloads: std::mem::replace(&mut self.payloads, Vec::with_capacity(payloads)).into(),
            messages: std::mem::replace(&mut self.messages, Vec::with_capacity(messages)),
            from: self.from,
            to: self.next,
        };
        self.from = self.next;
        Ok(Caught::Messages(batch))
    }
}

impl Drop for KafkaLane {
    fn drop(&mut self) {
        let list = topic_partitions(&self.endpoint, std::iter::once((self.partition, Offset::Invalid)));
        let left = list.map(|list| self.client.client.incremental_unassign(&list));
        if let Ok(Err(error)) = left {
            tracing::debug!(%error, topic = self.endpoint.topic, "a partition could not be left");
        }
        if let Some(fetcher) = self.fetcher.upgrade() {
            fetcher.release(&self.client);
        }
    }
}

fn push(next: &mut u64, payloads: &mut Vec<u8>, messages: &mut Vec<Message>, message: &BorrowedMessage<'_>) {
    let Ok(offset) = u64::try_from(message.offset()) else { return };
    if offset < *next {
        return; // a compressed batch begins before the offset that was asked for
    }
    *next = offset + 1;
    let payload = message.payload();
    let start = payloads.len();
    payloads.extend_from_slice(payload.unwrap_or_default());
    messages.push(Message {
        payload: start as u32..payloads.len() as u32,
        is_null: payload.is_none(),
        offset,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
    });
}

pub(super) fn position(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

pub(super) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::PartitionEOF(_) => Some(RDKafkaErrorCode::PartitionEOF),
        other => other.rdkafka_error_code(),
    }
}
