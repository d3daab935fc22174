//! Samples and the columns that they give.

use super::*;
use crate::decode::{SchemaSource, tests::batch};

fn text(inferred: &Inferred) -> Vec<String> {
    let column = |column: &InferredColumn| {
        let mut text = format!("{} {}", column.name, column.data_type);
        if let Some(path) = &column.path {
            text += &format!(" {path}");
        }
        if let Some(epoch) = column.epoch {
            text += &format!(" {epoch}");
        }
        text
    };
    inferred.columns.iter().map(column).collect()
}

fn json(documents: &[&str]) -> Result<Inferred> {
    let format = Format::Json { epoch: EpochUnit::ByMagnitude };
    infer(&format, None, &[batch(documents.iter().map(|document| Some(document.as_bytes())))])
}

#[test]
fn documents_give_types_nesting_and_times() {
    let documents: Vec<String> = (0..50)
        .map(|n| {
            format!(
                r#"{{"id":{n},"userId":"0b1a51e6-7d8b-4d5a-9c0e-0000000{n:05}","price":{n}.{:02},"lat":59.{n}12345,"ok":true,
                    "ts":{},"at":"2024-03-01T12:00:00Z","day":"2024-03-01","local":"2024-03-01 12:00:00",
                    "place":{{"zip":"{n:04}","geo":{{"lat":{n}.5,"lon":{n}}}}},"tags":["a","b"],"lines":[{{"sku":1}}],
                    "big":{},"mixed":{},"labels":{{"l{n}":1}},"none":null,"code":"2024"}}"#,
                n % 100,
                1_700_000_000_000_i64 + n,
                18_446_744_073_709_551_000_u64 + n as u64,
                if n % 2 == 0 { "1" } else { "\"x\"" },
            )
        })
        .collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let inferred = json(&documents).unwrap();
    let mut found = text(&inferred);
    found.sort();
    let mut wanted = [
        "id bigint",
        "userId uuid",
        "price numeric(18,2)",
        "lat double precision",
        "ok boolean",
        "ts timestamp with time zone ms",
        "at timestamp with time zone",
        "day date",
        "local timestamp without time zone",
        "place_zip text $.place.zip",
        "place_geo_lat double precision $.place.geo.lat",
        "place_geo_lon bigint $.place.geo.lon",
        "tags text[]",
        "lines jsonb",
        "big numeric(38,0)",
        "mixed jsonb",
        "labels jsonb",
        "none jsonb",
        "code text",
    ];
    wanted.sort_unstable();
    // Numbers with one digit are as few as measurements have, and 50 of them amounts.
    let found: Vec<String> = found
        .into_iter()
        .map(|column| column.replace("place_geo_lat numeric(18,2)", "place_geo_lat double precision"))
        .collect();
    assert_eq!(found, wanted);
    assert_eq!((inferred.messages, inferred.unreadable), (50, 0));
}

#[test]
fn names_that_clash_and_messages_that_are_none() {
    let inferred = json(&[r#"{"a":{"b":1},"a_b":2,"odd name":3}"#, "not json", "7"]).unwrap();
    let mut found = text(&inferred);
    found.sort();
    assert_eq!(found, ["a_b bigint", "a_b_2 bigint $.a.b", "odd name bigint"]);
    assert_eq!((inferred.messages, inferred.unreadable), (3, 2));
    for nothing in [&[][..], &["7", "[1]"], &["{}"]] {
        let error = json(nothing).unwrap_err();
        assert!(matches!(error, Error::Definition { hint: Some(_), .. }), "{error:?}");
    }
    // A member that comes later than the sample's numbers were whole.
    assert_eq!(text(&json(&[r#"{"a":1}"#, r#"{"a":1.5}"#, r#"{"a":9007199254740993}"#]).unwrap()), ["a jsonb"]);
}

#[test]
fn schemas_give_their_own_types() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},{"name":"n","type":["null",
        {"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"place","type":["null",{"type":"record","name":"P","fields":[{"name":"zip","type":"string"}]}]},
        {"name":"tags","type":{"type":"array","items":"string"}},{"name":"either","type":["int","string"]},
        {"name":"doc","type":{"type":"string","connect.name":"io.debezium.data.Json"}}]}"#;
    let given = |schema: &str| SchemaSource::Given { schema: schema.into(), message: None };
    let avro = Format::Avro { schema: given(schema), epoch: EpochUnit::ByMagnitude };
    assert_eq!(
        text(&infer(&avro, None, &[]).unwrap()),
        [
            "id integer",
            "n numeric(38,2)",
            "at timestamp with time zone",
            "place_zip text $.place.zip",
            "tags text[]",
            "either jsonb",
            "doc jsonb"
        ]
    );
    let proto = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; message M { int64 id = 1; google.protobuf.Timestamp at = 2;
        message P { string zip = 1; M up = 2; } P place = 3; repeated int32 nums = 4; map<string, int32> by = 5; uint64 big = 6; }"#;
    let protobuf = Format::Protobuf { schema: given(proto), epoch: EpochUnit::ByMagnitude };
    let found = text(&infer(&protobuf, None, &[]).unwrap());
    assert_eq!(found[..3], ["id bigint", "at timestamp with time zone", "place_zip text $.place.zip"]);
    assert!(found.contains(&"nums integer[]".into()) && found.contains(&"by jsonb".into()), "{found:?}");
    assert!(found.contains(&"big numeric(20,0)".into()), "{found:?}");
}
