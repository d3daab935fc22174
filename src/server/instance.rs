//! The running server as its statements see it: definitions and the live tables behind them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tidemill_ingest::{
    commit::MetadataLog,
    consumer::{Erased, RowChange},
    dead_letters::DeadLetter,
    events::{Event, EventRing, EventSink, Severity},
    pipeline::{Rules, run::CheckpointLog},
    runtime::IngestRuntime,
};
use tidemill_query::{Engine, TableCatalog, TableHandle, ViewColumn, ViewHandle};
use tidemill_storage::{clock::Clock, ids::TableId, scan::Addresses};

use super::{
    connections::Connections,
    deep_stores::DeepStores,
    directory::DataDirectory,
    expressions::QueryRules,
    forgetting,
    functions::Functions,
    live::{LiveTable, Parts},
    pipelines::{self, LivePipeline, Pipelines},
    rules,
};
use crate::{
    Transforms,
    catalog::{
        Catalog,
        certificates::CertifiedObject,
        definition::{PipelineDefinition, TableDefinition, ViewDefinition},
        subjects::Subjects,
    },
    config::Config,
    runtime,
    session::{
        backend::{Backend, DdlOutcome, Turn, WriteTarget},
        error::{Result, SqlError, state},
    },
};

/// Everything that DDL, INSERT, the views and HTTP work on.
pub struct Instance {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub directory: DataDirectory,
    pub catalog: Catalog,
    /// The schema registry's.
    pub subjects: Subjects,
    pub log: Arc<dyn MetadataLog>,
    pub checkpoints: Arc<dyn CheckpointLog>,
    pub deep_stores: DeepStores,
    pub ingest: Arc<IngestRuntime>,
    pub events: Arc<EventRing>,
    pub started_us: i64,
    /// One definition statement at a time.
    pub ddl: tokio::sync::Mutex<()>,
    /// The sources that tables read.
    pub connections: Connections,
    pub pipelines: Pipelines,
    pub functions: Functions,
    pub rules: rules::Rules,
    live: RwLock<BTreeMap<TableId, Arc<LiveTable>>>,
    /// Why a table could not be opened at start.
    broken: RwLock<BTreeMap<TableId, String>>,
    expressions: OnceLock<QueryRules>,
    /// The engine holds the instance, so the instance must not hold the engine.
    engine: OnceLock<Weak<Engine>>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Instance {
    #[expect(clippy::too_many_arguments, reason = "what a server is made of")]
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        directory: DataDirectory,
        catalog: Catalog,
        subjects: Subjects,
        log: Arc<dyn MetadataLog>,
        checkpoints: Arc<dyn CheckpointLog>,
        deep_stores: DeepStores,
        ingest: Arc<IngestRuntime>,
        events: Arc<EventRing>,
    ) -> Arc<Self> {
        let started_us = clock.now_us();
        Arc::new(Self {
            config,
            clock,
            directory,
            catalog,
            subjects,
            log,
            checkpoints,
            deep_stores,
            ingest,
            events,
            started_us,
            ddl: tokio::sync::Mutex::new(()),
            connections: Connections::default(),
            pipelines: Pipelines::default(),
            functions: Functions::default(),
            rules: rules::Rules::default(),
            live: RwLock::default(),
            broken: RwLock::default(),
            expressions: OnceLock::new(),
            engine: OnceLock::new(),
        })
    }

    /// Gives the rules of the query engine to CHECK constraints and transforms. Once, before tables are opened.
    pub fn set_engine(&self, engine: &Arc<Engine>, transforms: Transforms) {
        let _ = self.engine.set(Arc::downgrade(engine));
        let _ = self.expressions.set(QueryRules::new(engine, transforms));
    }

    /// 57P01 when the server is about to end.
    pub fn engine(&self) -> Result<Arc<Engine>> {
        let engine = self.engine.get().and_then(Weak::upgrade);
        engine.ok_or_else(|| SqlError::new(state::ADMIN_SHUTDOWN, "the server is shutting down"))
    }

    pub fn expressions(&self) -> &dyn Rules {
        self.expressions.get().expect("invariant: the engine is set before anything is defined")
    }

