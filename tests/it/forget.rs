//! `CALL rt.forget`: what is forgotten is in no answer and in no file of a table, whatever it was in there: rows that are seen, rows that lost, tombstones, dead
//! letters, the log behind INSERT.

use std::{fs, time::Duration};

use crate::support::{
    files::files_with,
    server::{Server, connect, describe, runtime},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const NONE: [String; 0] = [];

fn forget(server: &Server, value: &str) -> Vec<(String, String, i64, String)> {
    let rows = server.sql(&format!("CALL rt.forget('who', '{value}')"));
    let text = |row: &Vec<Option<String>>, at: usize| row[at].clone().unwrap_or_default();
    // kind, object, rows, state
    rows.iter().map(|row| (text(row, 4), text(row, 5), text(row, 6).parse().unwrap(), text(row, 8))).collect()
}

/// Rows of a table of a thousand people, one of whom is called `zzmarkerone`.
fn people(server: &Server, name: &str, definition: &str, columns: &str) {
    server.sql(&format!("CREATE TABLE {name} {definition}"));
    server.sql(&format!(
        "INSERT INTO {name} ({columns}) SELECT k, CASE WHEN k % 500 = 7 THEN 'zzmarkerone' ELSE 'person ' || k END FROM generate_series(1, 1000) AS s(k)"
    ));
    server.sql(&format!("SELECT rt.seal('{name}')"));
}

#[test]
fn what_is_forgotten_is_in_no_answer_and_in_no_file() {
    let mut server = Server::start(BINARY);
    people(&server, "plain", "(k BIGINT, who TEXT COMPRESSION none)", "k, who");
    server.sql("CREATE INDEX ON plain USING inverted (who)");
    people(&server, "keyed", "(k BIGINT PRIMARY KEY, who TEXT COMPRESSION none) WITH (partitions = 2)", "k, who");
    people(
        &server,
        "owned",
        "(k BIGINT, who TEXT COMPRESSION none, gone BOOLEAN, PRIMARY KEY (k, who)) WITH (delete_column = 'gone')",
        "k, who",
    );
    people(&server, "once", "(k BIGINT, who TEXT PRIMARY KEY COMPRESSION none) WITH (mode = 'dedup')", "k, who");
    people(
        &server,
        "sums",
        "(k BIGINT PRIMARY KEY, who TEXT COMPRESSION none) WITH (mode = 'partial_upsert')",
        "k, who",
    );
    // Of what was: a version that lost, in a segment that has a thousand others; a key that was deleted by a row, and one by a statement.
    server.sql("INSERT INTO keyed VALUES (7, 'somebody else')");
    server.sql("INSERT INTO owned VALUES (7, 'zzmarkerone', true)");
    server.sql("DELETE FROM owned WHERE k = 507");
    server.sql("SELECT rt.seal('owned')");
    // And what is in memory and in the log.
    server.sql("INSERT INTO plain VALUES (2000, 'zzmarkerone'), (2001, 'zzmarkeroneandmore')");
    server.sql("INSERT INTO keyed VALUES (2000, 'zzmarkerone'), (8, 'zzmarkerone')");
    server.sql("INSERT INTO keyed VALUES (8, 'person 8')");
    assert!(files_with(&server.data_dir, "zzmarkerone").len() >= 7, "it is in many files first");
    let answer = forget(&server, "zzmarkerone");
    let of = |kind: &str, name: &str| {
        let found = answer.iter().find(|row| (row.0.as_str(), row.1.as_str()) == (kind, name)).unwrap();
        (found.2, found.3.as_str())
    };
    assert_eq!(of("table", "plain"), (3, "gone"));
    assert_eq!(of("table", "keyed"), (2, "gone"));
    assert_eq!(of("table", "owned"), (0, "gone"));
    assert_eq!(of("table", "once"), (1, "gone"));
    assert_eq!(of("table", "sums"), (2, "gone"));
    let others = files_with(&server.data_dir, "zzmarkeroneandmore");
    let all = files_with(&server.data_dir, "zzmarkerone");
    assert_eq!(all, others, "{answer:?}");
    for restarted in [false, true] {
        if restarted {
            server.kill_and_restart();
        }
        let counts = ["plain", "keyed", "owned", "once", "sums"].map(|table| {
            server.value(&format!("SELECT count(*) || ' ' || count(*) FILTER (WHERE who = 'zzmarkerone') FROM {table}"))
        });
        assert_eq!(counts, ["999 0", "999 0", "998 0", "998 0", "998 0"]);
        let stored = "SET rt.skip_upsert = on; SELECT count(*) FROM keyed WHERE who = 'zzmarkerone'";
        assert_eq!(server.value(stored), "0");
        assert_eq!(server.value("SELECT who FROM keyed WHERE k = 7"), "somebody else");
        assert_eq!(server.value("SELECT who FROM keyed WHERE k = 8"), "person 8");
        assert_eq!(server.value("SELECT count(DISTINCT certificate) FROM rt.certificates"), "1");
        assert_eq!(files_with(&server.data_dir, "zzmarkerone"), files_with(&server.data_dir, "zzmarkeroneandmore"));
    }
    // The value is in the certificate as its hash alone.
    let hash = "SELECT DISTINCT value_sha256 = encode(sha256('zzmarkerone'::bytea), 'hex') FROM rt.certificates";
    assert_eq!(server.value(hash), "t");
    // Nothing of it is left, so the key is as new.
    server.sql("INSERT INTO owned VALUES (507, 'zzmarkerone', false)");
    server.sql("INSERT INTO once VALUES (1, 'zzmarkerone')");
    assert_eq!(server.value("SELECT count(*) FROM owned"), "999");
    assert_eq!(server.value("SELECT k FROM once WHERE who = 'zzmarkerone'"), "1");
    let again = forget(&server, "zzmarkerone");
    assert_eq!(again.iter().map(|row| row.2).sum::<i64>(), 2);
    assert_eq!(files_with(&server.data_dir, "zzmarkerone"), files_with(&server.data_dir, "zzmarkeroneandmore"));
}

/// What a tombstone kept away must not come back when the tombstone is forgotten.
#[test]
fn older_rows_of_a_forgotten_key_do_not_come_back() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (who TEXT PRIMARY KEY COMPRESSION none, v INT, gone BOOLEAN) WITH (version_column = 'v', delete_column = 'gone')",
    );
    for v in 1..5 {
        server.sql(&format!("INSERT INTO t VALUES ('zzmarkerone', {v}, false), ('other', {v}, false)"));
        server.sql("SELECT rt.seal('t')");
    }
    server.sql("INSERT INTO t VALUES ('zzmarkerone', 9, true)");
    forget(&server, "zzmarkerone");
    for _ in 0..2 {
        assert_eq!(server.value("SELECT string_agg(who || v, ' ') FROM t"), "other4");
        assert_eq!(server.value("SET rt.skip_upsert = on; SELECT count(*) FROM t WHERE who <> 'other'"), "0");
        assert_eq!(files_with(&server.data_dir, "zzmarkerone"), NONE);
        server.kill_and_restart();
    }
    assert_eq!(server.value("SELECT keys FROM rt.tables WHERE name = 't'"), "1");
}

