//! The definitions in the metadata file, and the picture of them that everybody reads.
//!
//! ```text
//!   catalog_sources   source id → JSON SourceDefinition
//!   catalog_tables    table id → JSON TableDefinition
//!   catalog_views     oid → JSON ViewDefinition
//!   catalog_pipelines pipeline id → JSON PipelineDefinition
//!   catalog_sinks     sink id → JSON SinkDefinition
//!   catalog_functions oid → JSON FunctionDefinition
//!   catalog_rules     oid → JSON RuleDefinition
//!   catalog_next      "source" | "table" | "oid" → next id
//! ```
//!
//! What always holds: a definition is durable before anybody sees it; ids and oids are never used twice; a name belongs to one
//! table, source, sink, view or index; a picture never changes, a change makes the next one.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, RwLock};
use redb::{ReadTransaction, ReadableTable, TableDefinition as RedbTable};
use serde::Serialize;
use tidemill_ingest::{commit::PartitionState, pipeline::run::CheckpointRecord};
use tidemill_storage::ids::{SourceId, TableId};

use super::{
    checkpoints,
    database::{Change, Database, LogRecord, Result},
    definition::{
        FunctionDefinition, IndexDefinition, PipelineDefinition, RuleDefinition, SinkDefinition, SourceDefinition,
        TableDefinition, ViewDefinition,
    },
    history,
    metadata_log::RedbMetadataLog,
};

const SOURCES: RedbTable<u64, &[u8]> = RedbTable::new("catalog_sources");
const TABLES: RedbTable<u64, &[u8]> = RedbTable::new("catalog_tables");
const VIEWS: RedbTable<u64, &[u8]> = RedbTable::new("catalog_views");
const PIPELINES: RedbTable<u64, &[u8]> = RedbTable::new("catalog_pipelines");
const SINKS: RedbTable<u64, &[u8]> = RedbTable::new("catalog_sinks");
const FUNCTIONS: RedbTable<u64, &[u8]> = RedbTable::new("catalog_functions");
const RULES: RedbTable<u64, &[u8]> = RedbTable::new("catalog_rules");
const NEXT: RedbTable<&str, u64> = RedbTable::new("catalog_next");

/// The first oid that PostgreSQL gives to a user's object.
const FIRST_OID: u64 = 16_384;

/// All definitions at one moment.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    pub sources: BTreeMap<SourceId, Arc<SourceDefinition>>,
    pub tables: BTreeMap<TableId, Arc<TableDefinition>>,
    /// By oid.
    pub views: BTreeMap<u32, Arc<ViewDefinition>>,
    pub pipelines: BTreeMap<TableId, Arc<PipelineDefinition>>,
    pub sinks: BTreeMap<TableId, Arc<SinkDefinition>>,
    /// By oid.
    pub functions: BTreeMap<u32, Arc<FunctionDefinition>>,
    /// By oid.
    pub rules: BTreeMap<u32, Arc<RuleDefinition>>,
}

impl Definitions {
    pub fn source_named(&self, name: &str) -> Option<&Arc<SourceDefinition>> {
        self.sources.values().find(|source| source.name == name)
    }

    pub fn table_named(&self, name: &str) -> Option<&Arc<TableDefinition>> {
        self.tables.values().find(|table| table.name == name)
    }

    pub fn view_named(&self, name: &str) -> Option<&Arc<ViewDefinition>> {
        self.views.values().find(|view| view.name == name)
    }

    pub fn pipeline_named(&self, name: &str) -> Option<&Arc<PipelineDefinition>> {
        self.pipelines.values().find(|pipeline| pipeline.name == name)
    }

    pub fn sink_named(&self, name: &str) -> Option<&Arc<SinkDefinition>> {
        self.sinks.values().find(|sink| sink.name == name)
    }

    pub fn function_named(&self, name: &str) -> Option<&Arc<FunctionDefinition>> {
        self.functions.values().find(|function| function.name == name)
    }

    pub fn rule_named(&self, name: &str) -> Option<&Arc<RuleDefinition>> {
        self.rules.values().find(|rule| rule.name == name)
    }

    /// The pipelines that read a source.
    pub fn pipelines_of(&self, source: SourceId) -> impl Iterator<Item = &Arc<PipelineDefinition>> {
        self.pipelines.values().filter(move |pipeline| pipeline.sources.contains(&source))
    }

    /// The pipelines that write into a table or a sink.
    pub fn pipelines_into(&self, table: TableId) -> impl Iterator<Item = &Arc<PipelineDefinition>> {
        self.pipelines.values().filter(move |pipeline| pipeline.targets.iter().any(|target| target.table == table))
    }

    /// The pipelines whose rows look into a table.
    pub fn pipelines_looking_into(&self, table: TableId) -> impl Iterator<Item = &Arc<PipelineDefinition>> {
        self.pipelines.values().filter(move |pipeline| pipeline.tables.contains(&table))
    }