    pub fn parts(&self) -> Parts<'_> {
        Parts {
            runtime: &self.ingest,
            directory: &self.directory,
            clock: &self.clock,
            connections: &self.connections,
            pipelines: &self.pipelines,
            expressions: self.expressions(),
        }
    }

    /// Opens every table that is defined. One that cannot be opened is named in the log and in `rt.tables`; the others go on. Blocks.
    pub fn recover(&self) {
        // Pipelines may call them.
        self.functions.recover(self);
        let definitions = self.catalog.definitions();
        let start = |pipeline: &PipelineDefinition, live: Arc<LivePipeline>, at| {
            if let Err(error) = pipelines::start(self, pipeline, &definitions, &live, at) {
                self.pipeline_broken(pipeline, &error);
            }
        };
        let mut waiting = Vec::new();
        for pipeline in definitions.pipelines.values() {
            match pipelines::open(self, pipeline, &definitions) {
                // It may have much to read while tables are opened.
                Ok((live, at)) if pipelines::needs_no_table(pipeline, &definitions) => start(pipeline, live, at),
                Ok((live, at)) => waiting.push((pipeline, live, at)),
                Err(error) => self.pipeline_broken(pipeline, &error),
            }
        }
        for definition in definitions.tables.values() {
            match LiveTable::open(&self.parts(), definition, &definitions) {
                Ok(live) => self.put_live(definition.id, live),
                Err(error) => {
                    tracing::error!(table = definition.name, %error, "the table cannot be opened");
                    self.broken.write().insert(definition.id, error.to_string());
                }
            }
        }
        waiting.into_iter().for_each(|(pipeline, live, at)| start(pipeline, live, at));
    }

    fn pipeline_broken(&self, pipeline: &PipelineDefinition, error: &tidemill_ingest::Error) {
        let message = format!("pipeline '{}' cannot be opened: {error}", pipeline.name);
        self.events.record(Event {
            at_us: self.clock.now_us(),
            severity: Severity::Page,
            kind: "pipeline_broken",
            table: None,
            partition: None,
            stream: None,
            message,
        });
        self.pipelines.set_broken(pipeline.id, error.to_string());
    }

    /// Waits until what the tables' logs have is visible: rows that INSERT, COPY and HTTP were told are safe, which a client that comes back must find, and
    /// those of pipelines that a checkpoint covers. What none covers is made again out of the sources, meanwhile.
    pub async fn read_logs(&self, patience: Duration) {
        let definitions = self.catalog.definitions();
        let all = async {
            for (definition, live) in self.all_live() {
                let of_pipelines = definitions.pipelines_into(definition.id).map(|pipeline| pipeline.log);
                for log in std::iter::once(definition.log).chain(of_pipelines) {
                    if let Err(error) = live.ingest.drain(log).await {
                        tracing::warn!(table = definition.name, %error, "rows of the table's logs are not visible yet");
                    }
                }
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(?patience, "the tables' logs are long; queries begin before all of their rows are visible");
        }
    }

    pub fn live(&self, id: TableId) -> Option<Arc<LiveTable>> {
        self.live.read().get(&id).cloned()
    }

    pub fn put_live(&self, id: TableId, live: LiveTable) {
        self.broken.write().remove(&id);
        self.live.write().insert(id, Arc::new(live));
    }

    pub fn take_live(&self, id: TableId) -> Option<Arc<LiveTable>> {
        self.broken.write().remove(&id);
        self.live.write().remove(&id)
    }

    /// All tables with what runs behind them, by name.
    pub fn all_live(&self) -> Vec<(Arc<TableDefinition>, Arc<LiveTable>)> {
        let live = self.live.read();
        let mut all = self
            .catalog
            .definitions()
            .tables
            .values()
            .filter_map(|definition| Some((Arc::clone(definition), Arc::clone(live.get(&definition.id)?))))
            .collect::<Vec<_>>();
        all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        all
    }

    pub fn broken(&self, id: TableId) -> Option<String> {
        self.broken.read().get(&id).cloned()
    }

    /// A table by name; 42P01, with the nearest one, when there is none.
    pub fn table(&self, name: &str) -> Result<(Arc<TableDefinition>, Arc<LiveTable>)> {
        let definitions = self.catalog.definitions();
        let Some(definition) = definitions.table_named(name) else {
            if definitions.source_named(name).is_some() {
                return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{name}\" is a source, not a table"))
                    .with_hint(format!("create a table that reads it: CREATE TABLE … FROM SOURCE {name}")));
            }
            if definitions.sink_named(name).is_some() {
                return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{name}\" is a sink, not a table"))
                    .with_hint("pipelines write into it: INSERT INTO … SELECT … FROM a source, or CREATE PIPELINE"));
            }
            if definitions.view_named(name).is_some() {
                return Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{name}\" is a view, not a table"))
                    .with_hint("rows go into the tables that it reads; COPY (SELECT …) TO takes rows out of it"));
            }
            let error = SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"));
            let known = definitions.tables.values().map(|table| table.name.as_str());
            return Err(match crate::suggest::hint(name, known) {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        };
        match self.live(definition.id) {
            Some(live) => Ok((Arc::clone(definition), live)),
            None => Err(SqlError::new(
                state::DATA_CORRUPTED,
                format!("table \"{name}\" could not be opened when the server started"),
            )
            .with_detail(self.broken(definition.id).unwrap_or_default())),
        }
    }

    /// Ends ingestion of all tables; seals nothing, loses nothing. Blocks.
    pub fn stop(&self) {
        self.pipelines.stop();
        for (_, live) in self.all_live() {
            live.ingest.end();
        }
        self.ingest.stop();
    }
}

