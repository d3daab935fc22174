//! What Avro data become, against data written by arrow-avro and by a writer of a few lines.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
        Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    },
    compute::cast,
    datatypes::{Field, Schema as ArrowSchema},
};
use arrow_avro::{
    schema::SCHEMA_METADATA_KEY,
    writer::{WriterBuilder, format::AvroBinaryFormat},
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tidemill_storage::schema::DataType;

use crate::decode::{
    Decoded, EpochUnit, Format, SchemaSource, SourceColumn, decoder,
    json::jsonb::canonical,
    parse_path,
    tests::{assert_sound, batch, cell, one},
};

fn format(schema: &str) -> Format {
    let schema = SchemaSource::Given { schema: schema.to_owned(), message: None };
    Format::Avro { schema, epoch: EpochUnit::ByMagnitude }
}

fn column(name: &str, data_type: DataType) -> SourceColumn {
    SourceColumn::new(name, data_type, true)
}

/// The column `v` of a record of one field, written as `bytes`.
fn value(schema: &str, data_type: DataType, bytes: &[u8]) -> Result<Option<String>, String> {
    let schema = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"v","type":{schema}}}]}}"#);
    one(&format(&schema), &[column("v", data_type)], bytes).map(|row| row[0].clone())
}

fn zigzag(value: i64) -> Vec<u8> {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    [zigzag(text.len() as i64), text.to_vec()].concat()
}

#[test]
fn numbers_are_exact_or_refused() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    let long = |data_type, number| value("\"long\"", data_type, &zigzag(number));
    assert_eq!(long(DataType::BigInt, i64::MIN), text("-9223372036854775808"));
    assert_eq!(long(DataType::Int, 2_147_483_647), text("2147483647"));
    assert!(
        long(DataType::Int, 2_147_483_648).unwrap_err().contains("column \"v\" (integer): 2147483648 is out of range")
    );
    assert_eq!(long(DataType::SmallInt, -32768), text("-32768"));
    assert!(long(DataType::SmallInt, 32768).is_err());
    assert_eq!(long(DataType::Double, 1 << 53), text("9007199254740992.0"));
    assert!(long(DataType::Double, (1 << 53) + 1).unwrap_err().contains("would be rounded"));
    assert!(long(DataType::Double, i64::MAX).is_err());
    assert_eq!(long(DataType::Real, 1 << 24), text("16777216.0"));
    assert!(long(DataType::Real, (1 << 24) + 1).is_err());
    assert_eq!(long(DataType::Numeric { precision: 10, scale: 2 }, 12_345_678), text("1234567800"));
    assert!(long(DataType::Numeric { precision: 9, scale: 2 }, 12_345_678).is_err());
    assert_eq!(long(DataType::Text, -5), text("-5"));
    assert_eq!(long(DataType::TimestampTz, 1_709_208_000_123), text("1709208000123000"));
    assert!(
        long(DataType::Boolean, 1).is_err() && long(DataType::Date, 1).is_err() && long(DataType::Uuid, 1).is_err()
    );
    assert!(value("\"int\"", DataType::BigInt, &zigzag(1 << 40)).unwrap_err().contains("is no int"));

    let double = |data_type, number: f64| value("\"double\"", data_type, &number.to_le_bytes());
    assert_eq!(double(DataType::Double, 0.1), text("0.1"));
    assert!(double(DataType::Real, 0.1).unwrap_err().contains("would be rounded"));
    assert_eq!(double(DataType::Real, 0.5), text("0.5"));
    assert_eq!(double(DataType::Real, f64::NAN), text("NaN"));
    assert_eq!(double(DataType::Numeric { precision: 4, scale: 2 }, 0.1), text("10"));
    assert!(double(DataType::Numeric { precision: 4, scale: 2 }, 0.125).unwrap_err().contains("would be lost"));
    assert!(double(DataType::Numeric { precision: 4, scale: 2 }, f64::NAN).is_err());
    assert_eq!(double(DataType::BigInt, -3.0), text("-3"));
    assert!(double(DataType::BigInt, 3.5).is_err() && double(DataType::BigInt, 1e19).is_err());
    assert!(double(DataType::BigInt, f64::INFINITY).is_err() && double(DataType::BigInt, f64::NAN).is_err());
    assert_eq!(double(DataType::Jsonb, 1e21), text("1000000000000000000000"));
    assert_eq!(double(DataType::Jsonb, f64::NAN), text("\"NaN\""));
    let float = |data_type, number: f32| value("\"float\"", data_type, &number.to_le_bytes());
    assert_eq!(float(DataType::Real, 0.1), text("0.1"));
    assert_eq!(float(DataType::Double, 0.5), text("0.5"));
    assert_eq!(float(DataType::Numeric { precision: 4, scale: 2 }, 0.1), text("10"));
}