    /// All indexes, with their tables.
    pub fn indexes(&self) -> impl Iterator<Item = (&Arc<TableDefinition>, &IndexDefinition)> {
        self.tables.values().flat_map(|table| table.indexes.iter().map(move |index| (table, index)))
    }

    pub fn index_named(&self, name: &str) -> Option<(&Arc<TableDefinition>, &IndexDefinition)> {
        self.indexes().find(|(_, index)| index.name == name)
    }

    /// Whether a table, a source, a sink, a view or an index has the name.
    pub fn has_relation(&self, name: &str) -> bool {
        self.table_named(name).is_some()
            || self.source_named(name).is_some()
            || self.sink_named(name).is_some()
            || self.view_named(name).is_some()
            || self.index_named(name).is_some()
    }

    /// The tables that read from a source.
    pub fn tables_of(&self, source: SourceId) -> impl Iterator<Item = &Arc<TableDefinition>> {
        self.tables.values().filter(move |table| table.sources.contains(&source))
    }
}

/// The definitions, durable.
#[derive(Debug)]
pub struct Catalog {
    database: Arc<Database>,
    present: RwLock<Arc<Definitions>>,
    /// Held over a change and the picture that follows it.
    edit: Mutex<()>,
}

impl Catalog {
    pub fn open(database: Arc<Database>) -> Result<Self> {
        database.write(|change| {
            let transaction = change.transaction();
            transaction.open_table(SOURCES)?;
            transaction.open_table(TABLES)?;
            transaction.open_table(VIEWS)?;
            transaction.open_table(PIPELINES)?;
            transaction.open_table(SINKS)?;
            transaction.open_table(FUNCTIONS)?;
            transaction.open_table(RULES)?;
            transaction.open_table(NEXT)?;
            Ok(())
        })?;
        let present = database.read(load)?;
        Ok(Self { database, present: RwLock::new(Arc::new(present)), edit: Mutex::new(()) })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.present.read())
    }

    /// Makes one change, durable at return. Blocks for a sync of the disk.
    pub fn change<T>(&self, body: impl FnOnce(&mut CatalogChange<'_, '_>) -> Result<T>) -> Result<T> {
        let _edit = self.edit.lock();
        let value = self.database.write(|change| body(&mut CatalogChange { change }))?;
        *self.present.write() = Arc::new(self.database.read(load)?);
        Ok(value)
    }

    /// Reads the definitions again, after a change that reported an error and may have taken place.
    pub fn reload(&self) -> Result<Arc<Definitions>> {
        let _edit = self.edit.lock();
        let read = Arc::new(self.database.read(load)?);
        *self.present.write() = Arc::clone(&read);
        Ok(read)
    }

    /// The definitions as they were right after change `version`. `Refused` for a version that is not there yet.
    pub fn at(&self, version: u64) -> Result<Definitions> {
        history::definitions_at(&self.database, version)
    }

    /// Every change of a definition that there ever was, oldest first, with its version.
    pub fn changes(&self) -> Result<Vec<(u64, LogRecord)>> {
        history::changes(&self.database, u64::MAX)
    }

    /// The number of the last change of any kind.
    pub fn version(&self) -> Result<u64> {
        self.database.version()
    }
}

fn load(transaction: &ReadTransaction) -> Result<Definitions> {
    let mut definitions = Definitions::default();
    for entry in transaction.open_table(SOURCES)?.iter()? {
        let source: SourceDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.sources.insert(source.id, Arc::new(source));
    }
    for entry in transaction.open_table(TABLES)?.iter()? {
        let table: TableDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.tables.insert(table.id, Arc::new(table));
    }
    for entry in transaction.open_table(VIEWS)?.iter()? {
        let view: ViewDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.views.insert(view.oid, Arc::new(view));
    }
    for entry in transaction.open_table(PIPELINES)?.iter()? {
        let pipeline: PipelineDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.pipelines.insert(pipeline.id, Arc::new(pipeline));
    }
    for entry in transaction.open_table(SINKS)?.iter()? {
        let sink: SinkDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.sinks.insert(sink.id, Arc::new(sink));
    }
    for entry in transaction.open_table(FUNCTIONS)?.iter()? {
        let function: FunctionDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.functions.insert(function.oid, Arc::new(function));
    }
    for entry in transaction.open_table(RULES)?.iter()? {
        let rule: RuleDefinition = serde_json::from_slice(entry?.1.value())?;
        definitions.rules.insert(rule.oid, Arc::new(rule));
    }
    Ok(definitions)
}

/// One change of the catalog in the making.
pub struct CatalogChange<'a, 'b> {
    change: &'a mut Change<'b>,
}

