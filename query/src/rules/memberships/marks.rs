//! EXISTS in a select list: a join that adds to each row of the left side whether there are rows on the right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, expr::Exists, lit, utils::conjunction,
    },
    optimizer::decorrelate::PullUpCorrelatedExpr,
};

use super::Names;

/// The relation that a mark is a column of.
const MARK: &str = "\u{1}mark";

/// `expr` with a column of `input`, which gets one more, in the place of each EXISTS.
pub(super) fn mark(expr: Expr, input: &mut Arc<LogicalPlan>, names: &mut Names) -> Result<Expr, DataFusionError> {
    expr.transform_up(|expr| match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let relation = names.next(MARK);
            match joined(input, &subquery.subquery, &relation)? {
                Some(plan) => {
                    *input = Arc::new(plan);
                    let column = Expr::Column(Column::new(Some(relation), "mark"));
                    Ok(Transformed::yes(if negated { Expr::Not(Box::new(column)) } else { column }))
                }
                None => Ok(Transformed::no(Expr::Exists(Exists { subquery, negated }))),
            }
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}

/// `left` with column `relation.mark`; `None` where the plan cannot be had without its references.
fn joined(
    left: &Arc<LogicalPlan>,
    subquery: &LogicalPlan,
    relation: &str,
) -> Result<Option<LogicalPlan>, DataFusionError> {
    let mut pulled = PullUpCorrelatedExpr::new().with_exists_sub_query(true);
    // Relations inside of it have got columns that their nodes do not know of.
    let right = subquery.clone().rewrite(&mut pulled)?.data;
    let right = right.transform_up(|node| node.recompute_schema().map(Transformed::yes)).data()?;
    if !pulled.can_pull_up {
        return Ok(None);
    }
    // The right side's columns under names that are nobody's, so that they meet none of the left side's.
    let inner: BTreeSet<Column> = pulled.correlated_subquery_cols_map.values().flatten().cloned().collect();
    let mut renamed = BTreeMap::new();
    let mut items = Vec::new();
    for column in &inner {
        let name = format!("{relation}\u{1}{}", renamed.len());
        // A column of a relation inside of another one has the other one's name above it.
        let shown = match right.schema().has_column(column) {
            true => Some(column.clone()),
            false => {
                let mut named = right.schema().columns().into_iter().filter(|other| other.name == column.name);
                named.next().filter(|_| named.next().is_none())
            }
        };
        if let Some(shown) = shown {
            items.push(Expr::Column(shown).alias(&name));
            renamed.insert(column.clone(), Column::new_unqualified(name));
        }
    }
    let on = conjunction(pulled.join_filters).unwrap_or_else(|| lit(true));
    let mut known = true;
    let on = on
        .transform_up(|expr| match expr {
            Expr::Column(column) => {
                let column = match renamed.get(&column) {
                    Some(renamed) => renamed.clone(),
                    None => {
                        known &= left.schema().has_column(&column);
                        column
                    }
                };
                Ok(Transformed::yes(Expr::Column(column)))
            }
            other => Ok(Transformed::new(other, false, TreeNodeRecursion::Continue)),
        })
        .data()?;
    if !known {
        return Ok(None);
    }
    if items.is_empty() {
        items.push(lit(true).alias(format!("{relation}\u{1}")));
    }
    let right = LogicalPlan::Projection(Projection::try_new(items, Arc::new(right))?);
    let right = LogicalPlanBuilder::from(right).alias(relation)?.build()?;
    let on = qualified(on, &renamed, relation)?;
    let plan = LogicalPlanBuilder::from(left.as_ref().clone()).join_on(right, JoinType::LeftMark, Some(on))?.build()?;
    Ok(Some(plan))
}

/// The renamed columns as columns of `relation`.
fn qualified(on: Expr, renamed: &BTreeMap<Column, Column>, relation: &str) -> Result<Expr, DataFusionError> {
    on.transform_up(|expr| match expr {
        Expr::Column(column) if renamed.values().any(|name| *name == column) => {
            Ok(Transformed::yes(Expr::Column(Column::new(Some(relation), column.name))))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}
