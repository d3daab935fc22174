//! Execution of our own statements: checks against the catalog, one durable change, then the running server follows.
//!
//! What always holds: a statement that fails changes nothing; one that returned is durable; statements run one at a time.

mod alter;
mod columns;
mod drop;
mod error;
mod function;
mod index;
mod infer;
mod key;
mod pipeline;
mod rule;
mod sink;
mod sink_alter;
mod source;
mod source_alter;
mod star_tree;
mod subject;
mod table;
mod truncate;
mod view;

pub(crate) use self::{infer::inferred_columns, star_tree::suggested_dimensions};

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use crate::{
    catalog::{Definitions, definition::TableDefinition},
    server::instance::Instance,
    session::{
        backend::DdlOutcome,
        error::{Result, SqlError, state},
    },
    sql::{self, Ddl, StatementKind, ast::Name},
    suggest,
};

/// Runs the one statement of `sql`. Positions of errors are in `sql`.
pub async fn execute(instance: &Arc<Instance>, sql: &str) -> Result<DdlOutcome> {
    let mut statements = sql::parse(sql)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(SqlError::syntax("one statement at a time"));
    };
    let kind = match statement.kind {
        StatementKind::Other(statement) if matches!(*statement, ast::Statement::Insert(_)) => {
            StatementKind::Ddl(Box::new(sql::parse_insert(sql)?))
        }
        kind => kind,
    };
    let StatementKind::Ddl(ddl) = kind else {
        return Err(SqlError::unsupported("the statement is not a definition of a source, a table or a view"));
    };
    let _one_at_a_time = instance.ddl.lock().await;
    let tag = ddl.tag().to_owned();
    let notices = match *ddl {
        Ddl::CreateSource(statement) => source::create(instance, statement).await,
        Ddl::CreateTable(statement) => match table::create(instance, statement).await? {
            table::Created { notices, rows: None } => Ok(notices),
            table::Created { notices, rows: Some(rows) } => {
                return Ok(DdlOutcome { tag: format!("SELECT {rows}"), notices, ..DdlOutcome::default() });
            }
        },
        Ddl::CreateSink(statement) => sink::create(instance, statement).await,
        Ddl::CreateView(statement) => view::create(instance, statement).await,
        Ddl::CreateIndex(statement) => index::create(instance, statement).await,
        Ddl::CreateFunction(statement) => function::create(instance, statement).await,
        Ddl::CreatePipeline(statement) => {
            let pipeline::Created { notices, lines } = pipeline::create(instance, statement).await?;
            return Ok(DdlOutcome { tag, notices, lines, ..DdlOutcome::default() });
        }
        Ddl::CreateRule(statement) => rule::create(instance, statement),
        Ddl::AlterRule(statement) => rule::alter(instance, statement),
        Ddl::AlterPipeline(statement) => pipeline::alter(instance, statement).await,
        Ddl::AlterTable(statement) => alter::alter(instance, statement).await,
        Ddl::AlterSource(statement) => source_alter::alter(instance, statement).await,
        Ddl::AlterSink(statement) => sink_alter::alter(instance, statement).await,
        Ddl::CreateSubject(statement) => subject::create(instance, statement).await,
        Ddl::AlterSubject(statement) => {
            let subject::Altered { notices, verdicts } = subject::alter(instance, statement).await?;
            return Ok(DdlOutcome { tag, notices, verdicts, ..DdlOutcome::default() });
        }
        Ddl::DropSubject(statement) => subject::drop(instance, statement).await,
        Ddl::Drop(statement) => drop::drop(instance, statement).await,
        Ddl::Truncate(statement) => truncate::truncate(instance, statement).await,
    }?;
    Ok(DdlOutcome { tag, notices, ..DdlOutcome::default() })
}

/// Whether the name is free. With IF NOT EXISTS a taken one is a notice, as in Postgres.
fn free_name(definitions: &Definitions, name: &Name, if_not_exists: bool) -> Result<Option<String>> {
    let taken = definitions.has_relation(&name.value);
    let message = format!("relation \"{}\" already exists", name.value);
    match (taken, if_not_exists) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(format!("{message}, skipping"))),
        (true, false) => Err(SqlError::new(state::DUPLICATE_TABLE, message).at(name.position)),
    }
}

/// 42809 when the name is that of something of another kind than `wanted`.
fn wrong_kind(definitions: &Definitions, name: &Name, wanted: &str) -> Option<SqlError> {
    let kind = if definitions.table_named(&name.value).is_some() {
        "table"
    } else if definitions.source_named(&name.value).is_some() {
        "source"
    } else if definitions.sink_named(&name.value).is_some() {
        "sink"
    } else {
        definitions.view_named(&name.value).map(|_| "view")?
    };
    let message = format!("\"{}\" is a {kind}, not a {wanted}", name.value);
    (kind != wanted).then(|| SqlError::new(state::WRONG_OBJECT_TYPE, message).at(name.position))
}

fn undefined_view(definitions: &Definitions, name: &Name) -> SqlError {
    if let Some(error) = wrong_kind(definitions, name, "view") {
        return error;
    }
    let error =
        SqlError::new(state::UNDEFINED_TABLE, format!("view \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.views.values().map(|view| view.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn undefined_source(definitions: &Definitions, name: &Name) -> SqlError {
    if let Some(error) = wrong_kind(definitions, name, "source") {
        return error;
    }
    let error =
        SqlError::new(state::UNDEFINED_OBJECT, format!("source \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.sources.values().map(|source| source.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn undefined_column(table: &TableDefinition, name: &Name) -> SqlError {
    let message = format!("column \"{}\" of relation \"{}\" does not exist", name.value, table.name);
    let error = SqlError::new(state::UNDEFINED_COLUMN, message).at(name.position);
    match suggest::hint(&name.value, table.schema.columns.iter().map(|column| column.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn undefined_table(definitions: &Definitions, name: &Name) -> SqlError {
    if let Some(error) = wrong_kind(definitions, name, "table") {
        return error;
    }
    let error =
        SqlError::new(state::UNDEFINED_TABLE, format!("table \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.tables.values().map(|table| table.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
