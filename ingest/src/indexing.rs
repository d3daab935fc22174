//! Building indexes of segments that are there: one thread, and a bounded share of one processor.
//!
//! A segment that is sealed gets its indexes before it takes the place of its rows in memory. What lacks one nevertheless (it is older than
//! the index, the server was killed in the middle, the file was damaged) gets it here: the thread looks for such segments when something
//! changed, and now and then anyway. So nothing has to be remembered over a crash: what is missing is built.
//!
//! Rows in memory get theirs here too, chunk by chunk, a moment after they came: these live as long as the chunk and are no files.
//!
//! A build that fails changes nothing for queries, which go on without the index; it is tried again with growing pauses.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    Error,
    clock::Clock,
    ids::{IndexId, PartitionId, SegmentId, TableId},
    index::IndexSpec,
    segment::{Segment, committed::CommittedSegment},
};

use crate::{
    consumer::{committing::panic_text, pace::backoff, table::TableShared},
    events::Severity,
};

/// How often segments without an index are looked for although nothing is known to have changed.
const LOOK_EVERY_US: i64 = 5_000_000;
/// How often rows in memory without an index are looked for.
const LOOK_AT_MEMORY_EVERY_US: i64 = 200_000;
/// How often a waiting thread looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Which index of which segment.
type Place = (TableId, PartitionId, SegmentId, IndexId);

/// A build that failed.
#[derive(Clone, Debug)]
struct Failure {
    times: u32,
    /// Monotonic time from which it is tried again.
    due_us: i64,
    error: String,
}

#[derive(Debug)]
pub(crate) struct Indexer {
    /// Share of one processor, above 0 and up to 1.
    share: f64,
    state: Mutex<State>,
    wake: Condvar,
    failures: Mutex<HashMap<Place, Failure>>,
}

#[derive(Debug, Default)]
struct State {
    requested: bool,
    stopping: bool,
}

impl Indexer {
    pub(crate) fn new(share: f64) -> Self {
        Self {
            share: share.clamp(0.01, 1.0),
            state: Mutex::default(),
            wake: Condvar::new(),
            failures: Mutex::default(),
        }
    }

