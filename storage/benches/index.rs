//! What indexes give and cost, on a sealed segment of a million rows.
//!
//! * `equal`, `range`: count the rows that a condition selects, and read one column of them, with the indexes and without. Better: less time; where the
//!   plain scan wins, `rt.use_indexes = on` must take it (the third variant, which decides by itself, should be as fast as the better one).
//! * `consuming`: the same conditions on a million rows in memory, which have no index. Better: less time; the requirement is 5 ms.
//! * `build`: an index of a million rows. Better: fewer milliseconds, fewer bytes (printed).
//! * `bloom`: what asking one segment's filter costs a plan.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]

use std::{hint::black_box, sync::Arc};

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidemill_storage::{
    ids::{ColumnId, IndexId, PartitionId, SchemaVersion, SegmentId, TableId},
    index::{IndexKind, IndexSpec},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{IndexUse, ScanHints, ScanMetrics, ScanRequest},
    schema::{Column, DataType, TableSchema, UTC},
    segment::{
        Segment,
        builder::{SealContext, seal},
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    table::Table,
    testing::Random,
};

const ROWS: usize = 1_000_000;

/// A dictionary of 200 and one of 100,000, numbers without a dictionary, texts without one.
fn schema() -> Arc<TableSchema> {
    let types = [
        ("city", DataType::Text),
        ("customer", DataType::Int),
        ("number", DataType::BigInt),
        ("key", DataType::Text),
        ("reading", DataType::Double),
        ("at", DataType::TimestampTz),
    ];
    let column = |(id, (name, data_type)): (usize, (&str, DataType))| Column {
        nullable: false,
        ..Column::new(ColumnId(id as u32), name, data_type)
    };
    let columns = types.into_iter().enumerate().map(column).collect();
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None })
}

fn consuming() -> ConsumingSegment {
    let mut random = Random::new(3);
    let mut segment = ConsumingSegment::new(SegmentId(0), schema());
    for from in (0..ROWS).step_by(5000) {
        let rows = 5000;
        let mut below = |n: usize| -> Vec<usize> { (0..rows).map(|_| random.below(n)).collect() };
        let (cities, customers, numbers, readings) = (below(200), below(100_000), below(1 << 40), below(1 << 50));
        let late = below(60_000_000);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(cities.iter().map(|n| format!("City number {n}")))),
            Arc::new(Int32Array::from_iter_values(customers.iter().map(|n| *n as i32))),
            Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| *n as i64))),
            Arc::new(StringViewArray::from_iter_values(numbers.iter().map(|n| format!("key-{n:016x}")))),
            Arc::new(Float64Array::from_iter_values(readings.iter().map(|n| *n as f64 / 3.0))),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(
                    late.iter().enumerate().map(|(at, late)| ((from + at) * 20_000 + late) as i64),
                )
                .with_timezone(UTC),
            ),
        ];
        segment = segment.with(&RecordBatch::try_new(schema().arrow(), columns).unwrap(), &[]).unwrap();
    }
    segment
}

fn compare(column: u32, op: CompareOp, value: Scalar) -> Predicate {
    Predicate::Compare { column: ColumnId(column), op, value }
}

fn between(column: u32, low: Scalar, high: Scalar) -> Predicate {
    Predicate::And(vec![compare(column, CompareOp::GreaterEq, low), compare(column, CompareOp::LessEq, high)])
}

/// Rows found.
fn count(segment: &Arc<dyn Segment>, predicate: &Predicate, indexes: IndexUse) -> usize {
    let request = Arc::new(ScanRequest {
        schema: schema(),
        projection: vec![ColumnId(2)],
        predicate: Some(predicate.clone()),
        limit: None,
        batch_rows: 8192,
        hints: ScanHints { indexes, ..ScanHints::default() },
    });
    let metrics = Arc::new(ScanMetrics::default());
    let mut found = 0;
    for start in (0..segment.rows()).step_by(256 * 1024) {
        let rows = start..segment.rows().min(start + 256 * 1024);
        let batches = Arc::clone(segment).scan(rows, Arc::clone(&request), Arc::clone(&metrics)).unwrap();
        found += batches.map(|batch| batch.unwrap().num_rows()).sum::<usize>();
    }
    found
}

