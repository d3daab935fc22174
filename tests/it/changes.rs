//! UPDATE and DELETE beside writers and readers, over kill -9 at every step, and of rows from Kafka.

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

/// Rows of two tables of several partitions, one of them with a key; some committed, some in memory.
fn filled(server: &Server) {
    server.sql("CREATE TABLE plain (k BIGINT, n BIGINT, note TEXT) WITH (partitions = 3, seal_rows = 400)");
    server.sql("CREATE TABLE keyed (k BIGINT PRIMARY KEY, n BIGINT, note TEXT) WITH (partitions = 3, seal_rows = 400)");
    for table in ["plain", "keyed"] {
        for part in 0..5 {
            let (from, to) = (part * 200, part * 200 + 199);
            server.sql(&format!(
                "INSERT INTO {table} SELECT k, k % 10, 'note ' || k FROM generate_series({from}, {to}) AS s(k)"
            ));
        }
    }
}

fn state(server: &Server, table: &str) -> Vec<Vec<Option<String>>> {
    server.sql(&format!("SELECT count(*), sum(k), sum(n), count(DISTINCT k), max(note) FROM {table}"))
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut server = Server::start(BINARY);
    filled(&server);
    for table in ["plain", "keyed"] {
        server.sql(&format!("DELETE FROM {table} WHERE n = 3"));
        server.sql(&format!("UPDATE {table} SET n = n + 100, note = 'changed ' || k WHERE n = 4"));
        server.sql(&format!("UPDATE {table} SET n = n + 100 WHERE n = 104 AND k < 500"));
        server.sql(&format!("DELETE FROM {table} WHERE n = 104 AND k > 900"));
    }
    for table in ["plain", "keyed"] {
        // Of 1000 rows a tenth is gone, and ten of those that were changed.
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table}")), "890");
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table} WHERE n = 204")), "50");
        assert_eq!(
            server.value(&format!("SELECT count(*) FROM {table} WHERE n = 104 AND note LIKE 'changed %'")),
            "40"
        );
    }
    let before = [state(&server, "plain"), state(&server, "keyed")];
    for _ in 0..2 {
        server.kill_and_restart();
        assert_eq!([state(&server, "plain"), state(&server, "keyed")], before);
    }
    // What comes again of a key wins against rows that are gone.
    server.sql("INSERT INTO keyed SELECT k, 0, 'again' FROM generate_series(3, 999, 10) AS s(k)");
    assert_eq!(server.value("SELECT count(*) FROM keyed"), "990");
    server.sql("SELECT rt.seal('keyed')");
    server.kill_and_restart();
    assert_eq!(server.value("SELECT count(*) FROM keyed WHERE note = 'again'"), "100");
}

/// Before the metadata log has it nothing happened, after that all of it.
#[test]
fn a_statement_that_is_cut_short_is_done_or_not() {
    let mut server = Server::start(BINARY);
    filled(&server);
    for (point, is_done) in [("change::written", false), ("change::logged", true)] {
        for table in ["plain", "keyed"] {
            for (change, rows, changed) in [
                (format!("DELETE FROM {table} WHERE n = {}", if is_done { 1 } else { 2 }), -100, 0),
                (format!("UPDATE {table} SET note = '{point}', n = -1 WHERE n = 5"), 0, 100),
            ] {
                let count = format!("SELECT count(*) FROM {table}");
                let of_note = format!("SELECT count(*) FROM {table} WHERE note = '{point}'");
                server.sql(&format!("UPDATE {table} SET n = 5 WHERE n = -1"));
                let before: i64 = server.value(&count).parse().unwrap();
                server.kill_9();
                server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
                server.wait_ready();
                server.try_sql(&change).expect_err("the statement was cut short");
                server.kill_and_restart();
                let (rows, changed) = if is_done { (rows, changed) } else { (0, 0) };
                assert_eq!(server.value(&count), (before + rows).to_string(), "{point}: {change}");
                assert_eq!(server.value(&of_note), changed.to_string(), "{point}: {change}");
                if is_done && rows < 0 {
                    server.sql(&format!(
                        "INSERT INTO {table} SELECT k, 1, 'note' FROM generate_series(1, 991, 10) AS s(k)"
                    ));
                }
            }
        }
    }
}

/// The metadata log has the change and reports an error, and cannot be asked either: the new segment's file must stay, or the table could not be
/// opened again.
#[test]
fn a_change_that_nobody_knows_of_is_settled_at_the_next_start() {
    let mut server = Server::start(BINARY);
    filled(&server);
    for table in ["plain", "keyed"] {
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", "change::reported=return;change::asked=return")]);
        server.wait_ready();
        let update = format!("UPDATE {table} SET note = 'perhaps' WHERE n = 5");
        server.try_sql(&update).expect_err("the log reported an error");
        server.kill_and_restart();
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table} WHERE note = 'perhaps' AND n = 5")), "100");
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table} WHERE n = 5")), "100");
    }
}

