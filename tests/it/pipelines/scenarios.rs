//! Whole use cases, with the rows that go in and come out.

use std::time::{Duration, Instant};

use super::{BINARY, PATIENCE, lines, refused, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// The paper's own Flink SQL, as people already write it.
#[test]
fn flink_sql_as_it_is_written() {
    let Some(brokers) = brokers("pipelines::scenarios::flink_sql_as_it_is_written") else { return };
    let topic = topic("restaurant-orders");
    create_topic(&brokers, &topic, 2, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE TABLE kafka_source (
           order_id BIGINT, restaurant_id BIGINT, city STRING, total_price DOUBLE, order_timestamp TIMESTAMP(3),
           WATERMARK FOR order_timestamp AS order_timestamp
         ) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}', 'format' = 'json')"
    ));
    server.sql(
        "CREATE TABLE pinot_sink (city STRING, total_sales DOUBLE, window_end_time TIMESTAMP(3))
         WITH ('connector' = 'pinot', 'table-name' = 'restaurant_sales_table', 'controller.url' = 'http://pinot-controller:9000')",
    );
    let select = "SELECT TUMBLE_END(order_timestamp, INTERVAL '5' MINUTE) as window_end_time, city, SUM(total_price) AS total_sales
                  FROM kafka_source GROUP BY city, TUMBLE(order_timestamp, INTERVAL '5' MINUTE)";
    let (code, message, hint) = refused(&server, &format!("INSERT INTO pinot_sink {select}"));
    assert_eq!(code, "42804", "{message}");
    assert!(message.contains("\"city\"") && message.contains("\"window_end_time\""), "{message}");
    assert!(hint.contains("BY NAME"), "{hint}");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0");

    server.sql(&format!("INSERT INTO pinot_sink BY NAME {select}"));
    assert_eq!(
        lines(&server, "SELECT name, sources, targets FROM rt.pipelines"),
        ["insert_pinot_sink kafka_source pinot_sink"]
    );
    server.wait_for("SELECT state FROM rt.pipelines", "running", PATIENCE);

    let order = |id: u32, restaurant: u32, city: &str, price: f64, at: &str| {
        format!(
            r#"{{"order_id":{id},"restaurant_id":{restaurant},"city":"{city}","total_price":{price},"order_timestamp":"2024-03-01T{at}"}}"#
        )
    };
    let feed = Feed::new(&brokers, &topic);
    send(
        &feed,
        0,
        &[
            order(1, 7, "SF", 10.0, "12:00:01"),
            order(2, 7, "SF", 15.5, "12:04:59"),
            order(3, 8, "LA", 7.25, "12:03:00"),
            order(4, 8, "LA", 1.0, "12:05:00"),
        ],
    );
    let sent = Instant::now();
    server.wait_for("SELECT count(*) FROM pinot_sink", "2", PATIENCE);
    println!("closed to visible: {:?}", sent.elapsed());
    // One second is promised, to a machine that has nothing else to do.
    assert!(sent.elapsed() < Duration::from_secs(4), "visible after {:?}", sent.elapsed());
    send(&feed, 0, &[order(5, 7, "SF", 2.0, "12:10:01")]);
    server.sql("SELECT rt.drain('kafka_source')");
    let expected =
        ["LA 1 2024-03-01 12:10:00", "LA 7.25 2024-03-01 12:05:00", "SF 25.5 2024-03-01 12:05:00"].map(str::to_owned);
    let all = "SELECT city, total_sales, window_end_time FROM pinot_sink";
    assert_eq!(lines(&server, all), expected);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('kafka_source')");
    assert_eq!(lines(&server, all), expected);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
}

