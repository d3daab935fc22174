//! The operator behind DISTINCT ON … WITHIN: of the rows of a key that are near in time the earliest.
//!
//! ```text
//! rows at or past the watermark ─► held ─ the watermark passes them ─► in the order of time: is the key known near it? ─► given, and known
//! rows behind it                ───────────────────────────────────► at once
//! ```
//!
//! Rows wait for the watermark, since an earlier one may come; of rows of the same key and time it is the one whose columns are least. So the answer does not depend on the
//! order of arrival within the watermark's allowance. Whatever is behind this waits for the same watermark and is not held up. A row that is further behind the watermark than the
//! *slack* is late; a key is known as long as a row may come that is near it and not late.

use std::{collections::BTreeSet, mem, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray},
    datatypes::TimestampMicrosecondType,
};
use datafusion::common::DataFusionError;

use super::{
    event_time::NEVER,
    flow::{Flowing, InFile, NOWHERE, Part, Taken},
    keyed::{ENTRY_BYTES, Keyed, Value},
    packing::Packing,
    spill::Store,
};
use crate::pipeline::{late::Late, plan::Dedup};

type Result<T> = std::result::Result<T, DataFusionError>;

const HELD: &str = "held";
const KNOWN: &str = "known";

/// Rows with all that the operator computes of them alone.
pub(crate) struct DedupRows {
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    /// What is given of each.
    pub(crate) select: Vec<ArrayRef>,
    pub(crate) before: Vec<i64>,
    pub(crate) places: Vec<u32>,
}

pub(crate) struct Deduping {
    dedup: Arc<Dedup>,
    slack_us: i64,
    keys: Packing,
    rows: Packing,
    held: BTreeSet<Held>,
    /// Times of rows that were given.
    known: Keyed<Times>,
    /// Of the rows that wait.
    bytes: usize,
    watermark: i64,
    /// The watermark when keys were last forgotten.
    swept: i64,
}

/// A row that waits: time, key, what is given of it.
type Held = (i64, Box<[u8]>, Box<[u8]>);

/// Mostly one.
#[derive(Clone)]
enum Times {
    One(i64),
    Many(Vec<i64>),
}

impl Value for Times {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.all().iter().for_each(|time| bytes.extend_from_slice(&time.to_le_bytes()));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (times, rest) = bytes.as_chunks::<8>();
        let times: Vec<i64> = times.iter().map(|time| i64::from_le_bytes(*time)).collect();
        match (times.as_slice(), rest) {
            ([one], []) => Some(Self::One(*one)),
            ([_, ..], []) => Some(Self::Many(times)),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(times) => mem::size_of_val(times.as_slice()),
        }
    }
}

impl Times {
    fn all(&self) -> &[i64] {
        match self {
            Self::One(time) => std::slice::from_ref(time),
            Self::Many(times) => times,
        }
    }

    fn push(&mut self, time: i64) {
        match self {
            Self::One(one) => *self = Self::Many(vec![*one, time]),
            Self::Many(times) => times.push(time),
        }
    }

    /// Whether any are left that `keep` is true of.
    fn retain(&mut self, keep: impl Fn(i64) -> bool) -> bool {
        match self {
            Self::One(time) => keep(*time),
            Self::Many(times) => {
                times.retain(|time| keep(*time));
                !times.is_empty()
            }
        }
    }
}

/// Rows to be given.
#[derive(Default)]
struct Giving {
    rows: Vec<Box<[u8]>>,
    before: Vec<i64>,
    places: Vec<u32>,
    duplicates: u64,
}

impl Deduping {
    pub(crate) fn new(dedup: Arc<Dedup>, late: Late, store: Arc<dyn Store>) -> Result<Self> {
        let keys = dedup.keys.iter().map(|key| key.field.data_type().clone()).collect();
        let rows = dedup.output.fields().iter().map(|field| field.data_type().clone()).collect();
        let (keys, rows) = (Packing::new(keys)?, Packing::new(rows)?);
        let (held, known) = (BTreeSet::new(), Keyed::new(store));
        // A part of what keys are known for anyway, so that a window that is still open gets its rows.
        let slack_us = late.allowed_us.max(dedup.within_us / 4);
        Ok(Self { dedup, slack_us, keys, rows, held, known, bytes: 0, watermark: NEVER, swept: NEVER })
    }

    pub(crate) fn update(&mut self, rows: &DedupRows) -> Result<Taken> {
        let (keys, packed) = (self.keys.pack(&rows.keys)?, self.rows.pack(&rows.select)?);
        let mut giving = Giving::default();
        let mut late = Vec::new();
        for (row, before) in rows.before.iter().copied().enumerate() {
            let time = rows.times.value(row);
            if time.saturating_add(self.slack_us) < before {
                late.push(rows.places[row]);
                continue;
            }
            if time >= before {
                let held = (time, keys.row(row).into(), packed.row(row).into());
                let bytes = keys.row(row).len() + packed.row(row).len() + ENTRY_BYTES;
                match self.held.insert(held) {
                    true => self.bytes += bytes,
                    false => giving.duplicates += 1,
                }
                continue;
            }
            // What is before it in the order of the watermark comes first.
            self.release(before, &mut giving)?;
            if self.learn(keys.row(row), time)? {
                giving.rows.push(packed.row(row).into());
                giving.before.push(before);
                giving.places.push(rows.places[row]);
            } else {
                giving.duplicates += 1;
            }
        }
        let mut taken = self.given(giving)?;
        taken.late = late;
        Ok(taken)
    }

