//! New rows of a table that merges the rows of a key: which row each is merged with, which of them are stored, and what is stored.
//!
//! ```text
//! new rows, in order      key a, v 3 ──┐      key b, v 1      key a, v 2      key a, v 7
//! the row before          a, v 2, in a segment   none          above it: late   the first one, merged
//! stored                  no: see the last     as it is        `keep`, unmerged   both merged with what was there
//! ```
//!
//! - A row is merged with the one that it takes the place of: the winner of its key that it ranks above, be it in a file, in memory or earlier in
//!   the same batch. So what is stored is a whole row, and readers and restarts find it as the winner of its key, as in other tables.
//! - After a tombstone a key begins anew. A row that ranks below the winner is late, and one that ranks as the winner is the winner read once
//!   more (dead letters may be tried twice): neither is merged. The second is never stored.
//! - Of the rows of a key in one batch the last is stored: the batch is there as a whole or not at all, and those between are not seen.
//!
//! - Where keys have an age, rows that are not near to each other (`upsert::ages`) are not merged, and neither is one that comes late.
//!
//! What a crash takes back are rows in memory, those that were appended last, with the offsets that they came from: segments are committed in their
//! order. What is left of a key is what it was before those rows, and they are read and merged again. Two things must not come in between:
//! statements that change a row that rows in memory are merged with ([`PartitionWriter::are_seen`](crate::table::PartitionWriter::are_seen)), and
//! retention that takes such a row away ([`Needed::beaten`](crate::upsert::Needed)).

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    compute::concat,
};

use super::{Arriving, Winners};
use crate::{
    Error, Result,
    evaluate::{default_array, widened},
    ids::ColumnId,
    schema::{Column, TableSchema},
    upsert::{
        is_provenance,
        map::Location,
        merge::{Base, merged, needs_stored, picked},
    },
};

/// What becomes of new rows.
struct Plan {
    bases: Vec<Base>,
    /// Those that are stored, ascending.
    kept: Vec<u32>,
    /// What [`Base::Stored`] counts, ascending.
    stored: Vec<Location>,
}

/// The row that a new one meets.
enum Known {
    Stored(Location),
    Arriving(usize),
}

impl Winners {
    pub(crate) fn merges(&self) -> bool {
        self.spec.merges
    }

