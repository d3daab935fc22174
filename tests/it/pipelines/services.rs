//! Rows that ask an HTTP service: attribution of orders to ads as it is written, while the service fails, is slow, and the server is killed.

use std::{collections::BTreeMap, thread, time::Duration};

use super::{
    BINARY, PATIENCE, lines,
    look_ups::{click, click_sources, order},
    refused, send, topic,
};
use crate::support::{
    kafka::{Feed, brokers, committed, create_topic},
    server::Server,
    service::{Mood, Service},
};

/// The sources, the table of clicks, and the clicks of two regions in it.
fn clicks(server: &Server, brokers: &str, topics: &[String; 3]) {
    click_sources(server, brokers, topics);
    let of_r1 = [
        click("e1", "ad1", "u1", "s1", "impression", "09:00:05"),
        click("e2", "ad1", "u1", "s1", "click", "09:00:20"),
        click("e2", "ad1", "u1", "s1", "click", "09:00:20"),
        click("e4", "ad2", "u3", "s2", "click", "09:01:10"),
        click("e5", "ad1", "u2", "s1", "click", "09:01:30"),
    ];
    send(&Feed::new(brokers, &topics[0]), 0, &of_r1);
    send(&Feed::new(brokers, &topics[1]), 0, &[click("f2", "ad1", "u5", "s1", "click", "09:00:45")]);
    server.sql("SELECT rt.drain('ad_clicks')");
}

