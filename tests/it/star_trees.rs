//! Star-trees of a live table: built behind queries and ingestion, answering instead of rows, whole again after kill -9.

use std::{fs, path::Path, time::Duration};

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn index_files(below: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(index_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "index") {
            found.push(path);
        }
    }
    found
}

/// Sealed segments of 5,000 orders each, and some rows that are not sealed.
fn fill(server: &Server, segments: usize) {
    server.sql(
        "CREATE TABLE orders (id BIGINT NOT NULL, restaurant INT, status TEXT, price NUMERIC(10,2), rating DOUBLE PRECISION, ts TIMESTAMPTZ)
         WITH (seal_rows = 5000, time_column = 'ts')",
    );
    for segment in 0..segments {
        let from = segment * 5000;
        server.sql(&format!(
            "INSERT INTO orders SELECT i, i * 7 % 40, CASE WHEN i % 9 = 0 THEN NULL ELSE 'status ' || (i % 4) END, ((i * 7919) % 10007)::numeric / 100 - 20,
             CASE WHEN i % 3 = 0 THEN NULL ELSE (i % 11) * 0.5 END, TIMESTAMPTZ '2026-01-01 00:00:00Z' + i * INTERVAL '3 seconds'
             FROM generate_series({from}, {}) AS g(i)",
            from + 4999
        ));
    }
    server.sql("SELECT rt.seal('orders')");
    server.sql("INSERT INTO orders VALUES (-1, 7, 'status 1', -1.5, 4.5, '2026-01-01 00:30:00Z'), (-2, NULL, NULL, NULL, NULL, NULL)");
}

const QUESTIONS: [&str; 8] = [
    "SELECT count(*), sum(price), avg(price), count(rating), sum(rating) FROM orders",
    "SELECT status, count(*), sum(price), max(price), avg(rating) FROM orders GROUP BY status ORDER BY status",
    "SELECT date_trunc('hour', ts), status, sum(price) FROM orders WHERE restaurant = 7 GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT date_trunc('day', ts), count(*) FROM orders WHERE restaurant IN (3, 99, 12) GROUP BY 1 ORDER BY 1",
    "SELECT restaurant, sum(price) FROM orders WHERE ts >= '2026-01-01 02:00:00Z' AND ts < '2026-01-01 09:00:00Z' GROUP BY 1 ORDER BY 2, 1 LIMIT 5",
    "SELECT count(*) FROM orders WHERE restaurant = 7 OR status IS NULL",
    "SELECT status, count(*) FILTER (WHERE restaurant < 10), sum(price) FILTER (WHERE restaurant BETWEEN 3 AND 5) FROM orders GROUP BY 1 ORDER BY 1",
    "SELECT count(*), sum(price) FROM orders WHERE status LIKE '%3' AND restaurant IS NOT NULL",
];

/// The same answers with and without trees, to the digit.
fn agree(server: &Server) {
    for question in QUESTIONS {
        let plain = server.sql(&format!("SET rt.use_star_tree = off; {question}"));
        assert_eq!(server.sql(&format!("SET rt.use_star_tree = on; {question}")), plain, "{question}");
    }
}

fn explained(server: &Server, sql: &str) -> String {
    server.sql(sql).into_iter().map(|row| row[0].clone().unwrap()).collect::<Vec<_>>().join("\n")
}

const TREE: &str = "CREATE INDEX ON orders USING star_tree (restaurant, status, date_trunc('hour', ts))
    AGGREGATE (count(*), sum(price), max(price), sum(rating), avg(price)) WITH (max_leaf_records = 10)";

