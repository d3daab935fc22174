//! A batch of one stream into the table partitions that its rows belong to, as one step for readers.
//!
//! ```text
//! batch ─ split by the owner of the key ─► prepare, prepare, … ─► publish all, while no snapshot is taken ─► seal what is due
//! ```
//!
//! What always holds: each partition appends the offsets of a stream without holes; after a restart they may stand at different ones, and a
//! partition leaves out what it has.

use std::collections::BTreeMap;

use tidemill_storage::ids::{OffsetRange, SourceId, StreamId};

use super::{
    partition::{Appended, Batch, Held},
    table::TableShared,
};
use crate::{Result, landmark::Place, message::Reject, route};

impl TableShared {
    /// Appends one batch; it is visible when this returns. An error, and a schema that changed, may leave it in some of the partitions: these will not
    /// take it again.
    pub(super) fn append(&self, batch: &Batch<'_>) -> Result<Appended> {
        let _moving = self.still.blocking_read();
        let stream = batch.range.stream;
        let targets = self.targets(stream.partition);
        let Some(key) = self.table.key().filter(|_| targets.len() > 1) else { return targets[0].append(batch) };
        let parts = route::split(key, batch.schema, batch.rows, batch.row_offsets, targets.len() as u32)?;
        let home = route::table_partition(stream.partition, targets.len() as u32);
        let mut held: Vec<Held<'_>> = targets.iter().map(|target| target.hold()).collect();
        let mut outcome = Ok(Appended::Done);
        let mut prepared = Vec::new();
        for (at, (target, (rows, offsets))) in held.iter_mut().zip(&parts).enumerate() {
            let from = target.position(stream).unwrap_or(batch.range.from).max(batch.range.from);
            if from >= batch.range.to {
                continue;
            }
            let first = offsets.partition_point(|offset| *offset < from);
            let rejects: Vec<Reject> = match at == home.0 as usize {
                true => batch.rejects.iter().filter(|reject| reject.offset >= from).cloned().collect(),
                false => Vec::new(),
            };
            outcome = target.prepare(&Batch {
                rows: &rows.slice(first, rows.num_rows() - first),
                row_offsets: &offsets[first..],
                range: OffsetRange { from, ..batch.range },
                rejects: &rejects,
                ..*batch
            });
            match outcome {
                Ok(Appended::Done) => prepared.push(at),
                _ => break,
            }
        }
        let together = self.table.publishing();
        prepared.iter().for_each(|at| held[*at].publish());
        drop(together);
        for (at, target) in held.into_iter().enumerate() {
            if prepared.contains(&at) {
                target.finish();
            }
        }
        outcome
    }

    /// Moves a stream's offsets over messages that are gone: up to `to`.
    pub(super) fn skip(&self, source: &str, stream: StreamId, to: u64) -> Result<()> {
        let _moving = self.still.blocking_read();
        for target in self.targets(stream.partition).iter() {
            target.skip(source, stream, to)?;
        }
        Ok(())
    }

    /// Where the streams of a source go on, as far as they were ever read.
    pub(super) fn positions(&self, source: SourceId) -> BTreeMap<u32, u64> {
        let mut least = BTreeMap::new();
        let partitions = self.partitions();
        for (stream, position) in partitions.iter().flat_map(|partition| partition.positions(source)) {
            let known = least.entry(stream.partition).or_insert(position);
            *known = position.min(*known);
        }
        least
    }

    /// The last message that was read of a stream, and where it goes on.
    pub(super) fn place(&self, stream: StreamId) -> Option<Place> {
        let targets = self.targets(stream.partition);
        targets.iter().filter_map(|target| target.place(stream)).min_by_key(|place| place.position)
    }

    /// Records durably where streams of a source begin in table partitions that do not know: where they go on in the others, or where `fresh` says.
    /// That of the source's partition `last` comes after all others.
    pub(super) fn begin(&self, source: SourceId, fresh: &BTreeMap<u32, u64>, last: u32) -> Result<()> {
        let mut all = self.positions(source);
        all.extend(fresh);
        let partitions = self.partitions();
        let mut wanted: BTreeMap<usize, Vec<(StreamId, u64)>> = BTreeMap::new();
        for (partition, offset) in all {
            let stream = StreamId { source, partition };
            let targets = self.targets(partition);
            for target in targets.iter().filter(|target| target.position(stream).is_none()) {
                wanted.entry(target.id.0 as usize).or_default().push((stream, offset));
            }
        }
        for is_last in [false, true] {
            for (target, streams) in &wanted {
                let has_last = streams.iter().any(|(stream, _)| stream.partition == last);
                // With few partitions, one step for all is one sync less.
                let now: Vec<_> = match self.table.key() {
                    None => streams.iter().filter(|_| has_last == is_last).copied().collect(),
                    Some(_) => {
                        streams.iter().filter(|(stream, _)| (stream.partition == last) == is_last).copied().collect()
                    }
                };
                partitions[*target].begin(&now)?;
            }
        }
        Ok(())
    }
}
