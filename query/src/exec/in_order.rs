//! What a statement gives in an order stays in it.
//!
//! DataFusion keeps the order that a plan gives at its top, looking through projections for it, and then has the work of those projections done by several partitions, behind the place
//! where it looks: `INSERT INTO t SELECT … ORDER BY …`, whose types are made to fit above the sort, wrote batches in the order in which lanes were done with them.

use std::sync::Arc;

use datafusion::{
    common::{Result, config::ConfigOptions},
    physical_expr::Partitioning,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions, coop::CooperativeExec,
        projection::ProjectionExec, repartition::RepartitionExec,
    },
};

/// Takes out what parts sorted rows between the top of a plan and their sort.
#[derive(Debug)]
pub(crate) struct InOrder;

impl PhysicalOptimizerRule for InOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(in_order(&plan)?.unwrap_or(plan))
    }

    fn name(&self) -> &str {
        "in_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `None` where nothing is to be changed.
fn in_order(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        let input = repartition.input();
        let is_dealt = matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_));
        let is_sorted = input.output_partitioning().partition_count() == 1 && input.output_ordering().is_some();
        return Ok((is_dealt && is_sorted).then(|| Arc::clone(input)));
    }
    if plan.downcast_ref::<ProjectionExec>().is_none() && plan.downcast_ref::<CooperativeExec>().is_none() {
        return Ok(None);
    }
    let [input] = plan.children()[..] else { return Ok(None) };
    let Some(input) = in_order(input)? else { return Ok(None) };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(vec![input], options).map(Some)
}
