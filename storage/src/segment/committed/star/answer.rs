//! A request about all rows of a segment, answered by the documents of a star-tree.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions},
    datatypes::{Decimal128Type, SchemaRef},
};

use super::super::{CommittedSegment, aggregate::CommittedAggregation};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation, BY_STAR_TREE, Function},
    bitpack::Bitmask,
    ids::{ColumnId, IndexId},
    index::{
        attached::AttachedIndex,
        star::{
            Rollup,
            cover::{Columns, Question, question},
            dimension_id,
        },
    },
    predicate::{CompareOp, Predicate},
    prune::{Run, Verdict, judge, settled},
    scan::{IndexUse, ScanMetrics},
    schema::TableSchema,
    segment::ColumnStats,
    upsert::Validity,
};

/// Below so many documents a run of them is not looked for.
const NARROWED_MIN: u32 = 4096;
/// Values of an IN that are looked for one by one.
const LOOKUPS_MAX: usize = 16;
/// What a condition on the first dimension is thought to leave of it, when it is a range.
const RANGE_SHARE: u64 = 4;

/// How a request is to be answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) index: Arc<AttachedIndex>,
    /// The documents are the renewed ones of valid rows, not the file's of all rows.
    is_renewed: bool,
    /// Rows that the documents count and that are not valid.
    pub(super) lost: Option<Validity>,
    documents: Arc<CommittedSegment>,
    question: Question,
    /// About how many documents and lost rows are read.
    cost: u64,
}

impl Answer {
    pub(super) fn lost_rows(&self) -> u32 {
        self.lost.as_ref().map_or(0, Validity::invalid)
    }
}

/// Begins to answer by documents; `None` when there are none for the request. Whatever goes wrong, `of_rows` answers.
pub(in super::super) fn begin(
    segment: &Arc<CommittedSegment>,
    rows: &Range<u32>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Option<Box<dyn Aggregation>>> {
    if !request.star_tree || *rows != (0..segment.rows) || rows.is_empty() {
        return Ok(None);
    }
    let Some(answer) = segment.answer(request, None) else { return Ok(None) };
    go_on_with(segment, request, metrics, answer)
}

/// What the documents of an answer say. `None` when they turn out to be damaged.
pub(super) fn go_on_with(
    segment: &Arc<CommittedSegment>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
    answer: Answer,
) -> Result<Option<Box<dyn Aggregation>>> {
    let schema = request.output_schema()?;
    let (index, is_renewed) = (Arc::clone(&answer.index), answer.is_renewed);
    match ByDocuments::new(segment, request, metrics, answer, schema) {
        Ok(by_documents) => Ok(Some(Box::new(by_documents))),
        Err(error) => {
            segment.lose_documents(&index, is_renewed, &error);
            Ok(None)
        }
    }
}

impl CommittedSegment {
    /// The star-tree that answers the request for all rows of the segment, if one does.
    pub fn star_tree(&self, request: &AggregateRequest) -> Option<IndexId> {
        self.answer(request, None).map(|answer| answer.index.id)
    }

    /// Documents that are damaged are asked no more.
    fn lose_documents(&self, index: &AttachedIndex, is_renewed: bool, error: &Error) {
        match is_renewed {
            true => index.renewed.forget(error),
            false => self.lose_index(index.id, error),
        }
    }

    /// The rollup that answers with the fewest documents, about all rows or the valid ones.
    pub(super) fn answer(&self, request: &AggregateRequest, validity: Option<&Validity>) -> Option<Answer> {
        let list = self.indexes.list();
        let is_empty = |predicate| judge(predicate, &request.schema, &self.run(), None) == Verdict::Never;
        if !request.star_tree || self.rows == 0 || list.is_empty() || request.predicate.as_ref().is_some_and(is_empty) {
            return None;
        }
        let known = Known { segment: self, current: &request.schema };
        let mut best: Option<Answer> = None;
        for index in list.iter().filter(|index| index.is_star_tree()) {
            let opened = match index.star_tree() {
                Ok(Some(opened)) => opened,
                Ok(None) => continue,
                Err(error) => {
                    self.lose_index(index.id, &error);
                    continue;
                }
            };
            let renewed = validity.and_then(|validity| index.renewed.of(validity));
            let ways = renewed.as_ref().map(|(tree, lost)| (&tree.index, Some(lost), true));
            let of_all = (opened, validity, false);
            for (tree, lost, is_renewed) in ways.into_iter().chain([of_all]) {
                let Some(question) = question(&tree.tree, request, &known) else { continue };
                let fitting =
                    tree.rollups.iter().filter(|rollup| rollup.dimensions & question.needed == question.needed);
                let costs = fitting.map(|rollup| (rollup, cost(rollup, &question)));
                let Some((rollup, cost)) = costs.min_by_key(|(_, cost)| *cost) else { continue };
                let cost = cost + lost.map_or(0, |lost| u64::from(lost.invalid()));
                if best.as_ref().is_none_or(|best| cost < best.cost) {
                    let documents = Arc::clone(&rollup.documents);
                    let (index, lost) = (Arc::clone(index), lost.cloned());
                    best = Some(Answer { index, is_renewed, lost, documents, question, cost });
                }
            }
        }
        best
    }
}

impl CommittedSegment {
    /// All rows and what is known of them.
    fn run<'s>(&'s self) -> Run<'s, impl Fn(usize) -> Option<&'s ColumnStats>> {
        Run { rows: u64::from(self.rows), written: &self.schema, stats: |index: usize| self.stats.get(index) }
    }
}

