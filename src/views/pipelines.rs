//! Views of pipelines and their checkpoints.

use tidemill_query::SqlError;

use super::{
    Cell,
    Kind::{self, Float, Int, Text, Time},
    Rows, ingest_error,
};
use crate::server::instance::Instance;

pub(super) const PIPELINES: &[(&str, Kind)] = &[
    ("id", Int),
    ("name", Text),
    ("state", Text),
    ("sources", Text),
    ("targets", Text),
    ("query", Text),
    ("rows_in", Int),
    ("rows_out", Int),
    ("late_rows", Int),
    ("late_updates", Int),
    ("duplicates", Int),
    ("unmatched", Int),
    ("out_of_bound", Int),
    ("dead_letters", Int),
    ("lag", Int),
    ("backpressure", Float),
    ("watermark", Time),
    ("open_groups", Int),
    ("state_bytes", Int),
    ("spilled_bytes", Int),
    ("memory_limit", Int),
    ("parallelism", Int),
    ("checkpoint", Int),
    ("checkpoint_at", Time),
    ("restarts", Int),
    ("retry_at", Time),
    ("error", Text),
    ("created_at", Time),
];

pub(super) fn pipelines(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let mut rows = Vec::new();
    for pipeline in definitions.pipelines.values() {
        let sources = pipeline.sources.iter().filter_map(|id| definitions.sources.get(id));
        let sources: Vec<&str> = sources.map(|source| source.name.as_str()).collect();
        let name = |id| {
            let table = definitions.tables.get(&id).map(|table| table.name.as_str());
            table.or_else(|| definitions.sinks.get(&id).map(|sink| sink.name.as_str()))
        };
        let targets: Vec<&str> = pipeline.targets.iter().filter_map(|target| name(target.table)).collect();
        let running = instance.pipelines.live(pipeline.id).and_then(|live| live.running());
        let status = running.map(|running| running.status());
        let count = |pick: fn(&tidemill_ingest::pipeline::run::PipelineStatus) -> u64| -> Cell {
            status.as_ref().map(pick).into()
        };
        rows.push(vec![
            pipeline.id.0.into(),
            pipeline.name.as_str().into(),
            status.as_ref().map_or("broken", |status| status.state).into(),
            sources.join(", ").into(),
            targets.join(", ").into(),
            pipeline.query.as_str().into(),
            count(|status| status.counts.rows_in),
            count(|status| status.counts.rows_out),
            count(|status| status.counts.late_rows),
            count(|status| status.counts.late_updates),
            count(|status| status.counts.duplicates),
            count(|status| status.counts.unmatched),
            count(|status| status.counts.out_of_bound),
            count(|status| status.counts.rejected),
            status.as_ref().and_then(|status| status.lag).into(),
            status.as_ref().map_or(Cell::Null, |status| Cell::Float(f64::from(status.backpressure_permille) / 1000.0)),
            status.as_ref().and_then(|status| status.watermark_us).map_or(Cell::Null, Cell::Time),
            count(|status| status.open_groups),
            count(|status| status.state_bytes),
            count(|status| status.spilled_bytes),
            pipeline.options.memory_limit.into(),
            u64::from(pipeline.options.parallelism).into(),
            status.as_ref().and_then(|status| status.checkpoint).into(),
            status.as_ref().and_then(|status| status.checkpoint_at_us).map_or(Cell::Null, Cell::Time),
            count(|status| status.restarts),
            status.as_ref().and_then(|status| status.retry_at_us).map_or(Cell::Null, Cell::Time),
            match &status {
                Some(status) => status.error.clone().into(),
                None => instance.pipelines.broken(pipeline.id).into(),
            },
            Cell::Time(pipeline.created_at_us),
        ]);
    }
    Ok(rows)
}

pub(super) const CHECKPOINTS: &[(&str, Kind)] = &[
    ("pipeline", Text),
    ("id", Int),
    ("at", Time),
    ("duration_ms", Float),
    ("bytes", Int),
    ("arrival_bytes", Int),
    ("groups", Int),
    ("rows_out", Int),
    ("offsets", Text),
    ("delivered", Text),
];

pub(super) fn checkpoints(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let mut rows = Vec::new();
    for pipeline in definitions.pipelines.values() {
        for checkpoint in instance.checkpoints.checkpoints(pipeline.id).map_err(ingest_error)? {
            let offsets = checkpoint.positions.iter().map(|(stream, offset)| {
                let source = definitions.sources.get(&stream.source).map_or("", |source| source.name.as_str());
                (format!("{source}/{}", stream.partition), (*offset).into())
            });
            let offsets: serde_json::Map<String, serde_json::Value> = offsets.collect();
            let delivered = checkpoint.delivered.iter().map(|(sink, position)| {
                let sink = definitions.sinks.get(sink).map_or("", |sink| sink.name.as_str());
                (sink.to_owned(), (*position).into())
            });
            rows.push(vec![
                pipeline.name.as_str().into(),
                checkpoint.id.into(),
                Cell::Time(checkpoint.at_us),
                Cell::Float(checkpoint.duration_us as f64 / 1000.0),
                checkpoint.state.bytes.into(),
                checkpoint.diary.as_ref().map(|diary| diary.bytes).into(),
                checkpoint.groups.into(),
                checkpoint.end.into(),
                serde_json::Value::Object(offsets).to_string().into(),
                serde_json::Value::Object(delivered.collect()).to_string().into(),
            ]);
        }
    }
    Ok(rows)
}
