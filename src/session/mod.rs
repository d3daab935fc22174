//! A connected user's session, whatever protocol it came by: variables, transaction state, prepared statements, cursors, and the
//! execution of any statement.
//!
//! ```text
//! text ─ statement::parse ─► Statement ─ prepare ─► Prepared ─ execute ─► Response
//!                                                            ├ SELECT, EXPLAIN, SUBSCRIBE tidemill_query::Session ─► batches
//!                                                            ├ SET, BEGIN, FETCH, …       here
//!                                                            ├ CREATE, ALTER, DROP        Backend::execute_ddl
//!                                                            └ INSERT, COPY … FROM        Backend::append
//! ```
//!
//! What always holds: results are streams, never collected; a statement stops when its [`registry::Entry`] is interrupted; after an
//! error inside BEGIN nothing but ROLLBACK runs.

pub mod backend;
mod call;
mod change;
pub mod channels;
pub mod copy;
pub mod cursor;
pub mod error;
mod execute;
pub mod functions;
mod notify;
mod plans;
pub mod registry;
mod returning;
pub mod statement;
mod subscribe;
pub mod transaction;
pub mod value;
pub mod write;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, SchemaRef},
};
use datafusion::{common::ScalarValue, sql::sqlparser::ast};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tidemill_ingest::pipeline::plan::relations;
use tidemill_query::{
    Engine, Plan, QueryStream, SessionOptions,
    plan::{ColumnOrigin, WriteKind},
    settings::Settings,
};
use tidemill_storage::clock::Clock;

pub use self::{
    backend::{Backend, DdlOutcome, Turn, VERDICT_COLUMNS, WriteTarget},
    channels::{Channels, Delivered, Inbox},
    copy::{options::Format as CopyFormat, read::CopyIn, write::CopyWriter},
    cursor::Cursor,
    error::{Result, SqlError, state},
    registry::{Interrupt, Registry},
    statement::Statement,
    transaction::Status,
    value::{
        PgType, Scalar,
        build::{ColumnBuilder, ReadStyle},
        calendar::Zone,
        encode::Style,
    },
};
use self::{
    channels::Listener,
    notify::Listening,
    plans::Plans,
    registry::{Entry, Registered},
    statement::Kind,
    transaction::{Mark, Transaction},
};
use crate::sql::ast::{EXPLAIN, INSERT, PROPOSE};

/// Prepared statements of one session.
const PREPARED_MAX: usize = 10_000;
/// Open cursors of one session.
const CURSORS_MAX: usize = 1_000;

/// What all sessions of a server share.
#[derive(Debug)]
pub struct Shared {
    pub engine: Arc<Engine>,
    pub backend: Arc<dyn Backend>,
    pub registry: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
    pub channels: Arc<Channels>,
    /// Rises with every definition statement: plans made before are made anew.
    definitions: AtomicU64,
    /// Settings that sessions begin with when the client names no others.
    defaults: OnceLock<Vec<(String, String)>>,
}

impl Shared {
    /// Also registers `pg_cancel_backend` and `pg_terminate_backend` with the engine.
    pub fn new(
        engine: Arc<Engine>,
        backend: Arc<dyn Backend>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        functions::register(&engine, &registry)?;
        Ok(Arc::new(Self {
            engine,
            backend,
            registry,
            clock,
            channels: Arc::default(),
            definitions: AtomicU64::new(0),
            defaults: OnceLock::new(),
        }))
    }

    /// What sessions begin with, as SET would take it; once, before the first session.
    pub fn set_defaults(&self, settings: Vec<(String, String)>) {
        let _ = self.defaults.set(settings);
    }
}

/// Who connects, and with which settings.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    pub user: String,
    pub database: String,
    /// "127.0.0.1:4711", empty when there is no socket.
    pub client: String,
    /// Settings of the session, as SET would take them.
    pub settings: Vec<(String, String)>,
}

