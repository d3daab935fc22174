//! What Protobuf messages become, against prost-reflect's dynamic messages, which also write them.

use std::collections::HashMap;

use proptest::prelude::*;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
    prost::Message,
};
use serde_json::{Map, Value as Json, json};
use tidemill_storage::schema::DataType;

use super::compile;
use crate::decode::{
    Decoded, EpochUnit, Format, SchemaSource, SourceColumn, decoder,
    json::jsonb::canonical,
    parse_path, settle_schema,
    tests::{assert_sound, batch, cell, one},
};

const PROTO: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
import "confluent/type/decimal.proto";

enum Status { UNKNOWN = 0; PLACED = 1; DELIVERED = 7; }

message Item { string name = 1; sint32 count = 2; repeated string tags = 3; Item inner = 4; }

message Order {
  int64 id = 1; int32 small = 2; uint32 u = 3; uint64 huge = 4; sint64 s = 5;
  fixed32 f32 = 6; fixed64 f64 = 7; sfixed32 sf32 = 8; sfixed64 sf64 = 9;
  double d = 10; float f = 11; bool ok = 12; string city = 13; bytes raw = 14;
  Status status = 15; optional int32 maybe = 16; optional string note = 17;
  repeated int32 counts = 18; repeated string tags = 19; repeated Status path = 20 [packed = false];
  repeated double prices = 21 [packed = false];
  map<string, int64> attrs = 22; map<int32, Item> byId = 23; map<bool, Status> flags = 24;
  Item item = 25; repeated Item items = 26;
  oneof paid { int32 cash = 27; string card = 28; Item other = 29; }
  google.protobuf.Timestamp at = 30; google.protobuf.Duration took = 31;
  google.protobuf.Struct doc = 32; google.protobuf.Value any = 33; google.protobuf.ListValue many = 34;
  google.protobuf.Int64Value wrapped = 35; google.protobuf.StringValue text = 36; google.protobuf.BoolValue flag = 37;
  confluent.type.Decimal price = 38; repeated google.protobuf.Timestamp times = 39;
  int64 user_name = 40;
}
"#;

fn format(schema: &str, message: Option<&str>) -> Format {
    let schema = SchemaSource::Given { schema: schema.to_owned(), message: message.map(str::to_owned) };
    Format::Protobuf { schema, epoch: EpochUnit::ByMagnitude }
}

fn order() -> MessageDescriptor {
    compile(PROTO, &[]).unwrap().parent_pool().get_message_by_name("shop.Order").unwrap()
}

fn orders() -> Format {
    format(PROTO, Some("shop.Order"))
}

fn path(name: &str, path: &str, data_type: DataType) -> SourceColumn {
    SourceColumn::new(name, data_type, true).with_path(parse_path(path).unwrap())
}

/// One column of an order.
fn value(at: &str, data_type: DataType, bytes: &[u8]) -> Result<Option<String>, String> {
    one(&orders(), &[path("v", at, data_type)], bytes).map(|row| row[0].clone())
}

fn tag(number: u32, wire: u8) -> Vec<u8> {
    varint(u64::from(number << 3 | u32::from(wire)))
}

