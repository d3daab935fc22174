//! `rt.max_staleness`: a query waits for its tables' sources, or says which of them is behind.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;

use crate::support::{
    free_port,
    kafka::Feed,
    registry::Registry,
    server::{Server, describe},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that is acknowledged before a query begins is in its answer, at once and under load.
#[test]
fn a_query_waits_for_what_is_there() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "t");
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (id BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 't', format = 'json')"
    ));
    server.sql("CREATE TABLE t (id BIGINT) FROM SOURCE s");
    let count = "SET rt.max_staleness = '1ms'; SELECT count(*) FROM t";
    assert_eq!(server.value(count), "0", "empty partitions are read to their end");
    for round in 1..=30 {
        for partition in 0..3 {
            for _ in 0..100 {
                feed.send(partition, format!("{{\"id\":{round}}}").as_bytes());
            }
        }
        feed.send(1, b"no row");
        feed.flush();
        // Views and subqueries are of their tables.
        let sql = match round % 2 {
            0 => count,
            _ => "SET rt.max_staleness = '1ms'; SELECT (SELECT count(*) FROM t)",
        };
        assert_eq!(server.value(sql), (300 * round).to_string(), "round {round}");
    }
    // A topic to which nothing comes is not stale: it is asked every few seconds.
    std::thread::sleep(Duration::from_secs(8));
    let begun = Instant::now();
    assert_eq!(server.value("SET rt.max_staleness = '5 seconds'; SELECT count(*) FROM t"), "9000");
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(server.value("SHOW rt.max_staleness"), "0");
}

#[test]
fn a_query_that_would_be_stale_is_refused() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "t");
    let port = free_port();
    let server = Server::start(BINARY);
    let with = format!("connector = 'kafka', brokers = '{brokers}', topic = 't', format = 'avro'");
    server.sql(&format!("CREATE SOURCE s (id BIGINT) WITH ({with}, schema_registry = 'http://127.0.0.1:{port}')"));
    server.sql("CREATE TABLE t (id BIGINT) FROM SOURCE s");
    server.wait_for("SET rt.max_staleness = '1 minute'; SELECT count(*) FROM t", "0", PATIENCE);
    // Nobody knows the schema: the message cannot be taken, and the partition gets staler.
    feed.send(1, &[0, 0, 0, 0, 7, 14]);
    feed.flush();
    let refused = |settings: &str| {
        describe(&server.try_sql(&format!("{settings}; SELECT count(*) FROM t")).expect_err("the table is stale"))
    };
    for settings in [
        "SET rt.max_staleness = '100 ms'; SET statement_timeout = '2s'",
        "SET rt.max_staleness = '1 ms'; SET statement_timeout = '500ms'",
    ] {
        let error = refused(settings);
        assert!(error.starts_with("55000: table \"t\" is staler than rt.max_staleness"), "{error}");
        assert!(error.contains("partition 1 of source \"s\" is ") && error.contains(" ms stale"), "{error}");
        assert!(error.contains("SET rt.max_staleness = 0"), "{error}");
    }
    assert_eq!(server.value("SELECT count(*) FROM t"), "0", "who does not ask reads what there is");
    assert_eq!(
        server.value("SET rt.max_staleness = '1ms'; SELECT count(*) FROM rt.partitions WHERE source = 's'"),
        "2"
    );
    let registry = Registry::start(Some(port));
    registry.register(7, "AVRO", r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"}]}"#, "[]");
    let begun = Instant::now();
    assert_eq!(
        server.value("SET rt.max_staleness = '1ms'; SET statement_timeout = '25s'; SELECT count(*) FROM t"),
        "1"
    );
    assert!(begun.elapsed() < Duration::from_secs(22));

    // What is paused is refused at once, without waiting.
    server.sql("ALTER TABLE t PAUSE INGESTION");
    feed.send(1, &[0, 0, 0, 0, 7, 16]);
    feed.flush();
    let begun = Instant::now();
    let error = refused("SET rt.max_staleness = '1 ms'");
    assert!(error.contains("is paused; resume it first"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.sql("ALTER TABLE t RESUME INGESTION");
    assert_eq!(server.value("SET rt.max_staleness = '1ms'; SELECT count(*) FROM t"), "2");
}
