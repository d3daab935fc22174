//! Making one table of several, beside whoever asks them.

use std::{ops::Range, sync::Arc};

use super::{
    super::spill::{Beside, GivenUp, Store},
    Lives, Table,
    block::Entries,
    table::hash_of,
    writing::Writing,
};
use crate::Result;

/// Tables that become one.
pub(super) struct Merging {
    /// Those of them, which stay where they are meanwhile: others come behind.
    range: Range<usize>,
    made: Beside<Table>,
}

impl Merging {
    pub(super) fn begin(range: Range<usize>, tables: &[Table], lives: Lives, store: &Arc<dyn Store>) -> Result<Self> {
        let (tables, to) = (tables[range.clone()].to_vec(), Arc::clone(store));
        let made = Beside::begin(&**store, move |given_up| merge(&tables, &lives, &*to, given_up))?;
        Ok(Self { range, made })
    }

    /// Takes over the new table if it is there, or gives itself back.
    pub(super) fn poll(self, tables: &mut Vec<Table>) -> Result<Option<Self>> {
        match self.made.poll()? {
            Some(made) => {
                tables.splice(self.range, [made]);
                Ok(None)
            }
            None => Ok(Some(self)),
        }
    }

    pub(super) fn wait(self, tables: &mut Vec<Table>) -> Result<()> {
        tables.splice(self.range, [self.made.wait()?]);
        Ok(())
    }
}

/// Entries of a table, one after the other.
struct Cursor<'a> {
    table: &'a Table,
    /// The next block to be read.
    next: usize,
    entries: std::vec::IntoIter<Entry>,
}

/// Hash, key, value.
type Entry = (u64, Box<[u8]>, Box<[u8]>);

impl<'a> Cursor<'a> {
    fn new(table: &'a Table) -> Self {
        Self { table, next: 0, entries: Vec::new().into_iter() }
    }

    /// Sees that there is an entry, unless there is none any more.
    fn fill(&mut self) -> Result<()> {
        while self.entries.as_slice().is_empty() && self.next < self.table.blocks() {
            let bytes = self.table.block(self.next)?;
            let entries = Entries::of(&bytes).map(|entry| {
                let (key, value) = entry.ok_or_else(|| self.table.torn(self.next))?;
                Ok(self.table.counts(key).then(|| (hash_of(key), key.into(), value.into())))
            });
            let entries = entries.filter_map(Result::transpose);
            self.entries = entries.collect::<Result<Vec<_>>>()?.into_iter();
            self.next += 1;
        }
        Ok(())
    }

    fn key(&self) -> Option<(u64, &[u8])> {
        self.entries.as_slice().first().map(|(hash, key, _)| (*hash, &**key))
    }
}

fn merge(tables: &[Table], lives: &Lives, store: &dyn Store, given_up: &GivenUp) -> Result<Table> {
    let most = tables.iter().map(Table::entries).sum();
    let level = tables.iter().map(Table::level).fold(0, u8::max).saturating_add(1);
    let mut writing = Writing::new(store, level, most)?;
    let mut cursors: Vec<Cursor<'_>> = tables.iter().map(Cursor::new).collect();
    loop {
        cursors.iter_mut().try_for_each(Cursor::fill)?;
        // Of a key that is in several tables the newest counts, which is the last.
        let newest = (0..cursors.len()).rev().filter(|at| cursors[*at].key().is_some());
        let Some(newest) = newest.min_by_key(|at| cursors[*at].key()) else { break };
        let Some((hash, key, value)) = cursors[newest].entries.next() else { break };
        for cursor in &mut cursors[..newest] {
            if cursor.key() == Some((hash, &key)) {
                cursor.entries.next();
            }
        }
        if lives(&value) {
            writing.add(hash, &key, &value)?;
        }
        given_up.check()?;
    }
    writing.finish()
}
