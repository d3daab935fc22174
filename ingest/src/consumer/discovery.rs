//! Finding a source's partitions and watermarks, beside consumption: a broker that is slow to answer holds nothing up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_storage::ids::{PartitionId, StreamId};

use super::{
    feed::{FeedState, StreamState},
    group::Group,
    pace::backoff,
    status::StreamRun,
    table::TableShared,
};
use crate::{
    Error, Result,
    events::Severity,
    route::{group_for, groups_wanted},
    source::Start,
};

/// New partitions are read within 5 s.
const LOOK_EVERY: Duration = Duration::from_millis(3_000);
/// A topic that seems to end before our position is believed after this many looks.
const SHORT_LOOKS: u32 = 2;

/// The body of a discovery thread: returns when the feed stops.
pub(crate) fn discover(table: &Arc<TableShared>, feed: &Arc<FeedState>) {
    let mut failures = 0;
    let mut short = BTreeMap::new();
    while !feed.is_stopping() {
        match look(table, feed, &mut short) {
            Ok(()) => {
                if failures > 0 {
                    *feed.error.lock() = None;
                }
                failures = 0;
                feed.rest_until_nudged(LOOK_EVERY);
            }
            Err(error) => {
                failures += 1;
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
fn look(table: &Arc<TableShared>, feed: &Arc<FeedState>, short: &mut BTreeMap<u32, u32>) -> Result<()> {
    let partitions = feed.feed.connector.partitions()?;
    let unknown: Vec<u32> = {
        let streams = feed.streams.read();
        partitions.iter().copied().filter(|partition| !streams.contains_key(partition)).collect()
    };
    if !unknown.is_empty() {
        adopt(table, feed, &partitions, &unknown)?;
    }
    if !feed.connected.swap(true, Ordering::SeqCst) {
        feed.changed.notify_waiters();
    }
    let streams: Vec<Arc<StreamState>> = feed.streams.read().values().cloned().collect();
    for stream in streams {
        let position = stream.position();
        let at_us = table.runtime.clock.monotonic_us();
        let high = feed.feed.connector.watermarks(stream.id.partition)?.high;
        if high >= position {
            stream.set_high(high, at_us);
            short.remove(&stream.id.partition);
            continue;
        }
        let looks = short.entry(stream.id.partition).or_insert(0);
        *looks += 1;
        if *looks == SHORT_LOOKS && !matches!(stream.run(), StreamRun::Stopped { .. }) {
            let error = format!(
                "the source ends at offset {high}, before offset {position} that was read already: it was truncated or made \
                 anew; another source with another table reads it from its start"
            );
            let message = format!("partition {} of source '{}' stopped: {error}", stream.id.partition, feed.feed.name);
            table.partition_of(stream.id.partition).event(Severity::Page, "truncated", Some(stream.id), message);
            feed.stop_stream(&stream, error);
            for group in feed.groups.lock().iter() {
                group.refresh();
            }
        }
    }
    Ok(())
}

/// Begins to read the partitions `unknown` of `all`. Where a stream begins that was never read is asked of the source and made durable first.
fn adopt(table: &Arc<TableShared>, feed: &Arc<FeedState>, all: &[u32], unknown: &[u32]) -> Result<()> {
    let source = feed.feed.source;
    let known: BTreeMap<u32, u64> = table
        .partitions
        .iter()
        .flat_map(|partition| partition.positions(source))
        .map(|(stream, position)| (stream.partition, position))
        .collect();
    let fresh: Vec<u32> = unknown.iter().copied().filter(|partition| !known.contains_key(partition)).collect();
    let mut positions = known.clone();
    if !fresh.is_empty() {
        // The position of the first partition is made durable last: as long as it is missing, the source was never begun as a whole.
        let first = all.iter().min().copied().unwrap_or(0);
        let begun = known.contains_key(&first);
        let start = start_of_fresh(&feed.feed.start, begun);
        let resolved = feed.feed.connector.resolve(&start, &fresh)?;
        let mut by_partition: BTreeMap<PartitionId, Vec<(StreamId, u64)>> = BTreeMap::new();
        for partition in &fresh {
            let offset = *resolved.get(partition).ok_or_else(|| {
                Error::Unavailable(format!("the source does not say where its partition {partition} begins"))
            })?;
            let stream = StreamId { source, partition: *partition };
            by_partition.entry(table.partition_of(*partition).id).or_default().push((stream, offset));
        }
        let last = table.partition_of(first).id;
        let (ends, others): (Vec<_>, Vec<_>) = by_partition.into_iter().partition(|(partition, _)| *partition == last);
        for (partition, streams) in others.iter().chain(&ends) {
            table.partitions[partition.0 as usize].begin(streams)?;
            positions.extend(streams.iter().map(|(stream, offset)| (stream.partition, *offset)));
        }
        if begun {
            let message = format!("source '{}' of table '{}' has new partitions {fresh:?}", feed.feed.name, table.name);
            table.event(Severity::Info, "new_partitions", message);
        }
    }
    // Others that read the source must not pass for further than this table is.
    let begins = unknown.iter().filter_map(|partition| Some((*partition, *positions.get(partition)?))).collect();
    feed.feed.connector.committed(table.id, &begins);
    let mut groups_of_new = BTreeSet::new();
    let total = feed.streams.read().len() + unknown.len();
    for partition in unknown {
        let id = StreamId { source, partition: *partition };
        let target = table.partition_of(*partition).id;
        let stream = Arc::new(StreamState::new(id, target, positions[partition]));
        if let Some(us) = table.partition_of(*partition).watermark_us(id) {
            stream.raise_watermark(us);
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
    Ok(())
}

/// A partition that appears in a source that is already read holds only messages that came after the start, so that it is read from its
/// beginning.
fn start_of_fresh(start: &Start, begun: bool) -> Start {
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
