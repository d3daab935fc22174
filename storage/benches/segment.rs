//! What ingestion and queries pay in this package, on rows like those of an order stream: ten columns, about 150 bytes of JSON each.
//!
//! * `append`: batches of a thousand rows into a consuming segment of a million. Better: fewer nanoseconds per row, and no slow batch (the slowest
//!   is what freshness feels; it is printed).
//! * `seal`: a million rows to a synced and verified file. Better: fewer seconds, fewer bytes (printed).
//! * `scan`: a committed million; all columns, one column, a selective and a broad filter. Better: less time.
//! * `open`, `plan`: what a query pays before its first row.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_storage::{
    ids::{ColumnId, PartitionId, SchemaVersion, SegmentId, TableId},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::{Column, DataType, TableSchema, UTC},
    segment::{
        Segment, SegmentState,
        builder::{SealContext, SealedFile, seal},
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    table::Table,
    testing::Random,
};

const ROWS: usize = 1_000_000;
const BATCH_ROWS: usize = 1000;

fn schema() -> Arc<TableSchema> {
    let types = [
        ("order_id", DataType::BigInt),
        ("placed_at", DataType::TimestampTz),
        ("customer", DataType::Int),
        ("restaurant", DataType::Int),
        ("city", DataType::Text),
        ("status", DataType::Text),
        ("price", DataType::Numeric { precision: 10, scale: 2 }),
        ("distance_km", DataType::Double),
        ("express", DataType::Boolean),
        ("note", DataType::Text),
    ];
    let columns = types
        .into_iter()
        .enumerate()
        .map(|(index, (name, data_type))| Column::new(ColumnId(index as u32), name, data_type))
        .collect();
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Some(ColumnId(1)) })
}

fn batch(schema: &TableSchema, random: &mut Random, from: usize, rows: usize) -> RecordBatch {
    let range = from as i64..(from + rows) as i64;
    let mut numbers = |n: usize| -> Vec<usize> { (0..rows).map(|_| random.below(n)).collect() };
    let (customers, restaurants, cities, statuses) = (numbers(200_000), numbers(2000), numbers(200), numbers(6));
    let (prices, distances, express, notes) = (numbers(9000), numbers(1500), numbers(10), numbers(1000));
    let statuses_named = ["placed", "accepted", "cooking", "on the way to the customer", "delivered", "cancelled"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(range.clone())),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                range.map(|n| 1_760_000_000_000_000 + n * 20_000 + (n * 7919) % 5000),
            )
            .with_timezone(UTC),
        ),
        Arc::new(Int32Array::from_iter_values(customers.iter().map(|n| *n as i32))),
        Arc::new(Int32Array::from_iter_values(restaurants.iter().map(|n| *n as i32))),
        Arc::new(StringViewArray::from_iter_values(cities.iter().map(|n| format!("City number {n}")))),
        Arc::new(StringViewArray::from_iter_values(statuses.iter().map(|n| statuses_named[*n]))),
        Arc::new(
            Decimal128Array::from_iter_values(prices.iter().map(|n| 500 + *n as i128))
                .with_precision_and_scale(10, 2)
                .expect("fits"),
        ),
        Arc::new(Float64Array::from_iter_values(distances.iter().map(|n| *n as f64 / 100.0))),
        Arc::new(BooleanArray::from_iter(express.iter().map(|n| Some(*n == 0)))),
        Arc::new(StringViewArray::from_iter(
            notes.iter().map(|n| (*n < 100).then(|| format!("please ring twice at door {n}"))),
        )),
    ];
    RecordBatch::try_new(schema.arrow(), columns).expect("fits")
}

fn batches(rows: usize) -> Vec<RecordBatch> {
    let (schema, mut random) = (schema(), Random::new(1));
    (0..rows).step_by(BATCH_ROWS).map(|from| batch(&schema, &mut random, from, BATCH_ROWS)).collect()
}

fn consuming(id: u64, batches: &[RecordBatch]) -> ConsumingSegment {
    batches.iter().fold(ConsumingSegment::new(SegmentId(id), schema()), |segment, batch| {
        segment.with(batch, &[]).expect("appends")
    })
}

const CONTEXT: SealContext = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };

fn sealed(segment: &ConsumingSegment, dir: &Path) -> SealedFile {
    seal(segment, dir, &format!("{}.segment", segment.id()), &CONTEXT).expect("seals")
}

fn opened(id: u64, file: &SealedFile) -> Arc<dyn Segment> {
    open(&file.path, &Expected { id: SegmentId(id), bytes: file.bytes, checksum: file.checksum }).expect("opens")
}

#[expect(
    clippy::print_stderr,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "a bench measures and tells"
)]
fn append(c: &mut Criterion) {
    let batches = batches(ROWS);
    let mut times: Vec<Duration> = Vec::new();
    let mut segment = ConsumingSegment::new(SegmentId(1), schema());
    for batch in &batches {
        let start = std::time::Instant::now();
        segment = segment.with(batch, &[]).expect("appends");
        times.push(start.elapsed());
    }
    times.sort();
    eprintln!(
        "append of {BATCH_ROWS} rows: p50 {:?}, p99 {:?}, slowest {:?}; {} bytes a row in memory",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
        segment.bytes() / ROWS as u64
    );
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    group.bench_function("1M rows by 1000", |b| b.iter(|| consuming(1, black_box(&batches))));
    group.finish();
}

