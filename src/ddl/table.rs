//! CREATE TABLE, also FROM SOURCE and AS SELECT.

use std::sync::Arc;

use arrow::{
    compute::{CastOptions, cast_with_options},
    datatypes::DataType as ArrowType,
};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use tidemill_query::{Plan, Session, SessionOptions};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    schema::{Column, DataType, TableSchema},
};

use super::{
    columns::{check_key_names, check_names, table_column},
    free_name, key, undefined_source,
};
use crate::{
    catalog::{
        Definitions,
        definition::{SourceDefinition, TableDefinition, TableOptions},
    },
    runtime,
    server::{
        instance::Instance,
        live::{self, CONNECT_TIMEOUT, LiveTable},
    },
    session::error::{Result, SqlError, state},
    sql::{
        ast::{CreateTable, TableQuery},
        options,
    },
};

/// Partitions that a table of a source gets without being told: the source's, but not more.
const PARTITIONS_BY_DEFAULT: u32 = 4;

pub(super) struct Created {
    pub(super) notices: Vec<String>,
    /// Rows that AS SELECT brought.
    pub(super) rows: Option<u64>,
}

pub(super) async fn create(instance: &Arc<Instance>, statement: CreateTable) -> Result<Created> {
    let definitions = instance.catalog.definitions();
    if let Some(notice) = free_name(&definitions, &statement.name, statement.if_not_exists)? {
        return Ok(Created { notices: vec![notice], rows: None });
    }
    let mut notices = statement.columns.iter().filter_map(|column| column.notice.clone()).collect::<Vec<_>>();
    notices.extend(
        statement.ignored.iter().map(|option| format!("option \"{option}\" means nothing here and is ignored")),
    );
    let sources = statement
        .sources
        .iter()
        .map(|name| definitions.source_named(&name.value).cloned().ok_or_else(|| undefined_source(&definitions, name)))
        .collect::<Result<Vec<_>>>()?;
    check_names(&statement.sources).map_err(|error| SqlError {
        state: state::DUPLICATE_OBJECT,
        message: error.message.replace("column", "source"),
        ..error
    })?;
    check_key_names(&statement.primary_key, &statement.columns)?;

    let contents = match &statement.query {
        TableQuery::Contents(query) => Some(plan_contents(instance, query, statement.name.position).await?),
        _ => None,
    };
    let columns = match &contents {
        Some((_, plan)) => plan_columns(plan)?,
        None => table_columns(&statement, &sources)?,
    };
    let mut table_options = TableOptions::default();
    let given = options::apply(&mut table_options, &statement.options, true)?;
    let is_keyed = key::is_keyed(&statement, &given, &mut notices)?;
    if !sources.is_empty() && !is_keyed && !statement.options.iter().any(|pair| pair.key.value == "partitions") {
        table_options.partitions = source_partitions(instance, &sources).await;
    }
    let mut schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
    let key = if is_keyed { Some(key::definition(&statement, &given, &schema)?) } else { None };
    key::check_merges(key.as_ref(), &schema, &statement.columns)?;
    notices.extend(key.iter().flat_map(|key| key::unheard_deletes(key, &sources)));
    set_time_column(&mut schema, given.time_column)?;
    let mut definition = TableDefinition {
        id: Default::default(),
        oid: 0,
        name: statement.name.value.clone(),
        version: 1,
        next_column: ColumnId(schema.columns.len() as u32),
        schema,
        sources: sources.iter().map(|source| source.id).collect(),
        log: Default::default(),
        transform: match &statement.query {
            TableQuery::Transform(transform) => Some(match &transform.filter {
                Some(filter) => format!("SELECT {} WHERE {filter}", transform.select),
                None => format!("SELECT {}", transform.select),
            }),
            _ => None,
        },
        options: table_options,
        key,
        indexes: Vec::new(),
        paused: false,
        created_at_us: instance.clock.now_us(),
    };
    check_retention(&definition)?;
    for source in &sources {
        check_transform(instance, &definition, source, &statement)?;
    }
    instance.catalog.change(|change| {
        definition.id = change.new_table_id()?;
        definition.oid = change.new_oid()?;
        definition.log = change.new_source_id()?;
        change.put_table(&definition)
    })?;
    if let Err(error) = start(instance, &definition, &mut notices).await {
        undo(instance, &definition).await;
        return Err(error);
    }
    let rows = match contents {
        None => None,
        Some((session, plan)) => match fill(instance, &definition, &session, &plan).await {
            Ok(rows) => Some(rows),
            Err(error) => {
                undo(instance, &definition).await;
                return Err(error);
            }
        },
    };
    Ok(Created { notices, rows })
}