/// What the metadata log says of a dropped object.
#[derive(Serialize)]
struct Dropped<'a> {
    id: u64,
    name: &'a str,
}

impl CatalogChange<'_, '_> {
    pub fn new_source_id(&mut self) -> Result<SourceId> {
        self.next("source", 1).map(SourceId)
    }

    pub fn new_table_id(&mut self) -> Result<TableId> {
        self.next("table", 1).map(TableId)
    }

    pub fn new_oid(&mut self) -> Result<u32> {
        self.next("oid", FIRST_OID).map(|oid| oid as u32)
    }

    pub fn put_source(&mut self, source: &SourceDefinition) -> Result<()> {
        self.change.transaction().open_table(SOURCES)?.insert(source.id.0, serde_json::to_vec(source)?.as_slice())?;
        self.change.record(if source.version == 1 { "source.create" } else { "source.alter" }, source)?;
        Ok(())
    }

    pub fn put_table(&mut self, table: &TableDefinition) -> Result<()> {
        self.change.transaction().open_table(TABLES)?.insert(table.id.0, serde_json::to_vec(table)?.as_slice())?;
        if table.version == 1 {
            RedbMetadataLog::create_table(self.change, table.id, table.options.partitions)?;
        }
        self.change.record(if table.version == 1 { "table.create" } else { "table.alter" }, table)?;
        Ok(())
    }

    /// What the partitions of a table hold, when they become others.
    pub fn set_partitions(&mut self, table: TableId, states: &[PartitionState]) -> Result<()> {
        RedbMetadataLog::set_partitions(self.change, table, states)
    }

    pub fn put_view(&mut self, view: &ViewDefinition) -> Result<()> {
        self.change
            .transaction()
            .open_table(VIEWS)?
            .insert(u64::from(view.oid), serde_json::to_vec(view)?.as_slice())?;
        self.change.record(if view.version == 1 { "view.create" } else { "view.alter" }, view)?;
        Ok(())
    }

    pub fn remove_view(&mut self, view: &ViewDefinition) -> Result<()> {
        self.change.transaction().open_table(VIEWS)?.remove(u64::from(view.oid))?;
        self.change.record("view.drop", &Dropped { id: view.oid.into(), name: &view.name })?;
        Ok(())
    }

    pub fn put_pipeline(&mut self, pipeline: &PipelineDefinition) -> Result<()> {
        let bytes = serde_json::to_vec(pipeline)?;
        self.change.transaction().open_table(PIPELINES)?.insert(pipeline.id.0, bytes.as_slice())?;
        if pipeline.version == 1 {
            checkpoints::create(self.change, pipeline.id)?;
        }
        self.change.record(if pipeline.version == 1 { "pipeline.create" } else { "pipeline.alter" }, pipeline)?;
        Ok(())
    }

    /// Another query of a pipeline, with the state that it goes on from when that is not the one of the last checkpoint.
    pub fn replace_pipeline(
        &mut self,
        pipeline: &PipelineDefinition,
        checkpoint: Option<&CheckpointRecord>,
    ) -> Result<()> {
        checkpoint.map_or(Ok(()), |checkpoint| checkpoints::replace(self.change, checkpoint))?;
        self.put_pipeline(pipeline)
    }

    /// With its checkpoints, and the rules that are about it alone.
    pub fn remove_pipeline(&mut self, pipeline: &PipelineDefinition, rules: &[Arc<RuleDefinition>]) -> Result<()> {
        for rule in rules.iter().filter(|rule| rule.pipeline == Some(pipeline.id)) {
            self.remove_rule(rule)?;
        }
        self.change.transaction().open_table(PIPELINES)?.remove(pipeline.id.0)?;
        checkpoints::forget(self.change, pipeline.id)?;
        self.change.record("pipeline.drop", &Dropped { id: pipeline.id.0, name: &pipeline.name })?;
        Ok(())
    }

    pub fn put_sink(&mut self, sink: &SinkDefinition) -> Result<()> {
        self.change.transaction().open_table(SINKS)?.insert(sink.id.0, serde_json::to_vec(sink)?.as_slice())?;
        self.change.record(if sink.version == 1 { "sink.create" } else { "sink.alter" }, sink)?;
        Ok(())
    }

    pub fn remove_sink(&mut self, sink: &SinkDefinition) -> Result<()> {
        self.change.transaction().open_table(SINKS)?.remove(sink.id.0)?;
        self.change.record("sink.drop", &Dropped { id: sink.id.0, name: &sink.name })?;
        Ok(())
    }

    pub fn put_function(&mut self, function: &FunctionDefinition) -> Result<()> {
        let bytes = serde_json::to_vec(function)?;
        self.change.transaction().open_table(FUNCTIONS)?.insert(u64::from(function.oid), bytes.as_slice())?;
        self.change.record(if function.version == 1 { "function.create" } else { "function.alter" }, function)?;
        Ok(())
    }

