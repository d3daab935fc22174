//! A segment with a section of every codec. Its file is kept as that of format version 3: neither rows nor columns may change.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray};

use super::Random;
use crate::{
    ids::{ColumnId, SchemaVersion, SegmentId},
    schema::{Column, Compression, DataType, TableSchema},
    segment::consuming::ConsumingSegment,
};

/// More than a chunk.
const ROWS: u64 = 9000;

/// The encodings of the columns.
pub const ENCODINGS: [&str; 11] = [
    "lz4 integers",
    "dictionary(686)",
    "lz4 scaled",
    "lz4 ordered",
    "lz4 uuids",
    "lz4 dictionary(768)",
    "zstd dictionary(768)",
    "lz4 blocks",
    "zstd blocks",
    "blocks",
    "dictionary(686)",
];

/// Rows 0 to 8999 of eleven columns.
pub fn segment() -> ConsumingSegment {
    use Compression::{Lz4, None, Zstd};
    // 64 orders at a time, each in eight rows: they repeat at a distance. Each block of 1024 rows has its own range.
    let orders: Vec<(u64, u64)> =
        (0..ROWS).map(|row| (row / 1024, Random::new(row % 64 + row / 512 * 64).next() % 4096)).collect();
    let floats = |of: fn(u64, u64) -> f64| {
        Arc::new(Float64Array::from_iter_values(orders.iter().map(|(block, n)| of(*block, *n)))) as ArrayRef
    };
    let texts = |of: &dyn Fn(u64, u64) -> Option<String>| {
        let values = (0..ROWS).zip(&orders).map(|(row, (_, order))| of(row, *order));
        Arc::new(StringViewArray::from_iter(values)) as ArrayRef
    };
    let name = |row: u64, _| {
        let number = Random::new(row).below(700);
        (!number.is_multiple_of(50)).then(|| format!("the name of customer number {number}"))
    };
    let note = |row: u64, _| row.is_multiple_of(8).then(|| sentence(row));
    let token = |row: u64, _| Some(format!("{:05x}", Random::new(row).next() >> 44));
    let states = || Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| state(row) as i64))) as ArrayRef;
    let uuids = orders.iter().map(|(block, n)| Some(format!("00000000-{block:04x}-4000-8000-{n:012x}")));
    let columns: Vec<(&str, DataType, Compression, ArrayRef)> = vec![
        (
            "id",
            DataType::BigInt,
            Lz4,
            Arc::new(Int64Array::from_iter_values(orders.iter().map(|(block, n)| (block << 40 | n) as i64))),
        ),
        ("name", DataType::Text, Lz4, texts(&name)),
        ("price", DataType::Double, Lz4, floats(|block, n| (block * 1_000_000 + n) as f64 / 100.0)),
        ("reading", DataType::Double, Lz4, floats(|block, n| f64::from_bits((1023 + block) << 52 | n))),
        ("uuid", DataType::Uuid, Lz4, Arc::new(StringViewArray::from_iter(uuids))),
        ("state by lz4", DataType::BigInt, Lz4, states()),
        ("state by zstd", DataType::BigInt, Zstd, states()),
        ("note by lz4", DataType::Text, Lz4, texts(&note)),
        ("note by zstd", DataType::Text, Zstd, texts(&note)),
        ("token", DataType::Text, None, texts(&token)),
        ("name by zstd", DataType::Text, Zstd, texts(&name)),
    ];
    let (columns, arrays): (Vec<Column>, Vec<ArrayRef>) = columns
        .into_iter()
        .enumerate()
        .map(|(id, (name, data_type, compression, array))| {
            (Column { compression, ..Column::new(ColumnId(id as u32), name, data_type) }, array)
        })
        .unzip();
    let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Option::None });
    let batch = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
    debug_assert_eq!(batch.column(0).len() as u64, ROWS);
    ConsumingSegment::new(SegmentId(12), schema).with(&batch, &[]).unwrap()
}

/// One of 64 numbers, each in turn, that change every 768 rows.
fn state(row: u64) -> u64 {
    Random::new(row % 64 + row / 768 * 64).next() >> 40
}

fn sentence(row: u64) -> String {
    let words = ["order", "rider", "kitchen", "delivered", "cancelled", "late", "refund", "address"];
    let mut random = Random::new(row);
    (0..12).map(|_| *random.pick(&words)).collect::<Vec<_>>().join(" ")
}
