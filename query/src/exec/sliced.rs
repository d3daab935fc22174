//! Few rows at a time for many grouping sets.
//!
//! An aggregate looks at each of its input's rows once for every set, all rows of a batch before it asks for memory or lets itself be stopped. For the
//! 4,096 sets of a CUBE of twelve columns that is 33 million groups to a batch. [`SlicedExec`] hands it batches of so few rows that the product is a few batches' worth.

use std::{fmt, sync::Arc};

use arrow::array::RecordBatch;
use datafusion::{
    common::{
        Statistics,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::PhysicalExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        SendableRecordBatchStream, StatisticsArgs,
        aggregates::{AggregateExec, AggregateMode},
        execution_plan::CardinalityEffect,
        statistics::ChildStats,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};

use super::single_input::single_input;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// Fewer sets than this take batches as they come.
const SETS_MIN: usize = 32;
/// Rows times sets between two looks at memory and time.
const PRODUCT_MAX: usize = 1 << 18;

/// Passes its input's rows on, at most `rows` to a batch.
#[derive(Debug)]
struct SlicedExec {
    input: Arc<dyn ExecutionPlan>,
    rows: usize,
}

impl SlicedExec {
    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input, rows: self.rows }
    }
}

impl DisplayAs for SlicedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SlicedExec: rows={}", self.rows)
    }
}

impl ExecutionPlan for SlicedExec {
    single_input!("SlicedExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.rows;
        let slices = move |batch: RecordBatch| {
            let starts = (0..batch.num_rows()).step_by(rows);
            let slices = starts.map(move |start| batch.slice(start, rows.min(batch.num_rows() - start)));
            stream::iter(slices.map(Ok::<_, DataFusionError>))
        };
        let batches = self.input.execute(lane, context)?.map_ok(slices).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), batches)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// Puts [`SlicedExec`] below aggregates of many grouping sets. After all other rules.
#[derive(Debug)]
pub(crate) struct SliceForSets;

impl PhysicalOptimizerRule for SliceForSets {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let sliced = plan.transform_up(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            let sets = aggregate.group_expr().groups().len();
            let expands = matches!(
                aggregate.mode(),
                AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned
            );
            if !expands || sets < SETS_MIN {
                return Ok(Transformed::no(node));
            }
            let rows = (PRODUCT_MAX / sets).max(1);
            let input = Arc::new(SlicedExec { input: Arc::clone(aggregate.input()), rows }) as Arc<dyn ExecutionPlan>;
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.replace_children(vec![input], options).map(Transformed::yes)
        })?;
        Ok(sliced.data)
    }

    fn name(&self) -> &str {
        "slice_for_sets"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
