//! Consuming rows, sealed rows and DataFusion over the same rows in memory answer alike.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    },
    datatypes::SchemaRef,
};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    datasource::MemTable,
};
use proptest::prelude::*;
use tidemill_storage::{
    ids::{PartitionId, TableId},
    schema::DataType,
    segment::{
        Segment,
        builder::{SealContext, seal},
        committed::{Expected, open},
    },
};

use crate::support::World;

pub(crate) const COLUMNS: [(&str, DataType); 5] = [
    ("id", DataType::BigInt),
    ("city", DataType::Text),
    ("price", DataType::Double),
    ("ok", DataType::Boolean),
    ("at", DataType::TimestampTz),
];

#[derive(Clone, Debug)]
pub(crate) struct Row {
    id: Option<i64>,
    city: Option<String>,
    price: Option<f64>,
    ok: Option<bool>,
    at: Option<i64>,
}

impl Row {
    pub(crate) fn new(id: Option<i64>, city: Option<&str>) -> Self {
        Self { id, city: city.map(str::to_owned), price: None, ok: None, at: None }
    }

    /// With a price whose sums are the same in every order.
    pub(crate) fn tame(mut self) -> Self {
        self.price = self.price.map(|price| price.min(8.25));
        self
    }
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.id).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.city.as_deref()).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.price).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.ok).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.at).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// A consuming table of `count` plain rows.
pub(crate) fn filled(world: &World, name: &str, count: i64) {
    let mut writer = world.table(name, &COLUMNS);
    let schema = writer.consuming().schema().arrow();
    writer.append(&batch(&schema, &counted(count)), &[]).unwrap();
}

/// Rows with the ids from 0 on.
pub(crate) fn counted(count: i64) -> Vec<Row> {
    (0..count)
        .map(|id| Row {
            id: Some(id),
            city: Some(format!("c{}", id % 7)),
            price: Some(id as f64 / 4.0),
            ok: Some(id % 2 == 0),
            at: Some(id * 1_000_000),
        })
        .collect()
}

/// Tables `consuming` and `sealed`, and `memory.plain`, all with `rows`.
pub(crate) fn three(world: &World, directory: &std::path::Path, rows: &[Row]) {
    let mut consuming = world.table("consuming", &COLUMNS);
    let schema = consuming.consuming().schema().arrow();
    for part in rows.chunks(7) {
        consuming.append(&batch(&schema, part), &[]).unwrap();
    }
    sealed(world, directory, rows);
    let memory = MemorySchemaProvider::new();
    let plain = MemTable::try_new(Arc::clone(&schema), vec![vec![batch(&schema, rows)]]).unwrap();
    memory.register_table("plain".into(), Arc::new(plain)).unwrap();
    world.engine.register_schema("memory", Arc::new(memory));
}

/// Table `sealed` with `rows` in three segments.
pub(crate) fn sealed(world: &World, directory: &std::path::Path, rows: &[Row]) {
    let mut writer = world.table("sealed", &COLUMNS);
    let schema = writer.consuming().schema().arrow();
    for (index, part) in rows.chunks(rows.len().div_ceil(3).max(1)).enumerate() {
        writer.append(&batch(&schema, part), &[]).unwrap();
        let table_schema = Arc::clone(writer.consuming().schema());
        let ended = writer.rotate(table_schema).unwrap();
        let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
        let file = seal(&ended, directory, &format!("{index}.seg"), &context).unwrap();
        let expected = Expected { id: ended.id(), bytes: file.bytes, checksum: file.checksum };
        let segment: Arc<dyn Segment> = open(&file.path, &expected).unwrap();
        writer.partition().put(segment);
    }
}

pub(crate) fn row() -> impl Strategy<Value = Row> {
    (
        prop::option::weighted(0.9, -5i64..20),
        prop::option::weighted(0.9, prop::sample::select(vec!["", "a", "ab", "b", "Ab", "ž", "a%"])),
        prop::option::weighted(0.9, prop::sample::select(vec![0.0, 1.5, -1.5, 2.0, 1e300])),
        prop::option::weighted(0.9, any::<bool>()),
        prop::option::weighted(0.9, 0i64..5),
    )
        .prop_map(|(id, city, price, ok, at)| Row {
            id,
            city: city.map(str::to_owned),
            price,
            ok,
            at: at.map(|day| day * 86_400_000_000),
        })
}

