//! Tables that get another number of partitions while they run: rows of all kinds, readers and writers beside it, and kill -9 at every step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::server::{Server, connect, describe, runtime};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn set(server: &Server, table: &str, partitions: u32) {
    server.sql(&format!("ALTER TABLE {table} SET (partitions = {partitions})"));
}

/// Rows that are seen, in one text.
fn contents(server: &Server, table: &str) -> Vec<Vec<Option<String>>> {
    server.sql(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
}

/// Tables of every mode, with rows that were changed, deleted and merged; some committed, some in memory.
fn filled(server: &Server) {
    server.sql("CREATE TABLE plain (k BIGINT, n BIGINT, note TEXT) WITH (partitions = 2, seal_rows = 300)");
    server.sql("CREATE TABLE latest (k BIGINT PRIMARY KEY, n BIGINT, gone BOOLEAN, note TEXT) WITH (partitions = 2, seal_rows = 300, version_column = 'n', delete_column = 'gone')");
    server.sql("CREATE TABLE first (k BIGINT PRIMARY KEY, n BIGINT, note TEXT) WITH (partitions = 2, seal_rows = 300, mode = 'dedup')");
    server.sql("CREATE TABLE sums (k BIGINT PRIMARY KEY, n BIGINT MERGE increment, note TEXT) WITH (partitions = 2, seal_rows = 300, mode = 'partial_upsert')");
    server.sql("CREATE INDEX ON latest USING sorted (note)");
    for part in 0..4 {
        for table in ["plain", "first", "sums"] {
            server.sql(&format!("INSERT INTO {table} (k, n, note) SELECT k, {part}, 'note ' || k || ' {part}' FROM generate_series({part} * 100, 600) AS s(k)"));
        }
        server.sql(&format!("INSERT INTO latest SELECT k, {part}, k % 11 = {part}, 'note ' || k || ' {part}' FROM generate_series({part} * 100, 600) AS s(k)"));
    }
    for table in ["plain", "latest", "first", "sums"] {
        server.sql(&format!("DELETE FROM {table} WHERE k % 10 = 3"));
        server.sql(&format!("UPDATE {table} SET note = 'changed ' || k WHERE k % 10 = 4"));
    }
    server.sql("INSERT INTO latest VALUES (13, 0, false, 'too late'), (23, 9, false, 'back again')");
}

const TABLES: [&str; 4] = ["plain", "latest", "first", "sums"];

/// What comes next meets what is there: old versions, keys that are taken, sums, and keys that were deleted.
fn add(server: &Server, round: i64) {
    server.sql(&format!("INSERT INTO plain SELECT k, {round}, 'more' FROM generate_series(1, 50) AS s(k)"));
    server.sql(&format!("INSERT INTO latest SELECT k, CASE WHEN k % 2 = 0 THEN {round} ELSE -1 END, false, 'more' FROM generate_series(1, 700, 7) AS s(k)"));
    server.sql(&format!("INSERT INTO first SELECT k, {round}, 'more' FROM generate_series(500, 700, 3) AS s(k)"));
    server.sql("INSERT INTO sums SELECT k, 1, NULL FROM generate_series(1, 700, 5) AS s(k)");
}

/// The same statements on tables whose partitions stay, and on others; the rows are the same after each step, and after kill -9.
#[test]
fn tables_of_every_mode_keep_their_rows() {
    let mut moved = Server::start(BINARY);
    let still = Server::start(BINARY);
    for server in [&moved, &still] {
        filled(server);
    }
    for (round, partitions) in (10..).zip([5, 3, 1, 4]) {
        for table in TABLES {
            set(&moved, table, partitions);
            assert_eq!(contents(&moved, table), contents(&still, table), "{table} in {partitions}");
            let known = moved.value(&format!("SELECT partitions FROM rt.tables WHERE name = '{table}'"));
            assert_eq!(known, partitions.to_string());
        }
        for server in [&moved, &still] {
            add(server, round);
        }
        for table in TABLES {
            assert_eq!(contents(&moved, table), contents(&still, table), "{table} in {partitions}, later");
        }
        moved.kill_and_restart();
        for server in [&moved, &still] {
            server.sql("UPDATE latest SET note = 'once more' WHERE k % 13 = 1");
            server.sql("DELETE FROM plain WHERE k % 17 = 1");
        }
        for table in TABLES {
            assert_eq!(contents(&moved, table), contents(&still, table), "{table} in {partitions}, after a crash");
            moved.sql(&format!("SELECT rt.compact('{table}')"));
        }
    }
}

/// Before the metadata log has it the table has the partitions that it had, after that the new ones; rows are the same.
#[test]
fn a_statement_that_is_cut_short_is_done_or_not() {
    for (point, is_done) in
        [("repartition::copied", false), ("repartition::prepared", false), ("repartition::logged", true)]
    {
        let mut server = Server::start(BINARY);
        filled(&server);
        for (table, partitions) in [("plain", 3), ("latest", 5), ("first", 1), ("sums", 3), ("plain", 1)] {
            let before = contents(&server, table);
            let known = format!("SELECT partitions FROM rt.tables WHERE name = '{table}'");
            let had: String = server.value(&known);
            server.kill_9();
            server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
            server.wait_ready();
            server
                .try_sql(&format!("ALTER TABLE {table} SET (partitions = {partitions})"))
                .expect_err("the statement was cut short");
            server.kill_and_restart();
            assert_eq!(contents(&server, table), before, "{point}: {table}");
            assert_eq!(server.value(&known), if is_done { partitions.to_string() } else { had }, "{point}: {table}");
            add(&server, 20);
            set(&server, table, partitions + 1);
            server.kill_and_restart();
            assert_eq!(server.value(&known), (partitions + 1).to_string());
        }
    }
}

/// Every snapshot has every key once, none in an older version than before, while keys go from partition to partition and rows come.
#[test]
fn readers_and_writers_go_on() {
    const KEYS: i64 = 3000;
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, round BIGINT) WITH (seal_rows = 2000, partitions = 2)");
    server.sql(&format!("INSERT INTO t SELECT k, 0 FROM generate_series(1, {KEYS}) AS s(k)"));
    let stop = Arc::new(AtomicBool::new(false));
    let port = server.pg_port;
    let reader = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(port).await.unwrap();
                let prepared =
                    client.prepare("SELECT count(*), count(DISTINCT k), max(round), min(round) FROM t").await.unwrap();
                let (mut reads, mut last) = (0, (0, 0));
                while !stop.load(Ordering::Relaxed) {
                    let sql = "SELECT count(*), count(DISTINCT k), max(round), min(round) FROM t";
                    let rows = match reads % 2 {
                        0 => client.query(sql, &[]).await.unwrap(),
                        _ => client.query(&prepared, &[]).await.unwrap(),
                    };
                    let (count, keys): (i64, i64) = (rows[0].get(0), rows[0].get(1));
                    let rounds: (i64, i64) = (rows[0].get(2), rows[0].get(3));
                    assert_eq!((count, keys), (KEYS, KEYS));
                    assert!(rounds.0 >= last.0 && rounds.1 >= last.1, "{rounds:?} after {last:?}");
                    last = rounds;
                    reads += 1;
                }
                reads
            })
        })
    };
    let writer = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(port).await.unwrap();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let sql = format!("INSERT INTO t SELECT k, {round} FROM generate_series(1, {KEYS}) AS s(k)");
                    client.execute(&sql, &[]).await.unwrap();
                }
                round
            })
        })
    };
    for partitions in [5, 1, 3, 8, 2] {
        set(&server, "t", partitions);
        let before = server.value("SELECT max(round) FROM t");
        server.wait_for(&format!("SELECT max(round) > {before} FROM t"), "t", Duration::from_secs(60));
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    assert!(reader.join().unwrap() > 5, "somebody read");
    for _ in 0..2 {
        let seen = server.sql("SELECT count(*), min(round), max(round) FROM t");
        assert_eq!(seen, [[Some(KEYS.to_string()), Some(rounds.to_string()), Some(rounds.to_string())]]);
        server.kill_and_restart();
    }
}

