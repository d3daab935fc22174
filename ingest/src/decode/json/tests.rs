//! What JSON becomes: tables of single values, hostile messages, and the twin over `serde_json`.

use proptest::prelude::*;
use serde_json::Value as Json;
use tidemill_storage::schema::DataType;

use super::{jsonb::canonical, tree::Tree};
use crate::decode::{
    EpochUnit, Format, PathStep, SourceColumn, decoder, parse_path,
    tests::{assert_sound, batch, cell, one},
};

const JSON: Format = Format::Json { epoch: EpochUnit::ByMagnitude };

fn column(name: &str, data_type: DataType) -> SourceColumn {
    SourceColumn::new(name, data_type, true)
}

/// What `{"c": <value>}` becomes in a column of the type.
fn value(data_type: DataType, value: &str) -> Result<Option<String>, String> {
    one(&JSON, &[column("c", data_type)], format!("{{\"c\": {value}}}").as_bytes()).map(|mut row| row.remove(0))
}

fn array(item: DataType) -> DataType {
    DataType::Array(Box::new(item))
}

#[test]
fn values_of_every_type() {
    use DataType::*;
    for (data_type, text, wanted) in [
        (Boolean, "true", "true"),
        (Boolean, "\"false\"", "false"),
        (SmallInt, "-32768", "-32768"),
        (Int, "\"42\"", "42"),
        (Int, "1.0", "1"),
        (BigInt, "9223372036854775807", "9223372036854775807"),
        (BigInt, "1e3", "1000"),
        (Real, "0.1", "0.1"),
        (Double, "9007199254740992", "9007199254740992.0"),
        (Double, "9007199254740993.0", "9007199254740992.0"),
        (Double, "0.30000000000000004", "0.30000000000000004"),
        (Double, "\"NaN\"", "NaN"),
        (
            Numeric { precision: 38, scale: 10 },
            "1234567890123456789012345678.0123456789",
            "12345678901234567890123456780123456789",
        ),
        (Numeric { precision: 4, scale: 2 }, "\"1.5\"", "150"),
        (Text, "\"a\"", "a"),
        (Text, r#""\u00fc\ud83d\ude00\n\"\/""#, "ü😀\n\"/"),
        (Text, "1.10", "1.10"),
        (Text, "true", "true"),
        (Text, r#"{"a":[1, 2]}"#, r#"{"a":[1, 2]}"#),
        (Bytea, r#""\\xDEad""#, "[de, ad]"),
        (Bytea, "\"AAH/\"", "[00, 01, ff]"),
        (Date, "\"2024-02-29\"", "19782"),
        (Timestamp, "\"1970-01-01T00:00:01.5\"", "1500000"),
        (TimestampTz, "\"1970-01-01T02:00:00+02:00\"", "0"),
        (TimestampTz, "1709208000123", "1709208000123000"),
        (TimestampTz, "\"1709208000\"", "1709208000000000"),
        (Uuid, "\"{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}\"", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (Jsonb, "\"a\\u0009\"", "\"a\\t\""),
        (Jsonb, "1.10", "1.10"),
        (array(Int), "[1, null, \"3\"]", "[1,NULL,3]"),
        (array(Text), "[\"a\", 1, [2]]", "[a,1,[2]]"),
        (array(TimestampTz), "[0]", "[0]"),
        (array(Int), "[]", "[]"),
    ] {
        assert_eq!(value(data_type.clone(), text), Ok(Some(wanted.to_owned())), "{text} as {data_type}");
        assert_eq!(value(data_type.clone(), "null"), Ok(None), "null as {data_type}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    use DataType::*;
    for (data_type, text, wanted) in [
        (Boolean, "1", "1 is of another type"),
        (Boolean, "\"yes\"", "does not read as a value"),
        (SmallInt, "32768", "32768 is out of range"),
        (Int, "1.5", "1.5 has digits after the decimal point"),
        (Int, "true", "true is of another type"),
        (Int, "\"\"", "\"\" does not read"),
        (Int, "\"1x\"", "does not read"),
        (BigInt, "9223372036854775808", "out of range"),
        (BigInt, "1e400", "out of range"),
        (Double, "1e400", "out of range"),
        (Double, "1e-400", "out of range"),
        (Double, "9007199254740993", "9007199254740993 would be rounded"),
        (Real, "16777217", "would be rounded"),
        (Real, "1e39", "out of range"),
        (Numeric { precision: 4, scale: 2 }, "1.505", "digits after"),
        (Numeric { precision: 4, scale: 2 }, "100", "out of range"),
        (Text, "\"a\\u0000b\"", "NUL"),
        (Text, "\"\\ud800\"", "surrogate"),
        (Text, "\"\\ud800\\u0041\"", "surrogate"),
        (Text, "\"\\udc00\"", "surrogate"),
        (Jsonb, "{\"\\u0000\": 1}", "NUL"),
        (Jsonb, "[\"\\ud800\"]", "surrogate"),
        (Jsonb, "1e131072", "out of range"),
        (Bytea, "\"\\\\xabc\"", "does not read"),
        (Bytea, "\"?\"", "does not read"),
        (Date, "0", "another type"),
        (Date, "\"2024-02-29T00:00:00\"", "does not read"),
        (Timestamp, "\"yesterday\"", "does not read"),
        (Timestamp, "1e30", "out of range"),
        (Uuid, "\"a0eebc99\"", "does not read"),
        (array(Int), "1", "another type"),
        (array(Int), "[1, 1.5]", "digits after"),
        (array(Int), "[[1]]", "an array inside an array"),
        (array(Text), "\"[]\"", "another type"),
    ] {
        let reason = value(data_type.clone(), text).unwrap_err();
        assert!(reason.starts_with(&format!("column \"c\" ({data_type}): ")), "{reason}");
        assert!(reason.contains(wanted), "{text} as {data_type}: {reason}");
    }
}

#[test]
fn the_unit_of_an_epoch_can_be_fixed() {
    let millis = [column("c", DataType::TimestampTz).with_epoch(EpochUnit::Milliseconds)];
    assert_eq!(one(&JSON, &millis, b"{\"c\": 5}"), Ok(vec![Some("5000".into())]));
    let nanos = Format::Json { epoch: EpochUnit::Nanoseconds };
    assert_eq!(one(&nanos, &[column("c", DataType::Timestamp)], b"{\"c\": 5000}"), Ok(vec![Some("5".into())]));
    assert_eq!(one(&nanos, &millis, b"{\"c\": 5}"), Ok(vec![Some("5000".into())]), "the column's own unit wins");
}

#[test]
fn paths_reach_into_messages() {
    let columns: Vec<_> = ["$", "$.a", "$.a.b[1]", "$.a.b[1].c", "$['a']['x y']", "$.a.b[0]"]
        .iter()
        .enumerate()
        .map(|(at, path)| column(&format!("c{at}"), DataType::Jsonb).with_path(parse_path(path).unwrap()))
        .collect();
    let row = one(&JSON, &columns, br#"{"z": 0, "a": {"b": [10, {"c": 3}, 5], "x y": 4}}"#).unwrap();
    let wanted = [
        r#"{"a": {"b": [10, {"c": 3}, 5], "x y": 4}, "z": 0}"#,
        r#"{"b": [10, {"c": 3}, 5], "x y": 4}"#,
        r#"{"c": 3}"#,
        "3",
        "4",
        "10",
    ];
    assert_eq!(row, wanted.map(|text| Some(text.to_owned())));
    for other in [&br#"{"a": 1}"#[..], br#"{"a": []}"#, br#"{"a": {"b": {}}}"#, br#"{"a": {"b": [[]]}}"#] {
        assert_eq!(one(&JSON, &columns, other).unwrap()[3], None, "{other:?}");
    }
}

#[test]
fn of_equal_names_the_last_one_counts() {
    let columns = [column("a", DataType::Int), column("n", DataType::Int).with_path(parse_path("$.o.n").unwrap())];
    assert_eq!(
        one(&JSON, &columns, br#"{"a": "x", "o": {"n": 1}, "\u0061": 2, "o": {}}"#),
        Ok(vec![Some("2".into()), None])
    );
    assert_eq!(one(&JSON, &columns, br#"{"o": {"n": 1}, "o": 7}"#), Ok(vec![None, None]));
}

#[test]
fn absent_and_null_values_of_not_null_columns() {
    let columns = [SourceColumn::new("c", DataType::Int, false).with_path(parse_path("$.a.c").unwrap())];
    assert_eq!(
        one(&JSON, &columns, b"{}"),
        Err("column \"c\" is NOT NULL and the message has no value at $.a.c".into())
    );
    assert_eq!(
        one(&JSON, &columns, b"{\"a\": {\"c\": null}}"),
        Err("column \"c\" is NOT NULL and the message has null at $.a.c".into())
    );
}

#[test]
fn messages_that_are_not_json() {
    let columns = [column("c", DataType::Int)];
    let deep = |depth: usize| format!("{{\"x\": {}1{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    assert_eq!(one(&JSON, &columns, &deep(127)), Ok(vec![None]));
    assert!(one(&JSON, &columns, &deep(128)).unwrap_err().contains("nested more than 128 deep"));
    let mut endless = b"{\"x\": ".to_vec();
    endless.extend(std::iter::repeat_n(b'[', 10_000));
    assert!(one(&JSON, &columns, &endless).is_err());
    assert!(one(&JSON, &columns, &b"{\"c\":".repeat(10_000)).is_err());
    assert!(one(&JSON, &[column("c", DataType::Jsonb)], &[&b"{\"c\":"[..], &deep(126), b"}"].concat()).is_ok());
    for (text, reason) in [
        (&b""[..], "the message is empty"),
        (b" ", "invalid JSON at byte 1: the text ends too early"),
        (b"{\"c\": 1", "invalid JSON at byte 7: the text ends too early"),
        (b"{\"c\": \"x", "invalid JSON at byte 8: the text ends too early"),
        (b"{\"c\": 1} x", "invalid JSON at byte 9: more text after the value"),
        (b"{\"c\": 1}{\"c\": 2}", "invalid JSON at byte 8: more text after the value"),
        (b"[{\"c\": 1}]", "invalid JSON at byte 0: a message is one JSON object"),
        (b"null", "invalid JSON at byte 0: a message is one JSON object"),
        (b"{\"c\": NaN}", "invalid JSON at byte 6: expected a value"),
        (b"{\"c\": Infinity}", "invalid JSON at byte 6: expected a value"),
        (b"{\"c\": -Infinity}", "invalid JSON at byte 7: expected a digit"),
        (b"{\"c\": 01}", "invalid JSON at byte 6: a number does not begin with 0"),
        (b"{\"c\": 1.}", "invalid JSON at byte 8: expected a digit after the decimal point"),
        (b"{\"c\": 1e}", "invalid JSON at byte 8: expected a digit in the exponent"),
        (b"{\"c\": +1}", "invalid JSON at byte 6: expected a value"),
        (b"{\"c\": 1,}", "invalid JSON at byte 8: expected a member name in double quotes"),
        (b"{c: 1}", "invalid JSON at byte 1: expected a member name in double quotes"),
        (b"{\"c\" 1}", "invalid JSON at byte 5: expected a colon after the member name"),
        (b"{\"c\": 1 \"d\": 2}", "invalid JSON at byte 8: expected a comma or the end of the object or array"),
        (b"{\"c\": [1}", "invalid JSON at byte 8: expected a comma or the end of the object or array"),
        (b"{\"x\": \"a\nb\"}", "invalid JSON at byte 8: a control character inside a string"),
        (b"{\"x\": \"\\q\"}", "invalid JSON at byte 8: an escape that JSON does not have"),
        (b"{\"x\": \"\\u12g4\"}", "invalid JSON at byte 11: expected four hexadecimal digits after \\u"),
        (b"{\"x\": \"\xff\"}", "the message is not valid UTF-8 from byte 7 on"),
        (b"{\"x\": tru", "invalid JSON at byte 6: expected a value"),
    ] {
        assert_eq!(one(&JSON, &columns, text), Err(reason.to_owned()), "{:?}", String::from_utf8_lossy(text));
    }
    assert_eq!(one(&JSON, &columns, "\u{feff}{\"c\": 1}".as_bytes()), Ok(vec![Some("1".into())]));
    // What no column reads has to be JSON, and no more.
    assert_eq!(one(&JSON, &columns, br#"{"x": "\ud800\u0000", "y": 1e999}"#), Ok(vec![None]));
}

#[test]
fn a_message_of_ten_megabytes() {
    let columns = [column("c", DataType::Text), column("j", DataType::Jsonb).with_path(vec![])];
    let long = "x".repeat(10 << 20);
    let row = one(&JSON, &columns, format!("{{\"c\": \"{long}\"}}").as_bytes()).unwrap();
    assert_eq!(row[0].as_deref(), Some(long.as_str()));
    assert_eq!(row[1].as_ref().unwrap().len(), long.len() + 9);
}

#[test]
fn bad_messages_leave_their_neighbours_alone() {
    let columns = [
        column("n", DataType::Int),
        column("t", DataType::Text),
        column("l", array(DataType::Int)),
        SourceColumn::new("must", DataType::Int, false),
    ];
    let messages = batch([
        Some(&br#"{"n": 1, "t": "a", "l": [1, 2], "must": 1}"#[..]),
        Some(b"{"),
        Some(br#"{"n": 2, "t": "b", "l": [3, 4, "x"], "must": 2}"#),
        None,
        Some(br#"{"n": 3, "t": "c", "l": [5]}"#),
        Some(br#"{"n": "x", "t": "d", "l": [6], "must": 4}"#),
        Some(br#"{"n": 5, "t": "e", "l": null, "must": 5}"#),
        Some(br#"{"n": 6, "t": "f", "l": [7, 8], "must": 6}"#),
    ]);
    let mut decoder = decoder(&JSON, &columns).unwrap();
    for _ in 0..2 {
        let decoded = decoder.decode(&messages).unwrap();
        assert_sound(&decoded, &messages, &columns);
        assert_eq!(decoded.row_offsets, [10, 22, 24]);
        let rows: Vec<Vec<_>> =
            (0..3).map(|row| decoded.rows.columns().iter().map(|array| cell(array, row)).collect()).collect();
        let wanted = [
            [Some("1"), Some("a"), Some("[1,2]"), Some("1")],
            [Some("5"), Some("e"), None, Some("5")],
            [Some("6"), Some("f"), Some("[7,8]"), Some("6")],
        ];
        assert_eq!(rows, wanted.map(|row| row.map(|value| value.map(str::to_owned)).to_vec()));
        let faults: Vec<_> = decoded.rejects.iter().map(|reject| reject.column.as_deref()).collect();
        assert_eq!(faults, [None, Some("l"), Some("must"), Some("n")]);
    }
}

/// Each pair was taken from PostgreSQL 15 (`SELECT '…'::jsonb::text`).
#[test]
fn jsonb_is_as_postgres_prints_it() {
    for (text, wanted) in [
        (r#"{"bb":1,"a":2,"b":3,"aa":4}"#, r#"{"a": 2, "b": 3, "aa": 4, "bb": 1}"#),
        (r#"{"a":1,"a":{"x":[]},"b":{}}"#, r#"{"a": {"x": []}, "b": {}}"#),
        (r#" [ 1 , 2.50 , null,true , "x" ] "#, r#"[1, 2.50, null, true, "x"]"#),
        (r#""\u0041\u00e9\/\b\f\n\r\t\u001f\u007f\"\\""#, "\"Aé/\\b\\f\\n\\r\\t\\u001f\u{7f}\\\"\\\\\""),
        (r#"{"é":1,"zz":2,"z":3}"#, r#"{"z": 3, "zz": 2, "é": 1}"#),
        ("[1e2, 1.10, -0, 1E-2]", "[100, 1.10, 0, 0.01]"),
        (r#"{"":1}"#, r#"{"": 1}"#),
    ] {
        let mut out = String::new();
        canonical(text, &mut out).unwrap();
        assert_eq!(out, wanted);
    }
}

#[test]
fn many_fields_are_found_by_name() {
    let columns: Vec<_> = (0..40).map(|at| column(&format!("c{at}"), DataType::Int)).collect();
    let members: Vec<_> = (0..40).rev().map(|at| format!("\"c{at}\": {at}, \"x{at}\": {{}}")).collect();
    let row = one(&JSON, &columns, format!("{{{}}}", members.join(",")).as_bytes()).unwrap();
    assert_eq!(row, (0..40).map(|at| Some(at.to_string())).collect::<Vec<_>>());
}

/// What the decoder should make of a value, found the slow way; `Err` where it must refuse.
fn twin(data_type: &DataType, value: Option<&Json>) -> Result<Option<String>, ()> {
    let value = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(value) => value,
    };
    let has_nul = |text: &str| text.contains('\0');
    Ok(Some(match (data_type, value) {
        (DataType::Boolean, Json::Bool(value)) => value.to_string(),
        (DataType::Boolean, Json::String(text)) if text == "true" || text == "false" => text.clone(),
        (DataType::Int, Json::Number(number)) => {
            let number = number.as_f64().ok_or(())?;
            if number.fract() != 0.0 || number < f64::from(i32::MIN) || number > f64::from(i32::MAX) {
                return Err(());
            }
            (number as i32).to_string()
        }
        (DataType::Int, Json::String(text)) => text.trim_ascii().parse::<i32>().map_err(|_| ())?.to_string(),
        (DataType::BigInt, Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.to_string(),
            (None, Some(number)) if number.fract() == 0.0 && number.abs() < 9e15 => (number as i64).to_string(),
            _ => return Err(()),
        },
        (DataType::BigInt, Json::String(text)) => text.trim_ascii().parse::<i64>().map_err(|_| ())?.to_string(),
        (DataType::Double, Json::Number(number))
            if number.as_i64().is_some_and(|whole| whole as f64 as i128 != i128::from(whole))
                || number.as_u64().is_some_and(|whole| whole as f64 as i128 != i128::from(whole)) =>
        {
            return Err(());
        }
        (DataType::Double, Json::Number(number)) => format!("{:?}", number.as_f64().ok_or(())?),
        (DataType::Double, Json::String(text)) => format!("{:?}", text.trim_ascii().parse::<f64>().map_err(|_| ())?),
        (DataType::Text, Json::String(text)) if !has_nul(text) => text.clone(),
        (DataType::Text, Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => value.to_string(),
        (DataType::Jsonb, value) => twin_jsonb(value)?,
        (DataType::TimestampTz, Json::Number(number)) => match number.as_i64() {
            Some(number) if number.abs() < 100_000_000_000 => (number * 1_000_000).to_string(),
            _ => return Err(()),
        },
        (DataType::TimestampTz, Json::String(text)) => {
            chrono::DateTime::parse_from_rfc3339(text).map_err(|_| ())?.timestamp_micros().to_string()
        }
        (DataType::Array(item), Json::Array(values)) => {
            let items = values.iter().map(|value| {
                if value.is_array() && **item != DataType::Text {
                    return Err(());
                }
                Ok(twin(item, Some(value))?.unwrap_or_else(|| "NULL".into()))
            });
            format!("[{}]", items.collect::<Result<Vec<_>, ()>>()?.join(","))
        }
        _ => return Err(()),
    }))
}

fn twin_jsonb(value: &Json) -> Result<String, ()> {
    Ok(match value {
        Json::String(text) if text.contains('\0') => return Err(()),
        Json::Array(values) => {
            format!("[{}]", values.iter().map(twin_jsonb).collect::<Result<Vec<_>, ()>>()?.join(", "))
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| (name.len(), name.as_bytes().to_vec()));
            let members = members.into_iter().map(|(name, value)| {
                Ok(format!("{}: {}", twin_jsonb(&Json::String(name.clone()))?, twin_jsonb(value)?))
            });
            format!("{{{}}}", members.collect::<Result<Vec<_>, ()>>()?.join(", "))
        }
        scalar => scalar.to_string(),
    })
}

fn twin_find<'a>(message: &'a Json, path: &[PathStep]) -> Option<&'a Json> {
    path.iter().try_fold(message, |value, step| match step {
        PathStep::Field(name) => value.as_object()?.get(name),
        PathStep::Index(index) => value.as_array()?.get(*index),
    })
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[abc]", 1 => "[a-zé\"\\\\ ]{0,12}"]
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-1000i64..1000).prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-100_000i32..100_000).prop_map(|hundredths| Json::from(f64::from(hundredths) / 100.0)),
        "[0-9]{1,4}".prop_map(Json::from),
        "-?[0-9]{1,2}(\\.[0-9]{1,2})?".prop_map(Json::from),
        "(true|false|NaN| 7 )".prop_map(Json::from),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]0[0-9]:30)"
            .prop_map(Json::from),
        ".{0,20}".prop_map(Json::from),
        "[ -~\\x00-\\x1f\"\\\\]{0,20}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(any_name(), inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn any_message() -> impl Strategy<Value = Json> {
    prop::collection::btree_map(any_name(), any_json(), 0..5)
        .prop_map(|members| Json::Object(members.into_iter().collect()))
}

fn any_type() -> impl Strategy<Value = DataType> {
    let scalar = prop_oneof![
        Just(DataType::Boolean),
        Just(DataType::Int),
        Just(DataType::BigInt),
        Just(DataType::Double),
        Just(DataType::Text),
        Just(DataType::Jsonb),
        Just(DataType::TimestampTz),
    ];
    prop_oneof![3 => scalar.clone(), 1 => scalar.prop_filter("arrays of JSONB", |item| *item != DataType::Jsonb).prop_map(array)]
}

fn any_columns() -> impl Strategy<Value = Vec<SourceColumn>> {
    let step = prop_oneof![2 => "[abc]".prop_map(PathStep::Field), 1 => (0usize..3).prop_map(PathStep::Index)];
    let path = prop_oneof![
        4 => "[abc]".prop_map(|name| vec![PathStep::Field(name)]),
        2 => prop::collection::vec(step, 0..4),
    ];
    prop::collection::vec((any_type(), any::<bool>(), path), 1..6).prop_map(|columns| {
        let columns = columns.into_iter().enumerate();
        columns
            .map(|(at, (data_type, nullable, path))| {
                SourceColumn::new(format!("c{at}"), data_type, nullable).with_path(path)
            })
            .collect()
    })
}

/// A string column's numbers like `1.50` are exact integers to the decoder only; the twin knows plain ones.
fn beyond_the_twin(columns: &[SourceColumn], message: &Json) -> bool {
    fn strings_with_points(value: &Json) -> bool {
        match value {
            Json::String(text) => text.trim_ascii().parse::<f64>().is_ok() && text.trim_ascii().parse::<i32>().is_err(),
            Json::Number(number) => number.to_string().contains('e'),
            Json::Array(values) => values.iter().any(strings_with_points),
            Json::Object(members) => members.values().any(strings_with_points),
            _ => false,
        }
    }
    // Timestamps also read numbers in strings and other sizes of numbers.
    let has_time = columns.iter().any(|c| {
        matches!(&c.data_type, DataType::TimestampTz)
            || matches!(&c.data_type, DataType::Array(item) if **item == DataType::TimestampTz)
    });
    fn numbers_of_size(value: &Json) -> bool {
        match value {
            Json::Number(number) => {
                number.as_i64().is_none_or(|number| !(-60_000_000_000..100_000_000_000).contains(&number))
            }
            Json::String(text) => {
                text.trim_ascii().parse::<f64>().is_ok()
                    || crate::decode::time::timestamp(text.trim_ascii()).is_ok()
                        != chrono::DateTime::parse_from_rfc3339(text).is_ok()
            }
            Json::Array(values) => values.iter().any(numbers_of_size),
            Json::Object(members) => members.values().any(numbers_of_size),
            _ => false,
        }
    }
    strings_with_points(message) || (has_time && numbers_of_size(message))
}

/// The elements of a refused array before its bad one became elements of the next row's array, where no other column of the bad row had
/// been read.
#[test]
fn a_refused_array_leaves_nothing_behind() {
    let columns = [SourceColumn::new("b", array(DataType::Int), false)];
    let messages = [r#"{"b": [7, []]}"#, r#"{"b": []}"#, r#"{"b": [1, "x"]}"#, r#"{"b": [2]}"#];
    let decoded =
        decoder(&JSON, &columns).unwrap().decode(&batch(messages.map(|message| Some(message.as_bytes())))).unwrap();
    assert_eq!(decoded.rejects.len(), 2);
    let column = decoded.rows.column(0);
    assert_eq!([cell(column, 0), cell(column, 1)], [Some("[]".to_owned()), Some("[2]".to_owned())]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_its_twin(columns in any_columns(), messages in prop::collection::vec((any_message(), any::<bool>()), 1..5)) {
        let messages: Vec<_> = messages.into_iter().filter(|(message, _)| !beyond_the_twin(&columns, message)).collect();
        let texts: Vec<_> = messages
            .iter()
            .map(|(message, pretty)| if *pretty { serde_json::to_vec_pretty(message) } else { serde_json::to_vec(message) }.unwrap())
            .collect();
        let messages: Vec<_> = messages.into_iter().map(|(message, _)| message).collect();
        let batch = batch(texts.iter().map(|text| Some(text.as_slice())));
        let decoded = decoder(&JSON, &columns).unwrap().decode(&batch).unwrap();
        assert_sound(&decoded, &batch, &columns);
        let mut row = 0;
        for (at, message) in messages.iter().enumerate() {
            let offset = batch.messages[at].offset;
            let mut wanted = Vec::new();
            let mut fault = None;
            for column in &columns {
                let found = twin_find(message, &column.path);
                // TEXT takes the source's own spelling, which for pretty-printed containers the twin does not know.
                let found_container = found.is_some_and(|value| value.is_array() || value.is_object());
                let spelled = column.data_type == DataType::Text && found_container
                    || matches!(&column.data_type, DataType::Array(item) if **item == DataType::Text);
                match twin(&column.data_type, found) {
                    Ok(None) if !column.nullable => fault = fault.or(Some(column.name.clone())),
                    Ok(value) => wanted.push((value, spelled)),
                    Err(()) => fault = fault.or(Some(column.name.clone())),
                }
            }
            match fault {
                Some(name) => {
                    let reject = decoded.rejects.iter().find(|reject| reject.offset == offset);
                    prop_assert_eq!(reject.map(|reject| reject.column.clone()), Some(Some(name)));
                }
                None => {
                    prop_assert_eq!(decoded.row_offsets.get(row), Some(&offset));
                    for (array, (value, spelled)) in decoded.rows.columns().iter().zip(wanted) {
                        let blankless = |text: Option<String>| text.map(|text| if spelled { text.replace([' ', '\n'], "") } else { text });
                        prop_assert_eq!(blankless(cell(array, row)), blankless(value));
                    }
                    row += 1;
                }
            }
        }
    }

    /// Text that was JSON before a few bytes were changed: accepted exactly where serde_json accepts it.
    #[test]
    fn the_grammar_is_serdes(message in any_message(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..128, 0u8..4), 0..4)) {
        let mut text = serde_json::to_vec(&message).unwrap();
        for (at, byte, what) in edits {
            let at = at.index(text.len() + 1);
            match what {
                0 => text.insert(at, byte),
                1 => text.truncate(at),
                2 if at < text.len() => text[at] = byte,
                _ => text.insert(at, b"{}[]\",:\\0e-."[usize::from(byte) % 12]),
            }
        }
        let Ok(text) = std::str::from_utf8(&text) else { return Ok(()) };
        let columns = [column("a", DataType::Int), column("b", DataType::Int).with_path(parse_path("$.b[0].c").unwrap())];
        let found = Tree::new(columns.iter().map(|column| &column.path[..])).find(text, &mut [None; 2]).is_ok();
        let is_object = text.trim_start_matches([' ', '\n', '\r', '\t']).starts_with('{');
        let wanted = is_object && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        prop_assert_eq!(found, wanted, "{}", text);
    }

    #[test]
    fn canonical_text_is_its_own_canonical_text(message in any_json()) {
        let mut first = String::new();
        if canonical(&message.to_string(), &mut first).is_ok() {
            let mut second = String::new();
            canonical(&first, &mut second).unwrap();
            prop_assert_eq!(first, second);
        }
    }

    #[test]
    fn any_bytes_are_rows_or_rejects(payloads in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..60)), 0..6), columns in any_columns()) {
        let batch = batch(payloads.iter().map(Option::as_deref));
        let decoded = decoder(&JSON, &columns).unwrap().decode(&batch).unwrap();
        assert_sound(&decoded, &batch, &columns);
    }
}
