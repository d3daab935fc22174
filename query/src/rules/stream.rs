//! A query over sources instead of tables: what a pipeline's SELECT says means what it means in a query.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::DataFusionError,
    execution::SessionState,
    logical_expr::{LogicalPlan, ScalarUDF, registry::FunctionRegistry},
    sql::{
        parser::Statement as DfStatement,
        planner::SqlToRel,
        sqlparser::ast::{Query, Statement},
    },
};

use super::{chains, forms, lateral, names, row_functions, settle, storable, syntax};
use crate::SqlError;

/// The plan with its names resolved among `sources` (name, columns), its types made to fit and PostgreSQL's casts and checks in it. It is not optimized.
/// `functions` are known beside those of queries.
pub(crate) fn query(
    state: &SessionState,
    sources: &[(String, SchemaRef)],
    functions: &[Arc<ScalarUDF>],
    query: Query,
) -> Result<LogicalPlan, SqlError> {
    let text = query.to_string();
    let located = |error: DataFusionError| {
        // The text is a printed one: positions in it say nothing to the user.
        SqlError { position: None, ..SqlError::from_datafusion(&error, &text) }
    };
    let mut state = state.clone();
    for function in functions {
        state.register_udf(Arc::clone(function)).map_err(located)?;
    }
    let mut statement = Statement::Query(Box::new(query));
    syntax::rewrite(&mut statement);
    forms::rewrite(&mut statement)?;
    let known =
        row_functions::Known { is_relation: &|name| state.table_functions().contains_key(name), columns: &|_| None };
    row_functions::rewrite(&mut statement, known)?;
    crate::pg_catalog::rewrite(&mut statement, &text);
    chains::gather(&mut statement);
    let context = names::Names::of_sources(&state, sources);
    let plan = SqlToRel::new_with_options(&context, context.parser_options())
        .statement_to_plan(DfStatement::Statement(Box::new(statement)))
        .map_err(located)?;
    let plan = lateral::unfold(plan).map_err(located)?;
    let plan = settle(plan, &state, &[], false, true).map_err(located)?;
    storable(plan).map_err(located)
}
