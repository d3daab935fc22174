//! Groups of a committed segment of a million order rows, one core: what a GROUP BY over cold memory-mapped data costs a row.
//!
//! * `city`: a text of 200 values; count, sum of a double, sum of an int, average.
//! * `two keys`: that text and a text of 6 values. `hour`: timestamps rounded down. `restaurant`: 2000 integers. `customer`: 200,000 integers.
//! * `tenth`: the first, of the tenth of the rows that a predicate on another column selects. `whole`: no keys.
//!
//! Better: more rows a second. A core reads 31 GiB/s and groups 2 G rows a second by a byte key with one count and one sum.

use std::{hint::black_box, sync::Arc, time::Duration};

use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill_storage::{
    aggregate::{Aggregate, AggregateRequest, Bin, Function, GroupKey},
    ids::{ColumnId, PartitionId, SchemaVersion, SegmentId, TableId},
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

const PLACED_AT: ColumnId = ColumnId(0);
const CITY: ColumnId = ColumnId(1);
const STATUS: ColumnId = ColumnId(2);
const DISTANCE: ColumnId = ColumnId(3);
const QUANTITY: ColumnId = ColumnId(4);
const RESTAURANT: ColumnId = ColumnId(5);
const CUSTOMER: ColumnId = ColumnId(6);
const WEIGHT: ColumnId = ColumnId(7);
const NOTED: ColumnId = ColumnId(8);
const ENDED_AT: ColumnId = ColumnId(9);
const ENDED_HOUR: ColumnId = ColumnId(10);
const ENDED_MINUTE: ColumnId = ColumnId(11);
const PLACED_HOUR: ColumnId = ColumnId(12);

fn schema() -> Arc<TableSchema> {
    let types = [
        ("placed_at", DataType::TimestampTz),
        ("city", DataType::Text),
        ("status", DataType::Text),
        ("distance_km", DataType::Double),
        ("quantity", DataType::Int),
        ("restaurant", DataType::Int),
        ("customer", DataType::Int),
        ("weight", DataType::Double),
        ("noted", DataType::Int),
        ("ended_at", DataType::TimestampTz),
        ("ended_hour", DataType::Int),
        ("ended_minute", DataType::Int),
        ("placed_hour", DataType::Int),
    ];
    let columns = types
        .into_iter()
        .enumerate()
        .map(|(index, (name, data_type))| Column::new(ColumnId(index as u32), name, data_type))
        .collect();
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Some(PLACED_AT) })
}

fn batch(schema: &TableSchema, random: &mut Random) -> RecordBatch {
    let mut numbers = |n: usize| -> Vec<usize> { (0..ROWS).map(|_| random.below(n)).collect() };
    let statuses = ["placed", "accepted", "cooking", "on the way to the customer", "delivered", "cancelled"];
    let (city, status, distance, quantity) = (numbers(200), numbers(6), numbers(30_000), numbers(1000));
    let (restaurant, customer, weight, noted) = (numbers(2000), numbers(200_000), numbers(1 << 40), numbers(20));
    // Of 30 days, in no order: what a truncation costs where neighbours are in different bins.
    let ended: Vec<i64> = numbers(30 * 86_400_000).into_iter().map(|ms| ms as i64 * 1000).collect();
    let ints = |values: &[usize]| Arc::new(Int32Array::from_iter_values(values.iter().map(|n| *n as i32))) as ArrayRef;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                (0..ROWS as i64).map(|n| 1_760_000_000_000_000 + n * 86_400 + (n * 7919) % 5000),
            )
            .with_timezone(UTC),
        ),
        Arc::new(StringViewArray::from_iter_values(city.iter().map(|n| format!("City number {n}")))),
        Arc::new(StringViewArray::from_iter_values(status.iter().map(|n| statuses[*n]))),
        Arc::new(Float64Array::from_iter_values(distance.iter().map(|n| *n as f64 / 1000.0))),
        ints(&quantity),
        ints(&restaurant),
        ints(&customer),
        Arc::new(Float64Array::from_iter_values(weight.iter().map(|n| (*n as f64).sqrt()))),
        Arc::new(Int32Array::from_iter(noted.iter().map(|n| (*n > 0).then_some(*n as i32)))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(ended.iter().map(|at| 1_760_000_400_000_000 + at))
                .with_timezone(UTC),
        ),
        Arc::new(Int32Array::from_iter_values(ended.iter().map(|at| (at / 3_600_000_000) as i32))),
        Arc::new(Int32Array::from_iter_values(ended.iter().map(|at| (at / 60_000_000) as i32))),
        Arc::new(Int32Array::from_iter_values((0..ROWS as i64).map(|n| (n * 86_400 / 3_600_000_000) as i32))),
    ];
    RecordBatch::try_new(schema.arrow(), columns).expect("fits")
}