/// The golden part of attribution with orders in several orders, while the service answers with errors, then slowly, and the server dies in between. Each order comes once for a
/// reader of committed records, none is dropped, and a pipeline beside it is not held up.
#[test]
fn orders_are_attributed_while_a_service_fails() {
    let Some(brokers) = brokers("pipelines::services::orders_are_attributed_while_a_service_fails") else { return };
    let mut orders = vec![
        order("o1", "u1", "s1", 2500, "09:05:00"),
        order("o2", "u3", "s9", 700, "09:06:00"),
        order("o3", "u2", "s1", 1800, "09:20:00"),
        order("o4", "u5", "s1", 900, "09:10:00"),
        order("o1", "u1", "s1", 2500, "09:05:00"),
        order("o5", "u2", "s1", 400, "08:59:00"),
        order("gone", "u5", "s1", 1, "09:11:00"),
        order("bad", "u5", "s1", 2, "09:12:00"),
    ];
    for round in 0..2usize {
        let topics = ["r1", "r2", "orders"].map(|name| topic(&format!("service-{name}-{round}")));
        let out = topic(&format!("attributed-{round}"));
        create_topic(&brokers, &out, 2, &[]);
        let mut server = Server::start(BINARY);
        clicks(&server, &brokers, &topics);
        let service = Service::start();
        server.sql(&format!(
            "CREATE SINK attributed_out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{out}', format = 'json')"
        ));
        server.sql(&format!(
            "CREATE PIPELINE attribution INTO SINK attributed_out WITH (delivery='exactly_once', http_timeout='2s', http_tries=2) AS
             SELECT DISTINCT ON (o.order_id) rt_uuid('attr', o.order_id) AS record_uuid, o.order_id, c.ad_id, o.amount, http_lookup('{}', o.order_id) AS details
             FROM orders o JOIN LATEST ad_clicks c ON c.user_id = o.user_id AND c.store = o.store AND c.ts BETWEEN o.ts - INTERVAL '24 hours' AND o.ts",
            service.url()
        ));
        server.sql("CREATE TABLE plain (order_id TEXT)");
        server.sql("INSERT INTO plain SELECT order_id FROM orders");
        service.set(Mood::Failing);
        orders.rotate_left(3 * round);
        let feed = Feed::new(&brokers, &topics[2]);
        send(&feed, 0, &orders);
        server.wait_for("SELECT state FROM rt.pipelines WHERE name = 'attribution'", "failing", PATIENCE);
        server.wait_for("SELECT count(*) FROM plain", "8", PATIENCE);
        let error = server.value("SELECT error FROM rt.pipelines WHERE name = 'attribution'");
        assert!(error.contains(&service.url()) && error.contains("status 500"), "{error}");
        server.wait_for("SELECT state FROM rt.pipelines WHERE name <> 'attribution'", "running", PATIENCE);
        server.kill_and_restart();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0", "rows wait");
        service.set(Mood::Slow(Duration::from_millis(300)));
        thread::sleep(Duration::from_millis(if round == 0 { 400 } else { 1500 }));
        server.kill_and_restart();
        send(&feed, 0, &[order("end", "u1", "s1", 0, "11:00:00")]);
        for _ in 0..2 {
            server.sql("SELECT rt.drain('orders')");
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for record in committed(&brokers, &out) {
                let value: serde_json::Value = serde_json::from_str(&record.value).expect("JSON");
                let text = |name: &str| value[name].to_string();
                let line = [text("ad_id"), text("amount"), text("details")].join(" ");
                found.entry(text("order_id")).or_default().push(line);
            }
            let details = |id: &str| format!(r#"{{"items":["a","b"],"order":"{id}"}}"#);
            let expected = [
                ("\"gone\"", "\"ad1\" 1 null".to_owned()),
                ("\"o1\"", format!("\"ad1\" 2500 {}", details("o1"))),
                ("\"o3\"", format!("\"ad1\" 1800 {}", details("o3"))),
                ("\"o4\"", format!("\"ad1\" 900 {}", details("o4"))),
            ];
            let expected = expected.map(|(id, line)| (id.to_owned(), vec![line]));
            assert_eq!(found, BTreeMap::from(expected), "round {round}");
            let letters = lines(&server, "SELECT \"table\", reason FROM rt.dlq");
            assert!(letters.len() == 1 && letters[0].starts_with("attribution"), "{letters:?}");
            assert!(letters[0].contains("status 422") && letters[0].contains(&service.url()), "{letters:?}");
            server.kill_and_restart();
        }
        assert!(service.asked().contains_key("o4"), "{:?}", service.asked());
    }
}

/// What was said is kept for a while; a pipeline that waits for a service can be paused, dropped and stopped at once.
#[test]
fn answers_are_kept_and_nobody_waits_for_a_silent_service() {
    let Some(brokers) = brokers("pipelines::services::answers_are_kept_and_nobody_waits_for_a_silent_service") else {
        return;
    };
    let topic = topic("service-cache");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    let service = Service::start();
    server.sql(&format!(
        "CREATE SOURCE orders (id TEXT, n INT) WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql("CREATE TABLE found (id TEXT, n INT, items INT, details JSONB)");
    let url = service.url();
    let create = |options: &str| {
        format!(
            "CREATE PIPELINE found INTO found WITH ({options}) AS SELECT id, n, jsonb_array_length(d->'items'), d FROM (SELECT *, http_lookup('{url}', id) AS d FROM orders) x WHERE d IS NOT NULL"
        )
    };
    for (options, words) in [
        ("http_tries = 0", "from 1 to 100"),
        ("http_timeout = 'soon'", "http_timeout"),
        ("http_concurrency = 1000", "from 1 to 256"),
    ] {
        let (code, message, hint) = refused(&server, &create(options));
        assert!(code == "22023" && (message.contains(words) || hint.contains(words)), "{message} {hint}");
    }
    let (code, message, _) =
        refused(&server, "INSERT INTO found (id) SELECT http_lookup('https://a/b', id) FROM orders");
    assert!(code == "0A000" && message.contains("https"), "{code} {message}");
    let plan = server.sql(&format!("EXPLAIN {}", create("http_tries = 1")));
    let plan: Vec<String> = plan.into_iter().flatten().flatten().collect();
    assert!(plan.join("\n").contains(&format!("HttpLookUp: {url}, by [")), "{plan:?}");
    server.sql(&create("http_timeout = '60s', http_cache_ttl = '1 hour'"));
    let feed = Feed::new(&brokers, &topic);
    let event = |id: &str, n: i32| format!(r#"{{"id":"{id}","n":{n}}}"#);
    for n in 0..3 {
        send(&feed, 0, &[event("a", n), event("b", n), event("gone", n)]);
        server.sql("SELECT rt.drain('orders')");
    }
    assert_eq!(
        lines(&server, "SELECT id, count(*), sum(n), max(items), min(details->>'order') FROM found GROUP BY id"),
        ["a 3 3 2 a", "b 3 3 2 b"]
    );
    assert_eq!(service.asked(), BTreeMap::from([("a", 1), ("b", 1), ("gone", 1)].map(|(id, n)| (id.to_owned(), n))));
    service.set(Mood::Slow(Duration::from_secs(50)));
    send(&feed, 0, &[event("c", 1)]);
    server.wait_for("SELECT rows_in FROM rt.pipelines", "9", PATIENCE);
    thread::sleep(Duration::from_millis(300));
    let started = std::time::Instant::now();
    server.sql("ALTER PIPELINE found PAUSE");
    assert_eq!(lines(&server, "SELECT state, restarts, error FROM rt.pipelines"), ["paused 0 null"]);
    server.sql("ALTER PIPELINE found RESUME");
    thread::sleep(Duration::from_millis(300));
    server.stop();
    server.spawn();
    server.wait_ready();
    thread::sleep(Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    service.set(Mood::Well);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('orders')");
    assert_eq!(server.value("SELECT count(*) FROM found WHERE id = 'c'"), "1");
    service.set(Mood::Failing);
    send(&feed, 0, &[event("d", 1)]);
    server.wait_for("SELECT state FROM rt.pipelines", "failing", PATIENCE);
    server.sql("DROP PIPELINE found");
}
