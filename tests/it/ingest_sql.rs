//! SQL at ingest time means what it means in a query: transforms, CHECKs and the watermark of a source.

use std::{fs, time::Duration};

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// Expression over the source's columns, and the type of the table's column that takes it.
const EXPRESSIONS: &[(&str, &str)] = &[
    ("CAST(d AS INT)", "INT"),
    ("CAST(n AS INT)", "INT"),
    ("n::numeric(8, 1)", "NUMERIC(8, 1)"),
    ("d::text", "TEXT"),
    ("s::int", "INT"),
    ("i / 2", "INT"),
    ("i % 3", "INT"),
    ("-i", "INT"),
    ("i * 2", "INT"),
    ("i + 9000000000", "BIGINT"),
    ("round(d)", "DOUBLE PRECISION"),
    ("round(n, 1)", "NUMERIC(12, 1)"),
    ("s || '-' || i", "TEXT"),
    ("upper(s) LIKE '1%'", "BOOLEAN"),
    ("date_trunc('day', ts)", "TIMESTAMPTZ"),
    ("to_char(ts, 'YYYY-MM-DD HH24:MI')", "TEXT"),
    ("extract(year FROM ts)::int", "INT"),
    ("ts + INTERVAL '1 month'", "TIMESTAMPTZ"),
    ("ts AT TIME ZONE 'Asia/Tokyo'", "TIMESTAMP"),
    ("ts::date", "DATE"),
    ("doc ->> 'a'", "TEXT"),
    ("(doc ->> 'a')::int + 1", "INT"),
    ("CASE WHEN d > 2 THEN 'big' WHEN d IS NULL THEN 'none' ELSE 'small' END", "TEXT"),
    ("coalesce(n, 0) = ANY (ARRAY[0, 2.5])", "BOOLEAN"),
    ("i BETWEEN 2 AND 5 AND s IN ('12', '7')", "BOOLEAN"),
];

#[test]
fn transforms_give_what_queries_give() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.ndjson");
    let mut lines = String::new();
    let doubles = ["0.5", "1.5", "2.5", "-0.5", "-1.5", "-2.5", "2.4999", "1e9", "null", "0.1"];
    for (id, d) in doubles.iter().enumerate() {
        lines += &format!(
            r#"{{"id":{id},"d":{d},"n":"{}.{}50","i":{},"s":"{}","ts":"2024-01-3{}T23:59:59.75Z","doc":{{"a":"{id}"}}}}"#,
            id as i64 - 4,
            id,
            id as i64 * 3 - 9,
            [12, 7, -3][id % 3],
            id % 2,
        );
        lines.push('\n');
    }
    fs::write(&file, lines).unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE raw (id INT, d DOUBLE PRECISION, n NUMERIC(10, 3), i INT, s TEXT, ts TIMESTAMPTZ, doc JSONB,
             WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
         WITH (connector = 'file', path = '{}')",
        file.display()
    ));
    server.sql("CREATE TABLE plain FROM SOURCE raw");
    let columns: Vec<_> = EXPRESSIONS.iter().enumerate().map(|(at, (_, sql))| format!("x{at} {sql}")).collect();
    let items: Vec<_> = EXPRESSIONS.iter().enumerate().map(|(at, (expr, _))| format!("{expr} AS x{at}")).collect();
    server.sql(&format!(
        "CREATE TABLE made (id INT, {}) FROM SOURCE raw AS SELECT id, {}",
        columns.join(", "),
        items.join(", ")
    ));
    for table in ["plain", "made"] {
        server.wait_for(&format!("SELECT count(*) FROM {table}"), &doubles.len().to_string(), Duration::from_secs(20));
    }
    let mut other = Vec::new();
    for (at, (expr, _)) in EXPRESSIONS.iter().enumerate() {
        let rows = server.sql(&format!(
            "SELECT p.id, q.x AS wanted, m.x{at} AS found FROM plain p JOIN made m ON p.id = m.id
             JOIN (SELECT id, {expr} AS x FROM plain) q ON q.id = p.id WHERE q.x IS DISTINCT FROM m.x{at}"
        ));
        other.extend(rows.into_iter().map(|row| format!("{expr}: {row:?}")));
    }
    assert!(other.is_empty(), "{}", other.join("\n"));
    // What Postgres rounds: half to even.
    assert_eq!(server.value("SELECT string_agg(x0::text, ' ' ORDER BY id) FROM made WHERE id < 6"), "0 2 2 0 -2 -2");
    assert_eq!(
        server.value("SELECT watermark FROM rt.partitions WHERE source = 'raw' AND \"table\" = 'plain'"),
        "2024-01-31 23:59:57.75+00"
    );
}

