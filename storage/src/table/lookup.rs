//! The row of a primary key, found by the key map: what a scan with the key as its condition would give, in microseconds.
//!
//! ```text
//! key ─hash─► its partition ─► view, taken as by a snapshot
//!                        └───► key map ─► segment, row ─► in the view, and the key is the same?  ─ yes ─► the row if it is valid; if not, it was deleted
//!                                   └ no entry, and none was taken out meanwhile ─► there is no such key
//! ```
//!
//! The plain twin is the scan; it is asked wherever the map and the view do not agree (a batch between the two, a segment in another order), where a
//! segment is damaged, and for keys whose tombstone is in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array},
    compute::{and, concat, kernels::cmp::eq, take},
};

use super::{Partition, PartitionView, Table};
use crate::{
    Error, Result,
    evaluate::{default_array, plain_floats, widened},
    ids::{ColumnId, SegmentId},
    schema::{Column, TableSchema},
    segment::{Segment, SegmentState},
    upsert::{fingerprint, fingerprints, owner},
};

/// What a look-up says.
#[derive(Debug)]
pub enum Found {
    /// One value of each column that was asked for.
    Row(Vec<ArrayRef>),
    /// No row has the key.
    Nothing,
    /// A scan is to tell.
    Unknown,
}

impl Table {
    /// The row of a key as a snapshot taken now has it. `key` has one value, which is not NULL, of each of the key's columns, in their order and in
    /// their types; `columns` are some of `schema`, by their places. Nothing is found under a schema that is not the table's any more. Errors: those
    /// of reading the row.
    pub fn look_up(&self, schema: &Arc<TableSchema>, key: &[ArrayRef], columns: &[usize]) -> Result<Found> {
        // Rows of a key that are far apart in time may all be seen, and the map forgets some.
        let Some(spec) = self.key.as_ref().filter(|spec| spec.ages.is_none_or(|ages| ages.key_us.is_none())) else {
            return Ok(Found::Unknown);
        };
        if !Arc::ptr_eq(&self.schema.load(), schema) {
            return Ok(Found::Unknown);
        }
        let key: Vec<ArrayRef> = key.iter().map(plain_floats).collect();
        let fingerprint = fingerprint(&key)?;
        let partitions = self.partitions();
        let partition = &partitions[owner(fingerprint, partitions.len() as u32) as usize];
        let Some(keys) = partition.keys.load_full() else { return Ok(Found::Unknown) };
        let removals = keys.removals();
        let view = {
            let _moment = (partitions.len() > 1).then(|| self.moment.read());
            partition.view.load_full()
        };
        if view.is_damaged() {
            return Ok(Found::Unknown);
        }
        let Ok(candidates) = keys.candidates(fingerprint) else { return Ok(Found::Unknown) };
        if candidates.is_empty() {
            return Ok(if keys.removals() == removals { Found::Nothing } else { Found::Unknown });
        }
        let asked: Vec<&Column> = columns.iter().filter_map(|at| schema.columns.get(*at)).collect();
        for (id, row) in candidates {
            let Some(segment) = view.segment(id).filter(|segment| row < segment.rows()) else { continue };
            let Some(found) = values_of(segment, row, &spec.columns, &key, &asked)? else { continue };
            if view.validities.of(id).is_none_or(|validity| validity.is_valid(row)) {
                return Ok(Found::Row(found));
            }
            // The map is asked after the view, and who wins is beaten only by rows that come later: nothing of the view is above this row, which is a
            // tombstone. Rows of a segment in memory may have other places in the map already.
            if segment.state() == SegmentState::Committed {
                return Ok(Found::Nothing);
            }
        }
        Ok(Found::Unknown)
    }
}

/// What look-ups of many keys say.
#[derive(Debug)]
pub struct FoundRows {
    /// Keys that have a row, by their places, ascending.
    pub keys: Vec<u32>,
    /// The values of these rows, of each column that was asked for.
    pub columns: Vec<ArrayRef>,
    /// Keys that a scan is to tell of.
    pub unknown: Vec<u32>,
}

