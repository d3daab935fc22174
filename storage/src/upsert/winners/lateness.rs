//! Rows that come too late to win: of a key that has a row of a higher rank, or a tombstone, or gets one earlier in the same batch.
//!
//! A row of the rank of the winner is the winner, read once more, and not late. Such a row loses for good: what beat it was here before, so a crash does not take
//! that one back and leave this one.

use std::collections::HashMap;

use arrow::array::BooleanArray;

use super::{Arriving, Winners};
use crate::ids::ColumnId;

impl Winners {
    /// The column that tells it, of a table that has one.
    pub(crate) fn late_column(&self) -> Option<ColumnId> {
        self.spec.late
    }

    /// Which of the new rows are late. Changes nothing.
    pub(crate) fn late(&self, arriving: &Arriving) -> BooleanArray {
        let new = &arriving.new;
        // Of each key the highest rank of the new rows so far that were not late.
        let mut highest: HashMap<&[u8], &[u8], foldhash::fast::FixedState> = HashMap::default();
        let is_late = |row: usize| {
            let (key, rank) = (new.key(row), new.rank(row));
            let known = match highest.get(key) {
                Some(rank) => Some(*rank),
                None => self.rank_met(arriving, row),
            };
            let is_late = known.is_some_and(|known| rank < known);
            if !is_late {
                highest.insert(key, rank);
            }
            Some(is_late)
        };
        (0..new.rows()).map(is_late).collect()
    }
}
