//! What is committed: ingestion's metadata log, kept in the metadata file.
//!
//! ```text
//!   ingest_tables          table → partitions                    tables that may be committed to
//!   ingest_segments        (table, partition, segment) → JSON SegmentRecord
//!   ingest_deleted         (table, partition, segment) → rows that statements deleted, in roaring's format
//!   ingest_lost            (table, partition, segment) → rows that lost against rows that are gone or came too late, the same
//!   ingest_dead_letters    (table, partition, sequence) → JSON DeadLetterRecord
//!   ingest_positions       (table, partition, source, source partition) → next offset
//!   ingest_watermarks      (table, partition, source, source partition) → microseconds since 1970
//!   ingest_landmarks       (table, partition, source, source partition) → JSON Landmark
//!   ingest_account         (table, partition) → JSON Account
//!   ingest_next_segment    (table, partition) → segment id
//! ```
//!
//! What always holds: a stream's position is where its last committed range ended, or where a reset put it; no segment id of a partition comes twice; a partition that
//! is not of a known table has no entries.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};
use serde::Serialize;
use tidemill_ingest::{
    Error, Result,
    commit::{
        Account, DeadLetterRecord, MetadataLog, PartitionChange, PartitionState, SegmentCommit, SegmentRecord,
        StreamReset,
    },
    landmark::Landmark,
};
use tidemill_storage::{
    ids::{PartitionId, SegmentId, SourceId, StreamId, TableId},
    row_set::RowSet,
};

use super::database::{self, Change, Database, DatabaseError};

const TABLES: TableDefinition<u64, u32> = TableDefinition::new("ingest_tables");
const SEGMENTS: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_segments");
const DELETED: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_deleted");
const LOST: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_lost");
const DEAD_LETTERS: TableDefinition<(u64, u32, u64), &[u8]> = TableDefinition::new("ingest_dead_letters");
const POSITIONS: TableDefinition<(u64, u32, u64, u32), u64> = TableDefinition::new("ingest_positions");
const WATERMARKS: TableDefinition<(u64, u32, u64, u32), i64> = TableDefinition::new("ingest_watermarks");
const LANDMARKS: TableDefinition<(u64, u32, u64, u32), &[u8]> = TableDefinition::new("ingest_landmarks");
const ACCOUNT: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("ingest_account");
const NEXT_SEGMENT: TableDefinition<(u64, u32), u64> = TableDefinition::new("ingest_next_segment");

/// [`MetadataLog`] over the metadata file.
#[derive(Debug)]
pub struct RedbMetadataLog {
    database: Arc<Database>,
}

/// The log's record of [`MetadataLog::change`].
#[derive(Debug, Serialize)]
struct Changed<'a> {
    table: TableId,
    partition: PartitionId,
    added: Vec<&'a SegmentRecord>,
    /// How many rows of which segments.
    deleted: Vec<(SegmentId, u64)>,
    retired: &'a [SegmentId],
    /// Segments whose keys left the key map.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<SegmentId>,
}

