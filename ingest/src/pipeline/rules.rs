//! What SQL expressions mean. Queries have rules of their own (how casts round, what overflows); ingestion does not know them, so the server
//! hands them in and a CHECK or a transform answers as a query would.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
        SchemaProvider,
    },
    common::{DFSchemaRef, DataFusionError},
    datasource::empty::EmptyTable,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{Expr, LogicalPlan, ScalarUDF, registry::FunctionRegistry},
    sql::{parser::Statement, sqlparser::ast},
};
use futures::FutureExt;

use super::{expression::plain_message, plugin::Transforms};

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

    /// A query over sources (name, columns), which are all the relations that it can name: names resolved, types as they should be, nothing optimized.
    /// `functions` are known beside the state's.
    fn query(
        &self,
        query: ast::Query,
        sources: &[(String, SchemaRef)],
        functions: &[Arc<ScalarUDF>],
    ) -> Result<LogicalPlan, Misunderstood>;

    /// What `transform(TABLE source)` in FROM may be.
    fn transforms(&self) -> &Transforms {
        static NONE: LazyLock<Transforms> = LazyLock::new(Transforms::default);
        &NONE
    }

    /// Says for a user what an expression failed with.
    fn reader(&self) -> fn(&DataFusionError) -> String;

    /// Whether a row is to blame for what an expression failed with; if not, it is tried again.
    fn blames_rows(&self) -> fn(&DataFusionError) -> bool {
        |_| true
    }

    /// Whether a user made the function, so that it may take long.
    fn is_users(&self, _: &ScalarUDF) -> bool {
        false
    }
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

    fn query(
        &self,
        query: ast::Query,
        sources: &[(String, SchemaRef)],
        functions: &[Arc<ScalarUDF>],
    ) -> Result<LogicalPlan, Misunderstood> {
        let plan = || {
            let schema = MemorySchemaProvider::new();
            for (name, columns) in sources {
                schema.register_table(name.clone(), Arc::new(EmptyTable::new(Arc::clone(columns))))?;
            }
            let catalog = MemoryCatalogProvider::new();
            let defaults = &self.config_options().catalog;
            catalog.register_schema(&defaults.default_schema, Arc::new(schema))?;
            let catalogs = MemoryCatalogProviderList::new();
            catalogs.register_catalog(defaults.default_catalog.clone(), Arc::new(catalog));
            let mut state =
                SessionStateBuilder::new_from_existing(self.clone()).with_catalog_list(Arc::new(catalogs)).build();
            for function in functions {
                state.register_udf(Arc::clone(function))?;
            }
            let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
            // Tables in memory are found at once.
            let planned = state.statement_to_plan(statement).now_or_never();
            let planned =
                planned.unwrap_or_else(|| Err(DataFusionError::Plan("the query cannot be planned".into())))?;
            state.analyzer().execute_and_check(planned, state.config_options(), |_, _| {})
        };
        plan().map_err(|error| Misunderstood { state: "22023", message: plain_message(&error) })
    }

    fn reader(&self) -> fn(&DataFusionError) -> String {
        plain_message
    }
}