struct Known<'a> {
    segment: &'a CommittedSegment,
    current: &'a TableSchema,
}

impl Columns for Known<'_> {
    fn is_unchanged(&self, column: ColumnId) -> bool {
        match (self.segment.schema.column(column), self.current.column(column)) {
            (Some(written), Some(now)) => written.data_type == now.data_type,
            _ => false,
        }
    }

    fn has_nulls(&self, column: ColumnId) -> bool {
        self.segment.has_nulls(column)
    }

    fn left_open(&self, predicate: &Predicate) -> Option<Predicate> {
        settled(predicate, self.current, &self.segment.run())
    }
}

/// The first dimension of a rollup: its documents are sorted by it.
fn first(rollup: &Rollup) -> Option<ColumnId> {
    (rollup.dimensions != 0).then(|| dimension_id(rollup.dimensions.trailing_zeros() as usize))
}

/// The parts of a predicate that all have to be true.
fn conjuncts(predicate: Option<&Predicate>) -> &[Predicate] {
    match predicate {
        None => &[],
        Some(Predicate::And(children)) => children,
        Some(one) => std::slice::from_ref(one),
    }
}

/// About how many documents of the rollup are read.
fn cost(rollup: &Rollup, question: &Question) -> u64 {
    let documents = &rollup.documents;
    let all = u64::from(documents.rows);
    let Some(first) = first(rollup) else { return all };
    let values = documents.schema.index_of(first).and_then(|index| documents.stats[index].distinct);
    let values = values.unwrap_or(RANGE_SHARE).max(1);
    let share = |part: &Predicate| match part {
        Predicate::Compare { column, op: CompareOp::Eq, .. } if *column == first => all / values,
        Predicate::Compare { column, op, .. } if *column == first && *op != CompareOp::NotEq => all / RANGE_SHARE,
        Predicate::In { column, values: few, negated: false } if *column == first && few.len() <= LOOKUPS_MAX => {
            all / values * few.len() as u64
        }
        _ => all,
    };
    conjuncts(question.predicate.as_ref()).iter().map(share).min().unwrap_or(all).min(all)
}

/// The runs of documents that conditions on the first dimension leave.
fn runs(documents: &CommittedSegment, predicate: Option<&Predicate>) -> Result<Vec<Range<u32>>> {
    let all = 0..documents.rows;
    let Some(first) = documents.schema.columns.first().map(|column| column.id) else { return Ok(vec![all]) };
    if documents.rows < NARROWED_MIN || first == crate::index::star::ROWS {
        return Ok(vec![all]);
    }
    let sorted = Sorted { documents, column: first, values: documents.rows - documents.stats[0].nulls as u32 };
    let mut runs = vec![all];
    for part in conjuncts(predicate) {
        let allowed = match part {
            Predicate::Compare { column, op, value } if *column == first => {
                let below = |op| sorted.point(Predicate::Compare { column: first, op, value: value.clone() });
                vec![match op {
                    CompareOp::Eq => below(CompareOp::Less)?..below(CompareOp::LessEq)?,
                    CompareOp::Less => 0..below(CompareOp::Less)?,
                    CompareOp::LessEq => 0..below(CompareOp::LessEq)?,
                    CompareOp::Greater => below(CompareOp::LessEq)?..sorted.values,
                    CompareOp::GreaterEq => below(CompareOp::Less)?..sorted.values,
                    CompareOp::NotEq => continue,
                }]
            }
            Predicate::In { column, values, negated: false } if *column == first && values.len() <= LOOKUPS_MAX => {
                let mut of_values = Vec::with_capacity(values.len());
                for value in values {
                    let below = |op| sorted.point(Predicate::Compare { column: first, op, value: value.clone() });
                    of_values.push(below(CompareOp::Less)?..below(CompareOp::LessEq)?);
                }
                of_values.sort_unstable_by_key(|run: &Range<u32>| (run.start, run.end));
                // A value that is given twice has its documents once.
                of_values.dedup();
                of_values
            }
            Predicate::IsNull { column, negated } if *column == first => {
                vec![if *negated { 0..sorted.values } else { sorted.values..documents.rows }]
            }
            _ => continue,
        };
        let both = |a: &Range<u32>, b: &Range<u32>| a.start.max(b.start)..a.end.min(b.end);
        runs = runs.iter().flat_map(|run| allowed.iter().map(move |other| both(run, other))).collect();
        runs.retain(|run| !run.is_empty());
    }
    Ok(runs)
}

/// Documents in the order of a column, nulls last.
struct Sorted<'a> {
    documents: &'a CommittedSegment,
    column: ColumnId,
    /// Documents that are not null there.
    values: u32,
}

