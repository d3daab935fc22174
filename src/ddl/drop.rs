//! DROP TABLE, DROP SOURCE, DROP SINK, DROP PIPELINE, DROP VIEW, DROP INDEX, DROP FUNCTION and DROP RULE.

use std::sync::Arc;

use super::{
    function::{drop_function, undefined_function},
    index::{drop_index, undefined_index},
    pipeline::{self, drop_pipeline, undefined_pipeline},
    rule::{drop_rule, undefined_rule},
    sink::{drop_sink, undefined_sink},
    undefined_source, undefined_table, undefined_view,
    view::{check_unread, dependents, drop_views},
};
use crate::{
    catalog::definition::{PipelineDefinition, TableDefinition, ViewDefinition},
    runtime,
    server::{deep_stores, instance::Instance},
    session::error::{Result, SqlError, state},
    sql::ast::{Drop, Name, ObjectKind},
};

pub(super) async fn drop(instance: &Arc<Instance>, statement: Drop) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    // All names are looked up before the first one goes.
    let definitions = instance.catalog.definitions();
    let mut names: Vec<&Name> = Vec::new();
    for name in &statement.names {
        let error = match statement.kind {
            ObjectKind::Table if definitions.table_named(&name.value).is_none() => undefined_table(&definitions, name),
            ObjectKind::Source if definitions.source_named(&name.value).is_none() => {
                undefined_source(&definitions, name)
            }
            ObjectKind::Sink if definitions.sink_named(&name.value).is_none() => undefined_sink(&definitions, name),
            ObjectKind::View if definitions.view_named(&name.value).is_none() => undefined_view(&definitions, name),
            ObjectKind::Index if definitions.index_named(&name.value).is_none() => undefined_index(&definitions, name),
            ObjectKind::Pipeline if definitions.pipeline_named(&name.value).is_none() => {
                undefined_pipeline(&definitions, name)
            }
            ObjectKind::Function if definitions.function_named(&name.value).is_none() => {
                undefined_function(&definitions, name)
            }
            ObjectKind::Rule if definitions.rule_named(&name.value).is_none() => undefined_rule(&definitions, name),
            _ => {
                if !names.iter().any(|other| other.value == name.value) {
                    names.push(name);
                }
                continue;
            }
        };
        if !statement.if_exists || error.state == state::WRONG_OBJECT_TYPE {
            return Err(error);
        }
        notices.push(format!("{} \"{}\" does not exist, skipping", statement.kind.name(), name.value));
    }
    if statement.kind == ObjectKind::Source && !statement.cascade {
        for name in &names {
            check_unused(instance, name)?;
        }
    }
    for name in &names {
        let users: Vec<Arc<PipelineDefinition>> = match statement.kind {
            ObjectKind::Table => definitions.table_named(&name.value).map_or_else(Vec::new, |table| {
                let mut users: Vec<_> = definitions.pipelines_into(table.id).cloned().collect();
                let readers = definitions.pipelines_looking_into(table.id);
                users.extend(
                    readers.filter(|reader| !reader.targets.iter().any(|target| target.table == table.id)).cloned(),
                );
                users
            }),
            ObjectKind::Source => definitions
                .source_named(&name.value)
                .map_or_else(Vec::new, |source| definitions.pipelines_of(source.id).cloned().collect()),
            ObjectKind::Sink => definitions
                .sink_named(&name.value)
                .map_or_else(Vec::new, |sink| definitions.pipelines_into(sink.id).cloned().collect()),
            ObjectKind::View | ObjectKind::Index | ObjectKind::Pipeline | ObjectKind::Function | ObjectKind::Rule => {
                Vec::new()
            }
        };
        if !statement.cascade {
            pipeline::check_unused(statement.kind.name(), name, &users)?;
        }
        for user in users {
            if instance.catalog.definitions().pipelines.contains_key(&user.id) {
                notices.push(format!("drop cascades to pipeline {}", user.name));
                notices.extend(drop_pipeline(instance, &user).await?);
            }
        }
    }
    if matches!(statement.kind, ObjectKind::Table | ObjectKind::View | ObjectKind::Index) {
        let relations: Vec<(&str, u32)> = names
            .iter()
            .filter_map(|name| {
                let table = definitions.table_named(&name.value).map(|table| (table.name.as_str(), table.oid));
                table.or_else(|| definitions.view_named(&name.value).map(|view| (view.name.as_str(), view.oid)))
            })
            .collect();
        let dropped: Vec<u32> = relations.iter().map(|(_, oid)| *oid).collect();
        let mut views: Vec<Arc<ViewDefinition>> = Vec::new();
        for (name, oid) in &relations {
            if !statement.cascade {
                check_unread(&definitions, statement.kind.name(), name, *oid, &dropped)?;
            }
            let own = definitions.views.get(oid).cloned();
            for view in dependents(&definitions, *oid).into_iter().chain(own) {
                if !dropped.contains(&view.oid) {
                    notices.push(format!("drop cascades to view {}", view.name));
                }
                if !views.iter().any(|known| known.oid == view.oid) {
                    views.push(view);
                }
            }
        }
        drop_views(instance, views).await?;
    }
    for name in names {
        let definitions = instance.catalog.definitions();
        match statement.kind {
            ObjectKind::Table => {
                if let Some(table) = definitions.table_named(&name.value) {
                    drop_table(instance, table).await?;
                }
            }
            ObjectKind::Source => drop_source(instance, name, &mut notices).await?,
            ObjectKind::Sink => {
                if let Some(sink) = definitions.sink_named(&name.value) {
                    drop_sink(instance, sink.id).await?;
                }
            }
            ObjectKind::View => {}
            ObjectKind::Pipeline => {
                if let Some(pipeline) = definitions.pipeline_named(&name.value) {
                    notices.extend(drop_pipeline(instance, pipeline).await?);
                }
            }
            ObjectKind::Index => drop_index(instance, &name.value).await?,
            ObjectKind::Rule => drop_rule(instance, name)?,
            ObjectKind::Function => drop_function(instance, name, statement.cascade, &mut notices).await?,
        }
    }
    Ok(notices)
}

