//! The key map of a partition as its one writer and all readers share it.
//!
//! The writer changes it while it makes the next view; readers ask it for the rows that a key may be in, and believe nothing but the view that they
//! hold: a row that is valid in it and has the key is the row of the key, as no view has two. So an answer that is behind the view or before it is
//! no wrong answer, it is none. Whoever writes lets others in after a few rows.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{
    map::{KeyMap, Location},
    memory::KeyMemory,
};
use crate::{Result, ids::SegmentId};

/// See the module.
#[derive(Debug)]
pub(crate) struct Keys {
    map: RwLock<KeyMap>,
    /// By the numbers that locations have for them.
    segments: RwLock<Vec<SegmentId>>,
    /// Grows before keys leave the map.
    removals: AtomicU64,
}

impl Keys {
    pub(super) fn new(memory: &Arc<KeyMemory>) -> Self {
        Self { map: RwLock::new(KeyMap::new(memory)), segments: RwLock::default(), removals: AtomicU64::new(0) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, KeyMap> {
        self.map.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, KeyMap> {
        self.map.write()
    }

    /// A segment has a number from now on: the next.
    pub(super) fn numbered(&self, segment: SegmentId) {
        self.segments.write().push(segment);
    }

    /// Takes entries out, if they are there.
    pub(super) fn remove(&self, entries: &[(u64, Location)]) {
        if !entries.is_empty() {
            self.removals.fetch_add(1, Ordering::SeqCst);
        }
        for entries in entries.chunks(REMOVED_AT_ONCE) {
            let mut map = self.write();
            entries.iter().for_each(|(fingerprint, location)| map.remove(*fingerprint, *location));
        }
    }

    /// How often keys left the map. As long as it is the same, a key that was in a view is in the map that is asked after it.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Rows that a key of the fingerprint may be in. Errors: when some of the map cannot be read.
    pub(crate) fn candidates(&self, fingerprint: u64) -> Result<Vec<(SegmentId, u32)>> {
        let locations: Vec<Location> = {
            let map = self.read();
            let locations = map.entries(fingerprint).map(|(_, location)| location).collect();
            map.check_of(fingerprint)?;
            locations
        };
        if locations.is_empty() {
            return Ok(Vec::new());
        }
        let segments = self.segments.read();
        let named = |location: Location| Some((*segments.get(location.segment as usize)?, location.row));
        Ok(locations.into_iter().filter_map(named).collect())
    }
}

/// Entries that are taken out before others may look.
const REMOVED_AT_ONCE: usize = 256;
