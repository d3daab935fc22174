//! The threads of a pipeline's sources, and whose rows are taken next.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Select, TryRecvError, bounded};
use parking_lot::Mutex;
use tidemill_storage::ids::{SourceId, StreamId};

use super::{
    super::machine::{Arrival, Machine},
    Input,
    input::{Known, Reading, Share},
    shared::Shared,
};
use crate::{
    Error, Result,
    runtime::{join, spawn},
};

/// Arrivals between an input and the runner.
const QUEUE: usize = 4;

/// An input that was silent for so long is not waited for when the pipeline is told to start again.
const ABANDON_AFTER_US: i64 = 1_000_000;

/// All inputs of a pipeline.
pub(super) struct Inputs {
    shared: Arc<Shared>,
    all: Vec<Input>,
    running: Option<Running>,
}

struct Running {
    /// Of each thread.
    arrivals: Vec<(SourceId, Receiver<Arrival>)>,
    stop: Arc<AtomicBool>,
    threads: Vec<Thread>,
    /// Threads of a source that have not said yet that all their streams were begun.
    unknown: Mutex<BTreeMap<SourceId, usize>>,
}

/// One that reads partitions of a source.
struct Thread {
    /// Place of the source among them.
    place: usize,
    beat: Arc<Beat>,
    handle: JoinHandle<()>,
}

/// When an input was last seen to be well (monotonic): it brought something, waits for the runner, has nothing to bring, or says why it cannot.
pub(super) struct Beat {
    shared: Arc<Shared>,
    well_us: AtomicI64,
}

impl Beat {
    fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let well_us = AtomicI64::new(shared.clock.monotonic_us());
        Arc::new(Self { shared: Arc::clone(shared), well_us })
    }

    pub(super) fn is_well(&self) {
        self.well_us.store(self.shared.clock.monotonic_us(), Ordering::Relaxed);
    }

    fn silent_us(&self) -> i64 {
        self.shared.clock.monotonic_us() - self.well_us.load(Ordering::Relaxed)
    }
}

impl Inputs {
    pub(super) fn new(shared: &Arc<Shared>, all: Vec<Input>) -> Self {
        Self { shared: Arc::clone(shared), all, running: None }
    }

    pub(super) fn all(&self) -> &[Input] {
        &self.all
    }

    /// Begins to read, from where the machine is.
    pub(super) fn start(&mut self, machine: &Machine) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let progress = machine.progress();
        let landmarks: BTreeMap<StreamId, _> = progress.landmarks.into_iter().collect();
        let mut known: BTreeMap<SourceId, BTreeMap<u32, _>> = BTreeMap::new();
        for (stream, position) in progress.positions {
            let has_rows = progress.time.has_rows(stream);
            let place = Known { position, landmark: landmarks.get(&stream).copied(), has_rows };
            known.entry(stream.source).or_default().insert(stream.partition, place);
        }
        if progress.counts.rows_in > 0 {
            self.shared.begun(self.shared.clock.monotonic_us());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (arrivals, threads, unknown) = (Vec::new(), Vec::new(), Mutex::default());
        let mut running = Running { arrivals, stop: Arc::clone(&stop), threads, unknown };
        let lanes = machine.lanes();
        for (place, input) in self.all.iter().enumerate() {
            let known = Arc::new(known.remove(&input.id).unwrap_or_default());
            running.unknown.lock().insert(input.id, lanes);
            for lane in 0..lanes {
                let (sender, arrivals) = bounded(QUEUE);
                running.arrivals.push((input.id, arrivals));
                let beat = Beat::new(&self.shared);
                let share = Share { lane, of: lanes };
                let (shared, stop, of_input) = (Arc::clone(&self.shared), Arc::clone(&stop), Arc::clone(&beat));
                let reading = Reading::new(shared, place, share, input.clone(), sender, stop, of_input);
                let (name, known) = (format!("consume-{}-{place}-{lane}", self.shared.name), Arc::clone(&known));
                let handle = spawn(name, move || reading.run(&known))?;
                running.threads.push(Thread { place, beat, handle });
            }
        }
        self.running = Some(running);
        Ok(())
    }

