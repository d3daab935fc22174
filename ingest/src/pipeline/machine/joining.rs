//! The operator behind a join of streams: rows of both sides wait for partners, as long as one may come.
//!
//! ```text
//! a left row at 10:00 that belongs to right rows of 10:00 to 10:10
//!   right rows that are there ─► pairs at once; those that come ─► pairs when they come
//!   the watermark passes 10:10 ─► it is forgotten; without a partner it is given with NULLs in a LEFT JOIN, as right rows are in a RIGHT JOIN; FULL is both
//! ```
//!
//! Rows that memory has no room for go to files ([`Timed`]), both sides' together; what comes is compared with those there as with those in memory.
//!
//! A left row is late when it would be forgotten at once; a right row when all left rows that it may belong to are. Right rows wait for left rows that are not late, though they
//! be behind the watermark. So the pairs of rows that come within the watermark's allowance are those of tables, in whatever order they come, and of what comes after it as many as can be.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt8Array,
        UInt32Array, new_null_array,
    },
    compute::{filter_record_batch, prep_null_mask_filter, take, take_record_batch},
    datatypes::{TimestampMicrosecondType, UInt8Type},
};
use datafusion::common::DataFusionError;

use super::{
    event_time::NEVER,
    flow::{Flowing, Part, Taken},
    keyed::{Found, Place, Timed, TimedRow},
    packing::{ByRow, Packed, Packing},
    spill::Store,
};
use crate::pipeline::plan::Join;

type Result<T> = std::result::Result<T, DataFusionError>;

/// Bytes of a row beside its own.
const ENTRY_BYTES: usize = 104;
const KINDS: [&str; 2] = ["left", "right"];
const IN_FILES: [&str; 2] = ["left in files", "right in files"];
/// Keys and times of left rows that were given.
const GONE: &str = "gone";
/// No next row.
const NONE: u32 = u32::MAX;
/// It has a partner.
const MATCHED: u8 = 1;
/// A row of its key was there, at another time.
const NEAR: u8 = 2;
/// A part of its key is NULL: no row belongs to it.
const KEYLESS: u8 = 4;
/// It was given, or has no use; its key is known for what comes a little too late for it, which is counted.
const GHOST: u8 = 8;

/// Rows of one side with all that the operator computes of them alone.
pub(crate) struct JoinRows {
    pub(crate) side: usize,
    pub(crate) rows: RecordBatch,
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) before: Vec<i64>,
    pub(crate) places: Vec<u32>,
}

impl JoinRows {
    /// Some of the rows.
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let times = take(&self.times, rows, None)?.as_primitive::<TimestampMicrosecondType>().clone();
        let keys = self.keys.iter().map(|key| Ok(take(key, rows, None)?)).collect::<Result<_>>()?;
        let places = rows.values().iter().map(|row| *row as usize);
        let (before, places) = Flowing::pick(&self.before, &self.places, places);
        Ok(Self { side: self.side, rows: take_record_batch(&self.rows, rows)?, times, keys, before, places })
    }
}

pub(crate) struct Joining {
    join: Arc<Join>,
    sides: [Waiting; 2],
    /// Of memory.
    bytes: usize,
    /// Rows of both sides in files. Of left ones that were given it is known there that their keys were.
    filed: [Timed; 2],
}

/// A row of the other side that may be the partner of one in memory.
enum Partner {
    Slot(u32),
    InFile(Found),
}

/// A row that no partner can come for any more.
struct Gone {
    time: i64,
    flags: u8,
    row: Box<[u8]>,
}

/// The rows of one side that wait.
struct Waiting {
    keys: Packing,
    rows: Packing,
    /// Rows in places that are used again.
    slots: Vec<Slot>,
    free: Vec<u32>,
    hasher: RandomState,
    /// Hash of a key → its first row; the others follow one another.
    heads: ByRow<u32, u64>,
    /// When each may be forgotten, by the times of the rows.
    times: BTreeSet<(i64, u32)>,
    ghosts: BTreeSet<(i64, u32)>,
}

