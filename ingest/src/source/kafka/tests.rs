//! Against librdkafka's mock cluster always; against a real Kafka when `TIDEMILL_TEST_KAFKA` names one (the mock keeps neither transactions
//! nor deleted records).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidemill_storage::{
    clock::SystemClock,
    ids::{SourceId, TableId},
};

use super::*;
use crate::{
    Error,
    landmark::{Landmark, Place, Recognition},
    source::{Fetched, Reader, SourceOptions, Start},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn options(pairs: &[(&str, &str)]) -> SourceOptions {
    let common = [("connector", "kafka"), ("topic", "t"), ("timeout", "10s")];
    let all: BTreeMap<String, String> =
        common.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    SourceOptions::parse(&all).unwrap()
}

fn connector(pairs: &[(&str, &str)]) -> Arc<dyn Connector> {
    let context = ConnectContext {
        source: SourceId(1),
        name: "orders".into(),
        columns: Vec::new(),
        clock: Arc::new(SystemClock::default()),
        log: None,
    };
    options(pairs).connect(&context).unwrap().connector
}

fn producer(brokers: &str, more: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("message.max.bytes", "20000000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, payload: Option<&[u8]>) {
    let record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
    let record = match payload {
        Some(payload) => record.payload(payload),
        None => record,
    };
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

/// Payloads and offsets of one partition, until `count` messages or offset `to` are there.
fn read(
    reader: &mut dyn Reader,
    partition: u32,
    until: impl Fn(&[(u64, Vec<u8>)], u64) -> bool,
) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    let mut at = None;
    for _ in 0..200 {
        for fetched in reader.poll(10_000, 64 << 20, Duration::from_millis(200)).unwrap() {
            let Fetched::Messages(batch) = fetched else { panic!("{fetched:?}") };
            if batch.partition != partition {
                continue;
            }
            assert!(at.is_none_or(|at| at == batch.from), "batches continue each other");
            let mut last = batch.from;
            for message in &batch.messages {
                assert!((last..batch.to).contains(&message.offset));
                last = message.offset + 1;
                all.push((message.offset, batch.payload(message).to_vec()));
            }
            at = Some(batch.to);
        }
        if until(&all, at.unwrap_or(0)) {
            return all;
        }
    }
    panic!("only {} messages, up to {at:?}", all.len());
}

#[test]
fn reads_partitions_from_given_offsets_and_adds_one() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer = producer(&brokers, &[]);
    for n in 0..300u32 {
        send(&producer, "t", (n % 3) as i32, Some(format!("m{}", n / 3).as_bytes()));
    }
    send(&producer, "t", 0, None);
    producer.flush(PATIENCE).unwrap();

    let connector = connector(&[("brokers", &brokers)]);
    assert_eq!(connector.partitions().unwrap(), [0, 1, 2]);
    let watermarks = connector.watermarks(0).unwrap();
    assert_eq!((watermarks.low, watermarks.high), (0, 101));
    let resolve = |start| connector.resolve(&start, &[0, 1]).unwrap();
    assert_eq!(resolve(Start::Earliest), BTreeMap::from([(0, 0), (1, 0)]));
    assert_eq!(resolve(Start::Latest), BTreeMap::from([(0, 101), (1, 100)]));
    assert_eq!(resolve(Start::Offsets(BTreeMap::from([(1, 7)]))), BTreeMap::from([(0, 0), (1, 7)]));

    let mut reader = connector.open(&BTreeMap::from([(0, 90)])).unwrap();
    let got = read(reader.as_mut(), 0, |all, _| all.len() >= 11);
    let wanted: Vec<_> = (90..100u64).map(|n| (n, format!("m{n}").into_bytes())).chain([(100, Vec::new())]).collect();
    assert_eq!(got, wanted);
    reader.add(1, 98).unwrap();
    assert_eq!(read(reader.as_mut(), 1, |all, _| all.len() >= 2).len(), 2);
    reader.seek(0, 99).unwrap();
    assert_eq!(read(reader.as_mut(), 0, |all, _| all.len() >= 2)[0], (99, b"m99".to_vec()));
}

#[test]
fn keeps_to_the_limits_of_a_poll() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer = producer(&brokers, &[("compression.type", "zstd")]);
    for _ in 0..100 {
        send(&producer, "t", 0, Some(&[7; 100]));
    }
    producer.flush(PATIENCE).unwrap();
    let mut reader = connector(&[("brokers", &brokers)]).open(&BTreeMap::from([(0, 0)])).unwrap();
    let mut seen = 0;
    while seen < 100 {
        for fetched in reader.poll(30, 1000, PATIENCE).unwrap() {
            let Fetched::Messages(batch) = fetched else { panic!("{fetched:?}") };
            assert!(batch.messages.len() <= 10);
            assert_eq!(batch.payloads.len(), batch.messages.len() * 100);
            seen += batch.messages.len();
        }
    }
    assert_eq!(seen, 100);
}

