//! Reading a committed segment: window by window, first which rows, then only those rows of the wanted columns.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::{ArrayRef, Int32Array, RecordBatch};

use super::{CommittedSegment, detach::detach, filter::Filter};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    evaluate::{default_array, widened},
    scan::{Coalescer, POSITION, ScanMetrics, ScanRequest, Watch, row_count},
    schema::Column,
    upsert::Validity,
};

/// Rows of a window at least, where there are as many: the codecs decode blocks of 1024 and unpack texts in larger ones.
const WINDOW_ROWS_MIN: usize = 8 * 1024;
/// Rows of a window at most: its columns should stay in the processor's cache.
const WINDOW_ROWS_MAX: usize = 64 * 1024;
/// Windows begin at multiples of this. Also what is read first where a narrowing may rule out the rest.
const BLOCK_ROWS: usize = 1024;

pub(super) struct CommittedScan {
    segment: Arc<CommittedSegment>,
    metrics: Arc<ScanMetrics>,
    request: Arc<ScanRequest>,
    filter: Filter,
    /// What the narrowing leaves of the segment, as it was last asked.
    narrowed: Filter,
    narrowing: Option<Watch>,
    outputs: Vec<Output>,
    rows: Range<u32>,
    window_rows: usize,
    /// Whether a row was looked at.
    begun: bool,
    /// Rows that may still be returned.
    left: usize,
    coalescer: Coalescer,
    /// Nothing follows an error.
    failed: bool,
}

/// Where an output column comes from.
enum Output {
    /// The segment's column at this index.
    Stored { index: usize, column: Column },
    /// The segment is older than the column.
    Default { column: Column },
    /// The number of the row.
    Position,
}

