//! `x = ANY (…)`: array and value get one type, and an array written out becomes IN.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{DFSchema, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{Cast, Expr, ExprSchemable, cast, expr::ScalarFunction, type_coercion::binary::comparison_coercion},
};

use super::types;
use crate::functions::any::as_list;

pub(crate) fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let Expr::ScalarFunction(call) = expr else { return Ok(Transformed::no(expr)) };
    let name = call.func.name().to_owned();
    if !matches!(name.as_str(), "tidemill_any" | "tidemill_all") || call.args.len() != 3 {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let ScalarFunction { func, args } = call;
    let [op, value, list] =
        <[Expr; 3]>::try_from(args).map_err(|_| DataFusionError::Internal("ANY takes three arguments".to_owned()))?;
    if let Expr::ScalarFunction(array) = &list
        && array.func.name() == "make_array"
        && let Some(in_list) = as_list(&name, &op, &value, array.args.clone())
    {
        return super::literals::adapt(in_list, schema);
    }
    let value_type = value.get_type(schema)?;
    let (value, list) = match list.get_type(schema)? {
        data_type if types::is_text(&data_type) && value_type != DataType::Null => {
            let item = Arc::new(Field::new("item", value_type, true));
            let target = Arc::new(Field::new("", DataType::List(item), true));
            (value, Expr::Cast(Cast { expr: Box::new(list), field: target }))
        }
        // 1.5 = ANY (whole numbers): a type that holds both.
        DataType::List(item)
            if is_number(item.data_type())
                && is_number(&value_type)
                && !(types::is_int(item.data_type()) && types::is_int(&value_type))
                && item.data_type() != &value_type =>
        {
            match comparison_coercion(&value_type, item.data_type()) {
                Some(both) => (cast(value, both.clone()), cast(list, DataType::new_list(both, true))),
                None => (value, list),
            }
        }
        DataType::List(item) if item.data_type() != &value_type => {
            let wide = |data_type: &DataType| data_type.primitive_width().unwrap_or(0);
            let to_item = types::is_text(&value_type) && !types::is_text(item.data_type())
                || types::is_int(&value_type)
                    && (!types::is_int(item.data_type()) || wide(item.data_type()) > wide(&value_type));
            match to_item || types::is_text(&value_type) {
                true => (cast(value, item.data_type().clone()), list),
                false => (value, cast(list, DataType::new_list(value_type, true))),
            }
        }
        _ => (value, list),
    };
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![op, value, list] })))
}

fn is_number(data_type: &DataType) -> bool {
    types::is_int(data_type) || types::is_decimal(data_type) || types::is_float(data_type)
}
