//! What a plan learns while it runs and hands to its scans (the bound of a top-k, the keys of a join) changes no answer, and spares reading.

use proptest::prelude::*;

use crate::{
    scans::{condition, filled, row, three},
    support::World,
};

/// All columns, so that one order is the only right one; each in some direction.
fn order() -> impl Strategy<Value = String> {
    let columns = Just(vec!["id", "city", "price", "ok", "at"]).prop_shuffle();
    let ways = prop::collection::vec(prop::sample::select(vec!["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]), 5);
    (columns, ways).prop_map(|(columns, ways)| {
        let keys: Vec<String> = columns.iter().zip(ways).map(|(column, way)| format!("{column}{way}")).collect();
        keys.join(", ")
    })
}

const JOINS: [&str; 9] = [
    "SELECT a.id, a.city, a.at, b.price FROM {} a JOIN {} b ON a.id = b.id WHERE {where}",
    "SELECT a.id, a.city, a.at, b.price FROM {} a JOIN {} b ON a.id = b.id AND a.city = b.city WHERE {where}",
    "SELECT a.id, a.city, a.at, b.price FROM {} a LEFT JOIN {} b ON a.id = b.id AND b.ok WHERE {where}",
    "SELECT a.id, a.city, a.at, b.price FROM {} a RIGHT JOIN {} b ON a.at = b.at WHERE {where}",
    "SELECT a.id, a.city, a.at, b.price FROM {} a FULL JOIN {} b ON a.city = b.city AND a.id = b.id WHERE {where}",
    "SELECT a.id, a.city, a.at, a.price FROM {} a WHERE {where} AND a.id IN (SELECT id FROM {} b WHERE b.ok)",
    "SELECT a.id, a.city, a.at, a.price FROM {} a WHERE {where} AND a.id NOT IN (SELECT id FROM {} b WHERE b.id > 10)",
    "SELECT a.id, a.city, a.at, a.price FROM {} a WHERE {where} AND NOT EXISTS (SELECT FROM {} b WHERE b.city = a.city AND b.id > a.id)",
    "SELECT a.id, a.city, a.at, a.price FROM {} a JOIN (SELECT city, max(id) AS id FROM {} GROUP BY city) b ON a.city = b.city AND a.id = b.id WHERE {where}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn top_k_and_joins_answer_as_over_plain_rows(
        rows in prop::collection::vec(row(), 1..150),
        conditions in prop::collection::vec(condition(), 4),
        orders in prop::collection::vec(order(), 6),
        k in 0usize..12,
        skip in 0usize..4,
    ) {
        let world = World::with(|config| config.batch_rows = 16);
        let directory = tempfile::tempdir().unwrap();
        three(&world, directory.path(), &rows);
        let mut questions = Vec::new();
        for (order, condition) in orders.iter().zip(conditions.iter().cycle()) {
            let columns = "id, city, price, ok, at";
            questions.push(format!("SELECT {columns} FROM {{}} ORDER BY {order} LIMIT {k} OFFSET {skip}"));
            questions.push(format!("SELECT {columns} FROM {{}} WHERE {condition} ORDER BY {order} LIMIT {k}"));
        }
        let qualified = |condition: &str| {
            let mut out = String::new();
            let mut quoted = false;
            for word in condition.split_inclusive(|c: char| !c.is_alphanumeric()) {
                let name = word.trim_end_matches(|c: char| !c.is_alphanumeric());
                if !quoted && ["id", "city", "price", "ok", "at"].contains(&name) {
                    out.push_str("a.");
                }
                out.push_str(word);
                quoted ^= word.ends_with('\'');
            }
            out
        };
        for (join, condition) in JOINS.iter().zip(conditions.iter().cycle()) {
            let join = join.replace("{where}", &format!("({})", qualified(condition)));
            questions.push(format!("{join} ORDER BY 1, 2, 3, 4"));
            questions.push(format!("{join} ORDER BY 1 DESC, 2, 3 DESC, 4 LIMIT {k}"));
        }
        for question in &questions {
            let ask = |table: &str| world.lines(&question.replace("{}", table));
            let plain = ask("memory.plain");
            prop_assert_eq!(&ask("consuming"), &plain, "consuming: {}", question);
            prop_assert_eq!(&ask("sealed"), &plain, "sealed: {}", question);
        }
    }
}

/// The keys of one round must not narrow the scan of the next.
#[test]
fn each_round_of_a_recursive_query_reads_anew() {
    let world = World::new();
    filled(&world, "t", 2000);
    let steps = "WITH RECURSIVE r AS (SELECT 5 AS id, 0 AS n UNION ALL \
                 SELECT t.id, n + 1 FROM r JOIN t ON t.id = r.id * 2 + 1) SELECT string_agg(id::text, ' ' ORDER BY n) FROM r";
    assert_eq!(world.value(steps), "5 11 23 47 95 191 383 767 1535");
    let best = "WITH RECURSIVE r AS (SELECT 0 AS id, 0 AS n UNION ALL \
                SELECT * FROM (SELECT t.id, n + 1 AS n FROM r JOIN t ON t.id > r.id ORDER BY t.id LIMIT 1) s WHERE n < 20) \
                SELECT max(id) FROM r";
    assert_eq!(world.value(best), "19");
}

#[test]
fn plans_say_what_narrows_a_scan() {
    let world = World::new();
    filled(&world, "t", 1000);
    filled(&world, "u", 1000);
    let plan = world.lines("EXPLAIN SELECT * FROM t WHERE ok ORDER BY at DESC, id LIMIT 10").join("\n");
    assert!(plan.contains("best first by at DESC, narrowed by [DynamicFilter"), "{plan}");
    // A sum of columns is no column of the table.
    let plan = world.lines("EXPLAIN SELECT * FROM t ORDER BY id + price LIMIT 10").join("\n");
    assert!(!plan.contains("best first"), "{plan}");
    let plan = world.lines("EXPLAIN SELECT t.price FROM t JOIN u ON t.id = u.id WHERE u.price < 3").join("\n");
    assert!(plan.contains("narrowed by [DynamicFilter"), "{plan}");
}

/// Rows that the latest ones rule out do not leave the scan.
#[test]
fn the_latest_rows_are_found_where_they_are() {
    let world = World::new();
    filled(&world, "t", 300_000);
    let analyzed = world.lines("EXPLAIN ANALYZE SELECT * FROM t ORDER BY at DESC LIMIT 5").join("\n");
    let scan = analyzed.lines().find(|line| line.contains("SegmentScanExec")).unwrap();
    let (_, rows) = scan.split_once(" rows=").unwrap();
    let rows: u64 = rows.split(',').next().unwrap().parse().unwrap();
    assert!(rows < 20_000, "{analyzed}");
}
