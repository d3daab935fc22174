//! The consuming segment: rows in memory, columnar, one writer and any number of readers that never wait for each other.
//!
//! Rows are kept as immutable Arrow chunks. Appending makes a new [`ConsumingSegment`] that shares all chunks but the last few with
//! the one before; readers keep the one they took.
//!
//! ```text
//! full: [4096+ rows][4096+ rows] … never touched again, shared by all versions
//! tail: [level 3][level 3][level 2][level 0]   levels never rise; a level holds 8^level to 8^(level+1) rows
//! ```
//!
//! Eight chunks of one level become one of the next, so that a row is copied at most once per level (five times in its life, once in
//! batches of a thousand), an append copies less than 8 × 4096 rows, and the tail has at most 35 chunks.
//!
//! What always holds: the rows of `full` then `tail` are the rows appended, in order; `bytes` is the sum over all chunks of what their
//! buffers take; no chunk pins memory beyond its own rows ([`compact`](super::compact)); the statistics cover exactly the rows.

mod aggregate;

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    compute::{and_kleene, concat},
    datatypes::SchemaRef,
};

use super::{ColumnStats, Segment, SegmentState, chunk::Chunk};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups},
    evaluate::{evaluate, project},
    ids::{ColumnId, OffsetRange, SegmentId},
    prune::{Run, Verdict, judge},
    scan::{BatchIterator, Coalescer, ScanMetrics, ScanRequest, Watch},
    schema::TableSchema,
};

/// Chunks of one level that become one.
const FAN_IN: usize = 8;
/// From this level on (4096 rows) a chunk is full.
const FULL_LEVEL: u32 = 4;

/// What readers see of a consuming segment at one moment.
#[derive(Clone, Debug)]
pub struct ConsumingSegment {
    id: SegmentId,
    state: SegmentState,
    schema: Arc<TableSchema>,
    arrow: SchemaRef,
    full: Arc<Vec<Arc<Chunk>>>,
    tail: Vec<Arc<Chunk>>,
    rows: u32,
    bytes: u64,
    /// Of all rows, by index in the schema.
    stats: Arc<[ColumnStats]>,
    offsets: Arc<[OffsetRange]>,
}

impl ConsumingSegment {
    pub fn new(id: SegmentId, schema: Arc<TableSchema>) -> Self {
        Self {
            id,
            state: SegmentState::Consuming,
            arrow: schema.arrow(),
            full: Arc::default(),
            tail: Vec::new(),
            rows: 0,
            bytes: 0,
            stats: schema.columns.iter().map(|_| ColumnStats { exact: true, ..ColumnStats::default() }).collect(),
            offsets: Arc::new([]),
            schema,
        }
    }

    /// This segment and `batch` after it. `batch` has every column of the segment's schema, in order. Costs what the rows of the batch
    /// cost, not those that are there. Errors: `Invalid` for a batch or offsets that do not fit.
    pub fn with(&self, batch: &RecordBatch, progress: &[OffsetRange]) -> Result<Self> {
        let rows = u32::try_from(self.rows as usize + batch.num_rows())
            .map_err(|_| Error::Invalid("a segment holds at most 2^32 - 1 rows".into()))?;
        let offsets = advance(&self.offsets, progress)?;
        let batch = self.fitted(batch)?;
        let mut next = Self { rows, offsets, ..self.clone() };
        if batch.num_rows() > 0 {
            let chunk = Chunk::new(&self.schema, &batch)?;
            next.stats = self.stats.iter().zip(chunk.stats()).map(|(a, b)| a.merged(b)).collect();
            next.push(chunk)?;
        }
        Ok(next)
    }

