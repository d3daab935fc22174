//! The embedded durable log behind INSERT, COPY FROM STDIN and HTTP push: what a topic is for other sources.
//!
//! ```text
//! append ─ encode ─► queue ─ first caller writes for all, one sync ─► file ─► readers, woken
//! <directory>/00000000000000000000.log, 00000000000000081920.log, …      named after their first offset, the last one grows
//! ```
//!
//! One append is one frame (bytes in `ingest/README.md`), all there or not at all; offsets are row numbers. What always holds: a reader
//! sees only what is synced; the offsets of the files follow each other without a hole; after a sync that failed nothing is
//! written any more, since nobody knows what is on disk; files go only when everything in them is committed, oldest first.

mod file;
mod frame;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    ids::{SourceId, TableId},
    schema::TableSchema,
};

use self::{file::LogFile, frame::Draft, reader::LogReader};
use super::{Connector, Reader, Start, Watermarks};
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
    options: LogOptions,
    queue: Mutex<Queue>,
    /// A group was written: outcomes are there, and room.
    turn: Condvar,
    /// Held by the caller that writes for all.
    writer: Mutex<Writer>,
    published: Mutex<Published>,
    /// `published` changed.
    news: Condvar,
}

/// Appends that wait for the one that is being written.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Ticket>,
    /// Bytes of the waiting ones and of those being written.
    bytes: usize,
    next_ticket: u64,
    writing: bool,
    outcomes: BTreeMap<u64, Result<Range<u64>>>,
}

#[derive(Debug)]
struct Ticket {
    id: u64,
    draft: Draft,
}

#[derive(Debug)]
struct Writer {
    file: File,
    log: LogFile,
    /// Bytes of the file that are on disk.
    synced: u64,
    /// Why nothing can be written any more.
    failed: Option<Error>,
}

/// What readers may see.
#[derive(Debug)]
struct Published {
    /// Oldest first; never empty.
    files: VecDeque<LogFile>,
    schema: Arc<TableSchema>,
}

impl Published {
    fn low(&self) -> u64 {
        self.files.front().map_or(0, |file| file.first)
    }

    fn end(&self) -> u64 {
        self.files.back().map_or(0, |file| file.end)
    }
}

