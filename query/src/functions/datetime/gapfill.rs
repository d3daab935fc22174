//! `time_bucket_gapfill`, `locf` and `interpolate`: names that [the rule](crate::rules::gapfill) finds and replaces. What it leaves stands where it has no
//! meaning.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility},
};

use crate::{
    SqlError,
    functions::simple::{Call, Returns, Simple, any_of},
    rules::types,
};

pub(crate) const BUCKET: &str = "time_bucket_gapfill";
pub(crate) const LOCF: &str = "locf";
pub(crate) const INTERPOLATE: &str = "interpolate";

/// All arguments are there once the syntax tree was read: see [`arguments`](crate::rules::gapfill).
pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf(BUCKET, any_of(&[5], Volatility::Stable), Returns::Of(bucketed), nowhere),
        Simple::udf(LOCF, any_of(&[3], Volatility::Stable), Returns::Field(carried), nowhere),
        Simple::udf(INTERPOLATE, any_of(&[1], Volatility::Stable), Returns::Field(between), nowhere),
    ]
}

fn bucketed(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    Ok(match arguments.get(1) {
        Some(DataType::Timestamp(_, None)) => types::timestamp(),
        Some(DataType::Timestamp(_, Some(_))) => types::timestamptz(),
        Some(DataType::Date32) => DataType::Date32,
        _ => {
            return Err(SqlError::new("42883", "function time_bucket_gapfill of these types does not exist")
                .with_hint("It takes an interval and a timestamp or a date.")
                .into());
        }
    })
}

fn carried(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_name(LOCF).with_nullable(true)))
}

fn between(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let field = &args.arg_fields[0];
    let is_number = matches!(
        field.data_type(),
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
    );
    if !is_number {
        let message = format!("function interpolate({}) does not exist", types::name(field));
        return Err(SqlError::new("42883", message).with_hint("It takes a number.").into());
    }
    Ok(Arc::new(field.as_ref().clone().with_name(INTERPOLATE).with_nullable(true)))
}

fn nowhere(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    Err(SqlError::internal(format!("{} was not planned", call.returns.name())).into())
}
