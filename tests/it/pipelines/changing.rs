//! Groups without a window: a table of their newest state, whatever happens in between.

use std::time::Duration;

use super::{BINARY, PATIENCE, lines, refused, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

fn with_source(server: &Server, directory: &std::path::Path) {
    let path = directory.join("rows.ndjson");
    let rows = (0..100).map(|n| format!("{{\"a\":{n},\"b\":\"x{}\"}}\n", n % 3));
    std::fs::write(&path, rows.collect::<String>()).unwrap();
    server.sql(&format!(
        "CREATE SOURCE s (a INT, b TEXT) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
}

#[test]
fn groups_are_rows_of_an_upsert_table() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    with_source(&server, directory.path());
    server.sql("CREATE TABLE t (b TEXT PRIMARY KEY, rows BIGINT, total BIGINT, share DOUBLE PRECISION)");
    server.sql("CREATE PIPELINE p INTO t AS SELECT b, count(*), sum(a)::bigint, avg(a) FILTER (WHERE a > 97)::double precision FROM s GROUP BY b");
    for _ in 0..2 {
        server.sql("SELECT rt.drain('s')");
        assert_eq!(
            lines(&server, "SELECT b, rows, total, share FROM t"),
            ["x0 34 1683 99", "x1 33 1617 null", "x2 33 1650 98"]
        );
        assert_eq!(lines(&server, "SELECT rows_in, late_rows FROM rt.pipelines"), ["100 0"]);
        server.wait_for("SELECT open_groups FROM rt.pipelines", "3", PATIENCE);
        server.kill_and_restart();
    }
}

#[test]
fn tables_that_would_keep_old_groups_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    with_source(&server, directory.path());
    server.sql("CREATE TABLE plain (b TEXT, rows BIGINT)");
    server.sql("CREATE TABLE first (b TEXT PRIMARY KEY, rows BIGINT) WITH (mode = 'dedup')");
    server.sql("CREATE TABLE versioned (b TEXT PRIMARY KEY, rows BIGINT) WITH (version_column = 'rows')");
    server.sql("CREATE TABLE wide (b TEXT, rows BIGINT, PRIMARY KEY (b, rows))");
    server.sql("CREATE TABLE pairs (b TEXT PRIMARY KEY, rows BIGINT, a INT)");
    for (table, query, words, hint) in [
        ("plain", "SELECT b, count(*) FROM s GROUP BY b", "\"plain\" has no primary key", "PRIMARY KEY"),
        ("first", "SELECT b, count(*) FROM s GROUP BY b", "'dedup'", "upsert"),
        ("versioned", "SELECT b, count(*) FROM s GROUP BY b", "\"rows\"", "version_column"),
        ("wide", "SELECT b, count(*) FROM s GROUP BY b", "\"rows\"", "PRIMARY KEY"),
        ("pairs", "SELECT b, count(*), a FROM s GROUP BY b, a", "not every column", "PRIMARY KEY"),
        ("pairs", "SELECT upper(b), count(*) FROM s GROUP BY b", "\"b\"", "PRIMARY KEY"),
    ] {
        let (code, message, found) = refused(&server, &format!("CREATE PIPELINE p INTO {table} AS {query}"));
        assert!(code == "0A000" && message.contains(words) && found.contains(hint), "{code} {message}\n{found}");
    }
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
}

/// Every row counts once, over kill -9 at any time; what is seen never goes back.
#[test]
fn groups_survive_kill_9() {
    let Some(brokers) = brokers("pipelines::changing::groups_survive_kill_9") else { return };
    let topic = topic("changing");
    create_topic(&brokers, &topic, 2, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (key INT, value BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE t (key INT PRIMARY KEY, rows BIGINT, total BIGINT, kinds BIGINT) WITH (partitions = 2, seal_rows = 300)");
    server.sql("CREATE PIPELINE p INTO t WITH (checkpoint_interval = '100ms') AS SELECT key, count(*), sum(value)::bigint, count(DISTINCT value % 5) FROM s GROUP BY key");
    let feed = Feed::new(&brokers, &topic);
    const ROWS: i64 = 40_000;
    for row in 0..ROWS {
        feed.send((row % 2) as i32, format!(r#"{{"key":{},"value":{row}}}"#, row * row % 101).as_bytes());
        if row % 1000 == 999 {
            feed.flush();
            std::thread::sleep(Duration::from_millis(25));
        }
        if row % 9000 == 6500 {
            server.kill_and_restart();
        }
    }
    feed.flush();
    server.sql("SELECT rt.drain('s')");
    let mut groups = std::collections::BTreeMap::<i64, (i64, i64, std::collections::BTreeSet<i64>)>::new();
    for row in 0..ROWS {
        let group = groups.entry(row * row % 101).or_default();
        group.0 += 1;
        group.1 += row;
        group.2.insert(row % 5);
    }
    let mut expected: Vec<String> =
        groups.iter().map(|(key, group)| format!("{key} {} {} {}", group.0, group.1, group.2.len())).collect();
    expected.sort();
    let all = "SELECT key, rows, total, kinds FROM t";
    assert_eq!(lines(&server, all), expected);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('s')");
    assert_eq!(lines(&server, all), expected);
    server.wait_for("SELECT state FROM rt.pipelines", "running", PATIENCE);
}
