//! Operators whose meaning depends on the types beside them, settled when the syntax tree becomes a plan: intervals and dates, `||` of
//! anything with text, JSONB's arrows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::DFSchema,
    error::DataFusionError,
    functions_aggregate::first_last::first_value_udaf,
    functions_nested::expr_fn::array_element,
    logical_expr::{
        BinaryExpr, Cast, Expr, ExprSchemable, GetFieldAccess, Operator, cast,
        expr::{AggregateFunction, Placeholder, ScalarFunction},
        lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr},
    },
    scalar::ScalarValue,
    sql::sqlparser::ast::BinaryOperator,
};
use datafusion_functions_json::udfs as json;
use tidemill_storage::schema::TYPE_KEY;

use super::types::{self, is_text};
use crate::{
    SqlError,
    functions::{
        array_sets, bytes, datetime, interval, json as jsonb, jsonb as document,
        pieces::{self, is_bytes},
        search, text, text_input,
    },
};

#[derive(Debug)]
pub(crate) struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>, DataFusionError> {
        let (Ok(left), Ok(right)) = (raw.left.get_type(schema), raw.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(raw));
        };
        Ok(match plan(&raw, &left, &right, schema)? {
            Some(expr) => PlannerResult::Planned(expr),
            None => PlannerResult::Original(raw),
        })
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>, DataFusionError> {
        Ok(PlannerResult::Planned(call(datetime::part::extract(), args)))
    }

    /// `substring(x from 'pattern')`, told from a position by its literal.
    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>, DataFusionError> {
        match args.as_slice() {
            [_, Expr::Literal(value, _)] if is_text(&value.data_type()) => {
                Ok(PlannerResult::Planned(call(text::substring_pattern(), args)))
            }
            _ => Ok(PlannerResult::Planned(call(pieces::substr_udf(), args))),
        }
    }

    fn plan_array_literal(
        &self,
        items: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>, DataFusionError> {
        Ok(PlannerResult::Original(super::common_types::items(items, schema)?))
    }

    /// `(array_agg(a ORDER BY b))[1]` is the first value; DataFusion makes an nth value of each such place, which takes no parameter, no place
    /// computed, and counts from the end below zero.
    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        _: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>, DataFusionError> {
        let (Expr::AggregateFunction(gathered), GetFieldAccess::ListIndex { key }) = (&raw.expr, &raw.field_access)
        else {
            return Ok(PlannerResult::Original(raw));
        };
        if gathered.func.name() != "array_agg" {
            return Ok(PlannerResult::Original(raw));
        }
        let is_first = matches!(key.as_ref(), Expr::Literal(ScalarValue::Int64(Some(1)), _));
        Ok(PlannerResult::Planned(
            match is_first && !gathered.params.distinct && !gathered.params.order_by.is_empty() {
                true => Expr::AggregateFunction(AggregateFunction {
                    func: first_value_udaf(),
                    params: gathered.params.clone(),
                }),
                false => array_element(raw.expr, key.as_ref().clone()),
            },
        ))
    }

    /// `position(part in whole)`, with the whole first.
    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>, DataFusionError> {
        Ok(PlannerResult::Planned(call(pieces::strpos_udf(), args)))
    }
}

fn call(function: Arc<datafusion::logical_expr::ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// The key behind `->`, which is a text unless the client says that its parameter is a number.
fn key(expr: &Expr) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Arc::new(Field::new(id, DataType::Utf8View, true));
            Expr::Placeholder(Placeholder::new_with_field(id.clone(), Some(field)))
        }
        other => other.clone(),
    }
}

