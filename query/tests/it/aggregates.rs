//! Groups made in the segments are those that DataFusion makes of the same rows: random queries, with `rt.aggregate_in_segment` on and off.

use proptest::prelude::*;

use crate::{
    scans::{Row, condition, counted, filled, row, sealed, three},
    support::{World, rows},
};

const KEYS: [&str; 10] = [
    "city",
    "ok",
    "id",
    "at",
    "date_trunc('day', at)",
    "date_trunc('hour', at)",
    "date_trunc('week', at)",
    "id % 3",
    "upper(city)",
    "coalesce(city, 'b')",
];

const AGGREGATES: [&str; 25] = [
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
    "avg(id * 2 - 3)",
    "max(price + id)",
    "count(nullif(city, 'a'))",
    "min(upper(city))",
    "sum(CASE WHEN ok THEN id ELSE 0.5 END)",
    "bool_or(id > 3)",
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
        "SELECT count(DISTINCT city), count(DISTINCT ok) FROM t",
        "SELECT city, sum(id * 2), avg(price + id), max(upper(city)), count(*) FILTER (WHERE ok) FROM t GROUP BY city",
        "SELECT sum(CASE WHEN ok THEN price ELSE 0 END) FROM t WHERE city = 'a'",
        "SELECT upper(city), count(*) FROM t GROUP BY 1",
        "SELECT city, upper(city) || '!', length(city), sum(id) FROM t GROUP BY 1, 2, 3",
        "SELECT city, count(*) FROM t WHERE id + 1 > 5 GROUP BY city",
        "SELECT city, count(*) FILTER (WHERE id % 3 = 1) FROM t GROUP BY city",
    ] {
        let plan = explain(sql);
        assert!(plan.contains("SegmentAggregateExec: table=t"), "{sql}\n{plan}");
        assert!(!plan.contains("SegmentScanExec"), "{sql}\n{plan}");
    }
    for sql in [
        "SELECT city, string_agg(city, ',') FROM t GROUP BY city",
        "SELECT city, count(*) FROM t GROUP BY ROLLUP (city)",
        "SELECT id % 3, count(*) FROM t GROUP BY 1",
        "SELECT city, count(*) FROM t WHERE id + price > 5 GROUP BY city",
        "SELECT city, sum(random()) FROM t GROUP BY 1",
        "SELECT DISTINCT city FROM t LIMIT 3",
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

/// DataFusion 55 gave the scan `id > 18` as soon as it knew a greatest id, although the other aggregates had found nothing yet in the rows so
/// far: they never saw the rest.
#[test]
fn extremes_see_every_row_that_they_need() {
    let world = World::with(|config| (config.batch_rows, config.lanes) = (16, 1));
    let directory = tempfile::tempdir().unwrap();
    let rows = |id: i64, city: &str| Row::new(Some(id), Some(city));
    three(&world, directory.path(), &[rows(18, "Z"), rows(2, "a"), rows(1, "b")]);
    for setting in ["on", "off"] {
        let session = world.session();
        session.settings().set("rt.aggregate_in_segment", setting, false).unwrap();
        for table in ["consuming", "sealed", "memory.plain"] {
            let sql = format!("SELECT max(id), min(city) FILTER (WHERE city >= 'a'), max(-id) FROM {table}");
            assert_eq!(super::support::rows(&session, &sql).unwrap(), [["18", "a", "-1"]], "{setting}: {sql}");
        }
    }
}

/// What cannot be computed of a row is the error that it is elsewhere, and only where the row is one of those asked for.
#[test]
fn computed_arguments_fail_as_elsewhere() {
    let world = World::new();
    filled(&world, "t", 10);
    for setting in ["on", "off"] {
        let session = world.session();
        session.settings().set("rt.aggregate_in_segment", setting, false).unwrap();
        let ask = |sql: &str| super::support::rows(&session, sql).map_err(|error| error.sqlstate.to_string());
        assert_eq!(ask("SELECT sum(10 / id) FROM t").unwrap_err(), "22012", "{setting}");
        assert_eq!(ask("SELECT sum(id * 9223372036854775807) FROM t").unwrap_err(), "22003", "{setting}");
        assert_eq!(ask("SELECT sum(10 / id) FROM t WHERE id > 4").unwrap(), [["6"]], "{setting}");
    }
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

#[test]
fn groups_that_lie_close_together_are_merged_over_segments() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    sealed(&world, directory.path(), &counted(225_000));
    let session = world.session();
    let explain = |sql: &str| text_of(rows(&session, &format!("EXPLAIN {sql}")).unwrap());
    for sql in [
        "SELECT id, count(*), sum(id), avg(price), count(ok) FROM sealed GROUP BY id",
        "SELECT count(DISTINCT id) FROM sealed",
        "SELECT DISTINCT id FROM sealed",
    ] {
        let plan = explain(sql);
        assert!(plan.contains("merged over segments"), "{sql}\n{plan}");
        let answer = |way: &str| {
            session.settings().set("rt.aggregate_in_segment", way, false).unwrap();
            let mut found = rows(&session, sql).unwrap();
            found.sort();
            found
        };
        assert!(answer("off") == answer("on"), "{sql}");
    }
    for sql in [
        // Few groups; texts; few rows; a condition that may leave few.
        "SELECT id % 3, count(*) FROM sealed GROUP BY 1",
        "SELECT city, count(*) FROM sealed GROUP BY city",
        "SELECT id, count(*) FROM sealed WHERE price > 5 GROUP BY id",
        "SELECT id, approx_distinct(city) FROM sealed GROUP BY id",
    ] {
        let plan = explain(sql);
        assert!(!plan.contains("merged over segments"), "{sql}\n{plan}");
    }
}
