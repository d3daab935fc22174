//! `approx_percentile(x, share)`, in PostgreSQL's form `approx_percentile_cont(share) WITHIN GROUP (ORDER BY x)`, and `approx_median(x)`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch},
    compute::cast,
    datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, Schema},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    scalar::ScalarValue,
};
use tidemill_storage::sketch::Quantiles;

use super::sketched::{Each, Groups, Kind, Whole, state_field};
use crate::{SqlError, rules::types};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxPercentile {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    is_median: bool,
}

impl ApproxPercentile {
    pub(super) fn of_share() -> Self {
        Self {
            name: "approx_percentile_cont",
            aliases: vec!["approx_percentile".to_owned()],
            signature: Signature::user_defined(Volatility::Immutable),
            is_median: false,
        }
    }

    pub(super) fn median() -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { name: "approx_median", aliases: Vec::new(), signature, is_median: true }
    }

    fn share(&self, args: &AccumulatorArgs<'_>) -> Result<f64, DataFusionError> {
        if args.is_distinct {
            return Err(SqlError::not_supported(format!("{} of DISTINCT values", self.name)).into());
        }
        if self.is_median {
            return Ok(0.5);
        }
        let constant = || {
            let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
            let value = args.exprs.get(1)?.evaluate(&nothing).ok()?.into_array(1).ok()?;
            ScalarValue::try_from_array(&value, 0).ok()?.cast_to(&DataType::Float64).ok()
        };
        let share = match constant() {
            Some(ScalarValue::Float64(Some(share))) => share,
            Some(_) => return Err(SqlError::new("22004", "the percentile must not be null").into()),
            None => {
                let message = format!("the percentile of {} must be a constant", self.name);
                return Err(SqlError::not_supported(message).into());
            }
        };
        if !(0.0..=1.0).contains(&share) {
            return Err(SqlError::new("22003", format!("percentile value {share} is not between 0 and 1")).into());
        }
        let is_descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        Ok(if is_descending { 1.0 - share } else { share })
    }
}

impl AggregateUDFImpl for ApproxPercentile {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let numbers =
            |from: usize| arguments[from..].iter().all(|argument| argument.is_numeric() || argument.is_null());
        let expected = if self.is_median { 1 } else { 2 };
        if arguments.len() != expected || !numbers(0) {
            let names: Vec<String> =
                arguments.iter().map(|of| types::name(&Field::new("", of.clone(), true))).collect();
            let form = if self.is_median { "(numbers)" } else { "(numbers, share between 0 and 1)" };
            return Err(SqlError::new("42883", format!("function {}({}) does not exist", self.name, names.join(", ")))
                .with_hint(format!("it is {}{form}", self.name))
                .into());
        }
        let number = if arguments[0].is_null() { DataType::Float64 } else { arguments[0].clone() };
        Ok([Some(number), (!self.is_median).then_some(DataType::Float64)].into_iter().flatten().collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        !self.is_median
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![state_field(args.name)])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(Whole::new(At { share: self.share(&args)? })))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        Ok(Box::new(Groups::new(At { share: self.share(&args)? })))
    }
}

#[derive(Debug)]
struct At {
    /// Of values in ascending order.
    share: f64,
}

impl Kind for At {
    type Sketch = Quantiles;

    fn rows(&self, values: &ArrayRef, each: Each<'_, Quantiles>) -> Result<(), DataFusionError> {
        let mut insert = |row: usize, value: f64| each(row, &|sketch| sketch.insert(value));
        match values.data_type() {
            // As segments divide them.
            DataType::Decimal128(_, scale) => {
                let unit = 10f64.powi((*scale).into());
                let decimals = values.as_primitive::<Decimal128Type>().iter().enumerate();
                decimals.for_each(|(row, value)| {
                    if let Some(value) = value {
                        insert(row, value as f64 / unit);
                    }
                });
            }
            _ => {
                let floats = cast(values, &DataType::Float64)?;
                floats.as_primitive::<Float64Type>().iter().enumerate().for_each(|(row, value)| {
                    if let Some(value) = value {
                        insert(row, value);
                    }
                });
            }
        }
        Ok(())
    }

    fn answers(&self, sketches: &[Quantiles]) -> ArrayRef {
        Arc::new(sketches.iter().map(|sketch| sketch.at(self.share)).collect::<Float64Array>())
    }
}
