//! A pipeline from topic to topic, exactly once: how much goes through, and how long a message takes to be a committed record.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    BINARY, Options,
    support::{
        kafka::{Feed, create_topic},
        server::Server,
    },
};

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(brokers: &str, options: &Options) {
    backlog(brokers, options.number("messages", 3_000_000));
    live(brokers, options.number("rate", 2_000), options.number("warmup", 15), options.number("seconds", 20));
}

/// A source, a sink of the same number of partitions, and a pipeline between them.
fn begin(brokers: &str, name: &str) -> (Server, BaseConsumer) {
    let server = Server::start(BINARY.as_str());
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    create_topic(brokers, &output, PARTITIONS, &[]);
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, name TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{input}')"
    ));
    server.sql(&format!(
        "CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}', format = 'json')"
    ));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "drive")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(&output, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, upper(name) AS name FROM numbers");
    (server, consumer)
}

fn message(id: u64) -> String {
    format!(r#"{{"id":{id},"name":"order number {id}"}}"#)
}

/// The id of a record.
fn id(payload: &[u8]) -> u64 {
    let digits = payload.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn backlog(brokers: &str, messages: u64) {
    create_topic(brokers, "backlog-in", PARTITIONS, &[]);
    let feed = Feed::new(brokers, "backlog-in");
    (0..messages).for_each(|number| feed.send((number % PARTITIONS as u64) as i32, message(number).as_bytes()));
    feed.flush();
    let start = Instant::now();
    let (server, consumer) = begin(brokers, "backlog");
    let (mut seen, mut count) = (vec![false; messages as usize], 0);
    while count < messages {
        assert!(start.elapsed() < PATIENCE, "{count} of {messages} records");
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            let record = record.unwrap();
            let id = id(record.payload().unwrap());
            assert!(!std::mem::replace(&mut seen[id as usize], true), "record {id} came twice");
            count += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:32}{:>12.0} records/s committed and read ({messages} in {seconds:.1} s), each once",
        "topic to topic",
        messages as f64 / seconds
    );
    println!("{:32}{:>12.2} s per million records", "server CPU", server.cpu_seconds() * 1e6 / messages as f64);
}

fn live(brokers: &str, rate: u64, warmup: u64, seconds: u64) {
    create_topic(brokers, "live-in", PARTITIONS, &[]);
    let (server, consumer) = begin(brokers, "live");
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    let count = rate * (warmup + seconds);
    let start = Instant::now();
    // When each message is due, which is when it is sent.
    let due = |number: u64| Duration::from_secs_f64(number as f64 / rate as f64);
    let mut delays = thread::scope(|scope| {
        scope.spawn(|| {
            let feed = Feed::with(brokers, "live-in", &HashMap::from([("linger.ms", "0")]));
            for number in 0..count {
                thread::sleep(due(number).saturating_sub(start.elapsed()));
                feed.send((number % PARTITIONS as u64) as i32, message(number).as_bytes());
                feed.producer().poll(Duration::ZERO);
            }
            feed.flush();
        });
        let (mut delays, mut seen) = (Vec::new(), 0);
        while seen < count {
            assert!(start.elapsed() < PATIENCE, "{seen} of {count} records");
            if let Some(record) = consumer.poll(Duration::from_millis(10)) {
                let id = id(record.unwrap().payload().unwrap());
                seen += 1;
                if id >= rate * warmup {
                    delays.push(start.elapsed().saturating_sub(due(id)).as_secs_f64() * 1000.0);
                }
            }
        }
        delays
    });
    println!("{rate} messages/s over {seconds} s after {warmup} s");
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    crate::line("message to committed record", &mut delays);
}
