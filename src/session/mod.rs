//! A connected user's session, whatever protocol it came by: variables, transaction state, prepared statements, cursors, and the
//! execution of any statement.
//!
//! ```text
//! text ─ split ─► statements ─ prepare ─► Prepared ─ bind ─► execute ─► Response
//!                                                            ├ SELECT, EXPLAIN            query::Session ─► batches
//!                                                            ├ SET, BEGIN, FETCH, …       here
//!                                                            ├ CREATE, ALTER, DROP        Backend::execute_ddl
//!                                                            └ INSERT, COPY … FROM        Backend::append
//! ```
//!
//! What always holds: results are streams, never collected; a statement stops when its [`registry::Entry`] is interrupted; after an
//! error inside BEGIN nothing but ROLLBACK runs.

pub mod backend;
pub mod error;
pub mod registry;

use std::{pin::Pin, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::Stream;
use tidemill_storage::clock::Clock;

pub use backend::{Backend, DdlOutcome, WriteTarget};
pub use error::{Result, SqlError, state};
pub use registry::Registry;

/// What all sessions of a server share.
#[derive(Debug)]
pub struct Shared {
    pub backend: Arc<dyn Backend>,
    pub registry: Arc<Registry>,
    pub clock: Arc<dyn Clock>,
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

/// What a statement gives.
pub enum Response {
    /// Rows; the tag is "SELECT n" with the count at the end of the stream.
    Rows { schema: SchemaRef, batches: Batches },
    /// Done, with its tag: "SET", "CREATE TABLE", "INSERT 0 3".
    Command(String),
    /// Nothing but blanks and comments.
    Empty,
}

/// One user's session.
pub struct Session {
    shared: Arc<Shared>,
}

impl Session {
    /// 53300 when there are too many, 42704 or 22023 for a wrong setting.
    pub fn open(shared: &Arc<Shared>, startup: &Startup) -> Result<Self> {
        let _ = startup;
        Ok(Self { shared: Arc::clone(shared) })
    }

    /// Runs the one statement of `sql`.
    pub async fn execute(&mut self, sql: &str) -> Result<Response> {
        let _ = (&self.shared, sql);
        Err(SqlError::unsupported("statements are not executed yet"))
    }
}
