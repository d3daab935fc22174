//! Which queries run and which ran last: for `rt.queries`, `rt.query_log` and `pg_cancel_backend`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tidemill_storage::clock::Clock;

use crate::{SqlError, stream::CancelHandle};

/// How a query stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryState {
    Running,
    Finished,
    /// Ended by [`CancelHandle::cancel`], the deadline, or the client going away.
    Cancelled,
    Failed,
}

impl QueryState {
    /// As `rt.queries.state` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// One query, running or ended.
#[derive(Clone, Debug)]
pub struct QueryRecord {
    pub id: u64,
    /// The backend (connection) that runs it.
    pub pid: i32,
    pub user: String,
    pub sql: Arc<str>,
    /// Microseconds since 1970.
    pub started_us: i64,
    /// How long it ran, or has run till now.
    pub elapsed_us: i64,
    /// Rows handed to the client.
    pub rows: u64,
    pub state: QueryState,
    /// SQLSTATE and message where it failed.
    pub error: Option<(&'static str, String)>,
}

#[derive(Debug)]
struct Running {
    pid: i32,
    user: String,
    sql: Arc<str>,
    started_us: i64,
    started_monotonic_us: i64,
    rows: Arc<AtomicU64>,
    cancel: CancelHandle,
}

/// All queries of one engine. The log of ended ones is a ring.
#[derive(Debug)]
pub struct QueryRegistry {
    clock: Arc<dyn Clock>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
    log: Mutex<VecDeque<QueryRecord>>,
    log_max: usize,
    works: Arc<AtomicUsize>,
}

impl QueryRegistry {
    pub(crate) fn new(clock: Arc<dyn Clock>, log_max: usize) -> Self {
        Self {
            clock,
            next: AtomicU64::new(1),
            running: Mutex::default(),
            log: Mutex::default(),
            log_max,
            works: Arc::default(),
        }
    }

    pub(crate) fn begin(self: &Arc<Self>, pid: i32, user: &str, sql: Arc<str>, cancel: CancelHandle) -> QueryTicket {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let rows = Arc::new(AtomicU64::new(0));
        self.running.lock().insert(
            id,
            Running {
                pid,
                user: user.to_owned(),
                sql,
                started_us: self.clock.now_us(),
                started_monotonic_us: self.clock.monotonic_us(),
                rows: Arc::clone(&rows),
                cancel,
            },
        );
        QueryTicket { registry: Arc::clone(self), id, rows, ended: false }
    }

    /// The queries that run now, oldest first.
    pub fn running(&self) -> Vec<QueryRecord> {
        let now = self.clock.monotonic_us();
        self.running.lock().iter().map(|(id, running)| running.record(*id, now, QueryState::Running, None)).collect()
    }

    /// Queries that have tasks, operators or memory. An ended query is gone from [`QueryRegistry::running`] at once, and from here when
    /// nothing of it can use a CPU any more.
    pub fn at_work(&self) -> usize {
        self.works.load(Ordering::SeqCst)
    }

    pub(crate) fn works(&self) -> &Arc<AtomicUsize> {
        &self.works
    }

    /// The queries that ended last, oldest first.
    pub fn log(&self) -> Vec<QueryRecord> {
        self.log.lock().iter().cloned().collect()
    }

    /// Cancels what the backend `pid` runs. False when it runs nothing.
    pub fn cancel_backend(&self, pid: i32) -> bool {
        let mut found = false;
        for running in self.running.lock().values().filter(|running| running.pid == pid) {
            running.cancel.cancel();
            found = true;
        }
        found
    }

    fn end(&self, id: u64, state: QueryState, error: Option<&SqlError>) {
        let now = self.clock.monotonic_us();
        let Some(running) = self.running.lock().remove(&id) else { return };
        let record = running.record(id, now, state, error.map(|error| (error.sqlstate, error.message.clone())));
        metrics::counter!("tidemill_queries_total", "state" => state.name()).increment(1);
        metrics::histogram!("tidemill_query_seconds").record(record.elapsed_us as f64 / 1e6);
        let mut log = self.log.lock();
        while log.len() >= self.log_max.max(1) {
            log.pop_front();
        }
        log.push_back(record);
    }
}

impl Running {
    fn record(&self, id: u64, now: i64, state: QueryState, error: Option<(&'static str, String)>) -> QueryRecord {
        QueryRecord {
            id,
            pid: self.pid,
            user: self.user.clone(),
            sql: Arc::clone(&self.sql),
            started_us: self.started_us,
            elapsed_us: now.saturating_sub(self.started_monotonic_us),
            rows: self.rows.load(Ordering::Relaxed),
            state,
            error,
        }
    }
}

/// A query's place in the registry; dropping it without an end means that the client went away.
#[derive(Debug)]
pub(crate) struct QueryTicket {
    registry: Arc<QueryRegistry>,
    id: u64,
    rows: Arc<AtomicU64>,
    ended: bool,
}

impl QueryTicket {
    pub(crate) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn finish(&mut self) {
        self.end(QueryState::Finished, None);
    }

    pub(crate) fn fail(&mut self, error: &SqlError) {
        let state = if error.sqlstate == "57014" { QueryState::Cancelled } else { QueryState::Failed };
        self.end(state, Some(error));
    }

    fn end(&mut self, state: QueryState, error: Option<&SqlError>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.registry.end(self.id, state, error);
        }
    }
}

impl Drop for QueryTicket {
    fn drop(&mut self) {
        self.end(QueryState::Cancelled, None);
    }
}
