//! CREATE, ALTER and DROP PIPELINE, and INSERT from a source.

mod options;
mod replace;
mod restart;
mod targets;
mod updates;

use self::targets::Check;

use std::{sync::Arc, time::Duration};

use tidemill_ingest::{
    Error,
    pipeline::plan::{self, Plan},
};
use tidemill_storage::ids::TableId;

use super::{sink::undefined_sink, undefined_table};
use crate::{
    catalog::{
        Definitions,
        definition::{
            PipelineDefinition, PipelineOptions, PipelineTargetDefinition, SourceDefinition, TableDefinition,
        },
    },
    runtime,
    server::{
        deep_stores,
        instance::Instance,
        live::{CONNECT_TIMEOUT, LiveTable},
        look_ups, pipelines, sinks,
    },
    session::error::{Result, SqlError, state},
    sql::ast::{AlterPipeline, AlterPipelineAction, CreatePipeline, Name, OptionPair},
    suggest,
};

/// An error when ALTER PIPELINE … SET would not take options.
pub(super) fn check_options(options: &PipelineOptions, pairs: &[OptionPair]) -> Result<()> {
    options::change(options, pairs).map(|_| ())
}

/// How long PAUSE and DROP wait for a pipeline to stand still.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(20);

/// What CREATE PIPELINE says, and EXPLAIN of it.
pub(super) struct Created {
    pub(super) notices: Vec<String>,
    pub(super) lines: Vec<String>,
}

pub(super) async fn create(instance: &Arc<Instance>, statement: CreatePipeline) -> Result<Created> {
    let definitions = instance.catalog.definitions();
    if let Some(name) = &statement.name
        && definitions.pipeline_named(&name.value).is_some()
        && !statement.explain
        && !statement.or_replace
    {
        let message = format!("pipeline \"{}\" already exists", name.value);
        return match statement.if_not_exists {
            true => Ok(Created { notices: vec![format!("{message}, skipping")], lines: Vec::new() }),
            false => Err(SqlError::new(state::DUPLICATE_OBJECT, message).at(name.position)),
        };
    }
    let at_query = |error: Error| {
        let error = SqlError::from(error);
        SqlError { position: Some(error.position.unwrap_or(statement.query_position)), ..error }
    };
    let (sources, read) = relations(instance, &definitions, &statement)?;
    let of_plan = pipelines::plan_sources(&sources)?;
    let plan = Plan::with_tables(instance.expressions(), &of_plan, &look_ups::plan_tables(&read), &statement.query);
    let plan = plan.map_err(at_query)?;
    let options::Read { options, by_name, late_position, mut notices } = options::read(&statement.options)?;
    let by_name = by_name || statement.by_name;
    notices.extend(updates::note(&plan, options.late));
    updates::check_plan(&plan, options.late)
        .map_err(|error| error.at(late_position.unwrap_or(statement.query_position)))?;
    let check = Check { plan: &plan, late: options.late, late_position, by_name };
    let mut targets: Vec<PipelineTargetDefinition> = Vec::new();
    let mut tables: Vec<(Arc<TableDefinition>, Arc<LiveTable>)> = Vec::new();
    for target in &statement.targets {
        let made = match definitions.sink_named(&target.table.value) {
            Some(sink) => check.sink(sink, target).map_err(|error| at_query_unless_placed(error, &statement))?,
            None if target.is_sink => return Err(undefined_sink(&definitions, &target.table)),
            None => {
                if definitions.table_named(&target.table.value).is_none() {
                    return Err(undefined_table(&definitions, &target.table));
                }
                let (table, live) =
                    instance.table(&target.table.value).map_err(|error| error.at(target.table.position))?;
                let made = check.table(&table, target).map_err(|error| at_query_unless_placed(error, &statement))?;
                tables.push((table, live));
                made
            }
        };
        if targets.iter().any(|known| known.table == made.table) {
            let message = format!("relation \"{}\" specified more than once", target.table.value);
            return Err(SqlError::new(state::DUPLICATE_OBJECT, message).at(target.table.position));
        }
        targets.push(made);
    }
    let mut definition = PipelineDefinition {
        id: TableId::default(),
        oid: 0,
        name: name_of(&definitions, &statement),
        version: 1,
        log: Default::default(),
        sources: sources.iter().map(|source| source.id).collect(),
        tables: read.iter().map(|table| table.id).collect(),
        targets,
        query: statement.query.clone(),
        options,
        paused: false,
        created_at_us: instance.clock.now_us(),
    };
    for (table, _) in &tables {
        pipelines::transform(instance.expressions(), table, &definition, &plan).map_err(at_query)?;
    }
    let mut shapes = Vec::new();
    for target in &definition.targets {
        if let Some(sink) = definitions.sinks.get(&target.table) {
            let spec = sinks::spec(instance.expressions(), sink, &definition, target, &plan).map_err(at_query)?;
            shapes.push(spec.shape);
        }
    }
    if statement.explain {
        return Ok(Created { notices, lines: plan.explain(&of_plan) });
    }
    targets::register(shapes).await.map_err(|error| at_query_unless_placed(error, &statement))?;
    if let Some(before) = definitions.pipeline_named(&definition.name)
        && statement.or_replace
    {
        notices.extend(replace::replace(instance, before, definition, plan).await.map_err(|error| {
            let position = statement.name.as_ref().map_or(statement.query_position, |name| name.position);
            SqlError { position: Some(error.position.unwrap_or(position)), ..error }
        })?);
        return Ok(Created { notices, lines: Vec::new() });
    }
    instance.catalog.change(|change| {
        definition.id = change.new_table_id()?;
        definition.oid = change.new_oid()?;
        definition.log = change.new_source_id()?;
        change.put_pipeline(&definition)
    })?;
    if let Err(error) = begin(instance, &definition, &tables, &mut notices).await {
        if let Err(error) = remove(instance, &definition).await {
            tracing::error!(pipeline = definition.name, %error, "a pipeline that could not be created is left behind");
        }
        return Err(error);
    }
    Ok(Created { notices, lines: Vec::new() })
}

