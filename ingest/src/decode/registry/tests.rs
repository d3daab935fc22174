//! Messages with the ids of their schemas, against a registry in this process.

#[path = "../../../../tests/it/support/registry.rs"]
#[allow(clippy::disallowed_methods, reason = "a server of the tests' own, on its own thread")]
mod server;

use std::sync::Arc;

use tidemill_storage::{clock::ManualClock, schema::DataType};

use self::server::{Registry, body};
use crate::{
    Error,
    decode::{
        Decoded, Decoder, EpochUnit, Format, SchemaSource, SourceColumn,
        avro::AvroDecoder,
        decoder,
        registry::{RegistryAddress, SchemasById},
        tests::{assert_sound, batch, cell},
    },
};

fn schema_source(url: &str) -> SchemaSource {
    SchemaSource::Registry(RegistryAddress::parse(url, None).unwrap())
}

fn avro(url: &str, columns: &[SourceColumn]) -> Box<dyn Decoder> {
    decoder(&Format::Avro { schema: schema_source(url), epoch: EpochUnit::ByMagnitude }, columns).unwrap()
}

fn protobuf(url: &str, columns: &[SourceColumn]) -> Box<dyn Decoder> {
    decoder(&Format::Protobuf { schema: schema_source(url), epoch: EpochUnit::ByMagnitude }, columns).unwrap()
}

fn columns(types: &[(&str, DataType)]) -> Vec<SourceColumn> {
    types.iter().map(|(name, data_type)| SourceColumn::new(*name, data_type.clone(), true)).collect()
}

fn framed(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], datum].concat()
}

fn decode(decoder: &mut dyn Decoder, columns: &[SourceColumn], messages: &[Vec<u8>]) -> Decoded {
    let batch = batch(messages.iter().map(|message| Some(message.as_slice())));
    let decoded = decoder.decode(&batch).unwrap();
    assert_sound(&decoded, &batch, columns);
    decoded
}

fn rows(decoded: &Decoded) -> Vec<Vec<Option<String>>> {
    let row = |row| decoded.rows.columns().iter().map(|array| cell(array, row)).collect();
    (0..decoded.rows.num_rows()).map(row).collect()
}

fn some(values: &[Option<&str>]) -> Vec<Option<String>> {
    values.iter().map(|value| value.map(str::to_owned)).collect()
}

const V1: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"id","type":"int"},{"name":"name","type":"string"}]}"#;
/// The name was renamed, the id widened, an amount was added before both.
const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"amount","type":["null","double"],"default":null},
    {"name":"title","type":"string","aliases":["name"]},{"name":"id","type":"long"}]}"#;

#[test]
fn messages_of_several_versions_are_rows_of_one_source() {
    let registry = Registry::start(None);
    registry.register(1, "AVRO", V1, "[]");
    registry.register(70_000, "AVRO", V2, "[]");
    let columns = columns(&[("id", DataType::BigInt), ("name", DataType::Text), ("amount", DataType::Double)]);
    let mut decoder = avro(&registry.url(), &columns);
    let v1 = framed(1, &[14, 2, b'a']);
    let v2 = framed(70_000, &[2, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 2, b'b', 16]);
    let v2_null = framed(70_000, &[0, 2, b'c', 18]);
    let poison = [
        framed(2, &[14, 2, b'a']),
        b"{\"id\": 7}".to_vec(),
        b"\0\0\0".to_vec(),
        Vec::new(),
        framed(1, &[14, 2]),
        framed(1, &[14, 2, b'a', 0]),
    ];
    let mut messages = vec![v1, v2, v2_null];
    for (at, bad) in poison.iter().enumerate() {
        messages.insert(at, bad.clone());
    }
    let decoded = decode(&mut *decoder, &columns, &messages);
    assert_eq!(
        rows(&decoded),
        [
            some(&[Some("7"), Some("a"), None]),
            some(&[Some("8"), Some("b"), Some("1.5")]),
            some(&[Some("9"), Some("c"), None])
        ]
    );
    let reasons: Vec<_> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(reasons.len(), poison.len());
    assert!(reasons[0].contains("no schema with id 2: Schema not found"), "{reasons:?}");
    assert!(reasons[1].contains("first byte is 0x7b instead of 0x00"), "{reasons:?}");
    assert!(reasons[2].contains("has 3 bytes"), "{reasons:?}");
    assert!(reasons[4].contains("1 bytes are wanted and 0 are left at byte 7"), "{reasons:?}");
    assert!(reasons[5].contains("1 bytes are left over at byte 8"), "{reasons:?}");

    // What is known is never asked for again, what is unknown not at once.
    let asked = registry.asked().len();
    assert_eq!(asked, 3);
    decode(&mut *decoder, &columns, &messages);
    assert_eq!(registry.asked().len(), asked);
}

