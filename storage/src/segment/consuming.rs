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
mod lookup;

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::{and_kleene, concat, filter, interleave},
    datatypes::SchemaRef,
};

use super::{ColumnStats, Lineage, Segment, SegmentState, chunk::Chunk};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups, metadata},
    evaluate::{evaluate, project},
    ids::{ColumnId, OffsetRange, SegmentId},
    index::IndexSpec,
    prune::{Run, Verdict, judge},
    scan::{BatchIterator, Coalescer, ScanMetrics, ScanRequest, Watch},
    schema::TableSchema,
    upsert::Validity,
};

/// Chunks of one level that become one.
const FAN_IN: usize = 8;
/// From this level on (4096 rows) a chunk is full.
const FULL_LEVEL: u32 = 4;

/// What readers see of a consuming segment at one moment.
#[derive(Clone, Debug)]
pub struct ConsumingSegment {
    id: SegmentId,
    lineage: Lineage,
    state: SegmentState,
    schema: Arc<TableSchema>,
    arrow: SchemaRef,
    full: Arc<Vec<Arc<Chunk>>>,
    tail: Vec<Arc<Chunk>>,
    rows: u32,
    bytes: u64,
    /// What the indexes of full chunks take; of all versions, since they share these chunks.
    index_bytes: Arc<AtomicI64>,
    /// Of all rows, by index in the schema.
    stats: Arc<[ColumnStats]>,
    offsets: Arc<[OffsetRange]>,
    /// Which rows are there for readers; `None`: all.
    validity: Option<Arc<Validity>>,
}

