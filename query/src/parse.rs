//! SQL text into statements, in PostgreSQL's dialect.

use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{ast::Statement, dialect::PostgreSqlDialect, parser::Parser},
};

use crate::SqlError;

/// How deeply expressions and subqueries may nest.
const NESTING_MAX: usize = 50;

/// The statements of `sql`, which may be none. Tidemill's own statements are parsed by the server before it comes here.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let dialect = PostgreSqlDialect {};
    Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .try_with_sql(sql)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| SqlError::from_datafusion(&DataFusionError::SQL(Box::new(error), None), sql))
}
