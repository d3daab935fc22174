//! Shared readers against the plain twin: reading the log alone.

use std::{sync::atomic::AtomicBool, time::Duration};

use proptest::prelude::*;
use tidemill_storage::clock::ManualClock;

use super::*;
use crate::{
    message::{Message, MessageBatch},
    source::Fetched,
};

/// A partition in memory: `None` stands for an offset without a message.
#[derive(Debug, Default)]
struct Topic {
    log: Mutex<Vec<Option<Vec<u8>>>>,
    /// First offset that is still there.
    low: AtomicU64,
    /// Messages handed to lanes.
    fetched: AtomicU64,
    /// Lanes open now.
    lanes: AtomicU64,
    break_lanes: AtomicBool,
}

impl Topic {
    fn append(&self, messages: u64) {
        let mut log = self.log.lock();
        for _ in 0..messages {
            let offset = log.len();
            log.push((offset % 5 != 3).then(|| format!("message {offset}").into_bytes()));
        }
    }

    fn end(&self) -> u64 {
        self.log.lock().len() as u64
    }

    /// What a reader must get from `from` to `to`.
    fn between(&self, from: u64, to: u64) -> Vec<(u64, Vec<u8>)> {
        let log = self.log.lock();
        (from..to).filter_map(|offset| Some((offset, log[offset as usize].clone()?))).collect()
    }
}

#[derive(Debug)]
struct Memory(Arc<Topic>);

impl Fetcher for Memory {
    fn lane(&self, _partition: u32, offset: u64, _bell: &Arc<Bell>) -> Result<Box<dyn Lane>> {
        self.0.lanes.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(MemoryLane { topic: Arc::clone(&self.0), next: offset }))
    }

    fn serve(&self) -> Result<()> {
        Ok(())
    }

    fn partitions(&self) -> usize {
        // As small a window as there is.
        1 << 20
    }
}

struct MemoryLane {
    topic: Arc<Topic>,
    next: u64,
}

impl Lane for MemoryLane {
    fn poll(&mut self, max_messages: usize, _max_bytes: usize) -> Result<Caught> {
        if self.topic.break_lanes.swap(false, Ordering::SeqCst) {
            return Ok(Caught::Broken);
        }
        let low = self.topic.low.load(Ordering::SeqCst);
        if self.next < low {
            return Ok(Caught::Gap { wanted: self.next, found: low });
        }
        let to = self.topic.end().min(self.next + max_messages as u64);
        if to <= self.next {
            return Ok(Caught::Nothing);
        }
        let (mut payloads, mut messages) = (Vec::new(), Vec::new());
        for (offset, payload) in self.topic.between(self.next, to) {
            let start = payloads.len() as u32;
            payloads.extend_from_slice(&payload);
            messages.push(Message { payload: start..payloads.len() as u32, is_null: false, offset, timestamp_ms: -1 });
        }
        self.topic.fetched.fetch_add(messages.len() as u64, Ordering::SeqCst);
        let batch = MessageBatch { partition: 0, payloads: payloads.into(), messages, from: self.next, to };
        self.next = to;
        Ok(Caught::Messages(batch))
    }
}

impl Drop for MemoryLane {
    fn drop(&mut self) {
        self.topic.lanes.fetch_sub(1, Ordering::SeqCst);
    }
}

struct World {
    topic: Arc<Topic>,
    clock: Arc<ManualClock>,
    share: Arc<Share>,
    readers: Vec<(Box<dyn Reader>, u64)>,
}

