//! What the schema `rt` shows of the running server, and the functions `rt.drain`, `rt.seal`, `rt.compact` and `rt.dlq_replay`.
//!
//! A view is a list of columns and a function that gives rows of [`Cell`]s; rows are computed when the view is scanned.

mod advice;
mod capacity;
mod catalog;
mod certificates;
mod consistency;
mod functions;
mod indexes;
mod ingestion;
mod pipelines;
mod rows;
mod rules;
mod server;
mod sinks;
pub(crate) mod source_text;
mod storage;
mod subjects;

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use futures::future::BoxFuture;
use tidemill_ingest::pipeline::run::Pipeline;
use tidemill_query::{
    SqlError, SystemFunctions, SystemViews,
    views::{AskedView, SystemFunction, ViewRows},
};
use tidemill_storage::ids::SourceId;

use self::{
    Make::{AtOnce, Paged},
    rows::{Cell, Kind},
};
use crate::{catalog::definition::PipelineDefinition, runtime, server::instance::Instance};

type Rows = Vec<Vec<Cell>>;
/// Rows, some at a time.
type Pages = Box<dyn Iterator<Item = Result<Rows, SqlError>> + Send>;

/// One view.
struct View {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    rows: Make,
}

/// How the rows of a view are made.
enum Make {
    AtOnce(fn(&Instance) -> Result<Rows, SqlError>),
    /// Where they may be more than memory holds.
    Paged(fn(&Instance) -> Pages),
}

const VIEWS: &[View] = &[
    View { name: "sources", columns: ingestion::SOURCES, rows: AtOnce(ingestion::sources) },
    View { name: "tables", columns: ingestion::TABLES, rows: AtOnce(ingestion::tables) },
    View { name: "columns", columns: ingestion::COLUMNS, rows: AtOnce(ingestion::columns) },
    View { name: "partitions", columns: ingestion::PARTITIONS, rows: AtOnce(ingestion::partitions) },
    View { name: "segments", columns: ingestion::SEGMENTS, rows: AtOnce(ingestion::segments) },
    View { name: "indexes", columns: indexes::INDEXES, rows: AtOnce(indexes::indexes) },
    View { name: "pipelines", columns: pipelines::PIPELINES, rows: AtOnce(pipelines::pipelines) },
    View { name: "checkpoints", columns: pipelines::CHECKPOINTS, rows: AtOnce(pipelines::checkpoints) },
    View { name: "rules", columns: rules::RULES, rows: AtOnce(rules::rules) },
    View { name: "sinks", columns: sinks::SINKS, rows: AtOnce(sinks::sinks) },
    View { name: "deliveries", columns: sinks::DELIVERIES, rows: AtOnce(sinks::deliveries) },
    View { name: "subjects", columns: subjects::SUBJECTS, rows: AtOnce(subjects::subjects) },
    View { name: "functions", columns: functions::FUNCTIONS, rows: AtOnce(functions::functions) },
    View { name: "storage", columns: storage::STORAGE, rows: AtOnce(storage::storage) },
    View { name: "dlq", columns: ingestion::DLQ, rows: Paged(ingestion::dlq) },
    View { name: "events", columns: ingestion::EVENTS, rows: AtOnce(ingestion::events) },
    View { name: "catalog_log", columns: catalog::LOG, rows: AtOnce(catalog::log) },
    View { name: "certificates", columns: certificates::CERTIFICATES, rows: AtOnce(certificates::certificates) },
    View { name: "queries", columns: server::QUERIES, rows: AtOnce(server::queries) },
    View { name: "query_log", columns: server::QUERY_LOG, rows: AtOnce(server::query_log) },
    View { name: "settings", columns: server::SETTINGS, rows: AtOnce(server::settings) },
];

/// The schema `rt`.
#[derive(Debug)]
pub struct System {
    instance: Arc<Instance>,
}

impl System {
    pub fn new(instance: Arc<Instance>) -> Self {
        Self { instance }
    }
}

fn view(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

fn known(name: &str) -> Result<&'static View, SqlError> {
    view(name).ok_or_else(|| SqlError::undefined_table(&format!("rt.{name}")))
}

impl SystemViews for System {
    fn names(&self) -> Vec<String> {
        VIEWS.iter().map(|view| view.name.to_owned()).collect()
    }

    fn schema(&self, name: &str) -> Option<SchemaRef> {
        view(name).map(|view| rows::schema(view.columns))
    }

