//! The rules of queries for ingestion's expressions: a CHECK or a transform means what the same words mean in a query.

use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{DFSchemaRef, DataFusionError},
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, ScalarUDF},
    sql::sqlparser::ast,
};
use tidemill_ingest::pipeline::{Misunderstood, Rules};
use tidemill_query::{Engine, SessionOptions, SqlError, functions::user::is_user_function};

use crate::{Transforms, session::error::state};

/// [`Rules`] by the query engine.
#[derive(Debug)]
pub struct QueryRules {
    /// The engine holds the instance, which holds these rules.
    engine: Weak<Engine>,
    state: SessionState,
    transforms: Transforms,
}

impl QueryRules {
    pub fn new(engine: &Arc<Engine>, transforms: Transforms) -> Self {
        Self { engine: Arc::downgrade(engine), state: engine.session(options()).expression_state(), transforms }
    }
}

fn options() -> SessionOptions {
    SessionOptions { user: "tidemill".into(), ..SessionOptions::default() }
}

impl Rules for QueryRules {
    fn state(&self) -> &SessionState {
        &self.state
    }

    fn plan(&self, expression: ast::Expr, schema: &DFSchemaRef) -> Result<Expr, Misunderstood> {
        let Some(engine) = self.engine.upgrade() else {
            return Err(Misunderstood { state: state::ADMIN_SHUTDOWN, message: "the server is shutting down".into() });
        };
        let planned = engine.session(options()).row_expression(expression, schema);
        planned.map_err(|error| Misunderstood { state: error.sqlstate, message: error.message })
    }

    fn query(
        &self,
        query: ast::Query,
        sources: &[(String, SchemaRef)],
        functions: &[Arc<ScalarUDF>],
    ) -> Result<LogicalPlan, Misunderstood> {
        let Some(engine) = self.engine.upgrade() else {
            return Err(Misunderstood { state: state::ADMIN_SHUTDOWN, message: "the server is shutting down".into() });
        };
        let planned = engine.session(options()).source_query(query, sources, functions);
        planned.map_err(|error| Misunderstood { state: error.sqlstate, message: error.message })
    }

    fn transforms(&self) -> &Transforms {
        &self.transforms
    }

    fn reader(&self) -> fn(&DataFusionError) -> String {
        |error| SqlError::from_datafusion(error, "").message
    }

    fn blames_rows(&self) -> fn(&DataFusionError) -> bool {
        |error| SqlError::from_datafusion(error, "").sqlstate != state::QUERY_CANCELED
    }

    fn is_users(&self, function: &ScalarUDF) -> bool {
        is_user_function(function)
    }
}
