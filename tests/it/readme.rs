//! What README and the server's own greeting tell a newcomer to type does what they say.
//!
//! README's first query once rounded a double to two digits, which Postgres refuses: nobody had run it.

use std::{fs, path::Path, thread, time::Duration};

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// The ```sql blocks below the heading `## {heading}` of README.md.
fn sql_blocks(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section =
        text.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading is in README.md");
    let blocks: Vec<_> =
        section.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect();
    assert!(!blocks.is_empty(), "{heading} has no SQL");
    blocks
}

/// The query that the server prints soon after it is up.
fn greeting_query(server: &Server) -> String {
    for _ in 0..100 {
        let log = server.log();
        let query = log.split_once("A first query:").and_then(|(_, rest)| rest.split_once(';'));
        if let Some((query, _)) = query {
            return query.trim().to_owned();
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("no greeting with a query within 10 s:\n{}", server.log())
}

#[test]
fn the_first_queries_answer_and_move() {
    let server = Server::start_command("quickstart", env!("CARGO_BIN_EXE_tidemill"), &[]);
    let mut queries = sql_blocks("A first query");
    queries.push(greeting_query(&server));
    for query in queries {
        let mut rows = server.sql(&query);
        for _ in 0..100 {
            if !rows.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
            rows = server.sql(&query);
        }
        assert!(!rows.is_empty(), "no rows within 10 s: {query}");
        thread::sleep(Duration::from_millis(500));
        assert_ne!(server.sql(&query), rows, "the numbers have not moved: {query}");
    }
}

#[test]
fn your_own_topic_becomes_a_table() {
    let Some(brokers) = brokers("your_own_topic_becomes_a_table") else { return };
    let topic = format!("readme-{}", std::process::id());
    create_topic(&brokers, &topic, 2, &[]);
    let feed = Feed::new(&brokers, &topic);
    for (id, city, price) in [(1, "Oslo", "12.50"), (2, "Rome", "0"), (3, "Lima", "-1"), (4, "Bern", "7")] {
        feed.send(
            id % 2,
            format!(r#"{{"order_id":{id},"city":"{city}","total_price":{price},"ts":"2024-05-0{id}T10:00:00Z"}}"#)
                .as_bytes(),
        );
    }
    feed.flush();
    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    for block in sql_blocks("Your own topic") {
        server.sql(&block.replace("127.0.0.1:9092", &brokers).replace("restaurant_orders", &topic));
    }
    server.sql("SELECT rt.drain('orders_raw')");
    let rows = server.sql("SELECT order_id, city, total_price, doc ->> 'city' FROM orders ORDER BY order_id");
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().flatten().map(String::as_str).collect()).collect();
    assert_eq!(rows, [["1", "oslo", "12.50", "Oslo"], ["4", "bern", "7.00", "Bern"]]);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq WHERE reason LIKE '%price_ok%'"), "1");
}
