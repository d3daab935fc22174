//! The longest and the shortest interval: `greatest`, `least`, and `min`, `max` over windows. DataFusion compares intervals field by field, PostgreSQL by
//! how long they are.

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray},
    compute::cast,
    datatypes::{DataType, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType},
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ScalarUDF, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};

use super::{
    interval::length,
    simple::{Call, Returns, Simple},
};
use crate::rules::types;

/// `greatest` of intervals, or `least`. Of equally long ones the first; NULLs count only where there is nothing else.
pub(crate) fn variadic(is_greatest: bool) -> Arc<ScalarUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    let (name, body): (_, fn(&Call<'_>) -> _) = match is_greatest {
        true => ("tidemill_greatest_interval", |call| among(call, true)),
        false => ("tidemill_least_interval", |call| among(call, false)),
    };
    Simple::udf(name, signature, Returns::Type(types::interval()), body)
}

fn among(call: &Call<'_>, is_greatest: bool) -> Result<ArrayRef, DataFusionError> {
    let columns = (0..call.arrays.len()).map(|index| call.cast(index, &types::interval()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let rows = (0..call.rows).map(|row| {
        let values = columns.iter().map(|column| column.as_primitive::<IntervalMonthDayNanoType>());
        let values = values.filter(|column| column.is_valid(row)).map(|column| column.value(row));
        values.reduce(|kept, next| if exceeds(next, kept, is_greatest) { next } else { kept })
    });
    Ok(Arc::new(rows.collect::<IntervalMonthDayNanoArray>()))
}

fn exceeds(next: IntervalMonthDayNano, kept: IntervalMonthDayNano, is_greatest: bool) -> bool {
    if is_greatest { length(next) > length(kept) } else { length(next) < length(kept) }
}

/// `max` of intervals, or `min`, for windows: frames may slide.
pub(crate) fn aggregate(is_max: bool) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Extreme { is_max, signature: Signature::any(1, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    is_max: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        if self.is_max { "tidemill_max_interval" } else { "tidemill_min_interval" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(types::interval())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(Frame { is_max: self.is_max, slides: false, entered: 0, left: 0, leaders: VecDeque::new() }))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>, DataFusionError> {
        Ok(Box::new(Frame { is_max: self.is_max, slides: true, entered: 0, left: 0, leaders: VecDeque::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>, DataFusionError> {
        Ok(vec![Arc::new(args.return_field.as_ref().clone().with_name(args.name).with_nullable(true))])
    }
}

/// The intervals of a frame that may still become the extreme one: each exceeds those that entered after it.
#[derive(Debug)]
struct Frame {
    is_max: bool,
    slides: bool,
    /// Intervals that came in, and that went out again in the same order.
    entered: u64,
    left: u64,
    leaders: VecDeque<(u64, IntervalMonthDayNano)>,
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        let values = cast(&values[0], &types::interval())?;
        for value in values.as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            if !self.slides && self.leaders.front().is_some_and(|(_, kept)| !exceeds(value, *kept, self.is_max)) {
                continue;
            }
            while self.leaders.back().is_some_and(|(_, kept)| !exceeds(*kept, value, self.is_max)) {
                self.leaders.pop_back();
            }
            self.leaders.push_back((self.entered, value));
            self.entered += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.left += (values[0].len() - values[0].null_count()) as u64;
        while self.leaders.front().is_some_and(|(at, _)| *at < self.left) {
            self.leaders.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.slides
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        Ok(ScalarValue::IntervalMonthDayNano(self.leaders.front().map(|(_, value)| *value)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.leaders.capacity() * size_of::<(u64, IntervalMonthDayNano)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.update_batch(states)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(days: Option<i32>) -> Option<IntervalMonthDayNano> {
        // As many days in two forms.
        days.map(|days| IntervalMonthDayNano { months: days / 30, days: days % 30, nanoseconds: 0 })
    }

    proptest! {
        #[test]
        fn sliding_frames_are_those_made_anew(
            days in prop::collection::vec(prop::option::weighted(0.9, 0i32..100), 1..60), width in 1usize..10, is_max: bool,
        ) {
            let values: ArrayRef =
                Arc::new(days.iter().map(|days| interval(*days)).collect::<IntervalMonthDayNanoArray>());
            let mut frame = Frame { is_max, slides: true, entered: 0, left: 0, leaders: VecDeque::new() };
            for end in 0..days.len() {
                frame.update_batch(&[values.slice(end, 1)]).unwrap();
                if end >= width {
                    frame.retract_batch(&[values.slice(end - width, 1)]).unwrap();
                }
                let within = days[(end + 1).saturating_sub(width)..=end].iter().flatten();
                let wanted = if is_max { within.max() } else { within.min() };
                let ScalarValue::IntervalMonthDayNano(found) = frame.evaluate().unwrap() else { panic!() };
                prop_assert_eq!(found.map(length), interval(wanted.copied()).map(length));
            }
        }
    }
}
