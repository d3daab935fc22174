//! Reads a table snapshot in lanes.
//!
//! ```text
//! units  [u0][u1][u2][u3][u4]…        runs of rows of segments, after pruning
//!          ▲ one shared counter
//! lanes  0 ┴ 1 ┴ …                    each takes the next unit when it has read its last
//! ```
//!
//! So lanes end together however uneven the segments are. No lane promises which rows it gives; no order is claimed.

use std::{
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
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream, ReplaceChildrenOptions,
        SendableRecordBatchStream, StatisticsArgs,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
    },
};
use futures::Stream;
use tidemill_storage::scan::{BatchIterator, ScanMetrics, ScanPlan, ScanRequest};

use super::display;

/// The leaf of every plan over a stored table.
#[derive(Debug)]
pub struct SegmentScanExec {
    table: Arc<str>,
    plan: Arc<ScanPlan>,
    request: Arc<ScanRequest>,
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
}

impl DisplayAs for SegmentScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SegmentScanExec: ")?;
        display::scan(f, &self.table, &self.plan, &self.request)
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
            statistics: Arc::clone(&self.statistics),
            next: Arc::default(),
            given: Arc::default(),
            properties: Arc::clone(&self.properties),
            metrics: self.metrics.clone(),
        }))
    }

    fn execute(&self, lane: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream, DataFusionError> {
        Ok(Box::pin(Lane {
            schema: self.schema(),
            plan: Arc::clone(&self.plan),
            request: Arc::clone(&self.request),
            next: Arc::clone(&self.next),
            given: Arc::clone(&self.given),
            current: None,
            counters: LaneCounters::new(&self.metrics, lane),
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
    /// The lane's own counters, which segments add to; moved to the above after each batch.
    pub(crate) scan: Arc<ScanMetrics>,
}

impl LaneCounters {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet, lane: usize) -> Self {
        Self {
            baseline: BaselineMetrics::new(metrics, lane),
            rows_scanned: MetricBuilder::new(metrics).counter("rows_scanned", lane),
            bytes_read: MetricBuilder::new(metrics).counter("bytes_read", lane),
            scan: Arc::default(),
        }
    }

    pub(crate) fn flush(&self) {
        self.rows_scanned.add(self.scan.rows_scanned.swap(0, Ordering::Relaxed) as usize);
        self.bytes_read.add(self.scan.bytes_read.swap(0, Ordering::Relaxed) as usize);
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
