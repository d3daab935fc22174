//! A topic that is deleted and created again, with a real broker: see `ingest/src/landmark.rs`.

use std::time::Duration;

use crate::support::{
    kafka::{Feed, brokers, create_topic, delete_topic},
    server::{Server, describe},
};

use super::{BINARY, create, send, topic};

const PATIENCE: Duration = Duration::from_secs(40);

fn stopped(server: &Server) -> String {
    server.wait_for("SELECT state FROM rt.partitions WHERE source = 'raw'", "stopped", PATIENCE);
    server.value("SELECT error FROM rt.partitions WHERE source = 'raw'")
}

/// It was read on in silence from the old offset, in the middle of the new topic, when that had more messages than the old one.
#[test]
fn a_topic_made_anew_while_the_server_was_down_is_told_and_taken_up_again() {
    let Some(brokers) =
        brokers("exactly_once::remade::a_topic_made_anew_while_the_server_was_down_is_told_and_taken_up_again")
    else {
        return;
    };
    let topic = topic("remade");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 0..100);
    feed.flush();
    drop(feed);
    let mut server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 1, seal_rows = 50");
    server.wait_for("SELECT count(*) FROM t", "100", PATIENCE);
    server.sql("SELECT rt.seal('t')");
    // The same topic is known again.
    server.kill_and_restart();
    server.wait_for("SELECT state FROM rt.partitions WHERE source = 'raw'", "running", PATIENCE);
    server.kill_9();

    delete_topic(&brokers, &topic);
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 1000..1500);
    feed.flush();
    server.spawn();
    server.wait_ready();
    let error = stopped(&server);
    assert!(error.contains("made anew") && error.contains("ALTER SOURCE raw RESET OFFSETS TO 'earliest'"), "{error}");
    assert_eq!(server.value("SELECT count(*) FROM rt.events WHERE kind = 'topic_remade'"), "1");
    assert_eq!(server.value("SELECT count(*) FROM t"), "100");
    // Neither SET nor a pause is a way round.
    server.sql("ALTER SOURCE raw SET (on_gap = 'skip')");
    server.sql("ALTER TABLE t PAUSE INGESTION");
    server.sql("ALTER TABLE t RESUME INGESTION");
    std::thread::sleep(Duration::from_secs(1));
    stopped(&server);
    assert_eq!(server.value("SELECT max(seq) FROM t"), "99");

    for (statement, code) in [
        ("ALTER SOURCE raw RESET OFFSETS TO 'first'", "22023"),
        ("ALTER SOURCE raw RESET OFFSETS TO 'offsets:{0:501}'", "22023"),
        ("ALTER SOURCE raw RESET OFFSETS TO 'offsets:{3:0}'", "22023"),
        ("ALTER SOURCE raw RESET OFFSETS", "42601"),
        ("ALTER SOURCE rav RESET OFFSETS TO 'earliest'", "42704"),
    ] {
        let refused = describe(&server.try_sql(statement).unwrap_err());
        assert!(refused.starts_with(code), "{statement}: {refused}");
    }
    server.sql("ALTER SOURCE raw RESET OFFSETS TO 'earliest'");
    server.wait_for("SELECT count(*) FROM t", "600", PATIENCE);
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE change = 'source.reset'"), "1");
    server.kill_and_restart();
    send(&feed, 0, 1500..1600);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "700", PATIENCE);
    assert_eq!(server.value("SELECT count(DISTINCT seq) FROM t"), "700");
    assert_eq!(server.value("SELECT min(seq) FROM t WHERE seq >= 100"), "1000");
}

#[test]
fn a_topic_made_anew_while_it_is_read_is_told() {
    let Some(brokers) = brokers("exactly_once::remade::a_topic_made_anew_while_it_is_read_is_told") else { return };
    let topic = topic("remade-live");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 0..100);
    feed.flush();
    drop(feed);
    let server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 1");
    server.wait_for("SELECT count(*) FROM t", "100", PATIENCE);
    delete_topic(&brokers, &topic);
    server.wait_for("SELECT count(*) > 0 FROM rt.events WHERE kind = 'source_unavailable'", "t", PATIENCE);
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 1000..1500);
    feed.flush();
    let error = stopped(&server);
    assert!(error.contains("made anew"), "{error}");
    assert_eq!(server.value("SELECT max(seq) FROM t"), "99");
    server.sql("ALTER SOURCE raw RESET OFFSETS TO 'latest'");
    send(&feed, 0, 1500..1510);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "110", PATIENCE);
}
