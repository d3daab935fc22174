//! What becomes of rows on their way from a source to a table.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray},
    datatypes::SchemaRef,
};
use datafusion::{execution::SessionState, prelude::SessionContext};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion, StreamId},
    scalar::Scalar,
    schema::{Column, DataType, TableSchema},
};

use super::*;
use crate::{
    Error,
    decode::{SourceColumn, source_schema},
    message::SourceBatch,
};

fn state() -> SessionState {
    SessionContext::new().state()
}

fn source() -> SchemaRef {
    source_schema(&[
        SourceColumn::new("id", DataType::BigInt, true),
        SourceColumn::new("n", DataType::Int, true),
        SourceColumn::new("price", DataType::Double, true),
        SourceColumn::new("city", DataType::Text, true),
        SourceColumn::new("doc", DataType::Jsonb, true),
    ])
}

fn table(columns: &[(&str, DataType, bool)]) -> TableSchema {
    let columns = columns.iter().enumerate().map(|(at, (name, data_type, nullable))| Column {
        nullable: *nullable,
        ..Column::new(ColumnId(at as u32), (*name).to_owned(), data_type.clone())
    });
    TableSchema { version: SchemaVersion(1), columns: columns.collect(), time_column: None }
}

/// Three rows at offsets 10, 20, 30.
fn batch() -> SourceBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, i64::MAX, 3])),
        Arc::new(Int32Array::from(vec![Some(0), Some(2), None])),
        Arc::new(Float64Array::from(vec![1.5, -2.0, 0.0])),
        Arc::new(StringViewArray::from(vec![Some("Rome"), Some("BERN"), None])),
        Arc::new(StringViewArray::from(vec![Some("{\"a\": 1}"), None, Some("3")])),
    ];
    SourceBatch {
        stream: StreamId::default(),
        rows: RecordBatch::try_new(source(), columns).unwrap(),
        row_offsets: vec![10, 20, 30],
        from: 10,
        to: 31,
        newest_timestamp_ms: -1,
        rejects: vec![],
        origin: None,
    }
}

fn compile(select: &str, target: &TableSchema) -> crate::Result<Transform> {
    Transform::compile(&state(), &source(), Some(select), target)
}

fn refusal(select: &str, target: &TableSchema) -> String {
    match compile(select, target) {
        Err(Error::Definition { message, .. } | Error::Expression { message, .. }) => message,
        other => panic!("{select} should be refused: {other:?}"),
    }
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    (0..batch.num_rows()).map(|row| row_json::row_json(batch, row)).collect()
}

#[test]
fn derives_replaces_and_filters() {
    let target = table(&[
        ("city", DataType::Text, true),
        ("id", DataType::BigInt, false),
        ("twice", DataType::Double, true),
        ("later", DataType::Int, true),
    ]);
    for select in [
        "SELECT *, lower(city) AS city, price * 2 AS twice WHERE price > 0 OR city IS NULL",
        "select lower(city) as city, *, price * 2 AS twice where price > 0 OR city IS NULL",
    ] {
        let made = compile(select, &target).unwrap().apply(&batch());
        assert_eq!(
            rows(&made.rows),
            [
                r#"{"city": "rome", "id": 1, "twice": 3.0, "later": null}"#,
                r#"{"city": null, "id": 3, "twice": 0.0, "later": null}"#
            ]
        );
        assert_eq!(made.rows.schema(), target.arrow());
        assert_eq!(made.row_offsets, [10, 30]);
        assert_eq!(made.rejects, []);
    }
}