impl TableCatalog for Instance {
    fn table(&self, name: &str) -> Option<TableHandle> {
        let definitions = self.catalog.definitions();
        let definition = definitions.table_named(name)?;
        let live = self.live(definition.id)?;
        Some(TableHandle { name: definition.name.clone(), oid: definition.oid, table: Arc::clone(&live.table) })
    }

    fn tables(&self) -> Vec<TableHandle> {
        self.all_live()
            .into_iter()
            .map(|(definition, live)| TableHandle {
                name: definition.name.clone(),
                oid: definition.oid,
                table: Arc::clone(&live.table),
            })
            .collect()
    }

    fn fresh(
        &self,
        table: TableId,
        within: Duration,
        wait: Duration,
    ) -> BoxFuture<'static, std::result::Result<(), tidemill_query::SqlError>> {
        let definition = self.catalog.definitions().tables.get(&table).cloned();
        let Some((definition, live)) = definition.zip(self.live(table)) else { return Box::pin(async { Ok(()) }) };
        Box::pin(async move {
            live.ingest.fresh(&definition.sources, within, wait).await.map_err(|stale| {
                let name = &definition.name;
                tidemill_query::SqlError::new(
                    "55000",
                    format!(
                        "table \"{name}\" is staler than rt.max_staleness ({} ms) allows: {stale}",
                        within.as_millis()
                    ),
                )
                .with_hint(
                    "Read it as it is with SET rt.max_staleness = 0; rt.partitions tells how far its sources are read.",
                )
            })
        })
    }

    fn view(&self, name: &str) -> Option<ViewHandle> {
        self.catalog.definitions().view_named(name).map(|view| view_handle(view))
    }

    fn views(&self) -> Vec<ViewHandle> {
        let mut views: Vec<ViewHandle> =
            self.catalog.definitions().views.values().map(|view| view_handle(view)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn has_views(&self) -> bool {
        !self.catalog.definitions().views.is_empty()
    }
}

fn view_handle(view: &ViewDefinition) -> ViewHandle {
    let columns = view.columns.iter().map(|column| ViewColumn {
        name: column.name.clone(),
        source: column.source.clone(),
        type_name: column.type_name.clone(),
        modifier: column.modifier,
    });
    ViewHandle { name: view.name.clone(), oid: view.oid, query: view.query.as_str().into(), columns: columns.collect() }
}

/// What sessions ask of the server.
#[derive(Debug)]
pub struct ServerBackend(pub Arc<Instance>);

#[async_trait]
impl Backend for ServerBackend {
    async fn execute_ddl(&self, sql: &str) -> Result<DdlOutcome> {
        crate::ddl::execute(&self.0, sql).await
    }

    fn write_target(&self, name: &str) -> Result<WriteTarget> {
        let (definition, live) = self.0.table(name)?;
        let schema = live.table.schema();
        let schema = live.table.key().map_or_else(|| Arc::clone(&schema), |key| Arc::new(key.arriving(&schema)));
        Ok(WriteTarget { id: definition.id, name: definition.name.clone(), schema })
    }

    fn reads_source(&self, relations: &[String]) -> bool {
        let definitions = self.0.catalog.definitions();
        relations.iter().any(|name| definitions.source_named(name).is_some())
    }

    async fn append(&self, target: &WriteTarget, rows: Vec<RecordBatch>) -> Result<()> {
        let live = self.0.live(target.id).ok_or_else(|| {
            SqlError::new(state::UNDEFINED_TABLE, "the table was dropped while rows were on their way to it")
        })?;
        // The log keeps the columns that rows were made for; they are read under those that the table has then.
        let schema = Arc::clone(&target.schema);
        let log = Arc::clone(&live.log);
        let range = runtime::blocking(move || log.append(&schema, &rows)).await?;
        Ok(live.wait_log(range.end).await?)
    }

    async fn turn(&self, target: &WriteTarget) -> Result<Turn> {
        Ok(Box::new(self.changed(target)?.ingest.turn().await))
    }

    async fn still(&self, target: &WriteTarget) -> Result<Turn> {
        Ok(Box::new(self.changed(target)?.ingest.still().await))
    }

    async fn seal(&self, target: &WriteTarget) -> Result<()> {
        Ok(self.changed(target)?.ingest.seal().await?)
    }

    fn write_targets(&self) -> Vec<WriteTarget> {
        let all = self.0.all_live();
        all.iter().filter_map(|(definition, _)| self.write_target(&definition.name).ok()).collect()
    }

    fn had_column(&self, target: &WriteTarget, column: &str) -> bool {
        self.0.live(target.id).is_some_and(|live| live.ingest.had_column(column))
    }

    fn source_has_column(&self, column: &str) -> bool {
        self.0.catalog.definitions().sources.values().any(|source| forgetting::names(source, column).next().is_some())
    }

    async fn erase(&self, target: &WriteTarget, rows: Addresses, column: &str) -> Result<Erased> {
        let (live, column) = (self.changed(target)?, column.to_owned());
        runtime::blocking(move || -> Result<Erased> {
            let erased = live.ingest.erase(&rows, &column)?;
            live.shed_log();
            Ok(erased)
        })
        .await
    }

    async fn erase_letters(&self, target: &WriteTarget, column: &str, value: &str) -> Result<u64> {
        let definitions = self.0.catalog.definitions();
        let mut names = vec![column.to_owned()];
        names.extend(definitions.sources.values().flat_map(|source| forgetting::names(source, column)));
        let value = value.to_owned();
        let is_one = move |letter: &DeadLetter| letter.mentions(&names, &value);
        Ok(self.changed(target)?.ingest.erase_letters(is_one).await?)
    }

    async fn certify(&self, column: &str, value: &str, objects: Vec<CertifiedObject>) -> Result<u64> {
        forgetting::certify(&self.0, column, value, objects).await
    }

    async fn change(&self, target: &WriteTarget, change: RowChange) -> Result<()> {
        let live = self.changed(target)?;
        runtime::blocking(move || -> Result<()> {
            live.ingest.change_rows(&change)?;
            // Rows that are gone may stand in the table's log, too: it lets go of them as soon as what was inserted before is committed.
            live.shed_log();
            Ok(())
        })
        .await
    }
}

impl ServerBackend {
    /// A table whose rows a statement changes.
    fn changed(&self, target: &WriteTarget) -> Result<Arc<LiveTable>> {
        let gone = || SqlError::new(state::UNDEFINED_TABLE, format!("table \"{}\" was dropped meanwhile", target.name));
        self.0.live(target.id).ok_or_else(gone)
    }
}
