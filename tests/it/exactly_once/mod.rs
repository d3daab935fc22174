//! Exactly once, proven with the real process: kill -9 in the middle of everything, aborted transactions, retention gaps, late partitions.

mod alter;
mod files;
mod full_disk;
mod holes;
mod hostile;
mod remade;
mod shared_fetch;

use std::{collections::HashMap, env, path::Path, process::Command, time::Duration};

use rdkafka::producer::Producer;

use crate::support::{
    kafka::{Feed, add_partitions, brokers, create_topic},
    server::{Server, describe},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn topic(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn create(server: &Server, brokers: &str, topic: &str, options: &str, table: &str) {
    server.sql(&format!(
        "CREATE SOURCE raw (part INT, seq BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json' {options})"
    ));
    server.sql(&format!("CREATE TABLE t (part INT, seq BIGINT) WITH ({table}) FROM SOURCE raw"));
}

fn send(feed: &Feed, part: i32, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        feed.send(part, format!(r#"{{"part":{part},"seq":{seq}}}"#).as_bytes());
    }
}

#[test]
fn kill_9_at_random_moments_loses_and_repeats_nothing() {
    let Some(brokers) = brokers("exactly_once::kill_9_at_random_moments_loses_and_repeats_nothing") else { return };
    let kills: u64 =
        env::var("TIDEMILL_TEST_KILLS").map_or(6, |text| text.parse().expect("TIDEMILL_TEST_KILLS is a number"));
    let topic = topic("kills");
    create_topic(&brokers, &topic, 4, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 4, seal_rows = 3000");
    let mut sent = 0;
    let mut random = 7u64;
    for kill in 0..kills {
        for part in 0..4 {
            send(&feed, part, sent..sent + 5000);
        }
        feed.flush();
        sent += 5000;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((random >> 40) % 400));
        server.kill_and_restart();
        let rows =
            server.sql("SELECT part, count(*), count(DISTINCT seq), min(seq), max(seq) + 1 FROM t GROUP BY part");
        for row in rows {
            assert!(
                row[1] == row[2] && row[1] == row[4] && row[3].as_deref() == Some("0"),
                "after kill {kill}: {row:?}"
            );
        }
    }
    server.wait_for("SELECT count(*) FROM t", &(4 * sent).to_string(), Duration::from_secs(60));
    let states = "SELECT string_agg(DISTINCT state, ' ') FROM rt.consistency_check('t')";
    assert_eq!(server.value(states), "equal", "message by message");
    let sum = (sent * (sent - 1) / 2).to_string();
    for row in server.sql("SELECT count(*), count(DISTINCT seq), sum(seq) FROM t GROUP BY part") {
        assert_eq!(row, [Some(sent.to_string()), Some(sent.to_string()), Some(sum.clone())]);
    }
    // Kafka's own tools see how far we have committed.
    server.sql("SELECT rt.seal('t')");
    assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE state <> 'committed' AND rows > 0"), "0");
    assert_eq!(server.value("SELECT sum(committed_offset) FROM rt.partitions"), (4 * sent).to_string());
}

#[test]
fn acknowledged_inserts_survive_kill_9() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (part INT, seq BIGINT, note TEXT) WITH (seal_rows = 700)");
    let mut sent = 0;
    for _ in 0..4 {
        for _ in 0..5 {
            let values: Vec<_> = (sent..sent + 100).map(|seq| format!("(0, {seq}, 'row {seq}')")).collect();
            server.sql(&format!("INSERT INTO t VALUES {}", values.join(", ")));
            sent += 100;
            assert_eq!(
                server.value("SELECT count(*) FROM t"),
                sent.to_string(),
                "INSERT returns when its rows are visible"
            );
        }
        server.kill_and_restart();
        // At once: the first query after a start used to see fewer rows now and then, while the log was read.
        assert_eq!(server.value("SELECT count(*) FROM t"), sent.to_string());
        let row = &server.sql("SELECT count(DISTINCT seq), sum(seq), max(note) FROM t")[0];
        assert_eq!(row[..2], [Some(sent.to_string()), Some((sent * (sent - 1) / 2).to_string())]);
    }
}

/// A transaction whose producer is gone held its partition back with state `running` and lag 0, and nothing said so.
#[test]
fn a_hanging_transaction_is_named_and_stalls_its_partition_only() {
    let Some(brokers) = brokers("exactly_once::a_hanging_transaction_is_named_and_stalls_its_partition_only") else {
        return;
    };
    let topic = topic("hanging");
    create_topic(&brokers, &topic, 2, &[]);
    let settings = HashMap::from([("transactional.id", topic.as_str()), ("transaction.timeout.ms", "600000")]);
    let hanging = Feed::with(&brokers, &topic, &settings);
    let timeout = Duration::from_secs(30);
    hanging.producer().init_transactions(timeout).unwrap();
    let server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 2");
    hanging.producer().begin_transaction().unwrap();
    send(&hanging, 0, 0..10);
    hanging.flush();
    let others = Feed::new(&brokers, &topic);
    send(&others, 0, 10..30);
    send(&others, 1, 0..50);
    others.flush();
    server.wait_for("SELECT count(*) FROM t", "50", Duration::from_secs(20));

    let waits = "SELECT count(*) FROM rt.partitions WHERE source_partition = 0 AND state = 'running' AND position = 0 \
                 AND error LIKE 'a transaction that began at offset 0 has been open for % 30 offsets %'";
    server.wait_for(waits, "1", Duration::from_secs(40));
    assert_eq!(
        server.value("SELECT count(*) FROM rt.partitions WHERE source_partition = 1 AND error IS NOT NULL"),
        "0"
    );
    let said = "SELECT count(*) FROM rt.events WHERE kind = 'open_transaction' AND severity = 'warning' \
                AND message LIKE 'partition 0 of source ''raw'' for table ''t'': % at offset 0 %'";
    assert_eq!(server.value(said), "0", "a short one is no event");
    send(&others, 1, 50..60);
    others.flush();
    server.wait_for("SELECT count(*) FROM t", "60", Duration::from_secs(20));
    server.wait_for(said, "1", Duration::from_secs(90));

    hanging.producer().abort_transaction(timeout).unwrap();
    server.wait_for("SELECT count(*) FROM t WHERE part = 0 AND seq >= 10", "20", Duration::from_secs(20));
    let over = "SELECT count(*) FROM rt.events WHERE kind = 'transaction_ended'";
    server.wait_for(over, "1", Duration::from_secs(20));
    assert_eq!(server.value(said), "1", "it is said once");
    assert_eq!(server.value("SELECT count(*) FROM rt.partitions WHERE error IS NOT NULL"), "0");
}

#[test]
fn aborted_transactions_are_never_seen() {
    let Some(brokers) = brokers("exactly_once::aborted_transactions_are_never_seen") else { return };
    let topic = topic("transactions");
    create_topic(&brokers, &topic, 1, &[]);
    let id = topic.clone();
    let feed = Feed::with(&brokers, &topic, &HashMap::from([("transactional.id", id.as_str())]));
    let timeout = Duration::from_secs(30);
    feed.producer().init_transactions(timeout).unwrap();
    let server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 1");

    feed.producer().begin_transaction().unwrap();
    send(&feed, 0, 0..100);
    feed.flush();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.value("SELECT count(*) FROM t"), "0", "an open transaction is not visible");
    feed.producer().commit_transaction(timeout).unwrap();
    server.wait_for("SELECT count(*) FROM t", "100", Duration::from_secs(10));

    feed.producer().begin_transaction().unwrap();
    send(&feed, 0, 1000..1100);
    feed.flush();
    feed.producer().abort_transaction(timeout).unwrap();
    feed.producer().begin_transaction().unwrap();
    send(&feed, 0, 100..150);
    feed.producer().commit_transaction(timeout).unwrap();
    server.wait_for("SELECT count(*) FROM t", "150", Duration::from_secs(10));
    server.sql("SELECT rt.drain('raw')");
    assert_eq!(server.value("SELECT max(seq) FROM t"), "149");
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
}

#[test]
fn reads_with_a_name_and_a_password_and_says_what_is_refused() {
    let Some(brokers) = brokers("exactly_once::reads_with_a_name_and_a_password_and_says_what_is_refused") else {
        return;
    };
    // tests/tools/kafka has its SASL listener two ports on.
    let (host, port) = brokers.rsplit_once(':').unwrap();
    let secured = format!("{host}:{}", port.parse::<u16>().unwrap() + 2);
    if std::net::TcpStream::connect(&secured).is_err() {
        println!(
            "SKIPPED exactly_once::reads_with_a_name_and_a_password_and_says_what_is_refused: nothing at {secured}"
        );
        return;
    }
    let topic = topic("sasl");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 0..100);
    feed.flush();
    let server = Server::start(BINARY);
    let source = |name: &str, more: &str| {
        server.try_sql(&format!(
            "CREATE SOURCE {name} (part INT, seq BIGINT) WITH (connector = 'kafka', brokers = '{secured}', topic = '{topic}',
             properties.security.protocol = 'SASL_PLAINTEXT', properties.sasl.mechanism = 'PLAIN',
             properties.sasl.username = 'alice', {more})"
        ))
    };
    let refused = describe(&source("wrong", "properties.sasl.password = 'guessed'").unwrap_err());
    assert!(refused.starts_with("08001") && refused.contains("uthentication"), "{refused}");
    source("raw", "properties.sasl.password = 'alice-secret'").unwrap();
    server.sql("CREATE TABLE t FROM SOURCE raw");
    server.wait_for("SELECT count(*) FROM t", "100", Duration::from_secs(20));
    assert!(!server.value("SELECT options FROM rt.sources").contains("alice-secret"), "passwords are not shown");
    let ssl = server.try_sql(&format!(
        "CREATE SOURCE ssl (part INT) WITH (connector = 'kafka', brokers = '{secured}', topic = '{topic}',
         properties.security.protocol = 'SSL')"
    ));
    let ssl = describe(&ssl.unwrap_err());
    assert!(ssl.starts_with("0A000") && ssl.contains("properties.security.protocol"), "{ssl}");
}

