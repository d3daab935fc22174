//! Comparisons of rows of values, spelled out: PostgreSQL compares the values one by one, and one that is NULL leaves the answer open.
//!
//! | written | planned as |
//! |---|---|
//! | `(a, b) = (c, d)` | `a = c AND b = d` |
//! | `(a, b) <> (c, d)` | `a <> c OR b <> d` |
//! | `(a, b) < (c, d)` | `a < c OR (a = c AND b < d)` |
//! | `(a, b) IS DISTINCT FROM (c, d)` | `a IS DISTINCT FROM c OR b IS DISTINCT FROM d` |
//! | `(a, b) [NOT] IN ((c, d), …)` | `[NOT] (a = c AND b = d OR …)` |
//! | `(a, b) IS [NOT] NULL` | `a IS [NOT] NULL AND b IS [NOT] NULL` |

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

use crate::SqlError;

/// What the expression is in comparisons of single values; `None` when it compares no rows. `items` tells the values of a row.
pub(super) fn spelled_out(expr: &Expr, items: impl Fn(&Expr) -> Option<Vec<Expr>>) -> Result<Option<Expr>, SqlError> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let pairs = |left: &Expr, right: &Expr| match (items(left), items(right)) {
        (Some(left), Some(right)) if left.len() == right.len() && !left.is_empty() => {
            Ok(Some(left.into_iter().zip(right).collect::<Vec<_>>()))
        }
        (Some(_), Some(_)) => Err(SqlError::syntax("unequal number of entries in row expressions")),
        _ => Ok(None),
    };
    Ok(match expr {
        Expr::BinaryOp { left, op: op @ (Eq | NotEq | Lt | LtEq | Gt | GtEq), right } => {
            pairs(left, right)?.map(|pairs| match op {
                Eq => all(pairs, &Eq),
                NotEq => any(pairs, |(left, right)| compared(left, NotEq, right)),
                Lt | LtEq => ordered(&pairs, &Lt, op),
                _ => ordered(&pairs, &Gt, op),
            })
        }
        Expr::IsDistinctFrom(left, right) => pairs(left, right)?.map(distinct),
        Expr::IsNotDistinctFrom(left, right) => pairs(left, right)?.map(|pairs| negated(distinct(pairs))),
        Expr::InList { expr, list, negated: is_negated } => {
            if items(expr).is_none_or(|row| row.len() < 2) {
                return Ok(None);
            }
            let mut alternatives = Vec::with_capacity(list.len());
            for row in list {
                let Some(pairs) = pairs(expr, row)? else { return Ok(None) };
                alternatives.push(all(pairs, &Eq));
            }
            let Some(found) = joined(alternatives, &BinaryOperator::Or) else { return Ok(None) };
            Some(if *is_negated { negated(found) } else { found })
        }
        Expr::IsNull(row) => items(row)
            .and_then(|items| joined(items.into_iter().map(|item| Expr::IsNull(Box::new(item))), &BinaryOperator::And)),
        Expr::IsNotNull(row) => items(row).and_then(|items| {
            joined(items.into_iter().map(|item| Expr::IsNotNull(Box::new(item))), &BinaryOperator::And)
        }),
        _ => None,
    })
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn negated(expr: Expr) -> Expr {
    nested(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) })
}

fn compared(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(nested(left)), op, right: Box::new(nested(right)) }
}

/// The parts with `op` between them, in parentheses.
fn joined(parts: impl IntoIterator<Item = Expr>, op: &BinaryOperator) -> Option<Expr> {
    let join = |left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
    parts.into_iter().reduce(join).map(nested)
}

type Pair = (Expr, Expr);

fn all(pairs: Vec<Pair>, op: &BinaryOperator) -> Expr {
    let parts = pairs.into_iter().map(|(left, right)| compared(left, op.clone(), right));
    joined(parts, &BinaryOperator::And).unwrap_or_else(nothing)
}

fn any(pairs: Vec<Pair>, each: impl Fn(Pair) -> Expr) -> Expr {
    joined(pairs.into_iter().map(each), &BinaryOperator::Or).unwrap_or_else(nothing)
}

fn distinct(pairs: Vec<Pair>) -> Expr {
    any(pairs, |(left, right)| nested(Expr::IsDistinctFrom(Box::new(nested(left)), Box::new(nested(right)))))
}

/// `strict` decides at the first pair that differs; `last` at the last one.
fn ordered(pairs: &[Pair], strict: &BinaryOperator, last: &BinaryOperator) -> Expr {
    let [(left, right), rest @ ..] = pairs else { return nothing() };
    if rest.is_empty() {
        return compared(left.clone(), last.clone(), right.clone());
    }
    let equal = compared(left.clone(), BinaryOperator::Eq, right.clone());
    let further = joined([equal, nested(ordered(rest, strict, last))], &BinaryOperator::And).unwrap_or_else(nothing);
    joined([compared(left.clone(), strict.clone(), right.clone()), further], &BinaryOperator::Or)
        .unwrap_or_else(nothing)
}

/// For rows without values, of which there are none here.
fn nothing() -> Expr {
    Expr::Value(datafusion::sql::sqlparser::ast::Value::Null.into())
}