fn check_unused(instance: &Instance, name: &Name) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let Some(source) = definitions.source_named(&name.value) else { return Ok(()) };
    let tables = definitions.tables_of(source.id).map(|table| format!("\"{}\"", table.name)).collect::<Vec<_>>();
    if tables.is_empty() {
        return Ok(());
    }
    Err(SqlError::new(
        state::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop source \"{}\" because it feeds other objects", name.value),
    )
    .at(name.position)
    .with_detail(format!("table {} reads from it", tables.join(", table ")))
    .with_hint("drop the tables first, or say CASCADE: the tables then keep their rows and are no longer fed"))
}

/// Takes a table away: its consumption, its definition, its bytes.
pub(super) async fn drop_table(instance: &Arc<Instance>, table: &TableDefinition) -> Result<()> {
    let (dropping, table) = (Arc::clone(instance), table.clone());
    let dropped = runtime::blocking(move || -> Result<()> {
        let instance = dropping;
        let live = instance.take_live(table.id);
        if let Some(live) = &live {
            live.ingest.stop();
            live.table.set_dropped();
        }
        // From here on a crash leaves files that the next start deletes.
        instance.catalog.change(|change| change.remove_table(&table))?;
        if let Some(live) = &live
            && let Err(error) = live.ingest.remove_files()
        {
            tracing::warn!(table = table.name, %error, "files of a dropped table are left until the next start");
        }
        std::mem::drop(live);
        for path in [instance.directory.log(table.id), instance.directory.table(table.id)] {
            if let Err(error) = std::fs::remove_dir_all(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "files of a dropped table are left until the next start");
            }
        }
        Ok(())
    })
    .await;
    deep_stores::clean(instance);
    dropped
}

/// Takes a source away, and with CASCADE takes it from the tables that it feeds. They keep their rows.
async fn drop_source(instance: &Arc<Instance>, name: &Name, notices: &mut Vec<String>) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let Some(source) = definitions.source_named(&name.value).cloned() else { return Ok(()) };
    let fed = definitions.tables_of(source.id).cloned().collect::<Vec<_>>();
    notices.extend(
        fed.iter().map(|table| format!("table \"{}\" is no longer fed by source \"{}\"", table.name, source.name)),
    );
    let instance = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        instance.catalog.change(|change| {
            for table in &fed {
                let mut detached = (**table).clone();
                detached.sources.retain(|id| *id != source.id);
                detached.version += 1;
                change.put_table(&detached)?;
            }
            change.remove_source(&source)
        })?;
        for table in &fed {
            if let Some(live) = instance.live(table.id) {
                live.ingest.remove_feed(source.id)?;
            }
        }
        Ok(())
    })
    .await
}
