//! Avro's rules, one case each.

use crate::schemas::{Kind, Schema, misfits};

fn parse(text: &str) -> Schema {
    Schema::parse(Kind::Avro, text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Kinds of misfits, in order.
fn kinds(reader: &str, writer: &str) -> Vec<&'static str> {
    misfits(&parse(reader), &parse(writer)).into_iter().map(|misfit| misfit.kind).collect()
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

/// A matrix of changes: reader, writer, what is wrong.
#[test]
fn resolution_follows_the_specification() {
    let a = r#"{"name":"a","type":"int"}"#;
    let b = r#"{"name":"b","type":"string"}"#;
    let b_default = r#"{"name":"b","type":"string","default":"x"}"#;
    let cases: Vec<(String, String, &[&str])> = vec![
        // Fields.
        (record(a), record(a), &[]),
        (record(&format!("{a},{b}")), record(a), &["READER_FIELD_MISSING_DEFAULT_VALUE"]),
        (record(&format!("{a},{b_default}")), record(a), &[]),
        (record(a), record(&format!("{a},{b}")), &[]),
        (record(&format!("{b},{a}")), record(&format!("{a},{b}")), &[]),
        (record(r#"{"name":"c","aliases":["a"],"type":"int"}"#), record(a), &[]),
        (record(r#"{"name":"c","type":"int"}"#), record(a), &["READER_FIELD_MISSING_DEFAULT_VALUE"]),
        (record(a).replace("\"R\"", "\"S\""), record(a), &["NAME_MISMATCH"]),
        (record(a).replace("\"R\"", "\"S\",\"aliases\":[\"R\"]"), record(a), &[]),
        (record(a).replace("\"R\"", "\"x.R\""), record(a), &[]),
        // Promotions, each only upwards.
        (record(r#"{"name":"a","type":"long"}"#), record(a), &[]),
        (record(a), record(r#"{"name":"a","type":"long"}"#), &["TYPE_MISMATCH"]),
        ("\"double\"".into(), "\"int\"".into(), &[]),
        ("\"float\"".into(), "\"long\"".into(), &[]),
        ("\"float\"".into(), "\"double\"".into(), &["TYPE_MISMATCH"]),
        ("\"bytes\"".into(), "\"string\"".into(), &[]),
        ("\"string\"".into(), "\"bytes\"".into(), &[]),
        ("\"string\"".into(), "\"int\"".into(), &["TYPE_MISMATCH"]),
        ("\"int\"".into(), "\"boolean\"".into(), &["TYPE_MISMATCH"]),
        // Unions.
        (r#"["null","int"]"#.into(), "\"int\"".into(), &[]),
        ("\"int\"".into(), r#"["null","int"]"#.into(), &["TYPE_MISMATCH"]),
        ("\"long\"".into(), r#"["int","long"]"#.into(), &[]),
        (r#"["null","long"]"#.into(), r#"["int","null"]"#.into(), &[]),
        (r#"["null","int"]"#.into(), r#"["null","int","string"]"#.into(), &["MISSING_UNION_BRANCH"]),
        (r#"["null","string"]"#.into(), "\"int\"".into(), &["MISSING_UNION_BRANCH"]),
        // Enums.
        (
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#.into(),
            r#"{"type":"enum","name":"E","symbols":["A"]}"#.into(),
            &[],
        ),
        (
            r#"{"type":"enum","name":"E","symbols":["A"]}"#.into(),
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#.into(),
            &["MISSING_ENUM_SYMBOLS"],
        ),
        (
            r#"{"type":"enum","name":"E","symbols":["A"],"default":"A"}"#.into(),
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#.into(),
            &[],
        ),
        // Fixed, arrays, maps, decimals.
        (
            r#"{"type":"fixed","name":"F","size":2}"#.into(),
            r#"{"type":"fixed","name":"F","size":3}"#.into(),
            &["FIXED_SIZE_MISMATCH"],
        ),
        (r#"{"type":"array","items":"long"}"#.into(), r#"{"type":"array","items":"int"}"#.into(), &[]),
        (r#"{"type":"array","items":"int"}"#.into(), r#"{"type":"array","items":"string"}"#.into(), &["TYPE_MISMATCH"]),
        (r#"{"type":"map","values":"int"}"#.into(), r#"{"type":"array","items":"int"}"#.into(), &["TYPE_MISMATCH"]),
        (
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#.into(),
            r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#.into(),
            &["DECIMAL_MISMATCH"],
        ),
    ];
    for (reader, writer, wanted) in cases {
        assert_eq!(kinds(&reader, &writer), wanted, "reader {reader}\nwriter {writer}");
    }
}

/// A list that contains itself ends, and says what is wrong deep within it.
#[test]
fn types_within_themselves_are_looked_at_once() {
    let list = |value: &str| {
        format!(
            r#"{{"type":"record","name":"L","fields":[{{"name":"v","type":"{value}"}},{{"name":"next","type":["null","L"]}}]}}"#
        )
    };
    assert!(kinds(&list("long"), &list("int")).is_empty());
    assert_eq!(kinds(&list("int"), &list("long")), ["TYPE_MISMATCH"]);
    // Unions of records that contain unions of each other.
    let records = (0..6).map(|number| {
        format!(r#"{{"type":"record","name":"R{number}","fields":[{{"name":"f","type":["null","L"]}}]}}"#)
    });
    let tangled = format!(
        r#"{{"type":"record","name":"L","fields":[{{"name":"all","type":["null",{}]}}]}}"#,
        records.collect::<Vec<_>>().join(",")
    );
    assert!(kinds(&tangled, &tangled).is_empty());
}

#[test]
fn what_is_no_schema_is_refused() {
    for bad in [
        "",
        "{",
        "7",
        "\"Unknown\"",
        r#"{"type":"record","name":"R"}"#,
        r#"{"type":"record","name":"1R","fields":[]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"x"}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":3000000000}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"default":"x"}]}"#,
        r#"{"type":"enum","name":"E","symbols":["A","A"]}"#,
        r#"{"type":"enum","name":"E","symbols":["A"],"default":"B"}"#,
        r#"["int","int"]"#,
        r#"["null",["int"]]"#,
        r#"{"type":"fixed","name":"F"}"#,
    ] {
        assert!(Schema::parse(Kind::Avro, bad, &[]).is_err(), "{bad}");
    }
    // Either branch of a union may give the default.
    parse(r#"{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"default":7}]}"#);
    let deep = format!("{}\"int\"{}", "{\"type\":\"array\",\"items\":".repeat(100_000), "}".repeat(100_000));
    assert!(Schema::parse(Kind::Avro, &deep, &[]).is_err());
}

#[test]
fn the_same_schema_has_the_same_identity() {
    let identity = |text: &str| parse(text).identity;
    assert_eq!(
        identity(r#"{"type": "record", "name": "R", "fields": []}"#),
        identity(r#"{"fields":[],"name":"R","type":"record"}"#)
    );
    assert_eq!(identity(r#"{"type":"int"}"#), identity("\"int\""));
    assert_ne!(
        identity(&record(r#"{"name":"a","type":"int"}"#)),
        identity(&record(r#"{"name":"a","type":"int","doc":"x"}"#))
    );
    let map = |default: &str| {
        record(&format!(r#"{{"name":"a","type":[{{"type":"map","values":"string"}},"string"],"default":{default}}}"#))
    };
    assert_ne!(identity(&map(r#"{"type":"x"}"#)), identity(&map("\"x\"")));
}

#[test]
fn names_of_referenced_schemas_are_known() {
    let place = r#"{"type":"record","name":"geo.Place","fields":[{"name":"zip","type":"string"}]}"#;
    let order = r#"{"type":"record","name":"Order","fields":[{"name":"at","type":"geo.Place"}]}"#;
    assert!(Schema::parse(Kind::Avro, order, &[]).is_err());
    Schema::parse(Kind::Avro, order, &[("geo.Place".into(), place.into())]).unwrap();
}
