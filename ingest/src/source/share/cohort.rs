//! Readers whose positions lie close together, the lane that serves them, and the window of batches that not all of them have read.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{Bell, Caught, GRACE_US, Lane, STALL_US};
use crate::{
    Result,
    message::{Message, MessageBatch},
};

/// Batches of a window: few messages at a time must not make it long.
const WINDOW_BATCHES: usize = 1024;

pub(super) struct Cohort {
    number: u64,
    window_bytes: usize,
    state: Mutex<State>,
    /// First offset of the window, and the one after it: for a look without the lock, which a long fetch may hold.
    start: AtomicU64,
    head: AtomicU64,
    readers: AtomicUsize,
}

struct State {
    lane: Box<dyn Lane>,
    window: VecDeque<MessageBatch>,
    bytes: usize,
    /// Number of the window's first batch; batches are numbered as they come.
    first: u64,
    /// Next offset to fetch.
    head: u64,
    seats: BTreeMap<u64, Seat>,
    gap: Option<(u64, u64)>,
    broken: bool,
    /// Somebody waits for a reader that lags.
    held: bool,
}

struct Seat {
    /// Number of the batch to read next.
    next: u64,
    /// Next offset to read, which may lie inside that batch.
    position: u64,
    moved_us: i64,
    /// Since when others have waited for this reader, until it has read all.
    holding_since_us: Option<i64>,
}

/// What a reader gets.
pub(super) enum Read {
    Nothing,
    Batch(MessageBatch),
    Gap {
        wanted: u64,
        found: u64,
    },
    /// The reader has no seat here any more.
    Out,
}

