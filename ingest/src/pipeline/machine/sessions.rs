//! The operator behind SESSION: of each key stretches of rows that are less than the gap apart.
//!
//! ```text
//! rows of a key   x  x x      x         x: further than the gap from the others
//! sessions        [───────── gap)  [─ gap)
//!                           ▲ a row in between, should it come in time, makes them one
//! ```
//!
//! Rows of a batch are sorted by key and time and chained; each chain takes the sessions that it touches into it. A session is given when the watermark passes its end, the
//! gap after its last row. A row whose own gap the watermark has passed is late. A row behind the watermark must not meet sessions that would have been given before it,
//! so these are given first.
//!
//! Sessions that memory has no room for go to files ([`Timed`]), and come back when a row of their key does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array},
    datatypes::TimestampMicrosecondType,
};
use datafusion::common::DataFusionError;

use super::{
    flow::{Part, Taken},
    groups::Accumulators,
    keyed::{Due, Timed, TimedRow},
    packing::{ByRow, Packing},
    spill::Store,
    updating::States,
    windowed::Prepared,
};
use crate::pipeline::plan::{
    Aggregate, Timing,
    windows::{Window, windows_array},
};

type Result<T> = std::result::Result<T, DataFusionError>;
type Key = Arc<[u8]>;

/// Bytes of a session beside its key and its state.
const ENTRY_BYTES: usize = 160;
const OPEN: &str = "session";
const IN_FILES: &str = "sessions in files";
/// Of a session in a file: it is in memory again.
const BACK: u8 = 1;

pub(crate) struct Sessions {
    aggregate: Arc<Aggregate>,
    gap: i64,
    keys: Packing,
    states: States,
    /// By their first rows.
    open: ByRow<BTreeMap<i64, Session>, Key>,
    /// End, key and first row of each.
    ends: BTreeSet<(i64, Key, i64)>,
    /// Of memory.
    bytes: usize,
    /// By their ends; what one says is its first row's time, and the state.
    filed: Timed,
}

struct Session {
    last: i64,
    state: Box<[u8]>,
}

/// Sessions and rows that are one session from now on.
struct Merged {
    key: Key,
    first: i64,
    last: i64,
}

impl Sessions {
    pub(crate) fn new(aggregate: Arc<Aggregate>, timing: &Timing, store: Arc<dyn Store>) -> Result<Self> {
        let Window::Session { gap } = timing.window else { return Err(super::foreign("a window that is no session")) };
        let types = aggregate.key_schema.fields().iter().map(|field| field.data_type().clone()).collect();
        let (keys, states) = (Packing::new(types)?, States::new(&aggregate)?);
        let (open, ends, filed) = (ByRow::default(), BTreeSet::new(), Timed::new(IN_FILES, store));
        Ok(Self { aggregate, gap, keys, states, open, ends, bytes: 0, filed })
    }