    pub fn remove_function(&mut self, function: &FunctionDefinition) -> Result<()> {
        self.change.transaction().open_table(FUNCTIONS)?.remove(u64::from(function.oid))?;
        self.change.record("function.drop", &Dropped { id: function.oid.into(), name: &function.name })?;
        Ok(())
    }

    pub fn put_rule(&mut self, rule: &RuleDefinition) -> Result<()> {
        let bytes = serde_json::to_vec(rule)?;
        self.change.transaction().open_table(RULES)?.insert(u64::from(rule.oid), bytes.as_slice())?;
        self.change.record(if rule.version == 1 { "rule.create" } else { "rule.alter" }, rule)?;
        Ok(())
    }

    pub fn remove_rule(&mut self, rule: &RuleDefinition) -> Result<()> {
        self.change.transaction().open_table(RULES)?.remove(u64::from(rule.oid))?;
        self.change.record("rule.drop", &Dropped { id: rule.oid.into(), name: &rule.name })?;
        Ok(())
    }

    pub fn remove_source(&mut self, source: &SourceDefinition) -> Result<()> {
        self.change.transaction().open_table(SOURCES)?.remove(source.id.0)?;
        self.change.record("source.drop", &Dropped { id: source.id.0, name: &source.name })?;
        Ok(())
    }

    pub fn remove_table(&mut self, table: &TableDefinition) -> Result<()> {
        self.change.transaction().open_table(TABLES)?.remove(table.id.0)?;
        RedbMetadataLog::drop_table(self.change, table.id)?;
        self.change.record("table.drop", &Dropped { id: table.id.0, name: &table.name })?;
        Ok(())
    }

    fn next(&mut self, counter: &str, first: u64) -> Result<u64> {
        let mut next = self.change.transaction().open_table(NEXT)?;
        let id = next.get(counter)?.map_or(first, |next| next.value());
        next.insert(counter, id + 1)?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use tidemill_storage::{
        clock::ManualClock,
        ids::{ColumnId, SchemaVersion},
        schema::TableSchema,
    };

    use super::*;
    use crate::catalog::definition::TableOptions;

    fn create(catalog: &Catalog, name: &str) -> TableDefinition {
        catalog
            .change(|change| {
                let table = TableDefinition {
                    id: change.new_table_id()?,
                    oid: change.new_oid()?,
                    name: name.to_owned(),
                    version: 1,
                    schema: TableSchema { version: SchemaVersion(1), columns: Vec::new(), time_column: None },
                    next_column: ColumnId(0),
                    sources: Vec::new(),
                    log: change.new_source_id()?,
                    transform: None,
                    options: TableOptions::default(),
                    key: None,
                    indexes: Vec::new(),
                    paused: false,
                    created_at_us: 0,
                };
                change.put_table(&table)?;
                Ok(table)
            })
            .unwrap()
    }

    #[test]
    fn definitions_survive_and_ids_are_never_used_twice() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let clock = Arc::new(ManualClock::default());
            Catalog::open(Database::open(directory.path().join("m"), clock).unwrap()).unwrap()
        };
        let catalog = open();
        let a = create(&catalog, "a");
        catalog.change(|change| change.remove_table(&a)).unwrap();
        drop(catalog);
        let catalog = open();
        let before = catalog.version().unwrap();
        let b = create(&catalog, "b");
        assert!(b.id > a.id && b.oid > a.oid && b.log > a.log);
        drop(catalog);
        let definitions = open().definitions();
        assert_eq!(definitions.table_named("b").map(|table| (**table).clone()), Some(b));
        assert!(definitions.table_named("a").is_none());
        // What was, is still told: nothing, then a, then neither, then b.
        let catalog = open();
        let names = |version| {
            let at = catalog.at(version).unwrap();
            at.tables.values().map(|table| table.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!((names(0), names(1), names(before)), (vec![], vec!["a".into()], vec![]));
        assert_eq!(names(catalog.version().unwrap()), ["b"]);
        catalog.at(catalog.version().unwrap() + 1).unwrap_err();
        let changes: Vec<_> = catalog.changes().unwrap().into_iter().map(|(_, record)| record.kind).collect();
        assert_eq!(changes, ["table.create", "table.drop", "table.create"]);
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path().join("m"), Arc::new(ManualClock::default())).unwrap();
        let catalog = Catalog::open(database).unwrap();
        let a = create(&catalog, "a");
        let failed: Result<()> = catalog.change(|change| {
            change.remove_table(&a)?;
            Err(crate::catalog::database::DatabaseError::Refused("no".into()))
        });
        assert!(failed.is_err());
        assert!(catalog.definitions().table_named("a").is_some());
    }
}