#[test]
fn a_tree_is_built_behind_queries_and_survives_kill_9_in_the_middle() {
    // One percent of a processor: a build takes a hundred times as long as it works.
    let mut server = Server::start_with(BINARY, &["--index-cpu", "1"]);
    fill(&server, 12);
    server.sql(TREE);
    server.wait_for(
        "SELECT segments_built BETWEEN 1 AND 11 AND state = 'building' FROM rt.indexes",
        "t",
        Duration::from_secs(60),
    );
    agree(&server);
    let some = index_files(&server.data_dir).pop().unwrap();
    server.kill_9();
    fs::write(some.with_extension("index.tmp"), b"half").unwrap();
    fs::write(&some, b"damaged").unwrap();
    server.spawn();
    server.wait_ready();
    agree(&server);
    server.wait_for("SELECT bool_and(state = 'ready' AND progress = 1) FROM rt.indexes", "t", Duration::from_secs(120));
    assert_eq!(server.value("SELECT segments_built || ' of ' || segments_total FROM rt.indexes"), "12 of 12");
    agree(&server);
    let plan = explained(&server, &format!("EXPLAIN {}", QUESTIONS[1]));
    assert!(plan.contains("star_tree=orders_star_tree (12 of 13 segments)"), "{plan}");
    // Hours that no bound cuts; segments outside of them are pruned.
    let plan = explained(&server, &format!("EXPLAIN ANALYZE {}", QUESTIONS[4]));
    assert!(plan.contains("star_tree=orders_star_tree (") && plan.contains("units_by_star_tree="), "{plan}");
    let off = explained(&server, &format!("SET rt.use_star_tree = off; EXPLAIN ANALYZE {}", QUESTIONS[1]));
    assert!(!off.contains("star_tree"), "{off}");

    // New segments have theirs at once, and they outlive a restart without a build.
    server.sql("SELECT rt.seal('orders')");
    assert_eq!(server.value("SELECT segments_built FROM rt.indexes"), "13");
    server.kill_and_restart();
    assert_eq!(server.value("SELECT segments_built FROM rt.indexes"), "13");
    let plan = explained(&server, &format!("EXPLAIN {}", QUESTIONS[1]));
    // Two rows are two documents: nothing is gained.
    assert!(plan.contains("star_tree=orders_star_tree (12 of 13 segments)"), "{plan}");
    agree(&server);

    // Columns that change their type or go away.
    server.sql("ALTER TABLE orders ALTER COLUMN restaurant TYPE BIGINT");
    agree(&server);
    server.sql("ALTER TABLE orders RENAME COLUMN price TO cost");
    assert!(server.value("SELECT options FROM rt.indexes").starts_with("aggregate=(count(*), sum(cost)"));
    server.sql("ALTER TABLE orders DROP COLUMN rating");
    assert_eq!(server.value("SELECT count(*) FROM rt.indexes"), "0");
    assert!(index_files(&server.data_dir).is_empty());
    server.stop();
}

#[test]
fn a_damaged_tree_is_given_up_and_built_again() {
    let mut server = Server::start(BINARY);
    fill(&server, 2);
    server.sql(TREE);
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60));
    server.kill_9();
    for file in index_files(&server.data_dir) {
        // Its documents, not what says what they are.
        let mut bytes = fs::read(&file).unwrap();
        for at in (2048..bytes.len() - 4096).step_by(97) {
            bytes[at] ^= 0x55;
        }
        fs::write(&file, bytes).unwrap();
    }
    server.spawn();
    server.wait_ready();
    agree(&server);
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60));
    agree(&server);
    assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE state = 'quarantined'"), "0");
    assert!(server.log().contains("an index is damaged"), "the damage is told");
    server.stop();
}

#[test]
fn definitions_come_back_as_they_were_given() {
    let server = Server::start(BINARY);
    fill(&server, 1);
    server.sql(TREE);
    server.sql("CREATE INDEX by_status ON orders USING star_tree (status)");
    let definition = |name: &str| server.value(&format!("SELECT indexdef FROM pg_indexes WHERE indexname = '{name}'"));
    let full = "CREATE INDEX orders_star_tree ON public.orders USING star_tree (restaurant, status, date_trunc('hour', ts)) \
                AGGREGATE (count(*), sum(price), max(price), sum(rating), count(price)) WITH (max_leaf_records='10')";
    assert_eq!(definition("orders_star_tree"), full);
    assert_eq!(
        definition("by_status"),
        "CREATE INDEX by_status ON public.orders USING star_tree (status) AGGREGATE (count(*), sum(id), sum(restaurant), sum(price))"
    );
    server.sql("DROP INDEX orders_star_tree");
    server.sql(full);
    assert_eq!(definition("orders_star_tree"), full);
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60));
    assert_eq!(
        server.value(
            "SELECT kind || ': ' || columns || ': ' || options FROM rt.indexes WHERE \"index\" = 'orders_star_tree'"
        ),
        "star_tree: restaurant, status, date_trunc('hour', ts): aggregate=(count(*), sum(price), max(price), sum(rating), count(price)), max_leaf_records=10"
    );
    // The one with fewer documents answers.
    let plan = explained(&server, "EXPLAIN SELECT status, count(*) FROM orders GROUP BY status");
    assert!(plan.contains("star_tree=by_status (1 of 2 segments)"), "{plan}");
    let plan = explained(&server, "EXPLAIN SELECT status, max(price) FROM orders GROUP BY status");
    assert!(plan.contains("star_tree=orders_star_tree (1 of 2 segments)"), "{plan}");
    server.sql("CREATE INDEX chosen ON orders USING star_tree AUTO");
    assert_eq!(
        definition("chosen"),
        "CREATE INDEX chosen ON public.orders USING star_tree (restaurant, status, date_trunc('hour', ts)) AGGREGATE (count(*), sum(id), sum(price))"
    );
}
