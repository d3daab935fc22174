//! The pipelines that run, and what opening them needs.
//!
//! Order of a start: the log behind a pipeline is cut at its last checkpoint, and it begins to process; then tables are opened and read the log, then those pipelines begin
//! whose rows look into tables. Of the end: pipelines first, after a last checkpoint, then tables.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
use tidemill_ingest::{
    Error,
    consumer::{Feed, Latency, OnGap},
    dead_letters::OnError,
    decode::{self, EpochUnit, Format, SourceColumn},
    pipeline::{
        Checks, Rules, Transform,
        plan::{Plan, PlanSource},
        run::{self, CheckpointLog, Input, Opened, Opening, Output, Pipeline, PipelineSpec, RunOptions, SinkSpec},
    },
    source::{Start, rate::Pace},
};
use tidemill_storage::{
    ids::{StreamId, TableId},
    schema::{Column, TableSchema},
};

use super::{
    instance::Instance,
    live::{self, Parts, arriving},
    look_ups, sinks,
};
use crate::catalog::{
    Definitions,
    definition::{PipelineDefinition, PipelineOptions, PipelineTargetDefinition, SourceDefinition, TableDefinition},
};

type Result<T, E = Error> = std::result::Result<T, E>;

/// A pipeline whose log is there; it may not process yet.
pub struct LivePipeline {
    pub plan: Arc<Plan>,
    pub output: Arc<Output>,
    pipeline: RwLock<Option<Arc<Pipeline>>>,
}

impl LivePipeline {
    pub fn running(&self) -> Option<Arc<Pipeline>> {
        self.pipeline.read().clone()
    }
}

/// All of them.
#[derive(Default)]
pub struct Pipelines {
    live: RwLock<BTreeMap<TableId, Arc<LivePipeline>>>,
    /// Why one could not be opened.
    broken: RwLock<BTreeMap<TableId, String>>,
}

impl Pipelines {
    pub fn live(&self, id: TableId) -> Option<Arc<LivePipeline>> {
        self.live.read().get(&id).cloned()
    }

    pub fn broken(&self, id: TableId) -> Option<String> {
        self.broken.read().get(&id).cloned()
    }

    pub fn set_broken(&self, id: TableId, error: String) {
        self.broken.write().insert(id, error);
    }

    /// The log of a pipeline with another plan of it.
    pub fn replan(&self, id: TableId, plan: Arc<Plan>, opened: &Opened) -> Arc<LivePipeline> {
        let live = LivePipeline { plan, output: Arc::clone(&opened.output), pipeline: RwLock::default() };
        let live = Arc::new(live);
        self.live.write().insert(id, Arc::clone(&live));
        live
    }

    pub fn take(&self, id: TableId) -> Option<Arc<LivePipeline>> {
        self.broken.write().remove(&id);
        self.live.write().remove(&id)
    }

    /// Ends all of them, each after a last checkpoint. Blocks.
    pub fn stop(&self) {
        let all: Vec<_> = self.live.read().values().cloned().collect();
        for pipeline in all.iter().filter_map(|live| live.running()) {
            pipeline.stop();
        }
    }
}

/// What the plan knows of sources.
pub fn plan_sources(sources: &[Arc<SourceDefinition>]) -> Result<Vec<PlanSource>> {
    let plan_source = |source: &Arc<SourceDefinition>| {
        Ok(PlanSource {
            name: source.name.clone(),
            schema: decode::source_schema(&live::source_columns(&source.columns)?),
            time_column: source.watermark.as_ref().map(|watermark| watermark.column.clone()),
        })
    };
    sources.iter().map(plan_source).collect()
}

/// The sources of a pipeline, in its order.
pub fn sources_of(definitions: &Definitions, pipeline: &PipelineDefinition) -> Vec<Arc<SourceDefinition>> {
    pipeline.sources.iter().filter_map(|id| definitions.sources.get(id).cloned()).collect()
}

/// What a pipeline does.
pub fn plan(instance: &Instance, pipeline: &PipelineDefinition, definitions: &Definitions) -> Result<Plan> {
    let sources = plan_sources(&sources_of(definitions, pipeline))?;
    let tables = look_ups::plan_tables(&look_ups::tables_of(definitions, pipeline));
    Plan::with_tables(instance.expressions(), &sources, &tables, &pipeline.query)
}