impl Sorted<'_> {
    /// How many documents pass a test that only the first ones pass.
    fn point(&self, below: Predicate) -> Result<u32> {
        let index = self.documents.schema.index_of(self.column).unwrap_or_default();
        let reader = self.documents.reader(index)?;
        let test = reader.prepare(&below)?;
        let (mut low, mut high) = (0, self.values);
        if test.selects_nothing() {
            high = 0;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let mut mask = Bitmask::all(1);
            reader.select(middle..middle + 1, &test, &mut mask)?;
            if mask.is_none() { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }
}

/// An aggregation over documents, in the columns of one over rows.
#[derive(Debug)]
struct ByDocuments {
    segment: Arc<CommittedSegment>,
    request: Arc<AggregateRequest>,
    metrics: Arc<ScanMetrics>,
    index: Arc<AttachedIndex>,
    is_renewed: bool,
    /// Of the answer.
    schema: SchemaRef,
    run: CommittedAggregation,
    runs: VecDeque<Range<u32>>,
    /// Something was handed out.
    has_given: bool,
    /// Answers instead, once the documents turn out to be damaged.
    of_rows: Option<Box<dyn Aggregation>>,
}

impl ByDocuments {
    fn new(
        segment: &Arc<CommittedSegment>,
        request: &Arc<AggregateRequest>,
        metrics: &Arc<ScanMetrics>,
        answer: Answer,
        schema: SchemaRef,
    ) -> Result<Self> {
        let Answer { index, is_renewed, documents, question, .. } = answer;
        let mut runs: VecDeque<Range<u32>> = runs(&documents, question.predicate.as_ref())?.into();
        let asked = Arc::new(AggregateRequest {
            schema: Arc::clone(&documents.schema),
            keys: question.keys,
            aggregates: question.aggregates,
            computed: Vec::new(),
            predicate: question.predicate,
            indexes: IndexUse::Off,
            results: None,
            star_tree: false,
        });
        let expected = runs.iter().map(Range::len).sum();
        let first = runs.pop_front().unwrap_or(0..0);
        let run = CommittedAggregation::new(&documents, first, None, expected, &asked, metrics)?;
        Ok(Self {
            segment: Arc::clone(segment),
            request: Arc::clone(request),
            metrics: Arc::clone(metrics),
            index,
            is_renewed,
            schema,
            run,
            runs,
            has_given: false,
            of_rows: None,
        })
    }

    fn read(&mut self) -> Result<bool> {
        if self.run.step()? {
            return Ok(true);
        }
        Ok(match self.runs.pop_front() {
            Some(next) => {
                self.run.go_on(next);
                true
            }
            None => false,
        })
    }

    /// The groups, in the columns of the request.
    fn groups(&mut self) -> Result<RecordBatch> {
        let found = self.run.take()?;
        let keys = self.request.keys.len();
        let mut columns = found.columns()[..keys].to_vec();
        for (aggregate, column) in self.request.aggregates.iter().zip(&found.columns()[keys..]) {
            columns.push(match aggregate.function {
                Function::Rows | Function::Count(_) => counts(column)?,
                _ => Arc::clone(column),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// After an error of the documents: the rows answer, unless a part of the answer is given already. Documents of valid rows leave that to who asked them.
    fn give_up(&mut self, error: Error) -> Result<&mut Box<dyn Aggregation>> {
        if matches!(error, Error::OutOfRange(_)) {
            return Err(error);
        }
        self.segment.lose_documents(&self.index, self.is_renewed, &error);
        if self.has_given || self.is_renewed {
            return Err(error);
        }
        let rows = 0..self.segment.rows;
        let of_rows = super::super::aggregate::rows_of(&self.segment, rows, &self.request, &self.metrics)?;
        Ok(self.of_rows.insert(of_rows))
    }
}

/// Sums of counts.
fn counts(sums: &ArrayRef) -> Result<ArrayRef> {
    let sums = sums
        .as_primitive_opt::<Decimal128Type>()
        .ok_or_else(|| Error::Invalid(format!("a count of type {}", sums.data_type())))?;
    Ok(Arc::new(sums.iter().map(|sum| sum.map_or(0, |sum| sum as i64)).collect::<Int64Array>()))
}

impl Aggregation for ByDocuments {
    fn step(&mut self) -> Result<bool> {
        if let Some(of_rows) = &mut self.of_rows {
            return of_rows.step();
        }
        match self.read() {
            Ok(more) => Ok(more),
            Err(error) => self.give_up(error).map(|_| true),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.of_rows.as_ref().map_or_else(|| self.run.memory_bytes(), |of_rows| of_rows.memory_bytes())
    }

    fn take(&mut self) -> Result<RecordBatch> {
        if self.of_rows.is_none() {
            match self.groups() {
                Ok(groups) => {
                    self.has_given = true;
                    return Ok(groups);
                }
                Err(error) => {
                    let of_rows = self.give_up(error)?;
                    while of_rows.step()? {}
                }
            }
        }
        match &mut self.of_rows {
            Some(of_rows) => of_rows.take(),
            None => Err(Error::Invalid("an aggregation without rows and documents".into())),
        }
    }

    fn way(&self) -> &'static str {
        BY_STAR_TREE
    }
}
