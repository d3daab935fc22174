//! Subqueries as values over functions that give rows: `(SELECT sum(u) FROM unnest(t.a) u)`, EXISTS and IN of such. And those of one row by
//! their LIMIT: `(SELECT z FROM b WHERE b.x = a.x ORDER BY z LIMIT 1)`.
//!
//! Each becomes a column that an aggregate beside the node's input gives: the value itself, a count, or the array of the values that IN
//! looks in.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    functions_aggregate::{array_agg::array_agg_udaf, count::count_udaf},
    logical_expr::{
        Aggregate, Expr, FetchType, Filter, LogicalPlan, Projection, Subquery,
        expr::{AggregateFunction, Exists, InSubquery, ScalarFunction},
        lit,
    },
};

use super::{Keeps, beside};
use crate::functions::any;

/// The columns that stand for subqueries.
const VALUE: &str = "\u{1}value";

/// A projection or a filter without such subqueries.
pub(super) fn unfold(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let mut input = match &node {
        LogicalPlan::Projection(projection) => Arc::clone(&projection.input),
        LogicalPlan::Filter(filter) => Arc::clone(&filter.input),
        _ => return Ok(Transformed::no(node)),
    };
    let before = input.schema().columns();
    let mut count = 0;
    let mut replace = |expr: Expr| {
        expr.transform_up(|expr| {
            let mut keeps = Keeps::Groups;
            let (plan, wanted) = match &expr {
                Expr::ScalarSubquery(subquery) if comes_from_rows(subquery)? => {
                    (subquery.subquery.as_ref().clone(), Wanted::Value)
                }
                Expr::Exists(Exists { subquery, negated }) if comes_from_rows(subquery)? => {
                    (counted(subquery)?, Wanted::Some { negated: *negated })
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated }) if comes_from_rows(subquery)? => {
                    let wanted = Wanted::Among { value: expr.as_ref().clone(), negated: *negated };
                    (listed(subquery)?, wanted)
                }
                Expr::ScalarSubquery(subquery) if is_first(&subquery.subquery)? => {
                    keeps = Keeps::Left;
                    (subquery.subquery.as_ref().clone(), Wanted::Value)
                }
                _ => return Ok(Transformed::no(expr)),
            };
            let name = format!("{VALUE}{count}");
            let Some(with_value) = beside(&input, &plan, vec![(None, name.clone())], keeps)? else {
                return Ok(Transformed::no(expr));
            };
            count += 1;
            input = Arc::new(with_value);
            let column = Expr::Column(Column::new_unqualified(name));
            Ok(Transformed::yes(wanted.of(column, plan.schema().field(0).data_type())?))
        })
    };
    match &node {
        LogicalPlan::Projection(projection) => {
            let mut items = Vec::with_capacity(projection.expr.len());
            let mut changed = false;
            for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
                let replaced = replace(expr.clone())?;
                changed |= replaced.transformed;
                let is_alias = matches!(replaced.data, Expr::Alias(_));
                items.push(match replaced.transformed && !is_alias {
                    true => replaced.data.alias_qualified(qualifier.cloned(), field.name()),
                    false => replaced.data,
                });
            }
            if !changed {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, input)?)))
        }
        LogicalPlan::Filter(filter) => {
            let predicate = replace(filter.predicate.clone())?;
            if !predicate.transformed {
                return Ok(Transformed::no(node));
            }
            let filtered = LogicalPlan::Filter(Filter::try_new(predicate.data, input)?);
            let columns = before.into_iter().map(Expr::Column).collect();
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)))
        }
        _ => Ok(Transformed::no(node)),
    }
}

/// Whether arrays of the row outside are unnested in it. Others are DataFusion's.
fn comes_from_rows(subquery: &Subquery) -> Result<bool, DataFusionError> {
    let mut found = false;
    subquery.subquery.apply(|node| {
        if let LogicalPlan::Unnest(unnest) = node {
            found |= super::is_correlated(&unnest.input)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether it gives the first of several rows, which ones being told by the row outside.
fn is_first(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => is_first(&projection.input)?,
        LogicalPlan::SubqueryAlias(alias) => is_first(&alias.input)?,
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0 | 1))) && super::is_correlated(plan)?
        }
        _ => false,
    })
}

fn aggregated(subquery: &Subquery, call: AggregateFunction) -> Result<LogicalPlan, DataFusionError> {
    let calls = vec![Expr::AggregateFunction(call)];
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&subquery.subquery), Vec::new(), calls)?))
}

fn counted(subquery: &Subquery) -> Result<LogicalPlan, DataFusionError> {
    aggregated(subquery, AggregateFunction::new_udf(count_udaf(), vec![lit(1i64)], false, None, Vec::new(), None))
}

fn listed(subquery: &Subquery) -> Result<LogicalPlan, DataFusionError> {
    let columns = subquery.subquery.schema().columns();
    let [column] = columns.as_slice() else {
        return Err(crate::SqlError::syntax("subquery has too many columns").into());
    };
    let values = vec![Expr::Column(column.clone())];
    aggregated(subquery, AggregateFunction::new_udf(array_agg_udaf(), values, false, None, Vec::new(), None))
}

/// What the subquery stood for.
enum Wanted {
    Value,
    Some { negated: bool },
    Among { value: Expr, negated: bool },
}

impl Wanted {
    fn of(self, column: Expr, data_type: &arrow::datatypes::DataType) -> Result<Expr, DataFusionError> {
        Ok(match self {
            Self::Value => column,
            Self::Some { negated: true } => column.eq(lit(0i64)),
            Self::Some { negated: false } => column.gt(lit(0i64)),
            Self::Among { value, negated } => {
                let arrow::datatypes::DataType::List(item) = data_type else { return Ok(column) };
                let none = ScalarValue::List(ScalarValue::new_list_nullable(&[], item.data_type()));
                let coalesce = datafusion::functions::core::coalesce();
                let list = ScalarFunction::new_udf(coalesce, vec![column, Expr::Literal(none, None)]);
                let (function, op) = if negated { (any::all_udf(), "<>") } else { (any::any_udf(), "=") };
                let args = vec![lit(op), value, Expr::ScalarFunction(list)];
                Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
            }
        })
    }
}