#[test]
fn logical_types_keep_their_meaning() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    let logical = |base: &str, name: &str| format!(r#"{{"type":"{base}","logicalType":"{name}"}}"#);
    let date = logical("int", "date");
    assert_eq!(value(&date, DataType::Date, &zigzag(-1)), text("-1"));
    assert_eq!(value(&date, DataType::Text, &zigzag(19782)), text("2024-02-29"));
    assert_eq!(value(&date, DataType::Timestamp, &zigzag(1)), text("86400000000"));
    assert_eq!(value(&date, DataType::Int, &zigzag(7)), text("7"));
    assert!(value(&date, DataType::Date, &zigzag(i32::MAX.into())).is_err());
    for (name, unit) in [("timestamp-millis", 1000), ("timestamp-micros", 1), ("local-timestamp-millis", 1000)] {
        let stamp = logical("long", name);
        assert_eq!(value(&stamp, DataType::TimestampTz, &zigzag(-5)), text(&(-5 * unit).to_string()), "{name}");
        assert_eq!(value(&stamp, DataType::BigInt, &zigzag(-5)), text("-5"), "{name}");
        assert!(value(&stamp, DataType::Date, &zigzag(5)).is_err(), "its time would be lost");
        assert!(value(&stamp, DataType::TimestampTz, &zigzag(i64::MAX)).is_err(), "{name}");
    }
    assert_eq!(value(&logical("long", "timestamp-nanos"), DataType::Timestamp, &zigzag(1500)), text("2"));
    let millis = logical("int", "time-millis");
    assert_eq!(value(&millis, DataType::Text, &zigzag(45_296_001)), text("12:34:56.001"));
    assert_eq!(value(&millis, DataType::Int, &zigzag(45_296_001)), text("45296001"));
    assert!(value(&millis, DataType::Timestamp, &zigzag(0)).is_err());
    assert_eq!(value(&logical("long", "time-micros"), DataType::Jsonb, &zigzag(1)), text("\"00:00:00.000001\""));

    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":30,"scale":3}"#;
    let numeric = |precision, scale| DataType::Numeric { precision, scale };
    assert_eq!(value(decimal, numeric(10, 3), &string(&[0xff, 0x85])), text("-123"));
    assert_eq!(value(decimal, numeric(10, 5), &string(&[0xff, 0x85])), text("-12300"));
    assert!(value(decimal, numeric(10, 2), &string(&[0xff, 0x85])).unwrap_err().contains("-0.123 has digits after"));
    assert_eq!(value(decimal, DataType::BigInt, &string(&2000i32.to_be_bytes())), text("2"));
    assert_eq!(value(decimal, DataType::Double, &string(&[123])), text("0.123"));
    assert_eq!(value(decimal, DataType::Text, &string(&[123])), text("0.123"));
    assert_eq!(value(decimal, DataType::Jsonb, &string(&[123])), text("0.123"));
    assert!(
        value(decimal, numeric(10, 3), &string(&[])).is_err()
            && value(decimal, numeric(38, 3), &string(&[1; 17])).is_err()
    );
    let fixed = r#"{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":9,"scale":2}"#;
    assert_eq!(value(fixed, numeric(9, 2), &[0xff, 0xff, 0xff, 0xfe]), text("-2"));

    let uuid = "0123abcd-4567-89ab-cdef-0123456789ab";
    let bytes = *uuid::Uuid::parse_str(uuid).unwrap().as_bytes();
    assert_eq!(value(&logical("string", "uuid"), DataType::Uuid, &string(uuid.to_uppercase().as_bytes())), text(uuid));
    assert!(value(&logical("string", "uuid"), DataType::Uuid, &string(b"none")).is_err());
    let fixed = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
    assert_eq!(value(fixed, DataType::Uuid, &bytes), text(uuid));
    assert_eq!(value(fixed, DataType::Text, &bytes), text(uuid));
    assert_eq!(value("\"bytes\"", DataType::Uuid, &string(&bytes)), text(uuid));
    assert!(value("\"bytes\"", DataType::Uuid, &string(&bytes[1..])).is_err());
    assert_eq!(value("\"bytes\"", DataType::Bytea, &string(&[0, 255])), text("[00, ff]"));
    assert!(value("\"bytes\"", DataType::Text, &string(b"text")).is_err(), "bytes are no text");
    assert_eq!(value("\"bytes\"", DataType::Jsonb, &string(b"abc")), text("\"YWJj\""));
    let word = r#"{"type":"enum","name":"E","symbols":["LOW","HIGH"]}"#;
    assert_eq!(value(word, DataType::Text, &zigzag(1)), text("HIGH"));
    assert!(value(word, DataType::Text, &zigzag(2)).unwrap_err().contains("2 is none of the 2 symbols"));
    assert_eq!(value("\"boolean\"", DataType::Boolean, &[1]), text("true"));
    assert!(value("\"boolean\"", DataType::Boolean, &[2]).unwrap_err().contains("2 is no boolean"));
    assert!(value("\"string\"", DataType::Text, &string(b"\xff")).unwrap_err().contains("not valid UTF-8"));
    assert!(value("\"string\"", DataType::Text, &string(b"a\0")).unwrap_err().contains("NUL"));
}

