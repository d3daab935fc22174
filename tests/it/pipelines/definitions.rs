//! CREATE, ALTER, DROP and EXPLAIN of pipelines, and what they refuse.

use std::path::Path;

use super::{BINARY, PATIENCE, lines, refused};
use crate::support::server::Server;

fn with_source(server: &Server, directory: &Path) {
    let path = directory.join("rows.ndjson");
    let rows =
        (0..100).map(|n| format!("{{\"a\":{n},\"b\":\"x{}\",\"ts\":{}}}\n", n % 3, 1_709_294_400_000_i64 + n * 1000));
    std::fs::write(&path, rows.collect::<String>()).unwrap();
    server.sql(&format!(
        "CREATE SOURCE s (a INT, b TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    server.sql("CREATE TABLE t (b TEXT, start TIMESTAMPTZ, rows BIGINT)");
    server.sql("CREATE TABLE narrow (n INT NOT NULL)");
}

const WINDOWS: &str = "SELECT b, TUMBLE_START(ts, INTERVAL '10 seconds') AS start, count(*) AS rows FROM s GROUP BY b, TUMBLE(ts, INTERVAL '10 seconds')";

#[test]
fn what_cannot_work_is_refused_when_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    with_source(&server, directory.path());
    let create = |into: &str, query: &str| format!("CREATE PIPELINE p INTO {into} AS {query}");
    for (sql, code, words) in [
        (create("t", "SELECT nothing FROM s"), "42703", "nothing"),
        (create("t", "SELECT b FROM nowhere"), "42P01", "nowhere"),
        (create("nowhere", WINDOWS), "42P01", "nowhere"),
        (create("t", "SELECT b FROM t"), "0A000", "\"t\""),
        (create("t", "SELECT a FROM s"), "42804", "\"b\" is of type text but expression \"a\""),
        (create("t", "SELECT b, ts, a, a FROM s"), "42601", "4 columns"),
        (create("narrow", "SELECT NULL::int FROM s LIMIT 3"), "0A000", "LIMIT"),
        (create("t", "SELECT b FROM s ORDER BY a"), "0A000", "ORDER BY"),
        (create("t", "SELECT DISTINCT b FROM s"), "0A000", "DISTINCT"),
        (create("t", "SELECT x.b FROM s x JOIN s y ON x.a = y.a"), "0A000", "two bounds"),
        (create("t", "SELECT count(*) FROM s"), "0A000", "without GROUP BY"),
        (create("t", "SELECT b, min(ts), count(*) FROM s GROUP BY b HAVING count(*) > 3"), "0A000", "HAVING"),
        (
            create(
                "t WITH (late = 'update')",
                "SELECT b, SESSION_END(ts, INTERVAL '1 minute'), count(*) FROM s GROUP BY b, SESSION(ts, INTERVAL '1 minute')",
            ),
            "0A000",
            "SESSION",
        ),
        (
            create(
                "t WITH (late = 'update')",
                "SELECT x.b, x.ts FROM s x JOIN s y ON x.a = y.a AND y.ts BETWEEN x.ts AND x.ts + INTERVAL '1 minute'",
            ),
            "0A000",
            "join",
        ),
        (create("t", "SELECT b, ts, row_number() OVER (ORDER BY a) FROM s"), "0A000", "OVER"),
        (create("t", "SELECT b, min(ts), count(*) FROM s GROUP BY b"), "0A000", "without a window"),
        (create("t", "SELECT b, tumble(ts, INTERVAL '1 minute'), count(*) FROM s GROUP BY 1, 2"), "0A000", "window"),
        (
            create(
                "t",
                "SELECT b, TUMBLE_START(ts + INTERVAL '1 hour', INTERVAL '1 minute'), count(*) FROM s GROUP BY b, TUMBLE(ts + INTERVAL '1 hour', INTERVAL '1 minute')",
            ),
            "0A000",
            "event time",
        ),
        (
            create(
                "t",
                "SELECT b, TUMBLE_START(ts, INTERVAL '1 month'), count(*) FROM s GROUP BY b, TUMBLE(ts, INTERVAL '1 month')",
            ),
            "22023",
            "TUMBLE",
        ),
        (
            create(
                "t",
                "SELECT b, HOP_START(ts, INTERVAL '1 minute', INTERVAL '1 second'), count(*) FROM s GROUP BY b, HOP(ts, INTERVAL '1 minute', INTERVAL '1 second')",
            ),
            "22023",
            "slide",
        ),
        (create("t", "SELECT b, now(), 1::bigint FROM s"), "22023", "now()"),
        (create("SINK x", WINDOWS), "42704", "sink \"x\""),
        (create("SINK t", WINDOWS), "42809", "not a sink"),
        (create("t WITH (checkpoint_intervall = '1s')", WINDOWS), "22023", "checkpoint_intervall"),
        (create("t WITH (checkpoint_interval = 'soon')", WINDOWS), "22023", "checkpoint_interval"),
        ("ALTER PIPELINE p PAUSE".into(), "42704", "\"p\""),
        ("DROP PIPELINE p".into(), "42704", "\"p\""),
        ("INSERT INTO t BY NAME SELECT b FROM t".into(), "0A000", "BY NAME"),
        (
            create("t", "SELECT s.b, s.ts, x.rows FROM s JOIN t x ON x.b = s.b"),
            "0A000",
            "\"t\" does not name its primary key",
        ),
        (
            create("t", "SELECT s.b FROM s JOIN t FOR SYSTEM_TIME AS OF s.ts ON t.b = s.b"),
            "0A000",
            "FOR SYSTEM_TIME AS OF",
        ),
        (create("t", "SELECT s.b FROM t JOIN s ON t.b = s.b"), "0A000", "\"t\" cannot stand alone"),
        (create("t", "SELECT s.b FROM s JOIN LATEST t USING (b)"), "22023", "JOIN LATEST"),
    ] {
        let (found, message, _) = refused(&server, &sql);
        assert!(found == code && message.contains(words), "{sql}\n{found} {message}");
    }
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
    assert_eq!(server.value("SELECT count(*) FROM rt.tables"), "2");
}

#[test]
fn a_life_from_create_to_drop() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    with_source(&server, directory.path());
    let plan: Vec<String> =
        server.sql(&format!("EXPLAIN CREATE PIPELINE p INTO t AS {WINDOWS}")).into_iter().flatten().flatten().collect();
    let text = plan.join("\n");
    assert!(text.contains("Tumble") && text.contains("Source: s, event time ts"), "{text}");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");

    server.sql(&format!("CREATE PIPELINE p INTO t AS {WINDOWS}"));
    let (code, ..) = refused(&server, &format!("CREATE PIPELINE p INTO t AS {WINDOWS}"));
    assert_eq!(code, "42710");
    server.sql(&format!("CREATE PIPELINE IF NOT EXISTS p INTO t AS {WINDOWS}"));
    server.sql("SELECT rt.drain('s')");
    // 100 rows of one second each: the last ten-second window has not ended.
    let windows = "SELECT count(*), sum(rows) FROM t";
    assert_eq!(lines(&server, windows), ["27 90"]);
    assert_eq!(lines(&server, "SELECT rows_in, rows_out, late_rows, error FROM rt.pipelines"), ["100 27 0 null"]);

    for (sql, words) in [("DROP TABLE t", "table \"t\""), ("DROP SOURCE s", "source \"s\"")] {
        let (code, message, hint) = refused(&server, sql);
        assert!(code == "2BP01" && message.contains(words) && hint.contains("CASCADE"), "{code} {message} {hint}");
    }
    let (code, message, _) = refused(&server, "ALTER TABLE t DROP COLUMN rows");
    assert!(code == "2BP01", "{code} {message}");
    server.sql("ALTER TABLE t ADD COLUMN note TEXT DEFAULT 'none'");
    server.sql("ALTER TABLE t RENAME COLUMN rows TO many");

    server.sql("ALTER PIPELINE p PAUSE");
    server.wait_for("SELECT state FROM rt.pipelines", "paused", PATIENCE);
    server.kill_and_restart();
    server.wait_for("SELECT state FROM rt.pipelines", "paused", PATIENCE);
    server.sql("ALTER PIPELINE p RESUME");
    server.wait_for("SELECT state IN ('running', 'starting') FROM rt.pipelines", "t", PATIENCE);
    server.sql("SELECT rt.drain('s')");
    assert_eq!(lines(&server, "SELECT count(*), sum(many), min(note) FROM t"), ["27 90 none"]);
    assert_eq!(server.value("SELECT count(*) BETWEEN 1 AND 3 FROM rt.checkpoints WHERE pipeline = 'p'"), "t");

    server.sql("ALTER PIPELINE p RENAME TO q");
    server.sql("DROP PIPELINE q");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
    server.kill_and_restart();
    assert_eq!(lines(&server, "SELECT count(*), sum(many), min(note) FROM t"), ["27 90 none"]);

    server.sql("INSERT INTO t (b, start, many) SELECT b, ts, a::bigint FROM s WHERE a < 5");
    server.sql("SELECT rt.drain('t')");
    assert_eq!(server.value("SELECT count(*) FROM t"), "32");
    server.sql("DROP SOURCE s CASCADE");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
    server.sql("DROP TABLE t");
}

