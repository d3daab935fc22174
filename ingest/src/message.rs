//! What moves between the steps of ingestion.

use std::ops::Range;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidemill_storage::ids::StreamId;

/// A run of raw messages of one stream, in offset order.
#[derive(Clone, Debug)]
pub struct MessageBatch {
    /// Partition of the source.
    pub partition: u32,
    /// All payloads, end to end.
    pub payloads: Bytes,
    /// One per message.
    pub messages: Vec<Message>,
    /// First offset that this batch speaks for; at most the first message's.
    pub from: u64,
    /// First offset after the batch; above the last message's. Control records and compacted offsets lie in between.
    pub to: u64,
}

/// Where a message stands in [`MessageBatch::payloads`], and where it comes from.
#[derive(Clone, Debug)]
pub struct Message {
    pub payload: Range<u32>,
    /// True for a message without a value (a tombstone): its payload is empty.
    pub is_null: bool,
    pub offset: u64,
    /// The producer's or broker's wall clock, milliseconds; -1 when unknown.
    pub timestamp_ms: i64,
}

impl MessageBatch {
    /// Leaves the first `count` messages and gives the others, if there are any.
    pub(crate) fn split_off(&mut self, count: usize) -> Option<Self> {
        let cut = self.messages.get(count)?.offset;
        let (from, to) = (cut, std::mem::replace(&mut self.to, cut));
        let messages = self.messages.split_off(count);
        Some(Self { partition: self.partition, payloads: self.payloads.clone(), messages, from, to })
    }

    pub fn payload(&self, message: &Message) -> &[u8] {
        &self.payloads[message.payload.start as usize..message.payload.end as usize]
    }
}

/// Decoded rows of one stream, in offset order; the columns of the source's schema.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    pub stream: StreamId,
    pub rows: RecordBatch,
    /// The offset each row came from; never decreasing. As long as `rows`.
    pub row_offsets: Vec<u64>,
    /// Half-open range of offsets that rows and rejects together account for.
    pub from: u64,
    pub to: u64,
    /// Largest message timestamp (milliseconds) in the range, -1 when unknown: freshness is measured from it.
    pub newest_timestamp_ms: i64,
    pub rejects: Vec<Reject>,
    /// The messages that the rows were decoded from, where there were any: for what a reject says of its message.
    pub origin: Option<MessageBatch>,
}

impl SourceBatch {
    /// When the message at `offset` was made (-1 when unknown) and, when it became one row, the message as it came.
    pub fn origin_of(&self, offset: u64) -> (i64, Option<Bytes>) {
        let Some(origin) = &self.origin else { return (-1, None) };
        let Ok(at) = origin.messages.binary_search_by_key(&offset, |message| message.offset) else { return (-1, None) };
        let message = &origin.messages[at];
        let first = self.row_offsets.partition_point(|row| *row < offset);
        let is_one_row = self.row_offsets.get(first + 1) != Some(&offset);
        // Copied: a slice would keep all the messages of the batch in memory.
        (message.timestamp_ms, is_one_row.then(|| Bytes::copy_from_slice(origin.payload(message))))
    }
}

/// A message, or a row of one, that could not become a row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    pub offset: u64,
    pub timestamp_ms: i64,
    /// The column at fault, where it is one column's.
    pub column: Option<String>,
    /// What is wrong, for a person.
    pub reason: String,
    /// The message as it came; where it cannot be told apart from other rows of the message, the row as JSON.
    pub raw: Bytes,
}
