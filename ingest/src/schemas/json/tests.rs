//! Changes of JSON Schemas, one case each.

use crate::schemas::{Kind, Schema, misfits};

fn kinds(reader: &str, writer: &str) -> Vec<&'static str> {
    let parse = |text: &str| Schema::parse(Kind::Json, text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
    misfits(&parse(reader), &parse(writer)).into_iter().map(|misfit| misfit.kind).collect()
}

#[test]
fn a_reader_allows_what_the_writer_does() {
    let closed = |members: &str, more: &str| {
        format!(r#"{{"type":"object","properties":{{{members}}},"additionalProperties":false{more}}}"#)
    };
    let (a, b) = (r#""a":{"type":"integer"}"#, r#""b":{"type":"string"}"#);
    let cases: Vec<(String, String, &[&str])> = vec![
        ("true".into(), closed(a, ""), &[]),
        ("{}".into(), "true".into(), &[]),
        (closed(a, ""), "{}".into(), &["TYPE_NARROWED"]),
        (r#"{"type":"number"}"#.into(), r#"{"type":"integer"}"#.into(), &[]),
        (r#"{"type":"integer"}"#.into(), r#"{"type":"number"}"#.into(), &["TYPE_NARROWED"]),
        (r#"{"type":["string","null"]}"#.into(), r#"{"type":"string"}"#.into(), &[]),
        (r#"{"type":"string"}"#.into(), r#"{"type":["string","null"]}"#.into(), &["TYPE_NARROWED"]),
        // A closed schema may get members; an open one may not, since documents may have had it with another type.
        (closed(&format!("{a},{b}"), ""), closed(a, ""), &[]),
        (closed(a, ""), closed(&format!("{a},{b}"), ""), &["TYPE_NARROWED"]),
        (
            format!(r#"{{"type":"object","properties":{{{a},{b}}}}}"#),
            format!(r#"{{"type":"object","properties":{{{a}}}}}"#),
            &["TYPE_NARROWED"],
        ),
        (closed(a, r#","required":["a"]"#), closed(a, ""), &["REQUIRED_ATTRIBUTE_ADDED"]),
        (closed(a, ""), closed(a, r#","required":["a"]"#), &[]),
        (r#"{"enum":["x","y"]}"#.into(), r#"{"enum":["x"]}"#.into(), &[]),
        (r#"{"enum":["x"]}"#.into(), r#"{"enum":["x","y"]}"#.into(), &["ENUM_ARRAY_NARROWED"]),
        (r#"{"type":"string","enum":["x"]}"#.into(), r#"{"type":"string"}"#.into(), &["ENUM_ARRAY_NARROWED"]),
        (r#"{"type":"string","maxLength":5}"#.into(), r#"{"type":"string","maxLength":4}"#.into(), &[]),
        (r#"{"type":"string","maxLength":5}"#.into(), r#"{"type":"string"}"#.into(), &["BOUND_NARROWED"]),
        (r#"{"type":"integer","minimum":0}"#.into(), r#"{"type":"integer","minimum":-1}"#.into(), &["BOUND_NARROWED"]),
        (
            r#"{"type":"array","items":{"type":"number"}}"#.into(),
            r#"{"type":"array","items":{"type":"integer"}}"#.into(),
            &[],
        ),
        (r#"{"type":"array","items":{"type":"string"}}"#.into(), r#"{"type":"array"}"#.into(), &["TYPE_NARROWED"]),
        (r#"{"anyOf":[{"type":"null"},{"type":"string"}]}"#.into(), r#"{"type":"string"}"#.into(), &[]),
        (r#"{"oneOf":[{"type":"null"},{"type":"string"}]}"#.into(), r#"{"type":"string"}"#.into(), &[]),
        (
            r#"{"oneOf":[{"type":"number"},{"type":"integer"}]}"#.into(),
            r#"{"type":"integer"}"#.into(),
            &["SUM_TYPE_NARROWED"],
        ),
        (r#"{"type":"string"}"#.into(), r#"{"oneOf":[{"type":"null"},{"type":"string"}]}"#.into(), &["TYPE_NARROWED"]),
        (r#"{"type":"string","pattern":"^a"}"#.into(), r#"{"type":"string","pattern":"^a"}"#.into(), &[]),
        (r#"{"type":"string","pattern":"^a"}"#.into(), r#"{"type":"string","pattern":"^ab"}"#.into(), &["NOT_CHECKED"]),
        (r#"{"type":"string"}"#.into(), r#"{"type":"string","pattern":"^ab"}"#.into(), &[]),
        (r#"{"type":"string","title":"b"}"#.into(), r#"{"type":"string","title":"a"}"#.into(), &[]),
        (
            r##"{"$ref":"#/$defs/n","$defs":{"n":{"type":"number"}}}"##.into(),
            r##"{"$ref":"#/$defs/m","$defs":{"m":{"type":"integer"}}}"##.into(),
            &[],
        ),
    ];
    for (reader, writer, wanted) in cases {
        assert_eq!(kinds(&reader, &writer), wanted, "reader {reader}\nwriter {writer}");
    }
}

/// The same text may mean other things in documents with other definitions.
#[test]
fn references_are_followed_and_may_lead_back() {
    let node = |of: &str| {
        format!(
            r##"{{"$ref":"#/definitions/node","definitions":{{"node":{{"type":"object","additionalProperties":false,
                 "properties":{{"v":{{"type":"{of}"}},"next":{{"$ref":"#/definitions/node"}}}}}}}}}}"##
        )
    };
    assert!(kinds(&node("number"), &node("integer")).is_empty());
    assert_eq!(kinds(&node("integer"), &node("number")), ["TYPE_NARROWED"]);
    let beside =
        |of: &str| format!(r##"{{"not":{{"$ref":"#/definitions/x"}},"definitions":{{"x":{{"type":"{of}"}}}}}}"##);
    assert_eq!(kinds(&beside("string"), &beside("null")), ["NOT_CHECKED"]);
}

#[test]
fn what_is_no_schema_is_refused() {
    for bad in [
        "",
        "7",
        "[]",
        r#"{"type":"text"}"#,
        r#"{"properties":[]}"#,
        r#"{"required":"a"}"#,
        r#"{"items":7}"#,
        r#"{"enum":[]}"#,
    ] {
        assert!(Schema::parse(Kind::Json, bad, &[]).is_err(), "{bad}");
    }
}
