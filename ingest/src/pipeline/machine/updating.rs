//! The operator behind GROUP BY without a window: groups that go on for ever, given again when they changed.
//!
//! ```text
//! rows ─► fresh: groups of what came since the last giving
//!                      │ when it is time to give
//! known: key → state ──┴─► merged ─► given, and known from now on
//! ```
//!
//! When it gives is the runner's to say, since no row does; what it gives depends on the rows alone. What memory has no room for of the known is in files (`keyed/`).

use std::{borrow::Cow, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::DataFusionError;

use super::{
    flow::{InFile, Part},
    groups::{Dump, Groups, Rows},
    keyed::Keyed,
    packing::Packing,
    spill::{self, Store},
    windowed::Prepared,
};
use crate::pipeline::plan::Aggregate;

type Result<T> = std::result::Result<T, DataFusionError>;

const KNOWN: &str = "known";
const FRESH: &str = "fresh";

pub(crate) struct Updating {
    aggregate: Arc<Aggregate>,
    keys: Packing,
    states: States,
    known: Keyed<Box<[u8]>>,
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
        Ok(Self { aggregate, keys, states, known: Keyed::new(store), fresh: None })
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
    pub(crate) fn give(&mut self) -> Result<Option<RecordBatch>> {
        let Some(mut fresh) = self.fresh.take() else { return Ok(None) };
        let fresh = fresh.take()?;
        let keys = self.keys.pack(&fresh.keys)?;
        self.known.settle()?;
        let mut found: Vec<(u32, Cow<'_, Box<[u8]>>)> = Vec::new();
        for at in 0..fresh.groups {
            found.extend(self.known.get(keys.row(at))?.map(|state| (at as u32, state)));
        }
        let mut merged = Groups::new(&self.aggregate)?;
        if !found.is_empty() {
            // What was known comes first: some aggregates go by the order of rows.
            let places: UInt32Array = found.iter().map(|(at, _)| *at).collect::<Vec<_>>().into();
            let of_known = fresh.keys.iter().map(|column| Ok(take(column, &places, None)?)).collect::<Result<_>>()?;
            let states = self.states.unpack(found.iter().map(|(_, state)| &***state))?;
            merged.merge(&Dump { groups: found.len(), keys: of_known, states })?;
        }
        merged.merge(&fresh)?;
        let now = merged.dump()?;
        let (keys, states) = (self.keys.pack(&now.keys)?, self.states.pack(&now.states)?);
        for at in 0..now.groups {
            self.known.put_bytes(keys.row(at), states.row(at));
        }
        let (count, keys, results) = merged.finish()?;
        Ok(Some(self.aggregate.assemble(count, &keys, results, None)?))
    }

    /// Bytes that go to files, if there is anything.
    pub(crate) fn spillable(&self) -> usize {
        self.known.spillable()
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        self.known.spill(|| Box::new(|_| true))
    }

    pub(crate) fn spilled(&self) -> u64 {
        self.known.spilled()
    }

    pub(crate) fn dump(&mut self) -> Result<Vec<Part>> {
        let columns = |keys: Vec<ArrayRef>, states: Vec<Vec<ArrayRef>>| [vec![keys], states].concat();
        let mut parts = self.known.dump(KNOWN);
        let known = self.known.in_memory();
        if known.len() > 0 {
            let keys = self.keys.unpack(known.clone().map(|(key, _)| key))?;
            let states = self.states.unpack(known.clone().map(|(_, state)| &**state))?;
            parts.push(Part::new(KNOWN, 0, known.len(), columns(keys, states)));
        }
        if let Some(fresh) = &mut self.fresh {
            let Dump { groups, keys, states } = fresh.dump()?;
            parts.push(Part::new(FRESH, 0, groups, columns(keys, states)));
        }
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if let (KNOWN, Some(InFile::Table(table))) = (part.kind.as_str(), part.in_file) {
            return self.known.adopt(table);
        }
        let dump = self.aggregate.dump_of(part.rows, part.columns)?;
        match part.kind.as_str() {
            KNOWN => {
                let (keys, states) = (self.keys.pack(&dump.keys)?, self.states.pack(&dump.states)?);
                self.known.reserve(dump.groups);
                (0..dump.groups).for_each(|at| self.known.put_bytes(keys.row(at), states.row(at)));
            }
            FRESH => spill::join(&mut self.fresh, &dump, &self.aggregate)?,
            other => return Err(super::foreign(other)),
        }
        Ok(())
    }

    /// Bytes, and groups.
    pub(crate) fn size(&self) -> (usize, usize) {
        let fresh = self.fresh.as_ref();
        (self.known.bytes() + fresh.map_or(0, Groups::bytes), self.known.entries() + fresh.map_or(0, Groups::groups))
    }
}
