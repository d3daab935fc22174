//! A table that runs: its segments, its ingestion, its log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidemill_ingest::{
    consumer::{DecoderFactory, Feed, Latency, OnGap, TableIngest, TableSpec},
    dead_letters::OnError,
    decode::{self, EpochUnit, Format, SourceColumn, parse_path},
    pipeline::{Checks, Rules, Transform, Watermark},
    runtime::IngestRuntime,
    seal::SealPolicy,
    source::{
        ConnectContext, Connected, SourceOptions, Start,
        log::{Log, LogOptions},
        rate::{Pace, Rates},
    },
};
use tidemill_storage::{
    clock::Clock,
    ids::{IndexId, SourceId, StreamId},
    index::IndexSpec,
    schema::TableSchema,
    table::Table,
};

use crate::{
    catalog::{
        Definitions,
        definition::{
            IndexDefinition, KeyDefinition, SEAL_ROWS_AUTO, SourceColumnDefinition, SourceDefinition, TableDefinition,
            TableOptions, WatermarkDefinition,
        },
    },
    server::{
        connections::Connections,
        directory::DataDirectory,
        pipelines::{self, Pipelines},
    },
};

type Result<T, E = tidemill_ingest::Error> = std::result::Result<T, E>;

/// What opening a table needs besides its definition.
pub struct Parts<'a> {
    pub runtime: &'a Arc<IngestRuntime>,
    pub directory: &'a DataDirectory,
    pub clock: &'a Arc<dyn Clock>,
    pub connections: &'a Connections,
    pub pipelines: &'a Pipelines,
    /// What CHECK constraints and transforms mean.
    pub expressions: &'a dyn Rules,
}

pub struct LiveTable {
    pub table: Arc<Table>,
    pub ingest: Arc<TableIngest>,
    pub log: Arc<Log>,
    log_source: SourceId,
}

impl LiveTable {
    /// Recovers what is committed and begins to consume. Blocks.
    pub fn open(parts: &Parts<'_>, definition: &TableDefinition, definitions: &Definitions) -> Result<Self> {
        let schema = Arc::new(definition.schema.clone());
        let table = Arc::new(Table::with_key_in(
            definition.id,
            Arc::clone(&schema),
            definition.options.partitions,
            definition.key.as_ref().map(KeyDefinition::spec),
            Arc::clone(parts.runtime.key_memory()),
        ));
        table.set_indexes(index_specs(definition));
        let log = Log::open(parts.directory.log(definition.id), LogOptions::default(), Arc::new(arriving(definition)))?;
        let mut feeds = vec![log_feed(parts.expressions, definition, &log)?];
        for source in &definition.sources {
            if let Some(source) = definitions.sources.get(source) {
                feeds.push(source_feed(parts, definition, source)?);
            }
        }
        for pipeline in definitions.pipelines_into(definition.id) {
            if let Some(live) = parts.pipelines.live(pipeline.id) {
                feeds.push(pipelines::feed(parts.expressions, definition, pipeline, &live)?);
            }
        }
        let ingest = TableIngest::open(
            parts.runtime,
            TableSpec {
                table: Arc::clone(&table),
                name: definition.name.clone(),
                directory: parts.directory.table(definition.id),
                policy: seal_policy(&definition.options),
                retention_us: definition.options.retention_us,
                feeds,
                paused: if definition.paused { definition.sources.clone() } else { Vec::new() },
            },
        )?;
        Ok(Self { table, ingest, log, log_source: definition.log })
    }

    /// From now on rows are of `definition`'s schema. Blocks.
    pub fn set_schema(
        &self,
        expressions: &dyn Rules,
        running: &Pipelines,
        definition: &TableDefinition,
        definitions: &Definitions,
    ) -> Result<()> {
        let mut transforms = BTreeMap::from([(definition.log, log_transform(expressions, &arriving(definition))?)]);
        for id in &definition.sources {
            if let Some(source) = definitions.sources.get(id) {
                let columns = source_columns(&source.columns)?;
                transforms.insert(*id, transform(expressions, &columns, definition)?);
            }
        }
        for pipeline in definitions.pipelines_into(definition.id) {
            if let Some(live) = running.live(pipeline.id) {
                let transform = pipelines::transform(expressions, definition, pipeline, &live.plan)?;
                transforms.insert(pipeline.log, transform);
            }
        }
        let schema = Arc::new(definition.schema.clone());
        self.ingest.set_schema(&schema, &transforms)?;
        self.log.set_schema(Arc::new(arriving(definition)));
        Ok(())
    }

    /// Deletes what of the log is committed, as far as rows that are not do not stand in the same file. What cannot be deleted now goes later. Blocks.
    pub fn shed_log(&self) {
        if let Err(error) = self.log.begin_file() {
            tracing::warn!(%error, "a log keeps rows that are committed until its file is full");
        }
        let streams = self.ingest.status();
        if let Some(committed) = streams.iter().find(|stream| stream.source == self.log_source).map(|own| own.committed)
        {
            self.log.trim(committed);
        }
    }

    /// Waits until rows of the log below `end` are visible.
    pub async fn wait_log(&self, end: u64) -> Result<()> {
        self.ingest.wait_visible(StreamId { source: self.log_source, partition: 0 }, end).await
    }
}

/// The columns of a table as rows bring them.
pub fn arriving(definition: &TableDefinition) -> TableSchema {
    match &definition.key {
        Some(key) => key.spec().arriving(&definition.schema),
        None => definition.schema.clone(),
    }
}

/// The indexes of a table as segments know them.
pub fn index_specs(definition: &TableDefinition) -> Vec<IndexSpec> {
    let spec = |index: &IndexDefinition| IndexSpec {
        id: IndexId(index.oid),
        name: index.name.clone(),
        kind: index.kind.clone(),
        columns: index.columns.clone(),
    };
    definition.indexes.iter().map(spec).collect()
}

