//! Segment files of every format version, kept for ever: `tests/golden/v<n>.segment`, and beside each the rows it holds as text.
//!
//! To make the files of a *new* version: `cargo test -p tidemill-storage -- --ignored write_the_golden_file`. Those of a released version are
//! never written again.

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc};

use arrow::array::{Float32Array, Float64Array, Int64Array, RecordBatch, StringViewArray};
use tidemill_storage::{
    ids::{ColumnId, OffsetRange, SchemaVersion, SegmentId, SourceId, StreamId},
    schema::{Column, DataType, TableSchema},
    segment::{
        Segment,
        builder::seal,
        committed::{Expected, open},
        consuming::ConsumingSegment,
        inspect::{inspect, verify},
    },
    testing::{
        Random, codecs,
        generate::{self, Shape},
        oracle::{Row, Value},
    },
};

use crate::scan::{CONTEXT, request, scanned};

const ROWS: usize = 64;
/// Rows of version 2: more than a chunk.
const ROWS_2: usize = 9000;
const ENCODINGS_2: [&str; 5] = ["zstd integers", "zstd dictionary(675)", "zstd scaled", "zstd ordered", "ordered"];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Every type in every shape.
fn segment() -> ConsumingSegment {
    let (mut columns, mut shapes) = (Vec::new(), Vec::new());
    for data_type in generate::every_type() {
        for shape in [Shape::Constant, Shape::Few, Shape::Rising, Shape::Any, Shape::AllNull] {
            let array = matches!(data_type, DataType::Array(_));
            if array && !matches!(shape, Shape::Any) {
                continue;
            }
            columns.push(Column {
                nullable: !matches!(shape, Shape::Rising),
                ..Column::new(ColumnId(columns.len() as u32), format!("{data_type} {shape:?}"), data_type.clone())
            });
            shapes.push(shape);
        }
    }
    let time_column = columns.iter().find(|column| column.data_type == DataType::Timestamp).map(|column| column.id);
    let schema = TableSchema { version: SchemaVersion(1), columns, time_column };
    let batch = generate::batch(&mut Random::new(2026), &schema, &shapes, 0, ROWS);
    let stream = StreamId { source: SourceId(2), partition: 1 };
    ConsumingSegment::new(SegmentId(12), Arc::new(schema))
        .with(&batch, &[OffsetRange { stream, from: 1000, to: 1000 + ROWS as u64 }])
        .unwrap()
}

/// What version 2 added: compressed ids and integers, and floats by their bits.
fn segment_2() -> ConsumingSegment {
    let columns = [
        ("id", DataType::BigInt),
        ("name", DataType::Text),
        ("price", DataType::Double),
        ("reading", DataType::Double),
        ("real", DataType::Real),
    ];
    let columns = columns
        .into_iter()
        .enumerate()
        .map(|(id, (name, data_type))| Column::new(ColumnId(id as u32), name, data_type));
    let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns: columns.collect(), time_column: None });
    // 64 orders at a time, each in eight rows: they repeat at a distance. Each block of 1024 rows has its own range.
    let order = |row: u64| (row / 1024, Random::new(row % 64 + row / 512 * 64).next() % 4096);
    let orders: Vec<(u64, u64)> = (0..ROWS_2 as u64).map(order).collect();
    let name = |n: u64| (!n.is_multiple_of(50)).then(|| format!("name {}", n % 1000));
    let mut any = Random::new(2027);
    let batch = RecordBatch::try_new(
        schema.arrow(),
        vec![
            Arc::new(Int64Array::from_iter_values(orders.iter().map(|(block, n)| (block << 40 | n) as i64))),
            Arc::new(StringViewArray::from_iter(orders.iter().map(|(_, n)| name(*n)))),
            Arc::new(Float64Array::from_iter_values(
                orders.iter().map(|(block, n)| (block * 1_000_000 + n) as f64 / 100.0),
            )),
            Arc::new(Float64Array::from_iter_values(
                orders.iter().map(|(block, n)| f64::from_bits((1023 + block) << 52 | n)),
            )),
            Arc::new(Float32Array::from_iter((0..ROWS_2).map(|row| {
                // Of few mantissa bits, so that the file stays small.
                (row % 10 > 0).then(|| 1.0 + any.below(512) as f32 / 8_388_608.0)
            }))),
        ],
    )
    .unwrap();
    ConsumingSegment::new(SegmentId(12), schema).with(&batch, &[]).unwrap()
}

