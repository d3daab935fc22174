//! Cutting batches in front of a bad message, for `on_error = 'stop'`.

use crate::{
    message::{Reject, SourceBatch},
    pipeline::TransformedBatch,
};

/// The reject with the smallest offset.
pub(crate) fn first_reject(rejects: &[Reject]) -> Option<Reject> {
    rejects.iter().min_by_key(|reject| reject.offset).cloned()
}

/// Keeps what comes from messages below `offset`; the batch then speaks for no more than these.
pub(crate) fn cut_at(batch: &mut SourceBatch, offset: u64) {
    let rows = batch.row_offsets.partition_point(|row| *row < offset);
    batch.rows = batch.rows.slice(0, rows);
    batch.row_offsets.truncate(rows);
    batch.rejects.retain(|reject| reject.offset < offset);
    batch.to = offset.clamp(batch.from, batch.to);
}

/// Keeps what comes from messages below `offset`.
pub(super) fn cut_transformed_at(batch: &mut TransformedBatch, offset: u64) {
    let rows = batch.row_offsets.partition_point(|row| *row < offset);
    batch.rows = batch.rows.slice(0, rows);
    batch.row_offsets.truncate(rows);
    batch.rejects.retain(|reject| reject.offset < offset);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use tidemill_storage::ids::StreamId;

    use super::*;

    fn reject(offset: u64) -> Reject {
        Reject { offset, timestamp_ms: -1, column: None, reason: "bad".into(), raw: bytes::Bytes::new() }
    }

    #[test]
    fn keeps_exactly_what_is_before_the_bad_message() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12, 13]));
        let whole = SourceBatch {
            stream: StreamId::default(),
            rows: RecordBatch::try_from_iter([("v", values)]).unwrap(),
            row_offsets: vec![5, 5, 7, 9],
            from: 4,
            to: 12,
            newest_timestamp_ms: -1,
            rejects: vec![reject(11), reject(8)],
            origin: None,
        };
        let first = first_reject(&whole.rejects).unwrap();
        assert_eq!(first.offset, 8);
        for (offset, rows, rejects, to) in [(8, 3, 0, 8), (5, 0, 0, 5), (4, 0, 0, 4), (9, 3, 1, 9), (12, 4, 2, 12)] {
            let mut batch = whole.clone();
            cut_at(&mut batch, offset);
            assert_eq!(
                (batch.rows.num_rows(), batch.row_offsets.len(), batch.rejects.len(), batch.to),
                (rows, rows, rejects, to)
            );
        }
    }
}