#[test]
fn what_a_query_refuses_is_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.ndjson");
    let rows = [
        r#"{"id":1,"d":1e300,"s":"5"}"#,
        r#"{"id":2,"d":3e9,"s":"5"}"#,
        r#"{"id":3,"d":1,"s":"x"}"#,
        r#"{"id":4,"d":2.5,"s":"9"}"#,
    ];
    fs::write(&file, rows.join("\n")).unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE raw (id INT, d DOUBLE PRECISION, s TEXT, CONSTRAINT small CHECK (CAST(d AS BIGINT) < 4000000000))
         WITH (connector = 'file', path = '{}')",
        file.display()
    ));
    server.sql("CREATE TABLE t (id INT, a INT, b INT) FROM SOURCE raw AS SELECT id, d::int AS a, s::int AS b");
    server.sql("SELECT rt.drain('raw')");
    assert_eq!(server.sql("SELECT * FROM t"), [[Some("4".into()), Some("2".into()), Some("9".into())]]);
    let letters = server.sql("SELECT \"offset\", reason, raw_text FROM rt.dlq ORDER BY 1");
    let of = |expr: &str| super::support::server::describe(&server.try_sql(&format!("SELECT {expr}")).unwrap_err());
    for (letter, expr) in letters.iter().zip(["1e300::float8::bigint", "3e9::float8::int", "'x'::text::int"]) {
        let (reason, asked) = (letter[1].as_deref().unwrap(), of(expr));
        let message = asked.split_once(": ").unwrap().1.split(" (hint").next().unwrap().to_owned();
        assert!(reason.ends_with(&message), "the dead letter says {reason}, the query {asked}");
    }
    assert_eq!(letters.len(), 3, "{letters:?}");
    assert_eq!(letters[0][2].as_deref(), Some(rows[0]), "the message as it came");
    for refused in ["now()", "localtimestamp", "clock_timestamp()", "random()", "age(TIMESTAMP '2024-01-01')"] {
        let sql = format!("CREATE TABLE u (id INT, a TEXT) FROM SOURCE raw AS SELECT id, ({refused})::text AS a");
        assert!(server.try_sql(&sql).is_err(), "{refused} gives another answer after a crash");
    }
}

/// What is a document to INSERT is one to a source, and the same one. A file's text in a JSONB column is read as one, too; numbers of
/// more than 400 zeros were dead letters.
#[test]
fn sources_take_the_documents_that_insert_takes() {
    let folder = tempfile::tempdir().unwrap();
    let documents =
        [r#"{"b": 1, "a": 1e500}"#, "[1e-16383]", "1e131071", r#"{"a":{"a":[1,"x"]}}"#, "1e131072", "[1e-16384]", "{"];
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE given (id INT, doc JSONB)");
    for (id, document) in documents.iter().enumerate() {
        let taken = server.try_sql(&format!("INSERT INTO given VALUES ({id}, '{document}')"));
        assert_eq!(taken.is_ok(), id < 4, "{document}");
    }
    let csv: String =
        (0..documents.len()).map(|id| format!("{id},\"{}\"\n", documents[id].replace('"', "\"\""))).collect();
    let json: String =
        documents.iter().enumerate().map(|(id, text)| format!("{{\"id\":{id},\"doc\":{text}}}\n")).collect();
    for (name, text) in [("csv", csv), ("ndjson", json)] {
        let file = folder.path().join(format!("documents.{name}"));
        fs::write(&file, text).unwrap();
        server.sql(&format!(
            "CREATE SOURCE s_{name} (id INT, doc JSONB) WITH (connector = 'file', path = '{}')",
            file.display()
        ));
        server.sql(&format!("CREATE TABLE t_{name} FROM SOURCE s_{name}"));
        server.sql(&format!("SELECT rt.drain('s_{name}')"));
        let same = format!("SELECT count(*) FROM given JOIN t_{name} t USING (id) WHERE given.doc::text = t.doc::text");
        assert_eq!(server.value(&same), "4");
        assert_eq!(server.value(&format!("SELECT count(*) FROM t_{name}")), "4");
        assert_eq!(server.value(&format!("SELECT count(*) FROM rt.dlq WHERE source = 's_{name}'")), "3");
    }
}
