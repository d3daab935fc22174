//! `parallelism`: keys move between lanes, in memory and in files, while rows come and the server is killed, and what is given is what the rows say.

use std::{thread, time::Duration};

use super::{BINARY, PATIENCE, differences, lines, refused, spilling::source, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const START_MS: i64 = 1_709_294_400_000;
const PARTITIONS: i64 = 5;
const ROWS: i64 = 60_000;

fn message(row: i64) -> String {
    let (key, ts) = (row * 7919 % 9_973, START_MS + row * 120 - row * 31 % 9_000);
    format!(r#"{{"key":"a key that is not short {key:08}","value":{row},"ts":{ts}}}"#)
}

#[test]
fn keys_move_between_lanes() {
    let Some(brokers) = brokers("pipelines::lanes::keys_move_between_lanes") else { return };
    let topic = topic("lanes");
    create_topic(&brokers, &topic, PARTITIONS as i32, &[]);
    let mut server = Server::start(BINARY);
    ["s", "v"].iter().for_each(|name| source(&server, name, &brokers, &topic));
    server.sql("CREATE TABLE raw (key TEXT, value BIGINT, ts TIMESTAMPTZ) FROM SOURCE s");
    server.sql("CREATE TABLE sums (key TEXT, start TIMESTAMPTZ, rows BIGINT, total BIGINT)");
    server.sql("CREATE TABLE totals (key TEXT PRIMARY KEY, rows BIGINT, total BIGINT)");
    server.sql("CREATE TABLE pairs (key TEXT, value BIGINT, other BIGINT)");
    let options = "memory_limit = '512kB', checkpoint_interval = '100ms', idle_timeout = '1 hour', parallelism = 3";
    server.sql(&format!(
        "CREATE PIPELINE sums INTO sums WITH ({options}) AS
         SELECT key, TUMBLE_START(ts, INTERVAL '1' HOUR), count(*), sum(value)::bigint FROM s GROUP BY key, TUMBLE(ts, INTERVAL '1' HOUR)"
    ));
    server.sql(&format!(
        "CREATE PIPELINE totals INTO totals WITH ({options}) AS SELECT key, count(*), sum(value)::bigint FROM s GROUP BY key"
    ));
    server.sql(&format!(
        "CREATE PIPELINE pairs INTO pairs WITH ({}) AS
         SELECT s.key, s.value, v.value FROM s JOIN v ON v.key = s.key AND v.ts BETWEEN s.ts - INTERVAL '1 second' AND s.ts + INTERVAL '1 second'",
        options.replace("512kB", "64MB")
    ));
    let feed = Feed::new(&brokers, &topic);
    let set = |server: &Server, lanes: u32| {
        for pipeline in ["sums", "totals", "pairs"] {
            server.sql(&format!("ALTER PIPELINE {pipeline} SET (parallelism = {lanes})"));
        }
    };
    for from in (0..ROWS).step_by(2_000) {
        (from..from + 2_000).for_each(|row| feed.send((row % PARTITIONS) as i32, message(row).as_bytes()));
        feed.flush();
        match from {
            10_000 => {
                server.wait_for("SELECT count(*) FROM rt.pipelines WHERE spilled_bytes > 0", "2", PATIENCE);
                set(&server, 4);
            }
            24_000 => {
                set(&server, 2);
                thread::sleep(Duration::from_millis(80));
                server.kill_and_restart();
            }
            34_000 => {
                server.kill_and_restart();
            }
            40_000 => set(&server, 1),
            50_000 => set(&server, 5),
            _ => {}
        }
    }
    let moved = "SELECT count(*) > 0 FROM rt.events WHERE kind = 'pipeline_parallelism' AND message LIKE '%has 5 lanes now, and had 1%'";
    server.wait_for(moved, "t", PATIENCE);
    // What ends all windows.
    for partition in 0..PARTITIONS as i32 {
        (0..2).for_each(|_| {
            feed.send(partition, format!(r#"{{"key":"end","value":0,"ts":{}}}"#, START_MS + 36_000_000).as_bytes());
        });
    }
    feed.flush();
    let check = |server: &Server| {
        ["s", "v"].iter().for_each(|source| _ = server.sql(&format!("SELECT rt.drain('{source}')")));
        assert_eq!(
            lines(
                server,
                "SELECT name, state, parallelism, late_rows, restarts, error FROM rt.pipelines ORDER BY name"
            ),
            ["pairs running 5 0 0 null", "sums running 5 0 0 null", "totals running 5 0 0 null"]
        );
        let sums = "SELECT key, date_bin(INTERVAL '1 hour', ts, TIMESTAMPTZ '1970-01-01 00:00:00+00'), count(*), sum(value)::bigint FROM raw WHERE key <> 'end' GROUP BY 1, 2";
        assert_eq!(differences(server, "SELECT * FROM sums", sums), ["0", "0"]);
        let totals = "SELECT key, count(*), sum(value)::bigint FROM raw GROUP BY key";
        assert_eq!(differences(server, "SELECT * FROM totals", totals), ["0", "0"]);
        let pairs = "SELECT key, value, value FROM raw WHERE key <> 'end'";
        assert_eq!(differences(server, "SELECT * FROM pairs WHERE key <> 'end'", pairs), ["0", "0"]);
        assert_eq!(server.value("SELECT count(*) FROM pairs WHERE key <> 'end'"), ROWS.to_string());
        assert_eq!(server.value("SELECT sum(rows) FROM sums"), ROWS.to_string());
    };
    check(&server);
    server.kill_and_restart();
    check(&server);
}

#[test]
fn lanes_are_a_number() {
    let server = Server::start(BINARY);
    server.sql("CREATE SOURCE s WITH (connector = 'generator', rate = 1)");
    server.sql("CREATE TABLE t (city TEXT PRIMARY KEY, rows BIGINT)");
    let make = |lanes: &str| {
        format!("CREATE PIPELINE p INTO t WITH (parallelism = {lanes}) AS SELECT city, count(*) FROM s GROUP BY city")
    };
    for wrong in ["0", "65", "'many'", "'-1'"] {
        let (state, message, hint) = refused(&server, &make(wrong));
        assert_eq!((state.as_str(), message.contains("parallelism")), ("22023", true), "{message}");
        assert_eq!(hint, "it takes a number from 1 to 64");
    }
    server.sql(&make("2"));
    assert_eq!(server.value("SELECT parallelism FROM rt.pipelines"), "2");
}
