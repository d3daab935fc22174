//! `sum` of numerics and doubles that fails where PostgreSQL's fails: DataFusion's wraps numerics and gives infinities. Of other types the sum is DataFusion's.
//!
//! A state is a sum as well, so that it may have more digits than a result has, or be as infinite as what was summed.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray},
    compute::nullif,
    datatypes::{DataType, Decimal128Type, FieldRef, Float64Type},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Operator, ReversedUDAF,
        SetMonotonicity, Signature, StatisticsArgs,
        expr::AggregateFunction,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

use super::float_frames::{Frame, Of};
use crate::SqlError;

pub(crate) fn udaf() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Sum { known: sum_udaf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    /// DataFusion's.
    known: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        self.known.name()
    }

    fn signature(&self) -> &Signature {
        self.known.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType, DataFusionError> {
        self.known.inner().return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        self.known.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        let result = args.return_field.data_type().clone();
        match (&result, args.is_distinct) {
            (DataType::Decimal128(..), true) => Ok(Box::new(Distinct { inner: self.known.accumulator(args)?, result })),
            (DataType::Decimal128(..), false) => Ok(Box::new(One::<Decimal128Type>::new(result, Start::Anew))),
            (DataType::Float64, false) => Ok(Box::new(One::<Float64Type>::new(result, Start::Anew))),
            _ => self.known.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        match (args.return_field.data_type(), args.is_distinct) {
            (result @ DataType::Decimal128(..), false) => {
                Ok(Box::new(One::<Decimal128Type>::new(result.clone(), Start::Sliding)))
            }
            (DataType::Float64, false) => Ok(Box::new(Frame::new(Of::Sum))),
            _ => self.known.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.known.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        let result = args.return_field.data_type().clone();
        match result {
            DataType::Decimal128(..) => Ok(Box::new(Groups::<Decimal128Type>::new(result))),
            DataType::Float64 => Ok(Box::new(Groups::<Float64Type>::new(result))),
            _ => self.known.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.known.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.known.inner().set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        call: &AggregateFunction,
        argument: &Expr,
        op: Operator,
        literal: &Expr,
        argument_is_left: bool,
    ) -> Result<Option<Expr>, DataFusionError> {
        self.known.inner().simplify_expr_op_literal(call, argument, op, literal, argument_is_left)
    }

    fn value_from_stats(&self, args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        match args.return_type {
            DataType::Decimal128(..) | DataType::Float64 => None,
            _ => self.known.value_from_stats(args),
        }
    }
}

/// What sums are made of. A sum is exact or `None`.
pub(super) trait Summed: ArrowPrimitiveType + Debug + Sized {
    /// Of one accumulator, wide enough for sums whose parts pass all bounds and that come back.
    type Wide: Copy + Default + Debug + Send + Sync;

    fn add(sum: Self::Native, next: Self::Native) -> Option<Self::Native>;

    fn add_all(sum: Self::Wide, values: &PrimitiveArray<Self>) -> Option<Self::Wide>;

    fn take_all(sum: Self::Wide, values: &PrimitiveArray<Self>) -> Self::Wide;

    fn state(sum: Self::Wide) -> Option<Self::Native>;

    /// Whether a result may be `sum`.
    fn is_result(sum: Self::Native) -> bool;

    fn overflow() -> SqlError;
}

/// Digits that a numeric has.
const NUMERIC_END: u128 = 10u128.pow(38);

impl Summed for Decimal128Type {
    /// The sum modulo 2^128, and how often it went round.
    type Wide = (i128, i64);

    fn add(sum: i128, next: i128) -> Option<i128> {
        sum.checked_add(next)
    }

    fn add_all(sum: Self::Wide, values: &PrimitiveArray<Self>) -> Option<Self::Wide> {
        let add = |(low, high): Self::Wide, value: i128| match low.overflowing_add(value) {
            (low, false) => (low, high),
            (low, true) => (low, high + if value < 0 { -1 } else { 1 }),
        };
        Some(match values.null_count() {
            0 => values.values().iter().copied().fold(sum, add),
            _ => values.iter().flatten().fold(sum, add),
        })
    }

    fn take_all(sum: Self::Wide, values: &PrimitiveArray<Self>) -> Self::Wide {
        values.iter().flatten().fold(sum, |(low, high), value| match low.overflowing_sub(value) {
            (low, false) => (low, high),
            (low, true) => (low, high + if value < 0 { 1 } else { -1 }),
        })
    }

    fn state((low, high): Self::Wide) -> Option<i128> {
        (high == 0).then_some(low)
    }

    fn is_result(sum: i128) -> bool {
        sum.unsigned_abs() < NUMERIC_END
    }

    fn overflow() -> SqlError {
        SqlError::new("22003", "numeric field overflow")
    }
}

impl Summed for Float64Type {
    type Wide = f64;

    fn add(sum: f64, next: f64) -> Option<f64> {
        let added = sum + next;
        // An infinity that was not there before is an overflow.
        (!added.is_infinite() || sum.is_infinite() || next.is_infinite()).then_some(added)
    }

    fn add_all(sum: f64, values: &PrimitiveArray<Self>) -> Option<f64> {
        let added = arrow::compute::sum(values).map_or(sum, |part| sum + part);
        let overflows =
            added.is_infinite() && sum.is_finite() && !values.iter().flatten().any(|value| value.is_infinite());
        (!overflows).then_some(added)
    }

    fn take_all(sum: f64, values: &PrimitiveArray<Self>) -> f64 {
        values.iter().flatten().fold(sum, |sum, value| sum - value)
    }

    fn state(sum: f64) -> Option<f64> {
        Some(sum)
    }

    fn is_result(_: f64) -> bool {
        true
    }

    fn overflow() -> SqlError {
        SqlError::new("22003", "value out of range: overflow")
    }
}

/// How the rows of one accumulator come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    Anew,
    /// Rows are taken off again.
    Sliding,
}

/// All rows as one group.
#[derive(Debug)]
struct One<T: Summed> {
    sum: T::Wide,
    rows: u64,
    start: Start,
    result: DataType,
}

impl<T: Summed> One<T> {
    fn new(result: DataType, start: Start) -> Self {
        Self { sum: T::Wide::default(), rows: 0, start, result }
    }

    fn value(&self) -> Result<Option<T::Native>, DataFusionError> {
        match self.rows {
            0 => Ok(None),
            _ => Ok(Some(T::state(self.sum).ok_or_else(T::overflow)?)),
        }
    }
}

impl<T: Summed> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let values = values[0].as_primitive::<T>();
        self.rows += (values.len() - values.null_count()) as u64;
        self.sum = T::add_all(self.sum, values).ok_or_else(T::overflow)?;
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let sum = self.value()?;
        if sum.is_some_and(|sum| !T::is_result(sum)) {
            return Err(T::overflow().into());
        }
        ScalarValue::new_primitive::<T>(sum, &self.result)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![ScalarValue::new_primitive::<T>(self.value()?, &self.result)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let values = values[0].as_primitive::<T>();
        self.rows -= (values.len() - values.null_count()) as u64;
        self.sum = T::take_all(self.sum, values);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.start == Start::Sliding
    }
}

/// Of numerics that differ: DataFusion's set of them, summed here.
#[derive(Debug)]
struct Distinct {
    inner: Box<dyn Accumulator>,
    result: DataType,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        let mut sum = One::<Decimal128Type>::new(self.result.clone(), Start::Anew);
        for state in self.inner.state()? {
            if let ScalarValue::List(values) = state {
                sum.update_batch(&[Arc::clone(values.values())])?;
            }
        }
        sum.evaluate()
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
}

#[derive(Debug)]
struct Groups<T: Summed> {
    sums: Vec<T::Native>,
    /// Whether a group has a value.
    seen: Vec<bool>,
    result: DataType,
}

impl<T: Summed> Groups<T> {
    const fn new(result: DataType) -> Self {
        Self { sums: Vec::new(), seen: Vec::new(), result }
    }

    fn add(&mut self, group: usize, value: T::Native) -> Result<(), SqlError> {
        let sum = &mut self.sums[group];
        *sum = T::add(*sum, value).ok_or_else(T::overflow)?;
        self.seen[group] = true;
        Ok(())
    }

    fn take(&mut self, emit: EmitTo) -> ArrayRef {
        let seen = emit.take_needed(&mut self.seen);
        let sums = emit.take_needed(&mut self.sums);
        let sums = PrimitiveArray::<T>::new(sums.into(), Some(seen.into()));
        Arc::new(sums.with_data_type(self.result.clone()))
    }
}

impl<T: Summed> GroupsAccumulator for Groups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.sums.resize(count, T::default_value());
        self.seen.resize(count, false);
        let values = values[0].as_primitive::<T>();
        if values.null_count() == 0 && filter.is_none() {
            for (group, value) in groups.iter().zip(values.values()) {
                self.add(*group, *value)?;
            }
            return Ok(());
        }
        for (row, (group, value)) in groups.iter().zip(values).enumerate() {
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let (Some(value), true) = (value, counts) {
                self.add(*group, value)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        let sums = self.take(emit);
        match sums.as_primitive::<T>().iter().flatten().all(T::is_result) {
            true => Ok(sums),
            false => Err(T::overflow().into()),
        }
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        Ok(vec![self.take(emit)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<(), DataFusionError> {
        self.update_batch(states, groups, None, count)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let values = values[0].as_primitive::<T>().clone().with_data_type(self.result.clone());
        let Some(filter) = filter else { return Ok(vec![Arc::new(values)]) };
        let passed_over: BooleanArray = filter.iter().map(|counts| Some(counts != Some(true))).collect();
        Ok(vec![nullif(&values, &passed_over)?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array};

    use super::*;

    fn one(values: &[i128]) -> One<Decimal128Type> {
        let mut sum = One::<Decimal128Type>::new(DataType::Decimal128(38, 0), Start::Sliding);
        let values: ArrayRef = Arc::new(Decimal128Array::from(values.to_vec()));
        sum.update_batch(&[values]).unwrap();
        sum
    }

    #[test]
    fn a_sum_may_pass_all_bounds_and_come_back() {
        let most = NUMERIC_END as i128 - 1;
        assert_eq!(one(&[most, most, -most]).evaluate().unwrap(), ScalarValue::Decimal128(Some(most), 38, 0));
        for passed in [vec![most, 1], vec![most; 4], vec![-most; 4], vec![most; 1000]] {
            assert!(one(&passed).evaluate().is_err(), "{passed:?}");
        }
        // Rows that left the frame leave nothing behind.
        let mut sliding = one(&[most, most, most, 7]);
        let left: ArrayRef = Arc::new(Decimal128Array::from(vec![most; 3]));
        sliding.retract_batch(&[left]).unwrap();
        assert_eq!(sliding.evaluate().unwrap(), ScalarValue::Decimal128(Some(7), 38, 0));
    }

    #[test]
    fn infinities_come_from_infinities_only() {
        let sum = |values: &[f64]| {
            let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
            let mut all = One::<Float64Type>::new(DataType::Float64, Start::Anew);
            let mut groups = Groups::<Float64Type>::new(DataType::Float64);
            let grouped = groups.update_batch(&[Arc::clone(&values)], &vec![0; values.len()], None, 1);
            let whole = all.update_batch(&[values]).and_then(|()| all.evaluate());
            assert_eq!(whole.is_ok(), grouped.is_ok());
            whole
        };
        assert!(sum(&[f64::MAX, f64::MAX]).is_err());
        assert_eq!(sum(&[f64::MAX, f64::INFINITY]).unwrap(), ScalarValue::Float64(Some(f64::INFINITY)));
        assert_eq!(sum(&[1.5, 2.0]).unwrap(), ScalarValue::Float64(Some(3.5)));
    }
}