/// The columns as written, or those of the first source.
fn table_columns(statement: &CreateTable, sources: &[Arc<SourceDefinition>]) -> Result<Vec<Column>> {
    if !statement.columns.is_empty() {
        check_names(statement.columns.iter().map(|column| &column.name))?;
        return statement
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let mut made = table_column(ColumnId(index as u32), column)?;
                made.nullable &= !statement.primary_key.iter().any(|key| key.value == made.name);
                Ok(made)
            })
            .collect();
    }
    if matches!(statement.query, TableQuery::Transform(_)) {
        return Err(SqlError::syntax("a table with AS SELECT over a source needs its columns written")
            .at(statement.name.position)
            .with_hint("CREATE TABLE name (column type, …) FROM SOURCE … AS SELECT …"));
    }
    let Some(source) = sources.first() else {
        return Err(SqlError::syntax("a table needs columns").at(statement.name.position));
    };
    Ok(source
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| Column {
            nullable: column.nullable,
            ..Column::new(ColumnId(index as u32), column.name.clone(), column.data_type.clone())
        })
        .collect())
}

/// Sets the column that retention and time pruning go by.
pub(super) fn set_time_column(schema: &mut TableSchema, named: Option<(String, u32)>) -> Result<()> {
    let Some((name, position)) = named else { return Ok(()) };
    let Some(column) = schema.column_named(&name) else {
        return Err(
            SqlError::new(state::UNDEFINED_COLUMN, format!("time column \"{name}\" does not exist")).at(position)
        );
    };
    if !matches!(column.data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz) {
        let message = format!("time column \"{name}\" is {}, not a date or a timestamp", column.data_type);
        return Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(position));
    }
    schema.time_column = Some(column.id);
    Ok(())
}

pub(super) fn check_retention(definition: &TableDefinition) -> Result<()> {
    let TableDefinition { schema, options, .. } = definition;
    if options.retention_us.is_none() {
        return Ok(());
    }
    if schema.time_column.is_none() {
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "retention needs a time column")
            .with_hint("say time_column = '…' in the same WITH or SET list"));
    }
    Ok(())
}

fn check_transform(
    instance: &Instance,
    definition: &TableDefinition,
    source: &SourceDefinition,
    statement: &CreateTable,
) -> Result<()> {
    let columns = live::source_columns(&source.columns)?;
    let position = match &statement.query {
        TableQuery::Transform(transform) => transform.position,
        _ => statement.sources.iter().find(|name| name.value == source.name).map_or(1, |name| name.position),
    };
    live::transform(instance.expressions(), &columns, definition)
        .map_err(|error| SqlError::from(error).at(position))?;
    let is_by_name = definition.transform.as_ref().is_none_or(|text| text == "SELECT *");
    let is_fed = |column: &Column| columns.iter().any(|of_source| of_source.name == column.name);
    if is_by_name && !definition.schema.columns.iter().any(is_fed) {
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        let message = format!("table \"{}\" and source \"{}\" have no column in common", definition.name, source.name);
        return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message).at(position).with_hint(format!(
            "the source has {}; columns are fed by name, or by AS SELECT … AS name",
            names.join(", ")
        )));
    }
    Ok(())
}

/// As many as the source has; 1 when it does not answer now.
async fn source_partitions(instance: &Arc<Instance>, sources: &[Arc<SourceDefinition>]) -> u32 {
    let (instance, sources) = (Arc::clone(instance), sources.to_vec());
    runtime::blocking(move || {
        let count = |source: &Arc<SourceDefinition>| {
            let connected = instance.connections.get(source, &instance.clock).ok()?;
            connected.connector.partitions().ok().map(|partitions| partitions.len() as u32)
        };
        sources.iter().filter_map(count).max().unwrap_or(1).clamp(1, PARTITIONS_BY_DEFAULT)
    })
    .await
}

