//! `rt.advise`: what it proposes of tables and sources, and that its statements can be run.

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

#[test]
fn what_queries_ask_of_a_table_is_proposed_and_done() {
    let server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE orders (id BIGINT, city TEXT, price DOUBLE PRECISION, token TEXT, note TEXT, ts TIMESTAMPTZ)",
    );
    server.sql(
        "INSERT INTO orders SELECT i * 7919 % 1000003, 'city ' || i % 50, (i * 31 % 9973) / 7.0, md5(i::text)::uuid::text, 'note ' || i, '2026-01-01T00:00:00Z'::timestamptz + i * INTERVAL '1 second' FROM generate_series(1, 20000) AS s(i) ORDER BY i",
    );
    server.sql("SELECT rt.seal('orders')");
    let advice = |server: &Server| {
        let rows = server.sql(
            "SELECT \"column\", kind, proposal, statement, reason FROM rt.advise('orders') WHERE kind <> 'encoding'",
        );
        rows.into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    // Nothing was asked yet; texts are what they are.
    let found = advice(&server);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0][..3], ["token", "type", "uuid"]);
    for _ in 0..3 {
        server.sql("SELECT city, count(*) FROM orders WHERE price BETWEEN 3 AND 4 GROUP BY city");
        server.sql("SELECT * FROM orders WHERE city = 'city 1' AND ts > '2026-01-01' LIMIT 1");
        server.sql("SELECT price FROM orders WHERE id = 7");
    }
    let found = advice(&server);
    let statements: Vec<&str> = found.iter().map(|row| row[3].as_str()).filter(|text| !text.is_empty()).collect();
    assert_eq!(
        statements,
        [
            "CREATE INDEX ON orders USING bloom (id)",
            "CREATE INDEX ON orders USING inverted (city)",
            "CREATE INDEX ON orders USING range (price)",
            "CREATE INDEX ON orders USING star_tree (city)",
        ],
        "{found:?}"
    );
    let reason = &found.iter().find(|row| row[2] == "inverted").unwrap()[4];
    assert!(reason.contains("3 of the last 9 statements") && reason.contains("50 values"), "{reason}");
    for statement in statements {
        server.sql(statement);
    }
    assert!(advice(&server).iter().all(|row| row[1] == "type"), "{:?}", advice(&server));
    // How columns are kept is told of each.
    assert_eq!(
        server
            .value("SELECT count(*) FROM rt.advise('orders') WHERE kind = 'encoding' AND reason LIKE '%bytes a row%'"),
        "6"
    );
    let error = server.try_sql("SELECT * FROM rt.advise('nothing')").unwrap_err();
    assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("42P01"));
}

#[test]
fn a_source_is_held_against_its_messages() {
    let Some(brokers) = brokers("advice::a_source_is_held_against_its_messages") else { return };
    let topic = format!("advice-{}", std::process::id());
    create_topic(&brokers, &topic, 1, &[]);
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE raw (id TEXT, n BIGINT, gone INT, city TEXT PATH '$.place.city') WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json')"
    ));
    let feed = Feed::new(&brokers, &topic);
    for n in 0..100 {
        let message = format!(
            r#"{{"id":"7f1d2c50-8b0e-4f43-9b3c-0d2b7a1f{n:04}","n":{n},"place":{{"city":"Oslo","zip":"{n:05}"}}}}"#
        );
        feed.send(0, message.as_bytes());
    }
    feed.flush();
    let found = server.sql("SELECT \"column\", proposal FROM rt.advise('raw')");
    let found: Vec<String> = found
        .into_iter()
        .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(found, ["id: id uuid", "gone: no column", "place_zip: place_zip text PATH '$.place.zip'"]);
}
