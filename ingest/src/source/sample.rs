//! Some messages of a source, read beside everybody else: the first and the last ones of each partition.

use std::{collections::BTreeMap, time::Duration};

use tidemill_storage::clock::Clock;

use super::{Connector, Fetched};
use crate::{Error, Result, message::MessageBatch};

/// Bytes of a sample.
const BYTES_MAX: usize = 64 << 20;
/// How long a sample may take.
const PATIENCE_US: i64 = 30_000_000;
/// How long a partition that gives nothing is waited for: its last offsets may be those of transactions alone.
const SILENCE_US: i64 = 3_000_000;

/// About `wanted` messages. Blocks.
pub fn sample(connector: &dyn Connector, clock: &dyn Clock, wanted: usize) -> Result<Vec<MessageBatch>> {
    let began_us = clock.monotonic_us();
    let partitions = connector.partitions()?;
    let of_each = wanted.div_ceil(partitions.len().max(1)).max(1) as u64;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    for partition in partitions {
        let ends = connector.watermarks(partition)?;
        let tail = ends.high.saturating_sub(of_each.div_ceil(2)).max(ends.low);
        let head = (ends.low + of_each / 2).min(tail);
        for (from, to) in [(ends.low, head), (tail, ends.high)] {
            if from < to && bytes < BYTES_MAX && clock.monotonic_us() - began_us < PATIENCE_US {
                read(connector, clock, partition, from, to, &mut batches, &mut bytes)?;
            }
        }
    }
    Ok(batches)
}

/// The messages of a partition between two offsets, as far as there are any.
fn read(
    connector: &dyn Connector,
    clock: &dyn Clock,
    partition: u32,
    from: u64,
    to: u64,
    batches: &mut Vec<MessageBatch>,
    bytes: &mut usize,
) -> Result<()> {
    let mut reader = connector.open(&BTreeMap::from([(partition, from)]))?;
    let mut heard_us = clock.monotonic_us();
    let mut position = from;
    while position < to && *bytes < BYTES_MAX && clock.monotonic_us() - heard_us < SILENCE_US {
        let wanted = usize::try_from(to - position).unwrap_or(usize::MAX);
        for fetched in reader.poll(wanted, BYTES_MAX, Duration::from_millis(200))? {
            heard_us = clock.monotonic_us();
            match fetched {
                Fetched::Messages(mut batch) => {
                    position = batch.to;
                    let within = batch.messages.partition_point(|message| message.offset < to);
                    batch.split_off(within);
                    *bytes += batch.messages.iter().map(|message| message.payload.len()).sum::<usize>();
                    if !batch.messages.is_empty() {
                        batches.push(batch);
                    }
                }
                Fetched::Gap { found, .. } => {
                    position = found;
                    reader.seek(partition, found)?;
                }
                Fetched::End { .. } => position = to,
                Fetched::Rows(_) => {
                    return Err(Error::Unsupported {
                        message: "the source has rows with types of their own, and no messages to infer columns from"
                            .into(),
                        hint: Some("write the columns in parentheses".into()),
                    });
                }
            }
        }
    }
    Ok(())
}
