//! What UPDATE and DELETE do to a table: rows of committed segments that are not there any more, and rows that take their places.
//!
//! ```text
//! addresses, new rows ─► a segment file per partition ─► all partitions locked ─► one transaction of the metadata log ─► one moment for readers
//! ```
//!
//! A crash before the transaction leaves files that nothing names; after it everything is in place. Rows in memory are read again from their topic after a
//! crash, so nothing can be said of them that lasts: whoever changes them has the table sealed first.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    compute::{interleave, kernels::cmp},
};
use parking_lot::MutexGuard;
use tidemill_storage::{
    ids::{PartitionId, SegmentId},
    row_set::RowSet,
    scan::{Addresses, address_of},
    schema::TableSchema,
    segment::{Segment, consuming::ConsumingSegment},
    table::{Change, PreparedChange},
    upsert::{KeySpec, Provenance},
};

use super::{
    partition::{PartitionIngest, State},
    table::TableShared,
};
use crate::{
    Error, Result,
    commit::{Account, PartitionChange, SegmentRecord},
};

/// What one statement changes.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// Rows that are not there any more.
    pub gone: Addresses,
    /// Rows that take the places of some of these: the columns of `schema`, and the two of the address of the row that each was.
    pub rows: Vec<RecordBatch>,
    /// The table's, as the rows have it.
    pub schema: Arc<TableSchema>,
}

/// A segment of changed rows that nothing names yet.
struct New {
    record: SegmentRecord,
    segment: Arc<dyn Segment>,
}

/// What is done to one partition.
struct Part<'a> {
    ingest: &'a Arc<PartitionIngest>,
    gone: Vec<(SegmentId, RowSet)>,
    new: Option<New>,
}

impl TableShared {
    /// Carries a change out; it is durable and visible when this returns. An error leaves the table as it was. Blocks.
    pub(super) fn change_rows(&self, change: &RowChange) -> Result<()> {
        let mut gone: BTreeMap<PartitionId, Vec<(SegmentId, RowSet)>> = BTreeMap::new();
        for (partition, segment, rows) in change.gone.segments() {
            gone.entry(partition).or_default().push((segment, rows.clone()));
        }
        let mut parts = Vec::new();
        let partitions = self.partitions();
        for (partition, gone) in gone {
            let Some(ingest) = partitions.get(partition.0 as usize) else { continue };
            parts.push(Part { ingest, gone, new: None });
        }
        let outcome = self.change_parts(&mut parts, change);
        if outcome.is_err() {
            for part in &parts {
                part.new.iter().for_each(|new| part.ingest.remove_file(&new.record.file));
            }
        }
        // New segments have their indexes made in the background.
        self.runtime.indexer.request();
        outcome
    }