/// Batches of a result, produced as they are asked for. Dropping it stops the work.
pub type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// What a client is told of a result column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// 0 when the column is not a table's.
    pub table_oid: u32,
    /// 1-based, 0 when the column is not a table's.
    pub table_column: i16,
    pub pg_type: PgType,
    /// Precision and scale of a table's NUMERIC, else -1.
    pub modifier: i32,
}

/// Rows of a result.
pub struct Rows {
    pub schema: SchemaRef,
    pub columns: Arc<[Column]>,
    pub batches: Batches,
    pub tag: RowsTag,
    /// All columns in binary, whatever the client asked for: a BINARY cursor.
    pub binary: bool,
    /// They go on coming: what there is goes out before more is waited for.
    pub live: bool,
}

/// The word before the count in the command tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsTag {
    Select,
    Subscribe,
    Fetch,
    /// Without a count.
    Show,
    /// Without a count.
    Explain,
    /// Without a count.
    Call,
    /// What a statement returns of the rows that it wrote, and how many these are, however many the client takes.
    Written {
        kind: WriteKind,
        rows: u64,
    },
}

impl RowsTag {
    pub fn complete(self, rows: u64) -> String {
        match self {
            Self::Select => format!("SELECT {rows}"),
            Self::Subscribe => format!("SUBSCRIBE {rows}"),
            Self::Fetch => format!("FETCH {rows}"),
            Self::Show => "SHOW".to_owned(),
            Self::Explain => "EXPLAIN".to_owned(),
            Self::Call => "CALL".to_owned(),
            Self::Written { kind: WriteKind::Insert, rows } => format!("INSERT 0 {rows}"),
            Self::Written { kind: WriteKind::Update, rows } => format!("UPDATE {rows}"),
            Self::Written { kind: WriteKind::Delete, rows } => format!("DELETE {rows}"),
        }
    }
}

/// What a statement gives.
pub enum Response {
    Rows(Rows),
    /// Done, with its tag: "SET", "CREATE TABLE", "INSERT 0 3".
    Command(String),
    /// Data is to be pushed, then [`Session::finish_copy`] called.
    CopyIn(Box<CopyIn>),
    /// Rows, to be written by the writer.
    CopyOut(CopyOut),
}

/// COPY … TO STDOUT.
pub struct CopyOut {
    pub writer: CopyWriter,
    pub columns: usize,
    pub batches: Batches,
    /// As [`Rows::live`].
    pub live: bool,
}

/// Something said beside the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    pub state: &'static str,
    pub message: String,
}

/// A statement that is planned and waits for its parameters.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub statement: Arc<Statement>,
    /// Types the client or PREPARE named; `None`: inferred.
    types: Vec<Option<PgType>>,
    plan: Option<Plan>,
    /// Result columns; `None` when there are none.
    pub columns: Option<Arc<[Column]>>,
    pub parameters: Vec<PgType>,
    version: u64,
}

impl Prepared {
    /// What blanks and comments are prepared as.
    pub fn empty() -> Self {
        let statement = Statement { kind: Kind::Nothing(""), text: "".into(), offset: 0 };
        Self {
            statement: Arc::new(statement),
            types: Vec::new(),
            plan: None,
            columns: None,
            parameters: Vec::new(),
            version: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.statement.text.is_empty()
    }
}

/// One user's session.
pub struct Session {
    shared: Arc<Shared>,
    query: tidemill_query::Session,
    registered: Registered,
    transaction: Transaction,
    statements: HashMap<String, Arc<Prepared>>,
    plans: Mutex<Plans>,
    cursors: HashMap<String, Arc<Cursor>>,
    notices: Vec<Notice>,
    listener: Listener,
    /// To be done when the transaction is committed.
    listening: Vec<Listening>,
}

impl Session {
    /// 53300 when there are too many, 42704 or 22023 for a wrong setting.
    pub fn open(shared: &Arc<Shared>, startup: &Startup) -> Result<Self> {
        let now = shared.clock.now_us();
        let secret = rand::random();
        let registered = shared.registry.register(&startup.user, &startup.database, &startup.client, secret, now)?;
        let query = shared.engine.session(SessionOptions {
            user: startup.user.clone(),
            pid: registered.entry().pid,
            settings: shared.defaults.get().into_iter().flatten().chain(&startup.settings).cloned().collect(),
        });
        for (name, value) in &startup.settings {
            let mut settings = query.settings();
            settings.set(name, value, false)?;
            // It was taken as the session's initial value; setting it told whether it is right.
            settings.reset(name)?;
        }
        let session = Self {
            listener: shared.channels.listener(registered.entry().pid),
            listening: Vec::new(),
            shared: Arc::clone(shared),
            query,
            registered,
            transaction: Transaction::default(),
            statements: HashMap::new(),
            plans: Mutex::default(),
            cursors: HashMap::new(),
            notices: Vec::new(),
        };
        session.note_application_name();
        Ok(session)
    }

