//! Avro and Protobuf from a Kafka and a schema registry in this process, with the real server between them and SQL.

use std::time::Duration;

use rdkafka::mocking::MockCluster;

use crate::support::{
    free_port,
    kafka::Feed,
    registry::Registry,
    server::{Server, describe},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(30);

const ORDER_V1: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"int"},{"name":"city","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
/// The id became wider, the city may be null, a price and a place came.
const ORDER_V2: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"city","type":["null","string"],"default":null},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}],"default":null},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"place","type":["null",{"type":"record","name":"Place","fields":[{"name":"zip","type":"string"}]}],"default":null}]}"#;

fn varint(mut raw: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

fn zigzag(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)) as u64)
}

fn text(value: &str) -> Vec<u8> {
    [zigzag(value.len() as i64), value.as_bytes().to_vec()].concat()
}

fn framed(id: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0], id.to_be_bytes().to_vec(), parts.concat()].concat()
}

fn v1(number: i64) -> Vec<u8> {
    framed(11, &[zigzag(number), text("Oslo"), zigzag(1_000 * number)])
}

fn v2(number: i64) -> Vec<u8> {
    let price = [zigzag(1), zigzag(2), 1234i16.to_be_bytes().to_vec()].concat();
    let place = [zigzag(1), text("0150")].concat();
    framed(12, &[zigzag(number), zigzag(0), price, zigzag(1_000 * number), place])
}

fn rows(values: &[&[&str]]) -> Vec<Vec<Option<String>>> {
    let value = |value: &&str| (*value != "NULL").then(|| (*value).to_owned());
    values.iter().map(|row| row.iter().map(value).collect()).collect()
}

/// A registry that is down loses nothing and is said where sources' errors are; a bad message holds up none of the good ones; also after kill -9.
#[test]
fn avro_of_two_versions_waits_for_its_registry() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "orders");
    for number in 0..50 {
        feed.send(0, &v1(number));
    }
    feed.send(0, b"{\"id\": 7}");
    feed.send(0, &framed(13, &[zigzag(1000)]));
    feed.send(0, &v1(7)[..9]);
    for number in 50..100 {
        feed.send(1, &v2(number));
    }
    feed.flush();

    let port = free_port();
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE orders_raw (id BIGINT NOT NULL, city TEXT, price NUMERIC(10, 2), at TIMESTAMPTZ, zip TEXT PATH '$.place.zip', doc JSONB PATH '$',
           CONSTRAINT not_99 CHECK (id <> 99))
         WITH (connector = 'kafka', brokers = '{brokers}', topic = 'orders', format = 'avro', schema_registry = 'http://127.0.0.1:{port}')"
    ));
    server.sql("CREATE TABLE orders (id BIGINT, city TEXT, price NUMERIC(10, 2), at TIMESTAMPTZ, zip TEXT, doc JSONB) WITH (partitions = 2) FROM SOURCE orders_raw");
    let waiting =
        format!("SELECT count(*) FROM rt.partitions WHERE error LIKE 'schema registry http://127.0.0.1:{port}: %'");
    server.wait_for(&waiting, "2", PATIENCE);
    assert_eq!(server.value("SELECT count(*) FROM orders"), "0");
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
    assert_ne!(server.value("SELECT count(*) FROM rt.events WHERE kind = 'source_unavailable'"), "0");

    let registry = Registry::start(Some(port));
    registry.register(11, "AVRO", ORDER_V1, "[]");
    registry.register(12, "AVRO", ORDER_V2, "[]");
    server.wait_for("SELECT count(*) FROM orders", "99", PATIENCE);
    server.wait_for(&waiting, "0", PATIENCE);
    for round in 0..2 {
        assert_eq!(
            server.sql("SELECT id, city, price, extract(epoch FROM at)::INT, zip, doc->>'id' FROM orders WHERE id IN (7, 70) ORDER BY id"),
            rows(&[&["7", "Oslo", "NULL", "7", "NULL", "7"], &["70", "NULL", "12.34", "70", "0150", "70"]]),
            "round {round}"
        );
        let letters = server.sql("SELECT \"offset\", reason FROM rt.dlq ORDER BY partition, \"offset\"");
        let reasons: Vec<String> = letters.iter().map(|letter| letter[1].clone().unwrap()).collect();
        assert_eq!(letters.len(), 4, "round {round}: {letters:?}");
        assert!(reasons[0].contains("first byte is 0x7b instead of 0x00"), "{reasons:?}");
        assert!(reasons[1].contains("has no schema with id 13"), "{reasons:?}");
        assert!(reasons[2].contains("the message does not fit its schema"), "{reasons:?}");
        assert!(reasons[3].contains("not_99"), "{reasons:?}");
        server.sql("SELECT rt.seal('orders')");
        server.kill_and_restart();
        server.wait_for("SELECT count(*) FROM orders", "99", PATIENCE);
    }
    // A schema that comes late makes a row of its dead letter.
    registry.register(13, "AVRO", r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"}]}"#, "[]");
    assert_eq!(server.value("SELECT rt.dlq_replay('orders_raw')"), "1");
    assert_eq!(server.value("SELECT count(*) FROM orders WHERE id = 1000"), "1");

    // A known id needs no registry; an unknown one waits for it, and what is behind it comes, too.
    feed.send(0, &v1(101));
    feed.flush();
    server.wait_for("SELECT count(*) FROM orders WHERE id = 101", "1", PATIENCE);
    drop(registry);
    feed.send(0, &v1(104));
    feed.flush();
    server.wait_for("SELECT count(*) FROM orders WHERE id = 104", "1", PATIENCE);
    feed.send(0, &framed(14, &[zigzag(102)]));
    feed.send(0, &v1(103));
    feed.flush();
    server.wait_for(&waiting, "2", PATIENCE);
    let registry = Registry::start(Some(port));
    registry.register(14, "AVRO", r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"}]}"#, "[]");
    server.wait_for("SELECT count(*) FROM orders WHERE id IN (102, 103)", "2", PATIENCE);
    server.wait_for(&waiting, "0", PATIENCE);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "3");
}

