//! A transform of another crate (`examples/transform`), through its own server.

use std::path::PathBuf;

use super::{BINARY, PATIENCE, lines, refused, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// Cargo builds examples beside the tests.
fn example() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let found = tests.ancestors().nth(2).unwrap().join("examples/transform");
    assert!(found.is_file(), "cargo build --example transform makes {}", found.display());
    found
}

#[test]
fn a_transform_of_another_crate_runs_in_a_pipeline() {
    let Some(brokers) = brokers("pipelines::transforms") else { return };
    let topic = topic("cells");
    create_topic(&brokers, &topic, 2, &[]);
    let feed = Feed::new(&brokers, &topic);
    let source = format!(
        "CREATE SOURCE trips (id BIGINT, lon DOUBLE PRECISION, lat DOUBLE PRECISION) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    );
    let table = "CREATE TABLE places (id BIGINT, cell TEXT)";
    let pipeline = "CREATE PIPELINE placed INTO places AS SELECT id, cell FROM cells(TABLE trips, 0.01) WHERE id >= 0";
    let stock = Server::start(BINARY);
    stock.sql(&source);
    stock.sql(table);
    assert_eq!(refused(&stock, pipeline).0, "42883");
    drop(stock);

    let mut server = Server::start(example());
    server.sql(&source);
    server.sql(table);
    let (code, message, _) = refused(&server, &pipeline.replace("0.01", "-1"));
    assert!(message.contains("above zero"), "{code} {message}");
    server.sql(pipeline);
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..200 {
            let (id, x, y) = (round * 1000 + n, (n * 17 % 360) as f64 - 179.995, (n * 7 % 180) as f64 - 89.995);
            let json = match n {
                5 => format!(r#"{{"id":{id},"lat":{y}}}"#),
                9 => format!(r#"{{"id":{id},"lon":999.5,"lat":{y}}}"#),
                _ => {
                    expected.push(format!("{id} {}:{}", (x / 0.01).floor(), (y / 0.01).floor()));
                    format!(r#"{{"id":{id},"lon":{x},"lat":{y}}}"#)
                }
            };
            feed.send(n % 2, json.as_bytes());
        }
        feed.flush();
        expected.sort();
        server.sql("SELECT rt.drain('trips')");
        let found = lines(&server, "SELECT id, cell FROM places");
        assert_eq!(found, expected, "round {round}");
        server.kill_and_restart();
    }
    // What no checkpoint covers is made again out of the topic.
    server.sql("SELECT rt.drain('trips')");
    server.wait_for("SELECT state FROM rt.pipelines", "running", PATIENCE);
    assert_eq!(lines(&server, "SELECT id, cell FROM places"), expected);
    let letters = "SELECT count(*) FROM rt.dlq WHERE reason LIKE '%no place on earth%'";
    assert_eq!(server.value(letters), "3");
}

/// A state of each key is what it was, over kills and over checkpoints, and time alone makes rows.
#[test]
fn a_transform_of_another_crate_keeps_states_over_kills() {
    let Some(brokers) = brokers("pipelines::transforms") else { return };
    let topic = topic("stays");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start(example());
    server.sql(&format!(
        "CREATE SOURCE trips (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE stays (id BIGINT, rows BIGINT, since TIMESTAMP, ts TIMESTAMP)");
    let pipeline = "CREATE PIPELINE stays INTO stays WITH (checkpoint_interval = '200ms') AS SELECT id, rows, since, ts FROM stays(TABLE trips PARTITION BY id, 'ts', 60)";
    for (wrong, words) in [
        (pipeline.replace("'ts', 60", "'ts', 0"), "from 1 to 86400"),
        (pipeline.replace(" PARTITION BY id", ""), "say whose stays"),
        (pipeline.replace("PARTITION BY id", "PARTITION BY vehicle"), "vehicle"),
    ] {
        let (code, message, _) = refused(&server, &wrong);
        assert!(message.contains(words), "{code} {message}");
    }
    server.sql(pipeline);
    let explained = lines(&server, &format!("EXPLAIN {pipeline}")).join("\n");
    assert!(explained.contains("stays(TABLE … PARTITION BY (id)"), "{explained}");
    // Keys come every 10 s, each for as many rounds as its number, in pairs that are out of order.
    let at = |second: i64| format!("2026-01-01T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    for round in 0..12i64 {
        for key in 0..12i64 {
            if key >= round {
                let second = round * 10 + (key * 7) % 5;
                feed.send(0, format!(r#"{{"id":{key},"ts":"{}"}}"#, at(second)).as_bytes());
            }
        }
        feed.flush();
        if round % 4 == 3 {
            server.sql("SELECT rt.drain('trips')");
            server.kill_and_restart();
        }
    }
    feed.send(0, format!(r#"{{"id":99,"ts":"{}"}}"#, at(3600)).as_bytes());
    feed.flush();
    server.sql("SELECT rt.drain('trips')");
    let expected: Vec<String> = (0..12)
        .map(|key| {
            let offset = (key * 7) % 5;
            format!("{key} {} {} {}", key + 1, at(offset), at(key * 10 + offset + 60)).replace('T', " ")
        })
        .collect();
    let found = || {
        let mut found = lines(&server, "SELECT id, rows, since, ts FROM stays ORDER BY id");
        found.sort_by_key(|line| line.split(' ').next().unwrap().parse::<i64>().unwrap());
        found
    };
    assert_eq!(found(), expected);
    assert_eq!(server.value("SELECT late_rows FROM rt.pipelines"), "0");
}
