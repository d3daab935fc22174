//! A table with a primary key: upserts from a topic, look-ups, restarts, and what rows that are not seen cost.

use std::time::{Duration, Instant};

use crate::{
    BINARY, Options, line, some_key,
    support::{
        kafka::{Feed, create_topic},
        server::{Server, connect, runtime},
    },
};

const PARTITIONS: i32 = 4;
const COLUMNS: &str = "id BIGINT NOT NULL, version BIGINT, city TEXT, status TEXT, cents BIGINT";
/// Rows of one INSERT.
const STEP: u64 = 1_000_000;

pub(crate) fn run(brokers: &str, options: &Options) {
    let keys = options.number("keys", 10_000_000);
    let updates = options.number("updates", keys / 20);
    let clients = options.number("clients", 16);
    let length = Duration::from_secs(options.number("seconds", 10));
    create_topic(brokers, "keys", PARTITIONS, &[]);
    let mut server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw ({COLUMNS}) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'keys', format = 'json', start = 'earliest')"
    ));
    server.sql(&format!(
        "CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id)) WITH (mode = 'upsert', version_column = 'version', partitions = 2, seal_rows = 1000000) FROM SOURCE raw"
    ));
    server.sql("ALTER TABLE t PAUSE INGESTION");
    let start = Instant::now();
    for from in (0..keys).step_by(STEP as usize) {
        server.sql(&format!(
            "INSERT INTO t SELECT i, 0, 'city ' || i % 200, 'status ' || i % 5, i % 10000 FROM generate_series({from}, {}) AS s(i)",
            keys.min(from + STEP) - 1
        ));
    }
    server.sql("SELECT rt.seal('t')");
    rate("load by INSERT", keys, start.elapsed());
    let bytes: f64 = server.value("SELECT key_bytes::float8 / keys FROM rt.tables WHERE name = 't'").parse().unwrap();
    println!("{:32}{bytes:>12.1} bytes a key", "key map");

    look_up(&server, keys, clients, length);
    update(&server, brokers, keys, updates);
    beside_append(&server, keys);

    let probe = format!("SELECT count(*) || ' ' || sum(id) FROM t WHERE id BETWEEN {} AND {}", keys / 2, keys / 2 + 99);
    let right = server.value(&probe);
    for clean in [true, false] {
        if clean {
            server.stop();
        } else {
            server.kill_9();
        }
        let start = Instant::now();
        server.spawn();
        server.wait_ready();
        assert_eq!(server.value(&probe), right);
        let how = if clean { "start after an end in order" } else { "start after kill -9" };
        println!("{how:32}{:>12.2} s to the first right answer", start.elapsed().as_secs_f64());
    }
    println!("{:32}{:>12} MiB at its peak", "server memory, this start", server.peak_memory_mib());
}

