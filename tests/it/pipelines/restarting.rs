//! ALTER PIPELINE … RESTART FROM CHECKPOINT, and records that are known by their UUIDs.

use super::{BINARY, PATIENCE, lines, refused, topic};
use crate::support::{
    kafka::{Feed, brokers, committed, create_topic},
    server::Server,
};

/// Back to a checkpoint after which rows were read and none was given: they are read again, and every window has each row once.
#[test]
fn a_pipeline_goes_back_to_a_checkpoint() {
    let Some(brokers) = brokers("pipelines::restarting::goes_back") else { return };
    let topic = topic("restart");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE events (key INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE sums (key INT, start TIMESTAMPTZ, rows BIGINT)");
    server.sql(
        "CREATE PIPELINE p INTO sums WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour') AS
         SELECT key, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*) FROM events GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)",
    );
    let feed = Feed::new(&brokers, &topic);
    let send = |seconds: std::ops::Range<i64>| {
        for second in seconds {
            feed.send(0, format!(r#"{{"key":1,"ts":{}}}"#, (1_709_294_400 + second) * 1000).as_bytes());
        }
        feed.flush();
    };
    let newest = "SELECT max(id) FROM rt.checkpoints";
    send(0..3);
    server.sql("SELECT rt.drain('events')");
    server.wait_for("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets LIKE '%:3}'", "t", PATIENCE);
    let kept: u64 = server.value(newest).parse().unwrap();
    send(3..7);
    server.wait_for("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets LIKE '%:7}'", "t", PATIENCE);
    server.sql(&format!("ALTER PIPELINE p RESTART FROM CHECKPOINT {kept}"));
    server.sql("SELECT rt.drain('events')");
    assert_eq!(lines(&server, "SELECT rows_in, rows_out FROM rt.pipelines"), ["7 0"]);
    send(7..12);
    server.sql("SELECT rt.drain('events')");
    assert_eq!(lines(&server, "SELECT rows FROM sums"), ["10"]);
    server.wait_for("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets LIKE '%:12}'", "t", PATIENCE);
    // The window was seen: no way back before it, and nothing is stopped by asking.
    let before = server.value("SELECT min(id) FROM rt.checkpoints WHERE rows_out = 0");
    if before != "NULL" {
        let (code, message, hint) = refused(&server, &format!("ALTER PIPELINE p RESTART FROM CHECKPOINT {before}"));
        assert!(
            code == "55000" && message.contains("\"sums\"") && hint.contains("taken back"),
            "{code} {message} {hint}"
        );
    }
    let (code, message, hint) = refused(&server, "ALTER PIPELINE p RESTART FROM CHECKPOINT 999999");
    assert!(
        code == "42704" && message.contains("999999") && hint.contains("it has the checkpoints "),
        "{code} {message} {hint}"
    );
    send(12..25);
    server.sql("SELECT rt.drain('events')");
    assert_eq!(lines(&server, "SELECT rows FROM sums"), ["10", "10"]);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('events')");
    assert_eq!(lines(&server, "SELECT rows FROM sums"), ["10", "10"]);
}

/// Records into a topic at least once, each with a UUID: what comes again after a crash has the same one.
#[test]
fn records_that_come_again_have_the_same_uuid() {
    let Some(brokers) = brokers("pipelines::restarting::uuids") else { return };
    let (input, output) = (topic("uuid-in"), topic("uuid-out"));
    create_topic(&brokers, &input, 2, &[]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE events (id BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{input}')"
    ));
    server.sql(&format!(
        "CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}', create_topic = 'true', delivery = 'at_least_once', key = 'uuid')"
    ));
    server.sql("CREATE PIPELINE p INTO out WITH (checkpoint_interval = '1 hour') AS SELECT id, rt_uuid('events', id) AS uuid FROM events");
    let feed = Feed::new(&brokers, &input);
    for id in 0..500 {
        feed.send(id % 2, format!(r#"{{"id":{id}}}"#).as_bytes());
    }
    feed.flush();
    server.sql("SELECT rt.drain('events')");
    // No checkpoint has them: all come again.
    server.kill_and_restart();
    server.sql("SELECT rt.drain('events')");
    let records = committed(&brokers, &output);
    assert!(records.len() > 500, "{}", records.len());
    let distinct: std::collections::BTreeSet<_> = records.iter().map(|record| (&record.key, &record.value)).collect();
    let keys: std::collections::BTreeSet<_> = records.iter().map(|record| &record.key).collect();
    assert_eq!((distinct.len(), keys.len()), (500, 500));
    let known = server.value("SELECT rt_uuid('events', 7)");
    assert!(records.iter().any(|record| record.key.as_deref() == Some(&known)));
}