#[test]
fn tells_what_is_gone_and_what_cannot_be() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer = producer(&brokers, &[]);
    // The mock keeps 5 MiB of a partition.
    for n in 0..200u32 {
        let mut payload = vec![b'x'; 100_000];
        payload[..4].copy_from_slice(&n.to_le_bytes());
        send(&producer, "t", 0, Some(&payload));
        producer.flush(PATIENCE).unwrap();
    }
    let connector = connector(&[("brokers", &brokers)]);
    let low = connector.watermarks(0).unwrap().low;
    assert!(low > 0);

    let mut reader = connector.open(&BTreeMap::from([(0, 3)])).unwrap();
    let gap = (0..100).find_map(|_| reader.poll(100, 1 << 20, Duration::from_millis(200)).unwrap().pop()).unwrap();
    assert!(matches!(gap, Fetched::Gap { partition: 0, wanted: 3, found } if found == low), "{gap:?}");
    assert!(reader.poll(100, 1 << 20, Duration::from_millis(100)).unwrap().is_empty(), "nothing before a seek");
    reader.seek(0, low).unwrap();
    assert_eq!(read(reader.as_mut(), 0, |_, to| to == 200)[0].0, low);

    let mut beyond = connector.open(&BTreeMap::from([(0, 10_000)])).unwrap();
    let error = (0..100).find_map(|_| beyond.poll(100, 1 << 20, Duration::from_millis(200)).err()).unwrap();
    let Error::Definition { message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("ends at offset 200, but 10000"), "{message}");
}

/// What discovery asks: the topic that was read, or another one of its name.
#[test]
fn recognizes_the_topic_by_the_last_message_that_was_read() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let producer = producer(&brokers, &[]);
    for n in 0..40 {
        send(&producer, "t", n % 4, (n < 36).then(|| format!("m{n}")).as_deref().map(str::as_bytes));
    }
    producer.flush(PATIENCE).unwrap();
    let connector = connector(&[("brokers", &brokers)]);
    let mut reader = connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let mut batches = Vec::new();
    while batches.last().is_none_or(|batch: &crate::message::MessageBatch| batch.to < 10) {
        for fetched in reader.poll(100, 1 << 20, PATIENCE).unwrap() {
            let Fetched::Messages(batch) = fetched else { panic!("{fetched:?}") };
            batches.push(batch);
        }
    }
    let last = |to| batches.iter().rev().find_map(|batch| Landmark::last_below(batch, to)).unwrap();
    let place = |landmark, position| Place { landmark, position };
    let (seventh, tenth) = (last(8), last(10));
    assert_eq!((seventh.offset, seventh.bytes, tenth.bytes), (7, Some(3), None));
    let ask = |places: &[Place]| -> Vec<Recognition> {
        let places: BTreeMap<u32, Place> = (0..).zip(places.iter().copied()).collect();
        connector.recognize(&places).unwrap().into_values().collect()
    };
    use Recognition::{Other, Same, Short};
    assert_eq!(ask(&[place(seventh, 8)]), [Same]);
    // The messages of other partitions differ.
    let asked = ask(&[place(tenth, 10), place(seventh, 8), place(tenth, 11), place(seventh, 10)]);
    assert!(matches!(&asked[..], [Same, Other(_), Short, Other(_)]), "{asked:?}");
}