#[test]
fn dead_letters_about_it_go_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("people.ndjson");
    let lines = [
        r#"{"id": 1, "who": "42"}"#,
        r#"{"id": "x", "who": "42"}"#,
        r#"{"id": "y", "who": "7", "n": 42}"#,
        r#"{"id": "z", "deep": {"who": 42}}"#,
        r#"{"id": 5, "who": 42, oops}"#,
        r#"{"id": 6, "who": 421, oops}"#,
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE people (id BIGINT, who TEXT) WITH (connector = 'file', path = '{}', format = 'json')",
        file.display()
    ));
    server.sql("CREATE TABLE seen (id BIGINT PRIMARY KEY, who TEXT) WITH (partitions = 2) FROM SOURCE people");
    server.sql("CREATE TABLE ids (id BIGINT) FROM SOURCE people");
    server.sql("CREATE TABLE numbers (id BIGINT, who INT)");
    server.sql("INSERT INTO numbers VALUES (1, 42), (2, 421)");
    server.sql("CREATE TABLE days (who DATE)");
    server.sql("SELECT rt.drain('people')");
    let left = "SELECT \"table\" || ' ' || raw_text FROM rt.dlq ORDER BY 1";
    assert_eq!(server.sql(left).len(), 10);
    let answer = forget(&server, "42");
    for _ in 0..2 {
        let of = |table: &str| [2, 5].map(|line| Some(format!("{table} {}", lines[line])));
        let wanted: Vec<_> = ["ids", "seen"].into_iter().flat_map(of).map(|text| vec![text]).collect();
        assert_eq!(server.sql(left), wanted);
        assert_eq!(server.value("SELECT count(*) FROM seen"), "0");
        // It has no such column.
        assert_eq!(server.value("SELECT count(*) FROM ids"), "1");
        assert_eq!(server.value("SELECT who FROM numbers"), "421");
        server.kill_and_restart();
    }
    let rows = |kind: &str| -> Vec<(&str, i64)> {
        answer.iter().filter(|row| row.0 == kind).map(|row| (row.1.as_str(), row.2)).collect()
    };
    assert_eq!(rows("dead letters"), [("days", 0), ("ids", 3), ("numbers", 0), ("seen", 3)]);
    assert_eq!(rows("table"), [("days", 0), ("numbers", 1), ("seen", 1)]);
    let detail = server.value("SELECT detail FROM rt.certificates WHERE object = 'days' AND kind = 'table'");
    assert!(detail.contains("no such value"), "{detail}");
}