fn varint(mut raw: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

fn number(field: u32, value: u64) -> Vec<u8> {
    [tag(field, 0), varint(value)].concat()
}

fn bytes(field: u32, value: &[u8]) -> Vec<u8> {
    [tag(field, 2), varint(value.len() as u64), value.to_vec()].concat()
}

#[test]
fn numbers_are_exact_or_refused() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    assert_eq!(
        value("huge", DataType::Numeric { precision: 20, scale: 0 }, &number(4, u64::MAX)),
        text("18446744073709551615")
    );
    assert_eq!(value("huge", DataType::Text, &number(4, u64::MAX)), text("18446744073709551615"));
    assert_eq!(value("huge", DataType::Jsonb, &number(4, u64::MAX)), text("18446744073709551615"));
    assert!(
        value("huge", DataType::BigInt, &number(4, u64::MAX))
            .unwrap_err()
            .contains("18446744073709551615 is out of range")
    );
    assert!(value("huge", DataType::Double, &number(4, u64::MAX)).unwrap_err().contains("would be rounded"));
    assert_eq!(value("small", DataType::Int, &number(2, (-5i64) as u64)), text("-5"));
    assert!(value("small", DataType::BigInt, &number(2, 1 << 40)).unwrap_err().contains("where an int32 is wanted"));
    assert!(value("u", DataType::BigInt, &number(3, 1 << 32)).is_err());
    assert!(value("ok", DataType::Boolean, &number(12, 2)).is_err());
    assert!(
        value("id", DataType::BigInt, &bytes(1, b"7"))
            .unwrap_err()
            .contains("field 1 is a run of bytes where an int64")
    );
    assert!(value("city", DataType::Text, &bytes(13, b"\xff")).unwrap_err().contains("not valid UTF-8"));
    assert!(value("city", DataType::Text, &bytes(13, b"\0")).unwrap_err().contains("NUL"));
    assert_eq!(value("raw", DataType::Bytea, &bytes(14, b"\0\xff")), text("[00, ff]"));
    assert_eq!(value("userName", DataType::BigInt, &number(40, 3)), text("3"));
    assert_eq!(value("id", DataType::TimestampTz, &number(1, 1_709_208_000)), text("1709208000000000"));
    assert_eq!(value("status", DataType::Text, &number(15, 7)), text("DELIVERED"));
    assert_eq!(value("status", DataType::Int, &number(15, 7)), text("7"));
    assert_eq!(value("status", DataType::Text, &number(15, 6)), text("6"), "an enum may have numbers without a word");
    assert_eq!(value("status", DataType::Jsonb, &number(15, 1)), text("\"PLACED\""));
}

#[test]
fn what_is_not_there_is_zero_or_null() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    assert_eq!(value("id", DataType::BigInt, b""), text("0"));
    assert_eq!(value("city", DataType::Text, b""), text(""));
    assert_eq!(value("ok", DataType::Boolean, b""), text("false"));
    assert_eq!(value("status", DataType::Text, b""), text("UNKNOWN"));
    assert_eq!(value("counts", DataType::Array(Box::new(DataType::Int)), b""), text("[]"));
    assert_eq!(value("attrs", DataType::Jsonb, b""), text("{}"));
    for (at, data_type) in [
        ("maybe", DataType::Int),
        ("note", DataType::Text),
        ("item", DataType::Jsonb),
        ("item.name", DataType::Text),
        ("item.tags", DataType::Jsonb),
        ("cash", DataType::Int),
        ("at", DataType::Timestamp),
        ("wrapped", DataType::BigInt),
        ("$.items[0].name", DataType::Text),
        ("$.counts[0]", DataType::Int),
        ("$.attrs.k", DataType::Int),
    ] {
        assert_eq!(value(at, data_type, b""), Ok(None), "{at}");
    }
    assert_eq!(value("maybe", DataType::Int, &number(16, 0)), text("0"));
    assert_eq!(value("item.name", DataType::Text, &bytes(25, b"")), text(""));
    let strict = [SourceColumn::new("note", DataType::Text, false)];
    assert!(one(&orders(), &strict, b"").unwrap_err().contains("is NOT NULL and the message has null at $.note"));
}

