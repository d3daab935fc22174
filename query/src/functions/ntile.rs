//! `ntile(n)` as PostgreSQL has it: an integer.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    compute::cast,
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    functions_window::ntile::Ntile,
    logical_expr::{
        PartitionEvaluator, Signature, WindowUDF, WindowUDFImpl,
        function::{PartitionEvaluatorArgs, WindowUDFFieldArgs},
    },
};

pub(crate) fn udwf() -> Arc<WindowUDF> {
    Arc::new(WindowUDF::from(Tiles { inner: Ntile::new() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Tiles {
    inner: Ntile,
}

impl WindowUDFImpl for Tiles {
    fn name(&self) -> &str {
        "ntile"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>, DataFusionError> {
        Ok(Box::new(Narrowed { inner: self.inner.partition_evaluator(args)? }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int32, true)))
    }
}

/// Tiles as integers.
#[derive(Debug)]
struct Narrowed {
    inner: Box<dyn PartitionEvaluator>,
}

impl PartitionEvaluator for Narrowed {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef, DataFusionError> {
        Ok(cast(&self.inner.evaluate_all(values, rows)?, &DataType::Int32)?)
    }
}
