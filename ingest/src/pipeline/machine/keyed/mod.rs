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
mod table;
#[cfg(test)]
mod tests;
mod writing;

use std::{borrow::Cow, mem, sync::Arc};

use datafusion::common::DataFusionError;

use self::merging::Merging;
pub(crate) use self::table::{Table, TableHead};
use super::{
    flow::{InFile, Part},
    packing::ByRow,
    spill::{Store, failed, full_level},
};
use crate::Error;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

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

impl Value for Box<[u8]> {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(bytes.into())
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Whether a value, as it stands in a file, may still matter; when it does not, none that its key had before does. It goes when tables become one.
pub(crate) type Lives = Box<dyn Fn(&[u8]) -> bool + Send>;

pub(crate) struct Keyed<V> {
    memory: ByRow<V>,
    /// Of what is in memory.
    bytes: usize,
    tables: Vec<Table>,
    merging: Option<Merging>,
    store: Arc<dyn Store>,
}

impl Keyed<Box<[u8]>> {
    /// The same as [`Self::put`], without making room where there is some.
    pub(crate) fn put_bytes(&mut self, key: &[u8], value: &[u8]) {
        match self.memory.get_mut(key) {
            Some(known) if known.len() == value.len() => known.copy_from_slice(value),
            _ => self.put(key, value.into()),
        }
    }
}

impl<V: Value> Keyed<V> {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { memory: ByRow::default(), bytes: 0, tables: Vec::new(), merging: None, store }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, V>>> {
        if let Some(value) = self.memory.get(key) {
            return Ok(Some(Cow::Borrowed(value)));
        }
        if self.tables.is_empty() {
            return Ok(None);
        }
        let hash = tidemill_storage::hash::of_bytes(key);
        for table in self.tables.iter().rev() {
            let found = table.get(hash, key).map_err(failed)?;
            if let Some(found) = found {
                let value = V::read(&found).ok_or_else(|| super::foreign("a value in a file"))?;
                return Ok(Some(Cow::Owned(value)));
            }
        }
        Ok(None)
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

    pub(crate) fn reserve(&mut self, more: usize) {
        self.memory.reserve(more);
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
        let part =
            |table: &Table| Part { in_file: Some(InFile::Table(table.clone())), ..Part::new(kind, 0, 0, Vec::new()) };
        self.tables.iter().map(part).collect()
    }

    /// Takes a table of a picture; those of one picture come in their order.
    pub(crate) fn adopt(&mut self, table: Table) -> Result<()> {
        self.tables.push(table.adopt(&*self.store).map_err(failed)?);
        Ok(())
    }

    /// Bytes of memory that would be free if all were in files.
    pub(crate) fn spillable(&self) -> usize {
        self.bytes
    }

    /// Puts what is in memory into a file.
    pub(crate) fn spill(&mut self, lives: impl Fn() -> Lives) -> Result<()> {
        self.spill_memory(lives).map_err(failed)
    }

    fn spill_memory(&mut self, lives: impl Fn() -> Lives) -> Result<(), Error> {
        if !self.memory.is_empty() {
            let table = writing::of(mem::take(&mut self.memory), &*self.store)?;
            self.bytes = 0;
            self.tables.push(table);
        }
        loop {
            let levels: Vec<u8> = self.tables.iter().map(Table::level).collect();
            let Some(range) = full_level(&levels, self.store.runs_max()) else { return Ok(()) };
            // One at a time: when files are made more quickly than they become one, whoever makes them waits.
            if let Some(merging) = self.merging.take() {
                merging.wait(&mut self.tables)?;
                continue;
            }
            self.merging = Some(Merging::begin(range, &self.tables, lives(), &self.store)?);
            return Ok(());
        }
    }

    /// Takes over what became one table meanwhile.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if let Some(merging) = self.merging.take() {
            self.merging = merging.poll(&mut self.tables).map_err(failed)?;
        }
        Ok(())
    }

    /// Of memory: entries, and what finds those in files.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.tables.iter().map(Table::bytes).sum::<usize>()
    }

    /// Keys; one that is in several places counts in each.
    pub(crate) fn entries(&self) -> usize {
        self.memory.len() + self.tables.iter().map(|table| table.entries() as usize).sum::<usize>()
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.tables.iter().map(|table| table.file().bytes).sum()
    }
}
