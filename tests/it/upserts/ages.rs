//! `key_ttl` and `tombstone_ttl`: keys leave the key map and their rows stay, rows that come late are not seen, tombstones leave the files; over kill -9, with
//! the file of the key map and without, through compaction and retention. And what is seen of it: `rt.upsert_capacity`, and the bound of memory.

use std::{fs, path::PathBuf, time::Duration};

use super::BINARY;
use crate::support::server::{Server, describe};

const LONG: Duration = Duration::from_secs(60);
const KEYS: &str = "SELECT keys FROM rt.tables WHERE name = 't'";

/// A row of each of the keys, at noon of a day of January 2024.
fn fill(server: &Server, from: u32, to: u32, day: u32, note: &str) {
    server.sql(&format!(
        "INSERT INTO t SELECT k, '2024-01-{day:02} 12:00:00Z', false, '{note}' FROM generate_series({from}, {to}) AS s(k)"
    ));
}

fn seal(server: &Server) {
    server.sql("SELECT rt.seal('t')");
}

fn directory(server: &Server) -> PathBuf {
    server.data_dir.join("tables").join(server.value("SELECT id FROM rt.tables WHERE name = 't'")).join("p00000")
}

fn state(server: &Server) -> String {
    server.value(
        "SELECT string_agg(note || ' ' || n || ' ' || s, ', ' ORDER BY note)
         FROM (SELECT note, count(*) AS n, sum(k) AS s FROM t GROUP BY note) AS groups",
    )
}

#[test]
fn keys_leave_the_map_and_their_rows_stay() {
    for mode in ["upsert", "partial_upsert", "dedup"] {
        let mut server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE TABLE t (k BIGINT PRIMARY KEY, at TIMESTAMPTZ, gone BOOLEAN, note TEXT)
             WITH (mode = '{mode}', time_column = 'at', key_ttl = '2 days')"
        ));
        fill(&server, 1, 1000, 1, "first");
        // Those of the same time win or lose by rank.
        fill(&server, 1, 100, 1, "again");
        seal(&server);
        fill(&server, 2001, 2010, 4, "later");
        seal(&server);
        // All that may be near to a row that is on time are there still.
        assert_eq!(server.value(KEYS), "1010", "{mode}");
        let bytes = "SELECT key_bytes FROM rt.tables WHERE name = 't'";
        let before: u64 = server.value(bytes).parse().unwrap();
        fill(&server, 3001, 3010, 6, "latest");
        seal(&server);
        server.wait_for(KEYS, "20", LONG);
        let after: u64 = server.value(bytes).parse().unwrap();
        assert!(after < before, "{mode}: {after} bytes of {before}");
        assert_eq!(server.value("SELECT count(*) FROM rt.events WHERE kind = 'keys_left'"), "1");
        assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE keys_left"), "1");
        let expected = match mode {
            "dedup" => "first 1000 500500, later 10 20055, latest 10 30055",
            _ => "again 100 5050, first 900 495450, later 10 20055, latest 10 30055",
        };
        assert_eq!(state(&server), expected, "{mode}");
        // More than two days late: not seen, whatever its key.
        fill(&server, 1, 10, 3, "late");
        fill(&server, 5001, 5010, 3, "late");
        assert_eq!(state(&server), expected, "{mode}");
        assert_eq!(server.value("SELECT late_rows FROM rt.tables WHERE name = 't'"), "20");
        // On time, and near to rows that are there: it loses, or wins.
        fill(&server, 2001, 2001, 6, "changed");
        let expected = match mode {
            "dedup" => expected.to_owned(),
            _ => expected.replace("later 10 20055", "changed 1 2001, later 9 18054"),
        };
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.split(", ").map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(&state(&server)), sorted(&expected), "{mode}");
        let keys = server.value(KEYS);
        for round in 0..4 {
            match round {
                // What came late is committed as such.
                0 => seal(&server),
                // The map is made again from the rows of the segments whose keys have not left.
                1 => _ = fs::remove_file(directory(&server).join("keys.map")),
                2 => _ = server.sql("SELECT rt.compact('t')"),
                _ => {}
            }
            server.kill_and_restart();
            assert_eq!(sorted(&state(&server)), sorted(&expected), "{mode}, round {round}");
            assert_eq!(server.value(KEYS), keys, "{mode}, round {round}");
        }
        // Rows whose keys have left are rows as any other.
        server.sql("UPDATE t SET note = 'updated' WHERE k = 7");
        server.sql("DELETE FROM t WHERE k = 8");
        for round in 0..2 {
            let seen =
                server.value("SELECT string_agg(k || ' ' || note, ', ' ORDER BY k) FROM t WHERE k BETWEEN 6 AND 9");
            let note = if mode == "dedup" { "first" } else { "again" };
            assert_eq!(seen, format!("6 {note}, 7 updated, 9 {note}"), "{mode}, round {round}");
            server.sql("SELECT rt.compact('t')");
            server.kill_and_restart();
        }
    }
}