    /// The batch under the segment's own Arrow schema: types, number of columns and NOT NULL are checked here.
    fn fitted(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow), batch.columns().to_vec(), &options)
            .map_err(|error| Error::Invalid(format!("a batch does not fit the table's columns: {error}")))
    }

    fn push(&mut self, chunk: Chunk) -> Result<()> {
        self.bytes += chunk.bytes();
        let mut level = chunk.level();
        let mut chunk = Arc::new(chunk);
        if level >= FULL_LEVEL {
            // The rows before it come first, whole or not.
            self.merge_tail(0)?;
            let mut full = std::mem::take(&mut self.tail);
            full.push(chunk);
            Arc::make_mut(&mut self.full).append(&mut full);
            return Ok(());
        }
        loop {
            let lower = self.tail.iter().rposition(|known| known.level() >= level).map_or(0, |at| at + 1);
            let same = self.tail.iter().rposition(|known| known.level() > level).map_or(0, |at| at + 1);
            let from = if lower < self.tail.len() {
                lower
            } else if self.tail.len() - same >= FAN_IN - 1 {
                same
            } else {
                break;
            };
            self.tail.push(chunk);
            self.merge_tail(from)?;
            chunk = self.tail.pop().expect("invariant: merging leaves the merged chunk");
            level = chunk.level();
        }
        if level >= FULL_LEVEL {
            let mut full = std::mem::take(&mut self.tail);
            full.push(chunk);
            Arc::make_mut(&mut self.full).append(&mut full);
        } else {
            self.tail.push(chunk);
        }
        Ok(())
    }

    /// Makes one chunk of those of the tail from `from` on.
    fn merge_tail(&mut self, from: usize) -> Result<()> {
        if self.tail.len() - from < 2 {
            return Ok(());
        }
        let parts = self.tail.split_off(from);
        let columns = (0..self.schema.columns.len())
            .map(|index| {
                let arrays: Vec<&dyn arrow::array::Array> =
                    parts.iter().map(|part| part.batch().column(index).as_ref()).collect();
                Ok(concat(&arrays)?)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let rows = parts.iter().map(|part| part.batch().num_rows()).sum();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.arrow), columns, &options)?;
        let merged = Chunk::merged(&batch, &parts)?;
        self.bytes -= parts.iter().map(|part| part.bytes()).sum::<u64>();
        self.bytes += merged.bytes();
        self.tail.push(Arc::new(merged));
        Ok(())
    }

    pub fn with_state(&self, state: SegmentState) -> Self {
        Self { state, ..self.clone() }
    }

    /// All rows, in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.full.iter().chain(&self.tail)
    }
}

/// The offsets with `progress` after them: each range begins where the stream's last one ended.
fn advance(known: &Arc<[OffsetRange]>, progress: &[OffsetRange]) -> Result<Arc<[OffsetRange]>> {
    if progress.is_empty() {
        return Ok(Arc::clone(known));
    }
    let mut offsets = known.to_vec();
    for range in progress {
        if range.from > range.to {
            return Err(Error::Invalid(format!(
                "offsets of {:?} run from {} back to {}",
                range.stream, range.from, range.to
            )));
        }
        match offsets.iter_mut().find(|known| known.stream == range.stream) {
            Some(known) if known.to != range.from => {
                let message = format!("offsets of {:?} jump from {} to {}", range.stream, known.to, range.from);
                return Err(Error::Invalid(message));
            }
            Some(known) => known.to = range.to,
            None => offsets.push(*range),
        }
    }
    Ok(offsets.into())
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

    fn stats(&self, column: ColumnId) -> Option<&ColumnStats> {
        self.schema.index_of(column).map(|index| &self.stats[index])
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
        let mut pieces = self.pieces(&rows, &request);
        if request.hints.backwards {
            pieces.reverse();
        }
        let scan = ConsumingScan {
            segment: self,
            narrowing: request.hints.narrowing.clone().map(Watch::new),
            narrowed: None,
            left: request.limit.unwrap_or(usize::MAX),
            coalescer: Coalescer::new(output, request.batch_rows),
            request,
            metrics,
            pieces: pieces.into_iter(),
        };
        Ok(Box::new(scan))
    }

    fn aggregate(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<AggregateRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        aggregate::begin(&self, rows, &request, &metrics)
    }

    fn aggregate_into(
        self: Arc<Self>,
        rows: Range<u32>,
        groups: MergedGroups,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        Ok(aggregate::go_on_with(groups, &self, &rows, &metrics))
    }
}

