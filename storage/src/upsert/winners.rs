//! The winners of a partition's keys: the map, the segments that it points into, and which of their rows are valid. Belongs to the one writer.

mod capture;
mod lateness;
mod leaving;
mod merging;

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use parking_lot::RwLockWriteGuard;

use super::{
    Keep, KeySpec, Provenance, Validities, Validity,
    ages::{late_rows, segment_newest_us},
    identity::{Identities, Reader},
    keys::Keys,
    map::{Location, Place, WINDOW},
    memory::KeyMemory,
};
use crate::{
    Error, Result,
    ids::SegmentId,
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, SegmentState},
};

pub(crate) use capture::{CAPTURED_SHARDS, Capture, Restored};
pub(crate) use leaving::{Leaving, key_fingerprints};

/// Rows that are read at a time when the map is made again.
const STEP: u32 = 64 * 1024;
/// Entries of the map that are changed before readers may look.
const MOVED_AT_ONCE: usize = 4096;
/// Of those that meet others: the more at once, the fewer blocks of the other segments are read again.
const MET_STEP: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Winners {
    spec: Arc<KeySpec>,
    reader: Reader,
    /// Readers ask it, too.
    keys: Arc<Keys>,
    /// By the numbers that the map has for them.
    segments: Vec<Slot>,
    numbers: HashMap<SegmentId, u32>,
    /// A checkpoint of the map is being written.
    capturing: bool,
    /// How often segments went.
    retirements: u64,
    /// The newest time of all rows that came, where keys have an age.
    newest: Option<i64>,
    /// Rows that came late, since the start.
    late: u64,
}

#[derive(Debug)]
struct Slot {
    id: SegmentId,
    /// `None`: it is gone, and no entry of the map is about it.
    segment: Option<Arc<dyn Segment>>,
    validity: Arc<Validity>,
    /// Rows that lost against rows that are gone, or came late: they are not valid, and the map does not know them.
    lost: RowSet,
    /// Its keys have left the map: what is valid of it is settled, and the map knows none of its rows.
    left: bool,
    /// It is committed, and no checkpoint is being written that began before that.
    settled: bool,
    /// Rows of others that lost against rows of it while it was not settled: without it they may win.
    beaten: Vec<Location>,
}

/// Rows of a committed segment that nobody sees.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// They win, and keep older rows of their keys away.
    pub tombstones: RowSet,
    /// They lost against rows that a crash would take back.
    pub beaten: RowSet,
}

impl Needed {
    pub fn contains(&self, row: u32) -> bool {
        self.tombstones.contains(row) || self.beaten.contains(row)
    }
}

/// A segment about to take the places of others.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// Entries of the map, and the rows of the new segment that they are about from then on.
    moves: Vec<(Place, u32)>,
    /// Rows of the new segment that lost meanwhile, or are tombstones.
    invalid: RowSet,
    /// Rows that segments that are not settled have beaten, and which row of the new segment each is.
    beaten: HashMap<Location, u32>,
    /// Tombstones that are not there any more.
    dropped: Vec<(u64, Location)>,
    /// Rows in memory, by the numbers of their segments, that lost against these.
    lost_in_memory: Vec<(u32, RowSet)>,
    /// The new segment is of rows whose keys have left the map.
    left: bool,
}

/// Rows that are about to be appended, and what they meet.
pub(crate) struct Arriving {
    new: Identities,
    fingerprints: Vec<u64>,
    /// Rows that have the fingerprint of one of these, ascending.
    met: Vec<Location>,
    /// For each of these where in `met` one is that it meets, if it meets any.
    places: Vec<u32>,
    /// Of each run of them in one segment: where it begins in `met`, and the identities.
    identities: Vec<(usize, Identities)>,
    /// Those of the new rows that are appended, ascending; `None`: all.
    kept: Option<Vec<u32>>,
    /// Which of the new rows come late; `None`: none.
    late: Option<Vec<bool>>,
    /// How many of all that came did, stored or not.
    late_count: u64,
    /// The newest time after them.
    newest: Option<i64>,
}

