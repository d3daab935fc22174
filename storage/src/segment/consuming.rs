//! The consuming segment: rows in memory, columnar, one writer and any number of readers that never wait for each other.
//!
//! Rows are kept as immutable Arrow chunks. Appending publishes a new list of chunks; readers keep the list they took. Small
//! chunks at the tail are merged as they pile up, so that the list stays short and scans stay fast.

use std::{ops::Range, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches};

use super::{ColumnStats, Segment, SegmentState};
use crate::{
    Error, Result,
    evaluate::{evaluate, project},
    ids::{ColumnId, OffsetRange, SegmentId},
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
};

/// A run of at least this many rows is never merged again.
const CHUNK_ROWS: usize = 8192;

/// What readers see of a consuming segment at one moment.
#[derive(Clone, Debug)]
pub struct ConsumingSegment {
    id: SegmentId,
    state: SegmentState,
    schema: Arc<TableSchema>,
    chunks: Arc<Vec<RecordBatch>>,
    rows: u32,
    bytes: u64,
    offsets: Arc<Vec<OffsetRange>>,
}

impl ConsumingSegment {
    pub fn new(id: SegmentId, schema: Arc<TableSchema>) -> Self {
        Self {
            id,
            state: SegmentState::Consuming,
            schema,
            chunks: Arc::default(),
            rows: 0,
            bytes: 0,
            offsets: Arc::default(),
        }
    }

    /// This segment and `batch` after it. `batch` has every column of the segment's schema, in order.
    pub fn with(&self, batch: &RecordBatch, progress: &[OffsetRange]) -> Result<Self> {
        let mut chunks: Vec<RecordBatch> = self.chunks.as_ref().clone();
        if batch.num_rows() > 0 {
            chunks.push(batch.clone());
        }
        // Merge the tail like a binary counter: each row is copied O(log) times.
        while let [.., a, b] = chunks.as_slice() {
            if a.num_rows() >= CHUNK_ROWS || a.num_rows() > 2 * b.num_rows() {
                break;
            }
            let merged = concat_batches(&batch.schema(), [a, b])?;
            chunks.truncate(chunks.len() - 2);
            chunks.push(merged);
        }
        let mut offsets = self.offsets.as_ref().clone();
        for range in progress {
            match offsets.iter_mut().find(|known| known.stream == range.stream) {
                Some(known) => {
                    if known.to != range.from {
                        return Err(Error::Invalid(format!(
                            "offsets of {:?} jump from {} to {}",
                            range.stream, known.to, range.from
                        )));
                    }
                    known.to = range.to;
                }
                None => offsets.push(*range),
            }
        }
        let rows = u32::try_from(self.rows as usize + batch.num_rows())
            .map_err(|_| Error::Invalid("a segment holds at most 2^32 - 1 rows".into()))?;
        let bytes = chunks.iter().map(|chunk| chunk.get_array_memory_size() as u64).sum();
        Ok(Self { chunks: Arc::new(chunks), rows, bytes, offsets: Arc::new(offsets), ..self.clone() })
    }

    pub fn with_state(&self, state: SegmentState) -> Self {
        Self { state, ..self.clone() }
    }

    pub fn chunks(&self) -> &[RecordBatch] {
        &self.chunks
    }
}

impl Segment for ConsumingSegment {
    fn id(&self) -> SegmentId {
        self.id
    }

    fn state(&self) -> SegmentState {
        self.state
    }

    fn rows(&self) -> u32 {
        self.rows
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    fn offsets(&self) -> &[OffsetRange] {
        &self.offsets
    }

    fn stats(&self, _column: ColumnId) -> Option<&ColumnStats> {
        None
    }

    fn encoding(&self, column: ColumnId) -> Option<String> {
        self.schema.column(column).map(|_| "arrow".into())
    }

    fn scan(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator> {
        let output = request.output_schema()?;
        let mut pieces = Vec::new();
        let mut start = 0usize;
        for chunk in self.chunks.iter() {
            let end = start + chunk.num_rows();
            let from = start.max(rows.start as usize);
            let to = end.min(rows.end as usize);
            let mut at = from;
            while at < to {
                let length = (to - at).min(request.batch_rows.max(1));
                pieces.push(chunk.slice(at - start, length));
                at += length;
            }
            start = end;
        }
        let mut left = request.limit.unwrap_or(usize::MAX);
        Ok(Box::new(pieces.into_iter().filter_map(move |piece| {
            if left == 0 {
                return None;
            }
            let scanned = piece.num_rows() as u64;
            let result = evaluate(&request, &self.schema, &piece)
                .and_then(|mask| project(&request, &self.schema, &output, &piece, mask.as_ref(), left));
            match result {
                Ok(batch) => {
                    left -= batch.num_rows();
                    metrics.add(scanned, batch.num_rows() as u64, batch.get_array_memory_size() as u64);
                    (batch.num_rows() > 0).then_some(Ok(batch))
                }
                Err(error) => Some(Err(error)),
            }
        })))
    }
}