struct Slot {
    time: i64,
    /// The key, then the row.
    bytes: Box<[u8]>,
    key_length: u32,
    next: u32,
    flags: u8,
}

impl Slot {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_length as usize]
    }

    fn row(&self) -> &[u8] {
        &self.bytes[self.key_length as usize..]
    }
}

impl Waiting {
    fn new(keys: Packing, rows: Packing) -> Self {
        Self {
            keys,
            rows,
            slots: Vec::new(),
            free: Vec::new(),
            hasher: RandomState::new(),
            heads: ByRow::default(),
            times: BTreeSet::new(),
            ghosts: BTreeSet::new(),
        }
    }

    fn insert(&mut self, mut slot: Slot) -> u32 {
        let is_keyless = slot.flags & KEYLESS != 0;
        let (time, hash) = (slot.time, self.hasher.hash_one(slot.key()));
        let is_ghost = slot.flags & GHOST != 0;
        slot.next = if is_keyless { NONE } else { self.heads.get(&hash).copied().unwrap_or(NONE) };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        if !is_keyless {
            self.heads.insert(hash, at);
        }
        if is_ghost {
            self.ghosts.insert((time, at))
        } else {
            self.times.insert((time, at))
        };
        at
    }

    /// All rows of a key.
    fn of_key<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        let mut next = self.heads.get(&self.hasher.hash_one(key)).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            while next != NONE {
                let at = next;
                let slot = &self.slots[at as usize];
                next = slot.next;
                if slot.key() == key {
                    return Some(at);
                }
            }
            None
        })
    }

    /// Takes the rows before a time, in the order of their times, and keeps their keys.
    fn retire(&mut self, before: i64) -> Vec<Slot> {
        let mut rows = Vec::new();
        while let Some((time, at)) = self.times.first().copied().filter(|(time, _)| *time < before) {
            self.times.remove(&(time, at));
            self.ghosts.insert((time, at));
            let slot = &mut self.slots[at as usize];
            let key = slot.key().into();
            slot.flags |= GHOST;
            let (key_length, next, flags) = (slot.key_length, NONE, slot.flags);
            rows.push(Slot { time, bytes: std::mem::replace(&mut slot.bytes, key), key_length, next, flags });
        }
        rows
    }

    /// Takes out the rows before a time, or what is left of them.
    fn expire(&mut self, before: i64, ghosts: bool) -> Vec<Slot> {
        let mut gone = Vec::new();
        let times = if ghosts { &mut self.ghosts } else { &mut self.times };
        while let Some((time, at)) = times.first().copied().filter(|(time, _)| *time < before) {
            times.remove(&(time, at));
            gone.push(at);
        }
        // Each chain is walked once, however many of its rows go.
        let expired: HashSet<u32> = gone.iter().copied().collect();
        let hashes: BTreeSet<u64> =
            gone.iter().map(|at| self.hasher.hash_one(self.slots[*at as usize].key())).collect();
        for hash in hashes {
            let Some(mut at) = self.heads.get(&hash).copied() else { continue };
            let mut kept = NONE;
            let mut first = NONE;
            while at != NONE {
                let next = self.slots[at as usize].next;
                if !expired.contains(&at) {
                    match kept {
                        NONE => first = at,
                        kept => self.slots[kept as usize].next = at,
                    }
                    kept = at;
                }
                at = next;
            }
            if kept == NONE {
                self.heads.remove(&hash);
            } else {
                self.slots[kept as usize].next = NONE;
                self.heads.insert(hash, first);
            }
        }
        let empty = || Slot { time: 0, bytes: Box::default(), key_length: 0, next: NONE, flags: 0 };
        let taken = gone.iter().map(|at| std::mem::replace(&mut self.slots[*at as usize], empty())).collect();
        self.free.extend(gone);
        taken
    }

    /// Drops all rows.
    fn clear(&mut self) {
        self.slots = Vec::new();
        self.free = Vec::new();
        self.heads = ByRow::default();
        self.times.clear();
        self.ghosts.clear();
    }
}

