use arrow::datatypes::DataType as Arrow;
use datafusion::{
    logical_expr::{cast, col, lit, not},
    scalar::ScalarValue,
};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    schema::TableSchema,
};

use super::*;

fn schema() -> TableSchema {
    let columns = [
        ("small", DataType::SmallInt),
        ("id", DataType::BigInt),
        ("price", DataType::Numeric { precision: 10, scale: 2 }),
        ("city", DataType::Text),
        ("ok", DataType::Boolean),
        ("at", DataType::TimestampTz),
        ("key", DataType::Uuid),
        ("half", DataType::Real),
    ];
    TableSchema {
        version: SchemaVersion(1),
        columns: columns
            .into_iter()
            .enumerate()
            .map(|(id, (name, data_type))| Column::new(ColumnId(id as u32), name, data_type))
            .collect(),
        time_column: None,
    }
}

fn shown(expr: Expr) -> Option<String> {
    let schema = schema();
    let predicate = predicate(&expr, &schema, None)?;
    let mut out = String::new();
    crate::exec::display::predicate(&mut out, &predicate, &schema).unwrap();
    Some(out)
}

#[test]
fn not_is_pushed_to_the_leaves() {
    let both = col("id").gt(lit(5i64)).and(col("city").eq(lit("x")));
    assert_eq!(shown(not(both.clone())).unwrap(), "(id <= 5 OR city <> 'x')");
    assert_eq!(shown(not(not(both))).unwrap(), "id > 5 AND city = 'x'");
    assert_eq!(shown(not(col("ok"))).unwrap(), "ok = false");
    assert_eq!(shown(not(col("id").between(lit(1i64), lit(3i64)))).unwrap(), "(id < 1 OR id > 3)");
    assert_eq!(shown(not(col("city").is_null())).unwrap(), "city IS NOT NULL");
}

#[test]
fn null_in_a_list_is_minded() {
    let null = lit(ScalarValue::Int64(None));
    assert_eq!(shown(col("id").in_list(vec![lit(1i64), null.clone()], false)).unwrap(), "id IN (1)");
    assert_eq!(shown(col("id").in_list(vec![lit(1i64), null.clone()], true)), None);
    assert_eq!(shown(not(col("id").in_list(vec![lit(1i64), null], false))), None);
}

#[test]
fn values_that_the_column_cannot_hold_stay_above() {
    assert_eq!(shown(col("small").eq(lit(40_000i64))), None);
    assert_eq!(shown(col("price").eq(lit(ScalarValue::Decimal128(Some(12_345), 10, 3)))), None);
    assert_eq!(shown(col("price").eq(lit(ScalarValue::Decimal128(Some(12_340), 10, 3)))).unwrap(), "price = 12.34");
    assert_eq!(shown(col("half").gt(lit(0.1f64))), None);
    assert_eq!(shown(cast(col("half"), Arrow::Float64).gt(lit(0.5f64))).unwrap(), "half > 0.5");
    assert_eq!(shown(cast(col("id"), Arrow::Int32).eq(lit(5i32))), None);
    assert_eq!(shown(col("at").gt(lit(ScalarValue::TimestampMicrosecond(Some(1), None)))), None);
    assert_eq!(shown(col("key").eq(lit("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"))), None);
    assert_eq!(shown(col("id").eq(lit(1i64)).or(col("id").eq(col("small")))), None);
}

#[test]
fn finer_timestamps_are_taken_when_nothing_is_lost() {
    let at = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
    assert_eq!(shown(col("at").lt(at(1_000_000_000))).unwrap(), "at < '1970-01-01 00:00:01'");
    assert_eq!(shown(col("at").lt(at(1))), None);
}
