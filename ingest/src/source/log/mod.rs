//! The embedded durable log behind INSERT, COPY FROM STDIN and HTTP push.

use std::{ops::Range, path::PathBuf, sync::Arc};

use arrow::array::RecordBatch;
use tidemill_storage::{ids::SourceId, schema::TableSchema};

use super::Connector;
use crate::{Error, Result};

/// Sizes of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A file that has grown to this many bytes is followed by a new one.
    pub file_bytes: u64,
    /// Bytes that may wait for their turn to be written; more makes callers wait.
    pub pending_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { file_bytes: 64 << 20, pending_bytes_max: 64 << 20 }
    }
}

/// One table's log: one partition (0), whose offsets are row numbers.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
}

impl Log {
    /// Opens the log in `directory`, making both when they are not there, and cuts what a crash left half written. Rows are read in `schema`
    /// until [`Log::set_schema`]. Fails on a damaged file, naming file and position.
    pub fn open(directory: impl Into<PathBuf>, _options: LogOptions, _schema: Arc<TableSchema>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { directory: directory.into() }))
    }

    /// Appends all rows of `batches` (the columns of `schema`, in order) or none, and returns their offsets after they are synced to disk.
    /// Blocks; many callers share one sync. After a failed sync every later call fails, until the log is opened anew.
    pub fn append(&self, _schema: &TableSchema, _batches: &[RecordBatch]) -> Result<Range<u64>> {
        Err(Error::Unavailable(format!("the log in {:?} is being built", self.directory)))
    }

    /// The offset after the last durable row.
    pub fn end(&self) -> u64 {
        0
    }

    /// From now on readers bring rows in `schema`. A frame that was written under a later version than the readers' schema
    /// waits until this call, so that no value is lost for a column the reader does not know yet.
    pub fn set_schema(&self, _schema: Arc<TableSchema>) {}

    /// The log as a source.
    pub fn connector(self: &Arc<Self>, _source: SourceId) -> Arc<dyn Connector> {
        unimplemented!("the log's connector is being built")
    }
}
