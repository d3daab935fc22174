//! A page that looks at one restaurant: six prepared queries, by many clients at once, on the same cores as the server.

use std::time::{Duration, Instant};

use tokio_postgres::Statement;

use crate::{
    BINARY, Options, line,
    support::server::{Server, connect, runtime},
};

/// What the page asks; `$1` is the restaurant. All of it is answered over the rows of the segments: kept answers are off.
const PAGE: [(&str, &str); 6] = [
    ("totals", "SELECT count(*), sum(items), max(total_price) FROM orders WHERE restaurant_id = $1"),
    ("by status", "SELECT status, count(*) FROM orders WHERE restaurant_id = $1 GROUP BY status ORDER BY status"),
    (
        "by hour",
        "SELECT date_trunc('hour', ts) AS hour, count(*), sum(items) FROM orders WHERE restaurant_id = $1 GROUP BY 1 ORDER BY 1",
    ),
    ("guests", "SELECT approx_distinct(customer_id) FROM orders WHERE restaurant_id = $1"),
    (
        "best customers",
        "SELECT customer_id, count(*) AS n FROM orders WHERE restaurant_id = $1 GROUP BY 1 ORDER BY n DESC, 1 LIMIT 5",
    ),
    (
        "latest",
        "SELECT order_id, status, total_price FROM orders WHERE restaurant_id = $1 ORDER BY ts DESC, order_id LIMIT 10",
    ),
];
const RESTAURANTS: u64 = 1920;

pub(crate) fn run(options: &Options) {
    let rows = options.number("rows", 20_000_000);
    let clients = options.number("clients", 16);
    let seconds = options.number("seconds", 20);
    let server = Server::start(BINARY.as_str());
    load(&server, rows);
    println!(
        "{rows} rows, sorted by restaurant, a star-tree of restaurant, status and hour; latencies as the client sees them"
    );

    alone(&server);
    let cpu = server.cpu_seconds();
    let started = Instant::now();
    let times = together(&server, clients, Duration::from_secs(seconds));
    let (took, cpu) = (started.elapsed().as_secs_f64(), server.cpu_seconds() - cpu);
    let asked: usize = times.iter().map(Vec::len).sum();
    println!(
        "\n{clients} clients for {took:.0} s: {:.0} queries/s, {:.2} ms of the server's CPU each",
        asked as f64 / took,
        cpu * 1000.0 / asked as f64
    );
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    let mut all = Vec::with_capacity(asked);
    for ((name, _), mut times) in PAGE.iter().zip(times) {
        line(name, &mut times);
        all.extend(times);
    }
    line("all", &mut all);
}

fn load(server: &Server, rows: u64) {
    server.sql(&format!(
        "CREATE SOURCE gen WITH (connector = 'generator', rate = '0', rows = '{rows}', partitions = '2', epoch = '2026-01-01')"
    ));
    server.sql("CREATE TABLE orders WITH (time_column = 'ts', partitions = 2, seal_rows = 1000000) FROM SOURCE gen");
    server.sql("CREATE INDEX ON orders USING sorted (restaurant_id)");
    server.sql("CREATE INDEX ON orders USING star_tree (restaurant_id, status, date_trunc('hour', ts)) AGGREGATE (count(*), sum(items), max(total_price))");
    server.wait_for("SELECT count(*) FROM orders", &rows.to_string(), Duration::from_secs(900));
    server.sql("SELECT rt.seal('orders')");
    server.wait_for("SELECT count(*) FROM rt.indexes WHERE state <> 'ready'", "0", Duration::from_secs(900));
}

/// One client, one query after the other: what a query costs where nobody waits for anybody.
fn alone(server: &Server) {
    const TIMES: u64 = 2000;
    println!("\none client; in brackets milliseconds of the server's CPU for each");
    println!("{:32}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "max");
    let least = ("a constant", "SELECT $1::bigint");
    for (name, sql) in std::iter::once(&least).chain(&PAGE) {
        let cpu = server.cpu_seconds();
        let mut times = runtime().block_on(async {
            let client = connect(server.pg_port).await.unwrap();
            client.batch_execute("SET rt.use_result_cache = off").await.unwrap();
            let statement = client.prepare(sql).await.unwrap();
            let mut times = Vec::new();
            for number in 0..TIMES {
                times.push(ask(&client, &statement, number).await);
            }
            times
        });
        let cpu = (server.cpu_seconds() - cpu) * 1000.0 / TIMES as f64;
        line(&format!("{name} ({cpu:.2} CPU)"), &mut times);
    }
}

/// By query of the page: how long each answer took. The clients share a thread; the page's queries follow each other.
fn together(server: &Server, clients: u64, length: Duration) -> [Vec<f64>; PAGE.len()] {
    runtime().block_on(async {
        let end = Instant::now() + length;
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let port = server.pg_port;
                tokio::spawn(async move {
                    let client = connect(port).await.unwrap();
                    client.batch_execute("SET rt.use_result_cache = off").await.unwrap();
                    let mut statements = Vec::new();
                    for (_, sql) in PAGE {
                        statements.push(client.prepare(sql).await.unwrap());
                    }
                    let mut times: [Vec<f64>; PAGE.len()] = Default::default();
                    let mut page = number * 131;
                    while Instant::now() < end {
                        page += clients;
                        for (statement, times) in statements.iter().zip(&mut times) {
                            times.push(ask(&client, statement, page).await);
                        }
                    }
                    times
                })
            })
            .collect();
        let mut all: [Vec<f64>; PAGE.len()] = Default::default();
        for task in tasks {
            all.iter_mut().zip(task.await.unwrap()).for_each(|(all, times)| all.extend(times));
        }
        all
    })
}

/// Milliseconds from the question to its last row, of some restaurant.
async fn ask(client: &tokio_postgres::Client, statement: &Statement, number: u64) -> f64 {
    let restaurant = (1 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % RESTAURANTS) as i64;
    let start = Instant::now();
    let rows = client.query(statement, &[&restaurant]).await.unwrap();
    assert!(!rows.is_empty(), "an answer has rows");
    start.elapsed().as_secs_f64() * 1000.0
}
