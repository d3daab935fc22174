//! Finding a source's partitions and watermarks, beside consumption: a broker that is slow to answer holds nothing up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_storage::ids::StreamId;

use super::{
    feed::{FeedState, StreamState},
    group::{Group, reset_hint},
    pace::backoff,
    status::StreamRun,
    table::TableShared,
    waiting::{self, Said, Waiting},
};
use crate::{
    Error, Result,
    events::Severity,
    landmark::{Place, Recognition},
    route::{group_for, groups_wanted},
    source::Start,
};

/// New partitions are read within 5 s.
const LOOK_EVERY: Duration = Duration::from_millis(3_000);
/// A topic that seems to end before our position is believed after this many looks.
const SHORT_LOOKS: u32 = 2;
/// How often a source is asked whether it is still the same while it is read; at every start and after every doubt it is asked, too.
const RECOGNIZE_EVERY_US: i64 = 30_000_000;

/// What a discovery thread remembers from look to look, per partition.
#[derive(Default)]
struct Memory {
    /// Looks that found the source shorter than what was read.
    short: BTreeMap<u32, u32>,
    /// Where the source ended.
    highs: BTreeMap<u32, u64>,
    /// Where a stream was when the source was last known to be the one that it reads.
    places: BTreeMap<u32, Place>,
    /// Transactions that streams wait for.
    waiting: BTreeMap<u32, Option<Waiting>>,
    /// When that was asked.
    asked_us: Option<i64>,
}

/// The body of a discovery thread: returns when the feed stops.
pub(crate) fn discover(table: &Arc<TableShared>, feed: &Arc<FeedState>) {
    let mut failures = 0;
    let mut memory = Memory::default();
    while !feed.is_stopping() {
        match look(table, feed, &mut memory) {
            Ok(()) => {
                if failures > 0 {
                    *feed.error.lock() = None;
                }
                failures = 0;
                feed.rest_until_nudged(LOOK_EVERY);
            }
            Err(error) => {
                failures += 1;
                if matches!(error, Error::Missing(_)) {
                    // What comes after it under its name may be another one.
                    feed.doubt();
                }
                *feed.error.lock() = Some(error.to_string());
                feed.changed.notify_waiters();
                if failures == 1 {
                    table.event(
                        Severity::Warning,
                        "source_unavailable",
                        format!("source '{}' of table '{}': {error}; it is tried again", feed.feed.name, table.name),
                    );
                }
                feed.rest(backoff(failures));
            }
        }
    }
}

/// Looks at the source once.
fn look(table: &Arc<TableShared>, feed: &Arc<FeedState>, memory: &mut Memory) -> Result<()> {
    let partitions = feed.feed.connector.partitions()?;
    let unknown: Vec<u32> = {
        let streams = feed.streams.read();
        partitions.iter().copied().filter(|partition| !streams.contains_key(partition)).collect()
    };
    if !unknown.is_empty() {
        adopt(table, feed, &partitions, &unknown, memory)?;
    }
    if !feed.connected.swap(true, Ordering::SeqCst) {
        feed.changed.notify_waiters();
    }
    let streams: Vec<Arc<StreamState>> = feed.streams.read().values().cloned().collect();
    let mut is_short = false;
    for stream in &streams {
        let partition = stream.id.partition;
        let position = stream.position();
        let at_us = table.runtime.clock.monotonic_us();
        wait(table, feed, stream, memory.waiting.entry(partition).or_default(), at_us);
        let high = feed.feed.connector.watermarks(partition)?.high;
        if memory.highs.insert(partition, high).is_some_and(|before| high < before) {
            feed.doubt();
        }
        if high >= position {
            stream.set_high(high, at_us);
            memory.short.remove(&partition);
            continue;
        }
        if matches!(stream.run(), StreamRun::Stopped { .. }) {
            continue;
        }
        let looks = memory.short.entry(partition).or_insert(0);
        *looks += 1;
        if *looks < SHORT_LOOKS {
            // Should it grow past our position before the next look, it is still not ours.
            feed.doubt();
            is_short = true;
            continue;
        }
        *looks = 0;
        let error = format!(
            "the source ends at offset {high}, before offset {position} that was read already: it was truncated or made anew; {}",
            reset_hint(&feed.feed.name)
        );
        stop(table, feed, stream, "truncated", error);
    }
    let now_us = table.runtime.clock.monotonic_us();
    let is_due = memory.asked_us.is_none_or(|asked_us| now_us - asked_us >= RECOGNIZE_EVERY_US);
    let doubts = feed.doubts();
    if feed.is_doubtful() || is_due {
        recognize(table, feed, &streams, feed.is_doubtful(), memory)?;
        memory.asked_us = Some(now_us);
        if !is_short {
            feed.trust(doubts);
        }
    }
    for stream in &streams {
        // What was read first of a new stream is where the next question begins.
        if !memory.places.contains_key(&stream.id.partition)
            && let Some(place) = table.place(stream.id)
        {
            memory.places.insert(stream.id.partition, place);
        }
    }
    Ok(())
}

