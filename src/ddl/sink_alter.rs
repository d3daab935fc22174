//! ALTER SINK: what may change while pipelines deliver into it.
//!
//! The definition is durable first. Then each delivery commits what it has put, and goes on from its place with the sink as it is now.

use std::{sync::Arc, time::Duration};

use tidemill_ingest::{
    Error,
    pipeline::run::{Pipeline, SinkSpec},
    sink::{Delivery, SinkOptions},
};

use super::{error::locate, free_name, sink::undefined_sink};
use crate::{
    catalog::{Definitions, definition::SinkDefinition},
    runtime,
    server::{instance::Instance, sinks},
    session::error::{Result, SqlError, state},
    sql::ast::{AlterSink, AlterSinkAction, OptionPair},
};

/// Where records go and how, not what they are.
const CHANGEABLE: [&str; 10] = [
    "brokers",
    "timeout",
    "transaction_timeout",
    "commit_interval",
    "backlog",
    "create_topic",
    "partitions",
    "replication",
    "schema_registry",
    "schema_registry.basic_auth.user_info",
];
/// These ask nobody outside.
const OWN: [&str; 2] = ["commit_interval", "backlog"];
const PROPERTIES: &str = "properties.";
/// The same as `brokers`.
const BOOTSTRAP: &str = "properties.bootstrap.servers";
/// Takes back what was set.
const DEFAULT: &str = "default";
/// How long deliveries are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Errors: 42704 for unknown sinks, 42P07 for a name that is taken, 22023 for bad values, 0A000 for what records are made by, 08001 when nobody answers at the new brokers, 55000 when they are
/// those of another cluster.
pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterSink) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(sink) = definitions.sink_named(&statement.name.value) else {
        let error = undefined_sink(&definitions, &statement.name);
        return match statement.if_exists && error.state == state::UNDEFINED_OBJECT {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    let mut after = (**sink).clone();
    let deliveries = match &statement.action {
        AlterSinkAction::Rename(name) => {
            free_name(&definitions, name, false)?;
            after.name = name.value.clone();
            deliveries(instance, &definitions, &after)?
        }
        AlterSinkAction::Set(pairs) => {
            set(&mut after, pairs)?;
            let located = |error: Error| locate(SqlError::from(error), pairs);
            SinkOptions::parse(&after.options).map_err(located)?;
            let deliveries = deliveries(instance, &definitions, &after).map_err(|error| locate(error, pairs))?;
            let is_own = |pair: &OptionPair| OWN.contains(&pair.key.value.to_lowercase().as_str());
            if !pairs.iter().all(is_own) {
                reach(&after, &deliveries).await.map_err(|error| locate(error, pairs))?;
            }
            deliveries
        }
    };
    if after == **sink {
        return Ok(Vec::new());
    }
    after.version += 1;
    instance.catalog.change(|change| change.put_sink(&after))?;
    let mut notices = Vec::new();
    for (pipeline, spec) in deliveries {
        pipeline.alter_sink(spec);
        if !matches!(tokio::time::timeout(PATIENCE, pipeline.altered(after.id)).await, Ok(Ok(()))) {
            notices.push(format!(
                "a pipeline still delivers into sink \"{}\" as it was, and goes on as it is when that ends (see rt.deliveries)",
                after.name
            ));
        }
    }
    Ok(notices)
}

fn set(after: &mut SinkDefinition, pairs: &[OptionPair]) -> Result<()> {
    for pair in pairs {
        let key = match pair.key.value.starts_with(PROPERTIES) {
            true => pair.key.value.clone(),
            false => pair.key.value.to_lowercase(),
        };
        if !CHANGEABLE.contains(&key.as_str()) && !key.starts_with(PROPERTIES) {
            // What is no option at all is told as such.
            let mut options = after.options.clone();
            options.insert(key.clone(), pair.value.clone());
            if let Err(Error::Definition { message, hint }) = SinkOptions::parse(&options)
                && message.starts_with("unknown option")
            {
                let error = SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(pair.key.position);
                return Err(SqlError { hint, ..error });
            }
            return Err(SqlError::unsupported(format!("option \"{key}\" of a sink cannot be changed"))
                .at(pair.key.position)
                .with_hint(format!(
                    "ALTER SINK changes {} and properties.…; what records are, and where they stand, stays for those who read them: make another sink and another pipeline into it",
                    CHANGEABLE.join(", ")
                )));
        }
        if key == "brokers" || key == BOOTSTRAP {
            after.options.remove("brokers");
            after.options.remove(BOOTSTRAP);
        }
        match pair.value.as_str() {
            DEFAULT => _ = after.options.remove(&key),
            value => _ = after.options.insert(key, value.to_owned()),
        }
    }
    Ok(())
}

/// The pipelines that deliver into a sink, and how they do after it is altered.
fn deliveries(
    instance: &Instance,
    definitions: &Definitions,
    after: &SinkDefinition,
) -> Result<Vec<(Arc<Pipeline>, SinkSpec)>> {
    let mut all = Vec::new();
    for pipeline in definitions.pipelines_into(after.id) {
        let Some(live) = instance.pipelines.live(pipeline.id) else { continue };
        let target = pipeline.targets.iter().find(|target| target.table == after.id);
        if let (Some(running), Some(target)) = (live.running(), target) {
            all.push((running, sinks::spec(instance.expressions(), after, pipeline, target, &live.plan)?));
        }
    }
    Ok(all)
}

/// Asks at the new address whether the topic is there, and whether it is the cluster that knows how far deliveries are.
async fn reach(after: &SinkDefinition, deliveries: &[(Arc<Pipeline>, SinkSpec)]) -> Result<()> {
    let connector = SinkOptions::parse(&after.options)?.connect();
    let mut places = Vec::new();
    for (pipeline, spec) in deliveries {
        let reached = pipeline.deliveries().into_iter().find(|(id, _)| *id == after.id);
        let reached = reached.and_then(|(_, status)| status.position).unwrap_or(0);
        if spec.delivery == Delivery::ExactlyOnce && reached > 0 {
            places.push(spec.clone());
        }
    }
    let name = after.name.clone();
    runtime::blocking(move || -> Result<()> {
        let away = |error: Error| match error {
            Error::Unavailable(message) | Error::Missing(message) => {
                SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message)
            }
            error => SqlError::from(error),
        };
        connector.check().map_err(away)?;
        for spec in places {
            if spec.connector.peek(&spec.identity, spec.delivery).map_err(away)?.is_none() {
                let message = format!(
                    "the brokers do not know how far deliveries into sink \"{name}\" are: they are of another cluster, or have lost the place"
                );
                return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                    .with_hint("a sink stays in its cluster: make another sink and another pipeline into it"));
            }
        }
        Ok(())
    })
    .await
}