pub fn seal_policy(options: &TableOptions) -> SealPolicy {
    let rows = (options.seal_rows != SEAL_ROWS_AUTO).then_some(options.seal_rows);
    SealPolicy { rows, bytes: options.seal_bytes, after_us: options.seal_after_us }
}

/// The columns of a source as ingestion reads them.
pub fn source_columns(columns: &[SourceColumnDefinition]) -> Result<Vec<SourceColumn>> {
    columns
        .iter()
        .map(|column| {
            let mut made =
                SourceColumn::new(&column.name, column.data_type.clone(), column.nullable).with_key(column.in_key);
            if let Some(path) = &column.path {
                made = made.with_path(parse_path(path)?);
            }
            if let Some(unit) = &column.epoch {
                let unit = EpochUnit::parse(unit).ok_or_else(|| tidemill_ingest::Error::Definition {
                    message: format!("column \"{}\" has the unknown EPOCH '{unit}'", column.name),
                    hint: Some("it takes 's', 'ms', 'us' or 'ns'".into()),
                })?;
                made = made.with_epoch(unit);
            }
            Ok(made)
        })
        .collect()
}

/// The options of a source that ingestion's connectors and formats know; `on_gap` is the feed's, and limits of its rate are [`Connections::limits`].
pub fn source_options(source: &SourceDefinition) -> Result<(SourceOptions, OnGap)> {
    let mut options = source.options.clone();
    let on_gap = options.remove("on_gap").map_or(Ok(OnGap::default()), |text| OnGap::parse(&text))?;
    Rates::take(&mut options)?;
    Ok((SourceOptions::parse(&options)?, on_gap))
}

/// A connector of its own for a source; see [`Connections`] for the one that its tables share. Waits for no broker.
pub fn connect(source: &SourceDefinition, clock: &Arc<dyn Clock>) -> Result<Connected> {
    let (options, _) = source_options(source)?;
    let context = ConnectContext {
        source: source.id,
        name: source.name.clone(),
        columns: source_columns(&source.columns)?,
        clock: Arc::clone(clock),
        log: None,
    };
    options.connect(&context)
}

/// What turns rows of a source into rows of a table.
pub fn transform(
    expressions: &dyn Rules,
    columns: &[SourceColumn],
    definition: &TableDefinition,
) -> Result<Arc<Transform>> {
    let schema = decode::source_schema(columns);
    Ok(Arc::new(Transform::compile(expressions, &schema, definition.transform.as_deref(), &arriving(definition))?))
}

pub fn checks(expressions: &dyn Rules, source: &SourceDefinition, columns: &[SourceColumn]) -> Result<Checks> {
    let checks = source.checks.iter().map(|check| (check.name.clone(), check.expression.clone())).collect::<Vec<_>>();
    Checks::compile(expressions, &decode::source_schema(columns), &checks)
}

pub fn watermark(
    expressions: &dyn Rules,
    source: &SourceDefinition,
    columns: &[SourceColumn],
) -> Result<Option<Watermark>> {
    let schema = decode::source_schema(columns);
    let compile = |watermark: &WatermarkDefinition| Watermark::compile(expressions, &schema, &watermark.expression);
    source.watermark.as_ref().map(compile).transpose()
}

pub fn source_feed(parts: &Parts<'_>, definition: &TableDefinition, source: &SourceDefinition) -> Result<Feed> {
    let columns = source_columns(&source.columns)?;
    let connected = parts.connections.get(source, parts.clock)?;
    let (options, on_gap) = source_options(source)?;
    Ok(Feed {
        source: source.id,
        name: source.name.clone(),
        connector: connected.connector,
        start: options.start,
        decoder: decoder(connected.format, columns.clone()),
        checks: Arc::new(checks(parts.expressions, source, &columns)?),
        transform: transform(parts.expressions, &columns, definition)?,
        watermark: watermark(parts.expressions, source, &columns)?.map(Arc::new),
        on_error: options.on_error,
        on_gap,
        latency: Latency::Paced,
        pace: Arc::new(Pace::new(parts.connections.limits(source)?)),
    })
}

fn log_feed(expressions: &dyn Rules, definition: &TableDefinition, log: &Arc<Log>) -> Result<Feed> {
    Ok(Feed {
        source: definition.log,
        name: format!("{}.log", definition.name),
        connector: log.connector(definition.log),
        start: Start::Earliest,
        decoder: Arc::new(|| Err(no_bytes())),
        checks: Arc::new(Checks::compile(expressions, &arriving(definition).arrow(), &[])?),
        transform: log_transform(expressions, &arriving(definition))?,
        watermark: None,
        on_error: OnError::Dlq,
        on_gap: OnGap::Stop,
        latency: Latency::Prompt,
        pace: Arc::default(),
    })
}

/// Rows of the log are rows of the table already.
fn log_transform(expressions: &dyn Rules, schema: &TableSchema) -> Result<Arc<Transform>> {
    Ok(Arc::new(Transform::compile(expressions, &schema.arrow(), None, schema)?))
}

/// What decodes the messages of a source; of one that brings rows there are none.
pub fn decoder(format: Option<Format>, columns: Vec<SourceColumn>) -> DecoderFactory {
    Arc::new(move || match &format {
        Some(format) => decode::decoder(format, &columns),
        None => Err(no_bytes()),
    })
}

fn no_bytes() -> tidemill_ingest::Error {
    tidemill_ingest::Error::Definition {
        message: "this source brings rows, there is nothing to decode".into(),
        hint: None,
    }
}

/// How long CREATE TABLE waits for the first answer of its sources.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