impl Joining {
    pub(crate) fn new(join: Arc<Join>, store: &Arc<dyn Store>) -> Result<Self> {
        let waiting = |side: usize| {
            let side = &join.sides[side];
            let keys = side.keys.iter().map(|key| key.field.data_type().clone()).collect();
            let rows = side.kept.iter().map(|at| side.schema.field(*at).data_type().clone()).collect();
            Ok::<_, DataFusionError>(Waiting::new(Packing::new(keys)?, Packing::new(rows)?))
        };
        let sides = [waiting(0)?, waiting(1)?];
        let filed = IN_FILES.map(|kind| Timed::new(kind, Arc::clone(store)));
        Ok(Self { join, sides, bytes: 0, filed })
    }

    /// Until when rows of a side wait: the watermark at which no partner that is not late can come for a row of a time.
    fn until(&self, side: usize, time: i64) -> i64 {
        match side {
            0 => time.saturating_add(self.join.high_us),
            _ => time.saturating_sub(self.join.low_us).saturating_add(self.join.high_us.max(self.span())),
        }
    }

    /// How wide the bounds are. A right row that is no further than that from them is near.
    fn span(&self) -> i64 {
        self.join.high_us.saturating_sub(self.join.low_us)
    }

    /// The watermark from which on a row of a side is late.
    fn acceptable_until(&self, side: usize, time: i64) -> i64 {
        match side {
            0 => time.saturating_add(self.join.high_us.max(0)),
            _ => time.saturating_sub(self.join.low_us).saturating_add(self.join.high_us),
        }
    }

    pub(crate) fn update(&mut self, rows: &JoinRows) -> Result<Taken> {
        let mut taken = Taken::default();
        let side = rows.side;
        let keys = self.sides[side].keys.pack(&rows.keys)?;
        let kept = self.join.sides[side].kept.iter();
        let kept: Vec<ArrayRef> = kept.map(|at| Arc::clone(rows.rows.column(*at))).collect();
        let packed = self.sides[side].rows.pack(&kept)?;
        // Pairs that may be: the row's slot, and the other.
        let mut pairs: Vec<(u32, Partner)> = Vec::new();
        for (row, before) in rows.before.iter().copied().enumerate() {
            let time = rows.times.value(row);
            if self.acceptable_until(side, time) < before {
                taken.late.push(rows.places[row]);
                continue;
            }
            let is_keyless = rows.keys.iter().any(|key| key.is_null(row));
            let at = self.insert(side, &keys, &packed, row, time, is_keyless);
            if !is_keyless {
                self.meet(side, at, before, &mut pairs)?;
            }
        }
        taken.given = self.pairs(side, &pairs)?.into_iter().map(Flowing::on_time).collect();
        Ok(taken)
    }

    fn insert(&mut self, side: usize, keys: &Packed, rows: &Packed, row: usize, time: i64, is_keyless: bool) -> u32 {
        let key = keys.row(row);
        let bytes = [key, rows.row(row)].concat().into_boxed_slice();
        self.bytes += bytes.len() + ENTRY_BYTES;
        let flags = if is_keyless { KEYLESS } else { 0 };
        self.sides[side].insert(Slot { time, bytes, key_length: key.len() as u32, next: NONE, flags })
    }

