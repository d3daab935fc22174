//! How fast a backlog is drained, and at what cost.

use std::time::{Duration, Instant};

use crate::{
    BINARY, Options,
    support::{
        kafka::{Feed, ORDER_COLUMNS, create_topic, order_json},
        server::{Server, disk_bytes},
    },
};

const PARTITIONS: i32 = 4;

pub(crate) fn run(brokers: &str, options: &Options) {
    let rows = options.number("rows", 5_000_000);
    create_topic(brokers, "drain", PARTITIONS, &[]);
    let feed = Feed::new(brokers, "drain");
    let mut json = String::new();
    let mut bytes = 0u64;
    let start = Instant::now();
    for number in 0..rows {
        order_json(&mut json, number, 1_700_000_000_000 + number as i64 / 50);
        bytes += json.len() as u64;
        feed.send((number % PARTITIONS as u64) as i32, json.as_bytes());
    }
    feed.flush();
    println!("preloaded {rows} rows of {} bytes in {:.1} s", bytes / rows, start.elapsed().as_secs_f64());

    let server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw ({ORDER_COLUMNS}) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'drain', format = 'json', start = 'earliest')"
    ));
    let cpu = server.cpu_seconds();
    let start = Instant::now();
    server.sql(&format!(
        "CREATE TABLE orders ({ORDER_COLUMNS}) WITH (time_column = 'ts', partitions = {PARTITIONS}) FROM SOURCE raw"
    ));
    loop {
        let count: u64 = server.value("SELECT count(*) FROM orders").parse().expect("a count");
        if count >= rows {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(900), "drained only {count} rows");
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = start.elapsed().as_secs_f64();
    server.sql("SELECT rt.seal('orders')");
    let cpu = server.cpu_seconds() - cpu;
    let sum: u128 = server.value("SELECT sum(id) FROM orders").parse().expect("a sum");
    assert_eq!(sum, u128::from(rows) * u128::from(rows - 1) / 2, "the rows are not those of the topic");
    println!("drain            {:>10.0} rows/s   ({seconds:.1} s until all were visible)", rows as f64 / seconds);
    println!("server CPU       {:>10.2} s per million rows, sealing and commit included", cpu * 1e6 / rows as f64);
    println!("server memory    {:>10} MiB at its peak", server.peak_memory_mib());
    println!("disk             {:>10.1} bytes/row", disk_bytes(&server.data_dir) as f64 / rows as f64);
}
