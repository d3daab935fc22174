//! From a parsed statement to a logical plan that means what PostgreSQL means.
//!
//! ```text
//! syntax tree ─ views ─► their queries ─ syntax ─► names, ANY, column names ─ row functions ─► unnest
//!   └─ SqlToRel with Names, PostgresTypes, PostgresOperators ─► plan, types still loose
//!        └─ nodes that fill gaps between buckets of time
//!        └─ lateral relations on top of what they refer to
//!        └─ EXISTS, IN, ANY and ALL of subqueries with three answers
//!        └─ parameters, literals, aggregates, quotients, casts  (before types are made to fit)
//!             └─ DataFusion's analyzer: types fit
//!                  └─ casts again (those it added), checked arithmetic, keys of jsonb
//! ```
//!
//! What comes out is run through DataFusion's analyzer once more when it is optimized; that finds nothing left to do. Statements that
//! are executed again keep the optimized plan ([`reuse`](crate::reuse)).

mod aggregates;
mod arithmetic;
pub(crate) mod casts;
mod casts_apart;
pub(crate) mod chains;
mod changes;
pub(crate) mod common_types;
mod conflicts;
mod defaults;
mod distinct_from;
mod ends;
mod forms;
pub(crate) mod gapfill;
mod gathered;
mod inserts;
pub(crate) mod keys;
mod lateral;
mod literals;
mod memberships;
mod merged_columns;
mod named_arguments;
mod names;
mod natural;
pub(crate) mod null_joins;
pub(crate) mod operators;
mod origins;
mod outer;
mod output_names;
mod parameters;
mod quantified;
mod results;
mod returning;
pub(crate) mod rounded_times;
pub(crate) mod row;
mod row_functions;
mod row_values;
mod scalar_subqueries;
pub(crate) mod segment_aggregates;
mod set_operations;
pub(crate) mod shared_ctes;
pub(crate) mod simplified;
pub(crate) mod single_distinct;
pub(crate) mod stream;
mod subqueries;
mod syntax;
pub mod types;
pub mod views;
mod walk;
mod wrapped;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    execution::SessionState,
    logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, WriteOp, cast, col},
    sql::{
        parser::Statement as DfStatement,
        planner::SqlToRel,
        sqlparser::ast::{Expr as SqlExpr, Statement, Value},
    },
};
use tidemill_storage::scan::addressed;

use crate::{
    Engine, Plan, SqlError,
    execution::States,
    explain::Explain,
    plan::{Returning, Write, WriteKind},
    session::SessionShared,
};

/// A table changed while a statement was planned for it.
const CHANGED: &str = "40001";
/// How often a statement is planned anew because of that.
const PLANNING_TRIES: usize = 20;

/// What planning one statement needs to know of its session.
pub(crate) struct Planner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shared: Arc<SessionShared>,
    pub(crate) states: Arc<States>,
}

