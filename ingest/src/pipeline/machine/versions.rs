//! The operator behind FOR SYSTEM_TIME AS OF: rows of the left wait until all versions of their time are there.
//!
//! ```text
//! left rows  ─► held ─ the watermark passes their time ─► the last version of their key at or before it
//! right rows ─► versions of a key by time; of those that no row can ask for any more the last is kept
//! ```
//!
//! A left row that comes after the watermark has passed it is late. A right row that does is taken for what comes after it. So the answer does not depend on the order of arrival
//! within the watermark's allowance; of versions of the same key and time it is the one whose columns are greatest.

use std::{collections::BTreeMap, mem, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array, UInt64Array,
        new_null_array,
    },
    compute::take,
    datatypes::{TimestampMicrosecondType, UInt64Type},
};
use datafusion::common::DataFusionError;

use super::{
    event_time::NEVER,
    flow::{Flowing, InFile, Part, Taken},
    joining::JoinRows,
    keyed::{ENTRY_BYTES, Keyed, Value},
    packing::Packing,
    spill::Store,
};
use crate::pipeline::plan::{AsOf, steps};

type Result<T> = std::result::Result<T, DataFusionError>;

const HELD: &str = "waiting";
const VERSION: &str = "version";

pub(crate) struct Versions {
    as_of: Arc<AsOf>,
    keys: Packing,
    rows: [Packing; 2],
    /// Left rows that wait: how often each is there.
    held: BTreeMap<Held, u64>,
    /// Of each key by time, ascending.
    versions: Keyed<Versioned>,
    /// Of the rows that wait.
    bytes: usize,
    watermark: i64,
}

/// Time, key (`None`: a part of it is NULL), what is kept of the row.
type Held = (i64, Option<Box<[u8]>>, Box<[u8]>);

/// Time, and what is kept of the row.
type Version = (i64, Box<[u8]>);

/// The versions of a key.
#[derive(Clone, Default)]
struct Versioned(Vec<Version>);

impl Value for Versioned {
    fn write(&self, bytes: &mut Vec<u8>) {
        for (time, row) in &self.0 {
            bytes.extend_from_slice(&time.to_le_bytes());
            bytes.extend_from_slice(&(row.len() as u64).to_le_bytes());
            bytes.extend_from_slice(row);
        }
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut versions = Vec::new();
        while !bytes.is_empty() {
            let (time, rest) = bytes.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (row, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            versions.push((i64::from_le_bytes(*time), row.into()));
            bytes = rest;
        }
        Some(Self(versions))
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, row)| row.len() + ENTRY_BYTES).sum()
    }
}

impl Versioned {
    /// Takes one, and forgets those that nobody asks for at `watermark` and after.
    fn learn(&mut self, time: i64, row: Box<[u8]>, watermark: i64) {
        let versions = &mut self.0;
        match versions.binary_search_by_key(&time, |(of, _)| *of) {
            Ok(at) if row > versions[at].1 => versions[at].1 = row,
            Ok(_) => {}
            Err(at) => versions.insert(at, (time, row)),
        }
        // Rows to come are of the watermark at least: of what is at or before it they find the last.
        let unasked = versions.partition_point(|(of, _)| *of <= watermark).saturating_sub(1);
        versions.drain(..unasked);
    }
}

/// A left row that is given, and its version.
type Given = (Box<[u8]>, Option<Box<[u8]>>);

impl Versions {
    pub(crate) fn new(as_of: Arc<AsOf>, store: Arc<dyn Store>) -> Result<Self> {
        let keys = as_of.sides[0].keys.iter().map(|key| key.field.data_type().clone()).collect();
        let rows = |side: usize| {
            let side = &as_of.sides[side];
            Packing::new(side.kept.iter().map(|at| side.schema.field(*at).data_type().clone()).collect())
        };
        let (keys, rows) = (Packing::new(keys)?, [rows(0)?, rows(1)?]);
        let (held, versions) = (BTreeMap::new(), Keyed::new(store));
        Ok(Self { as_of, keys, rows, held, versions, bytes: 0, watermark: NEVER })
    }

