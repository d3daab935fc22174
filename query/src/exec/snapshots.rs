//! One snapshot of each table per query: taken when its first scan is planned, and given to every further scan of the table.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidemill_storage::{
    ids::TableId,
    table::{Table, TableSnapshot},
};

/// Travels in the session configuration of one execution.
#[derive(Debug, Default)]
pub(crate) struct QuerySnapshots {
    taken: Mutex<HashMap<TableId, TableSnapshot>>,
    /// They are what is to be read, to the row.
    are_given: bool,
}

impl QuerySnapshots {
    /// These and no others: nothing else that knows rows of the tables may answer for them.
    pub(crate) fn given(snapshots: HashMap<TableId, TableSnapshot>) -> Self {
        Self { taken: Mutex::new(snapshots), are_given: true }
    }

    pub(crate) fn are_given(&self) -> bool {
        self.are_given
    }

    pub(crate) fn of(&self, table: &Table) -> TableSnapshot {
        self.taken.lock().entry(table.id()).or_insert_with(|| table.snapshot()).clone()
    }
}