impl Arriving {
    /// The identities that a row is in which one of the new rows meets, and its place there.
    fn identity(&self, location: Location, row: usize) -> Option<(&Identities, usize)> {
        // Most rows meet one.
        let place = self.places[row] as usize;
        let at = match self.met.get(place) {
            Some(met) if *met == location => place,
            _ => self.met.binary_search(&location).ok()?,
        };
        let run = self.identities.partition_point(|(start, _)| *start <= at) - 1;
        let (start, identities) = &self.identities[run];
        Some((identities, at - start))
    }

    fn is_late(&self, row: usize) -> bool {
        self.late.as_ref().is_some_and(|late| late[row])
    }

    /// Rows that are appended.
    fn rows(&self) -> usize {
        self.kept.as_ref().map_or(self.new.rows(), Vec::len)
    }

    /// Which of the new rows each of these is.
    fn row(&self, at: usize) -> usize {
        self.kept.as_ref().map_or(at, |kept| kept[at] as usize)
    }

    /// Brings near what some of the new rows meet: memory is waited for once and not for each.
    fn touch(&self, rows: Range<usize>) {
        std::hint::black_box(rows.fold(0, |seen, row| {
            let found = self.met.get(self.places[row] as usize).and_then(|location| self.identity(*location, row));
            let first = |bytes: &[u8]| bytes.first().copied().unwrap_or(0);
            seen ^ found.map_or(0, |(met, at)| first(met.key(at)) ^ first(met.rank(at)))
        }));
    }
}

impl Winners {
    /// No keys yet. `schema` is one of the table's.
    pub(crate) fn new(spec: Arc<KeySpec>, schema: &TableSchema, memory: &Arc<KeyMemory>) -> Result<Self> {
        let reader = Reader::new(&spec, &spec.written(schema))?;
        Ok(Self {
            spec,
            reader,
            keys: Arc::new(Keys::new(memory)),
            segments: Vec::new(),
            numbers: HashMap::new(),
            capturing: false,
            retirements: 0,
            newest: None,
            late: 0,
        })
    }

    /// The same without a key, in place of this: a checkpoint at work is of no use any more. `schema` is one of the table's.
    pub(crate) fn emptied(&self, schema: &TableSchema) -> Result<Self> {
        let fresh = Self::new(Arc::clone(&self.spec), schema, self.keys.read().memory())?;
        Ok(Self { capturing: self.capturing, retirements: self.retirements + 1, ..fresh })
    }

    /// Puts the rows of a segment in that was there before, some of which statements deleted, and some of which have lost for good. Of rows of equal
    /// rank that of the later segment stays, in whatever order segments come. Errors: those of reading it. [`Self::fit`] is to follow.
    pub(crate) fn add(&mut self, segment: &Arc<dyn Segment>, deleted: &RowSet, lost: RowSet) -> Result<()> {
        let number = self.number_of(segment);
        self.segments[number as usize].lost = lost;
        self.see(segment);
        let columns = self.reader.columns_without_rank();
        let mut met = Vec::new();
        for start in (0..segment.rows()).step_by(STEP as usize) {
            let rows: Vec<u32> = (start..segment.rows().min(start.saturating_add(STEP))).collect();
            let (fingerprints, deletes) = self.reader.read_keys(&segment.take(&columns, &rows)?)?;
            let Slot { validity, lost, .. } = &mut self.segments[number as usize];
            let mut invalidate = |row| Arc::make_mut(validity).invalidate(row);
            if !lost.is_empty() {
                rows.iter().filter(|row| lost.contains(**row)).for_each(|row| invalidate(*row));
            }
            // Where they win they are tombstones, and where not they are not valid either.
            deletes.iter().flat_map(|deletes| deletes.set_indices()).for_each(|at| invalidate(start + at as u32));
            let new = fingerprints.into_iter().zip(rows).filter(|(_, row)| lost.is_empty() || !lost.contains(*row));
            let new = new.map(|(fingerprint, row)| (fingerprint, Location { segment: number, row }));
            // Most keys meet no other of their fingerprint: they need not be read, and rows need no rank.
            self.keys.write().insert_new(new, |location| met.push(location.row));
            if met.len() >= MET_STEP {
                self.put(number, &std::mem::take(&mut met), deleted)?;
            }
        }
        deleted.iter().for_each(|row| self.invalidate(Location { segment: number, row }));
        self.put(number, &met, deleted)
    }