    pub(crate) fn update(&mut self, rows: &JoinRows) -> Result<Taken> {
        let side = rows.side;
        let keys = self.keys.pack(&rows.keys)?;
        let kept = self.as_of.sides[side].kept.iter();
        let kept: Vec<ArrayRef> = kept.map(|at| Arc::clone(rows.rows.column(*at))).collect();
        let packed = self.rows[side].pack(&kept)?;
        let (mut given, mut late) = (Vec::new(), Vec::new());
        for (row, before) in rows.before.iter().copied().enumerate() {
            let time = rows.times.value(row);
            // What is before it in the order of the watermark comes first.
            self.release(before, &mut given)?;
            let is_keyless = rows.keys.iter().any(|key| key.is_null(row));
            if side == 1 {
                if !is_keyless {
                    let watermark = self.watermark;
                    let learn = |versions: &mut Versioned| versions.learn(time, packed.row(row).into(), watermark);
                    self.versions.change(keys.row(row), learn)?;
                }
            } else if time < before {
                late.push(rows.places[row]);
            } else {
                let key = (!is_keyless).then(|| Box::from(keys.row(row)));
                self.hold((time, key, packed.row(row).into()), 1);
            }
        }
        let mut taken = self.given(&given)?;
        taken.late = late;
        Ok(taken)
    }

