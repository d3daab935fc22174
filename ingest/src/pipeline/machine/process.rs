//! The operator behind `transform(TABLE source PARTITION BY key, …)`: rows in the order of their event times, each with what is kept of its key.
//!
//! ```text
//! rows ─► held ─ the watermark passes them ─► in the order of time ─► Stateful::row  ─┐
//!                                  state of the key ◄─────────────────► Stateful::wake ┴─► rows
//! ```
//!
//! Rows wait for the watermark, since an earlier one may come; a row that is behind it is late. So the answer does not depend on the order of arrival within the watermark's
//! allowance. A state that asks to be woken is woken before the first row at that time or later, and when the watermark is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, AsArray, Int64Array, LargeBinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
    },
    compute::{cast, concat_batches},
    datatypes::Int64Type,
};
use datafusion::common::DataFusionError;

use super::{
    flow::{Flowing, InFile, Part, Taken},
    keyed::{ENTRY_BYTES, Keyed, Value},
    packing::Packing,
    spill::Store,
};
use crate::pipeline::{
    plan::Process,
    plugin::{State, Stateful},
};

type Result<T> = std::result::Result<T, DataFusionError>;

const HELD: &str = "held";
const STATES: &str = "states";
const WAKES: &str = "wakes";

/// Rows with all that the operator computes of them alone.
pub(crate) struct ProcessRows {
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    /// The source's columns.
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) before: Vec<i64>,
    pub(crate) places: Vec<u32>,
}

pub(crate) struct Processing {
    process: Arc<Process>,
    keys: Packing,
    rows: Packing,
    /// Rows that wait, and how often each came.
    held: BTreeMap<Held, u32>,
    states: Keyed<State>,
    /// When, and the key.
    wakes: BTreeSet<(i64, Box<[u8]>)>,
    /// States that became empty since those were last taken out of memory.
    emptied: usize,
    /// Of rows that wait, and of wakes.
    bytes: usize,
}

/// Time, key, row.
type Held = (i64, Box<[u8]>, Box<[u8]>);

/// Rows that were made, and their event times.
#[derive(Default)]
struct Made {
    rows: Vec<RecordBatch>,
    times: Vec<i64>,
}

impl Value for State {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.wake_us.unwrap_or(i64::MIN).to_le_bytes());
        bytes.extend_from_slice(&self.bytes);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (wake, bytes) = bytes.split_first_chunk::<8>()?;
        Some(Self { bytes: bytes.to_vec(), wake_us: wake_of(i64::from_le_bytes(*wake)) })
    }

    fn bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

fn wake_of(stored: i64) -> Option<i64> {
    (stored != i64::MIN).then_some(stored)
}

