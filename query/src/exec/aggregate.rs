//! Partial aggregates of a table snapshot, made in its segments.
//!
//! Lanes share the units as in [`scan`](super::scan); a unit is a long run of one segment's rows, so that few groups come out more than once.
//! A lane reads some tens of thousands of rows, then lets others run, and looks at the memory that its groups take: when there is no more
//! it gives the groups that it has and begins anew, because groups that come twice are one in the final aggregate.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use datafusion::{
    common::{Statistics, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream, ReplaceChildrenOptions,
        SendableRecordBatchStream, StatisticsArgs,
        execution_plan::{Boundedness, EmissionType},
        metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
    },
};
use futures::Stream;
use tidemill_storage::{
    aggregate::{
        AggregateRequest, Aggregation, BY_STAR_TREE, BY_STAR_TREE_LESS_ROWS, Bin, Function, MergedGroups, joined,
    },
    ids::IndexId,
    index::IndexKind,
    scan::{ScanPlan, ScanUnit},
    segment::SegmentState,
};

use super::{
    display,
    merging::{Meeting, Merging},
    scan::{LaneCounters, SegmentScanExec},
    states::State,
};
use crate::SqlError;

/// Rows of a unit, at least and at most, where a segment has as many.
const UNIT_ROWS_MIN: usize = 256 * 1024;
const UNIT_ROWS_MAX: usize = 8 * 1024 * 1024;
/// Units for each lane, at least, so that lanes end together.
const UNITS_PER_LANE: usize = 4;

/// The leaf that takes the place of a partial aggregate and the scan below it.
#[derive(Debug)]
pub struct SegmentAggregateExec {
    table: Arc<str>,
    plan: Arc<ScanPlan>,
    request: Arc<AggregateRequest>,
    states: Arc<[State]>,
    schema: SchemaRef,
    /// Segments of which no row is read.
    by_metadata: usize,
    /// Which star-trees answer for how many segments.
    star_trees: Arc<BTreeMap<IndexId, Answers>>,
    /// Gives final groups instead of partial ones.
    merging: Option<Arc<Merging>>,
    meeting: Arc<Meeting>,
    /// The next unit to be dealt.
    next: Arc<AtomicUsize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What a star-tree answers.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    segments: usize,
    /// Rows that are not seen, which are taken off what it says.
    rows_less: u64,
}

