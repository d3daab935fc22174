//! Waking readers when something came.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Rings for all who wait. A ring between [`Bell::heard`] and [`Bell::wait`] is not missed.
#[derive(Debug, Default)]
pub(in crate::source) struct Bell {
    rings: Mutex<u64>,
    rang: Condvar,
}

impl Bell {
    pub(in crate::source) fn ring(&self) {
        *self.rings.lock() += 1;
        self.rang.notify_all();
    }

    /// How often it has rung.
    pub(super) fn heard(&self) -> u64 {
        *self.rings.lock()
    }

    /// Waits until it has rung more often than `heard`; false when `timeout` was over before.
    pub(super) fn wait(&self, heard: u64, timeout: Duration) -> bool {
        let mut rings = self.rings.lock();
        !self.rang.wait_while_for(&mut rings, |rings| *rings == heard, timeout).timed_out()
    }
}
