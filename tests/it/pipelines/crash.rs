//! kill -9 in the middle: every window once, with the rows that it has.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use super::{BINARY, PATIENCE, lines, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// A generator that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

const START_S: i64 = 1_709_294_400;
const ROWS: i64 = 60_000;

/// Ten seconds of event time have 1000 rows; within a partition they come up to two seconds out of order.
#[test]
fn windows_survive_kill_9() {
    let Some(brokers) = brokers("pipelines::crash::windows_survive_kill_9") else { return };
    let topic = topic("crash");
    create_topic(&brokers, &topic, 3, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE events (key INT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '3 seconds')
         WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    // Small segments, so that commits come between checkpoints.
    server.sql("CREATE TABLE sums (key INT, start TIMESTAMPTZ, rows BIGINT, total BIGINT, people BIGINT) WITH (seal_rows = 500)");
    server.sql("CREATE TABLE latest (key INT PRIMARY KEY, start TIMESTAMPTZ, rows BIGINT) WITH (mode = 'upsert', version_column = 'start', partitions = 2, seal_rows = 300)");
    server.sql("CREATE TABLE hops (key INT, stop TIMESTAMPTZ, total BIGINT) WITH (seal_after = '1 second')");
    server.sql("CREATE TABLE plain (key INT, value BIGINT) WITH (seal_rows = 5000)");
    server.sql(
        "CREATE PIPELINE sums INTO sums WITH (checkpoint_interval = '200ms', idle_timeout = '1 hour') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*), sum(value)::bigint, count(DISTINCT value % 7)
         FROM events GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)",
    );
    server.sql(
        "CREATE PIPELINE latest INTO latest WITH (checkpoint_interval = '100ms', idle_timeout = '1 hour') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*)
         FROM events GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)",
    );
    server.sql(
        "CREATE PIPELINE hops INTO hops WITH (idle_timeout = '1 hour') AS
         SELECT key, HOP_END(ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND), sum(value)::bigint
         FROM events WHERE key < 3 GROUP BY key, HOP(ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND)",
    );
    // The same rows without any allowance, so that very many are late.
    server.sql(&format!(
        "CREATE SOURCE hasty (key INT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts)
         WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE again (key INT, start TIMESTAMPTZ, rows BIGINT, total BIGINT, people BIGINT, PRIMARY KEY (key, start)) WITH (partitions = 2, seal_rows = 400)");
    server.sql("CREATE TABLE strict (key INT, start TIMESTAMPTZ, rows BIGINT) WITH (seal_rows = 500)");
    server.sql(
        "CREATE PIPELINE again INTO again WITH (checkpoint_interval = '150ms', idle_timeout = '1 hour', late = 'update', allowed_lateness = '1 minute') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*), sum(value)::bigint, count(DISTINCT value % 7)
         FROM hasty GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)",
    );
    server.sql(
        "CREATE PIPELINE strict INTO strict WITH (checkpoint_interval = '150ms', idle_timeout = '1 hour', late = 'dlq') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '500' MILLISECOND), count(*) FROM hasty GROUP BY key, TUMBLE(ts, INTERVAL '500' MILLISECOND)",
    );
    server.sql("CREATE PIPELINE plain INTO plain AS SELECT key, value * 2 FROM events WHERE value % 3 = 0 UNION ALL SELECT -1, value FROM events WHERE value % 1000 = 0");

    let mut numbers = Numbers(7);
    let mut events = Vec::new();
    for row in 0..ROWS {
        let ts_ms = START_S * 1000 + row * 10 - numbers.below(2_000) as i64;
        events.push((row % 3, numbers.below(50) as i64, numbers.below(100_000) as i64, ts_ms));
    }
    let feed = Feed::new(&brokers, &topic);
    let started = Instant::now();
    for (at, chunk) in events.chunks(1000).enumerate() {
        for (partition, key, value, ts_ms) in chunk {
            let message = format!(r#"{{"key":{key},"value":{value},"ts":{ts_ms}}}"#);
            feed.send(*partition as i32, message.as_bytes());
        }
        feed.flush();
        if at % 12 == 7 {
            thread::sleep(Duration::from_millis(50 + numbers.below(400)));
            server.kill_and_restart();
        } else {
            // One that is told to start again gives nothing twice, either.
            let name = ["sums", "latest", "hops", "again", "strict", "plain"][numbers.below(6) as usize];
            server.sql(&format!("ALTER PIPELINE {name} RESTART"));
            thread::sleep(Duration::from_millis(30));
        }
    }
    for partition in 0..3 {
        let message = format!(r#"{{"key":999,"value":1,"ts":{}}}"#, (START_S + ROWS / 100 + 1000) * 1000);
        feed.send(partition, message.as_bytes());
    }
    feed.flush();
    server.sql("SELECT rt.drain('events'), rt.drain('hasty')");
    println!("produced and drained in {:?}", started.elapsed());
    check(&server, &events);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('events'), rt.drain('hasty')");
    check(&server, &events);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq WHERE \"table\" <> 'strict'"), "0");
    assert_eq!(server.value("SELECT sum(late_rows) FROM rt.pipelines WHERE name <> 'strict'"), "0");
    assert_eq!(server.value("SELECT late_updates > 0 FROM rt.pipelines WHERE name = 'again'"), "t");
    // Each row is in a window or among the dead letters, once; the three that close the windows are in none that was given.
    let strict = "SELECT (SELECT sum(rows) FROM strict)::bigint, (SELECT count(*) FROM rt.dlq WHERE \"table\" = 'strict'), late_rows FROM rt.pipelines WHERE name = 'strict'";
    let strict = lines(&server, strict);
    let [rows, letters, late] = strict[0].split(' ').map(|n| n.parse::<i64>().unwrap()).collect::<Vec<_>>()[..] else {
        panic!("{strict:?}")
    };
    assert!(rows + letters == ROWS && letters == late && late > 100, "{strict:?}");
    assert_eq!(server.value("SELECT count(*) > 4 FROM rt.checkpoints"), "t");
    // What was given stays when the pipeline goes, over another kill.
    for name in ["sums", "latest", "hops", "again", "strict", "plain"] {
        server.sql(&format!("DROP PIPELINE {name}"));
    }
    server.kill_and_restart();
    check(&server, &events);
    server.wait_for("SELECT count(*) FROM rt.pipelines", "0", PATIENCE);
}

