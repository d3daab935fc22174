//! `count(DISTINCT x)` as a count of groups, but not beside a sum of numerics.
//!
//! DataFusion 55's `SingleDistinctToGroupBy` makes `sum(n)` the sum of sums of groups, which has ten digits more than what the nodes above were planned for.

use datafusion::{
    arrow::datatypes::DataType,
    common::tree_node::Transformed,
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, single_distinct_to_groupby::SingleDistinctToGroupBy},
};

use super::wrapped::wrapped_rule;

#[derive(Debug)]
pub(crate) struct SingleDistinct(SingleDistinctToGroupBy);

impl SingleDistinct {
    pub(crate) fn new() -> Self {
        Self(SingleDistinctToGroupBy::new())
    }
}

impl OptimizerRule for SingleDistinct {
    wrapped_rule!();

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        if let LogicalPlan::Aggregate(aggregate) = &plan {
            let results = aggregate
                .schema
                .fields()
                .iter()
                .skip(aggregate.schema.fields().len().saturating_sub(aggregate.aggr_expr.len()));
            let sums_numerics = aggregate.aggr_expr.iter().zip(results).any(|(expr, field)| {
                is_sum(expr) && matches!(field.data_type(), DataType::Decimal128(precision, _) if *precision < 38)
            });
            if sums_numerics {
                return Ok(Transformed::no(plan));
            }
        }
        self.0.rewrite(plan, config)
    }
}

fn is_sum(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_sum(&alias.expr),
        Expr::AggregateFunction(call) => call.func.name() == "sum" && !call.params.distinct,
        _ => false,
    }
}
