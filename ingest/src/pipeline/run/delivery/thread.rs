//! The thread of one sink.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tidemill_storage::ids::{SourceId, StreamId};

use super::{
    super::{super::row_json::row_json, CheckpointLog, Output, shared::Shared},
    Board, Deliveries, Signals, SinkSpec,
    letters::{Letters, Owner},
};
use crate::{
    Error, Result,
    consumer::{committing::panic_text, pace::backoff},
    dead_letters::DeadLetterBuffer,
    events::Severity,
    message::{Reject, SourceBatch},
    sink::{Delivery, Outlet, Place, Records, Resent, Undelivered, Wire},
    source::Fetched,
};

/// Rows and bytes taken from the log at once.
const ROWS_MAX: usize = 16 * 1024;
const BYTES_MAX: usize = 8 << 20;
/// Rows after which a commit does not wait for more.
const COMMIT_ROWS: u64 = 200_000;
/// How long the log is waited for.
const TURN: Duration = Duration::from_millis(20);
/// Brokers forget the offsets of groups that say nothing for days.
const REFRESH_US: i64 = 3_600_000_000;
/// How long a server that ends has for what was not delivered. It is not lost: the next one delivers it.
const FINISH_US: i64 = 3_000_000;

/// The body of the thread of a sink.
pub(in crate::pipeline::run) struct Delivering {
    pub(super) shared: Arc<Shared>,
    pub(super) spec: SinkSpec,
    pub(super) board: Arc<Board>,
    signals: Arc<Signals>,
    pub(super) output: Arc<Output>,
    /// What the log behind the pipeline is called as a source.
    pub(super) stream: StreamId,
    pub(super) letters: Letters,
    /// What the schema registry said.
    wire: Option<Arc<Wire>>,
    lineage: Vec<i64>,
    mark: i64,
    /// What the last checkpoint before the start says of the sink.
    known: Option<u64>,
    /// A commit that nobody answered may have taken place.
    is_in_doubt: bool,
    /// Rows of which one was refused, and those that were when they were alone.
    alone: BTreeSet<u64>,
    refused: BTreeMap<u64, String>,
    /// Letters that were sent again, and that no checkpoint has forgotten yet.
    pub(super) resent: Option<Resent>,
    pub(super) is_sending_again: bool,
    /// How many were, since somebody asked for it.
    pub(super) sent_again: u64,
    /// Rows of letters that are refused again.
    pub(super) aside: BTreeSet<u64>,
    /// Letters are sent one by one, since one of them was refused.
    pub(super) is_alone_again: bool,
    /// Since somebody asked for letters to be sent again.
    is_opened_again: bool,
}

/// What was put and not committed.
struct Open {
    to: u64,
    rows: u64,
    since_us: i64,
    /// A commit is due, of everything before it: the log comes in pieces as small as they were made, and commits of single ones would fall behind.
    goal: Option<u64>,
}

/// Why an attempt ended.
pub(super) enum Ended {
    Again(Error),
    /// For good.
    Refused(String),
    /// Some rows cannot go the way they went.
    Poison,
    /// The sink was altered.
    Altered,
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Again(error)
    }
}

/// What a thread needs beside its sink.
pub(in crate::pipeline::run) struct Behind {
    pub(in crate::pipeline::run) shared: Arc<Shared>,
    pub(in crate::pipeline::run) output: Arc<Output>,
    pub(in crate::pipeline::run) log: SourceId,
    pub(in crate::pipeline::run) checkpoints: Arc<dyn CheckpointLog>,
    pub(in crate::pipeline::run) directory: PathBuf,
    pub(in crate::pipeline::run) lineage: Vec<i64>,
    pub(in crate::pipeline::run) mark: i64,
}

impl Delivering {
    pub(in crate::pipeline::run) fn new(
        spec: SinkSpec,
        deliveries: &Deliveries,
        at: usize,
        known: Option<u64>,
        behind: &Behind,
    ) -> Self {
        Self {
            shared: Arc::clone(&behind.shared),
            board: Arc::clone(&deliveries.boards[at]),
            signals: Arc::clone(&deliveries.signals),
            output: Arc::clone(&behind.output),
            stream: StreamId { source: behind.log, partition: 0 },
            letters: Letters {
                log: Arc::clone(&behind.checkpoints),
                directory: behind.directory.clone(),
                known: None,
                buffer: DeadLetterBuffer::new(usize::MAX),
            },
            wire: None,
            lineage: behind.lineage.clone(),
            mark: behind.mark,
            known,
            is_in_doubt: true,
            alone: BTreeSet::new(),
            refused: BTreeMap::new(),
            resent: None,
            is_sending_again: false,
            sent_again: 0,
            aside: BTreeSet::new(),
            is_alone_again: false,
            is_opened_again: false,
            spec,
        }
    }

