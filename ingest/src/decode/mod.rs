//! Formats: from message bytes to Arrow columns of the source's schema.

use arrow::array::RecordBatch;

use crate::message::{MessageBatch, Reject};

/// Turns messages into rows. One per thread; keeps its buffers between calls.
pub trait Decoder: Send {
    /// Every message of the batch ends in exactly one of rows (0..n of them) and rejects. Never fails as a whole and never panics,
    /// whatever the bytes.
    fn decode(&mut self, messages: &MessageBatch) -> Decoded;
}

#[derive(Clone, Debug)]
pub struct Decoded {
    /// The columns of the source's schema, in order, in the Arrow types of `tidemill_storage::schema`.
    pub rows: RecordBatch,
    /// The offset of each row's message.
    pub row_offsets: Vec<u64>,
    pub rejects: Vec<Reject>,
}
