//! Segments written again: rows that nobody sees leave the disk, small segments become few, and no answer changes, over kill -9 at every step and
//! beside readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::{
    files::files_with,
    server::{Server, connect, runtime},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn committed(server: &Server, table: &str) -> String {
    server.value(&format!("SELECT count(*) FROM rt.segments WHERE \"table\" = '{table}' AND state = 'committed'"))
}

/// In texts that are kept as they are, so that they would be found.
#[test]
fn deleted_bytes_are_in_no_segment_or_index() {
    let mut server = Server::start(BINARY);
    for (table, key) in [("plain", ""), ("keyed", " PRIMARY KEY")] {
        server.sql(&format!(
            "CREATE TABLE {table} (k BIGINT{key}, note TEXT COMPRESSION none, must TEXT COMPRESSION none NOT NULL)"
        ));
        server.sql(&format!("CREATE INDEX ON {table} USING inverted (note)"));
        server.sql(&format!("CREATE INDEX ON {table} USING text (must)"));
        server.sql(&format!(
            "INSERT INTO {table} SELECT k, CASE WHEN k = 500 THEN 'zzmarkerone' ELSE 'note ' || k END,
             CASE WHEN k = 500 THEN 'zzmarkertwo' ELSE 'must ' || k END FROM generate_series(1, 1000) AS s(k)"
        ));
        server.sql(&format!("SELECT rt.seal('{table}')"));
    }
    let tables = server.data_dir.join("tables");
    assert!(files_with(&tables, "zzmarkerone").len() >= 2 && files_with(&tables, "zzmarkertwo").len() >= 2);
    for table in ["plain", "keyed"] {
        server.sql(&format!("DELETE FROM {table} WHERE k = 500"));
        assert_eq!(server.value(&format!("SELECT rt.compact('{table}')")), "1");
        // What is left of it is no more reason to write it again.
        assert_eq!(server.value(&format!("SELECT rt.compact('{table}')")), "0");
    }
    let none: Vec<String> = Vec::new();
    assert_eq!(files_with(&tables, "zzmarkerone"), none);
    assert_eq!(files_with(&tables, "zzmarkertwo"), none);
    for restarted in [false, true] {
        if restarted {
            server.kill_and_restart();
        }
        for table in ["plain", "keyed"] {
            assert_eq!(server.value(&format!("SELECT count(*) FROM {table}")), "999");
            assert_eq!(server.value(&format!("SELECT k FROM {table} WHERE note = 'note 700'")), "700");
        }
    }
    assert_eq!(server.value("SELECT rt.compact('keyed')"), "0");
}

/// What INSERT brought stood in the table's log, although it was committed and deleted, until other rows had filled the file.
#[test]
fn deleted_bytes_are_in_no_file_of_the_server() {
    let mut server = Server::start(BINARY);
    for (table, key) in [("plain", ""), ("keyed", " PRIMARY KEY")] {
        server.sql(&format!("CREATE TABLE {table} (k BIGINT{key}, note TEXT COMPRESSION none)"));
        server.sql(&format!("INSERT INTO {table} SELECT k, 'note ' || k FROM generate_series(1, 100) AS s(k)"));
        // The greatest of its column, so that it would be in statistics, too. One is committed before it is deleted, one is not, one is changed.
        server.sql(&format!("INSERT INTO {table} VALUES (500, 'zzmarkerone')"));
        server.sql(&format!("INSERT INTO {table} VALUES (501, 'zzmarkertwo')"));
        server.sql(&format!("SELECT rt.seal('{table}')"));
        server.sql(&format!("INSERT INTO {table} VALUES (502, 'zzmarkerthree')"));
    }
    let holding = |server: &Server| {
        ["zzmarkerone", "zzmarkertwo", "zzmarkerthree"].map(|marker| files_with(&server.data_dir, marker).len())
    };
    assert!(holding(&server).iter().all(|files| *files >= 2), "{:?}", holding(&server));
    for table in ["plain", "keyed"] {
        server.sql(&format!("INSERT INTO {table} VALUES (600, 'stays')"));
        server.sql(&format!("DELETE FROM {table} WHERE k IN (500, 502)"));
        server.sql(&format!("UPDATE {table} SET note = 'changed' WHERE k = 501"));
        server.sql(&format!("INSERT INTO {table} VALUES (601, 'stays')"));
        server.sql(&format!("SELECT rt.seal('{table}')"));
        server.sql(&format!("SELECT rt.compact('{table}')"));
    }
    assert_eq!(holding(&server), [0; 3]);
    for restarted in [false, true] {
        if restarted {
            server.kill_and_restart();
        }
        for table in ["plain", "keyed"] {
            let sums =
                format!("SELECT count(*), sum(k), count(*) FILTER (WHERE note IN ('changed', 'stays')) FROM {table}");
            assert_eq!(server.sql(&sums), [["103", "6752", "3"].map(|text| Some(text.to_owned()))]);
        }
    }
}

