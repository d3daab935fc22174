//! What a star-tree gives and costs, on sealed segments of a million orders: 8,000 restaurants (skewed), 6 statuses, a day of hours, two sums.
//!
//! * `build`: the tree of one segment. Better: fewer milliseconds; a seal with inverted index and tree may take 4 s on one core. Its bytes are printed
//!   beside those of the segment: a fifth at most.
//! * each question, by documents and by rows, over `SEGMENTS` segments, one lane: what a dashboard asks. Better: less time, and a higher
//!   ratio; aims are 2 ms for 20 segments on two cores and a hundred times less than by rows.
#![allow(clippy::unwrap_used, reason = "for benchmarks")]

use std::{hint::black_box, sync::Arc};

use arrow::array::{
    ArrayRef, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidemill_storage::{
    aggregate::{Aggregate, AggregateRequest, Bin, Function, GroupKey},
    ids::{ColumnId, IndexId, PartitionId, SchemaVersion, SegmentId, TableId},
    index::{IndexKind, IndexSpec, StarTree},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::ScanMetrics,
    schema::{Column, DataType, TableSchema, UTC},
    segment::{
        Segment,
        builder::{SealContext, seal},
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    testing::Random,
};

const ROWS: usize = 1_000_000;
const SEGMENTS: u64 = 4;
const HOUR: Bin = Bin { width: 3_600_000_000, origin: 0 };
const ID: ColumnId = ColumnId(0);
const RESTAURANT: ColumnId = ColumnId(1);
const STATUS: ColumnId = ColumnId(2);
const AT: ColumnId = ColumnId(3);
const PRICE: ColumnId = ColumnId(4);
const QTY: ColumnId = ColumnId(5);
const NOTE: ColumnId = ColumnId(6);

fn schema() -> Arc<TableSchema> {
    let column = |id, name: &str, data_type| Column { nullable: false, ..Column::new(id, name, data_type) };
    let columns = vec![
        column(ID, "id", DataType::BigInt),
        column(RESTAURANT, "restaurant", DataType::BigInt),
        column(STATUS, "status", DataType::Text),
        column(AT, "at", DataType::TimestampTz),
        column(PRICE, "price", DataType::Numeric { precision: 10, scale: 2 }),
        column(QTY, "qty", DataType::Int),
        column(NOTE, "note", DataType::Text),
    ];
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Some(AT) })
}

fn consuming(segment: u64) -> ConsumingSegment {
    let mut random = Random::new(segment);
    let mut out = ConsumingSegment::new(SegmentId(segment), schema());
    for from in (0..ROWS).step_by(50_000) {
        let rows = 50_000;
        let mut below = |n: usize| -> Vec<usize> { (0..rows).map(|_| random.below(n)).collect() };
        let (a, b, statuses, prices, quantities, notes) =
            (below(8_000), below(8_000), below(6), below(9_000), below(9), below(1 << 40));
        let restaurants = a.iter().zip(&b).map(|(a, b)| (a * b / 8_000) as i64);
        let at = (0..rows).map(|row| (segment as i64 * 24 * HOUR.width) + ((from + row) as i64) * 86_400);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values((0..rows).map(|row| (from + row) as i64))),
            Arc::new(Int64Array::from_iter_values(restaurants)),
            Arc::new(StringViewArray::from_iter_values(statuses.iter().map(|n| format!("status {n}")))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone(UTC)),
            Arc::new(
                Decimal128Array::from_iter_values(prices.iter().map(|n| *n as i128))
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
            Arc::new(Int32Array::from_iter_values(quantities.iter().map(|n| *n as i32))),
            Arc::new(StringViewArray::from_iter_values(notes.iter().map(|n| format!("{n:010x} to the door")))),
        ];
        out = out.with(&RecordBatch::try_new(schema().arrow(), columns).unwrap(), &[]).unwrap();
    }
    out
}

fn key(column: ColumnId) -> GroupKey {
    GroupKey { column, bin: (column == AT).then_some(HOUR) }
}

fn tree() -> StarTree {
    StarTree {
        dimensions: [RESTAURANT, STATUS, AT].map(key).to_vec(),
        aggregates: vec![Function::Rows, Function::Sum(PRICE), Function::Sum(QTY)],
        max_leaf_records: tidemill_storage::index::star::LEAF_RECORDS,
    }
}

