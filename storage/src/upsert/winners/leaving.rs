//! Keys that leave the map because they are old (`upsert::ages`), and rows that nobody may win against any more.
//!
//! Keys leave with the segment that their rows are in, when its newest row is so old that no row that comes on time is near to one of them. By then it is settled
//! which rows of it are seen: the log is told, so that a start need not read its keys either, and the rows stay where they are.
//!
//! What goes (keys that leave, tombstones that are forgotten, segments that retention takes) has beaten others. Those of committed segments are told to the log
//! as *lost* ([`Winners::lost_for_good`]); those in memory are remembered here, and are told with the commit of their segment ([`Winners::lost_with`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Location, STEP, SegmentState, Slot, Winners};
use crate::{
    Error, Result,
    ids::{ColumnId, SegmentId},
    row_set::RowSet,
    segment::Segment,
    upsert::{
        KeySpec, Validity,
        ages::{micros, segment_newest_us},
        identity::Reader,
    },
};

/// Keys about to leave the map.
#[derive(Debug)]
pub(crate) struct Leaving {
    number: u32,
    entries: Vec<(u64, Location)>,
    /// Rows of the segment that are not valid, for ever; and of others, which lost perhaps against rows of it.
    pub(crate) lost: Vec<(SegmentId, RowSet)>,
    /// The newest time that is committed.
    pub(crate) newest: i64,
    lost_in_memory: Vec<(u32, RowSet)>,
}

/// The fingerprints of the keys of all rows of a segment, one after the other. Needs no map: they are those of the rows.
pub(crate) fn key_fingerprints(spec: &KeySpec, segment: &dyn Segment) -> Result<Vec<u64>> {
    let reader = Reader::new(spec, segment.schema())?;
    let columns = reader.columns_without_rank();
    let mut all = Vec::with_capacity(segment.rows() as usize);
    for start in (0..segment.rows()).step_by(STEP as usize) {
        let rows: Vec<u32> = (start..segment.rows().min(start.saturating_add(STEP))).collect();
        all.extend(reader.read_keys(&segment.take(&columns, &rows)?)?.0);
    }
    Ok(all)
}

impl Winners {
    /// A segment that was there before and whose keys have left: what the log says of its rows is all that there is to say.
    pub(crate) fn add_left(&mut self, segment: &Arc<dyn Segment>, deleted: &RowSet, lost: RowSet) {
        let number = self.number_of(segment);
        self.see(segment);
        let slot = &mut self.segments[number as usize];
        let gone = lost.iter().chain(deleted.iter()).filter(|row| *row < segment.rows());
        slot.validity = Arc::new(gone.collect::<Validity>());
        (slot.lost, slot.left) = (lost, true);
    }

    /// The newest time of committed rows: what a crash does not take back.
    fn newest_committed(&self) -> Option<i64> {
        let column = self.spec.ages?.column;
        let newest = |slot: &Slot| segment_newest_us(slot.segment.as_ref()?.as_committed()?, column);
        self.segments.iter().filter_map(newest).max()
    }

    /// Committed segments whose keys may leave the map, and whose keys have not.
    pub(crate) fn may_leave(&self) -> Vec<SegmentId> {
        let bound = self.newest_committed().and_then(|newest| self.spec.ages?.leaves_below(newest));
        let Some((bound, ages)) = bound.zip(self.spec.ages) else { return Vec::new() };
        let may_leave = |slot: &&Slot| {
            let committed = slot.segment.as_ref().and_then(|segment| segment.as_committed());
            let newest = committed.and_then(|segment| segment_newest_us(segment, ages.column));
            slot.settled && !slot.left && newest.is_some_and(|newest| newest < bound)
        };
        self.segments.iter().filter(may_leave).map(|slot| slot.id).collect()
    }

    /// Reads what [`Self::leave`] needs, which has to follow before anything else; `fingerprints` are those of all rows of the segment. `None`: not now.
    pub(crate) fn prepare_leaving(&self, segment: SegmentId, fingerprints: &[u64]) -> Result<Option<Leaving>> {
        let Some(newest) = self.newest_committed().filter(|_| self.may_leave().contains(&segment)) else {
            return Ok(None);
        };
        let Some(number) = self.numbers.get(&segment).copied() else { return Ok(None) };
        // Rows in memory that beat one of them came on time, and so cannot have; but for rows without a time, which are near to all.
        if self.undecided().contains_key(&number) {
            return Ok(None);
        }
        let slot = &self.segments[number as usize];
        let all: RowSet = (0..fingerprints.len() as u32).collect();
        let lost_in_memory = self.lost_in_memory(&HashMap::from([(number, all)]))?;
        let entries = (0..).zip(fingerprints).map(|(row, of)| (*of, Location { segment: number, row })).collect();
        let own: RowSet = (0..fingerprints.len() as u32).filter(|row| !slot.validity.is_valid(*row)).collect();
        let mut lost = self.lost_for_good(&[segment])?;
        lost.extend((!own.is_empty()).then_some((segment, own)));
        Ok(Some(Leaving { number, entries, lost, newest, lost_in_memory }))
    }

    pub(crate) fn leave(&mut self, leaving: &Leaving) {
        self.keys.remove(&leaving.entries);
        self.keys.write().fit();
        self.segments[leaving.number as usize].left = true;
        self.lose(&leaving.lost);
        self.lose_in_memory(&leaving.lost_in_memory);
    }

