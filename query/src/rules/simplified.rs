//! DataFusion's simplifier, kept from what it folds without asking for NULL.
//!
//! | written | DataFusion 55 makes of it | of NULL it is |
//! |---|---|---|
//! | `x NOT IN (1, 2) OR x NOT IN (3)` | true | NULL |
//! | `x IN (1, 2) AND x IN (3)`, `x IN (1) AND x NOT IN (1, 2)` | false | NULL |
//! | `x IN (a) AND x IN (b)`, where a = b | false | |
//! | `i # i` | 0 | NULL |
//! | `t ~ '.*'` | `t IS NOT NULL` | NULL |
//!
//! One side of such a pair is named for the time of the rule, which looks at no names, and so finds no pair.

use std::collections::BTreeMap;

use datafusion::{
    common::{
        metadata::FieldMetadata,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, expr_rewriter::NamePreserver, lit},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, simplify_expressions::SimplifyExpressions},
    scalar::ScalarValue,
};

use super::wrapped::wrapped_rule;

/// Tells our names from all others.
const APART: &str = "tidemill.apart";

/// Of longer lists it is not asked what they have in common: they stay apart.
const COMPARISONS_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(crate) struct Simplified(SimplifyExpressions);

impl Simplified {
    pub(crate) fn new() -> Self {
        Self(SimplifyExpressions::new())
    }
}

impl OptimizerRule for Simplified {
    wrapped_rule!();

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let names = NamePreserver::new(&plan);
        let parted = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|expr| Ok(part(expr)))?.update_data(|expr| name.restore(expr)))
        })?;
        let simplified = self.0.rewrite(parted.data, config)?;
        if !parted.transformed {
            return Ok(simplified);
        }
        let joined = simplified.data.map_expressions(|expr| expr.transform_up(|expr| Ok(join(expr))))?;
        Ok(Transformed::yes(joined.data))
    }
}

fn part(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_pair(&left, op, &right) => {
            let name = right.schema_name().to_string();
            let mark = FieldMetadata::from(BTreeMap::from([(APART.to_owned(), String::new())]));
            let right = Box::new(right.alias_with_metadata(name, Some(mark)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::RegexMatch | Operator::RegexIMatch, right })
            if is_anything(&right) =>
        {
            Transformed::yes(left.is_not_null().or(lit(ScalarValue::Boolean(None))))
        }
        other => Transformed::no(other),
    }
}

fn join(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Alias(alias) if alias.metadata.as_ref().is_some_and(|metadata| metadata.inner().contains_key(APART)) => {
            Transformed::yes(*alias.expr)
        }
        other => Transformed::no(other),
    }
}

/// The pattern that DataFusion knows to be found in every text.
fn is_anything(pattern: &Expr) -> bool {
    match pattern {
        Expr::Cast(cast) => is_anything(&cast.expr),
        Expr::Literal(value, _) => value.try_as_str().flatten() == Some(".*"),
        _ => false,
    }
}

/// Whether DataFusion would make one of the two, and not the right one.
fn is_pair(left: &Expr, op: Operator, right: &Expr) -> bool {
    let keeps = match op {
        Operator::BitwiseXor => return holds(left, right) || holds(right, left),
        Operator::And => match (members(left), members(right)) {
            (Some(left), Some(right)) if left.of == right.of => match (left.is_negated, right.is_negated) {
                (false, false) => left.keeps(&right, true),
                (false, true) => left.keeps(&right, false),
                (true, false) => right.keeps(&left, false),
                // Both lists together are as good as each of them.
                (true, true) => true,
            },
            _ => true,
        },
        Operator::Or => match (list(left), list(right)) {
            (Some(left), Some(right)) if left.of == right.of && left.is_negated && right.is_negated => {
                left.keeps(&right, true)
            }
            _ => true,
        },
        _ => true,
    };
    !keeps
}

/// Whether `part` is an operand of the exclusive ors in `whole`.
fn holds(whole: &Expr, part: &Expr) -> bool {
    match whole {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::BitwiseXor, right }) => {
            holds(left, part) || holds(right, part)
        }
        other => other == part,
    }
}

