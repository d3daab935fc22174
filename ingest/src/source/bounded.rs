//! A source with an end: the option `stop`, as offsets per partition.
//!
//! ```text
//! offsets   0 … start ──────── read ────────► stop │ never read
//! ```
//!
//! A partition without a stop is not read at all; so partitions that appear later do not reopen a bounded read.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use tidemill_storage::ids::TableId;

use super::{Connector, Fetched, Reader, Start, Watermarks};
use crate::{
    Result,
    landmark::{Place, Recognition},
    message::{MessageBatch, SourceBatch},
};

/// The connector, but ending at these offsets; partitions without one are not read.
pub(crate) fn bounded(inner: Arc<dyn Connector>, stops: BTreeMap<u32, u64>) -> Bounded {
    Bounded::new(inner, stops)
}

/// A connector that ends where `stops` says.
#[derive(Debug)]
pub(crate) struct Bounded {
    inner: Arc<dyn Connector>,
    stops: BTreeMap<u32, u64>,
}

impl Bounded {
    pub(super) fn new(inner: Arc<dyn Connector>, stops: BTreeMap<u32, u64>) -> Self {
        Self { inner, stops }
    }

    fn stop(&self, partition: u32) -> u64 {
        self.stops.get(&partition).copied().unwrap_or(0)
    }
}

impl Connector for Bounded {
    fn offsets_are_rows(&self) -> bool {
        self.inner.offsets_are_rows()
    }

    fn partitions(&self) -> Result<Vec<u32>> {
        let mut partitions = self.inner.partitions()?;
        partitions.retain(|partition| self.stops.contains_key(partition));
        Ok(partitions)
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let mut resolved = self.inner.resolve(start, partitions)?;
        for (partition, offset) in &mut resolved {
            *offset = (*offset).min(self.stop(*partition));
        }
        Ok(resolved)
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        let Watermarks { low, high } = self.inner.watermarks(partition)?;
        let stop = self.stop(partition);
        Ok(Watermarks { low: low.min(stop), high: high.min(stop) })
    }

    fn recognize(&self, places: &BTreeMap<u32, Place>) -> Result<BTreeMap<u32, Recognition>> {
        self.inner.recognize(places)
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        let mut reader = BoundedReader {
            connector: Arc::clone(&self.inner),
            stops: self.stops.clone(),
            inner: None,
            positions: BTreeMap::new(),
            ended: Vec::new(),
        };
        for (partition, offset) in positions {
            reader.enter(*partition, *offset);
        }
        reader.reopen()?;
        Ok(Box::new(reader))
    }

    fn committed(&self, table: TableId, positions: &BTreeMap<u32, u64>) {
        self.inner.committed(table, positions);
    }

    fn forget(&self, table: TableId) {
        self.inner.forget(table);
    }
}

struct BoundedReader {
    connector: Arc<dyn Connector>,
    stops: BTreeMap<u32, u64>,
    /// Reads the partitions of `positions`; `None` when all have ended.
    inner: Option<Box<dyn Reader>>,
    /// Where the partitions stand that have not ended.
    positions: BTreeMap<u32, u64>,
    /// Ended, and not yet told.
    ended: Vec<u32>,
}

impl BoundedReader {
    /// True when the partition goes on from `offset`.
    fn enter(&mut self, partition: u32, offset: u64) -> bool {
        if offset < self.stop(partition) {
            self.positions.insert(partition, offset);
            return true;
        }
        self.positions.remove(&partition);
        self.ended.push(partition);
        false
    }

    fn stop(&self, partition: u32) -> u64 {
        self.stops.get(&partition).copied().unwrap_or(0)
    }

    /// A reader cannot leave a partition: a new one reads those that go on.
    fn reopen(&mut self) -> Result<()> {
        self.inner = None;
        if !self.positions.is_empty() {
            self.inner = Some(self.connector.open(&self.positions)?);
        }
        Ok(())
    }

    /// What of a batch that ends at `to` lies before the stop; notes where the partition stands.
    fn advance(&mut self, partition: u32, to: u64) -> Advance {
        if !self.positions.contains_key(&partition) {
            return Advance::Drop;
        }
        let stop = self.stop(partition);
        if self.enter(partition, to) { Advance::Whole } else { Advance::CutAt(stop) }
    }
}

enum Advance {
    Whole,
    CutAt(u64),
    /// The partition had ended.
    Drop,
}

