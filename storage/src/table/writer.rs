//! The one writer of a partition.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::SchemaRef,
};

use super::{
    Partition,
    key_map::{KeyMapFile, KeyMapUse},
};
use crate::{
    Error, Result,
    ids::{OffsetRange, SegmentId},
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, SegmentState, consuming::ConsumingSegment, quarantined::QuarantinedSegment},
    upsert::{Arriving, Leaving, Needed, Provenance, Rewrite, Validities, Winners},
};

/// The keys of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionKeys {
    /// Deleted ones among them.
    pub keys: u64,
    /// What the map of them takes, in memory and in files.
    pub bytes: u64,
    pub bytes_in_files: u64,
}

/// What a statement changes in a partition.
#[derive(Debug, Default)]
pub struct Change {
    /// A committed segment of an id of [`PartitionWriter::take_id`].
    pub added: Option<Arc<dyn Segment>>,
    /// Rows of committed segments that are not there any more. Those that take their places are in `added`.
    pub deleted: Vec<(SegmentId, RowSet)>,
}

/// Segments that are replaced by one of their rows.
#[derive(Debug, Default)]
pub struct Rewriting {
    /// Of an id of [`PartitionWriter::take_id`]; `None` where no row is left.
    pub new: Option<Arc<dyn Segment>>,
    /// For each of its rows which one it was.
    pub from: Vec<(SegmentId, u32)>,
    /// Tombstones that are not in it.
    pub dropped: Vec<(SegmentId, RowSet)>,
    pub retired: Vec<SegmentId>,
    /// Rows of others that can win no more: those that they lost against go.
    pub lost: Vec<(SegmentId, RowSet)>,
}

/// A rewriting that nothing can keep from taking place, as long as nothing else comes before it.
pub struct PreparedRewriting {
    rewriting: Rewriting,
    rewrite: Option<Rewrite>,
    /// Rows of the new segment that are not there for readers; of a table without a key.
    invalid: RowSet,
}

/// A change that nothing can keep from taking place, as long as nothing else comes before it.
pub struct PreparedChange {
    change: Change,
    joining: Option<Arriving>,
}

/// A partition without rows: nothing can keep it from being so, as long as nothing else comes before it.
pub struct PreparedClearing(Option<Winners>);
/// Keys that nothing can keep from leaving the key map, as long as nothing else comes before it.
pub struct PreparedLeaving(Leaving);

impl PreparedLeaving {
    /// Rows of the segment that are not valid, and never will be again, and more such rows of others.
    pub fn lost(&self) -> &[(SegmentId, RowSet)] {
        &self.0.lost
    }

    /// The newest time that is committed, microseconds since 1970.
    pub fn newest_us(&self) -> i64 {
        self.0.newest
    }
}

/// See the module.
#[derive(Debug)]
pub struct PartitionWriter {
    partition: Arc<Partition>,
    consuming: Arc<ConsumingSegment>,
    /// Above all ids that were given.
    next: SegmentId,
    /// Of a table with a key.
    pub(super) winners: Option<Winners>,
    /// Rows that came too late to win, of a table that tells so.
    late: u64,
}

impl PartitionWriter {
    /// Begins with an empty consuming segment `next`, which is above the id of every segment the partition ever had. For tables without a key.
    pub fn new(partition: Arc<Partition>, schema: Arc<TableSchema>, next: SegmentId) -> Self {
        let consuming = Arc::new(ConsumingSegment::new(next, schema));
        Self { partition, consuming, next: SegmentId(next.0 + 1), winners: None, late: 0 }
    }

    /// The same, also for tables with a key, and after statements that deleted rows: reads the keys of all rows that are in the partition, and decides
    /// which of them are valid. Of a segment that is damaged nobody knows which rows of others lose against its own, so that from then on every query
    /// needs it, and fails. `deleted` are rows that statements deleted, `lost` those that lost against rows that are gone.
    pub fn open(
        partition: Arc<Partition>,
        schema: Arc<TableSchema>,
        next: SegmentId,
        deleted: &[(SegmentId, RowSet)],
        lost: &[(SegmentId, RowSet)],
    ) -> Result<Self> {
        Ok(Self::open_with(partition, schema, next, deleted, lost, &[], None)?.0)
    }

