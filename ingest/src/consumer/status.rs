//! What `rt.partitions` shows of a stream.

use tidemill_storage::ids::{PartitionId, SourceId};

/// Whether a stream is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamRun {
    Running,
    /// A bounded partition was read to its end.
    Ended,
    /// Something must be done first; the offset where it stopped is the stream's position.
    Stopped {
        error: String,
    },
}

impl StreamRun {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Stopped { .. } => "stopped",
        }
    }
}

/// One source partition of one table, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    pub source: SourceId,
    pub source_name: String,
    pub source_partition: u32,
    pub table_partition: PartitionId,
    /// Next offset that is not visible yet.
    pub position: u64,
    /// Next offset that would be read after a crash now.
    pub committed: u64,
    /// First offset not yet written to the source, as of a few seconds ago; `None` until the source was asked.
    pub high: Option<u64>,
    /// Largest watermark of the rows that became visible, ever; microseconds since 1970. `None` without a WATERMARK or rows.
    pub watermark_us: Option<i64>,
    /// Age of the newest message at the moment it became visible, milliseconds; `None` when messages have no time.
    pub freshness_ms: Option<i64>,
    /// Rows made visible since the server started.
    pub rows: u64,
    /// Dead letters since the server started.
    pub dead_letters: u64,
    /// Messages and rows dropped by `on_error = 'skip'` since the server started.
    pub skipped: u64,
    /// Messages without a value since the server started: neither rows nor dead letters.
    pub tombstones: u64,
    /// Tables that one fetch of this source partition serves now, this one included; 0 when it is not being read.
    pub sharing: u32,
    /// "running", "paused", "ended" or "stopped"; "waiting" when it was read before the start and the source has not answered since.
    pub state: &'static str,
    /// Why it stopped, or what is wrong with the source right now.
    pub error: Option<String>,
}

impl PartitionStatus {
    /// Messages that are in the source and not visible yet.
    pub fn lag(&self) -> Option<u64> {
        self.high.map(|high| high.saturating_sub(self.position))
    }
}
