//! Encoding and decoding the columns of a food-delivery order stream, a million rows of each: what sealing and scanning a segment cost
//! by column. The bytes each column takes are printed first; fewer are better, as are more elements per second.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "for benchmarks, which print and measure"
)]

use std::{hint::black_box, sync::Arc, time::Duration};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringViewArray,
        TimestampMicrosecondArray,
    },
    buffer::Buffer,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_storage::{
    bitpack::Bitmask,
    forward::{ColumnReader, EncodeOptions, EncodedColumn, encode_column},
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{Compression, DataType},
};

const ROWS: usize = 1_000_000;
/// Rows that a scan decodes at a time.
const BATCH: u32 = 8192;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, bound: u64) -> u64 {
        let (a, b) = (self.below(bound), self.below(bound));
        a * b / bound
    }
}

fn uuid(random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a as u32,
        (a >> 32) as u16,
        a >> 52,
        b >> 48 & 0x3fff | 0x8000,
        b & 0xffff_ffff_ffff
    )
}

fn columns() -> Vec<(&'static str, DataType, ArrayRef)> {
    let mut r = Random(88172645463325252);
    let rows = 0..ROWS as i64;
    let texts = |values: Vec<String>| Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef;
    let statuses = ["delivered", "placed", "picked_up", "cooking", "cancelled"];
    let mut id = 0;
    let ids: Vec<i64> = rows
        .clone()
        .map(|_| {
            id += 1 + r.below(4) as i64;
            id
        })
        .collect();
    let times: Vec<i64> = rows
        .clone()
        .map(|i| {
            (1_760_000_000_000 + i * 20 + r.below(400) as i64 - if r.below(100) == 0 { 300_000 } else { 0 }) * 1000
        })
        .collect();
    let arrivals: Vec<i64> = rows.clone().map(|i| 1_760_000_000_000_000 + i * 20_000 + r.below(9000) as i64).collect();
    vec![
        ("order_id", DataType::BigInt, Arc::new(Int64Array::from(ids))),
        ("event_time", DataType::Timestamp, Arc::new(TimestampMicrosecondArray::from(times))),
        ("arrival", DataType::Timestamp, Arc::new(TimestampMicrosecondArray::from(arrivals))),
        ("city", DataType::Text, texts(rows.clone().map(|_| format!("city of number {}", r.skewed(200))).collect())),
        ("status", DataType::Text, texts(rows.clone().map(|_| statuses[r.skewed(5) as usize].to_owned()).collect())),
        ("customer", DataType::Text, texts(rows.clone().map(|_| format!("customer-{:06}", r.skewed(100_000))).collect())),
        (
            "price",
            DataType::Numeric { precision: 10, scale: 2 },
            Arc::new(
                Decimal128Array::from_iter_values(rows.clone().map(|_| i128::from(500 + r.below(6000))))
                    .with_precision_and_scale(10, 2)
                    .expect("a valid type"),
            ),
        ),
        ("price_double", DataType::Double, Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| (500 + r.below(600_000)) as f64 / 100.0)))),
        ("latitude", DataType::Double, Arc::new(Float64Array::from_iter_values(rows.clone().map(|_| 48.0 + r.below(1 << 50) as f64 / (1u64 << 50) as f64)))),
        ("quantity", DataType::Int, Arc::new(Int32Array::from_iter_values(rows.clone().map(|_| 1 + r.skewed(12) as i32)))),
        ("paid", DataType::Boolean, Arc::new(BooleanArray::from_iter(rows.clone().map(|_| Some(r.below(10) > 0))))),
        ("uuid", DataType::Uuid, texts(rows.clone().map(|_| uuid(&mut r)).collect())),
        (
            "payload",
            DataType::Jsonb,
            texts(
                rows.map(|i| {
                    format!(
                        "{{\"items\":[{{\"sku\":\"S{}\",\"qty\":{}}}],\"note\":\"ring {}\",\"order\":{i},\"rating\":{}}}",
                        r.below(5000),
                        1 + r.below(3),
                        r.below(40),
                        r.below(5)
                    )
                })
                .collect(),
            ),
        ),
    ]
}

fn open(data_type: &DataType, column: &EncodedColumn) -> ColumnReader {
    let sections = column.sections.iter().map(Buffer::from_slice_ref).collect();
    ColumnReader::open(data_type, column.encoding as u8, column.rows, sections).expect("own bytes are sound")
}

fn batches(rows: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..rows).step_by(BATCH as usize).map(move |start| start..rows.min(start + BATCH))
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(ROWS as u64));
    let columns = columns().into_iter().map(|(name, data_type, array)| (name.to_owned(), data_type, array));
    let columns: Vec<(String, DataType, ArrayRef)> = columns.collect();
    let named = |wanted: &str| columns.iter().find(|(name, ..)| name == wanted).expect("a column").clone();
    // The texts once more by each codec.
    let compressed = ["payload", "customer", "event_time"].into_iter().flat_map(|name| {
        [Compression::Zstd, Compression::Lz4, Compression::None].map(|compression| {
            let (name, data_type, array) = named(name);
            (format!("{name} {}", compression.name()), data_type, array, compression)
        })
    });
    let by_default =
        columns.iter().cloned().map(|(name, data_type, array)| (name, data_type, array, Compression::Default));
    for (name, data_type, array, compression) in by_default.chain(compressed) {
        let options = EncodeOptions { compression, ..EncodeOptions::default() };
        let name = name.as_str();
        let chunks = [array];
        let column = encode_column(&data_type, &chunks, &options).expect("encodes");
        let reader = open(&data_type, &column);
        let bytes: usize = column.sections.iter().map(Vec::len).sum();
        eprintln!(
            "{name}: {} · {bytes} bytes · {:.2} bits per row",
            reader.encoding_name(),
            bytes as f64 * 8.0 / ROWS as f64
        );
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter(|| encode_column(&data_type, black_box(&chunks), &options).expect("encodes"));
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| {
                for rows in batches(column.rows) {
                    black_box(reader.decode(rows).expect("decodes"));
                }
            });
        });
        let mut every_tenth = Bitmask::none(BATCH as usize);
        (0..BATCH as usize).step_by(10).for_each(|row| every_tenth.set(row));
        group.bench_function(BenchmarkId::new("decode a tenth", name), |b| {
            b.iter(|| {
                for rows in batches(column.rows).filter(|rows| rows.len() == BATCH as usize) {
                    black_box(reader.decode_selected(rows, &every_tenth).expect("decodes"));
                }
            });
        });
        let value = match (&column.stats.min, &data_type) {
            (_, DataType::Jsonb) => continue,
            (Some(Scalar::Int(min)), _) => Scalar::Int(min + 5),
            (Some(other), _) => other.clone(),
            (None, _) => continue,
        };
        let test = reader
            .prepare(&Predicate::Compare { column: ColumnId(1), op: CompareOp::LessEq, value })
            .expect("prepares");
        group.bench_function(BenchmarkId::new("select", name), |b| {
            b.iter(|| {
                for rows in batches(column.rows) {
                    let mut mask = Bitmask::all(rows.len());
                    reader.select(rows, &test, &mut mask).expect("selects");
                    black_box(mask);
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_millis(500)).warm_up_time(Duration::from_millis(100));
    targets = codec
}
criterion_main!(benches);