    /// Something may lack an index.
    pub(crate) fn request(&self) {
        self.state.lock().requested = true;
        self.wake.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Why an index of a table is not built for some segment, if that was tried.
    pub(crate) fn error_of(&self, table: TableId, index: IndexId) -> Option<String> {
        let failures = self.failures.lock();
        failures.iter().find(|((t, _, _, i), _)| *t == table && *i == index).map(|(_, failure)| failure.error.clone())
    }

    /// The body of the thread: returns after [`Self::stop`], when the build at hand is done.
    pub(crate) fn run(&self, clock: &dyn Clock, tables: impl Fn() -> Vec<Arc<TableShared>>) {
        let mut files_due_us = clock.monotonic_us();
        let mut any_indexes = false;
        loop {
            let due_us = clock.monotonic_us() + if any_indexes { LOOK_AT_MEMORY_EVERY_US } else { LOOK_EVERY_US };
            let Some(requested) = self.wait(due_us.min(files_due_us), clock) else { return };
            let tables = tables();
            any_indexes = tables.iter().any(|table| !table.table.indexes().is_empty());
            let looks_at_files = requested || clock.monotonic_us() >= files_due_us;
            for table in tables {
                let goes_on = self.serve_memory(&table, clock) && self.serve_trees(&table, clock);
                if !goes_on || looks_at_files && !self.serve(&table, clock) {
                    return;
                }
            }
            if looks_at_files {
                files_due_us = clock.monotonic_us() + LOOK_EVERY_US;
            }
        }
    }

    /// Waits until there may be work: whether that was said. `None` when it is time to end.
    fn wait(&self, due_us: i64, clock: &dyn Clock) -> Option<bool> {
        let mut state = self.state.lock();
        while !state.stopping && !state.requested && clock.monotonic_us() < due_us {
            self.wake.wait_for(&mut state, TICK);
        }
        let requested = std::mem::take(&mut state.requested);
        (!state.stopping).then_some(requested)
    }

    /// Builds what the rows in memory lack. False when it is time to end.
    fn serve_memory(&self, table: &TableShared, clock: &dyn Clock) -> bool {
        let specs = table.table.indexes();
        for partition in table.table.partitions().iter() {
            loop {
                let view = partition.view();
                let Some(consuming) = view.consuming() else { break };
                let began_us = clock.monotonic_us();
                let built = catch_unwind(AssertUnwindSafe(|| consuming.build_next_index(&specs)))
                    .unwrap_or_else(|panic| Err(Error::Invalid(format!("building panicked: {}", panic_text(&*panic)))));
                match built {
                    Ok(false) => break,
                    Ok(true) => {}
                    Err(error) => {
                        tracing::warn!(table = table.name, %error, "rows in memory do without an index");
                    }
                }
                if !self.rest(clock, clock.monotonic_us() - began_us) {
                    return false;
                }
            }
        }
        true
    }

    /// Makes those star-trees anew that count many rows that are not valid, where requests met them. False when it is time to end.
    fn serve_trees(&self, table: &TableShared, clock: &dyn Clock) -> bool {
        for partition in table.table.partitions().iter() {
            let view = partition.view();
            for segment in view.segments() {
                let Some(validity) = view.validities().of(segment.id()) else { continue };
                if !segment.as_committed().is_some_and(CommittedSegment::wants_renewal) {
                    continue;
                }
                let began_us = clock.monotonic_us();
                // The table's files stay as long as this is held.
                let closed = table.indexing.lock();
                if *closed {
                    return self.goes_on();
                }
                let renew = || Arc::clone(segment).renew_star_trees(validity);
                let renewed = catch_unwind(AssertUnwindSafe(renew))
                    .unwrap_or_else(|panic| Err(Error::Invalid(format!("building panicked: {}", panic_text(&*panic)))));
                drop(closed);
                if let Err(error) = renewed {
                    tracing::warn!(table = table.name, %error, "a star-tree is not renewed; requests go on reading lost rows");
                }
                if !self.rest(clock, clock.monotonic_us() - began_us) {
                    return false;
                }
            }
        }
        true
    }

    /// Builds what the table lacks. False when it is time to end.
    fn serve(&self, table: &Arc<TableShared>, clock: &dyn Clock) -> bool {
        for spec in table.table.indexes().iter() {
            let (mut built, mut left) = (0u64, 0u64);
            for partition in table.table.partitions().iter() {
                let view = partition.view();
                for segment in view.segments() {
                    let Some(committed) = segment.as_committed().filter(|segment| lacks(segment, spec)) else {
                        continue;
                    };
                    let place = (table.id, partition.id(), segment.id(), spec.id);
                    if self.failures.lock().get(&place).is_some_and(|known| known.due_us > clock.monotonic_us()) {
                        left += 1;
                        continue;
                    }
                    let began_us = clock.monotonic_us();
                    match self.build(table, partition, committed, spec) {
                        Built::Yes => {
                            built += 1;
                            self.failures.lock().remove(&place);
                        }
                        Built::NotWanted => return self.goes_on(),
                        Built::Failed(error) => {
                            left += 1;
                            self.failed(table, spec, place, error, clock);
                        }
                    }
                    if !self.rest(clock, clock.monotonic_us() - began_us) {
                        return false;
                    }
                }
            }
            if built > 0 && left == 0 {
                let message = format!("index '{}' of table '{}' is built ({built} segments)", spec.name, table.name);
                table.event(Severity::Info, "index_built", message);
            }
        }
        true
    }

    fn goes_on(&self) -> bool {
        !self.state.lock().stopping
    }

    fn build(
        &self,
        table: &TableShared,
        partition: &tidemill_storage::table::Partition,
        segment: &CommittedSegment,
        spec: &IndexSpec,
    ) -> Built {
        // The table's files stay as long as this is held.
        let closed = table.indexing.lock();
        if *closed {
            return Built::NotWanted;
        }
        fail::fail_point!("index::build", |_| Built::Failed("failpoint index::build".into()));
        let result = catch_unwind(AssertUnwindSafe(|| segment.build_index(spec).map_err(|error| error.to_string())))
            .unwrap_or_else(|panic| Err(format!("building panicked: {}", panic_text(&*panic))));
        // The index or the segment may have been dropped meanwhile, or the table have another set of partitions; then what was built goes, too.
        let is_there = table.table.partitions().iter().any(|known| std::ptr::eq(known.as_ref(), partition));
        let wanted = is_there
            && partition.indexes().iter().any(|known| known.id == spec.id)
            && partition.view().segments().any(|known| known.id() == Segment::id(segment));
        if !wanted {
            if let Err(error) = segment.drop_index(spec.id) {
                tracing::warn!(%error, "an index that nobody wants stays until the next start");
            }
            return Built::NotWanted;
        }
        match result {
            Ok(bytes) => {
                tracing::debug!(index = spec.name, segment = Segment::id(segment).0, bytes, "index built");
                Built::Yes
            }
            Err(error) => Built::Failed(error),
        }
    }

    fn failed(&self, table: &TableShared, spec: &IndexSpec, place: Place, error: String, clock: &dyn Clock) {
        let mut failures = self.failures.lock();
        let times = failures.get(&place).map_or(0, |known| known.times) + 1;
        let due_us = clock.monotonic_us() + backoff(times).as_micros() as i64;
        if times.is_power_of_two() {
            let message = format!(
                "building index '{}' of table '{}' for segment {} failed ({times} times): {error}; queries go on without it, it is tried again",
                spec.name, table.name, place.2
            );
            table.event(Severity::Warning, "index_failed", message);
        }
        failures.insert(place, Failure { times, due_us, error });
    }

    /// Leaves the processor to others for as long as the share wants. False when it is time to end.
    fn rest(&self, clock: &dyn Clock, worked_us: i64) -> bool {
        let until_us = clock.monotonic_us() + (worked_us as f64 * (1.0 / self.share - 1.0)) as i64;
        let mut state = self.state.lock();
        while !state.stopping {
            let left_us = until_us - clock.monotonic_us();
            if left_us <= 0 {
                break;
            }
            self.wake.wait_for(&mut state, TICK.min(Duration::from_micros(left_us as u64)));
        }
        !state.stopping
    }

    /// Forgets the failures of an index that is no more.
    pub(crate) fn forget(&self, table: TableId, index: IndexId) {
        self.failures.lock().retain(|(t, _, _, i), _| (*t, *i) != (table, index));
    }
}

enum Built {
    Yes,
    /// The table, the segment or the index is gone.
    NotWanted,
    Failed(String),
}

fn lacks(segment: &CommittedSegment, spec: &IndexSpec) -> bool {
    segment.wants_index(spec) && segment.index_bytes(spec.id).is_none()
}
