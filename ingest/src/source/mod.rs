//! Sources: unbounded, partitioned, replayable logs of records with offsets.
//!
//! A [`Connector`] knows one topic, log, file set or generator; a [`Reader`] is one thread's way through some of its partitions. A reader is polled
//! at the consumer's own pace; what is not polled stays in the topic. Offsets are the caller's: a connector keeps none.

mod bounded;
pub mod file;
pub mod generator;
pub mod kafka;
pub mod log;
mod options;
pub mod rate;
mod sample;
mod share;
mod start;

use std::{collections::BTreeMap, time::Duration};

use tidemill_storage::ids::TableId;

pub(crate) use self::{
    bounded::bounded,
    kafka::parse_duration,
    options::{OptionReader, wrong},
};
pub use self::{
    options::{ConnectContext, Connected, ConnectorOptions, SourceOptions},
    sample::sample,
};

use crate::{
    Result,
    landmark::{Place, Recognition},
    message::{MessageBatch, SourceBatch},
};

/// Where to begin in a partition that has no committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// The first message at or after this wall-clock time.
    TimestampMs(i64),
    /// Per partition; partitions that are not named begin at the earliest.
    Offsets(BTreeMap<u32, u64>),
    /// Where the consumer group stands outside; partitions without such an offset begin at the earliest. Kafka alone has it.
    Committed,
}

/// Offsets that a partition holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset still there.
    pub low: u64,
    /// First offset not yet written (for a transactional topic: the last stable offset).
    pub high: u64,
}

/// A transaction of a partition that its producer has neither committed nor aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Offset of its first message: readers of committed messages get nothing from here on.
    pub from: u64,
    /// First offset not yet written, by it or by others.
    pub to: u64,
}

/// What a poll brings.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// Bytes, to be decoded by the source's format.
    Messages(MessageBatch),
    /// Rows of the source's schema, from connectors that have no bytes (log, generator, parquet and avro files).
    Rows(SourceBatch),
    /// Messages from `wanted` to `found` (excluded) are gone: retention passed us. The reader goes on at `found`
    /// only after [`Reader::seek`].
    Gap { partition: u32, wanted: u64, found: u64 },
    /// A bounded partition is read to its end.
    End { partition: u32 },
}

impl Fetched {
    /// The source's partition that it is of.
    pub fn partition(&self) -> u32 {
        match self {
            Self::Messages(batch) => batch.partition,
            Self::Rows(batch) => batch.stream.partition,
            Self::Gap { partition, .. } | Self::End { partition } => *partition,
        }
    }
}

/// One source. Implementations are cheap to clone behind an `Arc` and may be used from many threads.
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// The partitions that exist now, ascending. Blocks; may be called every few seconds to find new ones.
    fn partitions(&self) -> Result<Vec<u32>>;

    /// Turns a start into offsets, one per given partition. Blocks.
    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>>;

    /// Low and high offset of a partition. Blocks.
    fn watermarks(&self, partition: u32) -> Result<Watermarks>;

    /// The oldest transaction of a partition that was open when the partition was last fetched from, a few seconds ago or less, and holds back
    /// what readers get. `None` where nothing is, where it is not known, and for sources without transactions. Does not block.
    fn open_transaction(&self, partition: u32) -> Option<OpenTransaction> {
        let _ = partition;
        None
    }

    /// Whether the source is the one in which these places were reached, per partition. Partitions that did not answer in time are not in the
    /// answer; an error when none did. Blocks. Sources that cannot be replaced by others of their name say nothing.
    fn recognize(&self, places: &BTreeMap<u32, Place>) -> Result<BTreeMap<u32, Recognition>> {
        Ok(places.keys().map(|partition| (*partition, Recognition::Same)).collect())
    }

    /// A reader of the given partitions from the given offsets on.
    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>>;

    /// Tells the outside world, as advice only, how far `table` has committed (a consumer group, a log that may now be trimmed).
    /// Called after the metadata log has it, and when the table begins to read. Tables share a connector: what is one for all of them outside
    /// hears the smallest position of all. Must not block for long and may fail silently.
    fn committed(&self, table: TableId, positions: &BTreeMap<u32, u64>);

    /// Returns when the rows of a partition below `to` would be the same after a crash: only then a table may commit them. Blocks, for as long as a checkpoint
    /// takes. Sources that keep what they gave have nothing to do.
    fn settle(&self, partition: u32, to: u64) -> Result<()> {
        let _ = (partition, to);
        Ok(())
    }

    /// Whether each offset is a row, so that ranges of offsets say how many rows there were after they are gone.
    fn offsets_are_rows(&self) -> bool {
        false
    }

    /// `table` will read no more: its positions hold the others' back no longer.
    fn forget(&self, table: TableId) {
        let _ = table;
    }
}

/// One thread's way through some partitions.
pub trait Reader: Send {
    /// Waits until something is there or `timeout` is over, then returns what is at hand without waiting for more: at most
    /// about `max_messages` messages and `max_bytes` bytes per partition batch, an empty vector when there is nothing. Batches of one partition continue each
    /// other: each `from` is the last `to`. An error of kind `Unavailable` may pass; the caller polls again later.
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>>;

    /// Goes on at `offset`, after a gap.
    fn seek(&mut self, partition: u32, offset: u64) -> Result<()>;

    /// Begins to read another partition.
    fn add(&mut self, partition: u32, offset: u64) -> Result<()>;

    /// How many readers one fetch of the partition serves now, this one included.
    fn sharing(&self, partition: u32) -> usize {
        let _ = partition;
        1
    }
}
