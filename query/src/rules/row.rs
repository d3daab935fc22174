//! One expression over rows that come from no table: what ingestion's CHECK constraints and transforms say means what it means in a query.

use std::sync::Arc;

use datafusion::{
    common::{DFSchemaRef, DataFusionError},
    execution::SessionState,
    logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder},
    sql::{
        parser::Statement as DfStatement,
        planner::{PlannerContext, SqlToRel},
        sqlparser::ast::{Expr as SqlExpr, SelectItem, SetExpr, Statement},
    },
};
use futures::FutureExt;

use super::{forms, names, settle, syntax};
use crate::SqlError;

/// The expression with its names resolved, its types made to fit and PostgreSQL's casts and checks in it.
pub(crate) fn expression(state: &SessionState, schema: &DFSchemaRef, expression: SqlExpr) -> Result<Expr, SqlError> {
    let text = expression.to_string();
    let located = |error: DataFusionError| SqlError::from_datafusion(&error, &text);
    let mut statement = select(expression)?;
    syntax::rewrite(&mut statement);
    forms::rewrite(&mut statement)?;
    crate::pg_catalog::rewrite(&mut statement, &text);
    let wanted = selected(&statement).ok_or_else(|| not_one(&text))?;
    let statement = DfStatement::Statement(Box::new(statement));
    // Tables are looked up in subqueries only, which rows without a table have not.
    let context = names::Names::resolve(&[], state, &statement).now_or_never().ok_or_else(|| not_one(&text))??;
    let planner = SqlToRel::new_with_options(&context, context.parser_options());
    let expr = planner.sql_to_expr(wanted, schema, &mut PlannerContext::new()).map_err(located)?;
    let rows = EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) };
    let plan = LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(rows))
        .project([expr.alias("value")])
        .and_then(LogicalPlanBuilder::build)
        .map_err(located)?;
    match settle(plan, state, &[], false, true).map_err(located)? {
        LogicalPlan::Projection(mut projection)
            if projection.expr.len() == 1 && matches!(*projection.input, LogicalPlan::EmptyRelation(_)) =>
        {
            Ok(projection.expr.remove(0).unalias_nested().data)
        }
        _ => Err(not_one(&text)),
    }
}

fn not_one(text: &str) -> SqlError {
    SqlError::not_supported(format!("{text} as an expression over one row"))
}

/// `SELECT expression`.
fn select(expression: SqlExpr) -> Result<Statement, SqlError> {
    let mut statement =
        crate::parse::parse("SELECT 1")?.pop().ok_or_else(|| SqlError::internal("nothing was parsed"))?;
    if let Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        select.projection = vec![SelectItem::UnnamedExpr(expression)];
    }
    Ok(statement)
}

fn selected(statement: &Statement) -> Option<SqlExpr> {
    let Statement::Query(query) = statement else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => Some(expr.clone()),
        _ => None,
    }
}
