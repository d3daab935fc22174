//! References of subqueries to columns outside, in the types that those columns have after [`super::literals`]: a plan keeps the type with
//! the reference, and the column of a VALUES may since have become an integer.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, ExprSchema,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan, Subquery, SubqueryAlias, utils::merge_schema},
};

pub(crate) fn refresh(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.contains_outer_reference();
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(plan);
    }
    // Inner subqueries are seen again from each subquery around them, with that one's columns.
    let plan = plan.transform_up_with_subqueries(|node| {
        let schema = match &node {
            LogicalPlan::Join(join) => join.left.schema().as_ref().clone(),
            other => merge_schema(&other.inputs()),
        };
        let node = match node {
            LogicalPlan::Join(mut join) => {
                join.right = Arc::new(beside(Arc::unwrap_or_clone(join.right), &schema)?);
                LogicalPlan::Join(join)
            }
            other => other,
        };
        let whole = merge_schema(&node.inputs());
        node.map_expressions(|expr| {
            expr.transform_up(|expr| {
                Ok(match expr {
                    Expr::ScalarSubquery(subquery) => Transformed::yes(Expr::ScalarSubquery(of(subquery, &whole)?)),
                    Expr::Exists(mut exists) => {
                        exists.subquery = of(exists.subquery, &whole)?;
                        Transformed::yes(Expr::Exists(exists))
                    }
                    Expr::InSubquery(mut membership) => {
                        membership.subquery = of(membership.subquery, &whole)?;
                        Transformed::yes(Expr::InSubquery(membership))
                    }
                    other => Transformed::no(other),
                })
            })
        })
    })?;
    Ok(plan.data)
}

/// The right side of a lateral join.
fn beside(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan, DataFusionError> {
    Ok(match plan {
        LogicalPlan::Subquery(subquery) => LogicalPlan::Subquery(of(subquery, schema)?),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. })
            if matches!(input.as_ref(), LogicalPlan::Subquery(_)) =>
        {
            let input = beside(Arc::unwrap_or_clone(input), schema)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias)?)
        }
        other => other,
    })
}

fn of(subquery: Subquery, schema: &DFSchema) -> Result<Subquery, DataFusionError> {
    let renew = |expr: Expr| {
        expr.transform_up(|expr| {
            Ok(match expr {
                Expr::OuterReferenceColumn(field, column) => match schema.field_from_column(&column) {
                    Ok(known) if known.data_type() != field.data_type() => {
                        Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(known), column))
                    }
                    _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
                },
                other => Transformed::no(other),
            })
        })
    };
    let Subquery { subquery, outer_ref_columns, spans } = subquery;
    let plan = Arc::unwrap_or_clone(subquery).transform_up_with_subqueries(|node| {
        let changed = node.map_expressions(renew)?;
        match changed.transformed {
            true => Ok(Transformed::yes(changed.data.recompute_schema()?)),
            false => Ok(changed),
        }
    })?;
    let outer_ref_columns =
        outer_ref_columns.into_iter().map(|expr| renew(expr).map(|expr| expr.data)).collect::<Result<_, _>>()?;
    Ok(Subquery { subquery: Arc::new(plan.data), outer_ref_columns, spans })
}
