//! The one file that everything durable and small lives in: definitions, committed segments, offsets.
//!
//! ```text
//! <data directory>/metadata.redb
//!   meta   name → number                       format version, last log version, the server
//!   log    version → JSON {at_us, kind, body}   every change that was ever made, in order, never edited
//!   …      the state that the log adds up to, in tables of the modules that own it
//! ```
//!
//! What always holds: a change of state and its log records are one transaction; versions have no gaps; when [`Database::write`]
//! returns, the change survives a power loss. A transaction that fails changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use tidemill_storage::clock::Clock;

/// What this build reads and writes. A file of another format is refused, never guessed at.
const FORMAT: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// Pages that redb keeps in memory, in bytes.
const CACHE_BYTES: usize = 16 << 20;

pub type Result<T, E = DatabaseError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("metadata file {path:?} has format {found}; this version of tidemill reads format {FORMAT}")]
    Format { path: PathBuf, found: u64 },
    #[error("metadata file: {0}")]
    Redb(Box<redb::Error>),
    #[error("metadata record: {0}")]
    Json(#[from] serde_json::Error),
    /// The change does not fit the present state; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for DatabaseError {
            fn from(error: $error) -> Self {
                Self::Redb(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// One entry of the log, as it is kept for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    pub at_us: i64,
    /// What kind of change: "segment.commit", "table.create" and so on. A kind keeps its meaning for ever.
    pub kind: String,
    pub body: serde_json::Value,
}

/// A handle on the metadata file. Shared by all that keep state in it; one writer at a time, readers never wait.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// `None` only after a reopening failed; the next call tries again.
    inner: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file, or makes it. Fails when another process has it open or when its format is another one.
    pub fn open(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let path = path.into();
        let inner = open_file(&path)?;
        let database = Self { path, clock, inner: RwLock::new(Some(inner)) };
        database.check_format()?;
        Ok(Arc::new(database))
    }

    /// Reads one consistent state.
    pub fn read<T>(&self, body: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        let inner = self.opened()?;
        let transaction = inner.begin_read()?;
        body(&transaction)
    }

    /// Makes one change, all of it or nothing. On an error of `body` or of the disk nothing is changed; after an error of the disk
    /// *during* the commit the outcome is unknown until the next read.
    pub fn write<T>(&self, body: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let result = {
            let inner = self.opened()?;
            self.write_in(&inner, body)
        };
        if let Err(DatabaseError::Redb(error)) = &result {
            tracing::warn!(%error, path = ?self.path, "the metadata file refused a write; it is opened anew");
            // redb refuses everything after an I/O error until the file is opened again, which also settles what was committed.
            *self.inner.write() = None;
        }
        result
    }

    /// The number of the last record of the log; 0 when it is empty.
    pub fn version(&self) -> Result<u64> {
        self.read(|transaction| Ok(transaction.open_table(META)?.get("version")?.map_or(0, |value| value.value())))
    }

    /// The records from version `from` on, at most `limit`.
    pub fn log(&self, from: u64, limit: usize) -> Result<Vec<(u64, LogRecord)>> {
        self.read(|transaction| {
            let log = transaction.open_table(LOG)?;
            let mut records = Vec::new();
            for entry in log.range(from..)?.take(limit) {
                let (version, record) = entry?;
                records.push((version.value(), serde_json::from_slice(record.value())?));
            }
            Ok(records)
        })
    }

    /// What no other server is called: a number that was drawn when the file was made.
    pub fn server(&self) -> Result<u64> {
        self.write(|change| {
            let mut meta = change.transaction.open_table(META)?;
            if let Some(known) = meta.get("server")? {
                return Ok(known.value());
            }
            let drawn = rand::random();
            meta.insert("server", drawn)?;
            Ok(drawn)
        })
    }

    fn write_in<T>(&self, inner: &redb::Database, body: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        let mut transaction = inner.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut change = Change { transaction: &transaction, at_us: self.clock.now_us() };
        let value = body(&mut change)?;
        transaction.commit()?;
        Ok(value)
    }

    /// The open file; opened anew where an earlier error closed it.
    fn opened(&self) -> Result<MappedRwLockReadGuard<'_, redb::Database>> {
        if let Ok(inner) = RwLockReadGuard::try_map(self.inner.read(), Option::as_ref) {
            return Ok(inner);
        }
        let mut inner = self.inner.write();
        if inner.is_none() {
            *inner = Some(open_file(&self.path)?);
        }
        let inner = RwLockWriteGuard::downgrade(inner);
        Ok(RwLockReadGuard::map(inner, |inner| {
            inner.as_ref().expect("invariant: it was set above, under the same lock")
        }))
    }

    fn check_format(&self) -> Result<()> {
        self.write(|change| {
            let mut meta = change.transaction.open_table(META)?;
            let found = meta.get("format")?.map(|value| value.value());
            match found {
                Some(FORMAT) => {}
                Some(found) => return Err(DatabaseError::Format { path: self.path.clone(), found }),
                None => {
                    meta.insert("format", FORMAT)?;
                    meta.insert("version", 0)?;
                }
            }
            change.transaction.open_table(LOG)?;
            Ok(())
        })
    }
}

fn open_file(path: &Path) -> Result<redb::Database> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    Ok(builder.create(path)?)
}

/// A change in the making. Open tables with [`Change::transaction`]; name what is changed with [`Change::record`].
pub struct Change<'a> {
    transaction: &'a WriteTransaction,
    at_us: i64,
}

impl<'a> Change<'a> {
    pub fn transaction(&self) -> &'a WriteTransaction {
        self.transaction
    }

    /// Appends a record to the log and returns its version.
    pub fn record(&mut self, kind: &str, body: &impl Serialize) -> Result<u64> {
        let record = LogRecord { at_us: self.at_us, kind: kind.into(), body: serde_json::to_value(body)? };
        let mut meta = self.transaction.open_table(META)?;
        let version = meta.get("version")?.map_or(0, |value| value.value()) + 1;
        meta.insert("version", version)?;
        self.transaction.open_table(LOG)?.insert(version, serde_json::to_vec(&record)?.as_slice())?;
        Ok(version)
    }
}
