//! What becomes of late rows: dropped, dead letters, or another version of their window.

use std::path::Path;

use super::{BINARY, lines, refused};
use crate::support::server::Server;

/// (key, second of the minute) in the order of their arrival; the watermark is the time itself.
const EVENTS: [(&str, i64); 9] = [
    ("a", 1),
    ("b", 4),
    ("a", 9),
    // Ends the window of 0.
    ("a", 12),
    // Late for it.
    ("b", 5),
    ("a", 6),
    ("a", 25),
    // Late for both, and later than what is allowed (12 s) for the first one.
    ("b", 11),
    ("a", 3),
];

fn with_source(server: &Server, directory: &Path) {
    let path = directory.join("events.ndjson");
    let line =
        |(key, second): &(&str, i64)| format!("{{\"key\":\"{key}\",\"ts\":{}}}\n", 1_709_294_400_000 + second * 1000);
    std::fs::write(&path, EVENTS.iter().map(line).collect::<String>()).unwrap();
    server.sql(&format!(
        "CREATE SOURCE s (key TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
}

const SELECT: &str = "SELECT key, TUMBLE_START(ts, INTERVAL '10 seconds') AS start, count(*) AS rows FROM s GROUP BY key, TUMBLE(ts, INTERVAL '10 seconds')";

fn create(target: &str, options: &str) -> String {
    format!("CREATE PIPELINE p INTO {target} WITH (idle_timeout = '1 hour'{options}) AS {SELECT}")
}

const COUNTS: &str = "SELECT rows_in, late_rows, late_updates, dead_letters FROM rt.pipelines";

fn windows(server: &Server, table: &str) -> Vec<String> {
    lines(server, &format!("SELECT key, extract(second FROM start)::int, rows FROM {table}"))
}

#[test]
fn late_rows_are_dropped_and_counted_or_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    with_source(&server, directory.path());
    for (policy, letters) in [("", 0), (", late = 'drop', allowed_lateness = '0s'", 0), (", late = 'dlq'", 4)] {
        server.sql("CREATE TABLE t (key TEXT, start TIMESTAMPTZ, rows BIGINT)");
        server.sql(&create("t", policy));
        for _ in 0..2 {
            server.sql("SELECT rt.drain('s')");
            assert_eq!(windows(&server, "t"), ["a 0 2", "a 10 1", "b 0 1"], "{policy}");
            assert_eq!(lines(&server, COUNTS), [format!("9 4 0 {letters}")], "{policy}");
            let found =
                lines(&server, "SELECT \"table\", source, \"offset\", reason LIKE 'the row is late%' FROM rt.dlq");
            assert_eq!(found.len(), letters, "{found:?}");
            assert!(found.iter().all(|line| line.starts_with("p s ") && line.ends_with(" t")), "{found:?}");
            server.kill_and_restart();
        }
        server.sql("DROP PIPELINE p");
        server.sql("DROP TABLE t");
    }
}

#[test]
fn late_rows_update_their_windows() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    with_source(&server, directory.path());
    server.sql("CREATE TABLE t (key TEXT, start TIMESTAMPTZ, rows BIGINT, PRIMARY KEY (start, key))");
    server
        .sql("CREATE TABLE now (key TEXT PRIMARY KEY, start TIMESTAMPTZ, rows BIGINT) WITH (version_column = 'start')");
    server.sql(&create("t, now", ", late = 'update', allowed_lateness = '12 seconds'"));
    for _ in 0..2 {
        server.sql("SELECT rt.drain('s')");
        // The last row, of second 3, comes 15 seconds after its window.
        assert_eq!(windows(&server, "t"), ["a 0 3", "a 10 1", "b 0 2", "b 10 1"]);
        // A window that changes does not replace a later one.
        assert_eq!(windows(&server, "now"), ["a 10 1", "b 10 1"]);
        assert_eq!(lines(&server, COUNTS), ["9 1 3 0"]);
        server.kill_and_restart();
    }
}