#[test]
fn what_is_no_answer_of_a_registry_loses_no_message() {
    let registry = Registry::start(None);
    let columns = columns(&[("id", DataType::BigInt)]);
    let mut decoder = avro(&registry.url(), &columns);
    let message = framed(1, &[14, 2, b'a']);
    let path = "/schemas/ids/1";
    for (status, answer) in [
        (500, "broken"),
        (503, ""),
        (301, ""),
        (401, "{\"error_code\":401,\"message\":\"Unauthorized\"}"),
        (404, "<html>not here</html>"),
        (200, "<html>welcome</html>"),
        (200, "{\"schema\":7}"),
    ] {
        registry.answer(path, status, answer);
        let failed = decoder.decode(&batch([Some(&message[..])]));
        let Err(Error::Unavailable(reason)) = failed else { panic!("{status} {answer}: {failed:?}") };
        assert!(reason.contains(&registry.url()) && reason.contains(path), "{reason}");
    }
    registry.register(1, "AVRO", V1, "[]");
    assert_eq!(rows(&decode(&mut *decoder, &columns, std::slice::from_ref(&message))), [some(&[Some("7")])]);

    // Nobody listens.
    let url = registry.url();
    drop(registry);
    assert_eq!(rows(&decode(&mut *decoder, &columns, std::slice::from_ref(&message))), [some(&[Some("7")])]);
    let failed = avro(&url, &columns).decode(&batch([Some(&message[..])]));
    assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
}

#[test]
fn an_unknown_id_is_asked_for_again_after_a_while() {
    let registry = Registry::start(None);
    let columns = columns(&[("id", DataType::BigInt)]);
    let clock = Arc::new(ManualClock::at(5));
    let address = RegistryAddress::parse(&registry.url(), None).unwrap();
    let mut decoder = AvroDecoder::with_registry(SchemasById::with_clock(&address, clock.clone()), &columns);
    let message = framed(1, &[14, 2, b'a']);
    let mut count = || decode(&mut decoder, &columns, std::slice::from_ref(&message)).row_offsets.len();
    assert_eq!(count(), 0);
    registry.register(1, "AVRO", V1, "[]");
    clock.advance_us(9_999_999);
    assert_eq!((count(), registry.asked().len()), (0, 1));
    clock.advance_us(1);
    assert_eq!((count(), registry.asked().len()), (1, 2));
}

