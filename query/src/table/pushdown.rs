//! Filters of a plan as predicates that segments evaluate.
//!
//! A filter is taken only when it can be taken whole: the rows for which the predicate is TRUE are then exactly those for which
//! the filter is TRUE, and the plan needs no filter of its own above the scan. Anything else (`None`) stays with DataFusion.
//! NOT is pushed down to the leaves on the way, because predicates have none.

use std::sync::Arc;

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    execution::context::ExecutionProps,
    logical_expr::{
        BinaryExpr, Expr, Operator,
        expr::{InList, Like, Placeholder},
    },
};
use tidemill_storage::{
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{Column, DataType, TableSchema},
};

use super::conditions;
use crate::functions::search;

/// Whether `filter` is a predicate. One with parameters is taken to be one when it is for some value of their types: for another value
/// the scan may still have to refuse it.
pub(crate) fn takes(filter: &Expr, schema: &TableSchema) -> bool {
    // The second is a key, a document and a path of one.
    ["", "0"].iter().any(|text| {
        let sample = filter.clone().transform_up(|expr| match &expr {
            Expr::Placeholder(Placeholder { field: Some(field), .. }) => match sample(field.data_type(), text) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        });
        let props = ExecutionProps::new();
        sample.is_ok_and(|sample| predicate(&sample.data, schema, Some(&props)).is_some())
    })
}

/// Some value of the type; of texts this one.
fn sample(data_type: &arrow::datatypes::DataType, text: &str) -> Option<ScalarValue> {
    use arrow::datatypes::DataType as Arrow;
    match data_type {
        Arrow::Utf8View | Arrow::Utf8 | Arrow::LargeUtf8 => Some(ScalarValue::Utf8View(Some(text.into()))),
        other => ScalarValue::new_zero(other).ok(),
    }
}

/// The predicate that `filter` is, if it is one; with `props`, parts that are only known as conditions on one column are taken too.
pub(crate) fn predicate(filter: &Expr, schema: &TableSchema, props: Option<&ExecutionProps>) -> Option<Predicate> {
    truth(filter, schema, true, props)
}

/// Rows for which `expr` is TRUE (`wanted`), or FALSE (not `wanted`).
fn truth(expr: &Expr, schema: &TableSchema, wanted: bool, props: Option<&ExecutionProps>) -> Option<Predicate> {
    by_form(expr, schema, wanted, props).or_else(|| conditions::condition(expr, wanted, schema, props?))
}

fn by_form(expr: &Expr, schema: &TableSchema, wanted: bool, props: Option<&ExecutionProps>) -> Option<Predicate> {
    match expr {
        Expr::Alias(alias) => truth(&alias.expr, schema, wanted, props),
        Expr::Not(inner) => truth(inner, schema, !wanted, props),
        // What became of `x IS NULL` on a NOT NULL column after the scan had taken it.
        Expr::Literal(ScalarValue::Boolean(Some(value)), _) if *value == wanted => Some(Predicate::And(Vec::new())),
        Expr::Literal(ScalarValue::Boolean(_), _) => Some(Predicate::Or(Vec::new())),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let sides = vec![truth(left, schema, wanted, props)?, truth(right, schema, wanted, props)?];
            // NOT (a AND b) is NOT a OR NOT b, in three-valued logic too.
            Some(if (*op == Operator::And) == wanted { flat_and(sides) } else { flat_or(sides) })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = compare_op(*op)?;
            let (side, value, op) = match (constant(left), constant(right)) {
                (None, Some(value)) => (left, value, op),
                (Some(value), None) => (right, value, mirrored(op)),
                _ => return None,
            };
            let (column, value) = comparable(side, value, schema)?;
            if !ordered(&column.data_type) && !matches!(op, CompareOp::Eq | CompareOp::NotEq) {
                return None;
            }
            Some(Predicate::Compare { column: column.id, op: if wanted { op } else { negated(op) }, value })
        }
        Expr::Between(between) => {
            let (low_column, low) = comparable(&between.expr, constant(&between.low)?, schema)?;
            let (_, high) = comparable(&between.expr, constant(&between.high)?, schema)?;
            if !ordered(&low_column.data_type) {
                return None;
            }
            let column = low_column.id;
            let compare = |op, value| Predicate::Compare { column, op, value };
            Some(if between.negated == wanted {
                Predicate::Or(vec![compare(CompareOp::Less, low), compare(CompareOp::Greater, high)])
            } else {
                Predicate::And(vec![compare(CompareOp::GreaterEq, low), compare(CompareOp::LessEq, high)])
            })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut values = Vec::with_capacity(list.len());
            let mut column = None;
            for item in list {
                let Expr::Literal(value, _) = item else { return None };
                if value.is_null() {
                    // x IN (…, NULL) is never FALSE, so NOT IN never TRUE; x = NULL selects nothing.
                    if *negated == wanted {
                        return None;
                    }
                    continue;
                }
                let (found, value) = comparable(expr, value, schema)?;
                column = Some(found.id);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Some(Predicate::In { column: column?, values, negated: *negated == wanted })
        }
        Expr::Like(Like { negated, expr, pattern, escape_char, case_insensitive }) => {
            let column = plain_column(expr, schema)?;
            if column.data_type != DataType::Text || !matches!(escape_char, None | Some('\\')) {
                return None;
            }
            let pattern = text(constant(pattern)?)?.to_owned();
            Some(Predicate::Like {
                column: column.id,
                pattern,
                negated: *negated == wanted,
                case_insensitive: *case_insensitive,
            })
        }
        Expr::ScalarFunction(call) if call.func.name() == search::TEXT_MATCHES => {
            let [text, query] = call.args.as_slice() else { return None };
            let column = plain_column(text, schema).filter(|column| column.data_type == DataType::Text)?;
            let query = Arc::new(search::constant_query(query)?);
            Some(Predicate::Matches { column: column.id, query, negated: !wanted })
        }
        Expr::IsNull(inner) => is_null(inner, schema, !wanted),
        Expr::IsNotNull(inner) => is_null(inner, schema, wanted),
        Expr::IsUnknown(inner) => is_null(inner, schema, !wanted),
        Expr::IsNotUnknown(inner) => is_null(inner, schema, wanted),
        Expr::IsTrue(inner) => is_bool(inner, schema, true, wanted),
        Expr::IsFalse(inner) => is_bool(inner, schema, false, wanted),
        Expr::IsNotTrue(inner) => is_bool(inner, schema, true, !wanted),
        Expr::IsNotFalse(inner) => is_bool(inner, schema, false, !wanted),
        Expr::Column(_) => {
            let column = plain_column(expr, schema)?;
            (column.data_type == DataType::Boolean).then(|| equals(column, wanted))
        }
        _ => None,
    }
}

