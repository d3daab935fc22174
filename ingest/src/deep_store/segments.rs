//! Copies of segments: one thread looks which segments there are and which the store has, and makes that the same. So nothing has to be remembered over a crash, and what is
//! written again, dropped or expired goes there as well. A segment that turns out damaged while the server runs is fetched and takes its own place; a start fetches what is missing
//! or damaged (`recovery.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    ids::{PartitionId, TableId},
    segment::inspect,
};

use super::DeepStore;
use crate::{
    Error, Result,
    commit::SegmentRecord,
    consumer::{committing::panic_text, pace::backoff, partition::PartitionIngest, table::TableShared},
    events::Severity,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Keeps copies of the segments of all tables.
pub(crate) struct SegmentKeeper {
    /// The folder of all tables.
    store: DeepStore,
    /// Names of objects by table; of one that is not here nothing was asked yet.
    stored: Mutex<BTreeMap<TableId, BTreeSet<String>>>,
    /// Held over a look at a table.
    looking: Mutex<()>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// What a segment's file is called in the folder of its table.
fn object(partition: PartitionId, record: &SegmentRecord) -> String {
    format!("{partition}/{}", object_in_partition(record))
}

/// And in that of its partition.
pub(crate) fn object_in_partition(record: &SegmentRecord) -> String {
    format!("{}.{:08x}", record.file, record.checksum)
}

impl SegmentKeeper {
    pub(crate) fn new(store: DeepStore) -> Self {
        Self {
            store,
            stored: Mutex::default(),
            looking: Mutex::default(),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// The folder of a partition.
    pub(crate) fn partition(&self, table: TableId, partition: PartitionId) -> DeepStore {
        self.store.folder(table).folder(partition)
    }

    /// Whether there is a copy of a segment.
    pub(crate) fn has(&self, table: TableId, partition: PartitionId, record: &SegmentRecord) -> bool {
        self.stored.lock().get(&table).is_some_and(|stored| stored.contains(&object(partition, record)))
    }

    pub(crate) fn stop(&self) {
        *self.stopping.lock() = true;
        self.wake.notify_all();
        self.store.close();
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.lock()
    }

    /// The body of the thread: returns after [`Self::stop`].
    pub(crate) fn run(&self, tables: impl Fn() -> Vec<Arc<TableShared>>) {
        let mut failures = 0;
        while self.rest(LOOK_EVERY + if failures > 0 { backoff(failures) } else { Duration::ZERO }) {
            let tables = tables();
            self.stored.lock().retain(|id, _| tables.iter().any(|table| table.id == *id));
            let mut has_failed = false;
            for table in &tables {
                let kept = catch_unwind(AssertUnwindSafe(|| self.keep(table)));
                let kept = kept.unwrap_or_else(|panic| {
                    Err(Error::Unavailable(format!("copying panicked: {}", panic_text(&*panic))))
                });
                if let Err(error) = kept
                    && !self.is_stopping()
                {
                    has_failed = true;
                    if (failures + 1_u32).is_power_of_two() {
                        let message = format!(
                            "copying segments of table '{}' failed ({} times): {error}; it is tried again",
                            table.name,
                            failures + 1
                        );
                        table.event(Severity::Warning, "deep_store_failed", message);
                    }
                }
            }
            failures = if has_failed { failures + 1 } else { 0 };
        }
    }

    /// Waits; false when it is time to end.
    fn rest(&self, time: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.wake.wait_for(&mut stopping, time);
        }
        !*stopping
    }

    /// Makes the copies of a table the same as its segments. Blocks.
    pub(crate) fn keep(&self, table: &TableShared) -> Result<()> {
        let _alone = self.looking.lock();
        let folder = self.store.folder(table.id);
        let mut stored = match self.stored.lock().get(&table.id) {
            Some(stored) => stored.clone(),
            None => folder.list()?.into_iter().map(|(name, _)| name).collect(),
        };
        let kept = self.keep_all(table, &folder, &mut stored);
        if table.is_removed() {
            self.stored.lock().remove(&table.id);
            return Ok(());
        }
        self.stored.lock().insert(table.id, stored);
        kept
    }

    fn keep_all(&self, table: &TableShared, folder: &DeepStore, stored: &mut BTreeSet<String>) -> Result<()> {
        let mut named = BTreeSet::new();
        for partition in table.partitions().iter() {
            for record in partition.segment_records() {
                let name = object(partition.id, &record);
                if self.is_stopping() || table.is_removed() {
                    return Ok(());
                }
                if !stored.contains(&name) && put(partition, &record, folder, &name)? {
                    stored.insert(name.clone());
                }
                named.insert(name);
            }
            for segment in table.heal(partition, |record| stored.contains(&object(partition.id, record)))? {
                let (url, name) = (folder.url(), &table.name);
                let message = format!("segment {segment} of table '{name}' was fetched from {url} and is sound again");
                partition.event(Severity::Info, "segment_fetched", None, message);
            }
        }
        let unnamed: Vec<String> = stored.difference(&named).cloned().collect();
        if !unnamed.is_empty() {
            folder.delete(&unnamed)?;
            stored.retain(|name| named.contains(name));
        }
        Ok(())
    }
}

/// Copies a segment; false when it is damaged here or was replaced meanwhile.
fn put(partition: &PartitionIngest, record: &SegmentRecord, folder: &DeepStore, name: &str) -> Result<bool> {
    let path = partition.directory.join(&record.file);
    // A damaged copy would be none.
    if !inspect::verify(&path).is_ok_and(|problems| problems.is_empty()) {
        return Ok(false);
    }
    match folder.put(name, &path, 0..record.bytes) {
        Ok(()) => Ok(true),
        // Others took its place, and its file went.
        Err(_) if matches!(path.try_exists(), Ok(false)) => Ok(false),
        Err(error) => Err(error),
    }
}
