//! Readers beside the writer: a key is seen once, in its old row or its new one, in every snapshot; after kill -9 what was acknowledged is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{BINARY, Random};
use crate::support::server::{Server, connect, runtime};

const KEYS: usize = 3000;

/// Asks until it is told to stop: every answer has each key once, and none is older than the one before.
fn read(port: u16, stop: &AtomicBool) -> usize {
    runtime().block_on(async {
        let client = connect(port).await.unwrap();
        let mut last = 0;
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            let sql = match reads % 4 {
                0 => "SELECT count(*), max(round), count(DISTINCT k) FROM t",
                1 => "SELECT count(*), max(round), 3000 FROM t WHERE k >= 0",
                2 => "SELECT count(*), max(m), 3000 FROM (SELECT k, max(round) AS m FROM t GROUP BY k) AS g",
                _ => "SELECT sum(n), max(m), 3000 FROM (SELECT k % 7, count(*) AS n, max(round) AS m FROM t GROUP BY 1) AS g",
            };
            let rows = client.query(&format!("SELECT a::bigint, b::bigint, c::bigint FROM ({sql}) AS r(a, b, c)"), &[]).await.unwrap();
            let (count, round, keys): (i64, i64, i64) = (rows[0].get(0), rows[0].get(1), rows[0].get(2));
            assert_eq!((count, keys), (KEYS as i64, KEYS as i64), "{sql}");
            assert!(round >= last, "round {round} after {last}");
            last = round;
            reads += 1;
        }
        reads
    })
}

/// Looks keys up until it is told to stop: each is there once, and never older than it was.
fn look_up(port: u16, stop: &AtomicBool) -> usize {
    runtime().block_on(async {
        let client = connect(port).await.unwrap();
        let prepared = client.prepare("SELECT round, note, k FROM t WHERE k = $1").await.unwrap();
        let (mut random, mut known, mut reads) = (Random(3), vec![0; KEYS], 0);
        while !stop.load(Ordering::Relaxed) {
            let k = random.below(KEYS);
            let rows = client.query(&prepared, &[&(k as i64)]).await.unwrap();
            assert_eq!(rows.len(), 1, "key {k}");
            let (round, note, found): (i64, String, i64) = (rows[0].get(0), rows[0].get(1), rows[0].get(2));
            assert_eq!(found, k as i64);
            assert_eq!(note, if round == 0 { format!("note {k}") } else { format!("round {round}") });
            assert!(round >= known[k], "key {k}: round {round} after {}", known[k]);
            known[k] = round;
            assert!(client.query(&prepared, &[&((KEYS + k) as i64)]).await.unwrap().is_empty());
            reads += 1;
        }
        reads
    })
}

#[test]
fn every_read_sees_every_key_once() {
    check(1);
}

/// Rows of one INSERT come together, whichever partitions they go to.
#[test]
fn every_read_of_several_partitions_sees_every_key_once() {
    check(3);
}

fn check(partitions: u32) {
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, round BIGINT, note TEXT) WITH (seal_rows = 10000, partitions = {partitions})"
    ));
    server.sql(&format!("INSERT INTO t SELECT k, 0, 'note ' || k FROM generate_series(0, {}) AS s(k)", KEYS - 1));
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [read, look_up, read]
        .into_iter()
        .map(|read| {
            let (port, stop) = (server.pg_port, Arc::clone(&stop));
            thread::spawn(move || read(port, &stop))
        })
        .collect();
    let mut random = Random(5);
    for round in 1..=60 {
        let step = 1 + random.below(5);
        server.sql(&format!(
            "INSERT INTO t SELECT k, {round}, 'round {round}' FROM generate_series({}, {}, {step}) AS s(k)",
            random.below(step),
            KEYS - 1
        ));
        if round % 15 == 0 {
            server.sql("SELECT rt.seal('t')");
        }
        if round == 30 {
            server.sql("CREATE INDEX ON t USING sorted (note)");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 20, "somebody read");
    }
    let segments = server.value("SELECT count(*) FROM rt.segments WHERE state = 'committed'").parse::<u32>().unwrap();
    assert!(segments > 5, "{segments} were sealed beside the readers");
}

#[test]
fn acknowledged_upserts_survive_kill_9() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, round BIGINT, gone BOOLEAN) WITH (seal_rows = 500, delete_column = 'gone', partitions = 2)");
    let mut random = Random(9);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..40 {
        let mut values = Vec::new();
        for _ in 0..100 {
            let (k, gone) = (random.below(400), random.below(6) == 0);
            values.push(format!("({k}, {round}, {gone})"));
            if gone {
                model.remove(&k)
            } else {
                model.insert(k, round)
            };
        }
        server.sql(&format!("INSERT INTO t VALUES {}", values.join(", ")));
        if round % 8 == 7 {
            server.kill_and_restart();
        }
        let sum: usize = model.iter().map(|(k, round)| k * round).sum();
        let expected = [Some(model.len().to_string()), Some(sum.to_string())];
        assert_eq!(server.sql("SELECT count(*), sum(k * round) FROM t")[0], expected, "round {round}");
    }
    // A seal that stops at each of its steps.
    for point in ["seal::rename", "commit::segment_written", "commit::before_log", "commit::after_log"] {
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
        server.wait_ready();
        server.sql("INSERT INTO t VALUES (1, 77, false), (2, 78, true)");
        model.insert(1, 77);
        model.remove(&2);
        _ = server.try_sql("SELECT rt.seal('t')");
        let sum: usize = model.iter().map(|(k, round)| k * round).sum();
        let expected = [Some(model.len().to_string()), Some(sum.to_string())];
        assert_eq!(server.sql("SELECT count(*), sum(k * round) FROM t")[0], expected, "{point}");
        server.kill_9();
        server.spawn();
        server.wait_ready();
        assert_eq!(server.sql("SELECT count(*), sum(k * round) FROM t")[0], expected, "{point}, restarted");
    }
}
