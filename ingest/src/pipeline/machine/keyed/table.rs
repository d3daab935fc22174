//! Tables: entries in a file, found by the hashes of their keys. The bytes are described in `ingest/README.md`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_storage::{Error as StorageError, hash, split_block};

use super::{
    super::{
        spill::{self, Kept, Share, Store},
        state_file::StateFile,
    },
    block::Entries,
};
use crate::{Error, Result};

/// Of the bytes of keys and values, which are rows of Arrow's: raised when these get others. A table of another number is not read.
pub(super) const ROWS: u32 = 1;
/// What the index has of a block.
pub(super) const PLACE_BYTES: usize = 24;

/// A table, as a picture has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableHead {
    pub(super) file: StateFile,
    pub(super) rows: u32,
    pub(super) level: u8,
    pub(super) entries: u64,
    pub(super) blocks: u64,
    /// Where blocks end, and the index and the filter begin.
    pub(super) tail: u64,
    pub(super) tail_checksum: u32,
}

/// Where a block is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The least hash of a key in it. Keys of the same hash are in one block.
    pub(super) first: u64,
    pub(super) at: u64,
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

/// What finds entries in the file.
#[derive(Debug)]
struct Index {
    places: Vec<Place>,
    filter: Vec<u8>,
    kept: Arc<dyn Kept>,
}

/// A table. One of a picture that was read has no file before it is [taken over](Self::adopt).
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Arc<TableHead>,
    index: Option<Arc<Index>>,
    share: Share,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        (&self.head, self.share) == (&other.head, other.share)
    }
}

impl Place {
    pub(super) fn to_bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.at.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[20..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let eight = |at: usize| (0..8).fold(0, |number, byte| number | u64::from(bytes[at + byte]) << (8 * byte));
        let lengths = eight(16);
        Self { first: eight(0), at: eight(8), bytes: lengths as u32, checksum: (lengths >> 32) as u32 }
    }
}

impl Table {
    /// As it stands in a picture; what is in the file is checked when it is read.
    pub(crate) fn of(head: TableHead) -> Result<Self, String> {
        if head.rows != ROWS {
            return Err(format!(
                "a table whose rows have format {}, and this version of the server has {ROWS}",
                head.rows
            ));
        }
        Ok(Self { head: Arc::new(head), index: None, share: Share::ALL })
    }

    pub(super) fn new(head: TableHead, places: Vec<Place>, filter: Vec<u8>, kept: Arc<dyn Kept>) -> Self {
        Self { head: Arc::new(head), index: Some(Arc::new(Index { places, filter, kept })), share: Share::ALL }
    }

    /// Reads what finds its entries.
    pub(crate) fn adopt(self, store: &dyn Store) -> Result<Self> {
        let Self { head, share, .. } = self;
        let kept = store.adopt(&head.file);
        let bytes = head.file.bytes.saturating_sub(head.tail);
        let tail = kept.read(head.tail, bytes as usize)?;
        let places = usize::try_from(head.blocks).ok().and_then(|blocks| blocks.checked_mul(PLACE_BYTES));
        let parts = places.and_then(|places| tail.split_at_checked(places));
        match (crc32c::crc32c(&tail), parts) {
            (found, Some((places, filter)))
                if found == head.tail_checksum
                    && !filter.is_empty()
                    && filter.len().is_multiple_of(split_block::BLOCK_BYTES) =>
            {
                let places = places.chunks_exact(PLACE_BYTES).map(Place::of).collect();
                let index = Index { places, filter: filter.to_vec(), kept };
                Ok(Self { head, index: Some(Arc::new(index)), share })
            }
            (found, _) => {
                let wanted = format!("an index of {} blocks of checksum {:08x}", head.blocks, head.tail_checksum);
                Err(damaged(&*kept, wanted, format!("{bytes} bytes of checksum {found:08x}")))
            }
        }
    }

    pub(crate) fn share(&self) -> Share {
        self.share
    }

    pub(crate) fn with_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Whether a key of it counts.
    pub(super) fn counts(&self, key: &[u8]) -> bool {
        !self.share.is_mixed() || self.share.has(spill::hash_of(key))
    }

    pub(crate) fn head(&self) -> &TableHead {
        &self.head
    }

    pub(crate) fn file(&self) -> &StateFile {
        &self.head.file
    }

    pub(crate) fn kept(&self) -> Option<&Arc<dyn Kept>> {
        self.index.as_ref().map(|index| &index.kept)
    }

    pub(super) fn level(&self) -> u8 {
        self.head.level
    }

    pub(crate) fn entries(&self) -> u64 {
        self.head.entries
    }

    /// Of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.filter.len() + index.places.len() * PLACE_BYTES)
    }

    pub(super) fn blocks(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.places.len())
    }

    fn index(&self) -> Result<&Index> {
        self.index.as_deref().ok_or_else(|| Error::Unavailable("a table was read before its file".into()))
    }

    /// The value of a key of that hash.
    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.find(hash, key, |_| true)
    }

    /// That of several which `is_it`.
    pub(super) fn find(&self, hash: u64, key: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let index = self.index()?;
        if !split_block::may_have(&index.filter, hash) || !self.counts(key) {
            return Ok(None);
        }
        let Some(block) = index.places.partition_point(|place| place.first <= hash).checked_sub(1) else {
            return Ok(None);
        };
        let bytes = self.block(block)?;
        for entry in Entries::of(&bytes) {
            let (found, value) = entry.ok_or_else(|| self.torn(block))?;
            if found == key && is_it(value) {
                return Ok(Some(value.to_vec()));
            }
        }
        Ok(None)
    }

    /// The bytes of a block, as they were written.
    pub(super) fn block(&self, block: usize) -> Result<Vec<u8>> {
        let index = self.index()?;
        let Place { at, bytes, checksum, .. } = index.places[block];
        let found = index.kept.read(at, bytes as usize)?;
        match crc32c::crc32c(&found) {
            of_found if of_found != checksum => Err(damaged(
                &*index.kept,
                format!("{bytes} bytes of checksum {checksum:08x} at {at}"),
                format!("checksum {of_found:08x}"),
            )),
            _ => Ok(found),
        }
    }

    /// For a block that has the right checksum, and is none.
    pub(super) fn torn(&self, block: usize) -> Error {
        match &self.index {
            Some(index) => damaged(&*index.kept, format!("entries in block {block}"), "other lengths".into()),
            None => Error::Unavailable("a table was read before its file".into()),
        }
    }
}

fn damaged(kept: &dyn Kept, wanted: String, found: String) -> Error {
    StorageError::corrupt(kept.path(), "spilled state of a pipeline", wanted, found).into()
}

/// The hash that a key is found by.
pub(super) fn hash_of(key: &[u8]) -> u64 {
    hash::of_bytes(key)
}
