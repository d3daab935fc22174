//! What is remembered of the last message that was read of a stream, to know its topic again.
//!
//! ```text
//! topic that was read   … ─ m97 ─ m98 ─ marker │ position 100        landmark: (98, its time, its checksum)
//! the same topic later  … ─ m97 ─ m98 ─ marker ─ m100 ─ …            message 98 is the same, nothing else lies before 100
//! a topic made anew     n0 ─ … ─ n98 ─ n99 ─ n100 ─ …                message 98 is another one: offset 100 means nothing here
//! ```
//!
//! Offsets alone do not tell a topic from another one of the same name that has grown past them. A landmark is committed with the offsets that
//! it belongs to. It is always a message, never a marker of a transaction, so that it can be fetched again.

use serde::{Deserialize, Serialize};

use crate::message::MessageBatch;

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landmark {
    pub offset: u64,
    /// The producer's or broker's wall clock, milliseconds; -1 when unknown.
    pub timestamp_ms: i64,
    /// Length of the message; `None` without a value.
    pub bytes: Option<u64>,
    /// CRC-32C of the message.
    pub checksum: u32,
}

/// A landmark and where its stream goes on: between the two there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub landmark: Landmark,
    pub position: u64,
}

/// What a source says when it is asked for a place again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// The message is there.
    Same,
    /// Nothing can be said: the message is gone, by retention or compaction.
    Gone,
    /// The source ends before the position.
    Short,
    /// It is another source of the same name; says how that was seen.
    Other(String),
}

impl Landmark {
    pub fn new(offset: u64, timestamp_ms: i64, payload: Option<&[u8]>) -> Self {
        let bytes = payload.map(|payload| payload.len() as u64);
        Self { offset, timestamp_ms, bytes, checksum: crc32c::crc32c(payload.unwrap_or_default()) }
    }

    /// The last message of a batch below offset `to`.
    pub fn last_below(batch: &MessageBatch, to: u64) -> Option<Self> {
        let end = batch.messages.partition_point(|message| message.offset < to);
        let message = &batch.messages[..end].last()?;
        let payload = (!message.is_null).then(|| batch.payload(message));
        Some(Self::new(message.offset, message.timestamp_ms, payload))
    }
}

impl Place {
    /// Compares with the first message that the source has at or after the landmark's offset.
    pub fn recognize(&self, found: &Landmark) -> Recognition {
        if *found == self.landmark {
            return Recognition::Same;
        }
        if found.offset == self.landmark.offset {
            return Recognition::Other(format!(
                "the message at offset {} is not the one that was read there",
                self.landmark.offset
            ));
        }
        if (self.landmark.offset..self.position).contains(&found.offset) {
            return Recognition::Other(format!(
                "there is a message at offset {}, where there was none when it was read",
                found.offset
            ));
        }
        Recognition::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn batch(messages: &[(u64, Option<&str>)]) -> MessageBatch {
        let mut payloads = Vec::new();
        let mut list = Vec::new();
        for (offset, text) in messages {
            let start = payloads.len() as u32;
            payloads.extend_from_slice(text.unwrap_or_default().as_bytes());
            let payload = start..payloads.len() as u32;
            list.push(Message { payload, is_null: text.is_none(), offset: *offset, timestamp_ms: 7 });
        }
        MessageBatch { partition: 0, payloads: payloads.into(), messages: list, from: 0, to: 100 }
    }

    #[test]
    fn the_last_message_below_an_offset() {
        let batch = batch(&[(3, Some("a")), (5, None), (9, Some("b"))]);
        for (to, expected) in [
            (3, None),
            (4, Some(Landmark::new(3, 7, Some(b"a")))),
            (9, Some(Landmark::new(5, 7, None))),
            (100, Some(Landmark::new(9, 7, Some(b"b")))),
        ] {
            assert_eq!(Landmark::last_below(&batch, to), expected, "{to}");
        }
    }

    #[test]
    fn tells_the_same_topic_from_another_one() {
        let place = Place { landmark: Landmark::new(9, 7, Some(b"b")), position: 12 };
        assert_eq!(place.recognize(&Landmark::new(9, 7, Some(b"b"))), Recognition::Same);
        // An empty message is not one without a value.
        let other = [
            Landmark::new(9, 8, Some(b"b")),
            Landmark::new(9, 7, Some(b"c")),
            Landmark::new(9, 7, None),
            Landmark::new(10, 7, Some(b"b")),
            Landmark::new(11, 7, Some(b"b")),
        ];
        for found in other {
            assert!(matches!(place.recognize(&found), Recognition::Other(_)), "{found:?}");
        }
        assert_eq!(place.recognize(&Landmark::new(12, 7, Some(b"b"))), Recognition::Gone);
    }
}
