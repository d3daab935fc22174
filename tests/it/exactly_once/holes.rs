//! Offsets without messages: compacted topics, aborted transactions and their markers. Nobody waits for what will never come.

use std::{collections::HashMap, time::Duration};

use rdkafka::producer::{BaseRecord, Producer};

use super::{BINARY, create, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

#[test]
fn drain_ends_behind_aborted_transactions() {
    let Some(brokers) = brokers("exactly_once::holes::drain_ends_behind_aborted_transactions") else { return };
    let topic = topic("aborted-tail");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::with(&brokers, &topic, &HashMap::from([("transactional.id", topic.as_str())]));
    let timeout = Duration::from_secs(30);
    feed.producer().init_transactions(timeout).unwrap();
    let mut server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 1");
    create_second(&server, &brokers, &topic);
    feed.producer().begin_transaction().unwrap();
    send(&feed, 0, 0..50);
    feed.producer().commit_transaction(timeout).unwrap();
    feed.producer().begin_transaction().unwrap();
    send(&feed, 0, 1000..1050);
    feed.flush();
    // What is not decided does not hold a drain up: it is not there yet.
    for _ in 0..2 {
        for source in ["raw", "seen"] {
            server.sql(&format!("SET statement_timeout = '20s'; SELECT rt.drain('{source}')"));
        }
        assert_eq!(server.value("SELECT count(*) || ' ' || max(seq) FROM t"), "50 49");
        assert_eq!(server.value("SELECT max(seq) FROM u"), "1049", "read_uncommitted takes all");
        // The second time there is nothing left to abort.
        let _ = feed.producer().abort_transaction(timeout);
    }
    // The offset behind the last marker is committed, and a restart goes on from it.
    server.sql("SELECT rt.seal('t')");
    let end = server.value("SELECT committed_offset FROM rt.partitions WHERE source = 'raw'");
    assert_eq!(end, "102");
    server.kill_and_restart();
    server.sql("SET statement_timeout = '20s'; SELECT rt.drain('raw')");
    assert_eq!(server.value("SELECT count(*) || ' ' || max(seq) FROM t"), "50 49");
}

/// The same topic with the other isolation: a source, and so a fetch, of its own.
fn create_second(server: &Server, brokers: &str, topic: &str) {
    server.sql(&format!(
        "CREATE SOURCE seen (part INT, seq BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}',
         isolation = 'read_uncommitted')"
    ));
    server.sql("CREATE TABLE u FROM SOURCE seen");
}

#[test]
fn drain_ends_in_a_compacted_topic() {
    let Some(brokers) = brokers("exactly_once::holes::drain_ends_in_a_compacted_topic") else { return };
    let topic = topic("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("delete.retention.ms", "0"),
        ("max.compaction.lag.ms", "500"),
    ];
    create_topic(&brokers, &topic, 1, &settings);
    let feed = Feed::new(&brokers, &topic);
    let keyed = |seq: u64, payload: &str| {
        let key = format!("key {}", seq % 10);
        let record = BaseRecord::<str, str>::to(&topic).partition(0).key(&key).payload(payload);
        feed.producer().send(record).map_err(|(error, _)| error).unwrap();
    };
    let sent = 4000;
    for seq in 0..sent {
        keyed(seq, &format!(r#"{{"part":0,"seq":{seq}}}"#));
        if seq % 500 == 499 {
            feed.flush();
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    feed.flush();
    let server = Server::start(BINARY);
    let mut rows = sent;
    for look in 0..40 {
        let name = format!("look{look}");
        server.sql(&format!(
            "CREATE SOURCE {name} (part INT, seq BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
        ));
        server.sql(&format!("CREATE TABLE t_{name} FROM SOURCE {name}"));
        server.sql(&format!("SET statement_timeout = '20s'; SELECT rt.drain('{name}')"));
        assert_eq!(server.value(&format!("SELECT max(seq) FROM t_{name}")), (sent - 1).to_string());
        rows = server.value(&format!("SELECT count(*) FROM t_{name}")).parse().unwrap();
        if rows < sent / 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(rows < sent / 2, "the broker compacted nothing: {rows} rows");
}
