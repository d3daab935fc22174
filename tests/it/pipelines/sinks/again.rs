//! Dead letters of a sink that are sent again: each is a record once, or a letter.

use std::{thread, time::Duration};

use super::{super::lines, BINARY, PATIENCE, ids, refused, sink, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic, set_topic},
    server::{Server, connect, runtime},
};

const ROWS: u64 = 400;

fn long(id: u64) -> bool {
    id % 10 == 3
}

/// Every tenth row is too long for the topic.
fn start(brokers: &str, name: &str, options: &str) -> (Server, String, Feed) {
    let (input, output) = (topic(&format!("{name}-in")), topic(&format!("{name}-out")));
    create_topic(brokers, &input, 1, &[("max.message.bytes", "3000000")]);
    create_topic(brokers, &output, 1, &[("max.message.bytes", "20000")]);
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, note TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{input}')"
    ));
    sink(&server, brokers, &output, options);
    server.sql("CREATE PIPELINE p INTO out WITH (checkpoint_interval = '50ms') AS SELECT id, note FROM numbers");
    let feed = Feed::new(brokers, &input);
    for id in 0..ROWS {
        let note = "long ".repeat(if long(id) { 5_000 } else { 20 });
        feed.send(0, format!(r#"{{"id":{id},"note":"{note}"}}"#).as_bytes());
    }
    feed.flush();
    server.sql("SELECT rt.drain('numbers')");
    (server, output, feed)
}

const LETTERS: &str = "SELECT count(*) FROM rt.dlq";

#[test]
fn letters_of_a_sink_are_sent_once_over_kills() {
    let Some(brokers) = brokers("pipelines::sinks::again::letters_of_a_sink") else { return };
    let (mut server, output, feed) = start(&brokers, "sink-again", "");
    let letters = (0..ROWS).filter(|id| long(*id)).count() as u64;
    assert_eq!(server.value(LETTERS), letters.to_string());
    assert_eq!(lines(&server, "SELECT DISTINCT source, \"table\", partition FROM rt.dlq"), ["out p 0"]);
    // Nothing was set right yet.
    assert_eq!(server.value("SELECT rt.dlq_replay('out')"), "0");
    assert_eq!(server.value(LETTERS), letters.to_string());
    server.sql("ALTER SINK out RENAME TO away");
    assert_eq!(lines(&server, "SELECT DISTINCT source FROM rt.dlq"), ["away"]);
    set_topic(&brokers, &output, "max.message.bytes", "2000000");
    // What it does is killed at each of its steps, once each.
    let steps = [
        ("sink::before_commit", 1),
        ("sink::before_commit", 2),
        ("sink::after_commit", 2),
        ("delivery::before_forget", 0),
        ("checkpoint::before_log", 2),
        ("checkpoint::after_log", 2),
    ];
    let mut sent = ROWS;
    for (point, well) in steps {
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}={well}*off->sleep(600000)"))]);
        server.wait_ready();
        let port = server.pg_port;
        let replay = thread::spawn(move || {
            runtime().block_on(async {
                let Ok(client) = connect(port).await else { return };
                let _ = client.simple_query("SELECT rt.dlq_replay('away')").await;
            })
        });
        thread::sleep(Duration::from_millis(700));
        server.kill_and_restart();
        replay.join().unwrap();
        server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
        // Whoever took over has forgotten what was sent, and a row more comes as ever.
        feed.send(0, format!(r#"{{"id":{sent},"note":"short"}}"#).as_bytes());
        feed.flush();
        sent += 1;
        server.sql("SELECT rt.drain('numbers')");
        let found = ids(&brokers, &output);
        let left: u64 = server.value(LETTERS).parse().unwrap();
        assert!(found.values().all(|times| *times == 1), "{point} {well}: {found:?}");
        assert_eq!(found.len() as u64 + left, sent, "{point} {well}");
    }
    server.sql("SELECT rt.dlq_replay('away')");
    for _ in 0..2 {
        let found = ids(&brokers, &output);
        assert!(found.len() as u64 == sent && found.values().all(|times| *times == 1), "{found:?}");
        assert_eq!(server.value(LETTERS), "0");
        assert_eq!(server.value("SELECT rt.dlq_replay('away')"), "0");
        server.kill_and_restart();
        server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    }
}

/// Some are refused still: the others go, and these stay.
#[test]
fn letters_that_are_refused_again_stay() {
    let Some(brokers) = brokers("pipelines::sinks::again::letters_that_are_refused") else { return };
    let (server, output, feed) = start(&brokers, "sink-again-some", ", delivery = 'at_least_once'");
    let letters = (0..ROWS).filter(|id| long(*id)).count();
    feed.send(0, format!(r#"{{"id":{ROWS},"note":"{}"}}"#, "very ".repeat(50_000)).as_bytes());
    feed.flush();
    server.sql("SELECT rt.drain('numbers')");
    assert_eq!(server.value(LETTERS), (letters + 1).to_string());
    set_topic(&brokers, &output, "max.message.bytes", "100000");
    assert_eq!(server.value("SELECT rt.dlq_replay('out')"), letters.to_string());
    assert_eq!(ids(&brokers, &output).len() as u64, ROWS);
    let left = format!("SELECT source FROM rt.dlq WHERE raw_text LIKE '%\"id\": {ROWS},%'");
    assert_eq!(lines(&server, &left), ["out"]);
    assert_eq!(server.value("SELECT rt.dlq_replay('out')"), "0");
    let (code, message, _) = refused(&server, "SELECT rt.dlq_replay('nothing')");
    assert_eq!(code, "42P01", "{message}");
}