    pub(in crate::pipeline::run) fn run(mut self) {
        while !self.signals.may_begin.load(Ordering::SeqCst) {
            if self.is_finishing() {
                return;
            }
            self.shared.rest(TURN);
        }
        let mut failures = 0;
        while !self.is_out_of_time() {
            if self.take_altered() {
                failures = 0;
            }
            let before = self.board.status.lock().commits;
            let work = std::panic::AssertUnwindSafe(|| self.attempt());
            let ended = std::panic::catch_unwind(work).unwrap_or_else(|panic| {
                Err(Error::Unavailable(format!("it panicked: {}", panic_text(&*panic))).into())
            });
            // One commit is that of the place alone.
            if self.board.status.lock().commits > before + 1 {
                failures = 0;
            }
            match ended {
                Ok(()) => break,
                Err(Ended::Poison | Ended::Altered) => {}
                Err(Ended::Refused(reason)) => {
                    self.board.is_ours.store(false, Ordering::SeqCst);
                    self.tell("refused", Some(reason.clone()));
                    let (sink, name) = (&self.spec.name, &self.shared.name);
                    let message = format!("pipeline '{name}' delivers nothing into sink '{sink}' any more: {reason}");
                    self.shared.event(Severity::Page, "delivery_refused", message);
                    while !self.is_finishing() && !self.board.is_altered() {
                        self.board.tell_again(Err(Error::Unavailable(reason.clone())));
                        self.shared.changed.notify_waiters();
                        self.shared.rest(Duration::from_millis(200));
                    }
                    if self.is_finishing() {
                        break;
                    }
                }
                Err(Ended::Again(error)) => {
                    if self.is_finishing() {
                        break;
                    }
                    failures += 1;
                    self.board.tell_again(Err(error.clone()));
                    (self.sent_again, self.is_opened_again) = (0, false);
                    self.board.status.lock().restarts += 1;
                    self.tell("failing", Some(error.to_string()));
                    let pause_us = backoff(failures).as_micros() as i64;
                    self.board.status.lock().retry_at_us = Some(self.shared.clock.now_us() + pause_us);
                    if u32::is_power_of_two(failures) {
                        let message = format!(
                            "delivery of pipeline '{}' into sink '{}' failed ({failures} times): {error}; it is tried again",
                            self.shared.name, self.spec.name
                        );
                        self.shared.event(Severity::Warning, "delivery_failed", message);
                    }
                    self.shared.rest(backoff(failures));
                }
            }
        }
        self.board.tell_again(Err(Error::Unavailable("the pipeline ends".into())));
        self.board.status.lock().state = "stopped";
    }

    /// Goes on with the sink as it was altered.
    fn take_altered(&mut self) -> bool {
        let Some(spec) = self.board.next.lock().take() else { return false };
        self.spec = spec;
        self.wire = None;
        // Others may be refused now, and these not.
        self.alone.clear();
        self.refused.clear();
        self.shared.changed.notify_waiters();
        true
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.signals.finishing_us.load(Ordering::SeqCst) != 0
    }

    fn is_out_of_time(&self) -> bool {
        let since_us = self.signals.finishing_us.load(Ordering::SeqCst);
        since_us != 0 && self.shared.clock.monotonic_us() - since_us > FINISH_US
    }

    fn tell(&self, state: &'static str, error: Option<String>) {
        {
            let mut status = self.board.status.lock();
            status.state = state;
            status.error = error;
            status.retry_at_us = None;
        }
        self.shared.ring();
    }

