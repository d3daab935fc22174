//! Aggregating a committed segment: window by window, first which rows, then the ids and numbers of the columns needed.

use std::{ops::Range, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch};

use super::{CommittedSegment, detach::detach, distinct, filter::Filter, star};
use crate::{
    Error, Result,
    aggregate::{
        AggregateRequest, Aggregation, MergedGroups, STEP_ROWS, WINDOW_ROWS,
        block::{Block, Shape, picked},
        computed::Recipe,
        engine::{Engine, Layout, Needed, bounds_of, shape_of, shape_of_any},
        metadata,
    },
    bitpack::Bitmask,
    evaluate::{default_array, widened},
    forward::Encoding,
    ids::ColumnId,
    predicate::Predicate,
    scan::ScanMetrics,
    schema::{Column, DataType},
    upsert::Validity,
};

/// Rows of a window where an index left fewer than one row in so many.
const WINDOW_ROWS_OF_FEW: usize = 64 * 1024;
const FEW: f64 = 1.0 / 32.0;

/// Rows of a window where texts are read that are kept in compressed blocks: a block is unpacked for each window that touches it.
const WINDOW_ROWS_OF_TEXTS: usize = 32 * 1024;
/// Where one row in so many is selected, or more, all are decoded and the others left out of sums.
const AMONG_SHARE: usize = 4;

/// Windows begin at multiples of this.
const BLOCK_ROWS: usize = 1024;

#[derive(Debug)]
pub(super) struct CommittedAggregation {
    segment: Arc<CommittedSegment>,
    metrics: Arc<ScanMetrics>,
    engine: Engine,
    filter: Filter,
    /// Of the FILTER clauses.
    filters: Vec<Filter>,
    sources: Vec<Source>,
    rows: Range<u32>,
    window_rows: usize,
    /// Only sums of integers are asked for: rows that are passed over may stand between the others.
    sums_among: bool,
}

/// Where a needed column comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The segment's column at this index, in the type it was written in.
    Encoded { index: usize, way: Way },
    /// The same, decoded and put into the type that the column has now.
    Decoded { index: usize, column: Column },
    /// The segment is older than the column.
    Default { column: Column },
    /// Computed from these, which are decoded.
    Computed { inputs: Vec<Source>, recipe: Arc<Recipe> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Validity,
    Ids,
    Integers,
    Floats,
}

pub(super) fn begin(
    segment: &Arc<CommittedSegment>,
    rows: Range<u32>,
    validity: Option<&Validity>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    segment.file.check().map_err(|error| segment.failed(error))?;
    if let Some(known) = distinct::begin(segment, &rows, validity, request, metrics)? {
        return Ok(known);
    }
    metadata::begin(segment.as_ref(), &rows, validity, request, metrics, |request| {
        let by_documents = match validity {
            Some(validity) => star::less::begin(segment, &rows, validity, request, metrics)?,
            None => star::begin(segment, &rows, request, metrics)?,
        };
        match by_documents {
            Some(by_documents) => Ok(by_documents),
            None => {
                let expected = rows.len();
                let run = CommittedAggregation::new(segment, rows.clone(), validity, expected, request, metrics)?;
                Ok(Box::new(run) as Box<dyn Aggregation>)
            }
        }
    })
}

pub(super) fn rows_of(
    segment: &Arc<CommittedSegment>,
    rows: Range<u32>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    let expected = rows.len();
    Ok(Box::new(CommittedAggregation::new(segment, rows, None, expected, request, metrics)?))
}

impl CommittedAggregation {
    /// Of about `expected` rows, `rows` first, of these only the valid ones.
    pub(super) fn new(
        segment: &Arc<CommittedSegment>,
        rows: Range<u32>,
        validity: Option<&Validity>,
        expected: usize,
        request: &Arc<AggregateRequest>,
        metrics: &Arc<ScanMetrics>,
    ) -> Result<Self> {
        let layout = Arc::new(Layout::new(request)?);
        let (sources, shapes) = sources_of(segment, &layout)?;
        let engine = Engine::new(layout, shapes, expected)?;
        Self::with(engine, sources, segment, rows, validity, metrics)
    }

