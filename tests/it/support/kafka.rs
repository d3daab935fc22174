//! A Kafka to feed the server: the broker that `tests/run` started, or none.

use std::{collections::HashMap, env, fmt::Write as _, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
    producer::{BaseProducer, BaseRecord, Producer},
};

use super::server::runtime;

/// A broker's address, from `TIDEMILL_TEST_KAFKA`. Without one the test says so loudly and is skipped.
pub(crate) fn brokers(test: &str) -> Option<String> {
    let brokers = env::var("TIDEMILL_TEST_KAFKA").ok();
    if brokers.is_none() {
        println!("SKIPPED {test}: no Kafka broker (set TIDEMILL_TEST_KAFKA, or use tests/run)");
    }
    brokers
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a Kafka admin client")
}

pub(crate) fn create_topic(brokers: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    let results = runtime()
        .block_on(
            admin(brokers).create_topics([&new], &AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))),
        )
        .expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic}: {error}"));
    }
}

/// Returns when the topic is gone.
pub(crate) fn delete_topic(brokers: &str, topic: &str) {
    let results = runtime()
        .block_on(
            admin(brokers)
                .delete_topics(&[topic], &AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)))),
        )
        .expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic}: {error}"));
    }
}

/// A setting of a topic that is there.
pub(crate) fn set_topic(brokers: &str, topic: &str, key: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
    let results =
        runtime().block_on(admin(brokers).alter_configs([&change], &AdminOptions::new())).expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(of, error)| panic!("{of:?}: {error}"));
    }
}

pub(crate) fn add_partitions(brokers: &str, topic: &str, count: usize) {
    let results = runtime()
        .block_on(admin(brokers).create_partitions([&NewPartitions::new(topic, count)], &AdminOptions::new()))
        .expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic}: {error}"));
    }
}

/// Waits until a consumer group stands at `offset` in each of a topic's partitions.
pub(crate) fn wait_for_group(brokers: &str, group: &str, topic: &str, partitions: i32, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .create()
        .expect("a Kafka consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let mut found = Vec::new();
    for _ in 0..100 {
        let answer = consumer.committed_offsets(asked.clone(), Duration::from_secs(20)).expect("the broker answers");
        found = answer.elements().iter().map(|element| element.offset().to_raw()).collect();
        if found.iter().all(|found| *found == Some(offset)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("group {group} stands at {found:?} of topic {topic}, not at {offset}");
}

pub(crate) struct Feed {
    producer: BaseProducer,
    topic: String,
}

impl Feed {
    pub(crate) fn new(brokers: &str, topic: &str) -> Self {
        Self::with(brokers, topic, &HashMap::new())
    }

    pub(crate) fn with(brokers: &str, topic: &str, settings: &HashMap<&str, &str>) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "1000000")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "20000000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Self { producer: config.create().expect("a Kafka producer"), topic: topic.into() }
    }

    pub(crate) fn producer(&self) -> &BaseProducer {
        &self.producer
    }

    /// Queues one message; waits while the queue is full.
    pub(crate) fn send(&self, partition: i32, payload: &[u8]) {
        self.queue(|| BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition).payload(payload));
    }

    /// Queues one message without a value.
    pub(crate) fn send_tombstone(&self, partition: i32, key: &[u8]) {
        self.queue(|| BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition).key(key));
    }

    fn queue<'a>(&'a self, record: impl Fn() -> BaseRecord<'a, [u8], [u8]>) {
        loop {
            let record = record();
            match self.producer.send(record) {
                Ok(()) => return,
                Err((
                    rdkafka::error::KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull),
                    _,
                )) => {
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => panic!("producing to {}: {error}", self.topic),
            }
        }
    }

    /// Returns when the broker has everything.
    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_secs(120)).expect("the broker takes what was sent");
    }
}

/// The benchmark's JSON row: 10 columns, about 150 bytes, a function of its number.
pub(crate) fn order_json(out: &mut String, number: u64, ts_ms: i64) {
    const CITIES: [&str; 20] = [
        "San Francisco",
        "Los Angeles",
        "New York",
        "Chicago",
        "Houston",
        "Phoenix",
        "Boston",
        "Seattle",
        "Denver",
        "Austin",
        "Paris",
        "London",
        "Berlin",
        "Madrid",
        "Rome",
        "Tokyo",
        "Delhi",
        "Lima",
        "Cairo",
        "Lagos",
    ];
    const STATUS: [&str; 5] = ["placed", "accepted", "cooking", "delivered", "cancelled"];
    let mix = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 17;
    out.clear();
    write!(
        out,
        r#"{{"id":{number},"rest":{},"cust":{},"city":"{}","status":"{}","items":{},"price":{}.{:02},"tip":{:.1},"paid":{},"ts":{ts_ms}}}"#,
        mix % 5000,
        mix % 1_000_003,
        CITIES[(mix % 397 % 20) as usize],
        STATUS[(mix % 5) as usize],
        1 + mix % 9,
        5 + mix % 90,
        mix % 100,
        (mix % 50) as f64 / 10.0,
        if mix.is_multiple_of(3) { "true" } else { "false" },
    )
    .expect("writing to a string");
}

/// The columns of [`order_json`] for CREATE SOURCE and CREATE TABLE.
pub(crate) const ORDER_COLUMNS: &str = "id BIGINT, rest INT, cust INT, city TEXT, status TEXT, items INT, price NUMERIC(8,2), tip DOUBLE PRECISION, \
     paid BOOLEAN, ts TIMESTAMPTZ";

/// What a consumer of committed records gets.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) timestamp_ms: i64,
}

/// All records of a topic that are committed now.
pub(crate) fn committed(brokers: &str, topic: &str) -> Vec<Received> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test-readers")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a Kafka consumer");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).expect("the broker answers");
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    let (mut received, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(message)) => received.push(receive(&message)),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            other => panic!("topic {topic}: {other:?}"),
        }
    }
    received
}

pub(crate) fn receive(message: &rdkafka::message::BorrowedMessage<'_>) -> Received {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(text))).collect::<Vec<_>>()
    });
    Received {
        partition: message.partition(),
        key: message.key().map(text),
        value: message.payload().map(text).unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
    }
}
