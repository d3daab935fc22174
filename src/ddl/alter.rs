//! ALTER TABLE: all actions of a statement together, or none.

use std::sync::Arc;

use tidemill_ingest::{commit::PartitionState, consumer::NotRecorded};
use tidemill_storage::ids::{ColumnId, SchemaVersion};

use super::{
    columns::{check_compression, table_column, widen},
    key::check_merges,
    table::{check_retention, set_time_column, sources_of},
    undefined_column, undefined_table,
    view::dependents,
};
use crate::{
    catalog::{
        Definitions,
        definition::{KeyMode, TableDefinition},
    },
    runtime,
    server::{
        instance::Instance,
        live::{self, LiveTable, seal_policy},
        pipelines,
    },
    session::error::{Result, SqlError, state},
    sql::{
        ast::{AlterAction, AlterTable, ColumnDefinition, Name},
        options,
    },
};

pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterTable) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(before) = definitions.table_named(&statement.name.value) else {
        let error = undefined_table(&definitions, &statement.name);
        return match statement.if_exists && error.state == state::UNDEFINED_TABLE {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    check_views(&definitions, before, &statement.actions)?;
    check_look_ups(&definitions, before, &statement.actions)?;
    let (_, live) = instance.table(&before.name)?;
    let mut after = (**before).clone();
    let mut notices = Vec::new();
    for action in &statement.actions {
        apply(&mut after, action, &definitions, &live, &mut notices)?;
    }
    if after == **before {
        return Ok(notices);
    }
    after.version += 1;
    if after.schema != before.schema {
        after.schema.version = SchemaVersion(before.schema.version.0 + 1);
        for source in sources_of(&definitions, &after) {
            let columns = live::source_columns(&source.columns)?;
            live::transform(instance.expressions(), &columns, &after)
                .map_err(|error| SqlError::from(error).at(statement.name.position))?;
        }
        check_pipelines(instance, &definitions, &after, &statement.name)?;
        check_readers(instance, &definitions, &after, &statement.name)?;
    }
    check_retention(&after)?;
    if after.options.partitions != before.options.partitions {
        repartition(instance, &live, before, after, &statement.name).await?;
        return Ok(notices);
    }
    if after.schema != before.schema && before.key.as_ref().is_some_and(|key| key.mode == KeyMode::PartialUpsert) {
        // A crash has rows in memory merged once more, which would be in the new types: a sum would no longer end where that of the old one did.
        live.ingest.seal().await?;
    }
    let (following, before) = (Arc::clone(instance), Arc::clone(before));
    runtime::blocking(move || -> Result<()> {
        following.catalog.change(|change| change.put_table(&after))?;
        follow(&following, &live, &before, &after)
    })
    .await?;
    Ok(notices)
}

/// Gives a table another number of partitions, and other options with it.
async fn repartition(
    instance: &Arc<Instance>,
    live: &Arc<LiveTable>,
    before: &Arc<TableDefinition>,
    after: TableDefinition,
    name: &Name,
) -> Result<()> {
    let others = TableDefinition { version: before.version, options: before.options.clone(), ..after.clone() };
    if others != **before {
        return Err(SqlError::unsupported("partitions cannot be changed together with columns, names or ingestion")
            .at(name.position)
            .with_hint("use a statement of its own: ALTER TABLE … SET (partitions = …)"));
    }
    if before.key.as_ref().is_some_and(|key| key.ages.is_some()) {
        // Rows are as old as they are behind the newest of their partition: in others they would be of other ages.
        let message =
            format!("table \"{}\" has a key_ttl or a tombstone_ttl: its partitions are as it was made", name.value);
        return Err(SqlError::unsupported(message)
            .at(name.position)
            .with_hint("make a table with as many partitions, and INSERT INTO it what this one has"));
    }
    let (instance, live, before) = (Arc::clone(instance), Arc::clone(live), Arc::clone(before));
    runtime::blocking(move || -> Result<()> {
        let record = |states: &[PartitionState]| {
            let changed = instance.catalog.change(|change| {
                change.put_table(&after)?;
                change.set_partitions(after.id, states)
            });
            changed.or_else(|error| {
                // It may have taken place all the same.
                let known = instance.catalog.reload().ok().and_then(|known| known.tables.get(&after.id).cloned());
                match known {
                    Some(known) if *known == after => Ok(()),
                    known => Err(NotRecorded {
                        error: tidemill_ingest::Error::Commit(error.to_string()),
                        is_known: known.is_some(),
                    }),
                }
            })
        };
        live.ingest.repartition(after.options.partitions, &record)?;
        follow(&instance, &live, &before, &after)
    })
    .await
}

/// What pipelines write stays, and can take it.
fn check_pipelines(instance: &Instance, definitions: &Definitions, after: &TableDefinition, name: &Name) -> Result<()> {
    for pipeline in definitions.pipelines_into(after.id) {
        let columns = pipeline.targets.iter().filter(|target| target.table == after.id);
        let mut columns = columns.flat_map(|target| &target.columns);
        if columns.any(|id| after.schema.column(*id).is_none()) {
            let message = format!("cannot drop a column of table {} that a pipeline writes", after.name);
            return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .at(name.position)
                .with_detail(format!("pipeline \"{}\" writes into it", pipeline.name))
                .with_hint("drop the pipeline, change the table, and create the pipeline again"));
        }
        if let Some(live) = instance.pipelines.live(pipeline.id) {
            pipelines::transform(instance.expressions(), after, pipeline, &live.plan)
                .map_err(|error| SqlError::from(error).at(name.position))?;
        }
    }
    Ok(())
}

