//! What CREATE TABLE takes and refuses, and what the rows of a key do.

use super::BINARY;
use crate::support::server::{Server, describe};

fn refused(server: &Server, sql: &str, state: &str, text: &str) {
    let error = describe(&server.try_sql(sql).expect_err(sql));
    assert!(error.starts_with(state) && error.contains(text), "{sql}: {error}");
}

fn all(server: &Server, sql: &str) -> String {
    let rows = server.sql(sql);
    let text = |row: &Vec<Option<String>>| {
        row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(" ")
    };
    rows.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_primary_key_makes_an_upsert_table() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id INT PRIMARY KEY, note TEXT)");
    server.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (1, 'c')");
    assert_eq!(all(&server, "SELECT * FROM t ORDER BY id"), "1 c, 2 b");
    server.sql("INSERT INTO t VALUES (2, 'd')");
    for when in ["consuming", "sealed", "restarted"] {
        assert_eq!(all(&server, "SELECT * FROM t ORDER BY id"), "1 c, 2 d", "{when}");
        assert_eq!(all(&server, "SELECT count(*), count(note), min(note), max(id) FROM t"), "2 2 c 2", "{when}");
        assert_eq!(all(&server, "SELECT note FROM t WHERE id = 1"), "c", "{when}");
        let every = "SET rt.skip_upsert = on; SELECT id, note FROM t ORDER BY id, note";
        assert_eq!(all(&server, every), "1 a, 1 c, 2 b, 2 d", "{when}");
        let table = "SELECT mode, rows, keys, key_bytes BETWEEN 32 AND 1000 FROM rt.tables";
        assert_eq!(all(&server, table), "upsert 2 2 t", "{when}");
        match when {
            "consuming" => _ = server.sql("SELECT rt.seal('t')"),
            _ => _ = server.kill_and_restart(),
        }
    }
    let stale = "SELECT rows, stale_pct FROM rt.segments WHERE state = 'committed'";
    assert_eq!(all(&server, stale), "4 50");
    assert!(!all(&server, "SELECT encodings FROM rt.segments").contains('$'), "nobody sees where rows came from");
    assert_eq!(all(&server, "SELECT count(*) FROM information_schema.columns WHERE table_name = 't'"), "2");
    refused(&server, "INSERT INTO t VALUES (NULL, 'x')", "23502", "id");
    refused(&server, "INSERT INTO t (note) VALUES ('x')", "23502", "id");
    assert_eq!(all(&server, "SELECT count(*) FROM t"), "2");
    // Rows that are there are of their keys under every schema.
    server.sql("ALTER TABLE t ADD COLUMN more INT DEFAULT 7, RENAME COLUMN id TO number");
    server.sql("INSERT INTO t VALUES (1, 'e', 8)");
    assert_eq!(all(&server, "SELECT * FROM t ORDER BY number"), "1 e 8, 2 d 7");
    refused(&server, "ALTER TABLE t DROP COLUMN number", "0A000", "primary key");
    refused(&server, "ALTER TABLE t ALTER COLUMN number TYPE BIGINT", "0A000", "primary key");
    refused(&server, "ALTER TABLE t SET (mode = 'append')", "0A000", "mode");
    server.kill_and_restart();
    assert_eq!(all(&server, "SELECT * FROM t ORDER BY number"), "1 e 8, 2 d 7");
}

#[test]
fn deletes_are_tombstones_and_newer_rows_revive() {
    let server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (a TEXT, b NUMERIC(10,2), v TIMESTAMPTZ, gone BOOLEAN, n INT, PRIMARY KEY (a, b))
         WITH (version_column = 'v', delete_column = 'gone')",
    );
    let row = |b: &str, minute: u32, gone: &str, n: u32| {
        server.sql(&format!("INSERT INTO t VALUES ('x', {b}, '2024-03-01 12:{minute:02}:00Z', {gone}, {n})"));
    };
    let seen = "SELECT b, n FROM t ORDER BY b";
    row("1.5", 10, "false", 1);
    row("2.5", 10, "NULL", 2);
    row("1.5", 20, "true", 3);
    assert_eq!(all(&server, seen), "2.50 2");
    // Older than the tombstone.
    row("1.50", 15, "false", 4);
    assert_eq!(all(&server, seen), "2.50 2");
    server.sql("SELECT rt.seal('t')");
    row("1.5", 19, "false", 5);
    assert_eq!(all(&server, seen), "2.50 2");
    let mut server = server;
    server.kill_and_restart();
    assert_eq!(all(&server, seen), "2.50 2");
    let row = |b: &str, version: &str, n: u32| {
        server.sql(&format!("INSERT INTO t VALUES ('x', {b}, {version}, false, {n})"));
    };
    // No version loses against any.
    row("1.5", "NULL", 6);
    assert_eq!(all(&server, seen), "2.50 2");
    row("1.5", "'2024-03-01 12:21:00Z'", 7);
    row("3.5", "NULL", 8);
    row("3.5", "NULL", 9);
    assert_eq!(all(&server, seen), "1.50 7, 2.50 2, 3.50 9");
    server.sql("SELECT rt.seal('t')");
    server.kill_and_restart();
    assert_eq!(all(&server, seen), "1.50 7, 2.50 2, 3.50 9");
}