impl Log {
    /// Opens the log in `directory`, making both when they are not there, and cuts what a crash left half written. Rows are read in `schema`
    /// until [`Log::set_schema`]. Fails on a damaged file, naming file and position.
    pub fn open(directory: impl Into<PathBuf>, options: LogOptions, schema: Arc<TableSchema>) -> Result<Arc<Self>> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|error| tidemill_storage::Error::io("creating log directory", &directory, &error))?;
        let mut files: VecDeque<LogFile> = file::recover(&directory)?.into();
        if files.is_empty() {
            files.push_back(file::create(&directory, 0)?.0);
        }
        let last = files[files.len() - 1].clone();
        let opened = OpenOptions::new().read(true).write(true).open(&last.path);
        let opened = opened.map_err(|error| tidemill_storage::Error::io("opening log file", &last.path, &error))?;
        Ok(Arc::new(Self {
            directory,
            options,
            queue: Mutex::default(),
            turn: Condvar::new(),
            writer: Mutex::new(Writer { file: opened, synced: last.bytes, log: last, failed: None }),
            published: Mutex::new(Published { files, schema }),
            news: Condvar::new(),
        }))
    }

    /// As [`Log::open`], after all rows from offset `end` on were taken away. Fails when rows before it are missing.
    pub fn open_at(
        directory: impl Into<PathBuf>,
        options: LogOptions,
        schema: Arc<TableSchema>,
        end: u64,
    ) -> Result<Arc<Self>> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)
            .map_err(|error| tidemill_storage::Error::io("creating log directory", &directory, &error))?;
        file::cut(&directory, end)?;
        Self::open(directory, options, schema)
    }

    /// Appends all rows of `batches` (the columns of `schema`, in order) or none, and returns their offsets after they are synced to disk.
    /// Blocks; many callers share one sync. A full disk gives an error and can be tried again; after a failed sync every
    /// later call fails, until the log is opened anew, and the rows of the failed call may or may not be there then.
    pub fn append(&self, schema: &TableSchema, batches: &[RecordBatch]) -> Result<Range<u64>> {
        let draft = Draft::encode(schema, batches)?;
        if draft.rows == 0 {
            let end = self.end();
            return Ok(end..end);
        }
        let bytes = draft.len();
        let mut queue = self.queue.lock();
        while queue.bytes > 0 && queue.bytes + bytes > self.options.pending_bytes_max {
            self.turn.wait(&mut queue);
        }
        let id = queue.next_ticket;
        queue.next_ticket += 1;
        queue.bytes += bytes;
        queue.waiting.push_back(Ticket { id, draft });
        loop {
            if let Some(outcome) = queue.outcomes.remove(&id) {
                return outcome;
            }
            if queue.writing {
                self.turn.wait(&mut queue);
                continue;
            }
            queue.writing = true;
            let mut group: Vec<Ticket> = queue.waiting.drain(..).collect();
            drop(queue);
            let written = self.write(&mut group);
            queue = self.queue.lock();
            queue.writing = false;
            match written {
                Ok(first) => {
                    let mut at = first;
                    for ticket in &group {
                        let end = at + u64::from(ticket.draft.rows);
                        queue.outcomes.insert(ticket.id, Ok(at..end));
                        at = end;
                    }
                }
                Err(error) => queue.outcomes.extend(group.iter().map(|ticket| (ticket.id, Err(error.clone())))),
            }
            queue.bytes -= group.iter().map(|ticket| ticket.draft.len()).sum::<usize>();
            self.turn.notify_all();
        }
    }

    /// Appends rows that readers see at once and that are on disk after the next [`Log::sync`] only: whoever commits them waits for that. All of them, or on
    /// an error none. For logs whose rows can be derived again.
    pub fn publish(&self, schema: &TableSchema, batches: &[RecordBatch]) -> Result<u64> {
        let mut draft = Draft::encode(schema, batches)?;
        let mut writer = self.writer.lock();
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        if draft.rows > 0 {
            if writer.log.bytes >= self.options.file_bytes {
                self.begin_next(&mut writer)?;
            }
            writer.put(&mut draft)?;
            let mut published = self.published.lock();
            if let Some(last) = published.files.back_mut() {
                *last = writer.log.clone();
            }
            drop(published);
            self.news.notify_all();
        }
        Ok(writer.log.end)
    }

    /// Returns when all rows that were there at the call are on disk. Rows may be published meanwhile.
    pub fn sync(&self) -> Result<()> {
        let (file, path, bytes) = {
            let writer = self.writer.lock();
            if let Some(failed) = &writer.failed {
                return Err(failed.clone());
            }
            if writer.synced == writer.log.bytes {
                return Ok(());
            }
            let file = writer.file.try_clone().map_err(|error| failed("opening log file", &writer.log.path, &error))?;
            (file, writer.log.path.clone(), writer.log.bytes)
        };
        let synced = sync(&file);
        let mut writer = self.writer.lock();
        match writer.log.path == path {
            true => writer.synced_to(bytes, synced),
            // A next file was begun, for which this one was synced.
            false => Ok(()),
        }
    }

    /// The offset after the last durable row.
    pub fn end(&self) -> u64 {
        self.published.lock().end()
    }

    /// About how many bytes the rows from `offset` on take: of the file that it lies in, a part as large as that of its rows.
    pub fn bytes_after(&self, offset: u64) -> u64 {
        let published = self.published.lock();
        let after = |file: &LogFile| {
            let rows = file.end - file.first;
            let left = file.end.saturating_sub(offset.max(file.first));
            if rows == 0 { 0 } else { (u128::from(file.bytes) * u128::from(left) / u128::from(rows)) as u64 }
        };
        published.files.iter().map(after).sum()
    }

    /// From now on readers bring rows in `schema`. A frame that was written under a later version than the readers' schema
    /// waits until this call, so that no value is lost for a column the reader does not know yet.
    pub fn set_schema(&self, schema: Arc<TableSchema>) {
        self.published.lock().schema = schema;
        self.news.notify_all();
    }

    /// The log as a source.
    pub fn connector(self: &Arc<Self>, source: SourceId) -> Arc<dyn Connector> {
        Arc::new(LogConnector { log: Arc::clone(self), source })
    }

    /// Writes and syncs a group of frames, and shows them to readers. The offset of its first row.
    fn write(&self, group: &mut [Ticket]) -> Result<u64> {
        let mut writer = self.writer.lock();
        if let Some(failed) = &writer.failed {
            return Err(failed.clone());
        }
        if writer.log.bytes >= self.options.file_bytes {
            self.begin_next(&mut writer)?;
        }
        let first = writer.log.end;
        let written = writer.write(group);
        if let Err(error) = &written {
            tracing::error!(%error, directory = ?self.directory, "the log could not be written");
        }
        written?;
        let mut published = self.published.lock();
        if let Some(last) = published.files.back_mut() {
            *last = writer.log.clone();
        }
        drop(published);
        self.news.notify_all();
        Ok(first)
    }

    /// Begins a new file, so that those before it go as soon as what is in them is committed.
    pub fn begin_file(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        match &writer.failed {
            Some(failed) => Err(failed.clone()),
            None => self.begin_next(&mut writer),
        }
    }

    fn begin_next(&self, writer: &mut Writer) -> Result<()> {
        if writer.log.end > writer.log.first {
            // Of all files but the last everything is on disk.
            writer.sync()?;
            let (log, file) = file::create(&self.directory, writer.log.end)?;
            *writer = Writer { file, synced: log.bytes, log: log.clone(), failed: None };
            self.published.lock().files.push_back(log);
        }
        Ok(())
    }

    /// Deletes the files before the one that `offset` lies in, of which everything is committed.
    pub fn trim(&self, offset: u64) {
        let mut gone = Vec::new();
        {
            let mut published = self.published.lock();
            while published.files.len() > 1 && published.files[0].end <= offset {
                gone.extend(published.files.pop_front());
            }
        }
        for file in gone {
            if let Err(error) = std::fs::remove_file(&file.path) {
                tracing::warn!(%error, path = ?file.path, "a log file that is no longer needed stays");
                return; // a later one must not go before it
            }
        }
    }
}

