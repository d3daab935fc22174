//! What is committed: ingestion's metadata log, kept in the metadata file.
//!
//! ```text
//!   ingest_tables          table → partitions                    tables that may be committed to
//!   ingest_segments        (table, partition, segment) → JSON SegmentRecord
//!   ingest_dead_letters    (table, partition, sequence) → JSON DeadLetterRecord
//!   ingest_positions       (table, partition, source, source partition) → next offset
//!   ingest_watermarks      (table, partition, source, source partition) → microseconds since 1970
//!   ingest_landmarks       (table, partition, source, source partition) → JSON Landmark
//!   ingest_next_segment    (table, partition) → segment id
//! ```
//!
//! What always holds: a stream's position is where its last committed range ended, or where a reset put it; segment ids of a partition only grow; a partition that is
//! not of a known table has no entries.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tidemill_ingest::{
    Error, Result,
    commit::{DeadLetterRecord, MetadataLog, PartitionState, SegmentCommit, SegmentRecord, StreamReset},
    landmark::Landmark,
};
use tidemill_storage::ids::{PartitionId, SegmentId, SourceId, StreamId, TableId};

use super::database::{self, Change, Database, DatabaseError};

const TABLES: TableDefinition<u64, u32> = TableDefinition::new("ingest_tables");
const SEGMENTS: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_segments");
const DEAD_LETTERS: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_dead_letters");
const POSITIONS: TableDefinition<(u64, u32, u64, u32), u64> = TableDefinition::new("ingest_positions");
const WATERMARKS: TableDefinition<(u64, u32, u64, u32), i64> = TableDefinition::new("ingest_watermarks");
const LANDMARKS: TableDefinition<(u64, u32, u64, u32), &[u8]> = TableDefinition::new("ingest_landmarks");
const NEXT_SEGMENT: TableDefinition<(u64, u32), u64> = TableDefinition::new("ingest_next_segment");

/// [`MetadataLog`] over the metadata file.
#[derive(Debug)]
pub struct RedbMetadataLog {
    database: Arc<Database>,
}

/// The log's record of [`MetadataLog::retire`].
#[derive(Debug, Serialize, Deserialize)]
struct Retired {
    table: TableId,
    partition: PartitionId,
    segments: Vec<SegmentId>,
}

impl RedbMetadataLog {
    pub fn open(database: Arc<Database>) -> database::Result<Self> {
        database.write(|change| {
            let transaction = change.transaction();
            transaction.open_table(TABLES)?;
            transaction.open_table(SEGMENTS)?;
            transaction.open_table(DEAD_LETTERS)?;
            transaction.open_table(POSITIONS)?;
            transaction.open_table(WATERMARKS)?;
            transaction.open_table(LANDMARKS)?;
            transaction.open_table(NEXT_SEGMENT)?;
            Ok(())
        })?;
        Ok(Self { database })
    }

    /// Makes a table known, in the transaction that defines it.
    pub fn create_table(change: &mut Change<'_>, table: TableId, partitions: u32) -> database::Result<()> {
        change.transaction().open_table(TABLES)?.insert(table.0, partitions)?;
        Ok(())
    }

    /// Forgets all that is committed for a table, in the transaction that drops it. Its files may then be deleted.
    pub fn drop_table(change: &mut Change<'_>, table: TableId) -> database::Result<()> {
        let transaction = change.transaction();
        let table = table.0;
        transaction.open_table(TABLES)?.remove(table)?;
        let (first, last) = ((table, 0, 0), (table, u32::MAX, u64::MAX));
        transaction.open_table(SEGMENTS)?.retain_in(first..=last, |_, _| false)?;
        transaction.open_table(DEAD_LETTERS)?.retain_in(first..=last, |_, _| false)?;
        let (first, last) = ((table, 0, 0, 0), (table, u32::MAX, u64::MAX, u32::MAX));
        transaction.open_table(POSITIONS)?.retain_in(first..=last, |_, _| false)?;
        transaction.open_table(WATERMARKS)?.retain_in(first..=last, |_, _| false)?;
        transaction.open_table(LANDMARKS)?.retain_in(first..=last, |_, _| false)?;
        transaction.open_table(NEXT_SEGMENT)?.retain_in((table, 0)..=(table, u32::MAX), |_, _| false)?;
        Ok(())
    }
}

