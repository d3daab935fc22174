//! ALTER SINK: what may change while pipelines deliver, without a record more or less.

use std::{thread, time::Duration};

use rdkafka::mocking::MockCluster;

use super::{super::lines, BINARY, PATIENCE, assert_each_once, ids, numbers, produce, refused, sink, topic};
use crate::support::{
    free_port,
    kafka::{Feed, brokers},
    server::Server,
};

#[test]
fn options_change_while_records_flow() {
    let Some(brokers) = brokers("pipelines::sinks::altering::options_change") else { return };
    let (input, output) = (topic("sink-altered-in"), topic("sink-altered-out"));
    let mut server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", commit_interval = '20ms'");
    server.sql("CREATE PIPELINE p INTO out WITH (checkpoint_interval = '100ms') AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    // The same broker under another name.
    let port = brokers.rsplit(':').next().unwrap();
    let mut sent = 0;
    for round in 0..12_u64 {
        for _ in 0..4 {
            produce(&feed, sent..sent + 150);
            sent += 150;
            thread::sleep(Duration::from_millis(15));
        }
        let name = if round % 4 < 2 { "out" } else { "away" };
        match round % 4 {
            0 => server.sql(&format!("ALTER SINK {name} SET (commit_interval = '{}ms', backlog = '64MB')", 5 + round * 10)),
            1 => server.sql("ALTER SINK out RENAME TO away"),
            2 => server.sql(&format!(
                "ALTER SINK {name} SET (brokers = 'localhost:{port}', transaction_timeout = '{}s', properties.linger.ms = '{round}')",
                20 + round
            )),
            _ => server.sql("ALTER SINK away RENAME TO out"),
        };
        if round % 5 == 4 {
            server.kill_and_restart();
        }
    }
    server.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, sent);
    let shown = "SELECT name, options::jsonb ->> 'brokers', options::jsonb ->> 'transaction_timeout' FROM rt.sinks";
    for _ in 0..2 {
        assert_eq!(lines(&server, shown), [format!("out localhost:{port} 30s")]);
        server.kill_and_restart();
    }
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE change = 'sink.alter'"), "12");
    server.sql("ALTER SINK out SET (transaction_timeout = default)");
    assert_eq!(lines(&server, shown), [format!("out localhost:{port} null")]);
}

/// Brokers that are away are replaced, and what waited for them comes.
#[test]
fn a_sink_whose_brokers_are_away_gets_others() {
    let Some(brokers) = brokers("pipelines::sinks::altering::brokers_away") else { return };
    let (input, output) = (topic("sink-moved-in"), topic("sink-moved-out"));
    let server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", timeout = '1s', transaction_timeout = '3s'");
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    produce(&feed, 0..300);
    server.sql("SELECT rt.drain('numbers')");
    // A cluster that has the topic, and knows nothing of the sink.
    let other = MockCluster::new(1).unwrap();
    other.create_topic(&output, 3, 1).unwrap();
    for (set, code, words) in [
        (format!("brokers = '{}'", other.bootstrap_servers()), "55000", "another cluster"),
        (format!("brokers = '127.0.0.1:{}'", free_port()), "08001", "127.0.0.1"),
        ("topic = 'other'".to_owned(), "0A000", "\"topic\""),
        ("delivery = 'at_least_once'".to_owned(), "0A000", "\"delivery\""),
        ("value_columns = 'rest'".to_owned(), "0A000", "another sink"),
        ("key = 'id'".to_owned(), "0A000", "\"key\""),
        ("format = 'csv'".to_owned(), "0A000", "\"format\""),
        ("comit_interval = '1s'".to_owned(), "22023", "comit_interval"),
        ("commit_interval = '1h'".to_owned(), "22023", "commit_interval"),
        ("properties.acks = '0'".to_owned(), "22023", "acks"),
        ("properties.linger.ms = 'soon'".to_owned(), "22023", "linger.ms"),
    ] {
        let (found, message, hint) = refused(&server, &format!("ALTER SINK out SET ({set})"));
        assert!(found == code && format!("{message} {hint}").contains(words), "{set}: {found} {message} {hint}");
    }
    for (sql, code) in [
        ("ALTER SINK nothing SET (backlog = '1GB')", "42704"),
        ("ALTER SINK numbers SET (backlog = '1GB')", "42809"),
        ("ALTER SINK out RENAME TO numbers", "42P07"),
        ("ALTER SINK out PAUSE", "42601"),
    ] {
        assert_eq!(refused(&server, sql).0, code, "{sql}");
    }
    server.sql("ALTER SINK IF EXISTS nothing RENAME TO x");
    produce(&feed, 300..600);
    server.sql("SELECT rt.drain('numbers')");
    assert_each_once(&brokers, &output, 600);
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE change = 'sink.alter'"), "0");
}

#[test]
fn at_least_once_doubles_nothing_either() {
    let Some(brokers) = brokers("pipelines::sinks::altering::at_least_once") else { return };
    let (input, output) = (topic("sink-least-altered-in"), topic("sink-least-altered-out"));
    let server = Server::start(BINARY);
    numbers(&server, &brokers, &input);
    sink(&server, &brokers, &output, ", delivery = 'at_least_once', commit_interval = '50ms'");
    server.sql("CREATE PIPELINE p INTO out AS SELECT id, part FROM numbers");
    let feed = Feed::new(&brokers, &input);
    for round in 0..6 {
        produce(&feed, round * 500..round * 500 + 500);
        server.sql(&format!("ALTER SINK out SET (properties.linger.ms = '{round}')"));
    }
    server.sql("SELECT rt.drain('numbers')");
    server.wait_for("SELECT behind FROM rt.deliveries", "0", PATIENCE);
    let found = ids(&brokers, &output);
    assert_eq!((found.len(), found.values().sum::<usize>()), (3000, 3000));
}