    /// What they sent and nobody took is read again.
    pub(super) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::SeqCst);
            drop(running.arrivals);
            running.threads.into_iter().for_each(|thread| join(thread.handle));
        }
    }

    /// As [`Self::stop`], but those of which nothing was seen for a while are not waited for.
    pub(super) fn abandon(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::SeqCst);
            drop(running.arrivals);
            for thread in running.threads {
                match thread.beat.silent_us() > ABANDON_AFTER_US {
                    true => self.shared.leave(thread.handle),
                    false => join(thread.handle),
                }
            }
        }
    }

    /// How many threads read.
    pub(super) fn threads(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.threads.len())
    }

    /// An error when one of them brings nothing for long, though there is something. Those that do not end are left alone then.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(running) = &self.running else { return Ok(()) };
        let silent = running.threads.iter().map(|thread| (thread.place, thread.beat.silent_us()));
        let Some((place, silent_us)) = silent.max_by_key(|(_, silent_us)| *silent_us) else { return Ok(()) };
        let what = format!("source '{}' has messages and brings none", self.all[place].name);
        if !self.shared.is_stuck(silent_us, &what) {
            return Ok(());
        }
        if let Some(running) = self.running.take() {
            running.stop.store(true, Ordering::SeqCst);
            drop(running.arrivals);
            running.threads.into_iter().for_each(|thread| self.shared.leave(thread.handle));
        }
        Err(self.shared.stuck(&what, silent_us))
    }

    /// What comes next, within `time`; nothing as soon as one of `bells` rings. Sources that hold others back (`behind`) go first, so that less has to be kept; nothing comes of others when
    /// these are the only ones that may be read.
    pub(super) fn next(
        &self,
        behind: &[SourceId],
        is_behind_only: bool,
        bells: &[&dyn Bell],
        time: Duration,
    ) -> Result<Option<Arrival>> {
        let Some(running) = &self.running else { return Ok(None) };
        let take = |arrivals: &Receiver<Arrival>| match arrivals.try_recv() {
            Ok(arrival) => Ok(Some(arrival)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::Unavailable("its inputs ended".into())),
        };
        // A source is known when all of its threads have said so; of them it is the machine that says where streams begin.
        let told = |arrival: Option<Arrival>| match arrival {
            Some(Arrival::Known { source }) => {
                let mut unknown = running.unknown.lock();
                let left = unknown.entry(source).or_insert(1);
                *left = left.saturating_sub(1);
                (*left == 0).then_some(Arrival::Known { source })
            }
            other => other,
        };
        for (_, arrivals) in running.arrivals.iter().filter(|(source, _)| behind.contains(source)) {
            if let Some(arrival) = told(take(arrivals)?) {
                return Ok(Some(arrival));
            }
        }
        let allowed = |source: &SourceId| !is_behind_only || behind.contains(source);
        let mut select = Select::new();
        let waited: Vec<&Receiver<Arrival>> =
            running.arrivals.iter().filter(|(source, _)| allowed(source)).map(|(_, arrivals)| arrivals).collect();
        for arrivals in &waited {
            select.recv(arrivals);
        }
        for bell in bells {
            bell.add(&mut select);
        }
        match select.ready_timeout(time) {
            Ok(ready) if ready < waited.len() => take(waited[ready]).map(told),
            _ => Ok(None),
        }
    }
}

/// What ends a wait for rows.
pub(super) trait Bell {
    fn add<'a>(&'a self, select: &mut Select<'a>);
}

impl<T> Bell for Receiver<T> {
    fn add<'a>(&'a self, select: &mut Select<'a>) {
        select.recv(self);
    }
}