    /// The same with the key map of a checkpoint, if there is one: then only the keys of segments are read that it is not about. One that cannot be used is
    /// as none. `left` are segments whose keys have left the key map, each with the newest time that was committed then: their keys are not read.
    pub fn open_with(
        partition: Arc<Partition>,
        schema: Arc<TableSchema>,
        next: SegmentId,
        deleted: &[(SegmentId, RowSet)],
        lost: &[(SegmentId, RowSet)],
        left: &[(SegmentId, i64)],
        checkpoint: Option<KeyMapFile<'_>>,
    ) -> Result<(Self, KeyMapUse)> {
        let Some(key) = partition.key.clone() else {
            partition.publish(None, Some(Validities::default().with_deleted(deleted)));
            return Ok((Self::new(partition, schema, next), KeyMapUse::None));
        };
        let written = Arc::new(key.written(&schema));
        let mut winners = Winners::new(Arc::clone(&key), &schema, &partition.key_memory)?;
        let mut used = KeyMapUse::None;
        if let Some(file) = checkpoint {
            used = file.restore(&mut winners, &partition, &schema, next, deleted, lost, left);
            if matches!(used, KeyMapUse::Refused(_)) {
                winners = Winners::new(key, &schema, &partition.key_memory)?;
            }
        }
        let known = used.segments();
        // What left by then stays away, also where the rows are gone that it was old by.
        winners.raise(left.iter().map(|(_, newest)| *newest).max());
        for segment in partition.view().segments().filter(|segment| !known.contains(&segment.id())) {
            let of_segment = |sets: &[(SegmentId, RowSet)]| {
                sets.iter().find(|(id, _)| *id == segment.id()).map(|(_, rows)| rows.clone()).unwrap_or_default()
            };
            if left.iter().any(|(id, _)| *id == segment.id()) {
                winners.add_left(segment, &of_segment(deleted), of_segment(lost));
                continue;
            }
            if let Err(error) = winners.add(segment, &of_segment(deleted), of_segment(lost)) {
                let (schema, offsets) = (Arc::clone(segment.schema()), segment.offsets().to_vec());
                let (id, rows, bytes) = (segment.id(), segment.rows(), segment.bytes());
                partition.put(Arc::new(QuarantinedSegment::new(id, rows, bytes, schema, offsets, None, error)));
            }
        }
        winners.fit();
        winners.check()?;
        partition.publish(None, Some(winners.validities()));
        partition.share(winners.shared());
        let consuming = Arc::new(ConsumingSegment::new(next, written));
        Ok((Self { partition, consuming, next: SegmentId(next.0 + 1), winners: Some(winners), late: 0 }, used))
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The consuming segment as readers see it now.
    pub fn consuming(&self) -> &ConsumingSegment {
        &self.consuming
    }

    /// The keys of the partition; none without a key.
    pub fn keys(&self) -> PartitionKeys {
        self.winners.as_ref().map_or_else(PartitionKeys::default, |winners| {
            let (bytes, bytes_in_files) = winners.bytes();
            PartitionKeys { keys: winners.keys(), bytes, bytes_in_files }
        })
    }

    /// Whether rows that take the places of others are merged with them.
    pub fn merges(&self) -> bool {
        self.winners.as_ref().is_some_and(Winners::merges)
    }

    /// Whether all of these rows are there for readers still: none was deleted, and none has a newer one in its place.
    pub fn are_seen(&self, rows: &[(SegmentId, RowSet)]) -> bool {
        let view = self.partition.view();
        rows.iter().all(|(segment, rows)| {
            view.validities().of(*segment).is_none_or(|validity| rows.iter().all(|row| validity.is_valid(row)))
        })
    }

    /// Appends rows and the offsets they came from; both are visible to every snapshot taken after the return. `batch` has the columns
    /// of the table's schema, in order. Each range must begin where the previous one of its stream ended. An
    /// empty batch moves offsets alone. For tables without a key.
    pub fn append(&mut self, batch: &RecordBatch, progress: &[OffsetRange]) -> Result<()> {
        if self.winners.is_some() {
            return Err(Error::Invalid("rows of a table with a key came from nowhere".into()));
        }
        self.consuming = Arc::new(self.consuming.with(batch, progress)?);
        self.publish();
        Ok(())
    }

    /// As [`Self::append`], for all tables; `provenance` has an entry for each row. In a table with a key the rows that lose by it, and those
    /// that lose against them, are not there for readers from the same moment on. A table that merges
    /// rows takes them in the schema of [`KeySpec::arriving`](crate::upsert::KeySpec::arriving). An error leaves everything as it was.
    pub fn append_from(
        &mut self,
        batch: &RecordBatch,
        provenance: impl FnOnce() -> Provenance,
        progress: &[OffsetRange],
    ) -> Result<()> {
        self.prepare(batch, provenance, progress)?;
        self.publish();
        Ok(())
    }

    /// The same, not visible before [`Self::publish`], which must come before anything else.
    pub fn prepare(
        &mut self,
        batch: &RecordBatch,
        provenance: impl FnOnce() -> Provenance,
        progress: &[OffsetRange],
    ) -> Result<()> {
        let Some(winners) = &mut self.winners else {
            self.consuming = Arc::new(self.consuming.with(batch, progress)?);
            return Ok(());
        };
        let written = self.consuming.schema();
        let arrow = written.arrow();
        let mut columns = winners.with_provenance(batch, &provenance())?;
        let mut arriving = winners.arriving(written, &columns)?;
        let mut late_rows = 0;
        if let Some(at) = winners.late_column().and_then(|column| written.index_of(column)) {
            let late = winners.late(&arriving);
            late_rows = late.true_count() as u64;
            columns[at] = Arc::new(late);
        }
        if winners.merges() {
            columns = winners.merged(written, &mut arriving, &columns)?;
        }
        let count = columns.first().map_or(0, |column| column.len());
        let mut rows = batch_of(&arrow, columns, count)?;
        if let Some(wanted) = winners.wanted(&arriving) {
            rows = filter_record_batch(&rows, &wanted)?;
            arriving = winners.arriving_wanted(written, rows.columns(), &arriving)?;
        }
        let next = Arc::new(self.consuming.with(&rows, progress)?);
        if rows.num_rows() > 0 {
            winners.appended(Arc::clone(&next) as Arc<dyn Segment>, self.consuming.rows(), &arriving);
            winners.check()?;
        }
        winners.took(&arriving);
        self.consuming = next;
        self.late += late_rows;
        Ok(())
    }

    /// Rows that came too late since the partition was opened: to win, of a table that tells so of its rows, or by their age (`upsert::ages`).
    pub fn late_rows(&self) -> u64 {
        self.late + self.winners.as_ref().map_or(0, Winners::late_by_age)
    }

    /// Shows readers what was prepared.
    pub fn publish(&mut self) {
        let consuming = Arc::clone(&self.consuming) as Arc<dyn Segment>;
        self.partition.publish(Some(consuming), self.winners.as_ref().map(Winners::validities));
    }

    /// Ends the consuming segment and begins the next one, under `schema`. The ended segment stays visible as *sealing* until
    /// [`Self::replace`] is told of its file. `None` when it has neither rows nor offsets; then the schema is changed in place.
    pub fn rotate(&mut self, schema: Arc<TableSchema>) -> Option<Arc<ConsumingSegment>> {
        if self.consuming.rows() == 0 && self.consuming.offsets().is_empty() {
            self.consuming = Arc::new(ConsumingSegment::new(self.consuming.id(), self.written(schema)));
            return None;
        }
        Some(self.end(schema))
    }

    /// The same, also when it has neither.
    pub fn end(&mut self, schema: Arc<TableSchema>) -> Arc<ConsumingSegment> {
        let ended = Arc::new(self.consuming.with_state(SegmentState::Sealing));
        self.partition.put(Arc::clone(&ended) as Arc<dyn Segment>);
        let next = self.take_id();
        self.consuming = Arc::new(ConsumingSegment::new(next, self.written(schema)));
        ended
    }

    /// An id that no segment of the partition has or had.
    pub fn take_id(&mut self) -> SegmentId {
        let id = self.next;
        self.next = SegmentId(id.0 + 1);
        id
    }

    /// Reads what a change meets, for [`Self::change`], which has to follow before anything else. An error leaves everything as it was.
    pub fn prepare_change(&self, change: Change) -> Result<PreparedChange> {
        let joining = match (&self.winners, &change.added) {
            (Some(winners), Some(segment)) => Some(winners.joining(segment)?),
            _ => None,
        };
        Ok(PreparedChange { change, joining })
    }

    /// Shows readers the partition without the deleted rows and with those of the new segment, in one swap.
    pub fn change(&mut self, prepared: PreparedChange) {
        let PreparedChange { change: Change { added, deleted }, joining } = prepared;
        let validities = match &mut self.winners {
            None => self.partition.view().validities().with_deleted(&deleted),
            Some(winners) => {
                deleted.iter().for_each(|(segment, rows)| winners.delete(*segment, rows));
                if let (Some(segment), Some(joining)) = (&added, &joining) {
                    winners.join(segment, joining);
                }
                winners.validities()
            }
        };
        self.partition.publish(added, Some(validities));
    }

    /// The rows of a committed segment that are to be kept beside those that are valid. None without a key.
    pub fn needed(&self, segment: SegmentId) -> Result<Needed> {
        self.winners.as_ref().map_or_else(|| Ok(Needed::default()), |winners| winners.needed(segment))
    }

    /// Of the other committed segments the rows that have lost and will not win, whatever becomes of rows in memory. None without a key, where no row
    /// loses against another.
    pub fn lost_for_good(&self, apart_from: &[SegmentId]) -> Result<Vec<(SegmentId, RowSet)>> {
        self.winners.as_ref().map_or_else(|| Ok(Vec::new()), |winners| winners.lost_for_good(apart_from))
    }

    /// Rows of a segment that are not valid whatever becomes of others: they came late, or lost against rows that are gone. Those of a segment in memory are to
    /// be committed with it.
    pub fn lost(&self, segment: SegmentId) -> RowSet {
        self.winners.as_ref().map_or_else(RowSet::default, |winners| winners.lost(segment))
    }

    /// What the commit of a segment in memory makes lost: rows of it, numbered as in memory, and of committed ones. To be told with the commit, and to
    /// [`Self::lose`] after it.
    pub fn lost_with(&self, segment: SegmentId) -> Result<Vec<(SegmentId, RowSet)>> {
        self.winners.as_ref().map_or_else(|| Ok(Vec::new()), |winners| winners.lost_with(segment))
    }

    /// Rows of committed segments are lost, as the log says: they are not valid already.
    pub fn lose(&mut self, lost: &[(SegmentId, RowSet)]) {
        if let Some(winners) = &mut self.winners {
            winners.lose(lost);
        }
    }

    /// Whether rows of one key may be seen beside each other (`upsert::ages`).
    pub fn has_distant_rows(&self) -> bool {
        self.partition.key.as_ref().is_some_and(|key| key.ages.is_some_and(|ages| ages.key_us.is_some()))
    }

    /// Committed segments whose keys are old enough to leave the key map.
    pub fn may_leave(&self) -> Vec<SegmentId> {
        self.winners.as_ref().map_or_else(Vec::new, Winners::may_leave)
    }

    /// Reads what [`Self::leave`] needs, which has to follow before anything else; `fingerprints` are those of [`Partition::key_fingerprints`]. `None`: not
    /// now.
    pub fn prepare_leaving(&self, segment: SegmentId, fingerprints: &[u64]) -> Result<Option<PreparedLeaving>> {
        let Some(winners) = &self.winners else { return Ok(None) };
        Ok(winners.prepare_leaving(segment, fingerprints)?.map(PreparedLeaving))
    }

    /// The keys of a segment leave the key map; its rows stay as they are.
    pub fn leave(&mut self, prepared: &PreparedLeaving) {
        if let Some(winners) = &mut self.winners {
            winners.leave(&prepared.0);
        }
    }

    /// Whether all rows of a committed segment are old enough for its tombstones to be forgotten.
    pub fn may_forget(&self, segment: &dyn Segment) -> bool {
        self.winners.as_ref().is_some_and(|winners| winners.may_forget(segment))
    }

    /// Those of the tombstones of a committed segment that are old enough to be forgotten.
    pub fn forgotten(&self, segment: &dyn Segment, tombstones: &RowSet) -> Result<RowSet> {
        self.winners.as_ref().map_or_else(|| Ok(RowSet::default()), |winners| winners.forgotten(segment, tombstones))
    }

    /// Reads what [`Self::rewrite`] needs, which has to follow before anything else. An error leaves everything as it was.
    pub fn prepare_rewrite(&self, rewriting: Rewriting) -> Result<PreparedRewriting> {
        let Rewriting { new, from, dropped, .. } = &rewriting;
        if new.as_ref().map_or(0, |new| new.rows() as usize) != from.len() {
            return Err(Error::Invalid("a rewritten segment has other rows than those that it is of".into()));
        }
        let (rewrite, invalid) = match &self.winners {
            Some(winners) => (Some(winners.prepare_rewrite(new.as_ref(), from, dropped)?), RowSet::default()),
            None => {
                let view = self.partition.view();
                let is_gone = |(id, row): &(SegmentId, u32)| {
                    view.validities().of(*id).is_some_and(|validity| !validity.is_valid(*row))
                };
                (None, (0..).zip(from).filter(|(_, old)| is_gone(old)).map(|(row, _)| row).collect())
            }
        };
        Ok(PreparedRewriting { rewriting, rewrite, invalid })
    }

    /// Puts a segment in the places of those that its rows were in, in one swap.
    pub fn rewrite(&mut self, prepared: PreparedRewriting) {
        let PreparedRewriting { rewriting: Rewriting { new, retired, lost, .. }, rewrite, invalid } = prepared;
        let validities = match (&mut self.winners, &rewrite) {
            (Some(winners), Some(rewrite)) => {
                winners.rewrite(rewrite, new.as_ref(), &retired, &lost);
                winners.validities()
            }
            _ => {
                let known = self.partition.view().validities().without(&retired);
                known.with_deleted(&new.iter().map(|new| (new.id(), invalid.clone())).collect::<Vec<_>>())
            }
        };
        self.partition.exchange(new, &retired, validities);
    }

    /// Prepares [`Self::clear`], which has to follow before anything else. The consuming segment must be without rows. An error leaves everything as it was.
    pub fn prepare_clearing(&self, schema: &TableSchema) -> Result<PreparedClearing> {
        if self.consuming.rows() > 0 {
            return Err(Error::Invalid("a partition with rows in memory cannot be emptied".into()));
        }
        Ok(PreparedClearing(self.winners.as_ref().map(|winners| winners.emptied(schema)).transpose()?))
    }

    /// Takes all segments away and forgets all keys, in one swap.
    pub fn clear(&mut self, prepared: PreparedClearing) {
        let all: Vec<SegmentId> = self.partition.view().segments().map(|segment| segment.id()).collect();
        self.winners = prepared.0;
        self.partition.exchange(None, &all, Validities::default());
        // After the view: a map that knows no keys would speak of a view that has some.
        if let Some(winners) = &self.winners {
            self.partition.share(winners.shared());
        }
    }

    /// The schema that segments of the table's schema are written under.
    pub fn written(&self, schema: Arc<TableSchema>) -> Arc<TableSchema> {
        match &self.partition.key {
            Some(key) => Arc::new(key.written(&schema)),
            None => schema,
        }
    }

    /// Puts a segment in the place of the one that it was written from. `order` has for each of its rows which it was there, where that is another.
    /// An error leaves everything as it was.
    pub fn replace(&mut self, segment: Arc<dyn Segment>, order: Option<&[u32]>) -> Result<()> {
        if let (None, Some(committed)) = (order, segment.as_committed()) {
            let view = self.partition.view();
            let is_same = |known: &&Arc<dyn Segment>| known.id() == segment.id() && known.rows() == segment.rows();
            // Whoever has read the rows in memory needs not read them again.
            if let Some(known) = view.segments().find(is_same) {
                committed.continue_lineage(known.lineage());
            }
        }
        let Some(winners) = &mut self.winners else {
            self.partition.put(segment);
            return Ok(());
        };
        winners.replace(Arc::clone(&segment), order)?;
        self.partition.publish(Some(segment), Some(winners.validities()));
        Ok(())
    }

    /// Puts a sound segment in the place of itself as it was damaged.
    pub fn heal(&mut self, segment: Arc<dyn Segment>) {
        if let Some(winners) = &mut self.winners {
            winners.heal(&segment);
        }
        self.partition.put(segment);
    }
}

fn batch_of(arrow: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(arrow), columns, &options)
        .map_err(|error| Error::Invalid(format!("a batch does not fit the table's columns: {error}")))
}
