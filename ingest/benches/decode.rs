//! How fast messages become columns, on one core.
//!
//! `orders`: 150-byte JSON objects of ten columns (three integers, a double, a numeric, a boolean, three texts, a timestamp), the shape of a plain
//! event stream. `github events`: nested objects of 3.7 KB, six of their fields by path (only where the file of
//! `TIDEMILL_GITHUB_EVENTS` is given). Higher is better; the floor for orders is 2.5 million messages a second.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]
#![expect(clippy::disallowed_macros, reason = "a benchmark prints what it measures")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill_ingest::{
    decode::{EpochUnit, Format, SourceColumn, decoder, parse_path},
    message::{Message, MessageBatch},
};
use tidemill_storage::schema::DataType;

fn batch(texts: impl Iterator<Item = String>) -> MessageBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (offset, text) in texts.enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(text.as_bytes());
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
    let columns = [
        ("id", DataType::BigInt),
        ("rid", DataType::BigInt),
        ("qty", DataType::Int),
        ("total", DataType::Double),
        ("tip", DataType::Numeric { precision: 10, scale: 2 }),
        ("ok", DataType::Boolean),
        ("city", DataType::Text),
        ("st", DataType::Text),
        ("note", DataType::Text),
        ("ts", DataType::TimestampTz),
    ];
    (batch(texts), columns.into_iter().map(|(name, data_type)| SourceColumn::new(name, data_type, true)).collect())
}

fn bench(c: &mut Criterion) {
    let format = Format::Json { epoch: EpochUnit::ByMagnitude };
    let mut group = c.benchmark_group("decode json");

    let (messages, columns) = orders();
    let mut orders = decoder(&format, &columns).expect("the columns are right");
    assert!(orders.decode(&messages).rejects.is_empty());
    println!("orders: {} bytes a message", messages.payloads.len() / messages.messages.len());
    group.throughput(Throughput::Elements(messages.messages.len() as u64));
    group.bench_function("orders", |b| b.iter(|| black_box(orders.decode(black_box(&messages)))));

    if let Ok(path) = std::env::var("TIDEMILL_GITHUB_EVENTS") {
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
            println!("{name}: {} of {} rejected", events.decode(&messages).rejects.len(), messages.messages.len());
            group.bench_function(name, |b| b.iter(|| black_box(events.decode(black_box(&messages)))));
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
