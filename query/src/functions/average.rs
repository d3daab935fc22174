//! `avg` as PostgreSQL has it: of whole and exact numbers it is numeric, rounded half away from zero (DataFusion's cuts).
//!
//! The sums are DataFusion's: its `avg` is asked for one digit more than the result has, and that digit is rounded away.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray},
    datatypes::{DataType, Decimal128Type, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    functions_aggregate::average::Avg,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    scalar::ScalarValue,
};

use super::float_frames::{self, Averages, Frame, Of};
use crate::{SqlError, rules::types};

/// Digits after the point that whole numbers are summed with: those that the segments' sums are made for.
const SUM_SCALE: i8 = 12;
/// Digits after the point that an average has at least.
const SCALE: i8 = 16;

pub(crate) fn udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Average {
        inner: Avg::new(),
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    inner: Avg,
    signature: Signature,
}

/// What a numeric average is rounded to, from the inner one's digit more.
fn numeric(result: &DataType) -> Option<(u8, i8)> {
    match result {
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// The result's type with one digit more.
fn longer(field: &FieldRef) -> FieldRef {
    match numeric(field.data_type()) {
        Some((precision, scale)) => {
            let finer = DataType::Decimal128(precision, (scale + 1).min(38));
            Arc::new(Field::new(field.name(), finer, true))
        }
        None => Arc::clone(field),
    }
}

/// Whether doubles are averaged, each as often as it comes.
fn is_float(args: &AccumulatorArgs<'_>) -> bool {
    !args.is_distinct && *args.return_type() == DataType::Float64
}

fn round(value: i128) -> i128 {
    // Halves away from zero; what was cut off before cannot turn this digit.
    (value + 5 * value.signum()) / 10
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        let [argument] = arguments else {
            return Err(SqlError::new("42883", "function avg takes one argument").into());
        };
        Ok(vec![match argument {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
                DataType::Decimal128(22, SUM_SCALE)
            }
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => DataType::Decimal128(32, SUM_SCALE),
            DataType::Decimal128(precision, scale) if *scale < SUM_SCALE => {
                let precision = (i16::from(*precision) + i16::from(SUM_SCALE - scale)).min(38) as u8;
                DataType::Decimal128(precision, SUM_SCALE)
            }
            DataType::Decimal128(..) | DataType::Duration(_) => argument.clone(),
            DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null => DataType::Float64,
            other => {
                let name = types::name(&Field::new("", other.clone(), true));
                return Err(SqlError::new("42883", format!("function avg({name}) does not exist"))
                    .with_hint("No function matches the given name and argument types. You might need to add explicit type casts.")
                    .into());
            }
        }])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        match arguments {
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(38, SCALE.max(*scale))),
            _ => self.inner.return_type(arguments),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        if is_float(&args) {
            return Ok(Box::new(float_frames::Average::default()));
        }
        let target = numeric(args.return_type());
        let inner = self.inner.accumulator(AccumulatorArgs { return_field: longer(&args.return_field), ..args })?;
        Ok(match target {
            Some((precision, scale)) => Box::new(Rounded { inner, precision, scale }),
            None => inner,
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        if is_float(&args) { Ok(Box::new(Frame::new(Of::Average))) } else { self.accumulator(args) }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        if is_float(&args) {
            return Ok(Box::new(Averages::default()));
        }
        let target = numeric(args.return_type());
        let longer = longer(&args.return_field);
        let inner = self.inner.create_groups_accumulator(AccumulatorArgs { return_field: longer, ..args })?;
        Ok(match target {
            Some((precision, scale)) => Box::new(Rounded { inner, precision, scale }),
            None => inner,
        })
    }
}

/// An average whose last digit is rounded away when it is told.
struct Rounded<A: ?Sized> {
    precision: u8,
    scale: i8,
    inner: Box<A>,
}

impl<A: ?Sized> fmt::Debug for Rounded<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounded").field("scale", &self.scale).finish_non_exhaustive()
    }
}

impl Accumulator for Rounded<dyn Accumulator> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        match self.inner.evaluate()? {
            ScalarValue::Decimal128(value, ..) => {
                Ok(ScalarValue::Decimal128(value.map(round), self.precision, self.scale))
            }
            other => Ok(other),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

impl GroupsAccumulator for Rounded<dyn GroupsAccumulator> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef, DataFusionError> {
        let exact = self.inner.evaluate(emit_to)?;
        let rounded = exact.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(round);
        Ok(Arc::new(rounded.with_precision_and_scale(self.precision, self.scale)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.inner.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<(), DataFusionError> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        self.inner.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn halves_go_away_from_zero() {
        for (value, wanted) in [(14, 1), (15, 2), (-14, -1), (-15, -2), (0, 0), (-4, 0), (5, 1)] {
            assert_eq!(round(value), wanted, "{value}");
        }
    }
}
