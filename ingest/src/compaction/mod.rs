//! Segments that are written again: without rows that nobody sees any more, and few in the place of many small ones.
//!
//! One thread, and a bounded share of one processor. Nothing has to be remembered over a crash: what was worth it before is worth it after.
//!
//! What always holds: no query has another answer for it, and no key that was deleted comes back; rows, offsets and dead letters are accounted for as
//! before.

mod choice;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

pub(crate) use choice::{Facts, When, Why, Wished, choose};
use parking_lot::{Condvar, Mutex};
use tidemill_storage::clock::Clock;

use crate::{
    Error,
    consumer::{committing::panic_text, pace::backoff, table::TableShared},
    events::Severity,
};

/// How often segments are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Compactor {
    /// Share of one processor, above 0 and up to 1.
    share: f64,
    stopping: Mutex<bool>,
    wake: Condvar,
}

impl Compactor {
    pub(crate) fn new(share: f64) -> Self {
        Self { share: share.clamp(0.01, 1.0), stopping: Mutex::new(false), wake: Condvar::new() }
    }

    pub(crate) fn stop(&self) {
        *self.stopping.lock() = true;
        self.wake.notify_all();
    }

    /// The body of the thread: returns after [`Self::stop`], when the segment at hand is written.
    pub(crate) fn run(&self, clock: &dyn Clock, tables: impl Fn() -> Vec<Arc<TableShared>>) {
        let mut failures = 0;
        while self.rest(LOOK_EVERY + if failures > 0 { backoff(failures) } else { Duration::ZERO }) {
            for table in tables() {
                loop {
                    let began_us = clock.monotonic_us();
                    let step = catch_unwind(AssertUnwindSafe(|| table.compact_next(None)));
                    let step = step.unwrap_or_else(|panic| {
                        Err(Error::Unavailable(format!("compaction panicked: {}", panic_text(&*panic))))
                    });
                    match step {
                        Ok(None) => break,
                        Ok(Some(_)) => failures = 0,
                        Err(error) => {
                            failures += 1;
                            if failures.is_power_of_two() {
                                let message = format!(
                                    "compaction of table '{}' failed ({failures} times): {error}; nothing is lost, it is tried again",
                                    table.name
                                );
                                table.event(Severity::Warning, "compaction_failed", message);
                            }
                            break;
                        }
                    }
                    let worked_us = (clock.monotonic_us() - began_us) as f64;
                    if !self.rest(Duration::from_micros((worked_us * (1.0 / self.share - 1.0)) as u64)) {
                        return;
                    }
                }
            }
        }
    }

    /// False when it is time to end.
    fn rest(&self, pause: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.wake.wait_for(&mut stopping, pause);
        }
        !*stopping
    }
}
