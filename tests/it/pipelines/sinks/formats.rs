//! Records in Avro, Protobuf, CSV and as raw bytes: back through a source of the same format they are the same rows. Schemas are registered at a registry, here the server's own.

use serde_json::{Value, json};

use super::{super::lines, BINARY, PATIENCE, topic};
use crate::{
    http::ask,
    support::{
        free_port,
        kafka::{brokers, committed, create_topic},
        server::{Server, describe},
    },
};

const COLUMNS: &str = "id BIGINT, small SMALLINT, name TEXT, price NUMERIC(12,2), share DOUBLE PRECISION, rough REAL, day DATE, ts TIMESTAMPTZ, local TIMESTAMP, doc JSONB, tags TEXT[], nums INT[], raw BYTEA, ok BOOLEAN, who UUID";

/// A file of rows with every type and NULLs, as source `s`.
fn source(server: &Server, directory: &std::path::Path) {
    let path = directory.join("rows.ndjson");
    let rows = (0..200).map(|n| {
        let name = if n % 9 == 0 { "null".into() } else { format!(r#""n\u00e4me, {n} \"q\"\n""#) };
        let price = if n % 4 == 0 { "null".into() } else { format!("{}{n}.25", if n % 2 == 0 { "-" } else { "" }) };
        let share = if n % 7 == 0 { "\"NaN\"".to_owned() } else { format!("{n}e-3") };
        format!(
            r#"{{"id":{n},"small":{},"name":{name},"price":{price},"share":{share},"rough":{n}.5,"day":"2024-02-29","ts":"2024-03-01T12:00:{:02}.25Z","local":"1969-12-31T23:59:{:02}","doc":{{"a":[{n},null]}},"tags":["x","","y{n}"],"nums":[{n},-1],"raw":"\\x00ff","ok":{},"who":"0b1a51e6-7d8b-4d5a-9c0e-0000000{n:05}"}}"#,
            n - 100,
            n % 60,
            n % 60,
            n % 2 == 0,
        ) + "\n"
    });
    std::fs::write(&path, rows.collect::<String>()).unwrap();
    server.sql(&format!(
        "CREATE SOURCE s ({COLUMNS}) WITH (connector = 'file', path = '{}', format = 'ndjson');
         CREATE TABLE there ({COLUMNS}) FROM SOURCE s; SELECT rt.drain('there')",
        path.display()
    ));
}

fn registry(server: &Server) -> String {
    format!("schema_registry = 'http://127.0.0.1:{}/api/v1/schemas'", server.http_port)
}

fn get(server: &Server, path: &str) -> Value {
    ask(server, "GET", &format!("/api/v1/schemas{path}"), &[], "").json()
}

fn post(server: &Server, method: &str, path: &str, body: &Value) -> u16 {
    ask(server, method, &format!("/api/v1/schemas{path}"), &[], &body.to_string()).status
}

#[test]
fn what_is_written_is_read_back() {
    let Some(brokers) = brokers("pipelines::sinks::formats") else { return };
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    source(&server, directory.path());
    let registry = registry(&server);
    for (format, options) in [
        ("avro", registry.as_str()),
        ("protobuf", &format!("{registry}, schema_name = 'com.shop.Row'")),
        ("csv", "csv.delimiter = ';', csv.null = 'NULL'"),
        ("debezium-json", "delete_column = 'gone'"),
    ] {
        let (written, format) = (format, format.split('-').next().unwrap());
        let output = topic(&format!("sink-{format}"));
        let kafka = format!("connector = 'kafka', brokers = '{brokers}', topic = '{output}', format = '{written}'");
        server.sql(&format!(
            "CREATE SINK out_{format} WITH ({kafka}, {options}, create_topic = 'true', partitions = 3, key = 'who', headers = 'id')"
        ));
        server.sql(&format!("CREATE PIPELINE p_{format} INTO out_{format} AS SELECT * FROM s"));
        let mut of_source = options.split(", schema_name").next().unwrap().to_owned();
        let mut gone = "";
        if format == "debezium" {
            // NaN is a string.
            of_source += ", decimal.handling.mode = 'double'";
            gone = ", gone BOOLEAN";
        }
        server.sql(&format!("CREATE SOURCE back_{format} ({COLUMNS}{gone}) WITH ({kafka}, {of_source})"));
        server.sql(&format!("CREATE TABLE here_{format} ({COLUMNS}) FROM SOURCE back_{format}"));
        server.sql("SELECT rt.drain('s')");
        server.sql(&format!("SELECT rt.drain('back_{format}')"));
        assert_eq!(lines(&server, "SELECT \"column\", reason, raw FROM rt.dlq LIMIT 1"), [""; 0], "{format}");
        assert_eq!(server.value(&format!("SELECT count(*) FROM here_{format}")), "200");
        // Protobuf has no word for documents: they are strings.
        let doc = if format == "protobuf" { "(doc #>> '{}')::JSONB AS doc" } else { "doc" };
        let columns = |doc: &str| {
            COLUMNS
                .split(", ")
                .map(|column| column.split(' ').next().unwrap())
                .map(|name| if name == "doc" { doc } else { name }.to_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (here, there) =
            (format!("SELECT {} FROM here_{format}", columns(doc)), format!("SELECT {} FROM there", columns("doc")));
        for (a, b) in [(&here, &there), (&there, &here)] {
            let rest = server.sql(&format!("SELECT id FROM ({a} EXCEPT {b}) AS rest"));
            assert!(rest.is_empty(), "{a} without {b}: {rest:?}");
        }
        let records = committed(&brokers, &output);
        assert!(records.iter().all(|record| record.key.as_ref().is_some_and(|key| key.starts_with("0b1a51e6-"))));
        if matches!(format, "avro" | "protobuf") {
            let subject = get(&server, &format!("/subjects/{output}-value/versions/latest"));
            let text = subject["schema"].as_str().unwrap();
            let wanted = if format == "avro" { output.replace('-', "_") } else { "package com.shop;".into() };
            assert!(text.contains(&wanted), "{text}");
        }
    }
    let formats = lines(&server, "SELECT format FROM rt.sinks ORDER BY 1");
    assert_eq!(formats, ["avro", "csv", "debezium-json", "protobuf"]);
    // One column as it is.
    let output = topic("sink-raw");
    let kafka = format!("connector = 'kafka', brokers = '{brokers}', topic = '{output}', format = 'raw'");
    server
        .sql(&format!("CREATE SINK out_raw WITH ({kafka}, create_topic = 'true', key = 'id', value_columns = 'rest')"));
    server.sql("CREATE PIPELINE p_raw INTO out_raw AS SELECT id, name FROM s");
    server.sql("SELECT rt.drain('s')");
    let records = committed(&brokers, &output);
    assert_eq!(records.len(), 177, "rows whose value is NULL are dead letters");
    assert!(records.iter().any(|record| record.value == "näme, 1 \"q\"\n"));
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq WHERE source = 'out_raw' AND reason LIKE '%NULL%'"), "23");
}

/// A pipeline whose columns change gives the subject's next version; what does not go with the subject is refused when the pipeline is made, and a registry that says no later, or
/// nothing, holds deliveries up and loses none.
#[test]
fn schemas_change_with_columns_and_refusals_lose_nothing() {
    let Some(brokers) = brokers("pipelines::sinks::formats::evolution") else { return };
    let mut server = Server::start(BINARY);
    let mut registry_server = Server::start(BINARY);
    let (input, output) = (topic("evolving-in"), topic("evolving"));
    create_topic(&brokers, &input, 1, &[]);
    server.sql(&format!(
        "CREATE SOURCE s (id BIGINT, city TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{input}')"
    ));
    let subject = format!("/subjects/{output}-value");
    let options = |registry: &str| {
        format!("connector = 'kafka', brokers = '{brokers}', topic = '{output}', format = 'avro', {registry}")
    };
    // A registry that is not there is told when the sink is made.
    let nobody = format!("schema_registry = 'http://127.0.0.1:{}'", free_port());
    let error =
        server.try_sql(&format!("CREATE SINK out WITH ({}, create_topic = 'true')", options(&nobody))).unwrap_err();
    assert!(describe(&error).starts_with("08001: schema registry http://127.0.0.1"), "{}", describe(&error));
    server.sql(&format!("CREATE SINK out WITH ({}, create_topic = 'true')", options(&registry(&registry_server))));
    server.sql("EXPLAIN CREATE PIPELINE p INTO out AS SELECT id FROM s");
    assert_eq!(get(&registry_server, "/subjects"), json!([]));
    server.sql("CREATE PIPELINE p INTO out AS SELECT id FROM s");
    let feed = crate::support::kafka::Feed::new(&brokers, &input);
    let send = |id: u64| {
        feed.send(0, format!(r#"{{"id":{id},"city":"Oslo"}}"#).as_bytes());
        feed.flush();
    };
    send(1);
    server.sql("SELECT rt.drain('s')");
    server.sql("DROP PIPELINE p");
    // With another column: the next version.
    server.sql("CREATE PIPELINE p INTO out AS SELECT city, id FROM s");
    server.sql("SELECT rt.drain('s')");
    assert_eq!(get(&registry_server, &format!("{subject}/versions")), json!([1, 2]));
    server.sql("DROP PIPELINE p");
    // With another type of the same: refused, and nothing is left behind.
    let error = server.try_sql("CREATE PIPELINE p INTO out AS SELECT city, id::TEXT AS id FROM s").unwrap_err();
    let message = describe(&error);
    assert!(
        message.starts_with("42804: the schema registry http://127.0.0.1") && message.contains("error 409"),
        "{message}"
    );
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");

    // The registry is away, and then says no, when the server starts: rows wait.
    server.sql("CREATE PIPELINE p INTO out AS SELECT city, id FROM s");
    server.sql("SELECT rt.drain('s')");
    registry_server.kill_9();
    server.kill_and_restart();
    send(2);
    let trouble = "SELECT error LIKE 'schema registry http://127.0.0.1%' FROM rt.deliveries";
    server.wait_for(trouble, "t", PATIENCE);
    registry_server.spawn();
    registry_server.wait_ready();
    server.wait_for("SELECT state || ' ' || behind FROM rt.deliveries", "delivering 0", PATIENCE);
    // Somebody deletes the versions and registers something else.
    assert_eq!(post(&registry_server, "DELETE", &subject, &Value::Null), 200);
    assert_eq!(post(&registry_server, "DELETE", &format!("{subject}?permanent=true"), &Value::Null), 200);
    let other = json!({ "schema": "{\"type\":\"record\",\"name\":\"Other\",\"fields\":[]}" });
    assert_eq!(post(&registry_server, "POST", &format!("{subject}/versions"), &other), 200);
    server.kill_and_restart();
    send(3);
    server.wait_for("SELECT error LIKE '%refuses the Avro schema%(error 409)' FROM rt.deliveries", "t", PATIENCE);
    assert_eq!(
        post(&registry_server, "PUT", &format!("/config/{output}-value"), &json!({ "compatibility": "NONE" })),
        200
    );
    server.wait_for("SELECT state || ' ' || behind FROM rt.deliveries", "delivering 0", PATIENCE);
    // What it says of itself follows a moment later.
    server.wait_for("SELECT state FROM rt.pipelines", "running", PATIENCE);
    server.sql("SELECT rt.drain('s')");
    // Three pipelines have delivered row 1, the last one rows 2 and 3 as well.
    assert_eq!(committed(&brokers, &output).len(), 5);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
}
