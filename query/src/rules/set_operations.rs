//! INTERSECT ALL and EXCEPT ALL as PostgreSQL counts: of a row that is m times on the left and n times on the right, the first gives
//! min(m, n) and the second max(m − n, 0).
//!
//! The planner makes both a semi or anti join, which asks only whether there is such a row on the right: `VALUES (2), (2) INTERSECT ALL
//! VALUES (2)` gave two rows. Here the copies of a row are numbered on both sides, and the number is one more thing that must be equal.

use datafusion::{
    common::{Column, JoinType, NullEquality, tree_node::Transformed},
    error::DataFusionError,
    functions_window::expr_fn::row_number,
    logical_expr::{Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder},
};

/// Numbers the copies where an ALL asks for it.
pub(crate) fn count_copies(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if is_all(&join) => Ok(Transformed::yes(with_copies(join)?)),
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

/// Set operations are the only semi and anti joins that there are at this stage, and those without ALL have no copies on their left.
fn is_all(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn with_copies(join: Join) -> Result<LogicalPlan, DataFusionError> {
    let columns = join.left.schema().columns();
    let (left, left_keys) = numbered(&join.left, "tidemill_copy")?;
    let (right, right_keys) = numbered(&join.right, "tidemill_copy_right")?;
    LogicalPlanBuilder::from(left)
        .join_detailed(right, join.join_type, (left_keys, right_keys), None, NullEquality::NullEqualsNull)?
        .project(columns.into_iter().map(Expr::Column))?
        .build()
}

/// `side` with one more column, `name`: 1 for the first row of its kind, 2 for the next. And all its columns.
fn numbered(side: &LogicalPlan, name: &str) -> Result<(LogicalPlan, Vec<Column>), DataFusionError> {
    let columns = side.schema().columns();
    let exprs: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
    let number = row_number().partition_by(exprs.clone()).build()?;
    let shown = Expr::Column(Column::from_name(number.schema_name().to_string())).alias(name);
    let plan = LogicalPlanBuilder::from(side.clone())
        .window(vec![number])?
        .project(exprs.into_iter().chain([shown]))?
        .build()?;
    let keys = columns.into_iter().chain([Column::from_name(name)]).collect();
    Ok((plan, keys))
}