    /// Gives memory back after segments were added.
    pub(crate) fn fit(&mut self) {
        self.keys.write().fit();
    }

    /// Puts some rows of a segment in, which ascend.
    fn put(&mut self, number: u32, rows: &[u32], deleted: &RowSet) -> Result<()> {
        for rows in rows.chunks(MET_STEP) {
            let Some(segment) = self.segments[number as usize].segment.as_ref() else { continue };
            let arriving = self.meet(&segment.take(self.reader.columns(), rows)?)?;
            self.settle(number, rows, &arriving, Some(deleted));
        }
        Ok(())
    }

    /// The rows of a segment that is new and whole, as they meet what is there. Changes nothing.
    pub(crate) fn joining(&self, segment: &Arc<dyn Segment>) -> Result<Arriving> {
        let rows: Vec<u32> = (0..segment.rows()).collect();
        self.meet(&segment.take(self.reader.columns(), &rows)?)
    }

    /// The segment of [`Self::joining`] is there from now on.
    pub(crate) fn join(&mut self, segment: &Arc<dyn Segment>, arriving: &Arriving) {
        let number = self.number_of(segment);
        let rows: Vec<u32> = (0..segment.rows()).collect();
        self.settle(number, &rows, arriving, None);
    }

    /// Statements delete rows: where they won they stay as the tombstones of their keys.
    pub(crate) fn delete(&mut self, segment: SegmentId, rows: &RowSet) {
        let Some(number) = self.numbers.get(&segment).copied() else { return };
        for row in rows.iter() {
            self.invalidate(Location { segment: number, row });
        }
    }

    /// Rows with the columns of the table, and those that say where they came from: as segments are written.
    pub(crate) fn with_provenance(&self, rows: &RecordBatch, provenance: &Provenance) -> Result<Vec<ArrayRef>> {
        if provenance.rows() != rows.num_rows() {
            let message = format!("{} rows came from {} messages", rows.num_rows(), provenance.rows());
            return Err(Error::Invalid(message));
        }
        Ok(rows.columns().iter().chain(provenance.columns()).cloned().collect())
    }

    /// Reads what the rows meet. `columns` are those of `written`, in order. Changes nothing.
    pub(crate) fn arriving(&self, written: &TableSchema, columns: &[ArrayRef]) -> Result<Arriving> {
        let mut arriving = self.arriving_on_time(written, columns)?;
        let (new, ages) = (&arriving.new, self.spec.ages.as_ref());
        (arriving.late, arriving.newest) = late_rows(ages, self.newest, new.rows(), |row| new.time(row));
        arriving.late_count = arriving.late.iter().flatten().filter(|late| **late).count() as u64;
        Ok(arriving)
    }

    /// The same of those that are left of them when others are not stored.
    pub(crate) fn arriving_wanted(
        &self,
        written: &TableSchema,
        columns: &[ArrayRef],
        all: &Arriving,
    ) -> Result<Arriving> {
        Ok(Arriving { newest: all.newest, late_count: all.late_count, ..self.arriving_on_time(written, columns)? })
    }

    fn arriving_on_time(&self, written: &TableSchema, columns: &[ArrayRef]) -> Result<Arriving> {
        let of = |id| written.index_of(id).and_then(|at| columns.get(at)).cloned();
        let missing = || Error::Invalid("the rows lack a column of their key".into());
        let arrays: Option<Vec<ArrayRef>> = self.reader.columns().iter().map(|id| of(*id)).collect();
        self.meet(&arrays.ok_or_else(missing)?)
    }

