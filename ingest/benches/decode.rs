//! How fast messages become columns, on one core.
//!
//! `orders`: 150-byte JSON objects of ten columns (three integers, a double, a numeric, a boolean, three texts, a timestamp), the shape of a plain
//! event stream. `github events`: nested objects of 3.7 KB, six of their fields by path (only where the file of
//! `TIDEMILL_TEST_GITHUB_EVENTS` is given). Higher is better; the floor for orders is 2.5 million messages a second. The same orders as Avro and as
//! Protobuf, all columns and three of them: the floor for Avro is what JSON gives.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]
#![expect(clippy::disallowed_macros, reason = "a benchmark prints what it measures")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill_ingest::{
    decode::{EpochUnit, Format, SchemaSource, SourceColumn, decoder, parse_path},
    message::{Message, MessageBatch},
};
use tidemill_storage::schema::DataType;

fn batch(texts: impl Iterator<Item = impl AsRef<[u8]>>) -> MessageBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (offset, text) in texts.enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(text.as_ref());
        messages.push(Message {
            payload: start..bytes.len() as u32,
            is_null: false,
            offset: offset as u64,
            timestamp_ms: 0,
        });
    }
    let to = messages.len() as u64;
    MessageBatch { partition: 0, payloads: Bytes::from(bytes), messages, from: 0, to }
}

fn orders() -> (MessageBatch, Vec<SourceColumn>) {
    let texts = (0..8192u64).map(|n| {
        format!(
            r#"{{"id":{},"rid":{},"qty":{},"total":{}.{:02},"tip":{}.5,"ok":{},"city":"{}","st":"{}","note":"n{}","ts":"2026-02-03T04:05:{:02}.{:03}Z"}}"#,
            1_000_000_007 * n % 9_999_999_999,
            n * 31 % 5000,
            n % 9,
            n % 90,
            n % 100,
            n % 10,
            n % 3 == 0,
            ["Berlin", "Rome", "San Francisco", "Oslo"][n as usize % 4],
            ["placed", "cooking", "delivered"][n as usize % 3],
            n * 7919 % 100_000,
            n % 60,
            n % 1000,
        )
    });
    (batch(texts), order_columns(DataType::Numeric { precision: 10, scale: 2 }))
}

fn order_columns(tip: DataType) -> Vec<SourceColumn> {
    let columns = [
        ("id", DataType::BigInt),
        ("rid", DataType::BigInt),
        ("qty", DataType::Int),
        ("total", DataType::Double),
        ("tip", tip),
        ("ok", DataType::Boolean),
        ("city", DataType::Text),
        ("st", DataType::Text),
        ("note", DataType::Text),
        ("ts", DataType::TimestampTz),
    ];
    columns.into_iter().map(|(name, data_type)| SourceColumn::new(name, data_type, true)).collect()
}