/// Cuts the log behind a pipeline at its last checkpoint. Blocks.
pub fn open(
    instance: &Instance,
    pipeline: &PipelineDefinition,
    definitions: &Definitions,
) -> Result<(Arc<LivePipeline>, Opened)> {
    let plan = Arc::new(plan(instance, pipeline, definitions)?);
    let mut committed = 0;
    let mut targets = Vec::new();
    let stream = StreamId { source: pipeline.log, partition: 0 };
    for target in &pipeline.targets {
        if definitions.sinks.contains_key(&target.table) {
            targets.push(target.table);
        }
        let Some(table) = definitions.tables.get(&target.table) else { continue };
        targets.push(target.table);
        for partition in 0..table.options.partitions {
            let state = instance.log.partition(table.id, tidemill_storage::ids::PartitionId(partition))?;
            let positions = state.positions.iter().filter(|(of, _)| *of == stream).map(|(_, offset)| *offset);
            committed = positions.fold(committed, u64::max);
        }
    }
    let opened = run::open(&Opening {
        id: pipeline.id,
        name: &pipeline.name,
        log: pipeline.log,
        directory: instance.directory.pipeline(pipeline.id),
        deep_store: instance.deep_stores.pipeline(pipeline.id).as_ref(),
        schema: plan.output(),
        targets: &targets,
        committed,
        checkpoints: &*instance.checkpoints,
        events: &*instance.events,
        now_us: instance.clock.now_us(),
    })?;
    let live = LivePipeline { plan, output: Arc::clone(&opened.output), pipeline: RwLock::default() };
    let live = Arc::new(live);
    instance.pipelines.broken.write().remove(&pipeline.id);
    instance.pipelines.live.write().insert(pipeline.id, Arc::clone(&live));
    Ok((live, opened))
}

/// Whether its rows look into no table, so that it may process before tables are open.
pub fn needs_no_table(pipeline: &PipelineDefinition, definitions: &Definitions) -> bool {
    look_ups::tables_of(definitions, pipeline).is_empty()
}

/// Begins to process.
pub fn start(
    instance: &Instance,
    pipeline: &PipelineDefinition,
    definitions: &Definitions,
    live: &LivePipeline,
    opened: Opened,
) -> Result<Arc<Pipeline>> {
    let spec = spec(instance, pipeline, definitions, &live.plan)?;
    let pipeline = Pipeline::start(&instance.ingest, spec, opened)?;
    *live.pipeline.write() = Some(Arc::clone(&pipeline));
    Ok(pipeline)
}

/// What a pipeline is made of.
pub fn spec(
    instance: &Instance,
    pipeline: &PipelineDefinition,
    definitions: &Definitions,
    plan: &Arc<Plan>,
) -> Result<PipelineSpec> {
    let parts = instance.parts();
    let inputs = sources_of(definitions, pipeline).iter().map(|source| input(&parts, source)).collect::<Result<_>>()?;
    Ok(PipelineSpec {
        id: pipeline.id,
        name: pipeline.name.clone(),
        directory: instance.directory.pipeline(pipeline.id),
        deep_store: instance.deep_stores.pipeline(pipeline.id),
        plan: Arc::clone(plan),
        inputs,
        sinks: sink_specs(instance, pipeline, definitions, plan)?,
        log: pipeline.log,
        tables: look_ups::live(instance, definitions, pipeline)?,
        options: run_options(&pipeline.options),
        checkpoints: Arc::clone(&instance.checkpoints) as Arc<dyn CheckpointLog>,
        is_paused: pipeline.paused,
    })
}

/// What delivers the rows of a pipeline into its sinks.
fn sink_specs(
    instance: &Instance,
    pipeline: &PipelineDefinition,
    definitions: &Definitions,
    plan: &Plan,
) -> Result<Vec<SinkSpec>> {
    let sinks = pipeline.targets.iter().filter_map(|target| Some((target, definitions.sinks.get(&target.table)?)));
    sinks.map(|(target, sink)| sinks::spec(instance.expressions(), sink, pipeline, target, plan)).collect()
}