/// The process dies right before keys leave by the metadata log, and right after: they leave once, and nothing that is seen changes.
#[test]
fn keys_leave_at_every_step() {
    for (point, has_left) in [("keys::before_log", "0"), ("keys::after_log", "1")] {
        let mut server = Server::start(BINARY);
        server.sql(
            "CREATE TABLE t (k BIGINT PRIMARY KEY, at TIMESTAMPTZ, gone BOOLEAN, note TEXT)
             WITH (time_column = 'at', key_ttl = '2 days')",
        );
        fill(&server, 1, 1000, 1, "first");
        fill(&server, 1, 100, 1, "again");
        seal(&server);
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}=sleep(600000)"))]);
        server.wait_ready();
        fill(&server, 3001, 3010, 6, "latest");
        let before = state(&server);
        // The first segment is old by now; who takes its keys out stays where it is.
        seal(&server);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(state(&server), before, "{point}");
        server.kill_9();
        // As the log says; nothing goes on by itself.
        server.spawn_with(&[("FAILPOINTS", "keys::before_log=sleep(600000)")]);
        server.wait_ready();
        assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE keys_left"), has_left, "{point}");
        assert_eq!(state(&server), before, "{point}");
        for _ in 0..2 {
            server.kill_and_restart();
            server.wait_for(KEYS, "10", LONG);
            assert_eq!(state(&server), before, "{point}");
            // Too late to be seen.
            fill(&server, 1, 10, 3, "late");
            assert_eq!(state(&server), before, "{point}");
        }
    }
}

#[test]
fn tombstones_are_forgotten() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, at TIMESTAMPTZ, gone BOOLEAN, note TEXT)
         WITH (version_column = 'at', delete_column = 'gone', tombstone_ttl = '3 days')",
    );
    fill(&server, 1, 100, 1, "first");
    seal(&server);
    server.sql("INSERT INTO t SELECT k, '2024-01-02 12:00:00Z', true, NULL FROM generate_series(1, 50) AS s(k)");
    server.sql("DELETE FROM t WHERE k = 60");
    seal(&server);
    fill(&server, 101, 110, 4, "second");
    // In memory, older than the tombstone.
    fill(&server, 50, 50, 1, "older");
    server.sql("SELECT rt.compact('t')");
    assert_eq!(server.value(KEYS), "110");
    assert_eq!(state(&server), "first 49 3715, second 10 1055");
    fill(&server, 111, 111, 6, "third");
    seal(&server);
    // The segment of the tombstones goes, and what had lost against them stays lost.
    server.sql("SELECT rt.compact('t')");
    server.wait_for(KEYS, "60", LONG);
    let expected = "first 49 3715, second 10 1055, third 1 111";
    for round in 0..3 {
        assert_eq!(state(&server), expected, "round {round}");
        let all = "SET rt.skip_upsert = on; SELECT count(*) FROM t WHERE gone";
        assert_eq!(server.value(all), "0", "round {round}: no tombstone is in a file");
        server.sql("SELECT rt.compact('t')");
        if round == 1 {
            _ = fs::remove_file(directory(&server).join("keys.map"));
        }
        server.kill_and_restart();
    }
    assert_eq!(server.value(KEYS), "60");
    // As documented: nobody knows any more that it was deleted.
    fill(&server, 10, 10, 1, "back");
    assert_eq!(server.value("SELECT note FROM t WHERE k = 10"), "back");
}