impl SegmentAggregateExec {
    /// In place of a partial aggregate over `scan` whose columns are those of `schema`: the keys of `request`, then `states`. `None` when the
    /// types differ.
    pub(crate) fn try_new(
        scan: &SegmentScanExec,
        request: AggregateRequest,
        states: Vec<State>,
        schema: SchemaRef,
    ) -> Result<Option<Self>, DataFusionError> {
        let given = request.output_schema().map_err(SqlError::from)?;
        let keys = given.fields().iter().take(request.keys.len());
        let fits = keys.zip(schema.fields()).all(|(given, wanted)| given.data_type() == wanted.data_type());
        if !fits || schema.fields().len() != request.keys.len() + states.len() {
            return Ok(None);
        }
        let rows: usize = scan.plan().units.iter().map(|unit| unit.rows.len()).sum();
        // Powers of two: while the table grows, its older segments go on being cut where they were, and their answers are found again.
        let unit_rows = (rows / (scan.lanes() * UNITS_PER_LANE)).clamp(UNIT_ROWS_MIN, UNIT_ROWS_MAX);
        let unit_rows = 1 << unit_rows.ilog2();
        let Whole { units, by_metadata, star_trees } = Whole::of(scan.plan(), &request);
        let plan = ScanPlan { units: joined(&units, unit_rows as u32), ..scan.plan().as_ref().clone() };
        let lanes = scan.lanes().min(plan.units.len()).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(lanes),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Some(Self {
            table: Arc::clone(scan.table()),
            plan: Arc::new(plan),
            request: Arc::new(request),
            states: states.into(),
            schema,
            by_metadata,
            star_trees: Arc::new(star_trees),
            merging: None,
            meeting: Arc::default(),
            next: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    /// In place of the final aggregate as well, whose answer has `partitions` partitions.
    pub(crate) fn merged(mut self, merging: Merging, partitions: usize) -> Self {
        self.schema = Arc::clone(&merging.schema);
        // The places of all segments are filled by their rows.
        self.by_metadata = 0;
        self.merging = Some(Arc::new(merging));
        self.properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&self.schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        self
    }

    pub fn request(&self) -> &Arc<AggregateRequest> {
        &self.request
    }

    pub fn plan(&self) -> &Arc<ScanPlan> {
        &self.plan
    }
}

/// The units of a plan, those of a segment put together that something answers for as a whole.
struct Whole {
    units: Vec<ScanUnit>,
    by_metadata: usize,
    star_trees: BTreeMap<IndexId, Answers>,
}

impl Whole {
    fn of(plan: &ScanPlan, request: &AggregateRequest) -> Self {
        let mut whole = Self { units: Vec::new(), by_metadata: 0, star_trees: BTreeMap::new() };
        let may_have_trees =
            request.star_tree && plan.indexes.iter().any(|index| matches!(index.kind, IndexKind::StarTree(_)));
        for of_segment in plan.units.chunk_by(ScanUnit::is_beside) {
            let segment = &of_segment[0].segment;
            let rows: usize = of_segment.iter().map(|unit| unit.rows.len()).sum();
            let is_all = rows == segment.rows() as usize;
            if is_all && segment.answers_by_metadata(request) {
                whole.by_metadata += 1;
            } else if may_have_trees
                && is_all
                && let Some((tree, less)) = segment.answering_tree(request)
            {
                let answers: &mut Answers = whole.star_trees.entry(tree).or_default();
                answers.segments += 1;
                answers.rows_less += u64::from(less);
            } else {
                whole.units.extend_from_slice(of_segment);
                continue;
            }
            whole.units.push(ScanUnit { rows: 0..segment.rows(), ..of_segment[0].clone() });
        }
        whole
    }
}

impl DisplayAs for SegmentAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SegmentAggregateExec: ")?;
        display::segments(f, &self.table, &self.plan)?;
        self.groups(f)?;
        if self.merging.is_some() {
            f.write_str(" merged over segments")?;
        }
        self.aggregates(f)?;
        if let Some(predicate) = &self.request.predicate {
            display::condition(f, predicate, &self.request.schema, &self.plan, self.request.indexes)?;
        }
        if self.by_metadata > 0 {
            write!(f, ", metadata ({} of {} segments)", self.by_metadata, self.plan.segments_total)?;
        }
        self.star_trees(f)
    }
}

impl SegmentAggregateExec {
    fn groups(&self, out: &mut impl Write) -> fmt::Result {
        let schema = &self.request.schema;
        let mut segments = self.plan.units.iter().map(|unit| &unit.segment);
        let committed = segments.find(|segment| segment.state() == SegmentState::Committed);
        out.write_str(", group=[")?;
        for (index, key) in self.request.keys.iter().enumerate() {
            if index > 0 {
                out.write_str(", ")?;
            }
            let name = schema.column(key.column).map_or("?", |column| column.name.as_str());
            match key.bin {
                None => out.write_str(name)?,
                Some(Bin { width, .. }) => {
                    let seconds = width as f64 / 1e6;
                    write!(out, "{name} in bins of {seconds} s")?;
                }
            }
            let encoding = committed.and_then(|segment| segment.encoding(key.column)).unwrap_or_default();
            if encoding.contains("dictionary") || encoding.starts_with("runs") {
                out.write_str(" (dictionary ids)")?;
            }
        }
        out.write_char(']')
    }

    fn star_trees(&self, out: &mut impl Write) -> fmt::Result {
        for (id, Answers { segments, rows_less }) in self.star_trees.iter() {
            let name = self.plan.indexes.iter().find(|index| index.id == *id).map_or("?", |index| index.name.as_str());
            write!(out, ", star_tree={name} ({segments} of {} segments", self.plan.segments_total)?;
            if *rows_less > 0 {
                write!(out, ", less {rows_less} rows")?;
            }
            out.write_char(')')?;
        }
        Ok(())
    }

