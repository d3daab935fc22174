//! Many tables on one source: one fetch, and each table exactly once all the same.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::{BINARY, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic, wait_for_group},
    server::Server,
};

/// Bytes that the server has received from brokers for a topic.
fn received_bytes(server: &Server, topic: &str) -> u64 {
    let mut socket = TcpStream::connect(format!("127.0.0.1:{}", server.http_port)).unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let name = format!("tidemill_kafka_received_bytes_total{{topic=\"{topic}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |value| value.parse().unwrap())
}

fn create_source(server: &Server, name: &str, brokers: &str, topic: &str) {
    server.sql(&format!(
        "CREATE SOURCE {name} (part INT, seq BIGINT, filler TEXT) WITH (connector = 'kafka', brokers = '{brokers}',
         topic = '{topic}', properties.statistics.interval.ms = '200')"
    ));
}

#[test]
fn ten_tables_cost_one_fetch() {
    let Some(brokers) = brokers("exactly_once::shared_fetch::ten_tables_cost_one_fetch") else { return };
    let topics = [topic("one-reader"), topic("ten-readers")];
    let server = Server::start(BINARY);
    for (topic, (name, tables)) in topics.iter().zip([("one", 1), ("ten", 10)]) {
        create_topic(&brokers, topic, 2, &[]);
        create_source(&server, name, &brokers, topic);
        for table in 0..tables {
            server.sql(&format!("CREATE TABLE {name}_{table} FROM SOURCE {name}"));
        }
    }
    let feeds =
        topics.each_ref().map(|topic| Feed::with(&brokers, topic, &HashMap::from([("compression.type", "none")])));
    let filler = "x".repeat(400);
    let mut seq = 0;
    for _ in 0..20 {
        for _ in 0..1000 {
            for feed in &feeds {
                feed.send(
                    (seq % 2) as i32,
                    format!(r#"{{"part":{},"seq":{seq},"filler":"{filler}"}}"#, seq % 2).as_bytes(),
                );
            }
            seq += 1;
        }
        feeds.iter().for_each(Feed::flush);
    }
    for table in ["one_0", "ten_0", "ten_5", "ten_9"] {
        let question = format!("SELECT count(*) || ' ' || count(DISTINCT seq) FROM {table}");
        server.wait_for(&question, &format!("{seq} {seq}"), Duration::from_secs(60));
    }
    server.wait_for(
        "SELECT count(*) FROM rt.partitions WHERE source = 'ten' AND readers = 10",
        "20",
        Duration::from_secs(30),
    );
    // Statistics come five times a second.
    std::thread::sleep(Duration::from_millis(600));
    let [one, ten] = topics.each_ref().map(|topic| received_bytes(&server, topic));
    println!("broker bytes: {one} for one table, {ten} for ten");
    assert!(one >= seq * 400, "{one} bytes for {seq} messages of more than 400");
    assert!(ten * 2 <= one * 3, "ten tables cost {ten} bytes, one costs {one}");
}

#[test]
fn tables_of_one_source_are_each_exactly_once_over_kill_9() {
    let Some(brokers) = brokers("exactly_once::shared_fetch::tables_of_one_source_are_each_exactly_once_over_kill_9")
    else {
        return;
    };
    let topic = topic("shared-kills");
    create_topic(&brokers, &topic, 3, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start(BINARY);
    create_source(&server, "raw", &brokers, &topic);
    // They commit at different moments, so that after a kill they go on from different offsets.
    server.sql("CREATE TABLE a WITH (partitions = 3, seal_rows = 700) FROM SOURCE raw");
    server.sql("CREATE TABLE b WITH (partitions = 1, seal_rows = 9000) FROM SOURCE raw");
    let mut sent = 0;
    for kill in 0..4u64 {
        for part in 0..3 {
            send(&feed, part, sent..sent + 4000);
        }
        feed.flush();
        sent += 4000;
        if kill == 1 {
            // One that comes later begins at the start and joins when it has caught up.
            server.sql("CREATE TABLE c WITH (partitions = 2, seal_rows = 2500) FROM SOURCE raw");
        }
        std::thread::sleep(Duration::from_millis(70 + 90 * kill));
        server.kill_and_restart();
        let tables: &[&str] = if kill == 0 { &["a", "b"] } else { &["a", "b", "c"] };
        for table in tables {
            let sql = format!(
                "SELECT part, count(*), count(DISTINCT seq), min(seq), max(seq) + 1 FROM {table} GROUP BY part"
            );
            for row in server.sql(&sql) {
                assert!(
                    row[1] == row[2] && row[1] == row[4] && row[3].as_deref() == Some("0"),
                    "{table} after kill {kill}: {row:?}"
                );
            }
        }
    }
    let sum = (3 * sent * (sent - 1) / 2).to_string();
    for table in ["a", "b", "c"] {
        server.wait_for(&format!("SELECT count(*) FROM {table}"), &(3 * sent).to_string(), Duration::from_secs(60));
        assert_eq!(server.value(&format!("SELECT sum(seq) FROM {table}")), sum);
    }
    server.wait_for("SELECT count(*) FROM rt.partitions WHERE readers = 3", "9", Duration::from_secs(30));
}

#[test]
fn a_paused_table_holds_no_other_up_and_misses_nothing() {
    let Some(brokers) = brokers("exactly_once::shared_fetch::a_paused_table_holds_no_other_up_and_misses_nothing")
    else {
        return;
    };
    let topic = topic("shared-pause");
    create_topic(&brokers, &topic, 2, &[]);
    let feed = Feed::new(&brokers, &topic);
    let server = Server::start(BINARY);
    create_source(&server, "raw", &brokers, &topic);
    server.sql("CREATE TABLE a FROM SOURCE raw");
    server.sql("CREATE TABLE b FROM SOURCE raw");
    (0..2).for_each(|part| send(&feed, part, 0..1000));
    feed.flush();
    for table in ["a", "b"] {
        server.wait_for(&format!("SELECT count(*) FROM {table}"), "2000", Duration::from_secs(30));
    }
    server.sql("ALTER TABLE b PAUSE INGESTION");
    server.wait_for(
        "SELECT max(readers) FROM rt.partitions WHERE \"table\" = 'b' AND source = 'raw'",
        "0",
        Duration::from_secs(10),
    );
    // Far more than the tables' common window holds.
    (0..2).for_each(|part| send(&feed, part, 1000..120_000));
    feed.flush();
    server.wait_for("SELECT count(*) FROM a", "240000", Duration::from_secs(60));
    // What Kafka's own tools see is where the slower table stands, whoever committed last.
    server.sql("SELECT rt.seal('b')");
    server.sql("SELECT rt.seal('a')");
    wait_for_group(&brokers, "tidemill-raw", &topic, 2, 1000);
    assert_eq!(server.value("SELECT count(*) FROM b"), "2000");
    server.sql("ALTER TABLE b RESUME INGESTION");
    server.wait_for("SELECT count(*) || ' ' || count(DISTINCT seq) FROM b", "240000 120000", Duration::from_secs(60));
    server.wait_for("SELECT min(readers) FROM rt.partitions WHERE source = 'raw'", "2", Duration::from_secs(30));
    server.sql("SELECT rt.seal('b')");
    wait_for_group(&brokers, "tidemill-raw", &topic, 2, 120_000);
}
