//! Cancel, deadline and a reader that goes away end the work itself, not only the answer.
//!
//! The story: a cancelled triple join answered 57014 at once, and both query threads went on computing for minutes. Its nested loop
//! turned over 160 million pairs for one batch of an input and stood back to tokio only after 128 such batches, and only there an
//! aborted task ends.

use std::time::Duration;

use futures::StreamExt;
use tidemill_query::{Session, SqlError, parse::parse};
use tokio::runtime::{Builder, Runtime};

use crate::{
    scans::filled,
    support::{World, block_on},
};

/// Each would run for hours, in another operator.
const ENDLESS: [&str; 7] = [
    // Nested loop over a cross join.
    "SELECT count(*) FROM t a, t b, t c WHERE a.id + b.id + c.id < 0",
    // Cross joins alone.
    "SELECT sum(a.id + b.id - c.id) FROM t a, t b, t c",
    // Hash join on a column of seven values, whose filter takes no row.
    "SELECT count(*) FROM t a JOIN t b ON a.city = b.city JOIN t c ON b.city = c.city AND a.id + b.id + c.id < 0",
    "SELECT count(*) FROM t a LEFT JOIN (SELECT x.id FROM t x, t y) b ON a.id + b.id < 0",
    // Repartition, aggregation and sort above a join.
    "SELECT a.city, count(*) FROM t a, t b, t c WHERE a.id + b.id <> c.id GROUP BY a.city ORDER BY 2",
    "SELECT count(*) FROM generate_series(1, 4000000) a(value), generate_series(1, 4000000) b(value) WHERE a.value + b.value < 0",
    "WITH RECURSIVE r(n) AS (SELECT 1::bigint UNION ALL SELECT (n + 1) % 1000 FROM r) SELECT count(*) FROM r",
];

/// Threads that only this test uses; their name is how it finds their clocks.
fn threads(name: &str) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap()
}

/// What the threads of that name have used, in clock ticks (10 ms).
fn ticks(name: &str) -> u64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        // pid (name) state … with utime and stime in fields 14 and 15.
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        if head.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = tail.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn start(session: &Session, sql: &str) -> Result<tidemill_query::QueryStream, SqlError> {
    let plan = session.plan(&parse(sql).unwrap()[0], sql).await?;
    session.execute(&plan)
}

#[test]
fn what_ends_a_query_ends_its_work() {
    const NAME: &str = "cancelled-cpu";
    let cpu = threads(NAME);
    let world = World::on(cpu.handle(), |config| config.memory_bytes = 256 << 20);
    filled(&world, "t", 20_000);
    let session = world.session();
    let queries = world.engine.queries();
    block_on(async {
        for sql in ENDLESS {
            for way in ["cancel", "deadline", "drop"] {
                let timeout = if way == "deadline" { "200ms" } else { "0" };
                session.settings().set("statement_timeout", timeout, false).unwrap();
                let before = ticks(NAME);
                let mut stream = start(&session, sql).await.unwrap();
                assert_eq!((queries.running().len(), queries.at_work()), (1, 1));
                until("it does not begin", || ticks(NAME) > before + 5 || way == "deadline").await;
                match way {
                    "cancel" => {
                        assert!(queries.cancel_backend(7));
                        let error = stream.next().await.unwrap().unwrap_err();
                        assert_eq!(error.sqlstate, "57014", "{sql}: {error:?}");
                        assert_eq!(error.message, "canceling statement due to user request");
                        assert!(stream.next().await.is_none());
                        assert_eq!(queries.log().last().unwrap().state.name(), "cancelled");
                    }
                    "deadline" => {
                        let error = stream.next().await.unwrap().unwrap_err();
                        assert_eq!(error.message, "canceling statement due to statement timeout", "{sql}");
                    }
                    _ => drop(stream),
                }
                assert!(queries.running().is_empty());
                until(&format!("after {way} this goes on: {sql}"), || queries.at_work() == 0).await;
                let rest = ticks(NAME);
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(ticks(NAME) - rest <= 3, "after {way} the threads go on with {sql}");
            }
        }
    });
    cpu.shutdown_background();
}

#[test]
fn a_sleeping_query_ends_at_once() {
    let world = World::new();
    let session = world.session();
    block_on(async {
        let mut stream = start(&session, "SELECT pg_sleep(3600)").await.unwrap();
        let handle = stream.cancel_handle();
        tokio::time::sleep(Duration::from_millis(50)).await;
        handle.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().sqlstate, "57014");
        until("it sleeps on", || world.engine.queries().at_work() == 0).await;
    });
}

#[test]
fn explain_analyze_shows_operators_and_not_what_watches_them() {
    let world = World::new();
    filled(&world, "t", 100);
    let plan = world.value("EXPLAIN ANALYZE SELECT count(*) FROM t a JOIN t b ON a.id + b.id < 50");
    assert!(!plan.contains("Watched"), "{plan}");
    assert!(plan.contains("filter=") && plan.contains("rows_scanned=100"), "{plan}");
}
