//! What ALTER SUBJECT … PROPOSE says of changes of schemas, each of which breaks what it is to break and nothing else.

use rdkafka::mocking::MockCluster;

use super::{BINARY, broken, verdicts};
use crate::support::server::Server;

const FIELDS: [(&str, &str); 12] = [
    ("id", r#""long""#),
    ("n", r#""int""#),
    ("price", r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#),
    ("city", r#""string""#),
    ("note", r#"["null","string"],"default":null"#),
    ("ts", r#"{"type":"long","logicalType":"timestamp-millis"}"#),
    ("color", r#"{"type":"enum","name":"Color","symbols":["R","G"]}"#),
    ("tags", r#"{"type":"array","items":"string"}"#),
    ("at", r#"{"type":"record","name":"At","fields":[{"name":"zip","type":"string"},{"name":"lat","type":"double"}]}"#),
    ("extra", r#"{"type":"map","values":"string"}"#),
    ("flag", r#""boolean""#),
    ("unused", r#""string","default":"""#),
];

/// The schema with some fields as `changes` say: another type, nothing, or a field more.
fn order(changes: &[(&str, Option<&str>)]) -> String {
    let changed = |name: &str| changes.iter().find(|(of, _)| *of == name).map(|(_, to)| *to);
    let old = FIELDS.iter().filter_map(|(name, of)| Some((*name, changed(name).unwrap_or(Some(of))?)));
    let new = changes.iter().filter(|(name, _)| FIELDS.iter().all(|(known, _)| known != name));
    let all = old.chain(new.filter_map(|(name, of)| Some((*name, (*of)?))));
    let fields: Vec<String> = all.map(|(name, of)| format!(r#"{{"name":"{name}","type":{of}}}"#)).collect();
    format!(r#"{{"type":"record","name":"Order","fields":[{}]}}"#, fields.join(","))
}

const ALL: &str = "orders orders_raw names flags flagged";
const OWN_AND_ALL: &str = "subject orders orders_raw names flags flagged";

/// What is changed, what breaks by the subject's own rule and by trial, and a word of the reason.
type Case = (&'static str, Vec<(&'static str, Option<&'static str>)>, &'static str, &'static str);

#[test]
fn thirty_changes_of_avro_schemas() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let mut server = Server::start(BINARY);
    server.sql(&format!("CREATE SUBJECT \"orders-value\" AS '{}'", order(&[])));
    server.sql(&format!(
        "CREATE SOURCE orders_raw (id BIGINT NOT NULL, n INT, price NUMERIC(9,2), city TEXT, note TEXT, ts TIMESTAMPTZ, color TEXT, tags TEXT[],
           zip TEXT PATH '$.at.zip', lat DOUBLE PRECISION PATH '$.at.lat', extra JSONB, flag BOOLEAN, CHECK (color IN ('R', 'G')))
         WITH (connector = 'kafka', brokers = '{}', topic = 'orders', format = 'avro', schema_registry = 'http://127.0.0.1:{}/api/v1/schemas');
         CREATE TABLE orders (id BIGINT, n INT, price NUMERIC(9,2), city TEXT, ts TIMESTAMPTZ, color TEXT, tags TEXT[], zip TEXT, lat DOUBLE PRECISION, extra JSONB) FROM SOURCE orders_raw;
         CREATE TABLE names (id BIGINT, label TEXT) FROM SOURCE orders_raw AS SELECT id, upper(note) AS label;
         CREATE TABLE flagged (id BIGINT);
         CREATE PIPELINE flags INTO flagged AS SELECT id FROM orders_raw WHERE flag",
        cluster.bootstrap_servers(),
        server.http_port
    ));
    let cases: Vec<Case> = vec![
        ("a field more, with a default", vec![("more", Some(r#""int","default":0"#))], "", ""),
        ("a field more, without one", vec![("more", Some(r#""int""#))], "subject", "more"),
        ("a field less that nobody reads", vec![("unused", None)], "", ""),
        ("a field less of one table", vec![("note", None)], "orders_raw names", "\"note\" is NULL in every new row"),
        ("a field less of a pipeline", vec![("flag", None)], "orders_raw flags flagged", "reads source"),
        ("a field less that is NOT NULL", vec![("id", None)], ALL, "all new messages become dead letters"),
        ("a record less", vec![("at", None)], "orders_raw orders", "\"zip\", \"lat\" are NULL"),
        ("int to long, in INT", vec![("n", Some(r#""long""#))], ALL, "9223372036854775807"),
        ("int to string", vec![("n", Some(r#""string""#))], OWN_AND_ALL, "\"text\""),
        ("int to float", vec![("n", Some(r#""float""#))], ALL, "0.5"),
        ("long to int", vec![("id", Some(r#""int""#))], "subject", ""),
        ("long to double", vec![("id", Some(r#""double""#))], ALL, "0.5"),
        ("a value that may be null", vec![("city", Some(r#"["null","string"]"#))], "", ""),
        ("null in what is NOT NULL", vec![("id", Some(r#"["null","long"]"#))], ALL, "NOT NULL"),
        ("null no more", vec![("note", Some(r#""string""#))], "subject", ""),
        ("a union of more", vec![("n", Some(r#"["int","string"]"#))], ALL, "\"text\""),
        ("string to bytes", vec![("city", Some(r#""bytes""#))], ALL, "of another type"),
        (
            "a decimal of more digits",
            vec![("price", Some(r#"{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}"#))],
            OWN_AND_ALL,
            "price",
        ),
        (
            "a decimal of more digits behind the point",
            vec![("price", Some(r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#))],
            OWN_AND_ALL,
            "price",
        ),
        ("a decimal to double", vec![("price", Some(r#""double""#))], OWN_AND_ALL, "price"),
        (
            "milliseconds to microseconds",
            vec![("ts", Some(r#"{"type":"long","logicalType":"timestamp-micros"}"#))],
            "",
            "",
        ),
        ("a time to a number, of which any is a time", vec![("ts", Some(r#""long""#))], "", ""),
        ("a time to a string", vec![("ts", Some(r#""string""#))], OWN_AND_ALL, "ts"),
        (
            "a word more, which a CHECK refuses",
            vec![("color", Some(r#"{"type":"enum","name":"Color","symbols":["R","G","B"]}"#))],
            ALL,
            "check constraint",
        ),
        ("a word less", vec![("color", Some(r#"{"type":"enum","name":"Color","symbols":["R"]}"#))], "subject", ""),
        ("words to any string", vec![("color", Some(r#""string""#))], OWN_AND_ALL, "check constraint"),
        ("strings to numbers in a list", vec![("tags", Some(r#"{"type":"array","items":"int"}"#))], "subject", ""),
        ("a list to a string", vec![("tags", Some(r#""string""#))], OWN_AND_ALL, "tags"),
        (
            "a field renamed, with an alias",
            vec![
                ("at", None),
                (
                    "place",
                    Some(
                        r#"{"type":"record","name":"At","fields":[{"name":"zip","type":"string"},{"name":"lat","type":"double"}]},"aliases":["at"]"#,
                    ),
                ),
            ],
            "",
            "",
        ),
        (
            "a field renamed, without",
            vec![("city", None), ("town", Some(r#""string","default":"""#))],
            "orders_raw orders",
            "\"city\" is NULL",
        ),
        (
            "double to float",
            vec![(
                "at",
                Some(
                    r#"{"type":"record","name":"At","fields":[{"name":"zip","type":"string"},{"name":"lat","type":"float"}]}"#,
                ),
            )],
            "subject",
            "",
        ),
        ("a document of other values", vec![("extra", Some(r#"{"type":"map","values":"long"}"#))], "subject", ""),
    ];
    let mut wrong = Vec::new();
    for (what, changes, wanted, words) in &cases {
        let found = verdicts(&server, "\"orders-value\"", &order(changes));
        assert_eq!(found.len(), 6, "{what}: {found:?}");
        let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
        wanted.sort_unstable();
        let reasons = found.iter().map(|row| row[3].as_str()).collect::<Vec<_>>().join("\n");
        if broken(&found) != wanted || !reasons.contains(words) {
            wrong.push(format!("{what}: {wanted:?} and '{words}', not {:?}: {reasons}", broken(&found)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 30);
    // Nothing was added by asking, and it is quick enough to ask.
    assert_eq!(server.value("SELECT count(*) FROM rt.subjects"), "1");
    server.kill_and_restart();
    let started = std::time::Instant::now();
    verdicts(&server, "\"orders-value\"", &order(&[("n", None)]));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

#[test]
fn changes_of_protobuf_and_json_schemas() {
    let cluster = MockCluster::new(1).unwrap();
    let server = Server::start(BINARY);
    let source = |format: &str| {
        cluster.create_topic(format, 1, 1).unwrap();
        let more = match format {
            "json" => "subject = 'json-value'".to_owned(),
            _ => format!("schema_registry = 'http://localhost:{}/api/v1/schemas'", server.http_port),
        };
        server.sql(&format!(
            "CREATE SOURCE {format}_raw (id BIGINT NOT NULL, n INT, city TEXT) WITH (connector = 'kafka', brokers = '{}', topic = '{format}', format = '{format}', {more});
             CREATE TABLE {format} (id BIGINT, n INT, city TEXT) FROM SOURCE {format}_raw",
            cluster.bootstrap_servers()
        ));
    };
    let message = |fields: &str| format!("syntax = \"proto3\"; message M {{ {fields} }}");
    let document = |members: &str, required: &str| {
        format!(r#"{{"type":"object","properties":{{{members}}},"required":[{required}]}}"#)
    };
    let (id, n, city) = (r#""id":{"type":"integer"}"#, r#""n":{"type":"integer"}"#, r#""city":{"type":"string"}"#);
    server.sql(&format!(
        "CREATE SUBJECT \"protobuf-value\" WITH (type = 'protobuf') AS '{}';
         CREATE SUBJECT \"json-value\" WITH (type = 'json', compatibility = 'none') AS '{}'",
        message("int64 id = 1; int32 n = 2; optional string city = 3;"),
        document(&format!("{id},{n},{city}"), r#""id""#),
    ));
    source("protobuf");
    source("json");
    let all = |format: &str| format!("{format} {format}_raw");
    let cases = [
        ("protobuf", message("int64 id = 1; int32 n = 2; optional string city = 3; bool more = 4;"), String::new()),
        ("protobuf", message("int64 id = 1; int64 n = 2; optional string city = 3;"), all("protobuf")),
        ("protobuf", message("int64 id = 1; int32 n = 2; optional string town = 3;"), all("protobuf")),
        ("protobuf", message("int64 id = 1; int32 n = 2; reserved 3;"), all("protobuf")),
        // Without a presence it is zero where it is not there, and with one NULL.
        ("protobuf", message("optional int64 id = 1; int32 n = 2; optional string city = 3;"), all("protobuf")),
        ("protobuf", message("int64 id = 1; int32 n = 2; optional bytes city = 3;"), all("protobuf")),
        ("json", document(&format!(r#"{id},{n},{city},"more":{{"type":"boolean"}}"#), r#""id""#), String::new()),
        ("json", document(&format!(r#"{id},{n},"city":{{"type":["string","null"]}}"#), r#""id""#), String::new()),
        ("json", document(&format!("{id},{n}"), r#""id""#), all("json")),
        ("json", document(&format!("{id},{n},{city}"), ""), all("json")),
        ("json", document(&format!(r#"{id},"n":{{"type":"number"}},{city}"#), r#""id""#), all("json")),
        ("json", document(&format!(r#"{id},"n":{{"enum":[1,2]}},{city}"#), r#""id""#), String::new()),
    ];
    let mut wrong = Vec::new();
    for (format, schema, wanted) in &cases {
        let found = verdicts(&server, &format!("\"{format}-value\""), schema);
        let others: Vec<String> = broken(&found).into_iter().filter(|object| object != "subject").collect();
        let wanted: Vec<&str> = wanted.split_whitespace().collect();
        if others != wanted || found.len() != 3 {
            wrong.push(format!("{schema}: {wanted:?}, not {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
