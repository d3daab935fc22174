//! A statement that is executed again, from the plan that it kept, answers as one that is planned anew with its values in its text.

use proptest::prelude::*;
use tidemill_query::{Plan, ScalarValue, Session, parse::parse};
use tidemill_storage::segment::Segment;

use crate::{
    scans::{filled, row, three},
    support::{World, block_on, rows, text},
};

fn planned(session: &Session, sql: &str) -> Plan {
    block_on(session.plan(&parse(sql).unwrap()[0], sql)).unwrap()
}

fn executed(session: &Session, plan: &Plan, values: Vec<ScalarValue>) -> Vec<Vec<String>> {
    block_on(async {
        let bound = session.bind(plan, values).unwrap();
        text(&session.execute(&bound).unwrap().collect_all().await.unwrap())
    })
}

/// Statements with parameters, and the same with the values written out: `{1}` and `{2}`.
const STATEMENTS: [(&str, &str); 12] = [
    ("SELECT count(*), sum(id) FROM sealed t WHERE id = $1", "SELECT count(*), sum(id) FROM sealed t WHERE id = {1}"),
    (
        "SELECT count(*), sum(id) FROM sealed t WHERE id > $1 AND city >= $2",
        "SELECT count(*), sum(id) FROM sealed t WHERE id > {1} AND city >= {2}",
    ),
    (
        "SELECT city, count(*) FROM sealed t WHERE id BETWEEN $1 AND 9 OR city = $2 GROUP BY city ORDER BY 1",
        "SELECT city, count(*) FROM sealed t WHERE id BETWEEN {1} AND 9 OR city = {2} GROUP BY city ORDER BY 1",
    ),
    (
        "SELECT id, city FROM sealed t WHERE id IN ($1, 3) OR city IN ('b', $2) ORDER BY 1, 2",
        "SELECT id, city FROM sealed t WHERE id IN ({1}, 3) OR city IN ('b', {2}) ORDER BY 1, 2",
    ),
    (
        "SELECT id, city FROM sealed t WHERE id = $1 + 1 OR city = $2 || 'b' ORDER BY 1, 2",
        "SELECT id, city FROM sealed t WHERE id = {1} + 1 OR city = {2} || 'b' ORDER BY 1, 2",
    ),
    (
        "SELECT id, $2 AS x FROM sealed t WHERE id <> $1 ORDER BY 1",
        "SELECT id, {2} AS x FROM sealed t WHERE id <> {1} ORDER BY 1",
    ),
    (
        "SELECT a.id, b.city FROM sealed a JOIN sealed b ON a.id = b.id AND b.city > $2 WHERE a.id < $1 ORDER BY 1, 2",
        "SELECT a.id, b.city FROM sealed a JOIN sealed b ON a.id = b.id AND b.city > {2} WHERE a.id < {1} ORDER BY 1, 2",
    ),
    (
        "SELECT city, max(id) FROM sealed t GROUP BY city HAVING max(id) > $1 OR city = $2 ORDER BY 1",
        "SELECT city, max(id) FROM sealed t GROUP BY city HAVING max(id) > {1} OR city = {2} ORDER BY 1",
    ),
    (
        "SELECT count(*) FILTER (WHERE id > $1), min(city) FROM sealed t WHERE city <> $2",
        "SELECT count(*) FILTER (WHERE id > {1}), min(city) FROM sealed t WHERE city <> {2}",
    ),
    (
        "SELECT id FROM sealed t WHERE id NOT IN (SELECT id FROM sealed t WHERE id > $1) AND city < $2 ORDER BY 1",
        "SELECT id FROM sealed t WHERE id NOT IN (SELECT id FROM sealed t WHERE id > {1}) AND city < {2} ORDER BY 1",
    ),
    (
        "SELECT id, (SELECT count(*) FROM sealed u WHERE u.id = t.id AND u.city = $2) FROM sealed t WHERE NOT id <= $1 ORDER BY 1, 2",
        "SELECT id, (SELECT count(*) FROM sealed u WHERE u.id = t.id AND u.city = {2}) FROM sealed t WHERE NOT id <= {1} ORDER BY 1, 2",
    ),
    (
        "SELECT id FROM sealed t WHERE id > $1 UNION SELECT id FROM sealed t WHERE city = $2 ORDER BY 1",
        "SELECT id FROM sealed t WHERE id > {1} UNION SELECT id FROM sealed t WHERE city = {2} ORDER BY 1",
    ),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kept_plans_answer_as_new_ones(
        rows_in in prop::collection::vec(row(), 1..60),
        values in prop::collection::vec((prop::option::weighted(0.8, -3i64..15), prop::option::weighted(0.8, prop::sample::select(vec!["", "a", "b", "zz"]))), 4),
    ) {
        let world = World::with(|config| config.batch_rows = 16);
        let directory = tempfile::tempdir().unwrap();
        three(&world, directory.path(), &rows_in);
        let session = world.session();
        for (prepared, written) in STATEMENTS {
            let plan = planned(&session, prepared);
            for (number, word) in &values {
                let parameters = [ScalarValue::Int64(*number), ScalarValue::Utf8View(word.map(str::to_owned))];
                let parameters = parameters[..plan.parameters().len()].to_vec();
                let number = number.map_or("NULL::bigint".to_owned(), |number| format!("{number}::bigint"));
                let word = word.map_or("NULL::text".to_owned(), |word| format!("'{word}'::text"));
                let written = written.replace("{1}", &number).replace("{2}", &word);
                prop_assert_eq!(executed(&session, &plan, parameters), rows(&session, &written).unwrap(), "{}", written);
            }
        }
    }
}

