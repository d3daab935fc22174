//! Two servers that go on from one data directory: only one of them may deliver.

use std::{path::Path, process::Command, time::Duration};

use super::{BINARY, PATIENCE, assert_each_once, numbers, produce, sink, topic};
use crate::support::{
    kafka::{Feed, brokers},
    server::Server,
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// The copy takes over; the first server is fenced, sees that the place is signed by another one, and stands still for good. Nothing comes twice.
#[test]
fn a_copy_takes_over_and_the_first_stands_still() {
    let Some(brokers) = brokers("pipelines::sinks::copies::takes_over") else { return };
    let (input, output) = (topic("sink-copy-in"), topic("sink-copy-out"));
    let mut first = Server::start(BINARY);
    numbers(&first, &brokers, &input);
    sink(&first, &brokers, &output, "");
    first.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    produce(&feed, 0..500);
    first.sql("SELECT rt.drain('numbers')");
    // As it is at one moment, and with a process that thinks that nothing has happened since.
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &first.pid().to_string()]).status().unwrap();
        assert!(status.success());
    };
    signal("-STOP");
    let directory = tempfile::tempdir().unwrap();
    let copied = directory.path().join("data");
    copy(&first.data_dir, &copied);
    let second = Server::start_in(BINARY, &copied);
    second.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    signal("-CONT");
    produce(&feed, 500..1000);
    second.sql("SELECT rt.drain('numbers')");
    first.wait_for("SELECT state FROM rt.deliveries", "refused", PATIENCE);
    first.wait_for("SELECT state FROM rt.pipelines", "failing", PATIENCE);
    let error = first.value("SELECT error FROM rt.pipelines");
    assert!(error.contains("sink 'out'") && error.contains("another server"), "{error}");
    assert_eq!(first.value("SELECT count(*) FROM rt.events WHERE kind = 'delivery_refused'"), "1");
    // A restart does not help it.
    first.kill_and_restart();
    first.wait_for("SELECT state FROM rt.deliveries", "refused", PATIENCE);
    produce(&feed, 1000..1100);
    second.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, 1100);
    // What it does not deliver does not keep it from being dropped.
    first.sql("DROP PIPELINE p");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(second.value("SELECT state FROM rt.deliveries"), "delivering");
}

/// A directory of yesterday whose server went on since: its log ends before the place.
#[test]
fn an_old_copy_is_refused() {
    let Some(brokers) = brokers("pipelines::sinks::copies::old") else { return };
    let (input, output) = (topic("sink-old-in"), topic("sink-old-out"));
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, "");
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    produce(&feed, 0..300);
    server.sql("SELECT rt.drain('numbers')");
    server.kill_9();
    let directory = tempfile::tempdir().unwrap();
    let copied = directory.path().join("data");
    copy(&server.data_dir, &copied);
    server.spawn();
    server.wait_ready();
    produce(&feed, 300..600);
    server.sql("SELECT rt.drain('numbers')");
    server.stop();
    let old = Server::start_in(BINARY, &copied);
    old.wait_for("SELECT state FROM rt.deliveries", "refused", PATIENCE);
    assert_eq!(old.value("SELECT rows_in FROM rt.pipelines"), "300");
    drop(old);
    assert_each_once(&brokers, &output, 600);
}
