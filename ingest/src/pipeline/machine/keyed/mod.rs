//! Values by key, of which memory has room for some.
//!
//! ```text
//! memory   key → value: what was put since it went to a file
//! tables   oldest first, each sorted by the hashes of its keys; of a key that is in several places memory, then the newest table counts
//! ```
//!
//! A table has a filter of its keys, so that asking for one that is nowhere mostly reads nothing, and one that is there mostly reads one block. As many tables of
//! one *level* as the store says become one of the next beside the machine ([`Store::beside`]): that changes where a value is, and never which one it is, so when it is done is
//! nobody's concern. What goes to files, and when, is said by an arrival ([`super::Arrival::Spill`]).

mod block;
mod merging;
mod packed_map;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod timed;
mod writing;

use std::{borrow::Cow, mem, sync::Arc};

use datafusion::common::DataFusionError;

pub(crate) use self::{
    packed_map::PackedMap,
    table::{Table, TableHead},
    tables::Tables,
    timed::{Due, Found, Place, Timed, TimedRow},
};
use super::{flow::Part, packing::ByRow, spill::Store};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Bytes of an entry beside its key and its value.
pub(crate) const ENTRY_BYTES: usize = 64;

/// What is kept of a key.
pub(crate) trait Value: Clone {
    /// As it stands in a file.
    fn write(&self, bytes: &mut Vec<u8>);

    /// `None` for bytes that are none.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// What it takes in memory, beside what every entry does.
    fn bytes(&self) -> usize;
}

/// Whether a value, as it stands in a file, may still matter; when it does not, none that its key had before does. It goes when tables become one.
pub(crate) type Lives = Box<dyn Fn(&[u8]) -> bool + Send>;

pub(crate) struct Keyed<V> {
    memory: ByRow<V>,
    /// Of what is in memory.
    bytes: usize,
    tables: Tables,
}

impl<V: Value> Keyed<V> {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { memory: ByRow::default(), bytes: 0, tables: Tables::new(store) }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, V>>> {
        if let Some(value) = self.memory.get(key) {
            return Ok(Some(Cow::Borrowed(value)));
        }
        let found = self.tables.get(key)?;
        let read = |found: Vec<u8>| V::read(&found).ok_or_else(|| super::foreign("a value in a file"));
        Ok(found.map(read).transpose()?.map(Cow::Owned))
    }

    /// What memory has of a key.
    pub(crate) fn held(&self, key: &[u8]) -> Option<&V> {
        self.memory.get(key)
    }

    /// Changes what there is of a key, which is nothing at first.
    pub(crate) fn change(&mut self, key: &[u8], change: impl FnOnce(&mut V)) -> Result<()>
    where
        V: Default,
    {
        if let Some(value) = self.memory.get_mut(key) {
            self.bytes -= value.bytes();
            change(value);
            self.bytes += value.bytes();
            return Ok(());
        }
        let mut value = self.get(key)?.map(Cow::into_owned).unwrap_or_default();
        change(&mut value);
        self.put(key, value);
        Ok(())
    }

    pub(crate) fn put(&mut self, key: &[u8], value: V) {
        self.bytes += value.bytes();
        match self.memory.get_mut(key) {
            Some(known) => self.bytes -= mem::replace(known, value).bytes(),
            None => {
                self.bytes += key.len() + ENTRY_BYTES;
                self.memory.insert(key.into(), value);
            }
        }
    }

    /// What is in memory, in no order.
    pub(crate) fn in_memory(&self) -> impl ExactSizeIterator<Item = (&[u8], &V)> + Clone {
        self.memory.iter().map(|(key, value)| (&**key, value))
    }

    /// Changes what is in memory; what `change` says no of goes.
    pub(crate) fn retain(&mut self, mut change: impl FnMut(&mut V) -> bool) {
        let mut bytes = 0;
        self.memory.retain(|key, value| {
            let stays = change(value);
            bytes += if stays { key.len() + value.bytes() + ENTRY_BYTES } else { 0 };
            stays
        });
        self.bytes = bytes;
    }

    /// What a picture has of what is in files.
    pub(crate) fn dump(&self, kind: &str) -> Vec<Part> {
        self.tables.dump(kind)
    }

    /// Takes a table of a picture; those of one picture come in their order.
    pub(crate) fn adopt(&mut self, table: Table) -> Result<()> {
        self.tables.adopt(table)
    }

    /// Bytes of memory that would be free if all were in files.
    pub(crate) fn spillable(&self) -> usize {
        self.bytes
    }

    /// Puts what is in memory into a file.
    pub(crate) fn spill(&mut self, lives: impl Fn() -> Lives) -> Result<()> {
        let memory = mem::take(&mut self.memory);
        self.bytes = 0;
        let entries = memory.iter().map(|(key, value)| (&**key, value));
        self.tables.add(entries, |value, bytes| value.write(bytes), lives)
    }

    /// Takes over what became one table meanwhile.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.tables.settle()
    }

    /// Of memory: entries, and what finds those in files.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.tables.bytes()
    }

    /// Keys; one that is in several places counts in each.
    pub(crate) fn entries(&self) -> usize {
        self.memory.len() + self.tables.entries()
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.tables.spilled()
    }
}
