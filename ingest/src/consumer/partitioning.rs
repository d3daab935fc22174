//! Another number of partitions for a table that runs: `ALTER TABLE t SET (partitions = n)`.
//!
//! ```text
//! committed segments ─ rows by their owner among the new partitions ─► files that nothing names        rows go on coming
//! no rows come ─► seal ─► the rest likewise ─► new partitions opened beside the old ones ─► one transaction ─► one moment for readers
//! ```
//!
//! With a key every row goes to the partition that owns its key from then on, so all segments are written again; what is needed of them is what
//! compaction needs: rows that are seen, and tombstones. Without a key rows stay where they are, but for those of partitions that go; what changes is
//! which partition takes the rows of a stream next. A new partition begins as at a start: with segments, offsets and dead letters as the metadata log
//! has them.
//!
//! | a crash | leaves | and then |
//! |---|---|---|
//! | before the transaction | files that nothing names | they are deleted at start; the table has the partitions that it had |
//! | after it | files, and directories of partitions, that nothing names | they are deleted at start; the table has the new ones |
//!
//! What always holds: a row of a file is in one partition before the transaction, and in one after it; of each stream every partition that has rows of it
//! ends at the same offset when the step is taken, or it is not taken.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{array::RecordBatch, array::UInt32Array, compute::take_record_batch};
use tidemill_storage::{
    Error as StorageError,
    ids::{OffsetRange, PartitionId, SegmentId, StreamId},
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, SegmentState, consuming::ConsumingSegment},
    table::Partition,
    upsert::{KEY_MAP_FILE, KeySpec},
};

use super::{
    committing::Folder,
    partition::PartitionIngest,
    partition_directory,
    rewriting::{Source, merged_offsets},
    table::TableShared,
};
use crate::{
    Error, Result,
    commit::{PartitionState, SegmentRecord},
    dead_letters::{self, DeadLetter, DeadLetterReader},
    events::Severity,
    route,
    seal::SealPolicy,
};

/// Writes what the new partitions of a table hold to the metadata log, together with their number.
pub type RecordPartitions<'a> = dyn Fn(&[PartitionState]) -> Result<(), NotRecorded> + 'a;

/// The metadata log reported an error.
#[derive(Debug)]
pub struct NotRecorded {
    pub error: Error,
    /// Whether it is known that nothing happened.
    pub is_known: bool,
}

/// What a new partition holds.
#[derive(Default)]
struct Held {
    state: PartitionState,
    segments: Vec<Arc<dyn Segment>>,
}

/// Bytes of rows that wait for their files, of all new partitions together.
const WAITING_BYTES_MAX: u64 = 256 << 20;

/// A partition of the table as it will be.
struct Target {
    id: PartitionId,
    directory: PathBuf,
    /// The partition that has the directory now, and gives the ids of segments.
    now: Option<Arc<PartitionIngest>>,
    /// Where there is none: the next id.
    next: SegmentId,
    waiting: Option<Waiting>,
    written: Vec<Written>,
}

/// Rows that are not in a file yet.
struct Waiting {
    rows: ConsumingSegment,
    offsets: Vec<OffsetRange>,
    tombstones: u64,
    /// Rows that statements deleted; all of them tombstones.
    deleted: RowSet,
}

struct Written {
    record: SegmentRecord,
    segment: Arc<dyn Segment>,
    deleted: RowSet,
}

/// The rows of a table on their way to other partitions.
struct Division<'a> {
    table: &'a TableShared,
    old: &'a [Arc<PartitionIngest>],
    key: Option<Arc<KeySpec>>,
    /// As segments are written.
    written: Arc<TableSchema>,
    policy: SealPolicy,
    targets: Vec<Target>,
    /// Segments whose rows were taken.
    taken: HashSet<(PartitionId, SegmentId)>,
    /// Files that nothing names yet, with their directories.
    files: &'a mut Vec<(PathBuf, String)>,
}

