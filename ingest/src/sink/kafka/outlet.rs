//! One pipeline's producer.

use std::{
    collections::BTreeSet,
    mem,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::{KafkaSinkOptions, topic};
use crate::{
    Error, Result,
    sink::{Delivery, Outlet, Place, Record, Undelivered},
};

/// Finding the coordinator of a transaction, and having it end that of another producer, may take some time.
const TAKE_OVER_MIN: Duration = Duration::from_secs(30);
/// Bytes of a batch and a record beside those of keys, values and headers.
const FRAMING_BYTES: usize = 256;
const FLUSH_TURN: Duration = Duration::from_millis(2);
/// Bytes that wait to be sent.
const QUEUE_KIB: &str = "65536";

pub(super) struct KafkaOutlet {
    options: KafkaSinkOptions,
    producer: BaseProducer<Reports>,
    /// `None` without transactions.
    group: Option<ConsumerGroupMetadata>,
    place: Option<Place>,
    message_bytes_max: usize,
    is_open: bool,
}

/// What became of records.
#[derive(Debug, Default)]
struct Reports {
    failed: Mutex<Option<KafkaError>>,
    /// Rows whose records a broker does not take for what they are, and why.
    refused: Mutex<(BTreeSet<u64>, Option<RDKafkaErrorCode>)>,
    taken: AtomicU64,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: usize) {
        match result {
            Ok(message) => {
                let _ = message.offset();
                self.taken.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(
                    code @ (RDKafkaErrorCode::MessageSizeTooLarge
                    | RDKafkaErrorCode::InvalidRecord
                    | RDKafkaErrorCode::InvalidTimestamp
                    | RDKafkaErrorCode::InvalidMessage),
                ) => {
                    let mut refused = self.refused.lock();
                    refused.0.insert(offset as u64);
                    refused.1.get_or_insert(code);
                }
                // What was not sent any more since something else failed.
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {}
                _ => _ = self.failed.lock().get_or_insert_with(|| error.clone()),
            },
        }
    }
}

/// The place as it is now; one of a transaction that is not committed yet is not waited for.
pub(super) fn peek(options: &KafkaSinkOptions, identity: &str) -> Result<Option<Place>> {
    let keeper = keeper(options, &id(options, identity), "read_uncommitted")?;
    place(options, &keeper, options.timeout)
}

/// The transactional id, and the name of the group.
fn id(options: &KafkaSinkOptions, identity: &str) -> String {
    format!("{}-{identity}", options.prefix)
}

/// A client for the group that keeps the place.
fn keeper(options: &KafkaSinkOptions, id: &str, isolation: &str) -> Result<BaseConsumer> {
    topic::config(options)
        .set("group.id", id)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|error| topic::refused(options, error))
}

fn place(options: &KafkaSinkOptions, keeper: &BaseConsumer, patience: Duration) -> Result<Option<Place>> {
    let failed =
        |error: KafkaError| topic::failed(options, "asking for the place that deliveries have reached", &error);
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&options.topic, 0);
    let told = keeper.committed_offsets(asked, patience).map_err(failed)?;
    let Some(element) = told.elements().into_iter().next() else { return Ok(None) };
    element.error().map_err(failed)?;
    let Offset::Offset(position) = element.offset() else { return Ok(None) };
    let position = u64::try_from(position).unwrap_or(0);
    Ok(Some(Place::noted(position, element.metadata())))
}