    /// With an engine whose shapes are those of the sources.
    fn with(
        engine: Engine,
        sources: Vec<Source>,
        segment: &Arc<CommittedSegment>,
        rows: Range<u32>,
        validity: Option<&Validity>,
        metrics: &Arc<ScanMetrics>,
    ) -> Result<Self> {
        let layout = Arc::clone(engine.layout());
        let request = &layout.request;
        let filter = match &request.predicate {
            None => Filter::Everything,
            Some(predicate) => Filter::of_rows(predicate, &request.schema, segment, &rows, request.indexes, metrics)?,
        };
        let filter = filter.with_validity(validity, &rows);
        let filter_of = |predicate: &Predicate| Filter::new(predicate, &request.schema, segment, false);
        let filters = layout.filters.iter().map(filter_of).collect::<Result<Vec<_>>>()?;
        let window_rows = match reads_blocks(segment, request, &layout)? {
            true => WINDOW_ROWS_OF_TEXTS,
            // What a window costs by itself is shared by as many rows as usual.
            false if filter.share_left() < FEW => WINDOW_ROWS_OF_FEW,
            false => WINDOW_ROWS,
        };
        let sums_among = engine.is_sums_alone()
            && sources
                .iter()
                .all(|source| matches!(source, Source::Encoded { way: Way::Integers | Way::Validity, .. }));
        Ok(Self {
            sums_among,
            engine,
            segment: Arc::clone(segment),
            metrics: Arc::clone(metrics),
            filter,
            filters,
            sources,
            rows,
            window_rows,
        })
    }

    /// Reads other rows of the segment after those that it has read. Indexes must not have been asked.
    pub(super) fn go_on(&mut self, rows: Range<u32>) {
        self.rows = rows;
    }
}

/// Reads the rows of the segment into the groups of others.
pub(super) fn go_on_with(
    groups: MergedGroups,
    segment: &Arc<CommittedSegment>,
    rows: Range<u32>,
    validity: Option<&Validity>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    segment.file.check().map_err(|error| segment.failed(error))?;
    let layout = Arc::clone(groups.engine.layout());
    let (sources, _) = sources_of(segment, &layout)?;
    let run = CommittedAggregation::with(groups.engine, sources, segment, rows, validity, metrics)?;
    Ok(Box::new(run))
}

fn sources_of(segment: &CommittedSegment, layout: &Layout) -> Result<(Vec<Source>, Vec<Shape>)> {
    let of = |(index, needed)| match layout.shape(index) {
        None => source_of(segment, needed),
        Some(shape) => Ok((source_in(segment, needed, &shape)?, shape)),
    };
    let found: Vec<_> = layout.needed.iter().enumerate().map(of).collect::<Result<_>>()?;
    Ok(found.into_iter().unzip())
}

/// Where a column comes from in a shape that is not the segment's choice.
fn source_in(segment: &CommittedSegment, needed: &Needed, shape: &Shape) -> Result<Source> {
    let (source, own) = source_of(segment, needed)?;
    let fits = matches!(
        (&own, shape),
        (Shape::Validity, Shape::Validity)
            | (Shape::Integers(_), Shape::Integers(_))
            | (Shape::Wide, Shape::Wide)
            | (Shape::Floats, Shape::Floats)
            | (Shape::Texts, Shape::Texts)
    );
    Ok(match source {
        Source::Encoded { index, way } if !fits || (way == Way::Validity && needed.has_values) => {
            Source::Decoded { index, column: needed.column.clone() }
        }
        source => source,
    })
}

