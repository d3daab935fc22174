//! CREATE SOURCE.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_ingest::{
    Error,
    decode::{self, Format},
    source::{Connector, ConnectorOptions, SourceOptions, Start},
};
use tidemill_storage::schema::DataType;

use super::{
    columns::{check_key_names, check_names},
    error::locate,
    free_name, infer,
};
use crate::{
    catalog::definition::{CheckDefinition, SourceColumnDefinition, SourceDefinition, WatermarkDefinition},
    runtime,
    server::{instance::Instance, live},
    session::error::{Result, SqlError, state},
    sql::ast::CreateSource,
    views::source_text::create_source,
};

pub(super) async fn create(instance: &Arc<Instance>, statement: CreateSource) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    if let Some(notice) = free_name(&definitions, &statement.name, statement.if_not_exists)? {
        return Ok(vec![notice]);
    }
    let mut notices = Vec::new();
    let mut source = definition(instance, &statement, &mut notices)?;
    let located = |error: Error| locate(SqlError::from(error), &statement.options);
    let (options, _) = live::source_options(&source).map_err(located)?;
    if let Some(key) = statement.primary_key.first().filter(|_| !has_changes(&options)) {
        return Err(SqlError::unsupported("a source whose messages are rows has no primary key")
            .at(key.position)
            .with_hint("say NOT NULL here; keys belong to tables, and to sources of format 'debezium-json'"));
    }
    if let Some(wanted) = statement.infer {
        let (columns, said) = infer::columns(instance, &source, wanted).await?;
        source.columns = columns;
        notices.push(format!("columns were inferred from {said}:\n{}", create_source(&source)));
    }
    if source.columns.is_empty() {
        let columns = options.default_columns().ok_or_else(|| {
            SqlError::syntax(format!("source \"{}\" needs columns", source.name)).at(statement.name.position).with_hint(
                "write them in parentheses, CREATE SOURCE name (id BIGINT, …) WITH (…), or say INFER before WITH",
            )
        })?;
        source.columns = columns
            .into_iter()
            .map(|column| SourceColumnDefinition {
                name: column.name,
                data_type: column.data_type,
                nullable: column.nullable,
                path: None,
                epoch: None,
                in_key: false,
            })
            .collect();
    }
    check_expressions(instance, &source, &statement)?;
    if let Some(format) = &options.format {
        let columns = live::source_columns(&source.columns)?;
        decode::decoder(format, &columns).map_err(located)?;
    }
    if let Some(stop) = reach(instance, &source, &options).await.map_err(|error| locate(error, &statement.options))? {
        source.options.insert("stop".into(), stop);
    }
    instance.catalog.change(|change| {
        source.id = change.new_source_id()?;
        source.oid = change.new_oid()?;
        change.put_source(&source)
    })?;
    Ok(notices)
}

/// Whether messages are changes of rows that have a key where they come from.
pub(super) fn has_changes(options: &SourceOptions) -> bool {
    matches!(options.format, Some(Format::DebeziumJson { .. }))
}

/// Whether EPOCH says something about the type.
fn holds_moments(data_type: &DataType) -> bool {
    match data_type {
        DataType::Date | DataType::Timestamp | DataType::TimestampTz => true,
        DataType::Array(item) => holds_moments(item),
        _ => false,
    }
}

