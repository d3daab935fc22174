//! Committed segments written again as one; see [`crate::compaction`] for which.
//!
//! | a crash after | leaves | and then |
//! |---|---|---|
//! | the new file | a file that nothing names | it is deleted at start |
//! | the transaction | old files that nothing names | they are deleted at start |

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar as ScalarArray, new_null_array},
    compute::kernels::zip::zip,
};
use tidemill_storage::{
    evaluate::zero_array,
    ids::{ColumnId, OffsetRange, PartitionId, SegmentId},
    row_set::RowSet,
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::TableSchema,
    segment::{Segment, consuming::ConsumingSegment},
    table::Rewriting,
    upsert::{KeySpec, Validity, is_provenance},
};

use super::{
    committing::Written,
    partition::{PartitionIngest, State},
    table::TableShared,
};
use crate::{
    Error, Result,
    commit::{Account, PartitionChange, SegmentRecord},
    compaction::{Facts, When, Why, Wished, choose},
    events::Severity,
};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 64 * 1024;

/// A new segment, if any row is left, and which row each of its rows was before it was put in order.
type Rewritten = (Option<Written>, Vec<(SegmentId, u32)>);

/// A segment whose rows go to another one.
pub(super) struct Source {
    pub(super) segment: Arc<dyn Segment>,
    /// Rows that are not valid and stay as the tombstones of their keys; of them only key and rank.
    pub(super) tombstones: RowSet,
    /// Tombstones that are old enough to be forgotten.
    forgotten: RowSet,
    /// How many stay because a crash may bring them back.
    held: u32,
    /// Rows that stay, ascending: those that are seen, tombstones, and those that a crash may bring back.
    pub(super) kept: Vec<u32>,
}

/// Compaction that somebody waits for.
pub(crate) struct AtOnce {
    /// Of each partition, the last segment that it had when that was asked for.
    last: HashMap<PartitionId, SegmentId>,
    /// Small segments come as long as rows come: so often they are put together.
    merges_left: usize,
}

impl TableShared {
    /// Takes rows that nobody sees out of the segments that there are, and puts small ones together; how many were written again. Returns although
    /// rows go on coming. Blocks.
    pub(crate) fn compact_at_once(&self) -> Result<u64> {
        let partitions = self.partitions();
        let last = |partition: &Arc<PartitionIngest>| {
            let view = partition.partition.view();
            (partition.id, view.segments().map(|segment| segment.id()).max().unwrap_or_default())
        };
        let mut asked = AtOnce { last: partitions.iter().map(last).collect(), merges_left: 0 };
        asked.merges_left = partitions.iter().map(|partition| partition.partition.view().segments().count()).sum();
        let mut written = 0;
        while let Some(segments) = self.compact_next(Some(&mut asked))? {
            written += segments as u64;
        }
        Ok(written)
    }

    /// Writes the segments again that are most worth it; how many there were. `None`: none are. Blocks.
    pub(crate) fn compact_next(&self, mut asked: Option<&mut AtOnce>) -> Result<Option<usize>> {
        // The table's files stay as long as this is held.
        let closed = self.compacting.lock();
        if *closed {
            return Ok(None);
        }
        for partition in self.partitions().iter() {
            loop {
                let (facts, wished) = partition.compaction_facts();
                let when = match &asked {
                    None => When::InTime,
                    // Partitions that are new since then have no such segments.
                    Some(asked) => When::AtOnce { last: asked.last.get(&partition.id).copied().unwrap_or_default() },
                };
                let Some((why, ids)) = choose(&facts, wished, when) else { break };
                if why == Why::Small
                    && let Some(asked) = &mut asked
                {
                    match asked.merges_left.checked_sub(1) {
                        Some(left) => asked.merges_left = left,
                        None => return Ok(None),
                    }
                }
                if partition.rewrite(self, why, &ids, &RowSet::default())? {
                    return Ok(Some(ids.len()));
                }
                // Now it is known of these that they have none; others may.
                if why != Why::Forgotten {
                    break;
                }
            }
        }
        Ok(None)
    }
}

