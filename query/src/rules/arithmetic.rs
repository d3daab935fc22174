//! Operators on numbers as PostgreSQL has them.
//!
//! Before types are made to fit: numeric division keeps the decimals that PostgreSQL's keeps. After: integer and float operators, all of one type by
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

/// real with a whole number or a numeric is double precision. In a list of several constants these are real instead, as PostgreSQL finds one type for
/// all of them: `r IN (0.1, 0.2)` finds a real 0.1, `r = 0.1` does not.
pub(crate) fn widen_reals(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let exact = |expr: &Expr| {
        expr.get_type(schema).is_ok_and(|data_type| types::is_int(&data_type) || types::is_decimal(&data_type))
    };
    let real = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type == DataType::Float32);
    let expr = match expr {
        Expr::InList(mut list) if real(&list.expr) => {
            let is_constant = |item: &Expr| !item.any_column_refs();
            let constants: Vec<&Expr> = list.list.iter().filter(|item| is_constant(item)).collect();
            let is_real = constants.len() > 1 && constants.iter().all(|item| exact(item) || real(item));
            let mut changed = false;
            for item in list.list.iter_mut().filter(|item| is_real && is_constant(item) && exact(item)) {
                *item = cast(std::mem::take(item), DataType::Float32);
                changed = true;
            }
            return Ok(Transformed::new_transformed(Expr::InList(list), changed));
        }
        Expr::Case(mut case) if case.expr.as_deref().is_some_and(real) => {
            let changed = case.when_then_expr.iter().any(|(when, _)| exact(when));
            let compared = case.expr.iter_mut().chain(case.when_then_expr.iter_mut().map(|(when, _)| when));
            for compared in compared.filter(|_| changed) {
                **compared = cast(std::mem::take(compared.as_mut()), DataType::Float64);
            }
            return Ok(Transformed::new_transformed(Expr::Case(case), changed));
        }
        other => other,
    };
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Ok(Transformed::no(expr)) };
    let is_arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide);
    let types = match is_arithmetic {
        true => (left.get_type(schema).ok(), right.get_type(schema).ok()),
        false => (None, None),
    };
    let exact = |data_type: &DataType| types::is_int(data_type) || types::is_decimal(data_type);
    let (left, right, changed) = match types {
        (Some(DataType::Float32), Some(other)) | (Some(other), Some(DataType::Float32)) if exact(&other) => {
            (Box::new(cast(*left, DataType::Float64)), Box::new(cast(*right, DataType::Float64)), true)
        }
        _ => (left, right, false),
    };
    Ok(Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr { left, op, right }), changed))
}

/// numeric / numeric: one scale for a column of quotients, PostgreSQL's own for a quotient of constants.
pub(crate) fn divide(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let exact = |expr: &Expr| match expr.get_type(schema).ok()? {
        data_type @ DataType::Decimal128(..) => Some(data_type),
        data_type if types::is_int(&data_type) => Some(data_type),
        _ => None,
    };
    let (Some(a), Some(b)) = (exact(&left), exact(&right)) else {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })));
    };
    if !types::is_decimal(&a) && !types::is_decimal(&b) {
        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })));
    }
    let scale = match (constant(&left), constant(&right)) {
        (Some(a), Some(b)) => quotient_scale(a, b),
        _ => {
            let scale = |data_type: &DataType| if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 };
            QUOTIENT_SCALE.max(scale(&a)).max(scale(&b))
        }
    };
    let operand = |operand: Expr, data_type: &DataType| match data_type {
        DataType::Decimal128(..) => operand,
        DataType::Int64 => cast(operand, DataType::Decimal128(19, 0)),
        _ => cast(operand, DataType::Decimal128(10, 0)),
    };
    let operands = vec![operand(*left, &a), operand(*right, &b)];
    let call = ScalarFunction::new_udf(Quotient::udf(DataType::Decimal128(38, scale)), operands);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

/// An exact constant: its digits and how many of them stand after the point.
fn constant(expr: &Expr) -> Option<(i128, i8)> {
    match expr {
        Expr::Literal(value, _) => match value {
            ScalarValue::Int16(value) => value.map(|value| (value.into(), 0)),
            ScalarValue::Int32(value) => value.map(|value| (value.into(), 0)),
            ScalarValue::Int64(value) => value.map(|value| (value.into(), 0)),
            ScalarValue::Decimal128(value, _, scale) => value.map(|value| (value, *scale)),
            _ => None,
        },
        Expr::Negative(operand) => constant(operand).map(|(value, scale)| (-value, scale)),
        Expr::Cast(cast) => match (cast.field.data_type(), constant(&cast.expr)?) {
            (DataType::Decimal128(_, to), (value, from)) if *to >= from => {
                Some((value.checked_mul(10i128.checked_pow(u32::from((to - from).unsigned_abs()))?)?, *to))
            }
            _ => None,
        },
        _ => None,
    }
}

/// As PostgreSQL chooses it (`select_div_scale`): at least sixteen digits of the quotient count, in groups of four as numeric is stored.
fn quotient_scale(left: (i128, i8), right: (i128, i8)) -> i8 {
    const GROUP: i32 = 4;
    /// The first group of four digits that is not zero, and how many groups stand between it and the point.
    fn first_group((value, scale): (i128, i8)) -> (i32, u128) {
        if value == 0 {
            return (0, 0);
        }
        let digits = value.unsigned_abs().ilog10() as i32 + 1 - i32::from(scale);
        let weight = (digits - 1).div_euclid(GROUP);
        let dropped = weight * GROUP + i32::from(scale);
        let power = |exponent: i32| 10u128.checked_pow(exponent.unsigned_abs());
        let group = match dropped {
            0.. => value.unsigned_abs() / power(dropped).unwrap_or(u128::MAX),
            _ => value.unsigned_abs().saturating_mul(power(dropped).unwrap_or(u128::MAX)),
        };
        (weight, group)
    }
    let ((left_weight, left_group), (right_weight, right_group)) = (first_group(left), first_group(right));
    let weight = left_weight - right_weight - i32::from(left_group <= right_group);
    let scale = (i32::from(QUOTIENT_SCALE) - weight * GROUP).max(left.1.into()).max(right.1.into()).max(0);
    // Room for the digits in front of the point.
    scale.min(37 - (weight.max(-1) + 1) * GROUP).clamp(0, 37) as i8
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
            if types::is_float(&data_type) {
                // NaN keeps its sign, by which it would be another number.
                let minus_one = Expr::Literal(ScalarValue::new_negative_one(&data_type)?, None);
                let call = ScalarFunction::new_udf(Checked::udf(Op::Multiply), vec![minus_one, *operand]);
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
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

#[cfg(test)]
mod tests {
    use super::quotient_scale;

    /// Scales that PostgreSQL 15 gives.
    #[test]
    fn constants_are_divided_at_the_scale_of_postgresql() {
        for (left, right, wanted) in [
            ((10, 0), (40, 1), 16),
            ((1, 0), (30, 1), 20),
            ((100_000, 0), (30, 1), 12),
            ((200_000, 0), (1, 0), 12),
            ((1, 4), (30_000, 0), 28),
            ((0, 0), (3, 0), 20),
            ((123_456_789_012, 0), (7, 0), 8),
        ] {
            assert_eq!(quotient_scale(left, right), wanted, "{left:?} / {right:?}");
        }
    }
}
