//! How subscriptions end, what bounds them, and what a client finds that comes back.

use std::time::{Duration, Instant};

use futures::StreamExt;

use super::{BINARY, PATIENCE, Subscriber, result, state};
use crate::support::server::{Server, connect, runtime};

const RUNNING: &str = "SELECT count(*) FROM rt.queries WHERE query LIKE 'SUBSCRIBE%'";

#[test]
fn ends_by_cancel_by_drop_and_by_columns_that_change() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT, city TEXT, note TEXT)");
    server.sql("CREATE TABLE u (id BIGINT)");
    runtime().block_on(async {
        let writer = connect(server.pg_port).await.unwrap();
        for settings in ["", "SET rt.subscribe_to_changes = off"] {
            let open = async |query: &str| {
                let mut subscriber = Subscriber::open(&server, settings, query, "").await;
                subscriber.moment().await.unwrap();
                subscriber
            };
            let mut cancelled = open("SELECT id FROM t").await;
            cancelled.client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
            assert_eq!(state(&cancelled.end().await), "57014");
            // The session goes on.
            cancelled.client.simple_query("SELECT 1").await.unwrap();

            let mut terminated = open("SELECT id FROM t").await;
            writer
                .simple_query("SELECT pg_terminate_backend(pid) FROM rt.queries WHERE query LIKE 'SUBSCRIBE%'")
                .await
                .unwrap();
            assert_eq!(state(&terminated.end().await), "57P01");

            let (mut altered, mut unconcerned) =
                (open("SELECT id, note FROM t").await, open("SELECT city FROM t").await);
            let mut of_both = open("SELECT t.city, u.id FROM t LEFT JOIN u ON u.id = t.id").await;
            writer.simple_query("ALTER TABLE t DROP COLUMN note").await.unwrap();
            let error = altered.end().await;
            assert_eq!(state(&error), "0A000");
            assert!(error.as_db_error().unwrap().detail().unwrap().contains("note"), "{error:?}");
            writer
                .simple_query("ALTER TABLE t ADD COLUMN note TEXT; ALTER TABLE t RENAME COLUMN city TO town")
                .await
                .unwrap();
            writer.simple_query("INSERT INTO t (id, town) VALUES (1, 'Oslo')").await.unwrap();
            unconcerned.until(&result(&writer, "SELECT town FROM t").await).await;
            writer.simple_query("DROP TABLE u; CREATE TABLE u (id BIGINT)").await.unwrap();
            let error = of_both.end().await;
            assert_eq!(
                (state(&error), error.as_db_error().unwrap().message()),
                ("42P01".into(), "table \"u\" was dropped")
            );
            writer.simple_query("ALTER TABLE t RENAME COLUMN town TO city; TRUNCATE t").await.unwrap();
            unconcerned.until(&result(&writer, "SELECT city FROM t").await).await;
        }
    });
    server.wait_for(RUNNING, "0", PATIENCE);
}

#[test]
fn a_client_that_goes_away_is_noticed_while_nothing_happens() {
    let server = Server::start_with(BINARY, &["--query-max-subscriptions", "2"]);
    server.sql("CREATE TABLE t (id BIGINT)");
    runtime().block_on(async {
        let writer = connect(server.pg_port).await.unwrap();
        let mut first = Subscriber::open(&server, "", "SELECT id FROM t", "").await;
        let mut second = Subscriber::open(&server, "", "SELECT count(*) FROM t", "").await;
        // Both have their places.
        first.moment().await.unwrap();
        second.moment().await.unwrap();
        let mut third = Subscriber::open(&server, "", "SELECT id FROM t", "").await;
        let error = third.end().await;
        assert_eq!(state(&error), "53400");
        assert!(error.as_db_error().unwrap().detail().unwrap().contains("query.max_subscriptions is 2"));
        let count = async || writer.query_one(RUNNING, &[]).await.unwrap().get::<_, i64>(0);
        assert_eq!(count().await, 2);
        drop((first, second));
        let start = Instant::now();
        while count().await > 0 {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Their places are free.
        let mut fourth = Subscriber::open(&server, "", "SELECT id FROM t", "").await;
        fourth.moment().await.unwrap();
    });
}

#[test]
fn no_timeout_ends_it_and_nothing_happens_while_nothing_changes() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT)");
    runtime().block_on(async {
        let writer = connect(server.pg_port).await.unwrap();
        let settings = "SET statement_timeout = '300ms'; SET idle_session_timeout = '300ms'";
        let mut subscribers = Vec::new();
        for query in ["SELECT id FROM t", "SELECT count(*) FROM t"] {
            let mut subscriber = Subscriber::open(&server, settings, query, "").await;
            subscriber.moment().await.unwrap();
            subscribers.push((query, subscriber));
        }
        let before = server.cpu_seconds();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let used = server.cpu_seconds() - before;
        println!("{used} CPU seconds of the whole server in two idle ones");
        for (_, subscriber) in &mut subscribers {
            let nothing = tokio::time::timeout(Duration::from_millis(100), subscriber.rows.next()).await;
            assert!(nothing.is_err(), "something came: {nothing:?}");
        }
        writer.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
        for (query, subscriber) in &mut subscribers {
            subscriber.until(&result(&writer, query).await).await;
        }
    });
}

#[test]
fn shutdown_and_kill() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT)");
    server.sql("INSERT INTO t VALUES (1, 1), (2, 2)");
    let runtime = runtime();
    let query = "SELECT id, n FROM t";
    let mut subscriber = runtime.block_on(Subscriber::open(&server, "", query, ""));
    runtime.block_on(subscriber.moment()).unwrap();
    server.kill_and_restart();
    assert!(runtime.block_on(subscriber.end()).is_closed());
    server.sql("INSERT INTO t VALUES (2, 3)");
    let mut subscriber = runtime.block_on(Subscriber::open(&server, "", query, ""));
    runtime.block_on(subscriber.moment()).unwrap();
    let row = |id: i32, n: i32| vec![Some(id.to_string()), Some(n.to_string())];
    assert_eq!(subscriber.state, [(row(1, 1), 1), (row(2, 3), 1)].into());
    // A subscription never ends, so that nobody waits for its end.
    let start = Instant::now();
    let waiting = std::thread::spawn(move || {
        server.stop();
        start.elapsed()
    });
    assert_eq!(state(&runtime.block_on(subscriber.end())), "57P01");
    assert!(waiting.join().unwrap() < Duration::from_secs(8));
}

/// A client that reads nothing for a while gets what is left of many changes, not all of them.
#[test]
fn changes_gather_for_a_slow_client() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, n INT, filler TEXT)");
    runtime().block_on(async {
        let writer = connect(server.pg_port).await.unwrap();
        let mut subscriber = Subscriber::open(&server, "", "SELECT id, n, filler FROM t", "").await;
        subscriber.moment().await.unwrap();
        let rounds = 40;
        for n in 0..rounds {
            // Some 2 MB each.
            let sql = format!("INSERT INTO t SELECT k, {n}, repeat('x', 1000) FROM generate_series(1, 2000) AS s(k)");
            writer.simple_query(&sql).await.unwrap();
        }
        let wanted = result(&writer, "SELECT id, n, filler FROM t").await;
        let mut rows = 0;
        while subscriber.is_open || subscriber.state != wanted {
            rows += 1;
            subscriber.step().await.unwrap();
        }
        println!("{rows} rows of {rounds} rounds of 2000");
        assert!(rows < rounds * 4000 * 3 / 4, "{rows} rows: changes did not gather");
    });
}