    /// Finds the rows of the other side that a row may belong to.
    fn meet(&mut self, side: usize, at: u32, before: i64, pairs: &mut Vec<(u32, Partner)>) -> Result<()> {
        let (low, high, span) = (self.join.low_us, self.join.high_us, self.span());
        let slot = &self.sides[side].slots[at as usize];
        let time = slot.time;
        // Whether one of a time is its partner, or at least near it.
        let meets = |other: i64, is_ghost: bool| {
            let until = self.until(1 - side, other);
            let apart = if side == 0 { other.saturating_sub(time) } else { time.saturating_sub(other) };
            // Had it come alone, it would have found what the watermark before it had left.
            let is_partner = !is_ghost && until >= before && (low..=high).contains(&apart);
            let is_near = until.saturating_add(if side == 1 { span } else { 0 }) >= before
                && (low.saturating_sub(span)..=high.saturating_add(span)).contains(&apart);
            (is_partner, is_near)
        };
        // Of right rows it is counted.
        let (mut is_near_one, mut near, mut near_in_files): (bool, Vec<u32>, Vec<Place>) =
            (false, Vec::new(), Vec::new());
        for other in self.sides[1 - side].of_key(slot.key()) {
            let of_other = &self.sides[1 - side].slots[other as usize];
            match meets(of_other.time, of_other.flags & GHOST != 0) {
                (true, _) => pairs.push((at, Partner::Slot(other))),
                (false, true) if side == 0 => near.push(other),
                (false, is_near) => is_near_one |= is_near,
            }
        }
        let filed = &self.filed[1 - side];
        for found in filed.of_key(slot.key())? {
            let is_gone = found.time < filed.before() || found.mark & GHOST != 0;
            match meets(found.time, is_gone) {
                (true, _) => pairs.push((at, Partner::InFile(found))),
                (false, true) if side == 0 => near_in_files.push(found.place),
                (false, is_near) => is_near_one |= is_near,
            }
        }
        if side == 1 && is_near_one {
            near.push(at);
        }
        near.into_iter().for_each(|right| self.sides[1].slots[right as usize].flags |= NEAR);
        near_in_files.into_iter().for_each(|right| self.filed[1].mark(right, NEAR));
        Ok(())
    }