/// Surge pricing: 30-second windows per area, into a history and into the present.
#[test]
fn surge_pricing() {
    let Some(brokers) = brokers("pipelines::scenarios::surge_pricing") else { return };
    let topic = topic("marketplace");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE marketplace (hex TEXT, type TEXT, who TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
         WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json');"
    ));
    server.sql(
        "CREATE TABLE surge_now  (hex TEXT PRIMARY KEY, window_start TIMESTAMPTZ, demand BIGINT, supply BIGINT, multiplier NUMERIC(4,2))
           WITH (mode='upsert', version_column='window_start')",
    );
    server.sql(
        "CREATE TABLE surge_hist (hex TEXT, window_start TIMESTAMPTZ, demand BIGINT, supply BIGINT, multiplier NUMERIC(4,2))",
    );
    server.sql(
        "CREATE PIPELINE surge INTO surge_hist, surge_now WITH (profile='freshness', late='drop', priority='high') AS
         SELECT hex, TUMBLE_START(ts, INTERVAL '30' SECOND) AS window_start,
                count(*) FILTER (WHERE type='request') AS demand,
                count(DISTINCT who) FILTER (WHERE type='driver') AS supply,
                round(least(3.0, greatest(1.0, (count(*) FILTER (WHERE type='request'))::numeric
                      / greatest(count(DISTINCT who) FILTER (WHERE type='driver'), 1))), 2) AS multiplier
         FROM marketplace GROUP BY hex, TUMBLE(ts, INTERVAL '30' SECOND)",
    );
    let event = |(hex, kind, who, second): (&str, &str, &str, u32)| {
        format!(
            r#"{{"hex":"{hex}","type":"{kind}","who":"{who}","ts":"2024-03-01T12:{:02}:{:02}Z"}}"#,
            second / 60,
            second % 60
        )
    };
    let feed = Feed::new(&brokers, &topic);
    let first = [
        ("A", "request", "r1", 1),
        ("B", "driver", "d3", 2),
        ("A", "request", "r2", 3),
        ("A", "driver", "d1", 5),
        ("B", "driver", "d3", 10),
        ("A", "request", "r3", 12),
        ("A", "request", "r4", 20),
        ("B", "request", "r5", 28),
        ("A", "driver", "d2", 29),
        ("A", "request", "r6", 31),
        ("C", "request", "r9", 33),
    ];
    send(&feed, 0, &first.map(event));
    let sent = Instant::now();
    server.wait_for("SELECT count(*) FROM surge_hist", "2", PATIENCE);
    println!("closed to visible: {:?}", sent.elapsed());
    let second = [("A", "request", "r7", 15), ("B", "request", "r8", 65)];
    send(&feed, 0, &second.map(event));
    server.sql("SELECT rt.drain('marketplace')");
    let check = |server: &Server| {
        assert_eq!(
            lines(server, "SELECT hex, window_start AT TIME ZONE 'UTC', demand, supply, multiplier FROM surge_hist"),
            [
                "A 2024-03-01 12:00:00 4 2 2.00",
                "A 2024-03-01 12:00:30 1 0 1.00",
                "B 2024-03-01 12:00:00 1 1 1.00",
                "C 2024-03-01 12:00:30 1 0 1.00",
            ]
        );
        assert_eq!(
            lines(server, "SELECT hex, window_start AT TIME ZONE 'UTC', multiplier FROM surge_now"),
            ["A 2024-03-01 12:00:30 1.00", "B 2024-03-01 12:00:00 1.00", "C 2024-03-01 12:00:30 1.00"]
        );
        assert_eq!(server.value("SELECT late_rows FROM rt.pipelines WHERE name = 'surge'"), "1");
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
    };
    check(&server);
    server.sql("SELECT rt.seal('surge_hist'), rt.seal('surge_now')");
    check(&server);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('marketplace')");
    check(&server);
    // The counts stay, too, when it ends in order.
    server.stop();
    server.spawn();
    server.wait_ready();
    server.sql("SELECT rt.drain('marketplace')");
    check(&server);
}

