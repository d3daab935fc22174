//! Correlated subqueries as values that are no aggregates: `(SELECT z FROM b WHERE b.x = a.x)`.
//!
//! The planner takes those that give one row whatever there is. Here the values are gathered in an array, which is one row, and the array's only item
//! is taken where the value is wanted: a second one is 21000 for the rows that ask for it, and for no others.
//!
//! And any subquery over a NOT NULL column: without a row its value is NULL all the same.

use std::sync::Arc;

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    functions_aggregate::array_agg::array_agg_udaf,
    logical_expr::{
        Aggregate, Expr, LogicalPlan, Projection, Subquery,
        expr::{AggregateFunction, ScalarFunction},
        lit,
    },
};
use tidemill_storage::schema::TYPE_KEY;

use super::{casts::marker, walk};
use crate::functions::record;

pub(super) fn gather(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut asks = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                asks |= matches!(expr, Expr::ScalarSubquery(subquery) if is_concerned(subquery));
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            })
        })
    })?;
    if !asks {
        return Ok(plan);
    }
    walk::expressions(plan, |expr, _, _| {
        expr.transform_up(|expr| match expr {
            Expr::ScalarSubquery(subquery) if is_gathered(&subquery) => Ok(Transformed::yes(gathered(subquery)?)),
            Expr::ScalarSubquery(subquery) if is_strict(&subquery) => Ok(Transformed::yes(loosened(subquery)?)),
            other => Ok(Transformed::no(other)),
        })
    })
}

fn is_concerned(subquery: &Subquery) -> bool {
    is_gathered(subquery) || is_strict(subquery)
}

fn is_gathered(subquery: &Subquery) -> bool {
    !subquery.outer_ref_columns.is_empty()
        && subquery.subquery.schema().fields().len() == 1
        && !gives_one(&subquery.subquery)
}

/// Whether the planner believes that the value cannot be null, though there may be no row.
fn is_strict(subquery: &Subquery) -> bool {
    let schema = subquery.subquery.schema();
    schema.fields().len() == 1 && !schema.field(0).is_nullable() && !always_gives(&subquery.subquery)
}

fn always_gives(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => always_gives(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => always_gives(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none() && always_gives(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// The same subquery with a value that may be null.
fn loosened(subquery: Subquery) -> Result<Expr, DataFusionError> {
    let column =
        |column| Expr::ScalarFunction(ScalarFunction::new_udf(record::nullable_udf(), vec![Expr::Column(column)]));
    let schema = Arc::clone(subquery.subquery.schema());
    let items = schema
        .iter()
        .map(|(qualifier, field)| {
            let whole = Column::new(qualifier.cloned(), field.name());
            column(whole).alias_qualified(qualifier.cloned(), field.name())
        })
        .collect();
    let plan = LogicalPlan::Projection(Projection::try_new(items, Arc::clone(&subquery.subquery))?);
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery }))
}

/// Whether there is one row whatever there is, or a LIMIT, which is of other rules.
fn gives_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one(&alias.input),
        LogicalPlan::Sort(sort) => gives_one(&sort.input),
        LogicalPlan::Filter(filter) => {
            matches!(filter.input.as_ref(), LogicalPlan::Aggregate(_)) && gives_one(&filter.input)
        }
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(_) => true,
        other => other.max_rows().is_some_and(|rows| rows <= 1),
    }
}

fn gathered(subquery: Subquery) -> Result<Expr, DataFusionError> {
    let schema = subquery.subquery.schema();
    let kind = marker(schema.field(0)).map(str::to_owned);
    let values = schema.columns().into_iter().map(Expr::Column).collect();
    let call = AggregateFunction::new_udf(array_agg_udaf(), values, false, None, Vec::new(), None);
    let call = vec![Expr::AggregateFunction(call)];
    let all = LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&subquery.subquery), Vec::new(), call)?);
    let array = Expr::ScalarSubquery(Subquery { subquery: Arc::new(all), ..subquery });
    let only = Expr::ScalarFunction(ScalarFunction::new_udf(record::only_udf(), vec![array]));
    Ok(match kind {
        Some(kind) => {
            let marked = datafusion::functions::core::with_metadata();
            Expr::ScalarFunction(ScalarFunction::new_udf(marked, vec![only, lit(TYPE_KEY), lit(kind)]))
        }
        None => only,
    })
}
