//! One thread's way through some partitions of a topic.
//!
//! Messages of all partitions come out of one queue, in runs; a poll empties the queue into one growing batch per partition and
//! hands the batches over. Offsets that hold no message for us (transaction markers, aborted and compacted messages) are
//! covered by the batches' `from` and `to`: between two messages by the second one's offset, behind the last by librdkafka's position, which follows
//! the markers.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Message as _, Offset,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use super::{
    client::{Client, Endpoint},
    connector::{topic_partitions, watermarks},
};
use crate::{
    Error, Result,
    message::{Message, MessageBatch},
    source::{Fetched, Reader},
};

/// Payload positions are 32 bits wide; a batch may go over its limit by one message, which is below 2 GiB.
const BATCH_BYTES_MAX: usize = 1 << 30;

pub(super) struct KafkaReader {
    endpoint: Endpoint,
    client: Client,
    lanes: Vec<Lane>,
    /// An error that came after messages, told at the next poll.
    held: Option<Error>,
    /// Some partition's offset is not in the topic; which one has to be found out.
    out_of_range: bool,
}

/// One partition being read.
struct Lane {
    partition: u32,
    /// First offset that no batch has spoken for.
    from: u64,
    /// First offset not yet seen; `from` unless the batch under way has something.
    next: u64,
    /// Told of a gap and not yet sent elsewhere.
    stopped: bool,
    messages: Vec<Message>,
    payloads: Vec<u8>,
}

impl Lane {
    fn at(partition: u32, offset: u64) -> Self {
        Self { partition, from: offset, next: offset, stopped: false, messages: Vec::new(), payloads: Vec::new() }
    }

    fn push(&mut self, message: &BorrowedMessage<'_>) {
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        if offset < self.next || self.stopped {
            return; // fetched before a seek
        }
        self.next = offset + 1;
        let payload = message.payload();
        let start = self.payloads.len();
        self.payloads.extend_from_slice(payload.unwrap_or_default());
        self.messages.push(Message {
            payload: start as u32..self.payloads.len() as u32,
            is_null: payload.is_none(),
            offset,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        });
    }

    fn take(&mut self) -> Option<Fetched> {
        if self.next == self.from {
            return None;
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
        Some(Fetched::Messages(batch))
    }
}

impl KafkaReader {
    pub(super) fn new(endpoint: Endpoint, positions: &BTreeMap<u32, u64>) -> Result<Self> {
        let client = endpoint.client()?;
        let lanes = positions.iter().map(|(partition, offset)| Lane::at(*partition, *offset)).collect();
        let reader = Self { endpoint, client, lanes, held: None, out_of_range: false };
        let list =
            topic_partitions(&reader.endpoint, reader.lanes.iter().map(|lane| (lane.partition, position(lane.next))))?;
        reader.client.assign(&list).map_err(|error| reader.endpoint.failed("assigning partitions", &error))?;
        Ok(reader)
    }