/// A row that cannot be computed is a dead letter of its pipeline, once, over a crash; its neighbours go on.
/// Windows as table functions, in each statement that makes a pipeline.
#[test]
fn windows_as_table_functions_are_those_of_group_by() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    with_source(&server, directory.path());
    let of_table = "SELECT b, window_start AS start, count(*) AS rows FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECONDS)) GROUP BY window_start, window_end, b";
    let explained = lines(&server, &format!("EXPLAIN CREATE PIPELINE p INTO t AS {of_table}")).join("\n");
    assert!(explained.contains("tumble") && !explained.contains('\u{1f}'), "{explained}");
    for table in ["by_group", "by_table", "by_insert"] {
        server.sql(&format!("CREATE TABLE {table} (b TEXT, start TIMESTAMPTZ, rows BIGINT)"));
    }
    let options = "WITH (idle_timeout = '1 hour')";
    server.sql(&format!("CREATE PIPELINE g INTO by_group {options} AS {WINDOWS}"));
    server.sql(&format!("CREATE PIPELINE p INTO by_table {options} AS {of_table}"));
    server.sql(&format!("INSERT INTO by_insert {of_table}"));
    server.sql("SELECT rt.drain('s')");
    let of = |table: &str| lines(&server, &format!("SELECT * FROM {table}"));
    assert!(of("by_group").len() >= 27, "{:?}", of("by_group"));
    assert_eq!(of("by_table"), of("by_group"));
    server.wait_for("SELECT count(*) >= (SELECT count(*) FROM by_group) FROM by_insert", "t", PATIENCE);
    let sources = lines(&server, "SELECT name, sources FROM rt.pipelines");
    assert!(sources.iter().all(|line| line.ends_with(" s")), "{sources:?}");
    assert_eq!(refused(&server, "DROP SOURCE s").0, "2BP01");
    for (query, code, words) in [
        (of_table.replace("TABLE s", "TABLE nowhere"), "42P01", "nowhere"),
        (
            of_table.replace("DESCRIPTOR(ts)", "DESCRIPTOR(a)"),
            "42804",
            "TIMESTAMPTZ as its first argument, not integer",
        ),
        (WINDOWS.replace("(ts,", "(b,"), "42804", "TIMESTAMPTZ as its first argument, not text"),
        (of_table.replace("DESCRIPTOR(ts)", "ts"), "22023", "DESCRIPTOR"),
        (of_table.replace("GROUP BY window_start, window_end, b", ""), "0A000", "grouped by"),
    ] {
        let (found, message, hint) = refused(&server, &format!("CREATE PIPELINE q INTO t AS {query}"));
        assert!(found == code && format!("{message} {hint}").contains(words), "{query}: {found} {message} {hint}");
    }
}

#[test]
fn rows_that_cannot_be_computed_are_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    with_source(&server, directory.path());
    server.sql("CREATE TABLE shares (share INT)");
    server.sql("CREATE PIPELINE p INTO shares AS SELECT 100 / (a - 50) FROM s");
    server.sql("SELECT rt.drain('s')");
    for round in 0..2 {
        assert_eq!(server.value("SELECT count(*) FROM shares"), "99", "{round}");
        let letters = lines(&server, "SELECT \"table\", source, reason FROM rt.dlq");
        assert_eq!(letters, ["p s division by zero"], "{round}");
        server.wait_for("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets LIKE '%100%'", "t", PATIENCE);
        server.kill_and_restart();
        server.sql("SELECT rt.drain('s')");
    }
}
