//! Dead letters of a pipeline that are put through it again, each once.

use std::{thread, time::Duration};

use super::{BINARY, lines, refused, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::{Server, connect, runtime},
};

const ROWS: i64 = 300;

/// Rows that could not be divided, and rows that the table did not take, after both was set right; killed at any moment of it.
#[test]
fn letters_of_a_pipeline_become_rows_once() {
    let Some(brokers) = brokers("pipelines::replays::letters_of_a_pipeline_become_rows_once") else { return };
    let topic = topic("replays");
    create_topic(&brokers, &topic, 2, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE orders (id TEXT, k INT, n BIGINT) WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
    ));
    server.sql("CREATE TABLE divisors (k INT PRIMARY KEY, d INT)");
    server.sql("INSERT INTO divisors VALUES (0, 0), (1, 1)");
    server.sql("CREATE TABLE quotients (id TEXT, q INT)");
    server.sql(
        "CREATE PIPELINE quotients INTO quotients WITH (checkpoint_interval = '50ms') AS
         SELECT o.id, o.n / d.d FROM orders o JOIN divisors d ON d.k = o.k WHERE o.n < 9000000000",
    );
    let feed = Feed::new(&brokers, &topic);
    let rows = (0..ROWS).map(|i| {
        let n = if i % 10 == 7 { 5_000_000_000 } else { i };
        format!(r#"{{"id":"o{i}","k":{},"n":{n}}}"#, i % 2)
    });
    let (even, odd): (Vec<String>, Vec<String>) = rows.partition(|row| row.contains("\"k\":0"));
    send(&feed, 0, &even);
    send(&feed, 1, &odd);
    send(&feed, 1, &[r#"{"id":"broken","k":"#.to_owned()]);
    server.sql("SELECT rt.drain('orders')");
    let state = "SELECT (SELECT count(*) FROM quotients), (SELECT count(DISTINCT id) FROM quotients), (SELECT count(*) FROM rt.dlq)";
    let (divided, wide) = (ROWS / 2, ROWS / 10);
    let taken = ROWS - divided - wide;
    assert_eq!(lines(&server, state), [format!("{taken} {taken} {}", divided + wide + 1)]);
    // Nothing was set right yet; the reasons stay.
    assert_eq!(server.value("SELECT rt.dlq_replay('quotients')"), "0");
    assert_eq!(lines(&server, state), [format!("{taken} {taken} {}", divided + wide + 1)]);
    let reasons = "SELECT DISTINCT \"table\", left(reason, 16) FROM rt.dlq WHERE reason LIKE 'division%'";
    assert_eq!(lines(&server, reasons), ["quotients division by zero"]);
    server.sql("UPDATE divisors SET d = 2 WHERE k = 0");
    server.sql("ALTER TABLE quotients ALTER COLUMN q TYPE BIGINT");
    for round in 0..6u64 {
        let port = server.pg_port;
        let replay = thread::spawn(move || {
            runtime().block_on(async {
                // It may be killed in the middle, or before.
                let Ok(client) = connect(port).await else { return };
                let _ = client.simple_query("SELECT rt.dlq_replay('quotients')").await;
            })
        });
        thread::sleep(Duration::from_millis(15 * round));
        server.kill_and_restart();
        replay.join().unwrap();
        server.sql("SELECT rt.drain('orders')");
        let found = lines(&server, state);
        let numbers: Vec<i64> = found[0].split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(numbers[0] == numbers[1] && numbers[0] + numbers[2] == ROWS + 1, "round {round}: {found:?}");
    }
    server.sql("SELECT rt.dlq_replay('orders')");
    server.sql("SELECT rt.dlq_replay('quotients')");
    for _ in 0..2 {
        assert_eq!(lines(&server, state), [format!("{ROWS} {ROWS} 1")]);
        assert_eq!(server.value("SELECT sum(q) FROM quotients WHERE id IN ('o2', 'o5', 'o17', 'o298')"), "5000000155");
        assert_eq!(server.value("SELECT rt.dlq_replay('quotients')"), "0");
        server.kill_and_restart();
        server.sql("SELECT rt.drain('orders')");
    }
    server.sql("ALTER PIPELINE quotients PAUSE");
    let (_, message, _) = refused(&server, "SELECT rt.dlq_replay('quotients')");
    assert!(message.contains("is paused"), "{message}");
    server.sql("ALTER PIPELINE quotients RESUME");
    server.sql("CREATE PIPELINE twice INTO quotients AS SELECT id, n / (n - n) FROM orders UNION ALL SELECT 'second ' || id, n FROM orders WHERE n < 0");
    server.sql("SELECT rt.drain('orders')");
    let (code, message, _) = refused(&server, "SELECT rt.dlq_replay('twice')");
    assert!(code == "0A000" && message.contains("more than once"), "{code} {message}");
}
