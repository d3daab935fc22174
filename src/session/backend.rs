//! What a session asks of the server: definitions and writes. The server implements it; tests have one in memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidemill_ingest::consumer::{Erased, RowChange};
use tidemill_storage::{ids::TableId, scan::Addresses, schema::TableSchema};

use super::error::{Result, SqlError};
use crate::catalog::certificates::CertifiedObject;

/// A table that takes INSERT and COPY.
#[derive(Clone, Debug)]
pub struct WriteTarget {
    pub id: TableId,
    pub name: String,
    pub schema: Arc<TableSchema>,
}

/// As long as it is there, no other statement changes rows of its table.
pub type Turn = Box<dyn std::any::Any + Send + Sync>;

/// The columns of ALTER SUBJECT … PROPOSE.
pub const VERDICT_COLUMNS: [&str; 4] = ["object", "kind", "verdict", "reason"];

/// What a definition statement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdlOutcome {
    /// "CREATE TABLE"
    pub tag: String,
    /// Said to the client as notices: `relation "t" does not exist, skipping`.
    pub notices: Vec<String>,
    /// What EXPLAIN shows.
    pub lines: Vec<String>,
    /// What PROPOSE shows, as [`VERDICT_COLUMNS`].
    pub verdicts: Vec<[String; 4]>,
}

#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Runs one statement of our own DDL (CREATE, ALTER, DROP of sources, tables, …); durable at return. Positions of errors are in `sql`.
    async fn execute_ddl(&self, sql: &str) -> Result<DdlOutcome>;

    /// The table INSERT and COPY name. 42P01 when there is none, 42809 when it takes no rows that way (a source, a view).
    fn write_target(&self, name: &str) -> Result<WriteTarget>;

    /// Whether one of the names is that of a source: an INSERT that reads it begins a pipeline.
    fn reads_source(&self, relations: &[String]) -> bool {
        let _ = relations;
        false
    }

    /// Appends rows (the columns of `target.schema`, in order, in its Arrow types; the table's may have changed since) through the table's log source. At return they are
    /// durable (fsynced) and visible to every snapshot taken from now on. All batches become visible or, on an error, none is promised.
    async fn append(&self, target: &WriteTarget, rows: Vec<RecordBatch>) -> Result<()>;

    /// Waits until no other statement changes rows of the table: to be held from before they are read until [`Backend::change`] is over.
    async fn turn(&self, target: &WriteTarget) -> Result<Turn>;

    /// Waits until no rows are on their way into the table; as long as it is held, none come but by dead letters that are replayed.
    async fn still(&self, target: &WriteTarget) -> Result<Turn>;

    /// Commits the rows that are in memory now. Only then they have addresses.
    async fn seal(&self, target: &WriteTarget) -> Result<()>;

    /// All tables that can be written to, by name.
    fn write_targets(&self) -> Vec<WriteTarget> {
        Vec::new()
    }

    /// Whether files of a table have a column of the name that was dropped.
    fn had_column(&self, target: &WriteTarget, column: &str) -> bool {
        let _ = (target, column);
        false
    }

    /// Whether a source has such a column.
    fn source_has_column(&self, column: &str) -> bool {
        let _ = column;
        false
    }

    /// Takes rows out of the files that nobody sees any more, all that statements deleted, and what is left of a dropped column of the name.
    async fn erase(&self, target: &WriteTarget, rows: Addresses, column: &str) -> Result<Erased> {
        let _ = (target, rows, column);
        Err(SqlError::unsupported("rows cannot be erased here"))
    }

    /// Takes the dead letters of a table away that have the value where the name of the column is; how many.
    async fn erase_letters(&self, target: &WriteTarget, column: &str, value: &str) -> Result<u64> {
        let _ = (target, column, value);
        Ok(0)
    }

    /// Keeps for ever what was forgotten, with what else there is that was not looked through; the number of the certificate.
    async fn certify(&self, column: &str, value: &str, objects: Vec<CertifiedObject>) -> Result<u64> {
        let _ = (column, value, objects);
        Err(SqlError::unsupported("nothing can be certified here"))
    }

    /// Takes rows away and puts others in their places; durable and visible at return, all of it or nothing. 40001 when the table's columns are others
    /// by now, or in a table that
    /// merges rows when some of these got newer versions meanwhile.
    async fn change(&self, target: &WriteTarget, change: RowChange) -> Result<()>;
}
