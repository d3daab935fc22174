//! Reads a table snapshot in lanes.
//!
//! ```text
//! units  [u0][u1][u2][u3][u4]…        runs of rows of segments, after pruning
//!          ▲ one shared counter
//! lanes  0 ┴ 1 ┴ …                    each takes the next unit when it has read its last
//! ```
//!
//! So lanes end together however uneven the segments are. No lane promises which rows it gives; no order is claimed.
//!
//! Under an ORDER BY with a LIMIT the units are dealt best first, so that the first rows rule out most others: what a top-k or a join
//! above comes to know while it runs reaches the segments ([`narrowing`](super::narrowing)).

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    config::ConfigOptions,
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream, ReplaceChildrenOptions,
        SendableRecordBatchStream, SortOrderPushdownResult, StatisticsArgs,
        execution_plan::{Boundedness, EmissionType},
        filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown},
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
    },
};
use futures::Stream;
use parking_lot::Mutex;
use tidemill_storage::{
    ids::IndexId,
    index::{IndexKind, IndexSpec},
    scan::{BatchIterator, Narrowing, ScanHints, ScanMetrics, ScanPlan, ScanRequest},
};

use super::{
    display,
    narrowing::{DynamicFilters, is_dynamic},
    unit_order::UnitOrder,
};
use crate::{functions::floats, table::physical::stored_column};

