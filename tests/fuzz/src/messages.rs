//! Any bytes as messages into columns of every type: JSON and changes of rows one a line, Avro and Protobuf each behind a byte that is its length.
#![allow(unreachable_pub, reason = "public for the fuzz targets; a part of the tests elsewhere")]

use tidemill_storage::schema::DataType;

use crate::{
    decode::{DebeziumOptions, Decoded, EpochUnit, Format, SchemaSource, SourceColumn, decoder, parse_path},
    message::{Message, MessageBatch},
};

fn columns() -> Vec<SourceColumn> {
    use DataType::{
        BigInt, Boolean, Bytea, Date, Double, Int, Jsonb, Numeric, Real, SmallInt, Text, Timestamp, TimestampTz, Uuid,
    };
    let types = [
        Boolean,
        SmallInt,
        Int,
        BigInt,
        Real,
        Double,
        Numeric { precision: 38, scale: 10 },
        Numeric { precision: 4, scale: 2 },
        Text,
        Bytea,
        Date,
        Timestamp,
        TimestampTz,
        Uuid,
        Jsonb,
    ];
    let mut columns = Vec::new();
    // One letter each, so that a fuzzer finds the names: a, b, … for single values, A, B, … for arrays.
    for (index, data_type) in types.into_iter().enumerate() {
        let letter = index as u8;
        columns.push(SourceColumn::new(char::from(b'a' + letter), data_type.clone(), true));
        columns.push(SourceColumn::new(char::from(b'A' + letter), DataType::Array(Box::new(data_type)), true));
    }
    for (name, path) in [("whole", "$"), ("deep", "$.z.y"), ("item", "$.x[1]")] {
        let path = parse_path(path).expect("a path");
        columns.push(SourceColumn::new(name, Jsonb, true).with_path(path));
    }
    columns
}

fn messages(payloads: &[&[u8]]) -> MessageBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (offset, payload) in payloads.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(payload);
        let payload = start..bytes.len() as u32;
        messages.push(Message { payload, is_null: false, offset: offset as u64, timestamp_ms: -1 });
    }
    MessageBatch { partition: 0, payloads: bytes.into(), messages, from: 0, to: payloads.len() as u64 }
}

/// Panics where a rule of the decoders is broken.
pub fn json(input: &[u8]) {
    check(&Format::Json { epoch: EpochUnit::ByMagnitude }, &columns(), &lines(input));
}

/// The same of change events, whose key is `d`; what they delete is said in `gone`.
pub fn debezium(input: &[u8]) {
    let of_key = |column: SourceColumn| {
        let in_key = column.name == "d";
        column.with_key(in_key)
    };
    let mut columns: Vec<_> = columns().into_iter().map(of_key).collect();
    columns.push(SourceColumn::new("gone", DataType::Boolean, false));
    let options = DebeziumOptions { delete_column: "gone".into(), ..DebeziumOptions::default() };
    check(&Format::DebeziumJson { options, epoch: EpochUnit::ByMagnitude }, &columns, &lines(input));
}

fn lines(input: &[u8]) -> Vec<&[u8]> {
    input.split(|byte| *byte == b'\n').take(64).collect()
}

/// The same of Avro, with a schema in which every field may be of every type.
pub fn avro(input: &[u8]) {
    check(&Format::Avro { schema: given(&avro_schema()), epoch: EpochUnit::ByMagnitude }, &columns(), &pieces(input));
}

/// The same of Protobuf, with a schema that has every type of field.
pub fn protobuf(input: &[u8]) {
    // Names that differ in case alone cannot stand in one message.
    let columns = columns().into_iter().map(|column| match column.name.as_str() {
        name if name.len() == 1 && name.to_lowercase() != name => {
            let path = parse_path(&format!("l{}", name.to_lowercase())).expect("a path");
            column.with_path(path)
        }
        _ => column,
    });
    let columns: Vec<_> = columns.collect();
    check(&Format::Protobuf { schema: given(PROTO), epoch: EpochUnit::ByMagnitude }, &columns, &pieces(input));
}

fn given(schema: &str) -> SchemaSource {
    SchemaSource::Given { schema: schema.to_owned(), message: None }
}

/// What stands behind each length; the last piece is what is left.
fn pieces(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = input.split_first()
        && pieces.len() < 16
    {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        pieces.push(piece);
        input = rest;
    }
    pieces
}

