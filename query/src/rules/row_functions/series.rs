//! `FROM generate_series(1, 1000000)`: bounds that stand in the text make a relation that gives its rows as they are read.

use datafusion::sql::sqlparser::ast::{DataType as SqlType, Expr, FunctionArg, Query, UnaryOperator, Value};

use super::super::syntax::{plain, query};
use crate::{SqlError, functions::rows};

/// Bounds of whole numbers that stand in the text.
pub(super) struct Bounds {
    start: i64,
    stop: i64,
    step: i64,
    is_int4: bool,
}

pub(super) fn constant_bounds(name: &str, args: &[FunctionArg]) -> Option<Result<Bounds, SqlError>> {
    if name != "generate_series" || !(2..=3).contains(&args.len()) {
        return None;
    }
    let numbers = args.iter().map(|arg| constant(plain(arg)?)).collect::<Option<Vec<(i64, bool)>>>()?;
    let step = numbers.get(2).map_or(1, |(step, _)| *step);
    if step == 0 {
        return Some(Err(SqlError::invalid_parameter("step size cannot equal zero")));
    }
    let is_int4 = numbers.iter().all(|(_, is_int4)| *is_int4);
    Some(Ok(Bounds { start: numbers[0].0, stop: numbers[1].0, step, is_int4 }))
}

/// The whole number that `expr` is, and whether it is an int4.
fn constant(expr: &Expr) -> Option<(i64, bool)> {
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => {
                let number: i64 = digits.parse().ok()?;
                Some((number, i32::try_from(number).is_ok()))
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let (number, is_int4) = constant(expr)?;
            Some((number.checked_neg()?, is_int4))
        }
        Expr::Cast { expr, data_type: SqlType::BigInt(None) | SqlType::Int8(None), .. } => {
            Some((constant(expr)?.0, false))
        }
        _ => None,
    }
}

/// A relation that makes its rows as they are read.
pub(super) fn series_relation(bounds: &Bounds, name: &str) -> Result<Query, SqlError> {
    let Bounds { start, stop, step, is_int4 } = *bounds;
    let (data_type, relation) = if is_int4 { ("int", rows::INT4_RELATION) } else { ("bigint", rows::INT8_RELATION) };
    let name = name.replace('"', "\"\"");
    query(&match (step > 0 && start > stop) || (step < 0 && start < stop) {
        true => format!("SELECT CAST(NULL AS {data_type}) AS \"{name}\" WHERE false"),
        false => {
            format!("SELECT value AS \"{name}\" FROM {relation}({start}, {stop}, {step})")
        }
    })
}