fn look_up(server: &Server, keys: u64, clients: u64, length: Duration) {
    let cpu = server.cpu_seconds();
    let start = Instant::now();
    let mut times: Vec<f64> = runtime().block_on(async {
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let port = server.pg_port;
                tokio::spawn(async move {
                    let client = connect(port).await.unwrap();
                    let statement = client.prepare("SELECT city, status, cents FROM t WHERE id = $1").await.unwrap();
                    let (mut times, mut asked) = (Vec::new(), number << 32);
                    while start.elapsed() < length {
                        asked += 1;
                        let key = some_key(asked, keys) as i64;
                        let began = Instant::now();
                        assert_eq!(client.query(&statement, &[&key]).await.unwrap().len(), 1);
                        times.push(began.elapsed().as_secs_f64() * 1000.0);
                    }
                    times
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (server.cpu_seconds() - cpu) * 1000.0 / times.len() as f64;
    println!("{clients} clients: {:.0} look-ups/s, {cpu:.3} ms of the server's CPU each", times.len() as f64 / seconds);
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    line("a row by its key", &mut times);
}

fn update(server: &Server, brokers: &str, keys: u64, updates: u64) {
    let feed = Feed::new(brokers, "keys");
    for number in 0..updates {
        let (id, cents) = (some_key(number, keys), number % 777);
        let row = format!(
            r#"{{"id":{id},"version":{},"city":"city {}","status":"status 5","cents":{cents}}}"#,
            number + 1,
            id % 200
        );
        feed.send((number % PARTITIONS as u64) as i32, row.as_bytes());
    }
    // The last message of each partition is a new key.
    for partition in 0..PARTITIONS {
        let row = format!(r#"{{"id":{},"version":1,"city":"last","status":"last","cents":0}}"#, -1 - partition);
        feed.send(partition, row.as_bytes());
    }
    feed.flush();
    let (cpu, start) = (server.cpu_seconds(), Instant::now());
    server.sql("ALTER TABLE t RESUME INGESTION");
    server.wait_for("SELECT count(*) FROM t WHERE id < 0", &PARTITIONS.to_string(), Duration::from_secs(1800));
    rate("upserts from the topic", updates, start.elapsed());
    println!("{:32}{:>12.2} s of CPU a million", "", (server.cpu_seconds() - cpu) * 1e6 / updates as f64);
    let start = Instant::now();
    server.sql("SELECT rt.seal('t')");
    println!("{:32}{:>12.2} s", "seal of what is in memory", start.elapsed().as_secs_f64());
    let count = server.value("SELECT count(*) FROM t");
    assert_eq!(count, (keys + PARTITIONS as u64).to_string(), "each key once");
    println!(
        "{:32}{:>12} %",
        "stale rows",
        server.value(
            "SELECT round((sum(rows * stale_pct) / sum(rows))::numeric, 1) FROM rt.segments WHERE \"table\" = 't'"
        )
    );
}

/// The same questions to the table and to one without a key that has the rows that are seen.
fn beside_append(server: &Server, keys: u64) {
    server.sql(&format!("CREATE TABLE plain ({COLUMNS}) WITH (partitions = 2, seal_rows = 1000000)"));
    let most: i64 = server.value("SELECT max(id) FROM t").parse().unwrap();
    for from in (-i64::from(PARTITIONS)..=most).step_by(STEP as usize) {
        let to = from + STEP as i64 - 1;
        server.sql(&format!("INSERT INTO plain SELECT * FROM t WHERE id BETWEEN {from} AND {to}"));
    }
    server.sql("SELECT rt.seal('plain')");
    let bytes = |table: &str| -> f64 {
        server
            .value(&format!("SELECT sum(bytes)::float8 FROM rt.segments WHERE \"table\" = '{table}'"))
            .parse()
            .unwrap()
    };
    println!("{:32}{:>12.2} × a table without a key", "bytes of segments", bytes("t") / bytes("plain"));
    compare(server, "scan and group", "SELECT city, count(*), sum(cents) FROM {} GROUP BY city");
    compare(server, "count and sum", "SELECT count(*), sum(cents) FROM {}");
    compare(server, "a range", "SELECT count(*), max(cents) FROM {} WHERE cents BETWEEN 100 AND 200");
    for table in ["t", "plain"] {
        server.sql(&format!(
            "CREATE INDEX ON {table} USING star_tree (city, status) AGGREGATE (count(*), sum(cents), max(cents))"
        ));
    }
    server.wait_for("SELECT count(*) FROM rt.indexes WHERE state <> 'ready'", "0", Duration::from_secs(900));
    // The first question of a tree reads all rows that lost; then it is made anew without them, in the background.
    let sums = "SELECT city, count(*), sum(cents), max(cents) FROM t GROUP BY city";
    let start = Instant::now();
    server.sql(sums);
    println!("{:32}{:>12.2} ms", "star-tree, first question", start.elapsed().as_secs_f64() * 1000.0);
    let start = Instant::now();
    // Of a few lost rows in a segment it is not made anew.
    while lost_rows_read(server, sums) > 256 * keys.div_ceil(1_000_000) {
        assert!(start.elapsed() < Duration::from_secs(60), "star-trees are not made anew");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{:32}{:>12.2} s", "star-tree, made anew in", start.elapsed().as_secs_f64());
    compare(server, "star-tree, sums", "SELECT city, count(*), sum(cents) FROM {} GROUP BY city");
    compare(
        server,
        "star-tree, sums of a city",
        "SELECT status, count(*), sum(cents) FROM {} WHERE city = 'city 7' GROUP BY status",
    );
    compare(server, "star-tree, max", "SELECT city, max(cents) FROM {} GROUP BY city");
}

/// The rows that a question reads beside the documents of star-trees, as EXPLAIN says.
fn lost_rows_read(server: &Server, question: &str) -> u64 {
    let plan: Vec<String> = server.sql(&format!("EXPLAIN {question}")).into_iter().flatten().flatten().collect();
    let plan = plan.join("\n");
    plan.split_once(", less ").map_or(0, |(_, less)| less.split(' ').next().unwrap().parse().unwrap())
}

fn compare(server: &Server, name: &str, sql: &str) {
    let medians = ["t", "plain"].map(|table| {
        let sql = sql.replace("{}", table);
        let mut times: Vec<f64> = runtime().block_on(async {
            let client = connect(server.pg_port).await.unwrap();
            client.batch_execute("SET rt.use_result_cache = off").await.unwrap();
            let statement = client.prepare(&sql).await.unwrap();
            let mut times = Vec::new();
            for _ in 0..11 {
                let start = Instant::now();
                client.query(&statement, &[]).await.unwrap();
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            times
        });
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!("{name:32}{:>12.2} × ({:.2} ms, {:.2} ms)", medians[0] / medians[1], medians[0], medians[1]);
}

fn rate(what: &str, rows: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    println!("{what:32}{:>12.0} rows/s ({seconds:.1} s)", rows as f64 / seconds);
}