impl TableShared {
    /// Gives the table `count` partitions; durable and visible at return. `record` writes what the new partitions hold to the metadata log, together with
    /// their number. An error leaves everything as it was. Blocks as long as it takes to write the rows again that go elsewhere; rows that come wait only
    /// at the end.
    pub(super) fn repartition(&self, directory: &Path, count: u32, record: &RecordPartitions<'_>) -> Result<()> {
        // No segments are put together, no key maps written, no statements change rows, and retention takes none.
        let closed = self.compacting.lock();
        let closing = || Error::Unavailable(format!("table '{}' is being closed", self.name));
        if *closed {
            return Err(closing());
        }
        let _turn = self.changing.blocking_lock();
        let old = self.partitions();
        if old.len() == count as usize || count == 0 {
            return Ok(());
        }
        let mut files = Vec::new();
        let outcome = self.divide(directory, &old, count, record, &mut files);
        match &outcome {
            Ok(()) => {
                let message = format!("table '{}' has {count} partitions, after {}", self.name, old.len());
                self.event(Severity::Info, "repartitioned", message);
                self.runtime.indexer.request();
            }
            Err(_) => files.iter().for_each(|(directory, file)| remove(&directory.join(file))),
        }
        outcome
    }

    fn divide(
        &self,
        directory: &Path,
        old: &Arc<Vec<Arc<PartitionIngest>>>,
        count: u32,
        record: &RecordPartitions<'_>,
        files: &mut Vec<(PathBuf, String)>,
    ) -> Result<()> {
        let mut division = Division::begin(self, directory, old, count, files)?;
        division.take_segments()?;
        fail::fail_point!("repartition::copied", |_| Err(Error::Unavailable("failpoint".into())));
        // From here on no rows come.
        let _still = self.still.blocking_write();
        let wanted: Vec<u64> = old.iter().map(|partition| partition.seal_now()).collect();
        for (partition, wanted) in old.iter().zip(wanted) {
            futures::executor::block_on(partition.wait_sealed(wanted))?;
        }
        division.take_segments()?;
        division.flush_all()?;
        let held = division.states()?;
        let (schema, generation, policy) = old[0].settings();
        let partitions = self.table.unattached(count);
        let mut opened = Vec::with_capacity(partitions.len());
        for (partition, held) in partitions.iter().zip(&held) {
            held.segments.iter().for_each(|segment| partition.put(Arc::clone(segment)));
            opened.push(self.opened(directory, partition, &held.state, &schema, generation, policy)?);
        }
        fail::fail_point!("repartition::prepared", |_| Err(Error::Unavailable("failpoint".into())));
        let states: Vec<PartitionState> = held.into_iter().map(|held| held.state).collect();
        if let Err(NotRecorded { error, is_known }) = record(&states) {
            if !is_known {
                // Files that the log does not name are deleted at the next start; those that it names must be there then.
                division.files.clear();
            }
            return Err(error);
        }
        division.files.clear();
        fail::fail_point!("repartition::logged", |_| Err(Error::Unavailable("failpoint".into())));
        self.exchange(partitions, opened);
        clean(directory, old, count, self.table.key().is_some());
        Ok(())
    }

    fn opened(
        &self,
        directory: &Path,
        partition: &Arc<Partition>,
        state: &PartitionState,
        schema: &Arc<TableSchema>,
        generation: u64,
        policy: SealPolicy,
    ) -> Result<Arc<PartitionIngest>> {
        let ingest = PartitionIngest::new(
            self.id,
            self.name.clone(),
            partition_directory(directory, partition.id()),
            Arc::clone(&self.runtime),
            Arc::clone(&self.feeds),
            Arc::clone(partition),
            Arc::clone(schema),
            policy,
            state.clone(),
        )?;
        ingest.set_generation(generation);
        Ok(ingest)
    }

    /// The new partitions are those of the table: for readers in one moment, for rows before the next one comes.
    fn exchange(&self, partitions: Vec<Arc<Partition>>, opened: Vec<Arc<PartitionIngest>>) {
        let old = self.partitions();
        self.table.set_partitions(partitions);
        self.set_partitions(opened);
        for feed in self.feeds.read().values() {
            for stream in feed.streams.read().values() {
                let id = stream.id;
                let targets = self.targets(id.partition);
                stream.set_partition(self.partition_of(id.partition).id);
                stream.set_targets(targets.iter().filter_map(|target| Some((target.id, target.position(id)?))));
            }
        }
        old.iter().for_each(|partition| partition.close());
    }
}

