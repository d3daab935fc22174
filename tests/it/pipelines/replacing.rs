//! CREATE OR REPLACE PIPELINE: another query in the place of one that runs, without a row too many or too few.

use std::{thread, time::Duration};

use super::{BINARY, PATIENCE, lines, refused, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// What was counted before goes on being counted when only what is made of it is other; else it is counted from what the topic has.
#[test]
fn another_query_knows_what_came_before() {
    let Some(brokers) = brokers("pipelines::replacing::another_query_knows_what_came_before") else { return };
    let topic = topic("replacing");
    create_topic(&brokers, &topic, 2, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE sales (city TEXT, who TEXT, price BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts)
         WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql(&format!(
        "CREATE SOURCE others (city TEXT) WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql("CREATE TABLE sums (city TEXT, until TIMESTAMPTZ, total BIGINT, n BIGINT)");
    server.sql("CREATE TABLE elsewhere (city TEXT, until TIMESTAMPTZ, total BIGINT, n BIGINT)");
    let create = |verb: &str, columns: &str, rest: &str| {
        format!(
            "CREATE {verb} sums INTO sums WITH (checkpoint_interval = '50ms') AS
             SELECT city, TUMBLE_END(ts, INTERVAL '1' MINUTE), {columns} FROM sales {rest}"
        )
    };
    let grouped = "GROUP BY city, TUMBLE(ts, INTERVAL '1' MINUTE)";
    server.sql(&create("OR REPLACE PIPELINE", "sum(price)::bigint, count(*)", grouped));
    let feed = Feed::new(&brokers, &topic);
    let sale = |who: &str, price: i64, at: &str| {
        format!(r#"{{"city":"SF","who":"{who}","price":{price},"ts":"2024-03-01T10:{at}Z"}}"#)
    };
    let all = "SELECT until AT TIME ZONE 'UTC', total, n FROM sums";
    send(&feed, 0, &[sale("a", 1, "00:01"), sale("b", 2, "00:02"), sale("a", 3, "00:03")]);
    send(&feed, 0, &[sale("a", 10, "01:01"), sale("b", 20, "01:02")]);
    server.sql("SELECT rt.drain('sales')");
    assert_eq!(lines(&server, all), ["2024-03-01 10:01:00 6 3"]);
    // The same groups, and something else made of them.
    server.sql(
        &create("OR REPLACE PIPELINE", "sum(price)::bigint * 100", &format!("{grouped} HAVING count(*) > 0"))
            .replace("* 100", "* 100, count(*)"),
    );
    send(&feed, 0, &[sale("c", 30, "01:03"), sale("a", 5, "02:01"), sale("a", 6, "02:02")]);
    server.sql("SELECT rt.drain('sales')");
    let second = ["2024-03-01 10:01:00 6 3", "2024-03-01 10:02:00 6000 3"];
    assert_eq!(lines(&server, all), second);
    server.kill_and_restart();
    // Other groups: the rows of the open minute are read again, those of minutes that were given are given no more.
    server.sql(&create("OR REPLACE PIPELINE", "max(price), count(DISTINCT who)", grouped));
    server.sql("SELECT rt.drain('sales')");
    assert_eq!(lines(&server, all), second);
    send(&feed, 0, &[sale("d", 1, "02:03"), sale("a", 1, "03:01")]);
    for _ in 0..2 {
        server.sql("SELECT rt.drain('sales')");
        assert_eq!(lines(&server, all), [second[0], second[1], "2024-03-01 10:03:00 6 2"]);
        assert_eq!(lines(&server, "SELECT rows_in, late_rows, error FROM rt.pipelines"), ["10 0 null"]);
        server.kill_and_restart();
    }
    let plain = create("PIPELINE", "sum(price)::bigint, count(*)", grouped);
    assert_eq!(refused(&server, &plain).0, "42710");
    let or_replace = plain.replace("CREATE PIPELINE", "CREATE OR REPLACE PIPELINE");
    for (sql, words) in [
        (or_replace.replace("INTO sums", "INTO elsewhere"), "other tables"),
        (or_replace.replace("count(*)", "count(*)::int"), "other columns or types"),
        (
            "CREATE OR REPLACE PIPELINE sums INTO sums AS SELECT city, NULL::timestamptz, 1::bigint, 2::bigint FROM others".into(),
            "other sources",
        ),
    ] {
        let (code, message, _) = refused(&server, &sql);
        assert!(code == "0A000" && message.contains(words), "{sql}\n{code} {message}");
    }
    assert_eq!(refused(&server, &or_replace.replace("PIPELINE sums", "PIPELINE IF NOT EXISTS sums")).0, "42601");
    server.wait_for("SELECT state || coalesce(error, '') FROM rt.pipelines", "running", PATIENCE);
}

/// Queries that are replaced while rows come, and the server is killed: each row once, by one of the queries.
#[test]
fn rows_come_once_over_replaced_queries() {
    let Some(brokers) = brokers("pipelines::replacing::rows_come_once_over_replaced_queries") else { return };
    let topic = topic("replaced");
    create_topic(&brokers, &topic, 3, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE rows (id BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '10 seconds')
         WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql("CREATE TABLE taken (id BIGINT, by BIGINT) WITH (seal_rows = 700)");
    server.sql("CREATE TABLE counted (start TIMESTAMPTZ, n BIGINT, s BIGINT) WITH (seal_rows = 100)");
    let replace = |server: &Server, round: i64| {
        server.sql(&format!(
            "CREATE OR REPLACE PIPELINE taken INTO taken WITH (checkpoint_interval = '50ms') AS SELECT id, {round}::bigint FROM rows"
        ));
        // Each other time the groups are others, too.
        let sum = if round % 2 == 0 { "sum(id)::bigint" } else { "(count(*) * 0 + sum(id + 0))::bigint" };
        server.sql(&format!(
            "CREATE OR REPLACE PIPELINE counted INTO counted WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour') AS
             SELECT TUMBLE_START(ts, INTERVAL '1' SECOND), count(*), {sum} FROM rows GROUP BY TUMBLE(ts, INTERVAL '1' SECOND)"
        ));
    };
    replace(&server, 0);
    let rows = 9_000i64;
    let sender = thread::spawn({
        let (brokers, topic) = (brokers.clone(), topic.clone());
        move || {
            let feed = Feed::new(&brokers, &topic);
            for id in 0..rows {
                let message = format!(r#"{{"id":{id},"ts":{}}}"#, 1_709_294_400_000 + id * 10);
                feed.send((id % 3) as i32, message.as_bytes());
                if id % 100 == 0 {
                    feed.flush();
                    thread::sleep(Duration::from_millis(60));
                }
            }
            for partition in 0..3 {
                feed.send(partition, br#"{"id":-1,"ts":1709294600000}"#);
            }
            feed.flush();
        }
    });
    for round in 1..6 {
        thread::sleep(Duration::from_millis(500));
        replace(&server, round);
        if round % 2 == 0 {
            server.kill_and_restart();
        }
    }
    sender.join().unwrap();
    server.sql("SELECT rt.drain('rows')");
    assert_eq!(
        lines(&server, "SELECT count(*), count(DISTINCT id), sum(id) FROM taken WHERE id >= 0"),
        [format!("{rows} {rows} {}", rows * (rows - 1) / 2)]
    );
    assert_eq!(server.value("SELECT count(DISTINCT by) > 2 FROM taken"), "t");
    assert_eq!(
        lines(&server, "SELECT count(*), count(DISTINCT start), sum(n), sum(s) FROM counted"),
        [format!("{0} {0} {rows} {1}", rows / 100, rows * (rows - 1) / 2)]
    );
}