impl MetadataLog for RedbMetadataLog {
    fn partition(&self, table: TableId, partition: PartitionId) -> Result<PartitionState> {
        let (t, p) = (table.0, partition.0);
        self.database
            .read(|transaction| {
                let mut state = PartitionState::default();
                for entry in transaction.open_table(SEGMENTS)?.range((t, p, 0)..=(t, p, u64::MAX))? {
                    state.segments.push(serde_json::from_slice::<SegmentRecord>(entry?.1.value())?);
                }
                for entry in transaction.open_table(DEAD_LETTERS)?.range((t, p, 0)..=(t, p, u64::MAX))? {
                    state.dead_letters.push(serde_json::from_slice::<DeadLetterRecord>(entry?.1.value())?);
                }
                for entry in transaction.open_table(POSITIONS)?.range((t, p, 0, 0)..=(t, p, u64::MAX, u32::MAX))? {
                    let (key, offset) = entry?;
                    let (_, _, source, partition) = key.value();
                    state.positions.push((StreamId { source: SourceId(source), partition }, offset.value()));
                }
                for entry in transaction.open_table(WATERMARKS)?.range((t, p, 0, 0)..=(t, p, u64::MAX, u32::MAX))? {
                    let (key, us) = entry?;
                    let (_, _, source, partition) = key.value();
                    state.watermarks.push((StreamId { source: SourceId(source), partition }, us.value()));
                }
                for entry in transaction.open_table(LANDMARKS)?.range((t, p, 0, 0)..=(t, p, u64::MAX, u32::MAX))? {
                    let (key, landmark) = entry?;
                    let (_, _, source, partition) = key.value();
                    let landmark: Landmark = serde_json::from_slice(landmark.value())?;
                    state.landmarks.push((StreamId { source: SourceId(source), partition }, landmark));
                }
                state.next_segment =
                    SegmentId(transaction.open_table(NEXT_SEGMENT)?.get((t, p))?.map_or(0, |next| next.value()));
                Ok(state)
            })
            .map_err(|error| commit_error(&error))
    }

    fn commit(&self, commit: &SegmentCommit) -> Result<()> {
        let (t, p) = (commit.table.0, commit.partition.0);
        self.database
            .write(|change| {
                let transaction = change.transaction();
                check_table(change, commit.table, commit.partition)?;
                let mut positions = transaction.open_table(POSITIONS)?;
                for range in &commit.progress {
                    let key = (t, p, range.stream.source.0, range.stream.partition);
                    let position = positions.get(key)?.map(|position| position.value());
                    if range.to < range.from || position.is_some_and(|position| position != range.from) {
                        return Err(DatabaseError::Refused(format!(
                            "table {t} partition {p}: a commit of offsets {} to {} of source {} partition {} does not begin at \
                             the committed position {position:?}",
                            range.from, range.to, range.stream.source, range.stream.partition
                        )));
                    }
                    positions.insert(key, range.to)?;
                }
                let mut watermarks = transaction.open_table(WATERMARKS)?;
                for (stream, us) in &commit.watermarks {
                    watermarks.insert((t, p, stream.source.0, stream.partition), us)?;
                }
                let mut landmarks = transaction.open_table(LANDMARKS)?;
                for (stream, landmark) in &commit.landmarks {
                    let key = (t, p, stream.source.0, stream.partition);
                    landmarks.insert(key, serde_json::to_vec(landmark)?.as_slice())?;
                }
                if let Some(segment) = &commit.segment {
                    let mut next = transaction.open_table(NEXT_SEGMENT)?;
                    let known = next.get((t, p))?.map_or(0, |next| next.value());
                    if segment.id.0 < known {
                        return Err(DatabaseError::Refused(format!(
                            "table {t} partition {p}: segment {} is not new, the next one is {known}",
                            segment.id
                        )));
                    }
                    next.insert((t, p), segment.id.0 + 1)?;
                    let mut segments = transaction.open_table(SEGMENTS)?;
                    segments.insert((t, p, segment.id.0), serde_json::to_vec(segment)?.as_slice())?;
                }
                if let Some(replaced) = &commit.replaced_dead_letters {
                    forget_dead_letters(change, commit.table, commit.partition, replaced)?;
                }
                if let Some(dead_letters) = &commit.dead_letters {
                    let mut table = transaction.open_table(DEAD_LETTERS)?;
                    let last = table.range((t, p, 0)..=(t, p, u64::MAX))?.next_back().transpose()?;
                    let sequence = last.map_or(0, |(key, _)| key.value().2 + 1);
                    table.insert((t, p, sequence), serde_json::to_vec(dead_letters)?.as_slice())?;
                }
                change.record("segment.commit", commit)?;
                Ok(())
            })
            .map_err(|error| commit_error(&error))
    }

