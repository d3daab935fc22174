//! `rt.consistency_check`: what was done to a table on purpose is accounted for, and what is not right is found.

use std::{fs, io::Write};

use crate::support::server::{Server, describe};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// Sums over the lines of a check, and the lines that differ.
fn check(server: &Server, table: &str) -> (Vec<String>, Vec<Vec<Option<String>>>) {
    let sums = server.sql(&format!(
        "SELECT sum(missing), sum(extra), string_agg(DISTINCT state, ', ' ORDER BY state) FROM rt.consistency_check('{table}')"
    ));
    let differ = server.sql(&format!("SELECT * FROM rt.consistency_check('{table}') WHERE state = 'differs'"));
    (sums[0].iter().map(|cell| cell.clone().unwrap_or_default()).collect(), differ)
}

fn assert_states(server: &Server, table: &str, states: &str, when: &str) {
    let (sums, differ) = check(server, table);
    assert_eq!(sums, ["0", "0", states], "{table} {when}: {differ:?}");
}

struct Lines {
    folder: tempfile::TempDir,
}

impl Lines {
    /// Messages of 300 keys, ten each, in an order in which many come late; three are no rows.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in 0..2 {
            let mut text = String::new();
            for at in 0..1500u64 {
                let n = (at * 7 + 3 * part) % 1500;
                text.push_str(&match n {
                    500 => "{\"id\": 7, \"v\": oops}\n".to_owned(),
                    _ => format!(
                        "{{\"id\": {}, \"v\": {}, \"note\": \"note {n}\", \"tags\": [\"a\", \"{}\"], \"gone\": {}}}\n",
                        (n * 31) % 300,
                        n * 2 + part,
                        n % 7,
                        n % 97 == 96
                    ),
                });
            }
            fs::write(folder.path().join(format!("part{part}.ndjson")), text).unwrap();
        }
        Self { folder }
    }

    fn source(&self, server: &Server) {
        server.sql(&format!(
            "CREATE SOURCE raw (id BIGINT, v BIGINT, note TEXT, tags TEXT[], gone BOOLEAN)
             WITH (connector = 'file', path = '{}/*.ndjson', format = 'json')",
            self.folder.path().display()
        ));
    }

    fn edit(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "offsets of files are bytes or lines: either way they stay");
        let path = self.folder.path().join("part1.ndjson");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_table_without_a_key_accounts_for_all_its_rows() {
    let lines = Lines::new();
    let mut server = Server::start(BINARY);
    lines.source(&server);
    server.sql(
        "CREATE TABLE t (id BIGINT, v INT, note TEXT, tags TEXT[]) WITH (partitions = 2, seal_rows = 400) FROM SOURCE raw AS SELECT * WHERE id <> 3",
    );
    server.sql("CREATE TABLE plain (k BIGINT)");
    server.sql("SELECT rt.drain('raw')");
    assert_states(&server, "t", "equal", "at first");
    assert_states(&server, "plain", "equal", "without a row");
    let lines_of =
        "SELECT count(*) >= 3, sum(source_rows) FILTER (WHERE segment IS NOT NULL) = (SELECT count(*) FROM t),
                    bool_and(source_hash = table_hash) FROM rt.consistency_check('t')";
    assert_eq!(server.sql(lines_of)[0], [Some("t".into()), Some("t".into()), Some("t".into())]);
    for table in ["t (id)", "plain"] {
        server.sql(&format!("INSERT INTO {table} SELECT k FROM generate_series(1, 50) AS s(k)"));
    }
    server.kill_and_restart();
    server.sql("SELECT rt.drain('raw')");
    assert_states(&server, "t", "counted, equal", "after INSERT");
    assert_states(&server, "plain", "counted", "after INSERT");
    server.sql("UPDATE t SET note = 'changed' WHERE id = 5");
    server.sql("DELETE FROM t WHERE id = 6");
    for compacted in [false, true] {
        if compacted {
            server.sql("SELECT rt.compact('t')");
        }
        let (sums, differ) = check(&server, "t");
        assert_eq!(&sums[..2], ["0", "0"], "after UPDATE and DELETE, compacted {compacted}: {differ:?}");
        assert!(differ.is_empty(), "{differ:?}");
    }
    server.kill_and_restart();
    server.sql("ALTER TABLE t SET (partitions = 3)");
    let (sums, differ) = check(&server, "t");
    assert_eq!((&sums[..2], differ), (&["0".to_owned(), "0".to_owned()][..], Vec::new()), "in other partitions");
    server.sql("CALL rt.forget('id', '8')");
    server.sql("TRUNCATE plain");
    server.sql("INSERT INTO plain VALUES (1), (2)");
    for table in ["t", "plain"] {
        let (sums, differ) = check(&server, table);
        assert_eq!((&sums[..2], differ), (&["0".to_owned(), "0".to_owned()][..], Vec::new()), "{table} at the end");
    }
    server.sql("TRUNCATE t");
    let (sums, differ) = check(&server, "t");
    assert_eq!((&sums[..2], differ), (&["0".to_owned(), "0".to_owned()][..], Vec::new()), "without rows");
}