/// Whether a pipeline means the same over other definitions of tables that its rows look into.
pub fn stays(
    instance: &Instance,
    pipeline: &PipelineDefinition,
    definitions: &Definitions,
    after: &TableDefinition,
) -> Result<bool> {
    let Some(live) = instance.pipelines.live(pipeline.id) else { return Ok(true) };
    let sources = plan_sources(&sources_of(definitions, pipeline))?;
    let mut tables = look_ups::tables_of(definitions, pipeline);
    for table in tables.iter_mut().filter(|table| table.id == after.id) {
        *table = Arc::new(after.clone());
    }
    let tables = look_ups::plan_tables(&tables);
    let plan = Plan::with_tables(instance.expressions(), &sources, &tables, &pipeline.query)?;
    Ok(plan.output() == live.plan.output())
}

/// Options as ingestion has them.
pub fn run_options(options: &PipelineOptions) -> RunOptions {
    RunOptions {
        checkpoint_interval_us: options.checkpoint_interval_us,
        idle_timeout_us: options.idle_timeout_us,
        watermark_jump_us: options.watermark_jump_us,
        memory_limit: options.memory_limit,
        stuck_after_us: options.stuck_after_us,
        parallelism: options.parallelism as usize,
        late: options.late,
        services: options.services.clone(),
    }
}

fn input(parts: &Parts<'_>, source: &SourceDefinition) -> Result<Input> {
    let columns = live::source_columns(&source.columns)?;
    let connected = parts.connections.get(source, parts.clock)?;
    let (options, on_gap) = live::source_options(source)?;
    Ok(Input {
        id: source.id,
        name: source.name.clone(),
        connector: connected.connector,
        start: options.start,
        decoder: live::decoder(connected.format, columns.clone()),
        checks: Arc::new(live::checks(parts.expressions, source, &columns)?),
        watermark: live::watermark(parts.expressions, source, &columns)?.map(Arc::new),
        on_error: options.on_error,
        on_gap,
        pace: Arc::new(Pace::new(parts.connections.limits(source)?)),
    })
}

/// The log behind a pipeline as a source of one of its tables.
pub fn feed(
    expressions: &dyn Rules,
    table: &TableDefinition,
    pipeline: &PipelineDefinition,
    live: &LivePipeline,
) -> Result<Feed> {
    Ok(Feed {
        source: pipeline.log,
        name: pipeline.name.clone(),
        connector: live.output.connector(),
        start: Start::Earliest,
        // Rows come as rows; dead letters among them are JSON.
        decoder: live::decoder(Some(Format::Json { epoch: EpochUnit::default() }), letter_columns(live.plan.output())),
        checks: Arc::new(Checks::compile(expressions, &live.plan.output().arrow(), &[])?),
        transform: transform(expressions, table, pipeline, &live.plan)?,
        watermark: None,
        on_error: OnError::Dlq,
        on_gap: OnGap::Stop,
        latency: Latency::Prompt,
        pace: Arc::default(),
    })
}

/// What the rows of an output are as dead letters.
fn letter_columns(output: &TableSchema) -> Vec<SourceColumn> {
    let column = |column: &Column| SourceColumn::new(&column.name, column.data_type.clone(), true);
    output.columns.iter().map(column).collect()
}

/// From a pipeline's output to the columns of a table.
pub fn transform(
    expressions: &dyn Rules,
    table: &TableDefinition,
    pipeline: &PipelineDefinition,
    plan: &Plan,
) -> Result<Arc<Transform>> {
    let target = pipeline.targets.iter().find(|target| target.table == table.id);
    transform_into(expressions, &arriving(table), target, plan)
}

/// From a pipeline's output to columns, as the target says which goes where.
pub fn transform_into(
    expressions: &dyn Rules,
    schema: &TableSchema,
    target: Option<&PipelineTargetDefinition>,
    plan: &Plan,
) -> Result<Arc<Transform>> {
    let columns = target.map_or(&[][..], |target| target.columns.as_slice());
    let output: &TableSchema = plan.output();
    let items = output.columns.iter().zip(columns).filter_map(|(output, column)| {
        let column = schema.columns.iter().find(|known| known.id == *column)?;
        Some(format!("{} AS \"{}\"", output.name, column.name.replace('"', "\"\"")))
    });
    let select = format!("SELECT {}", items.collect::<Vec<_>>().join(", "));
    Ok(Arc::new(Transform::compile(expressions, &output.arrow(), Some(&select), schema)?))
}
