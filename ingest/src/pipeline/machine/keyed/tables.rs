//! The tables of what is found by its key, and those that become one.

use std::sync::Arc;

use super::{
    super::{
        flow::{InFile, Part},
        spill::{Store, failed, full_level},
    },
    Lives, Result, Table,
    merging::Merging,
    table::hash_of,
    writing,
};
use crate::Result as Outcome;

pub(crate) struct Tables {
    /// Oldest first.
    pub(super) tables: Vec<Table>,
    merging: Option<Merging>,
    store: Arc<dyn Store>,
}

impl Tables {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { tables: Vec::new(), merging: None, store }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What the newest table has of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.tables.is_empty() {
            return Ok(None);
        }
        let hash = hash_of(key);
        for table in self.tables.iter().rev() {
            let found = table.get(hash, key).map_err(failed)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Puts entries of other keys each into a new table.
    pub(crate) fn add<'a, V: 'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a [u8], V)>,
        write: impl Fn(&V, &mut Vec<u8>),
        lives: impl Fn() -> Lives,
    ) -> Result<()> {
        self.add_table(writing::of(entries, write, &*self.store).map_err(failed)?, lives).map_err(failed)
    }

    fn add_table(&mut self, table: Option<Table>, lives: impl Fn() -> Lives) -> Outcome<()> {
        self.tables.extend(table);
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

    /// What a picture has of them.
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

    /// Of memory: what finds entries.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.iter().map(Table::bytes).sum()
    }

    /// Keys; one that is in several tables counts in each.
    pub(crate) fn entries(&self) -> usize {
        self.tables.iter().map(|table| table.entries() as usize).sum()
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.tables.iter().map(|table| table.file().bytes).sum()
    }
}