/// What is fresh does without late rows, what is complete takes them; and what is said of late rows itself counts.
#[test]
fn profiles_say_what_becomes_of_late_rows() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    with_source(&server, directory.path());
    let updated = ["a 0 4", "a 10 1", "b 0 2", "b 10 1"];
    for (options, expected) in [
        (", profile = 'freshness'", &["a 0 2", "a 10 1", "b 0 1"][..]),
        (", profile = 'Completeness'", &updated),
        (", late = 'update', profile = 'freshness'", &updated),
        (", profile = 'completeness', late = 'drop'", &["a 0 2", "a 10 1", "b 0 1"]),
    ] {
        server.sql("CREATE TABLE t (key TEXT, start TIMESTAMPTZ, rows BIGINT, PRIMARY KEY (start, key))");
        server.sql(&create("t", options));
        server.sql("SELECT rt.drain('s')");
        assert_eq!(windows(&server, "t"), expected, "{options}");
        server.sql("DROP PIPELINE p");
        server.sql("DROP TABLE t");
    }
    server.sql("CREATE TABLE plain (key TEXT, start TIMESTAMPTZ, rows BIGINT)");
    assert_eq!(refused(&server, &create("plain", ", profile = 'completeness'")).0, "0A000");
    let (code, message, hint) = refused(&server, &create("plain", ", profile = 'fast'"));
    assert!(code == "22023" && message.contains("'fast'") && hint.contains("completeness"), "{code} {message} {hint}");
}

#[test]
fn tables_that_do_not_understand_updates_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    with_source(&server, directory.path());
    server.sql("CREATE TABLE plain (key TEXT, start TIMESTAMPTZ, rows BIGINT)");
    server.sql(
        "CREATE TABLE first (key TEXT, start TIMESTAMPTZ, rows BIGINT, PRIMARY KEY (key, start)) WITH (mode = 'dedup')",
    );
    server.sql("CREATE TABLE merged (key TEXT, start TIMESTAMPTZ, rows BIGINT MERGE increment, PRIMARY KEY (key, start)) WITH (mode = 'partial_upsert')");
    server.sql("CREATE TABLE newest (key TEXT PRIMARY KEY, start TIMESTAMPTZ, rows BIGINT)");
    server.sql("CREATE TABLE mixed (key TEXT, start TIMESTAMPTZ PRIMARY KEY, rows BIGINT)");
    server.sql("CREATE TABLE counts (key TEXT, start TIMESTAMPTZ, rows BIGINT, PRIMARY KEY (key, start, rows))");
    let update = ", late = 'update'";
    for (table, options, code, words, hint) in [
        ("plain", update, "0A000", "\"plain\" has no primary key", "PRIMARY KEY"),
        ("first", update, "0A000", "'dedup'", "upsert"),
        ("merged", update, "0A000", "'partial_upsert'", "upsert"),
        ("newest", update, "0A000", "replace later ones", "version_column"),
        ("mixed", update, "0A000", "not every column of GROUP BY", "PRIMARY KEY"),
        ("counts", update, "0A000", "\"rows\"", "PRIMARY KEY"),
        ("plain", ", late = 'never'", "22023", "late", "drop, update or dlq"),
        ("plain", ", allowed_lateness = '1 minute'", "22023", "allowed_lateness", "WATERMARK"),
        ("plain", ", late = 'update', allowed_lateness = '0s'", "22023", "nothing", "drop"),
        ("plain", ", late = 'dlq', allowed_lateness = 'long'", "22023", "allowed_lateness", "duration"),
    ] {
        let (found, message, found_hint) = refused(&server, &create(table, options));
        assert!(
            found == code && message.contains(words) && found_hint.contains(hint),
            "{table}{options}\n{found} {message}\n{found_hint}"
        );
    }
    server.sql("CREATE TABLE fine (key TEXT, start TIMESTAMPTZ, rows BIGINT, PRIMARY KEY (key, start))");
    let (code, message, hint) = refused(&server, &format!("{} HAVING count(*) > 1", create("fine", update)));
    assert!(code == "0A000" && message.contains("HAVING") && hint.contains("query"), "{code} {message} {hint}");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
}