#[test]
fn unions_arrays_maps_and_records() {
    let text = |value: &str| Ok(Some(value.to_owned()));
    let optional = r#"["null","long"]"#;
    assert_eq!(value(optional, DataType::BigInt, &[0]), Ok(None));
    assert_eq!(value(optional, DataType::BigInt, &[2, 14]), text("7"));
    assert!(value(optional, DataType::BigInt, &[4, 14]).unwrap_err().contains("2 is none of the 2 branches"));
    let several = r#"["long","string","null",{"type":"array","items":"int"}]"#;
    assert_eq!(value(several, DataType::Text, &[0, 14]), text("7"));
    assert_eq!(value(several, DataType::Text, &[2, 2, b'x']), text("x"));
    assert_eq!(value(several, DataType::Text, &[6, 2, 14, 0]), text("[7]"));
    assert_eq!(value(several, DataType::BigInt, &[2, 2, b'7']), text("7"));
    assert!(value(several, DataType::BigInt, &[2, 2, b'x']).is_err());

    let ints = DataType::Array(Box::new(DataType::Int));
    let longs = r#"{"type":"array","items":["null","long"]}"#;
    assert_eq!(value(longs, ints.clone(), &[4, 0, 2, 14, 2, 2, 16, 0]), text("[NULL,7,8]"));
    // A block whose length in bytes is told.
    assert_eq!(value(longs, ints.clone(), &[3, 6, 2, 14, 0, 0]), text("[7,NULL]"));
    assert_eq!(value(longs, ints.clone(), &[0]), text("[]"));
    assert!(value(longs, ints.clone(), &[&[4, 2, 14, 2][..], &zigzag(1 << 40), &[0]].concat()).is_err());
    let nested = r#"{"type":"array","items":{"type":"array","items":"int"}}"#;
    assert!(value(nested, ints, &[2, 2, 14, 0, 0]).unwrap_err().contains("array inside an array"));
    assert_eq!(value(nested, DataType::Jsonb, &[2, 2, 14, 0, 0]), text("[[7]]"));
    let texts = DataType::Array(Box::new(DataType::Text));
    assert_eq!(value(nested, texts, &[2, 2, 14, 0, 0]), text("[[7]]"));
    let map = r#"{"type":"map","values":"int"}"#;
    assert_eq!(value(map, DataType::Jsonb, &[4, 2, b'b', 2, 2, b'a', 4, 0]), text("{\"a\": 2, \"b\": 1}"));
    assert_eq!(value(map, DataType::Jsonb, &[4, 2, b'b', 2, 2, b'b', 4, 0]), text("{\"b\": 2}"));
    assert!(value(map, DataType::BigInt, &[0]).unwrap_err().contains("a map is of another type"));

    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"who","type":["null",{"type":"record","name":"W","fields":[{"name":"login","type":"string"},{"name":"age","type":"int"}]}]},
        {"name":"items","type":{"type":"array","items":"W"}},
        {"name":"attrs","type":{"type":"map","values":"W"}}]}"#;
    let path = |name: &str, text: &str, data_type| column(name, data_type).with_path(parse_path(text).unwrap());
    let columns = [
        path("login", "who.login", DataType::Text),
        path("second", "$.items[1].age", DataType::Int),
        path("key", "$.attrs.k.age", DataType::Int),
        path("all", "$", DataType::Jsonb),
        path("who", "who", DataType::Jsonb),
        path("attrs", "attrs", DataType::Text),
    ];
    let ann = [&[6][..], b"ann", &[2]].concat();
    let bob = [&[6][..], b"bob", &[4]].concat();
    let full = [&[2][..], &ann, &[4], &ann, &bob, &[0, 4, 2, b'k'], &ann, &[2, b'k'], &bob, &[0]].concat();
    let row = one(&format(schema), &columns, &full).unwrap();
    let row: Vec<_> = row.iter().map(|value| value.as_deref().unwrap()).collect();
    assert_eq!(row[..3], ["ann", "2", "2"]);
    assert_eq!(row[4], r#"{"age": 1, "login": "ann"}"#);
    assert_eq!(row[5], r#"{"k":{"login":"ann","age":1},"k":{"login":"bob","age":2}}"#);
    assert!(row[3].contains(r#""attrs": {"k": {"age": 2, "login": "bob"}}"#), "{}", row[3]);
    let empty = one(&format(schema), &columns, &[0, 0, 0]).unwrap();
    assert_eq!(empty[..3], [None, None, None]);
    assert_eq!(empty[4..], [None, Some("{}".to_owned())]);
    let strict = [SourceColumn::new("login", DataType::Text, false).with_path(parse_path("who.login").unwrap())];
    let reason = one(&format(schema), &strict, &[0, 0, 0]).unwrap_err();
    assert_eq!(reason, "column \"login\" is NOT NULL and the message has null at $.who.login");
}

#[test]
fn schemas_and_columns_must_fit() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"}]}"#;
    for (schema, name, what) in [
        (schema, "c", "column \"c\" is not in the Avro schema: it has no $.c"),
        ("{\"type\":\"record\"}", "a", "cannot be used"),
        ("{", "a", "is not JSON"),
        ("/no/such/file.avsc", "a", "file '/no/such/file.avsc' cannot be read"),
    ] {
        let Err(error) = decoder(&format(schema), &[column(name, DataType::Int)]) else { panic!("{schema}") };
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(decoder(&format("\"string\""), &[column("a", DataType::Text).with_path(vec![])]).is_ok());
}

/// A schema of a few lines makes a message of a few bytes cost hours, gigabytes or the stack, unless all of it is counted.
#[test]
fn hostile_data_and_schemas_are_refused() {
    let whole = [column("all", DataType::Jsonb).with_path(vec![])];
    let reason = |schema: &str, bytes: &[u8]| one(&format(schema), &whole, bytes).unwrap_err();
    let endless = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#;
    assert!(reason(endless, b"").contains("nested deeper"));
    let deep = r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#;
    assert!(reason(deep, &[2; 10_000]).contains("nested deeper"));
    let wide: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"type":"record","name":"R{n}","fields":[{{"name":"a","type":"R{}"}},{{"name":"b","type":"R{}"}}]}}"#, n + 1, n + 1))
        .collect();
    let mut laughs = r#"{"type":"record","name":"R40","fields":[]}"#.to_owned();
    for level in wide.iter().rev() {
        let at = level.find("\"type\":\"R").expect("its first use") + 7;
        let end = at + level[at + 1..].find('"').expect("its end") + 2;
        laughs = format!("{}{laughs}{}", &level[..at], &level[end..]);
    }
    assert!(reason(&laughs, b"").contains("more empty values"), "{}", reason(&laughs, b""));
    let nulls = r#"{"type":"array","items":"null"}"#;
    assert!(reason(nulls, &zigzag(i64::MAX)).contains("more empty values"));
    assert!(reason(nulls, &[&zigzag(i64::MIN)[..], &[0]].concat()).contains("more empty values"));
    assert!(one(&format(nulls), &whole, &[&zigzag(1000)[..], &[0]].concat()).is_ok());
    let strings = r#"{"type":"array","items":"string"}"#;
    assert!(reason(strings, &[&zigzag(1)[..], &zigzag(i64::MAX)].concat()).contains("bytes are wanted"));
    assert!(reason(strings, &[&zigzag(1)[..], &zigzag(-1)].concat()).contains("is negative"));
    assert!(reason(strings, &[&zigzag(-1)[..], &zigzag(i64::MAX)].concat()).contains("longer than the message"));
    assert!(reason(strings, &[0xff; 20]).contains("more than 64 bits"));
    let fixed = r#"{"type":"fixed","name":"F","size":18446744073709551615}"#;
    assert!(reason(fixed, &[1]).contains("bytes are wanted"));
    // Every item is a byte, and its name in JSON is a thousand.
    let named = format!(
        r#"{{"type":"array","items":{{"type":"record","name":"R","fields":[{{"name":"{}","type":"boolean"}}]}}}}"#,
        "n".repeat(1000)
    );
    let many = [&zigzag(100_000)[..], &[1; 100_000], &[0]].concat();
    assert!(reason(&named, &many).contains("too large"));
}

/// Rows as arrow-avro writes them.
fn written(schema: &str, arrays: Vec<(&str, ArrayRef)>) -> Vec<Vec<u8>> {
    let fields: Vec<_> = arrays
        .iter()
        .map(|(name, array)| {
            Field::new(*name, array.data_type().clone(), array.null_count() > 0 || name.starts_with('o'))
        })
        .collect();
    let metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_owned(), schema.to_owned())]);
    let schema = Arc::new(ArrowSchema::new_with_metadata(fields, metadata));
    let rows = RecordBatch::try_new(Arc::clone(&schema), arrays.into_iter().map(|(_, array)| array).collect()).unwrap();
    let mut encoder =
        WriterBuilder::new(schema.as_ref().clone()).build_encoder::<AvroBinaryFormat>().expect("an encoder");
    encoder.encode(&rows).expect("arrow-avro writes");
    encoder.flush().iter().map(|row| row.to_vec()).collect()
}