impl Planner {
    pub(crate) async fn plan(
        &self,
        statement: &Statement,
        sql: &str,
        types: &[Option<DataType>],
    ) -> Result<Plan, SqlError> {
        match statement {
            Statement::Explain { analyze, verbose, statement, options, format, .. } => {
                let mut explain = Explain { analyze: *analyze, verbose: *verbose, ..Explain::default() };
                explain.read(format.as_ref(), options.as_deref().unwrap_or_default())?;
                let mut plan = Box::pin(self.plan(statement, sql, types)).await?;
                plan.schema = crate::explain::schema(explain.shape);
                plan.origins = vec![None];
                plan.explain = Some(explain);
                plan.write = None;
                Ok(plan)
            }
            Statement::ShowVariable { variable } => {
                let name = variable.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(" ");
                self.show(&name, sql)
            }
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                for _ in 0..PLANNING_TRIES {
                    match self.query(statement, sql, types).await {
                        Err(error) if error.sqlstate == CHANGED => {}
                        planned => return planned,
                    }
                }
                self.query(statement, sql, types).await
            }
            other => {
                let word = other.to_string();
                let word = word.split_whitespace().next().unwrap_or_default().to_uppercase();
                Err(SqlError::not_supported(format!("{word} as a query")))
            }
        }
    }

    /// SHOW name, as a query of one row.
    fn show(&self, name: &str, sql: &str) -> Result<Plan, SqlError> {
        use datafusion::logical_expr::lit;
        let logical = {
            let settings = self.shared.settings.lock();
            if name.eq_ignore_ascii_case("all") {
                let rows =
                    settings.all().into_iter().map(|(name, value, about)| vec![lit(name), lit(value), lit(about)]);
                LogicalPlanBuilder::values(rows.collect())?
                    .project(vec![
                        col("column1").alias("name"),
                        col("column2").alias("setting"),
                        col("column3").alias("description"),
                    ])?
                    .build()?
            } else {
                let value = settings.show(name)?;
                let shown = crate::settings::Settings::canonical_name(name).unwrap_or(name).to_owned();
                LogicalPlanBuilder::empty(true).project(vec![lit(value).alias(shown)])?.build()?
            }
        };
        finish(logical, sql)
    }

    async fn query(&self, statement: &Statement, sql: &str, types: &[Option<DataType>]) -> Result<Plan, SqlError> {
        self.query_of(statement, sql, types, false).await
    }

    /// `returns`: it is what RETURNING asks.
    async fn query_of(
        &self,
        statement: &Statement,
        sql: &str,
        types: &[Option<DataType>],
        returns: bool,
    ) -> Result<Plan, SqlError> {
        let state = &self.states.full;
        let located = |error: DataFusionError| SqlError::from_datafusion(&error, sql);
        let mut statement = statement.clone();
        let mut changing = changes::rewrite(&mut statement, self.engine.tables().as_ref())?;
        let clause = match &mut changing {
            Some(changing) => changing.returning.take(),
            None => returning::of_insert(&mut statement),
        };
        views::expand(&mut statement, self.engine.tables().as_ref())?;
        named_arguments::rewrite(&mut statement)?;
        syntax::rewrite(&mut statement);
        let columns = |name: &str| {
            let schema = self.engine.tables().table(name)?.table.schema();
            Some(schema.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>())
        };
        natural::rewrite(&mut statement, &columns);
        forms::rewrite(&mut statement)?;
        gathered::rewrite(&mut statement, &columns);
        let known = row_functions::Known {
            is_relation: &|name| state.table_functions().contains_key(name),
            columns: &|name| Some(types::columns_of(&self.engine.tables().table(name)?.table.schema())),
        };
        row_functions::rewrite(&mut statement, known)?;
        crate::pg_catalog::rewrite(&mut statement, sql);
        let path = self.shared.settings.lock().search_path();
        // The columns that the rows of an INSERT are planned for: read before, compared after.
        let inserted = inserts::target(&statement);
        if let Some(name) = &inserted
            && self.engine.tables().view(name).is_some()
        {
            return Err(SqlError::new("42809", format!("cannot insert into view \"{name}\""))
                .with_hint("Insert into the tables that it reads."));
        }
        let written = match &changing {
            Some(changing) => Some(changing.table.clone()),
            None => inserted.as_ref().and_then(|name| self.engine.tables().table(name)),
        };
        let written = written.map(|table| (table.table.schema(), table));
        if let Some((schema, table)) = written.as_ref().filter(|_| changing.is_none()) {
            conflicts::settle(&mut statement, table, schema, clause.is_some())?;
            if clause.is_some() && table.table.key().is_some_and(|key| key.merges) {
                return Err(SqlError::not_supported(format!(
                    "RETURNING of INSERT into table \"{}\", which merges rows",
                    table.name
                ))
                .with_hint("What is stored is known when INSERT has returned: SELECT it by its key."));
            }
            match table.table.key() {
                Some(key) => defaults::settle(&mut statement, &key.arriving(schema))?,
                None => defaults::settle(&mut statement, schema)?,
            }
            inserts::name_columns(&mut statement, &schema.arrow())?;
            inserts::settle_inner_values(&mut statement);
        }
        chains::gather(&mut statement);
        let statement = DfStatement::Statement(Box::new(statement));
        let context = names::Names::resolve(&path, state, &statement).await?;
        let logical = SqlToRel::new_with_options(&context, context.parser_options())
            .statement_to_plan(statement)
            .map_err(located)?;
        if returns || changing.as_ref().is_some_and(|changing| changing.returns) {
            returning::check(&logical)?;
        }
        // While copies of a query can be told from its likes.
        let logical = shared_ctes::share(logical).map_err(located)?;
        let logical = set_operations::count_copies(logical).map_err(located)?;
        let logical = gapfill::unfold(logical).map_err(located)?;
        let (logical, is_insert) = match logical {
            LogicalPlan::Dml(DmlStatement { op: WriteOp::Insert(_), input, .. }) => {
                inserts::check_columns(&input).map_err(located)?;
                (inserts::nullable_values(Arc::unwrap_or_clone(input)).map_err(located)?, true)
            }
            other => (other, false),
        };
        if let (true, None, Some(name)) = (is_insert, &written, &inserted) {
            return Err(SqlError::undefined_table(name));
        }
        let logical = memberships::hoist(logical).map_err(located)?;
        let logical = lateral::unfold(logical).map_err(located)?;
        let logical = memberships::unfold(logical).map_err(located)?;
        let logical = scalar_subqueries::gather(logical).map_err(located)?;
        let logical = match &written {
            Some((schema, _)) if is_insert => {
                let columns = if changing.is_some() { addressed(schema).arrow() } else { schema.arrow() };
                inserts::marked_columns(logical, &columns).map_err(located)?
            }
            _ => logical,
        };
        // Rows to insert are cast to their columns already.
        let first_terms = recursive_types(&logical)?;
        let logical = if first_terms.is_empty() {
            settle(logical, state, types, is_insert, !is_insert).map_err(located)?
        } else {
            match settle(logical.clone(), state, types, is_insert, !is_insert) {
                Ok(settled) if recursive_types(&settled)? == first_terms => settled,
                // The working table of WITH RECURSIVE was made with bigints: so they stay.
                _ => settle(logical, state, types, is_insert, false).map_err(located)?,
            }
        };
        let logical = storable(logical).map_err(located)?;
        let mut plan = finish(logical, sql)?;
        let returning = match (&written, clause) {
            (Some((_, table)), Some(clause)) => {
                let has_others = changing.as_ref().is_some_and(|changing| changing.has_others);
                let asked = self.returning(&mut plan, clause.query(table)?, sql, types).await;
                Some(asked.map_err(|error| match (has_others, error.sqlstate) {
                    (true, "42P01" | "42703") => error.with_hint(
                        "RETURNING of UPDATE … FROM gives columns of the table that is changed, not of the others.",
                    ),
                    _ => error,
                })?)
            }
            _ if changing.as_ref().is_some_and(|changing| changing.returns) => {
                let columns = plan.schema.fields().len() - 2;
                let schema = Arc::new(plan.schema.project(&(0..columns).collect::<Vec<_>>())?);
                Some(Returning::Read { schema, origins: plan.origins[..columns].to_vec() })
            }
            _ => None,
        };
        if let Some((planned, table)) = &written
            && table.table.schema().version != planned.version
        {
            return Err(SqlError::new(CHANGED, "the table's columns changed while the statement was planned")
                .with_hint("Send it again."));
        }
        let kind = changing.map(|changing| changing.kind).or(is_insert.then_some(WriteKind::Insert));
        let write = kind.zip(written).map(|(kind, (schema, table))| {
            let schema = match table.table.key() {
                Some(key) if kind == WriteKind::Insert => Arc::new(key.arriving(&schema)),
                _ => schema,
            };
            Write { table, schema, kind, returning }
        });
        Ok(Plan { write, ..plan })
    }

    /// Plans what RETURNING asks of the rows that `plan` gives. Both have the parameters of the statement from then on.
    async fn returning(
        &self,
        plan: &mut Plan,
        query: Statement,
        sql: &str,
        types: &[Option<DataType>],
    ) -> Result<Returning, SqlError> {
        let known = plan.logical.get_parameter_names()?;
        let is_known = |at: usize| known.contains(&format!("${}", at + 1));
        let mut given = types.to_vec();
        given.resize(given.len().max(plan.parameters.len()), None);
        for (at, field) in plan.parameters.iter().enumerate().filter(|(at, _)| is_known(*at)) {
            given[at] = Some(field.data_type().clone());
        }
        let mut asked = Box::pin(self.query_of(&query, sql, &given, true)).await?;
        let places = plan.parameters.len().max(asked.parameters.len());
        let parameters = (0..places).filter_map(|at| {
            let (own, other) = (plan.parameters.get(at), asked.parameters.get(at));
            if is_known(at) { own.or(other) } else { other.or(own) }.cloned()
        });
        let parameters: Vec<_> = parameters.collect();
        plan.parameters.clone_from(&parameters);
        asked.parameters = parameters;
        Ok(Returning::Query(Arc::new(asked)))
    }
}

