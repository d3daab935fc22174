//! How fast sources are read: at their limit, which changes while they are read.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(60);
const ROWS: u64 = 60_000;
const LIMIT: u64 = 2_000;

#[test]
fn a_source_is_read_at_its_limit_and_all_of_it() {
    let Some(brokers) = brokers("rates::a_source_is_read_at_its_limit_and_all_of_it") else { return };
    let topic = format!("rates-{}", std::process::id());
    create_topic(&brokers, &topic, 2, &[]);
    let feed = Feed::new(&brokers, &topic);
    (0..ROWS).for_each(|row| feed.send((row % 2) as i32, format!(r#"{{"id":{row}}}"#).as_bytes()));
    feed.flush();
    let mut server = Server::start(BINARY);
    let with = |more: &str| format!("WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', {more})");
    for (more, words) in [("max_rows_per_s = 'many'", "max_rows_per_s"), ("max_mb_per_s = -1", "max_mb_per_s")] {
        let error = server.try_sql(&format!("CREATE SOURCE s (id BIGINT) {}", with(more))).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.code().code() == "22023" && error.message().contains(words), "{error}");
    }
    server.sql(&format!("CREATE SOURCE s (id BIGINT) {}", with(&format!("max_rows_per_s = {LIMIT}"))));
    let start = Instant::now();
    server.sql("CREATE TABLE raw (id BIGINT) FROM SOURCE s");
    server.sql("CREATE TABLE made (id BIGINT)");
    server.sql("CREATE PIPELINE p INTO made AS SELECT id FROM s");
    let counts = |server: &Server, tables: [&str; 2]| {
        tables.map(|table| server.value(&format!("SELECT count(*) FROM {table}")).parse::<u64>().unwrap())
    };
    // No more than the limit and a batch; how much less is the machine's affair.
    let check = |server: &Server, since: Instant, before: [u64; 2]| {
        let now = counts(server, ["raw", "made"]);
        let most = (since.elapsed().as_secs_f64() * LIMIT as f64) as u64 + LIMIT / 2;
        for (table, (now, before)) in ["raw", "made"].iter().zip(now.into_iter().zip(before)) {
            assert!(now - before <= most, "{table} has {now} rows after {before} in {:?}", since.elapsed());
        }
    };
    server.wait_for("SELECT count(*) > 2500 FROM raw", "t", PATIENCE);
    server.wait_for("SELECT count(*) > 2500 FROM made", "t", PATIENCE);
    check(&server, start, [0, 0]);
    // It stays over a start.
    server.kill_9();
    server.spawn();
    server.wait_ready();
    check(&server, start, [0, 0]);
    thread::sleep(Duration::from_secs(1));
    check(&server, start, [0, 0]);
    // Another limit counts at once.
    let (before, since) = (counts(&server, ["raw", "made"]), Instant::now());
    server.sql("ALTER SOURCE s SET (max_rows_per_s = 0, max_mb_per_s = 0.01)");
    thread::sleep(Duration::from_secs(2));
    // Ten bytes and more each.
    check(&server, since, before);
    for (options, words) in [("max_rows_per_s = 1.5", "max_rows_per_s"), ("max_rows = 1", "max_rows_per_s")] {
        let error = server.try_sql(&format!("ALTER SOURCE s SET ({options})")).unwrap_err();
        let error = error.as_db_error().unwrap();
        let told = format!("{} {}", error.message(), error.hint().unwrap_or_default());
        assert!(told.contains(words), "{told}");
    }
    server.sql("ALTER SOURCE s SET (max_mb_per_s = 0)");
    for table in ["raw", "made"] {
        server.wait_for(&format!("SELECT count(*) FROM {table}"), &ROWS.to_string(), PATIENCE);
        assert_eq!(server.value(&format!("SELECT count(DISTINCT id) FROM {table}")), ROWS.to_string());
    }
}