/// Each UPDATE moves amounts between rows: their sum is the same in every snapshot, and no update is lost.
#[test]
fn readers_see_a_statement_whole_and_statements_do_not_overtake_each_other() {
    for (key, table) in [("", "plain"), (" PRIMARY KEY", "keyed")] {
        let server = Server::start(BINARY);
        server.sql(&format!("CREATE TABLE {table} (k BIGINT{key}, n BIGINT) WITH (partitions = 3)"));
        server.sql(&format!("INSERT INTO {table} SELECT k, 100 FROM generate_series(1, 50) AS s(k)"));
        let stop = Arc::new(AtomicBool::new(false));
        let reader = {
            let (port, stop) = (server.pg_port, Arc::clone(&stop));
            thread::spawn(move || {
                runtime().block_on(async {
                    let client = connect(port).await.unwrap();
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let sql = format!("SELECT count(*), sum(n)::bigint FROM {table}");
                        let rows = client.query(&sql, &[]).await.unwrap();
                        assert_eq!((rows[0].get::<_, i64>(0), rows[0].get::<_, i64>(1)), (50, 5000));
                        reads += 1;
                    }
                    reads
                })
            })
        };
        let writers: Vec<_> = (1..=3i64)
            .map(|writer| {
                let port = server.pg_port;
                thread::spawn(move || {
                    runtime().block_on(async {
                        let client = connect(port).await.unwrap();
                        for round in 0..10 {
                            let (from, to) = (1 + (round * 7 + writer * 3) % 50, 1 + (round * 11 + writer * 5) % 50);
                            if from == to {
                                continue;
                            }
                            let sql = format!(
                                "UPDATE {table} SET n = CASE k WHEN {from} THEN n - 1 ELSE n + 1 END WHERE k IN ({from}, {to})"
                            );
                            assert_eq!(client.execute(&sql, &[]).await.unwrap(), 2);
                        }
                    });
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 5, "somebody read");
        assert_eq!(server.value(&format!("SELECT sum(n) FROM {table}")), "5000");
        // All of one key's updates one after the other, in two sessions.
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        server.sql(&format!("UPDATE {table} SET n = n + 1 WHERE k = 50"));
                    }
                });
            }
        });
        assert_eq!(server.value(&format!("SELECT sum(n) FROM {table}")), "5016");
    }
}

/// Rows come all the time; a statement is about those that were there when it began.
#[test]
fn statements_beside_a_stream_of_rows() {
    let server = Server::start(BINARY);
    server.sql("CREATE SOURCE demo WITH (connector = 'generator', rate = 2000, rows = 20000)");
    server.sql("CREATE TABLE seen (id BIGINT, city TEXT) FROM SOURCE demo AS SELECT order_id AS id, city");
    server.wait_for("SELECT count(*) > 1000 FROM seen", "t", Duration::from_secs(30));
    let mut deleted = 0;
    for round in 0..5 {
        deleted += runtime().block_on(async {
            let client = connect(server.pg_port).await.unwrap();
            let deleted = client.execute("DELETE FROM seen", &[]).await.unwrap();
            client.execute("UPDATE seen SET city = 'changed'", &[]).await.unwrap();
            deleted
        });
        server.wait_for("SELECT count(*) > 200 FROM seen", "t", Duration::from_secs(30));
        assert!(deleted >= 1000 + round * 200, "{deleted} after round {round}");
    }
    server.wait_for("SELECT count(*) FROM seen", &(20_000 - deleted).to_string(), Duration::from_secs(60));
}

#[test]
fn parameters_are_of_the_columns_types() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT, n INT, at TIMESTAMPTZ, doc JSONB, tags TEXT[], price NUMERIC(8,2))");
    server.sql("INSERT INTO t (id) VALUES (1), (2)");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let statement = client
            .prepare("UPDATE t SET n = $1, at = $2, doc = $3, tags = $4, price = $5 WHERE id = $6")
            .await
            .unwrap();
        let types: Vec<_> = statement.params().iter().map(|pg_type| pg_type.name().to_owned()).collect();
        assert_eq!(types, ["int4", "timestamptz", "jsonb", "_text", "numeric", "int8"]);
        assert!(statement.columns().is_empty());
        let changed =
            client.execute("UPDATE t SET n = $1, tags = $2 WHERE id = $3", &[&7i32, &vec!["a"], &2i64]).await.unwrap();
        assert_eq!(changed, 1);
        assert_eq!(client.execute("DELETE FROM t WHERE id = $1", &[&1i64]).await.unwrap(), 1);
        let rows = client.query("SELECT n, tags FROM t", &[]).await.unwrap();
        assert_eq!((rows[0].get::<_, i32>(0), rows[0].get::<_, Vec<String>>(1)), (7, vec!["a".to_owned()]));
    });
    let error = describe(&server.try_sql("BEGIN READ ONLY; DELETE FROM t").unwrap_err());
    assert!(error.contains("25006") && error.contains("DELETE"), "{error}");
    assert_eq!(server.value("SELECT count(*) FROM t"), "1");
}

/// Prepared statements are planned again after definitions change. Their numeric parameters had ten digits behind the point from then on: rows of other
/// keys were read, and written over.
#[test]
fn numeric_parameters_keep_their_digits_when_definitions_change() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k NUMERIC(30,20) PRIMARY KEY, a INT)");
    server.sql("INSERT INTO t VALUES (0.00000000000000000007, 7), (0, 0)");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        client.batch_execute("PREPARE r AS SELECT a FROM t WHERE k = $1").await.unwrap();
        client.batch_execute("PREPARE w AS INSERT INTO t VALUES ($1, $2)").await.unwrap();
        for round in 0..3 {
            let found = client.simple_query("EXECUTE r('0.00000000000000000007')").await.unwrap();
            let found = found.iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            assert_eq!(found.as_deref(), Some("7"), "round {round}");
            client.batch_execute(&format!("EXECUTE w('0.0000000000000000000{}', {round})", round + 1)).await.unwrap();
            client.batch_execute(&format!("CREATE TABLE other_{round} (a INT)")).await.unwrap();
        }
    });
    assert_eq!(server.value("SELECT string_agg(a::text, ' ' ORDER BY k) FROM t"), "0 0 1 2 7");
}
