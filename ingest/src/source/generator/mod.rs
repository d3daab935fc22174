//! The demo: a plausible stream of food-delivery orders, at a chosen rate, without a broker.
//!
//! Every row is a function of (seed, partition, offset), event time included: `epoch` + offset ÷ rate. So reading again gives the
//! same rows, and the demo is as exactly-once as a topic. A partition holds the rows whose event time has come; with `rate = 0` it holds all
//! of them, and event time advances by a microsecond per row and partition.

mod options;
mod orders;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use tidemill_storage::{
    clock::Clock,
    ids::{SourceId, StreamId, TableId},
    schema::DataType,
};

pub use self::options::GeneratorOptions;
use self::orders::Layout;
use super::{ConnectContext, Connector, Fetched, Reader, Start, Watermarks};
use crate::{Error, Result, decode::SourceColumn, message::SourceBatch};

/// Bytes that a row takes in a poll's limit, roughly.
const ROW_BYTES: usize = 150;
/// The most rows of one batch.
const BATCH_ROWS_MAX: usize = 64 * 1024;
/// Offsets end here, so that no time or id overflows.
const OFFSET_MAX: u64 = 1 << 52;

/// The columns that the generator knows: what a source has that is created without columns.
pub fn columns() -> Vec<SourceColumn> {
    let text_array = DataType::Array(Box::new(DataType::Text));
    vec![
        SourceColumn::new("order_id", DataType::BigInt, false),
        SourceColumn::new("restaurant_id", DataType::BigInt, false),
        SourceColumn::new("customer_id", DataType::BigInt, false),
        SourceColumn::new("courier_id", DataType::BigInt, true),
        SourceColumn::new("city", DataType::Text, false),
        SourceColumn::new("status", DataType::Text, false),
        SourceColumn::new("items", DataType::Int, false),
        SourceColumn::new("total_price", DataType::Double, false),
        SourceColumn::new("tags", text_array, false),
        SourceColumn::new("lat", DataType::Double, false),
        SourceColumn::new("lon", DataType::Double, false),
        SourceColumn::new("ts", DataType::TimestampTz, false),
    ]
}

/// A generator of the context's columns, each of which must be one of [`columns`] by name and type.
pub(super) fn connect(options: &GeneratorOptions, context: &ConnectContext) -> Result<Arc<dyn Connector>> {
    let layout = Layout::new(&context.columns).map_err(|message| Error::Definition {
        message,
        hint: Some("leave the columns out to have them all".into()),
    })?;
    let epoch_us = options.epoch_us.unwrap_or_else(|| context.clock.now_us());
    Ok(Arc::new(GeneratorConnector {
        stream: Arc::new(Generator { options: options.clone(), epoch_us, layout, clock: Arc::clone(&context.clock) }),
        source: context.source,
    }))
}

#[derive(Debug)]
struct Generator {
    options: GeneratorOptions,
    epoch_us: i64,
    layout: Layout,
    clock: Arc<dyn Clock>,
}

