//! Brokers that go away, records that are too large, sinks that take nothing.

use std::{path::PathBuf, process::Command, thread, time::Duration};

use super::{BINARY, PATIENCE, assert_each_once, ids, numbers, produce, sink, topic};
use crate::support::{
    free_port,
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// A broker of the test's own.
struct Broker {
    directory: tempfile::TempDir,
    port: u16,
}

impl Broker {
    fn tool(&self, verb: &str) {
        let tool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools/kafka");
        let mut command = Command::new(tool);
        command.arg(verb).arg(self.directory.path());
        if verb == "start" {
            command.arg(self.port.to_string());
        }
        assert!(command.status().expect("tests/tools/kafka").success(), "{verb}");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tool("stop");
    }
}

/// A port whose next two are free as well: the broker takes all three.
fn three_ports() -> u16 {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (29_600..31_000)
        .step_by(10)
        .map(|port| port + (free_port() % 7))
        .find(|port| (0..3).all(|n| is_free(port + n)))
        .unwrap()
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let Some(brokers) = brokers("pipelines::sinks::trouble::broker") else { return };
    let broker = Broker { directory: tempfile::tempdir().unwrap(), port: three_ports() };
    broker.tool("start");
    let (input, output) = (topic("sink-away-in"), "away".to_owned());
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &broker.address(), &output, ", timeout = '1s', transaction_timeout = '3s'");
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    produce(&feed, 0..1000);
    server.sql("SELECT rt.drain('numbers')");
    let mut sent = 1000;
    for round in 0..2 {
        broker.tool("stop");
        for _ in 0..10 {
            produce(&feed, sent..sent + 100);
            sent += 100;
            thread::sleep(Duration::from_millis(50));
        }
        server.wait_for("SELECT state FROM rt.deliveries", "failing", PATIENCE);
        let error = server.value("SELECT error FROM rt.pipelines");
        assert!(error.contains("sink 'out'") && error.contains(&broker.address()), "{error}");
        server.wait_for("SELECT count(*) FROM rt.deliveries WHERE retry_at IS NOT NULL", "1", PATIENCE);
        if round == 1 {
            server.kill_and_restart();
            server.wait_for("SELECT state FROM rt.pipelines", "failing", PATIENCE);
        }
        // What tables and others do is not held up while the broker is away; the log behind the pipeline keeps the rows.
        broker.tool("start");
        server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
        server.wait_for("SELECT count(*) FROM rt.pipelines WHERE state = 'running'", "1", PATIENCE);
        server.sql("SELECT rt.drain('numbers')");
        assert_each_once(&broker.address(), &output, sent);
    }
}

/// One message is larger than what the topic takes; its neighbours go on, and it is a dead letter, once.
#[test]
fn records_that_are_too_large_are_dead_letters() {
    let Some(brokers) = brokers("pipelines::sinks::trouble::large") else { return };
    let (input, output) = (topic("sink-large-in"), topic("sink-large-out"));
    create_topic(&brokers, &input, 1, &[("max.message.bytes", "3000000")]);
    create_topic(&brokers, &output, 1, &[("max.message.bytes", "20000")]);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, note TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{input}')"
    ));
    sink(&server, &brokers, &output, "");
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, note FROM numbers");
    let feed = Feed::new(&brokers, &input);
    for id in 0..300 {
        let note = "long ".repeat(if id % 100 == 50 { 5_000 } else { 20 });
        feed.send(0, format!(r#"{{"id":{id},"note":"{note}"}}"#).as_bytes());
    }
    feed.flush();
    server.sql("SELECT rt.drain('numbers')");
    for _ in 0..2 {
        let found = ids(&brokers, &output);
        assert!(
            found.len() == 297 && found.values().all(|times| *times == 1) && !found.contains_key(&150),
            "{found:?}"
        );
        let letters = "SELECT count(*) FROM rt.dlq WHERE source = 'out' AND \"table\" = 'p' AND reason LIKE '%max.message.bytes%'";
        assert_eq!(server.value(letters), "3");
        server.kill_and_restart();
        server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    }
}

/// What a sink does not take is kept up to `backlog`; then the pipeline takes nothing more.
#[test]
fn a_backlog_holds_the_pipeline() {
    let Some(brokers) = brokers("pipelines::sinks::trouble::backlog") else { return };
    let (input, output) = (topic("sink-backlog-in"), topic("sink-backlog-out"));
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", backlog = '1MB'");
    server.sql("CREATE TABLE copy (id BIGINT, part INT, pad TEXT)");
    server.sql("CREATE PIPELINE p INTO out, copy AS SELECT id, part, repeat(md5(id::text), 8) AS pad FROM numbers");
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    server.kill_9();
    // Commits fail after the first one, which has the place alone.
    server.spawn_with(&[("FAILPOINTS", "delivery::before_commit=1*off->sleep(600000)")]);
    server.wait_ready();
    server.wait_for("SELECT state FROM rt.deliveries", "delivering", PATIENCE);
    let feed = Feed::new(&brokers, &input);
    for at in 0..20 {
        produce(&feed, at * 2000..at * 2000 + 2000);
        thread::sleep(Duration::from_millis(50));
    }
    server.wait_for("SELECT state FROM rt.pipelines", "held", PATIENCE);
    let error = server.value("SELECT error FROM rt.pipelines");
    assert!(error.contains("backlog") && error.contains("'out'"), "{error}");
    let rows: u64 = server.value("SELECT rows_out FROM rt.pipelines").parse().unwrap();
    assert!(rows < 40_000, "{rows}");
    server.kill_and_restart();
    server.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, 40_000);
    assert_eq!(server.value("SELECT count(DISTINCT id) FROM copy"), "40000");
}
