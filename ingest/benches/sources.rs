//! How fast sources bring what they have, one reader on one core.
//!
//! `generator`: 32 Ki orders of twelve columns as Arrow; the aim is a million rows a second. `log append`: one caller, 1,000 rows a call,
//! bounded by the disk's sync. `log read`: the same rows back. `kafka`: 2 million messages of 150 bytes in 4 partitions, read from the start, only where
//! `TIDEMILL_TEST_KAFKA` names a broker; the aim is 1.5 million messages a second. Higher is better everywhere.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]
#![expect(clippy::disallowed_macros, reason = "a benchmark prints what it measures")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidemill_ingest::source::{
    ConnectContext, Connector, Fetched, SourceOptions, generator,
    log::{Log, LogOptions},
};
use tidemill_storage::{
    clock::SystemClock,
    ids::{ColumnId, SchemaVersion, SourceId},
    schema::{Column, TableSchema},
};

const MESSAGES: u64 = 2_000_000;

fn connect(pairs: &[(&str, &str)]) -> Arc<dyn Connector> {
    let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let context = ConnectContext {
        source: SourceId(1),
        name: "bench".into(),
        columns: generator::columns(),
        clock: Arc::new(SystemClock::default()),
        log: None,
    };
    SourceOptions::parse(&options).expect("sound options").connect(&context).expect("a connector").connector
}

fn sources(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sources");
    group.measurement_time(Duration::from_secs(4)).sample_size(20);

    let demo = connect(&[("connector", "generator"), ("rate", "0")]);
    let mut reader = demo.open(&BTreeMap::from([(0, 0)])).expect("a reader");
    let mut batch = None;
    group.throughput(Throughput::Elements(32 * 1024));
    group.bench_function("generator", |bencher| {
        bencher.iter(|| batch = reader.poll(32 * 1024, usize::MAX, Duration::ZERO).expect("rows").pop());
    });

    let Some(Fetched::Rows(rows)) = batch else { return };
    let columns = generator::columns().into_iter().enumerate().map(|(index, column)| Column {
        nullable: column.nullable,
        ..Column::new(ColumnId(index as u32 + 1), column.name, column.data_type)
    });
    let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns: columns.collect(), time_column: None });
    let directory = tempfile::tempdir().expect("a directory");
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).expect("a log");
    let thousand = rows.rows.slice(0, 1000);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("log append", |bencher| {
        bencher.iter(|| log.append(&schema, std::slice::from_ref(&thousand)).expect("room"));
    });
    let connector = log.connector(SourceId(2));
    let mut reader = connector.open(&BTreeMap::from([(0, 0)])).expect("a reader");
    group.bench_function("log read", |bencher| {
        bencher.iter(|| {
            if black_box(reader.poll(1000, usize::MAX, Duration::ZERO).expect("rows")).is_empty() {
                reader.seek(0, 0).expect("the first row");
            }
        });
    });
    group.finish();
}

fn kafka(criterion: &mut Criterion) {
    let Ok(brokers) = std::env::var("TIDEMILL_TEST_KAFKA") else {
        println!("sources/kafka is left out: TIDEMILL_TEST_KAFKA names no broker");
        return;
    };
    let topic = format!("bench-{}", std::process::id());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    let new = NewTopic::new(&topic, 4, TopicReplication::Fixed(1));
    futures::executor::block_on(admin.create_topics(&[new], &AdminOptions::new())).expect("a topic");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("linger.ms", "50")
        .set("batch.size", "900000")
        .create()
        .expect("a producer");
    let payload = [b'x'; 150];
    for n in 0..MESSAGES {
        let mut record = BaseRecord::<(), [u8]>::to(&topic).partition((n % 4) as i32).payload(&payload);
        while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(Duration::from_secs(120)).expect("all sent");

    let connector = connect(&[("connector", "kafka"), ("brokers", &brokers), ("topic", &topic)]);
    let mut group = criterion.benchmark_group("sources");
    group.sample_size(10).throughput(Throughput::Elements(MESSAGES));
    group.bench_function("kafka", |bencher| {
        bencher.iter(|| {
            let start = (0..4).map(|partition| (partition, 0)).collect();
            let mut reader = connector.open(&start).expect("a reader");
            let mut seen = 0;
            while seen < MESSAGES {
                for fetched in reader.poll(16 * 1024, 4 << 20, Duration::from_secs(1)).expect("a broker") {
                    if let Fetched::Messages(batch) = fetched {
                        seen += black_box(&batch).messages.len() as u64;
                    }
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, sources, kafka);
criterion_main!(benches);