const WIDE: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"i","type":"int"},{"name":"l","type":"long"},{"name":"f","type":"float"},{"name":"d","type":"double"},
    {"name":"b","type":"boolean"},{"name":"s","type":"string"},{"name":"y","type":"bytes"},
    {"name":"n","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":4}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"us","type":{"type":"long","logicalType":"local-timestamp-micros"}},
    {"name":"os","type":["null","string"]},{"name":"ol","type":["null","long"]}]}"#;

fn wide_columns() -> Vec<SourceColumn> {
    let numeric = DataType::Numeric { precision: 38, scale: 4 };
    [
        ("i", DataType::Int),
        ("l", DataType::BigInt),
        ("f", DataType::Real),
        ("d", DataType::Double),
        ("b", DataType::Boolean),
        ("s", DataType::Text),
        ("y", DataType::Bytea),
        ("n", numeric),
        ("day", DataType::Date),
        ("ms", DataType::TimestampTz),
        ("us", DataType::Timestamp),
        ("os", DataType::Text),
        ("ol", DataType::BigInt),
    ]
    .into_iter()
    .map(|(name, data_type)| column(name, data_type))
    .collect()
}

type Wide = ((i32, i64, f32, f64, bool, String), (Vec<u8>, i128, i32, i64, i64, Option<String>, Option<i64>));