#[test]
fn the_map_of_keys_has_a_bound_and_a_view() {
    let server = Server::start_with(BINARY, &["--memory-key-map-bytes", "4kB"]);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, at TIMESTAMPTZ, gone BOOLEAN, note TEXT)
         WITH (time_column = 'at', key_ttl = '30 days', partitions = 2)",
    );
    let columns = "keys, bytes > 16 * keys, bytes_in_files, bytes_per_key BETWEEN 16 AND 100000, round(keys_per_day), limit_bytes, days_left";
    let total = format!("SELECT {columns} FROM rt.upsert_capacity('t') WHERE partition IS NULL");
    let texts = |sql: &str| {
        let rows = server.sql(sql);
        rows[0].iter().map(|value| value.as_deref().unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(texts(&total), "0 f 0 NULL NULL 4096 NULL");
    fill(&server, 1, 10, 1, "first");
    fill(&server, 11, 1000, 5, "second");
    assert_eq!(texts(&total), "1000 t 0 t 250 4096 0");
    assert_eq!(server.value("SELECT count(*) FROM rt.upsert_capacity('t')"), "3");
    let sums = "SELECT sum(keys) FILTER (WHERE partition IS NOT NULL) = sum(keys) FILTER (WHERE partition IS NULL) FROM rt.upsert_capacity('t')";
    assert_eq!(server.value(sums), "t");
    server.wait_for("SELECT count(*) FROM rt.events WHERE kind = 'key_maps_large'", "1", LONG);
    server.sql("CREATE TABLE plain (k BIGINT)");
    for (call, state, text) in [
        ("rt.upsert_capacity('plain')", "42809", "plain"),
        ("rt.upsert_capacity('nope')", "42P01", "nope"),
        ("rt.upsert_capacity()", "42883", "upsert_capacity"),
    ] {
        let error = describe(&server.try_sql(&format!("SELECT * FROM {call}")).expect_err(call));
        assert!(error.starts_with(state) && error.contains(text), "{call}: {error}");
    }
    server.sql("DROP TABLE t");
    server.wait_for("SELECT count(*) FROM rt.events WHERE kind = 'key_maps_fit'", "1", LONG);
}

#[test]
fn rows_in_memory_stay_lost_when_retention_takes_what_they_lost_against() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v INT, at TIMESTAMPTZ, note TEXT)
         WITH (time_column = 'at', version_column = 'v')",
    );
    let fill = |keys: &str, version: u32, days: u32, note: &str| {
        server.sql(&format!(
            "INSERT INTO t SELECT k, {version}, now() - interval '{days} days', '{note}' FROM generate_series({keys}) AS s(k)"
        ));
    };
    fill("1, 100", 2, 100, "expired");
    server.sql("SELECT rt.seal('t')");
    // In memory: those of the first twenty lose against what expires.
    fill("11, 20", 1, 10, "lost");
    fill("101, 110", 1, 10, "seen");
    server.sql("ALTER TABLE t SET (retention = '30 days')");
    server.wait_for("SELECT count(*) FROM t WHERE note = 'expired'", "0", LONG);
    server.sql("SELECT rt.seal('t')");
    for round in 0..2 {
        assert_eq!(server.value("SELECT string_agg(DISTINCT note, ' ') || count(*) FROM t"), "seen10", "round {round}");
        // Without a file of the key map all rows are read again.
        _ = fs::remove_file(directory(&server).join("keys.map"));
        server.kill_and_restart();
    }
}
