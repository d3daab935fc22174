//! Sums and averages of doubles as PostgreSQL has them where rows are taken off again (windows that slide), and averages that overflow.
//!
//! What is not finite cannot be taken off a sum, so it is counted apart. A sum that overflowed is made anew of the frame's values: a frame is asked for
//! after its new rows came and before the old ones went, so that an overflow may be of no frame at all.

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, UInt64Array},
    datatypes::{Float64Type, UInt64Type},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
};

use super::sum::Summed;
use crate::SqlError;

/// What a frame's sum becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Of {
    Sum,
    Average,
}

/// The values of a frame.
#[derive(Debug)]
pub(super) struct Frame {
    of: Of,
    values: VecDeque<f64>,
    /// Of those that are finite; not finite itself once it overflowed.
    sum: f64,
    finite: usize,
    nans: usize,
    above: usize,
    below: usize,
}

impl Frame {
    pub(super) const fn new(of: Of) -> Self {
        Self { of, values: VecDeque::new(), sum: 0.0, finite: 0, nans: 0, above: 0, below: 0 }
    }

    fn kind(&mut self, value: f64) -> &mut usize {
        match value {
            value if value.is_finite() => &mut self.finite,
            value if value.is_nan() => &mut self.nans,
            value if value > 0.0 => &mut self.above,
            _ => &mut self.below,
        }
    }

    fn sum(&mut self) -> Result<f64, SqlError> {
        if self.nans > 0 || (self.above > 0 && self.below > 0) {
            return Ok(f64::NAN);
        }
        if self.above + self.below > 0 {
            return Ok(if self.above > 0 { f64::INFINITY } else { f64::NEG_INFINITY });
        }
        if !self.sum.is_finite() {
            self.sum = self.values.iter().sum();
        }
        if self.sum.is_finite() { Ok(self.sum) } else { Err(Float64Type::overflow()) }
    }
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.values.push_back(value);
            *self.kind(value) += 1;
            if value.is_finite() {
                self.sum += value;
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.values.pop_front();
            *self.kind(value) -= 1;
            if value.is_finite() {
                self.sum = if self.finite == 0 { 0.0 } else { self.sum - value };
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        if self.values.is_empty() {
            return Ok(ScalarValue::Float64(None));
        }
        let sum = self.sum()?;
        let value = if self.of == Of::Sum { sum } else { sum / self.values.len() as f64 };
        Ok(ScalarValue::Float64(Some(value)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Err(DataFusionError::Internal("a frame has no state".to_owned()))
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<(), DataFusionError> {
        Err(DataFusionError::Internal("frames are not merged".to_owned()))
    }
}

/// Averages of groups. States are DataFusion's: how many values, and their sum.
#[derive(Debug, Default)]
pub(super) struct Averages {
    rows: Vec<u64>,
    sums: Vec<f64>,
}

impl Averages {
    fn add(&mut self, group: usize, rows: u64, sum: f64) -> Result<(), SqlError> {
        self.sums[group] = Float64Type::add(self.sums[group], sum).ok_or_else(Float64Type::overflow)?;
        self.rows[group] += rows;
        Ok(())
    }

    fn grow(&mut self, groups: usize) {
        self.rows.resize(groups, 0);
        self.sums.resize(groups, 0.0);
    }
}

impl GroupsAccumulator for Averages {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<(), DataFusionError> {
        self.grow(count);
        for (row, (group, value)) in groups.iter().zip(values[0].as_primitive::<Float64Type>()).enumerate() {
            let counts = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let (Some(value), true) = (value, counts) {
                self.add(*group, 1, value)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef, DataFusionError> {
        let (rows, sums) = (emit.take_needed(&mut self.rows), emit.take_needed(&mut self.sums));
        let averages = rows.iter().zip(sums).map(|(rows, sum)| (*rows > 0).then(|| sum / *rows as f64));
        Ok(Arc::new(averages.collect::<Float64Array>()))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        let (rows, sums) = (emit.take_needed(&mut self.rows), emit.take_needed(&mut self.sums));
        let sums = rows.iter().zip(sums).map(|(rows, sum)| (*rows > 0).then_some(sum)).collect::<Float64Array>();
        let rows = rows.into_iter().map(|rows| (rows > 0).then_some(rows)).collect::<UInt64Array>();
        Ok(vec![Arc::new(rows), Arc::new(sums)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<(), DataFusionError> {
        self.grow(count);
        let (rows, sums) = (states[0].as_primitive::<UInt64Type>(), states[1].as_primitive::<Float64Type>());
        for (group, (rows, sum)) in groups.iter().zip(rows.iter().zip(sums)) {
            if let (Some(rows), Some(sum)) = (rows, sum) {
                self.add(*group, rows, sum)?;
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let values = values[0].as_primitive::<Float64Type>();
        let counts = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let sums: Float64Array = values.iter().enumerate().map(|(row, value)| value.filter(|_| counts(row))).collect();
        let rows: UInt64Array = sums.iter().map(|sum| sum.map(|_| 1)).collect();
        Ok(vec![Arc::new(rows), Arc::new(sums)])
    }

    fn size(&self) -> usize {
        self.rows.capacity() * size_of::<u64>() + self.sums.capacity() * size_of::<f64>()
    }
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct Average(Averages);

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        self.0.grow(1);
        let (rows, sum) = (self.0.rows[0], self.0.sums[0]);
        Ok(ScalarValue::Float64((rows > 0).then(|| sum / rows as f64)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        self.0.grow(1);
        let (rows, sum) = (self.0.rows[0], self.0.sums[0]);
        Ok(vec![ScalarValue::UInt64(Some(rows)), ScalarValue::Float64((rows > 0).then_some(sum))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(values: &[f64]) -> [ArrayRef; 1] {
        [Arc::new(Float64Array::from(values.to_vec()))]
    }

    /// A sum that was infinite stayed so, or became NaN, for all frames to come.
    #[test]
    fn what_leaves_a_frame_is_forgotten() {
        let mut frame = Frame::new(Of::Sum);
        let mut value = |new: &[f64], old: &[f64]| {
            frame.update_batch(&batch(new)).unwrap();
            frame.retract_batch(&batch(old)).unwrap();
            frame.evaluate().ok()
        };
        let is = |value: f64| Some(ScalarValue::Float64(Some(value)));
        assert_eq!(value(&[f64::INFINITY, 1.0], &[]), is(f64::INFINITY));
        assert_eq!(value(&[2.0], &[f64::INFINITY]), is(3.0));
        assert_eq!(value(&[1e308, 0.0], &[1.0, 2.0]), is(1e308));
        // Both frames are fine; what was between them was not.
        assert_eq!(value(&[1e308], &[1e308]), is(1e308));
        assert_eq!(value(&[1.5e308], &[0.0]), None);
        assert_eq!(value(&[], &[1e308]), is(1.5e308));
        assert_eq!(
            value(&[f64::NEG_INFINITY, f64::INFINITY], &[]).map(|v| format!("{v:?}")),
            is(f64::NAN).map(|v| format!("{v:?}"))
        );
        assert_eq!(value(&[], &[1.5e308, f64::NEG_INFINITY, f64::INFINITY]), Some(ScalarValue::Float64(None)));
    }
}