    /// Rows in memory, by the numbers of their segments, that lost against rows that go: without these they would win.
    pub(super) fn lost_in_memory(&self, going: &HashMap<u32, RowSet>) -> Result<Vec<(u32, RowSet)>> {
        let mut all = Vec::new();
        for (number, slot) in (0..).zip(&self.segments) {
            let is_in_memory = |segment: &&Arc<dyn Segment>| segment.state() != SegmentState::Committed;
            let Some(segment) = slot.segment.as_ref().filter(is_in_memory) else { continue };
            if slot.validity.invalid() == 0 || going.is_empty() {
                continue;
            }
            let may_win = |row: &u32| !slot.validity.is_valid(*row) && !slot.lost.contains(*row);
            let rows: Vec<u32> = (0..segment.rows()).filter(may_win).collect();
            let mut lost = RowSet::default();
            for rows in rows.chunks(STEP as usize) {
                let identities = self.read(number, rows)?;
                let map = self.keys.read();
                for (at, row) in rows.iter().enumerate() {
                    let here = Location { segment: number, row: *row };
                    let entries = || map.entries(identities.fingerprint(at)).map(|(_, location)| location);
                    // Perhaps of another key of the same fingerprint: then it stays lost although its winner stays, too.
                    let goes = |location: Location| {
                        going.get(&location.segment).is_some_and(|rows| rows.contains(location.row))
                    };
                    if entries().all(|location| location != here) && entries().any(goes) {
                        lost.insert(*row);
                    }
                }
            }
            if !lost.is_empty() {
                all.push((number, lost));
            }
        }
        Ok(all)
    }

    pub(super) fn lose_in_memory(&mut self, lost: &[(u32, RowSet)]) {
        for (number, rows) in lost {
            self.segments[*number as usize].lost.add(rows);
        }
    }

    /// Rows of a segment in memory that are not valid whatever becomes of others.
    pub(crate) fn lost(&self, segment: SegmentId) -> RowSet {
        let slot = self.numbers.get(&segment).map(|number| &self.segments[*number as usize]);
        slot.map(|slot| slot.lost.clone()).unwrap_or_default()
    }

    /// What the commit of a segment in memory makes lost, of its rows and of others. Where rows of a key may be seen beside each other it is every loser: a start
    /// that came upon rows in another order than they came in could not tell, because what beat one of them may have lost since, against one that is not near
    /// to it.
    pub(crate) fn lost_with(&self, segment: SegmentId) -> Result<Vec<(SegmentId, RowSet)>> {
        let Some(number) = self.numbers.get(&segment).copied() else { return Ok(Vec::new()) };
        let slot = &self.segments[number as usize];
        let mut all = BTreeMap::from([(segment, slot.lost.clone())]);
        if self.spec.ages.is_some_and(|ages| ages.key_us.is_some()) {
            let is_in_memory = |other: &Slot| {
                let state = other.segment.as_ref().map(|segment| segment.state());
                other.id != segment && state.is_some_and(|state| state != SegmentState::Committed)
            };
            let undecided = self.undecided_where(is_in_memory).remove(&number).unwrap_or_default();
            let tombstones = self.needed(segment)?.tombstones;
            let count = slot.segment.as_ref().map_or(0, |segment| segment.rows());
            let is_lost =
                |row: &u32| !slot.validity.is_valid(*row) && !undecided.contains(*row) && !tombstones.contains(*row);
            let own: RowSet = (0..count).filter(is_lost).collect();
            all.entry(segment).or_default().add(&own);
            for loser in slot.beaten.iter().filter(|loser| self.is_committed(loser.segment)) {
                all.entry(self.segments[loser.segment as usize].id).or_default().insert(loser.row);
            }
        }
        all.retain(|_, rows| !rows.is_empty());
        Ok(all.into_iter().collect())
    }

    /// Rows of committed segments are lost, as the log says.
    pub(crate) fn lose(&mut self, lost: &[(SegmentId, RowSet)]) {
        for (id, rows) in lost {
            if let Some(number) = self.numbers.get(id) {
                self.segments[*number as usize].lost.add(rows);
            }
        }
    }

    /// Whether all rows of a committed segment are so old that its tombstones may be forgotten.
    pub(crate) fn may_forget(&self, segment: &dyn Segment) -> bool {
        let bound = self.newest_committed().and_then(|newest| self.spec.ages?.forgotten_below(newest));
        let newest = self.spec.ages.and_then(|ages| segment_newest_us(segment, ages.column));
        newest.zip(bound).is_some_and(|(newest, bound)| newest < bound)
    }

    /// Those of the tombstones of a segment that may be forgotten.
    pub(crate) fn forgotten(&self, segment: &dyn Segment, tombstones: &RowSet) -> Result<RowSet> {
        let bound = self.newest_committed().and_then(|newest| self.spec.ages?.forgotten_below(newest));
        let (Some(bound), Some(ages)) = (bound, self.spec.ages) else { return Ok(RowSet::default()) };
        let all_are_old = self.may_forget(segment);
        let mut forgotten = RowSet::default();
        let rows: Vec<u32> = tombstones.iter().collect();
        for rows in rows.chunks(STEP as usize) {
            let times = times(segment, ages.column, rows)?;
            let is_old = |time: &Option<i64>| time.map_or(all_are_old, |time| time < bound);
            rows.iter().zip(&times).filter(|(_, time)| is_old(time)).for_each(|(row, _)| _ = forgotten.insert(*row));
        }
        Ok(forgotten)
    }
}

fn times(segment: &dyn Segment, column: ColumnId, rows: &[u32]) -> Result<Vec<Option<i64>>> {
    let taken = segment.take(&[column], rows)?;
    let missing = || Error::Invalid(format!("the rows have no column with id {column}"));
    Ok(micros(taken.first().ok_or_else(missing)?)?.iter().collect())
}