impl PartitionIngest {
    pub(super) fn compaction_facts(&self) -> (Vec<Facts>, Wished) {
        let (monotonic_us, now_us) = (self.runtime.clock.monotonic_us(), self.runtime.clock.now_us());
        let state = self.state.lock();
        let view = self.partition.view();
        let facts = |segment: &Arc<dyn Segment>| {
            let record = state.segments.iter().find(|record| record.id == segment.id())?;
            segment.as_committed()?;
            let held = state.held.get(&record.id);
            let stale = view.validities().of(record.id).map_or(0, |validity| validity.invalid());
            Some(Facts {
                id: record.id,
                rows: record.rows,
                bytes: record.bytes,
                invalid: {
                    // Tombstones stay however often they are written, and what is kept for a crash.
                    let stays = match record.keys_left_us {
                        None => record.tombstones as u32 + held.copied().unwrap_or(0),
                        Some(_) => 0,
                    };
                    stale.saturating_sub(stays)
                },
                deleted_us: match held {
                    None => state.deleted_at_us.get(&record.id).map(|at_us| monotonic_us - at_us),
                    Some(_) => None,
                },
                age_us: now_us - record.committed_at_us,
                left: record.keys_left_us.is_some(),
                forgets: stale > 0
                    && !state.unforgettable.contains(&record.id)
                    && state.writer.may_forget(segment.as_ref()),
            })
        };
        let wished = Wished { rows: state.policy.rows.unwrap_or(u64::MAX), bytes: state.policy.bytes };
        (view.segments().filter_map(facts).collect(), wished)
    }

    /// A committed segment, and which of its rows stay; `validity` is of a moment before. Of `erased` rows tombstones do not stay.
    pub(super) fn source_of(
        &self,
        segment: &Arc<dyn Segment>,
        validity: Option<&Arc<Validity>>,
        erased: &RowSet,
    ) -> Result<Source> {
        let (needed, mut forgotten) = {
            let state = self.state.lock();
            let needed = state.writer.needed(segment.id())?;
            let forgotten = state.writer.forgotten(segment.as_ref(), &needed.tombstones)?;
            (needed, forgotten)
        };
        forgotten.add(&needed.tombstones.iter().filter(|row| erased.contains(*row)).collect());
        let is_kept = |row: &u32| {
            validity.is_none_or(|known| known.is_valid(*row)) || needed.contains(*row) && !forgotten.contains(*row)
        };
        let kept: Vec<u32> = (0..segment.rows()).filter(is_kept).collect();
        let held = needed.beaten.rows() as u32;
        let tombstones = needed.tombstones.iter().filter(|row| !forgotten.contains(*row)).collect();
        Ok(Source { segment: Arc::clone(segment), tombstones, forgotten, held, kept })
    }

    /// Puts one segment in the places of some, without the tombstones among `erased` rows. False when they are not what they were, or nothing is gained. An error leaves everything as it was.
    pub(super) fn rewrite(&self, table: &TableShared, why: Why, ids: &[SegmentId], erased: &RowSet) -> Result<bool> {
        let view = self.partition.view();
        let mut sources = Vec::new();
        for id in ids {
            let Some(segment) = view.segments().find(|segment| segment.id() == *id) else { return Ok(false) };
            sources.push(self.source_of(segment, view.validities().of(*id), erased)?);
        }
        if why == Why::Forgotten && sources.iter().all(|source| source.forgotten.is_empty()) {
            self.state.lock().unforgettable.extend(ids);
            return Ok(false);
        }
        let before: u64 = sources.iter().map(|source| u64::from(source.segment.rows())).sum();
        let kept: usize = sources.iter().map(|source| source.kept.len()).sum();
        let mut leftovers = Vec::new();
        let written = self.write_rewritten(table, &sources, &mut leftovers);
        let outcome = written.and_then(|(new, mut from)| {
            if let Some(Written { order: Some(order), .. }) = &new {
                from = order.iter().map(|row| from[*row as usize]).collect();
            }
            if let Some(new) = &new {
                // Queries go on with the indexes that they had.
                self.index(&new.segment);
            }
            fail::fail_point!("compact::written", |_| Err(Error::Unavailable("failpoint compact::written".into())));
            // After a statement that changes rows, never in the middle of one: it knows rows by their places.
            let _turn = table.changing.blocking_lock();
            // No segment is committed meanwhile: rows in memory that lost against what goes are lost with the commit of theirs.
            let _working = self.working.lock();
            self.exchange(table, new, from, &sources, ids, &mut leftovers)
        });
        if !matches!(outcome, Ok(true)) {
            leftovers.iter().for_each(|file| self.remove_segment_file(file));
            return outcome;
        }
        let message = format!(
            "{} of table '{}' partition {} ({before} rows) became one of {kept} rows{}",
            if ids.len() == 1 { "a segment".to_owned() } else { format!("{} segments", ids.len()) },
            self.table_name,
            self.id,
            match why {
                Why::Purge => ", because rows of it were deleted",
                Why::Forgotten => ", because tombstones of it are forgotten",
                Why::Erased => ", because rows of it are to be in no file",
                Why::Stale | Why::Small => "",
            }
        );
        self.event(Severity::Info, "compacted", None, message);
        Ok(true)
    }