#[test]
fn names_the_topic_and_the_broker_that_are_not_there() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("other", 1, 1).unwrap();
    let unreachable = connector(&[("brokers", "127.0.0.1:1"), ("timeout", "300ms")]);
    for error in [unreachable.partitions().unwrap_err(), unreachable.watermarks(0).unwrap_err()] {
        assert!(matches!(error, Error::Unavailable(_)));
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
    let brokers = cluster.bootstrap_servers();
    let context = ConnectContext {
        source: SourceId(1),
        name: "s".into(),
        columns: Vec::new(),
        clock: Arc::new(SystemClock::default()),
        log: None,
    };
    let wrong = options(&[("brokers", &brokers), ("properties.no.such.key", "1")]).connect(&context).unwrap_err();
    assert!(wrong.to_string().contains("properties.no.such.key"), "{wrong}");
}

#[test]
fn mirrors_committed_offsets_to_the_group() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let connector = connector(&[("brokers", &brokers), ("group", "g")]);
    let producer = producer(&brokers, &[]);
    for _ in 0..10 {
        send(&producer, "t", 0, Some(b"x"));
    }
    producer.flush(PATIENCE).unwrap();
    connector.committed(TableId(1), &BTreeMap::from([(0, 6)]));
    let committed =
        (0..100).map(|_| connector.resolve(&Start::Committed, &[0, 1]).unwrap()).find(|found| found[&0] != 0);
    assert_eq!(committed.unwrap(), BTreeMap::from([(0, 6), (1, 0)]));
    // Another table is behind, and what the first one commits after that is not yet safe for both.
    connector.committed(TableId(2), &BTreeMap::from([(0, 3)]));
    connector.committed(TableId(1), &BTreeMap::from([(0, 9)]));
    let committed = (0..100).map(|_| connector.resolve(&Start::Committed, &[0]).unwrap()).find(|found| found[&0] != 6);
    assert_eq!(committed.unwrap(), BTreeMap::from([(0, 3)]));
    connector.forget(TableId(2));
    let committed = (0..100).map(|_| connector.resolve(&Start::Committed, &[0]).unwrap()).find(|found| found[&0] != 3);
    assert_eq!(committed.unwrap(), BTreeMap::from([(0, 9)]));
}

// ---- real Kafka ----

struct Real {
    brokers: String,
    topic: String,
    admin: AdminClient<DefaultClientContext>,
}

static TOPICS: AtomicU64 = AtomicU64::new(0);

/// A new topic in the real Kafka, where there is one.
fn real(partitions: i32) -> Option<Real> {
    let Ok(brokers) = std::env::var("TIDEMILL_TEST_KAFKA") else {
        #[expect(clippy::disallowed_macros, reason = "a test that did not run says so")]
        {
            eprintln!("SKIPPED: TIDEMILL_TEST_KAFKA names no broker");
        }
        return None;
    };
    let topic = format!("sources-{}-{}", std::process::id(), TOPICS.fetch_add(1, Ordering::Relaxed));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", "20000000");
    let done = futures::executor::block_on(admin.create_topics(&[new], &AdminOptions::new())).unwrap();
    done[0].as_ref().unwrap();
    Some(Real { brokers, topic, admin })
}

impl Real {
    fn connector(&self, more: &[(&str, &str)]) -> Arc<dyn Connector> {
        connector(&[&[("brokers", self.brokers.as_str()), ("topic", self.topic.as_str())], more].concat())
    }
}

