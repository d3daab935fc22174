//! From a message in the source's topic to a committed record in the sink's.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use super::{BINARY, PATIENCE, numbers, sink, topic};
use crate::support::{
    kafka::{Feed, brokers, receive},
    server::Server,
};

#[test]
fn committed_records_are_seen_within_a_second() {
    let Some(brokers) = brokers("pipelines::sinks::latency") else { return };
    let (input, output) = (topic("sink-latency-in"), topic("sink-latency-out"));
    let server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    server.sql(&format!(
        "CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}', create_topic = 'true')"
    ));
    let _ = sink;
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", "test-latency")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "10")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&output, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let feed = Feed::new(&brokers, &input);
    let (mut times, mut waits) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    let take = |times: &Vec<Instant>, waits: &mut Vec<Duration>, patience: Duration| {
        let Some(message) = consumer.poll(patience) else { return };
        let value: serde_json::Value = serde_json::from_str(&receive(&message.unwrap()).value).unwrap();
        waits.push(times[value["id"].as_u64().unwrap() as usize].elapsed());
    };
    // A steady 200 messages a second, for a while.
    for id in 0..1500_u64 {
        times.push(Instant::now());
        feed.send(0, format!(r#"{{"id":{id},"part":0}}"#).as_bytes());
        feed.producer().poll(Duration::ZERO);
        let next = begun + Duration::from_millis(5) * (id as u32 + 1);
        while Instant::now() < next {
            take(&times, &mut waits, Duration::from_millis(1));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while waits.len() < 1500 && Instant::now() < deadline {
        take(&times, &mut waits, Duration::from_millis(10));
    }
    assert_eq!(waits.len(), 1500);
    // The first ones wait for coordinators to be found.
    let mut waits = waits.split_off(200);
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!("message to committed record: p50 {:?}, p99 {:?}, most {:?}", at(0.5), at(0.99), at(1.0));
    assert!(at(0.99) < Duration::from_secs(1), "p99 {:?}", at(0.99));
}
