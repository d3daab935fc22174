//! kill -9 at random moments of ingestion: nothing lost, nothing twice, ready soon.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    BINARY, Options,
    support::{
        kafka::{Feed, create_topic},
        server::Server,
    },
};

const PARTITIONS: u64 = 4;

pub(crate) fn run(brokers: &str, options: &Options) {
    let times = options.number("times", 30);
    let seed = options.number("seed", 42);
    create_topic(brokers, "kills", PARTITIONS as i32, &[]);
    let mut server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw (part INT, seq BIGINT, note TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'kills', format = 'json')"
    ));
    // Small segments, so that kills meet seals and commits.
    server.sql(
        "CREATE TABLE t (part INT, seq BIGINT, note TEXT) WITH (partitions = 4, seal_rows = 20000) FROM SOURCE raw",
    );
    let stop = AtomicBool::new(false);
    let sent: Vec<AtomicU64> = (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            let feed = Feed::new(brokers, "kills");
            while !stop.load(Ordering::SeqCst) {
                for _ in 0..500 {
                    for (part, count) in sent.iter().enumerate() {
                        let seq = count.load(Ordering::SeqCst);
                        feed.send(
                            part as i32,
                            format!(r#"{{"part":{part},"seq":{seq},"note":"row {seq} of {part}"}}"#).as_bytes(),
                        );
                        count.store(seq + 1, Ordering::SeqCst);
                    }
                }
                feed.flush();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut random = seed;
        for kill in 1..=times {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            thread::sleep(Duration::from_millis(200 + (random >> 33) % 2000));
            let ready = server.kill_and_restart();
            slowest = slowest.max(ready);
            let rows = check_prefix(&server);
            println!(
                "kill {kill:>3}: ready after {:>5} ms, {rows} rows, every partition a gap-free prefix",
                ready.as_millis()
            );
        }
        stop.store(true, Ordering::SeqCst);
    });
    let wanted: u64 = sent.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    let start = Instant::now();
    while check_prefix(&server) < wanted {
        assert!(start.elapsed() < Duration::from_secs(120), "rows are missing at the end");
        thread::sleep(Duration::from_millis(100));
    }
    for (part, count) in sent.iter().enumerate() {
        let count = count.load(Ordering::SeqCst);
        let row = &server.sql(&format!("SELECT count(*), count(DISTINCT seq), sum(seq) FROM t WHERE part = {part}"))[0];
        let sum = (u128::from(count) * u128::from(count.max(1) - 1) / 2).to_string();
        assert_eq!(row, &[Some(count.to_string()), Some(count.to_string()), Some(sum)], "partition {part}");
    }
    println!(
        "{times} kills, {wanted} rows: count, distinct and sum exact in every partition; slowest start {} ms",
        slowest.as_millis()
    );
}

/// Every partition must be 0, 1, 2, … without gaps or repeats at any moment; returns the rows in all.
fn check_prefix(server: &Server) -> u64 {
    let rows =
        server.sql("SELECT part, count(*), count(DISTINCT seq), min(seq), max(seq) FROM t GROUP BY part ORDER BY part");
    rows.iter()
        .map(|row| {
            let number = |i: usize| row[i].as_ref().and_then(|text| text.parse::<u64>().ok()).expect("a number");
            let count = number(1);
            assert!(
                number(2) == count && number(3) == 0 && number(4) + 1 == count,
                "partition {} is not a gap-free prefix: {row:?}",
                number(0)
            );
            count
        })
        .sum()
}