/// Rows with the value that come meanwhile are gone as well, or the certificate says that they are not.
#[test]
fn rows_that_come_meanwhile_are_told() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, who TEXT COMPRESSION none) WITH (partitions = 3)");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..40 {
                server.sql(&format!("INSERT INTO t SELECT k, 'zzmarker' || (k % 10) FROM generate_series({round}, {round} + 200) AS s(k)"));
            }
        });
        while !writer.is_finished() {
            let answer = forget(&server, "zzmarker3");
            assert!(["gone", "still there"].contains(&answer[0].3.as_str()), "{answer:?}");
        }
    });
    assert_eq!(forget(&server, "zzmarker3")[0].3, "gone");
    assert_eq!(files_with(&server.data_dir, "zzmarker3"), NONE);
    assert_eq!(server.value("SELECT count(*) FROM t"), "216");
}

#[test]
fn errors_say_what_to_do() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, who TEXT)");
    let refused = [
        ("CALL rt.forget('whoo', '1')", "42703", "no table has a column \"whoo\""),
        ("CALL rt.forget('who', NULL)", "22004", "must not be NULL"),
        ("CALL rt.forget('who')", "42883", "takes a column and a value, not 1"),
        ("CALL rt.seal('t')", "42883", "procedure rt.seal does not exist"),
        ("CALL", "42601", ""),
        ("CALL rt.forget", "42601", ""),
        ("CALL rt.forget('who', nothing)", "42703", "nothing"),
        ("CALL rt.forget('who', unnest(ARRAY['a', 'b']))", "0A000", "CALL arguments"),
        ("BEGIN READ ONLY; CALL rt.forget('who', '1')", "25006", "CALL"),
    ];
    for (sql, state, message) in refused {
        let error = server.try_sql(sql).expect_err(sql);
        let error = describe(&error);
        assert!(error.contains(state) && error.contains(message), "{sql}: {error}");
    }
    // With parameters, as drivers send it.
    server.sql("INSERT INTO t VALUES (1, 'it''s me'), (2, 'other')");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let rows = client.query("CALL rt.forget($1, $2)", &[&"who", &"it's me"]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>("rows"), 1);
    });
    server.wait_for("SELECT who FROM t", "other", Duration::from_secs(5));
}

