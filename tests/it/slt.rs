//! The SQL tests of `tests/slt/*.slt`, each run with its rows consuming, sealed, and after kill -9, and against PostgreSQL.
//!
//! The files are one text for all: a run in mode *sealed* calls `rt.seal` for every table before the first query after a change; in mode
//! *restarted* the server is killed and started again at that point. With `TIDEMILL_TEST_POSTGRES` (a libpq-like `host:port`) the same file
//! runs against a real PostgreSQL, `WITH (…)` and `FROM SOURCE` clauses aside, which proves the expected rows. `skipif postgres` and
//! `onlyif postgres` mark what only one of them can do.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, error::DbError};

use crate::support::server::{Server, connect};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Consuming,
    Sealed,
    Restarted,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Failure {
    state: Option<String>,
    message: String,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self {
            state: error.code().map(|code| code.code().to_owned()),
            message: error.as_db_error().map_or_else(|| error.to_string(), DbError::to_string),
        }
    }
}

struct Connection {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Connection {
    fn open(connect: impl AsyncFnOnce() -> Result<Client, tokio_postgres::Error>) -> Result<Self, Failure> {
        let runtime = crate::support::server::runtime();
        let client = runtime.block_on(connect())?;
        Ok(Self { runtime, client })
    }

    fn run(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let messages = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), self.client.simple_query(sql)).await })
            .map_err(|_| Failure { state: None, message: format!("no answer within 60 s: {sql}") })??;
        let mut columns = None;
        let mut rows = Vec::new();
        let mut affected = 0;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(description) => columns = Some(description.len()),
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|i| match row.get(i) {
                            None => "NULL".to_owned(),
                            Some("") => "(empty)".to_owned(),
                            Some(text) => text.to_owned(),
                        })
                        .collect(),
                ),
                SimpleQueryMessage::CommandComplete(count) => affected = count,
                _ => {}
            }
        }
        Ok(match columns {
            Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows },
            None => DBOutput::StatementComplete(affected),
        })
    }
}

fn changes_something(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    ["CREATE", "INSERT", "COPY", "ALTER", "DROP", "UPDATE", "DELETE"].contains(&first.as_str())
}

/// Tidemill in one of the modes. The connection is made anew after a restart; SET and PREPARE do not survive it, as in real life, so
/// files that need session state begin their queries with it.
struct Tidemill {
    server: Server,
    connection: Connection,
    mode: Mode,
    changed: bool,
}

impl Tidemill {
    fn start(mode: Mode) -> Self {
        let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
        let port = server.pg_port;
        let connection = Connection::open(async || connect(port).await).expect("a connection");
        Self { server, connection, mode, changed: false }
    }

    fn settle(&mut self) -> Result<(), Failure> {
        match self.mode {
            Mode::Consuming => {}
            Mode::Sealed => {
                for row in self.server.sql("SELECT name FROM rt.tables") {
                    let name = row[0].as_deref().expect("a table name").replace('\'', "''");
                    self.server.sql(&format!("SELECT rt.seal('{name}')"));
                }
                let open =
                    self.server.value("SELECT coalesce(sum(rows), 0) FROM rt.segments WHERE state <> 'committed'");
                assert_eq!(open, "0", "rt.seal left rows in segments that are not committed");
            }
            Mode::Restarted => {
                self.server.kill_and_restart();
                // What comes from a source is read again after the start; what was acknowledged is there at once.
                for row in self.server.sql("SELECT name FROM rt.sources") {
                    let name = row[0].as_deref().expect("a source name").replace('\'', "''");
                    self.server.sql(&format!("SELECT rt.drain('{name}')"));
                }
                let port = self.server.pg_port;
                self.connection = Connection::open(async || connect(port).await)?;
            }
        }
        Ok(())
    }
}

impl DB for Tidemill {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        if changes_something(sql) {
            self.changed = true;
        } else if self.changed {
            self.changed = false;
            self.settle()?;
        }
        self.connection.run(sql)
    }

    fn engine_name(&self) -> &str {
        "tidemill"
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        error.state.clone()
    }
}

/// A real PostgreSQL, in a schema of its own that is dropped at the end.
struct Postgres {
    connection: Connection,
    schema: String,
}

impl Postgres {
    fn start(address: &str, schema: String) -> Self {
        let (host, port) = address.split_once(':').expect("TIDEMILL_TEST_POSTGRES is host:port");
        let (host, port) = (host.to_owned(), port.parse().expect("a port"));
        let connection = Connection::open(async || {
            let (client, connection) = tokio_postgres::Config::new()
                .host(&host)
                .port(port)
                .user("postgres")
                .dbname("postgres")
                .connect(NoTls)
                .await?;
            tokio::spawn(connection);
            Ok(client)
        })
        .expect("PostgreSQL answers");
        connection
            .run(&format!(
                "DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; SET search_path = {schema}; SET TimeZone = 'UTC'"
            ))
            .expect("a schema of our own");
        Self { connection, schema }
    }
}

impl DB for Postgres {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let create_table = sql.trim_start().to_ascii_uppercase().starts_with("CREATE TABLE");
        match sql.find(" WITH (").filter(|_| create_table) {
            Some(at) => self.connection.run(&sql[..at]),
            None => self.connection.run(sql),
        }
    }

    fn engine_name(&self) -> &str {
        "postgres"
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        error.state.clone()
    }

    fn shutdown(&mut self) {
        self.connection.run(&format!("DROP SCHEMA {} CASCADE", self.schema)).ok();
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("tests/slt")
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "tests/slt holds no .slt file");
    files
}

/// Runs every file and tells all that failed, not just the first.
fn run_all<D>(what: &str, start: impl Fn(&Path) -> D)
where
    D: DB<Error = Failure, ColumnType = DefaultColumnType> + Send + 'static,
{
    let mut failures = Vec::new();
    for file in files() {
        let mut database = Some(start(&file));
        let mut runner = Runner::new(|| {
            let database = database.take().expect("one connection per file");
            async move { Ok(database) }
        });
        if let Err(error) = runner.run_file(&file) {
            failures.push(format!("{} ({what}): {error}", file.file_name().expect("a name").display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn answers_while_rows_are_consuming() {
    run_all("consuming", |_| Tidemill::start(Mode::Consuming));
}

#[test]
fn answers_after_sealing() {
    run_all("sealed", |_| Tidemill::start(Mode::Sealed));
}

#[test]
fn answers_after_kill_9() {
    run_all("restarted", |_| Tidemill::start(Mode::Restarted));
}

#[test]
fn answers_are_those_of_postgres() {
    let Ok(address) = env::var("TIDEMILL_TEST_POSTGRES") else {
        println!(
            "SKIPPED slt::answers_are_those_of_postgres: no PostgreSQL (set TIDEMILL_TEST_POSTGRES, or use tests/run)"
        );
        return;
    };
    run_all("postgres", |file| {
        let name = file.file_stem().expect("a stem").to_str().expect("UTF-8");
        Postgres::start(&address, format!("slt_{name}"))
    });
}