/// Says of a stream that it waits for a transaction of its producer, and that it does no more.
fn wait(
    table: &Arc<TableShared>,
    feed: &Arc<FeedState>,
    stream: &Arc<StreamState>,
    waiting: &mut Option<Waiting>,
    now_us: i64,
) {
    let open = waiting::open(feed, stream).filter(|_| stream.run() == StreamRun::Running && !feed.is_paused());
    let (waits_for, said) = Waiting::look(waiting, open, now_us);
    stream.set_waits_for(waits_for);
    let (severity, kind, text) = match said {
        None => return,
        Some(Said::Long(text)) => (Severity::Warning, "open_transaction", text),
        Some(Said::Over(text)) => (Severity::Info, "transaction_ended", text),
    };
    let message =
        format!("partition {} of source '{}' for table '{}': {text}", stream.id.partition, feed.feed.name, table.name);
    table.partition_of(stream.id.partition).event(severity, kind, Some(stream.id), message);
}

/// Asks the source whether it is still the one that is read, and stops the streams of which it is not. `all`: also those that have read
/// nothing since it was last asked.
fn recognize(
    table: &Arc<TableShared>,
    feed: &Arc<FeedState>,
    streams: &[Arc<StreamState>],
    all: bool,
    memory: &mut Memory,
) -> Result<()> {
    let mut asked = BTreeMap::new();
    let mut now = BTreeMap::new();
    for stream in streams.iter().filter(|stream| !matches!(stream.run(), StreamRun::Stopped { .. })) {
        let partition = stream.id.partition;
        let Some(place) = table.place(stream.id) else { continue };
        match memory.places.get(&partition) {
            Some(known) if all || *known != place => _ = asked.insert(partition, *known),
            Some(_) => continue,
            None if all => _ = asked.insert(partition, place),
            None => {}
        }
        now.insert(partition, place);
    }
    let answers = if asked.is_empty() { BTreeMap::new() } else { feed.feed.connector.recognize(&asked)? };
    for stream in streams {
        let partition = stream.id.partition;
        match answers.get(&partition) {
            Some(Recognition::Other(reason)) => {
                let read_since = match asked.get(&partition) {
                    Some(place) if stream.position() > place.position => format!(
                        "; rows of offsets {} to {} (excluded) may be of the new one",
                        place.position,
                        stream.position()
                    ),
                    _ => String::new(),
                };
                stop(table, feed, stream, "topic_remade", remade(&feed.feed.name, reason) + &read_since);
            }
            Some(Recognition::Short) => {}
            Some(Recognition::Same | Recognition::Gone) => {
                memory.places.extend(now.get(&partition).map(|place| (partition, *place)));
            }
            None if asked.contains_key(&partition) => return Err(silent(&[partition])),
            None => memory.places.extend(now.get(&partition).map(|place| (partition, *place))),
        }
    }
    Ok(())
}

fn remade(source: &str, reason: &str) -> String {
    format!(
        "the topic was deleted and made anew, or is another one: {reason}; nothing of it is read; {}",
        reset_hint(source)
    )
}

fn silent(partitions: &[u32]) -> Error {
    Error::Unavailable(format!("the source does not answer in time for its partitions {partitions:?}"))
}

/// Stops a stream, with an event.
fn stop(table: &Arc<TableShared>, feed: &Arc<FeedState>, stream: &Arc<StreamState>, kind: &'static str, error: String) {
    let message = format!(
        "partition {} of source '{}' stopped at offset {} for table '{}': {error}",
        stream.id.partition,
        feed.feed.name,
        stream.position(),
        table.name
    );
    table.partition_of(stream.id.partition).event(Severity::Page, kind, Some(stream.id), message);
    feed.stop_stream(stream, error);
    for group in feed.groups.lock().iter() {
        group.refresh();
    }
}

