//! What is done for key maps in the background: old keys leave them, they are written down beside their segments, so that a start need not read all keys
//! again, and it is told when they take more than their memory. One thread, and a bounded share of one processor.
//!
//! No answer depends on it: what is not in a file is read from the segments, and a file that is damaged is made anew. Nothing is refused above the bound:
//! maps go on in files (`storage/src/upsert/memory.rs`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{clock::Clock, upsert::KeyMemory};

use crate::{
    Error,
    consumer::{committing::panic_text, pace::backoff, table::TableShared},
    events::{Event, EventSink, Severity},
};

/// How often key maps are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Share of one processor.
const SHARE: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct KeyMapKeeper {
    /// Of the maps of all tables.
    memory: Arc<KeyMemory>,
    /// They take more than its bound, and it was said.
    is_over: AtomicBool,
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// Whether it is to be said that maps take more than they should, or that they do not any more: only when they are well below.
fn crossed(was_over: bool, bytes: u64, bytes_max: u64) -> Option<bool> {
    match was_over {
        false => (bytes > bytes_max).then_some(true),
        true => (bytes <= bytes_max - bytes_max / 10).then_some(false),
    }
}

impl KeyMapKeeper {
    pub(crate) fn new(memory: Arc<KeyMemory>) -> Self {
        Self { memory, is_over: AtomicBool::new(false), stopping: Mutex::new(false), wake: Condvar::new() }
    }

    pub(crate) fn memory(&self) -> &Arc<KeyMemory> {
        &self.memory
    }

    /// Tells when maps begin to take more than their memory, and when they are back in it.
    fn account(&self, clock: &dyn Clock, events: &dyn EventSink, tables: &[Arc<TableShared>]) {
        let (in_memory, in_files, bytes_max) =
            (self.memory.in_memory(), self.memory.in_files(), self.memory.bytes_max());
        metrics::gauge!("tidemill_key_map_bytes").set(in_memory as f64);
        metrics::gauge!("tidemill_key_map_file_bytes").set(in_files as f64);
        let Some(is_over) = crossed(self.is_over.load(Ordering::Relaxed), in_memory + in_files, bytes_max) else {
            return;
        };
        // While tables are being opened their maps are there before they are.
        let taken =
            |table: &Arc<TableShared>| table.partitions().iter().map(|partition| partition.keys().bytes).sum::<u64>();
        let largest = tables.iter().map(|table| (taken(table), table.name.as_str())).max();
        let largest = match largest {
            Some((bytes, name)) if bytes > 0 => name,
            _ if is_over => return,
            _ => "",
        };
        self.is_over.store(is_over, Ordering::Relaxed);
        let (severity, kind, message) = match is_over {
            true => {
                let message = format!(
                    "the key maps of all tables take {} bytes, more than memory.key_map_bytes ({bytes_max}): {in_files} of them are in files, and upserts \
                     may wait for the disk; the largest map is that of table '{largest}': see rt.upsert_capacity('{largest}'). key_ttl bounds a map",
                    in_memory + in_files
                );
                (Severity::Warning, "key_maps_large", message)
            }
            false => {
                let message =
                    format!("the key maps of all tables take {in_memory} bytes, within memory.key_map_bytes again");
                (Severity::Info, "key_maps_fit", message)
            }
        };
        let at_us = clock.now_us();
        events.record(Event { at_us, severity, kind, table: None, partition: None, stream: None, message });
    }

    pub(crate) fn stop(&self) {
        *self.stopping.lock() = true;
        self.wake.notify_all();
    }

    /// The body of the thread: returns after [`Self::stop`], when the file at hand is written.
    pub(crate) fn run(&self, clock: &dyn Clock, events: &dyn EventSink, tables: impl Fn() -> Vec<Arc<TableShared>>) {
        let mut failures = 0;
        while self.rest(LOOK_EVERY + if failures > 0 { backoff(failures) } else { Duration::ZERO }) {
            let tables = tables();
            self.account(clock, events, &tables);
            for table in tables.into_iter().filter(|table| table.table.key().is_some()) {
                for partition in table.partitions().iter() {
                    let began_us = clock.monotonic_us();
                    let step = catch_unwind(AssertUnwindSafe(|| {
                        table.leave_keys(partition)?;
                        table.keep_key_map(partition, false)
                    }));
                    let step = step.unwrap_or_else(|panic| {
                        Err(Error::Unavailable(format!("writing panicked: {}", panic_text(&*panic))))
                    });
                    match step {
                        Ok(written) => failures = if written { 0 } else { failures },
                        Err(error) => {
                            failures += 1;
                            if failures.is_power_of_two() {
                                let message = format!(
                                    "letting old keys go and writing the key map of table '{}' partition {} failed ({failures} times): {error}; the \
                                     next start reads more keys, it is tried again",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_told_once_each_way() {
        for (was_over, bytes, crosses) in [
            (false, 100, None),
            (false, 101, Some(true)),
            (true, 101, None),
            (true, 91, None),
            (true, 90, Some(false)),
            (false, 0, None),
        ] {
            assert_eq!(crossed(was_over, bytes, 100), crosses, "{was_over} {bytes}");
        }
    }
}
