//! Keys, values, headers, times and partitions of records.

use super::{BINARY, topic};
use crate::support::{
    kafka::{brokers, committed},
    server::Server,
};

/// Java's `Utils.murmur2` and `toPositive`, as Kafka's own clients choose partitions by.
fn partition(key: &[u8], partitions: u32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    ((hash & 0x7fff_ffff) % partitions) as i32
}

#[test]
fn records_have_keys_headers_times_and_javas_partitions() {
    let Some(brokers) = brokers("pipelines::sinks::records") else { return };
    // From Kafka's own test of murmur2.
    assert_eq!(partition(b"foobar", 1 << 30), (-790_332_482_i32 & 0x7fff_ffff) % (1 << 30));
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(BINARY);
    let path = directory.path().join("rows.ndjson");
    let rows = (0..200).map(|n| {
        format!(
            r#"{{"id":{n},"name":"n\u00e4me {n} \"q\"","price":{n}.25,"big":{},"share":{},"day":"2024-02-29","ts":"2024-03-01T12:00:{:02}.25Z","doc":{{"a":[{n},null]}},"tags":["x","y{n}"],"raw":"\\x00ff","ok":{},"who":{}}}"#,
            9_007_199_254_740_993_u64 + n,
            if n % 7 == 0 { "\"NaN\"".to_owned() } else { format!("{n}e-3") },
            n % 60,
            n % 2 == 0,
            if n % 5 == 0 { "null".into() } else { format!("\"0b1a51e6-7d8b-4d5a-9c0e-0000000{n:05}\"") },
        ) + "\n"
    });
    std::fs::write(&path, rows.collect::<String>()).unwrap();
    let columns = "id BIGINT, name TEXT, price NUMERIC(12,2), big BIGINT, share DOUBLE PRECISION, day DATE, ts TIMESTAMPTZ, doc JSONB, tags TEXT[], raw BYTEA, ok BOOLEAN, who UUID";
    server.sql(&format!(
        "CREATE SOURCE s ({columns}) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    let output = topic("sink-records");
    server.sql(&format!(
        "CREATE SINK out WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}', create_topic = 'true', partitions = 5,
         key = 'name', headers = 'id, who', timestamp = 'ts')"
    ));
    server.sql("CREATE PIPELINE p INTO out AS SELECT * FROM s");
    // And back: the same rows.
    server.sql(&format!(
        "CREATE SOURCE back ({columns}) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}')"
    ));
    server.sql(&format!("CREATE TABLE here ({columns}) FROM SOURCE back"));
    server.sql(&format!("CREATE TABLE there ({columns}) FROM SOURCE s"));
    server.sql("SELECT rt.drain('s')");
    server.sql("SELECT rt.drain('back'), rt.drain('there')");
    assert_eq!(super::super::lines(&server, "SELECT \"column\", reason, raw FROM rt.dlq LIMIT 1"), [""; 0]);
    assert_eq!(server.value("SELECT count(*) FROM here"), "200");
    for (a, b) in [("here", "there"), ("there", "here")] {
        let rest = server.sql(&format!("SELECT id FROM (SELECT * FROM {a} EXCEPT SELECT * FROM {b}) AS rest"));
        assert!(rest.is_empty(), "{a} without {b}: {rest:?}");
    }
    let records = committed(&brokers, &output);
    let first = records.iter().find(|record| record.headers[0].1.as_deref() == Some("0")).unwrap();
    assert_eq!(
        first.value,
        r#"{"id":0,"name":"näme 0 \"q\"","price":0.25,"big":9007199254740993,"share":"NaN","day":"2024-02-29","ts":"2024-03-01T12:00:00.25Z","doc":{"a": [0, null]},"tags":["x","y0"],"raw":"\\x00ff","ok":true,"who":null}"#
    );
    assert_eq!(first.headers, [("id".to_owned(), Some("0".to_owned())), ("who".to_owned(), None)]);
    for record in &records {
        let key = record.key.clone().unwrap();
        assert_eq!(record.partition, partition(key.as_bytes(), 5), "{key}");
        let id: i64 = record.headers[0].1.as_deref().unwrap().parse().unwrap();
        assert_eq!(record.timestamp_ms, 1_709_294_400_250 + id % 60 * 1000);
    }
}

#[test]
fn sinks_with_columns_cast_and_refuse_rows() {
    let Some(brokers) = brokers("pipelines::sinks::records::columns") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(BINARY);
    let path = directory.path().join("rows.ndjson");
    std::fs::write(&path, "{\"a\":1,\"b\":\"x\"}\n{\"a\":null,\"b\":\"y\"}\n{\"a\":3,\"b\":\"z\"}\n").unwrap();
    server.sql(&format!(
        "CREATE SOURCE s (a INT, b TEXT) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    let output = topic("sink-columns");
    server.sql(&format!(
        "CREATE SINK out (id BIGINT NOT NULL, part INT, name TEXT, note TEXT DEFAULT 'none') WITH (connector = 'kafka', brokers = '{brokers}', topic = '{output}',
         create_topic = 'true', key = 'id, part', value_columns = 'rest')"
    ));
    server.sql("INSERT INTO out (id, name) SELECT a, b FROM s");
    server.sql("SELECT rt.drain('s')");
    for _ in 0..2 {
        let mut records: Vec<(String, String)> =
            committed(&brokers, &output).into_iter().map(|record| (record.key.unwrap(), record.value)).collect();
        records.sort();
        assert_eq!(
            records,
            [
                (r#"{"id":1,"part":null}"#.to_owned(), r#"{"name":"x","note":"none"}"#.to_owned()),
                (r#"{"id":3,"part":null}"#.to_owned(), r#"{"name":"z","note":"none"}"#.to_owned()),
            ]
        );
        let letters = super::super::lines(&server, "SELECT \"table\", source, \"column\" FROM rt.dlq");
        assert_eq!(letters, ["insert_out out id"]);
        server.kill_and_restart();
        server.wait_for("SELECT state FROM rt.deliveries", "delivering", super::PATIENCE);
    }
}