#[test]
fn dedup_keeps_the_first() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id UUID PRIMARY KEY, n INT) WITH (mode = 'dedup')");
    let id = |n: u32| format!("'00000000-0000-0000-0000-{n:012}'");
    for round in 0..3 {
        let rows: Vec<String> = (0..50).map(|n| format!("({}, {})", id(n % 40), round * 100 + n)).collect();
        server.sql(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
        assert_eq!(all(&server, "SELECT count(*), sum(n) FROM t"), "40 780");
        match round {
            0 => _ = server.sql("SELECT rt.seal('t')"),
            _ => _ = server.kill_and_restart(),
        }
    }
    // Those that came later were not even stored.
    assert_eq!(all(&server, "SET rt.skip_upsert = on; SELECT count(*) FROM t"), "50");
    assert_eq!(all(&server, "SELECT mode FROM rt.tables"), "dedup");
}

#[test]
fn what_a_key_cannot_be_is_refused_by_name() {
    let server = Server::start(BINARY);
    let create =
        |rest: &str| format!("CREATE TABLE t (a INT, b JSONB, c BOOLEAN, d TEXT, e INT[], t TIMESTAMPTZ, {rest}");
    for (rest, state, text) in [
        ("PRIMARY KEY (b))", "0A000", "JSONB and arrays"),
        ("PRIMARY KEY (a, e))", "0A000", "JSONB and arrays"),
        ("PRIMARY KEY (nope))", "42703", "nope"),
        ("PRIMARY KEY (a, a))", "42701", "a"),
        ("PRIMARY KEY (a)) WITH (version_column = 'b')", "0A000", "version_column"),
        ("PRIMARY KEY (a)) WITH (version_column = 'nope')", "42703", "nope"),
        ("PRIMARY KEY (a)) WITH (delete_column = 'd')", "42804", "boolean"),
        ("PRIMARY KEY (a, c)) WITH (delete_column = 'c')", "42804", "primary key"),
        ("PRIMARY KEY (a)) WITH (mode = 'partial')", "22023", "'partial'"),
        ("PRIMARY KEY (a)) WITH (mode = 'dedup', delete_column = 'c')", "0A000", "dedup"),
        ("PRIMARY KEY (a)) WITH (mode = 'append', version_column = 'd')", "42P16", "version_column"),
        ("PRIMARY KEY (a)) WITH (out_of_order = 'flag')", "42P16", "out_of_order = 'flag' needs a column"),
        ("f INT) WITH (mode = 'upsert')", "42P16", "mode"),
        ("f INT) WITH (delete_column = 'c')", "42P16", "delete_column"),
        ("PRIMARY KEY (a)) WITH (key_ttl = '1 day')", "22023", "key_ttl"),
        ("PRIMARY KEY (a)) WITH (tombstone_ttl = '1 day')", "22023", "tombstone_ttl"),
        ("PRIMARY KEY (a)) WITH (key_ttl = '1 day', version_column = 'd')", "22023", "key_ttl"),
        ("PRIMARY KEY (a)) WITH (key_ttl = '1 day', mode = 'dedup')", "22023", "time_column"),
        ("PRIMARY KEY (a)) WITH (key_ttl = 'soon', time_column = 't')", "22023", "soon"),
        (
            "PRIMARY KEY (a)) WITH (key_ttl = '1 day', tombstone_ttl = '2 days', time_column = 't')",
            "22023",
            "tombstone_ttl",
        ),
        ("PRIMARY KEY (a)) WITH (tombstone_ttl = '2 days', time_column = 't', mode = 'dedup')", "0A000", "dedup"),
        ("PRIMARY KEY (a)) WITH (key_ttl = '1 day', time_column = 'nope')", "42703", "nope"),
        ("PRIMARY KEY (a)) WITH (mode = 'append', key_ttl = '1 day', time_column = 't')", "42P16", "key_ttl"),
        ("f INT) WITH (key_ttl = '1 day', time_column = 't')", "42P16", "key_ttl"),
    ] {
        refused(&server, &create(rest), state, text);
    }
    assert_eq!(all(&server, "SELECT count(*) FROM rt.tables"), "0");
    server.sql("CREATE TABLE t (a INT PRIMARY KEY) WITH (mode = 'append')");
    server.sql("INSERT INTO t VALUES (1), (1)");
    assert_eq!(all(&server, "SELECT count(*) FROM t"), "2");
}