impl Reader for BoundedReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        let mut polled = Vec::new();
        if self.ended.is_empty() {
            let Some(inner) = &mut self.inner else {
                thread::sleep(timeout);
                return Ok(Vec::new());
            };
            for fetched in inner.poll(max_messages, max_bytes, timeout)? {
                match fetched {
                    Fetched::Messages(batch) => match self.advance(batch.partition, batch.to) {
                        Advance::Whole => polled.push(Fetched::Messages(batch)),
                        Advance::CutAt(stop) => polled.push(Fetched::Messages(cut_messages(batch, stop))),
                        Advance::Drop => {}
                    },
                    Fetched::Rows(batch) => match self.advance(batch.stream.partition, batch.to) {
                        Advance::Whole => polled.push(Fetched::Rows(batch)),
                        Advance::CutAt(stop) => polled.push(Fetched::Rows(cut_rows(batch, stop))),
                        Advance::Drop => {}
                    },
                    gap @ Fetched::Gap { .. } => polled.push(gap),
                    Fetched::End { partition } => {
                        if self.positions.remove(&partition).is_some() {
                            self.ended.push(partition);
                        }
                    }
                }
            }
        }
        if !self.ended.is_empty() {
            polled.extend(self.ended.drain(..).map(|partition| Fetched::End { partition }));
            self.reopen()?;
        }
        Ok(polled)
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        match (self.enter(partition, offset), &mut self.inner) {
            (true, Some(inner)) => inner.seek(partition, offset),
            _ => Ok(()),
        }
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        if !self.enter(partition, offset) {
            return Ok(());
        }
        match &mut self.inner {
            Some(inner) => inner.add(partition, offset),
            None => self.reopen(),
        }
    }

    fn sharing(&self, partition: u32) -> usize {
        self.inner.as_ref().map_or(1, |inner| inner.sharing(partition))
    }
}

fn cut_messages(mut batch: MessageBatch, stop: u64) -> MessageBatch {
    batch.messages.retain(|message| message.offset < stop);
    batch.to = batch.to.min(stop);
    batch
}

fn cut_rows(mut batch: SourceBatch, stop: u64) -> SourceBatch {
    let rows = batch.row_offsets.partition_point(|offset| *offset < stop);
    batch.rows = batch.rows.slice(0, rows);
    batch.row_offsets.truncate(rows);
    batch.rejects.retain(|reject| reject.offset < stop);
    batch.to = batch.to.min(stop);
    batch
}

#[cfg(test)]
mod tests {
    use tidemill_storage::{clock::ManualClock, ids::SourceId};

    use super::*;
    use crate::source::{ConnectContext, SourceOptions, generator};

    fn generator(stop: &str) -> Arc<dyn Connector> {
        let options =
            [("connector", "generator"), ("rate", "0"), ("rows", "1000"), ("partitions", "3"), ("stop", stop)];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let context = ConnectContext {
            source: SourceId(1),
            name: "demo".into(),
            columns: generator::columns(),
            clock: Arc::new(ManualClock::default()),
            log: None,
        };
        SourceOptions::parse(&options.into()).unwrap().connect(&context).unwrap().connector
    }

    /// First offset, next offset and rows of what a reader gives until all its partitions have ended.
    fn read(connector: &dyn Connector, positions: BTreeMap<u32, u64>) -> BTreeMap<u32, (u64, u64, usize)> {
        let mut reader = connector.open(&positions).unwrap();
        let mut seen: BTreeMap<u32, (u64, u64, usize)> = BTreeMap::new();
        let mut ended = std::collections::BTreeSet::new();
        while ended.len() < positions.len() {
            for fetched in reader.poll(7, 1 << 20, Duration::from_millis(1)).unwrap() {
                match fetched {
                    Fetched::Rows(batch) => {
                        assert_eq!(batch.rows.num_rows(), batch.row_offsets.len());
                        let one = seen.entry(batch.stream.partition).or_insert((batch.from, batch.from, 0));
                        assert_eq!(one.1, batch.from, "batches continue each other");
                        *one = (one.0, batch.to, one.2 + batch.rows.num_rows());
                    }
                    Fetched::End { partition } => assert!(ended.insert(partition), "an end is told once"),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(reader.poll(7, 1 << 20, Duration::from_millis(1)).unwrap().is_empty());
        seen
    }

    #[test]
    fn ends_exactly_where_it_is_told() {
        let connector = generator("offsets:{0:15,2:60}");
        assert_eq!(connector.partitions().unwrap(), [0, 2]);
        assert_eq!(connector.watermarks(0).unwrap(), Watermarks { low: 0, high: 15 });
        assert_eq!(connector.resolve(&Start::Latest, &[0, 2]).unwrap(), BTreeMap::from([(0, 15), (2, 60)]));
        let seen = read(&*connector, BTreeMap::from([(0, 3), (2, 60)]));
        assert_eq!(seen, BTreeMap::from([(0, (3, 15, 12))]));
        let seen = read(&*connector, BTreeMap::from([(0, 0), (2, 0)]));
        assert_eq!(seen, BTreeMap::from([(0, (0, 15, 15)), (2, (0, 60, 60))]));
    }

    #[test]
    fn a_stop_beyond_the_end_ends_at_the_end() {
        let connector = generator("offsets:{0:100000}");
        let high = connector.watermarks(0).unwrap().high;
        assert!(high < 1000);
        assert_eq!(read(&*connector, BTreeMap::from([(0, 0)])), BTreeMap::from([(0, (0, high, high as usize))]));
    }
}