    /// Rows of pairs, of those that fulfil the whole condition, which are marked.
    fn pairs(&mut self, side: usize, pairs: &[(u32, Partner)]) -> Result<Option<RecordBatch>> {
        if pairs.is_empty() {
            return Ok(None);
        }
        let own = self.columns(side, pairs.iter().map(|(at, _)| self.sides[side].slots[*at as usize].row()))?;
        let of_other = pairs.iter().map(|(_, other)| match other {
            Partner::Slot(at) => self.sides[1 - side].slots[*at as usize].row(),
            Partner::InFile(found) => &found.bytes,
        });
        let of_other = self.columns(1 - side, of_other)?;
        let columns = if side == 0 { [own, of_other].concat() } else { [of_other, own].concat() };
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.len()));
        let mut rows = RecordBatch::try_new_with_options(Arc::clone(&self.join.output), columns, &options)?;
        let mut mask: Option<BooleanArray> = None;
        if let Some(residual) = &self.join.residual {
            let asked = residual.evaluate(&rows).map_err(DataFusionError::Execution)?;
            let asked = match asked.as_boolean_opt() {
                Some(asked) if asked.null_count() > 0 => prep_null_mask_filter(asked),
                Some(asked) => asked.clone(),
                None => BooleanArray::from(vec![false; pairs.len()]),
            };
            rows = filter_record_batch(&rows, &asked)?;
            mask = Some(asked);
        }
        for (at, (own, other)) in pairs.iter().enumerate() {
            let flag = if mask.as_ref().is_none_or(|mask| mask.value(at)) { MATCHED } else { NEAR };
            self.sides[side].slots[*own as usize].flags |= flag;
            match other {
                Partner::Slot(other) => self.sides[1 - side].slots[*other as usize].flags |= flag,
                Partner::InFile(found) => self.filed[1 - side].mark(found.place, flag),
            }
        }
        Ok((rows.num_rows() > 0).then_some(rows))
    }

    /// The columns of rows of a side; NULL where nobody asks for them.
    fn columns<'s>(&self, side: usize, rows: impl ExactSizeIterator<Item = &'s [u8]>) -> Result<Vec<ArrayRef>> {
        let (of_side, count) = (&self.join.sides[side], rows.len());
        let mut kept = self.sides[side].rows.unpack(rows)?.into_iter();
        let fields = of_side.schema.fields().iter().enumerate();
        let column = |(at, field): (usize, &arrow::datatypes::FieldRef)| match of_side.kept.contains(&at) {
            true => kept.next().unwrap_or_else(|| new_null_array(field.data_type(), count)),
            false => new_null_array(field.data_type(), count),
        };
        Ok(fields.map(column).collect())
    }

    /// Forgets rows that no partner can come for any more.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut taken = Taken::default();
        if watermark == NEVER {
            return Ok(taken);
        }
        let (join, of_left, of_right) =
            (Arc::clone(&self.join), self.join.sides[0].delay_us, self.join.sides[1].delay_us);
        // The turned-round `until` of both sides.
        let left_before = watermark.saturating_sub(of_right).saturating_sub(join.high_us);
        let right_waits = join.high_us.max(self.span());
        let right_before = watermark.saturating_sub(of_left).saturating_add(join.low_us).saturating_sub(right_waits);
        let ghosts_before = left_before.saturating_sub(self.span());
        let left = self.sides[0].retire(left_before);
        let ghosts = self.sides[0].expire(ghosts_before, true);
        let right = self.sides[1].expire(right_before, false);
        self.bytes -= left.iter().map(|slot| slot.row().len()).sum::<usize>();
        self.bytes -= ghosts.iter().chain(&right).map(|slot| slot.bytes.len() + ENTRY_BYTES).sum::<usize>();
        let gone = |slot: &Slot| Gone { time: slot.time, flags: slot.flags, row: slot.row().into() };
        let mut left: Vec<Gone> = left.iter().filter(|slot| slot.flags & MATCHED == 0).map(gone).collect();
        let mut right: Vec<Gone> = right.iter().filter(|slot| slot.flags & MATCHED == 0).map(gone).collect();
        left.extend(self.due(0, left_before)?);
        right.extend(self.due(1, right_before)?);
        self.filed[0].forget(ghosts_before);
        self.filed[1].forget(right_before);
        for gone in &right {
            match gone.flags & NEAR {
                0 => taken.counts.unmatched += 1,
                _ => taken.counts.out_of_bound += 1,
            }
        }
        for (side, mut lonely) in [left, right].into_iter().enumerate().filter(|(side, _)| join.outer[*side]) {
            if lonely.is_empty() {
                continue;
            }
            lonely.sort_by_key(|gone| gone.time);
            let own = self.columns(side, lonely.iter().map(|gone| &*gone.row))?;
            let of_other = join.sides[1 - side].schema.fields().iter();
            let nulls = of_other.map(|field| new_null_array(field.data_type(), lonely.len())).collect();
            let columns = if side == 0 { [own, nulls].concat() } else { [nulls, own].concat() };
            let options = RecordBatchOptions::new().with_row_count(Some(lonely.len()));
            let rows = RecordBatch::try_new_with_options(Arc::clone(&join.output), columns, &options)?;
            taken.given.push(Flowing::on_time(rows));
        }
        Ok(taken)
    }

    /// Rows in files that are before a time and found no partner; what they say where it is asked for.
    fn due(&mut self, side: usize, before: i64) -> Result<Vec<Gone>> {
        let mut due = self.filed[side].due(before)?;
        due.retain(|due| due.mark & (MATCHED | GHOST) == 0);
        let rows = match self.join.outer[side] {
            true => self.filed[side].read(&due.iter().collect::<Vec<_>>())?,
            false => vec![Box::default(); due.len()],
        };
        Ok(due.iter().zip(rows).map(|(due, row)| Gone { time: due.time, flags: due.mark, row }).collect())
    }

    /// Bytes that go to files: all rows that wait, and the keys of those that were given.
    pub(crate) fn spillable(&self) -> usize {
        self.bytes
    }

    pub(crate) fn spill(&mut self) -> Result<()> {
        for (waiting, filed) in self.sides.iter_mut().zip(&mut self.filed) {
            let all = waiting.times.iter().chain(&waiting.ghosts).map(|(_, at)| &waiting.slots[*at as usize]);
            let rows =
                all.map(|slot| TimedRow { time: slot.time, mark: slot.flags, key: slot.key(), bytes: slot.row() });
            filed.put(&rows.collect::<Vec<_>>())?;
            waiting.clear();
        }
        self.bytes = 0;
        Ok(())
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.filed.iter().map(Timed::spilled).sum()
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let part = |(kind, waiting): (&&str, &Waiting)| {
            // In an order that another process finds again.
            let slots: Vec<&Slot> = waiting.times.iter().map(|(_, at)| &waiting.slots[*at as usize]).collect();
            let times: TimestampMicrosecondArray = slots.iter().map(|slot| slot.time).collect::<Vec<i64>>().into();
            let flags: UInt8Array = slots.iter().map(|slot| slot.flags).collect::<Vec<u8>>().into();
            let keys = waiting.keys.unpack(slots.iter().map(|slot| slot.key()))?;
            let rows = waiting.rows.unpack(slots.iter().map(|slot| slot.row()))?;
            let own: Vec<ArrayRef> = vec![Arc::new(times), Arc::new(flags)];
            Ok(Part::new(kind, 0, slots.len(), vec![own, keys, rows]))
        };
        let sides = KINDS.iter().zip(&self.sides).filter(|(_, waiting)| !waiting.times.is_empty());
        let mut parts = sides.map(part).collect::<Result<Vec<_>>>()?;
        let left = &self.sides[0];
        if !left.ghosts.is_empty() {
            let slots: Vec<&Slot> = left.ghosts.iter().map(|(_, at)| &left.slots[*at as usize]).collect();
            let times: TimestampMicrosecondArray = slots.iter().map(|slot| slot.time).collect::<Vec<i64>>().into();
            let keys = left.keys.unpack(slots.iter().map(|slot| slot.key()))?;
            parts.push(Part::new(GONE, 0, slots.len(), vec![vec![Arc::new(times)], keys]));
        }
        parts.extend(self.filed.iter().flat_map(Timed::dump));
        Ok(parts)
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        let foreign = || super::foreign(&part.kind);
        if let Some(side) = IN_FILES.iter().position(|kind| *kind == part.kind) {
            return self.filed[side].restore(&part);
        }
        if part.kind == GONE {
            let [times, keys] = part.columns.as_slice() else { return Err(foreign()) };
            let times = times.first().and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
            let times = times.ok_or_else(foreign)?;
            let keys = self.sides[0].keys.pack(keys)?;
            for row in 0..part.rows {
                let bytes: Box<[u8]> = keys.row(row).into();
                self.bytes += bytes.len() + ENTRY_BYTES;
                let key_length = bytes.len() as u32;
                self.sides[0].insert(Slot { time: times.value(row), bytes, key_length, next: NONE, flags: GHOST });
            }
            return Ok(());
        }
        let side = KINDS.iter().position(|kind| *kind == part.kind).ok_or_else(foreign)?;
        let [own, keys, rows] = part.columns.as_slice() else { return Err(foreign()) };
        let [times, flags] = own.as_slice() else { return Err(foreign()) };
        let times = times.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(foreign)?;
        let flags = flags.as_primitive_opt::<UInt8Type>().ok_or_else(foreign)?;
        let (keys, rows) = (self.sides[side].keys.pack(keys)?, self.sides[side].rows.pack(rows)?);
        for row in 0..part.rows {
            let is_keyless = flags.value(row) & KEYLESS != 0;
            let at = self.insert(side, &keys, &rows, row, times.value(row), is_keyless);
            self.sides[side].slots[at as usize].flags = flags.value(row);
        }
        Ok(())
    }

    /// Bytes, and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let bytes = self.bytes + self.filed.iter().map(Timed::bytes).sum::<usize>();
        let in_files = self.filed.iter().map(Timed::waiting).sum::<usize>();
        (bytes, in_files + self.sides.iter().map(|side| side.times.len()).sum::<usize>())
    }
}