#[test]
fn a_table_with_a_key_has_the_winner_of_each_key() {
    let lines = Lines::new();
    for (mode, version, key) in [
        ("upsert', version_column = 'v', delete_column = 'gone", true, "id"),
        ("upsert", false, "id"),
        ("dedup", false, "id"),
        ("dedup', version_column = 'v", true, "id, note"),
        ("partial_upsert", false, "id"),
    ] {
        let mut server = Server::start(BINARY);
        lines.source(&server);
        server.sql(&format!(
            "CREATE TABLE t (id BIGINT, v BIGINT, note TEXT, tags TEXT[], gone BOOLEAN, PRIMARY KEY ({key}))
             WITH (partitions = 2, seal_rows = 300, mode = '{mode}') FROM SOURCE raw"
        ));
        server.sql("SELECT rt.drain('raw')");
        let what = format!("{mode}, versions {version}");
        assert_states(&server, "t", "equal", &what);
        let rows = "SELECT sum(source_rows) FILTER (WHERE source = 'raw'), sum(superseded) > 100 FROM rt.consistency_check('t')";
        assert_eq!(server.sql(rows)[0], [Some("2998".into()), Some("t".into())], "{what}");
        server.sql("SELECT rt.compact('t')");
        assert_states(&server, "t", "equal", &format!("{what}, compacted"));
        server.kill_and_restart();
        server.sql("SELECT rt.drain('raw')");
        server.sql("INSERT INTO t VALUES (1000, 1, 'new', NULL, false), (5, 100000, 'newer', NULL, false)");
        server.sql("UPDATE t SET tags = ARRAY['changed'] WHERE id = 17");
        server.sql("DELETE FROM t WHERE id = 18");
        assert_states(&server, "t", "equal", &format!("{what}, changed"));
        server.sql("ALTER TABLE t SET (partitions = 3)");
        assert_states(&server, "t", "equal", &format!("{what}, in other partitions"));
        server.sql("CALL rt.forget('id', '19')");
        assert_states(&server, "t", "equal", &format!("{what}, somebody forgotten"));
    }
}

#[test]
fn what_is_not_right_is_found() {
    for keyed in [false, true] {
        let lines = Lines::new();
        let mut server = Server::start(BINARY);
        lines.source(&server);
        let key = if keyed { ", PRIMARY KEY (id)) WITH (version_column = 'v', " } else { ") WITH (" };
        server.sql(&format!(
            "CREATE TABLE t (id BIGINT, v BIGINT, note TEXT, gone BOOLEAN{key}partitions = 2, seal_rows = 300) FROM SOURCE raw"
        ));
        server.sql("SELECT rt.drain('raw')");
        assert_states(&server, "t", "equal", "at first");
        // Another value of a row that is seen: the newest of its key.
        lines.edit("\"v\": 2997, \"note\": \"note 1498\"", "\"v\": 2997, \"note\": \"note 9498\"");
        server.kill_and_restart();
        let (sums, differ) = check(&server, "t");
        assert_eq!(&sums[..2], ["0", "0"]);
        assert_eq!(differ.len(), if keyed { 1 } else { 2 }, "its range, or its segment and the whole: {differ:?}");
        lines.edit("\"v\": 2997, \"note\": \"note 9498\"", "\"v\": 2997, \"note\": \"note 1498\"");
        assert_states(&server, "t", "equal", "again");
        // One that should be there and is not, and one that should not.
        let id = (1498 * 31) % 300;
        lines.edit(
            &format!("\"id\": {id}, \"v\": 2997"),
            &format!("\"id\": {}, \"v\": 2997", 999 - (id < 100) as u64 * 900),
        );
        let (sums, differ) = check(&server, "t");
        assert!(!differ.is_empty());
        if keyed {
            assert_eq!(&sums[..2], ["1", "1"], "{differ:?}");
        }
    }
}

#[test]
fn letters_are_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("numbers.ndjson");
    let line =
        |id: u64| format!("{{\"id\":{id},\"n\":{}}}\n", if id.is_multiple_of(3) { id * 1_000_000_000 } else { id });
    fs::write(&file, (0..300).map(line).collect::<String>()).unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, n BIGINT) WITH (connector = 'file', path = '{}', format = 'json')",
        file.display()
    ));
    server.sql("CREATE TABLE plain (id BIGINT, n INT) FROM SOURCE numbers");
    server.sql("CREATE TABLE keyed (id BIGINT PRIMARY KEY, n INT) WITH (partitions = 2) FROM SOURCE numbers");
    server.sql("SELECT rt.drain('numbers')");
    for table in ["plain", "keyed"] {
        assert_states(&server, table, "equal", "with letters");
        server.sql(&format!("ALTER TABLE {table} ALTER COLUMN n TYPE BIGINT"));
        assert_states(&server, table, "equal", "with room for the letters");
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table}")), "201");
    }
    server.sql("SELECT rt.dlq_replay('numbers')");
    for table in ["plain", "keyed"] {
        assert_eq!(server.value(&format!("SELECT count(*) FROM {table}")), "300");
        let (sums, differ) = check(&server, table);
        assert_eq!(
            (&sums[..2], differ),
            (&["0".to_owned(), "0".to_owned()][..], Vec::new()),
            "{table} after the replay"
        );
    }
}