    /// Gives what the watermark has passed.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut given = Vec::new();
        self.release(watermark, &mut given)?;
        self.versions.settle()?;
        self.given(&given)
    }

    fn hold(&mut self, held: Held, times: u64) {
        let bytes = held.1.as_ref().map_or(0, |key| key.len()) + held.2.len() + ENTRY_BYTES;
        let known = self.held.entry(held).or_insert(0);
        if *known == 0 {
            self.bytes += bytes;
        }
        *known += times;
    }

    fn release(&mut self, watermark: i64, given: &mut Vec<Given>) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        while self.held.first_key_value().is_some_and(|((time, ..), _)| *time < watermark) {
            let Some(((time, key, row), times)) = self.held.pop_first() else { break };
            self.bytes -= key.as_ref().map_or(0, |key| key.len()) + row.len() + ENTRY_BYTES;
            let versions = key.map(|key| self.versions.get(&key)).transpose()?.flatten();
            let version = versions.and_then(|versions| {
                let after = versions.0.partition_point(|(of, _)| *of <= time);
                after.checked_sub(1).map(|at| versions.0[at].1.clone())
            });
            (1..times).for_each(|_| given.push((row.clone(), version.clone())));
            given.push((row, version));
        }
        Ok(())
    }

    /// Bytes that go to files, if there is anything. Rows that wait stay in memory.
    pub(crate) fn spillable(&self) -> usize {
        self.versions.spillable()
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        self.versions.spill(|| Box::new(|_| true))
    }

    pub(crate) fn spilled(&self) -> u64 {
        self.versions.spilled()
    }

    fn given(&self, given: &[Given]) -> Result<Taken> {
        let mut taken = Taken::default();
        if given.is_empty() {
            return Ok(taken);
        }
        let found: Vec<&[u8]> = given.iter().filter_map(|(_, version)| version.as_deref()).collect();
        let mut next = 0u32;
        let place = |version: &Option<Box<[u8]>>| {
            version.as_ref().map(|_| {
                next += 1;
                next - 1
            })
        };
        let places: UInt32Array = given.iter().map(|(_, version)| version).map(place).collect();
        let left = self.columns(0, given.iter().map(|(row, _)| &**row), given.len())?;
        let right = self.columns(1, found.iter().copied(), found.len())?;
        let beside = |places: &UInt32Array| -> Result<RecordBatch> {
            let right = right.iter().map(|column| Ok(take(column, places, None)?)).collect::<Result<Vec<_>>>()?;
            let columns = [left.clone(), right].concat();
            let options = RecordBatchOptions::new().with_row_count(Some(given.len()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&self.as_of.output), columns, &options)?)
        };
        let mut rows = beside(&places)?;
        let mut has_version: Vec<bool> = places.iter().map(|place| place.is_some()).collect();
        if let Some(residual) = &self.as_of.residual {
            let asked = steps::mask(residual, &rows).map_err(|failed| DataFusionError::Execution(failed.reason()))?;
            has_version.iter_mut().zip(asked.values()).for_each(|(has, asked)| *has &= asked);
            let places = places.iter().zip(&has_version).map(|(place, has)| place.filter(|_| *has)).collect();
            rows = beside(&places)?;
        }
        if !self.as_of.is_outer {
            rows = arrow::compute::filter_record_batch(&rows, &has_version.into())?;
        }
        if rows.num_rows() > 0 {
            taken.given.push(Flowing::on_time(rows));
        }
        Ok(taken)
    }

    /// The columns of a side; NULL where nobody asks for them.
    fn columns<'s>(&self, side: usize, rows: impl Iterator<Item = &'s [u8]>, count: usize) -> Result<Vec<ArrayRef>> {
        let of_side = &self.as_of.sides[side];
        let mut kept = self.rows[side].unpack(rows)?.into_iter();
        let fields = of_side.schema.fields().iter().enumerate();
        let column = |(at, field): (usize, &arrow::datatypes::FieldRef)| match of_side.kept.contains(&at) {
            true => kept.next().unwrap_or_else(|| new_null_array(field.data_type(), count)),
            false => new_null_array(field.data_type(), count),
        };
        Ok(fields.map(column).collect())
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let times = |of: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(of)) as ArrayRef;
        let mut parts = self.versions.dump(VERSION);
        // Without a key is kept apart: NULLs in packed keys are values.
        for is_keyless in [false, true] {
            let held: Vec<(&Held, &u64)> =
                self.held.iter().filter(|((_, key, _), _)| key.is_none() == is_keyless).collect();
            if held.is_empty() {
                continue;
            }
            let counts: UInt64Array = held.iter().map(|(_, times)| **times).collect::<Vec<_>>().into();
            let own = vec![times(held.iter().map(|((time, ..), _)| *time).collect()), Arc::new(counts) as ArrayRef];
            let keys = self.keys.unpack(held.iter().filter_map(|((_, key, _), _)| key.as_deref()))?;
            let rows = self.rows[0].unpack(held.iter().map(|((.., row), _)| &**row))?;
            let keys = if is_keyless { Vec::new() } else { keys };
            parts.push(Part::new(HELD, i64::from(is_keyless), held.len(), vec![own, keys, rows]));
        }
        let all = || {
            self.versions
                .in_memory()
                .flat_map(|(key, versions)| versions.0.iter().map(move |(time, row)| (key, *time, row)))
        };
        let count = all().count();
        if count > 0 {
            let keys = self.keys.unpack(all().map(|(key, ..)| key))?;
            let rows = self.rows[1].unpack(all().map(|(.., row)| &**row))?;
            let own = vec![times(all().map(|(_, time, _)| time).collect())];
            parts.push(Part::new(VERSION, 0, count, vec![own, keys, rows]));
        }
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if let (VERSION, Some(InFile::Table(table))) = (part.kind.as_str(), &part.in_file) {
            return self.versions.adopt(table.clone());
        }
        let foreign = || super::foreign(&part.kind);
        let [own, keys, rows] = part.columns.as_slice() else { return Err(foreign()) };
        let times = own.first().and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(foreign)?;
        let is_keyless = part.at == 1;
        match part.kind.as_str() {
            HELD => {
                let counts =
                    own.get(1).and_then(|counts| counts.as_primitive_opt::<UInt64Type>()).ok_or_else(foreign)?;
                let rows = self.rows[0].pack(rows)?;
                let keys = if is_keyless { None } else { Some(self.keys.pack(keys)?) };
                for at in 0..part.rows {
                    let key = keys.as_ref().map(|keys| Box::from(keys.row(at)));
                    self.hold((times.value(at), key, rows.row(at).into()), counts.value(at));
                }
            }
            VERSION => {
                let (keys, rows) = (self.keys.pack(keys)?, self.rows[1].pack(rows)?);
                // What memory had of a key is all that there is of it, whatever a file has.
                for at in 0..part.rows {
                    let key = keys.row(at);
                    let mut versions = self.versions.held(key).cloned().unwrap_or_default();
                    versions.learn(times.value(at), rows.row(at).into(), NEVER);
                    self.versions.put(key, versions);
                }
            }
            _ => return Err(foreign()),
        }
        Ok(())
    }

    /// Bytes, and rows that wait and keys.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bytes + self.versions.bytes() + mem::size_of::<Self>(), self.held.len() + self.versions.entries())
    }
}
