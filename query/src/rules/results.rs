//! Functions whose result PostgreSQL gives in another type: lengths, places and counts are integers, not bigints.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::tree_node::Transformed,
    logical_expr::{Cast, Expr},
};

pub(crate) fn narrow(expr: Expr) -> Transformed<Expr> {
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
