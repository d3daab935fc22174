//! An engine over tables made here, and rows as the text that psql would show.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use parking_lot::RwLock;
use tidemill_query::{Engine, EngineConfig, Session, SessionOptions, SqlError, TableCatalog, TableHandle};
use tidemill_storage::{
    clock::SystemClock,
    ids::{ColumnId, SchemaVersion, SegmentId, TableId},
    schema::{Column, DataType, TableSchema},
    table::{PartitionWriter, Table},
};
use tokio::runtime::{Builder, Handle, Runtime};

/// Tables by name.
#[derive(Debug, Default)]
pub(crate) struct Tables(RwLock<BTreeMap<String, TableHandle>>);

impl TableCatalog for Tables {
    fn table(&self, name: &str) -> Option<TableHandle> {
        self.0.read().get(name).cloned()
    }

    fn tables(&self) -> Vec<TableHandle> {
        self.0.read().values().cloned().collect()
    }
}

pub(crate) struct World {
    pub tables: Arc<Tables>,
    pub engine: Arc<Engine>,
    _spill: tempfile::TempDir,
}

/// One CPU runtime for all tests.
fn cpu() -> &'static Runtime {
    static CPU: OnceLock<Runtime> = OnceLock::new();
    CPU.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(2).thread_stack_size(16 << 20).enable_all().build().unwrap()
    })
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut EngineConfig)) -> Self {
        Self::on(cpu().handle(), change)
    }

    /// With query work on threads of the caller's.
    pub(crate) fn on(cpu: &Handle, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let tables = Arc::new(Tables::default());
        let spill = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new(spill.path());
        config.lanes = 3;
        change(&mut config);
        let catalog = Arc::clone(&tables) as Arc<dyn TableCatalog>;
        let engine = Engine::new(config, catalog, Arc::new(SystemClock::new()), cpu.clone()).unwrap();
        Self { tables, engine, _spill: spill }
    }

    pub(crate) fn session(&self) -> Session {
        self.engine.session(SessionOptions { user: "ann".into(), pid: 7, settings: Vec::new() })
    }

    /// A table of one partition; `columns` are all nullable.
    pub(crate) fn table(&self, name: &str, columns: &[(&str, DataType)]) -> PartitionWriter {
        let columns = columns
            .iter()
            .enumerate()
            .map(|(id, (name, data_type))| Column::new(ColumnId(id as u32), *name, data_type.clone()))
            .collect();
        let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None });
        let oid = 20_000 + self.tables.0.read().len() as u32;
        let table = Arc::new(Table::new(TableId(u64::from(oid)), Arc::clone(&schema), 1));
        let writer = PartitionWriter::new(Arc::clone(&table.partitions()[0]), schema, SegmentId(1));
        self.tables.0.write().insert(name.into(), TableHandle { name: name.into(), oid, table });
        writer
    }

    /// The rows of one statement.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
        rows(&self.session(), sql)
    }

    /// Rows as lines, values separated by `|`, as `psql -At` prints them.
    pub(crate) fn lines(&self, sql: &str) -> Vec<String> {
        match self.rows(sql) {
            Ok(rows) => rows.into_iter().map(|row| row.join("|")).collect(),
            Err(error) => panic!("{sql}: {error} {error:?}"),
        }
    }

    pub(crate) fn value(&self, sql: &str) -> String {
        self.lines(sql).join("\n")
    }

    pub(crate) fn error(&self, sql: &str) -> SqlError {
        match self.rows(sql) {
            Ok(rows) => panic!("{sql} gave {rows:?}"),
            Err(error) => error,
        }
    }
}

pub(crate) fn rows(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, SqlError> {
    block_on(async {
        let statements = tidemill_query::parse::parse(sql)?;
        let plan = session.plan(&statements[0], sql).await?;
        let batches = session.execute(&plan)?.collect_all().await?;
        Ok(text(&batches))
    })
}

/// Values as text; NULL is empty.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("");
    let mut out = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            out.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    out
}