fn any_wide() -> impl Strategy<Value = Wide> {
    let day = -700_000..2_900_000;
    let instant = -62_135_596_800_000i64..253_402_300_800_000;
    (
        (any::<i32>(), any::<i64>(), any::<f32>(), any::<f64>(), any::<bool>(), "[^\0]{0,20}"),
        (
            prop::collection::vec(any::<u8>(), 0..20),
            -(10i128.pow(38) - 1)..10i128.pow(38),
            day,
            instant.clone(),
            instant,
            prop::option::of("[a-zäöü]{0,9}"),
            prop::option::of(any::<i64>()),
        ),
    )
}

fn wide(rows: &[Wide]) -> Vec<(&'static str, ArrayRef)> {
    let numbers = rows.iter().map(|row| row.1.1);
    vec![
        ("i", Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0.0)))),
        ("l", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.1)))),
        ("f", Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| row.0.2)))),
        ("d", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.0.3)))),
        ("b", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.0.4))))),
        ("s", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0.5)))),
        ("y", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.1.0)))),
        ("n", Arc::new(Decimal128Array::from_iter_values(numbers).with_precision_and_scale(38, 4).unwrap())),
        ("day", Arc::new(Date32Array::from_iter_values(rows.iter().map(|row| row.1.2)))),
        ("ms", {
            let array = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1.3));
            Arc::new(array.with_timezone("+00:00"))
        }),
        ("us", Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1.4 * 1000 + 7)))),
        ("os", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.5.as_ref())))),
        ("ol", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1.6)))),
    ]
}