/// Opens the table and waits a while for its sources' first answers.
async fn start(instance: &Arc<Instance>, definition: &TableDefinition, notices: &mut Vec<String>) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let (opening, opened) = (Arc::clone(instance), definition.clone());
    let live = runtime::blocking(move || LiveTable::open(&opening.parts(), &opened, &definitions)).await?;
    let ingest = Arc::clone(&live.ingest);
    instance.put_live(definition.id, live);
    for source in &definition.sources {
        match tokio::time::timeout(CONNECT_TIMEOUT, ingest.connected(*source)).await {
            Ok(connected) => connected?,
            Err(_) => notices.push(format!(
                "a source of table \"{}\" does not answer yet; rows will come when it does (see rt.partitions)",
                definition.name
            )),
        }
    }
    Ok(())
}

/// Takes back a table that could not be begun. What fails here is taken back at the next start.
async fn undo(instance: &Arc<Instance>, definition: &TableDefinition) {
    if let Err(error) = super::drop::drop_table(instance, definition).await {
        tracing::error!(table = definition.name, %error, "a table that could not be created is left behind");
    }
}

async fn plan_contents(instance: &Instance, query: &ast::Query, position: u32) -> Result<(Session, Plan)> {
    let engine = instance.engine()?;
    let session = engine.session(SessionOptions { user: "tidemill".into(), ..SessionOptions::default() });
    let text = query.to_string();
    let statement = ast::Statement::Query(Box::new(query.clone()));
    // The text is a printed one, so that positions in it say nothing to the user.
    let plan = session
        .plan(&statement, &text)
        .await
        .map_err(|error| SqlError { position: Some(position), ..SqlError::from(error) })?;
    Ok((session, plan))
}

/// The columns that hold a query's result.
fn plan_columns(plan: &Plan) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    for (index, field) in plan.schema().fields().iter().enumerate() {
        if columns.iter().any(|column| column.name == *field.name()) {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", field.name()),
            ));
        }
        let data_type = match DataType::of_field(field) {
            Some(data_type) => data_type,
            None => match field.data_type() {
                ArrowType::Null | ArrowType::Utf8 | ArrowType::LargeUtf8 => DataType::Text,
                ArrowType::Int8 | ArrowType::UInt8 => DataType::SmallInt,
                ArrowType::UInt16 => DataType::Int,
                ArrowType::UInt32 => DataType::BigInt,
                ArrowType::UInt64 => DataType::Numeric { precision: 20, scale: 0 },
                ArrowType::Float16 => DataType::Real,
                ArrowType::Binary | ArrowType::LargeBinary => DataType::Bytea,
                ArrowType::Date64 => DataType::Date,
                ArrowType::Timestamp(_, None) => DataType::Timestamp,
                ArrowType::Timestamp(_, Some(_)) => DataType::TimestampTz,
                other => {
                    return Err(SqlError::unsupported(format!(
                        "column \"{}\" has the type {other}, which no table can have",
                        field.name()
                    ))
                    .with_hint("cast it to a type that a column can have"));
                }
            },
        };
        columns.push(Column::new(ColumnId(index as u32), field.name().clone(), data_type));
    }
    Ok(columns)
}

/// Appends the rows of AS SELECT.
async fn fill(instance: &Arc<Instance>, definition: &TableDefinition, session: &Session, plan: &Plan) -> Result<u64> {
    let (_, live) = instance.table(&definition.name)?;
    let schema = live.table.schema();
    let arrow = schema.arrow();
    let mut stream = session.execute(plan)?;
    let (mut rows, mut end) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch
            .columns()
            .iter()
            .zip(arrow.fields())
            .map(|(column, field)| cast_with_options(column, field.data_type(), &options))
            .collect::<Result<Vec<_>, _>>();
        let wrong =
            |error: arrow::error::ArrowError| SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, error.to_string());
        let batch = arrow::array::RecordBatch::try_new(Arc::clone(&arrow), columns.map_err(wrong)?).map_err(wrong)?;
        rows += batch.num_rows() as u64;
        let (log, schema) = (Arc::clone(&live.log), Arc::clone(&schema));
        end = runtime::blocking(move || log.append(&schema, &[batch])).await?.end;
    }
    live.wait_log(end).await?;
    Ok(rows)
}

/// The sources of a table that still exist, with their definitions.
pub(super) fn sources_of<'a>(
    definitions: &'a Definitions,
    definition: &'a TableDefinition,
) -> impl Iterator<Item = &'a Arc<SourceDefinition>> {
    definition.sources.iter().filter_map(|id| definitions.sources.get(id))
}
