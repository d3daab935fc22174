//! Subqueries whose rows come from the row beside them: functions in FROM, LATERAL relations, and subqueries as values over such
//! functions, as far as DataFusion cannot decorrelate them.
//!
//! ```text
//! Join: Inner                            Projection: t.*, x.e                     names and qualifiers as before
//!   t                                      Projection: outer0…, e AS right0
//!   SubqueryAlias: x             ⇒           Unnest
//!     Subquery:                                Projection: outer0…, f(outer0) AS list
//!       Projection, Unnest, Filter …             Projection: t.a AS outer0, …     no name of t meets one of x
//!         EmptyRelation                            t
//! ```
//!
//! The nodes of the subquery are put on top of the left side, each also passing on the left side's columns; outer references become plain
//! columns. A leaf of one row without columns is the left side itself; a leaf that refers to nothing outside is joined to it.
//!
//! - With LEFT JOIN a row without partners stays: a column [`side::PRESENT`] is NULL just for such a row, and then every column of the
//!   right side is.
//! - ORDER BY and LIMIT number the rows of each row of the left side; that row is known by a number of its own.
//! - A subquery as a value ([`values`]) is an aggregate that is grouped by that number and counts only rows that are present.

mod side;
mod values;

use std::sync::Arc;

use datafusion::{
    common::{
        Column, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection, SubqueryAlias, expr::Case},
};

use side::{Keeps, PRESENT, Side};

/// What the right side's columns are called until they get their names.
const RIGHT: &str = "\u{1}right";

pub(crate) fn unfold(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let transformed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match joined(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => values::unfold(node),
        other => Ok(Transformed::no(other)),
    })?;
    if !transformed.transformed {
        return Ok(transformed.data);
    }
    // Nodes above were made for columns of the same names and types, though maybe in other places.
    let plan = transformed.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(plan.data)
}

fn is_correlated(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if node.contains_outer_reference() {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// `join` without its subquery, if the subquery can be put on top of the left side.
fn joined(join: &Join) -> Result<Option<LogicalPlan>, DataFusionError> {
    let keeps = match join.join_type {
        JoinType::Inner => Keeps::Matches,
        JoinType::Left => Keeps::Left,
        _ => return Ok(None),
    };
    if !join.on.is_empty() {
        return Ok(None);
    }
    let (subquery, alias) = match join.right.as_ref() {
        LogicalPlan::Subquery(subquery) => (subquery, None),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => match input.as_ref() {
            LogicalPlan::Subquery(subquery) => (subquery, Some(alias.clone())),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let on = join.filter.clone().filter(|on| !matches!(on, Expr::Literal(ScalarValue::Boolean(Some(true)), _)));
    if keeps == Keeps::Left && on.is_some() {
        return Ok(None);
    }
    let names = subquery.subquery.schema().iter();
    let names = names.map(|(qualifier, field)| (alias.clone().or(qualifier.cloned()), field.name().clone()));
    let plan = beside(&join.left, &subquery.subquery, names.collect(), keeps)?;
    Ok(match (plan, on) {
        (Some(plan), Some(on)) => Some(LogicalPlan::Filter(Filter::try_new(on, Arc::new(plan))?)),
        (plan, _) => plan,
    })
}

/// The columns of `left`, and those of `right`, a subquery of it, under `names`.
fn beside(
    left: &Arc<LogicalPlan>,
    right: &LogicalPlan,
    names: Vec<(Option<TableReference>, String)>,
    keeps: Keeps,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let columns = left.schema().columns();
    let side = Side::new(&columns, keeps, side::needs_number(right)?);
    let Some(attached) = side.attach(&renamed(right, right_column)?, side.base(left)?)? else { return Ok(None) };
    if keeps == Keeps::Groups && attached.present {
        return Ok(None);
    }
    let mut shown: Vec<Expr> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            Expr::Column(side::outer_column(index)).alias_qualified(column.relation.clone(), column.name.clone())
        })
        .collect();
    for (index, ((relation, name), field)) in names.into_iter().zip(right.schema().fields()).enumerate() {
        let column = Expr::Column(right_column(index));
        let value = if attached.present { when_present(column, field.data_type())? } else { column };
        shown.push(value.alias_qualified(relation, name));
    }
    Ok(Some(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(attached.plan))?)))
}

/// `plan` with `names` of its columns, which are nobody's: the optimizer may put columns of it and of the join into one projection.
fn renamed(plan: &LogicalPlan, names: impl Fn(usize) -> Column) -> Result<LogicalPlan, DataFusionError> {
    let (items, input) = match plan {
        LogicalPlan::Projection(projection) => (projection.expr.clone(), Arc::clone(&projection.input)),
        other => (other.schema().columns().into_iter().map(Expr::Column).collect(), Arc::new(other.clone())),
    };
    let items = items.into_iter().enumerate().map(|(index, item)| {
        let item = match item {
            Expr::Alias(alias) if alias.metadata.is_none() => *alias.expr,
            other => other,
        };
        item.alias(names(index).name)
    });
    Ok(LogicalPlan::Projection(Projection::try_new(items.collect(), input)?))
}

fn right_column(index: usize) -> Column {
    Column::new_unqualified(format!("{RIGHT}{index}"))
}

fn when_present(value: Expr, data_type: &arrow::datatypes::DataType) -> Result<Expr, DataFusionError> {
    let present = Expr::Column(Column::new_unqualified(PRESENT));
    let null = Expr::Literal(ScalarValue::try_from(data_type)?, None);
    Ok(Expr::Case(Case::new(None, vec![(Box::new(present.is_null()), Box::new(null))], Some(Box::new(value)))))
}