#[test]
fn errors_say_what_to_do() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE orders (k BIGINT)");
    for (sql, wanted) in [
        ("SELECT * FROM rt.consistency_check('order')", "42P01"),
        ("SELECT * FROM rt.consistency_check(NULL)", "42883"),
        ("SELECT * FROM rt.consistency_check()", "42883"),
    ] {
        let error = describe(&server.try_sql(sql).expect_err(sql));
        assert!(error.contains(wanted), "{sql}: {error}");
    }
    // It is planned and explained without being carried out.
    server.sql("EXPLAIN SELECT * FROM rt.consistency_check('orders')");
    server.sql("CREATE TABLE aged (k BIGINT PRIMARY KEY, at TIMESTAMPTZ) WITH (time_column = 'at', key_ttl = '1 day')");
    assert_eq!(server.value("SELECT state FROM rt.consistency_check('aged')"), "not comparable");
}

/// Each of these was told as a difference once.
#[test]
fn what_is_allowed_is_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let line = |id: u64, v: u64, n: u64| format!("{{\"id\": {id}, \"v\": {v}, \"who\": \"w{}\", \"n\": {n}}}\n", v % 3);
    fs::write(folder.path().join("one.ndjson"), (0..200).map(|n| line(n % 40, n, n)).collect::<String>()).unwrap();
    let path = folder.path().display();
    let fresh = |tables: &[&str]| {
        let server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE SOURCE raw (id BIGINT, v BIGINT, who TEXT, n BIGINT) WITH (connector = 'file', path = '{path}/*.ndjson', format = 'json')"
        ));
        for table in tables {
            server.sql(&format!("CREATE TABLE {table} FROM SOURCE raw"));
        }
        server.sql("SELECT rt.drain('raw')");
        server
    };
    let plain = "plain (id BIGINT, v BIGINT, who TEXT)";
    let keyed = "keyed (id BIGINT PRIMARY KEY, v BIGINT, who TEXT)";
    let clean = |server: &Server, table: &str, when: &str| {
        let (sums, differ) = check(server, table);
        assert_eq!((&sums[..2], differ), (&["0".to_owned(), "0".to_owned()][..], Vec::new()), "{table} {when}");
    };
    let server = fresh(&[plain, keyed]);
    for table in ["plain", "keyed"] {
        server.sql(&format!("ALTER TABLE {table} RENAME COLUMN v TO vv"));
        clean(&server, table, "with a renamed column");
        server.sql(&format!("ALTER TABLE {table} ADD COLUMN n BIGINT"));
        server.sql(&format!("SELECT rt.seal('{table}')"));
        server.sql(&format!("UPDATE {table} SET who = 'x' WHERE id = 3"));
        server.sql(&format!("SELECT rt.compact('{table}')"));
        clean(&server, table, "with a column that came later, compacted");
        server.sql(&format!("ALTER TABLE {table} SET (partitions = 3)"));
        clean(&server, table, "with a column that came later, in other partitions");
    }
    // Read twice.
    let server = fresh(&[keyed]);
    server.sql("ALTER TABLE keyed PAUSE INGESTION");
    server.sql("ALTER SOURCE raw RESET OFFSETS TO 'earliest'");
    server.sql("ALTER TABLE keyed RESUME INGESTION");
    server.sql("SELECT rt.drain('raw')");
    clean(&server, "keyed", "read twice");
    // What beat the row that is there was forgotten, or taken away.
    let server =
        fresh(&["keyed (id BIGINT PRIMARY KEY, v BIGINT, who TEXT) WITH (version_column = 'v', seal_rows = 30)"]);
    server.sql("CALL rt.forget('who', 'w1')");
    clean(&server, "keyed", "some forgotten");
    for mode in ["upsert", "dedup"] {
        let server = fresh(&[&format!(
            "keyed (id BIGINT PRIMARY KEY, v BIGINT, who TEXT) WITH (version_column = 'v', mode = '{mode}')"
        )]);
        server.sql("TRUNCATE keyed");
        let more: String = (0..20).map(|n| line(n, 5, n)).collect();
        let mut file = fs::OpenOptions::new().append(true).open(folder.path().join("one.ndjson")).unwrap();
        file.write_all(more.as_bytes()).unwrap();
        drop(file);
        server.sql("ALTER TABLE keyed PAUSE INGESTION");
        std::thread::sleep(std::time::Duration::from_millis(500));
        server.sql("ALTER TABLE keyed RESUME INGESTION");
        server.sql("SELECT rt.drain('raw')");
        server.wait_for("SELECT count(*) FROM keyed", "20", std::time::Duration::from_secs(20));
        clean(&server, "keyed", "with others after TRUNCATE");
    }
}
