//! Who is connected, what each one runs, and how to stop it.
//!
//! Every session has an [`Entry`] with a process id of its own (never 0) and a secret. A cancel request, `pg_cancel_backend`,
//! `statement_timeout` and a closed socket all end in [`Entry::interrupt`]; whoever drives the statement waits on
//! [`Entry::interrupted`] beside its work and drops the work when that returns.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::error::{Result, SqlError, state};

/// Why a statement or a whole session must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The running statement, if any: a cancel request.
    Cancel,
    /// The session: `pg_terminate_backend` or a shutdown.
    Terminate,
}

/// One connected session.
#[derive(Debug)]
pub struct Entry {
    pub pid: i32,
    pub secret: i32,
    pub user: String,
    pub database: String,
    /// "127.0.0.1:4711", empty for sessions without a socket.
    pub client: String,
    pub connected_us: i64,
    activity: Mutex<Activity>,
    cancel: AtomicBool,
    terminate: AtomicBool,
    notify: Notify,
}

/// What a session does now, for `pg_stat_activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    pub application_name: String,
    /// The statement that runs, or ran last.
    pub query: String,
    pub running: bool,
    pub in_transaction: bool,
    pub query_started_us: i64,
    pub state_changed_us: i64,
}

impl Entry {
    pub fn activity(&self) -> Activity {
        self.activity.lock().clone()
    }

    pub fn update(&self, change: impl FnOnce(&mut Activity)) {
        change(&mut self.activity.lock());
    }

    pub fn interrupt(&self, why: Interrupt) {
        match why {
            Interrupt::Cancel => self.cancel.store(true, Ordering::SeqCst),
            Interrupt::Terminate => self.terminate.store(true, Ordering::SeqCst),
        }
        self.notify.notify_waiters();
    }

    /// Forgets a cancel that came while nothing ran: it must not hit the next statement.
    pub fn begin_statement(&self) {
        self.cancel.store(false, Ordering::SeqCst);
    }

    /// What is asked for and not yet done.
    pub fn pending(&self) -> Option<Interrupt> {
        if self.terminate.load(Ordering::SeqCst) {
            Some(Interrupt::Terminate)
        } else if self.cancel.load(Ordering::SeqCst) {
            Some(Interrupt::Cancel)
        } else {
            None
        }
    }

    /// Returns when the statement must stop.
    pub async fn interrupted(&self) -> Interrupt {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            // Registered before the flags are read, so that no interrupt falls between the two.
            notified.as_mut().enable();
            if let Some(why) = self.pending() {
                return why;
            }
            notified.await;
        }
    }

    /// Returns when the session must end.
    pub async fn terminated(&self) {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.terminate.load(Ordering::SeqCst) {
                return;
            }
            notified.await;
        }
    }
}

/// All sessions of this server.
#[derive(Debug)]
pub struct Registry {
    sessions_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_pid: i32,
    sessions: BTreeMap<i32, Arc<Entry>>,
}

/// Takes the session off the registry when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
}

impl Registered {
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.inner.lock().sessions.remove(&self.entry.pid);
    }
}

impl Registry {
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions_max, inner: Mutex::default() }
    }

    /// Registers a session. 53300 when `max_connections` are there already.
    pub fn register(
        self: &Arc<Self>,
        user: &str,
        database: &str,
        client: &str,
        secret: i32,
        now_us: i64,
    ) -> Result<Registered> {
        let mut inner = self.inner.lock();
        if inner.sessions.len() >= self.sessions_max {
            return Err(SqlError::new(state::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .with_detail(format!("max_connections is {}", self.sessions_max))
                .with_hint("close connections that are not needed, or raise max_connections in the configuration"));
        }
        let mut pid = inner.last_pid;
        loop {
            pid = if pid == i32::MAX { 1 } else { pid + 1 };
            if !inner.sessions.contains_key(&pid) {
                break;
            }
        }
        inner.last_pid = pid;
        let entry = Arc::new(Entry {
            pid,
            secret,
            user: user.to_owned(),
            database: database.to_owned(),
            client: client.to_owned(),
            connected_us: now_us,
            activity: Mutex::new(Activity { state_changed_us: now_us, ..Activity::default() }),
            cancel: AtomicBool::new(false),
            terminate: AtomicBool::new(false),
            notify: Notify::new(),
        });
        inner.sessions.insert(pid, Arc::clone(&entry));
        Ok(Registered { registry: Arc::clone(self), entry })
    }

    pub fn sessions(&self) -> Vec<Arc<Entry>> {
        self.inner.lock().sessions.values().cloned().collect()
    }

    pub fn sessions_max(&self) -> usize {
        self.sessions_max
    }

    /// Interrupts session `pid`; false when there is none.
    pub fn interrupt(&self, pid: i32, why: Interrupt) -> bool {
        let entry = self.inner.lock().sessions.get(&pid).cloned();
        entry.is_some_and(|entry| {
            entry.interrupt(why);
            true
        })
    }

    /// A cancel request as it comes over the wire: does nothing unless the secret is right.
    pub fn cancel(&self, pid: i32, secret: i32) {
        let entry = self.inner.lock().sessions.get(&pid).cloned();
        if let Some(entry) = entry.filter(|entry| entry.secret == secret) {
            entry.interrupt(Interrupt::Cancel);
        }
    }
}
