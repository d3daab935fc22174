//! Operators on numbers as PostgreSQL has them.
//!
//! Before types are made to fit: numeric division keeps at least sixteen decimals. After: integer and float operators, all of one type by
//! then, become functions that fail on overflow and on division by zero.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, expr::ScalarFunction},
};

use super::types;
use crate::functions::arithmetic::{Checked, Op, Quotient};

/// Decimals that a quotient has at least.
const QUOTIENT_SCALE: i8 = 16;
/// What Arrow's division adds to the scale of the dividend.
const SCALE_ADDED: i8 = 4;

/// `mod(a, b)` is `a % b`.
pub(crate) fn settle_mod(expr: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == "mod" && call.args.len() == 2 => {
            let mut args = call.args.into_iter();
            let (Some(left), Some(right)) = (args.next(), args.next()) else {
                return Err(DataFusionError::Internal("mod takes two arguments".to_owned()));
            };
            let remainder = BinaryExpr::new(Box::new(left), Operator::Modulo, Box::new(right));
            Ok(Transformed::yes(Expr::BinaryExpr(remainder)))
        }
        other => Ok(Transformed::no(other)),
    }
}

pub(crate) fn widen_division(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let scale = |expr: &Expr| match expr.get_type(schema).ok()? {
        DataType::Decimal128(_, scale) => Some((true, scale)),
        data_type if types::is_int(&data_type) => Some((false, 0)),
        _ => None,
    };
    let scales = (scale(&left), scale(&right));
    let left = match scales {
        (Some((a, scale)), Some((b, _))) if (a || b) && scale + SCALE_ADDED < QUOTIENT_SCALE => {
            Box::new(cast(*left, DataType::Decimal128(38, QUOTIENT_SCALE - SCALE_ADDED)))
        }
        _ => left,
    };
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })))
}

pub(crate) fn check(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let checked = match op {
                Operator::Plus => Op::Add,
                Operator::Minus => Op::Subtract,
                Operator::Multiply => Op::Multiply,
                Operator::Divide => Op::Divide,
                Operator::Modulo => Op::Remainder,
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            let data_type = left.get_type(schema)?;
            if op == Operator::Divide && types::is_decimal(&data_type) {
                let quotient = BinaryExpr { left, op, right };
                let result = Expr::BinaryExpr(quotient.clone()).get_type(schema)?;
                let (DataType::Decimal128(..), DataType::Decimal128(..)) = (&result, quotient.right.get_type(schema)?)
                else {
                    return Ok(Transformed::no(Expr::BinaryExpr(quotient)));
                };
                let call = ScalarFunction::new_udf(Quotient::udf(result), vec![*quotient.left, *quotient.right]);
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
            let number = types::is_int(&data_type) || types::is_float(&data_type);
            if !number || right.get_type(schema)? != data_type {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            let call = ScalarFunction::new_udf(Checked::udf(checked), vec![*left, *right]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::Negative(operand) if !matches!(operand.as_ref(), Expr::Literal(..)) => {
            let data_type = operand.get_type(schema)?;
            if !types::is_int(&data_type) {
                return Ok(Transformed::no(Expr::Negative(operand)));
            }
            let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
            let call = ScalarFunction::new_udf(Checked::udf(Op::Subtract), vec![zero, *operand]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}