fn plan(
    raw: &RawBinaryExpr,
    left: &DataType,
    right: &DataType,
    schema: &DFSchema,
) -> Result<Option<Expr>, DataFusionError> {
    use BinaryOperator as Op;
    let both = || vec![raw.left.clone(), raw.right.clone()];
    let member = || vec![raw.left.clone(), key(&raw.right)];
    let swapped = || vec![raw.right.clone(), raw.left.clone()];
    let number = |data_type: &DataType| data_type.is_numeric();
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    let is_timestamp = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    let date_as_timestamp = |expr: &Expr, data_type: &DataType| match data_type {
        DataType::Date32 => cast(expr.clone(), types::timestamp()),
        _ => expr.clone(),
    };
    if matches!(raw.op, Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo) {
        // A quoted literal beside a number is one of its type.
        let with = |left: Expr, right: Expr| RawBinaryExpr { op: raw.op.clone(), left, right };
        let beside = |literal: &Expr, other: &Expr, data_type: &DataType| match literal {
            Expr::Literal(value, _) if is_text(&value.data_type()) && data_type.is_numeric() => {
                let small = matches!(other, Expr::Literal(ScalarValue::Int64(Some(n)), _) if i32::try_from(*n).is_ok());
                let target = if small { DataType::Int32 } else { data_type.clone() };
                Some(cast(literal.clone(), target))
            }
            _ => None,
        };
        let read = match (beside(&raw.left, &raw.right, right), beside(&raw.right, &raw.left, left)) {
            (Some(left), _) => Some(with(left, raw.right.clone())),
            (_, Some(right)) => Some(with(raw.left.clone(), right)),
            _ => None,
        };
        if let Some(RawBinaryExpr { left, right, .. }) = read {
            let op = match raw.op {
                Op::Plus => Operator::Plus,
                Op::Minus => Operator::Minus,
                Op::Multiply => Operator::Multiply,
                Op::Divide => Operator::Divide,
                _ => Operator::Modulo,
            };
            return Ok(Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))));
        }
    }
    // A parameter beside an interval is a factor.
    let factor = |expr: &Expr| match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Arc::new(Field::new(id, DataType::Float64, true));
            Some(Expr::Placeholder(Placeholder::new_with_field(id.clone(), Some(field))))
        }
        _ => None,
    };
    let scaled = match &raw.op {
        Op::Multiply if is_interval(right) => factor(&raw.left).map(|by| (interval::scale(), raw.right.clone(), by)),
        Op::Multiply if is_interval(left) => factor(&raw.right).map(|by| (interval::scale(), raw.left.clone(), by)),
        Op::Divide if is_interval(left) => factor(&raw.right).map(|by| (interval::divide(), raw.left.clone(), by)),
        _ => None,
    };
    if let Some((function, interval, by)) = scaled {
        return Ok(Some(call(function, vec![interval, by])));
    }
    let moment = |data_type: &DataType| is_timestamp(data_type) || *data_type == DataType::Date32;
    Ok(Some(match &raw.op {
        Op::Multiply if is_interval(left) && number(right) => call(interval::scale(), both()),
        Op::Multiply if number(left) && is_interval(right) => call(interval::scale(), swapped()),
        Op::Divide if is_interval(left) && number(right) => call(interval::divide(), both()),
        Op::Plus if moment(left) && is_interval(right) => {
            call(interval::timestamp_add(), vec![date_as_timestamp(&raw.left, left), raw.right.clone()])
        }
        Op::Plus if is_interval(left) && moment(right) => {
            call(interval::timestamp_add(), vec![date_as_timestamp(&raw.right, right), raw.left.clone()])
        }
        Op::Minus if moment(left) && is_interval(right) => {
            call(interval::timestamp_subtract(), vec![date_as_timestamp(&raw.left, left), raw.right.clone()])
        }
        Op::Plus if *left == DataType::Date32 && types::is_int(right) => call(interval::date_add_days(), both()),
        Op::Plus if types::is_int(left) && *right == DataType::Date32 => call(interval::date_add_days(), swapped()),
        Op::Minus if *left == DataType::Date32 && types::is_int(right) => {
            let days = Expr::Negative(Box::new(cast(raw.right.clone(), DataType::Int64)));
            call(interval::date_add_days(), vec![raw.left.clone(), days])
        }
        Op::Minus if *left == DataType::Date32 && *right == DataType::Date32 => {
            call(interval::date_difference(), both())
        }
        Op::Minus if moment(left) && moment(right) => {
            // A date beside a timestamptz is one in the session's zone.
            let zoned = [left, right].iter().any(|data_type| matches!(data_type, DataType::Timestamp(_, Some(_))));
            let target = if zoned { types::timestamptz() } else { types::timestamp() };
            let side = |expr: &Expr, data_type: &DataType| match data_type == &target {
                true => expr.clone(),
                false => cast(expr.clone(), target.clone()),
            };
            call(interval::timestamp_difference(), vec![side(&raw.left, left), side(&raw.right, right)])
        }
        Op::StringConcat
            if is_json(&raw.left, schema) && is_json_or_literal(&raw.right, schema)
                || is_json(&raw.right, schema) && is_json_or_literal(&raw.left, schema) =>
        {
            call(document::concat_udf(), both())
        }
        Op::StringConcat if is_bytes(left) && is_bytes(right) => call(bytes::concat_udf(), both()),
        // A literal beside bytea is bytea.
        Op::StringConcat if is_bytes(left) && matches!(raw.right, Expr::Literal(..)) && is_text(right) => {
            call(bytes::concat_udf(), vec![raw.left.clone(), cast(raw.right.clone(), DataType::BinaryView)])
        }
        Op::StringConcat if is_bytes(right) && matches!(raw.left, Expr::Literal(..)) && is_text(left) => {
            call(bytes::concat_udf(), vec![cast(raw.left.clone(), DataType::BinaryView), raw.right.clone()])
        }
        Op::StringConcat if is_text(left) != is_text(right) && !is_list(left) && !is_list(right) => {
            let as_text = |expr: &Expr, data_type: &DataType| match is_text(data_type) {
                true => expr.clone(),
                false => cast(expr.clone(), DataType::Utf8View),
            };
            let (l, r) = (as_text(&raw.left, left), as_text(&raw.right, right));
            Expr::BinaryExpr(BinaryExpr::new(Box::new(l), Operator::StringConcat, Box::new(r)))
        }
        Op::PGExp => {
            let power = datafusion::functions::math::power();
            call(power, vec![cast(raw.left.clone(), DataType::Float64), cast(raw.right.clone(), DataType::Float64)])
        }
        Op::Arrow if is_text(left) => call(document::member_udf(), member()),
        Op::LongArrow if is_text(left) => call(document::member_text_udf(), member()),
        Op::HashArrow if is_text(left) => match keys(raw) {
            Some(path) => jsonb_field(call(json::json_get_json_udf(), path)),
            None => call(document::path_udf(), both()),
        },
        Op::HashLongArrow if is_text(left) => match keys(raw) {
            Some(path) => call(json::json_as_text_udf(), path),
            None => call(document::text_path_udf(), both()),
        },
        Op::Question if is_text(left) => call(document::exists_udf(), both()),
        Op::QuestionPipe if is_text(left) => call(document::exists_any_udf(), both()),
        Op::QuestionAnd if is_text(left) => call(document::exists_all_udf(), both()),
        Op::HashMinus if is_text(left) => call(document::delete_path_udf(), both()),
        Op::Minus if is_json(&raw.left, schema) => call(document::delete_udf(), both()),
        // An array's text beside an array is read as one.
        Op::AtArrow | Op::ArrowAt | Op::PGOverlap
            if is_list(left) != is_list(right) && is_text(left) != is_text(right) =>
        {
            let (left, right) = match is_list(left) {
                true => (raw.left.clone(), cast(raw.right.clone(), left.clone())),
                false => (cast(raw.left.clone(), right.clone()), raw.right.clone()),
            };
            arrays(&raw.op, left, right)
        }
        Op::AtArrow | Op::ArrowAt | Op::PGOverlap if is_list(left) && is_list(right) => {
            arrays(&raw.op, raw.left.clone(), raw.right.clone())
        }
        Op::AtArrow if is_text(left) => call(jsonb::contains_udf(), both()),
        Op::ArrowAt if is_text(left) => call(jsonb::contains_udf(), swapped()),
        Op::AtQuestion if is_json_or_literal(&raw.left, schema) && is_path(&raw.right, schema) => {
            call(document::path::exists_udf(), vec![raw.left.clone(), as_path(&raw.right)])
        }
        // Beside a jsonpath, a literal is a document.
        Op::AtAt
            if is_jsonb(&raw.left, schema) && is_path(&raw.right, schema)
                || is_json_or_literal(&raw.left, schema) && is_marked_path(&raw.right, schema) =>
        {
            call(document::path::match_udf(), vec![raw.left.clone(), as_path(&raw.right)])
        }
        Op::AtAt => match search::matches(&raw.left, &raw.right, schema) {
            Some(expr) => expr,
            None => return Err(missing(raw, schema)?.into()),
        },
        Op::PGOverlap
        | Op::AtArrow
        | Op::ArrowAt
        | Op::AtQuestion
        | Op::HashMinus
        | Op::Question
        | Op::QuestionPipe
        | Op::QuestionAnd => {
            return Err(missing(raw, schema)?.into());
        }
        _ => {
            let _ = schema;
            return Ok(None);
        }
    }))
}