    fn aggregates(&self, out: &mut impl Write) -> fmt::Result {
        let schema = &self.request.schema;
        out.write_str(", aggregates=[")?;
        for (index, aggregate) in self.request.aggregates.iter().enumerate() {
            if index > 0 {
                out.write_str(", ")?;
            }
            let computed = |id| self.request.computed.iter().map(|one| &one.column).find(|column| column.id == id);
            let named = |id: Option<_>| {
                let column = id.and_then(|id| schema.column(id).or_else(|| computed(id)));
                column.map_or("*", |column| column.name.as_str())
            };
            let name = match aggregate.function {
                Function::Rows | Function::Count(_) => "count",
                Function::Sum(_) => "sum",
                Function::Min(_) => "min",
                Function::Max(_) => "max",
                Function::And(_) => "bool_and",
                Function::Or(_) => "bool_or",
                Function::Distinct(_) | Function::DistinctOf(_) => "approx_distinct",
                Function::Quantiles(_) | Function::QuantilesOf(_) => "approx_percentile",
                Function::Mean(_) => "mean",
                Function::Squares(_) => "squared_differences",
                Function::Set(_) => "distinct",
                Function::First { .. } => "first",
                Function::Last { .. } => "last",
            };
            write!(out, "{name}({}", named(aggregate.function.subject()))?;
            if aggregate.function.subject() != aggregate.function.column() {
                write!(out, " by {}", named(aggregate.function.column()))?;
            }
            out.write_char(')')?;
            if let Some(filter) = &aggregate.filter {
                out.write_str(" where ")?;
                display::predicate(out, filter, schema)?;
            }
        }
        out.write_char(']')
    }
}

impl ExecutionPlan for SegmentAggregateExec {
    fn name(&self) -> &'static str {
        "SegmentAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(self)
    }

    /// A recursive query reads the table anew in each round.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(Self {
            table: Arc::clone(&self.table),
            plan: Arc::clone(&self.plan),
            request: Arc::clone(&self.request),
            states: Arc::clone(&self.states),
            schema: Arc::clone(&self.schema),
            by_metadata: self.by_metadata,
            star_trees: Arc::clone(&self.star_trees),
            merging: self.merging.clone(),
            meeting: Arc::default(),
            next: Arc::default(),
            properties: Arc::clone(&self.properties),
            metrics: self.metrics.clone(),
        }))
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream, DataFusionError> {
        let memory = MemoryConsumer::new(format!("SegmentAggregateExec[{lane}]")).register(context.memory_pool());
        Ok(Box::pin(Lane {
            schema: Arc::clone(&self.schema),
            plan: Arc::clone(&self.plan),
            request: Arc::clone(&self.request),
            states: Arc::clone(&self.states),
            next: Arc::clone(&self.next),
            merging: self.merging.clone(),
            meeting: Arc::clone(&self.meeting),
            lanes: self.properties.partitioning.partition_count(),
            groups: None,
            is_giving: false,
            run: None,
            ready: VecDeque::new(),
            batch_rows: context.session_config().batch_size().max(1),
            memory,
            counters: LaneCounters::new(&self.metrics, lane, &self.plan),
            by_metadata: MetricBuilder::new(&self.metrics).counter("units_by_metadata", lane),
            by_cache: MetricBuilder::new(&self.metrics).counter("units_by_cache", lane),
            by_star_tree: MetricBuilder::new(&self.metrics).counter("units_by_star_tree", lane),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>, DataFusionError> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema)))
    }
}

struct Lane {
    schema: SchemaRef,
    plan: Arc<ScanPlan>,
    request: Arc<AggregateRequest>,
    states: Arc<[State]>,
    next: Arc<AtomicUsize>,
    merging: Option<Arc<Merging>>,
    meeting: Arc<Meeting>,
    lanes: usize,
    /// Of the segments read so far, then of all lanes.
    groups: Option<MergedGroups>,
    is_giving: bool,
    run: Option<Box<dyn Aggregation>>,
    ready: VecDeque<RecordBatch>,
    batch_rows: usize,
    /// What the groups of the run take.
    memory: MemoryReservation,
    counters: LaneCounters,
    by_metadata: Count,
    by_cache: Count,
    by_star_tree: Count,
}