impl Cohort {
    pub(super) fn new(number: u64, lane: Box<dyn Lane>, head: u64, window_bytes: usize) -> Self {
        Self {
            number,
            window_bytes,
            state: Mutex::new(State {
                lane,
                window: VecDeque::new(),
                bytes: 0,
                first: 0,
                head,
                seats: BTreeMap::new(),
                gap: None,
                broken: false,
                held: false,
            }),
            start: AtomicU64::new(head),
            head: AtomicU64::new(head),
            readers: AtomicUsize::new(0),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Who reads here now.
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// Cohorts are joined in this order: the one that is furthest ahead, of equals the oldest.
    pub(super) fn rank(&self) -> (u64, Reverse<u64>) {
        (self.head.load(Ordering::Relaxed), Reverse(self.number))
    }

    /// Whether a reader at `position` finds its next message here. Only a hint: [`Self::sit`] looks again.
    pub(super) fn covers(&self, position: u64) -> bool {
        (self.start.load(Ordering::Relaxed)..=self.head.load(Ordering::Relaxed)).contains(&position)
    }

    /// Takes a seat; false when `position` is not in the window.
    pub(super) fn sit(&self, reader: u64, position: u64, now_us: i64) -> bool {
        let mut state = self.state.lock();
        if state.broken || state.gap.is_some() || position > state.head || position < state.start() {
            return false;
        }
        let next = state.first + state.window.partition_point(|batch| batch.to <= position) as u64;
        state.seats.insert(reader, Seat { next, position, moved_us: now_us, holding_since_us: None });
        self.readers.store(state.seats.len(), Ordering::Relaxed);
        true
    }

    /// Gives a seat back; true when none is left.
    pub(super) fn rise(&self, reader: u64) -> bool {
        let mut state = self.state.lock();
        state.seats.remove(&reader);
        self.readers.store(state.seats.len(), Ordering::Relaxed);
        state.seats.is_empty()
    }

    /// What the reader has not read yet of the window; at its end, what the lane has.
    pub(super) fn read(
        &self,
        reader: u64,
        max_messages: usize,
        max_bytes: usize,
        now_us: i64,
        bell: &Bell,
    ) -> Result<Read> {
        let mut state = self.state.lock();
        if state.broken {
            return Ok(Read::Out);
        }
        let end = state.end();
        let Some(seat) = state.seats.get_mut(&reader) else { return Ok(Read::Out) };
        seat.moved_us = now_us;
        if seat.next < end {
            let batch = state.take(reader, max_messages, max_bytes);
            if std::mem::take(&mut state.held) {
                bell.ring();
            }
            return Ok(Read::Batch(batch));
        }
        seat.holding_since_us = None;
        if let Some((wanted, found)) = state.gap {
            return Ok(Read::Gap { wanted, found });
        }
        let room = state.make_room(self.window_bytes, now_us);
        self.readers.store(state.seats.len(), Ordering::Relaxed);
        self.start.store(state.start(), Ordering::Relaxed);
        if !room {
            state.held = true;
            return Ok(Read::Nothing);
        }
        match state.lane.poll(max_messages, max_bytes)? {
            Caught::Nothing => Ok(Read::Nothing),
            Caught::Messages(batch) => {
                state.push(batch.clone());
                let (end, head) = (state.end(), state.head);
                if let Some(seat) = state.seats.get_mut(&reader) {
                    (seat.next, seat.position) = (end, head);
                }
                self.head.store(head, Ordering::Relaxed);
                Ok(Read::Batch(batch))
            }
            Caught::Gap { wanted, found } => {
                state.gap = Some((wanted, found));
                Ok(Read::Gap { wanted, found })
            }
            Caught::Broken => {
                state.broken = true;
                Ok(Read::Out)
            }
        }
    }
}

impl State {
    fn start(&self) -> u64 {
        self.window.front().map_or(self.head, |batch| batch.from)
    }

    /// Number after the window's last batch.
    fn end(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    fn push(&mut self, batch: MessageBatch) {
        self.head = batch.to;
        self.bytes += size(&batch);
        self.window.push_back(batch);
    }

    /// Lets go of what all have read, until the window has room for a batch. Readers that hold it up for too long lose their seats. False when it
    /// is full of what somebody has still to read.
    fn make_room(&mut self, window_bytes: usize, now_us: i64) -> bool {
        while self.bytes >= window_bytes || self.window.len() >= WINDOW_BATCHES {
            let first = self.first;
            let mut waits = false;
            self.seats.retain(|_, seat| {
                if seat.next > first {
                    return true;
                }
                let since_us = *seat.holding_since_us.get_or_insert(now_us);
                let stays = now_us - since_us < GRACE_US && now_us - seat.moved_us.max(since_us) < STALL_US;
                waits |= stays;
                stays
            });
            if waits {
                return false;
            }
            if let Some(batch) = self.window.pop_front() {
                self.bytes -= size(&batch);
                self.first += 1;
            }
        }
        true
    }

    /// The next batches of the window for a reader that has some there: one as it is, several small ones as one.
    fn take(&mut self, reader: u64, max_messages: usize, max_bytes: usize) -> MessageBatch {
        let end = self.end();
        let (from, next) = self.seats.get(&reader).map_or((self.head, end), |seat| (seat.position, seat.next));
        let unread = || self.window.iter().skip((next - self.first) as usize);
        let (mut count, mut messages, mut bytes) = (0, 0, 0);
        for batch in unread() {
            if count > 0 && (messages + batch.messages.len() > max_messages || bytes + batch.payloads.len() > max_bytes)
            {
                break;
            }
            count += 1;
            messages += batch.messages.len();
            bytes += batch.payloads.len();
        }
        let taken = match count {
            1 => unread().next().map(|batch| cut(batch, from)),
            _ => merge(unread().take(count), from, messages, bytes),
        };
        let taken = taken.unwrap_or_else(|| MessageBatch {
            partition: 0,
            payloads: bytes::Bytes::new(),
            messages: Vec::new(),
            from,
            to: from,
        });
        if let Some(seat) = self.seats.get_mut(&reader) {
            seat.next = next + count as u64;
            seat.position = taken.to;
            if seat.next == end {
                seat.holding_since_us = None;
            }
        }
        taken
    }
}

/// What a batch costs in a window.
fn size(batch: &MessageBatch) -> usize {
    batch.payloads.len() + batch.messages.len() * size_of::<Message>() + size_of::<MessageBatch>()
}

/// The messages of a batch from offset `from` on, over the same payloads.
fn cut(batch: &MessageBatch, from: u64) -> MessageBatch {
    let first = batch.messages.partition_point(|message| message.offset < from);
    MessageBatch {
        partition: batch.partition,
        payloads: batch.payloads.clone(),
        messages: batch.messages[first..].to_vec(),
        from: batch.from.max(from),
        to: batch.to,
    }
}

/// Batches that follow each other as one, from offset `from` on.
fn merge<'a>(
    batches: impl Iterator<Item = &'a MessageBatch>,
    from: u64,
    messages: usize,
    bytes: usize,
) -> Option<MessageBatch> {
    let mut merged: Option<MessageBatch> = None;
    let mut payloads = Vec::with_capacity(bytes);
    for batch in batches {
        let into = merged.get_or_insert_with(|| MessageBatch {
            partition: batch.partition,
            payloads: bytes::Bytes::new(),
            messages: Vec::with_capacity(messages),
            from: batch.from.max(from),
            to: batch.to,
        });
        into.to = batch.to;
        for message in batch.messages.iter().filter(|message| message.offset >= from) {
            let start = payloads.len() as u32;
            payloads.extend_from_slice(batch.payload(message));
            into.messages.push(Message { payload: start..payloads.len() as u32, ..message.clone() });
        }
    }
    if let Some(merged) = &mut merged {
        merged.payloads = payloads.into();
    }
    merged
}

impl fmt::Debug for Cohort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cohort").field("number", &self.number).field("readers", &self.readers()).finish_non_exhaustive()
    }
}