    fn meet(&self, arrays: &[ArrayRef]) -> Result<Arriving> {
        let new = self.reader.read(arrays)?;
        let fingerprints: Vec<u64> = (0..new.rows()).map(|row| new.fingerprint(row)).collect();
        let mut rows_met: Vec<(Location, u32)> = Vec::new();
        for (window, of_window) in fingerprints.chunks(WINDOW).enumerate() {
            let map = self.keys.read();
            map.touch(of_window.iter().copied());
            for (row, fingerprint) in (window * WINDOW..).zip(of_window) {
                rows_met.extend(map.entries(*fingerprint).map(|(_, location)| (location, row as u32)));
            }
        }
        self.check()?;
        rows_met.sort_unstable();
        let mut met: Vec<Location> = Vec::with_capacity(rows_met.len());
        let mut places = vec![0; fingerprints.len()];
        for (location, row) in rows_met {
            if met.last() != Some(&location) {
                met.push(location);
            }
            places[row as usize] = met.len() as u32 - 1;
        }
        let mut identities = Vec::new();
        let mut start = 0;
        for run in met.chunk_by(|a, b| a.segment == b.segment) {
            let rows: Vec<u32> = run.iter().map(|location| location.row).collect();
            identities.push((start, self.read(run[0].segment, &rows)?));
            start += run.len();
        }
        Ok(Arriving {
            new,
            fingerprints,
            met,
            places,
            identities,
            kept: None,
            late: None,
            late_count: 0,
            newest: self.newest,
        })
    }

    /// The identities of rows of a segment that is there.
    fn read(&self, number: u32, rows: &[u32]) -> Result<Identities> {
        let slot = &self.segments[number as usize];
        let gone = || Error::Invalid(format!("the key map knows rows of segment {}, which is gone", slot.id));
        let segment = slot.segment.as_ref().ok_or_else(gone)?;
        self.reader.read(&segment.take(self.reader.columns(), rows)?)
    }

    /// The rows that are to be stored, where not all are: those that have lost already, and need not be seen, are not.
    pub(crate) fn wanted(&self, arriving: &Arriving) -> Option<BooleanArray> {
        // Of merged rows it is known already.
        if self.spec.keeps_losers || self.spec.merges {
            return None;
        }
        let map = self.keys.read();
        let new = &arriving.new;
        let is_wanted = |row: usize| {
            let (mut loses, mut wins) = (false, false);
            for (_, location) in map.entries(arriving.fingerprints[row]) {
                let Some((known, at)) = arriving.identity(location, row) else { continue };
                if known.key(at) == new.key(row) && self.are_near(new, row, known, at) {
                    let wins_here = self.wins(new.rank(row), known.rank(at));
                    (wins, loses) = (wins || wins_here, loses || !wins_here);
                }
            }
            // One between two that are not near to each other takes the older one's place, and a start has to find it.
            !arriving.is_late(row) && (!loses || wins && self.spec.keep == Keep::Last)
        };
        let wanted: BooleanArray = (0..new.rows()).map(|row| Some(is_wanted(row))).collect();
        (wanted.true_count() < wanted.len()).then_some(wanted)
    }

    /// Whether two rows of one key know of each other.
    fn are_near(&self, a: &Identities, at_a: usize, b: &Identities, at_b: usize) -> bool {
        self.spec.ages.is_none_or(|ages| ages.near(a.time(at_a), b.time(at_b)))
    }

    /// Rows were there, or came: from now on others are as old as they are behind these.
    pub(crate) fn raise(&mut self, newest: Option<i64>) {
        self.newest = self.newest.max(newest);
    }

    fn see(&mut self, segment: &Arc<dyn Segment>) {
        if let Some(ages) = self.spec.ages {
            self.raise(segment_newest_us(segment.as_ref(), ages.column));
        }
    }

    /// After rows were taken: how old others are from now on.
    pub(crate) fn took(&mut self, arriving: &Arriving) {
        self.raise(arriving.newest);
        self.late += arriving.late_count;
    }

    /// Rows that came late since the start, stored or not.
    pub(crate) fn late_by_age(&self) -> u64 {
        self.late
    }

    /// Whether a row that comes later takes the place of one that is there. Of equal rank are a row and itself, read once more: merged rows hold it
    /// already.
    fn wins(&self, new: &[u8], old: &[u8]) -> bool {
        match self.spec.keep {
            Keep::Last if self.spec.merges => new > old,
            Keep::Last => new >= old,
            Keep::First => new < old,
        }
    }