/// What has no place of its own is said of the query.
fn at_query_unless_placed(error: SqlError, statement: &CreatePipeline) -> SqlError {
    SqlError { position: Some(error.position.unwrap_or(statement.query_position)), ..error }
}

/// The sources that the query names, and the tables that it joins them with, in its order.
#[expect(clippy::type_complexity, reason = "two lists")]
fn relations(
    instance: &Instance,
    definitions: &Definitions,
    statement: &CreatePipeline,
) -> Result<(Vec<Arc<SourceDefinition>>, Vec<Arc<TableDefinition>>)> {
    let query = plan::parse(instance.expressions(), &statement.query)
        .map_err(|error| SqlError::from(error).at(statement.query_position))?;
    let (mut sources, mut tables) = (Vec::new(), Vec::new());
    for name in plan::relations(&query) {
        if let Some(source) = definitions.source_named(&name) {
            sources.push(Arc::clone(source));
        } else if definitions.table_named(&name).is_some() {
            let (table, _) = instance.table(&name).map_err(|error| error.at(statement.query_position))?;
            tables.push(table);
        } else if definitions.view_named(&name).is_some() {
            return Err(SqlError::unsupported(format!("a pipeline cannot read \"{name}\", which is a view"))
                .at(statement.query_position)
                .with_hint("pipelines read sources, and join them with tables"));
        }
    }
    if sources.is_empty() && statement.by_name {
        return Err(SqlError::unsupported("INSERT … BY NAME takes a SELECT from a source")
            .at(statement.query_position)
            .with_hint("name the columns: INSERT INTO table (column, …) SELECT …"));
    }
    Ok((sources, tables))
}

/// As it was given, or made of the table's name.
fn name_of(definitions: &Definitions, statement: &CreatePipeline) -> String {
    if let Some(name) = &statement.name {
        return name.value.clone();
    }
    let table = statement.targets.first().map_or("", |target| target.table.value.as_str());
    let plain = format!("insert_{table}");
    let numbered = (2..).map(|number| format!("{plain}_{number}"));
    let free = |name: &String| definitions.pipeline_named(name).is_none();
    std::iter::once(plain.clone()).chain(numbered).find(free).unwrap_or(plain)
}