impl Lane {
    /// Reads on. `false` when all units are read.
    fn step(&mut self) -> Result<bool, DataFusionError> {
        let failed = |error: tidemill_storage::Error| DataFusionError::External(Box::new(error));
        let run = match &mut self.run {
            Some(run) => run,
            None => {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                let Some(unit) = self.plan.units.get(index) else { return self.merged() };
                let run = match &self.merging {
                    None => unit.aggregate(&self.request, &self.counters.scan),
                    Some(merging) => match self.groups.take() {
                        Some(groups) => groups.read(unit, &self.counters.scan),
                        None => merging.begin(&self.request).and_then(|groups| groups.read(unit, &self.counters.scan)),
                    },
                };
                let run = run.map_err(failed)?;
                match run.way() {
                    "metadata" => self.by_metadata.add(1),
                    "kept answer" => self.by_cache.add(1),
                    BY_STAR_TREE | BY_STAR_TREE_LESS_ROWS => self.by_star_tree.add(1),
                    _ => {}
                }
                self.run.insert(run)
            }
        };
        let has_more = run.step().map_err(failed)?;
        self.counters.flush();
        if self.merging.is_some() {
            self.memory.try_resize(run.memory_bytes())?;
            if !has_more && let Some(run) = self.run.take() {
                self.groups = Some(run.into_groups().map_err(failed)?);
            }
        } else if !has_more {
            self.give()?;
            self.run = None;
            self.memory.free();
        } else if self.memory.try_resize(run.memory_bytes()).is_err() {
            self.give()?;
            // What an empty run takes must be there.
            let left = self.run.as_ref().map_or(0, |run| run.memory_bytes());
            self.memory.try_resize(left)?;
        }
        Ok(true)
    }

    /// All units are read: the last lane gives what all have found.
    fn merged(&mut self) -> Result<bool, DataFusionError> {
        let Some(merging) = self.merging.clone() else { return Ok(false) };
        if !self.is_giving {
            self.is_giving = true;
            let groups = self.meeting.arrive(self.lanes, self.groups.take());
            self.groups = groups.map_err(|error| DataFusionError::External(Box::new(error)))?;
        }
        let Some(groups) = &mut self.groups else { return Ok(false) };
        match merging.next(groups, self.request.keys.len(), &self.states)? {
            Some(found) => self.hand_out(&found),
            None => self.groups = None,
        }
        Ok(self.groups.is_some())
    }

    fn hand_out(&mut self, all: &RecordBatch) {
        let pieces = (0..all.num_rows()).step_by(self.batch_rows);
        self.ready.extend(pieces.map(|at| all.slice(at, self.batch_rows.min(all.num_rows() - at))));
    }

    /// Hands out the groups of the run, in the columns of the partial aggregate.
    fn give(&mut self) -> Result<(), DataFusionError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let found = run.take().map_err(|error| DataFusionError::External(Box::new(error)))?;
        let (keys, states) = found.columns().split_at(self.request.keys.len());
        let mut columns = keys.to_vec();
        for state in self.states.iter() {
            columns.push(state.column(states).map_err(DataFusionError::from)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
        let all = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.hand_out(&all);
        Ok(())
    }
}

impl Stream for Lane {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ready.is_empty() {
            let timer = self.counters.baseline.elapsed_compute().clone();
            let timer = timer.timer();
            let step = self.step();
            timer.done();
            match step {
                Ok(true) if self.ready.is_empty() => {
                    // Let others run, and let an abort through.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(true) => {}
                Ok(false) => return self.counters.baseline.record_poll(Poll::Ready(None)),
                Err(error) => {
                    self.run = None;
                    self.next.store(usize::MAX / 2, Ordering::Relaxed);
                    return self.counters.baseline.record_poll(Poll::Ready(Some(Err(error))));
                }
            }
        }
        let batch = self.ready.pop_front().map(Ok);
        self.counters.baseline.record_poll(Poll::Ready(batch))
    }
}

impl RecordBatchStream for Lane {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