    /// Moves what the queue holds into the lanes, until it is empty (true) or a lane is full.
    fn drain(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> bool {
        let Self { client, lanes, endpoint, held, out_of_range } = self;
        let mut wait = timeout;
        // Messages come in runs of one partition: look where the last one went first.
        let mut last = 0;
        loop {
            match client.poll(wait) {
                None => return true,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    if lanes.get(last).is_none_or(|lane| i64::from(lane.partition) != i64::from(partition)) {
                        let found = lanes.iter().position(|lane| i64::from(lane.partition) == i64::from(partition));
                        let Some(found) = found else { continue };
                        last = found;
                    }
                    let lane = &mut lanes[last];
                    lane.push(&message);
                    if lane.messages.len() >= max_messages || lane.payloads.len() >= max_bytes {
                        return false;
                    }
                }
                Some(Err(error)) => match code_of(&error) {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        *out_of_range = true;
                        return false;
                    }
                    // librdkafka goes on by itself after these.
                    Some(RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::BrokerTransportFailure) => {
                        tracing::debug!(%error, topic = endpoint.topic, "reading goes on");
                    }
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition,
                    ) => {
                        *held = Some(endpoint.no_topic());
                        return false;
                    }
                    _ => {
                        *held = Some(endpoint.failed("reading", &error));
                        return false;
                    }
                },
            }
            wait = Duration::ZERO;
        }
    }

    /// Moves the lanes over what lies behind their last message.
    fn follow_markers(&mut self) {
        let Ok(positions) = self.client.position() else { return };
        for element in positions.elements_for_topic(&self.endpoint.topic) {
            let Offset::Offset(offset) = element.offset() else { continue };
            let lane = self.lanes.iter_mut().find(|lane| i64::from(lane.partition) == i64::from(element.partition()));
            if let (Some(lane), Ok(offset)) = (lane, u64::try_from(offset))
                && !lane.stopped
            {
                lane.next = lane.next.max(offset);
            }
        }
    }

    /// Finds the partitions whose offset is not there, and says what became of them.
    fn find_out_of_range(&mut self) -> Result<Vec<Fetched>> {
        let mut gaps = Vec::new();
        for lane in self.lanes.iter_mut().filter(|lane| !lane.stopped) {
            let there = watermarks(&self.endpoint, &self.client, lane.partition)?;
            if lane.next > there.high {
                return Err(Error::Definition {
                    message: format!(
                        "partition {} of kafka topic '{}' ends at offset {}, but {} is the next to read",
                        lane.partition, self.endpoint.topic, there.high, lane.next
                    ),
                    hint: Some("the topic was made anew or lost messages: drop the source and create it again to read it from its start".into()),
                });
            }
            if lane.next < there.low {
                lane.stopped = true;
                gaps.push(Fetched::Gap { partition: lane.partition, wanted: lane.next, found: there.low });
            } else {
                // Not this one, or no longer: begin again where it stands, which costs what was fetched ahead.
                restart(&self.endpoint, &self.client, lane.partition, lane.next)?;
            }
        }
        self.out_of_range = false;
        Ok(gaps)
    }
}

impl Reader for KafkaReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        if self.out_of_range {
            return self.find_out_of_range();
        }
        if self.drain(max_messages.max(1), max_bytes.clamp(1, BATCH_BYTES_MAX), timeout) {
            self.follow_markers();
        }
        let fetched: Vec<Fetched> = self.lanes.iter_mut().filter_map(Lane::take).collect();
        if fetched.is_empty() {
            if let Some(error) = self.held.take() {
                return Err(error);
            }
            if self.out_of_range {
                return self.find_out_of_range();
            }
        }
        Ok(fetched)
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.partition == partition) else {
            return Err(Error::Unavailable(format!(
                "partition {partition} of kafka topic '{}' is not being read",
                self.endpoint.topic
            )));
        };
        restart(&self.endpoint, &self.client, partition, offset)?;
        *lane = Lane::at(partition, offset);
        Ok(())
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        if self.lanes.iter().any(|lane| lane.partition == partition) {
            return self.seek(partition, offset);
        }
        let list = topic_partitions(&self.endpoint, std::iter::once((partition, position(offset))))?;
        self.client
            .incremental_assign(&list)
            .map_err(|error| self.endpoint.failed(&format!("assigning partition {partition}"), &error))?;
        self.lanes.push(Lane::at(partition, offset));
        Ok(())
    }
}

/// Goes on at `offset` in a partition that is assigned.
fn restart(endpoint: &Endpoint, client: &Client, partition: u32, offset: u64) -> Result<()> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    if client.seek(&endpoint.topic, number, position(offset), endpoint.timeout).is_ok() {
        return Ok(());
    }
    // A partition that is not being fetched (it was out of range, or is just being assigned) cannot be sought in.
    let list = topic_partitions(endpoint, std::iter::once((partition, position(offset))))?;
    let failed = |error| endpoint.failed(&format!("going to offset {offset} of partition {partition}"), &error);
    client.incremental_unassign(&list).map_err(failed)?;
    client.incremental_assign(&list).map_err(failed)
}

fn position(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::PartitionEOF(_) => Some(RDKafkaErrorCode::PartitionEOF),
        other => other.rdkafka_error_code(),
    }
}
