use datafusion::physical_expr::expressions::{Column, InListExpr, IsNullExpr, lit};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    predicate::CompareOp,
    scalar::Scalar,
    scan::ScanHints,
    schema::{Column as StoredColumn, DataType, TableSchema},
};

use super::*;

fn request() -> ScanRequest {
    let column = |id, name: &str, data_type| StoredColumn::new(ColumnId(id), name, data_type);
    let columns = vec![column(7, "a", DataType::BigInt), column(8, "b", DataType::Text)];
    ScanRequest {
        schema: Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None }),
        projection: vec![ColumnId(8), ColumnId(7)],
        predicate: None,
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    }
}

fn a() -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new("a", 1))
}

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right))
}

fn compare(op: CompareOp, value: i64) -> Predicate {
    Predicate::Compare { column: ColumnId(7), op, value: Scalar::Int(value) }
}

#[test]
fn what_is_not_understood_only_widens() {
    let request = request();
    let above = binary(a(), Operator::Gt, lit(5i64));
    let odd = binary(binary(a(), Operator::Modulo, lit(2i64)), Operator::Eq, lit(1i64));
    assert_eq!(wider(&above, &request), Some(compare(CompareOp::Greater, 5)));
    assert_eq!(wider(&odd, &request), None);
    let and = binary(Arc::clone(&above), Operator::And, Arc::clone(&odd));
    assert_eq!(wider(&and, &request), Some(Predicate::And(vec![compare(CompareOp::Greater, 5)])));
    assert_eq!(wider(&binary(above, Operator::Or, odd), &request), None);
}

#[test]
fn nulls_compare_with_nothing() {
    let request = request();
    let null = lit(ScalarValue::Int64(None));
    assert_eq!(wider(&binary(a(), Operator::Eq, Arc::clone(&null)), &request), Some(never()));
    // But are distinct from something.
    assert_eq!(wider(&binary(a(), Operator::IsDistinctFrom, null), &request), None);
    let is_null: Arc<dyn PhysicalExpr> = Arc::new(IsNullExpr::new(a()));
    assert_eq!(wider(&is_null, &request), Some(Predicate::IsNull { column: ColumnId(7), negated: false }));
}

#[test]
fn a_case_is_any_of_its_branches() {
    let request = request();
    let lane = |n: u64| lit(n);
    let branch = |value: i64| binary(a(), Operator::Eq, lit(value));
    let case = |otherwise| -> Arc<dyn PhysicalExpr> {
        let branches = vec![(lane(0), branch(1)), (lane(1), branch(2))];
        Arc::new(CaseExpr::try_new(Some(lane(1)), branches, Some(otherwise)).unwrap())
    };
    let both = Predicate::Or(vec![compare(CompareOp::Eq, 1), compare(CompareOp::Eq, 2)]);
    assert_eq!(wider(&case(lit(false)), &request), Some(both));
    assert_eq!(wider(&case(lit(true)), &request), None);
}

#[test]
fn a_filter_is_read_again_when_it_has_changed() {
    let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(vec![a()], lit(true)));
    let filters = DynamicFilters::new(vec![Arc::clone(&dynamic) as Arc<dyn PhysicalExpr>], Arc::new(request()));
    assert_eq!(filters.condition(), None);
    let before = filters.version();
    let list: Arc<dyn PhysicalExpr> = Arc::new(
        InListExpr::try_new(a(), vec![lit(3i64), lit(4i64)], false, &request().output_schema().unwrap()).unwrap(),
    );
    dynamic.update(list).unwrap();
    assert_ne!(filters.version(), before);
    let one_of = Predicate::In { column: ColumnId(7), values: vec![Scalar::Int(3), Scalar::Int(4)], negated: false };
    assert_eq!(filters.condition().as_deref(), Some(&Predicate::And(vec![one_of])));
}
