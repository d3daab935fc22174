//! State that memory has no room for goes to files, and what is given is what the rows say: over kill -9, late rows, pauses and damage.

use std::{fs, path::PathBuf, thread, time::Duration};

use super::{BINARY, PATIENCE, differences, lines, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const START_MS: i64 = 1_709_294_400_000;
const KEYS: i64 = 20_000;
const ROWS: i64 = 60_000;

/// In two hours of event time; of the rows of a key none is near another.
fn message(row: i64) -> String {
    let key = row * 7919 % KEYS;
    // A few are very late, and say so by their values.
    let (value, behind) = if row % 53 == 52 { (-row, 1_800_000) } else { (row, row * 31 % 9_000) };
    let ts = START_MS + row * 120 - behind;
    format!(r#"{{"key":"a key that is not short {key:08}","value":{value},"ts":{ts}}}"#)
}

/// A source of messages with key, value and time, ten seconds of which may be out of order.
pub(super) fn source(server: &Server, name: &str, brokers: &str, topic: &str) {
    server.sql(&format!(
        "CREATE SOURCE {name} (key TEXT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '10 seconds')
         WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
}

/// All messages. The server is killed after two of them, once so many pipelines have something in files.
fn send(server: &mut Server, feed: &Feed, kills: [i64; 2], pipelines: u8) {
    for from in (0..ROWS).step_by(2_000) {
        (from..from + 2_000).for_each(|row| feed.send(0, message(row).as_bytes()));
        feed.flush();
        if kills.contains(&from) {
            let spilled = "SELECT count(*) FROM rt.pipelines WHERE spilled_bytes > 0";
            server.wait_for(spilled, &pipelines.to_string(), PATIENCE);
            thread::sleep(Duration::from_millis(150));
            server.kill_and_restart();
        }
    }
}

/// What ends all windows.
fn send_end(feed: &Feed, value: i64) {
    let json = format!(r#"{{"key":"end","value":{value},"ts":{}}}"#, START_MS + 36_000_000);
    (0..2).for_each(|_| feed.send(0, json.as_bytes()));
    feed.flush();
}

#[test]
fn windows_that_are_larger_than_their_memory() {
    let Some(brokers) = brokers("pipelines::spilling::windows_that_are_larger_than_their_memory") else { return };
    let topic = topic("spilling");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    source(&server, "s", &brokers, &topic);
    server.sql("CREATE TABLE raw (key TEXT, value BIGINT, ts TIMESTAMPTZ) FROM SOURCE s");
    server.sql("CREATE TABLE sums (key TEXT, start TIMESTAMPTZ, rows BIGINT, total BIGINT, kinds BIGINT)");
    server.sql("CREATE TABLE hops (key TEXT, until TIMESTAMPTZ, rows BIGINT, total BIGINT, PRIMARY KEY (key, until))");
    server.sql(
        "CREATE PIPELINE sums INTO sums WITH (memory_limit = '256kB', checkpoint_interval = '100ms', idle_timeout = '1 hour') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '1' HOUR), count(*), sum(value)::bigint, count(DISTINCT value % 5)
         FROM s WHERE value >= 0 GROUP BY key, TUMBLE(ts, INTERVAL '1' HOUR)",
    );
    server.sql(
        "CREATE PIPELINE hops INTO hops WITH (memory_limit = '256kB', checkpoint_interval = '100ms', idle_timeout = '1 hour', late = 'update', allowed_lateness = '3 hours') AS
         SELECT key, HOP_END(ts, INTERVAL '20' MINUTE, INTERVAL '1' HOUR), count(*), sum(value)::bigint
         FROM s GROUP BY key, HOP(ts, INTERVAL '20' MINUTE, INTERVAL '1' HOUR)",
    );
    let feed = Feed::new(&brokers, &topic);
    send(&mut server, &feed, [18_000, 42_000], 2);
    server.sql("SELECT rt.drain('s')");
    for line in
        lines(&server, "SELECT name, state_bytes, spilled_bytes, open_groups, restarts, error FROM rt.pipelines")
    {
        println!("{line}");
    }
    assert_eq!(
        lines(&server, "SELECT state, spilled_bytes > 200000, restarts, error FROM rt.pipelines"),
        ["running t 0 null", "running t 0 null"]
    );
    send_end(&feed, 0);
    let check = |server: &Server| {
        server.sql("SELECT rt.drain('s')");
        let sums = "SELECT key, date_bin(INTERVAL '1 hour', ts, TIMESTAMPTZ '1970-01-01 00:00:00+00'), count(*), sum(value)::bigint, count(DISTINCT value % 5)
                    FROM raw WHERE value >= 0 AND key <> 'end' GROUP BY 1, 2";
        assert_eq!(differences(server, "SELECT * FROM sums", sums), ["0", "0"]);
        let hops = "SELECT key, date_bin(INTERVAL '20 minutes', ts, TIMESTAMPTZ '1970-01-01 00:00:00+00') + more, count(*), sum(value)::bigint
                    FROM raw CROSS JOIN (VALUES (INTERVAL '20 minutes'), (INTERVAL '40 minutes'), (INTERVAL '60 minutes')) v(more)
                    WHERE key <> 'end' GROUP BY 1, 2";
        assert_eq!(differences(server, "SELECT * FROM hops", hops), ["0", "0"]);
        assert_eq!(server.value("SELECT count(*) > 39000 FROM sums"), "t");
    };
    check(&server);
    assert_eq!(server.value("SELECT max(late_updates) > 0 FROM rt.pipelines"), "t");
    server.wait_for("SELECT sum(spilled_bytes) FROM rt.pipelines", "0", PATIENCE);
    server.kill_and_restart();
    check(&server);
}

/// Groups without a window, keys that are known, and versions: what is looked up by its key.
#[test]
fn keys_that_are_more_than_their_memory() {
    let Some(brokers) = brokers("pipelines::spilling::keys_that_are_more_than_their_memory") else { return };
    let topic = topic("spilling-keys");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    source(&server, "s", &brokers, &topic);
    source(&server, "v", &brokers, &topic);
    server.sql("CREATE TABLE raw (key TEXT, value BIGINT, ts TIMESTAMPTZ) FROM SOURCE s");
    server.sql("CREATE TABLE totals (key TEXT PRIMARY KEY, rows BIGINT, total BIGINT, kinds BIGINT)");
    server.sql("CREATE TABLE firsts (key TEXT, value BIGINT)");
    server.sql("CREATE TABLE found (key TEXT, value BIGINT, version BIGINT)");
    let options = "memory_limit = '256kB', checkpoint_interval = '100ms', idle_timeout = '1 hour'";
    server.sql(&format!(
        "CREATE PIPELINE totals INTO totals WITH ({options}) AS
         SELECT key, count(*), sum(value)::bigint, count(DISTINCT value % 5) FROM s GROUP BY key"
    ));
    server.sql(&format!(
        "CREATE PIPELINE firsts INTO firsts WITH ({options}) AS SELECT DISTINCT ON (key) key, value FROM s WHERE value >= 0"
    ));
    server.sql(&format!(
        "CREATE PIPELINE found INTO found WITH ({options}) AS
         SELECT s.key, s.value, v.value FROM s JOIN v FOR SYSTEM_TIME AS OF s.ts ON v.key = s.key WHERE s.value >= 0"
    ));
    let feed = Feed::new(&brokers, &topic);
    send(&mut server, &feed, [22_000, 46_000], 3);
    send_end(&feed, -1);
    // One source may be ahead of the other, whose rows then wait; for as long as they are too many it is said of the pipeline, and a drain fails.
    let found = (0..ROWS).filter(|row| row % 53 != 52).count().to_string();
    server.wait_for("SELECT count(*) FROM found", &found, PATIENCE);
    let check = |server: &Server| {
        server.sql("SELECT rt.drain('s')");
        server.sql("SELECT rt.drain('v')");
        let states = "SELECT name, state, spilled_bytes > 200000, restarts, error FROM rt.pipelines ORDER BY name";
        assert_eq!(
            lines(server, states),
            ["firsts running t 0 null", "found running t 0 null", "totals running t 0 null"]
        );
        let totals = "SELECT key, count(*), sum(value)::bigint, count(DISTINCT value % 5) FROM raw GROUP BY key";
        assert_eq!(differences(server, "SELECT * FROM totals", totals), ["0", "0"]);
        let firsts = "SELECT DISTINCT ON (key) key, value FROM raw WHERE value >= 0 ORDER BY key, ts, value";
        assert_eq!(differences(server, "SELECT * FROM firsts", firsts), ["0", "0"]);
        let found = "SELECT key, value, value FROM raw WHERE value >= 0";
        assert_eq!(differences(server, "SELECT * FROM found", found), ["0", "0"]);
        assert_eq!(
            lines(server, "SELECT (SELECT count(*) FROM firsts), (SELECT count(*) FROM totals)"),
            ["20000 20001"]
        );
    };
    check(&server);
    server.kill_and_restart();
    check(&server);
}

/// A join, sessions and ranks: rows that are found by their keys, and go when their time has come.
#[test]
fn open_rows_that_are_more_than_their_memory() {
    let Some(brokers) = brokers("pipelines::spilling::open_rows_that_are_more_than_their_memory") else { return };
    let topic = topic("spilling-open");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    source(&server, "s", &brokers, &topic);
    source(&server, "v", &brokers, &topic);
    server.sql("CREATE TABLE raw (key TEXT, value BIGINT, ts TIMESTAMPTZ) FROM SOURCE s");
    server.sql("CREATE TABLE pairs (key TEXT, value BIGINT, next BIGINT)");
    server.sql("CREATE TABLE sessions (key TEXT, start TIMESTAMPTZ, rows BIGINT, total BIGINT)");
    server.sql("CREATE TABLE newest (key TEXT, value BIGINT, place BIGINT)");
    let options = "memory_limit = '1MB', checkpoint_interval = '100ms', idle_timeout = '1 hour'";
    let join = |left: &str, right: &str| {
        format!(
            "SELECT a.key, a.value, b.value AS next FROM {left} a LEFT JOIN {right} b ON b.key = a.key
             AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 hour' AND b.value > a.value WHERE a.value >= 0"
        )
    };
    server.sql(&format!("CREATE PIPELINE pairs INTO pairs WITH ({options}) AS {}", join("s", "v")));
    let gap = "INTERVAL '40' MINUTE";
    server.sql(&format!(
        "CREATE PIPELINE sessions INTO sessions WITH ({options}, parallelism = 2) AS
         SELECT key, SESSION_START(ts, {gap}), count(*), sum(value)::bigint FROM s WHERE value >= 0 GROUP BY key, SESSION(ts, {gap})"
    ));
    server.sql(&format!(
        "CREATE PIPELINE newest INTO newest WITH ({options}) AS
         SELECT key, value, n FROM (SELECT key, value, ts, row_number() OVER (PARTITION BY key, TUMBLE(ts, INTERVAL '4' HOUR) ORDER BY value DESC) AS n
         FROM s WHERE value >= 0) q WHERE n <= 2"
    ));
    let feed = Feed::new(&brokers, &topic);
    send(&mut server, &feed, [22_000, 46_000], 3);
    send_end(&feed, -1);
    let expected = join("raw", "raw");
    server.wait_for("SELECT count(*) FROM raw", &(ROWS + 2).to_string(), PATIENCE);
    server.wait_for(
        "SELECT count(*) FROM pairs",
        &server.value(&format!("SELECT count(*) FROM ({expected}) q")),
        PATIENCE,
    );
    let check = |server: &Server| {
        server.sql("SELECT rt.drain('s')");
        server.sql("SELECT rt.drain('v')");
        assert_eq!(
            lines(server, "SELECT state, restarts, error FROM rt.pipelines"),
            ["running 0 null", "running 0 null", "running 0 null"]
        );
        assert_eq!(differences(server, "SELECT * FROM pairs", &expected), ["0", "0"]);
        let sessions = "WITH begins AS (SELECT *, CASE WHEN ts - lag(ts) OVER (PARTITION BY key ORDER BY ts) < INTERVAL '40 minutes' THEN 0 ELSE 1 END AS one
                            FROM raw WHERE value >= 0),
                        numbered AS (SELECT *, sum(one) OVER (PARTITION BY key ORDER BY ts) AS number FROM begins)
                        SELECT key, min(ts), count(*), sum(value)::bigint FROM numbered GROUP BY key, number";
        assert_eq!(differences(server, "SELECT * FROM sessions", sessions), ["0", "0"]);
        let newest = "SELECT key, value, n::bigint FROM (SELECT key, value, row_number() OVER (PARTITION BY key ORDER BY value DESC) AS n FROM raw WHERE value >= 0) q WHERE n <= 2";
        assert_eq!(differences(server, "SELECT * FROM newest", newest), ["0", "0"]);
        // Both sessions of several rows and of one, and left rows with a partner and without.
        let kinds = "SELECT (SELECT count(DISTINCT rows) > 1 FROM sessions), (SELECT count(next) > 10000 AND count(*) > count(next) + 10000 FROM pairs), (SELECT count(*) FROM newest WHERE place = 1)";
        assert_eq!(lines(server, kinds), ["t t 20000"]);
    };
    check(&server);
    // Of the join a file may have rows of the end, which are open.
    server.wait_for("SELECT sum(spilled_bytes) FROM rt.pipelines WHERE name <> 'pairs'", "0", PATIENCE);
    server.kill_and_restart();
    check(&server);
}

/// Files of spilled state, the newest last.
fn files(server: &Server) -> Vec<PathBuf> {
    let id = server.value("SELECT id FROM rt.pipelines");
    let mut found = Vec::new();
    let mut folders = vec![server.data_dir.clone()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "spill") {
                assert!(path.parent().unwrap().to_string_lossy().ends_with(&id), "{path:?}");
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file of spilled state that is damaged is a damaged checkpoint: the one before it counts, and nothing is lost. Files go when no checkpoint names them.
#[test]
fn damaged_spilled_state_is_passed_over() {
    let Some(brokers) = brokers("pipelines::spilling::damaged_spilled_state_is_passed_over") else { return };
    let topic = topic("spilling-damaged");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start_alone(BINARY);
    source(&server, "s", &brokers, &topic);
    server.sql("CREATE TABLE sums (key TEXT, rows BIGINT, total BIGINT)");
    server.sql(
        "CREATE PIPELINE sums INTO sums WITH (memory_limit = '256kB', checkpoint_interval = '1 hour', idle_timeout = '1 hour') AS
         SELECT key, count(*), sum(value)::bigint FROM s WHERE value >= 0 GROUP BY key, TUMBLE(ts, INTERVAL '1' DAY)",
    );
    let feed = Feed::new(&brokers, &topic);
    let mut sent = 0;
    let mut known = Vec::new();
    for _ in 0..2 {
        let before = server.value("SELECT spilled_bytes FROM rt.pipelines");
        (sent..sent + 20_000).for_each(|row| feed.send(0, message(row).as_bytes()));
        feed.flush();
        sent += 20_000;
        server.sql("SELECT rt.drain('s')");
        // A paused pipeline spills nothing.
        server.wait_for(&format!("SELECT spilled_bytes > {before} FROM rt.pipelines"), "t", PATIENCE);
        server.sql("ALTER PIPELINE sums PAUSE");
        known.push(files(&server));
        server.sql("ALTER PIPELINE sums RESUME");
    }
    server.kill_9();
    let newest = known[1].last().unwrap();
    assert!(!known[0].contains(newest) && known[0].iter().any(|file| file.exists()), "{known:?}");
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(newest, bytes).unwrap();
    server.spawn();
    server.wait_ready();
    let damaged = "SELECT count(*) FROM rt.events WHERE kind = 'checkpoint_damaged' AND message LIKE '%.spill%'";
    assert_eq!(server.value(damaged), "1");
    (0..2)
        .for_each(|_| feed.send(0, format!(r#"{{"key":"end","value":0,"ts":{}}}"#, START_MS + 80_000_000).as_bytes()));
    (0..2)
        .for_each(|_| feed.send(0, format!(r#"{{"key":"end","value":0,"ts":{}}}"#, START_MS + 160_000_000).as_bytes()));
    feed.flush();
    server.sql("SELECT rt.drain('s')");
    let rows: Vec<i64> = (0..sent).filter(|row| row % 53 != 52).collect();
    assert_eq!(
        lines(&server, "SELECT sum(rows), sum(total), max(rows) FROM sums WHERE key <> 'end'"),
        [format!("{} {} 2", rows.len(), rows.iter().sum::<i64>())]
    );
    // Three checkpoints later nobody names them.
    for _ in 0..4 {
        feed.send(0, format!(r#"{{"key":"end","value":0,"ts":{}}}"#, START_MS + 160_000_000).as_bytes());
        feed.flush();
        server.sql("SELECT rt.drain('s')");
        server.sql("ALTER PIPELINE sums PAUSE");
        server.sql("ALTER PIPELINE sums RESUME");
    }
    assert_eq!(files(&server), Vec::<PathBuf>::new());
}