impl CommittedScan {
    pub(super) fn new(
        segment: Arc<CommittedSegment>,
        rows: Range<u32>,
        validity: Option<&Validity>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Self> {
        segment.file.check().map_err(|error| segment.failed(error))?;
        let schema = request.output_schema()?;
        let filter = match &request.predicate {
            None => Filter::Everything,
            Some(predicate) => {
                Filter::of_rows(predicate, &request.schema, &segment, &rows, request.hints.indexes, &metrics)?
            }
        };
        let filter = filter.with_hints(&segment, &rows, &request.hints, &metrics);
        let filter = filter.with_validity(validity, &rows);
        let outputs = request
            .projection
            .iter()
            .map(|id| {
                let column = request
                    .schema
                    .column(*id)
                    .ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}")))?
                    .clone();
                Ok(match segment.schema.index_of(*id) {
                    Some(index) => Output::Stored { index, column },
                    None if *id == POSITION => Output::Position,
                    None => Output::Default { column },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let narrowing = request.hints.narrowing.clone().map(Watch::new);
        let window_rows = match narrowing {
            Some(_) => BLOCK_ROWS,
            None => window_rows(&request),
        };
        Ok(Self {
            left: request.limit.unwrap_or(usize::MAX),
            coalescer: Coalescer::new(schema, request.batch_rows),
            segment,
            metrics,
            filter,
            narrowed: Filter::Everything,
            narrowing,
            outputs,
            rows,
            window_rows,
            begun: false,
            failed: false,
            request,
        })
    }

    /// Asks what is still wanted.
    fn narrow(&mut self) -> Result<()> {
        let Some(condition) = self.narrowing.as_mut().and_then(Watch::changed) else { return Ok(()) };
        self.narrowed = match condition {
            None => Filter::Everything,
            Some(condition) => Filter::new(&condition, &self.request.schema, &self.segment, false)?,
        };
        if !self.begun && matches!(self.narrowed, Filter::Nothing) && !self.rows.is_empty() {
            self.metrics.units_narrowed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next rows to look at: up to the end of a block, or no more than are wanted where each row is one of them.
    fn window(&mut self) -> Option<Range<u32>> {
        let nothing = |filter: &Filter| matches!(filter, Filter::Nothing);
        if self.left == 0 || self.rows.is_empty() || nothing(&self.filter) || nothing(&self.narrowed) {
            return None;
        }
        self.begun = true;
        // Blocks without a row that an index found are left out.
        let block_of = |row: u32| row as usize / BLOCK_ROWS * BLOCK_ROWS;
        let (first, last) = match (self.filter.first_from(self.rows.start), self.filter.last_below(self.rows.end)) {
            (Some(first), Some(last)) if first <= last => (first, last),
            _ => {
                self.rows.start = self.rows.end;
                return None;
            }
        };
        let start = block_of(first).max(self.rows.start as usize);
        let end = (block_of(last) + BLOCK_ROWS).min(self.rows.end as usize);
        let rows = self.window_rows;
        // After a small first look the windows grow to what is fastest to read.
        self.window_rows = (rows * 2).min(window_rows(&self.request)).max(rows);
        let everything = matches!(self.filter, Filter::Everything) && matches!(self.narrowed, Filter::Everything);
        let wanted = if everything { self.left } else { usize::MAX };
        if self.request.hints.backwards {
            let begin = (end.saturating_sub(rows).next_multiple_of(BLOCK_ROWS)).max(start);
            let begin = if begin >= end { start.max((end - 1) / BLOCK_ROWS * BLOCK_ROWS) } else { begin };
            let begin = begin.max(end.saturating_sub(wanted)) as u32;
            self.rows.end = begin;
            return Some(begin..end as u32);
        }
        let end = ((start + rows) / BLOCK_ROWS * BLOCK_ROWS).min(end).min(start.saturating_add(wanted)) as u32;
        self.rows.start = end;
        Some(start as u32..end)
    }

    fn read(&mut self, window: Range<u32>) -> Result<()> {
        let rows = window.len();
        let mut bytes_read = 0;
        let mut read = |index: usize| {
            let bytes = u128::from(self.segment.columns[index].bytes) * rows as u128;
            bytes_read += (bytes / u128::from(self.segment.rows.max(1))) as u64;
        };
        let mut mask = Bitmask::all(rows);
        self.filter.apply(&self.segment, &window, &mut mask, &mut read)?;
        if !mask.is_none() {
            self.narrowed.apply(&self.segment, &window, &mut mask, &mut read)?;
        }
        let mut selected = mask.count();
        if selected > self.left {
            mask.truncate_set(self.left);
            selected = self.left;
        }
        if selected > 0 {
            let schema = self.coalescer.schema();
            let batch = if self.outputs.is_empty() {
                row_count(schema, selected)?
            } else {
                let columns = self
                    .outputs
                    .iter()
                    .map(|output| column(&self.segment, output, &window, &mask, selected, &mut read))
                    .collect::<Result<Vec<_>>>()?;
                RecordBatch::try_new(Arc::clone(schema), columns)?
            };
            // Nothing in the batch points into the map: if the map is sound now, the batch is right for ever.
            self.segment.file.check()?;
            self.left -= selected;
            self.coalescer.push(batch);
            if self.narrowing.is_some() {
                // Whoever narrows must see the row to know the better condition.
                self.coalescer.flush();
            }
        }
        self.segment.file.check()?;
        self.metrics.add(rows as u64, selected as u64, bytes_read);
        Ok(())
    }
}

fn window_rows(request: &ScanRequest) -> usize {
    (request.batch_rows / BLOCK_ROWS * BLOCK_ROWS).clamp(WINDOW_ROWS_MIN, WINDOW_ROWS_MAX)
}

fn column(
    segment: &CommittedSegment,
    output: &Output,
    window: &Range<u32>,
    mask: &Bitmask,
    selected: usize,
    read: &mut impl FnMut(usize),
) -> Result<ArrayRef> {
    match output {
        Output::Default { column } => default_array(column, selected),
        Output::Position => {
            let positions = mask.iter().map(|at| (window.start + at as u32) as i32);
            Ok(Arc::new(Int32Array::from_iter_values(positions)))
        }
        Output::Stored { index, column } => {
            read(*index);
            let reader = segment.reader(*index)?;
            let array = if mask.is_all() {
                reader.decode(window.clone())
            } else {
                reader.decode_selected(window.clone(), mask)
            };
            let array = array.map_err(|error| segment.named(error, *index))?;
            widened(detach(&segment.file, &array)?, column)
        }
    }
}

impl Iterator for CommittedScan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.failed {
                return None;
            }
            if let Some(batch) = self.coalescer.pop() {
                return Some(batch);
            }
            let step = self.narrow().map(|()| self.window());
            let read = match step {
                Ok(None) => return self.coalescer.finish(),
                Ok(Some(window)) => self.read(window),
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                self.failed = true;
                return Some(Err(self.segment.failed(error)));
            }
        }
    }
}
