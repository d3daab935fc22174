//! What CREATE SINK takes and refuses. One test needs no broker: what is wrong is told before anybody is asked.

use super::{BINARY, refused, sink, topic};
use crate::support::{kafka::brokers, server::Server};

#[test]
fn what_is_wrong_is_told_before_a_broker_is_asked() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (a INT)");
    let with = |options: &str| {
        format!(
            "CREATE SINK x WITH (connector = 'kafka', brokers = '127.0.0.1:1', topic = 'o', timeout = '200ms' {options})"
        )
    };
    for (sql, code, words, hint) in [
        ("CREATE SINK x WITH (topic = 'o')".into(), "22023", "'connector'", "kafka"),
        ("CREATE SINK x WITH (connector = 'webhook')".into(), "22023", "'connector'", "kafka"),
        ("CREATE SINK x WITH (connector = 'kafka', topic = 'o')".into(), "22023", "'brokers'", "host:port"),
        (with(", fromat = 'json'"), "22023", "'fromat'", "format"),
        (with(", format = 'avro'"), "22023", "avro", "schema_registry"),
        (
            with(", format = 'debezium-json', decimal.handling.mode = 'string'"),
            "22023",
            "decimal.handling.mode",
            "digits",
        ),
        (with(", delete_column = 'gone'"), "22023", "delete_column", ""),
        (with(", subject = 'x'"), "22023", "'subject'", "avro"),
        (with(", delivery = 'often'"), "22023", "'delivery'", "exactly_once"),
        (with(", properties.transactional.id = 'x'"), "22023", "transactional.id", "transactional_id_prefix"),
        (with(", properties.security.protocol = 'SSL'"), "0A000", "SSL", "PLAINTEXT"),
        (with(""), "08001", "127.0.0.1:1", ""),
        ("CREATE SINK t WITH (connector = 'kafka')".into(), "42P07", "\"t\"", ""),
        ("CREATE SINK x (a INT, b TEXT PRIMARY KEY) WITH (connector = 'kafka')".into(), "42601", "columns", ""),
        (
            "CREATE SINK x (a INT, a INT) WITH (connector = 'kafka', brokers = 'b:1', topic = 'o')".into(),
            "42701",
            "\"a\"",
            "",
        ),
        (
            "CREATE SINK x (id INT) WITH (connector = 'kafka', brokers = 'b:1', topic = 'o', key = 'idd')".into(),
            "22023",
            "\"idd\"",
            "id",
        ),
        (
            "CREATE SINK x (id INT) WITH (connector = 'kafka', brokers = 'b:1', topic = 'o', timestamp = 'id')".into(),
            "22023",
            "'timestamp'",
            "TIMESTAMPTZ",
        ),
        ("DROP SINK nothing".into(), "42704", "\"nothing\"", ""),
        ("DROP SINK t".into(), "42809", "is a table", ""),
    ] {
        let (found, message, told) = refused(&server, &sql);
        assert!(found == code && message.contains(words) && told.contains(hint), "{sql}\n{found} {message}\n{told}");
    }
    server.sql("DROP SINK IF EXISTS nothing");
    assert_eq!(server.value("SELECT count(*) FROM rt.sinks"), "0");
}

#[test]
fn sinks_are_made_used_and_dropped() {
    let Some(brokers) = brokers("pipelines::sinks::definitions::sinks_are_made") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    let path = directory.path().join("rows.ndjson");
    std::fs::write(&path, "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}\n").unwrap();
    server.sql(&format!(
        "CREATE SOURCE s (a INT, b TEXT) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    let output = topic("sink-defined");
    let missing = format!("CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}')");
    let (code, message, _) = refused(&server, &missing);
    assert!(code == "08001" && message.contains("create_topic"), "{code} {message}");
    sink(&server, &brokers, &output, ", key = 'b'");
    server.sql(&missing.replace("SINK", "SINK IF NOT EXISTS"));
    let (code, ..) = refused(&server, &missing);
    assert_eq!(code, "42P07");
    for (sql, code, words) in [
        ("INSERT INTO out VALUES (1)", "42P01", "out"),
        ("COPY out FROM STDIN", "42809", "is a sink"),
        ("SELECT * FROM out", "42P01", "out"),
        ("CREATE TABLE out (a INT)", "42P07", "out"),
        ("CREATE PIPELINE p INTO out AS SELECT a FROM s", "22023", "\"b\""),
        ("CREATE PIPELINE p INTO out (x, b, y) AS SELECT a, b FROM s", "42601", "columns"),
        ("CREATE PIPELINE p INTO out, out AS SELECT a, b FROM s", "42710", "out"),
        ("CREATE PIPELINE p INTO out AS SELECT a, count(*) AS b FROM s GROUP BY a", "0A000", "key"),
    ] {
        let (found, message, _) = refused(&server, sql);
        assert!(found == code && message.contains(words), "{sql}\n{found} {message}");
    }
    server.sql("CREATE PIPELINE p INTO out AS SELECT a, b FROM s");
    server.sql("SELECT rt.drain('s')");
    assert_eq!(
        super::super::lines(
            &server,
            "SELECT s.name, s.delivery, s.pipelines, d.rows, d.behind, p.targets FROM rt.sinks s JOIN rt.deliveries d ON d.sink = s.name JOIN rt.pipelines p ON p.name = d.pipeline"
        ),
        ["out exactly_once p 2 0 out"]
    );
    let (code, message, hint) = refused(&server, "DROP SINK out");
    assert!(code == "2BP01" && hint.contains("CASCADE"), "{code} {message} {hint}");
    server.kill_and_restart();
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", super::PATIENCE);
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE change = 'sink.create'"), "1");
    server.sql("DROP SINK out CASCADE");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
    assert_eq!(super::ids_of(&brokers, &output, "a"), 2);
}
