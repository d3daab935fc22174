//! Parameters, settings, memory.

use arrow::datatypes::DataType as Arrow;
use tidemill_query::{ScalarValue, parse::parse};
use tidemill_storage::schema::DataType;

use crate::{
    scans::filled,
    support::{World, block_on, rows, text},
};

#[test]
fn parameters_are_typed_by_what_they_meet() {
    let world = World::new();
    filled(&world, "t", 100);
    let session = world.session();
    block_on(async {
        for (sql, types) in [
            ("SELECT * FROM t WHERE id = $1 AND city = $2", vec![Arrow::Int64, Arrow::Utf8View]),
            ("SELECT * FROM t WHERE id = ANY($1)", vec![Arrow::new_list(Arrow::Int64, true)]),
            ("SELECT * FROM t WHERE price > $1 LIMIT $2", vec![Arrow::Float64, Arrow::Int64]),
            ("SELECT $1::int + 1", vec![Arrow::Int32]),
            ("SELECT $1", vec![Arrow::Utf8View]),
            ("INSERT INTO t (id, price) VALUES ($1, $2)", vec![Arrow::Int64, Arrow::Float64]),
            ("SELECT * FROM t WHERE id BETWEEN $2 AND $1", vec![Arrow::Int64, Arrow::Int64]),
        ] {
            let plan = session.plan(&parse(sql).unwrap()[0], sql).await.unwrap();
            let found: Vec<Arrow> = plan.parameters().iter().map(|field| field.data_type().clone()).collect();
            assert_eq!(found, types, "{sql}");
        }
        let sql = "SELECT count(*) FROM t WHERE id = ANY($1)";
        let plan = session.plan(&parse(sql).unwrap()[0], sql).await.unwrap();
        for (ids, count) in [(vec![1, 2, 3], "3"), (vec![], "0"), (vec![1000], "0")] {
            let items: Vec<ScalarValue> = ids.iter().map(|id| ScalarValue::Int64(Some(*id))).collect();
            let list = ScalarValue::List(ScalarValue::new_list(&items, &Arrow::Int64, true));
            let bound = session.bind(&plan, vec![list]).unwrap();
            let batches = session.execute(&bound).unwrap().collect_all().await.unwrap();
            assert_eq!(text(&batches), [[count]]);
        }
        assert_eq!(session.execute(&plan).unwrap_err().sqlstate, "42P02");
        assert_eq!(session.bind(&plan, vec![]).unwrap_err().sqlstate, "08P01");
    });
}

#[test]
fn memory_has_an_end() {
    let world = World::with(|config| {
        config.memory_bytes = 1 << 20;
        config.spill_bytes_max = 1 << 20;
    });
    filled(&world, "t", 200_000);
    let error = world.error("SELECT array_agg(id), array_agg(city) FROM t");
    assert_eq!(error.sqlstate, "53200", "{error:?}");
    assert_eq!(world.value("SELECT count(*) FROM t"), "200000");
}

#[test]
fn settings_are_the_sessions_own() {
    let world = World::new();
    let (a, b) = (world.session(), world.session());
    a.settings().set("TimeZone", "America/New_York", false).unwrap();
    let sql = "SELECT timestamptz '2026-07-01 12:00Z'::text";
    assert_eq!(rows(&a, sql).unwrap(), [["2026-07-01 08:00:00-04"]]);
    assert_eq!(rows(&b, sql).unwrap(), [["2026-07-01 12:00:00+00"]]);
    assert_eq!(rows(&a, "SHOW timezone").unwrap(), [["America/New_York"]]);
    rows(&b, "SELECT set_config('myapp.tenant', '7', false)").unwrap();
    assert_eq!(rows(&b, "SELECT current_setting('myapp.tenant')").unwrap(), [["7"]]);
    assert_eq!(rows(&a, "SELECT current_setting('myapp.tenant', true)").unwrap(), [[""]]);
}

#[test]
fn rows_to_insert_are_read_as_their_columns() {
    let world = World::new();
    world.table("t", &[("id", DataType::BigInt), ("key", DataType::Uuid), ("doc", DataType::Jsonb)]);
    let session = world.session();
    let sql = r#"INSERT INTO t VALUES (1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"b":1,"a":2,"b":3}')"#;
    assert_eq!(rows(&session, sql).unwrap(), [["1", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", r#"{"a": 2, "b": 3}"#]]);
    for sql in ["INSERT INTO t (key) VALUES ('no')", "INSERT INTO t (doc) SELECT '{' || id::text FROM (SELECT 1 AS id)"]
    {
        assert_eq!(rows(&session, sql).unwrap_err().sqlstate, "22P02", "{sql}");
    }
}

#[test]
fn columns_are_named_and_traced_as_clients_expect() {
    let world = World::new();
    world.table("t", &[("id", DataType::BigInt), ("doc", DataType::Jsonb), ("key", DataType::Uuid)]);
    let session = world.session();
    block_on(async {
        let sql = "SELECT 1, count(*), count(id), max(id), id::text, 1::int, upper('a') FROM t GROUP BY id";
        let plan = session.plan(&parse(sql).unwrap()[0], sql).await.unwrap();
        let names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["?column?", "count", "count", "max", "id", "int4", "upper"]);
        let sql = "SELECT t.key, x.doc, x.id + 1 FROM t JOIN (SELECT * FROM t) x ON t.id = x.id ORDER BY 1";
        let plan = session.plan(&parse(sql).unwrap()[0], sql).await.unwrap();
        let columns: Vec<_> = plan.origins().iter().map(|origin| origin.map(|origin| origin.column)).collect();
        assert_eq!(columns, [Some(3), Some(2), None]);
        let markers: Vec<_> = plan
            .schema()
            .fields()
            .iter()
            .map(|f| f.metadata().get("tidemill.type").cloned().unwrap_or_default())
            .collect();
        assert_eq!(markers, ["uuid", "jsonb", ""]);
    });
}

#[test]
fn explain_tells_what_the_scan_does() {
    let world = World::new();
    filled(&world, "t", 1000);
    let plan = world.value("EXPLAIN SELECT city, price FROM t WHERE id > 10 AND city LIKE 'a%'");
    assert!(plan.contains("SegmentScanExec: table=t, segments=1"), "{plan}");
    assert!(plan.contains("predicate=id > 10 AND city LIKE 'a%'"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
    let analyzed = world.value("EXPLAIN ANALYZE SELECT count(*) FROM t WHERE id > 10");
    assert!(analyzed.contains("rows_scanned=1000"), "{analyzed}");
    let json = world.value("EXPLAIN (FORMAT JSON, COSTS OFF) SELECT 1");
    assert!(json.starts_with('['), "{json}");
}