impl Processing {
    pub(crate) fn new(process: Arc<Process>, store: Arc<dyn Store>) -> Result<Self> {
        let types = |schema: &arrow::datatypes::Schema| {
            schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>()
        };
        let (keys, rows) = (Packing::new(types(&process.key_schema))?, Packing::new(types(&process.input))?);
        let (held, wakes) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { process, keys, rows, held, states: Keyed::new(store), wakes, emptied: 0, bytes: 0 })
    }

    pub(crate) fn update(&mut self, rows: &ProcessRows) -> Result<Taken> {
        let (keys, packed) = (self.keys.pack(&rows.keys)?, self.rows.pack(&rows.columns)?);
        let mut taken = Taken::default();
        for (row, before) in rows.before.iter().copied().enumerate() {
            match rows.times.value(row) {
                time if time < before => taken.late.push(rows.places[row]),
                time => self.hold((time, keys.row(row).into(), packed.row(row).into()), 1),
            }
        }
        Ok(taken)
    }

    fn hold(&mut self, row: Held, times: u32) {
        self.bytes += (row.1.len() + row.2.len() + ENTRY_BYTES) * times as usize;
        *self.held.entry(row).or_insert(0) += times;
    }

    /// Goes through what the watermark has passed.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut released: Vec<Held> = Vec::new();
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 < watermark) {
            let (row, times) = entry.remove_entry();
            self.bytes -= (row.1.len() + row.2.len() + ENTRY_BYTES) * times as usize;
            released.extend(std::iter::repeat_n(row, times as usize));
        }
        let mut made = Made::default();
        if !released.is_empty() {
            let columns = self.rows.unpack(released.iter().map(|(.., row)| &**row))?;
            let rows = batch(&self.process.input, columns, released.len())?;
            for (at, (time, key, _)) in released.iter().enumerate() {
                self.wake(*time, &mut made)?;
                self.step(*time, key, &mut made, |transform, state| transform.row(state, &rows, at))?;
            }
        }
        self.wake(watermark, &mut made)?;
        self.states.settle()?;
        self.forget();
        self.given(made)
    }

    /// Wakes the states that asked for a time up to this one.
    fn wake(&mut self, until: i64, made: &mut Made) -> Result<()> {
        while self.wakes.first().is_some_and(|(at, _)| *at <= until) {
            let Some((at, key)) = self.wakes.pop_first() else { break };
            self.bytes -= key.len() + ENTRY_BYTES;
            let columns = self.keys.unpack(std::iter::once(&*key))?;
            let of_key = batch(&self.process.key_schema, columns, 1)?;
            self.step(at, &key, made, |transform, state| {
                state.wake_us = None;
                transform.wake(state, &of_key, at)
            })?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        time: i64,
        key: &[u8],
        made: &mut Made,
        work: impl FnOnce(&dyn Stateful, &mut State) -> std::result::Result<Option<RecordBatch>, String>,
    ) -> Result<()> {
        let (mut given, mut wakes, mut is_empty) = (Ok(None), (None, None), false);
        self.states.change(key, |state| {
            let before = state.wake_us;
            given = self.process.run(state, time, work);
            (wakes, is_empty) = ((before, state.wake_us), state.is_empty());
        })?;
        let given = given.map_err(DataFusionError::Execution)?;
        self.emptied += usize::from(is_empty);
        if wakes.0 != wakes.1 {
            if let Some(before) = wakes.0
                && self.wakes.remove(&(before, key.into()))
            {
                self.bytes -= key.len() + ENTRY_BYTES;
            }
            self.wakes_at(wakes.1, key);
        }
        if let Some(rows) = given.filter(|rows| rows.num_rows() > 0) {
            made.times.resize(made.times.len() + rows.num_rows(), time);
            made.rows.push(rows);
        }
        Ok(())
    }

    fn wakes_at(&mut self, at: Option<i64>, key: &[u8]) {
        if let Some(at) = at
            && self.wakes.insert((at, key.into()))
        {
            self.bytes += key.len() + ENTRY_BYTES;
        }
    }

    /// Takes empty states out of memory, where none of a file would be seen again behind them.
    fn forget(&mut self) {
        if self.emptied > 1024 && self.emptied * 2 > self.states.entries() && self.states.spilled() == 0 {
            self.states.retain(|state| !state.is_empty());
            self.emptied = 0;
        }
    }

    fn given(&self, made: Made) -> Result<Taken> {
        if made.rows.is_empty() {
            return Ok(Taken::default());
        }
        let output = &self.process.output;
        let count = made.times.len();
        let rows = made.rows.into_iter().map(|rows| {
            let count = rows.num_rows();
            batch(output, rows.columns().to_vec(), count)
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let mut columns = concat_batches(output, &rows)?.columns().to_vec();
        if let Some(at) = self.process.time_column {
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(made.times));
            columns[at] = cast(&times, output.field(at).data_type())?;
        }
        Ok(Taken { given: vec![Flowing::on_time(batch(output, columns, count)?)], ..Taken::default() })
    }

    /// Bytes that go to files, if there is anything. Rows that wait, and who is to be woken, stay in memory.
    pub(crate) fn spillable(&self) -> usize {
        self.states.spillable()
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        self.emptied = 0;
        // An empty one stands for older ones of its key.
        self.states.spill(|| Box::new(|_| true))
    }

    pub(crate) fn spilled(&self) -> u64 {
        self.states.spilled()
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let integers = |of: Vec<i64>| Arc::new(Int64Array::from(of)) as ArrayRef;
        let mut parts = self.states.dump(STATES);
        if !self.held.is_empty() {
            let keys = self.keys.unpack(self.held.keys().map(|(_, key, _)| &**key))?;
            let rows = self.rows.unpack(self.held.keys().map(|(.., row)| &**row))?;
            let times = integers(self.held.keys().map(|(time, ..)| *time).collect());
            let counts = integers(self.held.values().map(|times| i64::from(*times)).collect());
            parts.push(Part::new(HELD, 0, self.held.len(), vec![vec![times, counts], keys, rows]));
        }
        if !self.wakes.is_empty() {
            let keys = self.keys.unpack(self.wakes.iter().map(|(_, key)| &**key))?;
            let times = integers(self.wakes.iter().map(|(at, _)| *at).collect());
            parts.push(Part::new(WAKES, 0, self.wakes.len(), vec![vec![times], keys]));
        }
        let states = self.states.in_memory();
        let count = states.len();
        if count > 0 {
            let keys = self.keys.unpack(states.clone().map(|(key, _)| key))?;
            let wakes = integers(states.clone().map(|(_, state)| state.wake_us.unwrap_or(i64::MIN)).collect());
            let bytes = LargeBinaryArray::from_iter_values(states.map(|(_, state)| state.bytes.as_slice()));
            parts.push(Part::new(STATES, 0, count, vec![vec![wakes, Arc::new(bytes)], keys]));
        }
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if let (STATES, Some(InFile::Table(table))) = (part.kind.as_str(), &part.in_file) {
            return self.states.adopt(table.clone());
        }
        let foreign = || super::foreign(&part.kind);
        let [of_each, keys, rest @ ..] = part.columns.as_slice() else { return Err(foreign()) };
        let keys = self.keys.pack(keys)?;
        let integers = |at: usize| of_each.get(at).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let times = integers(0).ok_or_else(foreign)?;
        match (part.kind.as_str(), rest) {
            (HELD, [rows]) => {
                let (rows, counts) = (self.rows.pack(rows)?, integers(1).ok_or_else(foreign)?);
                for at in 0..part.rows {
                    let row = (times.value(at), keys.row(at).into(), rows.row(at).into());
                    self.hold(row, u32::try_from(counts.value(at)).map_err(|_| foreign())?);
                }
            }
            (WAKES, []) => (0..part.rows).for_each(|at| self.wakes_at(Some(times.value(at)), keys.row(at))),
            (STATES, []) => {
                let bytes = of_each.get(1).and_then(|column| column.as_binary_opt::<i64>()).ok_or_else(foreign)?;
                for at in 0..part.rows {
                    let state = State { bytes: bytes.value(at).to_vec(), wake_us: wake_of(times.value(at)) };
                    self.states.put(keys.row(at), state);
                }
            }
            _ => return Err(foreign()),
        }
        Ok(())
    }

    /// Bytes, and rows and keys. Whether rows wait for the watermark is nothing that a drain waits for.
    pub(crate) fn size(&self) -> (usize, usize) {
        let bytes = self.bytes + self.states.bytes() + mem::size_of::<Self>();
        (bytes, self.held.len() + self.states.entries())
    }
}

fn batch(schema: &arrow::datatypes::SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
