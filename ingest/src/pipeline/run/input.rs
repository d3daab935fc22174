//! One source of a pipeline: its partitions, its messages, decoded and checked, on their way to the machine.
//!
//! The same connectors, decoders, checks and rules for bad messages as those of tables; what is different is that offsets belong to the pipeline's checkpoints.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{SendTimeoutError, Sender};
use tidemill_storage::ids::{SourceId, StreamId};

use super::{
    super::{
        checks::Checks,
        machine::{Arrival, Flow},
        watermark::Watermark,
    },
    inputs::Beat,
    shared::Shared,
};
use crate::{
    Error, Result,
    consumer::{
        DecoderFactory, OnGap,
        batch::{cut_at, first_reject},
        discovery::start_of_fresh,
        pace::{BYTES_MAX, MESSAGES_MAX, POLL_TIMEOUT, backoff},
    },
    dead_letters::OnError,
    decode::{Decoder, decode_batch},
    events::Severity,
    landmark::{Landmark, Place, Recognition},
    message::SourceBatch,
    source::{Connector, Fetched, Reader, Start, rate::Pace},
};

/// A partition that has no rows yet holds the others back for so long after the first row of any: producers begin with all partitions at about the same time.
const EMPTY_GRACE_US: i64 = 250_000;
/// New partitions are read within 5 s.
const LOOK_EVERY_US: i64 = 3_000_000;

/// A source as a pipeline reads it.
#[derive(Clone)]
pub struct Input {
    pub id: SourceId,
    pub name: String,
    pub connector: Arc<dyn Connector>,
    pub start: Start,
    pub decoder: DecoderFactory,
    pub checks: Arc<Checks>,
    pub watermark: Option<Arc<Watermark>>,
    pub on_error: OnError,
    pub on_gap: OnGap,
    /// How fast it is read at most.
    pub pace: Arc<Pace>,
}

/// Where a stream goes on that was read before.
pub(super) struct Known {
    pub(super) position: u64,
    /// Its last message.
    pub(super) landmark: Option<Landmark>,
    /// Whether it has an event time.
    pub(super) has_rows: bool,
}

/// Which partitions of a source a thread reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) lane: usize,
    pub(super) of: usize,
}

impl Share {
    fn has(self, partition: u32) -> bool {
        partition as usize % self.of == self.lane
    }
}

/// The body of an input's thread.
pub(super) struct Reading {
    pub(super) shared: Arc<Shared>,
    /// Place among the sources.
    pub(super) place: usize,
    share: Share,
    pub(super) input: Input,
    pub(super) sender: Sender<Arrival>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) streams: BTreeMap<u32, Stream>,
    reader: Option<Box<dyn Reader>>,
    decoder: Option<Box<dyn Decoder>>,
    looked_us: Option<i64>,
    is_known: bool,
    beat: Arc<Beat>,
}

/// What is known of one stream.
pub(super) struct Stream {
    next: u64,
    high: u64,
    flow: Flow,
    /// When it last gave something, or was found (monotonic).
    active_us: i64,
    has_rows: bool,
    /// Why it is not read.
    stopped: Option<String>,
}

impl Reading {
    /// `positions`: where streams go on that were read before.
    pub(super) fn new(
        shared: Arc<Shared>,
        place: usize,
        share: Share,
        input: Input,
        sender: Sender<Arrival>,
        stop: Arc<AtomicBool>,
        beat: Arc<Beat>,
    ) -> Self {
        Self {
            shared,
            place,
            share,
            input,
            sender,
            stop,
            streams: BTreeMap::new(),
            reader: None,
            decoder: None,
            looked_us: None,
            is_known: false,
            beat,
        }
    }