pub(crate) fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]), -6i64..21)
            .prop_map(|(op, v)| format!("id {op} {v}")),
        (prop::sample::select(vec!["=", "<>", "<", ">="]), prop::sample::select(vec!["", "a", "ab", "zz"]))
            .prop_map(|(op, v)| format!("city {op} '{v}'")),
        prop::sample::select(vec![
            "price > 1.5",
            "price = 0",
            "1.5 >= price",
            "ok",
            "ok IS NOT TRUE",
            "ok = false",
            "id IS NULL",
            "city IS NOT NULL",
            "city LIKE 'a%'",
            "city NOT ILIKE 'A_'",
            "city LIKE 'a\\%'",
            "id IN (1, 2, 3)",
            "id NOT IN (1, 2)",
            "id IN (1, NULL)",
            "id NOT IN (1, NULL)",
            "id BETWEEN 2 AND 8",
            "id NOT BETWEEN 2 AND 8",
            "at > '1970-01-03'",
            "at = timestamptz '1970-01-02 00:00Z'",
            "id = ANY(ARRAY[3, 4])",
            "id + 1 > 4",
            "id > price",
            "city || 'x' = 'ax'",
            "id > 2.5",
            "upper(city) = 'AB'",
            "coalesce(city, 'b') = 'b'",
            "(city = 'a') IS NOT FALSE",
            "id % 3 <> 1",
            "length(city) > 1",
            "extract(day from at) = 2",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn consuming_sealed_and_plain_rows_answer_alike(
        rows in prop::collection::vec(row(), 1..120),
        conditions in prop::collection::vec(condition(), 8),
    ) {
        let world = World::with(|config| config.batch_rows = 16);
        let directory = tempfile::tempdir().unwrap();
        three(&world, directory.path(), &rows);
        for condition in &conditions {
            for shape in [
                "SELECT count(*), sum(id), min(city), max(at) FROM {} WHERE {where}",
                "SELECT city, ok, count(*), count(id), sum(id), avg(price), min(id), max(price) FROM {} WHERE {where} GROUP BY city, ok ORDER BY 1, 2, 3, 4, 5",
                "SELECT id, city, price, ok, at FROM {} WHERE {where} ORDER BY 1, 2, 3, 4, 5",
            ] {
                let ask = |table: &str| world.lines(&shape.replace("{where}", condition).replace("{}", table));
                let plain = ask("memory.plain");
                prop_assert_eq!(&ask("consuming"), &plain, "consuming: {} {}", shape, condition);
                prop_assert_eq!(&ask("sealed"), &plain, "sealed: {} {}", shape, condition);
            }
        }
        for all in ["SELECT count(*), min(id), max(id), min(at), max(at) FROM {}", "SELECT city, count(*) FROM {} GROUP BY city ORDER BY 1, 2"] {
            let ask = |table: &str| world.lines(&all.replace("{}", table));
            prop_assert_eq!(ask("sealed"), ask("memory.plain"));
            prop_assert_eq!(ask("consuming"), ask("memory.plain"));
        }
    }
}

#[test]
fn a_query_sees_one_snapshot_of_a_table_it_names_twice() {
    let world = World::new();
    let mut writer = world.table("t", &COLUMNS);
    let schema = writer.consuming().schema().arrow();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let row = Row { id: Some(1), city: None, price: None, ok: None, at: None };
            for _ in 0..2000 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                writer.append(&batch(&schema, std::slice::from_ref(&row)), &[]).unwrap();
            }
        });
        for _ in 0..20 {
            let rows =
                world.rows("SELECT (SELECT sum(id) FROM t), (SELECT count(id) FROM t), count(*) FROM t").unwrap();
            assert!(rows[0][1] == "0" || rows[0][0] == rows[0][1], "{rows:?}");
            assert_eq!(rows[0][1], rows[0][2]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn limits_and_counts_read_no_more_than_they_must() {
    let world = World::new();
    filled(&world, "t", 50_000);
    assert_eq!(world.lines("SELECT id FROM t LIMIT 3").len(), 3);
    assert_eq!(world.lines("SELECT id FROM t WHERE id > 49990 LIMIT 100").len(), 9);
    let plan = world.value("EXPLAIN SELECT count(*) FROM t");
    assert!(!plan.contains("SegmentScanExec"), "{plan}");
    assert_eq!(world.value("SELECT count(*) FROM t"), "50000");
}