fn definition(instance: &Instance, statement: &CreateSource, notices: &mut Vec<String>) -> Result<SourceDefinition> {
    check_names(statement.columns.iter().map(|column| &column.name))?;
    check_key_names(&statement.primary_key, &statement.columns)?;
    let mut columns = Vec::new();
    for column in &statement.columns {
        if column.default.is_some() {
            return Err(SqlError::unsupported("DEFAULT is not supported in a source")
                .at(column.name.position)
                .with_hint("give the default to the table's column"));
        }
        if column.epoch.is_some() && !holds_moments(&column.data_type) {
            let (name, data_type) = (&column.name.value, &column.data_type);
            let message = format!("EPOCH is for columns of time, and column \"{name}\" is of type {data_type}");
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message)
                .at(column.name.position)
                .with_hint("declare it as TIMESTAMPTZ, or leave EPOCH out to keep the number"));
        }
        notices.extend(column.notice.clone());
        let in_key = statement.primary_key.iter().any(|key| key.value == column.name.value);
        columns.push(SourceColumnDefinition {
            name: column.name.value.clone(),
            data_type: column.data_type.clone(),
            nullable: !column.not_null && !in_key,
            path: column.path.clone(),
            epoch: column.epoch.clone(),
            in_key,
        });
    }
    let mut options = BTreeMap::new();
    for pair in &statement.options {
        // librdkafka's settings are given as they are; ours are lower case.
        let key = match pair.key.value.starts_with("properties.") {
            true => pair.key.value.clone(),
            false => pair.key.value.to_lowercase(),
        };
        options.insert(key, pair.value.clone());
    }
    SourceOptions::settle(&mut options, instance.clock.now_us());
    let mut checks: Vec<CheckDefinition> = Vec::new();
    for check in &statement.checks {
        let name = check.name.clone().unwrap_or_else(|| {
            (1..)
                .map(|n| format!("{}_check{n}", statement.name.value))
                .find(|name| checks.iter().all(|c| c.name != *name))
                .unwrap_or_default()
        });
        if checks.iter().any(|other| other.name == name) {
            let message = format!("constraint \"{name}\" for source \"{}\" already exists", statement.name.value);
            return Err(SqlError::new(state::DUPLICATE_OBJECT, message).at(check.position));
        }
        checks.push(CheckDefinition { name, expression: check.expression.clone() });
    }
    Ok(SourceDefinition {
        id: Default::default(),
        oid: 0,
        name: statement.name.value.clone(),
        version: 1,
        columns,
        watermark: statement
            .watermark
            .as_ref()
            .map(|w| WatermarkDefinition { column: w.column.value.clone(), expression: w.expression.clone() }),
        checks,
        options,
        created_at_us: instance.clock.now_us(),
    })
}

/// CHECKs and the watermark compile over the source's columns.
fn check_expressions(instance: &Instance, source: &SourceDefinition, statement: &CreateSource) -> Result<()> {
    let columns = live::source_columns(&source.columns)?;
    if let Err(error) = live::checks(instance.expressions(), source, &columns) {
        let position = statement.checks.first().map(|check| check.position);
        let error = SqlError::from(error);
        return Err(match position {
            Some(position) => error.at(position),
            None => error,
        });
    }
    let (Some(watermark), Some(parsed)) = (&source.watermark, &statement.watermark) else { return Ok(()) };
    use tidemill_storage::schema::DataType::{Timestamp, TimestampTz};
    match source.columns.iter().find(|column| column.name == watermark.column) {
        Some(column) if matches!(column.data_type, Timestamp | TimestampTz) => {}
        Some(column) => {
            let message =
                format!("the watermark needs a timestamp, and column \"{}\" is {}", column.name, column.data_type);
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(parsed.column.position));
        }
        None => {
            let message = format!("column \"{}\" of the watermark does not exist", watermark.column);
            return Err(SqlError::new(state::UNDEFINED_COLUMN, message).at(parsed.column.position));
        }
    }
    live::watermark(instance.expressions(), source, &columns)
        .map(|_| ())
        .map_err(|error| SqlError::from(error).at(parsed.column.position))
}

/// A start at offsets that are not there is a mistake in writing, and would otherwise be read as something else.
fn check_start(options: &SourceOptions, connector: &dyn Connector) -> Result<(), Error> {
    let partitions = connector.partitions()?;
    let Start::Offsets(offsets) = &options.start else { return Ok(()) };
    // A bounded source tells only of the partitions that it reads.
    for (partition, offset) in offsets.iter().filter(|_| options.stop.is_none()) {
        if !partitions.contains(partition) {
            return Err(Error::Definition {
                message: format!("option 'start' names partition {partition}, which the source does not have"),
                hint: Some(format!("it has the partitions {partitions:?}")),
            });
        }
        let high = connector.watermarks(*partition)?.high;
        if *offset > high {
            return Err(Error::Definition {
                message: format!(
                    "option 'start' begins partition {partition} at offset {offset}, but it ends at {high}"
                ),
                hint: Some("latest begins at the end".into()),
            });
        }
    }
    Ok(())
}

/// Asks the outside world whether the source is there, and for the offsets at which it is to end.
async fn reach(instance: &Arc<Instance>, source: &SourceDefinition, options: &SourceOptions) -> Result<Option<String>> {
    if matches!(options.connector, ConnectorOptions::Generator(_)) && options.stop.is_none() {
        return Ok(None);
    }
    let (instance, source) = (Arc::clone(instance), source.clone());
    runtime::blocking(move || {
        let connected = live::connect(&source, &instance.clock)?;
        let (options, _) = live::source_options(&source)?;
        let now_ms = instance.clock.now_us() / 1000;
        let stop = options.settled_stop(&*connected.connector, now_ms)?;
        check_start(&options, &*connected.connector)?;
        Ok(stop)
    })
    .await
    .map_err(|error| match error {
        Error::Unavailable(message) | Error::Missing(message) => {
            SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message)
        }
        error => error.into(),
    })
}
