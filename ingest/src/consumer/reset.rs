//! A source that is to be read from elsewhere: a topic that was made anew or truncated, or one that somebody wants read once more.
//!
//! ```text
//! ask the source ─► stop reading, for all tables ─► seal: what was read is committed ─► one transaction: the new positions ─► read on
//! ```
//!
//! What always holds: rows and dead letters that are here stay; the positions of all tables move in one step or not at all; what is read from
//! the new positions on is read exactly once. A crash at any moment leaves the old positions or the new ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidemill_storage::ids::{SourceId, StreamId};

use super::{TableIngest, feed::Feed};
use crate::{
    Error, Result,
    commit::StreamReset,
    events::Severity,
    runtime::blocking,
    source::{Connector, Start},
};

/// A source that a table has ceased to read, for now.
struct Suspended {
    table: Arc<TableIngest>,
    feed: Feed,
    is_paused: bool,
}

/// Has `tables` read a source from `start` on. With offsets per partition the partitions that are not named stay where they are; partitions
/// that the source no longer has are forgotten. Returns where the partitions begin. An error leaves everything as it was.
pub async fn reset(tables: &[Arc<TableIngest>], source: SourceId, start: &Start) -> Result<BTreeMap<u32, u64>> {
    let Some(first) = tables.first() else {
        return Err(Error::Definition { message: "no table reads from the source".into(), hint: None });
    };
    let feed = first.feed(source)?.feed.clone();
    let (start, name) = (start.clone(), feed.name.clone());
    let (present, target) = blocking(move || target(&*feed.connector, &feed.name, &start)).await?;
    let mut suspended = Vec::new();
    let moved = stop_and_move(tables, source, &present, &target, &mut suspended).await;
    for Suspended { table, feed, is_paused } in suspended {
        table.begin_feed(feed, is_paused)?;
        if moved.is_ok() {
            let message = format!("source '{name}' of table '{}' goes on at {target:?}", table.shared.name);
            table.shared.event(Severity::Warning, "source_reset", message);
        }
    }
    moved.map(|()| target)
}

/// The partitions that the source has, and where they are to begin.
fn target(connector: &dyn Connector, source: &str, start: &Start) -> Result<(BTreeSet<u32>, BTreeMap<u32, u64>)> {
    let present = connector.partitions()?;
    let Start::Offsets(offsets) = start else {
        return Ok((present.iter().copied().collect(), connector.resolve(start, &present)?));
    };
    for (partition, offset) in offsets {
        if !present.contains(partition) {
            return Err(Error::Definition {
                message: format!("source '{source}' has no partition {partition}"),
                hint: Some(format!("it has the partitions {present:?}")),
            });
        }
        let there = connector.watermarks(*partition)?;
        if !(there.low..=there.high).contains(offset) {
            return Err(Error::Definition {
                message: format!("partition {partition} of source '{source}' has no offset {offset}"),
                hint: Some(format!("it holds {} to {}", there.low, there.high)),
            });
        }
    }
    Ok((present.into_iter().collect(), offsets.clone()))
}

async fn stop_and_move(
    tables: &[Arc<TableIngest>],
    source: SourceId,
    present: &BTreeSet<u32>,
    target: &BTreeMap<u32, u64>,
    suspended: &mut Vec<Suspended>,
) -> Result<()> {
    for table in tables {
        let state = table.feed(source)?;
        let mut feed = state.feed.clone();
        feed.on_gap = state.on_gap();
        feed.transform = Arc::clone(&state.transform.load().transform);
        let is_paused = state.is_paused();
        let stopping = Arc::clone(table);
        blocking(move || stopping.remove_feed(source)).await?;
        suspended.push(Suspended { table: Arc::clone(table), feed, is_paused });
    }
    for table in tables {
        table.seal().await?;
    }
    let mut resets = Vec::new();
    for table in tables {
        let shared = &table.shared;
        let known = shared.positions(source).into_keys().filter(|partition| !present.contains(partition));
        let gone = known.map(|partition| (partition, None));
        let moves = gone.chain(target.iter().map(|(partition, offset)| (*partition, Some(*offset))));
        for (partition, to) in moves {
            let stream = StreamId { source, partition };
            let targets = shared.targets(partition);
            resets.extend(targets.iter().map(|target| StreamReset {
                table: shared.id,
                partition: target.id,
                stream,
                to,
            }));
        }
    }
    let log = Arc::clone(&tables[0].shared.runtime.log);
    let resets = blocking(move || log.reset(&resets).map(|()| resets)).await?;
    for table in tables {
        for reset in resets.iter().filter(|reset| reset.table == table.shared.id) {
            table.shared.partitions()[reset.partition.0 as usize].moved(reset.stream, reset.to);
        }
    }
    Ok(())
}
