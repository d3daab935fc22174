//! Changes of .proto files, one case each, and files that become texts again.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::schemas::{Kind, Schema, misfits};

fn parse(text: &str) -> Schema {
    Schema::parse(Kind::Protobuf, text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn message(body: &str) -> String {
    format!("syntax = \"proto3\"; package p; message M {{ {body} }}")
}

#[test]
fn numbers_are_what_counts() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("int32 a = 1;", "int32 a = 1;", &[]),
        ("int32 b = 1;", "int32 a = 1;", &[]),
        ("int32 a = 1; string b = 2;", "int32 a = 1;", &[]),
        ("int32 a = 1;", "int32 a = 1; string b = 2;", &[]),
        ("int64 a = 1;", "int32 a = 1;", &[]),
        ("string a = 1;", "bytes a = 1;", &[]),
        ("string a = 1;", "int32 a = 1;", &["FIELD_SCALAR_KIND_CHANGED"]),
        ("sint32 a = 1;", "int32 a = 1;", &["FIELD_SCALAR_KIND_CHANGED"]),
        ("repeated int32 a = 1;", "int32 a = 1;", &["FIELD_NUMERIC_LABEL_CHANGED"]),
        ("repeated string a = 1;", "string a = 1;", &[]),
        ("map<string, int32> a = 1;", "map<string, int64> a = 1;", &[]),
        ("map<string, int32> a = 1;", "map<int32, int32> a = 1;", &["FIELD_SCALAR_KIND_CHANGED"]),
        ("map<string, int32> a = 1;", "string a = 1;", &["FIELD_KIND_CHANGED"]),
        ("oneof x { int32 a = 1; }", "oneof x { int32 a = 1; int32 b = 2; }", &["ONEOF_FIELD_REMOVED"]),
        (
            "oneof x { int32 a = 1; int32 b = 2; }",
            "int32 a = 1; int32 b = 2;",
            &["FIELD_MOVED_TO_EXISTING_ONEOF", "FIELD_MOVED_TO_EXISTING_ONEOF"],
        ),
        ("oneof x { int32 a = 1; int32 b = 2; }", "int32 a = 1;", &[]),
        ("optional int32 a = 1;", "int32 a = 1;", &[]),
        ("", "message N {}", &["MESSAGE_REMOVED"]),
        (
            "message N {} N a = 1;",
            "message N {} message O {} O a = 1;",
            &["FIELD_NAMED_TYPE_CHANGED", "MESSAGE_REMOVED"],
        ),
    ];
    for (reader, writer, wanted) in cases {
        let found = misfits(&parse(&message(reader)), &parse(&message(writer)));
        let found: Vec<_> = found.iter().map(|misfit| misfit.kind).collect();
        assert_eq!(found, *wanted, "reader {reader}, writer {writer}");
    }
    let other = message("").replace("package p", "package q");
    assert_eq!(misfits(&parse(&other), &parse(&message("")))[0].kind, "PACKAGE_CHANGED");
    let required = |body: &str| parse(&format!("syntax = \"proto2\"; message M {{ {body} }}"));
    let kinds =
        |reader: &Schema, writer: &Schema| misfits(reader, writer).iter().map(|misfit| misfit.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&required("required int32 a = 1;"), &required("")), ["REQUIRED_FIELD_ADDED"]);
    assert_eq!(kinds(&required(""), &required("required int32 a = 1;")), ["REQUIRED_FIELD_REMOVED"]);
}

#[test]
fn spaces_and_comments_mean_nothing() {
    let plain = parse("syntax = \"proto3\"; message M { int32 a = 1; }");
    let said = parse("// what it is\nsyntax = \"proto3\";\n\nmessage M {\n  int32 a = 1; // a number\n}\n");
    assert_eq!(plain.identity, said.identity);
    assert_ne!(plain.identity, parse("syntax = \"proto3\"; message M { int32 b = 1; }").identity);
}

/// Python's client sends files as bytes in Base64; others want a text.
#[test]
fn files_in_base64_become_texts_that_mean_the_same() {
    let proto = r#"syntax = "proto3"; package shop.v1; import "google/protobuf/timestamp.proto";
        message Order {
          message Line { string sku = 1; uint32 count = 2; }
          enum State { UNKNOWN = 0; PAID = 1; reserved 5, 9 to max; reserved "OLD"; }
          int64 id = 1; optional string note = 2; repeated Line lines = 3; map<string, Line> by_sku = 4;
          google.protobuf.Timestamp at = 5; State state = 6;
          oneof payment { string card = 7; Line voucher = 8; }
          repeated int32 raw = 9 [packed = false]; double price = 10 [deprecated = true];
          reserved 20 to 25, 30 to max; reserved "gone";
        }
        message Empty {}"#;
    let two = r#"syntax = "proto2"; enum E { option allow_alias = true; A = 1; B = 1; }
        message M { required int32 a = 1 [default = -7]; optional string b = 2 [default = "x\"\\y\n"]; optional E e = 3 [default = B];
          optional bytes c = 4 [default = "\001\"z"]; optional double d = 5 [default = inf]; repeated M all = 6; }"#;
    for text in [proto, two] {
        let schema = parse(text);
        let sent = STANDARD.encode(schema.descriptor().unwrap());
        let read = parse(&sent);
        assert!(read.text.starts_with("syntax = "), "{}", read.text);
        assert_eq!(read.identity, schema.identity, "{}", read.text);
        // And once more, from the text.
        assert_eq!(parse(&read.text).identity, schema.identity);
    }
    for bad in ["", "syntax = \"proto3\";", "message {", "AAAA", "syntax = \"proto3\"; message M { N n = 1; }"] {
        assert!(Schema::parse(Kind::Protobuf, bad, &[]).is_err(), "{bad}");
    }
}

#[test]
fn imports_are_references() {
    let place = (
        "geo/place.proto".to_owned(),
        "syntax = \"proto3\"; package geo; message Place { string zip = 1; }".to_owned(),
    );
    let order = "syntax = \"proto3\"; import \"geo/place.proto\"; message Order { geo.Place at = 1; }";
    assert!(Schema::parse(Kind::Protobuf, order, &[]).is_err());
    let whole = Schema::parse(Kind::Protobuf, order, std::slice::from_ref(&place)).unwrap();
    let sent = STANDARD.encode(whole.descriptor().unwrap());
    assert_eq!(Schema::parse(Kind::Protobuf, &sent, &[place]).unwrap().identity, whole.identity);
}