    /// Takes the sink over and delivers, until the server ends.
    fn attempt(&mut self) -> Result<(), Ended> {
        // Nothing is taken over before records can be made.
        let wire = match &self.wire {
            Some(wire) => Arc::clone(wire),
            None => Arc::clone(self.wire.insert(Arc::new(self.spec.shape.wire()?))),
        };
        // Who is not to deliver does not take over, either.
        let told = self.spec.connector.peek(&self.spec.identity, self.spec.delivery)?;
        if told.is_some() {
            self.place(told).map_err(Ended::Refused)?;
        }
        let mut alone = self.alone.clone();
        alone.extend(self.is_alone_again.then_some(u64::MAX));
        let mut outlet = self.spec.connector.open(&self.spec.identity, self.spec.delivery, &alone)?;
        let told = outlet.place();
        self.resent = None;
        self.is_sending_again = false;
        if let Some(resent) = told.as_ref().and_then(|place| place.resent.clone())
            && self.letters.has_file(self.shared.id, &resent.file)?
        {
            self.resent = Some(resent);
        }
        let mut position = self.place(told).map_err(Ended::Refused)?;
        self.letters.known = None;
        if self.spec.delivery == Delivery::ExactlyOnce {
            // From here on nobody else can take it for theirs.
            self.commit(&mut *outlet, position, 0)?;
        } else {
            self.board.status.lock().position = Some(position);
        }
        self.known = Some(position);
        self.is_in_doubt = false;
        self.board.is_ours.store(true, Ordering::SeqCst);
        if self.resent.is_some() {
            // They are in the topic: whoever delivered before did not come to forget them.
            self.forget_again()?;
            self.commit(&mut *outlet, position, 0)?;
        }
        self.tell("delivering", None);
        let mut reader = self.output.connector().open(&BTreeMap::from([(0, position)]))?;
        let mut open: Option<Open> = None;
        let mut committed_us = self.shared.clock.monotonic_us();
        loop {
            let now_us = self.shared.clock.monotonic_us();
            if let Some(due) = &mut open {
                let is_over = now_us - committed_us >= self.spec.commit_interval_us
                    || self.is_finishing()
                    || self.board.is_altered();
                if is_over && due.goal.is_none() {
                    due.goal = Some(self.output.end());
                }
                if due.goal.is_some_and(|goal| due.to >= goal) || due.rows >= COMMIT_ROWS {
                    // Intervals are from beginning to beginning: commits take a while themselves.
                    committed_us = now_us;
                    let (to, rows, since_us) = (due.to, due.rows, due.since_us);
                    open = None;
                    self.commit(&mut *outlet, to, rows)?;
                    let took_us = self.shared.clock.monotonic_us() - since_us;
                    metrics::histogram!("tidemill_sink_commit_seconds", "sink" => self.spec.name.clone())
                        .record(took_us as f64 / 1e6);
                }
            } else if self.board.is_altered() {
                return Err(Ended::Altered);
            } else if self.board.is_asked() && !self.is_finishing() {
                // What the topic takes is asked for when it is opened.
                if !std::mem::replace(&mut self.is_opened_again, true) {
                    return Err(Ended::Altered);
                }
                self.send_again(&mut *outlet, &wire, position)?;
                self.is_opened_again = false;
            } else if self.is_out_of_time() || (self.is_finishing() && position == self.output.end()) {
                return Ok(());
            } else if now_us - committed_us >= REFRESH_US && self.spec.delivery == Delivery::ExactlyOnce {
                self.commit(&mut *outlet, position, 0)?;
                committed_us = now_us;
            }
            let left_us = self.spec.commit_interval_us - (self.shared.clock.monotonic_us() - committed_us);
            let patience = match &open {
                Some(Open { goal: Some(_), .. }) => Duration::ZERO,
                Some(_) => Duration::from_micros(left_us.max(0) as u64).min(TURN),
                None => TURN,
            };
            for fetched in reader.poll(ROWS_MAX, BYTES_MAX, patience)? {
                match fetched {
                    Fetched::Rows(batch) => {
                        let since_us = self.shared.clock.monotonic_us();
                        let due = open.get_or_insert(Open { to: position, rows: 0, since_us, goal: None });
                        due.rows += self.put(&mut *outlet, &wire, &batch)?;
                        position = batch.to;
                        due.to = batch.to;
                    }
                    Fetched::Gap { wanted, found, .. } => {
                        let reason = format!("rows {wanted} to {found} (excluded) are gone from the log behind it");
                        return Err(Ended::Refused(reason));
                    }
                    Fetched::Messages(_) | Fetched::End { .. } => {}
                }
            }
        }
    }

    /// Where deliveries go on. The error says why they cannot.
    fn place(&self, told: Option<Place>) -> Result<u64, String> {
        let end = self.output.end();
        if self.spec.delivery == Delivery::AtLeastOnce {
            return Ok(self.known.unwrap_or(0).min(end));
        }
        let identity = &self.spec.identity;
        match (told, self.known) {
            (Some(place), _) => {
                if place.mark.is_some_and(|mark| !self.lineage.contains(&mark)) {
                    return Err(format!(
                        "another server delivers as '{identity}', which goes on from a copy of this data directory; drop the pipeline here or there"
                    ));
                }
                let low = self.output.connector().watermarks(0).map_or(0, |there| there.low);
                if place.position > end || place.position < low {
                    return Err(format!(
                        "its place is {}, and the log behind the pipeline has rows {low} to {end} (excluded): its last checkpoints are lost, or somebody moved the place of consumer group '{identity}'",
                        place.position
                    ));
                }
                Ok(place.position)
            }
            (None, None) => Ok(0),
            (None, Some(known)) if known == end || !self.is_in_doubt => Ok(known),
            (None, Some(known)) => Err(format!(
                "consumer group '{identity}' has lost its place, which was {known} or more of {end}: say how far the topic has rows of the pipeline by setting the group's offset of partition 0, or make the pipeline again"
            )),
        }
    }

