//! `x op ANY (array)` and `x op ALL (array)`.
//!
//! With a constant array, `= ANY` is IN and `<> ALL` is NOT IN, so that scans can take it; otherwise each row's array is compared
//! element by element, in three-valued logic.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Scalar},
    compute::kernels::cmp,
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::InList,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    scalar::ScalarValue,
};

use super::simple;
use crate::SqlError;

/// Arguments: the operator's text, the value, the array.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quantified {
    all: bool,
    signature: Signature,
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![any_udf(), all_udf()]
}

pub(crate) fn any_udf() -> Arc<ScalarUDF> {
    udf(false)
}

pub(crate) fn all_udf() -> Arc<ScalarUDF> {
    udf(true)
}

fn udf(all: bool) -> Arc<ScalarUDF> {
    let signature = Signature::any(3, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Quantified { all, signature }))
}

/// IN or NOT IN, if that is what the operator with this quantifier means.
pub(crate) fn as_list(name: &str, op: &Expr, value: &Expr, items: Vec<Expr>) -> Option<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(op)) | ScalarValue::Utf8View(Some(op)), _) = op else { return None };
    let negated = match (name, op.as_str()) {
        ("tidemill_any", "=") => false,
        ("tidemill_all", "<>" | "!=") => true,
        _ => return None,
    };
    (!items.is_empty()).then(|| Expr::InList(InList::new(Box::new(value.clone()), items, negated)))
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &str {
        if self.all { "tidemill_all" } else { "tidemill_any" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        match arguments.get(2) {
            Some(DataType::List(_) | DataType::Null | DataType::Utf8 | DataType::Utf8View) => Ok(DataType::Boolean),
            _ => Err(SqlError::new("42809", "op ANY/ALL (array) requires array on right side").into()),
        }
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult, DataFusionError> {
        if let [op, value, Expr::Literal(ScalarValue::List(list), _)] = args.as_slice()
            && list.is_valid(0)
        {
            let items = list.value(0);
            let items = (0..items.len())
                .map(|index| Ok(Expr::Literal(ScalarValue::try_from_array(&items, index)?, None)))
                .collect::<Result<Vec<_>, DataFusionError>>()?;
            if let Some(list) = as_list(self.name(), op, value, items) {
                return Ok(ExprSimplifyResult::Simplified(list));
            }
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        simple::invoke(args, |call| {
            let ops = call.text(0)?;
            let (values, lists) = (&call.arrays[1], &call.arrays[2]);
            if matches!(lists.data_type(), DataType::Null) {
                return Ok(Arc::new(BooleanArray::new_null(call.rows)));
            }
            let Some(lists) = lists.as_list_opt::<i32>() else {
                return Err(SqlError::new("42809", "op ANY/ALL (array) requires array on right side").into());
            };
            let mut out = Vec::with_capacity(call.rows);
            for row in 0..call.rows {
                out.push(match lists.is_valid(row) {
                    true => one(self.all, ops.value(row), &values.slice(row, 1), &lists.value(row))?,
                    false => None,
                });
            }
            Ok(Arc::new(out.into_iter().collect::<BooleanArray>()))
        })
    }
}

/// The truth for one value and its array.
fn one(all: bool, op: &str, value: &ArrayRef, items: &ArrayRef) -> Result<Option<bool>, DataFusionError> {
    if items.is_empty() {
        return Ok(Some(all));
    }
    if value.is_null(0) {
        return Ok(None);
    }
    let items = match items.data_type() == value.data_type() {
        true => Arc::clone(items),
        false => arrow::compute::cast(items, value.data_type())?,
    };
    let value = Scalar::new(Arc::clone(value));
    let truths = match op {
        "=" => cmp::eq(&value, &items)?,
        "<>" | "!=" => cmp::neq(&value, &items)?,
        "<" => cmp::lt(&value, &items)?,
        "<=" => cmp::lt_eq(&value, &items)?,
        ">" => cmp::gt(&value, &items)?,
        ">=" => cmp::gt_eq(&value, &items)?,
        other => return Err(SqlError::not_supported(format!("{other} with ANY or ALL of an array")).into()),
    };
    let decisive = !all;
    if truths.iter().any(|truth| truth == Some(decisive)) {
        return Ok(Some(decisive));
    }
    Ok(if truths.null_count() > 0 { None } else { Some(all) })
}
