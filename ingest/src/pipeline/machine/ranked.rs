//! The operator behind OVER: rows wait for the end of their window, and are given in the order of ORDER BY, with their ranks.
//!
//! Where only the first n of each part are asked for, no more of them are kept. Rows that are equal in ORDER BY are in the order of their columns, so that the answer does not depend on
//! the order of arrival.
//!
//! Rows that memory has no room for go to files ([`Timed`]). A window that has some there is given part by part of its keys' hashes.

use std::{collections::BTreeMap, mem, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array, UInt64Array,
        new_null_array,
    },
    compute::{cast, take},
    datatypes::{TimestampMicrosecondType, UInt64Type},
};
use datafusion::common::DataFusionError;

use super::{
    flow::{Flowing, Part, Taken},
    keyed::{Due, Timed, TimedRow},
    packing::Packing,
    spill::{self, Store},
};
use crate::pipeline::plan::{RankKind, Ranking};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Bytes of an entry beside its own.
const ENTRY_BYTES: usize = 64;
const RANKED: &str = "ranked";
const IN_FILES: &str = "ranked in files";

/// Rows with all that the operator computes of them alone.
pub(crate) struct RankRows {
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) order: Vec<ArrayRef>,
    /// What is kept of each.
    pub(crate) kept: Vec<ArrayRef>,
    pub(crate) before: Vec<i64>,
    pub(crate) places: Vec<u32>,
}

impl RankRows {
    /// Some of the rows.
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let all = |arrays: &[ArrayRef]| arrays.iter().map(|array| Ok(take(array, rows, None)?)).collect::<Result<_>>();
        let times = take(&self.times, rows, None)?.as_primitive::<TimestampMicrosecondType>().clone();
        let places = rows.values().iter().map(|row| *row as usize);
        let (before, places) = Flowing::pick(&self.before, &self.places, places);
        Ok(Self { times, keys: all(&self.keys)?, order: all(&self.order)?, kept: all(&self.kept)?, before, places })
    }
}

pub(crate) struct Ranked {
    ranking: Arc<Ranking>,
    keys: Packing,
    order: Packing,
    rows: Packing,
    /// By where windows begin, and keys.
    windows: BTreeMap<i64, Parts>,
    /// Of memory.
    bytes: usize,
    /// By where windows begin.
    filed: Timed,
    store: Arc<dyn Store>,
}

/// Places by keys.
type Parts = BTreeMap<Box<[u8]>, Places>;

/// What ORDER BY says of a row, and what is kept of it.
type Place = (Box<[u8]>, Box<[u8]>);

/// The rows of a part in their order: of each how often it is there.
#[derive(Default)]
struct Places {
    rows: BTreeMap<Place, u64>,
    count: u64,
}

impl Ranked {
    pub(crate) fn new(ranking: Arc<Ranking>, store: Arc<dyn Store>) -> Result<Self> {
        let keys = Packing::new(ranking.keys.iter().map(|key| key.field.data_type().clone()).collect())?;
        let order = ranking.order.iter();
        let order = order.map(|(by, options)| (by.field.data_type().clone(), *options));
        let order = Packing::ordered(order.collect())?;
        let rows = ranking.kept.iter().map(|at| ranking.schema.field(*at).data_type().clone()).collect();
        let (rows, filed) = (Packing::new(rows)?, Timed::new(IN_FILES, Arc::clone(&store)));
        Ok(Self { ranking, keys, order, rows, windows: BTreeMap::new(), bytes: 0, filed, store })
    }

