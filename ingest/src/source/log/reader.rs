//! One thread's way through a log. Frames are read back from their files; a reader keeps at most one.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use tidemill_storage::{
    ids::{SourceId, StreamId},
    schema::TableSchema,
};

use super::{
    Log,
    file::FILE_HEADER_BYTES,
    frame::{self, HEADER_BYTES, Header},
};
use crate::{
    Error, Result,
    message::SourceBatch,
    source::{Fetched, Reader},
};

pub(super) struct LogReader {
    log: Arc<Log>,
    source: SourceId,
    /// `None` until the partition is added.
    next: Option<u64>,
    /// Told of a gap and not yet sent elsewhere.
    stopped: bool,
    open: Option<OpenFile>,
    /// The frame that `next` lies in.
    frame: Option<Frame>,
}

struct OpenFile {
    file: File,
    path: PathBuf,
    /// Where the frame after the last one read begins.
    position: u64,
    /// First offset of that frame.
    offset: u64,
}

struct Frame {
    header: Header,
    rows: RecordBatch,
}

impl LogReader {
    pub(super) fn new(log: Arc<Log>, source: SourceId) -> Self {
        Self { log, source, next: None, stopped: false, open: None, frame: None }
    }

    /// Reads the frame that holds `next`, which is durable.
    fn read_frame(&mut self, next: u64) -> Result<()> {
        if self.open.as_ref().is_none_or(|open| open.offset > next) {
            self.open = None;
        }
        loop {
            let within = {
                let published = self.log.published.lock();
                let holds =
                    |offset| published.files.iter().find(|file| file.first <= offset && offset < file.end).cloned();
                match &self.open {
                    Some(open) => holds(open.offset).filter(|file| file.path == open.path),
                    None => None,
                }
                .or_else(|| {
                    self.open = None;
                    holds(next)
                })
            };
            let Some(within) = within else {
                return Err(Error::Unavailable(format!(
                    "offset {next} of the log in {:?} is gone",
                    self.log.directory
                )));
            };
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let file = File::open(&within.path)
                        .map_err(|error| tidemill_storage::Error::io("opening log file", &within.path, &error))?;
                    let path = within.path.clone();
                    self.open.insert(OpenFile { file, path, position: FILE_HEADER_BYTES, offset: within.first })
                }
            };
            let header = open.header()?;
            if header.end_offset() <= next {
                open.position += header.frame_bytes();
                open.offset = header.end_offset();
                continue;
            }
            let body = open.body(&header)?;
            self.frame = Some(Frame { header, rows: frame::decode(&open.path, &header, &body)? });
            open.position += header.frame_bytes();
            open.offset = header.end_offset();
            return Ok(());
        }
    }

    fn slice(&mut self, schema: &TableSchema, next: u64, max_rows: usize, max_bytes: usize) -> Result<Option<Fetched>> {
        let Some(frame) = &self.frame else { return Ok(None) };
        if frame.header.schema_version > schema.version.0 {
            return Ok(None);
        }
        let start = usize::try_from(next - frame.header.first_offset).unwrap_or(usize::MAX);
        let total = frame.rows.num_rows();
        let by_bytes = (max_bytes as u64).saturating_mul(total as u64) / u64::from(frame.header.body_bytes.max(1));
        let rows = max_rows.min(usize::try_from(by_bytes).unwrap_or(usize::MAX)).clamp(1, total - start);
        let batch = frame::conform(&frame.rows.slice(start, rows), schema)?;
        let to = next + rows as u64;
        if start + rows == total {
            self.frame = None;
        }
        self.next = Some(to);
        Ok(Some(Fetched::Rows(SourceBatch {
            stream: StreamId { source: self.source, partition: 0 },
            rows: batch,
            row_offsets: (next..to).collect(),
            from: next,
            to,
            newest_timestamp_ms: -1,
            rejects: Vec::new(),
            origin: None,
        })))
    }
}

impl Reader for LogReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        let waiting_for = self.frame.as_ref().map_or(0, |frame| frame.header.schema_version);
        let Some(next) = self.next.filter(|_| !self.stopped) else {
            let mut published = self.log.published.lock();
            let _ = self.log.news.wait_for(&mut published, timeout);
            return Ok(Vec::new());
        };
        let (low, end, schema) = {
            let mut published = self.log.published.lock();
            if published.end() <= next || published.schema.version.0 < waiting_for {
                let _ = self.log.news.wait_while_for(
                    &mut published,
                    |published| published.end() <= next || published.schema.version.0 < waiting_for,
                    timeout,
                );
            }
            (published.low(), published.end(), Arc::clone(&published.schema))
        };
        if next < low {
            self.stopped = true;
            return Ok(vec![Fetched::Gap { partition: 0, wanted: next, found: low }]);
        }
        if end <= next {
            return Ok(Vec::new());
        }
        if self.frame.is_none() {
            self.read_frame(next)?;
        }
        Ok(self.slice(&schema, next, max_messages.max(1), max_bytes.max(1))?.into_iter().collect())
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.add(partition, offset)
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        let end = self.log.end();
        if partition != 0 {
            return Err(Error::Unavailable(format!("a log has one partition, 0; there is no partition {partition}")));
        }
        if offset > end {
            return Err(Error::Definition {
                message: format!(
                    "the log in {:?} ends at offset {end}, but {offset} is the next to read",
                    self.log.directory
                ),
                hint: Some(
                    "rows that were committed from it are missing in it: the log was damaged or replaced".into(),
                ),
            });
        }
        self.next = Some(offset);
        self.stopped = false;
        self.open = None;
        self.frame = None;
        Ok(())
    }
}

impl OpenFile {
    fn header(&self) -> Result<Header> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes, self.position)?;
        Header::from_bytes(&bytes).filter(|header| header.first_offset == self.offset).ok_or_else(|| self.damaged())
    }

    fn body(&self, header: &Header) -> Result<Vec<u8>> {
        let mut body = vec![0; header.body_bytes as usize];
        self.read(&mut body, self.position + HEADER_BYTES as u64)?;
        if crc32c::crc32c(&body) != header.body_checksum {
            return Err(self.damaged());
        }
        Ok(body)
    }

    fn read(&self, bytes: &mut [u8], position: u64) -> Result<()> {
        let read = self.file.read_exact_at(bytes, position);
        Ok(read.map_err(|error| tidemill_storage::Error::io("reading log file", &self.path, &error))?)
    }

    fn damaged(&self) -> Error {
        Error::Storage(tidemill_storage::Error::corrupt(
            &self.path,
            format!("log frame at byte {}", self.position),
            format!("a sound frame of offset {}", self.offset),
            "damaged bytes",
        ))
    }
}
