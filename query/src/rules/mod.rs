//! From a parsed statement to a logical plan that means what PostgreSQL means.

mod names;
pub mod types;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    execution::SessionState,
    logical_expr::LogicalPlan,
    sql::{parser::Statement as DfStatement, planner::SqlToRel, sqlparser::ast::Statement},
};

use crate::{Plan, Session, SqlError};

/// Plans one statement in `state`.
pub(crate) async fn plan_statement(
    session: &Session,
    state: &SessionState,
    statement: &Statement,
    sql: &str,
    types: &[Option<DataType>],
) -> Result<Plan, SqlError> {
    let located = |error| SqlError::from_datafusion(&error, sql);
    let _ = (session, types);
    let mut statement = statement.clone();
    crate::pg_catalog::rewrite(&mut statement, sql);
    let statement = DfStatement::Statement(Box::new(statement));
    let context = names::Names::resolve(session, state, &statement).await?;
    let logical =
        SqlToRel::new_with_options(&context, context.parser_options()).statement_to_plan(statement).map_err(located)?;
    finish(logical, sql)
}

fn finish(logical: LogicalPlan, sql: &str) -> Result<Plan, SqlError> {
    let parameters = Plan::open_parameters(&logical)?;
    let fields: Vec<Field> = logical.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let origins = vec![None; fields.len()];
    Ok(Plan {
        sql: sql.into(),
        logical: Arc::new(logical),
        schema: Arc::new(Schema::new(fields)),
        parameters,
        origins,
        explain: None,
        insert_into: None,
    })
}