#[test]
fn small_segments_become_one_with_their_indexes() {
    let server = Server::start(BINARY);
    for (table, key) in [("plain", ""), ("keyed", " PRIMARY KEY")] {
        server.sql(&format!("CREATE TABLE {table} (k BIGINT{key}, city TEXT, n INT)"));
        server.sql(&format!("CREATE INDEX cities_{table} ON {table} USING inverted (city)"));
        server.sql(&format!("CREATE INDEX ON {table} USING sorted (n)"));
        for part in 0..10 {
            let (from, to) = (part * 90, part * 90 + 99);
            server.sql(&format!(
                "INSERT INTO {table} SELECT k, 'city ' || k % 5, 1000 - k FROM generate_series({from}, {to}) AS s(k)"
            ));
            server.sql(&format!("SELECT rt.seal('{table}')"));
        }
        let asks = [
            format!("SELECT count(*), sum(k), sum(n) FROM {table}"),
            format!("SELECT count(*), sum(k) FROM {table} WHERE city = 'city 3'"),
            format!("SELECT count(*), max(k) FROM {table} WHERE n BETWEEN 300 AND 400"),
        ];
        let before: Vec<_> = asks.iter().map(|sql| server.sql(sql)).collect();
        assert_eq!(committed(&server, table), "10");
        assert_eq!(server.value(&format!("SELECT rt.compact('{table}')")), "10");
        assert_eq!(committed(&server, table), "1");
        assert_eq!(asks.iter().map(|sql| server.sql(sql)).collect::<Vec<_>>(), before);
        assert_eq!(
            server.value(&format!("SELECT segments_built FROM rt.indexes WHERE index = 'cities_{table}'")),
            "1",
            "the new segment has its index at once"
        );
        let stale = server.value(&format!("SELECT max(stale_pct) FROM rt.segments WHERE \"table\" = '{table}'"));
        assert_eq!(stale, "0");
        let offsets = server.value(&format!("SELECT offsets FROM rt.segments WHERE \"table\" = '{table}'"));
        assert!(offsets.ends_with(":0:[0,1000)"), "{offsets}");
    }
}

/// Deleted keys stay away from older rows of theirs, whatever was written again and however often the server is started.
#[test]
fn tombstones_outlive_compaction() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v INT, gone BOOLEAN, note TEXT) WITH (version_column = 'v', delete_column = 'gone')",
    );
    server.sql("INSERT INTO t SELECT k, 5, false, 'first' FROM generate_series(1, 300) AS s(k)");
    server.sql("SELECT rt.seal('t')");
    server.sql("INSERT INTO t SELECT k, 6, true, NULL FROM generate_series(1, 100) AS s(k)");
    server.sql("DELETE FROM t WHERE k BETWEEN 101 AND 200");
    server.sql("SELECT rt.seal('t')");
    for round in 0..3 {
        server.sql("SELECT rt.compact('t')");
        assert_eq!(server.value("SELECT count(*) FROM t"), "100", "round {round}");
        // Late ones.
        server.sql("INSERT INTO t SELECT k, 4, false, 'late' FROM generate_series(1, 300) AS s(k)");
        server.sql("SELECT rt.seal('t')");
        assert_eq!(server.value("SELECT count(*) FROM t"), "100", "round {round}");
        server.kill_and_restart();
        assert_eq!(server.value("SELECT count(*) FROM t"), "100", "round {round}");
        assert_eq!(server.value("SELECT count(*) FROM t WHERE note = 'late'"), "0", "round {round}");
    }
    server.sql("INSERT INTO t SELECT k, 7, false, 'again' FROM generate_series(1, 200) AS s(k)");
    assert_eq!(server.value("SELECT count(*) FROM t"), "300");
    server.sql("SELECT rt.seal('t')");
    server.sql("SELECT rt.compact('t')");
    assert_eq!(committed(&server, "t"), "1");
    assert_eq!(server.value("SELECT sum(rows) FROM rt.segments WHERE \"table\" = 't'"), "300", "no tombstone is left");
}

#[test]
fn a_compaction_that_is_cut_short_is_done_or_not() {
    let mut server = Server::start(BINARY);
    for (table, key) in [("plain", ""), ("keyed", " PRIMARY KEY")] {
        server.sql(&format!("CREATE TABLE {table} (k BIGINT{key}, n INT) WITH (partitions = 2)"));
    }
    for (round, point) in ["compact::written", "compact::logged"].into_iter().enumerate() {
        for table in ["plain", "keyed"] {
            for part in 0..3 {
                let from = round * 1000 + part * 100;
                let sql = format!(
                    "INSERT INTO {table} SELECT k, {part} FROM generate_series({from}, {}) AS s(k)",
                    from + 120
                );
                server.sql(&sql);
                server.sql(&format!("SELECT rt.seal('{table}')"));
            }
            server.sql(&format!("DELETE FROM {table} WHERE k % 10 = {round}"));
            let sum = format!("SELECT count(*), sum(k), sum(n) FROM {table}");
            let before = server.sql(&sum);
            server.kill_9();
            server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
            server.wait_ready();
            server.try_sql(&format!("SELECT rt.compact('{table}')")).expect_err("it was cut short");
            server.kill_and_restart();
            assert_eq!(server.sql(&sum), before, "{point}");
            server.sql(&format!("SELECT rt.compact('{table}')"));
            assert_eq!(server.sql(&sum), before, "{point}, then whole");
            server.kill_and_restart();
            assert_eq!(server.sql(&sum), before, "{point}, then whole, then killed");
        }
    }
}

