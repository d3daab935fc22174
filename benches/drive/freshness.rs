//! How long from a producer's stamp until a query sees the row, at a steady rate.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    BINARY, Options,
    support::{
        kafka::{Feed, ORDER_COLUMNS, create_topic, order_json},
        server::{Server, connect, runtime},
    },
};

const PARTITIONS: u64 = 4;

pub(crate) fn run(brokers: &str, options: &Options) {
    let rate = options.number("rate", 50_000);
    let seconds = options.number("seconds", 20);
    // A broker whose virtual machine has just started compiles for half a minute, on all cores.
    let warmup = options.number("warmup", 30);
    create_topic(brokers, "fresh", PARTITIONS as i32, &[]);
    let server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw ({ORDER_COLUMNS}, sent BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'fresh', format = 'json')"
    ));
    server.sql(&format!(
        "CREATE TABLE orders ({ORDER_COLUMNS}, sent BIGINT) WITH (time_column = 'ts', partitions = {PARTITIONS}) FROM SOURCE raw"
    ));
    let done = AtomicBool::new(false);
    let mut delays = thread::scope(|scope| {
        scope.spawn(|| {
            produce(brokers, rate, warmup + seconds);
            done.store(true, Ordering::SeqCst);
        });
        watch(&server, &done, Duration::from_secs(warmup))
    });
    stalls(&delays);
    let mut delays: Vec<i64> = delays.drain(..).map(|seen| seen.delay_us).collect();
    delays.sort_unstable();
    assert!(delays.len() > 20, "only {} observations", delays.len());
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!("freshness at {rate} rows/s over {seconds} s after {warmup} s, {} observations", delays.len());
    println!("p50 {:.1} ms   p90 {:.1} ms   p99 {:.1} ms   max {:.1} ms", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// One newer row seen.
struct Seen {
    at: Duration,
    delay_us: i64,
    /// How long the query took that saw it.
    query: Duration,
}

/// When the table was at its most stale, and whether it was the query that took long.
fn stalls(seen: &[Seen]) {
    let mut worst: Vec<&Seen> = seen.iter().filter(|seen| seen.delay_us > 50_000).collect();
    worst.sort_by_key(|seen| std::cmp::Reverse(seen.delay_us));
    for seen in worst.iter().take(5) {
        let (at, delay, query) =
            (seen.at.as_secs_f64(), seen.delay_us as f64 / 1000.0, seen.query.as_secs_f64() * 1000.0);
        println!("stale by {delay:.0} ms after {at:.2} s, seen by a query of {query:.1} ms");
    }
}

fn produce(brokers: &str, rate: u64, seconds: u64) {
    let settings = std::collections::HashMap::from([("linger.ms", "1")]);
    let feed = Feed::with(brokers, "fresh", &settings);
    let start = Instant::now();
    let mut json = String::new();
    let mut sent = 0u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let now = now_us();
            order_json(&mut json, sent, now / 1000);
            json.truncate(json.len() - 1);
            json.push_str(&format!(",\"sent\":{now}}}"));
            feed.send((sent % PARTITIONS) as i32, json.as_bytes());
            sent += 1;
        }
        feed.producer().poll(Duration::ZERO);
        thread::sleep(Duration::from_millis(1));
    }
    feed.flush();
}

/// Polls for the newest visible row; each time a newer one is there, `now - sent` is how stale the table was at most.
///
/// The age of the newest row right when an answer arrives bounds the freshness from above: rows sent after it are not visible yet.
fn watch(server: &Server, done: &AtomicBool, warmup: Duration) -> Vec<Seen> {
    runtime().block_on(async {
        let client = connect(server.pg_port).await.expect("a connection");
        let newest = client.prepare("SELECT max(sent), max(id) FROM orders WHERE id >= $1").await.expect("a statement");
        let mut seen = 0i64;
        let mut from = 0i64;
        let mut delays = Vec::new();
        let start = Instant::now();
        while !done.load(Ordering::SeqCst) {
            let asked = Instant::now();
            let row = client.query_one(&newest, &[&from]).await.expect("an answer");
            if let Some(sent) = row.get::<_, Option<i64>>(0)
                && sent > seen
            {
                seen = sent;
                if start.elapsed() > warmup {
                    delays.push(Seen { at: start.elapsed(), delay_us: now_us() - sent, query: asked.elapsed() });
                }
                from = row.get::<_, Option<i64>>(1).unwrap_or(from);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        delays
    })
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as i64
}