#[test]
fn new_partitions_of_a_topic_are_read() {
    let Some(brokers) = brokers("exactly_once::new_partitions_of_a_topic_are_read") else { return };
    let topic = topic("growing");
    create_topic(&brokers, &topic, 1, &[]);
    let server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 2");
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 0..10);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "10", Duration::from_secs(20));
    add_partitions(&brokers, &topic, 3);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 1, 0..10);
    send(&feed, 2, 0..10);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "30", Duration::from_secs(20));
}

#[test]
fn a_retention_gap_is_an_event_and_never_silent() {
    let Some(brokers) = brokers("exactly_once::a_retention_gap_is_an_event_and_never_silent") else { return };
    let topic = topic("gap");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    send(&feed, 0, 0..100);
    feed.flush();
    let mut server = Server::start(BINARY);
    create(&server, &brokers, &topic, "", "partitions = 1");
    server.wait_for("SELECT count(*) FROM t", "100", Duration::from_secs(20));
    server.sql("SELECT rt.seal('t')");
    server.stop();

    send(&feed, 0, 100..200);
    feed.flush();
    delete_records_before(&brokers, &topic, 150);
    server.spawn();
    server.wait_ready();
    server.wait_for(
        "SELECT count(*) > 0 FROM rt.events WHERE message LIKE '%100%' AND message LIKE '%150%'",
        "t",
        Duration::from_secs(20),
    );
    assert_eq!(server.value("SELECT count(*) FROM t"), "100", "the default is to stop, not to go on with a hole");

    // The way on is the one that the error names.
    let error = server.value("SELECT max(error) FROM rt.partitions WHERE state = 'stopped'");
    let statement = error.rsplit_once("; ").unwrap().1.strip_suffix(" goes on without them").unwrap().to_owned();
    let source = server.value("SELECT name FROM rt.sources");
    assert_eq!(statement, format!("ALTER SOURCE {source} SET (on_gap = 'skip')"));
    let refused = server.try_sql(&format!("ALTER SOURCE {source} SET (topic = 'other')")).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    server.sql(&statement);
    server.wait_for("SELECT count(*) FROM t", "150", Duration::from_secs(20));
    server.kill_and_restart();
    send(&feed, 0, 200..210);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "160", Duration::from_secs(20));
}

fn delete_records_before(brokers: &str, topic: &str, offset: u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = serde_json::json!({"partitions": [{"topic": topic, "partition": 0, "offset": offset}], "version": 1});
    std::fs::write(file.path(), plan.to_string()).unwrap();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/kafka");
    let output = Command::new(tool)
        .args([
            "exec",
            "delete-records",
            "--bootstrap-server",
            brokers,
            "--offset-json-file",
            file.path().to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
