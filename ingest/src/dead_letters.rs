//! Dead letters: messages and rows that could not become rows of a table, kept with the reason.

use std::path::Path;

use tidemill_storage::ids::{SegmentId, StreamId};

use crate::{Error, Result, commit::DeadLetterRecord, message::Reject};

/// Raw bytes that a dead letter keeps; of a longer message the rest is cut and the true length noted.
pub const RAW_BYTES_MAX: usize = 16 << 20;

/// What a source does with a message that cannot become a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// Kept in `rt.dlq`.
    #[default]
    Dlq,
    /// Counted and dropped.
    Skip,
    /// The table's ingestion stops there, until the cause is gone.
    Stop,
}

impl OnError {
    /// `dlq`, `skip` or `stop`.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "dlq" => Self::Dlq,
            "skip" => Self::Skip,
            "stop" => Self::Stop,
            _ => {
                return Err(Error::Definition {
                    message: format!("option 'on_error' has the value '{text}'"),
                    hint: Some("it takes dlq, skip or stop".into()),
                });
            }
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Dlq => "dlq",
            Self::Skip => "skip",
            Self::Stop => "stop",
        }
    }
}

/// One dead letter, as `rt.dlq` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Name of the source.
    pub source: String,
    pub stream: StreamId,
    pub reject: Reject,
    /// Length of the message; above `reject.raw.len()` when it was cut.
    pub raw_length: u64,
    /// When it was put aside: microseconds since 1970.
    pub at_us: i64,
}

/// The dead letters of one table partition that are not yet committed. Bounded: when [`DeadLetterBuffer::is_full`], commit.
#[derive(Debug, Default)]
pub struct DeadLetterBuffer {
    letters: Vec<DeadLetter>,
    bytes: usize,
    bytes_max: usize,
}

impl DeadLetterBuffer {
    pub fn new(bytes_max: usize) -> Self {
        Self { letters: Vec::new(), bytes: 0, bytes_max }
    }

    /// Keeps the reject. Always succeeds, so the bound is passed by at most what one batch brings.
    pub fn push(&mut self, source: &str, stream: StreamId, mut reject: Reject, at_us: i64) {
        let raw_length = reject.raw.len() as u64;
        // A copy of its own: a slice would keep the whole batch of messages alive.
        reject.raw = bytes::Bytes::copy_from_slice(&reject.raw[..reject.raw.len().min(RAW_BYTES_MAX)]);
        self.bytes += reject.raw.len() + reject.reason.len() + std::mem::size_of::<DeadLetter>();
        self.letters.push(DeadLetter { source: source.to_owned(), stream, reject, raw_length, at_us });
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when the partition must commit before it takes more.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub fn letters(&self) -> &[DeadLetter] {
        &self.letters
    }

    /// All letters; the buffer is empty afterwards.
    pub fn take(&mut self) -> Vec<DeadLetter> {
        self.bytes = 0;
        std::mem::take(&mut self.letters)
    }
}

/// Name of the file of dead letters that is committed with segment `id`.
pub fn file_name(id: SegmentId) -> String {
    format!("d{:020}.dead", id.0)
}

/// Writes `letters` into `directory`, durable when it returns: temporary name, fsync, rename, fsync of the directory.
pub fn write(directory: &Path, id: SegmentId, letters: &[DeadLetter]) -> Result<DeadLetterRecord> {
    let _ = (directory, letters);
    Err(Error::Unavailable(format!("{} cannot be written yet", file_name(id))))
}

/// Reads a file one block at a time.
#[derive(Debug)]
pub struct DeadLetterReader {}

impl DeadLetterReader {
    /// Errors name the file.
    pub fn open(path: &Path) -> Result<Self> {
        Err(Error::Unavailable(format!("{} cannot be read yet", path.display())))
    }
}

impl Iterator for DeadLetterReader {
    type Item = Result<DeadLetter>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
