//! Rows that look into tables, and versions of keys: attribution of orders to ads, as it is written, over crashes.

use super::{BINARY, PATIENCE, lines, refused, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

pub(super) fn click(id: &str, ad: &str, user: &str, store: &str, kind: &str, at: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","ad_id":"{ad}","user_id":"{user}","store":"{store}","type":"{kind}","ts":"2024-03-01T{at}Z"}}"#
    )
}

pub(super) fn order(id: &str, user: &str, store: &str, amount: i64, at: &str) -> String {
    format!(r#"{{"order_id":"{id}","user_id":"{user}","store":"{store}","amount":{amount},"ts":"2024-03-01T{at}Z"}}"#)
}

/// Topics, the sources over them, and the table of clicks.
pub(super) fn click_sources(server: &Server, brokers: &str, topics: &[String; 3]) {
    topics.iter().for_each(|topic| create_topic(brokers, topic, 1, &[]));
    for (name, topic) in ["r1_ad_events", "r2_ad_events"].iter().zip(topics) {
        server.sql(&format!(
            "CREATE SOURCE {name} (event_id TEXT, ad_id TEXT, user_id TEXT, store TEXT, type TEXT, ts TIMESTAMPTZ)
             WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
        ));
    }
    server.sql(&format!(
        "CREATE SOURCE orders (order_id TEXT, user_id TEXT, store TEXT, amount BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '30 minutes')
         WITH (connector='kafka', brokers='{brokers}', topic='{}', format='json')",
        topics[2]
    ));
    server.sql(
        "CREATE TABLE ad_clicks (event_id TEXT PRIMARY KEY, ad_id TEXT, user_id TEXT, store TEXT, ts TIMESTAMPTZ) WITH (mode='dedup', time_column='ts')
         FROM SOURCES (r1_ad_events, r2_ad_events) AS SELECT event_id, ad_id, user_id, store, ts WHERE type='click'",
    );
}

/// Clicks of two regions in a table that keeps each once; of an order the latest click of its user and store in the 24 hours before it. Each order once, over kill -9.
#[test]
fn orders_go_to_the_ads_that_were_clicked() {
    let Some(brokers) = brokers("pipelines::look_ups::orders_go_to_the_ads_that_were_clicked") else { return };
    let topics = ["r1-events", "r2-events", "orders"].map(topic);
    let mut server = Server::start(BINARY);
    click_sources(&server, &brokers, &topics);
    server.sql("CREATE INDEX ON ad_clicks USING inverted (user_id)");
    server.sql("CREATE TABLE attributed (order_id TEXT, ad_id TEXT, event_id TEXT, amount BIGINT)");
    server.sql(
        "CREATE PIPELINE attribution INTO attributed WITH (delivery='exactly_once', checkpoint_interval='50ms') AS
         SELECT DISTINCT ON (o.order_id) o.order_id, c.ad_id, c.event_id, o.amount
         FROM orders o JOIN LATEST ad_clicks c ON c.user_id = o.user_id AND c.store = o.store AND c.ts BETWEEN o.ts - INTERVAL '24 hours' AND o.ts",
    );
    let [r1, r2, orders] = topics.each_ref().map(|topic| Feed::new(&brokers, topic));
    send(
        &r1,
        0,
        &[
            click("e1", "ad1", "u1", "s1", "impression", "09:00:05"),
            click("e2", "ad1", "u1", "s1", "click", "09:00:20"),
            click("e2", "ad1", "u1", "s1", "click", "09:00:20"),
            click("e0", "ad9", "u1", "s1", "click", "09:00:10"),
            click("e4", "ad2", "u3", "s2", "click", "09:01:10"),
            click("e5", "ad1", "u2", "s1", "click", "09:01:30"),
            click("e7", "ad7", "u2", "s1", "click", "09:21:00"),
        ],
    );
    send(&r2, 0, &[click("f2", "ad1", "u5", "s1", "click", "09:00:45")]);
    server.sql("SELECT rt.drain('ad_clicks')");
    server.sql("SELECT rt.seal('ad_clicks')");
    let all = [
        order("o1", "u1", "s1", 2500, "09:05:00"),
        order("o2", "u3", "s9", 700, "09:06:00"),
        order("o3", "u2", "s1", 1800, "09:20:00"),
        order("o4", "u5", "s1", 900, "09:10:00"),
        order("o1", "u1", "s1", 2500, "09:05:00"),
        order("o5", "u2", "s1", 400, "08:59:00"),
        order("end", "nobody", "s1", 0, "11:00:00"),
    ];
    for (number, one) in all.iter().enumerate() {
        send(&orders, 0, std::slice::from_ref(one));
        server.sql("SELECT rt.drain('orders')");
        if number % 2 == 0 {
            server.kill_and_restart();
        }
    }
    for _ in 0..2 {
        server.sql("SELECT rt.drain('orders')");
        assert_eq!(
            lines(&server, "SELECT order_id, ad_id, amount, event_id FROM attributed"),
            ["o1 ad1 2500 e2", "o3 ad1 1800 e5", "o4 ad1 900 f2"]
        );
        assert_eq!(lines(&server, "SELECT duplicates, late_rows, error FROM rt.pipelines"), ["1 0 null"]);
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
        server.kill_and_restart();
    }
}

/// A table that changes: rows find what it has when they come. It cannot go, or become another one, while a pipeline looks into it.
#[test]
fn rows_find_the_row_of_a_key_as_it_is() {
    let Some(brokers) = brokers("pipelines::look_ups::rows_find_the_row_of_a_key_as_it_is") else { return };
    let topic = topic("presence");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE presence (rest BIGINT, person TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts)
         WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql("CREATE TABLE restaurants (rest INT PRIMARY KEY, city TEXT, capacity INT) WITH (partitions = 3)");
    server.sql("INSERT INTO restaurants VALUES (7, 'SF', 2), (9, 'SF', 1), (11, 'LA', 3)");
    server.sql("CREATE TABLE seen (rest BIGINT, person TEXT, city TEXT, capacity INT)");
    server.sql("CREATE TABLE by_city (city TEXT, minute TIMESTAMPTZ, persons BIGINT, room BIGINT)");
    let create = "CREATE PIPELINE seen INTO seen WITH (checkpoint_interval = '50ms') AS
         SELECT p.rest, person, r.city, r.capacity FROM presence p LEFT JOIN restaurants r USING (rest)";
    let plan = server.sql(&format!("EXPLAIN {create}"));
    let plan: Vec<String> = plan.into_iter().flatten().flatten().collect();
    assert!(plan.join("\n").contains("LeftLookUp: table restaurants"), "{plan:?}");
    server.sql(create);
    server.sql(
        "INSERT INTO by_city SELECT r.city, TUMBLE_START(p.ts, INTERVAL '1' MINUTE), count(DISTINCT p.person), max(r.capacity)::bigint
         FROM presence p JOIN LATEST restaurants r ON r.rest = p.rest AND r.capacity > 1 GROUP BY r.city, TUMBLE(p.ts, INTERVAL '1' MINUTE)",
    );
    let feed = Feed::new(&brokers, &topic);
    let event =
        |rest: i64, person: &str, at: &str| format!(r#"{{"rest":{rest},"person":"{person}","ts":"2024-03-01T{at}Z"}}"#);
    send(
        &feed,
        0,
        &[
            event(7, "p1", "18:00:01"),
            event(9, "p2", "18:00:02"),
            event(12, "p3", "18:00:03"),
            event(1 << 40, "p4", "18:00:03"),
        ],
    );
    server.sql("SELECT rt.drain('presence')");
    // After a crash rows that no checkpoint has look again, and would find another table.
    let checkpoint = |server: &Server| {
        server.sql("ALTER PIPELINE insert_by_city PAUSE");
        server.sql("ALTER PIPELINE insert_by_city RESUME");
    };
    checkpoint(&server);
    server.sql("UPDATE restaurants SET capacity = 5 WHERE rest = 9");
    server.sql("DELETE FROM restaurants WHERE rest = 7");
    server.sql("INSERT INTO restaurants VALUES (12, 'NY', 8)");
    send(&feed, 0, &[event(7, "p1", "18:00:31"), event(9, "p2", "18:00:32"), event(12, "p3", "18:00:33")]);
    server.sql("SELECT rt.drain('presence')");
    checkpoint(&server);
    let expected = [
        "1099511627776 p4 null null",
        "12 p3 NY 8",
        "12 p3 null null",
        "7 p1 SF 2",
        "7 p1 null null",
        "9 p2 SF 1",
        "9 p2 SF 5",
    ];
    for (sql, words) in [
        ("DROP TABLE restaurants", "a pipeline uses it"),
        ("ALTER TABLE restaurants DROP COLUMN city", "looks into it"),
        ("ALTER TABLE restaurants RENAME TO places", "looks into it"),
        ("ALTER TABLE restaurants ALTER COLUMN capacity TYPE BIGINT", "looks into it"),
        ("ALTER TABLE restaurants ADD COLUMN person TEXT", "mean something else"),
    ] {
        let refused = refused(&server, sql);
        let is_said = refused.1.contains(words);
        // What is named with its relation stays what it is.
        assert!(refused.0 == "2BP01" && is_said, "{sql} {refused:?}");
    }
    server.sql("ALTER TABLE restaurants ADD COLUMN note TEXT");
    for round in 0..2 {
        assert_eq!(lines(&server, "SELECT rest, person, city, capacity FROM seen"), expected, "round {round}");
        server.wait_for(
            "SELECT count(*) > 0 FROM rt.checkpoints WHERE pipeline = 'seen' AND rows_out = 7",
            "t",
            PATIENCE,
        );
        server.kill_and_restart();
        server.sql("SELECT rt.drain('presence')");
    }
    send(&feed, 0, &[event(11, "p9", "18:02:00")]);
    server.sql("SELECT rt.drain('presence')");
    assert_eq!(
        lines(&server, "SELECT city, minute AT TIME ZONE 'UTC', persons, room FROM by_city"),
        ["NY 2024-03-01 18:00:00 1 8", "SF 2024-03-01 18:00:00 2 5"]
    );
    server.sql("DROP TABLE restaurants CASCADE");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");
}

/// Rates of exchange: each payment by the rate of its time, whichever comes first; over kill -9 and in any order.
#[test]
fn payments_find_the_rate_of_their_time() {
    let Some(brokers) = brokers("pipelines::look_ups::payments_find_the_rate_of_their_time") else { return };
    for round in 0..3usize {
        let topics = ["payments", "rates"].map(|name| topic(&format!("{name}-{round}")));
        topics.iter().for_each(|topic| create_topic(&brokers, topic, 1, &[]));
        let mut server = Server::start(BINARY);
        for (name, column, topic) in [("payments", "amount", &topics[0]), ("rates", "rate", &topics[1])] {
            server.sql(&format!(
                "CREATE SOURCE {name} (currency TEXT, {column} BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '1 minute')
                 WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
            ));
        }
        server.sql("CREATE TABLE paid (currency TEXT, amount BIGINT, euros BIGINT)");
        server.sql(
            "CREATE PIPELINE paid INTO paid WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour') AS
             SELECT p.currency, p.amount, p.amount * r.rate FROM payments p
             LEFT JOIN rates FOR SYSTEM_TIME AS OF p.ts AS r ON r.currency = p.currency WHERE p.currency <> 'end'",
        );
        let event = |column: &str, currency: &str, value: i64, second: i64| {
            format!(
                r#"{{"currency":"{currency}","{column}":{value},"ts":"2024-03-01T10:{:02}:{:02}Z"}}"#,
                second / 60,
                second % 60
            )
        };
        let mut payments =
            vec![("usd", 1, 5), ("usd", 2, 10), ("usd", 3, 29), ("yen", 4, 20), ("usd", 5, 31), ("chf", 6, 20)];
        let mut rates = vec![("usd", 10, 10), ("usd", 20, 30), ("yen", 7, 1), ("usd", 30, 59)];
        payments.rotate_left(round * 2);
        rates.rotate_left(round);
        let feeds = topics.each_ref().map(|topic| Feed::new(&brokers, topic));
        let mut number = 0;
        while let Some((of, (currency, value, second))) = if rates.len() * (round + 1) > payments.len() {
            rates.pop().map(|one| (1, one))
        } else {
            payments.pop().map(|one| (0, one))
        } {
            send(&feeds[of], 0, &[event(["amount", "rate"][of], currency, value, second)]);
            number += 1;
            if number % 3 == round {
                std::thread::sleep(std::time::Duration::from_millis(120));
                server.kill_and_restart();
            }
        }
        send(&feeds[0], 0, &[event("amount", "end", 1, 600)]);
        send(&feeds[1], 0, &[event("rate", "end", 1, 600)]);
        for _ in 0..2 {
            server.sql("SELECT rt.drain('payments'), rt.drain('rates')");
            assert_eq!(
                lines(&server, "SELECT * FROM paid"),
                ["chf 6 null", "usd 1 null", "usd 2 20", "usd 3 30", "usd 5 100", "yen 4 28"],
                "round {round}"
            );
            server.kill_and_restart();
        }
    }
}
