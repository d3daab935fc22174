//! Answers of sealed segments that are kept for the next query.

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn text(rows: Vec<Vec<Option<String>>>) -> String {
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Units of the plan that kept answers stand for.
fn by_cache(plan: &str) -> u32 {
    plan.split("units_by_cache=")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u32>().unwrap())
        .sum()
}

/// The answer's digest, kept answers used and not.
fn agree(server: &Server, query: &str) -> String {
    let digest = |setting: &str| {
        server.value(&format!("SET rt.use_result_cache = {setting}; SELECT md5(string_agg(x::text, ',' ORDER BY x)) FROM ({query}) q(k, n, x)"))
    };
    let plain = digest("off");
    assert_eq!(digest("on"), plain, "{query}");
    assert_eq!(digest("on"), plain, "{query}");
    plain
}

#[test]
fn a_query_that_comes_again_finds_the_answers_of_sealed_segments() {
    let server = Server::start(BINARY);
    let fill = |from: u32, to: u32| {
        server.sql(&format!("INSERT INTO t SELECT i, i % 5003 FROM generate_series({from}, {to}) AS g(i)"));
    };
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, k INT) WITH (seal_rows = 150000)");
    fill(1, 150_000);
    fill(150_001, 300_000);
    server.sql("SELECT rt.seal('t')");
    fill(300_001, 300_100);
    // The moving bound is below all rows, as that of a refreshed dashboard is for all but a few segments.
    let query = |bound: i32| format!("SELECT k, count(*) AS n, sum(id) AS x FROM t WHERE id > {bound} GROUP BY k");
    let explained = |bound: i32| text(server.sql(&format!("EXPLAIN ANALYZE {}", query(bound))));
    let first = explained(-1);
    assert_eq!(by_cache(&first), 0, "{first}");
    let second = explained(-2);
    assert_eq!(by_cache(&second), 2, "{second}");
    let other = explained(100_000);
    assert_eq!(by_cache(&other), 1, "the second segment's rows are all above the bound: {other}");
    let off = text(server.sql(&format!("SET rt.use_result_cache = off; EXPLAIN ANALYZE {}", query(-1))));
    assert_eq!(by_cache(&off), 0, "{off}");

    let before = agree(&server, &query(-1));
    fill(300_101, 300_200);
    assert_ne!(agree(&server, &query(-1)), before, "rows that came later are in the answer");
    // Columns are told apart by what they are, not by their names.
    server.sql("ALTER TABLE t RENAME COLUMN k TO old");
    server.sql("ALTER TABLE t ADD COLUMN k INT DEFAULT 7");
    assert_eq!(server.value("SELECT count(DISTINCT k) || ' ' || min(k) FROM t"), "1 7");
    agree(&server, &query(-1));
    server.sql("ALTER TABLE t ALTER COLUMN old TYPE BIGINT");
    agree(&server, "SELECT old, count(*), sum(id) FROM t GROUP BY old");
    // A table of the same name is another table.
    server.sql("DROP TABLE t");
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, k INT)");
    server.sql("INSERT INTO t VALUES (1, 2)");
    server.sql("SELECT rt.seal('t')");
    assert_eq!(server.value(&format!("SELECT count(*) FROM ({}) q", query(-1))), "1");
}
