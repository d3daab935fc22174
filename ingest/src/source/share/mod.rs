//! One fetch of a source for any number of tables.
//!
//! ```text
//! partition 0 ── cohort: lane (fetches from the broker) ─► window of batches ◄── seats of tables a, b, c
//!             └─ cohort: lane ────────────────────────────► window ◄── seat of table d, which is behind
//! ```
//!
//! Who reads a partition sits in a *cohort*: those whose positions lie so close together that one *lane* serves them. Whoever has read all of
//! the cohort's window fetches more, for itself and for the others; there is no thread in between, so that what nobody wants is not
//! fetched. A table that begins elsewhere has a cohort of its own and moves over as soon as its position lies in the window of one that is further
//! ahead.
//!
//! What always holds: each reader gets every message from its position on, once and in order, as if it read alone; a reader that lags holds the
//! others up for [`GRACE_US`] at most, then it loses its seat and goes on in a cohort of its own, from where it stands; a window
//! holds no more than its bound and one batch.

mod bell;
mod cohort;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tidemill_storage::clock::Clock;

pub(super) use self::bell::Bell;
use self::{cohort::Cohort, reader::ShareReader};
use crate::{Result, message::MessageBatch, source::Reader};

/// How long a reader that moves, but too slowly, may hold the others of its cohort up.
const GRACE_US: i64 = 5_000_000;
/// The same for one that does not move at all.
const STALL_US: i64 = 1_000_000;
/// Bytes of the windows of a source's partitions together, and bounds for one.
const WINDOWS_BYTES: usize = 32 << 20;
const WINDOW_BYTES_MIN: usize = 256 << 10;
const WINDOW_BYTES_MAX: usize = 4 << 20;

/// Makes lanes; implemented by connectors whose sources cost something to fetch.
pub(super) trait Fetcher: Send + Sync {
    /// Begins to fetch `partition` from `offset` on; rings `bell` when something comes. Waits for no broker.
    fn lane(&self, partition: u32, offset: u64, bell: &Arc<Bell>) -> Result<Box<dyn Lane>>;

    /// Handles what came besides messages. An error is that of the source as a whole.
    fn serve(&self) -> Result<()>;

    /// Partitions that the source is known to have, for dividing memory.
    fn partitions(&self) -> usize;
}

/// One partition while it is fetched from an offset on.
pub(super) trait Lane: Send {
    /// What is at hand, without waiting: a batch that continues the last one, at most about as big as the limits.
    fn poll(&mut self, max_messages: usize, max_bytes: usize) -> Result<Caught>;
}

/// What a lane has.
#[derive(Debug)]
pub(super) enum Caught {
    Nothing,
    Messages(MessageBatch),
    /// Messages from `wanted` to `found` are gone. The lane gives nothing after this.
    Gap {
        wanted: u64,
        found: u64,
    },
    /// The lane cannot go on; a new one at the same offset can.
    Broken,
}

/// All who read one source.
pub(super) struct Share {
    fetcher: Arc<dyn Fetcher>,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    cohorts: Mutex<BTreeMap<u32, Arc<Cohorts>>>,
    /// Numbers for readers and cohorts.
    numbers: AtomicU64,
}

/// The cohorts of one partition.
type Cohorts = Mutex<Vec<Arc<Cohort>>>;

impl Share {
    pub(super) fn new(fetcher: Arc<dyn Fetcher>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            fetcher,
            clock,
            bell: Arc::default(),
            cohorts: Mutex::default(),
            numbers: AtomicU64::default(),
        })
    }

    /// A reader of the given partitions from the given offsets on.
    pub(super) fn reader(self: &Arc<Self>, positions: &BTreeMap<u32, u64>) -> Box<dyn Reader> {
        Box::new(ShareReader::new(Arc::clone(self), self.number(), positions))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn cohorts(&self, partition: u32) -> Arc<Cohorts> {
        Arc::clone(self.cohorts.lock().entry(partition).or_default())
    }

    /// Takes a seat for `reader`: in the cohort that is furthest ahead and has `position` in its window, else in a new one.
    fn join(&self, reader: u64, partition: u32, position: u64) -> Result<Arc<Cohort>> {
        let now_us = self.clock.monotonic_us();
        let cohorts = self.cohorts(partition);
        let mut cohorts = cohorts.lock();
        let mut near: Vec<Arc<Cohort>> = cohorts.iter().filter(|cohort| cohort.covers(position)).cloned().collect();
        near.sort_by_key(|cohort| std::cmp::Reverse(cohort.rank()));
        if let Some(cohort) = near.into_iter().find(|cohort| cohort.sit(reader, position, now_us)) {
            return Ok(cohort);
        }
        let lane = self.fetcher.lane(partition, position, &self.bell)?;
        let window_bytes = (WINDOWS_BYTES / self.fetcher.partitions().max(1)).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let cohort = Arc::new(Cohort::new(self.number(), lane, position, window_bytes));
        cohort.sit(reader, position, now_us);
        cohorts.push(Arc::clone(&cohort));
        Ok(cohort)
    }

    /// Gives a seat back. A cohort without seats ends, and its lane with it.
    fn leave(&self, reader: u64, partition: u32, cohort: &Arc<Cohort>) {
        let ended = {
            let cohorts = self.cohorts(partition);
            let mut cohorts = cohorts.lock();
            let place = cohorts.iter().position(|known| known.number() == cohort.number());
            place.filter(|_| cohort.rise(reader)).map(|place| cohorts.swap_remove(place))
        };
        // Ending a lane may take its time: not under the lock.
        drop(ended);
        // Somebody may have waited for this reader.
        self.bell.ring();
    }

    /// Whether another cohort further ahead has `position` in its window.
    fn is_behind(&self, partition: u32, position: u64, cohort: &Cohort) -> bool {
        let cohorts = self.cohorts(partition);
        let cohorts = cohorts.lock();
        cohorts.len() > 1
            && cohorts.iter().any(|other| {
                other.number() != cohort.number() && other.rank() > cohort.rank() && other.covers(position)
            })
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").finish_non_exhaustive()
    }
}
