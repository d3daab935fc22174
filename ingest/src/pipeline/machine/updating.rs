//! The operator behind GROUP BY without a window: groups that go on for ever, given again when they changed.
//!
//! ```text
//! rows ─► fresh: groups of what came since the last giving
//!                      │ when it is time to give
//! known: key → state ──┴─► merged ─► given, and known from now on
//! ```
//!
//! When it gives is the runner's to say, since no row does; what it gives depends on the rows alone. What memory has no room for of the known is in files (`keyed/`).

use std::{mem, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::DataFusionError;

use super::{
    flow::{InFile, Part},
    groups::{Accumulators, Dump, Groups, Rows},
    keyed::{PackedMap, Tables},
    packing::Packing,
    spill::{self, Store},
    windowed::Prepared,
};
use crate::pipeline::plan::Aggregate;

type Result<T> = std::result::Result<T, DataFusionError>;

const KNOWN: &str = "known";
const FRESH: &str = "fresh";
/// Groups of a part of a picture: while one is read the one before is taken.
const PART_ROWS: usize = 1 << 18;
/// Groups that are given at a time: what is looked at of each is near until it is written.
const GIVEN_ROWS: usize = 8 << 10;
/// Groups that are made bytes at a time.
const PACKED_ROWS: usize = 16 << 10;

pub(crate) struct Updating {
    aggregate: Arc<Aggregate>,
    keys: Packing,
    states: States,
    known: PackedMap,
    /// Of memory what is in `known` counts.
    in_files: Tables,
    fresh: Option<Groups>,
}

/// States of accumulators as bytes.
pub(crate) struct States {
    packing: Packing,
    /// Columns of each accumulator.
    lengths: Vec<usize>,
}

impl States {
    pub(crate) fn new(aggregate: &Aggregate) -> Result<Self> {
        let fields = aggregate.calls.iter().map(|call| call.function.state_fields()).collect::<Result<Vec<_>>>()?;
        let lengths = fields.iter().map(Vec::len).collect();
        let types = fields.iter().flatten().map(|field| field.data_type().clone()).collect();
        Ok(Self { packing: Packing::new(types)?, lengths })
    }

    pub(crate) fn pack(&self, states: &[Vec<ArrayRef>]) -> Result<super::packing::Packed> {
        let columns: Vec<ArrayRef> = states.iter().flatten().map(Arc::clone).collect();
        self.packing.pack(&columns)
    }

    pub(crate) fn unpack<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<ArrayRef>>> {
        let mut columns = self.packing.unpack(rows)?.into_iter();
        Ok(self.lengths.iter().map(|length| columns.by_ref().take(*length).collect()).collect())
    }
}

impl Updating {
    pub(crate) fn new(aggregate: Arc<Aggregate>, store: Arc<dyn Store>) -> Result<Self> {
        let types = aggregate.key_schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let (keys, states) = (Packing::new(types)?, States::new(&aggregate)?);
        Ok(Self { aggregate, keys, states, known: PackedMap::new(), in_files: Tables::new(store), fresh: None })
    }

    pub(crate) fn update(&mut self, rows: &Prepared) -> Result<()> {
        let fresh = match &mut self.fresh {
            Some(fresh) => fresh,
            None => self.fresh.insert(Groups::new(&self.aggregate)?),
        };
        fresh.update(&Rows {
            count: rows.before.len(),
            keys: &rows.keys,
            arguments: &rows.arguments,
            filters: &rows.filters,
        })
    }

    /// Whether groups changed that were not given.
    pub(crate) fn is_waiting(&self) -> bool {
        self.fresh.is_some()
    }

    /// The groups that changed, as they are now.
    pub(crate) fn give(&mut self) -> Result<Vec<RecordBatch>> {
        let Some(mut fresh) = self.fresh.take() else { return Ok(Vec::new()) };
        let fresh = fresh.take()?;
        self.in_files.settle()?;
        let slice = |from| fresh.slice(from, GIVEN_ROWS.min(fresh.groups - from));
        (0..fresh.groups).step_by(GIVEN_ROWS).map(|from| self.give_some(&slice(from))).collect()
    }

    fn give_some(&mut self, fresh: &Dump) -> Result<RecordBatch> {
        let packed = self.keys.pack(&fresh.keys)?;
        let places = self.known.find_all(fresh.groups, |at| packed.row(at));
        let mut read: Vec<(usize, Vec<u8>)> = Vec::new();
        if !self.in_files.is_empty() {
            for at in (0..fresh.groups).filter(|at| places[*at].is_none()) {
                read.extend(self.in_files.get(packed.row(at))?.map(|state| (at, state)));
            }
        }
        // Groups that were known get the first numbers: their states come first, since some aggregates go by the order of rows.
        let in_memory = places.iter().enumerate().filter_map(|(at, place)| Some((at, (*place)?)));
        let mut order: Vec<usize> = in_memory.clone().map(|(at, _)| at).chain(read.iter().map(|(at, _)| *at)).collect();
        let known = order.len();
        let mut numbers = vec![usize::MAX; fresh.groups];
        order.iter().enumerate().for_each(|(number, at)| numbers[*at] = number);
        for (at, number) in numbers.iter_mut().enumerate().filter(|(_, number)| **number == usize::MAX) {
            *number = order.len();
            order.push(at);
        }
        let mut merged = Accumulators::new(&self.aggregate)?;
        if known > 0 {
            let states =
                in_memory.map(|(_, place)| self.known.value(place)).chain(read.iter().map(|(_, state)| &**state));
            merged.merge(&self.states.unpack(states)?, &(0..known).collect::<Vec<_>>(), known)?;
        }
        merged.merge(&fresh.states, &numbers, order.len())?;
        // DataFusion's accumulators give their state away, so it is put in again.
        let states = merged.take()?;
        let all: Vec<usize> = (0..order.len()).collect();
        merged.merge(&states, &all, all.len())?;
        let packed_states = self.states.pack(&states)?;
        let mut is_where_it_was = true;
        for (number, at) in order.iter().enumerate() {
            let state = packed_states.row(number);
            is_where_it_was = match places[*at] {
                Some(place) if is_where_it_was => self.known.set(place, state),
                _ => {
                    self.known.put(packed.row(*at), state);
                    false
                }
            };
        }
        let order: UInt32Array = order.into_iter().map(|at| at as u32).collect::<Vec<_>>().into();
        let keys = fresh.keys.iter().map(|column| Ok(take(column, &order, None)?)).collect::<Result<Vec<_>>>()?;
        self.aggregate.assemble(order.len(), &keys, merged.finish()?, None)
    }

    /// Bytes that go to files, if there is anything.
    pub(crate) fn spillable(&self) -> usize {
        if self.known.len() > 0 { self.known.bytes() } else { 0 }
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        let known = mem::replace(&mut self.known, PackedMap::new());
        self.in_files.add(known.iter(), |state, bytes| bytes.extend_from_slice(state), || Box::new(|_| true))
    }

    pub(crate) fn spilled(&self) -> u64 {
        self.in_files.spilled()
    }

    pub(crate) fn dump(&mut self) -> Result<Vec<Part>> {
        let columns = |keys: Vec<ArrayRef>, states: Vec<Vec<ArrayRef>>| [vec![keys], states].concat();
        let mut parts = self.in_files.dump(KNOWN);
        let (mut rest, mut left) = (self.known.iter(), self.known.len());
        loop {
            let some: Vec<(&[u8], &[u8])> = rest.by_ref().take(PART_ROWS).collect();
            if some.is_empty() {
                break;
            }
            let keys = self.keys.unpack(some.iter().map(|(key, _)| *key))?;
            let states = self.states.unpack(some.iter().map(|(_, state)| *state))?;
            parts.push(Part::new(KNOWN, left as i64, some.len(), columns(keys, states)));
            left -= some.len();
        }
        if let Some(fresh) = &mut self.fresh {
            let Dump { groups, keys, states } = fresh.dump()?;
            parts.push(Part::new(FRESH, 0, groups, columns(keys, states)));
        }
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if let (KNOWN, Some(InFile::Table(table))) = (part.kind.as_str(), part.in_file) {
            return self.in_files.adopt(table);
        }
        let dump = self.aggregate.dump_of(part.rows, part.columns)?;
        match part.kind.as_str() {
            KNOWN => {
                // A lane has its share of this part, and will have as much of those that follow.
                self.known.reserve(match usize::try_from(part.at) {
                    Ok(left) if left > PART_ROWS => left.saturating_mul(dump.groups) / PART_ROWS,
                    _ => dump.groups,
                });
                for from in (0..dump.groups).step_by(PACKED_ROWS) {
                    let dump = dump.slice(from, PACKED_ROWS.min(dump.groups - from));
                    let (keys, states) = (self.keys.pack(&dump.keys)?, self.states.pack(&dump.states)?);
                    self.known.put_all(dump.groups, |at| keys.row(at), |at| states.row(at));
                }
            }
            FRESH => spill::join(&mut self.fresh, &dump, &self.aggregate)?,
            other => return Err(super::foreign(other)),
        }
        Ok(())
    }

    /// Bytes, and groups.
    pub(crate) fn size(&self) -> (usize, usize) {
        let fresh = self.fresh.as_ref();
        let bytes = self.known.bytes() + self.in_files.bytes() + fresh.map_or(0, Groups::bytes);
        (bytes, self.known.len() + self.in_files.entries() + fresh.map_or(0, Groups::groups))
    }
}
