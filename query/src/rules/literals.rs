//! Before types are made to fit: literals get the types they have in PostgreSQL.
//!
//! - `1` is an integer (int4) where it fits, not a bigint;
//! - a quoted literal beside a typed operand takes that operand's type (`id = '5'`, `at > '2026-01-01'`, `key = 'A0EE…'`), so that a
//!   value that is none is an error and the column is never turned into text;
//! - a decimal beside a double is a double.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        BinaryExpr, Cast, Expr, ExprSchemable, Operator, cast,
        expr::{Between, InList, WindowFunctionDefinition},
    },
};

use super::{keys, types};
use crate::{
    SqlError,
    functions::{cast::to_float, pieces::is_bytes},
};

/// int8 literals that fit become int4.
pub(crate) fn narrow(expr: Expr) -> Result<Transformed<Expr>, DataFusionError> {
    expr.transform_down(|expr| {
        Ok(match expr {
            Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
                Ok(value) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata)),
                Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
            },
            // A NULL among whole numbers in VALUES; one that was cast by the user is a cast still.
            Expr::Literal(ScalarValue::Int64(None), metadata) => {
                Transformed::yes(Expr::Literal(ScalarValue::Int32(None), metadata))
            }
            // Keys of JSON paths are looked for as int8.
            Expr::ScalarFunction(call) if call.func.name().starts_with("json_") => {
                Transformed::new(Expr::ScalarFunction(call), false, TreeNodeRecursion::Jump)
            }
            // count(*) is known by its literal.
            Expr::AggregateFunction(call) if call.func.name() == "count" && call.params.filter.is_none() => {
                Transformed::new(Expr::AggregateFunction(call), false, TreeNodeRecursion::Jump)
            }
            Expr::WindowFunction(call)
                if matches!(&call.fun, WindowFunctionDefinition::WindowUDF(_)) || call.fun.name() == "count" =>
            {
                Transformed::new(Expr::WindowFunction(call), false, TreeNodeRecursion::Jump)
            }
            other => Transformed::no(other),
        })
    })
}

/// `1e15` with all its digits: the planner reads it as 1 with fifteen digits less than none behind the point, which arrow's decimals cannot compute with.
pub(crate) fn whole(expr: Expr) -> Transformed<Expr> {
    match &expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), metadata) if *scale < 0 => {
            let digits = u32::from(scale.unsigned_abs());
            match 10i128.checked_pow(digits).and_then(|power| value.checked_mul(power)) {
                Some(value) if value.unsigned_abs() < 10u128.pow(38) => {
                    let precision = value.checked_abs().and_then(i128::checked_ilog10).unwrap_or(0) as u8 + 1;
                    let value = ScalarValue::Decimal128(Some(value), precision, 0);
                    Transformed::yes(Expr::Literal(value, metadata.clone()))
                }
                _ => Transformed::no(expr),
            }
        }
        _ => Transformed::no(expr),
    }
}

/// Quoted literals and decimals take the type of what they are compared with.
pub(crate) fn adapt(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left_field, right_field) = (field_of(&left, schema), field_of(&right, schema));
            let (left, right) = match (left_field, right_field) {
                (Some(l), Some(r)) => {
                    let jsonb = |field: &Field| super::casts::marker(field) == Some("jsonb");
                    if is_text_column(&left, &l) && is_number(&right)
                        || is_text_column(&right, &r) && is_number(&left)
                        || jsonb(&l) && !keys::is_comparable(r.data_type())
                        || jsonb(&r) && !keys::is_comparable(l.data_type())
                    {
                        return Err(no_operator(&types::name(&l), &op.to_string(), &types::name(&r)).into());
                    }
                    (adapted(*left, &l, &r), adapted(*right, &r, &l))
                }
                _ => (*left, *right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
        }
        Expr::Between(Between { expr, negated, low, high }) => match field_of(&expr, schema) {
            Some(field) => {
                let (expr, field) = beside_floats(*expr, field, [low.as_ref(), high.as_ref()], schema);
                let bound = |bound: Box<Expr>| Box::new(adapted_in(*bound, &field, schema));
                Transformed::yes(Expr::Between(Between::new(Box::new(expr), negated, bound(low), bound(high))))
            }
            None => Transformed::no(Expr::Between(Between { expr, negated, low, high })),
        },
        Expr::InList(InList { expr, list, negated }) => match field_of(&expr, schema) {
            Some(field) => {
                let (expr, field) = beside_floats(*expr, field, &list, schema);
                let list = list.into_iter().map(|item| adapted_in(item, &field, schema)).collect();
                Transformed::yes(Expr::InList(InList::new(Box::new(expr), list, negated)))
            }
            None => Transformed::no(Expr::InList(InList { expr, list, negated })),
        },
        Expr::Like(like) => {
            if let (Some(value), Some(pattern)) = (field_of(&like.expr, schema), field_of(&like.pattern, schema)) {
                let is_unknown =
                    matches!(like.pattern.as_ref(), Expr::Literal(value, _) if types::is_text(&value.data_type()));
                let op = match (like.negated, like.case_insensitive) {
                    (false, false) => "~~",
                    (true, false) => "!~~",
                    (false, true) => "~~*",
                    (true, true) => "!~~*",
                };
                let is_other = |field: &Field| {
                    !types::is_text(field.data_type())
                        && !is_bytes(field.data_type())
                        && *field.data_type() != DataType::Null
                };
                if is_other(&value) || super::casts::marker(&value) == Some("jsonb") {
                    let pattern = if is_unknown { "unknown".to_owned() } else { types::name(&pattern) };
                    return Err(no_operator(&types::name(&value), op, &pattern).into());
                }
            }
            Transformed::no(Expr::Like(like))
        }
        other => Transformed::no(other),
    })
}