impl RedbMetadataLog {
    pub fn open(database: Arc<Database>) -> database::Result<Self> {
        database.write(|change| {
            let transaction = change.transaction();
            transaction.open_table(TABLES)?;
            transaction.open_table(SEGMENTS)?;
            transaction.open_table(DELETED)?;
            transaction.open_table(LOST)?;
            transaction.open_table(DEAD_LETTERS)?;
            transaction.open_table(POSITIONS)?;
            transaction.open_table(WATERMARKS)?;
            transaction.open_table(LANDMARKS)?;
            transaction.open_table(ACCOUNT)?;
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

    /// Gives a table other partitions, in the transaction that says how many: each holds what `states` say, and nothing else is left.
    pub fn set_partitions(change: &mut Change<'_>, table: TableId, states: &[PartitionState]) -> database::Result<()> {
        let count = u32::try_from(states.len()).map_err(|_| DatabaseError::Refused("too many partitions".into()))?;
        let transaction = change.transaction();
        if transaction.open_table(TABLES)?.insert(table.0, count)?.is_none() {
            return Err(DatabaseError::Refused(format!("table {table} is gone")));
        }
        // Rows go from partition to partition; what is accounted for is that of the table.
        let account = accounts(change, table)?;
        forget(change, table)?;
        add_to_account(change, table, PartitionId(0), &account)?;
        for (partition, state) in (0..).map(PartitionId).zip(states) {
            let (t, p) = (table.0, partition.0);
            for segment in &state.segments {
                add_segment(change, table, partition, segment)?;
            }
            for (name, sets) in [(DELETED, &state.deleted), (LOST, &state.lost)] {
                let mut known = transaction.open_table(name)?;
                for (segment, rows) in sets {
                    known.insert((t, p, segment.0), rows.to_bytes().as_slice())?;
                }
            }
            let mut letters = transaction.open_table(DEAD_LETTERS)?;
            for (sequence, record) in (0..).zip(&state.dead_letters) {
                letters.insert((t, p, sequence), serde_json::to_vec(record)?.as_slice())?;
            }
            let key = |stream: &StreamId| (t, p, stream.source.0, stream.partition);
            let mut positions = transaction.open_table(POSITIONS)?;
            for (stream, offset) in &state.positions {
                positions.insert(key(stream), offset)?;
            }
            let mut watermarks = transaction.open_table(WATERMARKS)?;
            for (stream, us) in &state.watermarks {
                watermarks.insert(key(stream), us)?;
            }
            let mut landmarks = transaction.open_table(LANDMARKS)?;
            for (stream, landmark) in &state.landmarks {
                landmarks.insert(key(stream), serde_json::to_vec(landmark)?.as_slice())?;
            }
            let mut next = transaction.open_table(NEXT_SEGMENT)?;
            let known = next.get((t, p))?.map_or(0, |next| next.value());
            next.insert((t, p), known.max(state.next_segment.0))?;
        }
        let segments = states.iter().map(|state| state.segments.len()).collect();
        change.record("segment.repartition", &Repartitioned { table, segments })?;
        Ok(())
    }

    /// Forgets all that is committed for a table, in the transaction that drops it. Its files may then be deleted.
    pub fn drop_table(change: &mut Change<'_>, table: TableId) -> database::Result<()> {
        forget(change, table)?;
        let transaction = change.transaction();
        transaction.open_table(TABLES)?.remove(table.0)?;
        transaction.open_table(NEXT_SEGMENT)?.retain_in((table.0, 0)..=(table.0, u32::MAX), |_, _| false)?;
        Ok(())
    }
}

/// Forgets what is committed for a table, but for the ids that its segments had.
fn forget(change: &Change<'_>, table: TableId) -> database::Result<()> {
    let transaction = change.transaction();
    let table = table.0;
    let (first, last) = ((table, 0, 0), (table, u32::MAX, u64::MAX));
    for name in [SEGMENTS, LOST, DELETED, DEAD_LETTERS] {
        transaction.open_table(name)?.retain_in(first..=last, |_, _| false)?;
    }
    transaction.open_table(ACCOUNT)?.retain_in((table, 0)..=(table, u32::MAX), |_, _| false)?;
    let (first, last) = ((table, 0, 0, 0), (table, u32::MAX, u64::MAX, u32::MAX));
    transaction.open_table(POSITIONS)?.retain_in(first..=last, |_, _| false)?;
    transaction.open_table(WATERMARKS)?.retain_in(first..=last, |_, _| false)?;
    transaction.open_table(LANDMARKS)?.retain_in(first..=last, |_, _| false)?;
    Ok(())
}

/// Those of all partitions together.
fn accounts(change: &Change<'_>, table: TableId) -> database::Result<Account> {
    let mut all = Account::default();
    for entry in change.transaction().open_table(ACCOUNT)?.range((table.0, 0)..=(table.0, u32::MAX))? {
        all.add(&serde_json::from_slice(entry?.1.value())?);
    }
    Ok(all)
}

fn add_to_account(change: &Change<'_>, table: TableId, partition: PartitionId, more: &Account) -> database::Result<()> {
    if more.is_empty() {
        return Ok(());
    }
    let mut accounts = change.transaction().open_table(ACCOUNT)?;
    let key = (table.0, partition.0);
    let mut account: Account = match accounts.get(key)? {
        Some(known) => serde_json::from_slice(known.value())?,
        None => Account::default(),
    };
    account.add(more);
    accounts.insert(key, serde_json::to_vec(&account)?.as_slice())?;
    Ok(())
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
                for (table, rows) in [(DELETED, &mut state.deleted), (LOST, &mut state.lost)] {
                    for entry in transaction.open_table(table)?.range((t, p, 0)..=(t, p, u64::MAX))? {
                        let (key, of_segment) = entry?;
                        rows.push((SegmentId(key.value().2), row_set(of_segment.value())?));
                    }
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
                if let Some(account) = transaction.open_table(ACCOUNT)?.get((t, p))? {
                    state.account = serde_json::from_slice(account.value())?;
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
                    add_segment(change, commit.table, commit.partition, segment)?;
                }
                if !commit.lost.is_empty() {
                    let segments = transaction.open_table(SEGMENTS)?;
                    let mut sets = transaction.open_table(LOST)?;
                    for (segment, rows) in &commit.lost {
                        let key = (t, p, segment.0);
                        if segments.get(key)?.is_some() {
                            let known = sets.get(key)?.map(|known| row_set(known.value())).transpose()?;
                            let mut all = known.unwrap_or_default();
                            all.add(rows);
                            sets.insert(key, all.to_bytes().as_slice())?;
                        }
                    }
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

    fn change(&self, table: TableId, changes: &[PartitionChange]) -> Result<()> {
        self.database
            .write(|change| {
                for one in changes {
                    check_table(change, table, one.partition)?;
                    let (t, p) = (table.0, one.partition.0);
                    for segment in &one.added {
                        add_segment(change, table, one.partition, segment)?;
                    }
                    let mut segments = change.transaction().open_table(SEGMENTS)?;
                    let unknown = |segment: &SegmentId| {
                        DatabaseError::Refused(format!("table {t} partition {p} has no segment {segment}"))
                    };
                    for (table, more) in [(DELETED, &one.deleted), (LOST, &one.lost)] {
                        let mut sets = change.transaction().open_table(table)?;
                        for (segment, rows) in more {
                            let key = (t, p, segment.0);
                            segments.get(key)?.ok_or_else(|| unknown(segment))?;
                            let known = sets.get(key)?.map(|known| row_set(known.value())).transpose()?;
                            let mut all = known.unwrap_or_default();
                            all.add(rows);
                            sets.insert(key, all.to_bytes().as_slice())?;
                        }
                        for segment in &one.retired {
                            sets.remove((t, p, segment.0))?;
                        }
                    }
                    for (segment, newest_us) in &one.left {
                        let key = (t, p, segment.0);
                        let known = segments.get(key)?.ok_or_else(|| unknown(segment))?.value().to_vec();
                        let known = serde_json::from_slice::<SegmentRecord>(&known)?;
                        let record = SegmentRecord { keys_left_us: Some(*newest_us), ..known };
                        segments.insert(key, serde_json::to_vec(&record)?.as_slice())?;
                    }
                    for segment in &one.retired {
                        segments.remove((t, p, segment.0))?.ok_or_else(|| unknown(segment))?;
                    }
                    drop(segments);
                    add_to_account(change, table, one.partition, &one.account)?;
                    let record = Changed {
                        table,
                        partition: one.partition,
                        added: one.added.iter().collect(),
                        deleted: one.deleted.iter().map(|(segment, rows)| (*segment, rows.rows())).collect(),
                        retired: &one.retired,
                        left: one.left.iter().map(|(segment, _)| *segment).collect(),
                    };
                    change.record("segment.change", &record)?;
                }
                Ok(())
            })
            .map_err(|error| commit_error(&error))
    }

    fn truncate(&self, tables: &[TableId]) -> Result<()> {
        self.database
            .write(|change| {
                for id in tables {
                    check_table(change, *id, PartitionId(0))?;
                    let transaction = change.transaction();
                    let all = (id.0, 0, 0)..=(id.0, u32::MAX, u64::MAX);
                    let mut truncated = Truncated { id: *id, segments: 0, rows: 0 };
                    let mut account = Account::default();
                    {
                        let mut segments = transaction.open_table(SEGMENTS)?;
                        for entry in segments.range(all.clone())? {
                            let record = serde_json::from_slice::<SegmentRecord>(entry?.1.value())?;
                            truncated.segments += 1;
                            truncated.rows += u64::from(record.rows);
                            account.offsets.extend(record.offsets);
                        }
                        account.removed = truncated.rows;
                        segments.retain_in(all.clone(), |_, _| false)?;
                    }
                    for table in [DELETED, LOST] {
                        transaction.open_table(table)?.retain_in(all.clone(), |_, _| false)?;
                    }
                    add_to_account(change, *id, PartitionId(0), &account)?;
                    change.record("segment.truncate", &truncated)?;
                }
                Ok(())
            })
            .map_err(|error| commit_error(&error))
    }
}

/// The log's record of [`RedbMetadataLog::set_partitions`].
#[derive(Debug, Serialize)]
struct Repartitioned {
    table: TableId,
    /// How many each partition has.
    segments: Vec<usize>,
}

/// The log's record of [`MetadataLog::truncate`].
#[derive(Debug, Serialize)]
struct Truncated {
    id: TableId,
    segments: u64,
    rows: u64,
}

/// Puts a segment on the list.
fn add_segment(
    change: &Change<'_>,
    table: TableId,
    partition: PartitionId,
    segment: &SegmentRecord,
) -> database::Result<()> {
    let (t, p) = (table.0, partition.0);
    let mut segments = change.transaction().open_table(SEGMENTS)?;
    let key = (t, p, segment.id.0);
    if segments.get(key)?.is_some() {
        return Err(DatabaseError::Refused(format!("table {t} partition {p}: segment {} is not new", segment.id)));
    }
    segments.insert(key, serde_json::to_vec(segment)?.as_slice())?;
    // One that was begun before others may be committed after them.
    let mut next = change.transaction().open_table(NEXT_SEGMENT)?;
    let known = next.get((t, p))?.map_or(0, |next| next.value());
    next.insert((t, p), known.max(segment.id.0 + 1))?;
    Ok(())
}

fn row_set(bytes: &[u8]) -> database::Result<RowSet> {
    RowSet::from_bytes(bytes).map_err(|error| DatabaseError::Refused(error.to_string()))
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
