//! How the work of a query is stopped from outside.
//!
//! Aborting its tasks is not enough: tokio drops a task when it next stands back, and a join may turn over millions of pairs, and
//! hand on hundreds of batches, before it does. So the streams of all operators, and the filters of joins (which a nested loop
//! evaluates for each of its rows without asking its inputs for more), look at one flag each time they are called, and fail when it is
//! up. The failure runs up the plan and ends every task on its way; nobody reads it, as the reader has its answer already.

use std::{
    fmt,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{
    array::RecordBatch,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::DataFusionError,
    execution::TaskContext,
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream,
        ReplaceChildrenOptions, SendableRecordBatchStream,
        coop::make_cooperative,
        joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec, utils::JoinFilter},
    },
};
use futures::{Stream, StreamExt};

use crate::SqlError;

/// Raised when a query is to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Held by everything that computes for one execution of a query: when the last holder is gone, nothing of it can run any more.
#[derive(Debug)]
pub(crate) struct Work {
    stop: StopFlag,
    /// How many there are in the engine.
    all: Arc<AtomicUsize>,
}

impl Work {
    pub(crate) fn new(all: &Arc<AtomicUsize>) -> Arc<Self> {
        all.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self { stop: StopFlag::default(), all: Arc::clone(all) })
    }

    pub(crate) fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    fn check(&self) -> Result<(), DataFusionError> {
        if self.stop.is_raised() { Err(SqlError::cancelled().into()) } else { Ok(()) }
    }

    /// The plan with every operator watched.
    pub(crate) fn watch(
        self: &Arc<Self>,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let watched =
            plan.transform_up(|node| {
                let node = self.watch_filter(node)?;
                Ok(Transformed::yes(
                    Arc::new(WatchedExec { inner: node, work: Arc::clone(self) }) as Arc<dyn ExecutionPlan>
                ))
            })?;
        Ok(watched.data)
    }

    fn watch_filter(self: &Arc<Self>, node: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let watched = |filter: &JoinFilter| {
            let inner = Arc::clone(filter.expression());
            let expression = Arc::new(WatchedExpr { inner, work: Arc::clone(self) });
            Some(JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema())))
        };
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
            && let Some(filter) = join.filter()
        {
            return Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(watched(filter)).build()?));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(filter) = join.filter()
        {
            return join.builder().with_filter(watched(filter)).build_exec();
        }
        if let Some(join) = node.downcast_ref::<SortMergeJoinExec>()
            && let Some(filter) = join.filter()
        {
            return Ok(Arc::new(SortMergeJoinExec::try_new(
                Arc::clone(join.left()),
                Arc::clone(join.right()),
                join.on().to_vec(),
                watched(filter),
                join.join_type(),
                join.sort_options().to_vec(),
                join.null_equality(),
            )?));
        }
        Ok(node)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An operator whose streams end when the query is to stop. It is not shown in EXPLAIN.
#[derive(Debug)]
pub(crate) struct WatchedExec {
    inner: Arc<dyn ExecutionPlan>,
    work: Arc<Work>,
}

impl WatchedExec {
    const NAME: &'static str = "WatchedExec";

    /// What `plan` watches; `plan` itself if it is no such operator.
    pub(crate) fn unwatched(plan: &dyn ExecutionPlan) -> &dyn ExecutionPlan {
        // By name: as to its type it passes for what it watches.
        if plan.name() != Self::NAME {
            return plan;
        }
        plan.children().into_iter().next().map_or(plan, |inner| inner.as_ref())
    }
}

impl DisplayAs for WatchedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        self.inner.fmt_as(format, f)
    }
}

impl ExecutionPlan for WatchedExec {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.inner]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match <[_; 1]>::try_from(children) {
            Ok([inner]) => Ok(Arc::new(Self { inner, work: Arc::clone(&self.work) })),
            Err(_) => Err(DataFusionError::Internal("a watched operator is one".to_owned())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream, DataFusionError> {
        // Operators that make much out of little must also stand back now and then, for the sake of other queries.
        let inner = make_cooperative(self.inner.execute(lane, context)?);
        Ok(Box::pin(Watched { inner, work: Arc::clone(&self.work) }))
    }
}

struct Watched {
    inner: SendableRecordBatchStream,
    work: Arc<Work>,
}

impl Stream for Watched {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.work.check() {
            Ok(()) => self.inner.poll_next_unpin(context),
            Err(stopped) => Poll::Ready(Some(Err(stopped))),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

/// The filter of a join, which fails when the query is to stop.
#[derive(Debug)]
struct WatchedExpr {
    inner: Arc<dyn PhysicalExpr>,
    work: Arc<Work>,
}

impl fmt::Display for WatchedExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for WatchedExpr {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for WatchedExpr {}

impl Hash for WatchedExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for WatchedExpr {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef, DataFusionError> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue, DataFusionError> {
        self.work.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        match <[_; 1]>::try_from(children) {
            Ok([inner]) => Ok(Arc::new(Self { inner, work: Arc::clone(&self.work) })),
            Err(_) => Err(DataFusionError::Internal("a watched filter is one expression".to_owned())),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
