//! Making tables.

use tidemill_storage::split_block;

use super::{
    super::spill::{Filling, Store},
    block,
    table::{Place, ROWS, Table, TableHead, hash_of},
};
use crate::Result;

/// Of asking for a key that is not there, the share that reads a block.
const FALSE_ANSWERS: f64 = 0.01;

/// A table that is being written, in the order of hashes and keys.
pub(super) struct Writing {
    filling: Box<dyn Filling>,
    block_bytes: usize,
    level: u8,
    at: u64,
    entries: u64,
    /// The block at hand, and the hashes of its first and its last key.
    block: Vec<u8>,
    first: u64,
    last: u64,
    places: Vec<Place>,
    filter: Vec<u8>,
}

impl Writing {
    /// `most`: the entries that there are at most.
    pub(super) fn new(store: &dyn Store, level: u8, most: u64) -> Result<Self> {
        Ok(Self {
            filling: store.create()?,
            block_bytes: store.block_bytes(),
            level,
            at: 0,
            entries: 0,
            block: Vec::new(),
            first: 0,
            last: 0,
            places: Vec::new(),
            filter: vec![0; split_block::bytes_for(most as usize, FALSE_ANSWERS)],
        })
    }

    pub(super) fn add(&mut self, hash: u64, key: &[u8], value: &[u8]) -> Result<()> {
        // Whoever looks for a key looks into one block.
        if self.block.len() >= self.block_bytes && hash != self.last {
            self.put()?;
        }
        if self.block.is_empty() {
            self.first = hash;
        }
        self.last = hash;
        block::push(&mut self.block, key, value);
        split_block::add(&mut self.filter, hash);
        self.entries += 1;
        Ok(())
    }

    fn put(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (bytes, checksum) = (self.block.len() as u32, crc32c::crc32c(&self.block));
        self.places.push(Place { first: self.first, at: self.at, bytes, checksum });
        self.filling.put(&self.block)?;
        self.at += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Table> {
        self.put()?;
        let Self { mut filling, level, at, entries, places, filter, .. } = self;
        let index: Vec<u8> = places.iter().flat_map(|place| place.to_bytes()).collect();
        let tail_checksum = crc32c::crc32c_append(crc32c::crc32c(&index), &filter);
        filling.put(&index)?;
        filling.put(&filter)?;
        let kept = filling.finish()?;
        let (file, blocks) = (kept.file().clone(), places.len() as u64);
        let head = TableHead { file, rows: ROWS, level, entries, blocks, tail: at, tail_checksum };
        Ok(Table::new(head, places, filter, kept))
    }
}

/// A table of entries; `None` of none.
pub(super) fn of<'a, V: 'a>(
    entries: impl Iterator<Item = (&'a [u8], V)>,
    write: impl Fn(&V, &mut Vec<u8>),
    store: &dyn Store,
) -> Result<Option<Table>> {
    let mut order: Vec<(u64, &[u8], V)> = entries.map(|(key, value)| (hash_of(key), key, value)).collect();
    if order.is_empty() {
        return Ok(None);
    }
    order.sort_unstable_by_key(|(hash, key, _)| (*hash, *key));
    let mut writing = Writing::new(store, 0, order.len() as u64)?;
    let mut bytes = Vec::new();
    for (hash, key, value) in order {
        bytes.clear();
        write(&value, &mut bytes);
        writing.add(hash, key, &bytes)?;
    }
    writing.finish().map(Some)
}
