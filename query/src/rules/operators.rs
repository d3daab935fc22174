//! Operators whose meaning depends on the types beside them, settled when the syntax tree becomes a plan: intervals and dates, `||` of
//! anything with text, JSONB's arrows.

use arrow::datatypes::DataType;
use datafusion::{
    common::DFSchema,
    error::DataFusionError,
    logical_expr::{
        Expr, ExprSchemable, cast,
        expr::ScalarFunction,
        lit,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    scalar::ScalarValue,
    sql::sqlparser::ast::BinaryOperator,
};
use datafusion_functions_json::udfs as json;
use tidemill_storage::schema::TYPE_KEY;

use super::types::{self, is_text};
use crate::{
    SqlError,
    functions::{datetime, interval, json as jsonb, text, text_input},
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
            _ => Ok(PlannerResult::Original(args)),
        }
    }
}

fn call(function: std::sync::Arc<datafusion::logical_expr::ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

fn plan(
    raw: &RawBinaryExpr,
    left: &DataType,
    right: &DataType,
    schema: &DFSchema,
) -> Result<Option<Expr>, DataFusionError> {
    use BinaryOperator as Op;
    let both = || vec![raw.left.clone(), raw.right.clone()];
    let swapped = || vec![raw.right.clone(), raw.left.clone()];
    let number = |data_type: &DataType| data_type.is_numeric();
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    let is_timestamp = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    let date_as_timestamp = |expr: &Expr, data_type: &DataType| match data_type {
        DataType::Date32 => cast(expr.clone(), types::timestamp()),
        _ => expr.clone(),
    };
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
        Op::StringConcat if is_text(left) != is_text(right) && !is_list(left) && !is_list(right) => {
            let as_text = |expr: &Expr, data_type: &DataType| match is_text(data_type) {
                true => expr.clone(),
                false => cast(expr.clone(), DataType::Utf8View),
            };
            let (l, r) = (as_text(&raw.left, left), as_text(&raw.right, right));
            Expr::BinaryExpr(datafusion::logical_expr::BinaryExpr::new(
                Box::new(l),
                datafusion::logical_expr::Operator::StringConcat,
                Box::new(r),
            ))
        }
        Op::PGExp => {
            let power = datafusion::functions::math::power();
            call(power, vec![cast(raw.left.clone(), DataType::Float64), cast(raw.right.clone(), DataType::Float64)])
        }
        Op::Arrow if is_text(left) => jsonb_field(call(json::json_get_json_udf(), both())),
        Op::LongArrow if is_text(left) => call(json::json_as_text_udf(), both()),
        Op::HashArrow if is_text(left) => jsonb_field(call(json::json_get_json_udf(), path(raw)?)),
        Op::HashLongArrow if is_text(left) => call(json::json_as_text_udf(), path(raw)?),
        Op::Question if is_text(left) => call(json::json_contains_udf(), both()),
        Op::AtArrow if is_text(left) => call(jsonb::contains_udf(), both()),
        Op::ArrowAt if is_text(left) => call(jsonb::contains_udf(), swapped()),
        _ => {
            let _ = schema;
            return Ok(None);
        }
    }))
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
}

/// Marks text as JSONB.
fn jsonb_field(expr: Expr) -> Expr {
    call(datafusion::functions::core::with_metadata(), vec![expr, lit(TYPE_KEY), lit("jsonb")])
}

/// The JSON text and the keys of a path: `'{a,0}'` or an array written out.
fn path(raw: &RawBinaryExpr) -> Result<Vec<Expr>, DataFusionError> {
    let mut written = &raw.right;
    while let Expr::Cast(cast) = written {
        written = &cast.expr;
    }
    let keys: Vec<String> = match written {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            text_input::elements(text)?.into_iter().flatten().collect()
        }
        Expr::ScalarFunction(array) if array.func.name() == "make_array" => array
            .args
            .iter()
            .map(|arg| match arg {
                Expr::Literal(ScalarValue::Utf8(Some(key)) | ScalarValue::Utf8View(Some(key)), _) => Ok(key.clone()),
                _ => Err(SqlError::not_supported("a JSON path that is not constant")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(SqlError::not_supported("a JSON path that is not constant").into()),
    };
    let mut args = vec![raw.left.clone()];
    // A number is an index into an array; as a key of an object it would have to be asked for with ->.
    args.extend(keys.into_iter().map(|key| match key.parse::<i64>() {
        Ok(index) => lit(index),
        Err(_) => lit(key),
    }));
    Ok(args)
}