    /// Gives the rows of a batch; how many there were.
    fn put(&mut self, outlet: &mut dyn Outlet, wire: &Wire, batch: &SourceBatch) -> Result<u64, Ended> {
        let made = self.spec.transform.apply(batch);
        for reject in made.rejects {
            self.reject(reject)?;
        }
        let shape = Arc::clone(&self.spec.shape);
        let mut records = Records::new(&shape, wire, &made.rows);
        for (row, offset) in made.row_offsets.iter().enumerate() {
            let refused = match (self.refused.get(offset), records.record(row)) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Err(reason)) => Some(reason),
                (None, Ok(record)) => match outlet.refuses(&record) {
                    Some(reason) => Some(reason),
                    None => {
                        let put = outlet.put(*offset, &record);
                        put.map_err(|undelivered| self.ended(undelivered))?;
                        None
                    }
                },
            };
            if let Some(reason) = refused {
                let raw = Bytes::from(row_json(&made.rows, row));
                self.reject(Reject { offset: *offset, timestamp_ms: -1, column: None, reason, raw })?;
            }
        }
        Ok(made.row_offsets.len() as u64)
    }

    /// Puts a row among the dead letters, unless it is there since before a crash.
    fn reject(&mut self, reject: Reject) -> Result<()> {
        let at_us = self.shared.clock.now_us();
        let owner = Owner { log: self.stream.source, sink: self.spec.id, name: &self.spec.name };
        if !self.letters.known(self.shared.id, &owner)?.insert(reject.offset) {
            return Ok(());
        }
        self.letters.buffer.push(&self.spec.name, owner.stream(), reject, at_us);
        Ok(())
    }

    fn ended(&mut self, undelivered: Undelivered) -> Ended {
        match undelivered {
            undelivered if self.is_sending_again => self.refused_again(undelivered),
            Undelivered::Again(error) => Ended::Again(error),
            Undelivered::Refused { offsets, reason } => {
                // Others that were sent with the culprit are refused with it.
                if offsets.len() == 1 || offsets.iter().all(|offset| self.alone.contains(offset)) {
                    self.refused.extend(offsets.into_iter().map(|offset| (offset, reason.clone())));
                } else {
                    self.alone.extend(offsets);
                }
                Ended::Poison
            }
        }
    }

    /// Commits everything before `position`, once a checkpoint covers it.
    pub(super) fn commit(&mut self, outlet: &mut dyn Outlet, position: u64, rows: u64) -> Result<(), Ended> {
        let letters = self.letters.buffer.take();
        let dead_letters = letters.len() as u64;
        if dead_letters > 0 {
            let kept = self.shared.letters.push(letters);
            while self.shared.letters.kept() < kept {
                self.output.want_checkpoint();
                if self.is_out_of_time() {
                    return Err(Error::Unavailable("the pipeline ends before its dead letters are kept".into()).into());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if self.spec.delivery == Delivery::ExactlyOnce {
            while !self.output.await_durable(position, Duration::from_millis(100)) {
                if self.is_out_of_time() {
                    return Err(
                        Error::Unavailable("the pipeline ends before its rows are in a checkpoint".into()).into()
                    );
                }
            }
        }
        fail::fail_point!("delivery::before_commit", |_| Err(Ended::Again(Error::Unavailable(
            "failpoint delivery::before_commit".into()
        ))));
        self.is_in_doubt = true;
        let place = Place { position, mark: Some(self.mark), resent: self.resent.clone() };
        outlet.commit(&place).map_err(|undelivered| self.ended(undelivered))?;
        self.is_in_doubt = false;
        self.known = Some(position);
        self.alone = self.alone.split_off(&position);
        self.refused = self.refused.split_off(&position);
        {
            let mut status = self.board.status.lock();
            status.position = Some(position);
            status.rows += rows;
            status.dead_letters += dead_letters;
            status.commits += 1;
            status.committed_at_us = Some(self.shared.clock.now_us());
        }
        metrics::counter!("tidemill_sink_rows_total", "sink" => self.spec.name.clone()).increment(rows);
        self.shared.changed.notify_waiters();
        Ok(())
    }
}