/// Column types of the first terms of WITH RECURSIVE.
fn recursive_types(plan: &LogicalPlan) -> Result<Vec<Vec<DataType>>, DataFusionError> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::RecursiveQuery(query) = node {
            let fields = query.static_term.schema().fields();
            found.push(fields.iter().map(|field| field.data_type().clone()).collect());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Gives the plan PostgreSQL's types and checks.
fn settle(
    logical: LogicalPlan,
    state: &SessionState,
    given: &[Option<DataType>],
    is_insert: bool,
    narrows: bool,
) -> Result<LogicalPlan, DataFusionError> {
    let logical = if is_insert { parameters::cast_for_storage(logical, given)? } else { logical };
    let logical = parameters::infer(logical, given)?;
    let logical = walk::expressions(logical, |expr, schema, kind| {
        // LIMIT wants its literal as it is.
        let expr = if kind.is_limit || !narrows { Transformed::no(expr) } else { literals::narrow(expr)? };
        let rules = |expr: Expr| {
            gathered::settle(expr, schema)
                .transform_data(|expr| Ok(literals::whole(expr)))?
                .transform_data(|expr| Ok(keys::settle_window(expr, schema)))?
                .transform_data(arithmetic::settle_mod)?
                .transform_data(|expr| arithmetic::widen_reals(expr, schema))?
                .transform_data(|expr| literals::adapt(expr, schema))?
                .transform_data(|expr| quantified::settle(expr, schema))?
                .transform_data(|expr| common_types::settle(expr, schema))?
                .transform_data(|expr| casts::refuse(expr, schema))?
                .transform_data(|expr| casts::convert(expr, schema))?
                .transform_data(|expr| Ok(results::narrow(expr)))?
                .transform_data(|expr| aggregates::widen(expr, schema))?
                .transform_data(|expr| arithmetic::divide(expr, schema))
        };
        expr.transform_data(|expr| {
            expr.transform_up(|expr| {
                let link = |plan| settle(plan, state, &[], false, narrows);
                chains::transformed(chains::settle(expr, schema, state, link)?, rules)
            })
        })
    })?;
    let logical = common_types::unions(logical)?;
    let logical = outer::refresh(logical)?;
    let logical = state.analyzer().execute_and_check(logical, state.config_options(), |_, _| {})?;
    let logical = walk::expressions(logical, |expr, schema, kind| {
        if kind.is_limit {
            return Ok(Transformed::no(expr));
        }
        expr.transform_up(|expr| {
            let converted = casts::convert(expr, schema)?;
            casts::check_literal(&converted.data, state.config_options())?;
            converted.transform_data(|expr| arithmetic::check(expr, schema))
        })
    })?;
    keys::apply(logical)
}

/// Result columns of types that PostgreSQL has not (unsigned, nanoseconds) in the next type that it has.
fn storable(logical: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let target = |data_type: &DataType| {
        Some(match data_type {
            DataType::UInt8 | DataType::Int8 => DataType::Int16,
            DataType::UInt16 => DataType::Int32,
            DataType::UInt32 | DataType::UInt64 => DataType::Int64,
            DataType::Timestamp(unit, zone) if *unit != arrow::datatypes::TimeUnit::Microsecond => {
                DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone.clone())
            }
            DataType::Duration(_) => types::interval(),
            DataType::Dictionary(_, item) => item.as_ref().clone(),
            _ => return None,
        })
    };
    if logical.schema().fields().iter().all(|field| target(field.data_type()).is_none()) {
        return Ok(logical);
    }
    let columns: Vec<Expr> = logical
        .schema()
        .iter()
        .map(|(qualifier, field)| {
            let column = Expr::Column(datafusion::common::Column::new(qualifier.cloned(), field.name()));
            match target(field.data_type()) {
                Some(data_type) => cast(column, data_type).alias_qualified(qualifier.cloned(), field.name()),
                None => column,
            }
        })
        .collect();
    LogicalPlanBuilder::from(logical).project(columns)?.build()
}

fn finish(logical: LogicalPlan, sql: &str) -> Result<Plan, SqlError> {
    let parameters = Plan::open_parameters(&logical)?;
    let fields: Vec<Field> = logical
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_name(syntax::shown_name(field.name())))
        .collect();
    let origins = origins::of(&logical);
    Ok(Plan {
        sql: sql.into(),
        logical: Arc::new(logical),
        schema: Arc::new(Schema::new(fields)),
        parameters,
        values: Arc::default(),
        reusable: Arc::default(),
        origins,
        explain: None,
        write: None,
    })
}

/// The text of a plain value in EXPLAIN's options.
pub(crate) fn word(expr: &SqlExpr) -> String {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.to_lowercase(),
            other => other.to_string().to_lowercase(),
        },
        other => other.to_string().to_lowercase(),
    }
}
