//! The winners of a partition's keys: the map, the segments that it points into, and which of their rows are valid. Belongs to the one writer.

use std::{collections::HashMap, sync::Arc};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};

use super::{
    Keep, KeySpec, Provenance, Validities, Validity,
    identity::{Identities, Reader},
    map::{KeyMap, Location},
};
use crate::{Error, Result, ids::SegmentId, schema::TableSchema, segment::Segment};

/// Rows that are read at a time when the map is made again.
const STEP: u32 = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Winners {
    spec: Arc<KeySpec>,
    reader: Reader,
    map: KeyMap,
    /// By the numbers that the map has for them.
    segments: Vec<Slot>,
    numbers: HashMap<SegmentId, u32>,
}

#[derive(Debug)]
struct Slot {
    segment: Arc<dyn Segment>,
    validity: Arc<Validity>,
}

/// Rows that are about to be appended, and what they meet.
pub(crate) struct Arriving {
    new: Identities,
    fingerprints: Vec<u64>,
    /// Rows that have the fingerprint of one of these, ascending.
    met: Vec<Location>,
    /// Of each run of them in one segment: where it begins in `met`, and the identities.
    identities: Vec<(usize, Identities)>,
}

impl Arriving {
    /// The identities that a row is in, and its place there.
    fn identity(&self, location: Location) -> Option<(&Identities, usize)> {
        let at = self.met.binary_search(&location).ok()?;
        let run = self.identities.partition_point(|(start, _)| *start <= at) - 1;
        let (start, identities) = &self.identities[run];
        Some((identities, at - start))
    }
}

impl Winners {
    /// No keys yet. `schema` is one of the table's.
    pub(crate) fn new(spec: Arc<KeySpec>, schema: &TableSchema) -> Result<Self> {
        let reader = Reader::new(&spec, &spec.written(schema))?;
        Ok(Self { spec, reader, map: KeyMap::new(), segments: Vec::new(), numbers: HashMap::new() })
    }

    /// Puts the rows of a segment in that was there before. Errors: those of reading it.
    pub(crate) fn add(&mut self, segment: &Arc<dyn Segment>) -> Result<()> {
        let number = self.number_of(segment);
        for start in (0..segment.rows()).step_by(STEP as usize) {
            let rows: Vec<u32> = (start..segment.rows().min(start.saturating_add(STEP))).collect();
            let arriving = self.meet(&segment.take(self.reader.columns(), &rows)?)?;
            self.settle(number, start, &arriving);
        }
        Ok(())
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
        let of = |id| written.index_of(id).and_then(|at| columns.get(at)).cloned();
        let missing = || Error::Invalid("the rows lack a column of their key".into());
        let arrays: Option<Vec<ArrayRef>> = self.reader.columns().iter().map(|id| of(*id)).collect();
        self.meet(&arrays.ok_or_else(missing)?)
    }

    fn meet(&self, arrays: &[ArrayRef]) -> Result<Arriving> {
        let new = self.reader.read(arrays)?;
        let fingerprints: Vec<u64> = (0..new.rows()).map(|row| new.fingerprint(row)).collect();
        let entries = fingerprints.iter().flat_map(|fingerprint| self.map.entries(*fingerprint));
        let mut met: Vec<Location> = entries.map(|(_, location)| location).collect();
        met.sort_unstable();
        met.dedup();
        let mut identities = Vec::new();
        let mut start = 0;
        for run in met.chunk_by(|a, b| a.segment == b.segment) {
            let rows: Vec<u32> = run.iter().map(|location| location.row).collect();
            let segment = &self.segments[run[0].segment as usize].segment;
            identities.push((start, self.reader.read(&segment.take(self.reader.columns(), &rows)?)?));
            start += run.len();
        }
        Ok(Arriving { new, fingerprints, met, identities })
    }

    /// The rows that are to be stored, where not all are: those that have lost already, and need not be seen, are not.
    pub(crate) fn wanted(&self, arriving: &Arriving) -> Option<BooleanArray> {
        if self.spec.keeps_losers {
            return None;
        }
        let loses = |row: usize| {
            self.map.entries(arriving.fingerprints[row]).any(|(_, location)| {
                arriving.identity(location).is_some_and(|(known, at)| {
                    known.key(at) == arriving.new.key(row) && !self.wins(arriving.new.rank(row), known.rank(at))
                })
            })
        };
        let wanted: BooleanArray = (0..arriving.new.rows()).map(|row| Some(!loses(row))).collect();
        (wanted.true_count() < wanted.len()).then_some(wanted)
    }