    /// Gives what the watermark has passed.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut giving = Giving::default();
        self.release(watermark, &mut giving)?;
        self.known.settle()?;
        self.watermark = self.watermark.max(watermark);
        let within = self.dedup.within_us;
        if self.swept == NEVER || self.watermark.saturating_sub(self.swept) > within / 4 {
            self.swept = self.watermark;
            let least = self.least();
            self.known.retain(|times| times.retain(|time| time >= least));
        }
        self.given(giving)
    }

    fn release(&mut self, watermark: i64, giving: &mut Giving) -> Result<()> {
        while self.held.first().is_some_and(|(time, ..)| *time < watermark) {
            let Some((time, key, row)) = self.held.pop_first() else { break };
            self.bytes -= key.len() + row.len() + ENTRY_BYTES;
            if self.learn(&key, time)? {
                giving.rows.push(row);
                giving.before.push(NEVER);
                giving.places.push(NOWHERE);
            } else {
                giving.duplicates += 1;
            }
        }
        Ok(())
    }

    /// Times before this are near none of a row that is not late.
    fn least(&self) -> i64 {
        self.watermark.saturating_sub(self.dedup.within_us).saturating_sub(self.slack_us)
    }

    /// Whether the key was not known near that time; now it is.
    fn learn(&mut self, key: &[u8], time: i64) -> Result<bool> {
        let within = self.dedup.within_us.unsigned_abs();
        let times = match self.known.get(key)? {
            Some(times) if times.all().iter().any(|known| known.abs_diff(time) <= within) => return Ok(false),
            Some(times) => {
                let mut times = times.into_owned();
                times.push(time);
                times
            }
            None => Times::One(time),
        };
        self.known.put(key, times);
        Ok(true)
    }

    /// Bytes that go to files, if there is anything. Rows that wait stay in memory.
    pub(crate) fn spillable(&self) -> usize {
        self.known.spillable()
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        let least = self.least();
        self.known.spill(|| {
            Box::new(move |times| Times::read(times).is_none_or(|times| times.all().iter().any(|time| *time >= least)))
        })
    }

    pub(crate) fn spilled(&self) -> u64 {
        self.known.spilled()
    }

    fn given(&self, giving: Giving) -> Result<Taken> {
        let mut taken = Taken::default();
        taken.counts.duplicates = giving.duplicates;
        if giving.rows.is_empty() {
            return Ok(taken);
        }
        let columns = self.rows.unpack(giving.rows.iter().map(|row| &**row))?;
        let options = RecordBatchOptions::new().with_row_count(Some(giving.rows.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.dedup.output), columns, &options)?;
        taken.given.push(Flowing { rows, before: giving.before, places: giving.places });
        Ok(taken)
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let times = |of: Vec<i64>| vec![Arc::new(TimestampMicrosecondArray::from(of)) as ArrayRef];
        let mut parts = self.known.dump(KNOWN);
        if !self.held.is_empty() {
            let keys = self.keys.unpack(self.held.iter().map(|(_, key, _)| &**key))?;
            let rows = self.rows.unpack(self.held.iter().map(|(.., row)| &**row))?;
            let times = times(self.held.iter().map(|(time, ..)| *time).collect());
            parts.push(Part::new(HELD, 0, self.held.len(), vec![times, keys, rows]));
        }
        let known = || self.known.in_memory().flat_map(|(key, times)| times.all().iter().map(move |time| (key, *time)));
        let count = known().count();
        if count > 0 {
            let keys = self.keys.unpack(known().map(|(key, _)| key))?;
            let times = times(known().map(|(_, time)| time).collect());
            parts.push(Part::new(KNOWN, 0, count, vec![times, keys]));
        }
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if let (KNOWN, Some(InFile::Table(table))) = (part.kind.as_str(), &part.in_file) {
            return self.known.adopt(table.clone());
        }
        let mut columns = part.columns.iter();
        let (Some(times), Some(keys)) = (columns.next(), columns.next()) else {
            return Err(super::foreign(&part.kind));
        };
        let times = times.first().and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| super::foreign(&part.kind))?;
        let keys = self.keys.pack(keys)?;
        match (part.kind.as_str(), columns.next()) {
            (KNOWN, None) => {
                // What memory had of a key is all that there is of it, whatever a file has.
                for at in 0..part.rows {
                    let (key, time) = (keys.row(at), times.value(at));
                    let known = match self.known.held(key).cloned() {
                        Some(mut times) => {
                            times.push(time);
                            times
                        }
                        None => Times::One(time),
                    };
                    self.known.put(key, known);
                }
            }
            (HELD, Some(rows)) => {
                let rows = self.rows.pack(rows)?;
                for at in 0..part.rows {
                    self.bytes += keys.row(at).len() + rows.row(at).len() + ENTRY_BYTES;
                    self.held.insert((times.value(at), keys.row(at).into(), rows.row(at).into()));
                }
            }
            (kind, _) => return Err(super::foreign(kind)),
        }
        Ok(())
    }

    /// Whether rows wait for the watermark is nothing that a drain waits for. Bytes, and rows and keys.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes + self.known.bytes() + mem::size_of::<Self>(), self.held.len() + self.known.entries())
    }
}
