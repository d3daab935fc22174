//! Answers from a segment's statistics, without reading a row.
//!
//! They say something of whole segments only: no keys, every row of the segment, no condition (or one that the statistics say is
//! true of every row). What they leave open is aggregated from the rows; nothing needs to be when they leave nothing open. Distinct values
//! of one column are known where it has a dictionary, too: the segment knows that ([`Answered::of`]).

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, new_null_array},
    datatypes::SchemaRef,
};

use super::{Aggregate, AggregateRequest, Aggregation, BY_STAR_TREE, BY_STAR_TREE_LESS_ROWS, Function};
use crate::{
    Result,
    evaluate::scalar_array,
    prune::{Run, Verdict, judge, widen},
    scan::ScanMetrics,
    schema::DataType,
    segment::{ColumnStats, Segment},
    upsert::Validity,
};

/// Begins an aggregation of the valid `rows` of a segment: what statistics answer, and of the rest what `of_rows` begins.
pub(crate) fn begin(
    segment: &dyn Segment,
    rows: &Range<u32>,
    validity: Option<&Validity>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
    of_rows: impl Fn(&Arc<AggregateRequest>) -> Result<Box<dyn Aggregation>>,
) -> Result<Box<dyn Aggregation>> {
    let Some(known) = answers(segment, rows, validity, request)? else { return of_rows(request) };
    let rest = rest(request, &known);
    let rest = if rest.aggregates.is_empty() { None } else { Some(of_rows(&Arc::new(rest))?) };
    Ok(Box::new(Answered::new(request.output_schema()?, known, rest, rows.end, metrics)))
}

/// The columns of the answer that are known, by place; `None` when none is.
fn answers(
    segment: &dyn Segment,
    rows: &Range<u32>,
    validity: Option<&Validity>,
    request: &AggregateRequest,
) -> Result<Option<Vec<Option<ArrayRef>>>> {
    if !request.keys.is_empty() || !is_of_all_rows(segment, rows, request) {
        return Ok(None);
    }
    let invalid = validity.map_or(0, |validity| validity.invalid_in(rows.clone()));
    let answer = |aggregate| answer(segment, invalid, request, aggregate);
    let known = request.aggregates.iter().map(answer).collect::<Result<Vec<_>>>()?;
    Ok(known.iter().any(Option::is_some).then_some(known))
}

/// Whether the request is for every row of the segment that is there, of which there may be none.
pub(crate) fn is_of_all_rows(segment: &dyn Segment, rows: &Range<u32>, request: &AggregateRequest) -> bool {
    if *rows != (0..segment.rows()) || rows.is_empty() {
        return false;
    }
    let written = segment.schema();
    let run = Run {
        rows: u64::from(segment.rows()),
        written,
        stats: |index: usize| segment.stats(written.columns[index].id),
    };
    let predicate = request.predicate.as_ref();
    predicate.is_none_or(|predicate| judge(predicate, &request.schema, &run, None) == Verdict::Always)
}

/// Whether statistics leave nothing open of a request without keys for all valid rows.
pub(crate) fn answers_all(segment: &dyn Segment, validity: Option<&Validity>, request: &AggregateRequest) -> bool {
    let known = answers(segment, &(0..segment.rows()), validity, request);
    known.is_ok_and(|known| known.is_some_and(|known| known.iter().all(Option::is_some)))
}