/// Pipelines that look into a table are kept as text, too, and keep columns of it as they were.
fn check_look_ups(definitions: &Definitions, table: &TableDefinition, actions: &[AlterAction]) -> Result<()> {
    let Some(pipeline) = definitions.pipelines_looking_into(table.id).next() else { return Ok(()) };
    let changed = actions.iter().find_map(|action| match action {
        AlterAction::DropColumn { name, .. } => Some(("drop a column of", name)),
        AlterAction::RenameColumn { from, .. } => Some(("rename a column of", from)),
        AlterAction::SetType { column, .. } => Some(("alter the type of a column of", column)),
        AlterAction::RenameTo(name) => Some(("rename", name)),
        _ => None,
    });
    let Some((what, name)) = changed else { return Ok(()) };
    Err(looked_into(
        format!("cannot {what} table {} because a pipeline looks into it", table.name),
        &pipeline.name,
        name,
    ))
}

fn looked_into(message: String, pipeline: &str, name: &Name) -> SqlError {
    SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
        .at(name.position)
        .with_detail(format!("pipeline \"{pipeline}\" joins its rows with the table"))
        .with_hint("drop the pipeline, change the table, and create the pipeline again")
}

/// A column that is new may have a name that the text of a pipeline means another column by.
fn check_readers(instance: &Instance, definitions: &Definitions, after: &TableDefinition, name: &Name) -> Result<()> {
    for pipeline in definitions.pipelines_looking_into(after.id) {
        if !pipelines::stays(instance, pipeline, definitions, after).unwrap_or(false) {
            let message = format!("cannot change table {} so: its pipeline would mean something else", after.name);
            return Err(looked_into(message, &pipeline.name, name));
        }
    }
    Ok(())
}

/// Views are kept as text: what they read keeps its name and type as long as they are there.
fn check_views(definitions: &Definitions, table: &TableDefinition, actions: &[AlterAction]) -> Result<()> {
    let Some(view) = dependents(definitions, table.oid).pop() else { return Ok(()) };
    let changed = actions.iter().find_map(|action| match action {
        AlterAction::DropColumn { name, .. } => Some(("drop", name)),
        AlterAction::RenameColumn { from, .. } => Some(("rename", from)),
        AlterAction::SetType { column, .. } => Some(("alter type of", column)),
        AlterAction::RenameTo(name) => Some(("rename", name)),
        _ => None,
    });
    let Some((what, name)) = changed else { return Ok(()) };
    let thing = match actions.iter().any(|action| matches!(action, AlterAction::RenameTo(to) if to == name)) {
        true => format!("table {}", table.name),
        false => format!("column {} of table {}", name.value, table.name),
    };
    Err(SqlError::new(
        state::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot {what} {thing} because a view reads the table"),
    )
    .at(name.position)
    .with_detail(format!("view {} depends on table {}", view.name, table.name))
    .with_hint("drop the view, change the table, and create the view again"))
}

/// The running table does what its definition now says.
fn follow(instance: &Instance, live: &LiveTable, before: &TableDefinition, after: &TableDefinition) -> Result<()> {
    if after.schema != before.schema {
        live.set_schema(instance.expressions(), &instance.pipelines, after, &instance.catalog.definitions())?;
    }
    if after.indexes != before.indexes {
        super::index::follow(instance, after);
    }
    if after.options != before.options {
        live.ingest.set_policy(seal_policy(&after.options));
        live.ingest.set_retention(after.options.retention_us);
    }
    if after.paused != before.paused {
        for source in &after.sources {
            if after.paused { live.ingest.pause(*source)? } else { live.ingest.resume(*source)? }
        }
    }
    Ok(())
}