#[test]
fn limits_may_be_parameters() {
    let world = World::new();
    filled(&world, "t", 100);
    let session = world.session();
    let plan = planned(&session, "SELECT id FROM t ORDER BY id DESC LIMIT $1 OFFSET $2");
    let ask = |limit, offset| {
        let rows = executed(&session, &plan, vec![ScalarValue::Int64(limit), ScalarValue::Int64(offset)]);
        rows.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ask(Some(2), Some(0)), "99 98");
    assert_eq!(ask(Some(3), Some(1)), "98 97 96");
    assert_eq!(ask(Some(0), Some(1)), "");
    assert_eq!(ask(None, Some(98)), "1 0");
}

/// A kept plan must not keep the time, nor the zone that a text was read in.
#[test]
fn time_and_settings_do_not_stand_still() {
    let world = World::new();
    filled(&world, "t", 100);
    let session = world.session();
    let clock = planned(&session, "SELECT count(*) FROM t WHERE at < now() AND clock_timestamp() >= now()");
    let stamp = planned(&session, "SELECT DISTINCT now()::text FROM t");
    assert_eq!(executed(&session, &clock, vec![])[0][0], "100");
    let first = executed(&session, &stamp, vec![]);
    std::thread::sleep(std::time::Duration::from_millis(3));
    assert_ne!(executed(&session, &stamp, vec![]), first);
    let hours = planned(&session, "SELECT count(*) FROM t WHERE date_trunc('day', at) = '1970-01-01'::timestamptz");
    assert_eq!(executed(&session, &hours, vec![])[0][0], "100");
    session.settings().set("TimeZone", "Asia/Tokyo", false).unwrap();
    // 00:00Z of the first is 09:00 there: the day is the same, and began at 15:00Z of the day before.
    assert_eq!(executed(&session, &hours, vec![])[0][0], "100");
    session.settings().set("TimeZone", "America/New_York", false).unwrap();
    assert_eq!(executed(&session, &hours, vec![])[0][0], "0");
}

/// A table that grows is read as it is, each time.
#[test]
fn each_execution_has_its_own_snapshot() {
    let world = World::new();
    let mut writer = world.table("grows", &[("n", tidemill_storage::schema::DataType::BigInt)]);
    let session = world.session();
    let plan = planned(&session, "SELECT count(*), max(n) FROM grows WHERE n >= $1");
    let schema = writer.consuming().schema().arrow();
    for count in 0..4i64 {
        assert_eq!(executed(&session, &plan, vec![ScalarValue::Int64(Some(0))])[0][0], count.to_string());
        let one = arrow::array::Int64Array::from(vec![count]);
        let batch =
            arrow::array::RecordBatch::try_new(std::sync::Arc::clone(&schema), vec![std::sync::Arc::new(one)]).unwrap();
        writer.append(&batch, &[]).unwrap();
    }
}
