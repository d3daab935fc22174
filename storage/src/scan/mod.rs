//! What a query asks of the segments, and the counters that EXPLAIN ANALYZE shows.

mod address;
mod narrowing;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute::concat_batches,
    datatypes::{Schema as ArrowSchema, SchemaRef},
};

use parking_lot::Mutex;

pub(crate) use address::POSITION;
pub use address::{Addresses, POSITION_NAME, SEGMENT_NAME, address_of, addressed};
pub use narrowing::Narrowing;
pub(crate) use narrowing::Watch;

use self::address::Addressing;
use crate::{
    Error, Result,
    geo::Cells,
    ids::{ColumnId, IndexId, PartitionId},
    index::IndexSpec,
    predicate::Predicate,
    schema::TableSchema,
    segment::Segment,
};

/// Rows of one table: which columns, which rows, how many.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The schema of the snapshot. Segments written under an older version answer in the types of this one: columns they do not have
    /// are the column's default (or NULL), widened columns are cast.
    pub schema: Arc<TableSchema>,
    /// Output columns, in order. May be empty: then batches have only a row count.
    pub projection: Vec<ColumnId>,
    /// Only rows for which this is TRUE. Evaluated exactly.
    pub predicate: Option<Predicate>,
    /// No more than this many rows are needed from any one unit.
    pub limit: Option<usize>,
    /// Rows per output batch, at most.
    pub batch_rows: usize,
    /// How the scan may save work.
    pub hints: ScanHints,
}

/// What makes a scan cheaper and its answer no other, but for rows that [`Narrowing`] rules out, or that fail a test on places.
#[derive(Clone, Debug, Default)]
pub struct ScanHints {
    pub narrowing: Option<Arc<dyn Narrowing>>,
    /// Read from the last row to the first, window by window: wanted when large values, which come late where time is what grows, are
    /// to be found soon.
    pub backwards: bool,
    pub indexes: IndexUse,
    /// Conditions on places that whoever asks tests again: rows that indexes rule out may be left out.
    pub places: Vec<PlaceTest>,
}

/// The place in two columns lies in one of the cells.
#[derive(Clone, Debug)]
pub struct PlaceTest {
    pub lat: ColumnId,
    pub lng: ColumnId,
    pub cells: Arc<Cells>,
}

/// Whether the indexes of segments are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexUse {
    Off,
    /// Where they are thought to be faster than looking at the packed column.
    #[default]
    WhereFaster,
    /// Wherever they know something: to compare, and for tests.
    Always,
}

impl ScanRequest {
    /// The Arrow schema of the batches that a scan returns.
    pub fn output_schema(&self) -> Result<SchemaRef> {
        let fields = self
            .projection
            .iter()
            .map(|id| {
                let column = self
                    .schema
                    .column(*id)
                    .ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}")))?;
                Ok(column.data_type.field(&column.name, column.nullable))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ArrowSchema::new(fields)))
    }
}

/// Counters of one scan, shared by its lanes.
#[derive(Debug, Default)]
pub struct ScanMetrics {
    /// Rows whose predicate was evaluated (all rows of a unit when there is none).
    pub rows_scanned: AtomicU64,
    /// Rows returned.
    pub rows_selected: AtomicU64,
    /// Bytes of encoded column data that were read.
    pub bytes_read: AtomicU64,
    /// Units that a [`Narrowing`] ruled out before a row of them was read.
    pub units_narrowed: AtomicU64,
    /// Rows that indexes found, before the rest of the predicate was evaluated on them.
    pub rows_by_index: AtomicU64,
    /// Of these, by the index that found them; `None`: the order of the rows did.
    by_index: Mutex<BTreeMap<Option<IndexId>, u64>>,
}

impl ScanMetrics {
    /// An index was asked and found so many rows.
    pub(crate) fn found(&self, index: Option<IndexId>, rows: u64) {
        *self.by_index.lock().entry(index).or_default() += rows;
    }

