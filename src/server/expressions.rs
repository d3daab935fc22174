//! The rules of queries for ingestion's expressions: a CHECK or a transform means what the same words mean in a query.

use std::sync::{Arc, Weak};

use datafusion::{
    common::{DFSchemaRef, DataFusionError},
    execution::SessionState,
    logical_expr::Expr,
    sql::sqlparser::ast,
};
use tidemill_ingest::pipeline::Rules;
use tidemill_query::{Engine, SessionOptions, SqlError};

/// [`Rules`] by the query engine.
#[derive(Debug)]
pub struct QueryRules {
    /// The engine holds the instance, which holds these rules.
    engine: Weak<Engine>,
    state: SessionState,
}

impl QueryRules {
    pub fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::downgrade(engine), state: engine.session(options()).expression_state() }
    }
}

fn options() -> SessionOptions {
    SessionOptions { user: "tidemill".into(), ..SessionOptions::default() }
}

impl Rules for QueryRules {
    fn state(&self) -> &SessionState {
        &self.state
    }

    fn plan(&self, expression: ast::Expr, schema: &DFSchemaRef) -> Result<Expr, String> {
        let engine = self.engine.upgrade().ok_or("the server is shutting down")?;
        engine.session(options()).row_expression(expression, schema).map_err(|error| error.message)
    }

    fn reader(&self) -> fn(&DataFusionError) -> String {
        |error| SqlError::from_datafusion(error, "").message
    }
}
