//! kill -9 around each commit.

use std::{thread, time::Duration};

use super::{BINARY, assert_each_once, ids, numbers, produce, sink, topic};
use crate::support::{
    kafka::{Feed, brokers},
    server::Server,
};

/// Where a process is killed: before anything is prepared, between prepare and commit on either side, after the commit, and around the checkpoint that a commit waits for.
const POINTS: [&str; 5] = [
    "delivery::before_commit",
    "sink::before_commit",
    "sink::after_commit",
    "checkpoint::before_log",
    "checkpoint::after_log",
];

#[test]
fn twenty_kills_around_commits_repeat_and_lose_nothing() {
    let Some(brokers) = brokers("pipelines::sinks::crash::twenty_kills") else { return };
    let (input, output) = (topic("sink-kills-in"), topic("sink-kills-out"));
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", key = 'id', commit_interval = '20ms'");
    server.sql("CREATE PIPELINE p INTO SINK out WITH (checkpoint_interval = '100ms') AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    let mut sent = 0;
    for kill in 0..20_u64 {
        server.kill_9();
        let point = POINTS[kill as usize % POINTS.len()];
        // Some commits go well: that of the place alone, and some of rows.
        let well = 1 + kill % 4 + if point.starts_with("checkpoint") { 3 } else { 0 };
        server.spawn_with(&[("FAILPOINTS", &format!("{point}={well}*off->sleep(600000)"))]);
        server.wait_ready();
        for _ in 0..8 {
            produce(&feed, sent..sent + 150);
            sent += 150;
            thread::sleep(Duration::from_millis(60 + kill * 3));
        }
    }
    server.kill_and_restart();
    server.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, sent);
    server.stop();
    server.spawn();
    server.wait_ready();
    produce(&feed, sent..sent + 10);
    server.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, sent + 10);
    server.sql("DROP PIPELINE p");
    server.sql("DROP SINK out");
    assert_eq!(server.value("SELECT count(*) FROM rt.sinks"), "0");
}

#[test]
fn at_least_once_loses_nothing() {
    let Some(brokers) = brokers("pipelines::sinks::crash::at_least_once") else { return };
    let (input, output) = (topic("sink-least-in"), topic("sink-least-out"));
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", delivery = 'at_least_once'");
    server.sql("INSERT INTO out SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    let mut sent = 0;
    for kill in 0..4 {
        for _ in 0..5 {
            produce(&feed, sent..sent + 300);
            sent += 300;
            thread::sleep(Duration::from_millis(40 + kill * 30));
        }
        server.kill_and_restart();
    }
    server.sql("SELECT rt.drain('numbers')");
    let found = ids(&brokers, &output);
    assert!((0..sent).all(|id| found.contains_key(&id)), "{} of {sent}", found.len());
    assert_eq!(found.len() as u64, sent);
    // What a checkpoint has is not sent again.
    server.wait_for(
        "SELECT delivered FROM rt.checkpoints ORDER BY id DESC LIMIT 1",
        &format!("{{\"out\":{}}}", server.value("SELECT position FROM rt.deliveries")),
        super::PATIENCE,
    );
    let before: usize = ids(&brokers, &output).values().sum();
    server.kill_and_restart();
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", super::PATIENCE);
    server.sql("SELECT rt.drain('numbers')");
    assert_eq!(ids(&brokers, &output).values().sum::<usize>(), before);
}