    fn rows(&self, name: &str) -> Result<RecordBatch, SqlError> {
        let view = known(name)?;
        match view.rows {
            AtOnce(rows) => rows::batch(view.columns, rows(&self.instance)?),
            Paged(pages) => {
                let all = pages(&self.instance).collect::<Result<Vec<_>, _>>()?;
                rows::batch(view.columns, all.into_iter().flatten().collect())
            }
        }
    }

    fn is_large(&self, name: &str) -> bool {
        view(name).is_some_and(|view| matches!(view.rows, Paged(_)))
    }

    fn pages(&self, name: &str) -> Result<ViewRows, SqlError> {
        let view = known(name)?;
        match view.rows {
            AtOnce(_) => Ok(Box::new(std::iter::once(self.rows(name)))),
            Paged(pages) => Ok(Box::new(pages(&self.instance).map(|rows| rows::batch(view.columns, rows?)))),
        }
    }

    fn functions(&self) -> Vec<AskedView> {
        let asked = |name, takes, columns| AskedView { name, takes, schema: rows::schema(columns) };
        vec![
            asked("advise", DataType::Utf8, advice::ADVICE),
            asked("catalog_at", DataType::Int64, catalog::AT),
            asked("consistency_check", DataType::Utf8, consistency::CHECK),
            asked("upsert_capacity", DataType::Utf8, capacity::CAPACITY),
        ]
    }

    fn rows_for(&self, name: &str, argument: &ScalarValue) -> BoxFuture<'static, Result<RecordBatch, SqlError>> {
        let instance = Arc::clone(&self.instance);
        let (name, argument) = (name.to_owned(), argument.clone());
        Box::pin(async move {
            match (name.as_str(), &argument) {
                ("advise", ScalarValue::Utf8(Some(name))) => {
                    rows::batch(advice::ADVICE, advice::advice(&instance, name).await?)
                }
                ("catalog_at", ScalarValue::Int64(Some(version))) => {
                    rows::batch(catalog::AT, catalog::at(&instance, *version)?)
                }
                ("consistency_check", ScalarValue::Utf8(Some(table))) => {
                    rows::batch(consistency::CHECK, consistency::check(&instance, table).await?)
                }
                ("upsert_capacity", ScalarValue::Utf8(Some(table))) => {
                    rows::batch(capacity::CAPACITY, capacity::capacity(&instance, table)?)
                }
                _ => Err(SqlError::undefined_table(&format!("rt.{name}"))),
            }
        })
    }
}

#[async_trait]
impl SystemFunctions for System {
    fn functions(&self) -> Vec<SystemFunction> {
        let function = |name, returns| SystemFunction { name, arguments: vec![DataType::Utf8], returns };
        vec![
            function("drain", DataType::Boolean),
            function("seal", DataType::Boolean),
            function("compact", DataType::Int64),
            function("dlq_replay", DataType::Int64),
        ]
    }

    async fn call(&self, name: &str, arguments: Vec<ScalarValue>) -> Result<ScalarValue, SqlError> {
        let argument = arguments.first().and_then(|argument| argument.try_as_str().flatten());
        let Some(object) = argument else {
            let counts = matches!(name, "dlq_replay" | "compact");
            return Ok(if counts { ScalarValue::Int64(None) } else { ScalarValue::Boolean(None) });
        };
        match name {
            "drain" => self.drain(object).await?,
            "seal" => {
                let (_, live) = self.instance.table(object).map_err(engine_error)?;
                live.ingest.seal().await.map_err(ingest_error)?;
                // What INSERT brought is in segments now. Rows of it that were replaced or deleted since need not stand in the log until its file is full.
                runtime::blocking(move || live.shed_log()).await;
            }
            "compact" => {
                let (_, live) = self.instance.table(object).map_err(engine_error)?;
                let compact = move || live.ingest.compact().inspect(|_| live.shed_log());
                let written = runtime::blocking(compact).await.map_err(ingest_error)?;
                return Ok(ScalarValue::Int64(Some(written as i64)));
            }
            "dlq_replay" => return Ok(ScalarValue::Int64(Some(self.replay(object).await?))),
            _ => return Err(SqlError::not_supported(format!("rt.{name}"))),
        }
        Ok(ScalarValue::Boolean(Some(true)))
    }
}

