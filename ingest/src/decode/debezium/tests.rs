//! What change events become: each op, both forms, every encoding, and whatever is none of them.

use proptest::prelude::*;
use serde_json::json;
use tidemill_storage::schema::DataType;

use crate::{
    Error,
    decode::{
        DebeziumOptions, DecimalMode, Decoded, EpochUnit, Format, SourceColumn, decoder, parse_path,
        tests::{batch, cell},
    },
};

type Row = Vec<Option<String>>;

fn format(decimals: Option<DecimalMode>) -> Format {
    let options = DebeziumOptions { decimals, ..DebeziumOptions::default() };
    Format::DebeziumJson { options, epoch: EpochUnit::ByMagnitude }
}

fn column(name: &str, data_type: DataType) -> SourceColumn {
    SourceColumn::new(name, data_type, true)
}

fn path(name: &str, path: &str, data_type: DataType) -> SourceColumn {
    column(name, data_type).with_path(parse_path(path).unwrap())
}

fn key(name: &str, data_type: DataType) -> SourceColumn {
    SourceColumn::new(name, data_type, false).with_key(true)
}

/// A key, a value, and what was deleted.
fn people() -> Vec<SourceColumn> {
    vec![key("id", DataType::Int), column("name", DataType::Text), column("__deleted", DataType::Boolean)]
}

fn values(decoded: &Decoded) -> Vec<Row> {
    let rows = decoded.rows.num_rows();
    (0..rows).map(|row| decoded.rows.columns().iter().map(|array| cell(array, row)).collect()).collect()
}

/// The rows of one message, or why it has none.
fn rows_by(format: &Format, columns: &[SourceColumn], message: &str) -> Result<Vec<Row>, String> {
    let decoded = decoder(format, columns).unwrap().decode(&batch([Some(message.as_bytes())])).unwrap();
    let rows = values(&decoded);
    assert_eq!(decoded.row_offsets, vec![10; rows.len()]);
    match decoded.rejects.as_slice() {
        [] => Ok(rows),
        [reject] => {
            assert!(rows.is_empty(), "{rows:?} beside {}", reject.reason);
            assert_eq!((reject.offset, &reject.raw[..]), (10, message.as_bytes()));
            Err(reject.reason.clone())
        }
        rejects => panic!("{rejects:?}"),
    }
}

fn rows(columns: &[SourceColumn], message: &str) -> Result<Vec<Row>, String> {
    rows_by(&format(None), columns, message)
}

/// `NULL` is one.
fn row(values: &[&str]) -> Row {
    values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
}

/// What a connector of PostgreSQL sends without the schema.
const UPDATE: &str = r#"{"before":null,"after":{"id":1,"name":"Anna"},
    "source":{"version":"3.0.0.Final","connector":"postgresql","name":"shop","ts_ms":1709208000123,"snapshot":"false","db":"shop",
      "sequence":"[\"24023119\",\"24023128\"]","schema":"public","table":"people","txId":771,"lsn":24023128,"xmin":null},
    "transaction":null,"op":"u","ts_ms":1709208000456,"ts_us":1709208000456789,"ts_ns":1709208000456789000}"#;