impl<'a> Division<'a> {
    fn begin(
        table: &'a TableShared,
        directory: &Path,
        old: &'a [Arc<PartitionIngest>],
        count: u32,
        files: &'a mut Vec<(PathBuf, String)>,
    ) -> Result<Self> {
        let mut targets = Vec::with_capacity(count as usize);
        for id in (0..count).map(PartitionId) {
            let directory = partition_directory(directory, id);
            let now = old.get(id.0 as usize).cloned();
            if now.is_none() {
                fs::create_dir_all(&directory)
                    .map_err(|error| Error::Storage(StorageError::io("making", &directory, &error)))?;
            }
            // A partition of this number may have been there before.
            let next = table.runtime.log.partition(table.id, id)?.next_segment;
            targets.push(Target { id, directory, now, next, waiting: None, written: Vec::new() });
        }
        let (schema, _, policy) = old[0].settings();
        let written = old[0].written(schema);
        let key = table.table.key().cloned();
        Ok(Self { table, old, key, written, policy, targets, taken: HashSet::new(), files })
    }

    /// Whether the rows of an old partition go elsewhere.
    fn moves(&self, partition: PartitionId) -> bool {
        self.key.is_some() || partition.0 as usize >= self.targets.len()
    }

    /// Takes the rows of committed segments that were not taken before.
    fn take_segments(&mut self) -> Result<()> {
        for ingest in self.old.iter().filter(|ingest| self.moves(ingest.id)).cloned().collect::<Vec<_>>() {
            let view = ingest.partition.view();
            for segment in view.segments() {
                match segment.state() {
                    SegmentState::Committed => {}
                    SegmentState::Quarantined => {
                        return Err(Error::Expression {
                            state: "55000",
                            message: format!(
                                "segment {} of table '{}' is damaged, so that its rows cannot go to other partitions",
                                segment.id(),
                                self.table.name
                            ),
                        });
                    }
                    _ => continue,
                }
                if self.taken.insert((ingest.id, segment.id())) {
                    let source = ingest.source_of(segment, view.validities().of(segment.id()), &RowSet::default())?;
                    self.take_rows(&ingest, &source)?;
                }
            }
        }
        Ok(())
    }

    fn take_rows(&mut self, ingest: &PartitionIngest, source: &Source) -> Result<()> {
        let deleted = ingest.deleted_rows(source.segment.id());
        let written = Arc::clone(&self.written);
        let mut at = 0;
        for batch in source.batches(&written)? {
            let batch = batch?;
            let rows = &source.kept[at..at + batch.num_rows()];
            at += batch.num_rows();
            let batch = source.blanked(batch, rows, &written, self.key.as_deref())?;
            for (target, places) in self.owners(ingest.id, &batch)? {
                let part = take_record_batch(&batch, &UInt32Array::from(places.clone())).map_err(StorageError::from)?;
                let old = places.iter().map(|place| rows[*place as usize]);
                self.put(target, &part, old, source, &deleted)?;
            }
        }
        if at != source.kept.len() {
            let message = format!("segment {} gave {at} rows, not {}", source.segment.id(), source.kept.len());
            return Err(Error::Storage(StorageError::Invalid(message)));
        }
        Ok(())
    }

    /// Where the rows of a batch go, in their order.
    fn owners(&self, from: PartitionId, batch: &RecordBatch) -> Result<BTreeMap<usize, Vec<u32>>> {
        let count = self.targets.len() as u32;
        let mut places: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        match &self.key {
            Some(key) => {
                for (row, owner) in (0..).zip(key.owners(&self.written, batch, count)?) {
                    places.entry(owner as usize).or_default().push(row);
                }
            }
            None => _ = places.insert((from.0 % count) as usize, (0..batch.num_rows() as u32).collect()),
        }
        Ok(places)
    }