fn spec(id: u32, kind: IndexKind, columns: Vec<ColumnId>) -> IndexSpec {
    IndexSpec { id: IndexId(id), name: format!("index_{id}"), kind, columns }
}

fn answer(segments: &[Arc<dyn Segment>], request: &Arc<AggregateRequest>) -> usize {
    let metrics = Arc::new(ScanMetrics::default());
    let mut groups = 0;
    for segment in segments {
        let rows = 0..segment.rows();
        let mut run = Arc::clone(segment).aggregate(rows, Arc::clone(request), Arc::clone(&metrics)).unwrap();
        while run.step().unwrap() {}
        groups += run.take().unwrap().num_rows();
    }
    groups
}

#[expect(clippy::print_stderr, clippy::disallowed_macros, reason = "figures beside the times")]
fn star_trees(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
    let spec_of_tree = spec(1, IndexKind::StarTree(Box::new(tree())), tree().columns());
    let segments: Vec<Arc<dyn Segment>> = (0..SEGMENTS)
        .map(|id| {
            let file = seal(&consuming(id), dir.path(), &format!("bench{id}.seg"), &context).unwrap();
            let expected = Expected { id: SegmentId(id), bytes: file.bytes, checksum: file.checksum };
            let segment = open(&file.path, &expected).unwrap();
            let bytes = segment.as_committed().unwrap().build_index(&spec_of_tree).unwrap();
            eprintln!("tree of {bytes} bytes beside a segment of {}", file.bytes);
            segment
        })
        .collect();

    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    let first = segments[0].as_committed().unwrap();
    group.bench_function("tree", |b| b.iter(|| first.build_index(&spec_of_tree).unwrap()));
    let inverted = spec(2, IndexKind::Inverted, vec![RESTAURANT]);
    group.bench_function("inverted beside it", |b| b.iter(|| first.build_index(&inverted).unwrap()));
    group.finish();
    first.drop_index(IndexId(2)).unwrap();

    let compare = |column, op, value| Predicate::Compare { column, op, value };
    let one = || compare(RESTAURANT, CompareOp::Eq, Scalar::Int(1_234));
    let paid = || compare(STATUS, CompareOp::Eq, Scalar::Text("status 3".into()));
    let few = || Predicate::In { column: RESTAURANT, values: [7, 99, 1_234].map(Scalar::Int).to_vec(), negated: false };
    let noon = || compare(AT, CompareOp::GreaterEq, Scalar::Int(36 * HOUR.width));
    let questions: Vec<(&str, Vec<ColumnId>, Option<Predicate>)> = vec![
        ("by status", vec![STATUS], None),
        ("by hour, one status", vec![AT], Some(paid())),
        ("by hour, one restaurant", vec![AT], Some(one())),
        ("one restaurant and status", vec![], Some(Predicate::And(vec![one(), paid()]))),
        ("by status, three restaurants since noon", vec![STATUS], Some(Predicate::And(vec![few(), noon()]))),
        ("one restaurant or one status, by hour", vec![AT], Some(Predicate::Or(vec![one(), paid()]))),
        ("by restaurant", vec![RESTAURANT], None),
    ];
    for (name, keys, predicate) in questions {
        let functions = [Function::Rows, Function::Sum(PRICE), Function::Sum(QTY)];
        let mut request = AggregateRequest {
            schema: schema(),
            keys: keys.into_iter().map(key).collect(),
            aggregates: functions.map(|function| Aggregate { function, filter: None }).to_vec(),
            computed: Vec::new(),
            predicate,
            indexes: Default::default(),
            results: None,
            star_tree: true,
        };
        let by_documents = Arc::new(request.clone());
        request.star_tree = false;
        let by_rows = Arc::new(request);
        assert_eq!(answer(&segments, &by_documents), answer(&segments, &by_rows));
        let mut group = c.benchmark_group(name);
        group.sample_size(20);
        for (way, request) in [("documents", by_documents), ("rows", by_rows)] {
            group.bench_function(BenchmarkId::from_parameter(way), |b| {
                b.iter(|| black_box(answer(&segments, &request)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, star_trees);
criterion_main!(benches);