    /// Writes the rows that stay.
    fn write_rewritten(
        &self,
        table: &TableShared,
        sources: &[Source],
        leftovers: &mut Vec<String>,
    ) -> Result<Rewritten> {
        let (id, written) = {
            let mut state = self.state.lock();
            let schema = Arc::clone(&state.schema);
            (state.writer.take_id(), state.writer.written(schema))
        };
        let mut rows = ConsumingSegment::new(id, Arc::clone(&written));
        let mut from = Vec::new();
        for source in sources {
            let mut at = 0;
            for batch in source.batches(&written)? {
                let batch = batch?;
                let of_batch = &source.kept[at..at + batch.num_rows()];
                at += batch.num_rows();
                rows =
                    rows.with(&source.blanked(batch, of_batch, &written, table.table.key().map(AsRef::as_ref))?, &[])?;
                from.extend(of_batch.iter().map(|row| (source.segment.id(), *row)));
            }
            if at != source.kept.len() {
                let message = format!("segment {} gave {at} rows, not {}", source.segment.id(), source.kept.len());
                return Err(Error::Storage(tidemill_storage::Error::Invalid(message)));
            }
        }
        if from.is_empty() {
            return Ok((None, from));
        }
        let rows = rows.with(&RecordBatch::new_empty(written.arrow()), &offsets(sources))?;
        Ok((Some(self.write_segment(&rows, leftovers)?), from))
    }

    /// The swap. False when a segment is gone meanwhile. The file of the new segment is taken out of `leftovers` where the metadata log may name it.
    fn exchange(
        &self,
        table: &TableShared,
        new: Option<Written>,
        from: Vec<(SegmentId, u32)>,
        sources: &[Source],
        ids: &[SegmentId],
        leftovers: &mut Vec<String>,
    ) -> Result<bool> {
        let mut state = self.state.lock();
        let state: &mut State = &mut state;
        let old: Vec<_> = state.segments.iter().filter(|record| ids.contains(&record.id)).cloned().collect();
        if state.closed || old.len() != ids.len() {
            return Ok(false);
        }
        // What statements deleted stays deleted, also what they deleted while the rows were being written.
        let is_deleted = |(id, row): &(SegmentId, u32)| state.deleted.get(id).is_some_and(|rows| rows.contains(*row));
        let deleted: RowSet = (0..).zip(&from).filter(|(_, old)| is_deleted(old)).map(|(row, _)| row).collect();
        let is_blank = |(id, row): &(SegmentId, u32)| {
            sources.iter().any(|source| source.segment.id() == *id && source.tombstones.contains(*row))
        };
        let purged = deleted.iter().filter(|row| is_blank(&from[*row as usize])).count() as u64;
        let tombstones = sources.iter().map(|source| source.tombstones.rows()).sum();
        let dropped: Vec<_> = (sources.iter().filter(|source| !source.forgotten.is_empty()))
            .map(|source| (source.segment.id(), source.forgotten.clone()))
            .collect();
        // What lost against tombstones that are forgotten would win at the next start; and where rows of a key may be far from each other, what lost against
        // rows that lost themselves and are not written again.
        let keeps_away = !dropped.is_empty() || state.writer.has_distant_rows();
        let lost = if keeps_away { state.writer.lost_for_good(ids)? } else { Vec::new() };
        let prepared = state.writer.prepare_rewrite(Rewriting {
            new: new.as_ref().map(|new| Arc::clone(&new.segment)),
            from,
            retired: ids.to_vec(),
            dropped,
            lost: lost.clone(),
        })?;
        let keys_left_us = old.iter().map(|record| record.keys_left_us).collect::<Option<Vec<_>>>();
        let keys_left_us = keys_left_us.and_then(|all| all.into_iter().max());
        let record = new.map(|new| SegmentRecord { tombstones, purged, keys_left_us, ..new.record });
        let id = record.as_ref().map(|record| record.id);
        // Of tables without a key what is not there any more was deleted.
        let removed = match table.table.key() {
            Some(_) => sources.iter().map(|source| source.forgotten.rows()).sum(),
            None => sources.iter().map(|source| u64::from(source.segment.rows()) - source.kept.len() as u64).sum(),
        };
        let offsets = if removed > 0 { offsets(sources) } else { Vec::new() };
        let change = PartitionChange {
            account: Account { made: 0, removed, offsets },
            partition: self.id,
            added: record.iter().cloned().collect(),
            deleted: id.filter(|_| !deleted.is_empty()).map(|id| (id, deleted.clone())).into_iter().collect(),
            retired: ids.to_vec(),
            lost,
            ..Default::default()
        };
        if let Err(error) = self.runtime.log.change(self.table, &[change]) {
            let files = std::mem::take(leftovers);
            let known = self.runtime.log.partition(self.table, self.id)?;
            if known.segments.iter().any(|record| ids.contains(&record.id)) {
                *leftovers = files;
                return Err(error);
            }
        }
        fail::fail_point!("compact::logged", |_| Err(Error::Unavailable("failpoint compact::logged".into())));
        state.forget(ids);
        state.segments.extend(record);
        let held = sources.iter().map(|source| source.held).sum();
        state.held.extend(id.filter(|_| held > 0).map(|id| (id, held)));
        if let Some(id) = id.filter(|_| !deleted.is_empty()) {
            if deleted.rows() > purged {
                state.deleted_at_us.insert(id, self.runtime.clock.monotonic_us());
            }
            state.deleted.insert(id, deleted);
        }
        state.writer.rewrite(prepared);
        // Readers that still hold a segment keep its pages: an unlinked file lives until its last map is gone.
        old.iter().for_each(|record| self.remove_segment_file(&record.file));
        Ok(true)
    }
}