/// What is asked to be, or not to be, one of some.
struct Members<'a> {
    of: &'a Expr,
    items: Vec<&'a Expr>,
    is_negated: bool,
}

impl Members<'_> {
    /// Whether all items are known, and some of ours are left when only those stay that `other` has, or has not.
    fn keeps(&self, other: &Self, has: bool) -> bool {
        let is_known = |item: &&Expr| matches!(item, Expr::Literal(value, _) if !value.is_null());
        self.items.len().saturating_mul(other.items.len()) <= COMPARISONS_MAX
            && self.items.iter().all(is_known)
            && other.items.iter().all(is_known)
            && self.items.iter().any(|item| other.items.contains(item) == has)
    }
}

/// `x [NOT] IN (…)`.
fn list(expr: &Expr) -> Option<Members<'_>> {
    match expr {
        Expr::InList(list) => {
            Some(Members { of: &list.expr, items: list.list.iter().collect(), is_negated: list.negated })
        }
        Expr::Not(inner) => list(inner).map(|found| Members { is_negated: !found.is_negated, ..found }),
        _ => None,
    }
}

/// A list, or what becomes one: `x = 1 OR x = 2`.
fn members(expr: &Expr) -> Option<Members<'_>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (mut first, then) = (members(left)?, members(right)?);
            if first.of != then.of || first.is_negated || then.is_negated {
                return None;
            }
            first.items.extend(then.items);
            Some(first)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
            // The value may have a cast around it, which the rule evaluates first.
            (of @ Expr::Column(_), item) | (item, of @ Expr::Column(_)) if !item.any_column_refs() => {
                Some(Members { of, items: vec![item], is_negated: false })
            }
            _ => None,
        },
        other => list(other),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::DataType,
        logical_expr::{cast, col},
    };

    use super::*;

    #[test]
    fn pairs_that_would_be_folded_are_told() {
        let within = |items: &[i32]| col("x").in_list(items.iter().map(|item| lit(*item)).collect(), false);
        let outside = |items: &[i32]| col("x").in_list(items.iter().map(|item| lit(*item)).collect(), true);
        let null = || lit(ScalarValue::Int32(None));
        let is_cast = |item: i64| col("x").eq(cast(lit(item), DataType::Int32));
        for (left, op, right, wanted) in [
            (outside(&[1, 2]), Operator::Or, outside(&[3, 4]), true),
            (outside(&[1, 2]), Operator::Or, !within(&[3, 4]), true),
            (outside(&[1, 2]), Operator::Or, outside(&[2, 4]), false),
            (within(&[1, 2]), Operator::And, within(&[3]), true),
            (within(&[1, 2]), Operator::And, within(&[2, 3]), false),
            (within(&[1, 2]), Operator::And, outside(&[1, 2, 3]), true),
            (outside(&[1, 2]), Operator::And, within(&[1, 3]), false),
            (outside(&[1, 2]), Operator::And, outside(&[3]), false),
            (col("x").eq(lit(1)).or(col("x").eq(lit(2))), Operator::And, within(&[3]), true),
            (col("x").in_list(vec![col("y")], false), Operator::And, col("x").in_list(vec![col("z")], false), true),
            (within(&[1, 2]), Operator::And, col("x").in_list(vec![lit(1), null()], true), true),
            (within(&[1, 2]), Operator::And, col("y").in_list(vec![lit(3)], false), false),
            (is_cast(1).or(is_cast(2)), Operator::And, is_cast(3).or(is_cast(4)), true),
            (col("x"), Operator::BitwiseXor, col("x"), true),
            (col("x"), Operator::BitwiseXor, col("y"), false),
        ] {
            assert_eq!(is_pair(&left, op, &right), wanted, "{left} {op} {right}");
        }
        let name = |expr: &Expr| expr.schema_name().to_string();
        let pair = within(&[1]).and(within(&[2]));
        let parted = part(pair.clone()).data;
        assert_ne!(parted, pair);
        assert_eq!(name(&parted), name(&pair));
        assert_eq!(parted.transform_up(|expr| Ok(join(expr))).unwrap().data, pair);
    }
}