    /// Whether a row that comes later takes the place of one that is there. Of equal rank are a row and itself, read once more.
    fn wins(&self, new: &[u8], old: &[u8]) -> bool {
        match self.spec.keep {
            Keep::Last => new >= old,
            Keep::First => new < old,
        }
    }

    /// The rows are in a segment now, from row `first` on: `segment` is what it has become.
    pub(crate) fn appended(&mut self, segment: Arc<dyn Segment>, first: u32, arriving: &Arriving) {
        let number = self.number_of(&segment);
        self.segments[number as usize].segment = segment;
        self.settle(number, first, arriving);
    }

    /// Decides who wins. Rows `first` and on of the segment are the arriving ones.
    fn settle(&mut self, segment: u32, first: u32, arriving: &Arriving) {
        let new = &arriving.new;
        for row in 0..new.rows() {
            let here = Location { segment, row: first + row as u32 };
            let fingerprint = arriving.fingerprints[row];
            let mut known = None;
            for (place, location) in self.map.entries(fingerprint) {
                // What is not among those met came with this batch.
                let (identities, at) = match arriving.identity(location) {
                    Some(found) => found,
                    None => (new, (location.row - first) as usize),
                };
                if identities.key(at) == new.key(row) {
                    known = Some((place, location, self.wins(new.rank(row), identities.rank(at))));
                    break;
                }
            }
            match known {
                None => self.map.insert(fingerprint, here),
                Some((place, old, true)) => {
                    self.map.set(place, here);
                    self.invalidate(old);
                }
                Some((_, _, false)) => {
                    self.invalidate(here);
                    continue;
                }
            }
            if new.deletes(row) {
                self.invalidate(here);
            }
        }
    }

    /// A segment has become another one of the same rows: a file. `order` has for each of its rows which it was before, where that is another.
    pub(crate) fn replace(&mut self, segment: Arc<dyn Segment>, order: Option<&[u32]>) -> Result<()> {
        let Some(number) = self.numbers.get(&segment.id()).copied() else { return Ok(()) };
        if let Some(order) = order {
            self.reorder(number, order)?;
        }
        self.segments[number as usize].segment = segment;
        Ok(())
    }

    fn reorder(&mut self, number: u32, order: &[u32]) -> Result<()> {
        let slot = &self.segments[number as usize];
        let mut places = vec![0; order.len()];
        for (place, row) in (0..).zip(order) {
            *places
                .get_mut(*row as usize)
                .ok_or_else(|| Error::Invalid(format!("an order of {} rows has row {row}", order.len())))? = place;
        }
        // Everything that may fail comes before the first change.
        let key = &self.reader.columns();
        let mut moves = Vec::new();
        for start in (0..slot.segment.rows()).step_by(STEP as usize) {
            let rows: Vec<u32> = (start..slot.segment.rows().min(start.saturating_add(STEP))).collect();
            let identities = self.reader.read(&slot.segment.take(key, &rows)?)?;
            for row in 0..identities.rows() {
                let here = Location { segment: number, row: start + row as u32 };
                let mut entries = self.map.entries(identities.fingerprint(row));
                if let Some((place, _)) = entries.find(|(_, location)| *location == here) {
                    moves.push((place, Location { row: places[here.row as usize], ..here }));
                }
            }
        }
        for (place, location) in moves {
            self.map.set(place, location);
        }
        let slot = &mut self.segments[number as usize];
        slot.validity = Arc::new(slot.validity.permuted(order));
        Ok(())
    }

    /// Of all segments that have rows that are not valid.
    pub(crate) fn validities(&self) -> Validities {
        let touched = self.segments.iter().filter(|slot| slot.validity.invalid() > 0);
        let mut all: Vec<_> = touched.map(|slot| (slot.segment.id(), Arc::clone(&slot.validity))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        Validities::new(all)
    }

    /// Keys, deleted ones among them.
    pub(crate) fn keys(&self) -> u64 {
        self.map.keys()
    }

    /// Bytes of memory that the map takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.bytes()
    }

    fn invalidate(&mut self, location: Location) {
        let validity = &mut self.segments[location.segment as usize].validity;
        Arc::make_mut(validity).invalidate(location.row);
    }

    fn number_of(&mut self, segment: &Arc<dyn Segment>) -> u32 {
        let segments = &mut self.segments;
        *self.numbers.entry(segment.id()).or_insert_with(|| {
            segments.push(Slot { segment: Arc::clone(segment), validity: Arc::default() });
            segments.len() as u32 - 1
        })
    }
}
