//! Star-trees that count rows which have lost since: made anew behind queries, right at every moment.

use std::time::{Duration, Instant};

use super::{BINARY, Random};
use crate::support::server::Server;

const SUMS: &str =
    "SELECT city, count(*), count(tip), sum(tip), min(tip), max(fare) FROM rides GROUP BY city ORDER BY city";
const OF_ONE: &str =
    "SELECT status, count(*), max(tip), sum(fare) FROM rides WHERE city = 'city 3' GROUP BY status ORDER BY status";
const ALL: &str = "SELECT count(*), sum(fare), min(fare), max(tip) FROM rides";

/// Every question by the trees and by the rows.
fn check(server: &Server, when: &str) {
    for question in [SUMS, OF_ONE, ALL] {
        let by_rows = server.sql(&format!("SET rt.use_star_tree = off; SET rt.use_result_cache = off; {question}"));
        assert!(!by_rows.is_empty());
        assert_eq!(server.sql(question), by_rows, "{when}: {question}");
    }
}

/// The rows that a question reads beside documents, as EXPLAIN says.
fn lost_rows_read(server: &Server) -> u64 {
    let plan: Vec<String> = server.sql(&format!("EXPLAIN {SUMS}")).into_iter().flatten().flatten().collect();
    let plan = plan.join("\n");
    let (_, answers) = plan.split_once("star_tree=").unwrap_or_else(|| panic!("no star-tree answers:\n{plan}"));
    let (answers, _) = answers.split_once(')').unwrap();
    answers.split_once(", less ").map_or(0, |(_, less)| less.split(' ').next().unwrap().parse().unwrap())
}

/// Of a few lost rows in each of the two segments they are not made anew.
fn wait_until_renewed(server: &Server) {
    let start = Instant::now();
    while lost_rows_read(server) >= 512 {
        assert!(start.elapsed() < Duration::from_secs(60), "star-trees are not made anew:\n{}", server.log());
        check(server, "while they are made anew");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn lost_rows_leave_star_trees_behind_queries() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE rides (id BIGINT PRIMARY KEY, version BIGINT, gone BOOLEAN, city TEXT, status TEXT, tip INT, fare NUMERIC(10,2))
         WITH (version_column = 'version', delete_column = 'gone', partitions = 2, seal_rows = 20000)",
    );
    server.sql("CREATE INDEX ON rides USING star_tree (city, status) AGGREGATE (count(*), sum(tip), min(tip), max(tip), sum(fare), min(fare), max(fare)) WITH (max_leaf_records = 10)");
    let insert = |version: usize, condition: &str| {
        server.sql(&format!(
            "INSERT INTO rides SELECT i, {version}, i % 50 = {version}, 'city ' || (i + {version}) % 20, 'status ' || i % 5,
             CASE WHEN i % 7 = 0 THEN NULL ELSE i * 31 % 1000 END, (i * 7919 % 100003)::numeric / 100
             FROM generate_series(1, 40000) AS s(i) WHERE {condition}"
        ));
    };
    insert(1, "true");
    server.sql("SELECT rt.seal('rides')");
    assert_eq!(lost_rows_read(&server), 800, "deleted rows");
    check(&server, "sealed");
    wait_until_renewed(&server);
    check(&server, "made anew");
    let random = &mut Random(7);
    for version in 2..6 {
        let (modulus, rest) = (20 + random.below(30), random.below(20));
        insert(version, &format!("i % {modulus} = {rest}"));
        check(&server, "more rows are lost");
        wait_until_renewed(&server);
        // A few are read each time.
        insert(version + 100, &format!("i BETWEEN {} AND {}", version * 1000, version * 1000 + 40));
        check(&server, "a few rows are lost");
    }
    let few = lost_rows_read(&server);
    assert!(few < 512, "{few} rows");
    server.sql("UPDATE rides SET fare = 1 WHERE id % 41 = 5");
    server.sql("DELETE FROM rides WHERE city = 'city 3' AND id % 3 = 0");
    check(&server, "changed by statements");
    wait_until_renewed(&server);
    check(&server, "made anew after statements");
    server.kill_and_restart();
    assert!(lost_rows_read(&server) > 1000, "what was made anew is gone with the process");
    check(&server, "restarted");
    wait_until_renewed(&server);
    check(&server, "restarted and made anew");
    // Files without a name leave nothing.
    let left: Vec<_> = files_below(&server.data_dir).into_iter().filter(|path| path.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn files_below(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}