fn avro_schema() -> String {
    let mut any = r#"["null","boolean","int","long","float","double","bytes","string",
        {"type":"enum","name":"E","symbols":["p","q"]},
        {"type":"fixed","name":"D","size":3,"logicalType":"decimal","precision":6,"scale":2},
        {"type":"fixed","name":"I","size":16,"logicalType":"uuid"},
        {"type":"array","items":["null","int","string","R"]},{"type":"map","values":["long","R"]},"R",
        {"type":"bytes","logicalType":"decimal","precision":9,"scale":2},
        {"type":"long","logicalType":"timestamp-millis"},{"type":"long","logicalType":"local-timestamp-nanos"},
        {"type":"int","logicalType":"date"},{"type":"int","logicalType":"time-millis"}]"#
        .to_owned();
    let mut fields = Vec::new();
    for column in columns().iter().filter(|column| column.name.len() == 1) {
        fields.push(format!(r#"{{"name":"{}","type":{any}}}"#, column.name));
        any = r#"["null","boolean","int","long","float","double","bytes","string","E","D","I",
            {"type":"array","items":"string"},{"type":"map","values":"bytes"},"R"]"#
            .to_owned();
    }
    fields.push(format!(
        r#"{{"name":"z","type":["null",{{"type":"record","name":"Z","fields":[{{"name":"y","type":{any}}}]}}]}}"#
    ));
    fields.push(format!(r#"{{"name":"x","type":{{"type":"array","items":{any}}}}}"#));
    format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","))
}

const PROTO: &str = r#"syntax = "proto3";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
import "confluent/type/decimal.proto";
message R {
  enum E { P = 0; Q = 2; }
  message Z { oneof u { string y = 1; R w = 2; } }
  bool a = 1; int32 b = 2; sint64 c = 3; uint64 d = 4; float e = 5; double f = 6; fixed32 g = 7; sfixed64 h = 8; string i = 9;
  bytes j = 10; google.protobuf.Timestamp k = 11; google.protobuf.Int64Value l = 12; E m = 13; bytes n = 14; google.protobuf.Struct o = 15;
  repeated bool la = 16; repeated sint32 lb = 17; repeated int64 lc = 18; repeated uint32 ld = 19; repeated float le = 20;
  repeated double lf = 21; repeated fixed64 lg = 22; map<string, R> lh = 23; repeated string li = 24; repeated bytes lj = 25;
  map<int32, string> lk = 26; repeated google.protobuf.Timestamp ll = 27; repeated E lm = 28; optional google.protobuf.Duration ln = 29;
  google.protobuf.ListValue lo = 30; Z z = 31; repeated R x = 32; confluent.type.Decimal p = 33;
}"#;

fn check(format: &Format, columns: &[SourceColumn], payloads: &[&[u8]]) {
    let mut decoder = decoder(format, columns).expect("a decoder");
    let all = decoder.decode(&messages(payloads)).expect("no registry is asked");
    assert_eq!(all.rows.num_rows(), all.row_offsets.len());
    for column in all.rows.columns() {
        column.to_data().validate_full().expect("sound arrays");
    }
    // A change may be two rows, or none: a tombstone.
    let rows_of_message = if let Format::DebeziumJson { .. } = format { 0..=2 } else { 1..=1 };
    // A message never touches its neighbours.
    let mut row = 0;
    for (offset, payload) in (0..).zip(payloads) {
        let Decoded { rows: alone, .. } = decoder.decode(&messages(&[payload])).expect("no registry is asked");
        let count = all.row_offsets[row..].iter().take_while(|of_row| **of_row == offset).count();
        match all.rejects.iter().filter(|reject| reject.offset == offset).count() {
            0 => assert!(rows_of_message.contains(&count), "message {offset} is {count} rows"),
            rejects => assert_eq!((rejects, count), (1, 0), "message {offset} is a reject and nothing else"),
        }
        assert_eq!(alone.num_rows(), count, "message {offset} alone");
        if count > 0 {
            let beside = all.rows.slice(row, count);
            // NaN is not itself: compared as text.
            assert_eq!(format!("{beside:?}"), format!("{alone:?}"), "message {offset} alone");
        }
        row += count;
    }
    assert_eq!(row, all.row_offsets.len(), "rows are in the order of their messages");
}
