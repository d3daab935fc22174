//! The key map of a partition in a file: when it is written, and what a start does with it.
//!
//! | a crash | leaves | and then |
//! |---|---|---|
//! | before the file has its name | the file of before, and one that nothing names | the one counts, the other is deleted at start |
//! | after a commit, a change of rows or a compaction | a file that does not know the new segment | its keys are read |
//! | after a compaction or retention | a file with entries of segments that are gone | these are left out |
//!
//! The metadata log decides what there is. The file only says what the rows of some of its segments are among themselves, which no later step changes;
//! rows that statements deleted, and rows that lost for good, are taken from the log.

use std::{collections::HashSet, sync::Arc};

use tidemill_storage::{
    ids::{PartitionId, SegmentId},
    segment::Segment,
    table::{KeyMapFile, KeyMapUse, PartitionKeys, PartitionWriter, WrittenKeyMap},
    upsert::{KEY_MAP_FILE, KeySpec, segment_span_us},
};

use super::{partition::PartitionIngest, table::TableShared};
use crate::{Result, commit::SegmentRecord, events::Severity, runtime::side_by_side};

/// So many rows that a file does not know may a start read, beside a share of the keys; it reads a million in a second or less.
const ROWS_UNKNOWN: u64 = 64 * 1024;
const SHARE_UNKNOWN: u64 = 16;
/// The same when the table is closed.
const SHARE_UNKNOWN_AT_END: u64 = 64;
/// After this time fewer are reason enough.
const WRITE_AFTER_US: i64 = 600_000_000;

/// What the file of a partition knows.
#[derive(Debug, Default)]
pub(super) struct KeyMapState {
    segments: HashSet<SegmentId>,
    /// Monotonic time of the last file, or of the start.
    at_us: i64,
}

impl KeyMapState {
    /// What became of the file at a start.
    pub(super) fn of(used: &KeyMapUse, now_us: i64) -> Self {
        match used {
            KeyMapUse::Taken(file) => Self::written(file, now_us),
            _ => Self { segments: HashSet::new(), at_us: now_us },
        }
    }

    /// All segments are gone.
    pub(super) fn forget(&mut self) {
        self.segments.clear();
    }

    fn written(file: &WrittenKeyMap, now_us: i64) -> Self {
        Self { segments: file.segments.iter().copied().collect(), at_us: now_us }
    }
}

/// The key map of a partition, as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyMapStatus {
    pub partition: PartitionId,
    /// Deleted ones among them.
    pub keys: u64,
    /// What the map takes, in memory and in files.
    pub bytes: u64,
    pub bytes_in_files: u64,
    /// The times from which to which its keys came, microseconds since 1970: those of their rows where the table has a time column, and those of commits
    /// where not. `None`: not known.
    pub span_us: Option<(i64, i64)>,
    /// Rows that came more than `key_ttl` late, since the start.
    pub late_rows: u64,
    /// Segments whose keys have left the map.
    pub segments_left: u64,
}

impl TableShared {
    /// Writes the key map of a partition down, if that is worth it. Blocks.
    pub(crate) fn keep_key_map(&self, partition: &Arc<PartitionIngest>, at_end: bool) -> Result<bool> {
        if !partition.wants_key_map(at_end) {
            return Ok(false);
        }
        // The table's files stay as long as this is held, and no segments are put together.
        let closed = self.compacting.lock();
        if *closed || !partition.wants_key_map(at_end) {
            return Ok(false);
        }
        partition.write_key_map()
    }

    /// The same for all partitions before the table is closed. What fails makes the next start slower.
    pub(super) fn keep_key_maps_at_end(&self) {
        if self.table.key().is_none() {
            return;
        }
        let keep = |partition: &Arc<PartitionIngest>| {
            if let Err(error) = self.keep_key_map(partition, true) {
                tracing::warn!(table = self.name, partition = partition.id.0, %error, "the key map is not written");
            }
        };
        side_by_side(&self.partitions(), self.runtime.consume_threads, keep);
    }
}

impl PartitionIngest {
    /// Says what became of the file at a start, and deletes one that cannot be used.
    pub(super) fn key_map_used(&self, used: &KeyMapUse) {
        match used {
            KeyMapUse::Taken(WrittenKeyMap { segments, keys }) => {
                tracing::info!(
                    table = self.table_name,
                    partition = self.id.0,
                    keys,
                    segments = segments.len(),
                    "the key map came from its file"
                );
            }
            KeyMapUse::Refused(error) => {
                self.remove_file(KEY_MAP_FILE);
                let message = format!(
                    "the key map of table '{}' partition {} was made again from its segments, because its file cannot be used: {error}",
                    self.table_name, self.id
                );
                self.event(Severity::Warning, "key_map_refused", None, message);
            }
            KeyMapUse::None | KeyMapUse::Kept => {}
        }
    }

    /// Whether a start would have to read so many keys that it is worth to write them down.
    fn wants_key_map(&self, at_end: bool) -> bool {
        let now_us = self.runtime.clock.monotonic_us();
        let state = self.state.lock();
        let keys = state.writer.keys().keys;
        let is_unknown =
            |record: &&SegmentRecord| record.keys_left_us.is_none() && !state.key_map.segments.contains(&record.id);
        let unknown = state.segments.iter().filter(is_unknown);
        let unknown: u64 = unknown.map(|record| u64::from(record.rows)).sum();
        let bound = match at_end {
            true => keys / SHARE_UNKNOWN_AT_END,
            false if now_us - state.key_map.at_us >= WRITE_AFTER_US => 0,
            false => keys / SHARE_UNKNOWN + ROWS_UNKNOWN,
        };
        unknown > bound
    }

    fn write_key_map(&self) -> Result<bool> {
        let schema = Arc::clone(&self.state.lock().schema);
        let file = KeyMapFile { directory: &self.directory, table: self.table };
        let with = |work: &mut dyn FnMut(&mut PartitionWriter)| {
            let mut state = self.state.lock();
            work(&mut state.writer);
            !state.closed
        };
        let Some(written) = file.write(&schema, with)? else { return Ok(false) };
        self.state.lock().key_map = KeyMapState::written(&written, self.runtime.clock.monotonic_us());
        metrics::counter!("tidemill_key_maps_written_total").increment(1);
        Ok(true)
    }

    pub(super) fn key_map_status(&self, key: &KeySpec) -> KeyMapStatus {
        let state = self.state.lock();
        let view = self.partition.view();
        let has_left = |id| state.segments.iter().any(|record| record.id == id && record.keys_left_us.is_some());
        let column = key.ages.map(|ages| ages.column).or(state.schema.time_column);
        let span = |segment: &Arc<dyn Segment>| segment_span_us(segment.as_ref(), column?);
        let by_rows = view.segments().filter(|segment| !has_left(segment.id())).filter_map(span).reduce(joined);
        let commits = state.segments.iter().map(|record| (record.committed_at_us, record.committed_at_us));
        let PartitionKeys { keys, bytes, bytes_in_files } = state.writer.keys();
        KeyMapStatus {
            partition: self.id,
            keys,
            bytes,
            bytes_in_files,
            span_us: by_rows.or_else(|| commits.reduce(joined)).filter(|(from, to)| from < to),
            late_rows: state.writer.late_rows(),
            segments_left: state.segments.iter().filter(|record| record.keys_left_us.is_some()).count() as u64,
        }
    }

    /// Segments whose keys a start takes from the file.
    pub(super) fn key_map_segments(&self) -> HashSet<SegmentId> {
        self.state.lock().key_map.segments.clone()
    }
}

fn joined(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}
