//! What a name in a statement stands for: tables along the search path, functions, types.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    catalog::TableFunctionArgs,
    common::{DFSchema, TableReference},
    config::ConfigOptions,
    datasource::{cte_worktable::CteWorkTable, provider_as_source},
    error::DataFusionError,
    execution::SessionState,
    logical_expr::{
        AggregateUDF, Expr, HigherOrderUDF, LogicalTableSource, ScalarUDF, TableSource, WindowUDF,
        planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner},
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    sql::{parser::Statement, planner::ParserOptions},
};

use crate::{
    SqlError,
    catalog::{DATABASE, PUBLIC, RETURNED, ROWS},
    error::nearest,
    table::{StoredTable, returned::ReturnedTable},
};

/// The names of one statement, looked up before it is planned.
pub(crate) struct Names<'a> {
    state: &'a SessionState,
    tables: HashMap<TableReference, Arc<dyn TableSource>>,
    near: HashMap<String, String>,
}

impl<'a> Names<'a> {
    pub(crate) async fn resolve(
        path: &[String],
        state: &'a SessionState,
        statement: &Statement,
    ) -> Result<Self, SqlError> {
        let mut names = Self { state, tables: HashMap::new(), near: HashMap::new() };
        let database = state.catalog_list().catalog(DATABASE);
        for reference in state.resolve_table_references(statement)? {
            if let Some(asked) = reference.catalog()
                && asked != DATABASE
            {
                return Err(SqlError::not_supported(format!("cross-database reference to {reference}")));
            }
            let schemas: Vec<String> = match reference.schema() {
                Some(schema) => vec![schema.to_owned()],
                None => path.to_vec(),
            };
            if let Some(own @ (ROWS | RETURNED)) = reference.schema() {
                let schema = database.as_ref().and_then(|database| database.schema(PUBLIC));
                if let Some(table) = match schema {
                    Some(schema) => schema.table(reference.table()).await?,
                    None => None,
                } && let Some(stored) = table.downcast_ref::<StoredTable>()
                {
                    let source = match own {
                        ROWS => provider_as_source(Arc::new(stored.addressed())),
                        _ => provider_as_source(Arc::new(ReturnedTable {
                            stored: StoredTable::new(stored.handle().clone()),
                        })),
                    };
                    names.tables.insert(reference.clone(), source);
                }
                continue;
            }
            for name in &schemas {
                let Some(schema) = database.as_ref().and_then(|database| database.schema(name)) else { continue };
                if let Some(table) = schema.table(reference.table()).await? {
                    names.tables.insert(reference.clone(), provider_as_source(table));
                    break;
                }
            }
            if !names.tables.contains_key(&reference) {
                let known = schemas
                    .iter()
                    .filter_map(|name| database.as_ref()?.schema(name))
                    .flat_map(|schema| schema.table_names())
                    .collect::<Vec<_>>();
                if let Some(near) = nearest(reference.table(), known.iter().map(String::as_str)) {
                    names.near.insert(reference.to_string(), near.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// Sources (name, columns) are all the relations that there are.
    pub(crate) fn of_sources(state: &'a SessionState, sources: &[(String, SchemaRef)]) -> Self {
        let mut tables: HashMap<TableReference, Arc<dyn TableSource>> = HashMap::new();
        for (name, schema) in sources {
            let source: Arc<dyn TableSource> = Arc::new(LogicalTableSource::new(Arc::clone(schema)));
            tables.insert(TableReference::partial(PUBLIC, name.as_str()), Arc::clone(&source));
            tables.insert(TableReference::bare(name.as_str()), source);
        }
        Self { state, tables, near: HashMap::new() }
    }

    pub(crate) fn parser_options(&self) -> ParserOptions {
        let options = &self.state.config_options().sql_parser;
        ParserOptions {
            parse_float_as_decimal: options.parse_float_as_decimal,
            enable_ident_normalization: options.enable_ident_normalization,
            enable_options_value_normalization: options.enable_options_value_normalization,
            support_varchar_with_length: options.support_varchar_with_length,
            map_string_types_to_utf8view: options.map_string_types_to_utf8view,
            collect_spans: options.collect_spans,
            default_null_ordering: options.default_null_ordering.as_str().into(),
        }
    }
}

impl ContextProvider for Names<'_> {
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(super::types::PostgresTypes))
    }

    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>, DataFusionError> {
        self.tables.get(&name).cloned().ok_or_else(|| {
            let error = SqlError::undefined_table(&name.to_string());
            match self.near.get(&name.to_string()) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")).into(),
                None => error.into(),
            }
        })
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>, DataFusionError> {
        let function = self
            .state
            .table_functions()
            .get(name)
            .cloned()
            .ok_or_else(|| SqlError::new("42883", format!("function {name} does not exist")))?;
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let schema = DFSchema::empty();
        let args = args
            .into_iter()
            .map(|arg| simplifier.coerce(arg, &schema).and_then(|arg| simplifier.simplify(arg)))
            .collect::<Result<Vec<_>, _>>()?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>, DataFusionError> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
