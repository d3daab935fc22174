//! `min` and `max` of REAL and DOUBLE PRECISION: NaN is above all other numbers, and infinities are numbers. DataFusion 55 keeps whatever was there when a NaN is met in
//! groups, and begins at the largest finite number. Of other types the two are DataFusion's.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray},
    datatypes::{DataType, FieldRef, Float32Type, Float64Type},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    functions_aggregate::min_max::{max_udaf, min_udaf},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature, StatisticsArgs,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

use crate::rules::types::is_float;

pub(crate) fn udafs() -> [Arc<AggregateUDF>; 2] {
    [(min_udaf(), false), (max_udaf(), true)]
        .map(|(known, is_max)| Arc::new(AggregateUDF::new_from_impl(Extreme { known, is_max })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    /// DataFusion's of the same name.
    known: Arc<AggregateUDF>,
    is_max: bool,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.known.name()
    }

    fn signature(&self) -> &Signature {
        self.known.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        self.known.inner().return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>, DataFusionError> {
        self.known.coerce_types(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        self.known.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        match args.return_field.data_type() {
            DataType::Float32 => Ok(Box::new(One(Groups::<Float32Type>::new(self.is_max)))),
            DataType::Float64 => Ok(Box::new(One(Groups::<Float64Type>::new(self.is_max)))),
            _ => self.known.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        self.known.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        is_float(args.return_field.data_type()) || self.known.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        match args.return_field.data_type() {
            DataType::Float32 => Ok(Box::new(Groups::<Float32Type>::new(self.is_max))),
            DataType::Float64 => Ok(Box::new(Groups::<Float64Type>::new(self.is_max))),
            _ => self.known.create_groups_accumulator(args),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.known.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.known.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.known.value_from_stats(args)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.known.inner().set_monotonicity(data_type)
    }
}

fn exceeds(next: f64, kept: f64, is_max: bool) -> bool {
    let (low, high) = if is_max { (kept, next) } else { (next, kept) };
    !low.is_nan() && (high.is_nan() || low < high)
}

/// The extreme number of each group; `None` where there is none yet.
#[derive(Debug)]
struct Groups<T: ArrowPrimitiveType> {
    is_max: bool,
    kept: Vec<Option<T::Native>>,
}

impl<T: ArrowPrimitiveType<Native: Into<f64>>> Groups<T> {
    const fn new(is_max: bool) -> Self {
        Self { is_max, kept: Vec::new() }
    }

    fn offer(&mut self, group: usize, next: T::Native) {
        let kept = &mut self.kept[group];
        if kept.is_none_or(|kept| exceeds(next.into(), kept.into(), self.is_max)) {
            *kept = Some(next);
        }
    }
}

impl<T: ArrowPrimitiveType<Native: Into<f64>> + Debug> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.kept.resize(count, None);
        for (row, (group, value)) in groups.iter().zip(values[0].as_primitive::<T>()).enumerate() {
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let (Some(value), true) = (value, counts) {
                self.offer(*group, value);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        Ok(Arc::new(emit.take_needed(&mut self.kept).into_iter().collect::<PrimitiveArray<T>>()))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<(), DataFusionError> {
        self.update_batch(states, groups, None, count)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let Some(filter) = filter else { return Ok(vec![Arc::clone(&values[0])]) };
        let counts: BooleanArray = filter.iter().map(|counts| Some(counts != Some(true))).collect();
        Ok(vec![arrow::compute::nullif(&values[0], &counts)?])
    }

    fn size(&self) -> usize {
        self.kept.capacity() * size_of::<Option<T::Native>>()
    }
}

/// All rows as one group.
#[derive(Debug)]
struct One<T: ArrowPrimitiveType>(Groups<T>);

impl<T: ArrowPrimitiveType<Native: Into<f64>> + Debug> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.0.kept.resize(1, None);
        for value in values[0].as_primitive::<T>().iter().flatten() {
            self.0.offer(0, value);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let kept: PrimitiveArray<T> = [self.0.kept.first().copied().flatten()].into_iter().collect();
        ScalarValue::try_from_array(&kept, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.update_batch(states)
    }
}