/// Begins to read the partitions `unknown` of `all`. Where a stream begins that was never read is asked of the source and made durable first;
/// of those that were, the source is asked whether it is the one that was read.
fn adopt(
    table: &Arc<TableShared>,
    feed: &Arc<FeedState>,
    all: &[u32],
    unknown: &[u32],
    memory: &mut Memory,
) -> Result<()> {
    // The table has the same partitions until the streams are known to the feed.
    let _moving = table.still.blocking_read();
    let source = feed.feed.source;
    let known = table.positions(source);
    let place = |partition: &u32| {
        let stream = StreamId { source, partition: *partition };
        Some((*partition, table.place(stream)?))
    };
    let places: BTreeMap<u32, Place> = unknown.iter().filter_map(place).collect();
    let answers = if places.is_empty() { BTreeMap::new() } else { feed.feed.connector.recognize(&places)? };
    let (unanswered, unknown): (Vec<u32>, Vec<u32>) = unknown
        .iter()
        .copied()
        .partition(|partition| places.contains_key(partition) && !answers.contains_key(partition));
    let fresh: Vec<u32> = unknown.iter().copied().filter(|partition| !known.contains_key(partition)).collect();
    let mut positions = known.clone();
    let begun = begin(table, feed, all, &fresh, &known, &mut positions)?;
    if begun && !fresh.is_empty() {
        let message = format!("source '{}' of table '{}' has new partitions {fresh:?}", feed.feed.name, table.name);
        table.event(Severity::Info, "new_partitions", message);
    }
    // Others that read the source must not pass for further than this table is.
    let begins = unknown.iter().filter_map(|partition| Some((*partition, *positions.get(partition)?))).collect();
    feed.feed.connector.committed(table.id, &begins);
    let mut groups_of_new = BTreeSet::new();
    let total = feed.streams.read().len() + unknown.len();
    for partition in &unknown {
        let id = StreamId { source, partition: *partition };
        let target = table.partition_of(*partition).id;
        let stream = Arc::new(StreamState::new(id, target, positions[partition]));
        let targets = table.targets(*partition);
        stream.set_targets(targets.iter().filter_map(|target| Some((target.id, target.position(id)?))));
        if let Some(us) = table.partition_of(*partition).watermark_us(id) {
            stream.raise_watermark(us);
        }
        memory.places.extend(places.get(partition).map(|place| (*partition, *place)));
        match answers.get(partition) {
            Some(Recognition::Other(reason)) => {
                stop(table, feed, &stream, "topic_remade", remade(&feed.feed.name, reason));
            }
            Some(Recognition::Short) => feed.doubt(),
            Some(Recognition::Same | Recognition::Gone) | None => {}
        }
        feed.streams.write().insert(*partition, stream);
        let mut groups = feed.groups.lock();
        let load: Vec<usize> = groups.iter().map(|group| group.load()).collect();
        let index = group_for(&load, groups_wanted(total, table.runtime.consume_threads));
        if index == groups.len() {
            groups.push(Arc::new(Group::default()));
            groups_of_new.insert(index);
        }
        groups[index].add(*partition);
    }
    let groups = feed.groups.lock().clone();
    for index in groups_of_new {
        table.spawn_consumer(feed, &groups[index], index)?;
    }
    feed.changed.notify_waiters();
    if unanswered.is_empty() { Ok(()) } else { Err(silent(&unanswered)) }
}

/// Makes durable where the partitions `fresh` of `all` begin, and puts it into `positions`; also where known ones begin in table partitions that do not
/// know yet. True when others of the source were read before.
fn begin(
    table: &Arc<TableShared>,
    feed: &Arc<FeedState>,
    all: &[u32],
    fresh: &[u32],
    known: &BTreeMap<u32, u64>,
    positions: &mut BTreeMap<u32, u64>,
) -> Result<bool> {
    let source = feed.feed.source;
    // The position of the first partition is made durable last: as long as it is missing, the source was never begun as a whole.
    let first = all.iter().min().copied().unwrap_or(0);
    let begun = known.contains_key(&first);
    if !fresh.is_empty() {
        let start = start_of_fresh(&feed.feed.start, begun);
        let resolved = feed.feed.connector.resolve(&start, fresh)?;
        for partition in fresh {
            let offset = *resolved.get(partition).ok_or_else(|| {
                Error::Unavailable(format!("the source does not say where its partition {partition} begins"))
            })?;
            positions.insert(*partition, offset);
        }
    }
    let wanted = fresh.iter().map(|partition| (*partition, positions[partition])).collect();
    table.begin(source, &wanted, first)?;
    Ok(begun)
}

/// A partition that appears in a source that is already read holds only messages that came after the start, so that it is read from its
/// beginning.
pub(crate) fn start_of_fresh(start: &Start, begun: bool) -> Start {
    match start {
        Start::Offsets(_) => start.clone(),
        _ if begun => Start::Earliest,
        _ => start.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_partitions_are_read_from_their_beginning() {
        let offsets = Start::Offsets(BTreeMap::from([(1, 5)]));
        for (start, begun, expected) in [
            (Start::Latest, false, Start::Latest),
            (Start::Latest, true, Start::Earliest),
            (Start::TimestampMs(5), true, Start::Earliest),
            (offsets.clone(), true, offsets),
        ] {
            assert_eq!(start_of_fresh(&start, begun), expected);
        }
    }
}