#[expect(clippy::print_stderr, clippy::disallowed_macros, reason = "a bench measures and tells")]
fn seal_and_scan(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let segment = consuming(1, &batches(ROWS));
    let file = sealed(&segment, dir.path());
    eprintln!("sealed: {} bytes, {:.1} a row", file.bytes, file.bytes as f64 / ROWS as f64);
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    group.bench_function("1M rows x 10", |b| {
        b.iter_batched(|| (), |()| sealed(black_box(&segment), dir.path()), BatchSize::PerIteration);
    });
    group.finish();

    let committed = opened(1, &file);
    let consuming: Arc<dyn Segment> = Arc::new(segment);
    let all: Vec<ColumnId> = (0..10).map(ColumnId).collect();
    let text = |column, value: &str| Predicate::Compare {
        column: ColumnId(column),
        op: CompareOp::Eq,
        value: Scalar::Text(value.into()),
    };
    let int = |column, op, value| Predicate::Compare { column: ColumnId(column), op, value: Scalar::Int(value) };
    let cases: [(&str, &[ColumnId], Option<Predicate>); 6] = [
        ("count", &[], None),
        ("city", &[ColumnId(4)], None),
        ("all columns", &all, None),
        ("all columns where city = one of 200", &all, Some(text(4, "City number 77"))),
        ("price where customer < 100 of 200000", &[ColumnId(6)], Some(int(2, CompareOp::Less, 100))),
        ("price where status = one of 6", &[ColumnId(6)], Some(text(5, "delivered"))),
    ];
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    for (name, projection, predicate) in cases {
        let request = Arc::new(ScanRequest {
            schema: schema(),
            projection: projection.to_vec(),
            predicate,
            limit: None,
            batch_rows: 8192,
            hints: ScanHints::default(),
        });
        for (kind, segment) in [("committed", &committed), ("consuming", &consuming)] {
            group.bench_with_input(BenchmarkId::new(kind, name), &request, |b, request| {
                b.iter(|| {
                    let batches = Arc::clone(segment)
                        .scan(0..ROWS as u32, Arc::clone(request), Arc::new(ScanMetrics::default()))
                        .expect("scans");
                    batches.map(|batch| black_box(batch.expect("a batch")).num_rows()).sum::<usize>()
                });
            });
        }
    }
    group.finish();
}

fn open_and_plan(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let batches = batches(BATCH_ROWS);
    let files: Vec<SealedFile> = (0..1000).map(|id| sealed(&consuming(id, &batches), dir.path())).collect();
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("1000 segments", |b| {
        b.iter(|| files.iter().enumerate().map(|(id, file)| opened(id as u64, file)).collect::<Vec<_>>());
    });
    group.finish();

    let table = Table::new(TableId(1), schema(), 1);
    let (schema, mut random) = (schema(), Random::new(3));
    for id in 0..10_000 {
        let batch = batch(&schema, &mut random, id * 10, 10);
        let segment =
            ConsumingSegment::new(SegmentId(id as u64), Arc::clone(&schema)).with(&batch, &[]).expect("appends");
        table.partitions()[0].put(Arc::new(segment.with_state(SegmentState::Committed)));
    }
    let snapshot = table.snapshot();
    let mut group = c.benchmark_group("plan");
    let int = |column, op, value| Predicate::Compare { column: ColumnId(column), op, value: Scalar::Int(value) };
    let text = |value: &str| Predicate::Compare {
        column: ColumnId(4),
        op: CompareOp::GreaterEq,
        value: Scalar::Text(value.into()),
    };
    let cases = [
        ("by time", int(1, CompareOp::LessEq, 1_760_000_000_000_000)),
        ("by min and max", int(0, CompareOp::LessEq, 5)),
        ("by the last column", int(3, CompareOp::LessEq, -1)),
        ("by nothing: all of the time", int(1, CompareOp::GreaterEq, 0)),
        ("by nothing: an integer and all of the time", {
            Predicate::And(vec![int(3, CompareOp::GreaterEq, 0), int(1, CompareOp::GreaterEq, 0)])
        }),
        ("by nothing: a text", text("City")),
        ("by nothing: a text of the same beginning", text("City number ")),
    ];
    for (name, predicate) in cases {
        let request = ScanRequest {
            schema: Arc::clone(&schema),
            projection: Vec::new(),
            predicate: Some(predicate),
            limit: None,
            batch_rows: 8192,
            hints: ScanHints::default(),
        };
        group.bench_function(format!("10000 segments {name}"), |b| {
            b.iter(|| black_box(snapshot.plan(&request)).units.len())
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = append, seal_and_scan, open_and_plan
}
criterion_main!(benches);
