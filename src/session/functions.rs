//! SQL functions over the registry of sessions: `pg_cancel_backend`, `pg_terminate_backend`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray},
    datatypes::DataType,
};
use datafusion::{
    common::cast::as_int64_array,
    error::DataFusionError,
    logical_expr::{ColumnarValue, Volatility, create_udf},
};
use tidemill_query::{Engine, SqlError};

use super::registry::{Interrupt, Registry};

/// Makes the functions known to sessions opened from now on.
pub fn register(engine: &Engine, registry: &Arc<Registry>) -> Result<(), SqlError> {
    for (name, why) in [("pg_cancel_backend", Interrupt::Cancel), ("pg_terminate_backend", Interrupt::Terminate)] {
        let registry = Arc::clone(registry);
        let interrupt = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue, DataFusionError> {
            let pids = ColumnarValue::values_to_arrays(arguments)?;
            let pids = as_int64_array(&pids[0])?;
            let done: BooleanArray = pids
                .iter()
                .map(|pid| pid.map(|pid| i32::try_from(pid).is_ok_and(|pid| registry.interrupt(pid, why))))
                .collect();
            Ok(ColumnarValue::Array(Arc::new(done) as ArrayRef))
        };
        let function =
            create_udf(name, vec![DataType::Int64], DataType::Boolean, Volatility::Volatile, Arc::new(interrupt));
        engine.register_function(Arc::new(function))?;
    }
    Ok(())
}