/// There is no such operator of these types.
fn missing(raw: &RawBinaryExpr, schema: &DFSchema) -> Result<SqlError, DataFusionError> {
    let name = |expr: &Expr| expr.to_field(schema).map(|(_, field)| types::name(&field));
    let (left, right) = (name(&raw.left)?, name(&raw.right)?);
    Ok(SqlError::new("42883", format!("operator does not exist: {left} {} {right}", raw.op))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts."))
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// Marks text as JSONB.
pub(crate) fn jsonb_field(expr: Expr) -> Expr {
    call(datafusion::functions::core::with_metadata(), vec![expr, lit(TYPE_KEY), lit("jsonb")])
}

fn is_json(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| matches!(super::casts::marker(&field), Some("json" | "jsonb")))
}

/// A quoted literal beside JSON is read as JSON.
fn is_json_or_literal(expr: &Expr, schema: &DFSchema) -> bool {
    is_json(expr, schema) || matches!(expr, Expr::Literal(value, _) if is_text(&value.data_type()))
}

fn is_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| super::casts::marker(&field) == Some("jsonb"))
}

fn is_marked_path(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| super::casts::marker(&field) == Some("jsonpath"))
}

/// A jsonpath, or a literal or parameter that is read as one.
fn is_path(expr: &Expr, schema: &DFSchema) -> bool {
    is_marked_path(expr, schema)
        || matches!(expr, Expr::Placeholder(_))
        || matches!(expr, Expr::Literal(value, _) if is_text(&value.data_type()) || value.is_null())
}