#[expect(clippy::print_stderr, clippy::disallowed_macros, reason = "figures beside the times")]
fn indexes(c: &mut Criterion) {
    let rows = consuming();
    let dir = tempfile::tempdir().unwrap();
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
    let file = seal(&rows, dir.path(), "bench.seg", &context).unwrap();
    let expected = Expected { id: SegmentId(0), bytes: file.bytes, checksum: file.checksum };
    let segment = open(&file.path, &expected).unwrap();
    let committed = segment.as_committed().unwrap();
    let consuming: Arc<dyn Segment> = Arc::new(rows);

    let mut specs = Vec::new();
    for column in 0..6u32 {
        let kinds = [IndexKind::Inverted, IndexKind::Range, IndexKind::Bloom { fpp: 0.01 }];
        for kind in kinds.iter().filter(|kind| kind.takes(&schema().columns[column as usize].data_type)) {
            let (id, name) = (IndexId(specs.len() as u32), schema().columns[column as usize].name.clone());
            specs.push(IndexSpec { id, name, kind: kind.clone(), columns: vec![ColumnId(column)] });
        }
    }
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for spec in &specs {
        let encoding = segment.encoding(spec.columns[0]).unwrap();
        let bytes = committed.build_index(spec).unwrap();
        eprintln!("{} of {} ({encoding}): {bytes} bytes", spec.kind.name(), spec.name);
        if ["city", "number", "key"].contains(&spec.name.as_str()) {
            group.bench_function(BenchmarkId::new(spec.kind.name(), &spec.name), |b| {
                b.iter(|| committed.build_index(spec).unwrap());
            });
        }
    }
    group.finish();

    let text = |text: &str| Scalar::Text(text.into());
    let conditions = [
        ("equal/city (0.5 %)", compare(0, CompareOp::Eq, text("City number 7"))),
        ("equal/customer (10 rows)", compare(1, CompareOp::Eq, Scalar::Int(77))),
        ("equal/key (absent)", compare(3, CompareOp::Eq, text("key-000000000000000g"))),
        (
            "and/city, customer range",
            Predicate::And(vec![
                compare(0, CompareOp::Eq, text("City number 7")),
                between(1, Scalar::Int(1000), Scalar::Int(1999)),
            ]),
        ),
        ("range/number 0.01 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 10_000))),
        ("range/number 0.1 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 1000))),
        ("range/number 1 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 100))),
        ("range/number 3 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 33))),
        ("range/number 10 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 10))),
        ("range/number 30 %", between(2, Scalar::Int(0), Scalar::Int((1 << 40) / 10 * 3))),
        ("range/customer 1 %", between(1, Scalar::Int(0), Scalar::Int(999))),
        ("range/customer 3 %", between(1, Scalar::Int(0), Scalar::Int(2999))),
        ("range/customer 10 %", between(1, Scalar::Int(0), Scalar::Int(9999))),
        ("range/reading 1 %", between(4, Scalar::Float(0.0), Scalar::Float((1u64 << 50) as f64 / 300.0))),
        ("range/at 0.1 %", between(5, Scalar::Int(5_000_000_000), Scalar::Int(5_020_000_000))),
    ];
    for (name, condition) in &conditions {
        let mut group = c.benchmark_group(*name);
        let wanted = count(&segment, condition, IndexUse::Off);
        for (way, indexes) in [("plain", IndexUse::Off), ("index", IndexUse::Always), ("chosen", IndexUse::WhereFaster)]
        {
            assert_eq!(count(&segment, condition, indexes), wanted);
            group.bench_function(way, |b| b.iter(|| black_box(count(&segment, condition, indexes))));
        }
        group.sample_size(20);
        group.bench_function("consuming", |b| b.iter(|| black_box(count(&consuming, condition, IndexUse::Off))));
        group.finish();
    }

    let table = Table::new(TableId(1), schema(), 1);
    table.set_indexes(specs.clone());
    table.partitions()[0].put(Arc::clone(&segment));
    let absent = ScanRequest {
        schema: schema(),
        projection: Vec::new(),
        predicate: Some(compare(3, CompareOp::Eq, text("key-000000000000000g"))),
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    };
    c.bench_function("bloom/plan over one segment", |b| b.iter(|| black_box(table.snapshot().plan(&absent))));
}

criterion_group!(benches, indexes);
criterion_main!(benches);