    fn put(
        &mut self,
        target: usize,
        rows: &RecordBatch,
        old: impl Iterator<Item = u32>,
        source: &Source,
        deleted: &RowSet,
    ) -> Result<()> {
        let written = Arc::clone(&self.written);
        let of_target = &mut self.targets[target];
        if of_target.waiting.is_none() {
            let rows = ConsumingSegment::new(of_target.take_id(), written);
            let (offsets, deleted) = (Vec::new(), RowSet::default());
            of_target.waiting = Some(Waiting { rows, offsets, tombstones: 0, deleted });
        }
        let Some(waiting) = &mut of_target.waiting else { return Ok(()) };
        let first = waiting.rows.rows();
        for (row, old) in (first..).zip(old) {
            waiting.tombstones += u64::from(source.tombstones.contains(old));
            if deleted.contains(old) {
                waiting.deleted.insert(row);
            }
        }
        waiting.rows = waiting.rows.with(rows, &[])?;
        merged_offsets(&mut waiting.offsets, source.segment.offsets());
        let is_full = u64::from(waiting.rows.rows()) >= self.policy.rows.unwrap_or(u64::MAX)
            || waiting.rows.bytes() >= self.policy.bytes;
        if is_full {
            return self.flush(target);
        }
        let waiting = |target: &Target| target.waiting.as_ref().map_or(0, |waiting| waiting.rows.bytes());
        if self.targets.iter().map(waiting).sum::<u64>() > WAITING_BYTES_MAX
            && let Some((largest, _)) = self.targets.iter().enumerate().max_by_key(|(_, target)| waiting(target))
        {
            return self.flush(largest);
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<()> {
        (0..self.targets.len()).try_for_each(|target| self.flush(target))
    }

    /// Writes the rows that wait for a partition.
    fn flush(&mut self, target: usize) -> Result<()> {
        let target = &mut self.targets[target];
        let Some(waiting) = target.waiting.take() else { return Ok(()) };
        let rows = waiting.rows.with(&RecordBatch::new_empty(self.written.arrow()), &waiting.offsets)?;
        let folder = Folder {
            runtime: &self.table.runtime,
            table: self.table.id,
            table_name: &self.table.name,
            id: target.id,
            directory: &target.directory,
            indexes: &self.table.table.indexes(),
        };
        let mut leftovers = Vec::new();
        let written = folder.write_segment(&rows, &mut leftovers);
        self.files.extend(leftovers.into_iter().map(|file| (target.directory.clone(), file)));
        let written = written?;
        folder.index(&written.segment);
        let deleted = match &written.order {
            Some(order) => {
                (0..).zip(order.iter()).filter(|(_, was)| waiting.deleted.contains(**was)).map(|(row, _)| row).collect()
            }
            None => waiting.deleted,
        };
        let record = SegmentRecord { tombstones: waiting.tombstones, purged: deleted.rows(), ..written.record };
        target.written.push(Written { record, segment: written.segment, deleted });
        Ok(())
    }

    /// What each new partition holds. While no rows come, after all are committed.
    fn states(&mut self) -> Result<Vec<Held>> {
        let logged = self.old.iter().map(|partition| partition.logged()).collect::<Result<Vec<_>>>()?;
        self.check_offsets(&logged)?;
        let mut all: Vec<Held> = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let at = target.id.0 as usize;
            let Held { mut state, mut segments } = Held::default();
            state.next_segment = target.next;
            if let Some(was) = logged.get(at) {
                state.next_segment = was.next_segment;
                state.dead_letters.clone_from(&was.dead_letters);
                if self.key.is_none() {
                    state.segments.clone_from(&was.segments);
                    state.deleted.clone_from(&was.deleted);
                    let view = self.old[at].partition.view();
                    segments.extend(view.segments().filter(|known| is_listed(known, &was.segments)).cloned());
                }
            }
            for Written { record, segment, deleted } in &target.written {
                state.next_segment = state.next_segment.max(SegmentId(record.id.0 + 1));
                state.segments.push(record.clone());
                if !deleted.is_empty() {
                    state.deleted.push((record.id, deleted.clone()));
                }
                segments.push(Arc::clone(segment));
            }
            all.push(Held { state, segments });
        }
        self.give_streams(&logged, &mut all);
        self.move_letters(&mut all)?;
        Ok(all)
    }

    /// After a crash partitions with a key may stand at different offsets of a stream until it is read again: till then nobody can say where new ones
    /// would have to go on.
    fn check_offsets(&self, logged: &[PartitionState]) -> Result<()> {
        if self.key.is_none() {
            return Ok(());
        }
        let mut known: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        for (stream, position) in logged.iter().flat_map(|state| &state.positions) {
            known.entry(*stream).or_default().push(*position);
        }
        for (stream, positions) in known {
            if positions.len() != logged.len() || positions.iter().any(|position| *position != positions[0]) {
                return Err(Error::Expression {
                    state: "55000",
                    message: format!(
                        "partition {} of a source of table '{}' is still being read again after a crash; send the statement again when it has been",
                        stream.partition, self.table.name
                    ),
                });
            }
        }
        Ok(())
    }

    /// Each new partition goes on where those did that had the streams.
    fn give_streams(&self, logged: &[PartitionState], all: &mut [Held]) {
        let (before, after) = (logged.len() as u32, all.len() as u32);
        for (at, was) in (0..).map(PartitionId).zip(logged) {
            let homes = |stream: StreamId| route::table_partition(stream.partition, before) == at;
            for (stream, position) in was.positions.iter().filter(|(stream, _)| homes(*stream)) {
                let watermark = was.watermarks.iter().find(|(known, _)| known == stream);
                let landmark = was.landmarks.iter().find(|(known, _)| known == stream);
                let home = route::table_partition(stream.partition, after).0 as usize;
                for (_, Held { state, .. }) in
                    all.iter_mut().enumerate().filter(|(to, _)| self.key.is_some() || *to == home)
                {
                    state.positions.push((*stream, *position));
                    state.watermarks.extend(watermark.copied());
                    state.landmarks.extend(landmark.copied());
                }
            }
        }
    }

    /// Dead letters of partitions that go are written to others.
    fn move_letters(&mut self, all: &mut [Held]) -> Result<()> {
        let count = self.targets.len();
        let mut moved: BTreeMap<usize, Vec<DeadLetter>> = BTreeMap::new();
        for partition in self.old.iter().skip(count) {
            for file in partition.dead_letter_files() {
                let letters = DeadLetterReader::open(file.path())?.collect::<Result<Vec<_>>>()?;
                moved.entry(partition.id.0 as usize % count).or_default().extend(letters);
            }
        }
        for (at, letters) in moved {
            let target = &mut self.targets[at];
            let id = target.take_id();
            let record = dead_letters::write(&target.directory, id, &letters)?;
            self.files.push((target.directory.clone(), record.file.clone()));
            let state = &mut all[at].state;
            state.next_segment = state.next_segment.max(SegmentId(id.0 + 1));
            state.dead_letters.push(record);
        }
        Ok(())
    }
}

impl Target {
    fn take_id(&mut self) -> SegmentId {
        match &self.now {
            Some(partition) => partition.take_segment_id(),
            None => {
                let id = self.next;
                self.next = SegmentId(id.0 + 1);
                id
            }
        }
    }
}

fn is_listed(segment: &Arc<dyn Segment>, records: &[SegmentRecord]) -> bool {
    records.iter().any(|record| record.id == segment.id())
}

/// Deletes what is of no partition any more. Readers that still hold segments keep their pages: an unlinked file lives until its last map is gone.
fn clean(directory: &Path, old: &[Arc<PartitionIngest>], count: u32, is_keyed: bool) {
    for partition in old {
        if partition.id.0 >= count {
            remove_partition(&partition_directory(directory, partition.id));
        } else if is_keyed {
            partition.remove_segment_files();
            partition.remove_file(KEY_MAP_FILE);
        }
    }
}

/// Deletes the directories of partitions that a table of `count` partitions does not have: a crash left them.
pub(super) fn remove_others(directory: &Path, count: u32) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number =
            name.strip_prefix('p').filter(|digits| digits.len() >= 5).and_then(|digits| digits.parse::<u32>().ok());
        if number.is_some_and(|number| number >= count) {
            tracing::info!(?path, "deleting the directory of a partition that is not there any more");
            remove_partition(&path);
        }
    }
}

fn remove_partition(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(?path, %error, "the directory of a partition that is gone stays until the next start");
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(?path, %error, "a file that nothing names stays until the next start");
    }
}