    /// The rows are in a segment now, from row `first` on: `segment` is what it has become.
    pub(crate) fn appended(&mut self, segment: Arc<dyn Segment>, first: u32, arriving: &Arriving) {
        let number = self.number_of(&segment);
        self.segments[number as usize].segment = Some(segment);
        let rows: Vec<u32> = (first..first + arriving.rows() as u32).collect();
        self.settle(number, &rows, arriving, None);
    }

    /// Decides who wins. `rows` of the segment, which ascend, are those arriving ones that are appended. After a start `deleted` has those of the segment that statements
    /// deleted, and of rows of equal rank that of the later segment wins, or of the same segment the later row.
    fn settle(&mut self, segment: u32, rows: &[u32], arriving: &Arriving, deleted: Option<&RowSet>) {
        let new = &arriving.new;
        let keys = Arc::clone(&self.keys);
        let mut map = keys.write();
        for (at, place) in rows.iter().enumerate() {
            let row = arriving.row(at);
            let here = Location { segment, row: *place };
            let fingerprint = arriving.fingerprints[row];
            if at % WINDOW == 0 {
                RwLockWriteGuard::bump(&mut map);
                map.touch(arriving.fingerprints[row..].iter().take(WINDOW).copied());
                arriving.touch(row..(row + WINDOW).min(new.rows()));
            }
            if arriving.is_late(row) {
                self.segments[segment as usize].lost.insert(here.row);
            }
            if self.segments[segment as usize].lost.contains(here.row) {
                self.invalidate(here);
                continue;
            }
            let is_deleted = deleted.is_some_and(|deleted| deleted.contains(here.row));
            let mut known = None;
            // Where keys have an age: others that it is near to, which are not all near to each other.
            let mut overtaken: Vec<Location> = Vec::new();
            for (place, location) in map.entries(fingerprint) {
                // What is not among those met came with this batch.
                let (identities, at) = match arriving.identity(location, row) {
                    Some(found) => found,
                    None => (new, arriving.row(rows.partition_point(|row| *row < location.row))),
                };
                if identities.key(at) == new.key(row) && (location == here || self.are_near(new, row, identities, at)) {
                    let wins = match deleted {
                        Some(_) if new.rank(row) == identities.rank(at) => self.wins_by_place(here, location),
                        _ => self.wins(new.rank(row), identities.rank(at)),
                    };
                    if self.spec.ages.is_none() {
                        known = Some((place, location, wins));
                        break;
                    }
                    match known {
                        // It is back from the checkpoint.
                        _ if location == here => {
                            (known, overtaken) = (Some((place, location, true)), Vec::new());
                            break;
                        }
                        Some((_, better, false)) if wins => {
                            debug_assert_ne!(better, location);
                            overtaken.push(location);
                        }
                        Some((_, old, true)) if !wins => {
                            overtaken.push(old);
                            known = Some((place, location, false));
                        }
                        Some((_, _, true)) => overtaken.push(location),
                        Some((_, _, false)) => {}
                        None => known = Some((place, location, wins)),
                    }
                }
            }
            let wins = known.is_none_or(|(_, old, wins)| wins || old == here);
            match known {
                None => map.insert(fingerprint, here),
                // It is back from the checkpoint.
                Some((_, old, _)) if old == here => {}
                Some((place, old, true)) => {
                    map.set(place, here);
                    self.lost_against(old, here);
                }
                Some((_, old, false)) => self.lost_against(here, old),
            }
            // What keeps the first row stores no later one, so that these leave nothing that a start could find.
            if wins || self.spec.keep == Keep::Last {
                for old in overtaken {
                    // Nobody looks up keys that have an age.
                    map.remove(fingerprint, old);
                    self.lost_against(old, here);
                }
            }
            if wins && (is_deleted || new.deletes(row)) {
                self.invalidate(here);
            }
        }
    }

    /// Whether the one row wins against the other of equal rank, as it would if segments came in their order.
    fn wins_by_place(&self, this: Location, other: Location) -> bool {
        let place = |location: Location| (self.segments[location.segment as usize].id, location.row);
        (place(this) > place(other)) == self.wins(&[], &[])
    }