fn equals(column: &Column, value: bool) -> Predicate {
    Predicate::Compare { column: column.id, op: CompareOp::Eq, value: Scalar::Boolean(value) }
}

fn is_null(expr: &Expr, schema: &TableSchema, negated: bool) -> Option<Predicate> {
    let column = plain_column(expr, schema)?;
    Some(Predicate::IsNull { column: column.id, negated })
}

/// `column IS value`, or IS NOT value, which NULL is too.
fn is_bool(expr: &Expr, schema: &TableSchema, value: bool, wanted: bool) -> Option<Predicate> {
    let column = plain_column(expr, schema)?;
    if column.data_type != DataType::Boolean {
        return None;
    }
    Some(if wanted {
        equals(column, value)
    } else {
        Predicate::Or(vec![equals(column, !value), Predicate::IsNull { column: column.id, negated: false }])
    })
}

fn flat_and(sides: Vec<Predicate>) -> Predicate {
    let mut all = Vec::new();
    for side in sides {
        match side {
            Predicate::And(children) => all.extend(children),
            other => all.push(other),
        }
    }
    Predicate::And(all)
}

fn flat_or(sides: Vec<Predicate>) -> Predicate {
    let mut all = Vec::new();
    for side in sides {
        match side {
            Predicate::Or(children) => all.extend(children),
            other => all.push(other),
        }
    }
    Predicate::Or(all)
}

fn compare_op(op: Operator) -> Option<CompareOp> {
    Some(match op {
        Operator::Eq => CompareOp::Eq,
        Operator::NotEq => CompareOp::NotEq,
        Operator::Lt => CompareOp::Less,
        Operator::LtEq => CompareOp::LessEq,
        Operator::Gt => CompareOp::Greater,
        Operator::GtEq => CompareOp::GreaterEq,
        _ => return None,
    })
}

fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessEq => CompareOp::GreaterEq,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterEq => CompareOp::LessEq,
        same => same,
    }
}

fn negated(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Eq => CompareOp::NotEq,
        CompareOp::NotEq => CompareOp::Eq,
        CompareOp::Less => CompareOp::GreaterEq,
        CompareOp::LessEq => CompareOp::Greater,
        CompareOp::Greater => CompareOp::LessEq,
        CompareOp::GreaterEq => CompareOp::Less,
    }
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

fn plain_column<'a>(expr: &Expr, schema: &'a TableSchema) -> Option<&'a Column> {
    match expr {
        Expr::Column(column) => schema.column_named(&column.name),
        Expr::Alias(alias) => plain_column(&alias.expr, schema),
        _ => None,
    }
}

/// The column and the value in the column's own form, where comparing them there says the same as the plan's comparison.
fn comparable<'a>(side: &Expr, value: &ScalarValue, schema: &'a TableSchema) -> Option<(&'a Column, Scalar)> {
    let column = match side {
        Expr::Cast(cast) => {
            let column = plain_column(&cast.expr, schema)?;
            lossless(&column.data_type, cast.field.data_type()).then_some(column)?
        }
        other => plain_column(other, schema)?,
    };
    Some((column, scalar(value, &column.data_type)?))
}