    fn start(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.ranking.size_us))
    }

    pub(crate) fn update(&mut self, rows: &RankRows) -> Result<Taken> {
        let mut taken = Taken::default();
        let (keys, order, kept) =
            (self.keys.pack(&rows.keys)?, self.order.pack(&rows.order)?, self.rows.pack(&rows.kept)?);
        for (row, before) in rows.before.iter().copied().enumerate() {
            let start = self.start(rows.times.value(row));
            if start.saturating_add(self.ranking.size_us) <= before {
                taken.late.push(rows.places[row]);
                continue;
            }
            self.put(start, keys.row(row), (order.row(row).into(), kept.row(row).into()), 1);
        }
        Ok(taken)
    }

    fn put(&mut self, start: i64, key: &[u8], row: Place, times: u64) {
        let parts = self.windows.entry(start).or_default();
        let bytes = self.bytes.saturating_add_signed(add(parts, self.ranking.most, key, row, times));
        self.bytes = bytes;
    }

    /// Gives the windows that end at or before the watermark, in their order.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut given = Vec::new();
        let before = watermark.saturating_sub(self.ranking.size_us).saturating_add(1);
        let due = if self.filed.is_empty() { Vec::new() } else { self.filed.due(before)? };
        let mut in_files = due.chunk_by(|a, b| a.time == b.time).peekable();
        loop {
            let in_memory = self.windows.first_key_value().map(|(start, _)| *start).filter(|start| *start < before);
            let filed = in_files.peek().map(|due| due[0].time);
            let Some(start) = in_memory.into_iter().chain(filed).min() else { break };
            let parts = self.windows.remove(&start).unwrap_or_default();
            self.bytes -= parts.iter().map(|(key, places)| key.len() + ENTRY_BYTES + places.bytes()).sum::<usize>();
            match in_files.next_if(|due| due[0].time == start) {
                None => given.extend(self.batch(&parts)?),
                Some(due) => self.give_parts(parts, due, &mut given)?,
            }
        }
        drop(in_files);
        self.filed.forget(before);
        Ok(Taken::of(given))
    }

    /// Gives a window that has rows in files: those of one part of the hashes after the other.
    fn give_parts(&self, parts: Parts, due: &[Due], given: &mut Vec<RecordBatch>) -> Result<()> {
        let of_memory: usize = parts.iter().map(|(key, places)| key.len() + ENTRY_BYTES + places.bytes()).sum();
        let bits = spill::bits_for(of_memory + due.len() * self.filed.row_bytes(), self.store.stretch_bytes());
        let part_of = |key: &[u8]| spill::part_of(spill::hash_of(key), bits);
        let mut memory: Vec<Parts> = (0..1 << bits).map(|_| Parts::new()).collect();
        for (key, places) in parts {
            memory[part_of(&key)].insert(key, places);
        }
        let mut filed: Vec<Vec<&Due>> = vec![Vec::new(); 1 << bits];
        for due in due {
            filed[part_of(&due.key)].push(due);
        }
        for (mut parts, due) in memory.into_iter().zip(filed) {
            for (due, bytes) in due.iter().zip(self.filed.read(&due)?) {
                let (row, times) = unwritten(&bytes).ok_or_else(|| super::foreign("a ranked row in a file"))?;
                add(&mut parts, self.ranking.most, &due.key, row, times);
            }
            given.extend(self.batch(&parts)?);
        }
        Ok(())
    }

    fn batch(&self, parts: &Parts) -> Result<Option<RecordBatch>> {
        let (mut rows, mut ranks): (Vec<&[u8]>, Vec<Vec<u64>>) =
            (Vec::new(), vec![Vec::new(); self.ranking.ranks.len()]);
        for places in parts.values() {
            let (mut number, mut rank, mut dense) = (0u64, 0u64, 0u64);
            let mut last: Option<&Box<[u8]>> = None;
            for ((order, row), times) in &places.rows {
                if last != Some(order) {
                    (rank, dense, last) = (number + 1, dense + 1, Some(order));
                }
                for _ in 0..*times {
                    number += 1;
                    rows.push(row);
                    for (ranks, kind) in ranks.iter_mut().zip(&self.ranking.ranks) {
                        ranks.push(match kind {
                            RankKind::Number => number,
                            RankKind::Rank => rank,
                            RankKind::Dense => dense,
                        });
                    }
                }
            }
        }
        let count = rows.len();
        if count == 0 {
            return Ok(None);
        }
        let mut kept = self.rows.unpack(rows.into_iter())?.into_iter();
        let fields = self.ranking.schema.fields().iter().enumerate();
        let column = |(at, field): (usize, &arrow::datatypes::FieldRef)| match self.ranking.kept.contains(&at) {
            true => kept.next().unwrap_or_else(|| new_null_array(field.data_type(), count)),
            false => new_null_array(field.data_type(), count),
        };
        let mut columns: Vec<ArrayRef> = fields.map(column).collect();
        let of_ranks = self.ranking.output.fields().iter().skip(columns.len());
        for (ranks, field) in ranks.into_iter().zip(of_ranks.cloned().collect::<Vec<_>>()) {
            columns.push(cast(&UInt64Array::from(ranks), field.data_type())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.ranking.output), columns, &options)?))
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let part = |(start, parts): (&i64, &Parts)| {
            let all = || {
                parts
                    .iter()
                    .flat_map(move |(key, places)| places.rows.iter().map(move |(row, times)| (key, row, *times)))
            };
            let counts: Vec<u64> = all().map(|(.., times)| times).collect();
            let rows = counts.len();
            let columns = vec![
                vec![Arc::new(UInt64Array::from(counts)) as ArrayRef],
                self.keys.unpack(all().map(|(key, ..)| &**key))?,
                self.order.unpack(all().map(|(_, (order, _), _)| &**order))?,
                self.rows.unpack(all().map(|(_, (_, row), _)| &**row))?,
            ];
            Ok(Part::new(RANKED, *start, rows, columns))
        };
        let parts = self.windows.iter().map(part).collect::<Result<Vec<_>>>()?;
        Ok([self.filed.dump(), parts].concat())
    }

    /// Bytes that go to files.
    pub(crate) fn spillable(&self) -> usize {
        self.bytes
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        let all = self.windows.iter().flat_map(|(start, parts)| {
            parts
                .iter()
                .flat_map(move |(key, places)| places.rows.iter().map(move |(row, times)| (*start, key, row, *times)))
        });
        let written: Vec<Box<[u8]>> = all.clone().map(|(.., row, times)| written(row, times)).collect();
        let rows = all.zip(&written).map(|((time, key, ..), bytes)| TimedRow { time, mark: 0, key, bytes });
        self.filed.put(&rows.collect::<Vec<_>>())?;
        (self.windows, self.bytes) = (BTreeMap::new(), 0);
        Ok(())
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.filed.spilled()
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        let foreign = || super::foreign(&part.kind);
        if part.kind == IN_FILES {
            return self.filed.restore(&part);
        }
        let [counts, keys, order, rows] = part.columns.as_slice() else { return Err(foreign()) };
        let counts = counts.first().and_then(|counts| counts.as_primitive_opt::<UInt64Type>());
        let counts = counts.filter(|_| part.kind == RANKED).ok_or_else(foreign)?;
        let (keys, order, rows) = (self.keys.pack(keys)?, self.order.pack(order)?, self.rows.pack(rows)?);
        for at in 0..part.rows {
            self.put(part.at, keys.row(at), (order.row(at).into(), rows.row(at).into()), counts.value(at));
        }
        Ok(())
    }

    /// Bytes, and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let rows: usize = self.windows.values().flat_map(BTreeMap::values).map(|places| places.rows.len()).sum();
        (self.bytes + self.filed.bytes() + mem::size_of::<Self>(), rows + self.filed.waiting())
    }
}