/// Each message is a row once, whichever partition accounts for its stream: as in a table beside it whose partitions stay.
#[test]
fn streams_go_on_in_other_partitions() {
    for key in ["", ", PRIMARY KEY (id)"] {
        let mut server = Server::start(BINARY);
        server.sql("CREATE SOURCE demo WITH (connector = 'generator', rate = 3000, rows = 24000, partitions = 4)");
        for table in ["moved", "still"] {
            server.sql(&format!(
                "CREATE TABLE {table} (id BIGINT, city TEXT{key}) WITH (partitions = 2, seal_rows = 1000) FROM SOURCE demo AS SELECT order_id AS id, city"
            ));
        }
        let read = |table: &str| {
            format!("SELECT sum(position)::bigint FROM rt.partitions WHERE \"table\" = '{table}' AND source = 'demo'")
        };
        for (at, partitions) in [4, 1, 3].into_iter().enumerate() {
            let enough = read("moved").replace("::bigint", &format!(" > {}", 4000 * (at + 1)));
            server.wait_for(&enough, "t", Duration::from_secs(60));
            set(&server, "moved", partitions);
            if at == 1 {
                server.kill_and_restart();
            }
        }
        for table in ["moved", "still"] {
            server.wait_for(&read(table), "24000", Duration::from_secs(120));
        }
        assert_eq!(contents(&server, "moved"), contents(&server, "still"));
        server.sql("SELECT rt.seal('moved')");
        server.kill_and_restart();
        server.wait_for(&read("still"), "24000", Duration::from_secs(120));
        assert_eq!(contents(&server, "moved"), contents(&server, "still"));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k INT)");
    for (sql, state) in [
        ("ALTER TABLE t SET (partitions = 0)", "22023"),
        ("ALTER TABLE t SET (partitions = 5000)", "22023"),
        ("ALTER TABLE t SET (partitions = 'many')", "22023"),
        ("ALTER TABLE t ADD COLUMN n INT, SET (partitions = 2)", "0A000"),
        ("ALTER TABLE nowhere SET (partitions = 2)", "42P01"),
    ] {
        let error = describe(&server.try_sql(sql).unwrap_err());
        assert!(error.contains(state), "{sql}: {error}");
    }
    server.sql("ALTER TABLE t SET (partitions = 1)");
    server.sql("ALTER TABLE t SET (partitions = 2, seal_rows = 5000)");
    let options = server.sql("SELECT partitions, seal_rows FROM rt.tables WHERE name = 't'");
    assert_eq!(options, [[Some("2".to_owned()), Some("5000".to_owned())]]);
}