    pub fn entry(&self) -> &Arc<Entry> {
        self.registered.entry()
    }

    pub fn status(&self) -> Status {
        self.transaction.status()
    }

    /// Settings that clients are told of, with their values.
    pub fn reported_settings(&self) -> Vec<(&'static str, String)> {
        self.query.settings().reported()
    }

    /// Another number after each change of a setting.
    pub fn settings_version(&self) -> u64 {
        self.query.settings_version()
    }

    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    pub fn style(&self) -> Style {
        Style { zone: self.zone() }
    }

    pub fn read_style(&self) -> ReadStyle {
        ReadStyle { zone: self.zone(), now_us: self.shared.clock.now_us() }
    }

    fn zone(&self) -> Zone {
        Zone::parse(self.query.settings().time_zone()).unwrap_or(Zone::UTC)
    }

    /// Milliseconds after which a session that waits for a statement is ended, if there is such a limit.
    pub fn idle_timeout(&self) -> Option<Duration> {
        let name = match self.status() {
            Status::Idle => "idle_session_timeout",
            Status::Open | Status::Failed => "idle_in_transaction_session_timeout",
        };
        let shown = self.query.settings().show(name).ok()?;
        execute::duration(&shown)
    }

    /// Parses and runs a string that holds one statement; for protocols without extended queries.
    pub async fn execute_text(&mut self, sql: &str) -> Result<Option<Response>> {
        let statements = statement::parse(sql)?;
        match statements.as_slice() {
            [] => Ok(None),
            [statement] => {
                let result = self.run(statement).await;
                if result.is_err() {
                    self.failed();
                }
                self.end_implicit();
                result.map(Some)
            }
            _ => Err(SqlError::syntax("several statements in one string; send them one by one")),
        }
    }

    /// Prepares and executes a statement without parameters. Call [`Session::failed`] on an error, here or in the rows.
    pub async fn run(&mut self, statement: &Statement) -> Result<Response> {
        self.begin(statement)?;
        let prepared = self.prepare(statement.clone(), Vec::new()).await?;
        if !prepared.parameters.is_empty() {
            return Err(SqlError::new(state::UNDEFINED_PARAMETER, "there is no parameter $1")
                .with_hint("parameters need the extended protocol or PREPARE and EXECUTE"));
        }
        self.execute(&prepared, Vec::new()).await
    }

    /// Notes that `statement` runs now and checks that it may.
    pub fn begin(&mut self, statement: &Statement) -> Result<()> {
        let entry = self.entry();
        entry.begin_statement();
        let now = self.shared.clock.now_us();
        entry.update(|activity| {
            activity.query.clear();
            activity.query.push_str(shortened(&statement.text));
            activity.running = true;
            activity.query_started_us = now;
            activity.state_changed_us = now;
        });
        self.allowed(statement)
    }