const AVRO: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"rid","type":"long"},{"name":"qty","type":"int"},{"name":"total","type":"double"},
    {"name":"tip","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},{"name":"ok","type":"boolean"},
    {"name":"city","type":["null","string"]},{"name":"st","type":"string"},{"name":"note","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

const PROTO: &str = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message Order { int64 id = 1; int64 rid = 2; int32 qty = 3; \
    double total = 4; sint64 tip = 5; bool ok = 6; string city = 7; string st = 8; string note = 9; google.protobuf.Timestamp ts = 10; }";

/// The orders in binary. Of the `n`-th: its numbers, then its texts.
fn binary(avro: bool) -> MessageBatch {
    let varint = |out: &mut Vec<u8>, mut raw: u64| {
        while raw >= 0x80 {
            out.push(raw as u8 | 0x80);
            raw >>= 7;
        }
        out.push(raw as u8);
    };
    // Lengths and numbers of Avro have their sign in the lowest bit, those of Protobuf here have none.
    let number = |out: &mut Vec<u8>, value: u64| varint(out, if avro { value << 1 } else { value });
    let messages = (0..8192u64).map(|n| {
        let mut out = Vec::new();
        let tag = |out: &mut Vec<u8>, field: u8, wire: u8| {
            if !avro {
                out.push(field << 3 | wire);
            }
        };
        for (field, value) in [(1, 1_000_000_007 * n % 9_999_999_999), (2, n * 31 % 5000), (3, n % 9)] {
            tag(&mut out, field, 0);
            number(&mut out, value);
        }
        tag(&mut out, 4, 1);
        out.extend(((n % 90) as f64 + (n % 100) as f64 / 100.0).to_le_bytes());
        tag(&mut out, 5, 0);
        let tip = n % 10 * 100 + 50;
        if avro {
            number(&mut out, 2);
            out.extend((tip as i16).to_be_bytes());
        } else {
            varint(&mut out, tip << 1);
        }
        tag(&mut out, 6, 0);
        out.push(u8::from(n % 3 == 0));
        let city = ["Berlin", "Rome", "San Francisco", "Oslo"][n as usize % 4].to_owned();
        let status = ["placed", "cooking", "delivered"][n as usize % 3].to_owned();
        for (field, text) in [(7, city), (8, status), (9, format!("n{}", n * 7919 % 100_000))] {
            tag(&mut out, field, 2);
            if avro && field == 7 {
                number(&mut out, 1);
            }
            number(&mut out, text.len() as u64);
            out.extend(text.as_bytes());
        }
        let seconds = 1_770_091_440 + n % 60;
        if avro {
            number(&mut out, seconds * 1000 + n % 1000);
        } else {
            let mut instant = vec![0x08];
            varint(&mut instant, seconds);
            instant.push(0x10);
            varint(&mut instant, n % 1000 * 1_000_000);
            tag(&mut out, 10, 2);
            number(&mut out, instant.len() as u64);
            out.extend(instant);
        }
        out
    });
    batch(messages)
}

fn bench_binary(c: &mut Criterion) {
    let epoch = EpochUnit::ByMagnitude;
    let given = |schema: &str| SchemaSource::Given { schema: schema.into(), message: None };
    let formats = [
        ("avro", Format::Avro { schema: given(AVRO), epoch }, DataType::Numeric { precision: 10, scale: 2 }),
        ("protobuf", Format::Protobuf { schema: given(PROTO), epoch }, DataType::BigInt),
    ];
    for (name, format, tip) in formats {
        let mut group = c.benchmark_group(format!("decode {name}"));
        let messages = binary(name == "avro");
        println!("{name} orders: {} bytes a message", messages.payloads.len() / messages.messages.len());
        group.throughput(Throughput::Elements(messages.messages.len() as u64));
        let all = order_columns(tip);
        let three: Vec<_> = all.iter().step_by(4).cloned().collect();
        for (what, columns) in [("orders", &all), ("three columns of orders", &three)] {
            let mut orders = decoder(&format, columns).expect("the columns are right");
            let rejects = orders.decode(&messages).expect("no registry").rejects;
            assert!(rejects.is_empty(), "{:?}", rejects.first());
            group.bench_function(what, |b| b.iter(|| black_box(orders.decode(black_box(&messages)))));
        }
        group.finish();
    }
}

fn bench(c: &mut Criterion) {
    let format = Format::Json { epoch: EpochUnit::ByMagnitude };
    let mut group = c.benchmark_group("decode json");

    let (messages, columns) = orders();
    let mut orders = decoder(&format, &columns).expect("the columns are right");
    assert!(orders.decode(&messages).expect("no registry").rejects.is_empty());
    println!("orders: {} bytes a message", messages.payloads.len() / messages.messages.len());
    group.throughput(Throughput::Elements(messages.messages.len() as u64));
    group.bench_function("orders", |b| b.iter(|| black_box(orders.decode(black_box(&messages)))));

    if let Ok(path) = std::env::var("TIDEMILL_TEST_GITHUB_EVENTS") {
        let text = std::fs::read_to_string(path).expect("the file of events is readable");
        let messages = batch(text.lines().map(str::to_owned));
        let columns: Vec<_> = [
            ("id", DataType::BigInt, "$.id"),
            ("type", DataType::Text, "$.type"),
            ("login", DataType::Text, "$.actor.login"),
            ("repo", DataType::Text, "$.repo.name"),
            ("sha", DataType::Text, "$.payload.commits[0].sha"),
            ("created_at", DataType::TimestampTz, "$.created_at"),
        ]
        .into_iter()
        .map(|(name, data_type, path)| {
            SourceColumn::new(name, data_type, true).with_path(parse_path(path).expect("a right path"))
        })
        .collect();
        let mut whole = columns.clone();
        whole.push(SourceColumn::new("doc", DataType::Jsonb, true).with_path(vec![]));
        group.throughput(Throughput::Bytes(messages.payloads.len() as u64));
        for (name, columns) in [("github events", &columns), ("github events and all as jsonb", &whole)] {
            let mut events = decoder(&format, columns).expect("the columns are right");
            println!(
                "{name}: {} of {} rejected",
                events.decode(&messages).expect("no registry").rejects.len(),
                messages.messages.len()
            );
            group.bench_function(name, |b| b.iter(|| black_box(events.decode(black_box(&messages)))));
        }
    }
    group.finish();
}

criterion_group!(benches, bench, bench_binary);
criterion_main!(benches);