fn as_path(expr: &Expr) -> Expr {
    match expr {
        Expr::Literal(..) | Expr::Placeholder(_) => {
            Expr::Cast(Cast::new_from_field(Box::new(expr.clone()), document::json_field("jsonpath")))
        }
        other => other.clone(),
    }
}

fn arrays(op: &BinaryOperator, left: Expr, right: Expr) -> Expr {
    match op {
        BinaryOperator::PGOverlap => call(array_sets::overlaps_udf(), vec![left, right]),
        BinaryOperator::AtArrow => call(array_sets::contains_udf(), vec![left, right]),
        _ => call(array_sets::contains_udf(), vec![right, left]),
    }
}

/// The JSON text and the keys of a path, `'{a,b}'` or an array written out, if the path is constant and has no numbers: a number
/// may be a key or a place.
fn keys(raw: &RawBinaryExpr) -> Option<Vec<Expr>> {
    let mut written = &raw.right;
    while let Expr::Cast(cast) = written {
        written = &cast.expr;
    }
    let keys: Vec<String> = match written {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            text_input::elements(text).ok()?.into_iter().collect::<Option<_>>()?
        }
        Expr::ScalarFunction(array) if array.func.name() == "make_array" => array
            .args
            .iter()
            .map(|arg| match arg {
                Expr::Literal(ScalarValue::Utf8(Some(key)) | ScalarValue::Utf8View(Some(key)), _) => Some(key.clone()),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    };
    if keys.is_empty() || keys.iter().any(|key| key.trim().parse::<i64>().is_ok()) {
        return None;
    }
    let mut args = vec![raw.left.clone()];
    args.extend(keys.into_iter().map(lit));
    Some(args)
}