    /// What indexes were asked since the last time, and the rows that each found; `None` is the order of the rows.
    pub fn take_found(&self) -> BTreeMap<Option<IndexId>, u64> {
        std::mem::take(&mut self.by_index.lock())
    }

    pub fn add(&self, rows_scanned: u64, rows_selected: u64, bytes_read: u64) {
        self.rows_scanned.fetch_add(rows_scanned, Ordering::Relaxed);
        self.rows_selected.fetch_add(rows_selected, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes_read, Ordering::Relaxed);
    }
}

pub type BatchIterator = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Makes batches of a useful size out of the pieces that a scan finds: small ones are put together, large ones cut. Rows keep their order.
#[derive(Debug)]
pub(crate) struct Coalescer {
    schema: SchemaRef,
    batch_rows: usize,
    small: Vec<RecordBatch>,
    small_rows: usize,
    ready: VecDeque<Result<RecordBatch>>,
}

impl Coalescer {
    pub(crate) fn new(schema: SchemaRef, batch_rows: usize) -> Self {
        Self { schema, batch_rows: batch_rows.max(1), small: Vec::new(), small_rows: 0, ready: VecDeque::new() }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) {
        let mut at = 0;
        while at < batch.num_rows() {
            let room = self.batch_rows - self.small_rows;
            let piece = batch.slice(at, room.min(batch.num_rows() - at));
            at += piece.num_rows();
            self.small_rows += piece.num_rows();
            self.small.push(piece);
            // Copying is worth it for small pieces only: at a quarter of the wished size a batch goes as it is.
            if self.small_rows * 4 >= self.batch_rows {
                self.flush();
            }
        }
    }

    /// Makes what has been pushed ready, however small.
    pub(crate) fn flush(&mut self) {
        let small = std::mem::take(&mut self.small);
        self.small_rows = 0;
        match small.as_slice() {
            [] => {}
            [one] => self.ready.push_back(Ok(one.clone())),
            many => self.ready.push_back(concat_rows(&self.schema, many)),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Result<RecordBatch>> {
        self.ready.pop_front()
    }

    /// After the last `push`, until it gives `None`.
    pub(crate) fn finish(&mut self) -> Option<Result<RecordBatch>> {
        self.flush();
        self.pop()
    }
}

fn concat_rows(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    if schema.fields().is_empty() {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        return row_count(schema, rows);
    }
    Ok(concat_batches(schema, batches)?)
}

/// A batch without columns.
pub(crate) fn row_count(schema: &SchemaRef, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options)?)
}

/// A run of rows of one segment: what a lane takes at a time.
#[derive(Clone, Debug)]
pub struct ScanUnit {
    /// The one that the segment is of.
    pub partition: PartitionId,
    pub segment: Arc<dyn Segment>,
    pub rows: Range<u32>,
}

impl ScanUnit {
    pub fn scan(&self, request: &Arc<ScanRequest>, metrics: &Arc<ScanMetrics>) -> Result<BatchIterator> {
        let batches = Arc::clone(&self.segment).scan(self.rows.clone(), Arc::clone(request), Arc::clone(metrics))?;
        Ok(match Addressing::new(&request.projection, self.partition, self.segment.id()) {
            Some(addressing) => Box::new(batches.map(move |batch| addressing.put(batch?))),
            None => batches,
        })
    }
}

/// What is left to read after pruning, and what pruning saved.
#[derive(Clone, Debug, Default)]
pub struct ScanPlan {
    pub units: Vec<ScanUnit>,
    pub segments_total: usize,
    /// Segments of partitions that have no row of the keys that are asked for.
    pub pruned_by_partition: usize,
    /// Segments ruled out by the statistics of the time column.
    pub pruned_by_time: usize,
    /// Segments ruled out by the statistics of another column.
    pub pruned_by_min_max: usize,
    /// Segments ruled out by Bloom filters.
    pub pruned_by_bloom: usize,
    /// The indexes of the table.
    pub indexes: Arc<[IndexSpec]>,
}
