//! CREATE SINK, and DROP SINK.

use std::sync::Arc;

use tidemill_ingest::{
    Error,
    sink::{Shape, SinkOptions},
};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion, TableId},
    schema::TableSchema,
};

use super::{
    columns::{check_names, table_column},
    error::locate,
    free_name, wrong_kind,
};
use crate::{
    catalog::{Definitions, definition::SinkDefinition},
    runtime,
    server::{instance::Instance, sinks},
    session::error::{Result, SqlError, state},
    sql::ast::{CreateSink, Name},
    suggest,
};

pub(super) async fn create(instance: &Arc<Instance>, statement: CreateSink) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    if let Some(notice) = free_name(&definitions, &statement.name, statement.if_not_exists)? {
        return Ok(vec![notice]);
    }
    let mut notices = Vec::new();
    let located = |error: Error| locate(SqlError::from(error), &statement.options);
    let options = sinks::settle(&statement.options);
    let parsed = SinkOptions::parse(&options).map_err(located)?;
    let schema = columns(&statement, &mut notices)?;
    let shape = schema.as_ref().map(|schema| Shape::new(&parsed.shape, schema)).transpose().map_err(located)?;
    let (connector, format) = (parsed.connect(), parsed.shape.format.clone());
    let check = move || match shape {
        // Its schema is known, and goes to the registry that the format names.
        Some(shape) => connector.check().and_then(|()| shape.wire().map(|_| ())),
        None => connector.check().and_then(|()| format.check()),
    };
    let found = runtime::blocking(check).await;
    found.map_err(|error| match error {
        Error::Unavailable(message) | Error::Missing(message) => {
            SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message)
        }
        error => located(error),
    })?;
    instance.catalog.change(|change| {
        let sink = SinkDefinition {
            id: change.new_table_id()?,
            oid: change.new_oid()?,
            name: statement.name.value.clone(),
            version: 1,
            schema,
            options,
            created_at_us: instance.clock.now_us(),
        };
        change.put_sink(&sink)
    })?;
    Ok(notices)
}

/// The columns that are named, if any are.
fn columns(statement: &CreateSink, notices: &mut Vec<String>) -> Result<Option<TableSchema>> {
    if statement.columns.is_empty() {
        return Ok(None);
    }
    check_names(statement.columns.iter().map(|column| &column.name))?;
    let mut columns = Vec::new();
    for (at, column) in statement.columns.iter().enumerate() {
        let refused = match column {
            column if column.compression.is_some() => Some("COMPRESSION"),
            column if column.merge.is_some() => Some("MERGE"),
            _ => None,
        };
        if let Some(what) = refused {
            return Err(SqlError::unsupported(format!("{what} belongs to the columns of a table"))
                .at(column.name.position)
                .with_hint("a sink keeps nothing"));
        }
        notices.extend(column.notice.clone());
        columns.push(table_column(ColumnId(at as u32), column)?);
    }
    Ok(Some(TableSchema { version: SchemaVersion(1), columns, time_column: None }))
}

pub(super) fn undefined_sink(definitions: &Definitions, name: &Name) -> SqlError {
    if let Some(error) = wrong_kind(definitions, name, "sink") {
        return error;
    }
    let error =
        SqlError::new(state::UNDEFINED_OBJECT, format!("sink \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.sinks.values().map(|sink| sink.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Takes the definition away: what is outside stays as it is.
pub(super) async fn drop_sink(instance: &Arc<Instance>, id: TableId) -> Result<()> {
    let instance = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        let Some(sink) = instance.catalog.definitions().sinks.get(&id).cloned() else { return Ok(()) };
        Ok(instance.catalog.change(|change| change.remove_sink(&sink))?)
    })
    .await
}