/// Upserts, statements, seals and compactions at once: every snapshot has every key once.
#[test]
fn readers_beside_compaction_see_every_key_once() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, round INT) WITH (partitions = 2)");
    server.sql("INSERT INTO t SELECT k, 0 FROM generate_series(1, 2000) AS s(k)");
    let stop = Arc::new(AtomicBool::new(false));
    let ask = |sql: &'static str| {
        let (port, stop) = (server.pg_port, Arc::clone(&stop));
        thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(port).await.unwrap();
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    let rows = client.query(sql, &[]).await.unwrap();
                    if rows[0].len() == 2 {
                        assert_eq!((rows[0].get::<_, i64>(0), rows[0].get::<_, i64>(1)), (2000, 2000), "{sql}");
                    }
                    asked += 1;
                }
                asked
            })
        })
    };
    let helpers = [
        ask("SELECT count(*), count(DISTINCT k) FROM t"),
        ask("SELECT sum(n)::bigint, count(*) FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS g"),
        ask("SELECT rt.compact('t')"),
    ];
    for round in 1..=30 {
        let step = 1 + round % 4;
        server.sql(&format!("INSERT INTO t SELECT k, {round} FROM generate_series(1, 2000, {step}) AS s(k)"));
        server.sql("SELECT rt.seal('t')");
        if round % 5 == 0 {
            server.sql("UPDATE t SET round = -round WHERE k % 7 = 0");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for helper in helpers {
        assert!(helper.join().unwrap() > 3);
    }
    server.sql("SELECT rt.compact('t')");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE k % 7 = 0 AND round <= 0"), "285");
}

/// Each segment that it wrote lost rows before it looked again: it never came back as long as others changed rows.
#[test]
fn compaction_at_once_ends_while_rows_change() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, v BIGINT, x BIGINT) WITH (mode = 'upsert', seal_rows = 5000)");
    server.sql("INSERT INTO t SELECT i, 0, 0 FROM generate_series(0, 499) AS g(i)");
    let is_over = AtomicBool::new(false);
    let updated = AtomicU64::new(0);
    thread::scope(|scope| {
        for session in 0..3u64 {
            let (server, is_over, updated) = (&server, &is_over, &updated);
            scope.spawn(move || {
                let mut k = session * 150;
                while !is_over.load(Ordering::SeqCst) {
                    server.sql(&format!("UPDATE t SET x = x + 1 WHERE id BETWEEN {k} AND {}", k + 3));
                    updated.fetch_add(4, Ordering::SeqCst);
                    k = session * 150 + (k + 7) % 140;
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        thread::sleep(Duration::from_secs(1));
        let compacted: Vec<_> =
            (0..3).map(|_| server.try_sql("SET statement_timeout = '60s'; SELECT rt.compact('t')")).collect();
        is_over.store(true, Ordering::SeqCst);
        let written = |compacted: Vec<Vec<Option<String>>>| {
            compacted.last().unwrap()[0].as_ref().unwrap().parse::<u64>().unwrap()
        };
        let written: u64 = compacted.into_iter().map(|compacted| written(compacted.expect("it ends"))).sum();
        // Right after one there may be nothing to write again.
        assert!(written > 0);
    });
    let sum = updated.load(Ordering::SeqCst).to_string();
    assert_eq!(server.value("SELECT count(*) || ' ' || sum(x) FROM t"), format!("500 {sum}"));
}

/// Rows that INSERT replaced or deleted stood in the table's log until some DELETE began a new file of it.
#[test]
fn what_inserts_replaced_is_in_no_file_after_seal_and_compact() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE g (k BIGINT PRIMARY KEY, name TEXT, del BOOLEAN) WITH (delete_column = 'del')");
    server.sql("INSERT INTO g VALUES (1, 'zzmarkerdeleted', false), (2, 'zzmarkerreplaced', false), (3, 'zzmarkerkept', false)");
    server.sql("INSERT INTO g VALUES (1, NULL, true), (2, 'other', false)");
    assert!(!files_with(&server.data_dir, "zzmarkerdeleted").is_empty(), "it is in some file first");
    server.sql("SELECT rt.seal('g')");
    server.sql("SELECT rt.compact('g')");
    for marker in ["zzmarkerdeleted", "zzmarkerreplaced"] {
        assert_eq!(files_with(&server.data_dir, marker), Vec::<String>::new(), "{marker}");
    }
    assert_eq!(server.value("SELECT string_agg(name, ' ' ORDER BY k) FROM g"), "other zzmarkerkept");
}