pub(super) fn source_of(segment: &CommittedSegment, needed: &Needed) -> Result<(Source, Shape)> {
    let column = &needed.column;
    if let Some(recipe) = &needed.recipe {
        let decoded = |column: &Column| match segment.schema.index_of(column.id) {
            Some(index) => Source::Decoded { index, column: column.clone() },
            None => Source::Default { column: column.clone() },
        };
        let inputs = recipe.inputs.iter().map(decoded).collect();
        let shape = shape_of_any(&column.data_type, needed.has_values);
        return Ok((Source::Computed { inputs, recipe: Arc::clone(recipe) }, shape));
    }
    let Some(index) = segment.schema.index_of(column.id) else {
        let bounds = bounds_of(&default_array(column, 1)?);
        let shape = shape_of(&column.data_type, needed.has_values, bounds);
        return Ok((Source::Default { column: column.clone() }, shape));
    };
    let failed = |error| segment.failed(segment.named(error, index));
    let reader = segment.reader(index)?;
    let written = &segment.schema.columns[index].data_type;
    let bounds = segment.bounds(index, &column.data_type);
    if !needed.has_values {
        return Ok((Source::Encoded { index, way: Way::Validity }, Shape::Validity));
    }
    let way = match reader.encoding() {
        Encoding::Dictionary => Some(Way::Ids),
        Encoding::Integers if same_integers(written, &column.data_type) => Some(Way::Integers),
        Encoding::Scaled => Some(Way::Floats),
        _ => None,
    };
    let shape = match way {
        Some(Way::Ids) => match reader.dictionary().map_err(failed)? {
            Some(values) => Shape::Ids(widened(values, column)?),
            None => Shape::Validity,
        },
        Some(Way::Integers) => {
            let cut = |bound: i128| bound.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            Shape::Integers(bounds.map(|(min, max)| (cut(min), cut(max))))
        }
        Some(Way::Floats) => Shape::Floats,
        _ => shape_of(&column.data_type, true, bounds),
    };
    let source = match way {
        Some(way) => Source::Encoded { index, way },
        None => Source::Decoded { index, column: column.clone() },
    };
    Ok((source, shape))
}

/// Whether the integers of a column as it was written are those of the column as it is now.
fn same_integers(written: &DataType, current: &DataType) -> bool {
    use DataType::{BigInt, Int, SmallInt};
    written == current || matches!((written, current), (SmallInt | Int, Int | BigInt))
}