fn key(column: ColumnId) -> GroupKey {
    GroupKey { column, bin: None }
}

fn request(keys: Vec<GroupKey>, functions: &[Function], predicate: Option<Predicate>) -> Arc<AggregateRequest> {
    let aggregates = functions.iter().map(|function| Aggregate { function: *function, filter: None }).collect();
    Arc::new(AggregateRequest {
        schema: schema(),
        keys,
        aggregates,
        computed: Vec::new(),
        predicate,
        indexes: Default::default(),
        results: None,
        star_tree: true,
    })
}

fn group(c: &mut Criterion) {
    use Function::{Count, Max, Rows, Sum};
    let schema = schema();
    let segment = ConsumingSegment::new(SegmentId(1), Arc::clone(&schema));
    let segment = segment.with(&batch(&schema, &mut Random::new(3)), &[]).expect("appends");
    let dir = tempfile::tempdir().expect("a directory");
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
    let file = seal(&segment, dir.path(), "orders.segment", &context).expect("seals");
    let expected = Expected { id: SegmentId(1), bytes: file.bytes, checksum: file.checksum };
    let sealed = open(&file.path, &expected).expect("opens");
    let consuming: Arc<dyn Segment> = Arc::new(segment);
    let hour = GroupKey { column: PLACED_AT, bin: Some(Bin { width: 3_600_000_000, origin: 0 }) };
    let tenth = Predicate::Compare { column: RESTAURANT, op: CompareOp::Less, value: Scalar::Int(200) };
    let four = [Rows, Sum(DISTANCE), Sum(QUANTITY), Count(DISTANCE)];
    let requests = [
        ("city: count", request(vec![key(CITY)], &[Rows], None)),
        ("city: count, sum(double)", request(vec![key(CITY)], &[Rows, Sum(DISTANCE)], None)),
        ("city: count, sum(plain double)", request(vec![key(CITY)], &[Rows, Sum(WEIGHT)], None)),
        ("city: count, sum(int)", request(vec![key(CITY)], &[Rows, Sum(QUANTITY)], None)),
        ("city: count, sum(double), sum(int), avg", request(vec![key(CITY)], &four, None)),
        ("city: sum(nullable int), max", request(vec![key(CITY)], &[Sum(NOTED), Max(QUANTITY)], None)),
        ("two keys", request(vec![key(CITY), key(STATUS)], &four, None)),
        ("hour", request(vec![hour.clone()], &four, None)),
        ("hour: count", request(vec![hour.clone()], &[Rows], None)),
        ("hour as a column: count", request(vec![key(PLACED_HOUR)], &[Rows], None)),
        ("unordered hour: count", request(vec![GroupKey { column: ENDED_AT, ..hour.clone() }], &[Rows], None)),
        ("unordered hour as a column: count", request(vec![key(ENDED_HOUR)], &[Rows], None)),
        (
            "unordered minute: count",
            request(
                vec![GroupKey { column: ENDED_AT, bin: Some(Bin { width: 60_000_000, origin: 0 }) }],
                &[Rows],
                None,
            ),
        ),
        ("unordered minute as a column: count", request(vec![key(ENDED_MINUTE)], &[Rows], None)),
        ("unordered hour: four", request(vec![GroupKey { column: ENDED_AT, ..hour.clone() }], &four, None)),
        ("unordered hour as a column: four", request(vec![key(ENDED_HOUR)], &four, None)),
        ("restaurant", request(vec![key(RESTAURANT)], &four, None)),
        ("customer", request(vec![key(CUSTOMER)], &four, None)),
        ("customer, restaurant", request(vec![key(CUSTOMER), key(RESTAURANT)], &[Rows, Sum(QUANTITY)], None)),
        ("tenth", request(vec![key(CITY)], &four, Some(tenth.clone()))),
        ("whole: sum(double)", request(vec![], &[Sum(DISTANCE)], None)),
        ("whole: sum(int)", request(vec![], &[Sum(QUANTITY)], None)),
        ("whole: count(*), max", request(vec![], &[Rows, Max(QUANTITY)], None)),
    ];
    let mut benches = c.benchmark_group("aggregate");
    benches.throughput(Throughput::Elements(ROWS as u64));
    for (name, request) in &requests {
        for (state, segment) in [("sealed", &sealed), ("consuming", &consuming)] {
            benches.bench_function(format!("{name} ({state})"), |b| {
                b.iter(|| {
                    let metrics = Arc::new(ScanMetrics::default());
                    let mut run =
                        Arc::clone(segment).aggregate(0..ROWS as u32, Arc::clone(request), metrics).expect("begins");
                    while run.step().expect("reads") {}
                    black_box(run.take().expect("answers").num_rows())
                });
            });
        }
    }
    benches.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
    targets = group
}
criterion_main!(benches);
