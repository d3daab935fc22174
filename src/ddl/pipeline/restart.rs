//! ALTER PIPELINE … RESTART FROM CHECKPOINT: back to what a pipeline held and had read then.
//!
//! What it gave since is derived again, and may come out otherwise. So nothing of it may be anywhere: rows in tables have been seen, and committed records are for ever. A checkpoint is taken when the pipeline
//! has given nothing since, or gave it to sinks alone which have not committed it; what only waits in the log behind it is cut off.

use std::sync::Arc;

use tidemill_ingest::pipeline::run::{CheckpointRecord, Opened, Pipeline};

use crate::{
    catalog::definition::PipelineDefinition,
    runtime,
    server::{instance::Instance, pipelines},
    session::error::{Result, SqlError, state},
};

pub(super) async fn restart(
    instance: &Arc<Instance>,
    definition: &Arc<PipelineDefinition>,
    pipeline: Arc<Pipeline>,
    checkpoint: u64,
) -> Result<Vec<String>> {
    let (instance, definition) = (Arc::clone(instance), Arc::clone(definition));
    runtime::blocking(move || {
        // Before it is stopped, so that a wrong number stops nothing.
        find(&instance, &definition, checkpoint)?;
        pipeline.stop();
        let decided = find(&instance, &definition, checkpoint).and_then(|record| {
            check(&instance, &definition, &pipeline, &record)?;
            Ok(instance.checkpoints.go_back(definition.id, checkpoint)?)
        });
        go_on(&instance, &definition, &pipeline)?;
        decided.map(|()| Vec::new())
    })
    .await
}

fn find(instance: &Instance, definition: &PipelineDefinition, checkpoint: u64) -> Result<CheckpointRecord> {
    let known = instance.checkpoints.checkpoints(definition.id)?;
    let ids: Vec<String> = known.iter().map(|record| record.id.to_string()).collect();
    known.into_iter().find(|record| record.id == checkpoint).ok_or_else(|| {
        let message = format!("pipeline \"{}\" has no checkpoint {checkpoint}", definition.name);
        SqlError::new(state::UNDEFINED_OBJECT, message)
            .with_hint(format!("it has the checkpoints {} (rt.checkpoints)", ids.join(", ")))
    })
}

/// Refuses a checkpoint that rows came after which somebody may have seen.
fn check(
    instance: &Instance,
    definition: &PipelineDefinition,
    pipeline: &Pipeline,
    record: &CheckpointRecord,
) -> Result<()> {
    let end = pipeline.output().end();
    let refused = |rows: u64, place: String| {
        let message = format!(
            "pipeline \"{}\" cannot go back to checkpoint {}: {rows} rows that it gave since are in {place}",
            definition.name, record.id
        );
        Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint(
            "they cannot be taken back; drop the pipeline, delete what is to be made again, and create it anew",
        ))
    };
    if end <= record.end {
        return Ok(());
    }
    let definitions = instance.catalog.definitions();
    let mut targets = definition.targets.iter().filter_map(|target| definitions.tables.get(&target.table));
    if let Some(table) = targets.next() {
        return refused(end - record.end, format!("table \"{}\"", table.name));
    }
    for (id, status) in pipeline.deliveries() {
        // One whose place is not known may have anything.
        let position = status.position.unwrap_or(end);
        if position > record.end {
            let sink = definitions.sinks.get(&id).map_or("", |sink| sink.name.as_str());
            return refused(position - record.end, format!("sink \"{sink}\""));
        }
    }
    Ok(())
}

/// Begins to process from the last checkpoint that there is.
fn go_on(instance: &Instance, definition: &PipelineDefinition, stopped: &Pipeline) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let known = instance.checkpoints.checkpoints(definition.id)?;
    let has_tables = definition.targets.iter().any(|target| definitions.tables.contains_key(&target.table));
    let started = match (Opened::again(stopped.output(), &known), instance.pipelines.live(definition.id)) {
        (Some(opened), Some(live)) => pipelines::start(instance, definition, &definitions, &live, opened),
        // Tables read the log as it was.
        _ if has_tables => Err(tidemill_ingest::Error::Unavailable(
            "its last checkpoint could not be made; it goes on when the server starts again".into(),
        )),
        _ => pipelines::open(instance, definition, &definitions)
            .and_then(|(live, opened)| pipelines::start(instance, definition, &definitions, &live, opened)),
    };
    started.map(|_| ()).map_err(|error| {
        instance.pipelines.set_broken(definition.id, error.to_string());
        error.into()
    })
}
