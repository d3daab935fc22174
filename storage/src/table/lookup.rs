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

use std::sync::Arc;

use arrow::array::ArrayRef;

use super::{Partition, PartitionView, Table};
use crate::{
    Result,
    evaluate::{default_array, plain_floats, widened},
    ids::{ColumnId, SegmentId},
    schema::{Column, TableSchema},
    segment::{Segment, SegmentState},
    upsert::{fingerprint, owner},
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

/// The values of a row, if it has the key.
fn values_of(
    segment: &Arc<dyn Segment>,
    row: u32,
    of_key: &[ColumnId],
    key: &[ArrayRef],
    columns: &[&Column],
) -> Result<Option<Vec<ArrayRef>>> {
    let is_there = |column: &&&Column| segment.schema().index_of(column.id).is_some();
    let ids: Vec<ColumnId> =
        of_key.iter().copied().chain(columns.iter().filter(is_there).map(|column| column.id)).collect();
    let mut taken = segment.take(&ids, &[row])?;
    let values = taken.split_off(of_key.len());
    let is_key = taken.iter().zip(key).all(|(found, wanted)| plain_floats(found).as_ref() == wanted.as_ref());
    if !is_key {
        return Ok(None);
    }
    let mut values = values.into_iter();
    let value = |column: &&Column| match is_there(&column).then(|| values.next()).flatten() {
        Some(value) => widened(value, column),
        // The segment is older than the column.
        None => default_array(column, 1),
    };
    columns.iter().map(value).collect::<Result<Vec<_>>>().map(Some)
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