fn rows(segment: &Arc<dyn Segment>) -> Vec<Row> {
    let all = segment.schema().columns.iter().map(|column| column.id).collect();
    scanned(segment, 0..segment.rows(), &request(segment.schema(), all, None, None, 8192))
}

/// One line for each value, to the bit.
fn text(segment: &Arc<dyn Segment>) -> String {
    let mut out = String::new();
    for (index, row) in rows(segment).iter().enumerate() {
        for (column, value) in segment.schema().columns.iter().zip(row) {
            let value = match value {
                Value::One(tidemill_storage::scalar::Scalar::Float(v)) => format!("float {:016x}", v.to_bits()),
                other => format!("{other:?}"),
            };
            writeln!(out, "{index}\t{}\t{value}", column.name).unwrap();
        }
    }
    out
}

#[test]
#[ignore = "writes the files that the other tests read; only for a format that is not yet released"]
fn write_the_golden_file() {
    let dir = path("");
    fs::create_dir_all(&dir).unwrap();
    let segment = codecs::segment();
    seal(&segment, &dir, "v3.segment", &CONTEXT).unwrap();
    fs::write(path("v3.rows"), thinned(&text(&(Arc::new(segment) as Arc<dyn Segment>)))).unwrap();
}

/// Every 97th line.
fn thinned(text: &str) -> String {
    text.lines().step_by(97).flat_map(|line| [line, "\n"]).collect()
}

/// The file of a version holds the rows of `expected`, in these encodings.
fn check(version: u32, expected: ConsumingSegment, encodings: &[&str]) {
    let path = self::path(&format!("v{version}.segment"));
    assert_eq!(verify(&path).unwrap(), []);
    let inspection = inspect(&path).unwrap();
    assert_eq!((inspection.version, inspection.rows), (version, expected.rows()));
    let found: Vec<&str> = inspection.columns.iter().map(|column| column.encoding.as_str()).collect();
    assert_eq!(found, encodings);
    let as_found = Expected { id: SegmentId(12), bytes: inspection.bytes, checksum: inspection.checksum };
    let found = text(&open(&path, &as_found).unwrap());
    assert_eq!(found, text(&(Arc::new(expected) as Arc<dyn Segment>)));
    assert_eq!(thinned(&found), fs::read_to_string(self::path(&format!("v{version}.rows"))).unwrap());
}

#[test]
fn files_of_version_3_can_be_read() {
    check(3, codecs::segment(), &codecs::ENCODINGS);
}

#[test]
fn files_of_version_2_can_be_read() {
    check(2, segment_2(), &ENCODINGS_2);
}

#[test]
fn files_of_version_1_can_be_read() {
    let path = path("v1.segment");
    assert_eq!(verify(&path).unwrap(), []);
    let inspection = inspect(&path).unwrap();
    assert_eq!((inspection.version, inspection.rows), (1, ROWS as u32));
    assert_eq!(
        (inspection.table, inspection.partition, inspection.id),
        (CONTEXT.table, CONTEXT.partition, SegmentId(12))
    );
    assert_eq!(inspection.created_at_us, CONTEXT.created_at_us);
    assert_eq!((inspection.offsets[0].from, inspection.offsets[0].to), (1000, 1000 + ROWS as u64));
    let expected = Expected { id: SegmentId(12), bytes: inspection.bytes, checksum: inspection.checksum };
    let segment = open(&path, &expected).unwrap();
    let found = text(&segment);
    for (found, expected) in found.lines().zip(fs::read_to_string(self::path("v1.rows")).unwrap().lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), ROWS * segment.schema().columns.len());
    assert_eq!(found, text(&(Arc::new(self::segment()) as Arc<dyn Segment>)));
}