/// `invalid` rows of the segment are not there for the request: then statistics are about others as well.
fn answer(
    segment: &dyn Segment,
    invalid: u32,
    request: &AggregateRequest,
    aggregate: &Aggregate,
) -> Result<Option<ArrayRef>> {
    if aggregate.filter.is_some() {
        return Ok(None);
    }
    let rows = i64::from(segment.rows()) - i64::from(invalid);
    let count = |count: i64| Ok(Some(Arc::new(Int64Array::from(vec![count])) as ArrayRef));
    let Some(id) = aggregate.function.column() else { return count(rows) };
    let column = request.column(id)?;
    let Some(index) = segment.schema().index_of(id) else { return Ok(None) };
    let Some(ColumnStats { min, max, exact, nulls, .. }) = segment.stats(id) else { return Ok(None) };
    if invalid > 0 {
        let is_never_null = *nulls == 0 && matches!(aggregate.function, Function::Count(_));
        return if is_never_null { count(rows) } else { Ok(None) };
    }
    let bound = match aggregate.function {
        Function::Count(_) => return count(rows - *nulls as i64),
        Function::Min(_) => min,
        Function::Max(_) => max,
        _ => return Ok(None),
    };
    if matches!(column.data_type, DataType::Real | DataType::Double) {
        // Statistics do not tell the zeros apart, nor the NaNs.
        return Ok(None);
    }
    if *nulls as i64 == rows {
        return Ok(Some(new_null_array(&column.data_type.arrow(), 1)));
    }
    let written = &segment.schema().columns[index].data_type;
    match bound.as_ref().filter(|_| *exact).and_then(|bound| widen(bound, written, &column.data_type)) {
        Some(bound) => Ok(Some(scalar_array(&bound, &column.data_type)?)),
        None => Ok(None),
    }
}

/// The request for what is not known.
fn rest(request: &AggregateRequest, known: &[Option<ArrayRef>]) -> AggregateRequest {
    let mut rest = request.clone();
    let mut known = known.iter();
    rest.aggregates.retain(|_| known.next().is_some_and(Option::is_none));
    rest
}

/// Known columns beside those that an inner aggregation finds.
#[derive(Debug)]
pub(crate) struct Answered {
    schema: SchemaRef,
    known: Vec<Option<ArrayRef>>,
    /// `None`: nothing is left to find.
    rest: Option<Box<dyn Aggregation>>,
    is_taken: bool,
}

impl Answered {
    /// The groups of all `rows` of a segment, which are known without reading these.
    pub(crate) fn of(schema: SchemaRef, columns: Vec<ArrayRef>, rows: u32, metrics: &ScanMetrics) -> Self {
        Self::new(schema, columns.into_iter().map(Some).collect(), None, rows, metrics)
    }

    fn new(
        schema: SchemaRef,
        known: Vec<Option<ArrayRef>>,
        rest: Option<Box<dyn Aggregation>>,
        rows: u32,
        metrics: &ScanMetrics,
    ) -> Self {
        if rest.is_none() {
            metrics.add(0, u64::from(rows), 0);
        }
        Self { schema, known, rest, is_taken: false }
    }
}

impl Aggregation for Answered {
    fn step(&mut self) -> Result<bool> {
        self.rest.as_mut().map_or(Ok(false), |rest| rest.step())
    }

    fn memory_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.memory_bytes())
    }

    fn take(&mut self) -> Result<RecordBatch> {
        if self.is_taken {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        // What is known is known of all rows: it must not be given twice.
        while self.step()? {}
        self.is_taken = true;
        let found = self.rest.as_mut().map(|rest| rest.take()).transpose()?;
        let mut found = found.iter().flat_map(|batch| batch.columns().iter().cloned());
        let columns =
            self.known.iter().cloned().map(|known| known.or_else(|| found.next())).collect::<Option<Vec<_>>>();
        let groups = columns.iter().flatten().next().map_or(1, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(groups));
        let columns = columns.ok_or_else(|| crate::Error::Invalid("an aggregate that nobody answered".into()))?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn way(&self) -> &'static str {
        match &self.rest {
            None => "metadata",
            Some(rest) if rest.way() == BY_STAR_TREE => BY_STAR_TREE,
            Some(rest) if rest.way() == BY_STAR_TREE_LESS_ROWS => BY_STAR_TREE_LESS_ROWS,
            Some(_) => "metadata and rows",
        }
    }
}