    /// The rows that are to be stored, of columns as `written` has them. Changes nothing but which rows of `arriving` are appended.
    pub(crate) fn merged(
        &self,
        written: &TableSchema,
        arriving: &mut Arriving,
        columns: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>> {
        let plan = self.plan(arriving);
        let (version, delete) = (self.spec.version, self.spec.delete);
        // The rank of a row is that of what it brings.
        let stays = |column: &Column| {
            is_provenance(column.id)
                || self.spec.columns.contains(&column.id)
                || version == Some(column.id)
                || self.spec.late == Some(column.id)
        };
        let wanted = |(column, new): &(&Column, &ArrayRef)| {
            !plan.stored.is_empty() && !stays(column) && needs_stored(column.merge, new)
        };
        let read: Vec<&Column> = written.columns.iter().zip(columns).filter(wanted).map(|(column, _)| column).collect();
        let mut known = self.stored(&plan.stored, &read)?.into_iter();
        let mut all = Vec::with_capacity(columns.len());
        for (column, new) in written.columns.iter().zip(columns) {
            let stored = match wanted(&(column, new)) {
                true => known.next().ok_or_else(|| Error::Invalid("a column that is merged was not read".into()))?,
                false => new_empty_array(new.data_type()),
            };
            all.push(match column {
                column if stays(column) => picked(new, &plan.kept)?,
                // Its default is what it says where a row does not bring it, new key or not.
                column if delete == Some(column.id) => {
                    let column = Column { default: None, ..column.clone() };
                    merged(&column, &stored, new, &plan.bases, &plan.kept)?
                }
                column => merged(column, &stored, new, &plan.bases, &plan.kept)?,
            });
        }
        arriving.kept = Some(plan.kept);
        Ok(all)
    }

    fn plan(&self, arriving: &Arriving) -> Plan {
        let new = &arriving.new;
        // Of each key the new row that wins so far.
        let mut latest: HashMap<&[u8], usize, foldhash::fast::FixedState> = HashMap::default();
        let mut bases = vec![Base::Nothing; new.rows()];
        let mut is_kept = vec![true; new.rows()];
        let mut stored: Vec<(Location, usize)> = Vec::new();
        for row in 0..new.rows() {
            if arriving.is_late(row) {
                is_kept[row] = self.spec.keeps_losers;
                continue;
            }
            let key = new.key(row);
            let before = latest.get(key).filter(|before| self.are_near(new, row, new, **before));
            let known = match before {
                Some(before) => Some((Known::Arriving(*before), new.rank(*before), !new.deletes(*before))),
                None => self.winner_met(arriving, row),
            };
            if let Some((known, rank, is_there)) = known {
                if !self.wins(new.rank(row), rank) {
                    is_kept[row] = self.spec.keeps_losers && new.rank(row) != rank;
                    continue;
                }
                let is_merged = is_there && !new.deletes(row);
                match known {
                    Known::Arriving(before) => {
                        is_kept[before] = false;
                        if is_merged {
                            bases[row] = Base::Arriving(before);
                        }
                    }
                    Known::Stored(location) if is_merged => stored.push((location, row)),
                    Known::Stored(_) => {}
                }
            }
            latest.insert(key, row);
        }
        stored.sort_unstable();
        for (at, (_, row)) in stored.iter().enumerate() {
            bases[*row] = Base::Stored(at);
        }
        let kept = (0..new.rows() as u32).filter(|row| is_kept[*row as usize]).collect();
        Plan { bases, kept, stored: stored.into_iter().map(|(location, _)| location).collect() }
    }

    /// The winner of a new row's key among the rows that were there, its rank, and whether it is no tombstone.
    fn winner_met<'a>(&self, arriving: &'a Arriving, row: usize) -> Option<(Known, &'a [u8], bool)> {
        let map = self.keys.read();
        let met = map.entries(arriving.fingerprints[row]).filter_map(|(_, location)| {
            let (identities, at) = arriving.identity(location, row)?;
            let is_there = self.segments[location.segment as usize].validity.is_valid(location.row);
            (identities.key(at) == arriving.new.key(row) && self.are_near(&arriving.new, row, identities, at))
                .then(|| (Known::Stored(location), identities.rank(at), is_there))
        });
        // Where keys have an age there may be several, which are not near to each other.
        met.max_by_key(|(_, rank, _)| *rank)
    }

    /// The rank of the winner of a new row's key among the rows that were there.
    pub(super) fn rank_met<'a>(&self, arriving: &'a Arriving, row: usize) -> Option<&'a [u8]> {
        self.winner_met(arriving, row).map(|(_, rank, _)| rank)
    }

    /// Values of rows that are there, as the table has them now.
    fn stored(&self, rows: &[Location], columns: &[&Column]) -> Result<Vec<ArrayRef>> {
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); columns.len()];
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        for run in rows.chunk_by(|a, b| a.segment == b.segment) {
            let slot = &self.segments[run[0].segment as usize];
            let gone = || Error::Invalid(format!("the key map knows rows of segment {}, which is gone", slot.id));
            let segment = slot.segment.as_ref().ok_or_else(gone)?;
            let places: Vec<u32> = run.iter().map(|location| location.row).collect();
            let is_there = |column: &Column| segment.schema().index_of(column.id).is_some();
            let ids: Vec<ColumnId> = columns.iter().filter(|column| is_there(column)).map(|column| column.id).collect();
            let mut taken = segment.take(&ids, &places)?.into_iter();
            for (column, parts) in columns.iter().zip(&mut parts) {
                let younger = || default_array(column, places.len());
                let values = if is_there(column) { taken.next() } else { None };
                parts.push(values.map_or_else(younger, |values| widened(values, column))?);
            }
        }
        let joined = |mut parts: Vec<ArrayRef>| match parts.len() {
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(concat(&parts.iter().map(Arc::as_ref).collect::<Vec<&dyn Array>>())?),
        };
        parts.into_iter().map(joined).collect()
    }
}
