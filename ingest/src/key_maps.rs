//! Key maps written down beside their segments, so that a start need not read all keys again: one thread, and a bounded share of one processor.
//!
//! Nothing depends on it: what is not in a file is read from the segments, and a file that is damaged is made anew.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::clock::Clock;

use crate::{
    Error,
    consumer::{committing::panic_text, pace::backoff, table::TableShared},
    events::Severity,
};

/// How often key maps are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Share of one processor.
const SHARE: f64 = 0.1;

#[derive(Debug, Default)]
pub(crate) struct KeyMapKeeper {
    stopping: Mutex<bool>,
    wake: Condvar,
}

impl KeyMapKeeper {
    pub(crate) fn stop(&self) {
        *self.stopping.lock() = true;
        self.wake.notify_all();
    }

    /// The body of the thread: returns after [`Self::stop`], when the file at hand is written.
    pub(crate) fn run(&self, clock: &dyn Clock, tables: impl Fn() -> Vec<Arc<TableShared>>) {
        let mut failures = 0;
        while self.rest(LOOK_EVERY + if failures > 0 { backoff(failures) } else { Duration::ZERO }) {
            for table in tables().into_iter().filter(|table| table.table.key().is_some()) {
                for partition in table.partitions().iter() {
                    let began_us = clock.monotonic_us();
                    let step = catch_unwind(AssertUnwindSafe(|| table.keep_key_map(partition, false)));
                    let step = step.unwrap_or_else(|panic| {
                        Err(Error::Unavailable(format!("writing panicked: {}", panic_text(&*panic))))
                    });
                    match step {
                        Ok(written) => failures = if written { 0 } else { failures },
                        Err(error) => {
                            failures += 1;
                            if failures.is_power_of_two() {
                                let message = format!(
                                    "writing the key map of table '{}' partition {} failed ({failures} times): {error}; the next start reads more \
                                     keys, it is tried again",
                                    table.name, partition.id
                                );
                                table.event(Severity::Warning, "key_map_failed", message);
                            }
                        }
                    }
                    let worked_us = (clock.monotonic_us() - began_us) as f64;
                    if !self.rest(Duration::from_micros((worked_us * (1.0 / SHARE - 1.0)) as u64)) {
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
