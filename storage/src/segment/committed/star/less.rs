//! A star-tree's answer about a segment some of whose rows are not valid: what documents say of all rows, less what these rows were.
//!
//! What documents say is of all rows, or of those that were valid a while ago ([`renewed`](super::renewed)): what is read here is what was lost since.
//! Counts and exact sums can be taken back; the least value of the rows that are left is that of all, or is looked for ([`Touched`]). Groups that only rows
//! had that are not valid are no groups: a count of rows goes along with every question, and one of values with every sum and every end.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::{DataType as ArrowType, Decimal128Type, Int64Type, SchemaRef},
    row::{RowConverter, Rows, SortField},
};

use super::{
    super::{CommittedSegment, aggregate::CommittedAggregation},
    answer::{self, Answer},
    touched::{self, Touched},
};
use crate::{
    Error, Result,
    aggregate::{Aggregate, AggregateRequest, Aggregation, BY_STAR_TREE_LESS_ROWS, Function},
    ids::IndexId,
    scan::ScanMetrics,
    schema::{DataType, TableSchema},
    upsert::Validity,
};

/// Where one row in so many is not valid, the valid ones are read instead.
const LOST_SHARE: u32 = 3;

/// A request with all that is to be known to take rows off its answer.
struct Complete {
    request: Arc<AggregateRequest>,
    /// For each aggregate of the complete request, if it is a sum or an end, the place of the count of its values.
    counts: Vec<Option<usize>>,
    /// The place of the count of rows.
    rows: usize,
}

/// `None`: one of its aggregates cannot be taken back.
fn complete(request: &AggregateRequest) -> Option<Complete> {
    let mut complete = request.clone();
    let mut place = |aggregate: Aggregate| {
        complete.aggregates.iter().position(|known| *known == aggregate).unwrap_or_else(|| {
            complete.aggregates.push(aggregate);
            complete.aggregates.len() - 1
        })
    };
    let rows = place(Aggregate { function: Function::Rows, filter: None });
    let mut of_values = Vec::new();
    for aggregate in &request.aggregates {
        of_values.push(match aggregate.function {
            Function::Rows | Function::Count(_) => None,
            // What was added to a float may have swallowed what was there.
            Function::Sum(id) if !matches!(request.column(id).ok()?.data_type, DataType::Real | DataType::Double) => {
                Some(place(Aggregate { function: Function::Count(id), filter: aggregate.filter.clone() }))
            }
            Function::Min(id) | Function::Max(id) if touched::is_comparable(&request.column(id).ok()?.data_type) => {
                Some(place(Aggregate { function: Function::Count(id), filter: aggregate.filter.clone() }))
            }
            _ => return None,
        });
    }
    of_values.resize(complete.aggregates.len(), None);
    Some(Complete { request: Arc::new(complete), counts: of_values, rows })
}

/// Whether a document can say it of some rows when it says it of more of them.
pub(super) fn can_be_taken_back(function: Function, schema: &Arc<TableSchema>) -> bool {
    let aggregates = vec![Aggregate { function, filter: None }];
    complete(&AggregateRequest::of_all(schema, Vec::new(), aggregates)).is_some()
}

/// The documents that are asked, if that is worth it.
fn answer(segment: &CommittedSegment, validity: &Validity, complete: &Complete) -> Option<Answer> {
    let answer = segment.answer(&complete.request, Some(validity))?;
    (answer.lost_rows() < segment.rows / LOST_SHARE).then_some(answer)
}

/// The tree that answers for the valid rows of a segment, and how many rows are read to be taken off.
pub(in super::super) fn tree(
    segment: &CommittedSegment,
    validity: &Validity,
    request: &AggregateRequest,
) -> Option<(IndexId, u32)> {
    if !request.star_tree {
        return None;
    }
    answer(segment, validity, &complete(request)?).map(|answer| (answer.index.id, answer.lost_rows()))
}