    fn lost_against(&mut self, loser: Location, winner: Location) {
        self.invalidate(loser);
        let slot = &mut self.segments[winner.segment as usize];
        // Rows of one segment come and go together.
        if !slot.settled && winner.segment != loser.segment {
            slot.beaten.push(loser);
        }
    }

    /// A segment has become another one of the same rows: a file. `order` has for each of its rows which it was before, where that is another.
    pub(crate) fn replace(&mut self, segment: Arc<dyn Segment>, order: Option<&[u32]>) -> Result<()> {
        let Some(number) = self.numbers.get(&segment.id()).copied() else { return Ok(()) };
        if let Some(order) = order {
            self.reorder(number, order)?;
        }
        let is_committed = segment.state() == SegmentState::Committed;
        let slot = &mut self.segments[number as usize];
        slot.segment = Some(segment);
        if is_committed && !self.capturing {
            (slot.settled, slot.beaten) = (true, Vec::new());
        }
        Ok(())
    }

    /// Reads a segment from another file of the same bytes from now on.
    pub(crate) fn heal(&mut self, segment: &Arc<dyn Segment>) {
        if let Some(number) = self.numbers.get(&segment.id()) {
            self.segments[*number as usize].segment = Some(Arc::clone(segment));
        }
    }

    fn reorder(&mut self, number: u32, order: &[u32]) -> Result<()> {
        let mut places = vec![0; order.len()];
        for (place, row) in (0..).zip(order) {
            *places
                .get_mut(*row as usize)
                .ok_or_else(|| Error::Invalid(format!("an order of {} rows has row {row}", order.len())))? = place;
        }
        // Everything that may fail comes before the first change.
        let mut moves = Vec::new();
        let count = order.len() as u32;
        for start in (0..count).step_by(STEP as usize) {
            let rows: Vec<u32> = (start..count.min(start.saturating_add(STEP))).collect();
            let identities = self.read(number, &rows)?;
            let map = self.keys.read();
            for row in 0..identities.rows() {
                let here = Location { segment: number, row: start + row as u32 };
                let mut entries = map.entries(identities.fingerprint(row));
                if let Some((place, _)) = entries.find(|(_, location)| *location == here) {
                    moves.push((place, Location { row: places[here.row as usize], ..here }));
                }
            }
        }
        self.moved(&moves);
        let beaten = self.segments.iter_mut().flat_map(|slot| &mut slot.beaten);
        beaten.filter(|loser| loser.segment == number).for_each(|loser| loser.row = places[loser.row as usize]);
        let slot = &mut self.segments[number as usize];
        slot.validity = Arc::new(slot.validity.permuted(order));
        slot.lost = (0..).zip(order).filter(|(_, row)| slot.lost.contains(**row)).map(|(place, _)| place).collect();
        Ok(())
    }

    /// The rows of a segment that are not valid and cannot be done without.
    pub(crate) fn needed(&self, segment: SegmentId) -> Result<Needed> {
        let mut needed = Needed::default();
        let Some(number) = self.numbers.get(&segment).copied() else { return Ok(needed) };
        let slot = &self.segments[number as usize];
        if slot.left {
            return Ok(needed);
        }
        let is_aged = self.spec.ages.is_some();
        if is_aged {
            // No more than these: others may have lost against rows that are lost by now, and would be back without them.
            needed.beaten = self.undecided().remove(&number).unwrap_or_default();
        }
        let count = slot.segment.as_ref().map_or(0, |segment| segment.rows());
        let may_win = |row: &u32| !slot.validity.is_valid(*row) && !slot.lost.contains(*row);
        let invalid: Vec<u32> = (0..count).filter(may_win).collect();
        for rows in invalid.chunks(STEP as usize) {
            let identities = self.read(number, rows)?;
            let map = self.keys.read();
            for (at, row) in rows.iter().enumerate() {
                let here = Location { segment: number, row: *row };
                // Perhaps of another key of the same fingerprint: then a row is kept for nothing.
                for (_, location) in map.entries(identities.fingerprint(at)) {
                    if location == here {
                        needed.tombstones.insert(*row);
                    } else if !is_aged && !self.is_committed(location.segment) {
                        needed.beaten.insert(*row);
                    }
                }
            }
        }
        self.check()?;
        Ok(needed)
    }

