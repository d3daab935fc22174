//! Writing the key map down while rows go on coming, and taking it back at a start.
//!
//! What is written is about the segments that were committed when it began, the *covered* ones, and says what a map of their rows alone would say:
//! a crash takes rows in memory back, and with them what they did to others. The map itself is read shard by shard, between which the writer goes
//! on. So a row of a covered segment that had lost against a row of another segment by the time when the last shard was read may or may not stand in its
//! shard: these rows are *undecided*, and are put in again one by one after the map was taken back. To that end every segment remembers which rows
//! lost against its own until it is settled: committed, and no checkpoint at work that began before.
//!
//! What always holds: of the rows of covered segments with one key, the winner is in the map that is written or is undecided. Segments that go while the
//! map is written (compaction, retention) put an end to it. Segments whose keys leave the map meanwhile do not: what the file says of them is passed over.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use super::{SegmentState, Winners};
use crate::{
    Result,
    ids::{PartitionId, SegmentId, TableId},
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, format::bytes::Writer},
    upsert::{
        KeySpec,
        checkpoint::{Checkpoint, Covered, OfSegment, Unfinished, put_entry, write_identity},
        map::SHARDS,
    },
};

/// The segment of entries that are not written.
const NOT_COVERED: u32 = u32::MAX;

/// A checkpoint at work.
#[derive(Debug)]
pub(crate) struct Capture {
    covered: Vec<Covered>,
    /// By the numbers of the map: places in `covered`.
    places: Vec<u32>,
    retirements: u64,
    pub(crate) keys: u64,
}

/// What was written of the segments at the end of it.
#[derive(Debug)]
pub(crate) struct Captured {
    segments: Vec<(Covered, OfSegment)>,
    identity: Writer,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) segments: Vec<SegmentId>,
    pub(crate) keys: u64,
}

impl Capture {
    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.covered.iter().map(|covered| covered.id)
    }
}

impl Captured {
    pub(crate) fn finish(self, file: Unfinished<'_>) -> Result<u64> {
        file.finish(self.identity, &self.segments)
    }
}

/// What a key map is of: columns and types that fingerprints and ranks are made of.
fn identity(spec: &KeySpec, written: &TableSchema, table: TableId, partition: PartitionId) -> Result<Writer> {
    let named = |id| match written.column(id) {
        Some(column) => format!("{id} {}", column.data_type),
        None => format!("{id} unknown"),
    };
    let columns: Vec<String> = spec.columns.iter().map(|id| named(*id)).collect();
    let [version, delete] = [spec.version, spec.delete].map(|id| id.map_or_else(|| "none".to_owned(), named));
    let mut key = format!("key ({}), version {version}, delete {delete}, keep {:?}", columns.join(", "), spec.keep);
    if let Some(ages) = spec.ages {
        key.push_str(&format!(", aged by {} for {:?}", named(ages.column), ages.key_us));
    }
    let mut identity = Writer::default();
    write_identity(&mut identity, table.0, partition.0, &key)?;
    Ok(identity)
}

impl Winners {
    /// Begins a checkpoint of what is committed now. One at a time, until [`Self::end_capture`].
    pub(crate) fn begin_capture(&mut self) -> Capture {
        let mut capture = Capture { covered: Vec::new(), places: Vec::new(), retirements: self.retirements, keys: 0 };
        for slot in &self.segments {
            let is_covered = |segment: &&Arc<dyn Segment>| segment.state() == SegmentState::Committed && !slot.left;
            let segment = slot.segment.as_ref().filter(is_covered);
            let committed = segment.and_then(|segment| segment.as_committed());
            capture.places.push(committed.map_or(NOT_COVERED, |_| capture.covered.len() as u32));
            capture.covered.extend(committed.map(|segment| Covered {
                id: slot.id,
                rows: segment.rows(),
                checksum: segment.checksum(),
            }));
        }
        self.capturing = true;
        capture
    }

    /// Appends the entries of a shard that are about covered segments. False when some of these are gone, so that it is of no use to go on.
    pub(crate) fn capture(&self, capture: &mut Capture, shard: usize, out: &mut Vec<u8>) -> bool {
        if self.retirements != capture.retirements {
            return false;
        }
        for (fingerprint, location) in self.keys.read().of_shard(shard) {
            // Segments that came since have higher numbers.
            let place = capture.places.get(location.segment as usize).copied().unwrap_or(NOT_COVERED);
            if place != NOT_COVERED {
                put_entry(out, fingerprint, place, location.row);
                capture.keys += 1;
            }
        }
        true
    }

    /// After the last shard, or when the checkpoint is given up: `None` when it cannot be used.
    pub(crate) fn end_capture(
        &mut self,
        capture: &Capture,
        schema: &TableSchema,
        table: TableId,
        partition: PartitionId,
    ) -> Result<Option<Captured>> {
        self.capturing = false;
        let whole = self.retirements == capture.retirements;
        let mut undecided = self.undecided_where(|slot| !slot.settled);
        for slot in &mut self.segments {
            let is_committed = slot.segment.as_ref().is_none_or(|segment| segment.state() == SegmentState::Committed);
            if is_committed && !slot.settled {
                (slot.settled, slot.beaten) = (true, Vec::new());
            }
        }
        self.check()?;
        if !whole {
            return Ok(None);
        }
        let identity = identity(&self.spec, &self.spec.written(schema), table, partition)?;
        let mut segments = Vec::new();
        for (number, place) in (0..).zip(&capture.places) {
            if *place == NOT_COVERED {
                continue;
            }
            let mut validity = (*self.segments[number as usize].validity).clone();
            let undecided = undecided.remove(&number).unwrap_or_default();
            undecided.iter().for_each(|row| validity.revalidate(row));
            segments.push((capture.covered[*place as usize], OfSegment { validity, undecided }));
        }
        Ok(Some(Captured { segments, identity }))
    }