impl ConsumingSegment {
    pub fn new(id: SegmentId, schema: Arc<TableSchema>) -> Self {
        Self {
            id,
            lineage: Lineage::new(),
            state: SegmentState::Consuming,
            arrow: schema.arrow(),
            full: Arc::default(),
            tail: Vec::new(),
            rows: 0,
            bytes: 0,
            index_bytes: Arc::default(),
            stats: schema.columns.iter().map(|_| ColumnStats { exact: true, ..ColumnStats::default() }).collect(),
            offsets: Arc::new([]),
            validity: None,
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

    /// Makes one index of one full chunk that lacks it, the oldest first; false when none does. An index that cannot be made leaves its chunk to be
    /// looked at. Blocks on the processor. Called by one thread at a time.
    pub fn build_next_index(&self, specs: &[IndexSpec]) -> Result<bool> {
        for chunk in self.full.iter() {
            if let Some((built, grown)) = chunk.build_next(specs, &self.schema) {
                self.index_bytes.fetch_add(grown, Ordering::Relaxed);
                return built.map(|()| true);
            }
        }
        Ok(false)
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
    fn answers_by_metadata(&self, request: &AggregateRequest) -> bool {
        metadata::answers_all(self, self.validity.as_deref(), request)
    }

    fn id(&self) -> SegmentId {
        self.id
    }

    fn state(&self) -> SegmentState {
        self.state
    }

    fn rows(&self) -> u32 {
        self.rows
    }

    fn lineage(&self) -> Lineage {
        self.lineage
    }

    fn bytes(&self) -> u64 {
        self.bytes.saturating_add_signed(self.index_bytes.load(Ordering::Relaxed))
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

    fn as_consuming(&self) -> Option<&ConsumingSegment> {
        (self.state == SegmentState::Consuming).then_some(self)
    }

    fn encoding(&self, column: ColumnId) -> Option<String> {
        self.schema.column(column).map(|_| "arrow".into())
    }

    fn take(&self, columns: &[ColumnId], rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let chunks: Vec<&Arc<Chunk>> = self.chunks().collect();
        let mut places = Vec::with_capacity(rows.len());
        let (mut chunk, mut start) = (0, 0);
        for row in rows.iter().map(|row| *row as usize) {
            while chunks.get(chunk).is_some_and(|chunk| start + chunk.batch().num_rows() <= row) {
                start += chunks[chunk].batch().num_rows();
                chunk += 1;
            }
            if chunk == chunks.len() || row < start {
                return Err(Error::Invalid(format!("rows of a segment of {} that do not ascend in it", self.rows)));
            }
            places.push((chunk, row - start));
        }
        let values = |id: &ColumnId| {
            let missing = || Error::Invalid(format!("the segment has no column with id {id}"));
            let index = self.schema.index_of(*id).ok_or_else(missing)?;
            let arrays: Vec<&dyn arrow::array::Array> =
                chunks.iter().map(|chunk| chunk.batch().column(index).as_ref()).collect();
            if arrays.is_empty() {
                return Ok(arrow::array::new_empty_array(&self.schema.columns[index].data_type.arrow()));
            }
            Ok(interleave(&arrays, &places)?)
        };
        columns.iter().map(values).collect()
    }

    fn masked(self: Arc<Self>, validity: Arc<Validity>) -> Arc<dyn Segment> {
        let stats = self.stats.iter().map(ColumnStats::of_some).collect();
        Arc::new(Self { validity: Some(validity), stats, ..self.as_ref().clone() })
    }

    fn scan(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator> {
        let output = request.output_schema()?;
        let mut pieces = self.pieces(&rows, &request, &metrics);
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
    /// Slices of the chunks that `rows` touches, at most `batch_rows` long, without those that statistics or indexes rule out.
    fn pieces(&self, rows: &Range<u32>, request: &ScanRequest, metrics: &ScanMetrics) -> Vec<Piece> {
        let batch_rows = request.batch_rows.max(1);
        let mut pieces = Vec::new();
        let mut start = 0usize;
        for chunk in self.chunks() {
            let end = start + chunk.batch().num_rows();
            let from = start.max(rows.start as usize);
            let to = end.min(rows.end as usize);
            let verdict = if from < to { self.verdict(request, chunk) } else { Verdict::Never };
            if verdict != Verdict::Never {
                let candidates =
                    lookup::candidates(chunk, &self.schema, request, metrics).map(|mask| mask.to_boolean_buffer());
                for at in (from..to).step_by(batch_rows) {
                    let length = (to - at).min(batch_rows);
                    let picked = candidates.as_ref().map(|candidates| candidates.slice(at - start, length));
                    let picked = picked.map(|picked| (picked.count_set_bits(), picked));
                    if let Some((count, _)) = picked {
                        metrics.rows_by_index.fetch_add(count as u64, Ordering::Relaxed);
                        if count == 0 {
                            continue;
                        }
                    }
                    let picked = picked.filter(|(count, _)| *count < length).map(|(_, picked)| picked);
                    let picked = match (picked, self.valid(at as u32..(at + length) as u32)) {
                        (Some(picked), Some(valid)) => Some(&picked & &valid),
                        (picked, valid) => picked.or(valid),
                    };
                    if picked.as_ref().is_some_and(|picked| picked.count_set_bits() == 0) {
                        continue;
                    }
                    let rows = chunk.batch().slice(at - start, length);
                    let bytes = chunk.bytes() * length as u64 / chunk.batch().num_rows() as u64;
                    pieces.push(Piece { rows, picked, bytes, verdict, chunk: Arc::clone(chunk) });
                }
            }
            start = end;
        }
        pieces
    }

    /// Which rows of a run are there for readers; `None`: all.
    fn valid(&self, rows: Range<u32>) -> Option<BooleanBuffer> {
        let validity = self.validity.as_ref().filter(|validity| validity.invalid_in(rows.clone()) > 0)?;
        let (base, mask) = validity.mask(&rows);
        Some(mask.to_boolean_buffer().slice((rows.start - base) as usize, rows.len()))
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
    /// The rows of it that are there for readers and that indexes leave; `None`: all.
    picked: Option<BooleanBuffer>,
    /// Its share of the chunk's memory.
    bytes: u64,
    verdict: Verdict,
    chunk: Arc<Chunk>,
}

impl Piece {
    /// The rows that are picked. Columns that `wanted` (by their index in the batch) does not name are as long, with any values.
    fn rows(&self, wanted: impl Fn(usize) -> bool) -> Result<Cow<'_, RecordBatch>> {
        let Some(picked) = &self.picked else { return Ok(Cow::Borrowed(&self.rows)) };
        let picked = BooleanArray::new(picked.clone(), None);
        let count = picked.true_count();
        let pick = |(index, column): (usize, &ArrayRef)| {
            if wanted(index) { filter(column, &picked) } else { Ok(column.slice(0, count)) }
        };
        let columns = self.rows.columns().iter().enumerate().map(pick).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(Cow::Owned(RecordBatch::try_new_with_options(self.rows.schema(), columns, &options)?))
    }
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
    fn read(&mut self, piece: &Piece) -> Result<()> {
        let Piece { bytes, verdict, chunk, .. } = piece;
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
        let conditions =
            [request.predicate.as_ref(), self.narrowed.as_ref().and_then(|known| known.predicate.as_ref())];
        let rows = piece.rows(|index| {
            let id = written.columns[index].id;
            request.projection.contains(&id) || conditions.iter().flatten().any(|condition| condition.is_about(id))
        })?;
        let rows = rows.as_ref();
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