impl Places {
    fn bytes(&self) -> usize {
        self.rows.keys().map(|(order, row)| order.len() + row.len() + ENTRY_BYTES).sum()
    }
}

/// Adds a row so many times to the part of its key, of which the first `most` rows stay. Returns the bytes that it takes more.
fn add(parts: &mut Parts, most: Option<usize>, key: &[u8], row: Place, times: u64) -> isize {
    let mut bytes = 0;
    if !parts.contains_key(key) {
        bytes += (key.len() + ENTRY_BYTES) as isize;
        parts.insert(key.into(), Places::default());
    }
    let Some(places) = parts.get_mut(key) else { return bytes };
    let of_row = |(order, row): &Place| (order.len() + row.len() + ENTRY_BYTES) as isize;
    let more = of_row(&row);
    let known = places.rows.entry(row).or_insert(0);
    if *known == 0 {
        bytes += more;
    }
    *known += times;
    places.count += times;
    while let Some(beyond) = most.and_then(|most| places.count.checked_sub(most as u64)).filter(|beyond| *beyond > 0) {
        let Some(mut last) = places.rows.last_entry() else { break };
        let gone = (*last.get()).min(beyond);
        places.count -= gone;
        *last.get_mut() -= gone;
        if *last.get() == 0 {
            bytes -= of_row(&last.remove_entry().0);
        }
    }
    bytes
}

/// A row as it stands in a file: how often it is there, the length of what ORDER BY says of it, that, and what is kept of it.
fn written((order, row): &Place, times: u64) -> Box<[u8]> {
    [&times.to_le_bytes()[..], &(order.len() as u32).to_le_bytes(), order, row].concat().into()
}

fn unwritten(bytes: &[u8]) -> Option<(Place, u64)> {
    let (times, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (order, row) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(((order.into(), row.into()), u64::from_le_bytes(*times)))
}
