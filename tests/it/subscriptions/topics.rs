//! Subscriptions to tables that a Kafka topic feeds: upserts through seals, compaction and kill -9.

use std::{collections::BTreeMap, time::Duration};

use super::{BINARY, Subscriber, Values, result};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::{Server, connect, runtime},
};

#[test]
fn upserts_of_a_topic_arrive_as_changes() {
    let Some(brokers) = brokers("upserts_of_a_topic_arrive_as_changes") else { return };
    let topic = format!("subscribed-{}", std::process::id());
    create_topic(&brokers, &topic, 3, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (id BIGINT, status TEXT, v BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json', start = 'earliest')"
    ));
    server.sql("CREATE TABLE orders (id BIGINT PRIMARY KEY, status TEXT, v BIGINT) WITH (partitions = 2, seal_rows = 300, version_column = 'v') FROM SOURCE s");
    let queries =
        ["SELECT id, status FROM orders WHERE status <> 'done'", "SELECT status, count(*) FROM orders GROUP BY status"];
    let mut sent = 0_i64;
    let mut send = |count: i64| {
        for _ in 0..count {
            let (id, status) = (sent * 7 % 200, ["placed", "cooking", "done"][(sent % 3) as usize]);
            feed.send((sent % 3) as i32, format!(r#"{{"id":{id},"status":"{status}","v":{sent}}}"#).as_bytes());
            sent += 1;
        }
        feed.flush();
    };
    send(100);
    server.sql("SELECT rt.drain('s')");
    let runtime = runtime();
    let open = |server: &Server| -> Vec<(&str, Subscriber)> {
        queries.iter().map(|query| (*query, runtime.block_on(Subscriber::open(server, "", query, "")))).collect()
    };
    let settled = |server: &Server, subscribers: &mut Vec<(&str, Subscriber)>| {
        server.sql("SELECT rt.drain('s')");
        runtime.block_on(async {
            let client = connect(server.pg_port).await.unwrap();
            for (query, subscriber) in subscribers {
                let wanted: BTreeMap<Values, i64> = result(&client, query).await;
                subscriber.until(&wanted).await;
            }
        });
    };
    let mut subscribers = open(&server);
    for round in 0..6 {
        send(250);
        settled(&server, &mut subscribers);
        match round {
            1 => drop(server.sql("SELECT rt.seal('orders')")),
            2 => drop(server.sql("SELECT rt.compact('orders')")),
            3 => {
                // What was in memory is read again from the topic; who comes back begins with what is there.
                server.kill_and_restart();
                subscribers = open(&server);
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
        settled(&server, &mut subscribers);
    }
}