#[test]
fn each_op_has_its_rows() {
    let anna = r#"{"id":1,"name":"Anna"}"#;
    let wanted = |deleted: &str| Ok(vec![row(&["1", "Anna", deleted])]);
    for op in ["c", "r", "u"] {
        assert_eq!(
            rows(&people(), &format!(r#"{{"op":"{op}","before":null,"after":{anna}}}"#)),
            wanted("false"),
            "{op}"
        );
    }
    assert_eq!(rows(&people(), &format!(r#"{{"op":"d","before":{anna},"after":null}}"#)), wanted("true"));
    assert_eq!(rows(&people(), &format!(r#"{{"after":{anna},"op":"c"}}"#)), wanted("false"), "in any order");
    assert_eq!(rows(&people(), UPDATE), wanted("false"));
    let same = format!(r#"{{"op":"u","before":{},"after":{anna}}}"#, r#"{"id":1,"name":"Ann"}"#);
    assert_eq!(rows(&people(), &same), wanted("false"));
}

#[test]
fn a_key_that_changes_is_two_rows() {
    let moved = r#"{"op":"u","before":{"id":1,"name":"Anna"},"after":{"id":2,"name":"Bea"}}"#;
    let both = Ok(vec![row(&["1", "Anna", "true"]), row(&["2", "Bea", "false"])]);
    assert_eq!(rows(&people(), moved), both);
    // Of the key alone, as REPLICA IDENTITY DEFAULT has it sent.
    let of_key = r#"{"op":"u","before":{"id":1,"name":null},"after":{"id":2,"name":"Bea"}}"#;
    assert_eq!(rows(&people(), of_key).unwrap()[0], row(&["1", "NULL", "true"]));
    // Whoever says no key has no key that changes, and a key that was not sent did not change.
    let mut keyless = people();
    keyless[0] = SourceColumn::new("id", DataType::Int, false);
    assert_eq!(rows(&keyless, moved).unwrap().len(), 1);
    for before in ["null", "{}", r#"{"name":"Anna"}"#, r#"{"id":null,"name":"Anna"}"#] {
        let update = format!(r#"{{"op":"u","before":{before},"after":{}}}"#, r#"{"id":2,"name":"Bea"}"#);
        assert_eq!(rows(&people(), &update), Ok(vec![row(&["2", "Bea", "false"])]), "{before}");
    }
    let two = vec![key("a", DataType::Int), key("b", DataType::Text), column("__deleted", DataType::Boolean)];
    let update = |b: &str| format!(r#"{{"op":"u","before":{{"a":1,"b":"x"}},"after":{{"b":"{b}","a":1}}}}"#);
    assert_eq!(rows(&two, &update("x")).unwrap().len(), 1);
    assert_eq!(rows(&two, &update("y")).unwrap(), [row(&["1", "x", "true"]), row(&["1", "y", "false"])]);
}

#[test]
fn the_envelope_may_be_there_or_not() {
    let bare = r#"{"op":"c","after":{"id":1,"name":"Anna"}}"#;
    let one = Ok(vec![row(&["1", "Anna", "false"])]);
    for schema in ["null", "{}", "7", r#"{"type":"struct","fields":[{"field":"after","type":"struct","fields":[]}]}"#] {
        assert_eq!(rows(&people(), &format!(r#"{{"schema":{schema},"payload":{bare}}}"#)), one, "{schema}");
    }
    assert_eq!(rows(&people(), &format!(r#"{{"payload":{bare}}}"#)), one);
    // Members of these names in the row are the row's.
    let columns = [column("payload", DataType::Text), column("schema", DataType::Text), column("op", DataType::Text)];
    let columns = [&columns[..], &people()[2..]].concat();
    let message = r#"{"op":"c","after":{"payload":"p","schema":"s","op":"d"}}"#;
    assert_eq!(rows(&columns, message), Ok(vec![row(&["p", "s", "d", "false"])]));
}

#[test]
fn tombstones_are_neither_rows_nor_rejects() {
    let good = r#"{"op":"c","after":{"id":1,"name":"Anna"}}"#;
    let payloads = [None, Some(good), Some(r#"{"schema":null,"payload":null}"#), None, Some("null"), Some(good), None];
    let messages = batch(payloads.map(|payload| payload.map(str::as_bytes)));
    let decoded = decoder(&format(None), &people()).unwrap().decode(&messages).unwrap();
    assert_eq!(decoded.row_offsets, [12, 20]);
    assert_eq!(decoded.rejects.iter().map(|reject| reject.offset).collect::<Vec<_>>(), [18]);
    assert_eq!(decoded.taken, 7);
}

#[test]
fn paths_begin_at_the_change() {
    let columns = vec![
        key("id", DataType::Int),
        path("op", "$.op", DataType::Text),
        path("lsn", "$.source.lsn", DataType::BigInt),
        path("at", "$.source.ts_ms", DataType::TimestampTz),
        path("seen", "$.ts_us", DataType::Timestamp),
        path("was", "$.before.name", DataType::Text),
        path("is", "$.after.name", DataType::Text),
        path("origin", "$.source.table", DataType::Jsonb),
        path("all", "$", DataType::Jsonb),
        column("__deleted", DataType::Boolean),
    ];
    let wanted = "1 u 24023128 1709208000123000 1709208000456789 NULL Anna \"people\"";
    for message in [UPDATE.to_owned(), format!(r#"{{"schema":{{}},"payload":{UPDATE}}}"#)] {
        let found = rows(&columns, &message).unwrap().remove(0);
        assert_eq!(found[..8], row(&wanted.split(' ').collect::<Vec<_>>()));
        let all: serde_json::Value = serde_json::from_str(found[8].as_deref().unwrap()).unwrap();
        assert_eq!(all, serde_json::from_str::<serde_json::Value>(UPDATE).unwrap());
    }
    // Of these the name tells the unit, whatever columns of the row count.
    let options = DebeziumOptions::default();
    let nanos = Format::DebeziumJson { options, epoch: EpochUnit::Nanoseconds };
    let found = rows_by(&nanos, &columns, UPDATE).unwrap().remove(0);
    assert_eq!(found[3..5], row(&["1709208000123000", "1709208000456789"]));
    let moved = r#"{"op":"u","before":{"id":1,"name":"Anna"},"after":{"id":2,"name":"Bea"},"source":{"lsn":7}}"#;
    let found = rows(&columns, moved).unwrap();
    assert_eq!(found[0][..3], row(&["1", "u", "7"]));
    assert_eq!(found[0][5..7], row(&["Anna", "Bea"]));
    assert_eq!(found[1][..3], row(&["2", "u", "7"]));
}

/// A create event of one field `c` in an image, which the schema calls `name` of `literal` type.
fn wrapped(literal: &str, name: Option<&str>, scale: Option<&str>, value: &str) -> String {
    let mut field = json!({"type": literal, "optional": true, "field": "c", "items": {"type": "int32"}});
    if let Some(name) = name {
        field["name"] = name.into();
    }
    if let Some(scale) = scale {
        field["parameters"] = json!({"scale": scale, "connect.decimal.precision": "38"});
    }
    let image = |name: &str| json!({"type": "struct", "optional": true, "field": name, "fields": [field]});
    let schema = json!({"type": "struct", "name": "shop.Envelope", "fields": [image("before"), image("after")]});
    format!(r#"{{"schema":{schema},"payload":{{"op":"c","before":null,"after":{{"c":{value}}}}}}}"#)
}

fn one_by(decimals: Option<DecimalMode>, data_type: DataType, message: &str) -> Result<Option<String>, String> {
    let columns = [column("c", data_type), column("__deleted", DataType::Boolean)];
    rows_by(&format(decimals), &columns, message).map(|mut rows| rows.remove(0).remove(0))
}

fn numeric(precision: u8, scale: i8) -> DataType {
    DataType::Numeric { precision, scale }
}

#[test]
fn the_schema_says_how_values_are_written() {
    use DataType::*;
    const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
    const VARIABLE: &str = "io.debezium.data.VariableScaleDecimal";
    let time = |name: &str| format!("io.debezium.time.{name}");
    let connect = |name: &str| format!("org.apache.kafka.connect.data.{name}");
    for (literal, name, scale, value, data_type, wanted) in [
        ("bytes", DECIMAL.to_owned(), "2", "\"BNI=\"", numeric(10, 2), "1234"),
        ("bytes", DECIMAL.into(), "2", "\"BNI=\"", numeric(10, 4), "123400"),
        ("bytes", DECIMAL.into(), "2", "\"1234\"", Text, "-26588.24"),
        ("bytes", DECIMAL.into(), "2", "\"BNI=\"", Double, "12.34"),
        ("bytes", DECIMAL.into(), "0", "\"//8=\"", BigInt, "-1"),
        ("bytes", DECIMAL.into(), "-2", "\"BNI=\"", BigInt, "123400"),
        ("bytes", DECIMAL.into(), "2", "12.34", numeric(10, 2), "1234"),
        ("struct", VARIABLE.into(), "", r#"{"scale":3,"value":"BNI="}"#, numeric(10, 3), "1234"),
        ("struct", VARIABLE.into(), "", r#"{"value":"BNI=","scale":-1}"#, Int, "12340"),
        ("int32", time("Date"), "", "19782", Date, "19782"),
        ("int32", time("Date"), "", "-1", Text, "1969-12-31"),
        ("int32", connect("Date"), "", "1", Timestamp, "86400000000"),
        ("string", time("IsoDate"), "", "\"2024-02-29Z\"", Date, "19782"),
        ("int64", time("Timestamp"), "", "1", TimestampTz, "1000"),
        ("int64", connect("Timestamp"), "", "31536000000", Timestamp, "31536000000000"),
        ("int64", time("MicroTimestamp"), "", "31536000000000", Timestamp, "31536000000000"),
        ("int64", time("MicroTimestamp"), "", "-1", Timestamp, "-1"),
        ("int64", time("NanoTimestamp"), "", "1500", Timestamp, "2"),
        ("int64", time("NanoTimestamp"), "", "1500", BigInt, "1500"),
        ("string", time("ZonedTimestamp"), "", "\"2024-02-29T12:00:00.5Z\"", TimestampTz, "1709208000500000"),
        ("int32", time("Time"), "", "45296500", Text, "12:34:56.500"),
        ("int64", time("MicroTime"), "", "1", Text, "00:00:00.000001"),
        ("int64", time("NanoTime"), "", "1", Jsonb, "\"00:00:00.000000001\""),
        ("int32", connect("Time"), "", "0", Text, "00:00:00"),
        ("int64", time("MicroDuration"), "", "86400000000", BigInt, "86400000000"),
        ("string", "io.debezium.data.Json".into(), "", r#""{\"b\":1,\"a\":[2]}""#, Jsonb, r#"{"a": [2], "b": 1}"#),
        ("string", "io.debezium.data.Json".into(), "", r#""[1]""#, Text, "[1]"),
        (
            "string",
            "io.debezium.data.Uuid".into(),
            "",
            "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
            Uuid,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        ("bytes", String::new(), "", "\"AAH/\"", Bytea, "[00, 01, ff]"),
        ("string", String::new(), "", "\"12.5\"", numeric(10, 2), "1250"),
        ("double", String::new(), "", "12.5", numeric(10, 2), "1250"),
        ("int64", String::new(), "", "1709208000", Timestamp, "1709208000000000"),
        ("boolean", String::new(), "", "true", Boolean, "true"),
    ] {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let message = wrapped(literal, some(&name).as_deref(), some(scale).as_deref(), value);
        assert_eq!(one_by(None, data_type.clone(), &message), Ok(Some(wanted.into())), "{name} {value} as {data_type}");
        let null = wrapped(literal, some(&name).as_deref(), some(scale).as_deref(), "null");
        assert_eq!(one_by(None, data_type, &null), Ok(None));
    }
    for (name, scale, value, data_type, wanted) in [
        (DECIMAL, Some("2"), "\"BNI=\"", numeric(10, 1), "12.34 has digits after the decimal point"),
        (DECIMAL, Some("2"), "\"BNI\"", numeric(10, 2), "\"BNI\" does not read"),
        (DECIMAL, Some("2"), "\"\"", numeric(10, 2), "does not read"),
        (DECIMAL, Some("-99"), "\"AQ==\"", numeric(10, 2), "out of range"),
        (DECIMAL, Some("two"), "\"BNI=\"", numeric(10, 2), "decimal in a string"),
        (DECIMAL, None, "\"BNI=\"", numeric(10, 2), "decimal in a string"),
        (VARIABLE, None, r#"{"scale":3}"#, numeric(10, 2), "does not read"),
        (VARIABLE, None, "\"BNI=\"", Boolean, "does not read"),
        ("io.debezium.time.Date", None, "2147483648", Date, "out of range"),
        ("io.debezium.time.Date", None, "1.5", Date, "digits after"),
        ("io.debezium.time.Time", None, "86400000", Text, "out of range"),
        ("io.debezium.time.MicroTimestamp", None, "9223372036854775807", Timestamp, "out of range"),
        ("io.debezium.data.Json", None, "\"{\"", Jsonb, "does not read"),
    ] {
        let reason = one_by(None, data_type, &wrapped("x", Some(name), scale, value)).unwrap_err();
        assert!(reason.starts_with("column \"c\" (") && reason.contains(wanted), "{name} {value}: {reason}");
    }
}

#[test]
fn elements_of_arrays_are_written_as_values_are() {
    let array = |item| DataType::Array(Box::new(item));
    let message = |items: &str, value: &str| {
        wrapped("array", None, None, value).replace(r#""items":{"type":"int32"}"#, &format!(r#""items":{items}"#))
    };
    let decimal = r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}"#;
    let prices = message(decimal, r#"["BNI=",null,"//8="]"#);
    assert_eq!(one_by(None, array(numeric(10, 2)), &prices), Ok(Some("[1234,NULL,-1]".into())));
    assert!(one_by(None, array(numeric(10, 1)), &prices).unwrap_err().contains("12.34 has digits"));
    assert!(
        one_by(None, array(numeric(10, 2)), &message(decimal, r#"["BNI"]"#)).unwrap_err().contains("does not read")
    );
    let days = message(r#"{"type":"int32","name":"io.debezium.time.Date"}"#, "[0, 19782]");
    assert_eq!(one_by(None, array(DataType::Date), &days), Ok(Some("[0,19782]".into())));
    assert_eq!(one_by(None, DataType::Jsonb, &days), Ok(Some("[0, 19782]".into())));
    let texts = message(r#"{"type":"string"}"#, r#"["a", "\u00fc"]"#);
    assert_eq!(one_by(None, array(DataType::Text), &texts), Ok(Some("[a,ü]".into())));
    assert_eq!(one_by(None, array(DataType::Text), &message("{}", "[]")), Ok(Some("[]".into())));
    assert!(one_by(None, array(DataType::Int), &message("{}", "[[1]]")).is_err());
    assert!(one_by(None, array(DataType::Int), &message("{}", "7")).is_err());
}

#[test]
fn without_a_schema_the_column_says_it() {
    use DataType::*;
    let message = |value: &str| format!(r#"{{"op":"c","after":{{"c":{value}}}}}"#);
    let (precise, digits) = (Some(DecimalMode::Precise), Some(DecimalMode::Digits));
    for (decimals, data_type, value, wanted) in [
        (precise, numeric(10, 2), "\"BNI=\"", "1234"),
        (precise, numeric(10, 2), "\"1234\"", "-2658824"),
        (precise, BigInt, "\"BNI=\"", "1234"),
        (digits, numeric(10, 2), "\"1234\"", "123400"),
        (digits, Double, "\"NaN\"", "NaN"),
        (None, numeric(10, 2), "12.34", "1234"),
        (None, Int, "7", "7"),
        (None, Text, "\"BNI=\"", "BNI="),
        (None, Date, "19782", "19782"),
        (None, Date, "\"2024-02-29\"", "19782"),
        (None, Timestamp, "1709208000123", "1709208000123000"),
        (None, TimestampTz, "\"2024-02-29T12:00:00Z\"", "1709208000000000"),
        (None, Jsonb, r#""{\"a\":1}""#, r#"{"a": 1}"#),
        (None, Jsonb, r#"{"wkb":"AQ==","srid":4326}"#, r#"{"wkb": "AQ==", "srid": 4326}"#),
        (None, Bytea, "\"AAH/\"", "[00, 01, ff]"),
        (None, Array(Box::new(Date)), "[0,1]", "[0,1]"),
    ] {
        assert_eq!(
            one_by(decimals, data_type.clone(), &message(value)),
            Ok(Some(wanted.into())),
            "{value} as {data_type}"
        );
    }
    for (decimals, data_type, value) in [
        (None, numeric(10, 2), "\"1234\""),
        (None, BigInt, "\"1234\""),
        (None, Double, "\"1234\""),
        (precise, Double, "\"BNI=\""),
        (None, Array(Box::new(numeric(10, 2))), "[\"1234\"]"),
    ] {
        let reason = one_by(decimals, data_type, &message(value)).unwrap_err();
        assert!(reason.contains("'decimal.handling.mode'"), "{reason}");
    }
    for (decimals, data_type, value) in
        [(precise, numeric(10, 2), "\"12.34\""), (digits, numeric(10, 2), "\"BNI=\""), (None, Jsonb, "\"plain\"")]
    {
        assert!(one_by(decimals, data_type, &message(value)).unwrap_err().contains("does not read"));
    }
    let micros = [column("c", Timestamp).with_epoch(EpochUnit::Microseconds), column("__deleted", Boolean)];
    assert_eq!(rows(&micros, &message("1500000")).unwrap()[0][0].as_deref(), Some("1500000"));
}

#[test]
fn what_the_database_did_not_send_is_no_value() {
    let message = |op: &str, image: &str, name: &str| format!(r#"{{"op":"{op}","{image}":{{"id":1,"name":{name}}}}}"#);
    for name in ["\"__debezium_unavailable_value\"", "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\""] {
        let reason = rows(&people(), &message("u", "after", name)).unwrap_err();
        assert!(reason.contains("column \"name\"") && reason.contains("REPLICA IDENTITY FULL"), "{reason}");
        let deleted = rows(&people(), &message("d", "before", name));
        assert_eq!(deleted, Ok(vec![row(&["1", "NULL", "true"])]), "its key is enough to delete it");
    }
    let mut lists = people();
    lists[1] = column("name", DataType::Array(Box::new(DataType::Text)));
    assert!(rows(&lists, &message("u", "after", "[\"__debezium_unavailable_value\"]")).is_err());
}

#[test]
fn what_is_no_change_says_why() {
    let mut columns = people();
    columns[1].nullable = false;
    let deep = format!(r#"{{"op":"c","after":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let long = format!(r#"{{"op":"{}"}}"#, "x".repeat(100));
    for (message, wanted) in [
        ("", "the message is empty"),
        ("[]", "a message is one JSON object"),
        ("{", "invalid JSON at byte 1"),
        (r#"{"id":1,"name":"Anna"}"#, "no \"op\" of Debezium (events that were flattened are of format 'json')"),
        (r#"{"op":null,"after":{}}"#, "no \"op\""),
        (r#"{"op":7,"after":{}}"#, "no \"op\""),
        (r#"{"schema":{},"payload":[]}"#, "no \"op\""),
        (r#"{"payload":null}"#, "no \"op\""),
        (r#"{"op":"t","source":{}}"#, "op \"t\": the table was truncated"),
        (r#"{"op":"m","message":{"prefix":"p","content":"AQ=="}}"#, "op \"m\": a message of the database"),
        (r#"{"op":"x"}"#, "op \"x\" is none of c, r, u and d"),
        (long.as_str(), "op \"xxxxxxxxxxxxxxxxxxxx\" is none of"),
        (r#"{"op":"c","before":{"id":1,"name":"Anna"}}"#, "op \"c\" needs the row in \"after\""),
        (r#"{"op":"u","before":{"id":1,"name":"Anna"},"after":null}"#, "op \"u\" needs the row in \"after\""),
        (r#"{"op":"d","before":null,"after":null}"#, "op \"d\" needs the row in \"before\""),
        (r#"{"op":"c","after":[1]}"#, "needs the row in \"after\""),
        (
            r#"{"op":"c","after":{"name":"Anna"}}"#,
            "column \"id\" is NOT NULL and the message has no value at $.after.id",
        ),
        (
            r#"{"op":"d","before":{"id":1,"name":null}}"#,
            "column \"name\" is NOT NULL and the message has null at $.before.name",
        ),
        (r#"{"op":"c","after":{"id":"one","name":"Anna"}}"#, "column \"id\" (integer): \"one\""),
        (r#"{"op":"c","after":{"id":1,"name":"\ud800"}}"#, "half of a surrogate pair"),
        (
            r#"{"schema":{"fields":"\ud800"},"payload":{"op":"c","after":{"id":1,"name":"a"}}}"#,
            "the schema beside the change",
        ),
        (deep.as_str(), "nested more than 128 deep"),
    ] {
        let reason = rows(&columns, message).unwrap_err();
        assert!(reason.contains(wanted), "{message}: {reason}");
    }
    assert!(rows(&columns, "\u{feff}{\"op\":\"c\",\"after\":{\"id\":1,\"name\":\"a\"}}").is_ok());
}

#[test]
fn a_source_says_what_is_deleted() {
    let refused = |columns: &[SourceColumn]| match decoder(&format(None), columns) {
        Err(Error::Definition { message, .. }) => message,
        _ => panic!("{columns:?} is taken"),
    };
    let id = key("id", DataType::Int);
    assert!(refused(std::slice::from_ref(&id)).contains("needs the column \"__deleted\""));
    for deleted in [
        column("__deleted", DataType::Text),
        path("__deleted", "$.x", DataType::Boolean),
        key("__deleted", DataType::Boolean),
    ] {
        assert!(refused(&[id.clone(), deleted]).contains("cannot say what was deleted"));
    }
    let options = DebeziumOptions { delete_column: "gone".into(), decimals: None };
    let named = Format::DebeziumJson { options, epoch: EpochUnit::ByMagnitude };
    let gone = SourceColumn::new("gone", DataType::Boolean, false);
    let deleted = rows_by(&named, &[gone, id], r#"{"op":"d","before":{"id":1,"gone":null}}"#);
    assert_eq!(deleted, Ok(vec![row(&["true", "1"])]));
}

#[test]
fn schemas_may_change_from_message_to_message() {
    let decimal = |scale: &str| {
        wrapped("bytes", Some("org.apache.kafka.connect.data.Decimal"), Some(scale), "\"BNI=\"").into_bytes()
    };
    let bare = br#"{"op":"c","after":{"c":12.34}}"#.to_vec();
    let payloads = [decimal("2"), decimal("2"), bare, decimal("3"), decimal("2")];
    let columns = [column("c", numeric(10, 3)), column("__deleted", DataType::Boolean)];
    let messages = batch(payloads.iter().map(|payload| Some(payload.as_slice())));
    let decoded = decoder(&format(None), &columns).unwrap().decode(&messages).unwrap();
    let found: Vec<_> = values(&decoded).into_iter().map(|mut row| row.remove(0).unwrap()).collect();
    assert_eq!(found, ["12340", "12340", "12340", "1234", "12340"]);
}

/// What an image may be: rows of [`people`], some of which do not fit, and others.
fn image() -> impl Strategy<Value = serde_json::Value> {
    let id = prop_oneof![4 => (0..3i64).prop_map(|id| json!(id)), 1 => Just(json!(null)), 1 => Just(json!("one"))];
    let name =
        prop_oneof![3 => "[a-c]{0,2}".prop_map(|name| json!(name)), 1 => Just(json!(null)), 1 => Just(json!("\0"))];
    prop_oneof![
        8 => (id, name).prop_map(|(id, name)| json!({"id": id, "name": name})),
        1 => Just(json!({})),
        1 => Just(json!(null)),
        1 => Just(json!([1])),
    ]
}

/// The plain twin: the rows of a change over [`people`], none where it is a reject.
fn twin(op: &str, before: &serde_json::Value, after: &serde_json::Value) -> Option<Vec<Row>> {
    let read = |image: &serde_json::Value, deleted: bool| {
        let image = image.as_object()?;
        let id = image.get("id")?.as_i64()?;
        let name = match image.get("name") {
            Some(serde_json::Value::String(name)) if name.contains('\0') => return None,
            Some(serde_json::Value::String(name)) => Some(name.clone()),
            _ => None,
        };
        Some(vec![Some(id.to_string()), name, Some(deleted.to_string())])
    };
    let (old, new) = (&before["id"], &after["id"]);
    match op {
        "c" | "r" => Some(vec![read(after, false)?]),
        "u" if !old.is_null() && old != new => Some(vec![read(before, true)?, read(after, false)?]),
        "u" => Some(vec![read(after, false)?]),
        "d" => Some(vec![read(before, true)?]),
        _ => None,
    }
}

proptest! {
    #[test]
    fn agrees_with_its_twin(
        changes in prop::collection::vec(("[crudtm]", image(), image(), any::<bool>()), 0..24),
    ) {
        let payloads: Vec<String> = changes
            .iter()
            .map(|(op, before, after, is_wrapped)| {
                let change = json!({"before": before, "after": after, "op": op});
                if *is_wrapped { json!({"schema": {}, "payload": change}) } else { change }.to_string()
            })
            .collect();
        let messages = batch(payloads.iter().map(|payload| Some(payload.as_bytes())));
        let mut decoder = decoder(&format(None), &people()).unwrap();
        // Twice, because buffers are used again.
        for _ in 0..2 {
            let decoded = decoder.decode(&messages).unwrap();
            let (mut rows, mut offsets, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
            for (at, (op, before, after, _)) in changes.iter().enumerate() {
                let offset = 10 + 2 * at as u64;
                match twin(op, before, after) {
                    Some(made) => {
                        offsets.extend(made.iter().map(|_| offset));
                        rows.extend(made);
                    }
                    None => rejected.push(offset),
                }
            }
            prop_assert_eq!(values(&decoded), rows);
            prop_assert_eq!(&decoded.row_offsets, &offsets);
            prop_assert_eq!(decoded.rejects.iter().map(|reject| reject.offset).collect::<Vec<_>>(), rejected);
            prop_assert_eq!(decoded.taken, changes.len());
        }
    }
}