impl Writer {
    fn write(&mut self, group: &mut [Ticket]) -> Result<()> {
        let durable = self.log.bytes;
        let (mut position, mut offset) = (durable, self.log.end);
        for ticket in group {
            let frame = ticket.draft.place(offset, durable);
            if let Err(error) = write_frame(&self.file, frame, position) {
                let error = failed("writing log file", &self.log.path, &error);
                // Take back what is half written; nothing of it was synced or shown.
                if let Err(error) = self.file.set_len(durable) {
                    self.failed = Some(failed("cutting log file", &self.log.path, &error));
                }
                return Err(error);
            }
            position += frame.len() as u64;
            offset += u64::from(ticket.draft.rows);
        }
        if let Err(error) = sync(&self.file) {
            let error = failed("syncing log file", &self.log.path, &error);
            self.failed =
                Some(Error::Unavailable(format!("{error}; the log takes no more rows until the server starts again")));
            return Err(error);
        }
        self.log.bytes = position;
        self.log.end = offset;
        self.synced = position;
        Ok(())
    }

    /// Writes a frame that is not synced.
    fn put(&mut self, draft: &mut Draft) -> Result<()> {
        let written = self.log.bytes;
        let frame = draft.place(self.log.end, self.synced);
        if let Err(error) = write_frame(&self.file, frame, written) {
            let error = failed("writing log file", &self.log.path, &error);
            if let Err(error) = self.file.set_len(written) {
                self.failed = Some(failed("cutting log file", &self.log.path, &error));
            }
            return Err(error);
        }
        self.log.bytes += frame.len() as u64;
        self.log.end += u64::from(draft.rows);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if self.synced < self.log.bytes {
            let synced = sync(&self.file);
            self.synced_to(self.log.bytes, synced)?;
        }
        Ok(())
    }

    /// A sync of the first `bytes` bytes went well, or not.
    fn synced_to(&mut self, bytes: u64, synced: io::Result<()>) -> Result<()> {
        if let Err(error) = synced {
            let error = failed("syncing log file", &self.log.path, &error);
            self.failed =
                Some(Error::Unavailable(format!("{error}; the log takes no more rows until the server starts again")));
            return Err(error);
        }
        self.synced = self.synced.max(bytes);
        Ok(())
    }
}

fn write_frame(file: &File, frame: &[u8], position: u64) -> io::Result<()> {
    fail::fail_point!("log::write", |_| Err(io::Error::other("fail point log::write")));
    file.write_all_at(frame, position)
}

fn sync(file: &File) -> io::Result<()> {
    fail::fail_point!("log::sync", |_| Err(io::Error::other("fail point log::sync")));
    file.sync_data()
}

/// Keeps the kind, by which a full disk is told from a broken one.
fn failed(action: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Storage(tidemill_storage::Error::io(action, path, error))
}

#[derive(Debug)]
struct LogConnector {
    log: Arc<Log>,
    source: SourceId,
}

impl Connector for LogConnector {
    fn offsets_are_rows(&self) -> bool {
        true
    }

    fn partitions(&self) -> Result<Vec<u32>> {
        Ok(vec![0])
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let there = self.watermarks(0)?;
        let offset = |partition: &u32| match start {
            Start::Latest => Ok(there.high),
            Start::Offsets(offsets) => Ok(offsets.get(partition).copied().unwrap_or(there.low)),
            Start::Earliest => Ok(there.low),
            Start::TimestampMs(_) | Start::Committed => Err(Error::Definition {
                message: format!("a log cannot start at {start}"),
                hint: Some("it takes earliest, latest or offsets:{0:…}".into()),
            }),
        };
        partitions.iter().map(|partition| Ok((*partition, offset(partition)?))).collect()
    }

    fn watermarks(&self, _partition: u32) -> Result<Watermarks> {
        let published = self.log.published.lock();
        Ok(Watermarks { low: published.low(), high: published.end() })
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        let mut reader = LogReader::new(Arc::clone(&self.log), self.source);
        for (partition, offset) in positions {
            reader.add(*partition, *offset)?;
        }
        Ok(Box::new(reader))
    }

    fn committed(&self, _table: TableId, positions: &BTreeMap<u32, u64>) {
        if let Some(offset) = positions.get(&0) {
            self.log.trim(*offset);
        }
    }
}