    pub(crate) fn update(&mut self, rows: &Prepared) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut places: Vec<u32> = Vec::with_capacity(rows.before.len());
        for (row, before) in (0u32..).zip(&rows.before) {
            let time = rows.times.value(row as usize);
            if time.saturating_add(self.gap) <= *before {
                taken.late.push(rows.places[row as usize]);
                continue;
            }
            if time < *before {
                self.add(rows, &places)?;
                places.clear();
                taken.extend(Taken::of(self.advance(*before)?));
            }
            places.push(row);
        }
        self.add(rows, &places)?;
        Ok(taken)
    }

    fn add(&mut self, rows: &Prepared, places: &[u32]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let taken;
        let rows = if places.len() == rows.before.len() {
            rows
        } else {
            taken = rows.take(&UInt32Array::from(places.to_vec()))?;
            &taken
        };
        let keys = self.keys.pack(&rows.keys)?;
        let mut order: Vec<usize> = (0..rows.before.len()).collect();
        order.sort_by(|a, b| (keys.row(*a), rows.times.value(*a)).cmp(&(keys.row(*b), rows.times.value(*b))));
        let mut merged: Vec<Merged> = Vec::new();
        // Which of the merged each row, and each session that was, goes to.
        let mut of_rows = vec![0; rows.before.len()];
        let mut of_known: Vec<usize> = Vec::new();
        let mut known: Vec<Box<[u8]>> = Vec::new();
        for row in order {
            let (key, time) = (keys.row(row), rows.times.value(row));
            if merged.last().is_none_or(|chain| *chain.key != *key) {
                self.bring_back(key)?;
            }
            match merged.last_mut() {
                Some(chain) if *chain.key == *key && time.saturating_sub(chain.last) < self.gap => {
                    chain.last = chain.last.max(time)
                }
                _ => merged.push(Merged { key: key.into(), first: time, last: time }),
            }
            let at = merged.len() - 1;
            of_rows[row] = at;
            // All sessions that the chain touches with this row.
            while let Some(session) = self.touching(key, time) {
                let first = session;
                let Some(session) = self.remove(key, first) else { break };
                let chain = &mut merged[at];
                chain.first = chain.first.min(first);
                chain.last = chain.last.max(session.last);
                of_known.push(at);
                known.push(session.state);
            }
        }
        // A group is to come with the batch that makes it known, so those that were known are numbered first.
        let mut numbers = vec![usize::MAX; merged.len()];
        let mut chains: Vec<usize> = of_known.clone();
        chains.dedup();
        let known_count = chains.len();
        chains.extend((0..merged.len()).filter(|at| of_known.binary_search(at).is_err()));
        chains.iter().enumerate().for_each(|(number, at)| numbers[*at] = number);
        let mut accumulators = Accumulators::new(&self.aggregate)?;
        if !known.is_empty() {
            let states = self.states.unpack(known.iter().map(|state| &**state))?;
            let of_known: Vec<usize> = of_known.iter().map(|at| numbers[*at]).collect();
            accumulators.merge(&states, &of_known, known_count)?;
        }
        let of_rows: Vec<usize> = of_rows.iter().map(|at| numbers[*at]).collect();
        accumulators.update(&rows.arguments, &rows.filters, &of_rows, merged.len())?;
        let states = self.states.pack(&accumulators.take()?)?;
        for (at, Merged { key, first, last }) in merged.into_iter().enumerate() {
            self.insert(key, first, Session { last, state: states.row(numbers[at]).into() });
        }
        Ok(())
    }

    /// Takes the sessions of a key out of files.
    fn bring_back(&mut self, key: &[u8]) -> Result<()> {
        if self.filed.is_empty() {
            return Ok(());
        }
        for found in self.filed.of_key(key)? {
            if found.mark & BACK == 0 && found.time >= self.filed.before() {
                self.filed.mark(found.place, BACK);
                let (first, state) = unwritten(&found.bytes)?;
                self.insert(key.into(), first, Session { last: found.time.saturating_sub(self.gap), state });
            }
        }
        Ok(())
    }

    /// The first row of a session that is less than the gap from a time.
    fn touching(&self, key: &[u8], time: i64) -> Option<i64> {
        let sessions = self.open.get(key)?;
        // Those that begin within the gap after it, and the last one before it.
        let (first, session) = sessions.range(..time.saturating_add(self.gap)).next_back()?;
        (time.saturating_sub(session.last) < self.gap).then_some(*first)
    }

    fn insert(&mut self, key: Key, first: i64, session: Session) {
        self.bytes += key.len() + session.state.len() + ENTRY_BYTES;
        self.ends.insert((session.last.saturating_add(self.gap), Arc::clone(&key), first));
        self.open.entry(key).or_default().insert(first, session);
    }

    fn remove(&mut self, key: &[u8], first: i64) -> Option<Session> {
        let (known, _) = self.open.get_key_value(key)?;
        let known = Arc::clone(known);
        let sessions = self.open.get_mut(key)?;
        let session = sessions.remove(&first)?;
        if sessions.is_empty() {
            self.open.remove(key);
        }
        self.bytes -= known.len() + session.state.len() + ENTRY_BYTES;
        self.ends.remove(&(session.last.saturating_add(self.gap), known, first));
        Some(session)
    }

    /// The sessions that end at or before the watermark, in the order of their ends.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Vec<RecordBatch>> {
        // End, key, first row, state.
        let mut ended: Vec<(i64, Key, i64, Box<[u8]>)> = Vec::new();
        while let Some((end, key, first)) = self.ends.first().filter(|(end, ..)| *end <= watermark).cloned() {
            let Some(session) = self.remove(&key, first) else { break };
            ended.push((end, key, first, session.state));
        }
        if !self.filed.is_empty() {
            let before = watermark.saturating_add(1);
            let due = self.filed.due(before)?;
            let due: Vec<&Due> = due.iter().filter(|due| due.mark & BACK == 0).collect();
            for (due, bytes) in due.iter().zip(self.filed.read(&due)?) {
                let (first, state) = unwritten(&bytes)?;
                ended.push((due.time, Arc::from(&*due.key), first, state));
            }
            self.filed.forget(before);
            ended.sort_unstable_by(|(a, k, x, _), (b, l, y, _)| (a, k, x).cmp(&(b, l, y)));
        }
        if ended.is_empty() {
            return Ok(Vec::new());
        }
        let count = ended.len();
        let mut accumulators = Accumulators::new(&self.aggregate)?;
        let numbers: Vec<usize> = (0..count).collect();
        accumulators.merge(&self.states.unpack(ended.iter().map(|(.., state)| &**state))?, &numbers, count)?;
        let keys = self.keys.unpack(ended.iter().map(|(_, key, ..)| &**key))?;
        let firsts = ended.iter().map(|(_, _, first, _)| *first).collect();
        let ends = ended.iter().map(|(end, ..)| *end).collect();
        let window = windows_array(&self.time_type()?, firsts, ends)
            .map_err(|error| DataFusionError::Execution(error.to_string()))?;
        let window = RecordBatch::try_from_iter([("window", window)])?;
        Ok(vec![self.aggregate.assemble(count, &keys, accumulators.finish()?, Some(&window))?])
    }

    fn time_type(&self) -> Result<arrow::datatypes::DataType> {
        let timing = self.aggregate.timing.as_ref();
        timing.map(|timing| timing.time_type.clone()).ok_or_else(|| super::foreign("an aggregate without a window"))
    }

    /// Bytes that go to files.
    pub(crate) fn spillable(&self) -> usize {
        self.bytes
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        let sessions = self.open.iter().flat_map(|(key, sessions)| sessions.iter().map(move |of| (key, of)));
        let written: Vec<Box<[u8]>> = sessions.clone().map(|(_, (first, session))| written(*first, session)).collect();
        let rows: Vec<TimedRow<'_>> = sessions
            .zip(&written)
            .map(|((key, (_, session)), bytes)| TimedRow {
                time: session.last.saturating_add(self.gap),
                mark: 0,
                key,
                bytes,
            })
            .collect();
        self.filed.put(&rows)?;
        (self.open, self.bytes) = (ByRow::default(), 0);
        self.ends.clear();
        Ok(())
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.filed.spilled()
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let mut parts = self.filed.dump();
        if self.ends.is_empty() {
            return Ok(parts);
        }
        let sessions = || {
            self.open
                .iter()
                .flat_map(|(key, sessions)| sessions.iter().map(move |(first, session)| (key, *first, session)))
        };
        let times = |of: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(of)) };
        let firsts = times(sessions().map(|(_, first, _)| first).collect());
        let lasts = times(sessions().map(|(.., session)| session.last).collect());
        let keys = self.keys.unpack(sessions().map(|(key, ..)| &**key))?;
        let states = self.states.unpack(sessions().map(|(.., session)| &*session.state))?;
        let columns = [vec![vec![firsts, lasts], keys], states].concat();
        parts.push(Part::new(OPEN, 0, self.ends.len(), columns));
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, mut part: Part) -> Result<()> {
        if part.kind == IN_FILES {
            return self.filed.restore(&part);
        }
        if part.kind != OPEN || part.columns.is_empty() {
            return Err(super::foreign(&part.kind));
        }
        let times = part.columns.remove(0);
        let times: Vec<_> =
            times.iter().filter_map(|array| array.as_primitive_opt::<TimestampMicrosecondType>()).collect();
        let [firsts, lasts] = times.as_slice() else { return Err(super::foreign(&part.kind)) };
        let dump = self.aggregate.dump_of(part.rows, part.columns)?;
        let (keys, states) = (self.keys.pack(&dump.keys)?, self.states.pack(&dump.states)?);
        for at in 0..dump.groups {
            let session = Session { last: lasts.value(at), state: states.row(at).into() };
            self.insert(keys.row(at).into(), firsts.value(at), session);
        }
        Ok(())
    }

    /// Bytes, and sessions.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes + self.filed.bytes(), self.ends.len() + self.filed.waiting())
    }
}

/// A session as it stands in a file.
fn written(first: i64, session: &Session) -> Box<[u8]> {
    [&first.to_le_bytes()[..], &session.state].concat().into()
}

/// Its first row's time, and its state.
fn unwritten(bytes: &[u8]) -> Result<(i64, Box<[u8]>)> {
    let (first, state) = bytes.split_first_chunk().ok_or_else(|| super::foreign("a session in a file"))?;
    Ok((i64::from_le_bytes(*first), state.into()))
}
