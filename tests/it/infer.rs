//! CREATE SOURCE … INFER: the definition that is made of a topic, which can be run again as it is said.

use rdkafka::mocking::MockCluster;

use crate::support::{
    kafka::Feed,
    server::{Server, describe},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

#[test]
fn a_topic_becomes_a_source_and_the_source_a_statement() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let feed = Feed::new(&brokers, "orders");
    for n in 0..100 {
        let order = format!(
            r#"{{"order_id":{n},"city":"Oslo","total_price":{n}.{:02},"ts":{},"place":{{"zip":"015{}"}},"items":["a","b"],"Select":true}}"#,
            n % 100,
            1_700_000_000_000_u64 + n,
            n % 10
        );
        feed.send((n % 2) as i32, order.as_bytes());
    }
    feed.send(0, b"no order");
    feed.flush();
    let server = Server::start(BINARY);
    let with = format!("WITH (brokers = '{brokers}', format = 'json')");
    server.sql(&format!("CREATE SOURCE orders_raw FROM TOPIC 'orders' INFER (SAMPLE 50) {with}"));
    server.sql(&format!("CREATE SOURCE whole FROM TOPIC 'orders' INFER {with}"));
    let definition = server.value("SELECT definition FROM rt.sources WHERE name = 'whole'");
    for line in [
        "order_id BIGINT",
        "city TEXT",
        "total_price NUMERIC(18,2)",
        "ts TIMESTAMP WITH TIME ZONE EPOCH 'ms'",
        "place_zip TEXT PATH '$.place.zip'",
        "items TEXT[]",
        "\"Select\" BOOLEAN",
    ] {
        assert!(definition.contains(line), "{line} is not in\n{definition}");
    }
    // What is said can be run: the same source.
    server.sql(&definition.replacen("whole", "again", 1));
    let again = server.value("SELECT definition FROM rt.sources WHERE name = 'again'");
    assert_eq!(again, definition.replacen("whole", "again", 1));
    server.sql("CREATE TABLE orders (order_id BIGINT, total_price NUMERIC(18,2), ts TIMESTAMPTZ, place_zip TEXT) FROM SOURCE whole");
    server.sql("SELECT rt.drain('whole')");
    assert_eq!(
        server.value("SELECT count(*) || ' ' || sum(order_id) || ' ' || count(DISTINCT place_zip) FROM orders"),
        "100 4950 10"
    );
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "1");

    for (sql, code, words) in [
        (
            "CREATE SOURCE x FROM TOPIC 'orders' INFER WITH (brokers = '127.0.0.1:1', timeout = '300ms')".into(),
            "08001",
            "127.0.0.1:1",
        ),
        (format!("CREATE SOURCE x (a INT) FROM TOPIC 'orders' INFER {with}"), "42601", "INFER"),
        (format!("CREATE SOURCE x FROM TOPIC 'orders' INFER (SAMPLE 0) {with}"), "42601", "sample"),
        (
            format!("CREATE SOURCE x FROM TOPIC 'orders' INFER WITH (brokers = '{brokers}', topic = 'other')"),
            "42601",
            "FROM TOPIC",
        ),
        (
            format!("CREATE SOURCE x FROM TOPIC 'orders' INFER WITH (brokers = '{brokers}', format = 'raw')"),
            "0A000",
            "raw",
        ),
        (format!("CREATE SOURCE x FROM TOPIC 'orders' {with}"), "42601", "needs columns"),
    ] {
        let error = describe(&server.try_sql(&sql).unwrap_err());
        assert!(error.starts_with(code) && error.contains(words), "{sql}\n{error}");
    }
    assert_eq!(server.value("SELECT count(*) FROM rt.sources"), "3");
}