    /// 25P02 after an error inside BEGIN.
    pub fn allowed(&self, statement: &Statement) -> Result<()> {
        let ends = matches!(statement.kind, Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo(_));
        if self.status() == Status::Failed && !ends {
            return Err(SqlError::new(
                state::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// The statement is over, well or badly.
    pub fn end(&mut self) {
        let now = self.shared.clock.now_us();
        let in_transaction = self.status() != Status::Idle;
        self.entry().update(|activity| {
            activity.running = false;
            activity.in_transaction = in_transaction;
            activity.state_changed_us = now;
        });
    }

    /// A statement failed: an open transaction is aborted, cursors of it are gone.
    pub fn failed(&mut self) {
        self.transaction.fail();
        match self.status() {
            Status::Failed => self.cursors.retain(|_, cursor| cursor.hold),
            // What came before it in the same string, or since the last Sync, is rolled back with it by PostgreSQL.
            _ => {
                self.forget_listening(Mark::default());
                self.warn_of_lasting();
            }
        }
        self.end();
    }

    /// A string of statements, or what was sent up to a Sync, is over: outside of BEGIN that is the end of the transaction.
    pub fn end_implicit(&mut self) {
        self.transaction.implicit = false;
        if self.status() == Status::Idle {
            self.end_listening();
            self.cursors.retain(|_, cursor| cursor.hold);
            self.query.settings().end_transaction();
            self.transaction.end();
        }
    }

    /// A string of several statements begins: PostgreSQL runs it as one transaction.
    pub fn begin_implicit(&mut self) {
        self.transaction.implicit = true;
    }

    /// Plans a statement; parameters whose type is not given are inferred.
    pub async fn prepare(&self, statement: Statement, types: Vec<Option<PgType>>) -> Result<Prepared> {
        self.prepare_shared(Arc::new(statement), types).await
    }

    async fn prepare_shared(&self, statement: Arc<Statement>, types: Vec<Option<PgType>>) -> Result<Prepared> {
        let version = self.shared.definitions.load(Ordering::SeqCst);
        let mut prepared = Prepared {
            statement: Arc::clone(&statement),
            types,
            plan: None,
            columns: None,
            parameters: Vec::new(),
            version,
        };
        match &statement.kind {
            Kind::Query(ast) if self.begins_pipeline(ast) => {
                let definition = Statement { kind: Kind::Definition(INSERT), ..statement.as_ref().clone() };
                prepared.statement = Arc::new(definition);
            }
            Kind::Definition(EXPLAIN) => {
                prepared.columns = Some(text_columns(&["QUERY PLAN"]));
            }
            Kind::Definition(PROPOSE) => {
                prepared.columns = Some(text_columns(&VERDICT_COLUMNS));
            }
            Kind::Query(ast) => {
                let settings = self.query.settings_version();
                if let Some(known) = self.plans.lock().find(&prepared, settings) {
                    return Ok(known);
                }
                let types = arrow_types(&prepared.types);
                let plan = self.query.plan_typed(ast, &statement.text, &types);
                let plan = self.interruptible(async { Ok(plan.await?) }).await?;
                prepared.parameters = parameter_types(&plan, &prepared.types);
                prepared.columns = match plan.write() {
                    None => Some(columns(plan.schema(), plan.origins())),
                    Some(write) => {
                        write.returning.as_ref().map(|returning| columns(returning.schema(), returning.origins()))
                    }
                };
                prepared.plan = Some(plan);
                self.plans.lock().keep(&prepared, settings);
            }
            Kind::Subscribe(subscribe) => self.prepare_subscribe(subscribe, &mut prepared).await?,
            Kind::Fetch(fetch) if !fetch.moves => {
                prepared.columns = Some(Arc::clone(&self.cursor(&fetch.cursor)?.columns));
            }
            Kind::Execute { name, .. } => {
                prepared.columns = self.prepared(name)?.columns.clone();
            }
            Kind::ExplainExecute { .. } => {
                prepared.columns = Some(text_columns(&["QUERY PLAN"]));
            }
            Kind::Show(name) => {
                let shown = Settings::canonical_name(name).unwrap_or(name);
                prepared.columns = Some(text_columns(&[shown]));
            }
            Kind::Call { name, arguments, position } => {
                self.prepare_call(name, arguments, *position, &mut prepared).await?;
            }
            Kind::ShowAll => {
                prepared.columns = Some(text_columns(&["name", "setting", "description"]));
            }
            _ => {}
        }
        Ok(prepared)
    }

    /// The statement planned anew for values that have more digits than the parameters of its plan; `None`: it fits them all.
    async fn with_digits(&self, prepared: &Prepared, values: &[ScalarValue]) -> Result<Option<Prepared>> {
        let (Some(plan), Some((ast, text))) = (&prepared.plan, prepared.statement.planned()) else { return Ok(None) };
        let fields = plan.parameters().iter().zip(values);
        let exact: Vec<_> = fields.map(|(field, value)| value::digits::exact(value, field.data_type())).collect();
        if exact.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut types = arrow_types(&prepared.types);
        types.resize(exact.len(), None);
        let types: Vec<_> = exact.into_iter().zip(types).map(|(exact, given)| exact.or(given)).collect();
        let plan = self.query.plan_typed(ast, text, &types);
        let plan = self.interruptible(async { Ok(plan.await?) }).await?;
        Ok(Some(Prepared { plan: Some(plan), ..prepared.clone() }))
    }

    /// Whether a statement is an INSERT from a source.
    fn begins_pipeline(&self, statement: &ast::Statement) -> bool {
        let ast::Statement::Insert(insert) = statement else { return false };
        let query = insert.source.as_ref().filter(|query| !matches!(*query.body, ast::SetExpr::Values(_)));
        query.is_some_and(|query| self.shared.backend.reads_source(&relations(query)))
    }

    /// A statement prepared by name, through either protocol or SQL.
    pub fn prepared(&self, name: &str) -> Result<Arc<Prepared>> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            SqlError::new(state::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    /// Keeps a prepared statement. The unnamed one is replaced, others must be new.
    pub fn keep_prepared(&mut self, name: &str, prepared: Prepared) -> Result<()> {
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(SqlError::new(
                state::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if self.statements.len() >= PREPARED_MAX {
            return Err(SqlError::new(
                state::PROGRAM_LIMIT_EXCEEDED,
                format!("a session can have {PREPARED_MAX} prepared statements"),
            )
            .with_hint("DEALLOCATE those that are not needed"));
        }
        self.statements.insert(name.to_owned(), Arc::new(prepared));
        Ok(())
    }

    pub fn forget_prepared(&mut self, name: &str) -> bool {
        self.statements.remove(name).is_some()
    }

    /// What DECLARE opened as `name`.
    pub fn cursor(&self, name: &str) -> Result<&Arc<Cursor>> {
        self.cursors
            .get(name)
            .ok_or_else(|| SqlError::new(state::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist")))
    }

    /// The statement anew when definitions have changed since it was planned. 0A000 when its result would look different.
    pub async fn current(&self, prepared: &Arc<Prepared>) -> Result<Arc<Prepared>> {
        if prepared.version == self.shared.definitions.load(Ordering::SeqCst) || prepared.plan.is_none() {
            return Ok(Arc::clone(prepared));
        }
        let types = prepared.parameters.iter().copied().map(Some).collect();
        let fresh = self.prepare_shared(Arc::clone(&prepared.statement), types).await?;
        let shape = |prepared: &Prepared| -> Option<Vec<(String, PgType)>> {
            prepared.columns.as_ref().map(|columns| columns.iter().map(|c| (c.name.clone(), c.pg_type)).collect())
        };
        if shape(&fresh) != shape(prepared) {
            return Err(SqlError::unsupported("cached plan must not change result type")
                .with_hint("prepare the statement again"));
        }
        Ok(Arc::new(fresh))
    }

    /// Runs a planned query: its rows, which stop when the session is interrupted.
    fn start(&self, plan: &Plan, values: Vec<ScalarValue>) -> Result<(SchemaRef, Batches)> {
        let plan = self.query.bind(plan, values)?;
        Ok(self.stoppable(self.query.execute(&plan)?))
    }

    /// The same for what RETURNING asks of rows that are about to be written.
    fn start_returning(&self, plan: &Plan, values: Vec<ScalarValue>, rows: Vec<RecordBatch>) -> Result<Batches> {
        let plan = self.query.bind(plan, values)?;
        Ok(self.stoppable(self.query.execute_returning(&plan, rows)?).1)
    }

    fn stoppable(&self, stream: QueryStream) -> (SchemaRef, Batches) {
        let schema = Arc::clone(stream.schema());
        let entry = Arc::clone(self.entry());
        let batches = futures::stream::unfold((stream, entry, false), |(mut stream, entry, ended)| async move {
            if ended {
                return None;
            }
            let next = tokio::select! {
                biased;
                why = entry.interrupted() => {
                    stream.cancel_handle().cancel();
                    Some(Err(interrupted(why)))
                }
                next = stream.next() => next.map(|batch| batch.map_err(SqlError::from)),
            };
            next.map(|batch| {
                let ended = batch.is_err();
                (batch, (stream, entry, ended))
            })
        });
        (schema, Box::pin(batches))
    }

    /// Runs `work` until the session is interrupted or `statement_timeout` is over.
    async fn interruptible<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let timeout = self.query.settings().statement_timeout_ms();
        let deadline = async {
            match timeout {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            why = self.entry().interrupted() => Err(interrupted(why)),
            result = work => result,
            () = deadline => Err(SqlError::from(tidemill_query::SqlError::timed_out())),
        }
    }

    fn notice(&mut self, warning: bool, state: &'static str, message: impl Into<String>) {
        self.notices.push(Notice { warning, state, message: message.into() });
    }

    fn note_application_name(&self) {
        let name = self.query.settings().show("application_name").unwrap_or_default();
        self.entry().update(|activity| activity.application_name = name);
    }
}

/// What an interrupt is to the client.
pub fn interrupted(why: Interrupt) -> SqlError {
    match why {
        Interrupt::Cancel => SqlError::from(tidemill_query::SqlError::cancelled()),
        Interrupt::Terminate => {
            SqlError::new(state::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
        }
    }
}

fn columns(schema: &SchemaRef, origins: &[Option<ColumnOrigin>]) -> Arc<[Column]> {
    schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let origin = origins.get(index).and_then(Option::as_ref);
            Column {
                name: field.name().clone(),
                table_oid: origin.map_or(0, |origin| origin.table_oid),
                table_column: origin.map_or(0, |origin| origin.column),
                pg_type: PgType::of_field(field),
                modifier: if origin.is_some() { PgType::modifier(field) } else { -1 },
            }
        })
        .collect()
}

/// Columns of plain text.
fn text_columns(names: &[&str]) -> Arc<[Column]> {
    names
        .iter()
        .map(|name| Column {
            name: (*name).to_owned(),
            table_oid: 0,
            table_column: 0,
            pg_type: PgType::scalar(Scalar::Text),
            modifier: -1,
        })
        .collect()
}

/// Types that were given, as the planner has them.
fn arrow_types(types: &[Option<PgType>]) -> Vec<Option<DataType>> {
    types.iter().map(|given| given.map(|pg_type| pg_type.arrow())).collect()
}

fn parameter_types(plan: &Plan, given: &[Option<PgType>]) -> Vec<PgType> {
    let inferred = |field: &Field| PgType::of_field(field);
    let mut types: Vec<PgType> = plan
        .parameters()
        .iter()
        .enumerate()
        .map(|(index, field)| given.get(index).copied().flatten().unwrap_or_else(|| inferred(field)))
        .collect();
    // Types given for parameters that do not occur are kept: the client will send values for them.
    for given in given.iter().skip(types.len()) {
        types.push(given.unwrap_or(PgType::scalar(Scalar::Text)));
    }
    types
}

/// What of a statement is kept for views of what runs.
fn shortened(text: &str) -> &str {
    const BYTES_MAX: usize = 1024;
    if text.len() <= BYTES_MAX {
        return text;
    }
    let end = (0..=BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