/// The aggregation of ads: events that come twice count once, a late one counts in its own minute, one without an ad is a dead letter; over kill -9 after each event.
#[test]
fn ads_count_once_and_late_ones_too() {
    let Some(brokers) = brokers("pipelines::scenarios::ads_count_once_and_late_ones_too") else { return };
    let topic = topic("ad-events");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE ad_events (event_id TEXT, ad_id TEXT, user_id TEXT, store TEXT, type TEXT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '20 seconds',
           CONSTRAINT ad_present CHECK (ad_id IS NOT NULL))
         WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json', isolation='read_committed', on_error='dlq')"
    ));
    server.sql("CREATE TABLE ads_agg (ad_id TEXT, minute TIMESTAMPTZ, region TEXT, impressions BIGINT, clicks BIGINT, PRIMARY KEY (ad_id, minute))");
    server.sql(
        "CREATE PIPELINE ads_agg INTO ads_agg WITH (delivery='exactly_once', late='update', checkpoint_interval='100ms') AS
         SELECT ad_id, TUMBLE_START(ts, INTERVAL '1' MINUTE), 'r1' AS region,
                count(*) FILTER (WHERE type='impression') AS impressions, count(*) FILTER (WHERE type='click') AS clicks
         FROM (SELECT DISTINCT ON (event_id) event_id, ad_id, type, ts FROM ad_events WITHIN INTERVAL '3 days') e
         GROUP BY ad_id, TUMBLE(ts, INTERVAL '1' MINUTE)",
    );
    let event = |(id, ad, kind, at): (&str, &str, &str, &str)| {
        let ad = if ad.is_empty() { "null".to_owned() } else { format!("\"{ad}\"") };
        format!(r#"{{"event_id":"{id}","ad_id":{ad},"user_id":"u","store":"s1","type":"{kind}","ts":"{at}Z"}}"#)
    };
    let feed = Feed::new(&brokers, &topic);
    for (number, one) in [
        ("e1", "ad1", "impression", "2024-03-01T09:00:05"),
        ("e2", "ad1", "click", "2024-03-01T09:00:20"),
        ("e2", "ad1", "click", "2024-03-01T09:00:20"),
        ("e3", "ad1", "impression", "2024-03-01T09:00:59"),
        ("e4", "ad2", "click", "2024-03-01T09:01:10"),
        ("e5", "ad1", "click", "2024-03-01T09:01:30"),
        ("e6", "", "click", "2024-03-01T09:01:31"),
        // The minute of 09:00 was given.
        ("e7", "ad1", "impression", "2024-03-01T09:00:40"),
        ("e7", "ad1", "impression", "2024-03-01T09:00:40"),
        // Further back than anything is known.
        ("e8", "ad1", "click", "2024-02-26T09:00:40"),
        ("f1", "zz", "impression", "2024-03-01T09:30:00"),
    ]
    .into_iter()
    .enumerate()
    {
        send(&feed, 0, &[event(one)]);
        server.sql("SELECT rt.drain('ad_events')");
        if number == 6 {
            let first = "SELECT impressions, clicks FROM ads_agg WHERE ad_id = 'ad1'";
            server.wait_for(&format!("SELECT count(*) FROM ({first}) q"), "1", PATIENCE);
            assert_eq!(lines(&server, first), ["2 1"]);
        }
        if number % 2 == 0 {
            server.kill_and_restart();
        }
    }
    for _ in 0..2 {
        server.sql("SELECT rt.drain('ad_events')");
        assert_eq!(
            lines(&server, "SELECT ad_id, minute AT TIME ZONE 'UTC', impressions, clicks FROM ads_agg"),
            ["ad1 2024-03-01 09:00:00 3 1", "ad1 2024-03-01 09:01:00 0 1", "ad2 2024-03-01 09:01:00 0 1"]
        );
        assert_eq!(lines(&server, "SELECT duplicates, late_updates, late_rows FROM rt.pipelines"), ["2 1 1"]);
        let letters = lines(&server, "SELECT reason FROM rt.dlq");
        assert!(letters.len() == 1 && letters[0].contains("ad_present"), "{letters:?}");
        server.kill_and_restart();
    }
}