#[test]
fn protobuf_with_and_without_a_registry() {
    let cluster = MockCluster::new(1).unwrap();
    for topic in ["framed", "bare"] {
        cluster.create_topic(topic, 1, 1).unwrap();
    }
    let brokers = cluster.bootstrap_servers();
    let proto = "syntax = \"proto3\"; package shop; import \"google/protobuf/timestamp.proto\";\n\
        message Other { string why = 1; }\n\
        message Order { int64 id = 1; string city = 2; google.protobuf.Timestamp at = 3; repeated string tags = 4;\n\
        map<string, double> prices = 5; optional int32 stars = 6; }";
    let order = |number: u64| -> Vec<u8> {
        let mut bytes = [vec![0x08], varint(number), vec![0x12, 4], b"Oslo".to_vec()].concat();
        bytes.extend([0x1a, 2, 0x08, 60, 0x22, 1, b'a', 0x22, 1, b'b']);
        bytes.extend([0x2a, 12, 0x0a, 1, b'x', 0x11]);
        bytes.extend(1.5f64.to_le_bytes());
        bytes
    };
    let registry = Registry::start(None);
    registry.register(5, "PROTOBUF", proto, "[]");
    let (framed_feed, bare_feed) = (Feed::new(&brokers, "framed"), Feed::new(&brokers, "bare"));
    for number in 1..=20 {
        framed_feed.send(0, &framed(5, &[vec![2, 2], order(number)]));
        bare_feed.send(0, &order(number));
    }
    framed_feed.send(0, &framed(5, &[vec![2, 8], order(1)]));
    framed_feed.send(0, &framed(5, &[vec![0], vec![0x0a, 1, b'z']]));
    bare_feed.send(0, &order(1)[..7]);
    framed_feed.flush();
    bare_feed.flush();

    let server = Server::start(BINARY);
    let columns = "id BIGINT, city TEXT, at TIMESTAMPTZ, tags TEXT[], x DOUBLE PRECISION PATH '$.prices.x', stars INT";
    let url = registry.url();
    let with =
        |topic: &str| format!("connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'protobuf'");
    server.sql(&format!("CREATE SOURCE framed ({columns}) WITH ({}, schema_registry = '{url}')", with("framed")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.proto");
    std::fs::write(&file, proto).unwrap();
    let bare = format!("{}, schema = '{}'", with("bare"), file.display());
    server.sql(&format!("CREATE SOURCE bare ({columns}) WITH ({bare}, message = 'shop.Order')"));
    for (source, letters) in [("framed", "no message at the path [4]"), ("bare", "does not fit its schema")] {
        server.sql(&format!("CREATE TABLE {source}_t FROM SOURCE {source}"));
        server.wait_for(&format!("SELECT count(*) FROM {source}_t WHERE id > 0"), "20", PATIENCE);
        assert_eq!(
            server.sql(&format!(
                "SELECT id, city, extract(epoch FROM at)::INT, tags, x, stars FROM {source}_t WHERE id = 7"
            )),
            rows(&[&["7", "Oslo", "60", "{a,b}", "1.5", "NULL"]])
        );
        server.wait_for(
            &format!("SELECT count(*) FROM rt.dlq WHERE source = '{source}' AND reason LIKE '%{letters}%'"),
            "1",
            PATIENCE,
        );
    }
    // A message of another type has none of the columns.
    server.wait_for("SELECT count(*) FROM framed_t WHERE id IS NULL", "1", PATIENCE);

    let refused = |options: &str| {
        let sql = format!("CREATE SOURCE s ({columns}) WITH ({options})");
        describe(&server.try_sql(&sql).expect_err("a bad definition"))
    };
    let https = refused(&format!("{}, schema_registry = 'https://registry:8081'", with("bare")));
    assert!(https.starts_with("0A000: a schema registry over https"), "{https}");
    let nothing = refused(&with("bare"));
    assert!(nothing.contains("needs the schema that messages are written with"), "{nothing}");
    let unnamed = refused(&bare);
    assert!(unnamed.contains("needs the option 'message'") && unnamed.contains("shop.Other"), "{unnamed}");
    let unknown = refused(&format!("{bare}, message = 'shop.Missing'"));
    assert!(unknown.contains("no message 'shop.Missing'"), "{unknown}");
    let options = server.value("SELECT options FROM rt.sources WHERE name = 'bare'");
    assert!(options.contains("base64:"), "the file may change, the source does not: {options}");
}