fn decode(format: &Format, columns: &[SourceColumn], messages: &[Vec<u8>]) -> Decoded {
    let batch = batch(messages.iter().map(|message| Some(message.as_slice())));
    let decoded = decoder(format, columns).unwrap().decode(&batch).unwrap();
    assert_sound(&decoded, &batch, columns);
    decoded
}

/// A type of Avro, from which a schema, data and their JSON are made.
#[derive(Clone, Debug)]
enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Double,
    String,
    Bytes,
    Enum(usize),
    Array(Box<Kind>),
    Map(Box<Kind>),
    Union(Vec<Kind>),
    Record(Vec<Kind>),
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Null),
        Just(Kind::Boolean),
        Just(Kind::Int),
        Just(Kind::Long),
        Just(Kind::Double),
        Just(Kind::String),
        Just(Kind::Bytes),
        (1usize..4).prop_map(Kind::Enum),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|kind| Kind::Array(Box::new(kind))),
            inner.clone().prop_map(|kind| Kind::Map(Box::new(kind))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|kinds| {
                // No union stands directly in a union.
                Kind::Union(
                    kinds.into_iter().filter(|kind| !matches!(kind, Kind::Union(_))).chain([Kind::Null]).collect(),
                )
            }),
            prop::collection::vec(inner, 0..4).prop_map(Kind::Record),
        ]
    })
}