/// Tombstones have zeros and empty texts in the place of values that are NOT NULL: these are nobody's, and the keys stay deleted.
#[test]
fn what_tombstones_have_instead_of_a_value_is_not_forgotten() {
    let server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT NOT NULL, who TEXT NOT NULL, n BIGINT NOT NULL, del BOOLEAN)
         WITH (version_column = 'v', delete_column = 'del')",
    );
    server.sql("INSERT INTO t VALUES (1, 5, 'ann', 1, false), (2, 5, 'bob', 2, false)");
    server.sql("INSERT INTO t VALUES (1, 9, 'ann', 1, true)");
    server.sql("SELECT rt.seal('t')");
    server.sql("SELECT rt.compact('t')");
    for (column, value) in [("who", ""), ("n", "0")] {
        let answer = server.sql(&format!("CALL rt.forget('{column}', '{value}')"));
        assert_eq!((answer[0][6].as_deref(), answer[0][8].as_deref()), (Some("0"), Some("gone")), "{answer:?}");
        server.sql("INSERT INTO t VALUES (1, 7, 'late', 3, false)");
        assert_eq!(server.value("SELECT string_agg(k || who, ' ') FROM t"), "2bob");
    }
}

/// A value is what is written: not rounded to a column's scale, and no word for another time.
#[test]
fn a_value_is_what_is_written() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE a (who NUMERIC(6, 2), k INT)");
    server.sql("CREATE TABLE b (who DATE, k INT)");
    server.sql("CREATE TABLE c (who TEXT, k INT)");
    server.sql("INSERT INTO a VALUES (2.00, 1), (3.5, 2)");
    server.sql("INSERT INTO b VALUES (current_date, 1), ('2024-01-02', 2)");
    server.sql("INSERT INTO c VALUES ('infinity', 1), ('today', 2), ('1.999', 3)");
    for (value, left) in [
        ("1.999", [2, 2, 2]),
        ("today", [2, 2, 1]),
        ("infinity", [2, 2, 0]),
        ("2", [1, 2, 0]),
        ("2024-01-02", [1, 1, 0]),
    ] {
        let answer = forget(&server, value);
        assert!(answer.iter().all(|row| row.3 == "gone"), "{value}: {answer:?}");
        let counts = ["a", "b", "c"].map(|table| server.value(&format!("SELECT count(*) FROM {table}")));
        assert_eq!(counts, left.map(|count| count.to_string()), "{value}");
    }
}

/// What files have of a dropped column is forgotten with all of it; a damaged segment keeps only its own table from being looked through.
#[test]
fn dropped_columns_and_damaged_segments() {
    let mut server = Server::start_alone(BINARY);
    for table in ["a", "dropped", "z"] {
        server.sql(&format!("CREATE TABLE {table} (k INT, who TEXT COMPRESSION none)"));
        server.sql(&format!("INSERT INTO {table} VALUES (1, 'zzmarker{table}'), (2, 'other')"));
        server.sql(&format!("SELECT rt.seal('{table}')"));
    }
    server.sql("ALTER TABLE dropped DROP COLUMN who");
    let file = server.value("SELECT file FROM rt.segments WHERE \"table\" = 'a'");
    server.kill_9();
    let mut segments = files_with(&server.data_dir, "zzmarkera");
    segments.retain(|path| path.ends_with(&file));
    fs::remove_file(&segments[0]).unwrap();
    server.spawn();
    server.wait_ready();
    let answer = forget(&server, "zzmarkerz");
    let state = |table: &str| answer.iter().find(|row| row.0 == "table" && row.1 == table).unwrap().3.clone();
    assert_eq!(["a", "dropped", "z"].map(state), ["not looked through", "gone", "gone"], "{answer:?}");
    for marker in ["zzmarkerz", "zzmarkerdropped"] {
        assert_eq!(files_with(&server.data_dir, marker), NONE, "{marker}");
    }
    assert_eq!(server.value("SELECT count(*) FROM dropped"), "2");
    // A check of the damaged table says which file it is about, and ends.
    let error = describe(&server.try_sql("SELECT * FROM rt.consistency_check('a')").expect_err("a segment is gone"));
    assert!(error.contains(".seg") || error.contains("segment"), "{error}");
}
