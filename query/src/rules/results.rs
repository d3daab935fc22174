//! Functions whose result PostgreSQL gives in another type: lengths, places and counts are integers, not bigints.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{ScalarValue, tree_node::Transformed},
    logical_expr::{Cast, Expr, expr::ScalarFunction},
};

use crate::functions::arrays::subscript_udf;

pub(crate) fn narrow(expr: Expr) -> Transformed<Expr> {
    let expr = match expr {
        Expr::ScalarFunction(call) if call.func.name() == "array_element" => return subscripted(call),
        other => other,
    };
    let target = match &expr {
        Expr::ScalarFunction(call) => match call.func.name() {
            "array_length" | "array_ndims" | "cardinality" | "array_position" | "regexp_count" | "regexp_instr" => {
                DataType::Int32
            }
            "array_positions" => DataType::new_list(DataType::Int32, true),
            _ => return Transformed::no(expr),
        },
        _ => return Transformed::no(expr),
    };
    let field = Arc::new(Field::new("", target, true));
    Transformed::yes(Expr::Cast(Cast { expr: Box::new(expr), field }))
}

/// `a[i]` is NULL where i is less than 1: DataFusion would count from the end.
fn subscripted(mut call: ScalarFunction) -> Transformed<Expr> {
    let is_plain = |value: &ScalarValue| match value {
        ScalarValue::Int32(Some(index)) => *index > 0,
        ScalarValue::Int64(Some(index)) => (1..=i64::from(i32::MAX)).contains(index),
        _ => false,
    };
    match call.args.as_mut_slice() {
        [_, Expr::Literal(value, _)] if is_plain(value) => Transformed::no(Expr::ScalarFunction(call)),
        [_, index] => {
            let wrapped = ScalarFunction::new_udf(subscript_udf(), vec![index.clone()]);
            *index = Expr::ScalarFunction(wrapped);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        _ => Transformed::no(Expr::ScalarFunction(call)),
    }
}