impl Generator {
    /// Event time of a row. Partitions take turns in event time.
    fn time_us(&self, partition: u32, offset: u64) -> i64 {
        let since = match self.options.rate {
            0 => u128::from(offset),
            rate => {
                let row = u128::from(offset) * u128::from(self.options.partitions) + u128::from(partition);
                row * 1_000_000 / u128::from(rate)
            }
        };
        self.epoch_us.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// Rows that a partition will ever have.
    fn rows(&self, partition: u32) -> u64 {
        let partitions = u64::from(self.options.partitions);
        self.options
            .rows
            .map_or(OFFSET_MAX, |rows| (rows + partitions - 1 - u64::from(partition)) / partitions)
            .min(OFFSET_MAX)
    }

    /// Rows whose event time is not after `at_us`.
    fn rows_until(&self, partition: u32, at_us: i64) -> u64 {
        let all = self.rows(partition);
        if self.options.rate == 0 {
            return all;
        }
        let (mut low, mut high) = (0, all);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time_us(partition, middle) <= at_us { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn there(&self, partition: u32) -> u64 {
        self.rows_until(partition, self.clock.now_us())
    }
}

#[derive(Debug)]
struct GeneratorConnector {
    stream: Arc<Generator>,
    source: SourceId,
}

impl Connector for GeneratorConnector {
    fn partitions(&self) -> Result<Vec<u32>> {
        Ok((0..self.stream.options.partitions).collect())
    }

    fn resolve(&self, start: &Start, partitions: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let offset = |partition: u32| match start {
            Start::Earliest | Start::Committed => 0,
            Start::Latest => self.stream.there(partition),
            // The first row that is not before it; capped by what there is now.
            Start::TimestampMs(ms) => self
                .stream
                .rows_until(partition, ms.saturating_mul(1000).saturating_sub(1))
                .min(self.stream.there(partition)),
            Start::Offsets(offsets) => offsets.get(&partition).copied().unwrap_or(0),
        };
        Ok(partitions.iter().map(|partition| (*partition, offset(*partition))).collect())
    }

    fn watermarks(&self, partition: u32) -> Result<Watermarks> {
        Ok(Watermarks { low: 0, high: self.stream.there(partition) })
    }

    fn open(&self, positions: &BTreeMap<u32, u64>) -> Result<Box<dyn Reader>> {
        let mut reader =
            GeneratorReader { stream: Arc::clone(&self.stream), source: self.source, lanes: BTreeMap::new() };
        for (partition, offset) in positions {
            reader.add(*partition, *offset)?;
        }
        Ok(Box::new(reader))
    }

    fn committed(&self, _table: TableId, _positions: &BTreeMap<u32, u64>) {}
}

struct GeneratorReader {
    stream: Arc<Generator>,
    source: SourceId,
    /// Next offset of each partition, and whether its end was told.
    lanes: BTreeMap<u32, (u64, bool)>,
}

impl GeneratorReader {
    fn fetch(&mut self, rows_max: usize) -> Result<Vec<Fetched>> {
        let Self { stream, source, lanes } = self;
        let now_us = stream.clock.now_us();
        let mut fetched = Vec::new();
        for (&partition, (next, ended)) in lanes {
            let there = stream.rows_until(partition, now_us);
            let from = *next;
            let to = there.min(from.saturating_add(rows_max as u64));
            if from < to {
                let identity = (stream.options.seed, partition, stream.options.partitions);
                let rows =
                    orders::rows(&stream.layout, identity, from..to, |offset| stream.time_us(partition, offset))?;
                *next = to;
                fetched.push(Fetched::Rows(SourceBatch {
                    stream: StreamId { source: *source, partition },
                    rows,
                    row_offsets: (from..to).collect(),
                    from,
                    to,
                    // Without a rate the rows' times have nothing to do with when they come.
                    newest_timestamp_ms: match stream.options.rate {
                        0 => now_us / 1000,
                        _ => stream.time_us(partition, to - 1) / 1000,
                    },
                    rejects: Vec::new(),
                    origin: None,
                }));
            }
            if stream.options.rows.is_some() && !*ended && *next >= stream.rows(partition) {
                *ended = true;
                fetched.push(Fetched::End { partition });
            }
        }
        Ok(fetched)
    }

    /// How long until the next row is there; `None` when no row will come.
    fn until_next(&self) -> Option<Duration> {
        let stream = &self.stream;
        let times = self.lanes.iter().filter(|(partition, (next, _))| *next < stream.rows(**partition));
        let next_us = times.map(|(partition, (next, _))| stream.time_us(*partition, *next)).min()?;
        Some(Duration::from_micros(next_us.saturating_sub(stream.clock.now_us()).max(0) as u64))
    }
}

impl Reader for GeneratorReader {
    fn poll(&mut self, max_messages: usize, max_bytes: usize, timeout: Duration) -> Result<Vec<Fetched>> {
        let rows_max = max_messages.min(max_bytes / ROW_BYTES).clamp(1, BATCH_ROWS_MAX);
        let fetched = self.fetch(rows_max)?;
        if !fetched.is_empty() || timeout.is_zero() {
            return Ok(fetched);
        }
        // Rows come one by one at their times; a few milliseconds together make better batches than one row at a time.
        let wait = self.until_next().map_or(timeout, |next| next.max(Duration::from_millis(2)).min(timeout));
        let (nobody, wakes) = (Mutex::new(()), Condvar::new());
        let _ = wakes.wait_for(&mut nobody.lock(), wait);
        self.fetch(rows_max)
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.add(partition, offset)
    }

    fn add(&mut self, partition: u32, offset: u64) -> Result<()> {
        if partition >= self.stream.options.partitions || offset > OFFSET_MAX {
            return Err(Error::Definition {
                message: format!("the generator has no offset {offset} in partition {partition}"),
                hint: Some("were its options changed?".into()),
            });
        }
        self.lanes.insert(partition, (offset, false));
        Ok(())
    }
}
