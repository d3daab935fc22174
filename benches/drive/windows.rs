//! A pipeline over a topic: count and sum by key in windows of event time. A backlog, a live stream, and many open keys.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    BINARY, Options, some_key,
    support::{
        kafka::{Feed, create_topic},
        server::{Server, connect, runtime},
    },
};

const PARTITIONS: u64 = 4;
const START_MS: u64 = 1_709_294_400_000;
/// Of event time.
const BACKLOG_ROWS_PER_MS: u64 = 100;
const WINDOW_MS: u64 = 10_000;
const COLUMNS: &str = "key BIGINT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts";

pub(crate) fn run(brokers: &str, options: &Options) {
    let messages = options.number("messages", 10_000_000);
    let keys = options.number("keys", 10_000);
    let open = options.number("open", 1_000_000);
    backlog(brokers, messages, keys, options.number("parallelism", 1));
    live(brokers, keys, options.number("rate", 20_000), options.number("warmup", 20), options.number("seconds", 30));
    open_keys(brokers, open);
}

fn row(json: &mut String, key: u64, value: u64, ts_ms: u64) {
    use std::fmt::Write;
    json.clear();
    write!(json, r#"{{"key":{key},"value":{value},"ts":{ts_ms}}}"#).expect("a string takes it");
}

fn source(server: &Server, brokers: &str, topic: &str) {
    server.sql(&format!(
        "CREATE SOURCE {topic} ({COLUMNS}) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json', start = 'earliest')"
    ));
}

/// What lies in the topic when the pipeline begins.
fn backlog(brokers: &str, messages: u64, keys: u64, lanes: u64) {
    create_topic(brokers, "backlog", PARTITIONS as i32, &[]);
    let feed = Feed::new(brokers, "backlog");
    let start = Instant::now();
    let (mut json, mut bytes) = (String::new(), 0);
    for number in 0..messages {
        row(&mut json, some_key(number, keys), number % 1000, START_MS + number / BACKLOG_ROWS_PER_MS);
        bytes += json.len() as u64;
        feed.send((number % PARTITIONS) as i32, json.as_bytes());
    }
    // What ends the last window, in each partition.
    let end_ms = START_MS + messages / BACKLOG_ROWS_PER_MS + WINDOW_MS;
    for partition in 0..PARTITIONS {
        row(&mut json, keys, 0, end_ms);
        feed.send(partition as i32, json.as_bytes());
    }
    feed.flush();
    let seconds = start.elapsed().as_secs_f64();
    println!("preloaded {messages} messages of {} bytes, {keys} keys, in {seconds:.1} s", bytes / messages);

    let server = Server::start(BINARY.as_str());
    source(&server, brokers, "backlog");
    server.sql("CREATE TABLE sums (key BIGINT, stop TIMESTAMPTZ, rows BIGINT, total BIGINT)");
    let (cpu, start) = (server.cpu_seconds(), Instant::now());
    server.sql(&format!(
        "CREATE PIPELINE sums INTO sums WITH (parallelism = {lanes}) AS
         SELECT key, TUMBLE_END(ts, INTERVAL '10' SECOND), count(*), sum(value)::bigint
         FROM backlog GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)"
    ));
    let mut memory = Vec::new();
    loop {
        let seen: u64 = server.value("SELECT coalesce(sum(rows), 0) FROM sums").parse().expect("a sum");
        memory.push(server.memory_mib());
        if seen == messages {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(1800), "only {seen} of {messages} rows in windows");
        thread::sleep(Duration::from_millis(100));
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (server.cpu_seconds() - cpu) * 1e6 / messages as f64;
    let total: u64 = server.value("SELECT sum(total) FROM sums").parse().expect("a sum");
    assert_eq!(total, (0..messages).map(|number| number % 1000).sum::<u64>(), "the sums are those of the messages");
    println!(
        "{:32}{:>12.0} rows/s   ({seconds:.1} s until all windows were visible)",
        "backlog",
        messages as f64 / seconds
    );
    println!("{:32}{cpu:>12.2} s per million rows", "server CPU");
    let at = |part: usize| memory[(memory.len() - 1) * part / 4];
    println!(
        "{:32}{:>12} MiB at its peak; {}, {}, {}, {} MiB after each quarter",
        "server memory",
        server.peak_memory_mib(),
        at(1),
        at(2),
        at(3),
        at(4)
    );
    let checkpoints = "SELECT count(*) || ' kept, the last of ' || max(bytes) || ' bytes in ' || round(max(duration_ms)::numeric, 1) || ' ms' FROM rt.checkpoints";
    println!("{:32}{:>12}", "checkpoints", server.value(checkpoints));
}

/// From the message that ends a window (in the last partition that gets there) to the first query that sees the window.
fn live(brokers: &str, keys: u64, rate: u64, warmup: u64, seconds: u64) {
    create_topic(brokers, "live", PARTITIONS as i32, &[]);
    let server = Server::start(BINARY.as_str());
    source(&server, brokers, "live");
    server.sql("CREATE TABLE now (key BIGINT, stop TIMESTAMPTZ, rows BIGINT, total BIGINT)");
    server.sql(
        "CREATE PIPELINE now INTO now AS
         SELECT key, TUMBLE_END(ts, INTERVAL '1' SECOND), count(*), sum(value)::bigint
         FROM live GROUP BY key, TUMBLE(ts, INTERVAL '1' SECOND)",
    );
    let closed: Mutex<BTreeMap<u64, Instant>> = Mutex::default();
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let mut delays = thread::scope(|scope| {
        scope.spawn(|| {
            stream(brokers, keys, rate, Duration::from_secs(warmup + seconds), &closed);
            thread::sleep(Duration::from_secs(1));
            done.store(true, Ordering::SeqCst);
        });
        watch(&server, &closed, &done, start + Duration::from_secs(warmup))
    });
    assert!(delays.len() as u64 >= seconds / 2, "only {} windows were seen", delays.len());
    println!("{rate} rows/s, windows of 1 s over {seconds} s after {warmup} s");
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    crate::line("window closed to visible", &mut delays);
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

fn stream(brokers: &str, keys: u64, rate: u64, length: Duration, closed: &Mutex<BTreeMap<u64, Instant>>) {
    let settings = std::collections::HashMap::from([("linger.ms", "1")]);
    let feed = Feed::with(brokers, "live", &settings);
    let (start, mut sent, mut json) = (Instant::now(), 0, String::new());
    let mut second = now_ms() / 1000;
    while start.elapsed() < length {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        let now = now_ms();
        if now / 1000 > second {
            // Every partition says so at once, so that the time of closing is known.
            for partition in 0..PARTITIONS {
                row(&mut json, some_key(sent, keys), 1, now);
                feed.send(partition as i32, json.as_bytes());
            }
            second = now / 1000;
            closed.lock().expect("no panic").insert(second * 1000, Instant::now());
        }
        while sent < due {
            row(&mut json, some_key(sent, keys), 1, now);
            feed.send((sent % PARTITIONS) as i32, json.as_bytes());
            sent += 1;
        }
        feed.producer().poll(Duration::ZERO);
        thread::sleep(Duration::from_millis(1));
    }
    feed.flush();
}

/// Milliseconds of each window that closed after `from`.
fn watch(server: &Server, closed: &Mutex<BTreeMap<u64, Instant>>, done: &AtomicBool, from: Instant) -> Vec<f64> {
    runtime().block_on(async {
        let client = connect(server.pg_port).await.expect("a connection");
        let newest = "SELECT (extract(epoch FROM max(stop)) * 1000)::bigint FROM now";
        let newest = client.prepare(newest).await.expect("a statement");
        let (mut delays, mut seen) = (Vec::new(), 0);
        while !done.load(Ordering::SeqCst) {
            let row = client.query_one(&newest, &[]).await.expect("an answer");
            let stop = row.get::<_, Option<i64>>(0).unwrap_or(0) as u64;
            if stop > seen {
                seen = stop;
                let at = closed.lock().expect("no panic").get(&stop).copied().filter(|at| *at > from);
                delays.extend(at.map(|at| at.elapsed().as_secs_f64() * 1000.0));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        delays
    })
}

/// What a key costs whose window stays open.
fn open_keys(brokers: &str, open: u64) {
    create_topic(brokers, "open", PARTITIONS as i32, &[]);
    let feed = Feed::new(brokers, "open");
    let mut json = String::new();
    for number in 0..open {
        row(&mut json, number, number % 1000, START_MS);
        feed.send((number % PARTITIONS) as i32, json.as_bytes());
    }
    feed.flush();
    let server = Server::start(BINARY.as_str());
    source(&server, brokers, "open");
    server.sql("CREATE TABLE days (key BIGINT, stop TIMESTAMPTZ, rows BIGINT, total BIGINT)");
    let before = server.memory_mib();
    server.sql(
        "CREATE PIPELINE days INTO days WITH (memory_limit = '8GB') AS
         SELECT key, TUMBLE_END(ts, INTERVAL '1' DAY), count(*), sum(value)::bigint
         FROM open GROUP BY key, TUMBLE(ts, INTERVAL '1' DAY)",
    );
    server.wait_for("SELECT open_groups FROM rt.pipelines", &open.to_string(), Duration::from_secs(600));
    thread::sleep(Duration::from_secs(3));
    let bytes: f64 =
        server.value("SELECT state_bytes::float8 / open_groups FROM rt.pipelines").parse().expect("a number");
    println!("{:32}{bytes:>12.1} bytes, {open} keys", "an open key, as it counts");
    let grown = server.memory_mib().saturating_sub(before) as f64 * f64::from(1 << 20) / open as f64;
    println!("{:32}{grown:>12.1} bytes, what reading and checkpoints take included", "an open key, of the process");
}
