use tidemill_storage::schema::DataType;

use super::*;
use crate::decode::{EpochUnit, RegistryAddress, SchemaSource};

fn registry() -> SchemaSource {
    SchemaSource::Registry(RegistryAddress::parse("http://127.0.0.1:1", None).unwrap())
}

fn avro() -> Format {
    Format::Avro { schema: registry(), epoch: EpochUnit::ByMagnitude }
}

fn column(name: &str, of: DataType) -> SourceColumn {
    SourceColumn::new(name, of, true)
}

fn writer(kind: schemas::Kind, text: &str) -> Writer<'_> {
    Writer { kind, text, references: &[] }
}

const EVERYTHING: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"i","type":"int"},{"name":"l","type":"long"},{"name":"f","type":"float"},{"name":"d","type":"double"},
    {"name":"b","type":"boolean"},{"name":"s","type":"string"},{"name":"x","type":"bytes"},{"name":"n","type":"null"},
    {"name":"fixed","type":{"type":"fixed","name":"F","size":3}},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B","C"]}},
    {"name":"u","type":["null","int",{"type":"record","name":"In","fields":[{"name":"z","type":["null","string"]}]}]},
    {"name":"a","type":{"type":"array","items":["null","long"]}},
    {"name":"m","type":{"type":"map","values":{"type":"array","items":"string"}}},
    {"name":"dec","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
    {"name":"wide","type":{"type":"fixed","name":"W","size":20,"logicalType":"decimal","precision":38,"scale":3}},
    {"name":"narrow","type":{"type":"fixed","name":"N","size":2,"logicalType":"decimal","precision":9,"scale":2}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"id","type":{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}},
    {"name":"next","type":["null","R"]},{"name":"all","type":{"type":"array","items":"R"}}]}"#;

/// Every example is data of its schema, to the last byte.
#[test]
fn examples_are_what_their_schema_says() {
    let whole = SourceColumn::new("whole", DataType::Jsonb, true).with_path(Vec::new());
    let protobuf = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto";
        message M { int64 id = 1; optional string name = 2; repeated int32 n = 3; map<string, bool> flags = 4; M next = 5; E e = 6; oneof o { bytes x = 7; double d = 8; }
        google.protobuf.Timestamp ts = 9; google.protobuf.Value any = 10; sfixed32 s = 11; uint64 u = 12; float f = 13; }
        enum E { A = 0; B = 5; }"#;
    let epoch = EpochUnit::ByMagnitude;
    for (format, kind, text, least) in [
        (avro(), schemas::Kind::Avro, EVERYTHING, 60),
        (Format::Protobuf { schema: registry(), epoch }, schemas::Kind::Protobuf, protobuf, 30),
    ] {
        let batch = rows(&format, std::slice::from_ref(&whole), &writer(kind, text)).unwrap();
        let count = batch.rows.num_rows() + batch.rejects.len();
        assert!(count >= least, "{count} examples of {kind:?}");
        // NaN is no JSON; everything else can be read.
        for reject in &batch.rejects {
            assert!(reject.column.is_some(), "{}: {:?}", reject.reason, reject.raw);
        }
        assert!(batch.rows.num_rows() * 2 > count, "{} of {count}", batch.rows.num_rows());
    }
}

#[test]
fn fates_are_those_of_single_columns() {
    let fate =
        |name: &str, of: DataType| fate(&avro(), &column(name, of), &writer(schemas::Kind::Avro, EVERYTHING)).unwrap();
    let fits = fate("i", DataType::BigInt);
    assert!(fits.refused == 0 && fits.values == fits.messages && fits.messages == 3, "{fits:?}");
    let narrow = fate("l", DataType::Int);
    assert!(narrow.refused == 2 && narrow.values == 1, "{narrow:?}");
    assert!(narrow.refusals.iter().all(|(reason, is_its)| *is_its && reason.contains("\"l\"")), "{narrow:?}");
    assert!(fate("nowhere", DataType::Text).is_null() && fate("n", DataType::Int).is_null());
    // null, a number, a record with null and one with a string.
    let union = fate("u", DataType::Int);
    assert!(union.values == 3 && union.refused > 0, "{union:?}");
    assert_eq!(fate("a", DataType::Array(Box::new(DataType::BigInt))).refused, 0);
    assert_eq!(fate("dec", DataType::Numeric { precision: 9, scale: 2 }).refused, 0);
    assert_eq!(fate("narrow", DataType::Numeric { precision: 9, scale: 2 }).refused, 0);
    assert!(fate("dec", DataType::Numeric { precision: 8, scale: 2 }).refused == 2);
    assert_eq!(fate("e", DataType::Text).values, 3);
    // Another language, and what is no schema.
    let protobuf = writer(schemas::Kind::Protobuf, "syntax = \"proto3\"; message M { int32 i = 1; }");
    let other = super::fate(&avro(), &column("i", DataType::Int), &protobuf).unwrap();
    assert!(
        other.values == 0 && other.refusals.iter().all(|(reason, is_its)| reason.contains("avro") && !is_its),
        "{other:?}"
    );
    assert!(super::fate(&avro(), &column("i", DataType::Int), &writer(schemas::Kind::Avro, "{")).is_err());
    let endless = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#;
    assert!(super::fate(&avro(), &column("i", DataType::Int), &writer(schemas::Kind::Avro, endless)).is_err());
}

#[test]
fn documents_have_what_their_schema_says() {
    let json = Format::Json { epoch: EpochUnit::ByMagnitude };
    let schema = r##"{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"city":{"$ref":"#/$defs/name"},
        "tags":{"type":"array","items":{"enum":["a","b"]}},"at":{"anyOf":[{"type":"null"},{"type":"object","properties":{"zip":{"const":7}}}]}},
        "$defs":{"name":{"type":["string","null"]}}}"##;
    let fate = |column: &SourceColumn| fate(&json, column, &writer(schemas::Kind::Json, schema)).unwrap();
    assert!(fate(&SourceColumn::new("id", DataType::BigInt, false)).refused == 0);
    assert!(fate(&SourceColumn::new("city", DataType::Text, false)).refused >= 2, "absent, and null");
    assert_eq!(fate(&column("tags", DataType::Array(Box::new(DataType::Text)))).refused, 0);
    let zip = column("zip", DataType::Int).with_path(vec![PathStep::Field("at".into()), PathStep::Field("zip".into())]);
    assert!(fate(&zip).values > 0 && fate(&zip).refused == 0);
}