/// 42883 for an operator between these types.
pub(crate) fn no_operator(left: &str, op: &str, right: &str) -> SqlError {
    SqlError::new("42883", format!("operator does not exist: {left} {op} {right}"))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

fn is_text_column(expr: &Expr, field: &Field) -> bool {
    matches!(expr, Expr::Column(_)) && types::is_text(field.data_type())
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null() && value.data_type().is_numeric())
}

pub(crate) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn field_of(expr: &Expr, schema: &DFSchema) -> Option<FieldRef> {
    expr.to_field(schema).ok().map(|(_, field)| field)
}

/// What is compared with floats, one or more, as a double: numeric has no room for all of them.
fn beside_floats<'a>(
    expr: Expr,
    field: FieldRef,
    others: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> (Expr, FieldRef) {
    let is_float = |other: &Expr| field_of(other, schema).is_some_and(|other| types::is_float(other.data_type()));
    if !types::is_decimal(field.data_type()) || !others.into_iter().any(is_float) {
        return (expr, field);
    }
    let double: FieldRef = Arc::new(Field::new("", DataType::Float64, true));
    (adapted(expr, &field, &double), double)
}

fn adapted_in(expr: Expr, other: &Field, schema: &DFSchema) -> Expr {
    match field_of(&expr, schema) {
        Some(own) => adapted(expr, &own, other),
        None => expr,
    }
}

/// `expr`, which is of the type of `own`, in the type of `other`, if it is a quoted literal, or a numeric beside a float.
fn adapted(expr: Expr, own: &Field, other: &Field) -> Expr {
    match &expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)) | ScalarValue::LargeUtf8(Some(_)),
            _,
        ) => {
            let is_marked = matches!(super::casts::marker(other), Some("uuid" | "jsonb"));
            if !is_marked && (types::is_text(other.data_type()) || matches!(other.data_type(), DataType::Null)) {
                return expr;
            }
            let target = Field::new("", other.data_type().clone(), true).with_metadata(other.metadata().clone());
            Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(target) })
        }
        // Read from its digits: Arrow's cast is off by a rounding.
        Expr::Literal(ScalarValue::Decimal128(Some(value), _, scale), metadata)
            if types::is_float(other.data_type()) =>
        {
            Expr::Literal(ScalarValue::Float64(Some(to_float(*value, *scale))), metadata.clone())
        }
        _ if types::is_float(other.data_type()) => match &expr {
            Expr::Negative(inner) => Expr::Negative(Box::new(adapted(inner.as_ref().clone(), own, other))),
            _ if types::is_decimal(own.data_type()) => cast(expr, DataType::Float64),
            // A REAL holds less than an integer has, so that both are doubles.
            _ if types::is_int(own.data_type()) && *other.data_type() == DataType::Float32 && !is_real(&expr) => {
                cast(expr, DataType::Float64)
            }
            _ => expr,
        },
        _ => expr,
    }
}

/// Whether a REAL is exactly what the literal says.
fn is_real(expr: &Expr) -> bool {
    const LARGEST: u64 = 1 << 24;
    match expr {
        Expr::Literal(ScalarValue::Int16(Some(_)), _) => true,
        Expr::Literal(ScalarValue::Int32(Some(value)), _) => u64::from(value.unsigned_abs()) <= LARGEST,
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => value.unsigned_abs() <= LARGEST,
        _ => false,
    }
}