    /// Of the other committed segments the rows that have lost and will not win, whatever becomes of rows in memory.
    pub(crate) fn lost_for_good(&self, apart_from: &[SegmentId]) -> Result<Vec<(SegmentId, RowSet)>> {
        let (mut lost, mut undecided) = (Vec::new(), self.undecided());
        for (number, slot) in (0..).zip(&self.segments) {
            if slot.validity.invalid() == 0 || slot.left || apart_from.contains(&slot.id) || !self.is_committed(number)
            {
                continue;
            }
            let needed = self.needed(slot.id)?;
            let undecided = undecided.remove(&number).unwrap_or_default();
            let count = slot.segment.as_ref().map_or(0, |segment| segment.rows());
            let is_lost = |row: &u32| {
                let may_win = needed.tombstones.contains(*row) || undecided.contains(*row);
                !slot.validity.is_valid(*row) && !may_win && !slot.lost.contains(*row)
            };
            let rows: RowSet = (0..count).filter(is_lost).collect();
            if !rows.is_empty() {
                lost.push((slot.id, rows));
            }
        }
        Ok(lost)
    }

    fn is_committed(&self, number: u32) -> bool {
        let segment = self.segments[number as usize].segment.as_ref();
        segment.is_some_and(|segment| segment.state() == SegmentState::Committed)
    }

    /// Reads what [`Self::rewrite`] needs: `from` has for each row of `new`, where there is one, which row it was; `dropped` are tombstones that
    /// are in it no more.
    pub(crate) fn prepare_rewrite(
        &self,
        new: Option<&Arc<dyn Segment>>,
        from: &[(SegmentId, u32)],
        dropped: &[(SegmentId, RowSet)],
    ) -> Result<Rewrite> {
        let mut rewrite = Rewrite {
            moves: Vec::new(),
            invalid: RowSet::default(),
            beaten: HashMap::new(),
            dropped: Vec::new(),
            lost_in_memory: Vec::new(),
            left: !from.is_empty(),
        };
        let number_of = |id: &SegmentId| {
            let unknown = || Error::Invalid(format!("the key map does not know segment {id}"));
            self.numbers.get(id).copied().ok_or_else(unknown)
        };
        let beaten: HashSet<Location> = self.segments.iter().flat_map(|slot| &slot.beaten).copied().collect();
        for (step, of_step) in from.chunks(STEP as usize).enumerate() {
            let Some(new) = new else { break };
            let first = step as u32 * STEP;
            let rows: Vec<u32> = (first..first + of_step.len() as u32).collect();
            let has_left = |id: &SegmentId| self.numbers.get(id).is_some_and(|at| self.segments[*at as usize].left);
            let all_left = of_step.iter().all(|(segment, _)| has_left(segment));
            rewrite.left &= all_left;
            // Without keys there is nothing to read.
            let read = if all_left { &[][..] } else { rows.as_slice() };
            let identities = self.reader.read(&new.take(self.reader.columns(), read)?)?;
            let map = self.keys.read();
            for (at, (segment, row)) in of_step.iter().enumerate() {
                let here = first + at as u32;
                let old = Location { segment: number_of(segment)?, row: *row };
                // It was deleted meanwhile, or lost, or is a tombstone. One that is valid has an entry, unless its key has left.
                let slot = &self.segments[old.segment as usize];
                if !slot.validity.is_valid(old.row) {
                    rewrite.invalid.insert(here);
                }
                if slot.left {
                    continue;
                }
                if beaten.contains(&old) {
                    rewrite.beaten.insert(old, here);
                }
                let mut entries = map.entries(identities.fingerprint(at));
                if let Some((place, _)) = entries.find(|(_, location)| *location == old) {
                    rewrite.moves.push((place, here));
                }
            }
        }
        let mut going = HashMap::new();
        for (segment, rows) in dropped {
            let number = number_of(segment)?;
            if self.segments[number as usize].left {
                continue;
            }
            going.insert(number, rows.clone());
            let rows: Vec<u32> = rows.iter().collect();
            for rows in rows.chunks(STEP as usize) {
                let identities = self.read(number, rows)?;
                let locations = rows.iter().map(|row| Location { segment: number, row: *row });
                let fingerprints = (0..rows.len()).map(|at| identities.fingerprint(at));
                rewrite.dropped.extend(fingerprints.zip(locations));
            }
        }
        rewrite.lost_in_memory = self.lost_in_memory(&going)?;
        self.check()?;
        Ok(rewrite)
    }