#[test]
fn the_last_counts_and_pieces_are_one() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    assert_eq!(value("id", DataType::BigInt, &[number(1, 3), number(1, 4)].concat()), text("4"));
    let ann = [bytes(1, b"ann"), bytes(3, b"x")].concat();
    let pieces = [bytes(25, &ann), bytes(25, &number(2, 6)), bytes(25, &bytes(3, b"y"))].concat();
    assert_eq!(value("item.name", DataType::Text, &pieces), text("ann"));
    assert_eq!(value("item.count", DataType::Int, &pieces), text("3"));
    assert_eq!(value("$.item.tags[1]", DataType::Text, &pieces), text("y"));
    assert_eq!(value("item.tags", DataType::Array(Box::new(DataType::Text)), &pieces), text("[x,y]"));
    assert_eq!(value("item", DataType::Jsonb, &pieces), text(r#"{"name": "ann", "tags": ["x", "y"], "count": 3}"#));

    let paid = [number(27, 5), bytes(28, b"visa")].concat();
    assert_eq!(value("cash", DataType::Int, &paid), Ok(None));
    assert_eq!(value("card", DataType::Text, &paid), text("visa"));
    let both = [path("cash", "cash", DataType::Int), path("name", "other.name", DataType::Text)];
    let row = |bytes: &[u8]| one(&orders(), &both, bytes).unwrap();
    assert_eq!(row(&[bytes(29, &ann), number(27, 5)].concat()), [Some("5".into()), None]);
    assert_eq!(row(&[number(27, 5), bytes(29, &ann)].concat()), [None, Some("ann".into())]);

    // A member that comes again after another one begins anew, in pieces as it may be; JSON once put together all of them.
    let again = [bytes(29, &ann), number(27, 5), bytes(29, &number(2, 6)), bytes(29, &bytes(3, b"z"))].concat();
    let other = r#"{"name": "", "tags": ["z"], "count": 3}"#;
    assert_eq!(value("other", DataType::Jsonb, &again), text(other));
    assert!(value("$", DataType::Jsonb, &again).unwrap().unwrap().contains(&format!("\"other\": {other}")));
    assert!(!value("$", DataType::Jsonb, &paid).unwrap().unwrap().contains("cash"));

    let entry = |key: &str, value: u64| bytes(22, &[bytes(1, key.as_bytes()), number(2, value)].concat());
    let map = [entry("k", 1), entry("j", 2), entry("k", 3)].concat();
    assert_eq!(value("$.attrs.k", DataType::Int, &map), text("3"));
    assert_eq!(value("attrs", DataType::Jsonb, &map), text(r#"{"j": 2, "k": 3}"#));
    assert_eq!(value("$.attrs.k", DataType::Int, &bytes(22, &bytes(1, b"k"))), text("0"));
    let items = |inside: &[u8]| bytes(23, &[number(1, 9), bytes(2, inside)].concat());
    let twice = [items(&ann), items(&number(2, 6))].concat();
    assert_eq!(value("$.byId['9'].name", DataType::Text, &twice), text(""), "nothing of the first shines through");
    assert_eq!(value("$.byId['9'].count", DataType::Int, &twice), text("3"));
    assert_eq!(value("$.byId['9'].tags", DataType::Jsonb, &twice), text("[]"));
    assert_eq!(
        value("$.flags.true", DataType::Text, &bytes(24, &[number(1, 1), number(2, 1)].concat())),
        text("PLACED")
    );

    // Packed, not packed and both: readers take all of them, whatever the .proto says.
    let ints = DataType::Array(Box::new(DataType::Int));
    let packed = bytes(18, &[varint(7), varint(300)].concat());
    let mixed = [packed, number(18, 9), bytes(18, &[])].concat();
    assert_eq!(value("counts", ints.clone(), &mixed), text("[7,300,9]"));
    assert_eq!(value("$.counts[2]", DataType::Int, &mixed), text("9"));
    assert_eq!(value("counts", DataType::Jsonb, &mixed), text("[7, 300, 9]"));
    assert!(value("counts", ints, &bytes(18, &[0x80])).is_err());
    let texts = DataType::Array(Box::new(DataType::Text));
    assert_eq!(value("path", texts.clone(), &bytes(20, &[1, 7, 5])), text("[PLACED,DELIVERED,5]"));
    assert_eq!(value("items", texts, &bytes(26, &number(2, 2))), text(r#"[{"name":"","count":1,"tags":[]}]"#));
    assert!(value("items", DataType::Array(Box::new(DataType::Int)), &bytes(26, b"")).is_err());
    assert!(value("item", DataType::BigInt, &bytes(25, b"")).unwrap_err().contains("a message is of another type"));
}

#[test]
fn messages_that_mean_one_value() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    let at = |seconds: i64, nanos: u64| bytes(30, &[number(1, seconds as u64), number(2, nanos)].concat());
    assert_eq!(value("at", DataType::TimestampTz, &at(-1, 1_500)), text("-999998"));
    assert_eq!(value("at", DataType::Text, &at(1_709_208_000, 5_000_000)), text("2024-02-29T12:00:00.005Z"));
    assert_eq!(value("at", DataType::Jsonb, &at(0, 0)), text("\"1970-01-01T00:00:00Z\""));
    assert_eq!(value("at.seconds", DataType::BigInt, &at(9, 1)), text("9"));
    assert!(value("at", DataType::TimestampTz, &at(i64::MAX, 0)).is_err());
    assert!(value("at", DataType::TimestampTz, &at(0, 1_000_000_000)).is_err());
    let times = [bytes(39, &number(1, 1)), bytes(39, &[])].concat();
    assert_eq!(value("times", DataType::Array(Box::new(DataType::TimestampTz)), &times), text("[1000000,0]"));
    let took = |seconds: i64, nanos: i64| bytes(31, &[number(1, seconds as u64), number(2, nanos as u64)].concat());
    assert_eq!(value("took", DataType::Text, &took(-1, -500_000_000)), text("-1.500s"));
    assert_eq!(value("took", DataType::Text, &took(3, 0)), text("3s"));
    assert!(
        value("took", DataType::Text, &took(1, -1)).is_err()
            && value("took", DataType::Text, &took(i64::MIN, 0)).is_err()
    );
    assert_eq!(value("wrapped", DataType::BigInt, &bytes(35, &number(1, 9))), text("9"));
    assert_eq!(value("wrapped", DataType::BigInt, &bytes(35, b"")), text("0"));
    assert_eq!(value("text", DataType::Text, &bytes(36, &bytes(1, b"x"))), text("x"));
    let price = |scale: u64, digits: &[u8]| bytes(38, &[bytes(1, digits), number(3, scale)].concat());
    assert_eq!(value("price", DataType::Numeric { precision: 9, scale: 2 }, &price(2, &[0x04, 0xd2])), text("1234"));
    assert!(value("price", DataType::Numeric { precision: 9, scale: 1 }, &price(2, &[0x04, 0xd2])).is_err());
    assert!(value("price", DataType::Text, &price(u64::MAX, &[1])).is_err());
    let field = |name: &str, inside: Vec<u8>| bytes(1, &[bytes(1, name.as_bytes()), bytes(2, &inside)].concat());
    let list = bytes(6, &[bytes(1, &number(1, 0)), bytes(1, &number(4, 1))].concat());
    let doc = [field("a", bytes(3, b"x")), field("b", list), field("c", vec![])].concat();
    assert_eq!(value("doc", DataType::Jsonb, &bytes(32, &doc)), text(r#"{"a": "x", "b": [null, true], "c": null}"#));
    assert_eq!(
        value("any", DataType::Jsonb, &bytes(33, &bytes(5, &doc))),
        text(r#"{"a": "x", "b": [null, true], "c": null}"#)
    );
}

#[test]
fn proto2_has_groups_and_presence() {
    let proto = "syntax = \"proto2\"; message M { required int32 a = 1; optional int32 b = 2 [default = 5];
        repeated group Part = 3 { optional string name = 1; } optional group Other = 4 { optional M m = 1; } repeated int32 c = 5; }";
    let columns = [
        SourceColumn::new("a", DataType::Int, true),
        SourceColumn::new("b", DataType::Int, true),
        path("first", "$.part[0].name", DataType::Text),
        path("parts", "part", DataType::Jsonb),
        path("deep", "other.m.a", DataType::Int),
        path("c", "c", DataType::Jsonb),
    ];
    let row = |bytes: &[u8]| {
        let row = one(&format(proto, Some("M")), &columns, bytes)?;
        Ok::<_, String>(row.into_iter().map(|value| value.unwrap_or("NULL".into())).collect::<Vec<_>>())
    };
    assert_eq!(row(b"").unwrap(), ["NULL", "NULL", "NULL", "[]", "NULL", "[]"]);
    let group = |number: u32, inside: &[u8]| [tag(number, 3), inside.to_vec(), tag(number, 4)].concat();
    let full = [
        number(1, 1),
        group(3, &bytes(1, b"x")),
        group(9, &[number(1, 3), group(9, b"")].concat()),
        group(3, b""),
        group(4, &bytes(1, &number(1, 8))),
        number(5, 4),
    ]
    .concat();
    assert_eq!(row(&full).unwrap(), ["1", "NULL", "x", r#"[{"name": "x"}, {}]"#, "8", "[4]"]);
    assert!(row(&tag(9, 4)).unwrap_err().contains("ends a group that did not begin"));
    assert!(row(&[tag(9, 3), tag(8, 4)].concat()).is_err());
    assert!(row(&tag(9, 3).repeat(100_000)).unwrap_err().contains("nested deeper"));
    for wire in [6, 7] {
        assert!(row(&[9 << 3 | wire]).unwrap_err().contains("unknown wire type"));
    }
    assert!(row(&[0]).unwrap_err().contains("tag of no field"));
    assert!(row(&bytes(9, &[])[..1]).is_err());
    assert!(row(&[tag(9, 2), varint(u64::MAX)].concat()).unwrap_err().contains("bytes are wanted"));
}

#[test]
fn depth_and_size_are_bounded() {
    let whole = [path("all", "$", DataType::Jsonb)];
    let mut nested = Vec::new();
    for _ in 0..1000 {
        nested = bytes(4, &nested);
    }
    let reason = one(&format(PROTO, Some("shop.Item")), &whole, &nested).unwrap_err();
    assert!(reason.contains("nested deeper than 100 levels"), "{reason}");
    let many = bytes(26, b"").repeat(2_000_000);
    let reason = one(&orders(), &whole, &many).unwrap_err();
    assert!(reason.contains("has more than 1048576"), "{reason}");
    let reason = value("items", DataType::Jsonb, &many).unwrap_err();
    assert!(reason.contains("has more than 1048576"), "{reason}");
    assert_eq!(value("id", DataType::BigInt, &many), Ok(Some("0".into())), "what is not wanted is not kept");
}

#[test]
fn schemas_and_columns_must_fit() {
    let columns = [SourceColumn::new("id", DataType::BigInt, true)];
    let refused = |format: &Format, columns: &[SourceColumn]| match decoder(format, columns) {
        Ok(_) => panic!("{format:?}"),
        Err(error) => format!("{error}"),
    };
    let missing = [SourceColumn::new("nothing", DataType::BigInt, true)];
    assert!(refused(&orders(), &missing).contains("column \"nothing\" is not in the Protobuf message shop.Order"));
    assert!(refused(&format(PROTO, None), &columns).contains("needs the option 'message'"));
    assert!(refused(&format(PROTO, Some("shop.Orders")), &columns).contains("no message 'shop.Orders'"));
    assert!(refused(&format("message {", None), &columns).contains("cannot be used"));
    assert!(refused(&format("/no/such.pb", None), &columns).contains("file '/no/such.pb' cannot be read"));
    assert!(refused(&format("base64:AAAA", None), &columns).contains("cannot be used"));
    assert!(decoder(&format("syntax = \"proto3\"; message M { int64 id = 1; message N {} }", None), &columns).is_ok());
}

/// A source keeps the schema that its file had when it was made.
#[test]
fn files_are_settled() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner.proto");
    std::fs::write(&inner, "syntax = \"proto3\"; package p; message Inner { int64 id = 1; }").unwrap();
    let outer = folder.path().join("outer.proto");
    std::fs::write(&outer, "syntax = \"proto3\"; import \"inner.proto\"; message Outer { p.Inner inner = 1; }")
        .unwrap();
    let set = folder.path().join("outer.pb");
    let pool = super::compile_file(&outer).unwrap().parent_pool().clone();
    std::fs::write(&set, pool.encode_to_vec()).unwrap();
    let columns = [path("id", "inner.id", DataType::BigInt)];
    let message = bytes(1, &number(1, 7));
    for file in [&outer, &set] {
        let file = file.to_str().unwrap().to_owned();
        assert_eq!(one(&format(&file, Some("Outer")), &columns, &message), Ok(vec![Some("7".into())]), "{file}");
        let mut options: std::collections::BTreeMap<_, _> =
            [("format".into(), "protobuf".into()), ("schema".into(), file)].into();
        settle_schema(&mut options);
        let settled = Format::take(&mut options).unwrap();
        assert!(
            matches!(&settled, Format::Protobuf { schema: SchemaSource::Given { schema, .. }, .. } if schema.starts_with("base64:"))
        );
        assert_eq!(one(&settled, &columns, &message), Ok(vec![Some("7".into())]), "the only message of its own file");
    }
    let avsc = folder.path().join("r.avsc");
    std::fs::write(&avsc, "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"id\",\"type\":\"long\"}]}")
        .unwrap();
    let mut options: std::collections::BTreeMap<_, _> =
        [("format".into(), "avro".into()), ("schema".into(), avsc.to_str().unwrap().into())].into();
    settle_schema(&mut options);
    std::fs::remove_file(&avsc).unwrap();
    let id = [SourceColumn::new("id", DataType::BigInt, true)];
    assert_eq!(one(&Format::take(&mut options).unwrap(), &id, &[14]), Ok(vec![Some("7".into())]));
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

fn scalar(kind: &Kind, random: &mut Rng, depth: u32) -> Value {
    let wide = |random: &mut Rng| match random.below(3) {
        0 => random.below(5),
        1 => random.0,
        _ => u64::MAX - random.below(3),
    };
    match kind {
        Kind::Double => Value::F64(random.below(1 << 30) as f64 / 64.0 - 1e6),
        Kind::Float => Value::F32(random.below(1 << 20) as f32 / 64.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(wide(random) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(wide(random) as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(wide(random) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(wide(random)),
        Kind::Bool => Value::Bool(random.below(2) == 1),
        Kind::String => {
            Value::String((0..random.below(5)).map(|_| ['a', 'ß', '"', '\n'][random.below(4) as usize]).collect())
        }
        Kind::Bytes => Value::Bytes((0..random.below(5)).map(|_| random.below(256) as u8).collect::<Vec<_>>().into()),
        Kind::Enum(_) => Value::EnumNumber([0, 1, 7, 5, -1][random.below(5) as usize]),
        Kind::Message(message) => Value::Message(dynamic(message, random, depth + 1)),
    }
}

fn dynamic(descriptor: &MessageDescriptor, random: &mut Rng, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let known = descriptor.full_name().starts_with("google.protobuf.") || descriptor.package_name() == "confluent.type";
    for field in descriptor.fields() {
        // What means one value has its own tests; deeper messages get rarer.
        if known || random.below(3 + u64::from(depth) * 6) > 1 {
            continue;
        }
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { panic!("a map's entry is a message") };
            let mut map = HashMap::new();
            for _ in 0..random.below(4) {
                let key = match scalar(&entry.map_entry_key_field().kind(), random, depth) {
                    Value::Bool(key) => MapKey::Bool(key),
                    Value::I32(key) => MapKey::I32(key),
                    Value::String(key) => MapKey::String(key),
                    other => panic!("{other:?} is no key here"),
                };
                map.insert(key, scalar(&entry.map_entry_value_field().kind(), random, depth));
            }
            message.set_field(&field, Value::Map(map));
        } else if field.is_list() {
            let list = (0..random.below(4)).map(|_| scalar(&field.kind(), random, depth)).collect();
            message.set_field(&field, Value::List(list));
        } else {
            message.set_field(&field, scalar(&field.kind(), random, depth));
        }
    }
    message
}

/// The plain twin: the JSON of a dynamic message.
fn json_of(message: &DynamicMessage) -> Json {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => return json!("1970-01-01T00:00:00Z"),
        "google.protobuf.Duration" => return json!("0s"),
        "google.protobuf.Struct" => return json!({}),
        "google.protobuf.Value" => return Json::Null,
        "google.protobuf.ListValue" => return json!([]),
        "google.protobuf.Int64Value" | "confluent.type.Decimal" => return json!(0),
        "google.protobuf.StringValue" => return json!(""),
        "google.protobuf.BoolValue" => return json!(false),
        _ => {}
    }
    let mut members = Map::new();
    for field in message.descriptor().fields() {
        if message.has_field(&field) || !field.supports_presence() {
            members.insert(field.name().to_owned(), json_of_value(&field, &message.get_field(&field)));
        }
    }
    Json::Object(members)
}

fn json_of_value(field: &FieldDescriptor, value: &Value) -> Json {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::I64(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::U64(value) => json!(value),
        Value::F32(value) if value.fract() == 0.0 => json!(*value as i64),
        // The fewest digits that are this float, not those of the double beside it.
        Value::F32(value) => json!(value.to_string().parse::<f64>().unwrap()),
        Value::F64(value) if value.fract() == 0.0 => json!(*value as i64),
        Value::F64(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(STANDARD.encode(value)),
        Value::EnumNumber(number) => {
            let kind = match field.kind() {
                Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                kind => kind,
            };
            let words = kind.as_enum().expect("an enum").clone();
            words.get_value(*number).map_or(json!(number), |word| json!(word.name()))
        }
        Value::Message(message) => json_of(message),
        Value::List(values) => values.iter().map(|value| json_of_value(field, value)).collect(),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, value)| {
                    let key = match key {
                        MapKey::Bool(key) => key.to_string(),
                        MapKey::I32(key) => key.to_string(),
                        MapKey::String(key) => key.clone(),
                        other => panic!("{other:?} is no key here"),
                    };
                    (key, json_of_value(field, value))
                })
                .collect(),
        ),
    }
}

fn jsonb(json: &Json) -> Option<String> {
    let mut out = String::new();
    canonical(&json.to_string(), &mut out).map(|()| Some(out)).unwrap()
}

fn decode(format: &Format, columns: &[SourceColumn], messages: &[Vec<u8>]) -> Decoded {
    let batch = batch(messages.iter().map(|message| Some(message.as_slice())));
    let decoded = decoder(format, columns).unwrap().decode(&batch).unwrap();
    assert_sound(&decoded, &batch, columns);
    decoded
}

/// Every field as JSONB, and the whole.
fn all_columns(descriptor: &MessageDescriptor) -> Vec<SourceColumn> {
    let fields = descriptor.fields().map(|field| SourceColumn::new(field.name(), DataType::Jsonb, true));
    fields.chain([path("all", "$", DataType::Jsonb)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_its_twin(seeds in prop::collection::vec(1u64.., 1..4)) {
        let descriptor = order();
        let columns = all_columns(&descriptor);
        // Two messages end to end are the two merged.
        let mut merged = DynamicMessage::new(descriptor.clone());
        let mut messages = Vec::new();
        let mut wanted = Vec::new();
        let mut end_to_end = Vec::new();
        for seed in seeds {
            let message = dynamic(&descriptor, &mut Rng(seed), 0);
            let bytes = message.encode_to_vec();
            end_to_end.extend_from_slice(&bytes);
            merged.merge(bytes.as_slice()).unwrap();
            messages.push(bytes);
            wanted.push(message);
        }
        messages.push(end_to_end);
        wanted.push(merged);
        let decoded = decode(&orders(), &columns, &messages);
        prop_assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        for (row, message) in wanted.iter().enumerate() {
            for (field, found) in descriptor.fields().zip(decoded.rows.columns()) {
                let is_there = message.has_field(&field) || !field.supports_presence();
                let wanted = is_there.then(|| json_of_value(&field, &message.get_field(&field)));
                prop_assert_eq!(cell(found, row), wanted.and_then(|json| jsonb(&json)), "{}", field.name());
            }
            let all = decoded.rows.columns().last().unwrap();
            prop_assert_eq!(cell(all, row), jsonb(&json_of(message)));
        }
    }

    #[test]
    fn typed_columns_agree_with_json(seed in 1u64..) {
        let descriptor = order();
        let message = dynamic(&descriptor, &mut Rng(seed), 0).encode_to_vec();
        let array = |item| DataType::Array(Box::new(item));
        for (at, data_type) in [
            ("id", DataType::BigInt), ("small", DataType::Int), ("huge", DataType::Text), ("s", DataType::BigInt),
            ("sf32", DataType::Int), ("ok", DataType::Boolean), ("maybe", DataType::Int), ("$.counts[1]", DataType::Int),
            ("counts", array(DataType::Int)), ("item.count", DataType::Int), ("$.items[1].count", DataType::Int),
            ("item.inner.count", DataType::Int), ("cash", DataType::Int), ("other.count", DataType::Int),
            ("$.byId['1'].count", DataType::Int), ("$.attrs.a", DataType::BigInt),
        ] {
            let typed = value(at, data_type, &message).unwrap();
            let json = value(at, DataType::Jsonb, &message).unwrap();
            prop_assert_eq!(typed, json.map(|json| json.replace(", ", ",")), "{}", at);
        }
    }

    #[test]
    fn whatever_is_cut_or_changed_is_a_row_or_a_reject(
        seed in 1u64..,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let descriptor = order();
        let message = dynamic(&descriptor, &mut Rng(seed), 0).encode_to_vec();
        let mut messages: Vec<_> = (0..message.len()).map(|end| message[..end].to_vec()).collect();
        let mut changed = message;
        for (at, byte) in edits {
            if !changed.is_empty() {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            messages.push(changed.clone());
        }
        let columns = all_columns(&descriptor);
        let decoded = decode(&orders(), &columns, &messages);
        // Where the twin reads a message, it means the same here; what it reads by cutting numbers off is refused here.
        let pool = DescriptorPool::clone(descriptor.parent_pool());
        prop_assert!(pool.get_message_by_name("shop.Order").is_some());
        for (row, offset) in decoded.row_offsets.iter().enumerate() {
            let bytes = &messages[(*offset as usize - 10) / 2];
            if let Ok(twin) = DynamicMessage::decode(descriptor.clone(), bytes.as_slice()) {
                let id = cell(&decoded.rows.columns()[0], row);
                let wanted = twin.get_field_by_name("id").and_then(|id| id.as_i64());
                prop_assert_eq!(id, wanted.map(|id| id.to_string()));
            }
        }
    }
}