    fn change_parts(&self, parts: &mut [Part<'_>], change: &RowChange) -> Result<()> {
        let key = self.table.key().map(|key| key.as_ref());
        for part in parts.iter_mut() {
            part.new = part.ingest.write_changed(change, key, &self.name)?;
        }
        fail::fail_point!("change::written", |_| Err(Error::Unavailable("failpoint change::written".into())));
        // In the order of the partitions, as everybody locks several of them.
        let mut states: Vec<MutexGuard<'_, State>> = parts.iter().map(|part| part.ingest.state.lock()).collect();
        let mut prepared: Vec<PreparedChange> = Vec::with_capacity(parts.len());
        let mut logged = Vec::with_capacity(parts.len());
        for (part, state) in parts.iter().zip(&states) {
            if state.closed {
                return Err(Error::Unavailable(format!("table '{}' is being closed", self.name)));
            }
            if !change.rows.is_empty() && state.schema.version != change.schema.version {
                return Err(Error::Expression {
                    state: "40001",
                    message: format!(
                        "the columns of table '{}' changed meanwhile; send the statement again",
                        self.name
                    ),
                });
            }
            // A segment that retention took has taken its rows along.
            let is_there = |segment: &SegmentId| state.segments.iter().any(|known| known.id == *segment);
            let deleted: Vec<_> = part.gone.iter().filter(|(segment, _)| is_there(segment)).cloned().collect();
            logged.push(PartitionChange {
                partition: part.ingest.id,
                added: part.new.iter().map(|new| new.record.clone()).collect(),
                deleted: deleted.clone(),
                account: Account {
                    made: part.new.as_ref().map_or(0, |new| u64::from(new.record.rows)),
                    ..Default::default()
                },
                ..Default::default()
            });
            // Newer rows were merged with what these were, and stand above what becomes of them.
            if state.writer.merges() && !state.writer.are_seen(&deleted) {
                return Err(Error::Expression {
                    state: "40001",
                    message: format!(
                        "rows of table '{}' that the statement changes got newer versions meanwhile; send it again",
                        self.name
                    ),
                });
            }
            let added = part.new.as_ref().map(|new| Arc::clone(&new.segment));
            prepared.push(state.writer.prepare_change(Change { added, deleted })?);
        }
        let reported = self.runtime.log.change(self.id, &logged).and_then(|()| {
            fail::fail_point!("change::reported", |_| Err(Error::Unavailable("failpoint change::reported".into())));
            Ok(())
        });
        if let Err(error) = reported {
            match self.is_logged(&logged) {
                Ok(true) => {}
                Ok(false) => return Err(error),
                Err(_) => {
                    // Nobody knows: files that the log does not name are deleted at the next start, one that it names must be there then.
                    parts.iter_mut().for_each(|part| part.new = None);
                    return Err(error);
                }
            }
        }
        fail::fail_point!("change::logged", |_| Err(Error::Unavailable("failpoint change::logged".into())));
        let together = self.table.publishing();
        for ((part, state), prepared) in parts.iter().zip(&mut states).zip(prepared) {
            let now_us = self.runtime.clock.monotonic_us();
            for (segment, rows) in &part.gone {
                if !state.segments.iter().any(|known| known.id == *segment) {
                    continue;
                }
                state.deleted.entry(*segment).or_default().add(rows);
                state.deleted_at_us.entry(*segment).or_insert(now_us);
            }
            state.segments.extend(part.new.iter().map(|new| new.record.clone()));
            state.writer.change(prepared);
        }
        drop(together);
        Ok(())
    }

    /// Whether a change is in the metadata log although the log reported an error.
    fn is_logged(&self, changes: &[PartitionChange]) -> Result<bool> {
        fail::fail_point!("change::asked", |_| Err(Error::Unavailable("failpoint change::asked".into())));
        for change in changes {
            let known = self.runtime.log.partition(self.id, change.partition)?;
            let is_logged = change.added.iter().all(|added| known.segments.contains(added))
                && change.deleted.iter().all(|(segment, rows)| {
                    let of_segment = known.deleted.iter().find(|(id, _)| id == segment);
                    of_segment.is_some_and(|(_, all)| rows.iter().all(|row| all.contains(row)))
                });
            if !is_logged {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Where a row of a change was, and where its new version is among the batches.
type Moved = (SegmentId, u32, (usize, usize));

impl PartitionIngest {
    /// Writes the rows of a change that are of this partition.
    fn write_changed(&self, change: &RowChange, key: Option<&KeySpec>, table: &str) -> Result<Option<New>> {
        let mut moved: Vec<Moved> = Vec::new();
        for (at, batch) in change.rows.iter().enumerate() {
            for (row, address) in address_of(batch)?.into_iter().enumerate() {
                if let Some((partition, segment, position)) = address.filter(|(partition, ..)| *partition == self.id) {
                    debug_assert_eq!(partition, self.id);
                    moved.push((segment, position, (at, row)));
                }
            }
        }
        if moved.is_empty() {
            return Ok(None);
        }
        moved.sort_unstable();
        let places: Vec<(usize, usize)> = moved.iter().map(|(.., place)| *place).collect();
        let column = |index: usize| -> Result<ArrayRef> {
            let arrays: Vec<&dyn Array> = change.rows.iter().map(|batch| batch.column(index).as_ref()).collect();
            Ok(interleave(&arrays, &places)?)
        };
        let mut columns = (0..change.schema.columns.len()).map(column).collect::<Result<Vec<_>>>()?;
        if let Some(key) = key {
            let provenance = self.provenance_of(&moved, &columns, key, &change.schema, table)?;
            columns.extend(provenance.columns().iter().cloned());
        }
        let (id, written) = {
            let mut state = self.state.lock();
            (state.writer.take_id(), state.writer.written(Arc::clone(&change.schema)))
        };
        let options = RecordBatchOptions::new().with_row_count(Some(moved.len()));
        let rows = RecordBatch::try_new_with_options(written.arrow(), columns, &options)?;
        let segment = ConsumingSegment::new(id, written).with(&rows, &[])?;
        let mut leftovers = Vec::new();
        match self.write_segment(&segment, &mut leftovers) {
            Ok(written) => Ok(Some(New { record: written.record, segment: written.segment })),
            Err(error) => {
                leftovers.iter().for_each(|file| self.remove_file(file));
                Err(error)
            }
        }
    }

    /// Of new rows: that of the rows that they were, a little higher. Refuses rows with an older version than these.
    fn provenance_of(
        &self,
        moved: &[Moved],
        columns: &[ArrayRef],
        key: &KeySpec,
        schema: &TableSchema,
        table: &str,
    ) -> Result<Provenance> {
        let view = self.partition.view();
        let version = key.version.and_then(|id| Some((id, schema.index_of(id)?)));
        let mut parts = Vec::new();
        let mut start = 0;
        for run in moved.chunk_by(|a, b| a.0 == b.0) {
            let gone =
                || Error::Unavailable(format!("rows of table '{table}' are gone meanwhile; send the statement again"));
            let segment = view.segments().find(|segment| segment.id() == run[0].0).ok_or_else(gone)?;
            let rows: Vec<u32> = run.iter().map(|(_, row, _)| *row).collect();
            parts.push(Provenance::of_changed(segment.as_ref(), &rows, key.keep)?);
            if let Some((id, index)) = version {
                let old = segment.take(&[id], &rows)?;
                let new = columns[index].slice(start, run.len());
                let is_older = cmp::lt(&new, &old[0])?.true_count() > 0
                    || (0..run.len()).any(|row| new.is_null(row) && old[0].is_valid(row));
                if is_older {
                    return Err(Error::Expression {
                        state: "22023",
                        message: format!(
                            "UPDATE would give rows of table '{table}' an older version than they have (column \"{}\"), so that they would not be \
                             seen; DELETE them and INSERT others",
                            schema.columns[index].name
                        ),
                    });
                }
            }
            start += run.len();
        }
        Ok(Provenance::concat(&parts)?)
    }
}
