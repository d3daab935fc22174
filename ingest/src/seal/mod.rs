//! Sealing: when a consuming segment ends, and the threads that write ended ones to disk beside consumption.
//!
//! Ending a segment is instant ([`tidemill_storage::table::PartitionWriter::rotate`]); what follows waits in a queue. One partition has at most one place in the queue, and
//! its segments are committed in the order in which they were begun, so the queue is never longer than there are partitions and offsets are
//! committed without holes. A seal that fails keeps its rows in memory and is tried again with growing pauses.

mod learned;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::clock::Clock;

pub(crate) use self::learned::Learned;
use crate::consumer::{pace::backoff, partition::PartitionIngest};

/// When a consuming segment ends: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealPolicy {
    /// Rows of one segment; `None`: as many as make a file of `bytes`, learned from the segments before it.
    pub rows: Option<u64>,
    /// Bytes of one segment in memory; where `rows` is learned, of its file.
    pub bytes: u64,
    /// Age of its oldest row or offset, microseconds.
    pub after_us: i64,
}

impl Default for SealPolicy {
    fn default() -> Self {
        Self { rows: Some(1_000_000), bytes: 256 << 20, after_us: 600_000_000 }
    }
}

/// Above this a segment ends whatever the policy says: row ids are 32 bits wide.
const ROWS_MAX: u64 = 1 << 30;

/// What the decision goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SealFacts {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of the oldest row or offset; `None` when there is neither.
    pub(crate) age_us: Option<i64>,
    /// The buffer of dead letters takes no more.
    pub(crate) dead_letters_full: bool,
    /// Of the segments before it.
    pub(crate) learned: Learned,
}

/// Whether to end the segment now.
pub(crate) fn should_seal(policy: &SealPolicy, facts: &SealFacts) -> bool {
    let Some(age_us) = facts.age_us else { return false };
    let large = match policy.rows {
        Some(rows) => facts.rows >= rows.clamp(1, ROWS_MAX) || facts.bytes >= policy.bytes.max(1),
        // How much memory the rows take on the way there is bounded by the budget that all consuming segments share.
        None => facts.rows >= facts.learned.rows(policy.bytes).min(ROWS_MAX),
    };
    large || age_us >= policy.after_us.max(0) || facts.dead_letters_full
}

/// What became of one step of sealing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SealStep {
    /// Nothing is left to do for this partition.
    Idle,
    /// More is waiting.
    Again,
    /// It failed for the `failures`-th time in a row.
    Failed { failures: u32 },
}

/// Partitions with ended segments that wait for a sealing thread.
#[derive(Debug, Default)]
pub(crate) struct Sealer {
    queue: Mutex<SealQueue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct SealQueue {
    ready: VecDeque<Arc<PartitionIngest>>,
    /// (monotonic time when it is due, who)
    later: Vec<(i64, Arc<PartitionIngest>)>,
    stopping: bool,
}

/// How often waiting threads look at what is due later.
const TICK: Duration = Duration::from_millis(50);

impl Sealer {
    /// Queues a partition. The caller sees to it that a partition is queued at most once.
    pub(crate) fn submit(&self, partition: Arc<PartitionIngest>) {
        self.queue.lock().ready.push_back(partition);
        self.wake.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.wake.notify_all();
    }

    /// The body of a sealing thread: returns after [`Self::stop`], when the seal at hand is done.
    pub(crate) fn run(&self, clock: &dyn Clock) {
        while let Some(partition) = self.next(clock) {
            match partition.seal_next() {
                SealStep::Idle => {}
                SealStep::Again => self.submit(partition),
                SealStep::Failed { failures } => {
                    let due_us = clock.monotonic_us() + backoff(failures).as_micros() as i64;
                    self.queue.lock().later.push((due_us, partition));
                }
            }
        }
    }

    fn next(&self, clock: &dyn Clock) -> Option<Arc<PartitionIngest>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopping {
                queue.ready.clear();
                queue.later.clear();
                return None;
            }
            let now_us = clock.monotonic_us();
            if let Some(due) = queue.later.iter().position(|(due_us, _)| *due_us <= now_us) {
                return Some(queue.later.swap_remove(due).1);
            }
            if let Some(partition) = queue.ready.pop_front() {
                return Some(partition);
            }
            self.wake.wait_for(&mut queue, TICK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_ends_when_any_bound_is_reached() {
        let policy = SealPolicy { rows: Some(100), bytes: 1000, after_us: 50 };
        let learned = Learned::default();
        let facts =
            |rows, bytes, age_us, dead_letters_full| SealFacts { rows, bytes, age_us, dead_letters_full, learned };
        for (facts, seals) in [
            (facts(0, 0, None, false), false),
            (facts(100, 1000, None, true), false),
            (facts(1, 1, Some(0), false), false),
            (facts(99, 999, Some(49), false), false),
            (facts(100, 0, Some(0), false), true),
            (facts(0, 1000, Some(0), false), true),
            (facts(0, 0, Some(50), false), true),
            (facts(0, 0, Some(0), true), true),
        ] {
            assert_eq!(should_seal(&policy, &facts), seals, "{facts:?}");
        }
        let endless = SealPolicy { rows: Some(u64::MAX), bytes: u64::MAX, after_us: i64::MAX };
        assert!(should_seal(&endless, &facts(ROWS_MAX, 0, Some(0), false)));
    }
}