/// Its schema; named types are numbered.
fn schema_of(kind: &Kind, names: &mut u32) -> Json {
    *names += 1;
    let name = format!("T{names}");
    match kind {
        Kind::Null => json!("null"),
        Kind::Boolean => json!("boolean"),
        Kind::Int => json!({"type": "int"}),
        Kind::Long => json!("long"),
        Kind::Double => json!("double"),
        Kind::String => json!({"type": "string", "avro.java.string": "String"}),
        Kind::Bytes => json!("bytes"),
        Kind::Enum(count) => {
            json!({"type": "enum", "name": name, "symbols": (0..*count).map(|n| format!("S{n}")).collect::<Vec<_>>()})
        }
        Kind::Array(items) => json!({"type": "array", "items": schema_of(items, names)}),
        Kind::Map(values) => json!({"type": "map", "values": schema_of(values, names)}),
        Kind::Union(branches) => branches.iter().map(|branch| schema_of(branch, names)).collect(),
        Kind::Record(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .enumerate()
                .map(|(at, field)| json!({"name": format!("f{at}"), "type": schema_of(field, names)}))
                .collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
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

/// Writes a datum and returns its JSON.
fn datum_of(kind: &Kind, random: &mut Rng, out: &mut Vec<u8>) -> Json {
    match kind {
        Kind::Null => Json::Null,
        Kind::Boolean => {
            let value = random.below(2) == 1;
            out.push(value.into());
            json!(value)
        }
        Kind::Int => {
            let value = random.below(1 << 20) as i64 - (1 << 19);
            out.extend(zigzag(value));
            json!(value)
        }
        Kind::Long => {
            let value = (random.0 as i64).wrapping_mul(random.below(7) as i64);
            out.extend(zigzag(value));
            json!(value)
        }
        Kind::Double => {
            let value = random.below(1 << 30) as f64 / 64.0;
            out.extend(value.to_le_bytes());
            if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
        }
        Kind::String => {
            let value: String =
                (0..random.below(6)).map(|_| ['a', 'ß', '"', '\\', '\n'][random.below(5) as usize]).collect();
            out.extend(string(value.as_bytes()));
            json!(value)
        }
        Kind::Bytes => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let value: Vec<u8> = (0..random.below(6)).map(|_| random.below(256) as u8).collect();
            out.extend(string(&value));
            json!(STANDARD.encode(value))
        }
        Kind::Enum(count) => {
            let word = random.below(*count as u64);
            out.extend(zigzag(word as i64));
            json!(format!("S{word}"))
        }
        Kind::Array(items) => {
            let values = blocks(random, out, |random, out| datum_of(items, random, out));
            Json::Array(values)
        }
        Kind::Map(values) => {
            let mut at = 0;
            let members = blocks(random, out, |random, out| {
                at += 1;
                let key = format!("k{}", at % 3);
                out.extend(string(key.as_bytes()));
                (key, datum_of(values, random, out))
            });
            Json::Object(members.into_iter().collect())
        }
        Kind::Union(branches) => {
            let branch = random.below(branches.len() as u64) as usize;
            out.extend(zigzag(branch as i64));
            datum_of(&branches[branch], random, out)
        }
        Kind::Record(fields) => {
            let members = fields.iter().enumerate().map(|(at, field)| (format!("f{at}"), datum_of(field, random, out)));
            Json::Object(members.collect())
        }
    }
}

/// Up to four values in blocks of one or two, some of which tell their length.
fn blocks<T>(random: &mut Rng, out: &mut Vec<u8>, mut one: impl FnMut(&mut Rng, &mut Vec<u8>) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..random.below(3) {
        let count = 1 + random.below(2) as i64;
        let mut inside = Vec::new();
        all.extend((0..count).map(|_| one(random, &mut inside)));
        if random.below(2) == 1 {
            out.extend(zigzag(-count));
            out.extend(zigzag(inside.len() as i64));
        } else {
            out.extend(zigzag(count));
        }
        out.extend(inside);
    }
    out.extend(zigzag(0));
    all
}

fn jsonb(json: &Json) -> Option<String> {
    let mut out = String::new();
    (!json.is_null()).then(|| canonical(&json.to_string(), &mut out).map(|()| out).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_arrow_avro_writes_comes_back(rows in prop::collection::vec(any_wide(), 1..6)) {
        let arrays = wide(&rows);
        let columns = wide_columns();
        let messages = written(WIDE, arrays.clone());
        let decoded = decode(&format(WIDE), &columns, &messages);
        prop_assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        for ((found, (name, wanted)), column) in decoded.rows.columns().iter().zip(&arrays).zip(&columns) {
            let wanted = cast(wanted, &column.data_type.arrow()).unwrap();
            for row in 0..rows.len() {
                prop_assert_eq!(cell(found, row), cell(&wanted, row), "{}", name);
            }
        }
        // Some of the columns, in another order, and each alone in the message's place.
        let mut fewer: Vec<_> = columns.iter().step_by(3).cloned().collect();
        fewer.reverse();
        let some = decode(&format(WIDE), &fewer, &messages);
        for column in &fewer {
            prop_assert_eq!(some.rows.column_by_name(&column.name), decoded.rows.column_by_name(&column.name));
        }
    }

    #[test]
    fn whatever_ends_early_is_refused(row in any_wide(), garbage in prop::collection::vec(any::<u8>(), 1..4)) {
        let message = written(WIDE, wide(&[row])).remove(0);
        let mut messages: Vec<Vec<u8>> = (0..message.len()).map(|end| message[..end].to_vec()).collect();
        messages.push(message.clone());
        messages.push([message, garbage].concat());
        let decoded = decode(&format(WIDE), &wide_columns(), &messages);
        prop_assert_eq!(decoded.row_offsets, [10 + 2 * (messages.len() as u64 - 2)]);
    }

    #[test]
    fn nested_values_are_their_json(kind in any_kind(), seed in 1u64.., edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        let schema = schema_of(&kind, &mut 0).to_string();
        let mut message = Vec::new();
        let wanted = datum_of(&kind, &mut Rng(seed), &mut message);
        let whole = [column("all", DataType::Jsonb).with_path(vec![])];
        prop_assert_eq!(one(&format(&schema), &whole, &message), Ok(vec![jsonb(&wanted)]));
        // Each member by its path.
        if let (Kind::Record(fields), Json::Object(members)) = (&kind, &wanted) && !fields.is_empty() {
            let columns: Vec<_> = members.keys().map(|name| column(name, DataType::Jsonb)).collect();
            let found = one(&format(&schema), &columns, &message).unwrap();
            for (found, member) in found.iter().zip(members.values()) {
                prop_assert_eq!(found, &jsonb(member));
            }
        }
        for end in 0..message.len() {
            prop_assert!(one(&format(&schema), &whole, &message[..end]).is_err());
        }
        // Any other bytes are a row or a reject, and none of them is read twice as long.
        for (at, byte) in edits {
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
        }
        let typed: Vec<_> = [DataType::BigInt, DataType::Double, DataType::Text, DataType::Bytea, DataType::Boolean,
            DataType::Array(Box::new(DataType::Int)), DataType::Array(Box::new(DataType::Text)), DataType::TimestampTz]
            .into_iter().enumerate().map(|(at, data_type)| column(&format!("c{at}"), data_type).with_path(vec![])).collect();
        let messages = [message];
        decode(&format(&schema), &whole, &messages);
        for column in typed {
            decode(&format(&schema), &[column], &messages);
        }
    }

    #[test]
    fn any_bytes_are_rows_or_rejects(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        decode(&format(WIDE), &wide_columns(), &payloads);
    }
}
