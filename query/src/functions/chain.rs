//! A long sum as one call, see [`chains`](crate::rules::chains).

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    physical_plan::PhysicalExpr,
    scalar::ScalarValue,
};

use super::simple::{Returns, Simple};

pub(crate) const NAME: &str = "tidemill_chain";

/// What stands for a sum until it has its types: it takes the operators and the terms.
pub(crate) fn udf() -> Arc<ScalarUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Simple::udf(NAME, signature, Returns::Of(loosely), |_| {
        Err(DataFusionError::Internal("a sum without its types".to_owned()))
    })
}

fn loosely(types: &[DataType]) -> Result<DataType, DataFusionError> {
    let terms = types.get(1..).unwrap_or_default();
    let is = |wanted: fn(&DataType) -> bool| terms.iter().find(|data_type| wanted(data_type)).cloned();
    Ok(is(|data_type| matches!(data_type, DataType::Float32 | DataType::Float64))
        .map(|_| DataType::Float64)
        .or_else(|| is(|data_type| !data_type.is_integer()))
        .unwrap_or(DataType::Int64))
}

/// One operator of a sum, over what the sum is so far and perhaps the next argument.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Step {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    /// The sum, unless it is a literal yet, and the argument, if one is taken.
    pub(crate) columns: SchemaRef,
    pub(crate) takes_item: bool,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.expr.as_ref() == other.expr.as_ref()
            && self.columns == other.columns
            && self.takes_item == other.takes_item
    }
}

impl Hash for Step {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
        self.columns.hash(state);
        self.takes_item.hash(state);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chain {
    steps: Vec<Step>,
    /// Whether the sum begins with an argument, and not with a literal.
    starts: bool,
    returns: DataType,
    signature: Signature,
}

impl Chain {
    pub(crate) fn udf(steps: Vec<Step>, starts: bool, returns: DataType, arguments: usize) -> Arc<ScalarUDF> {
        let signature = super::simple::any(arguments, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { steps, starts, returns, signature }))
    }

    fn sum(&self, arguments: &[ColumnarValue], rows: usize) -> Result<ArrayRef, DataFusionError> {
        let mut arguments = arguments.iter().map(|argument| argument.to_array(rows));
        let mut next =
            || arguments.next().unwrap_or_else(|| Err(DataFusionError::Internal("a sum lacks a term".to_owned())));
        let mut sum = if self.starts { Some(next()?) } else { None };
        for step in &self.steps {
            let item = if step.takes_item { Some(next()?) } else { None };
            let columns = sum.into_iter().chain(item).zip(step.columns.fields());
            let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column),
                false => cast(&column, field.data_type()),
            });
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let columns = columns.collect::<Result<_, _>>()?;
            let batch = RecordBatch::try_new_with_options(Arc::clone(&step.columns), columns, &options)?;
            sum = Some(step.expr.evaluate(&batch)?.into_array(rows)?);
        }
        sum.ok_or_else(|| DataFusionError::Internal("a sum of nothing".to_owned()))
    }
}

impl ScalarUDFImpl for Chain {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let all_scalar = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        if all_scalar {
            let sum = self.sum(&args.args, 1)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&sum, 0)?));
        }
        self.sum(&args.args, args.number_rows).map(ColumnarValue::Array)
    }
}