    /// Rows, by the numbers of their segments, that have lost against rows that a crash takes back.
    pub(super) fn undecided(&self) -> BTreeMap<u32, RowSet> {
        let is_in_memory = |segment: &Arc<dyn Segment>| segment.state() != SegmentState::Committed;
        self.undecided_where(|slot| slot.segment.as_ref().is_some_and(is_in_memory))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn entries(&self) -> Vec<(u64, SegmentId, u32)> {
        let map = self.keys.read();
        let all = (0..SHARDS).flat_map(|shard| map.of_shard(shard));
        let mut entries: Vec<_> = all
            .map(|(fingerprint, location)| (fingerprint, self.segments[location.segment as usize].id, location.row))
            .collect();
        entries.sort_unstable();
        entries
    }

    pub(super) fn undecided_where(&self, against: impl Fn(&super::Slot) -> bool) -> BTreeMap<u32, RowSet> {
        let mut undecided: BTreeMap<u32, RowSet> = BTreeMap::new();
        for loser in self.segments.iter().filter(|slot| against(slot)).flat_map(|slot| &slot.beaten) {
            undecided.entry(loser.segment).or_default().insert(loser.row);
        }
        undecided
    }

    /// Takes back what the checkpoint in a directory says of those of its segments that are there; the others are still to be added. `deleted` and
    /// `lost` are as they are now, and what they say counts; `next` is above the id of every segment there ever was. `None` when there is no
    /// checkpoint. For a map without keys; after an error it is of no use.
    #[expect(clippy::too_many_arguments, reason = "what a partition is opened with")]
    pub(crate) fn restore(
        &mut self,
        directory: &Path,
        (table, partition): (TableId, PartitionId),
        schema: &TableSchema,
        present: &[&Arc<dyn Segment>],
        next: SegmentId,
        deleted: &[(SegmentId, RowSet)],
        lost: &[(SegmentId, RowSet)],
    ) -> Result<Option<Restored>> {
        let identity = identity(&self.spec, &self.spec.written(schema), table, partition)?;
        let Some(file) = Checkpoint::open(directory, &identity)? else { return Ok(None) };
        let of_segment = |sets: &[(SegmentId, RowSet)], id: SegmentId| {
            sets.iter().find(|(known, _)| *known == id).map(|(_, rows)| rows.clone()).unwrap_or_default()
        };
        let present: HashMap<SegmentId, &Arc<dyn Segment>> =
            present.iter().map(|segment| (segment.id(), *segment)).collect();
        let mut bytes = Vec::new();
        // By their places in the file: the number that they have here, and rows that keep no entry.
        let (mut numbers, mut restored) = (Vec::new(), Restored { segments: Vec::new(), keys: 0 });
        let mut all_undecided = Vec::new();
        for (at, covered) in file.segments.iter().enumerate() {
            let OfSegment { mut validity, undecided } = file.of_segment(at, &mut bytes)?;
            if covered.id >= next {
                // A metadata log of an earlier time was put back.
                return Err(file.corrupt("segments", format!("ids below {next}"), covered.id));
            }
            let Some(segment) = present.get(&covered.id) else {
                numbers.push(None);
                continue;
            };
            let found = segment.as_committed().map(|committed| (segment.rows(), committed.checksum()));
            if found != Some((covered.rows, covered.checksum)) {
                let expected = format!("{} rows, checksum {:08x}", covered.rows, covered.checksum);
                return Err(file.corrupt(&format!("segment {}", covered.id), expected, format!("{found:x?}")));
            }
            let (deleted, lost) = (of_segment(deleted, covered.id), of_segment(lost, covered.id));
            // A mask of them is asked faster than the set.
            let without = (!lost.is_empty()).then(|| lost.iter().collect::<crate::upsert::Validity>());
            deleted
                .iter()
                .chain(lost.iter())
                .filter(|row| *row < covered.rows)
                .for_each(|row| validity.invalidate(row));
            let number = self.number_of(segment);
            self.see(segment);
            let slot = &mut self.segments[number as usize];
            (slot.validity, slot.lost) = (Arc::new(validity), lost);
            numbers.push(Some((number, without)));
            restored.segments.push(covered.id);
            if !undecided.is_empty() {
                all_undecided.push((number, undecided, deleted));
            }
        }
        let mut entries = Vec::new();
        for shard in 0..SHARDS {
            file.shard(shard, &mut bytes, &mut entries)?;
            entries.retain_mut(|(_, location)| match &numbers[location.segment as usize] {
                Some((number, lost)) if lost.as_ref().is_none_or(|lost| lost.is_valid(location.row)) => {
                    location.segment = *number;
                    true
                }
                _ => false,
            });
            restored.keys += entries.len() as u64;
            if !self.keys.write().load(shard, &entries) {
                return Err(file.corrupt("entries", format!("those of shard {shard}"), "others"));
            }
        }
        for (number, rows, deleted) in all_undecided {
            self.put(number, &rows.iter().collect::<Vec<_>>(), &deleted)?;
        }
        Ok(Some(restored))
    }
}

/// Shards of a map, each written for itself.
pub(crate) const CAPTURED_SHARDS: usize = SHARDS;