impl ConsumingSegment {
    /// Slices of the chunks that `rows` touches, at most `batch_rows` long, without those that the statistics rule out.
    fn pieces(&self, rows: &Range<u32>, request: &ScanRequest) -> Vec<Piece> {
        let batch_rows = request.batch_rows.max(1);
        let mut pieces = Vec::new();
        let mut start = 0usize;
        for chunk in self.chunks() {
            let end = start + chunk.batch().num_rows();
            let from = start.max(rows.start as usize);
            let to = end.min(rows.end as usize);
            let verdict = if from < to { self.verdict(request, chunk) } else { Verdict::Never };
            if verdict != Verdict::Never {
                for at in (from..to).step_by(batch_rows) {
                    let length = (to - at).min(batch_rows);
                    let rows = chunk.batch().slice(at - start, length);
                    let bytes = chunk.bytes() * length as u64 / chunk.batch().num_rows() as u64;
                    pieces.push(Piece { rows, bytes, verdict, chunk: Arc::clone(chunk) });
                }
            }
            start = end;
        }
        pieces
    }

    fn verdict(&self, request: &ScanRequest, chunk: &Chunk) -> Verdict {
        let Some(predicate) = &request.predicate else { return Verdict::Always };
        let run = Run {
            rows: chunk.batch().num_rows() as u64,
            written: &self.schema,
            stats: |index: usize| chunk.stats().get(index),
        };
        judge(predicate, &request.schema, &run, None)
    }
}

/// A slice of a chunk.
#[derive(Debug)]
struct Piece {
    rows: RecordBatch,
    /// Its share of the chunk's memory.
    bytes: u64,
    verdict: Verdict,
    chunk: Arc<Chunk>,
}

/// Goes through slices of chunks, at most `batch_rows` long each.
struct ConsumingScan {
    segment: Arc<ConsumingSegment>,
    request: Arc<ScanRequest>,
    narrowing: Option<Watch>,
    /// A request for what the narrowing leaves, as it was last asked.
    narrowed: Option<ScanRequest>,
    metrics: Arc<ScanMetrics>,
    pieces: std::vec::IntoIter<Piece>,
    coalescer: Coalescer,
    /// Rows that may still be returned.
    left: usize,
}

impl ConsumingScan {
    fn read(&mut self, Piece { rows, bytes, verdict, chunk }: &Piece) -> Result<()> {
        let (request, written) = (&self.request, &self.segment.schema);
        if let Some(condition) = self.narrowing.as_mut().and_then(Watch::changed) {
            self.narrowed = condition.map(|condition| ScanRequest {
                predicate: Some(condition.as_ref().clone()),
                ..request.as_ref().clone()
            });
        }
        let also = match &self.narrowed {
            None => Verdict::Always,
            Some(narrowed) => self.segment.verdict(narrowed, chunk),
        };
        if also == Verdict::Never {
            return Ok(());
        }
        let mut mask = if *verdict == Verdict::Always { None } else { evaluate(request, written, rows)? };
        if let Some(narrowed) = &self.narrowed
            && also == Verdict::Maybe
            && let Some(wanted) = evaluate(narrowed, written, rows)?
        {
            mask = Some(match mask {
                None => wanted,
                Some(mask) => and_kleene(&mask, &wanted)?,
            });
        }
        let batch = project(request, written, self.coalescer.schema(), rows, mask.as_ref(), self.left)?;
        self.left -= batch.num_rows();
        self.metrics.add(rows.num_rows() as u64, batch.num_rows() as u64, *bytes);
        self.coalescer.push(batch);
        if self.narrowing.is_some() {
            self.coalescer.flush();
        }
        Ok(())
    }
}

impl Iterator for ConsumingScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.coalescer.pop() {
                return Some(batch);
            }
            match self.pieces.next().filter(|_| self.left > 0) {
                None => return self.coalescer.finish(),
                Some(piece) => {
                    if let Err(error) = self.read(&piece) {
                        self.left = 0;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