    fn reset(&self, resets: &[StreamReset]) -> Result<()> {
        self.database
            .write(|change| {
                let transaction = change.transaction();
                for StreamReset { table, partition, stream, to } in resets {
                    check_table(change, *table, *partition)?;
                    let key = (table.0, partition.0, stream.source.0, stream.partition);
                    let mut positions = transaction.open_table(POSITIONS)?;
                    match to {
                        Some(offset) => positions.insert(key, offset)?,
                        None => positions.remove(key)?,
                    };
                    transaction.open_table(LANDMARKS)?.remove(key)?;
                }
                change.record("source.reset", &resets)?;
                Ok(())
            })
            .map_err(|error| commit_error(&error))
    }

    fn retire(&self, table: TableId, partition: PartitionId, segments: &[SegmentId]) -> Result<()> {
        self.database
            .write(|change| {
                check_table(change, table, partition)?;
                let mut known = change.transaction().open_table(SEGMENTS)?;
                for segment in segments {
                    known.remove((table.0, partition.0, segment.0))?;
                }
                drop(known);
                change.record("segment.retire", &Retired { table, partition, segments: segments.to_vec() })?;
                Ok(())
            })
            .map_err(|error| commit_error(&error))
    }
}

/// Takes a file of dead letters off the list.
fn forget_dead_letters(
    change: &Change<'_>,
    table: TableId,
    partition: PartitionId,
    file: &str,
) -> database::Result<()> {
    let mut letters = change.transaction().open_table(DEAD_LETTERS)?;
    let (t, p) = (table.0, partition.0);
    let mut found = None;
    for entry in letters.range((t, p, 0)..=(t, p, u64::MAX))? {
        let (key, record) = entry?;
        if serde_json::from_slice::<DeadLetterRecord>(record.value())?.file == file {
            found = Some(key.value());
            break;
        }
    }
    let Some(key) = found else {
        return Err(DatabaseError::Refused(format!("table {table} partition {partition} has no dead letters {file}")));
    };
    letters.remove(key)?;
    Ok(())
}

fn check_table(change: &Change<'_>, table: TableId, partition: PartitionId) -> database::Result<()> {
    let known = change.transaction().open_table(TABLES)?.get(table.0)?.map(|partitions| partitions.value());
    match known {
        Some(partitions) if partition.0 < partitions => Ok(()),
        Some(partitions) => {
            Err(DatabaseError::Refused(format!("table {table} has {partitions} partitions, no number {partition}")))
        }
        None => Err(DatabaseError::Refused(format!("table {table} is gone"))),
    }
}

fn commit_error(error: &DatabaseError) -> Error {
    Error::Commit(error.to_string())
}

#[cfg(test)]
#[path = "metadata_log/tests.rs"]
mod tests;
