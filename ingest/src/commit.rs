//! The metadata log as ingestion sees it. The server implements it over its catalog.
//!
//! Commit order: segment file written under a temporary name → fsync → rename → fsync of the directory → one transaction of
//! the metadata log ([`MetadataLog::commit`]) → the committed segment replaces the sealing one in the view → the source is told.
//! A crash before the transaction leaves a file that nothing names (deleted at start) and offsets that will be read again; a crash
//! after it leaves everything in place.

use serde::{Deserialize, Serialize};
use tidemill_storage::{
    ids::{OffsetRange, PartitionId, SchemaVersion, SegmentId, StreamId, TableId},
    row_set::RowSet,
};

use crate::{Result, landmark::Landmark};

/// What the metadata log says of a committed segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRecord {
    pub id: SegmentId,
    /// File name inside the partition's directory.
    pub file: String,
    pub bytes: u64,
    /// CRC-32C of the file's footer, which holds the CRC-32C of every section: it stands for every byte of the file.
    pub checksum: u32,
    pub rows: u32,
    pub schema_version: SchemaVersion,
    /// Smallest and largest value of the time column, in its own unit (days or microseconds).
    pub time_range: Option<(i64, i64)>,
    pub offsets: Vec<OffsetRange>,
    pub committed_at_us: i64,
    /// Rows that were nothing but tombstones when it was written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tombstones: u64,
    /// Of these, those of rows that statements deleted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub purged: u64,
    /// Its keys have left the key map (`key_ttl`): which of its rows are valid is what `deleted` and `lost` say, and no more. The newest time of the partition's
    /// committed rows by then, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_left_us: Option<i64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What became of rows of a partition beside consumption, from its first day on: with it `rt.consistency_check` knows how many there have to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Rows that UPDATE wrote anew.
    pub made: u64,
    /// Rows that left with their files: deleted ones, those that are too old, and of tables with a key tombstones that were forgotten.
    pub removed: u64,
    /// The messages that these were among.
    pub offsets: Vec<OffsetRange>,
}

impl Account {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what happened later, or elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.removed += other.removed;
        self.offsets.extend(other.offsets.iter().filter(|range| range.from < range.to));
        self.offsets.sort_unstable_by_key(|range| (range.stream, range.from));
        let mut joined: Vec<OffsetRange> = Vec::with_capacity(self.offsets.len());
        for range in self.offsets.drain(..) {
            match joined.last_mut().filter(|last| last.stream == range.stream && range.from <= last.to) {
                Some(last) => last.to = last.to.max(range.to),
                None => joined.push(range),
            }
        }
        self.offsets = joined;
    }
}

/// A file of dead letters, committed with the offsets that they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterRecord {
    pub file: String,
    pub bytes: u64,
    pub checksum: u32,
    pub rows: u64,
}

/// One step: a segment (when there were rows), the offsets it accounts for, the dead letters of the same offsets. Or a replay: rows that were
/// dead letters, and the file that is no longer one of theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentCommit {
    pub table: TableId,
    pub partition: PartitionId,
    pub segment: Option<SegmentRecord>,
    pub progress: Vec<OffsetRange>,
    /// Largest watermark of each stream of `progress` so far, microseconds since 1970; without the streams that have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<(StreamId, i64)>,
    /// The last message of each stream of `progress` so far; without the streams that have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub landmarks: Vec<(StreamId, Landmark)>,
    pub dead_letters: Option<DeadLetterRecord>,
    /// The file of dead letters that were replayed into this segment; what is left of it is in `dead_letters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_dead_letters: Option<String>,
    /// Rows of the segment, and of others that it beat, that are not valid whatever becomes of others. Of segments that are not on the list nothing is kept.
    #[serde(skip)]
    pub lost: Vec<(SegmentId, RowSet)>,
}

/// What is committed for one table partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionState {
    /// Ascending by id.
    pub segments: Vec<SegmentRecord>,
    pub dead_letters: Vec<DeadLetterRecord>,
    /// Next offset to read, per stream.
    pub positions: Vec<(StreamId, u64)>,
    /// Largest watermark of the committed messages, per stream.
    #[serde(default)]
    pub watermarks: Vec<(StreamId, i64)>,
    /// The last message that was read, per stream.
    #[serde(default)]
    pub landmarks: Vec<(StreamId, Landmark)>,
    /// Rows that statements deleted, of segments of the list, ascending by segment.
    #[serde(skip)]
    pub deleted: Vec<(SegmentId, RowSet)>,
    /// Rows that lost against rows that are gone by now, or came too late to be seen, of the same segments.
    #[serde(skip)]
    pub lost: Vec<(SegmentId, RowSet)>,
    #[serde(default)]
    pub account: Account,
    /// Above the id of every segment the partition ever had.
    pub next_segment: SegmentId,
}

/// A stream that goes on elsewhere than where its last commit ended, because somebody said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReset {
    pub table: TableId,
    pub partition: PartitionId,
    pub stream: StreamId,
    /// `None`: the stream is forgotten, as if it had never been read.
    pub to: Option<u64>,
}

/// What changes in a partition beside its offsets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionChange {
    pub partition: PartitionId,
    /// Segments that are new.
    pub added: Vec<SegmentRecord>,
    /// More rows of segments of the list that are not there any more.
    pub deleted: Vec<(SegmentId, RowSet)>,
    /// More rows of such segments that lost for good, mostly against rows of segments that are retired now.
    pub lost: Vec<(SegmentId, RowSet)>,
    /// Such segments whose keys leave the key map, with the newest time that is committed.
    pub left: Vec<(SegmentId, i64)>,
    /// Segments that are taken off the list; their files may be deleted once no reader holds them.
    pub retired: Vec<SegmentId>,
    /// What this adds to the account.
    pub account: Account,
}

/// Ordered, durable, atomic. Each call is one transaction; when it returns, it survives a power loss.
pub trait MetadataLog: Send + Sync {
    fn partition(&self, table: TableId, partition: PartitionId) -> Result<PartitionState>;

    /// Refuses (and changes nothing) when a range of `progress` does not begin at the stream's position; a stream without a position
    /// may begin anywhere. Refuses when the table is gone, or the replaced file of dead letters.
    fn commit(&self, commit: &SegmentCommit) -> Result<()>;

    /// Moves streams, of any tables, in one step; their landmarks are forgotten. Refuses (and changes nothing) when a table is gone.
    fn reset(&self, resets: &[StreamReset]) -> Result<()>;

    /// Changes partitions of a table in one step. Refuses (and changes nothing) when the table is gone, when a new segment is on the list, or when one
    /// that loses rows or is retired is not.
    fn change(&self, table: TableId, changes: &[PartitionChange]) -> Result<()>;

    /// Takes all segments of tables off their lists, in one step; offsets and dead letters stay. Refuses (and changes nothing) when a table is gone.
    fn truncate(&self, tables: &[TableId]) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use tidemill_storage::ids::SourceId;

    use super::*;

    #[test]
    fn accounts_join_ranges_that_touch() {
        let stream = |partition| StreamId { source: SourceId(1), partition };
        let range = |partition, from, to| OffsetRange { stream: stream(partition), from, to };
        let mut account = Account { made: 1, removed: 2, offsets: vec![range(0, 10, 20), range(1, 0, 5)] };
        let more = vec![range(0, 40, 50), range(0, 20, 30), range(1, 3, 4), range(0, 60, 60)];
        account.add(&Account { made: 0, removed: 3, offsets: more });
        assert_eq!((account.made, account.removed), (1, 5));
        assert_eq!(account.offsets, [range(0, 10, 30), range(0, 40, 50), range(1, 0, 5)]);
    }
}
