//! Views of sinks, and of what pipelines deliver into them.

use tidemill_ingest::sink::SinkOptions;
use tidemill_query::SqlError;

use super::{
    Cell,
    Kind::{self, Int, Text, Time},
    Rows,
    ingestion::hide_secret,
};
use crate::server::{instance::Instance, sinks as server_sinks};

pub(super) const SINKS: &[(&str, Kind)] = &[
    ("id", Int),
    ("name", Text),
    ("connector", Text),
    ("topic", Text),
    ("format", Text),
    ("delivery", Text),
    ("columns", Text),
    ("pipelines", Text),
    ("options", Text),
    ("created_at", Time),
];

pub(super) fn sinks(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let row = |sink: &std::sync::Arc<crate::catalog::definition::SinkDefinition>| {
        let option = |key: &str| sink.options.get(key).cloned();
        let pipelines = definitions.pipelines_into(sink.id).map(|pipeline| pipeline.name.as_str());
        let columns = sink
            .schema
            .as_ref()
            .map(|schema| schema.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "));
        let options = sink.options.iter().map(|(key, value)| (key.clone(), hide_secret(key, value).into()));
        let delivery = SinkOptions::parse(&sink.options).map(|options| options.delivery.name());
        vec![
            sink.id.0.into(),
            sink.name.as_str().into(),
            option("connector").into(),
            option("topic").into(),
            option("format").unwrap_or_else(|| "json".into()).into(),
            delivery.ok().into(),
            columns.into(),
            pipelines.collect::<Vec<_>>().join(", ").into(),
            serde_json::Value::Object(options.collect()).to_string().into(),
            Cell::Time(sink.created_at_us),
        ]
    };
    Ok(definitions.sinks.values().map(row).collect())
}

pub(super) const DELIVERIES: &[(&str, Kind)] = &[
    ("pipeline", Text),
    ("sink", Text),
    ("state", Text),
    ("identity", Text),
    ("position", Int),
    ("behind", Int),
    ("rows", Int),
    ("commits", Int),
    ("dead_letters", Int),
    ("committed_at", Time),
    ("restarts", Int),
    ("retry_at", Time),
    ("error", Text),
];

pub(super) fn deliveries(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let mut rows = Vec::new();
    for pipeline in definitions.pipelines.values() {
        let Some(running) = instance.pipelines.live(pipeline.id).and_then(|live| live.running()) else { continue };
        let end = running.output().end();
        for (id, status) in running.deliveries() {
            let Some(sink) = definitions.sinks.get(&id) else { continue };
            let prefix = SinkOptions::parse(&sink.options).map(|options| options.kafka.prefix).unwrap_or_default();
            rows.push(vec![
                pipeline.name.as_str().into(),
                sink.name.as_str().into(),
                status.state.into(),
                format!("{prefix}-{}", server_sinks::identity(pipeline, sink)).into(),
                status.position.into(),
                status.position.map(|position| end.saturating_sub(position)).into(),
                status.rows.into(),
                status.commits.into(),
                status.dead_letters.into(),
                status.committed_at_us.map_or(Cell::Null, Cell::Time),
                status.restarts.into(),
                status.retry_at_us.map_or(Cell::Null, Cell::Time),
                status.error.into(),
            ]);
        }
    }
    Ok(rows)
}
