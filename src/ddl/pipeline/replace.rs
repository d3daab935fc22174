//! CREATE OR REPLACE PIPELINE: another query in the place of one that runs.
//!
//! | what is other | the new query begins with |
//! |---|---|
//! | what is done with rows that operators give, or there are no operators | the state of the old one, at its last checkpoint |
//! | what operators are given, or what they hold | a state made of all that is retained up to there, while the old one goes on |
//!
//! Definition and state change in one transaction. A crash before it leaves the old query, one after it the new one, each with its state.

use std::sync::Arc;

use tidemill_ingest::pipeline::{
    plan::Plan,
    run::{Opened, Pipeline, Positions, Warming},
};

use super::{PAUSE_TIMEOUT, running};
use crate::{
    catalog::definition::PipelineDefinition,
    runtime,
    server::{instance::Instance, pipelines},
    session::error::{Result, SqlError, state},
};

/// `after` is `before` with another query and options.
pub(super) async fn replace(
    instance: &Arc<Instance>,
    before: &Arc<PipelineDefinition>,
    mut after: PipelineDefinition,
    plan: Plan,
) -> Result<Vec<String>> {
    let pipeline = running(instance, before)?;
    check(instance, before, &after, &plan)?;
    after.id = before.id;
    after.oid = before.oid;
    after.log = before.log;
    after.version = before.version + 1;
    after.paused = before.paused;
    after.created_at_us = before.created_at_us;
    let (plan, after) = (Arc::new(plan), Arc::new(after));
    let keeps = keeps_state(instance, before, &after, &plan)?;
    let mut warming = None;
    if !keeps {
        let (instance, after, plan) = (Arc::clone(instance), Arc::clone(&after), Arc::clone(&plan));
        let positions: Positions = pipeline.status().positions;
        warming = Some(
            runtime::blocking(move || -> Result<Warming> {
                let definitions = instance.catalog.definitions();
                let spec = pipelines::spec(&instance, &after, &definitions, &plan)?;
                let mut warming = Warming::new(&instance.ingest, spec)?;
                warming.feed(&positions)?;
                Ok(warming)
            })
            .await?,
        );
    }
    match tokio::time::timeout(PAUSE_TIMEOUT, pipeline.pause()).await {
        Ok(paused) => paused?,
        Err(_) => {
            pipeline.resume();
            let error = pipeline.status().error.unwrap_or_default();
            let message = format!("pipeline \"{}\" does not stand still: {error}", before.name);
            return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint("try again"));
        }
    }
    let (instance, before) = (Arc::clone(instance), Arc::clone(before));
    runtime::blocking(move || {
        let switched = switch(&instance, &after, &pipeline, warming);
        let (definition, plan) = match switched {
            Ok(()) => (&*after, Some(plan)),
            Err(_) => (&*before, None),
        };
        go_on(&instance, definition, &pipeline, plan)?;
        switched.map(|()| match keeps {
            true => Vec::new(),
            false => vec![format!(
                "the new query of pipeline \"{}\" began with what its sources retain; what the old one gave stays",
                after.name
            )],
        })
    })
    .await
}

/// Refuses what would need another log, or other readers of it.
fn check(instance: &Instance, before: &PipelineDefinition, after: &PipelineDefinition, plan: &Plan) -> Result<()> {
    let refused = |what: &str| {
        let message = format!("pipeline \"{}\" cannot be replaced by one with other {what}", before.name);
        Err(SqlError::unsupported(message).with_hint("drop it, and create the new one"))
    };
    let sorted = |ids: &[tidemill_storage::ids::SourceId]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    if sorted(&before.sources) != sorted(&after.sources) {
        return refused("sources");
    }
    if before.targets != after.targets {
        return refused("tables, sinks, or columns of these");
    }
    let live = instance.pipelines.live(before.id);
    if live.is_none_or(|live| live.plan.output() != plan.output()) {
        return refused("columns or types of its output");
    }
    Ok(())
}

/// Whether the new query's operators are given the same, and hold the same.
fn keeps_state(
    instance: &Instance,
    before: &PipelineDefinition,
    after: &PipelineDefinition,
    plan: &Plan,
) -> Result<bool> {
    let definitions = instance.catalog.definitions();
    // Compiled now: the old plan may be of before a table got another column.
    let old = pipelines::plan(instance, before, &definitions)?;
    let (was, is) = (&before.options, &after.options);
    let is_same = was.late == is.late && was.watermark_jump_us == is.watermark_jump_us;
    Ok(before.sources == after.sources && before.tables == after.tables && is_same && old.holds() == plan.holds())
}

/// Makes the new query the one that counts. The pipeline stands still, and ends here.
fn switch(
    instance: &Instance,
    after: &PipelineDefinition,
    pipeline: &Pipeline,
    warming: Option<Warming>,
) -> Result<()> {
    pipeline.stop();
    let known = instance.checkpoints.checkpoints(after.id)?;
    let base = known.last().filter(|base| base.end == pipeline.output().end()).ok_or_else(|| {
        let message = format!("the last checkpoint of pipeline \"{}\" could not be made", after.name);
        SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message).with_hint("try again")
    })?;
    let record = match warming {
        Some(mut warming) => {
            warming.feed(&base.positions.iter().copied().collect())?;
            let store = instance.deep_stores.pipeline(after.id);
            Some(warming.checkpoint(&instance.directory.pipeline(after.id), base, store)?)
        }
        None => None,
    };
    Ok(instance.catalog.change(|change| change.replace_pipeline(after, record.as_ref()))?)
}

/// Begins to process from the last checkpoint that there is, with a new plan if there is one.
fn go_on(
    instance: &Instance,
    definition: &PipelineDefinition,
    stopped: &Pipeline,
    plan: Option<Arc<Plan>>,
) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let started = || {
        let known = instance.checkpoints.checkpoints(definition.id)?;
        let opened = Opened::again(stopped.output(), &known).ok_or_else(|| {
            let message = "its last checkpoint could not be made; it goes on when the server starts again";
            tidemill_ingest::Error::Unavailable(message.into())
        })?;
        let live = match plan {
            Some(plan) => instance.pipelines.replan(definition.id, plan, &opened),
            None => instance
                .pipelines
                .live(definition.id)
                .ok_or_else(|| tidemill_ingest::Error::Unavailable("it was dropped".into()))?,
        };
        pipelines::start(instance, definition, &definitions, &live, opened)
    };
    started().map(|_| ()).map_err(|error: tidemill_ingest::Error| {
        instance.pipelines.set_broken(definition.id, error.to_string());
        error.into()
    })
}