/// Whether the aggregation reads texts that are kept in compressed blocks.
fn reads_blocks(segment: &CommittedSegment, request: &AggregateRequest, layout: &Layout) -> Result<bool> {
    fn columns(predicate: &Predicate, out: &mut Vec<ColumnId>) {
        match predicate {
            Predicate::And(children) | Predicate::Or(children) => {
                children.iter().for_each(|child| columns(child, out));
            }
            leaf => out.extend(leaf.column()),
        }
    }
    let mut read: Vec<ColumnId> =
        layout.needed.iter().filter(|needed| needed.has_values).map(|needed| needed.column.id).collect();
    let recipes = layout.needed.iter().filter_map(|needed| needed.recipe.as_ref());
    read.extend(recipes.flat_map(|recipe| &recipe.inputs).map(|column| column.id));
    request.predicate.iter().chain(&layout.filters).for_each(|predicate| columns(predicate, &mut read));
    for index in read.into_iter().filter_map(|id| segment.schema.index_of(id)) {
        if matches!(segment.reader(index)?.encoding(), Encoding::Blocks | Encoding::Strings) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl CommittedAggregation {
    fn read(&mut self, window: &Range<u32>) -> Result<()> {
        let Self { segment, engine, filter, filters, sources, sums_among, .. } = self;
        let rows = window.len();
        let mut bytes_read = 0;
        let mut read = |index: usize| {
            let bytes = u128::from(segment.columns[index].bytes) * rows as u128;
            bytes_read += (bytes / u128::from(segment.rows.max(1))) as u64;
        };
        let mut mask = Bitmask::all(rows);
        filter.apply(segment, window, &mut mask, &mut read)?;
        let selected = mask.count();
        if selected > 0 {
            // Blocks of values are decoded as a whole anyway, and others are cheaply left out of a sum.
            let among = (*sums_among && selected < rows && selected * AMONG_SHARE >= rows).then_some(&mask);
            let selection = (selected < rows && among.is_none()).then_some(&mask);
            let passed = filters
                .iter()
                .map(|filter| {
                    let mut passed = mask.clone();
                    filter.apply(segment, window, &mut passed, &mut read)?;
                    Ok(selection.map_or_else(|| passed.clone(), |selection| picked(&passed, selection)))
                })
                .collect::<Result<Vec<_>>>()?;
            let filled = if among.is_some() { rows } else { selected };
            for (at, source) in sources.iter().enumerate() {
                let shape = engine.shapes()[at].clone();
                fill(segment, source, window, selection, filled, &mut engine.blocks[at], &shape, &mut read)?;
            }
            match among {
                Some(among) => engine.update_among(among, &passed)?,
                None => engine.update(selected, &passed)?,
            }
        }
        segment.file.check()?;
        self.metrics.add(rows as u64, selected as u64, bytes_read);
        Ok(())
    }
}

#[expect(clippy::too_many_arguments, reason = "a window has many sides")]
pub(super) fn fill(
    segment: &CommittedSegment,
    source: &Source,
    window: &Range<u32>,
    selection: Option<&Bitmask>,
    selected: usize,
    block: &mut Block,
    shape: &Shape,
    read: &mut impl FnMut(usize),
) -> Result<()> {
    match source {
        Source::Default { .. } | Source::Decoded { .. } => {
            block.fill(&decoded(segment, source, window, selection, selected, read)?, shape)
        }
        Source::Computed { inputs, recipe } => {
            let decode = |input| decoded(segment, input, window, selection, selected, read);
            let inputs = inputs.iter().map(decode).collect::<Result<Vec<_>>>()?;
            recipe.fill(inputs, selected, block, shape)
        }
        Source::Encoded { index, way } => {
            let reader = segment.reader(*index)?;
            let named = |error| segment.named(error, *index);
            block.valid = reader.validity(window.clone()).map_err(named)?.map(|valid| {
                let valid = Bitmask::from_boolean_buffer(valid.inner());
                selection.map_or_else(|| valid.clone(), |selection| picked(&valid, selection))
            });
            if block.valid.as_ref().is_some_and(Bitmask::is_all) {
                block.valid = None;
            }
            if *way == Way::Validity {
                return Ok(());
            }
            read(*index);
            block.fill_encoded(reader, window.clone(), selection).map_err(named)
        }
    }
}

/// The selected rows of a window as an array of the type that the column has now.
fn decoded(
    segment: &CommittedSegment,
    source: &Source,
    window: &Range<u32>,
    selection: Option<&Bitmask>,
    selected: usize,
    read: &mut impl FnMut(usize),
) -> Result<ArrayRef> {
    match source {
        Source::Default { column } => default_array(column, selected),
        Source::Decoded { index, column } => {
            read(*index);
            let reader = segment.reader(*index)?;
            let array = match selection {
                None => reader.decode(window.clone()),
                Some(selection) => reader.decode_selected(window.clone(), selection),
            };
            widened(array.map_err(|error| segment.named(error, *index))?, column)
        }
        _ => Err(crate::Error::Invalid("a column that is not decoded".into())),
    }
}

impl Aggregation for CommittedAggregation {
    fn step(&mut self) -> Result<bool> {
        if matches!(self.filter, Filter::Nothing) {
            self.metrics.add(self.rows.len() as u64, 0, 0);
            self.rows.start = self.rows.end;
        }
        let mut left = STEP_ROWS;
        while left > 0 && !self.rows.is_empty() {
            let Some(first) = self.filter.first_from(self.rows.start) else {
                self.rows.start = self.rows.end;
                break;
            };
            // Blocks without a row that an index found are left out.
            let start = (first as usize / BLOCK_ROWS * BLOCK_ROWS).max(self.rows.start as usize);
            let end = ((start + self.window_rows) / BLOCK_ROWS * BLOCK_ROWS).min(self.rows.end as usize);
            self.rows.start = end as u32;
            left = left.saturating_sub(end - start);
            if let Err(error) = self.read(&(start as u32..end as u32)) {
                self.rows.start = self.rows.end;
                return Err(self.segment.failed(error));
            }
        }
        Ok(!self.rows.is_empty())
    }

    fn memory_bytes(&self) -> usize {
        self.engine.memory_bytes()
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let batch = self.engine.take()?;
        let file = &self.segment.file;
        let columns = batch.columns().iter().map(|column| detach(file, column)).collect::<Result<Vec<ArrayRef>>>()?;
        // As in a scan: nothing in the batch points into the map, which is sound now.
        file.check().map_err(|error| self.segment.failed(error))?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
    }

    fn into_groups(self: Box<Self>) -> Result<MergedGroups> {
        Ok(MergedGroups::of(self.engine))
    }

    fn way(&self) -> &'static str {
        self.engine.way()
    }
}

impl CommittedSegment {
    pub(super) fn contains(&self, rows: &Range<u32>) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Error::Invalid(format!("rows {rows:?} of a segment of {} rows", self.rows)));
        }
        Ok(())
    }

    /// Smallest and largest of the integers that stand for the column's values, in the type it has now; `None` when all are null.
    pub(super) fn bounds(&self, index: usize, current: &DataType) -> Option<(i128, i128)> {
        crate::aggregate::engine::bounds_in(
            &self.stats[index],
            u64::from(self.rows),
            &self.schema.columns[index].data_type,
            current,
        )
    }
}
