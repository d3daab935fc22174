//! One bound for the memory of all consuming and sealing segments: when it is reached, consumers stop polling and the topic's lag grows
//! instead.
//!
//! ```text
//! 0 ───────────────── ¾ limit ────────────── limit
//!   poll               poll, and seal the       wait until a seal is done
//!                      biggest early
//! ```
//!
//! What always holds: memory passes the limit by at most what each consuming thread takes in one poll; whenever consumers wait, something is
//! being sealed.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// Who holds memory that an early seal would free.
pub(crate) trait Holder: Send + Sync {
    /// Bytes of the consuming segment.
    fn consuming_bytes(&self) -> u64;
    /// Ends the consuming segment now. Returns at once; the seal goes on elsewhere.
    fn seal_early(self: Arc<Self>);
}

/// What to do at a fill level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Take more from the source.
    pub(crate) poll: bool,
    /// Seal the biggest consuming segment before its time.
    pub(crate) seal_biggest: bool,
}

/// Decides. `consuming` and `sealing` are bytes held now. Early seals stop while a quarter of the limit is already on its way out, so
/// that waiting does not chop everything into tiny segments.
pub(crate) fn pressure(limit: u64, consuming: u64, sealing: u64) -> Pressure {
    let total = consuming.saturating_add(sealing);
    let high = total >= limit - limit / 4;
    Pressure { poll: total < limit, seal_biggest: high && consuming > 0 && (sealing < limit / 4 || sealing == 0) }
}

/// Bytes that consuming and sealing segments of all tables may hold.
pub struct MemoryBudget {
    bytes_max: u64,
    consuming: AtomicU64,
    sealing: AtomicU64,
    holders: Mutex<Vec<Weak<dyn Holder>>>,
    /// Taken only to wait for, or to tell of, room.
    room: Mutex<()>,
    room_changed: Condvar,
}

impl MemoryBudget {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: bytes_max.max(1),
            consuming: AtomicU64::new(0),
            sealing: AtomicU64::new(0),
            holders: Mutex::default(),
            room: Mutex::default(),
            room_changed: Condvar::new(),
        }
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of consuming segments.
    pub fn consuming(&self) -> u64 {
        self.consuming.load(Ordering::Relaxed)
    }

    /// Bytes of segments that wait for their file and their commit.
    pub fn sealing(&self) -> u64 {
        self.sealing.load(Ordering::Relaxed)
    }

    pub(crate) fn register(&self, holder: Weak<dyn Holder>) {
        let mut holders = self.holders.lock();
        holders.retain(|known| known.strong_count() > 0);
        holders.push(holder);
    }

    /// A consuming segment grew (or shrank, where chunks were merged).
    pub(crate) fn consuming_changed(&self, from: u64, to: u64) {
        self.consuming.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
    }

    /// A consuming segment of `bytes` became a sealing one.
    pub(crate) fn rotated(&self, bytes: u64) {
        self.sealing.fetch_add(bytes, Ordering::Relaxed);
        self.consuming.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A sealing segment of `bytes` is committed or given up.
    pub(crate) fn released(&self, bytes: u64) {
        self.sealing.fetch_sub(bytes, Ordering::Relaxed);
        let _room = self.room.lock();
        self.room_changed.notify_all();
    }

    /// True when the caller may poll its source. Otherwise it waited up to `timeout` for room and should ask again.
    pub(crate) fn admit(&self, timeout: Duration) -> bool {
        let wanted = pressure(self.bytes_max, self.consuming(), self.sealing());
        if wanted.seal_biggest {
            self.seal_biggest();
        }
        if wanted.poll {
            return true;
        }
        let mut room = self.room.lock();
        if !pressure(self.bytes_max, self.consuming(), self.sealing()).poll {
            self.room_changed.wait_for(&mut room, timeout);
        }
        pressure(self.bytes_max, self.consuming(), self.sealing()).poll
    }

    fn seal_biggest(&self) {
        let holders: Vec<Arc<dyn Holder>> = self.holders.lock().iter().filter_map(Weak::upgrade).collect();
        if let Some(biggest) = holders.into_iter().max_by_key(|holder| holder.consuming_bytes()) {
            biggest.seal_early();
        }
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes_max", &self.bytes_max)
            .field("consuming", &self.consuming())
            .field("sealing", &self.sealing())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_by_the_fill_level() {
        for (consuming, sealing, poll, seal_biggest) in [
            (0, 0, true, false),
            (74, 0, true, false),
            (75, 0, true, true),
            (60, 15, true, true),
            (50, 25, true, false),
            (99, 0, true, true),
            (100, 0, false, true),
            (80, 24, false, true),
            (75, 25, false, false),
            (0, 100, false, false),
            (u64::MAX, 5, false, true),
        ] {
            assert_eq!(pressure(100, consuming, sealing), Pressure { poll, seal_biggest }, "{consuming} {sealing}");
        }
    }

    #[test]
    fn waiting_means_that_something_is_sealed() {
        for limit in [1u64, 2, 3, 7, 100] {
            for consuming in 0..2 * limit {
                for sealing in 0..2 * limit {
                    let wanted = pressure(limit, consuming, sealing);
                    assert!(wanted.poll || wanted.seal_biggest || sealing > 0, "{limit} {consuming} {sealing}");
                }
            }
        }
    }
}
