//! A pipeline with a large state of which a part changes all the time: what checkpoints cost, how long it stands still for them, how soon it is back after kill -9.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    BINARY, Options, some_key,
    support::{
        kafka::{Feed, create_topic},
        server::{Server, connect, runtime},
    },
};

const PARTITIONS: u64 = 2;

pub(crate) fn run(brokers: &str, options: &Options) {
    let groups = options.number("groups", 10_000_000);
    let churn = options.number("churn", groups / 20);
    let rounds = options.number("rounds", 20);
    let (lanes, memory_mb) = (options.number("parallelism", 1), options.number("memory-mb", 12_000));
    create_topic(brokers, "state", PARTITIONS as i32, &[]);
    let mut server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE state (key BIGINT, value BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'state', format = 'json', start = 'earliest')"
    ));
    server.sql("CREATE TABLE totals (key BIGINT PRIMARY KEY, rows BIGINT, total BIGINT)");
    let feed = Feed::new(brokers, "state");
    let send = |keys: &mut dyn Iterator<Item = u64>| {
        for key in keys {
            feed.send((key % PARTITIONS) as i32, format!(r#"{{"key":{key},"value":1}}"#).as_bytes());
        }
        feed.flush();
    };
    server.sql(&format!(
        "CREATE PIPELINE totals INTO totals WITH (checkpoint_interval = '1s', memory_limit = '{memory_mb}MB', parallelism = {lanes}) AS
         SELECT key, count(*), sum(value)::bigint FROM state GROUP BY key"
    ));
    let start = Instant::now();
    send(&mut (0..groups));
    server.sql("SELECT rt.drain('state')");
    let seconds = start.elapsed().as_secs_f64();
    println!("{:32}{:>12.0} rows/s ({seconds:.1} s)", "groups come", groups as f64 / seconds);
    let bytes: u64 = server.value("SELECT state_bytes FROM rt.pipelines").parse().unwrap();
    let spilled: u64 = server.value("SELECT spilled_bytes FROM rt.pipelines").parse().unwrap();
    println!(
        "{:32}{:>12.0} MB, {groups} groups; {} MB in files",
        "state, as it counts",
        bytes as f64 / 1e6,
        spilled / 1_000_000
    );
    println!("{:32}{:>12} MiB; {} MiB at its peak", "server memory", server.memory_mib(), server.peak_memory_mib());
    // What was in flight settles.
    thread::sleep(Duration::from_secs(10));

    let done = AtomicBool::new(false);
    let first: u64 = server.value("SELECT max(id) FROM rt.checkpoints").parse().unwrap();
    let mut known: std::collections::BTreeMap<u64, (f64, u64, u64)> = std::collections::BTreeMap::new();
    let mut delays = thread::scope(|scope| {
        let probe = scope.spawn(|| probe(brokers, &server, &done));
        for round in 0..rounds {
            let begun = Instant::now();
            send(&mut (0..churn).map(|number| some_key(round * churn + number, groups)));
            server.sql("SELECT rt.drain('state')");
            thread::sleep(Duration::from_millis(1200).saturating_sub(begun.elapsed()));
            for row in server.sql(&format!(
                "SELECT id, duration_ms, bytes, coalesce(arrival_bytes, 0) FROM rt.checkpoints WHERE id > {first}"
            )) {
                let number = |at: usize| row[at].as_deref().unwrap().parse::<f64>().unwrap();
                known.insert(number(0) as u64, (number(1), number(2) as u64, number(3) as u64));
            }
        }
        done.store(true, Ordering::SeqCst);
        probe.join().unwrap()
    });
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    let mut took: Vec<f64> = known.values().map(|(took, ..)| *took).collect();
    crate::line("a checkpoint", &mut took);
    crate::line("a message to visible meanwhile", &mut delays);
    let mut pictures: Vec<u64> = known.values().map(|(_, bytes, _)| *bytes).collect();
    pictures.dedup();
    println!(
        "{:32}{:>12} rounds of {churn} keys: {} checkpoints, {} pictures, {} of them without arrivals",
        "",
        rounds,
        known.len(),
        pictures.len(),
        known.values().filter(|(_, _, arrivals)| *arrivals == 0).count()
    );
    server.kill_9();
    let start = Instant::now();
    server.spawn();
    server.wait_ready();
    let ready = start.elapsed().as_secs_f64();
    let is_back = format!("SELECT count(*) FROM rt.pipelines WHERE state = 'running' AND open_groups >= {groups}");
    server.wait_for(&is_back, "1", Duration::from_secs(300));
    let back = start.elapsed().as_secs_f64();
    println!("{:32}{back:>12.2} s until the pipeline runs ({ready:.2} s for queries)", "start after kill -9");
    println!("{:32}{:>12} MiB; {} MiB at its peak", "server memory", server.memory_mib(), server.peak_memory_mib());
    server.sql("SELECT rt.drain('state')");
    let rows: u64 = server.value("SELECT sum(rows) FROM totals WHERE key >= 0").parse().unwrap();
    assert_eq!(rows, groups + rounds * churn, "each message once");
}

/// Milliseconds from each message of a key of its own until a look-up says it was counted.
fn probe(brokers: &str, server: &Server, done: &AtomicBool) -> Vec<f64> {
    let settings = std::collections::HashMap::from([("linger.ms", "0")]);
    let feed = Feed::with(brokers, "state", &settings);
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let counted = client.prepare("SELECT rows FROM totals WHERE key = -1").await.unwrap();
        let (mut delays, mut sent) = (Vec::new(), 0i64);
        while !done.load(Ordering::SeqCst) {
            let start = Instant::now();
            feed.send(0, br#"{"key":-1,"value":1}"#);
            feed.flush();
            sent += 1;
            loop {
                let row = client.query_opt(&counted, &[]).await.unwrap();
                if row.is_some_and(|row| row.get::<_, i64>(0) >= sent) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            delays.push(start.elapsed().as_secs_f64() * 1000.0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        delays
    })
}
