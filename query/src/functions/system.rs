//! `rt.<name>(…)`: functions that the server answers, as asynchronous scalar functions.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{array::ArrayRef, datatypes::DataType};
use async_trait::async_trait;
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};

use crate::views::{SystemFunction, SystemFunctions};

pub(crate) fn udfs(system: &Arc<dyn SystemFunctions>) -> Vec<Arc<ScalarUDF>> {
    system
        .functions()
        .into_iter()
        .map(|function| {
            let name = format!("rt.{}", function.name);
            let signature = Signature::exact(function.arguments.clone(), Volatility::Volatile);
            let call = SystemCall { name, function, signature, system: Arc::clone(system) };
            Arc::new(AsyncScalarUDF::new(Arc::new(call)).into_scalar_udf())
        })
        .collect()
}

struct SystemCall {
    name: String,
    function: SystemFunction,
    signature: Signature,
    system: Arc<dyn SystemFunctions>,
}

impl fmt::Debug for SystemCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for SystemCall {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SystemCall {}

impl Hash for SystemCall {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for SystemCall {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.function.returns.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        Err(DataFusionError::Internal(format!("{} is asynchronous", self.name)))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for SystemCall {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let mut results = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let values = args
                .args
                .iter()
                .map(|argument| match argument {
                    ColumnarValue::Scalar(value) => Ok(value.clone()),
                    ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row),
                })
                .collect::<Result<Vec<_>, _>>()?;
            results.push(self.system.call(self.function.name, values).await?);
        }
        let array: ArrayRef = ScalarValue::iter_to_array(results)?;
        Ok(ColumnarValue::Array(array))
    }
}