#[test]
fn real_aborted_transactions_stay_unseen_and_markers_are_passed() {
    let Some(kafka) = real(1) else { return };
    let producer = producer(&kafka.brokers, &[("transactional.id", &kafka.topic)]);
    producer.init_transactions(PATIENCE).unwrap();
    for (payload, commit) in [("a", true), ("lost", false), ("b", true), ("lost too", false)] {
        producer.begin_transaction().unwrap();
        for _ in 0..3 {
            send(&producer, &kafka.topic, 0, Some(payload.as_bytes()));
        }
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
    // Four transactions of three messages and a marker each.
    let connector = kafka.connector(&[]);
    assert_eq!(connector.watermarks(0).unwrap().high, 16);
    let mut reader = connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let seen = read(reader.as_mut(), 0, |_, to| to == 16);
    let payloads: Vec<_> = seen.iter().map(|(offset, payload)| (*offset, payload.as_slice())).collect();
    assert_eq!(payloads, [(0, b"a".as_slice()), (1, b"a"), (2, b"a"), (8, b"b"), (9, b"b"), (10, b"b")]);

    // What is not committed yet is not there yet.
    producer.begin_transaction().unwrap();
    send(&producer, &kafka.topic, 0, Some(b"later"));
    producer.flush(PATIENCE).unwrap();
    assert_eq!(connector.watermarks(0).unwrap().high, 16);
    assert!(reader.poll(100, 1 << 20, Duration::from_millis(500)).unwrap().is_empty());
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(read(reader.as_mut(), 0, |_, to| to == 18), [(16, b"later".to_vec())]);

    let uncommitted = kafka.connector(&[("isolation", "read_uncommitted")]);
    let mut reader = uncommitted.open(&BTreeMap::from([(0, 0)])).unwrap();
    assert_eq!(read(reader.as_mut(), 0, |_, to| to == 18).len(), 13);
}

#[test]
fn real_retention_gap_new_partitions_big_messages_and_lag() {
    let Some(kafka) = real(1) else { return };
    let producer = producer(&kafka.brokers, &[]);
    for n in 0..100 {
        send(&producer, &kafka.topic, 0, Some(format!("{n}").as_bytes()));
    }
    send(&producer, &kafka.topic, 0, Some(&vec![b'z'; 10_000_000]));
    producer.flush(PATIENCE).unwrap();
    let connector = kafka.connector(&[("group", &kafka.topic)]);
    let mut reader = connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let all = read(reader.as_mut(), 0, |all, _| all.len() == 101);
    assert_eq!(all[100].1.len(), 10_000_000);

    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&kafka.topic, 0, rdkafka::Offset::Offset(40)).unwrap();
    futures::executor::block_on(kafka.admin.delete_records(&list, &AdminOptions::new())).unwrap();
    // Readers of the same connector still have the messages in their window.
    let mut late = kafka.connector(&[]).open(&BTreeMap::from([(0, 10)])).unwrap();
    let gap = (0..100).find_map(|_| late.poll(100, 1 << 20, Duration::from_millis(200)).unwrap().pop()).unwrap();
    assert!(matches!(gap, Fetched::Gap { partition: 0, wanted: 10, found: 40 }), "{gap:?}");
    late.seek(0, 40).unwrap();
    assert_eq!(read(late.as_mut(), 0, |all, _| !all.is_empty())[0], (40, b"40".to_vec()));

    futures::executor::block_on(
        kafka.admin.create_partitions(&[NewPartitions::new(&kafka.topic, 2)], &AdminOptions::new()),
    )
    .unwrap();
    let grown = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        connector.partitions().unwrap() == [0, 1]
    });
    assert!(grown);
    assert_eq!(connector.resolve(&Start::Latest, &[0, 1]).unwrap(), BTreeMap::from([(0, 101), (1, 0)]));
    // The first producer has not heard of the new partition yet.
    let later = self::producer(&kafka.brokers, &[]);
    send(&later, &kafka.topic, 1, Some(b"new"));
    later.flush(PATIENCE).unwrap();
    reader.add(1, 0).unwrap();
    assert_eq!(read(reader.as_mut(), 1, |all, _| !all.is_empty()), [(0, b"new".to_vec())]);

    assert_eq!(connector.resolve(&Start::TimestampMs(0), &[0]).unwrap(), BTreeMap::from([(0, 40)]));
    assert_eq!(connector.resolve(&Start::TimestampMs(1 << 45), &[0]).unwrap(), BTreeMap::from([(0, 101)]));
    connector.committed(TableId(1), &BTreeMap::from([(0, 77)]));
    let committed = (0..200).map(|_| connector.resolve(&Start::Committed, &[0]).unwrap()).find(|found| found[&0] != 40);
    assert_eq!(committed.unwrap(), BTreeMap::from([(0, 77)]));

    let error = connector_of(&kafka.brokers, "no-such-topic").partitions().unwrap_err();
    assert!(error.to_string().contains("'no-such-topic' does not exist"), "{error}");
}

fn connector_of(brokers: &str, topic: &str) -> Arc<dyn Connector> {
    connector(&[("brokers", brokers), ("topic", topic)])
}