fn apply(
    table: &mut TableDefinition,
    action: &AlterAction,
    definitions: &Definitions,
    live: &LiveTable,
    notices: &mut Vec<String>,
) -> Result<()> {
    match action {
        AlterAction::AddColumn { column, if_not_exists } => add_column(table, column, *if_not_exists, live, notices),
        AlterAction::DropColumn { name, if_exists } => drop_column(table, name, *if_exists, notices),
        AlterAction::RenameColumn { from, to } => {
            let index = column_index(table, from)?;
            if table.schema.column_named(&to.value).is_some() {
                return Err(duplicate(table, to));
            }
            if table.transform.is_none() {
                let fed = sources_of(definitions, table).filter(|s| s.columns.iter().any(|c| c.name == from.value));
                notices.extend(fed.map(|source| {
                    format!(
                        "column \"{}\" of source \"{}\" no longer feeds the renamed column: sources feed by name",
                        from.value, source.name
                    )
                }));
            }
            table.schema.columns[index].name = to.value.clone();
            Ok(())
        }
        AlterAction::SetType { column, data_type, position } => {
            let index = column_index(table, column)?;
            check_not_of_key(table, index, column, "alter the type of")?;
            let present = &mut table.schema.columns[index];
            if !present.data_type.widens_to(data_type) {
                let message =
                    format!("column \"{}\" cannot be changed from {} to {data_type}", column.value, present.data_type);
                return Err(SqlError::new(state::DATATYPE_MISMATCH, message)
                    .at(*position)
                    .with_hint("only widening is possible, because stored rows are not rewritten; add a column of the new type instead"));
            }
            if let Some(default) = &present.default {
                present.default = Some(widen(default, &present.data_type, data_type)?);
            }
            present.data_type = data_type.clone();
            Ok(())
        }
        AlterAction::SetCompression { column, compression } => {
            let index = column_index(table, column)?;
            let present = &mut table.schema.columns[index];
            check_compression(column, &present.data_type, *compression)?;
            present.compression = *compression;
            Ok(())
        }
        AlterAction::SetOptions(pairs) => {
            let columns = options::apply(&mut table.options, pairs, false)?;
            set_time_column(&mut table.schema, columns.time_column)
        }
        AlterAction::RenameTo(name) => {
            if definitions.has_relation(&name.value) {
                let message = format!("relation \"{}\" already exists", name.value);
                return Err(SqlError::new(state::DUPLICATE_TABLE, message).at(name.position));
            }
            table.name = name.value.clone();
            Ok(())
        }
        AlterAction::PauseIngestion => {
            table.paused = true;
            Ok(())
        }
        AlterAction::ResumeIngestion => {
            table.paused = false;
            Ok(())
        }
    }
}

fn add_column(
    table: &mut TableDefinition,
    column: &ColumnDefinition,
    if_not_exists: bool,
    live: &LiveTable,
    notices: &mut Vec<String>,
) -> Result<()> {
    if table.schema.column_named(&column.name.value).is_some() {
        let error = duplicate(table, &column.name);
        if if_not_exists {
            notices.push(format!("{}, skipping", error.message));
            return Ok(());
        }
        return Err(error);
    }
    notices.extend(column.notice.clone());
    let made = table_column(table.next_column, column)?;
    if !made.nullable && made.default.is_none() && live.table.snapshot().rows() > 0 {
        return Err(SqlError::new(
            state::NOT_NULL_VIOLATION,
            format!("column \"{}\" of relation \"{}\" contains null values", made.name, table.name),
        )
        .at(column.name.position)
        .with_hint("give it a DEFAULT, which the rows that are there will have"));
    }
    check_merges(table.key.as_ref(), &table.schema, [column])?;
    table.next_column = ColumnId(table.next_column.0 + 1);
    table.schema.columns.push(made);
    Ok(())
}

fn drop_column(table: &mut TableDefinition, name: &Name, if_exists: bool, notices: &mut Vec<String>) -> Result<()> {
    let index = match column_index(table, name) {
        Ok(index) => index,
        Err(error) if if_exists => {
            notices.push(format!("{}, skipping", error.message));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if table.schema.time_column == Some(table.schema.columns[index].id) {
        return Err(SqlError::new(
            state::DEPENDENT_OBJECTS_STILL_EXIST,
            format!("column \"{}\" is the table's time column", name.value),
        )
        .at(name.position)
        .with_hint("choose another one first: ALTER TABLE … SET (time_column = '…')"));
    }
    check_not_of_key(table, index, name, "drop")?;
    if table.schema.columns.len() == 1 {
        return Err(SqlError::unsupported("the last column of a table cannot be dropped").at(name.position));
    }
    let column = table.schema.columns.remove(index);
    table.indexes.retain(|known| !known.columns.contains(&column.id));
    Ok(())
}

/// What rows are told apart by stays as it is.
fn check_not_of_key(table: &TableDefinition, index: usize, name: &Name, what: &str) -> Result<()> {
    let id = table.schema.columns[index].id;
    if !table.key.as_ref().is_some_and(|key| key.spec().needs(id) || key.late == Some(id)) {
        return Ok(());
    }
    let message =
        format!("cannot {what} column \"{}\": the primary key of table \"{}\" goes by it", name.value, table.name);
    Err(SqlError::unsupported(message).at(name.position).with_hint(
        "columns of the key, version_column, delete_column and out_of_order_column are there for ever, in one type",
    ))
}

fn column_index(table: &TableDefinition, name: &Name) -> Result<usize> {
    let position = table.schema.columns.iter().position(|column| column.name == name.value);
    position.ok_or_else(|| undefined_column(table, name))
}

fn duplicate(table: &TableDefinition, name: &Name) -> SqlError {
    let message = format!("column \"{}\" of relation \"{}\" already exists", name.value, table.name);
    SqlError::new(state::DUPLICATE_COLUMN, message).at(name.position)
}
