//! Files: bounded sources whose partitions are files and whose offsets are records.
//!
//! | format | record | comes as |
//! |---|---|---|
//! | ndjson, debezium-json | line | message, decoded like a topic's |
//! | csv | record, which quotes may spread over lines; a header is none | message |
//! | parquet, avro container | row | rows, cast to the source's columns |
//!
//! Text files may be packed: `.gz` and `.zst` are unpacked on the way. All files are read through `object_store`, in ranges.
//!
//! The files of a directory or pattern are listed once, when the source is made ([`settle`]), so that a partition stays the same file. Each
//! partition ends with [`Fetched::End`]. Files are expected not to change.

mod cast;
mod object;
mod options;
mod records;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidemill_storage::ids::{SourceId, StreamId, TableId};

pub(super) use self::options::settle;
pub use self::options::{FileFormat, FileOptions};
use self::{
    records::{Dialect, Records},
    rows::RowFile,
};
use super::{ConnectContext, Connector, Fetched, Reader, Start, Watermarks};
use crate::{
    Error, Result,
    decode::{Format, SourceColumn},
    message::{Message, MessageBatch, SourceBatch},
};

/// A connector for the files that are there now. Reads the header of CSV files into `format`.
pub(super) fn connect(
    options: &FileOptions,
    context: &ConnectContext,
    format: &mut Option<Format>,
) -> Result<Arc<dyn Connector>> {
    let files = options.list()?;
    let mut dialect = Dialect { quoting: None, header: None };
    if let Some(Format::Csv { options: csv, .. }) = format {
        dialect.quoting = Some((csv.delimiter, csv.quote));
        if options.header {
            let header = records::header(&files[0], csv.delimiter, csv.quote)?;
            csv.header.get_or_insert_with(|| header.clone());
            dialect.header = Some(header);
        }
    }
    Ok(Arc::new(FileConnector {
        shared: Arc::new(Shared {
            files,
            format: options.format,
            dialect,
            columns: context.columns.clone(),
            source: context.source,
        }),
        counts: Mutex::default(),
    }))
}

#[derive(Debug)]
struct Shared {
    /// One per partition.
    files: Vec<PathBuf>,
    format: FileFormat,
    dialect: Dialect,
    columns: Vec<SourceColumn>,
    source: SourceId,
}

impl Shared {
    fn path(&self, partition: u32) -> Result<&Path> {
        self.files.get(partition as usize).map(PathBuf::as_path).ok_or_else(|| Error::Definition {
            message: format!("the source has {} files; there is no partition {partition}", self.files.len()),
            hint: None,
        })
    }

    fn open(&self, partition: u32, offset: u64) -> Result<OpenFile> {
        let path = self.path(partition)?;
        Ok(match self.format {
            FileFormat::Ndjson | FileFormat::DebeziumJson | FileFormat::Csv => {
                OpenFile::Records(Records::open(path, &self.dialect, offset)?)
            }
            FileFormat::Parquet => OpenFile::Rows(RowFile::parquet(path, &self.columns, offset)?),
            FileFormat::Avro => OpenFile::Rows(RowFile::avro(path, &self.columns, offset)?),
        })
    }

    fn count(&self, partition: u32) -> Result<u64> {
        let path = self.path(partition)?;
        match self.format {
            FileFormat::Ndjson | FileFormat::DebeziumJson | FileFormat::Csv => {
                Records::open(path, &self.dialect, 0)?.count()
            }
            FileFormat::Parquet => rows::parquet_rows(path),
            FileFormat::Avro => RowFile::avro(path, &self.columns, 0)?.count(),
        }
    }
}

#[derive(Debug)]
struct FileConnector {
    shared: Arc<Shared>,
    /// Records of the files that were counted.
    counts: Mutex<BTreeMap<u32, u64>>,
}

