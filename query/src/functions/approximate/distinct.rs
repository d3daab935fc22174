//! `approx_distinct(x)`: how many values of `x` there are, nulls aside.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int64Array},
    compute::cast,
    datatypes::{DataType, FieldRef},
    row::{RowConverter, SortField},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    scalar::ScalarValue,
};
use tidemill_storage::{
    hash,
    sketch::{Distinct, token},
};

use super::sketched::{Each, Groups, Kind, Whole, state_field};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxDistinct {
    signature: Signature,
}

impl ApproxDistinct {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ApproxDistinct {
    fn name(&self) -> &str {
        "approx_distinct"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue, DataFusionError> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![state_field(args.name)])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(Whole::new(Counted)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        Ok(Box::new(Groups::new(Counted)))
    }
}

#[derive(Debug)]
struct Counted;

impl Kind for Counted {
    type Sketch = Distinct;

    fn rows(&self, values: &ArrayRef, each: Each<'_, Distinct>) -> Result<(), DataFusionError> {
        let mut row = 0;
        let mut each_hash = |hash: Option<u64>| {
            if let Some(hash) = hash {
                let token = token(hash);
                each(row, &|sketch| sketch.insert(token));
            }
            row += 1;
        };
        // The same hash for a value whatever array it comes in, as segments hash it.
        let values = match values.data_type() {
            DataType::Int8 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => &cast(values, &DataType::Int64)?,
            DataType::Utf8 | DataType::LargeUtf8 => &cast(values, &DataType::Utf8View)?,
            DataType::Binary | DataType::LargeBinary => &cast(values, &DataType::BinaryView)?,
            _ => values,
        };
        match values.data_type() {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(..)
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Utf8View
            | DataType::BinaryView => {
                hash::of_array(values, each_hash).map_err(|error| DataFusionError::External(Box::new(error)))?;
            }
            other => {
                let rows = RowConverter::new(vec![SortField::new(other.clone())])?
                    .convert_columns(std::slice::from_ref(values))?;
                let nulls = values.logical_nulls();
                for (row, bytes) in rows.iter().enumerate() {
                    let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                    each_hash((!is_null).then(|| hash::of_bytes(bytes.as_ref())));
                }
            }
        }
        Ok(())
    }

    fn answers(&self, sketches: &[Distinct]) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(sketches.iter().map(|sketch| sketch.estimate() as i64)))
    }
}