    /// Returns when it is told to stop. `known`: where streams go on, and their last messages.
    pub(super) fn run(mut self, known: &BTreeMap<u32, Known>) {
        let mut failures = 0;
        while !self.is_stopping() {
            match self.turn(known) {
                // Whoever was left alone meanwhile has nothing to say.
                _ if self.is_stopping() => return,
                Ok(()) if failures > 0 => {
                    failures = 0;
                    self.shared.set_input_error(self.input.id, None);
                }
                Ok(()) => {}
                Err(error) => {
                    self.beat.is_well();
                    failures += 1;
                    self.reader = None;
                    self.looked_us = None;
                    self.shared.set_input_error(self.input.id, Some(error.to_string()));
                    if failures == 1 {
                        let name = &self.input.name;
                        let message =
                            format!("source '{name}' of pipeline '{}': {error}; it is tried again", self.shared.name);
                        self.shared.event(Severity::Warning, "source_unavailable", message);
                    }
                    self.rest(backoff(failures));
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rest(&self, time: Duration) {
        let until_us = self.shared.clock.monotonic_us() + time.as_micros() as i64;
        while !self.is_stopping() && self.shared.clock.monotonic_us() < until_us {
            self.beat.is_well();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Hands over; false when the pipeline stops.
    fn send(&self, mut arrival: Arrival) -> bool {
        let mut begun_us = self.shared.clock.monotonic_us();
        let mut told_us = begun_us;
        loop {
            let sent = self.sender.send_timeout(arrival, Duration::from_millis(50));
            let now_us = self.shared.clock.monotonic_us();
            self.shared.waited(now_us - begun_us);
            begun_us = now_us;
            match sent {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(back)) if !self.is_stopping() => {
                    self.beat.is_well();
                    arrival = back;
                    // How far the pipeline is behind grows while it takes nothing.
                    if now_us - told_us >= LOOK_EVERY_US {
                        self.tell_ends();
                        told_us = self.shared.clock.monotonic_us();
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Says where the streams end now; of those that do not say it, where they ended when they were looked at last.
    fn tell_ends(&self) {
        let end = |(partition, stream): (&u32, &Stream)| {
            let now = self.input.connector.watermarks(*partition).map_or(0, |marks| marks.high);
            (self.id(*partition), stream.high.max(now))
        };
        let ends: Vec<_> = self.streams.iter().map(end).collect();
        self.shared.ends.lock().extend(ends);
    }

    fn id(&self, partition: u32) -> StreamId {
        StreamId { source: self.input.id, partition }
    }

    fn turn(&mut self, known: &BTreeMap<u32, Known>) -> Result<()> {
        let now_us = self.shared.clock.monotonic_us();
        if self.looked_us.is_none_or(|looked_us| now_us - looked_us >= LOOK_EVERY_US) {
            self.look(known)?;
            self.looked_us = Some(self.shared.clock.monotonic_us());
        }
        if self.streams.values().all(|stream| stream.stopped.is_some()) {
            self.rest(POLL_TIMEOUT);
            return Ok(());
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let read = self.streams.iter().filter(|(_, stream)| stream.stopped.is_none());
                let positions = read.map(|(partition, stream)| (*partition, stream.next)).collect();
                self.reader.insert(self.input.connector.open(&positions)?)
            }
        };
        fail::fail_point!("pipeline::poll", |_| Err(Error::Unavailable("failpoint pipeline::poll".into())));
        let wait_us = self.input.pace.wait_us(self.shared.clock.monotonic_us());
        if wait_us > 0 {
            self.rest(Duration::from_micros(wait_us as u64).min(POLL_TIMEOUT));
            self.watch_flows();
            return Ok(());
        }
        let (messages, bytes) = self.input.pace.batch(MESSAGES_MAX, BYTES_MAX);
        let fetched = reader.poll(messages, bytes, POLL_TIMEOUT)?;
        self.input.pace.took(&fetched);
        let is_waiting = |stream: &Stream| stream.stopped.is_none() && stream.next < stream.high;
        if !fetched.is_empty() || !self.streams.values().any(is_waiting) {
            self.beat.is_well();
        }
        for one in fetched {
            if !self.take(one)? {
                return Ok(());
            }
        }
        self.watch_flows();
        Ok(())
    }

    /// Finds partitions, and where they end now.
    fn look(&mut self, known: &BTreeMap<u32, Known>) -> Result<()> {
        let partitions = self.input.connector.partitions()?;
        let is_unknown = |partition: &u32| self.share.has(*partition) && !self.streams.contains_key(partition);
        let unknown: Vec<u32> = partitions.iter().copied().filter(is_unknown).collect();
        let fresh: Vec<u32> = unknown.iter().copied().filter(|partition| !known.contains_key(partition)).collect();
        let start = start_of_fresh(&self.input.start, self.is_known || !known.is_empty());
        let begins = if fresh.is_empty() { BTreeMap::new() } else { self.input.connector.resolve(&start, &fresh)? };
        let places: BTreeMap<u32, Place> = unknown
            .iter()
            .filter_map(|partition| {
                let known = known.get(partition)?;
                Some((*partition, Place { landmark: known.landmark?, position: known.position }))
            })
            .collect();
        let recognized = if places.is_empty() { BTreeMap::new() } else { self.input.connector.recognize(&places)? };
        for partition in unknown {
            let next = match (known.get(&partition), begins.get(&partition)) {
                (Some(known), _) => known.position,
                (None, Some(begin)) => *begin,
                (None, None) => {
                    let message = format!("the source does not say where its partition {partition} begins");
                    return Err(Error::Unavailable(message));
                }
            };
            let high = self.input.connector.watermarks(partition)?.high;
            let flow = Flow::Behind;
            let active_us = self.shared.clock.monotonic_us();
            let mut stream = Stream { next, high, flow, active_us, has_rows: false, stopped: None };
            stream.has_rows = known.get(&partition).is_some_and(|known| known.has_rows);
            if let Some(Recognition::Other(reason)) = recognized.get(&partition) {
                let why =
                    format!("the topic was deleted and made anew, or is another one: {reason}; nothing of it is read");
                self.stopped(partition, &mut stream, "topic_remade", why);
            } else if high < next {
                let why = format!("the source ends at offset {high}, before offset {next} that was read already");
                self.stopped(partition, &mut stream, "truncated", why);
            }
            if fresh.contains(&partition) && !self.send(Arrival::Begin { stream: self.id(partition), offset: next }) {
                return Ok(());
            }
            if !self.send(Arrival::Flow { stream: self.id(partition), flow }) {
                return Ok(());
            }
            if stream.stopped.is_none()
                && let Some(reader) = &mut self.reader
            {
                reader.add(partition, next)?;
            }
            self.streams.insert(partition, stream);
        }
        for (partition, stream) in &mut self.streams {
            stream.high = stream.high.max(self.input.connector.watermarks(*partition)?.high);
        }
        let ends: Vec<_> = self.streams.iter().map(|(partition, stream)| (self.id(*partition), stream.high)).collect();
        self.shared.ends.lock().extend(ends);
        if !self.is_known {
            self.is_known = self.send(Arrival::Known { source: self.input.id });
        }
        Ok(())
    }

    fn stopped(&self, partition: u32, stream: &mut Stream, kind: &'static str, why: String) {
        let message = format!(
            "partition {partition} of source '{}' stopped at offset {} for pipeline '{}': {why}",
            self.input.name, stream.next, self.shared.name
        );
        self.shared.event(Severity::Page, kind, message.clone());
        self.shared.set_input_error(self.input.id, Some(message));
        stream.stopped = Some(why);
    }

    fn stop_stream(&mut self, partition: u32, kind: &'static str, why: String) {
        if let Some(mut stream) = self.streams.remove(&partition) {
            self.stopped(partition, &mut stream, kind, why);
            self.streams.insert(partition, stream);
            // A reader cannot leave a partition.
            self.reader = None;
        }
    }

    /// Takes what a poll brought; false when the pipeline stops.
    fn take(&mut self, fetched: Fetched) -> Result<bool> {
        let partition = fetched.partition();
        if self.streams.get(&partition).is_none_or(|stream| stream.stopped.is_some()) {
            return Ok(true);
        }
        match fetched {
            Fetched::Messages(batch) => {
                let mut rest = Some(batch);
                while let Some(batch) = rest.take() {
                    let decoder = match &mut self.decoder {
                        Some(decoder) => decoder,
                        None => self.decoder.insert((self.input.decoder)()?),
                    };
                    let id = StreamId { source: self.input.id, partition };
                    let (decoded, left) = decode_batch(&mut **decoder, id, batch)?;
                    rest = left;
                    if !self.give(partition, decoded) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Fetched::Rows(mut batch) => {
                batch.stream.source = self.input.id;
                Ok(self.give(partition, batch))
            }
            Fetched::Gap { wanted, found, .. } => self.gap(partition, wanted, found),
            Fetched::End { .. } => Ok(self.set_flow(partition, Flow::Idle)),
        }
    }

    fn give(&mut self, partition: u32, batch: SourceBatch) -> bool {
        if batch.to == batch.from && batch.rows.num_rows() == 0 {
            return true;
        }
        let mut batch = self.input.checks.apply(batch);
        let bad = first_reject(&batch.rejects).filter(|_| self.input.on_error == OnError::Stop);
        if let Some(reject) = &bad {
            cut_at(&mut batch, reject.offset);
        }
        let (to, had_rows) = (batch.to, batch.rows.num_rows() > 0);
        let landmark = batch.origin.as_ref().and_then(|origin| Landmark::last_below(origin, to));
        if to > batch.from {
            if !self.send(Arrival::Rows { source: self.place, batch: Box::new(batch), landmark }) {
                return false;
            }
            let now_us = self.shared.clock.monotonic_us();
            if let Some(stream) = self.streams.get_mut(&partition) {
                stream.next = to;
                stream.active_us = now_us;
                if had_rows {
                    stream.has_rows = true;
                    self.shared.begun(now_us);
                }
                if had_rows && stream.flow == Flow::Idle {
                    stream.flow = Flow::CaughtUp;
                }
            }
        }
        if let Some(reject) = bad {
            let why = format!("the message at offset {} is bad and on_error is stop: {}", reject.offset, reject.reason);
            self.stop_stream(partition, "bad_message", why);
        }
        true
    }

    fn gap(&mut self, partition: u32, wanted: u64, found: u64) -> Result<bool> {
        let lost = format!("offsets {wanted} to {found} (excluded) are gone before they were read");
        if self.input.on_gap == OnGap::Stop || found < wanted {
            let hint = format!("{lost}; ALTER SOURCE {} SET (on_gap = 'skip') goes on without them", self.input.name);
            self.stop_stream(partition, "gap", hint);
            return Ok(true);
        }
        let message = format!(
            "partition {partition} of source '{}' of pipeline '{}': {lost}; skipped, as on_gap says",
            self.input.name, self.shared.name
        );
        self.shared.event(Severity::Warning, "gap", message);
        if !self.send(Arrival::Skip { stream: self.id(partition), to: found }) {
            return Ok(false);
        }
        if let Some(stream) = self.streams.get_mut(&partition) {
            stream.next = found;
        }
        match &mut self.reader {
            Some(reader) => reader.seek(partition, found).map(|()| true),
            None => Ok(true),
        }
    }

    fn set_flow(&mut self, partition: u32, flow: Flow) -> bool {
        match self.streams.get_mut(&partition) {
            Some(stream) if stream.flow != flow => {
                stream.flow = flow;
                self.send(Arrival::Flow { stream: self.id(partition), flow })
            }
            _ => true,
        }
    }

    /// Says of streams that they were read to their end, and that they have been silent for long.
    fn watch_flows(&mut self) {
        let now_us = self.shared.clock.monotonic_us();
        let idle_us = self.shared.options().idle_timeout_us;
        let mut changed = Vec::new();
        for (partition, stream) in &self.streams {
            if stream.next < stream.high || stream.stopped.is_some() {
                continue;
            }
            match stream.flow {
                Flow::Behind
                    if !stream.has_rows && now_us - self.shared.first_row_us(stream.active_us) < EMPTY_GRACE_US => {}
                Flow::Behind => changed.push((*partition, Flow::CaughtUp)),
                Flow::CaughtUp if now_us - stream.active_us >= idle_us => changed.push((*partition, Flow::Idle)),
                _ => {}
            }
        }
        for (partition, flow) in changed {
            if !self.set_flow(partition, flow) {
                return;
            }
        }
    }
}