/// Opens the log behind it, lets the tables read it, and begins to process.
async fn begin(
    instance: &Arc<Instance>,
    definition: &PipelineDefinition,
    tables: &[(Arc<TableDefinition>, Arc<LiveTable>)],
    notices: &mut Vec<String>,
) -> Result<()> {
    let (opening, defined, targets) = (Arc::clone(instance), definition.clone(), tables.to_vec());
    let pipeline = runtime::blocking(move || -> Result<_, Error> {
        let definitions = opening.catalog.definitions();
        let (live, opened) = pipelines::open(&opening, &defined, &definitions)?;
        for (table, of_table) in &targets {
            of_table.ingest.add_feed(pipelines::feed(opening.expressions(), table, &defined, &live)?)?;
        }
        pipelines::start(&opening, &defined, &definitions, &live, opened)
    })
    .await?;
    for (_, live) in tables {
        live.ingest.connected(definition.log).await?;
    }
    match tokio::time::timeout(CONNECT_TIMEOUT, pipeline.connected()).await {
        Ok(connected) => connected?,
        Err(_) => notices.push(format!(
            "a source of pipeline \"{}\" does not answer yet; rows will come when it does (see rt.pipelines)",
            definition.name
        )),
    }
    Ok(())
}

pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterPipeline) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(definition) = definitions.pipeline_named(&statement.name.value) else {
        let error = undefined_pipeline(&definitions, &statement.name);
        return match statement.if_exists {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    let mut after = (**definition).clone();
    match &statement.action {
        AlterPipelineAction::Restart { checkpoint, position } => {
            let pipeline = running(instance, definition)?;
            if let Some(checkpoint) = checkpoint {
                return restart::restart(instance, definition, pipeline, *checkpoint)
                    .await
                    .map_err(|error| error.at(*position));
            }
            return match tokio::time::timeout(PAUSE_TIMEOUT, pipeline.restart()).await {
                Ok(restarted) => restarted.map(|()| Vec::new()).map_err(Into::into),
                Err(_) => Ok(vec![format!(
                    "pipeline \"{}\" did not start again yet, and does when it can (see rt.pipelines)",
                    definition.name
                )]),
            };
        }
        AlterPipelineAction::Pause => after.paused = true,
        AlterPipelineAction::Resume => after.paused = false,
        AlterPipelineAction::Rename(name) => {
            if definitions.pipeline_named(&name.value).is_some() {
                let message = format!("pipeline \"{}\" already exists", name.value);
                return Err(SqlError::new(state::DUPLICATE_OBJECT, message).at(name.position));
            }
            after.name = name.value.clone();
        }
        AlterPipelineAction::Set(pairs) => after.options = options::change(&definition.options, pairs)?,
    }
    if after == **definition {
        return Ok(Vec::new());
    }
    after.version += 1;
    let pipeline = running(instance, definition)?;
    instance.catalog.change(|change| change.put_pipeline(&after))?;
    match statement.action {
        AlterPipelineAction::Pause => match tokio::time::timeout(PAUSE_TIMEOUT, pipeline.pause()).await {
            Ok(paused) => paused?,
            Err(_) => {
                return Ok(vec![format!(
                    "pipeline \"{}\" does not stand still yet, and will be when it does (see rt.pipelines)",
                    after.name
                )]);
            }
        },
        AlterPipelineAction::Resume => pipeline.resume(),
        AlterPipelineAction::Set(_) => pipeline.set_options(pipelines::run_options(&after.options)),
        AlterPipelineAction::Rename(_) | AlterPipelineAction::Restart { .. } => {}
    }
    Ok(Vec::new())
}

fn running(
    instance: &Instance,
    definition: &PipelineDefinition,
) -> Result<Arc<tidemill_ingest::pipeline::run::Pipeline>> {
    let pipeline = instance.pipelines.live(definition.id).and_then(|live| live.running());
    pipeline.ok_or_else(|| {
        let message = format!("pipeline \"{}\" could not be opened when the server started", definition.name);
        SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .with_detail(instance.pipelines.broken(definition.id).unwrap_or_default())
            .with_hint("drop it, or repair what is said and start the server again")
    })
}

pub(super) fn undefined_pipeline(definitions: &Definitions, name: &Name) -> SqlError {
    let error =
        SqlError::new(state::UNDEFINED_OBJECT, format!("pipeline \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.pipelines.values().map(|pipeline| pipeline.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Takes a pipeline away. What it gave is committed by its tables and delivered first, since the log behind it goes. A sink that takes nothing does not
/// keep it: the notices say how much it did not get.
pub(super) async fn drop_pipeline(instance: &Arc<Instance>, definition: &PipelineDefinition) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    if let Some(pipeline) = instance.pipelines.live(definition.id).and_then(|live| live.running()) {
        match tokio::time::timeout(PAUSE_TIMEOUT, pipeline.pause()).await {
            Ok(paused) => paused?,
            Err(_) => {
                pipeline.resume();
                let error = pipeline.status().error.unwrap_or_default();
                let message = format!("pipeline \"{}\" does not stand still: {error}", definition.name);
                return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                    .with_hint("what it gave last is in no checkpoint; try again, or start the server again first"));
            }
        }
        let end = pipeline.output().end();
        for target in &definition.targets {
            let Some(live) = instance.live(target.table) else { continue };
            pipeline.visible_in(&live.ingest, definition.log, end).await?;
            live.ingest.seal().await?;
        }
        if !matches!(tokio::time::timeout(PAUSE_TIMEOUT, pipeline.delivered(end)).await, Ok(Ok(()))) {
            for (id, status) in pipeline.deliveries() {
                let rows = end - status.position.unwrap_or(0).min(end);
                let sink = instance.catalog.definitions().sinks.get(&id).map(|sink| sink.name.clone());
                let (name, sink) = (&definition.name, sink.unwrap_or_default());
                let reason = status.error.map(|error| format!(": {error}")).unwrap_or_default();
                if rows > 0 {
                    notices.push(format!(
                        "sink \"{sink}\" did not get the last {rows} rows of pipeline \"{name}\"{reason}"
                    ));
                }
            }
        }
    }
    remove(instance, definition).await?;
    Ok(notices)
}

/// Takes a pipeline away with all that is of it.
async fn remove(instance: &Arc<Instance>, definition: &PipelineDefinition) -> Result<()> {
    let (removing, definition) = (Arc::clone(instance), definition.clone());
    let removed = runtime::blocking(move || -> Result<()> {
        let instance = removing;
        let live = instance.pipelines.take(definition.id);
        if let Some(pipeline) = live.as_ref().and_then(|live| live.running()) {
            pipeline.stop();
        }
        // From here on a crash leaves files that the next start deletes.
        let rules: Vec<_> = instance.catalog.definitions().rules.values().cloned().collect();
        instance.catalog.change(|change| change.remove_pipeline(&definition, &rules))?;
        for target in &definition.targets {
            if live.is_some()
                && let Some(table) = instance.live(target.table)
                && let Err(error) = table.ingest.remove_feed(definition.log)
            {
                tracing::debug!(pipeline = definition.name, %error, "the table did not read from it");
            }
        }
        let path = instance.directory.pipeline(definition.id);
        if let Err(error) = std::fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "files of a dropped pipeline are left until the next start");
        }
        Ok(())
    })
    .await;
    deep_stores::clean(instance);
    removed
}

/// Refuses to take a thing away that pipelines use.
pub(super) fn check_unused(kind: &str, name: &Name, users: &[Arc<PipelineDefinition>]) -> Result<()> {
    let Some(_) = users.first() else { return Ok(()) };
    let names: Vec<String> = users.iter().map(|pipeline| format!("pipeline \"{}\"", pipeline.name)).collect();
    let uses = if kind == "source" { "reads from it" } else { "writes into it or looks into it" };
    Err(SqlError::new(
        state::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop {kind} \"{}\" because a pipeline uses it", name.value),
    )
    .at(name.position)
    .with_detail(format!("{} {uses}", names.join(", ")))
    .with_hint("drop the pipeline first, or say CASCADE"))
}