impl Source {
    pub(super) fn batches(
        &self,
        written: &Arc<TableSchema>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let rows = self.segment.rows();
        let request = Arc::new(ScanRequest {
            schema: Arc::clone(written),
            projection: written.columns.iter().map(|column| column.id).collect(),
            predicate: None,
            limit: None,
            batch_rows: BATCH_ROWS,
            hints: ScanHints::default(),
        });
        let mut segment = Arc::clone(&self.segment);
        if self.kept.len() < rows as usize {
            let mut kept = self.kept.iter().copied().peekable();
            let gone = (0..rows).filter(|row| kept.next_if_eq(row).is_none());
            segment = segment.masked(Arc::new(gone.collect::<Validity>()));
        }
        let batches = segment.scan(0..rows, request, Arc::new(ScanMetrics::default()))?;
        Ok(batches.map(|batch| Ok(batch?)))
    }

    /// Of tombstones only what keeps older rows of their keys away.
    pub(super) fn blanked(
        &self,
        batch: RecordBatch,
        rows: &[u32],
        written: &TableSchema,
        key: Option<&KeySpec>,
    ) -> Result<RecordBatch> {
        let blank: BooleanArray = rows.iter().map(|row| Some(self.tombstones.contains(*row))).collect();
        let Some(key) = key.filter(|_| blank.true_count() > 0) else { return Ok(batch) };
        let stays = |id: ColumnId| key.needs(id) || is_provenance(id);
        let column = |(index, array): (usize, &ArrayRef)| -> Result<ArrayRef> {
            let column = &written.columns[index];
            if stays(column.id) {
                return Ok(Arc::clone(array));
            }
            let nothing = match column.nullable {
                true => new_null_array(array.data_type(), 1),
                false => zero_array(&column.data_type)?,
            };
            Ok(zip(&blank, &ScalarArray::new(nothing), array)?)
        };
        let columns = batch.columns().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

/// The messages that the rows came from: of a stream from the first to the last of all sources.
fn offsets(sources: &[Source]) -> Vec<OffsetRange> {
    let mut all: Vec<OffsetRange> = Vec::new();
    sources.iter().for_each(|source| merged_offsets(&mut all, source.segment.offsets()));
    all
}

/// Adds the messages of more rows.
pub(super) fn merged_offsets(all: &mut Vec<OffsetRange>, more: &[OffsetRange]) {
    for range in more {
        match all.iter_mut().find(|known| known.stream == range.stream) {
            Some(known) => (known.from, known.to) = (known.from.min(range.from), known.to.max(range.to)),
            None => all.push(*range),
        }
    }
}