impl World {
    fn new() -> Self {
        let (topic, clock) = (Arc::new(Topic::default()), Arc::new(ManualClock::default()));
        let share = Share::new(Arc::new(Memory(Arc::clone(&topic))), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { topic, clock, share, readers: Vec::new() }
    }

    fn open(&mut self, offset: u64) {
        self.readers.push((self.share.reader(&BTreeMap::from([(0, offset)])), offset));
    }

    /// Polls one reader, checks what it gets; returns how far it moved.
    fn poll(&mut self, reader: usize, max_messages: usize, max_bytes: usize) -> u64 {
        let (reader, position) = &mut self.readers[reader];
        let before = *position;
        for fetched in reader.poll(max_messages, max_bytes, Duration::ZERO).unwrap() {
            match fetched {
                Fetched::Messages(batch) => {
                    assert_eq!(batch.from, *position, "batches continue each other");
                    let got: Vec<_> = batch.messages.iter().map(|m| (m.offset, batch.payload(m).to_vec())).collect();
                    assert_eq!(got, self.topic.between(batch.from, batch.to));
                    *position = batch.to;
                }
                Fetched::Gap { wanted, found, .. } => {
                    // Retention may have gone on since the gap was found.
                    let low = self.topic.low.load(Ordering::SeqCst);
                    assert!(wanted == *position && (wanted + 1..=low).contains(&found), "{wanted} {found} {low}");
                    reader.seek(0, found).unwrap();
                    *position = found;
                }
                other => panic!("{other:?}"),
            }
        }
        *position - before
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Open(u64),
    Poll { reader: usize, max_messages: usize, max_bytes: usize },
    Drop(usize),
    Seek { reader: usize, offset: u64 },
    Wait(i64),
    BreakLanes,
    Truncate(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..20_000u64).prop_map(Step::Append),
        2 => any::<u64>().prop_map(Step::Open),
        20 => (any::<usize>(), 1..5_000usize, 1..200_000usize)
            .prop_map(|(reader, max_messages, max_bytes)| Step::Poll { reader, max_messages, max_bytes }),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(reader, offset)| Step::Seek { reader, offset }),
        3 => (0..2_000_000i64).prop_map(Step::Wait),
        1 => Just(Step::BreakLanes),
        1 => (0..100u64).prop_map(Step::Truncate),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn each_reads_as_if_alone(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            let count = world.readers.len();
            match step {
                Step::Append(messages) => world.topic.append(messages),
                Step::Open(offset) if count < 6 => world.open(offset % (world.topic.end() + 1)),
                Step::Poll { reader, max_messages, max_bytes } if count > 0 => {
                    world.poll(reader % count, max_messages, max_bytes);
                }
                Step::Drop(reader) if count > 0 => drop(world.readers.swap_remove(reader % count)),
                Step::Seek { reader, offset } if count > 0 => {
                    let offset = offset % (world.topic.end() + 1);
                    let (reader, position) = &mut world.readers[reader % count];
                    reader.seek(0, offset).unwrap();
                    *position = offset;
                }
                Step::Wait(us) => world.clock.advance_us(us),
                Step::BreakLanes => world.topic.break_lanes.store(true, Ordering::SeqCst),
                Step::Truncate(percent) => {
                    world.topic.low.fetch_max(world.topic.end() * percent / 100, Ordering::SeqCst);
                }
                _ => {}
            }
            prop_assert!(world.topic.lanes.load(Ordering::SeqCst) <= world.readers.len() as u64);
        }
        // All come to the end, also when some of them only wait for the others at first.
        for _ in 0..400 {
            world.clock.advance_us(STALL_US / 2);
            for reader in 0..world.readers.len() {
                world.poll(reader, 100_000, 100 << 20);
            }
        }
        let end = world.topic.end();
        for (_, position) in &world.readers {
            prop_assert_eq!(*position, end);
        }
        // And then they share one fetch.
        prop_assert_eq!(world.topic.lanes.load(Ordering::SeqCst), u64::from(!world.readers.is_empty()));
        world.readers.clear();
        prop_assert_eq!(world.topic.lanes.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn ten_readers_cost_one_fetch() {
    let mut world = World::new();
    (0..10).for_each(|_| world.open(0));
    for round in 0..300 {
        world.topic.append(1_000);
        world.clock.advance_us(5_000);
        for reader in 0..10 {
            // Some take smaller steps, and come later.
            if (round + reader) % 3 > 0 || reader % 2 == 0 {
                world.poll(reader, 2_000 + 300 * reader, 1 << 20);
            }
        }
    }
    for reader in 0..10 {
        while world.poll(reader, 10_000, 1 << 20) > 0 {}
        assert_eq!(world.readers[reader].0.sharing(0), 10);
    }
    let messages = world.topic.between(0, world.topic.end()).len() as u64;
    assert_eq!(world.topic.fetched.load(Ordering::SeqCst), messages);
}

#[test]
fn one_that_stands_still_is_left_behind_and_comes_back() {
    let mut world = World::new();
    world.topic.append(100_000);
    (0..3).for_each(|_| world.open(0));
    for reader in 0..3 {
        world.poll(reader, 100, 1 << 20);
    }
    // The third stops here. The others wait for it, but not for long.
    let mut waited_us = 0;
    while world.readers[0].1 < 100_000 {
        let moved = world.poll(0, 5_000, 1 << 20) + world.poll(1, 5_000, 1 << 20);
        if moved == 0 {
            world.clock.advance_us(50_000);
            waited_us += 50_000;
        }
    }
    assert!(waited_us > 0 && waited_us <= STALL_US + 50_000, "{waited_us}");
    while world.poll(1, 5_000, 1 << 20) > 0 {}
    assert_eq!(world.topic.lanes.load(Ordering::SeqCst), 1);
    // It goes on from where it stood, on its own at first.
    world.poll(2, 5_000, 1 << 20);
    assert_eq!(world.topic.lanes.load(Ordering::SeqCst), 2);
    while world.poll(2, 5_000, 1 << 20) > 0 {}
    assert_eq!(world.readers[2].1, 100_000);
    world.poll(2, 5_000, 1 << 20);
    assert_eq!(world.topic.lanes.load(Ordering::SeqCst), 1, "it sits with the others again");
}

#[test]
fn one_that_is_slower_holds_the_others_up_only_for_a_while() {
    let mut world = World::new();
    world.topic.append(400_000);
    (0..2).for_each(|_| world.open(0));
    let mut waits = 0;
    for beat in 0.. {
        world.clock.advance_us(100_000);
        if world.poll(0, 5_000, 1 << 20) == 0 {
            waits += 1;
        }
        if beat % 4 == 0 {
            world.poll(1, 500, 1 << 20);
        }
        if world.readers[0].1 == 400_000 {
            break;
        }
    }
    assert!(waits as i64 * 100_000 <= GRACE_US + 1_000_000, "{waits}");
    assert!(world.readers[1].1 < 100_000);
}

#[test]
fn a_ring_wakes_who_waits() {
    let bell = Bell::default();
    let heard = bell.heard();
    assert!(!bell.wait(heard, Duration::from_millis(1)));
    bell.ring();
    assert!(bell.wait(heard, Duration::from_secs(60)));
}
