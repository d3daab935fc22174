//! What aggregates take as PostgreSQL does.
//!
//! - `sum(bigint)` is numeric: a sum of whole numbers passes their range.
//! - DISTINCT takes -0 and 0, and NaN of either sign, for one number, which DataFusion tells apart by their bits.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, tree_node::Transformed},
    error::DataFusionError,
    logical_expr::{Expr, ExprSchemable, cast, expr::WindowFunctionDefinition},
};

use super::types;
use crate::functions::floats;

pub(crate) fn widen(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    Ok(match expr {
        Expr::AggregateFunction(mut call) => {
            let mut changed = widen_argument(call.func.name(), &mut call.params.args, schema)?;
            if call.params.distinct {
                for argument in &mut call.params.args {
                    if types::is_float(&argument.get_type(schema)?) && !floats::is_one(argument) {
                        *argument = floats::one_float().call(vec![argument.clone()]);
                        changed = true;
                    }
                }
            }
            Transformed::new_transformed(Expr::AggregateFunction(call), changed)
        }
        Expr::WindowFunction(mut call) => {
            let changed = match &call.fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    widen_argument(function.name(), &mut call.params.args, schema)?
                }
                WindowFunctionDefinition::WindowUDF(_) => false,
            };
            Transformed::new_transformed(Expr::WindowFunction(call), changed)
        }
        other => Transformed::no(other),
    })
}

fn widen_argument(name: &str, args: &mut [Expr], schema: &DFSchema) -> Result<bool, DataFusionError> {
    let ("sum", [argument]) = (name, args) else { return Ok(false) };
    if argument.get_type(schema)? != DataType::Int64 {
        return Ok(false);
    }
    *argument = cast(argument.clone(), DataType::Decimal128(38, 0));
    Ok(true)
}
