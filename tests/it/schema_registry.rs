//! The server's own schema registry: its answers over HTTP, what survives a kill, and sources that ask it.

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};

use crate::{
    http::{Answer, ask},
    support::{kafka::Feed, server::Server},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(30);
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

fn send(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = ask(server, method, &format!("/api/v1/schemas{path}"), &[("Content-Type", CONTENT_TYPE)], &body);
    assert!(answer.head.contains(&format!("content-type: {CONTENT_TYPE}")), "{}", answer.head);
    answer
}

/// Status and code of what went wrong.
fn refused(answer: &Answer) -> (u16, u64) {
    (answer.status, answer.json()["error_code"].as_u64().unwrap_or_else(|| panic!("no error: {}", answer.body)))
}

fn get(server: &Server, path: &str) -> Value {
    let answer = send(server, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn avro(fields: &str) -> Value {
    json!({ "schema": format!(r#"{{"type":"record","name":"Order","fields":[{fields}]}}"#) })
}

fn register(server: &Server, subject: &str, schema: &Value) -> Value {
    let answer = send(server, "POST", &format!("/subjects/{subject}/versions"), schema);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].clone()
}

const ID: &str = r#"{"name":"id","type":"long"}"#;

#[test]
fn subjects_versions_and_ids_are_those_of_a_registry_and_survive_a_kill() {
    let mut server = Server::start(BINARY);
    let server = &mut server;
    assert_eq!(get(server, "/subjects"), json!([]));
    assert_eq!(get(server, "/schemas/types"), json!(["AVRO", "PROTOBUF", "JSON"]));
    let v1 = avro(ID);
    let v2 = avro(&format!(r#"{ID},{{"name":"city","type":"string","default":""}}"#));
    assert_eq!(register(server, "orders-value", &v1), 1);
    assert_eq!(register(server, "orders-value", &v2), 2);
    // The same once more, spaced otherwise, and elsewhere: the same id.
    let spaced = json!({ "schema": v1["schema"].as_str().unwrap().replace(',', ",\n  "), "schemaType": "AVRO" });
    assert_eq!(register(server, "orders-value", &spaced), 1);
    assert_eq!(register(server, "other%2Fname", &v1), 1);
    assert_eq!(get(server, "/subjects"), json!(["orders-value", "other/name"]));
    assert_eq!(get(server, "/subjects?subjectPrefix=ord"), json!(["orders-value"]));
    assert_eq!(get(server, "/subjects/orders-value/versions"), json!([1, 2]));
    let latest = get(server, "/subjects/orders-value/versions/latest");
    assert_eq!((&latest["version"], &latest["id"], &latest["schema"]), (&json!(2), &json!(2), &v2["schema"]));
    assert!(latest.get("schemaType").is_none(), "of Avro it is not told: {latest}");
    assert_eq!(get(server, "/schemas/ids/1"), json!({ "schema": v1["schema"] }));
    assert_eq!(
        get(server, "/schemas/ids/1/versions"),
        json!([{ "subject": "orders-value", "version": 1 }, { "subject": "other/name", "version": 1 }])
    );
    let found = send(server, "POST", "/subjects/orders-value", &v1).json();
    assert_eq!((&found["version"], &found["id"]), (&json!(1), &json!(1)));

    // What is not there.
    let not_there = [
        ("GET", "/subjects/none/versions", Value::Null, 40401),
        ("GET", "/subjects/orders-value/versions/7", Value::Null, 40402),
        ("GET", "/schemas/ids/77", Value::Null, 40403),
        ("POST", "/subjects/orders-value", avro(r#"{"name":"x","type":"int"}"#), 40403),
        ("POST", "/subjects/none", v1.clone(), 40401),
        ("GET", "/config/orders-value", Value::Null, 40408),
        ("GET", "/nothing", Value::Null, 404),
        ("DELETE", "/subjects/none", Value::Null, 40401),
        ("DELETE", "/subjects/orders-value?permanent=true", Value::Null, 40405),
    ];
    for (method, path, body, code) in not_there {
        assert_eq!(refused(&send(server, method, path, &body)), (404, code), "{method} {path}");
    }
    // What is none.
    let wrong = [
        ("POST", "/subjects/s/versions", json!({ "schema": "{\"type\":\"nope\"}" }), 42201),
        ("POST", "/subjects/s/versions", json!({ "schema": "x", "schemaType": "XML" }), 42201),
        ("POST", "/subjects/s/versions", json!({}), 42201),
        ("POST", "/subjects/s/versions", json!({ "schema": "\"int\"", "ruleSet": { "domainRules": [] } }), 42201),
        ("POST", "/subjects/:.ctx:s/versions", v1.clone(), 42208),
        ("GET", "/subjects/orders-value/versions/0", Value::Null, 42202),
        ("GET", "/subjects/orders-value/versions/x", Value::Null, 42202),
        ("PUT", "/config", json!({ "compatibility": "SOME" }), 42203),
    ];
    for (method, path, body, code) in wrong {
        assert_eq!(refused(&send(server, method, path, &body)), (422, code), "{method} {path}");
    }
    assert_eq!(refused(&send(server, "PATCH", "/subjects", &Value::Null)), (405, 405));

    // Levels.
    let narrower = avro(&format!(r#"{ID},{{"name":"city","type":"string"}},{{"name":"price","type":"double"}}"#));
    let answer = send(server, "POST", "/subjects/orders-value/versions", &narrower);
    assert_eq!(refused(&answer), (409, 409));
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("READER_FIELD_MISSING_DEFAULT_VALUE") && message.contains("price"), "{message}");
    let check = |server: &Server, path: &str| {
        send(server, "POST", &format!("/compatibility/subjects/orders-value/versions{path}"), &narrower).json()
    };
    assert_eq!(check(server, "/latest"), json!({ "is_compatible": false }));
    assert!(check(server, "?verbose=true")["messages"][0].as_str().unwrap().contains("price"));
    let forward = json!({ "compatibility": "FORWARD" });
    assert_eq!(send(server, "PUT", "/config/orders-value", &forward).json(), forward);
    assert_eq!(check(server, "/latest"), json!({ "is_compatible": true }));
    assert_eq!(get(server, "/config/orders-value"), json!({ "compatibilityLevel": "FORWARD" }));
    assert_eq!(get(server, "/config"), json!({ "compatibilityLevel": "BACKWARD" }));
    assert_eq!(register(server, "orders-value", &narrower), 3);
    assert_eq!(
        server.sql("SELECT subject, version::TEXT, id::TEXT, type, compatibility FROM rt.subjects WHERE subject = 'orders-value' AND version = 3"),
        [["orders-value", "3", "3", "AVRO", "FORWARD"].map(|value| Some(value.to_owned())).to_vec()]
    );

    for _ in 0..2 {
        assert_eq!(get(server, "/subjects/orders-value/versions"), json!([1, 2, 3]));
        assert_eq!(
            get(server, "/config/orders-value?defaultToGlobal=true"),
            json!({ "compatibilityLevel": "FORWARD" })
        );
        assert_eq!(get(server, "/schemas/ids/3")["schema"], narrower["schema"]);
        server.kill_and_restart();
    }

    // Deleted for the time being: out of sight, and messages with the id can be read still.
    assert_eq!(send(server, "DELETE", "/subjects/orders-value/versions/3", &Value::Null).json(), 3);
    assert_eq!(refused(&send(server, "GET", "/subjects/orders-value/versions/3", &Value::Null)), (404, 40402));
    assert_eq!(refused(&send(server, "DELETE", "/subjects/orders-value/versions/3", &Value::Null)), (404, 40406));
    assert_eq!(get(server, "/subjects/orders-value/versions?deleted=true"), json!([1, 2, 3]));
    assert_eq!(get(server, "/schemas/ids/3")["schema"], narrower["schema"]);
    assert_eq!(send(server, "DELETE", "/subjects/orders-value/versions/3?permanent=true", &Value::Null).json(), 3);
    assert_eq!(refused(&send(server, "GET", "/schemas/ids/3", &Value::Null)), (404, 40403));
    assert_eq!(send(server, "DELETE", "/subjects/orders-value", &Value::Null).json(), json!([1, 2]));
    assert_eq!(refused(&send(server, "DELETE", "/subjects/orders-value", &Value::Null)), (404, 40404));
    assert_eq!(get(server, "/subjects?deleted=true"), json!(["orders-value", "other/name"]));
    server.kill_and_restart();
    assert_eq!(get(server, "/subjects"), json!(["other/name"]));
    // A version that comes back has its old id, and an id that is gone is never used again.
    assert_eq!(register(server, "orders-value", &v2), 2);
    assert_eq!(register(server, "orders-value", &narrower), 4);
    assert_eq!(get(server, "/subjects/orders-value/versions"), json!([3, 4]));
    assert_eq!(send(server, "DELETE", "/subjects/orders-value", &Value::Null).json(), json!([3, 4]));
    assert_eq!(
        send(server, "DELETE", "/subjects/orders-value?permanent=true", &Value::Null).json(),
        json!([1, 2, 3, 4])
    );
    assert_eq!(get(server, "/subjects?deleted=true"), json!(["other/name"]));
    assert_eq!(get(server, "/config/orders-value?defaultToGlobal=true"), json!({ "compatibilityLevel": "BACKWARD" }));
    assert_eq!(get(server, "/schemas/ids/1")["schema"], v1["schema"], "another subject has it");
}

/// Each level against a version that is not the last: transitive ones look at it, the others do not.
#[test]
fn transitive_levels_look_at_all_versions() {
    let server = Server::start(BINARY);
    let city = |default: &str| avro(&format!(r#"{ID},{{"name":"city","type":"string"{default}}}"#));
    for (level, is_taken) in [
        ("NONE", true),
        ("BACKWARD", true),
        ("BACKWARD_TRANSITIVE", false),
        ("FORWARD", true),
        ("FORWARD_TRANSITIVE", true),
        ("FULL", true),
        ("FULL_TRANSITIVE", false),
    ] {
        let subject = format!("s-{level}");
        let set = |level: &str| send(&server, "PUT", &format!("/config/{subject}"), &json!({ "compatibility": level }));
        assert_eq!(set("NONE").status, 200);
        register(&server, &subject, &avro(ID));
        register(&server, &subject, &city(r#","default":"x""#));
        set(level);
        // It reads the last version, which has a city always, and not the first, which has none.
        let answer = send(&server, "POST", &format!("/subjects/{subject}/versions"), &city(""));
        assert_eq!(answer.status == 200, is_taken, "{level}: {}", answer.body);
    }
}

#[test]
fn protobuf_json_and_references() {
    let server = Server::start(BINARY);
    let place = json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\"; package geo; message Place { string zip = 1; }" });
    register(&server, "place", &place);
    let order = |more: &str| {
        let text = format!(
            "syntax = \"proto3\"; import \"geo/place.proto\"; message Order {{ int64 id = 1; geo.Place at = 2; {more} }}"
        );
        json!({ "schemaType": "PROTOBUF", "schema": text, "references": [{ "name": "geo/place.proto", "subject": "place", "version": 1 }] })
    };
    register(&server, "order", &order(""));
    assert_eq!(get(&server, "/subjects/order/versions/1")["references"][0]["subject"], "place");
    assert_eq!(get(&server, "/subjects/place/versions/1/referencedby"), json!([2]));
    assert_eq!(refused(&send(&server, "DELETE", "/subjects/place", &Value::Null)), (422, 42206));
    register(&server, "order", &order("string note = 3;"));
    let changed = order("bool note = 3;");
    assert_eq!(refused(&send(&server, "POST", "/subjects/order/versions", &changed)), (409, 409));
    let alone = json!({ "schemaType": "PROTOBUF", "schema": order("")["schema"] });
    assert_eq!(refused(&send(&server, "POST", "/subjects/alone/versions", &alone)), (422, 42201));
    // A file as bytes, as Python's client has it, is the same schema.
    let serialized = get(&server, "/schemas/ids/1?format=serialized")["schema"].clone();
    assert_eq!(register(&server, "bytes", &json!({ "schemaType": "PROTOBUF", "schema": serialized })), 1);

    let person = |more: &str| json!({ "schemaType": "JSON", "schema": format!(r#"{{"type":"object","additionalProperties":false,"properties":{{"name":{{"type":"string"}}{more}}}}}"#) });
    register(&server, "person", &person(""));
    register(&server, "person", &person(r#","age":{"type":"integer"}"#));
    let answer = send(&server, "POST", "/subjects/person/versions", &person(""));
    assert_eq!(answer.status, 200, "it is there already: {}", answer.body);
    let answer = send(&server, "POST", "/subjects/person/versions", &person(r#","age":{"type":"string"}"#));
    assert_eq!(refused(&answer), (409, 409));
    assert_eq!(refused(&send(&server, "POST", "/subjects/person/versions", &avro(ID))), (409, 409));
}

/// A number as Avro writes it.
pub(crate) fn zigzag(value: i64) -> Vec<u8> {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

fn framed(id: &Value, parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0], (id.as_u64().unwrap() as u32).to_be_bytes().to_vec(), parts.concat()].concat()
}

/// A source of the server whose schemas are in the server itself: a new version comes while it runs, and after a kill, when the registry has to be up before tables are.
#[test]
fn a_source_that_asks_its_own_server_sees_new_versions() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "orders");
    let mut server = Server::start(BINARY);
    let first = register(&server, "orders-value", &avro(ID));
    server.sql(&format!(
        "CREATE SOURCE orders_raw (id BIGINT NOT NULL, city TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'orders',
           format = 'avro', schema_registry = 'http://127.0.0.1:{}/api/v1/schemas');
         CREATE TABLE orders (id BIGINT, city TEXT) FROM SOURCE orders_raw",
        server.http_port
    ));
    feed.send(0, &framed(&first, &[zigzag(1)]));
    feed.flush();
    server.wait_for("SELECT count(*) FROM orders", "1", PATIENCE);
    let second = register(
        &server,
        "orders-value",
        &avro(&format!(r#"{ID},{{"name":"city","type":"string","default":"none"}}"#)),
    );
    feed.send(0, &framed(&second, &[zigzag(2), zigzag(4), b"Oslo".to_vec()]));
    feed.send(0, &framed(&first, &[zigzag(3)]));
    feed.flush();
    let rows = "SELECT string_agg(id || coalesce(city, '-'), ' ' ORDER BY id) FROM orders";
    server.wait_for(rows, "1- 2Oslo 3-", PATIENCE);
    server.kill_and_restart();
    server.wait_for(rows, "1- 2Oslo 3-", PATIENCE);
    feed.send(0, &framed(&second, &[zigzag(4), zigzag(6), b"Bergen".to_vec()]));
    feed.flush();
    server.wait_for(rows, "1- 2Oslo 3- 4Bergen", PATIENCE);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
}

/// Look-ups are of memory, registering is of the disk.
#[test]
fn many_subjects_are_looked_up_quickly() {
    let server = Server::start(BINARY);
    for number in 0..300 {
        register(&server, &format!("s{number}"), &avro(&format!(r#"{{"name":"f{number}","type":"int"}}"#)));
    }
    let start = std::time::Instant::now();
    for number in 0..300 {
        let wanted = number + 1;
        assert_eq!(get(&server, &format!("/subjects/s{number}/versions/latest"))["id"], wanted);
    }
    // A connection each, in a build for debugging.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
