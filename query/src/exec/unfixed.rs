//! Columns that have one value below an operator and more above it: of a union's branch, of the side of an outer join that nulls stand in
//! for, of the input of grouping sets.
//!
//! DataFusion 55 carries "is constant" through all of these and leaves such columns out of sort keys, so that rows come in a wrong order, a TOP-K
//! keeps the wrong ones, and ranks are wrong. [`UnfixedExec`] stands where that would begin: it passes rows on and says nothing of them.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{
        JoinType, Statistics,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
        ReplaceChildrenOptions, SendableRecordBatchStream, StatisticsArgs,
        aggregates::AggregateExec,
        execution_plan::CardinalityEffect,
        filter_pushdown::{ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation},
        joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
        statistics::ChildStats,
        union::UnionExec,
    },
};

use super::single_input::single_input;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// Passes its input's rows on, without what is known of their columns.
#[derive(Debug)]
struct UnfixedExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UnfixedExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let known = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            known.partitioning.clone(),
            known.emission_type,
            known.boundedness,
        );
        Self { properties: Arc::new(properties), input }
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(input)
    }
}

impl DisplayAs for UnfixedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("UnfixedExec")
    }
}

impl ExecutionPlan for UnfixedExec {
    single_input!("UnfixedExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(lane, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}

/// Puts [`UnfixedExec`] where constants end. Before the rules that decide what is to be sorted.
#[derive(Debug)]
pub(crate) struct Unfix;

impl PhysicalOptimizerRule for Unfix {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let unfixed = plan.transform_up(|node| {
            let ends = ends(node.as_ref());
            let is_fixed = |(input, ends): (&Arc<dyn ExecutionPlan>, &bool)| {
                *ends && !input.equivalence_properties().constants().is_empty()
            };
            let children = node.children();
            if !children.iter().copied().zip(&ends).any(is_fixed) {
                return Ok(Transformed::no(node));
            }
            let inputs = children.iter().copied().zip(&ends).map(|(input, ends)| match is_fixed((input, ends)) {
                true => Arc::new(UnfixedExec::new(Arc::clone(input))) as Arc<dyn ExecutionPlan>,
                false => Arc::clone(input),
            });
            let inputs = inputs.collect();
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.replace_children(inputs, options).map(Transformed::yes)
        })?;
        Ok(unfixed.data)
    }

    fn name(&self) -> &'static str {
        "unfix"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// For each input, whether constants of it need not be constant above.
fn ends(node: &dyn ExecutionPlan) -> Vec<bool> {
    if let Some(union) = node.downcast_ref::<UnionExec>() {
        return vec![true; union.inputs().len()];
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return vec![aggregate.group_expr().has_grouping_set()];
    }
    let join = node.downcast_ref::<HashJoinExec>().map(HashJoinExec::join_type);
    let join = join.or_else(|| node.downcast_ref::<NestedLoopJoinExec>().map(NestedLoopJoinExec::join_type));
    let join = join.copied().or_else(|| node.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type));
    match join {
        Some(JoinType::Left) => vec![false, true],
        Some(JoinType::Right) => vec![true, false],
        Some(JoinType::Full) => vec![true, true],
        _ => vec![false; node.children().len()],
    }
}