    /// `new` is there in the place of `retired`.
    pub(crate) fn rewrite(
        &mut self,
        rewrite: &Rewrite,
        new: Option<&Arc<dyn Segment>>,
        retired: &[SegmentId],
        lost: &[(SegmentId, RowSet)],
    ) {
        if let Some(new) = new {
            let number = self.number_of(new);
            let to = |(place, row): &(Place, u32)| (*place, Location { segment: number, row: *row });
            self.moved(&rewrite.moves.iter().map(to).collect::<Vec<_>>());
            let slot = &mut self.segments[number as usize];
            (slot.validity, slot.left) = (Arc::new(rewrite.invalid.iter().collect()), rewrite.left);
            for loser in self.segments.iter_mut().flat_map(|slot| &mut slot.beaten) {
                if let Some(row) = rewrite.beaten.get(loser) {
                    *loser = Location { segment: number, row: *row };
                }
            }
        }
        self.keys.remove(&rewrite.dropped);
        self.lose_in_memory(&rewrite.lost_in_memory);
        for id in retired {
            if let Some(number) = self.numbers.remove(id) {
                let slot = &mut self.segments[number as usize];
                (slot.segment, slot.validity, slot.lost) = (None, Arc::default(), RowSet::default());
                (slot.beaten, slot.left) = (Vec::new(), false);
            }
        }
        self.retirements += 1;
        self.lose(lost);
    }

    /// Of all segments that have rows that are not valid.
    pub(crate) fn validities(&self) -> Validities {
        let touched = self.segments.iter().filter(|slot| slot.validity.invalid() > 0);
        let mut all: Vec<_> = touched.map(|slot| (slot.id, Arc::clone(&slot.validity))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        Validities::new(all)
    }

    /// Keys, deleted ones among them.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.read().keys()
    }

    /// Bytes that the map takes, and what is kept to write it down; and how many of them are in files.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let beaten: usize = self.segments.iter().map(|slot| slot.beaten.capacity()).sum();
        let (bytes, in_files) = self.keys.read().bytes();
        (bytes + (beaten * size_of::<Location>()) as u64, in_files)
    }

    /// `Ok` when the map was read rightly so far. After an error it has forgotten keys: what was made of it must not be published, and only a start makes
    /// it again.
    pub(crate) fn check(&self) -> Result<()> {
        self.keys.read().check()
    }

    /// What readers ask.
    pub(crate) fn shared(&self) -> &Arc<Keys> {
        &self.keys
    }

    fn moved(&self, moves: &[(Place, Location)]) {
        for moves in moves.chunks(MOVED_AT_ONCE) {
            let mut map = self.keys.write();
            moves.iter().for_each(|(place, location)| map.set(*place, *location));
        }
    }

    fn invalidate(&mut self, location: Location) {
        let validity = &mut self.segments[location.segment as usize].validity;
        Arc::make_mut(validity).invalidate(location.row);
    }

    fn number_of(&mut self, segment: &Arc<dyn Segment>) -> u32 {
        let (segments, capturing) = (&mut self.segments, self.capturing);
        *self.numbers.entry(segment.id()).or_insert_with(|| {
            self.keys.numbered(segment.id());
            segments.push(Slot {
                id: segment.id(),
                settled: segment.state() == SegmentState::Committed && !capturing,
                segment: Some(Arc::clone(segment)),
                validity: Arc::default(),
                lost: RowSet::default(),
                left: false,
                beaten: Vec::new(),
            });
            segments.len() as u32 - 1
        })
    }
}