impl Connector for FileConnector {
    fn partitions(&self) -> Result<Vec<u32>> {
        Ok((0..self.shared.files.len() as u32).collect())
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let offset = |partition: u32| match start {
            Start::Earliest => Ok(0),
            Start::Latest => Ok(self.watermarks(partition)?.high),
            Start::Offsets(offsets) => Ok(offsets.get(&partition).copied().unwrap_or(0)),
            Start::TimestampMs(_) | Start::Committed => Err(Error::Definition {
                message: format!("a file source cannot start at {start}"),
                hint: Some("it takes earliest, latest or offsets:{file:record, …}".into()),
            }),
        };
        partitions.iter().map(|partition| Ok((*partition, offset(*partition)?))).collect()
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        if let Some(count) = self.counts.lock().get(&partition) {
            return Ok(Watermarks { low: 0, high: *count });
        }
        let count = self.shared.count(partition)?;
        self.counts.lock().insert(partition, count);
        Ok(Watermarks { low: 0, high: count })
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        let lanes =
            positions.iter().map(|(partition, offset)| Lane { partition: *partition, next: *offset, file: None });
        Ok(Box::new(FileReader { shared: Arc::clone(&self.shared), lanes: lanes.collect() }))
    }

    fn committed(&self, _table: TableId, _positions: &BTreeMap<u32, u64>) {}
}

struct FileReader {
    shared: Arc<Shared>,
    /// Files that are not read to their end, in the order in which they are read.
    lanes: Vec<Lane>,
}

struct Lane {
    partition: u32,
    next: u64,
    /// Open from the first poll on.
    file: Option<OpenFile>,
}

enum OpenFile {
    Records(Records),
    Rows(RowFile),
}

impl Reader for FileReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        let Some(lane) = self.lanes.first_mut() else {
            // Nothing more will come, which must not make the caller spin.
            parking_lot::Condvar::new().wait_for(&mut Mutex::new(()).lock(), timeout);
            return Ok(Vec::new());
        };
        let file = match &mut lane.file {
            Some(file) => file,
            None => lane.file.insert(self.shared.open(lane.partition, lane.next)?),
        };
        let (partition, from) = (lane.partition, lane.next);
        let fetched = match file {
            OpenFile::Records(records) => {
                let (mut payloads, mut messages) = (Vec::new(), Vec::new());
                let to = records.read(max_messages.max(1), max_bytes.max(1), |offset, record| {
                    let start = payloads.len() as u32;
                    payloads.extend_from_slice(record);
                    let payload = start..payloads.len() as u32;
                    messages.push(Message { payload, is_null: false, offset, timestamp_ms: -1 });
                });
                to.map(|to| {
                    let batch = MessageBatch { partition, payloads: payloads.into(), messages, from, to };
                    (to, Fetched::Messages(batch))
                })
            }
            OpenFile::Rows(rows) => rows.read(from, max_messages.max(1)).map(|(rows, row_offsets, rejects, to)| {
                let stream = StreamId { source: self.shared.source, partition };
                let batch =
                    SourceBatch { stream, rows, row_offsets, from, to, newest_timestamp_ms: -1, rejects, origin: None };
                (to, Fetched::Rows(batch))
            }),
        };
        match fetched {
            Ok((to, batch)) if to > from => {
                lane.next = to;
                Ok(vec![batch])
            }
            Ok(_) => {
                self.lanes.remove(0);
                Ok(vec![Fetched::End { partition }])
            }
            Err(error) => {
                // What was read of this batch is lost with it: begin again where it began.
                lane.file = None;
                Err(error)
            }
        }
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.add(partition, offset)
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.shared.path(partition)?;
        self.lanes.retain(|lane| lane.partition != partition);
        self.lanes.push(Lane { partition, next: offset, file: None });
        Ok(())
    }
}

/// What could not be done with a file, for the user.
fn unreadable(action: &str, path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("{action} {}: {error}", path.display()))
}

/// A file that will not become better by itself.
fn unfit(path: &Path, reason: impl std::fmt::Display, hint: Option<&str>) -> Error {
    Error::Definition { message: format!("file {}: {reason}", path.display()), hint: hint.map(str::to_owned) }
}
