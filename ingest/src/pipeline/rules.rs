//! What SQL expressions mean. Queries have rules of their own (how casts round, what overflows); ingestion does not know them, so the server
//! hands them in and a CHECK or a transform answers as a query would.

use std::fmt;

use datafusion::{
    common::{DFSchemaRef, DataFusionError},
    execution::SessionState,
    logical_expr::Expr,
    sql::sqlparser::ast,
};

use super::expression::plain_message;

/// Why an expression means nothing, for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misunderstood {
    /// The SQLSTATE that a query with the expression would fail with.
    pub state: &'static str,
    pub message: String,
}

/// How expressions are understood.
pub trait Rules: fmt::Debug + Send + Sync {
    /// Functions, types and options, for parsing and for making expressions physical.
    fn state(&self) -> &SessionState;

    /// The expression over rows of `schema`: names resolved, types as they should be.
    fn plan(&self, expression: ast::Expr, schema: &DFSchemaRef) -> Result<Expr, Misunderstood>;

    /// Says for a user what an expression failed with.
    fn reader(&self) -> fn(&DataFusionError) -> String;
}

/// DataFusion's own rules.
impl Rules for SessionState {
    fn state(&self) -> &SessionState {
        self
    }

    fn plan(&self, expression: ast::Expr, schema: &DFSchemaRef) -> Result<Expr, Misunderstood> {
        let with_alias = ast::ExprWithAlias { expr: expression, alias: None };
        self.create_logical_expr_from_sql_expr(with_alias, schema)
            .map_err(|error| Misunderstood { state: "22023", message: plain_message(&error) })
    }

    fn reader(&self) -> fn(&DataFusionError) -> String {
        plain_message
    }
}