fn check(server: &Server, events: &[(i64, i64, i64, i64)]) {
    let mut sums: BTreeMap<(i64, i64), (i64, i64, std::collections::BTreeSet<i64>)> = BTreeMap::new();
    let mut hops: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let (mut plain_rows, mut plain_total) = (0, 0);
    for (_, key, value, ts_ms) in events {
        let sum = sums.entry((*key, ts_ms.div_euclid(10_000) * 10)).or_default();
        sum.0 += 1;
        sum.1 += value;
        sum.2.insert(value % 7);
        if *key < 3 {
            let first = ts_ms.div_euclid(5_000) * 5 + 5;
            for end in [first, first + 5, first + 10, first + 15] {
                *hops.entry((*key, end)).or_default() += value;
            }
        }
        if value % 3 == 0 {
            plain_rows += 1;
            plain_total += value * 2;
        }
        if value % 1000 == 0 {
            plain_rows += 1;
            plain_total += value;
        }
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let expected = sums
        .iter()
        .map(|((key, start), (rows, total, people))| format!("{key} {start} {rows} {total} {}", people.len()));
    let expected = sorted(expected.collect());
    for table in ["sums", "again"] {
        let found =
            lines(server, &format!("SELECT key, extract(epoch FROM start)::bigint, rows, total, people FROM {table}"));
        same(server, &found, &expected);
    }
    let mut newest: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for ((key, start), (rows, ..)) in &sums {
        newest.insert(*key, (*start, *rows));
    }
    let expected = newest.iter().map(|(key, (start, rows))| format!("{key} {start} {rows}"));
    let found = lines(server, "SELECT key, extract(epoch FROM start)::bigint, rows FROM latest");
    same(server, &found, &sorted(expected.collect()));
    let expected = hops.iter().map(|((key, end), total)| format!("{key} {end} {total}"));
    let found = lines(server, "SELECT key, extract(epoch FROM stop)::bigint, total FROM hops");
    same(server, &found, &sorted(expected.collect()));
    // The three events that close the windows: 1 is neither divisible by 3 nor by 1000.
    let found = lines(server, "SELECT count(*), sum(value) FROM plain");
    assert_eq!(found, [format!("{plain_rows} {plain_total}")]);
}

/// Says what differs, since there is much that does not.
fn same(server: &Server, found: &[String], expected: &[String]) {
    let only = |of: &[String], other: &[String]| {
        let lines: Vec<String> = of.iter().filter(|line| other.binary_search(line).is_err()).cloned().collect();
        format!("{} lines, {:?}", lines.len(), &lines[..lines.len().min(12)])
    };
    assert!(
        found == expected,
        "{} lines instead of {}\nonly found: {}\nmissing: {}\n{:#?}",
        found.len(),
        expected.len(),
        only(found, expected),
        only(expected, found),
        server.sql("SELECT name, state, rows_in, rows_out, late_rows, watermark, checkpoint, error FROM rt.pipelines"),
    );
}

/// Rows of a pipeline that a checkpoint covers are there for whoever comes first after a start: the table reads them again out of the pipeline's log.
#[test]
fn what_a_checkpoint_covers_is_visible_when_a_start_is_ready() {
    let Some(brokers) = brokers("pipelines::crash::what_a_checkpoint_covers_is_visible") else { return };
    let topic = topic("visible");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE clicks (id BIGINT, page TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE pages (id BIGINT, page TEXT)");
    server.sql("CREATE PIPELINE pages INTO pages AS SELECT id, upper(page) FROM clicks");
    let feed = Feed::new(&brokers, &topic);
    let rows = 400_000_i64;
    for id in 0..rows {
        feed.send(0, format!(r#"{{"id":{id},"page":"page {}"}}"#, id % 1000).as_bytes());
    }
    feed.flush();
    server.sql("SELECT rt.drain('clicks')");
    let sums = "SELECT count(*), sum(id), count(DISTINCT page) FROM pages";
    let expected = [format!("{rows} {} 1000", rows * (rows - 1) / 2)];
    assert_eq!(lines(&server, sums), expected);
    server.sql("ALTER PIPELINE pages PAUSE");
    server.kill_and_restart();
    assert_eq!(lines(&server, sums), expected);
}