impl Table {
    /// [`Table::look_up`] of many keys: `keys` has as many values of each of the key's columns. The columns that are asked for are named by their ids, and are given in the types of
    /// the present schema; one that is not of it is `Invalid`.
    pub fn look_up_all(&self, keys: &[ArrayRef], columns: &[ColumnId]) -> Result<FoundRows> {
        let schema = self.schema.load_full();
        let count = keys.first().map_or(0, |values| values.len());
        let asked: Vec<&Column> = columns
            .iter()
            .map(|id| schema.column(*id).ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}"))))
            .collect::<Result<_>>()?;
        let spec = self.key.as_ref().filter(|spec| spec.ages.is_none_or(|ages| ages.key_us.is_none()));
        let Some(spec) = spec else {
            let columns = asked.iter().map(|column| new_empty_array(&column.data_type.arrow())).collect();
            return Ok(FoundRows { keys: Vec::new(), columns, unknown: (0..count as u32).collect() });
        };
        let keys: Vec<ArrayRef> = keys.iter().map(plain_floats).collect();
        let fingerprints = fingerprints(&keys)?;
        let partitions = self.partitions();
        let mut of_partition: Vec<Vec<u32>> = vec![Vec::new(); partitions.len()];
        for (key, fingerprint) in (0u32..).zip(&fingerprints) {
            of_partition[owner(*fingerprint, partitions.len() as u32) as usize].push(key);
        }
        // Keys that were found, each with its place in the pieces, which are values of rows one after the other.
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); asked.len()];
        let mut unknown = Vec::new();
        for (partition, wanted) in partitions.iter().zip(of_partition).filter(|(_, wanted)| !wanted.is_empty()) {
            let Some(map) = partition.keys.load_full() else {
                unknown.extend(wanted);
                continue;
            };
            let removals = map.removals();
            let view = {
                let _moment = (partitions.len() > 1).then(|| self.moment.read());
                partition.view.load_full()
            };
            // Of each segment the rows that keys may be in.
            let mut candidates: BTreeMap<SegmentId, Vec<(u32, u32)>> = BTreeMap::new();
            let mut open: BTreeSet<u32> = BTreeSet::new();
            for key in wanted {
                match map.candidates(fingerprints[key as usize]) {
                    Ok(of_key) if !view.is_damaged() => {
                        if !of_key.is_empty() || map.removals() != removals {
                            open.insert(key);
                        }
                        let of_key = of_key.into_iter();
                        of_key.for_each(|(segment, row)| candidates.entry(segment).or_default().push((row, key)));
                    }
                    _ => _ = open.insert(key),
                }
            }
            for (id, mut rows) in candidates {
                let Some(segment) = view.segment(id) else { continue };
                rows.retain(|(row, _)| *row < segment.rows());
                rows.sort_unstable();
                let mut places: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
                places.dedup();
                let values = rows_of(segment, &places, &spec.columns, &asked)?;
                let (of_key, values) = values.split_at(spec.columns.len());
                let place = |row: &u32| places.binary_search(row).unwrap_or_default() as u32;
                let in_values: UInt32Array = rows.iter().map(|(row, _)| place(row)).collect::<Vec<_>>().into();
                let in_keys: UInt32Array = rows.iter().map(|(_, key)| *key).collect::<Vec<_>>().into();
                let mut is_key = BooleanArray::from(vec![true; rows.len()]);
                for (of_key, wanted) in of_key.iter().zip(&keys) {
                    let of_rows = take(&plain_floats(of_key), &in_values, None)?;
                    is_key = and(&is_key, &eq(&of_rows, &take(wanted, &in_keys, None)?)?)?;
                }
                let mut chosen = Vec::new();
                for (at, (row, key)) in rows.iter().enumerate() {
                    if !is_key.value(at) || !open.contains(key) {
                        continue;
                    }
                    let is_valid = view.validities.of(id).is_none_or(|validity| validity.is_valid(*row));
                    // As of one key: what is not valid in a committed segment is a tombstone.
                    if is_valid || segment.state() == SegmentState::Committed {
                        open.remove(key);
                    }
                    if is_valid {
                        found.push((*key, found.len() as u32));
                        chosen.push(in_values.value(at));
                    }
                }
                let chosen = UInt32Array::from(chosen);
                for (pieces, values) in pieces.iter_mut().zip(values) {
                    pieces.push(take(values, &chosen, None)?);
                }
            }
            unknown.extend(open);
        }
        found.sort_unstable();
        unknown.sort_unstable();
        let order = UInt32Array::from(found.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        let column = |(column, pieces): (&&Column, &Vec<ArrayRef>)| {
            let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
            match pieces.is_empty() {
                true => Ok(new_empty_array(&column.data_type.arrow())),
                false => Ok(take(&concat(&pieces)?, &order, None)?),
            }
        };
        let columns = asked.iter().zip(&pieces).map(column).collect::<Result<_>>()?;
        Ok(FoundRows { keys: found.into_iter().map(|(key, _)| key).collect(), columns, unknown })
    }
}

/// Values of rows, which ascend: of the key's columns, then of those that are asked for.
fn rows_of(segment: &Arc<dyn Segment>, rows: &[u32], of_key: &[ColumnId], asked: &[&Column]) -> Result<Vec<ArrayRef>> {
    let is_there = |column: &&&Column| segment.schema().index_of(column.id).is_some();
    let ids: Vec<ColumnId> =
        of_key.iter().copied().chain(asked.iter().filter(is_there).map(|column| column.id)).collect();
    let mut taken = segment.take(&ids, rows)?;
    let mut values = taken.split_off(of_key.len()).into_iter();
    for column in asked {
        taken.push(match is_there(&column).then(|| values.next()).flatten() {
            Some(value) => widened(value, column)?,
            // The segment is older than the column.
            None => default_array(column, rows.len())?,
        });
    }
    Ok(taken)
}

/// The values of a row, if it has the key.
fn values_of(
    segment: &Arc<dyn Segment>,
    row: u32,
    of_key: &[ColumnId],
    key: &[ArrayRef],
    columns: &[&Column],
) -> Result<Option<Vec<ArrayRef>>> {
    let mut taken = rows_of(segment, &[row], of_key, columns)?;
    let values = taken.split_off(of_key.len());
    let is_key = taken.iter().zip(key).all(|(found, wanted)| plain_floats(found).as_ref() == wanted.as_ref());
    Ok(is_key.then_some(values))
}

impl Partition {
    /// Readers may ask the key map of the partition's writer from now on.
    pub(super) fn share(&self, keys: &Arc<crate::upsert::Keys>) {
        self.keys.store(Some(Arc::clone(keys)));
    }
}

impl PartitionView {
    fn segment(&self, id: SegmentId) -> Option<&Arc<dyn Segment>> {
        let committed = &self.committed.segments;
        match committed.binary_search_by_key(&id, |segment| segment.id()) {
            Ok(at) => committed.get(at),
            Err(_) => self.recent.iter().find(|segment| segment.id() == id),
        }
    }

    /// Whether nobody knows which rows of it lost against those of a damaged segment.
    fn is_damaged(&self) -> bool {
        let is_damaged = |segment: &Arc<dyn Segment>| segment.state() == SegmentState::Quarantined;
        self.committed.damaged || self.recent.iter().any(is_damaged)
    }
}
