//! An interval join of two topics, all of whose rows stay open: rows a second, and what an open row costs.

use std::{
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

const PARTITIONS: u64 = 2;
const START_MS: u64 = 1_709_294_400_000;
const ROWS_PER_MS: u64 = 100;

pub(crate) fn run(brokers: &str, options: &Options) {
    let rows = options.number("rows", 5_000_000);
    let (pairs, memory_mb) = (rows / 2, options.number("memory-mb", 12_000));
    for topic in ["predictions", "outcomes"] {
        create_topic(brokers, topic, PARTITIONS as i32, &[]);
        let feed = Feed::new(brokers, topic);
        for number in 0..pairs {
            // The two of a pair are a second apart, and neighbours have keys far from each other.
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let ts = START_MS + number / ROWS_PER_MS + if topic == "outcomes" { 1000 } else { 0 };
            let json = format!(r#"{{"key":{key},"value":{},"ts":{ts}}}"#, number % 1000);
            feed.send((number % PARTITIONS) as i32, json.as_bytes());
        }
        feed.flush();
    }
    let server = Server::start(BINARY.as_str());
    for topic in ["predictions", "outcomes"] {
        server.sql(&format!(
            "CREATE SOURCE {topic} (key BIGINT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json', start = 'earliest')"
        ));
    }
    server.sql("CREATE TABLE errors (key BIGINT, ts TIMESTAMPTZ, error BIGINT)");
    let before = server.memory_mib();
    let (cpu, start) = (server.cpu_seconds(), Instant::now());
    server.sql(&format!(
        "CREATE PIPELINE errors INTO errors WITH (memory_limit = '{memory_mb}MB') AS
         SELECT p.key, p.ts, p.value - o.value
         FROM predictions p JOIN outcomes o ON p.key = o.key AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '1' HOUR"
    ));
    server.wait_for("SELECT count(*) FROM errors", &pairs.to_string(), Duration::from_secs(1800));
    let seconds = start.elapsed().as_secs_f64();
    let open: u64 = server.value("SELECT open_groups FROM rt.pipelines").parse().unwrap();
    println!("{:32}{:>12.0} rows/s ({seconds:.1} s, {pairs} pairs)", "interval join", rows as f64 / seconds);
    println!("{:32}{:>12.2} s per million rows", "server CPU", (server.cpu_seconds() - cpu) * 1e6 / rows as f64);
    let spilled: u64 = server.value("SELECT spilled_bytes FROM rt.pipelines").parse().unwrap();
    println!("{:32}{:>12} MB", "in files", spilled / 1_000_000);
    thread::sleep(Duration::from_secs(3));
    let bytes: f64 = server.value("SELECT state_bytes FROM rt.pipelines").parse().unwrap();
    println!(
        "{:32}{:>12.1} bytes as it counts, {open} open ({:.0} MB)",
        "an open row",
        bytes / open as f64,
        bytes / 1e6
    );
    println!(
        "{:32}{:>12} MiB more than before; {} MiB at its peak",
        "server memory",
        server.memory_mib().saturating_sub(before),
        server.peak_memory_mib()
    );
}
