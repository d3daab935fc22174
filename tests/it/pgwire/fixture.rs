//! A listener over an engine and tables in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use tempfile::TempDir;
use tidemill::{
    pgwire::server::{Config, serve},
    session::{Backend, DdlOutcome, Registry, Result, Shared, SqlError, Turn, WriteTarget, state},
    sql::{self, StatementKind, ast::Ddl},
};
use tidemill_ingest::consumer::RowChange;
use tidemill_query::{Engine, EngineConfig, TableCatalog, TableHandle};
use tidemill_storage::{
    clock::SystemClock,
    ids::{ColumnId, SchemaVersion, SegmentId, TableId},
    schema::{Column, TableSchema},
    table::{PartitionWriter, Table},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_postgres::{Client, NoTls};

pub(super) const SESSIONS_MAX: usize = 8;

#[derive(Debug)]
struct Stored {
    handle: TableHandle,
    writer: Mutex<PartitionWriter>,
}

/// Tables that live as long as the test.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: Mutex<BTreeMap<String, Arc<Stored>>>,
    next: AtomicU64,
}

impl TableCatalog for Tables {
    fn table(&self, name: &str) -> Option<TableHandle> {
        self.tables.lock().get(name).map(|stored| stored.handle.clone())
    }

    fn tables(&self) -> Vec<TableHandle> {
        self.tables.lock().values().map(|stored| stored.handle.clone()).collect()
    }
}

#[async_trait]
impl Backend for Tables {
    async fn execute_ddl(&self, text: &str) -> Result<DdlOutcome> {
        let statement = sql::parse(text)?.remove(0);
        let StatementKind::Ddl(ddl) = statement.kind else { return Err(SqlError::internal("not a definition")) };
        let mut notices = Vec::new();
        match ddl.as_ref() {
            Ddl::CreateTable(create) => {
                let mut tables = self.tables.lock();
                if tables.contains_key(&create.name.value) {
                    return Err(SqlError::new(
                        state::DUPLICATE_TABLE,
                        format!("relation \"{}\" already exists", create.name.value),
                    ));
                }
                let columns = create
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(index, column)| Column {
                        nullable: !column.not_null,
                        ..Column::new(ColumnId(index as u32 + 1), column.name.value.clone(), column.data_type.clone())
                    })
                    .collect();
                let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None });
                let id = self.next.fetch_add(1, Ordering::SeqCst) + 1;
                let table = Arc::new(Table::new(TableId(id), Arc::clone(&schema), 1));
                let writer = PartitionWriter::new(Arc::clone(&table.partitions()[0]), schema, SegmentId(1));
                let handle = TableHandle { name: create.name.value.clone(), oid: 16_384 + id as u32, table };
                tables.insert(create.name.value.clone(), Arc::new(Stored { handle, writer: Mutex::new(writer) }));
            }
            Ddl::Drop(drop) => {
                for name in &drop.names {
                    if self.tables.lock().remove(&name.value).is_none() {
                        notices.push(format!("table \"{}\" does not exist, skipping", name.value));
                    }
                }
            }
            _ => return Err(SqlError::unsupported("not in this test")),
        }
        Ok(DdlOutcome { tag: ddl.tag().to_owned(), notices, ..DdlOutcome::default() })
    }

    fn write_target(&self, name: &str) -> Result<WriteTarget> {
        match self.tables.lock().get(name) {
            Some(stored) => Ok(WriteTarget {
                id: stored.handle.table.id(),
                name: name.to_owned(),
                schema: stored.handle.table.schema(),
            }),
            None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))),
        }
    }

    async fn append(&self, target: &WriteTarget, rows: Vec<RecordBatch>) -> Result<()> {
        let stored = self.tables.lock().values().find(|stored| stored.handle.table.id() == target.id).cloned();
        let stored = stored.ok_or_else(|| SqlError::internal("no such table"))?;
        let mut writer = stored.writer.lock();
        for batch in rows {
            writer.append(&batch, &[])?;
        }
        Ok(())
    }

    async fn turn(&self, _: &WriteTarget) -> Result<Turn> {
        Err(SqlError::unsupported("rows of this server stay as they are"))
    }

    async fn still(&self, _: &WriteTarget) -> Result<Turn> {
        Err(SqlError::unsupported("rows of this server stay as they are"))
    }

    async fn seal(&self, _: &WriteTarget) -> Result<()> {
        Err(SqlError::unsupported("rows of this server stay in memory"))
    }

    async fn change(&self, _: &WriteTarget, _: RowChange) -> Result<()> {
        Err(SqlError::unsupported("rows of this server stay as they are"))
    }
}

/// A server on a free port.
pub(super) struct Fixture {
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) tables: Arc<Tables>,
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
    _spill: TempDir,
}

/// Where queries compute: apart from the test's own runtime.
fn cpu() -> tokio::runtime::Handle {
    static CPU: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    CPU.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(8 << 20)
            .enable_all()
            .build()
            .unwrap()
    })
    .handle()
    .clone()
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(super) async fn with(config: Config) -> Self {
        let spill = TempDir::new().unwrap();
        let tables = Arc::new(Tables::default());
        let clock = Arc::new(SystemClock::new());
        let catalog = Arc::clone(&tables) as Arc<dyn TableCatalog>;
        let engine = Engine::new(EngineConfig::new(spill.path()), catalog, clock.clone(), cpu()).unwrap();
        let backend = Arc::clone(&tables) as Arc<dyn Backend>;
        let shared = Shared::new(engine, backend, Arc::new(Registry::new(SESSIONS_MAX)), clock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(listener, Arc::clone(&shared), config, stopped));
        Self { address, shared, tables, stop, served, _spill: spill }
    }

    pub(super) fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=tester dbname=tidemill", self.address.port())
    }

    pub(super) async fn connect(&self) -> Client {
        self.try_connect("").await.unwrap()
    }

    /// With further settings in libpq's form.
    pub(super) async fn try_connect(&self, more: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&format!("{} {more}", self.url()), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Stops the server as SIGTERM would, and waits for its end.
    pub(super) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// Runs a test on threads with the stacks that the server gives its own: unoptimised planning does not fit into two megabytes.
pub(super) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// SQLSTATE of a failed statement.
pub(super) fn sqlstate<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => match error.as_db_error() {
            Some(error) => error.code().code().to_owned(),
            None => panic!("not an answer of the server: {error}"),
        },
    }
}

/// Rows of a string of statements as psql's unaligned form: columns by `|`, NULL as `∅`.
pub(super) async fn text(client: &Client, sql: &str) -> Vec<String> {
    use tokio_postgres::SimpleQueryMessage::Row;
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|index| row.get(index).unwrap_or("∅")).collect();
                Some(values.join("|"))
            }
            _ => None,
        })
        .collect()
}