impl System {
    /// Waits until what is in a source now is visible in every table that reads it; for a table's name, in all its sources and its log.
    async fn drain(&self, name: &str) -> Result<(), SqlError> {
        let definitions = self.instance.catalog.definitions();
        if let Some(source) = definitions.source_named(name) {
            for table in definitions.tables_of(source.id) {
                let (_, live) = self.instance.table(&table.name).map_err(engine_error)?;
                live.ingest.drain(source.id).await.map_err(ingest_error)?;
            }
            for pipeline in definitions.pipelines_of(source.id) {
                self.drain_pipeline(pipeline, &[source.id]).await?;
            }
            return Ok(());
        }
        let (table, live) = self.instance.table(name).map_err(engine_error)?;
        for source in table.sources.iter().chain([&table.log]) {
            live.ingest.drain(*source).await.map_err(ingest_error)?;
        }
        for pipeline in definitions.pipelines_into(table.id) {
            self.drain_pipeline(pipeline, &pipeline.sources).await?;
        }
        Ok(())
    }

    /// Waits until what is in sources of a pipeline now was processed, and what it gave is visible in its tables.
    async fn drain_pipeline(&self, definition: &PipelineDefinition, sources: &[SourceId]) -> Result<(), SqlError> {
        let running = self.running(definition)?;
        for source in sources {
            let end = running.drain(*source).await.map_err(ingest_error)?;
            for target in &definition.targets {
                let Some(live) = self.instance.live(target.table) else { continue };
                running.visible_in(&live.ingest, definition.log, end).await.map_err(ingest_error)?;
            }
            running.delivered(end).await.map_err(ingest_error)?;
        }
        Ok(())
    }
}

impl System {
    /// Tries the dead letters of a source again, in every table and pipeline that reads it; for a table's name, those of all its sources; for a pipeline's, its own, and those that its
    /// tables have of it; for a sink's, its rows that were no records. The number that became rows, or records.
    async fn replay(&self, name: &str) -> Result<i64, SqlError> {
        let definitions = self.instance.catalog.definitions();
        let mut replayed = 0;
        if let Some(sink) = definitions.sink_named(name) {
            for pipeline in definitions.pipelines_into(sink.id) {
                replayed += self.running(pipeline)?.send_again(sink.id).await.map_err(ingest_error)?;
            }
            return Ok(replayed as i64);
        }
        let pipeline = definitions.pipeline_named(name);
        if let Some(pipeline) = pipeline {
            replayed += self.replay_pipeline(pipeline).await?;
            for target in &pipeline.targets {
                let Some(live) = self.instance.live(target.table) else { continue };
                replayed += live.ingest.replay_dead_letters(pipeline.log).await.map_err(ingest_error)?;
            }
        }
        if let Some(source) = definitions.source_named(name) {
            for table in definitions.tables_of(source.id) {
                let (_, live) = self.instance.table(&table.name).map_err(engine_error)?;
                replayed += live.ingest.replay_dead_letters(source.id).await.map_err(ingest_error)?;
            }
            for pipeline in definitions.pipelines_of(source.id) {
                replayed += self.replay_pipeline(pipeline).await?;
            }
        } else if pipeline.is_none() || definitions.table_named(name).is_some() {
            let (table, live) = self.instance.table(name).map_err(engine_error)?;
            for source in &table.sources {
                replayed += live.ingest.replay_dead_letters(*source).await.map_err(ingest_error)?;
            }
        }
        Ok(replayed as i64)
    }

    async fn replay_pipeline(&self, definition: &PipelineDefinition) -> Result<u64, SqlError> {
        self.running(definition)?.replay().await.map_err(ingest_error)
    }

    fn running(&self, definition: &PipelineDefinition) -> Result<Arc<Pipeline>, SqlError> {
        self.instance.pipelines.live(definition.id).and_then(|live| live.running()).ok_or_else(|| {
            let reason = self.instance.pipelines.broken(definition.id).unwrap_or_default();
            SqlError::new("55000", format!("pipeline \"{}\" does not run: {reason}", definition.name))
        })
    }
}

fn engine_error(error: crate::session::SqlError) -> SqlError {
    let made = SqlError::new(error.state, error.message);
    let made = SqlError { detail: error.detail, ..made };
    match error.hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}

fn ingest_error(error: tidemill_ingest::Error) -> SqlError {
    engine_error(crate::session::SqlError::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_and_column_names_are_unique() {
        for view in VIEWS {
            assert_eq!(VIEWS.iter().filter(|other| other.name == view.name).count(), 1, "{}", view.name);
            for (name, _) in view.columns {
                assert_eq!(view.columns.iter().filter(|(other, _)| other == name).count(), 1, "{}.{name}", view.name);
            }
            assert_eq!(rows::batch(view.columns, Vec::new()).unwrap().num_rows(), 0);
        }
    }
}