/// Begins to answer; `None` when there are no documents for the request. Whatever goes wrong, the valid rows answer.
pub(in super::super) fn begin(
    segment: &Arc<CommittedSegment>,
    rows: &Range<u32>,
    validity: &Validity,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Option<Box<dyn Aggregation>>> {
    if !request.star_tree || *rows != (0..segment.rows) {
        return Ok(None);
    }
    let Some(complete) = complete(request) else { return Ok(None) };
    let Some(answer) = answer(segment, validity, &complete) else { return Ok(None) };
    answer.index.renewed.want(answer.lost_rows());
    let lost = match &answer.lost {
        Some(lost) if lost.invalid() > 0 => {
            let (only, expected) = (lost.inverted(segment.rows), lost.invalid() as usize);
            let rows = rows.clone();
            Some(CommittedAggregation::new(segment, rows, Some(&only), expected, &complete.request, metrics)?)
        }
        _ => None,
    };
    let Some(tree) = answer::go_on_with(segment, &complete.request, metrics, answer)? else { return Ok(None) };
    Ok(Some(Box::new(Less {
        segment: Arc::clone(segment),
        validity: validity.clone(),
        request: Arc::clone(request),
        metrics: Arc::clone(metrics),
        schema: request.output_schema()?,
        complete,
        tree,
        lost,
        of_rows: None,
        is_taken: false,
    })))
}

struct Less {
    segment: Arc<CommittedSegment>,
    validity: Validity,
    request: Arc<AggregateRequest>,
    metrics: Arc<ScanMetrics>,
    schema: SchemaRef,
    complete: Complete,
    tree: Box<dyn Aggregation>,
    /// `None`: there are no such rows.
    lost: Option<CommittedAggregation>,
    /// Answers instead, once something went wrong.
    of_rows: Option<Box<dyn Aggregation>>,
    is_taken: bool,
}

impl std::fmt::Debug for Less {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Less").field("tree", &self.tree).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Less {
    fn by_rows(&mut self) -> Result<&mut Box<dyn Aggregation>> {
        let rows = 0..self.segment.rows;
        let expected = rows.len();
        let run = CommittedAggregation::new(
            &self.segment,
            rows,
            Some(&self.validity),
            expected,
            &self.request,
            &self.metrics,
        )?;
        Ok(self.of_rows.insert(Box::new(run)))
    }

    fn groups(&mut self) -> Result<RecordBatch> {
        while self.tree.step()? {}
        let all = self.tree.take()?;
        let keys = self.request.keys.len();
        let lost = match &mut self.lost {
            None => return self.as_they_are(&all),
            Some(lost) => {
                while lost.step()? {}
                lost.take()?
            }
        };
        let places = places(&all, &lost, keys)?;
        let counts =
            |place: usize| difference_of_counts(&all.columns()[keys + place], &lost.columns()[keys + place], &places);
        let rows = counts(self.complete.rows)?;
        if rows.iter().any(|rows| *rows < 0) {
            return Err(Error::Invalid("documents of fewer rows than are not valid".into()));
        }
        let touched = Touched {
            segment: &self.segment,
            validity: &self.validity,
            request: &self.request,
            metrics: &self.metrics,
            all: &all,
            places: &places,
        };
        let mut columns = all.columns()[..keys].to_vec();
        for (place, aggregate) in self.request.aggregates.iter().enumerate() {
            let (all, lost) = (&all.columns()[keys + place], &lost.columns()[keys + place]);
            columns.push(match (aggregate.function, self.complete.counts[place]) {
                (Function::Sum(_), Some(count)) => difference_of_sums(all, lost, &places, &counts(count)?)?,
                (Function::Min(_) | Function::Max(_), Some(count)) => {
                    touched.ends(aggregate, all, lost, &counts(count)?)?
                }
                _ => Arc::new(Int64Array::from(counts(place)?)),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
        let groups = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        if keys == 0 {
            return Ok(groups);
        }
        let is_there: BooleanArray = rows.iter().map(|rows| Some(*rows > 0)).collect();
        Ok(filter_record_batch(&groups, &is_there)?)
    }

    /// What documents say where no row is to be taken off: without the counts that were added to the request.
    fn as_they_are(&self, all: &RecordBatch) -> Result<RecordBatch> {
        let asked = self.request.keys.len() + self.request.aggregates.len();
        let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
        let columns = all.columns()[..asked].to_vec();
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// For each group of `all` its place in `lost`, if it is there.
fn places(all: &RecordBatch, lost: &RecordBatch, keys: usize) -> Result<Vec<Option<usize>>> {
    if keys == 0 {
        return Ok(vec![(lost.num_rows() == 1).then_some(0); all.num_rows()]);
    }
    if lost.num_rows() == 0 {
        return Ok(vec![None; all.num_rows()]);
    }
    let [of_all, of_lost] = rows_as_bytes([all, lost], keys)?;
    let by_key: HashMap<&[u8], usize, foldhash::fast::FixedState> =
        of_lost.iter().enumerate().map(|(place, row)| (row.data(), place)).collect();
    let places: Vec<Option<usize>> = of_all.iter().map(|row| by_key.get(row.data()).copied()).collect();
    if places.iter().flatten().count() != lost.num_rows() {
        return Err(Error::Invalid("rows of groups that no document is about".into()));
    }
    Ok(places)
}

/// The keys of groups, comparable between both.
pub(super) fn rows_as_bytes(groups: [&RecordBatch; 2], keys: usize) -> Result<[Rows; 2]> {
    let columns = groups.map(|groups| &groups.columns()[..keys]);
    let fields = columns[0].iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    Ok([converter.convert_columns(columns[0])?, converter.convert_columns(columns[1])?])
}

fn difference_of_counts(all: &ArrayRef, lost: &ArrayRef, places: &[Option<usize>]) -> Result<Vec<i64>> {
    let (Some(all), Some(lost)) = (all.as_primitive_opt::<Int64Type>(), lost.as_primitive_opt::<Int64Type>()) else {
        return Err(Error::Invalid("counts of another type".into()));
    };
    let difference = |(all, place): (&i64, &Option<usize>)| all - place.map_or(0, |place| lost.value(place));
    Ok(all.values().iter().zip(places).map(difference).collect())
}

/// `counts`: of values that are left.
fn difference_of_sums(all: &ArrayRef, lost: &ArrayRef, places: &[Option<usize>], counts: &[i64]) -> Result<ArrayRef> {
    let data_type = all.data_type().clone();
    let (Some(all), Some(lost), ArrowType::Decimal128(precision, scale)) =
        (all.as_primitive_opt::<Decimal128Type>(), lost.as_primitive_opt::<Decimal128Type>(), &data_type)
    else {
        return Err(Error::Invalid(format!("a sum of type {data_type}")));
    };
    let difference = |((group, place), count): ((usize, &Option<usize>), &i64)| {
        let of_lost = place.filter(|place| lost.is_valid(*place)).map_or(0, |place| lost.value(place));
        // Sums have 38 digits, which a difference of two has in 128 bits.
        (*count > 0 && all.is_valid(group)).then(|| all.value(group) - of_lost)
    };
    let sums: Decimal128Array = places.iter().enumerate().zip(counts).map(difference).collect();
    Ok(Arc::new(sums.with_precision_and_scale(*precision, *scale)?))
}

impl Aggregation for Less {
    fn step(&mut self) -> Result<bool> {
        if let Some(of_rows) = &mut self.of_rows {
            return of_rows.step();
        }
        let more = match self.tree.step() {
            Ok(true) => Ok(true),
            Ok(false) => self.lost.as_mut().map_or(Ok(false), CommittedAggregation::step),
            Err(error) => Err(error),
        };
        match more {
            Ok(more) => Ok(more),
            Err(_) => self.by_rows().map(|_| true),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.of_rows {
            Some(of_rows) => of_rows.memory_bytes(),
            None => self.tree.memory_bytes() + self.lost.as_ref().map_or(0, CommittedAggregation::memory_bytes),
        }
    }

    /// All groups at once: what is known of all rows is known of more than those read so far.
    fn take(&mut self) -> Result<RecordBatch> {
        if self.is_taken {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.schema)));
        }
        if self.of_rows.is_none() {
            if let Ok(groups) = self.groups() {
                self.is_taken = true;
                return Ok(groups);
            }
            self.by_rows()?;
        }
        match &mut self.of_rows {
            Some(of_rows) => {
                while of_rows.step()? {}
                self.is_taken = true;
                of_rows.take()
            }
            None => Err(Error::Invalid("an aggregation without rows and documents".into())),
        }
    }

    fn way(&self) -> &'static str {
        BY_STAR_TREE_LESS_ROWS
    }
}
