//! Groups made in the segments are those that DataFusion makes of the same rows: random queries, with `rt.aggregate_in_segment` on and off.

use proptest::prelude::*;

use crate::{
    scans::{Row, condition, filled, row, three},
    support::{World, rows},
};

const KEYS: [&str; 8] =
    ["city", "ok", "id", "at", "date_trunc('day', at)", "date_trunc('hour', at)", "date_trunc('week', at)", "id % 3"];

const AGGREGATES: [&str; 19] = [
    "count(*)",
    "count(city)",
    "count(id)",
    "sum(id)",
    "avg(id)",
    "min(id)",
    "max(id)",
    "sum(price)",
    "avg(price)",
    "min(price)",
    "max(price)",
    "min(city)",
    "max(city)",
    "min(at)",
    "max(at)",
    "bool_and(ok)",
    "bool_or(ok)",
    "count(DISTINCT city)",
    "sum(id + 1)",
];

fn query() -> impl Strategy<Value = String> {
    let aggregate = (prop::sample::select(AGGREGATES.to_vec()), prop::option::weighted(0.2, condition())).prop_map(
        |(call, filter)| match filter {
            Some(filter) => format!("{call} FILTER (WHERE {filter})"),
            None => call.to_owned(),
        },
    );
    (
        prop::sample::subsequence(KEYS.to_vec(), 0..4),
        prop::collection::vec(aggregate, 1..6),
        prop::option::weighted(0.4, condition()),
        prop::option::weighted(0.2, 1usize..4),
    )
        .prop_map(|(keys, aggregates, condition, having)| {
            let columns: Vec<String> = keys.iter().map(|key| (*key).to_owned()).chain(aggregates).collect();
            let places: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
            let condition = condition.map_or_else(String::new, |condition| format!(" WHERE {condition}"));
            let (mut groups, having) = (String::new(), having.map(|rows| format!(" HAVING count(*) > {rows}")));
            if !keys.is_empty() {
                let having = having.unwrap_or_default();
                groups = format!(" GROUP BY {}{having} ORDER BY {}", places.join(", "), places.join(", "));
            }
            format!("SELECT {} FROM {{}}{condition}{groups}", columns.join(", "))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_are_the_same_wherever_they_are_made(
        given in prop::collection::vec(row().prop_map(Row::tame), 0..150),
        queries in prop::collection::vec(query(), 10),
    ) {
        let world = World::with(|config| config.batch_rows = 16);
        let directory = tempfile::tempdir().unwrap();
        three(&world, directory.path(), &given);
        let session = world.session();
        for query in &queries {
            let ask = |table: &str, setting: &str| {
                session.settings().set("rt.aggregate_in_segment", setting, false).unwrap();
                let sql = query.replace("{}", table);
                rows(&session, &sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
            };
            let plain = ask("memory.plain", "off");
            for table in ["consuming", "sealed"] {
                prop_assert_eq!(&ask(table, "off"), &plain, "{} off: {}", table, query);
                prop_assert_eq!(&ask(table, "on"), &plain, "{} on: {}", table, query);
            }
        }
    }
}

#[test]
fn plans_tell_where_groups_are_made() {
    let world = World::new();
    filled(&world, "t", 50_000);
    let session = world.session();
    let explain = |sql: &str| text_of(rows(&session, &format!("EXPLAIN {sql}")).unwrap());
    for sql in [
        "SELECT city, count(*), sum(id), avg(price) FROM t GROUP BY city",
        "SELECT city, ok, max(at) FROM t WHERE id > 7 GROUP BY city, ok",
        "SELECT date_trunc('hour', at), count(*) FILTER (WHERE ok) FROM t GROUP BY 1",
        "SELECT sum(id), avg(id), min(city) FROM t",
        "SELECT DISTINCT city FROM t",
        "SELECT count(DISTINCT city) FROM t",
    ] {
        let plan = explain(sql);
        assert!(plan.contains("SegmentAggregateExec: table=t"), "{sql}\n{plan}");
        assert!(!plan.contains("SegmentScanExec"), "{sql}\n{plan}");
    }
    for sql in [
        "SELECT count(DISTINCT city), count(DISTINCT ok) FROM t",
        "SELECT city, string_agg(city, ',') FROM t GROUP BY city",
        "SELECT city, count(*) FROM t GROUP BY ROLLUP (city)",
        "SELECT upper(city), count(*) FROM t GROUP BY 1",
        "SELECT DISTINCT city FROM t LIMIT 3",
        "SELECT city, count(*) FROM t WHERE id + 1 > 5 GROUP BY city",
    ] {
        let plan = explain(sql);
        assert!(!plan.contains("SegmentAggregateExec"), "{sql}\n{plan}");
    }
    let sql = "SELECT city, ok, sum(price) FROM t WHERE id < 9 GROUP BY city, ok";
    let plan = explain(sql);
    assert!(plan.contains("group=[city, ok], aggregates=[sum(price)], predicate=id < 9"), "{plan}");
    let measured = text_of(rows(&session, &format!("EXPLAIN ANALYZE {sql}")).unwrap());
    assert!(measured.contains("rows_scanned=50000") && measured.contains("bytes_read="), "{measured}");
    session.settings().set("rt.aggregate_in_segment", "off", false).unwrap();
    assert!(explain(sql).contains("SegmentScanExec"));
    assert_eq!(session.settings().show("rt.aggregate_in_segment").unwrap(), "off");
    assert!(session.settings().set("rt.aggregate_in_segment", "maybe", false).is_err());
}

fn text_of(rows: Vec<Vec<String>>) -> String {
    rows.into_iter().map(|row| row.join("|")).collect::<Vec<_>>().join("\n")
}

/// Groups that outgrow the memory of queries are given in parts; what even the parts do not fit fails as any query does.
#[test]
fn many_groups_in_little_memory() {
    let world = World::with(|config| config.memory_bytes = 6 << 20);
    filled(&world, "t", 200_000);
    let rows = world.rows("SELECT count(*), sum(c) FROM (SELECT id, count(*) AS c FROM t GROUP BY id) g");
    match rows {
        Ok(rows) => assert_eq!(rows, [["200000", "200000"]]),
        Err(error) => assert_eq!(error.sqlstate, "53200", "{error}"),
    }
    assert_eq!(world.lines("SELECT city, count(*) FROM t GROUP BY city").len(), 7);
}
