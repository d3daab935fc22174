//! TimescaleDB's aggregates of the earliest and the latest row, on the syntax tree.
//!
//! | written | planned as |
//! |---|---|
//! | `first(x, t)` | `first_value(x ORDER BY t) FILTER (WHERE t IS NOT NULL)` |
//! | `last(x, t) FILTER (WHERE c)` | `last_value(x ORDER BY t) FILTER (WHERE (c) AND t IS NOT NULL)` |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArgumentClause, FunctionArguments, OrderByExpr, OrderByOptions,
};

use super::syntax::{function, last_part, plain};

/// The call as PostgreSQL would write it; `None` for any other.
pub(super) fn rewritten(call: &Function) -> Option<Expr> {
    let name = match last_part(&call.name).as_str() {
        "first" => "first_value",
        "last" => "last_value",
        _ => return None,
    };
    let FunctionArguments::List(list) = &call.args else { return None };
    let [value, time] = list.args.as_slice() else { return None };
    let (value, time) = (plain(value)?.clone(), plain(time)?.clone());
    if call.over.is_some() || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    let has_time = Expr::IsNotNull(Box::new(Expr::Nested(Box::new(time.clone()))));
    let filter = match &call.filter {
        None => has_time,
        Some(filter) => Expr::BinaryOp {
            left: Box::new(Expr::Nested(filter.clone())),
            op: BinaryOperator::And,
            right: Box::new(has_time),
        },
    };
    let Expr::Function(mut settled) = function(name, vec![value]) else { return None };
    let order = OrderByExpr { expr: time, options: OrderByOptions::default(), with_fill: None };
    if let FunctionArguments::List(list) = &mut settled.args {
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![order]));
    }
    settled.filter = Some(Box::new(filter));
    Some(Expr::Function(settled))
}