/// Whether a cast of the column keeps every value and their order, so that it can be left out.
fn lossless(from: &DataType, to: &arrow::datatypes::DataType) -> bool {
    use arrow::datatypes::DataType as Arrow;
    match (from, to) {
        (DataType::SmallInt, Arrow::Int32 | Arrow::Int64) | (DataType::Int, Arrow::Int64) => true,
        (DataType::Text, Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View) => true,
        (DataType::Real, Arrow::Float64) => true,
        (DataType::Numeric { precision, scale }, Arrow::Decimal128(p, s)) => {
            s >= scale && i16::from(*p) - i16::from(*s) >= i16::from(*precision) - i16::from(*scale)
        }
        (DataType::SmallInt, Arrow::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 5,
        (DataType::Int, Arrow::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 10,
        (DataType::BigInt, Arrow::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 19,
        _ => false,
    }
}

/// Types whose values segments order as SQL does.
fn ordered(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Jsonb | DataType::Array(_))
}

/// `value` as a value of the column's type; `None` when it is none exactly.
pub(crate) fn scalar(value: &ScalarValue, data_type: &DataType) -> Option<Scalar> {
    Some(match data_type {
        DataType::Boolean => match value {
            ScalarValue::Boolean(Some(value)) => Scalar::Boolean(*value),
            _ => return None,
        },
        DataType::SmallInt => Scalar::Int(i64::from(i16::try_from(whole(value)?).ok()?)),
        DataType::Int => Scalar::Int(i64::from(i32::try_from(whole(value)?).ok()?)),
        DataType::BigInt => Scalar::Int(i64::try_from(whole(value)?).ok()?),
        DataType::Real => {
            let value = float(value)?;
            let exact = f64::from(value as f32) == value || value.is_nan();
            exact.then_some(Scalar::Float(value))?
        }
        DataType::Double => Scalar::Float(float(value)?),
        DataType::Numeric { precision, scale } => Scalar::Decimal(unscaled(value, *precision, *scale)?),
        DataType::Text | DataType::Jsonb => Scalar::Text(text(value)?.into()),
        DataType::Uuid => {
            let given = text(value)?;
            (crate::functions::uuid::canonical(given)? == given).then(|| Scalar::Text(given.into()))?
        }
        DataType::Bytea => match value {
            ScalarValue::Binary(Some(bytes))
            | ScalarValue::BinaryView(Some(bytes))
            | ScalarValue::LargeBinary(Some(bytes)) => Scalar::Bytes(bytes.as_slice().into()),
            _ => return None,
        },
        DataType::Date => match value {
            ScalarValue::Date32(Some(days)) => Scalar::Int(i64::from(*days)),
            _ => return None,
        },
        DataType::Timestamp => Scalar::Int(micros(value, false)?),
        DataType::TimestampTz => Scalar::Int(micros(value, true)?),
        DataType::Array(_) => return None,
    })
}

/// Integers, and decimals without a fraction.
fn whole(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Int8(Some(v)) => i128::from(*v),
        ScalarValue::Int16(Some(v)) => i128::from(*v),
        ScalarValue::Int32(Some(v)) => i128::from(*v),
        ScalarValue::Int64(Some(v)) => i128::from(*v),
        ScalarValue::UInt8(Some(v)) => i128::from(*v),
        ScalarValue::UInt16(Some(v)) => i128::from(*v),
        ScalarValue::UInt32(Some(v)) => i128::from(*v),
        ScalarValue::UInt64(Some(v)) => i128::from(*v),
        ScalarValue::Decimal128(Some(v), _, scale) => {
            let power = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            (v % power == 0).then_some(v / power)?
        }
        _ => return None,
    })
}

fn float(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Float64(Some(v)) => Some(*v),
        ScalarValue::Float32(Some(v)) => Some(f64::from(*v)),
        _ => None,
    }
}

fn unscaled(value: &ScalarValue, precision: u8, scale: i8) -> Option<i128> {
    let (digits, from) = match value {
        ScalarValue::Decimal128(Some(v), _, s) => (*v, *s),
        other => (whole(other)?, 0),
    };
    let digits = if scale >= from {
        digits.checked_mul(10i128.checked_pow(u32::try_from(scale - from).ok()?)?)?
    } else {
        let power = 10i128.checked_pow(u32::try_from(from - scale).ok()?)?;
        (digits % power == 0).then_some(digits / power)?
    };
    (digits.unsigned_abs() < 10u128.checked_pow(u32::from(precision))?).then_some(digits)
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(v)) | ScalarValue::Utf8View(Some(v)) | ScalarValue::LargeUtf8(Some(v)) => Some(v),
        _ => None,
    }
}

/// Microseconds, when the value has a zone (or has none) as the column does.
fn micros(value: &ScalarValue, zoned: bool) -> Option<i64> {
    let (us, zone) = match value {
        ScalarValue::TimestampSecond(Some(v), zone) => (v.checked_mul(1_000_000)?, zone),
        ScalarValue::TimestampMillisecond(Some(v), zone) => (v.checked_mul(1000)?, zone),
        ScalarValue::TimestampMicrosecond(Some(v), zone) => (*v, zone),
        ScalarValue::TimestampNanosecond(Some(v), zone) => ((v % 1000 == 0).then_some(v / 1000)?, zone),
        _ => return None,
    };
    (zone.is_some() == zoned).then_some(us)
}

#[cfg(test)]
mod tests;
