//! Statements on subjects, and messages of schemas that were added by force: what the verdict said is what happens.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use serde_json::Value;

use super::{BINARY, broken, verdicts};
use crate::schema_registry::zigzag;
use crate::{
    http::ask,
    support::{
        kafka::Feed,
        server::{Server, connect, runtime},
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Fields, whether they break anything, and messages: their data, and the row that each is; none where it is a dead letter.
type Step = (String, bool, Vec<(Vec<Vec<u8>>, &'static str)>);

fn text(text: &str) -> Vec<u8> {
    [zigzag(text.len() as i64), text.as_bytes().to_vec()].concat()
}

fn schema(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#)
}

fn error(server: &Server, sql: &str) -> (String, String, String, String) {
    let error = server.try_sql(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server").clone();
    let (detail, hint) = (error.detail().unwrap_or_default(), error.hint().unwrap_or_default());
    (error.code().code().to_owned(), error.message().to_owned(), detail.to_owned(), hint.to_owned())
}

/// Every change is proposed, added (by force where it breaks something), and written: the row is there, or it is a dead letter.
#[test]
fn verdicts_are_true() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "orders");
    let server = Server::start(BINARY);
    let (id, n, city) =
        (r#"{"name":"id","type":"long"}"#, r#"{"name":"n","type":"int"}"#, r#"{"name":"city","type":"string"}"#);
    server.sql(&format!(
        "CREATE SUBJECT \"orders-value\" WITH (compatibility = none) AS '{}'",
        schema(&format!("{id},{n},{city}"))
    ));
    server.sql(&format!(
        "CREATE SOURCE orders_raw (id BIGINT NOT NULL, n INT, city TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'orders', format = 'avro',
           schema_registry = 'http://127.0.0.1:{}/api/v1/schemas');
         CREATE TABLE orders (id BIGINT, n INT, city TEXT) FROM SOURCE orders_raw",
        server.http_port
    ));
    let null: Vec<u8> = vec![0];
    let some = |value: i64| [zigzag(1), zigzag(value)].concat();
    let steps: Vec<Step> = vec![
        // Null in a column that takes it.
        (
            format!(r#"{id},{n},{{"name":"city","type":["null","string"],"default":null}}"#),
            false,
            vec![
                (vec![zigzag(1), zigzag(10), null.clone()], "1 10 NULL"),
                (vec![zigzag(2), zigzag(20), zigzag(1), text("Oslo")], "2 20 Oslo"),
            ],
        ),
        // An int that became a long: those that fit are rows.
        (
            format!(r#"{id},{{"name":"n","type":"long"}},{city}"#),
            true,
            vec![
                (vec![zigzag(3), zigzag(30), text("Bergen")], "3 30 Bergen"),
                (vec![zigzag(4), zigzag(5_000_000_000), text("Bergen")], ""),
            ],
        ),
        // The column is gone.
        (format!("{id},{n}"), true, vec![(vec![zigzag(5), zigzag(50)], "5 50 NULL")]),
        // And there again, with one more.
        (
            format!(r#"{id},{n},{city},{{"name":"more","type":"int"}}"#),
            false,
            vec![(vec![zigzag(6), zigzag(60), text("Moss"), zigzag(1)], "6 60 Moss")],
        ),
        // Null in what is NOT NULL.
        (
            format!(r#"{{"name":"id","type":["null","long"]}},{n},{city}"#),
            true,
            vec![
                (vec![some(7), zigzag(70), text("Moss")], "7 70 Moss"),
                (vec![null.clone(), zigzag(70), text("Moss")], ""),
            ],
        ),
        // The name of nothing that the column is.
        (
            format!(r#"{id},{{"name":"n","type":{{"type":"map","values":"int"}}}},{city}"#),
            true,
            vec![(vec![zigzag(8), null.clone(), text("Moss")], "")],
        ),
    ];
    let mut letters = 0;
    let mut version = 1;
    for (fields, breaks, messages) in steps {
        let schema = schema(&fields);
        let found = verdicts(&server, "'orders-value'", &schema);
        assert_eq!(!broken(&found).is_empty(), breaks, "{fields}: {found:?}");
        let add = format!("ALTER SUBJECT \"orders-value\" ADD VERSION '{schema}'");
        if breaks {
            let (code, message, detail, hint) = error(&server, &add);
            assert_eq!(code, "2BP01", "{message}");
            assert!(detail.contains("source \"orders_raw\": ") && detail.contains("table \"orders\": "), "{detail}");
            assert!(hint.contains("FORCE"), "{hint}");
            // A producer is told the same.
            let body = serde_json::json!({ "schema": schema }).to_string();
            let answer = ask(&server, "POST", "/api/v1/schemas/subjects/orders-value/versions", &[], &body);
            assert!(answer.status == 409 && answer.body.contains("orders_raw"), "{}", answer.body);
            let answer =
                ask(&server, "POST", "/api/v1/schemas/compatibility/subjects/orders-value/versions", &[], &body);
            assert_eq!(answer.json()["is_compatible"], Value::Bool(false));
            server.sql(&format!("{add} FORCE"));
        } else {
            server.sql(&add);
        }
        version += 1;
        let newest = server.value("SELECT version || ' ' || id FROM rt.subjects ORDER BY version DESC LIMIT 1");
        let (number, id) = newest.split_once(' ').unwrap();
        assert_eq!(number, version.to_string());
        let frame = [vec![0], id.parse::<u32>().unwrap().to_be_bytes().to_vec()].concat();
        for (data, row) in messages {
            feed.send(0, &[frame.clone(), data.concat()].concat());
            feed.flush();
            match row {
                "" => {
                    letters += 1;
                    server.wait_for("SELECT count(*) FROM rt.dlq", &letters.to_string(), PATIENCE);
                }
                row => server.wait_for(
                    "SELECT coalesce(max(concat_ws(' ', id, n, coalesce(city, 'NULL'))), '') FROM orders",
                    row,
                    PATIENCE,
                ),
            }
        }
    }
    assert_eq!(
        server.value("SELECT count(*) FROM rt.events WHERE kind = 'schema_forced' AND message LIKE '%orders_raw%'"),
        "4"
    );
    assert_eq!(server.value("SELECT count(*) > 3 FROM rt.events WHERE kind = 'schema_refused'"), "t");
}

const ID: &str = r#"{"name":"id","type":"long"}"#;

#[test]
fn subjects_are_made_changed_and_dropped() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let mut server = Server::start(BINARY);
    let v1 = schema(ID);
    let v2 = schema(&format!(r#"{ID},{{"name":"city","type":"string","default":""}}"#));
    server.sql(&format!(
        "CREATE SUBJECT IF NOT EXISTS \"t-value\" WITH (type = 'avro', compatibility = 'full') AS '{v1}'"
    ));
    server.sql(&format!("CREATE SUBJECT IF NOT EXISTS \"t-value\" AS '{v2}'"));
    server.sql(&format!("CREATE SUBJECT plain AS $${v1}$$"));
    let shown = "SELECT string_agg(subject || version || compatibility || id, ' ' ORDER BY subject) FROM rt.subjects";
    assert_eq!(server.value(shown), "plain1BACKWARD1 t-value1FULL1");
    server.sql("ALTER SUBJECT 't-value' SET (compatibility = default)");
    server.sql(&format!("ALTER SUBJECT \"t-value\" ADD VERSION '{v2}'"));
    server.kill_and_restart();
    assert_eq!(server.value(shown), "plain1BACKWARD1 t-value1BACKWARD1 t-value2BACKWARD2");
    let narrow = schema(&format!(r#"{ID},{{"name":"must","type":"int"}}"#));
    for (sql, code, words, more) in [
        (format!("CREATE SUBJECT plain AS '{v1}'"), "42710", "\"plain\" already exists", "ADD VERSION"),
        ("CREATE SUBJECT bad AS '{'".to_owned(), "22023", "not JSON", ""),
        (format!("CREATE SUBJECT bad WITH (type = 'xml') AS '{v1}'"), "22023", "'xml'", "protobuf"),
        (
            format!("CREATE SUBJECT bad WITH (compatability = 'full') AS '{v1}'"),
            "22023",
            "compatability",
            "compatibility",
        ),
        (format!("CREATE SUBJECT bad WITH (compatibility = 'some') AS '{v1}'"), "22023", "'some'", "backward"),
        (format!("CREATE SUBJECT t-value AS '{v1}'"), "42601", "quotes", ""),
        (format!("CREATE OR REPLACE SUBJECT t AS '{v1}'"), "0A000", "OR REPLACE", ""),
        (format!("ALTER SUBJECT nothing ADD VERSION '{v1}'"), "42704", "\"nothing\" does not exist", ""),
        (format!("ALTER SUBJECT plian PROPOSE '{v1}'"), "42704", "\"plian\"", "\"plain\""),
        ("ALTER SUBJECT plain RENAME TO x".to_owned(), "42601", "PROPOSE", ""),
        ("ALTER SUBJECT plain SET (type = 'json')".to_owned(), "0A000", "type", "another subject"),
        ("ALTER SUBJECT plain PROPOSE 'x'".to_owned(), "22023", "", ""),
        (format!("ALTER SUBJECT plain ADD VERSION '{narrow}'"), "42804", "subject \"plain\"", "FORCE"),
        ("DROP SUBJECT nothing".to_owned(), "42704", "\"nothing\"", ""),
        ("DROP SUBJECT plain VERSION 7".to_owned(), "42704", "no version 7", ""),
        ("DROP SUBJECT plain VERSION 0".to_owned(), "22023", "count from 1", ""),
    ] {
        let (found, message, _, hint) = error(&server, &sql);
        assert!(found == code && message.contains(words) && hint.contains(more), "{sql}\n{found} {message}\n{hint}");
    }
    server.sql("DROP SUBJECT IF EXISTS nothing");
    server.sql(&format!("ALTER SUBJECT IF EXISTS nothing ADD VERSION '{v1}'"));
    // Who is prepared is described.
    let port = server.pg_port;
    let columns = runtime().block_on(async {
        let client = connect(port).await.unwrap();
        let statement = client.prepare(&format!("ALTER SUBJECT plain PROPOSE '{narrow}'")).await.unwrap();
        let rows = client.query(&statement, &[]).await.unwrap();
        assert_eq!((rows.len(), rows[0].get::<_, String>(2)), (1, "breaks".to_owned()));
        statement.columns().iter().map(|column| column.name().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(columns, ["object", "kind", "verdict", "reason"]);

    // What is read is not dropped.
    server.sql(&format!(
        "CREATE SOURCE s (id BIGINT) WITH (connector = 'kafka', brokers = '{}', topic = 't', format = 'json', subject = 't-value')",
        cluster.bootstrap_servers()
    ));
    let (code, _, detail, hint) = error(&server, "DROP SUBJECT \"t-value\"");
    assert!(code == "2BP01" && detail.contains("source \"s\"") && hint.contains("FORCE"), "{code} {detail} {hint}");
    let answer = ask(&server, "DELETE", "/api/v1/schemas/subjects/t-value", &[], "");
    assert!(answer.status == 422 && answer.json()["error_code"] == 42206, "{}", answer.body);
    server.sql("DROP SUBJECT \"t-value\" VERSION 1");
    server.sql("DROP SUBJECT \"t-value\" FORCE");
    server.sql("DROP SUBJECT plain");
    assert_eq!(server.value("SELECT count(*) FROM rt.subjects WHERE NOT deleted"), "0");
    assert_eq!(ask(&server, "GET", "/api/v1/schemas/schemas/ids/2", &[], "").status, 200, "messages stay readable");
    let (code, message, ..) = error(
        &server,
        "CREATE SOURCE x (id BIGINT) WITH (connector = 'kafka', brokers = 'b:1', topic = 't', format = 'csv', subject = 's')",
    );
    assert!(code == "22023" && message.contains("'subject'"), "{code} {message}");
}
