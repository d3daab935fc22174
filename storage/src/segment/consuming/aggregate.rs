//! Aggregating a consuming segment: its chunks are Arrow arrays, which give the engine the same windows that encoded columns do.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch},
    compute::filter,
};

use super::{ConsumingSegment, Piece};
use crate::{
    Result,
    aggregate::{
        AggregateRequest, Aggregation, MergedGroups, STEP_ROWS, WINDOW_ROWS,
        engine::{Engine, Layout, bounds_in, bounds_of, shape_of, shape_of_any},
        metadata,
    },
    bitpack::Bitmask,
    evaluate::{column_as, default_array, evaluate},
    prune::Verdict,
    scan::{ScanHints, ScanMetrics, ScanRequest},
};

#[derive(Debug)]
struct ConsumingAggregation {
    segment: Arc<ConsumingSegment>,
    layout: Arc<Layout>,
    metrics: Arc<ScanMetrics>,
    engine: Engine,
    /// The condition and the FILTER clauses, as requests that [`evaluate`] takes.
    condition: ScanRequest,
    filters: Vec<ScanRequest>,
    /// Whether a column is read, by its index in the segment's schema.
    wanted: Vec<bool>,
    /// The windows.
    pieces: std::vec::IntoIter<Piece>,
}

pub(super) fn begin(
    segment: &Arc<ConsumingSegment>,
    rows: Range<u32>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    metadata::begin(segment.as_ref(), &rows, segment.validity.as_deref(), request, metrics, |request| {
        rows_of(segment, rows.clone(), request, metrics)
    })
}

fn rows_of(
    segment: &Arc<ConsumingSegment>,
    rows: Range<u32>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    let layout = Arc::new(Layout::new(request)?);
    let mut shapes = Vec::with_capacity(layout.needed.len());
    for needed in &layout.needed {
        let column = &needed.column;
        if needed.recipe.is_some() {
            shapes.push(shape_of_any(&column.data_type, needed.has_values));
            continue;
        }
        let bounds = match segment.schema.index_of(column.id) {
            None => bounds_of(&default_array(column, 1)?),
            Some(index) => bounds_in(
                &segment.stats[index],
                u64::from(segment.rows),
                &segment.schema.columns[index].data_type,
                &column.data_type,
            ),
        };
        shapes.push(shape_of(&column.data_type, needed.has_values, bounds));
    }
    let engine = Engine::new(layout, shapes, rows.len())?;
    Ok(with(engine, segment, &rows, metrics))
}

/// Reads the rows of the segment into the groups of others.
pub(super) fn go_on_with(
    groups: MergedGroups,
    segment: &Arc<ConsumingSegment>,
    rows: &Range<u32>,
    metrics: &Arc<ScanMetrics>,
) -> Box<dyn Aggregation> {
    with(groups.engine, segment, rows, metrics)
}

fn with(
    engine: Engine,
    segment: &Arc<ConsumingSegment>,
    rows: &Range<u32>,
    metrics: &Arc<ScanMetrics>,
) -> Box<dyn Aggregation> {
    let layout = Arc::clone(engine.layout());
    let request = &layout.request;
    let condition_of = |predicate| ScanRequest {
        schema: Arc::clone(&request.schema),
        projection: Vec::new(),
        predicate,
        limit: None,
        batch_rows: WINDOW_ROWS,
        hints: ScanHints { indexes: request.indexes, ..ScanHints::default() },
    };
    let condition = condition_of(request.predicate.clone());
    let filters = layout.filters.iter().map(|filter| condition_of(Some(filter.clone()))).collect();
    let pieces = segment.pieces(rows, &condition, metrics);
    let is_read = |id| {
        let by_condition = request.predicate.iter().chain(&layout.filters).any(|condition| condition.is_about(id));
        by_condition
            || layout.needed.iter().any(|needed| match &needed.recipe {
                None => needed.column.id == id,
                Some(recipe) => recipe.inputs.iter().any(|column| column.id == id),
            })
    };
    let wanted = segment.schema.columns.iter().map(|column| is_read(column.id)).collect();
    Box::new(ConsumingAggregation {
        segment: Arc::clone(segment),
        engine,
        layout,
        metrics: Arc::clone(metrics),
        condition,
        filters,
        wanted,
        pieces: pieces.into_iter(),
    })
}

impl ConsumingAggregation {
    fn read(&mut self, piece: &Piece) -> Result<()> {
        let Piece { bytes, verdict, .. } = piece;
        let (written, current) = (&self.segment.schema, &self.condition.schema);
        let rows = piece.rows(|index| self.wanted[index])?;
        let rows = rows.as_ref();
        let mask = if *verdict == Verdict::Always { None } else { evaluate(&self.condition, written, rows)? };
        let mask = mask.map(|mask| passed(&mask)).filter(|mask| !mask.is_all());
        let selected = mask.as_ref().map_or(rows.num_rows(), Bitmask::count);
        self.metrics.add(rows.num_rows() as u64, selected as u64, *bytes);
        if selected == 0 {
            return Ok(());
        }
        let selection = mask.map(|mask| BooleanArray::new(mask.to_boolean_buffer(), None));
        let select = |array: ArrayRef| -> Result<ArrayRef> {
            Ok(match &selection {
                None => array,
                Some(selection) => filter(&array, selection)?,
            })
        };
        let mut filters = Vec::with_capacity(self.filters.len());
        for request in &self.filters {
            let found = evaluate(request, written, rows)?.map(|found| passed(&found));
            let found = found.unwrap_or_else(|| Bitmask::all(rows.num_rows()));
            let found: ArrayRef = Arc::new(BooleanArray::new(found.to_boolean_buffer(), None));
            filters.push(passed(&BooleanArray::from(select(found)?.to_data())));
        }
        for (at, needed) in self.layout.needed.iter().enumerate() {
            let array = |id| select(column_as(current, written, rows, id)?);
            let shape = self.engine.shapes()[at].clone();
            let block = &mut self.engine.blocks[at];
            match &needed.recipe {
                None => block.fill(&array(needed.column.id)?, &shape)?,
                Some(recipe) => {
                    let inputs = recipe.inputs.iter().map(|column| array(column.id)).collect::<Result<Vec<_>>>()?;
                    recipe.fill(inputs, selected, block, &shape)?;
                }
            }
        }
        self.engine.update(selected, &filters)
    }
}

/// The rows for which it is TRUE.
fn passed(found: &BooleanArray) -> Bitmask {
    Bitmask::from_boolean_buffer(&match found.nulls() {
        None => found.values().clone(),
        Some(known) => found.values() & known.inner(),
    })
}

impl Aggregation for ConsumingAggregation {
    fn step(&mut self) -> Result<bool> {
        let mut left = STEP_ROWS;
        while left > 0 {
            let Some(piece) = self.pieces.next() else { return Ok(false) };
            left = left.saturating_sub(piece.rows.num_rows());
            self.read(&piece)?;
        }
        Ok(self.pieces.len() > 0)
    }

    fn memory_bytes(&self) -> usize {
        self.engine.memory_bytes()
    }

    fn take(&mut self) -> Result<RecordBatch> {
        self.engine.take()
    }

    fn into_groups(self: Box<Self>) -> Result<MergedGroups> {
        Ok(MergedGroups::of(self.engine))
    }

    fn way(&self) -> &'static str {
        self.engine.way()
    }
}
