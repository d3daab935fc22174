//! Pipelines into topics: what records look like, and that each comes once, whatever happens to server and broker.

mod again;
mod altering;
mod copies;
mod crash;
mod definitions;
mod formats;
mod latency;
mod records;
mod trouble;

use std::collections::BTreeMap;

use super::{BINARY, PATIENCE, refused, topic};
use crate::support::{
    kafka::{committed, create_topic},
    server::Server,
};

/// A source of numbered rows, over a topic of three partitions.
fn numbers(server: &Server, brokers: &str, topic: &str) {
    create_topic(brokers, topic, 3, &[]);
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, part INT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
}

fn sink(server: &Server, brokers: &str, topic: &str, options: &str) {
    server.sql(&format!(
        "CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json', create_topic = 'true', partitions = 3 {options})"
    ));
}

fn messages(ids: std::ops::Range<u64>) -> Vec<Vec<String>> {
    let mut of_partition = vec![Vec::new(); 3];
    for id in ids {
        of_partition[(id % 3) as usize].push(format!(r#"{{"id":{id},"part":{}}}"#, id % 3));
    }
    of_partition
}

fn produce(feed: &crate::support::kafka::Feed, ids: std::ops::Range<u64>) {
    for (partition, messages) in messages(ids).into_iter().enumerate() {
        for message in messages {
            feed.send(partition as i32, message.as_bytes());
        }
    }
    feed.flush();
}

/// How often each id is among the committed records.
fn ids(brokers: &str, topic: &str) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for record in committed(brokers, topic) {
        let value: serde_json::Value =
            serde_json::from_str(&record.value).unwrap_or_else(|error| panic!("{record:?}: {error}"));
        *found.entry(value["id"].as_u64().expect("an id")).or_default() += 1;
    }
    found
}

/// Each of the ids below `count` is there once, and nothing else.
fn assert_each_once(brokers: &str, topic: &str, count: u64) {
    let found = ids(brokers, topic);
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).take(5).collect();
    let missing: Vec<u64> = (0..count).filter(|id| !found.contains_key(id)).take(5).collect();
    assert!(
        found.len() as u64 == count && twice.is_empty() && missing.is_empty(),
        "{} ids instead of {count}; twice {twice:?}, missing {missing:?}",
        found.len()
    );
}

/// How many committed records there are, each with another value of a member.
fn ids_of(brokers: &str, topic: &str, member: &str) -> usize {
    let values = committed(brokers, topic).into_iter().map(|record| {
        let value: serde_json::Value = serde_json::from_str(&record.value).expect("JSON");
        value[member].to_string()
    });
    let all: Vec<String> = values.collect();
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    all.len()
}