#[test]
fn without_select_columns_go_by_name_and_defaults_fill_in() {
    let mut target =
        table(&[("added", DataType::Int, false), ("price", DataType::Double, true), ("n", DataType::BigInt, true)]);
    target.columns[0].default = Some(Scalar::Int(7));
    let made = Transform::compile(&state(), &source(), None, &target).unwrap().apply(&batch());
    assert_eq!(made.row_offsets, [10, 20, 30]);
    assert_eq!(rows(&made.rows)[1], r#"{"added": 7, "price": -2.0, "n": 2}"#);
    target.columns[0].default = None;
    let error = Transform::compile(&state(), &source(), None, &target).unwrap_err();
    assert!(error.to_string().contains("column \"added\" is NOT NULL"), "{error}");
}

#[test]
fn rows_that_cannot_be_computed_are_rejects() {
    let target = table(&[("id", DataType::BigInt, true), ("n", DataType::Int, true)]);
    for (select, kept, reason) in [
        ("SELECT id + 1 AS id, n", &[10u64, 30][..], "out of range"),
        ("SELECT id * 2 AS id, n", &[10, 30], "out of range"),
        ("SELECT -(-id - 2) AS id, n", &[10, 30], "out of range"),
        ("SELECT id, 10 / n AS n", &[20, 30], "division by zero"),
        ("SELECT id AS n", &[10, 30], "column \"n\" (integer)"),
        ("SELECT id, CAST(city AS INT) AS n", &[30], "Rome"),
        ("SELECT id WHERE 10 / n > 1", &[20], "division by zero"),
    ] {
        let made = compile(select, &target).unwrap().apply(&batch());
        assert_eq!(made.row_offsets, kept, "{select}");
        let rejected: Vec<u64> = made.rejects.iter().map(|reject| reject.offset).collect();
        assert!(rejected.iter().all(|offset| !kept.contains(offset)) && !rejected.is_empty(), "{select}: {rejected:?}");
        assert!(made.rejects[0].reason.contains(reason), "{select}: {}", made.rejects[0].reason);
        assert!(made.rejects[0].raw.starts_with(b"{\"id\": "), "{select}");
    }
}

#[test]
fn negation_does_not_wrap() {
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![i64::MIN, 5]))];
    let schema = source_schema(&[SourceColumn::new("id", DataType::BigInt, true)]);
    let batch = SourceBatch {
        rows: RecordBatch::try_new(Arc::clone(&schema), columns).unwrap(),
        row_offsets: vec![1, 2],
        ..batch()
    };
    let target = table(&[("id", DataType::BigInt, true)]);
    let made = Transform::compile(&state(), &schema, Some("SELECT -id AS id"), &target).unwrap().apply(&batch);
    assert_eq!(rows(&made.rows), [r#"{"id": -5}"#]);
    assert_eq!(made.rejects.len(), 1);
}

#[test]
fn the_condition_shields_the_items() {
    let target = table(&[("n", DataType::Int, true)]);
    let made = compile("SELECT 10 / n AS n WHERE n <> 0", &target).unwrap().apply(&batch());
    assert_eq!((made.row_offsets, made.rejects), (vec![20], vec![]));
}

#[test]
fn null_in_not_null_columns_is_a_reject() {
    let target = table(&[("n", DataType::Int, false), ("id", DataType::BigInt, true)]);
    let made = compile("SELECT * WHERE id <> 1", &target).unwrap().apply(&batch());
    assert_eq!(made.row_offsets, [20]);
    assert_eq!(made.rejects.len(), 1);
    assert_eq!((made.rejects[0].offset, made.rejects[0].column.as_deref()), (30, Some("n")));
    assert_eq!(made.rejects[0].raw, r#"{"id": 3, "n": null, "price": 0.0, "city": null, "doc": 3}"#.as_bytes());
}

#[test]
fn types_widen_but_never_narrow() {
    use DataType::*;
    for (select, target, wanted) in [
        ("SELECT n AS x", BigInt, Some("0")),
        ("SELECT n AS x", Double, Some("0.0")),
        ("SELECT n AS x", Numeric { precision: 12, scale: 2 }, Some("0.00")),
        ("SELECT 5 AS x", SmallInt, Some("5")),
        ("SELECT '5' AS x", SmallInt, Some("5")),
        ("SELECT '2024-02-29' AS x", TimestampTz, Some("\"2024-02-29T00:00:00Z\"")),
        ("SELECT NULL AS x", Date, Some("null")),
        ("SELECT '{\"b\":1,\"a\":2}' AS x", Jsonb, Some("{\"a\": 2, \"b\": 1}")),
        ("SELECT doc AS x", Text, Some("\"{\\\"a\\\": 1}\"")),
        ("SELECT price AS x", BigInt, None),
        ("SELECT price AS x", Real, None),
        ("SELECT price AS x", Numeric { precision: 12, scale: 2 }, None),
        ("SELECT city AS x", BigInt, None),
        ("SELECT n AS x", Text, None),
        ("SELECT 100000 AS x", SmallInt, None),
        ("SELECT 'five' AS x", SmallInt, None),
    ] {
        let table = table(&[("x", target.clone(), true)]);
        match wanted {
            Some(wanted) => {
                let made = compile(select, &table).unwrap().apply(&batch());
                assert_eq!(rows(&made.rows)[0], format!("{{\"x\": {wanted}}}"), "{select} into {target}");
            }
            None => assert!(refusal(select, &table).contains("column \"x\""), "{select} into {target}"),
        }
    }
    let reason = refusal("SELECT price AS x", &table(&[("x", Int, true)]));
    assert_eq!(reason, "column \"x\" is of type integer but expression is of type double precision");
}

#[test]
fn text_becomes_jsonb_row_by_row() {
    let target = table(&[("doc", DataType::Jsonb, true)]);
    let made = compile("SELECT '[' || city || ']' AS doc", &target).unwrap().apply(&batch());
    assert_eq!(made.row_offsets, [30]);
    assert_eq!(made.rejects.len(), 2);
}

#[test]
fn what_a_transform_cannot_be() {
    let target = table(&[("id", DataType::BigInt, true), ("n", DataType::Int, true)]);
    for (select, reason) in [
        ("SELECT count(*) AS n", "aggregate count()"),
        ("SELECT row_number() OVER () AS n", "window function"),
        ("SELECT (SELECT 1) AS n", "subquery"),
        ("SELECT CAST(random() AS INT) AS n", "random()"),
        ("SELECT id WHERE now() > TIMESTAMP '2024-01-01'", "now()"),
        ("SELECT id FROM t", "has no FROM"),
        ("SELECT id GROUP BY id", "SELECT items [WHERE condition]"),
        ("SELECT DISTINCT id", "SELECT items [WHERE condition]"),
        ("SELECT id LIMIT 1", "SELECT items [WHERE condition]"),
        ("SELECT id UNION SELECT 2", "UNION"),
        ("DROP TABLE t", "SELECT items [WHERE condition]"),
        ("SELECT id + 1", "has no name"),
        ("SELECT id + 1 AS other", "\"other\", which the table does not have"),
        ("SELECT id, id + 1 AS id", "twice"),
        ("SELECT nothing AS id", "nothing"),
        ("SELECT id WHERE id", "not boolean"),
        ("SELECT id WHERE", "cannot read"),
        ("SELECT no_such_function(id) AS id", "no_such_function"),
    ] {
        let found = refusal(select, &target);
        assert!(found.contains(reason), "{select}: {found}");
    }
}

#[test]
fn rows_of_an_older_schema_are_brought_into_the_newer() {
    let mut target =
        table(&[("id", DataType::BigInt, true), ("n", DataType::BigInt, true), ("added", DataType::Int, false)]);
    target.columns[2].default = Some(Scalar::Int(7));
    let transform = Transform::compile(&state(), &target.arrow(), None, &target).unwrap();
    let made = transform.apply(&batch());
    assert_eq!(rows(&made.rows)[1], format!("{{\"id\": {}, \"n\": 2, \"added\": 7}}", i64::MAX));
}

#[test]
fn checks_reject_what_is_false_and_pass_null() {
    let checks =
        [("positive".to_owned(), "n > 0".to_owned()), ("cheap".to_owned(), "price < 1 AND 10 / n < 100".to_owned())];
    let checks = Checks::compile(&state(), &source(), &checks).unwrap();
    let checked = checks.apply(batch());
    assert_eq!(checked.row_offsets, [20, 30]);
    assert_eq!(checked.rows.num_rows(), 2);
    assert_eq!(checked.rejects.len(), 1);
    assert_eq!(checked.rejects[0].reason, "row violates check constraint \"positive\"");

    let none = Checks::compile(&state(), &source(), &[]).unwrap().apply(batch());
    assert_eq!((none.rows.num_rows(), none.rejects.len()), (3, 0));

    let broken =
        Checks::compile(&state(), &source(), &[("c".to_owned(), "10 / n > 0".to_owned())]).unwrap().apply(batch());
    assert_eq!(broken.row_offsets, [20, 30]);
    assert_eq!(broken.rejects[0].reason, "check constraint \"c\" cannot be computed: division by zero");

    for bad in ["n + 1", "nothing > 1", "n >", "sum(n) > 1"] {
        assert!(Checks::compile(&state(), &source(), &[("c".to_owned(), bad.to_owned())]).is_err(), "{bad}");
    }
}

#[test]
fn empty_batches_stay_empty() {
    let mut empty = batch();
    empty.rows = RecordBatch::new_empty(source());
    empty.row_offsets = vec![];
    let target = table(&[("id", DataType::BigInt, true)]);
    let made = compile("SELECT id WHERE id > 0", &target).unwrap().apply(&empty);
    assert_eq!((made.rows.num_rows(), made.rows.schema()), (0, target.arrow()));
}

/// Rejects of checks and transforms had no time (-1) and a row written anew instead of the message.
#[test]
fn a_reject_has_the_time_and_the_bytes_of_its_message() {
    let raw = [r#"{"a":1,  "b":0}"#, r#"{"a":2,  "b":2}"#, r#"{"a":3}"#];
    let mut payloads = Vec::new();
    let messages = raw
        .iter()
        .zip([10, 20, 30])
        .map(|(raw, offset)| {
            let start = payloads.len() as u32;
            payloads.extend_from_slice(raw.as_bytes());
            let payload = start..payloads.len() as u32;
            crate::message::Message { payload, is_null: false, offset, timestamp_ms: 1000 + offset as i64 }
        })
        .collect();
    let mut batch = batch();
    batch.origin =
        Some(crate::message::MessageBatch { partition: 0, payloads: payloads.into(), messages, from: 10, to: 31 });
    let checks = Checks::compile(&state(), &source(), &[("small".into(), "id < 5".into())]).unwrap();
    let checked = checks.apply(batch.clone());
    assert_eq!(checked.rejects.len(), 1);
    assert_eq!((checked.rejects[0].offset, checked.rejects[0].timestamp_ms), (20, 1020));
    assert_eq!(checked.rejects[0].raw, raw[1].as_bytes());

    // Two rows of one message: it is not told which of them the message is.
    batch.row_offsets = vec![10, 20, 20];
    let reject = &checks.apply(batch).rejects[0];
    assert_eq!(reject.timestamp_ms, 1020);
    assert!(reject.raw.starts_with(br#"{"id": 9223372036854775807"#), "{:?}", reject.raw);
}