/// The leaf of every plan over a stored table.
#[derive(Debug)]
pub struct SegmentScanExec {
    table: Arc<str>,
    plan: Arc<ScanPlan>,
    request: Arc<ScanRequest>,
    /// Filters that change while the plan runs; the request's narrowing is made of them.
    filters: Option<Arc<DynamicFilters>>,
    /// The order in which units are dealt, where one was asked for.
    order: Option<UnitOrder>,
    statistics: Arc<Statistics>,
    /// The next unit to be dealt.
    next: Arc<AtomicUsize>,
    /// Rows given so far, over all lanes; counted only under a limit.
    given: Arc<AtomicU64>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SegmentScanExec {
    /// A scan of what `plan` left over, with at most `lanes` lanes. `statistics` describe the rows that come out.
    pub(crate) fn new(
        table: Arc<str>,
        plan: ScanPlan,
        request: Arc<ScanRequest>,
        statistics: Statistics,
        lanes: usize,
    ) -> Result<Self, DataFusionError> {
        let schema = request.output_schema().map_err(crate::SqlError::from)?;
        let lanes = lanes.min(plan.units.len()).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(lanes),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            table,
            plan: Arc::new(plan),
            request,
            filters: None,
            order: None,
            statistics: Arc::new(statistics),
            next: Arc::default(),
            given: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    pub fn plan(&self) -> &Arc<ScanPlan> {
        &self.plan
    }

    pub fn request(&self) -> &Arc<ScanRequest> {
        &self.request
    }

    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    pub fn lanes(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// The same scan, not begun, of these units under these hints.
    fn changed(&self, plan: Arc<ScanPlan>, filters: Option<Arc<DynamicFilters>>, order: Option<UnitOrder>) -> Self {
        let hints = ScanHints {
            narrowing: filters.as_ref().map(|filters| Arc::clone(filters) as Arc<dyn Narrowing>),
            backwards: order.is_some_and(|order| order.descending),
            indexes: self.request.hints.indexes,
            places: self.request.hints.places.clone(),
        };
        Self {
            table: Arc::clone(&self.table),
            plan,
            request: Arc::new(ScanRequest { hints, ..self.request.as_ref().clone() }),
            filters,
            order,
            statistics: Arc::clone(&self.statistics),
            next: Arc::default(),
            given: Arc::default(),
            properties: Arc::clone(&self.properties),
            metrics: self.metrics.clone(),
        }
    }
}

impl DisplayAs for SegmentScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SegmentScanExec: ")?;
        display::scan(f, &self.table, &self.plan, &self.request)?;
        if let Some(order) = &self.order {
            let column = self.request.schema.column(order.column).map_or("?", |column| column.name.as_str());
            write!(f, ", best first by {column}{}", if order.descending { " DESC" } else { "" })?;
        }
        if let Some(filters) = &self.filters {
            f.write_str(", narrowed by [")?;
            for (index, filter) in filters.filters().iter().enumerate() {
                write!(f, "{}{filter}", if index > 0 { ", " } else { "" })?;
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SegmentScanExec {
    fn name(&self) -> &'static str {
        "SegmentScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        for filter in self.filters.iter().flat_map(|filters| filters.filters()) {
            if visit(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
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

    /// A recursive query reads the table anew in each round. What the operators above knew in the last one no longer holds, and they do not
    /// offer it again: nothing narrows the scan then.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(self.changed(Arc::clone(&self.plan), None, self.order)))
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        offered: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>, DataFusionError> {
        // Filters that do not change were offered to the table when it was planned.
        if phase == FilterPushdownPhase::Pre {
            return Ok(FilterPushdownPropagation::all_unsupported(offered));
        }
        let offered: Vec<_> = offered.parent_filters.into_iter().map(|filter| filter.filter).collect();
        let taken = offered.iter().map(|filter| if is_dynamic(filter) { PushedDown::Yes } else { PushedDown::No });
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(taken.collect());
        let new: Vec<_> = offered.into_iter().filter(is_dynamic).collect();
        if new.is_empty() {
            return Ok(answer);
        }
        let known = self.filters.iter().flat_map(|filters| filters.filters()).cloned();
        let request = ScanRequest { hints: ScanHints::default(), ..self.request.as_ref().clone() };
        let filters = DynamicFilters::new(known.chain(new).collect(), Arc::new(request));
        let narrowed = self.changed(Arc::clone(&self.plan), Some(Arc::new(filters)), self.order);
        Ok(answer.with_updated_node(Arc::new(narrowed)))
    }

    /// The rows come in no order; those that may be the first come first.
    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>, DataFusionError> {
        let Some(first) = order.first() else { return Ok(SortOrderPushdownResult::Unsupported) };
        let by = floats::without(&first.expr).unwrap_or(&first.expr);
        let Some(column) = stored_column(by, &self.request) else {
            return Ok(SortOrderPushdownResult::Unsupported);
        };
        let order = UnitOrder {
            column: column.id,
            descending: first.options.descending,
            nulls_first: first.options.nulls_first,
        };
        let mut plan = self.plan.as_ref().clone();
        order.sort(&mut plan.units);
        let inner = self.changed(Arc::new(plan), self.filters.clone(), Some(order));
        Ok(SortOrderPushdownResult::Inexact { inner: Arc::new(inner) })
    }

    fn execute(&self, lane: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream, DataFusionError> {
        Ok(Box::pin(Lane {
            schema: self.schema(),
            plan: Arc::clone(&self.plan),
            request: Arc::clone(&self.request),
            next: Arc::clone(&self.next),
            given: Arc::clone(&self.given),
            current: None,
            counters: LaneCounters::new(&self.metrics, lane, &self.plan),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>, DataFusionError> {
        if args.partition().is_none() || self.lanes() == 1 {
            return Ok(Arc::clone(&self.statistics));
        }
        // Which rows a lane will get is not known before it has them.
        let mut share = Statistics::new_unknown(&self.schema());
        if let Some(rows) = self.statistics.num_rows.get_value() {
            share.num_rows = Precision::Inexact(rows.div_ceil(self.lanes()));
        }
        Ok(Arc::new(share))
    }
}

/// What one lane counted, as EXPLAIN ANALYZE shows it.
pub(crate) struct LaneCounters {
    pub(crate) baseline: BaselineMetrics,
    rows_scanned: Count,
    bytes_read: Count,
    units_narrowed: Count,
    rows_by_index: Count,
    by_index: Mutex<HashMap<Option<IndexId>, Count>>,
    indexes: Arc<[IndexSpec]>,
    metrics: ExecutionPlanMetricsSet,
    lane: usize,
    /// The lane's own counters, which segments add to; moved to the above after each batch.
    pub(crate) scan: Arc<ScanMetrics>,
}

impl LaneCounters {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet, lane: usize, plan: &ScanPlan) -> Self {
        Self {
            by_index: Mutex::default(),
            indexes: Arc::clone(&plan.indexes),
            metrics: metrics.clone(),
            lane,
            baseline: BaselineMetrics::new(metrics, lane),
            rows_scanned: MetricBuilder::new(metrics).counter("rows_scanned", lane),
            bytes_read: MetricBuilder::new(metrics).counter("bytes_read", lane),
            units_narrowed: MetricBuilder::new(metrics).counter("units_pruned_while_running", lane),
            rows_by_index: MetricBuilder::new(metrics).counter("rows_by_index", lane),
            scan: Arc::default(),
        }
    }

    pub(crate) fn flush(&self) {
        self.rows_scanned.add(self.scan.rows_scanned.swap(0, Ordering::Relaxed) as usize);
        self.rows_by_index.add(self.scan.rows_by_index.swap(0, Ordering::Relaxed) as usize);
        self.bytes_read.add(self.scan.bytes_read.swap(0, Ordering::Relaxed) as usize);
        self.units_narrowed.add(self.scan.units_narrowed.swap(0, Ordering::Relaxed) as usize);
        for (index, rows) in self.scan.take_found() {
            let mut by_index = self.by_index.lock();
            by_index.entry(index).or_insert_with(|| self.found_by(index)).add(rows as usize);
        }
    }

    /// A counter of the rows that an index found; the order of rows goes by the name of the index that asked for it.
    fn found_by(&self, index: Option<IndexId>) -> Count {
        let is_meant = |known: &&IndexSpec| match index {
            Some(id) => known.id == id,
            None => known.kind == IndexKind::Sorted,
        };
        let name = self.indexes.iter().find(is_meant).map_or("the order of rows", |known| known.name.as_str());
        MetricBuilder::new(&self.metrics).counter(format!("rows_by_index[{name}]"), self.lane)
    }
}

struct Lane {
    schema: SchemaRef,
    plan: Arc<ScanPlan>,
    request: Arc<ScanRequest>,
    next: Arc<AtomicUsize>,
    given: Arc<AtomicU64>,
    current: Option<BatchIterator>,
    counters: LaneCounters,
}

impl Lane {
    /// The next batch; `Ok(None)` when a unit ended without one and the lane should look at the clock.
    fn step(&mut self) -> Poll<Option<Result<Option<RecordBatch>, DataFusionError>>> {
        if let Some(limit) = self.request.limit
            && self.given.load(Ordering::Relaxed) >= limit as u64
        {
            return Poll::Ready(None);
        }
        if self.current.is_none() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = self.plan.units.get(index) else { return Poll::Ready(None) };
            match unit.scan(&self.request, &self.counters.scan) {
                Ok(batches) => self.current = Some(batches),
                Err(error) => return Poll::Ready(Some(Err(DataFusionError::External(Box::new(error))))),
            }
        }
        let batch = self.current.as_mut().and_then(Iterator::next);
        self.counters.flush();
        match batch {
            Some(Ok(batch)) => {
                if self.request.limit.is_some() {
                    self.given.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(Some(batch))))
            }
            Some(Err(error)) => {
                self.current = None;
                Poll::Ready(Some(Err(DataFusionError::External(Box::new(error)))))
            }
            None => {
                self.current = None;
                Poll::Ready(Some(Ok(None)))
            }
        }
    }
}

impl Stream for Lane {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let timer = self.counters.baseline.elapsed_compute().clone();
        let timer = timer.timer();
        let step = self.step();
        timer.done();
        let poll = match step {
            Poll::Ready(Some(Ok(Some(batch)))) => Poll::Ready(Some(Ok(batch))),
            // A unit without a single row: let others run, and let an abort through.
            Poll::Ready(Some(Ok(None))) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        self.counters.baseline.record_poll(poll)
    }
}

impl RecordBatchStream for Lane {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