#[test]
fn schemas_that_cannot_be_used_are_reasons() {
    let registry = Registry::start(None);
    registry.register(1, "AVRO", "{\"type\":\"record\"}", "[]");
    registry.register(2, "JSON", "{}", "[]");
    registry.register(3, "AVRO", V1, r#"[{"name":"x","subject":"missing","version":1}]"#);
    registry.register(4, "PROTOBUF", "syntax = \"proto3\"; message M { Missing m = 1; }", "[]");
    registry.register(5, "AVRO", V1, "[]");
    let columns = columns(&[("id", DataType::BigInt)]);
    let messages: Vec<_> = (1..=5).map(|id| framed(id, &[14, 2, b'a'])).collect();
    let reasons = |decoder: &mut dyn Decoder| -> Vec<String> {
        decode(decoder, &columns, &messages).rejects.into_iter().map(|reject| reject.reason).collect()
    };
    let avro = reasons(&mut *avro(&registry.url(), &columns));
    assert_eq!(avro.len(), 4, "{avro:?}");
    assert!(avro[0].contains("the schema with id 1 cannot be used: a record"), "{avro:?}");
    assert!(avro[1].contains("it is a schema of JSON"), "{avro:?}");
    assert!(avro[2].contains("version 1 of subject missing"), "{avro:?}");
    assert!(avro[3].contains("it is a schema of Protobuf"), "{avro:?}");
    let protobuf = reasons(&mut *protobuf(&registry.url(), &columns));
    assert_eq!(protobuf.len(), 5, "{protobuf:?}");
    assert!(protobuf[3].contains("Missing"), "{protobuf:?}");
}

#[test]
fn references_come_before_what_refers_to_them() {
    let registry = Registry::start(None);
    let reference = |name: &str, subject: &str| format!(r#"[{{"name":"{name}","subject":"{subject}","version":3}}]"#);
    let inner = r#"{"type":"record","name":"a.Inner","fields":[{"name":"x","type":"a.Leaf"}]}"#;
    let leaf = r#"{"type":"enum","name":"a.Leaf","symbols":["P","Q"]}"#;
    let outer = r#"{"type":"record","name":"Outer","fields":[{"name":"inner","type":"a.Inner"}]}"#;
    registry.register(1, "AVRO", outer, &reference("a.Inner", "in/ner"));
    registry.answer("/subjects/in%2Fner/versions/3", 200, &body("AVRO", inner, &reference("a.Leaf", "leaf")));
    registry.answer("/subjects/leaf/versions/3", 200, &body("AVRO", leaf, "[]"));
    let x = vec![SourceColumn::new("x", DataType::Text, true).with_path(crate::decode::parse_path("inner.x").unwrap())];
    let mut avro = avro(&registry.url(), &x);
    assert_eq!(rows(&decode(&mut *avro, &x, &[framed(1, &[2])])), [some(&[Some("Q")])]);

    let outer = "syntax = \"proto3\"; import \"b/inner.proto\"; import \"google/protobuf/timestamp.proto\";\n\
        import \"confluent/meta.proto\";\n\
        message Other { int32 z = 1; }\n\
        message Outer { message Deep { sint32 y = 1 [(confluent.field_meta).doc = \"y\"]; } b.Inner inner = 1;\n\
        google.protobuf.Timestamp at = 2; map<string, int32> m = 3; message Deeper { int64 x = 2; } }";
    registry.register(2, "PROTOBUF", outer, &reference("b/inner.proto", "inner-proto"));
    let inner = "syntax = \"proto3\"; package b; message Inner { string x = 1; }";
    registry.answer("/subjects/inner-proto/versions/3", 200, &body("PROTOBUF", inner, "[]"));
    let mut columns = x.clone();
    columns.extend([SourceColumn::new("y", DataType::Int, true), SourceColumn::new("at", DataType::TimestampTz, true)]);
    let mut protobuf = protobuf(&registry.url(), &columns);
    // Paths of indices: [1], [1, 0], and [1, 1], past the entries of the map; [9] and [1, 2] lead nowhere.
    let one = framed(2, &[2, 2, 0x0a, 3, 0x0a, 1, b'w', 0x12, 2, 0x08, 5]);
    let deep = framed(2, &[4, 2, 0, 0x08, 3]);
    let deeper = framed(2, &[4, 2, 2, 0x10, 3]);
    let first = framed(2, &[0, 0x08, 1]);
    let decoded = decode(
        &mut *protobuf,
        &columns,
        &[one, deep, deeper, first, framed(2, &[2, 18]), framed(2, &[4, 2, 4]), framed(2, &[]), framed(2, &[1])],
    );
    assert_eq!(
        rows(&decoded),
        [
            some(&[Some("w"), None, Some("5000000")]),
            some(&[None, Some("-2"), None]),
            some(&[None, None, None]),
            some(&[None, None, None])
        ]
    );
    let reasons: Vec<_> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert!(reasons[0].contains("no message at the path [9]") && reasons[1].contains("path [1, 2]"), "{reasons:?}");
    assert_eq!(reasons.len(), 4);
}

#[test]
fn name_and_password_are_sent() {
    let registry = Registry::start(None);
    registry.register(1, "AVRO", V1, "[]");
    let columns = columns(&[("id", DataType::BigInt)]);
    let url = format!("http://user:secret@127.0.0.1:{}", registry.port);
    decode(&mut *avro(&url, &columns), &columns, &[framed(1, &[14, 2, b'a'])]);
    assert_eq!(registry.asked(), [("/schemas/ids/1".to_owned(), Some("Basic dXNlcjpzZWNyZXQ=".to_owned()))]);
}
