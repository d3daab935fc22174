//! `pg_sleep(seconds)`: waits without holding a thread, so that a cancelled or timed-out query ends at once.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Float64Type},
};
use async_trait::async_trait;
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};

use crate::SqlError;

/// A year.
const SECONDS_MAX: f64 = 31_536_000.0;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let sleep = Sleep { signature: Signature::any(1, Volatility::Volatile) };
    vec![Arc::new(AsyncScalarUDF::new(Arc::new(sleep)).into_scalar_udf())]
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// PostgreSQL's void, which clients see as an empty text.
    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Err(DataFusionError::Internal("pg_sleep is asynchronous".to_owned()))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let seconds = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Float64)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        let mut shown = Vec::with_capacity(seconds.len());
        for seconds in seconds {
            if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) {
                if seconds > SECONDS_MAX {
                    return Err(SqlError::invalid_parameter(format!("cannot sleep for {seconds} seconds"))
                        .with_hint("A year is the longest.")
                        .into());
                }
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            shown.push(ScalarValue::Utf8View(seconds.map(|_| String::new())));
        }
        if shown.is_empty() {
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(None)));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(shown)?))
    }
}
