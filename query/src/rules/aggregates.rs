//! Aggregates whose result PostgreSQL gives in another type: `sum(bigint)` and `avg` of whole numbers are numeric.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{Expr, ExprSchemable, cast, expr::WindowFunctionDefinition},
};

/// Digits after the point that `avg` of integers is computed with, before those that the average adds.
const AVERAGE_SCALE: i8 = 12;

pub(crate) fn widen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match expr {
        Expr::AggregateFunction(mut call) => {
            let changed = widen_arguments(call.func.name(), &mut call.params.args, schema)?;
            Transformed::new_transformed(Expr::AggregateFunction(call), changed)
        }
        Expr::WindowFunction(mut call) => {
            let changed = match &call.fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    let name = function.name().to_owned();
                    widen_arguments(&name, &mut call.params.args, schema)?
                }
                WindowFunctionDefinition::WindowUDF(_) => false,
            };
            Transformed::new_transformed(Expr::WindowFunction(call), changed)
        }
        other => Transformed::no(other),
    })
}

fn widen_arguments(name: &str, args: &mut [Expr], schema: &DFSchema) -> Result<bool, DataFusionError> {
    let [argument] = args else { return Ok(false) };
    let data_type = argument.get_type(schema)?;
    let target = match (name, &data_type) {
        ("sum", DataType::Int64) => DataType::Decimal128(38, 0),
        ("avg", DataType::Int16 | DataType::Int32) => DataType::Decimal128(22, AVERAGE_SCALE),
        ("avg", DataType::Int64) => DataType::Decimal128(31, AVERAGE_SCALE),
        ("avg", DataType::Decimal128(precision, scale)) if *scale < AVERAGE_SCALE => {
            let precision = (i16::from(*precision) + i16::from(AVERAGE_SCALE - scale)).min(38) as u8;
            DataType::Decimal128(precision, AVERAGE_SCALE)
        }
        _ => return Ok(false),
    };
    *argument = cast(argument.clone(), target);
    Ok(true)
}