impl KafkaOutlet {
    pub(super) fn open(
        options: &KafkaSinkOptions,
        identity: &str,
        delivery: Delivery,
        alone: &BTreeSet<u64>,
    ) -> Result<Self> {
        topic::find(options)?;
        let message_bytes_max = topic::message_bytes_max(options);
        let id = id(options, identity);
        let mut config = topic::config(options);
        let defaults = [("linger.ms", "5"), ("compression.type", "lz4"), ("partitioner", "murmur2_random")];
        for (key, value) in defaults {
            if !options.properties.contains_key(key) {
                config.set(key, value);
            }
        }
        config
            .set("enable.idempotence", "true")
            .set("message.max.bytes", message_bytes_max.clamp(1000, 1_000_000_000).to_string())
            .set("batch.size", message_bytes_max.clamp(1, 1_000_000).to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("queue.buffering.max.messages", "200000");
        if !alone.is_empty() {
            config.set("batch.num.messages", "1");
        }
        let is_transactional = delivery == Delivery::ExactlyOnce;
        if is_transactional {
            let timeout_ms = options.transaction_timeout.as_millis().to_string();
            config.set("transactional.id", &id).set("transaction.timeout.ms", timeout_ms);
        }
        let producer: BaseProducer<Reports> =
            config.create_with_context(Reports::default()).map_err(|error| topic::refused(options, error))?;
        let mut outlet =
            Self { options: options.clone(), producer, group: None, place: None, message_bytes_max, is_open: false };
        if is_transactional {
            outlet.take_over(&id)?;
        }
        Ok(outlet)
    }

    fn take_over(&mut self, id: &str) -> Result<()> {
        let failed = |what: &str, error: &KafkaError| topic::failed(&self.options, what, error);
        let patience = self.options.timeout.max(TAKE_OVER_MIN);
        self.producer.init_transactions(patience).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::InvalidTransactionTimeout) => Error::Unavailable(format!(
                "kafka at {} does not take transaction_timeout = '{:?}'; its transaction.max.timeout.ms is less",
                self.options.brokers, self.options.transaction_timeout
            )),
            _ => failed("beginning transactions", &error),
        })?;
        // An offset whose transaction is being committed is waited for.
        let keeper = keeper(&self.options, id, "read_committed")?;
        self.place = place(&self.options, &keeper, patience)?;
        self.group = keeper.group_metadata();
        if self.group.is_none() {
            return Err(Error::Unavailable("librdkafka gives no consumer group to keep the place in".into()));
        }
        Ok(())
    }

    /// What failed of what was put.
    fn check(&self) -> Result<(), Undelivered> {
        let refused = mem::take(&mut *self.producer.context().refused.lock());
        if let (offsets, Some(code)) = refused {
            return Err(Undelivered::Refused { offsets, reason: format!("the broker refuses it: {code}") });
        }
        match self.producer.context().failed.lock().take() {
            Some(error) => Err(topic::failed(&self.options, "producing", &error).into()),
            None => Ok(()),
        }
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Undelivered {
        match self.check() {
            Err(undelivered) => undelivered,
            Ok(()) => {
                let told = topic::failed(&self.options, what, error);
                match error.rdkafka_error_code() {
                    Some(
                        RDKafkaErrorCode::Fenced
                        | RDKafkaErrorCode::ProducerFenced
                        | RDKafkaErrorCode::InvalidProducerEpoch,
                    ) => Undelivered::Again(Error::Unavailable(format!(
                        "{told}: the broker gave the transaction up after transaction_timeout, or another server delivers under the same identity"
                    ))),
                    _ => told.into(),
                }
            }
        }
    }

    /// Returns when everything that was put is there. Not by the producer's own way, which looks every 100 ms whether it is.
    fn flush(&self, patience: Duration) -> Result<(), Undelivered> {
        let mut turns = patience.as_millis() / FLUSH_TURN.as_millis();
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(FLUSH_TURN);
            self.check()?;
            turns = turns.saturating_sub(1);
            if turns == 0 {
                let error = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.failed("producing", &error));
            }
        }
        self.check()
    }

    fn begin(&mut self) -> Result<(), Undelivered> {
        if !self.is_open && self.group.is_some() {
            self.producer.begin_transaction().map_err(|error| self.failed("beginning a transaction", &error))?;
            self.is_open = true;
        }
        Ok(())
    }
}

impl Outlet for KafkaOutlet {
    fn place(&self) -> Option<Place> {
        self.place.clone()
    }

    fn refuses(&self, record: &Record<'_>) -> Option<String> {
        let bytes = record.bytes() + FRAMING_BYTES;
        (bytes > self.message_bytes_max).then(|| {
            format!(
                "a record of {bytes} bytes is too large: topic '{}' takes {} (max.message.bytes)",
                self.options.topic, self.message_bytes_max
            )
        })
    }

    fn put(&mut self, offset: u64, record: &Record<'_>) -> Result<(), Undelivered> {
        self.begin()?;
        loop {
            let mut made = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.options.topic, offset as usize)
                .payload(record.value);
            made.key = record.key;
            made.timestamp = record.timestamp_ms;
            if !record.headers.is_empty() {
                let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
                for (name, value) in record.headers {
                    headers = headers.insert(Header { key: name, value: value.as_deref() });
                }
                made.headers = Some(headers);
            }
            match self.producer.send(made) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(50));
                    self.check()?;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    let reason = "librdkafka refuses it: it is larger than message.max.bytes".to_owned();
                    return Err(Undelivered::Refused { offsets: BTreeSet::from([offset]), reason });
                }
                Err((error, _)) => return Err(self.failed("producing", &error)),
            }
        }
    }

    fn commit(&mut self, place: &Place) -> Result<(), Undelivered> {
        let patience = self.options.transaction_timeout.max(self.options.timeout);
        self.begin()?;
        self.flush(patience)?;
        let Some(group) = &self.group else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.options.topic, 0);
        let what = "keeping the place that deliveries have reached";
        element
            .set_offset(Offset::Offset(place.position as i64))
            .map_err(|error| topic::failed(&self.options, what, &error))?;
        element.set_metadata(place.note());
        self.producer.send_offsets_to_transaction(&list, group, patience).map_err(|error| self.failed(what, &error))?;
        fail::fail_point!("sink::before_commit", |_| Err(
            Error::Unavailable("failpoint sink::before_commit".into()).into()
        ));
        self.producer.commit_transaction(patience).map_err(|error| self.failed("committing a transaction", &error))?;
        self.is_open = false;
        self.place = Some(place.clone());
        fail::fail_point!("sink::after_commit", |_| Err(
            Error::Unavailable("failpoint sink::after_commit".into()).into()
        ));
        Ok(())
    }
}
