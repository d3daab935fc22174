//! Joins on IS NOT DISTINCT FROM, kept apart from others when inner joins are put in a new order.
//!
//! DataFusion 55's `EliminateCrossJoin` takes a tree of inner joins and the filter on it for one set of keys, and gives all of them the first join's way of
//! comparing nulls: `a.x IS NOT DISTINCT FROM b.x` becomes `a.x = b.x` or the other way round, and rows are lost or made up. A projection of all columns
//! above such a join, and above the joins below it, keeps it by itself; the projections are gone with the rules that follow.

use std::sync::Arc;

use datafusion::{
    common::{
        NullEquality,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Expr, Join, JoinType, LogicalPlan, Projection},
    optimizer::{
        ApplyOrder, OptimizerConfig, OptimizerRule, eliminate_cross_join::EliminateCrossJoin,
        extract_equijoin_predicate::ExtractEquijoinPredicate,
    },
};

use super::wrapped::wrapped_rule;

/// `EliminateCrossJoin` with such joins apart.
#[derive(Debug)]
pub(crate) struct CrossJoins(EliminateCrossJoin);

impl CrossJoins {
    pub(crate) fn new() -> Self {
        Self(EliminateCrossJoin::new())
    }
}

impl OptimizerRule for CrossJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    /// It goes through the plan itself.
    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            found |= matches!(node, LogicalPlan::Join(join) if equates_nulls(join));
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !found {
            return self.0.rewrite(plan, config);
        }
        let apart = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(mut join) if equates_nulls(&join) => {
                for side in [&mut join.left, &mut join.right] {
                    if matches!(side.as_ref(), LogicalPlan::Join(inner) if inner.join_type == JoinType::Inner) {
                        *side = Arc::new(all_columns(Arc::clone(side))?);
                    }
                }
                Ok(Transformed::yes(all_columns(Arc::new(LogicalPlan::Join(join)))?))
            }
            other => Ok(Transformed::no(other)),
        })?;
        self.0.rewrite(apart.data, config)
    }
}

/// `ExtractEquijoinPredicate`, which would take `a.y = b.y` for a key of a join that is on `a.x IS NOT DISTINCT FROM b.x`.
#[derive(Debug)]
pub(crate) struct JoinKeys(ExtractEquijoinPredicate);

impl JoinKeys {
    pub(crate) fn new() -> Self {
        Self(ExtractEquijoinPredicate::new())
    }
}

impl OptimizerRule for JoinKeys {
    wrapped_rule!();

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        match &plan {
            LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty() => {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

fn equates_nulls(join: &Join) -> bool {
    join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

fn all_columns(input: Arc<LogicalPlan>) -> Result<LogicalPlan, DataFusionError> {
    let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, input)?))
}
