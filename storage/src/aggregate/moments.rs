//! The mean of each group, and how far its values lie from it: what variances are made of.
//!
//! Welford's way, value by value; the values of a window that are all of one group are reckoned with at once and put together with what was
//! known (Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances"). A sum of squares minus the square
//! of a sum would lose all digits where values lie far from 0 and close together.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};

use super::{
    block::Values,
    states::{Groups, misfit},
};
use crate::{Result, schema::DataType};

/// Sums of so many values are kept side by side, so that one does not wait for the other.
const LANES: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moment {
    rows: f64,
    mean: f64,
    /// The sum of the squares of the differences from the mean.
    squares: f64,
}

#[derive(Debug)]
pub(crate) struct Moments {
    groups: Vec<Moment>,
    /// What an integer is to be divided by.
    unit: f64,
}

/// One number of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Mean,
    Squares,
}

impl Moment {
    #[inline]
    fn add(&mut self, value: f64) {
        self.rows += 1.0;
        let apart = value - self.mean;
        self.mean += apart / self.rows;
        self.squares += apart * (value - self.mean);
    }

    fn of(values: &[impl Number]) -> Self {
        let rows = values.len() as f64;
        let mean = sum(values, |value| value) / rows;
        Self { rows, mean, squares: sum(values, |value| (value - mean) * (value - mean)) }
    }

    fn merge(&mut self, other: Self) {
        if self.rows == 0.0 {
            *self = other;
            return;
        }
        let rows = self.rows + other.rows;
        let apart = other.mean - self.mean;
        self.mean += apart * (other.rows / rows);
        self.squares += other.squares + apart * apart * (self.rows * other.rows / rows);
        self.rows = rows;
    }
}

trait Number: Copy {
    fn float(self) -> f64;
}

impl Number for f64 {
    fn float(self) -> f64 {
        self
    }
}

impl Number for i64 {
    fn float(self) -> f64 {
        self as f64
    }
}

impl Number for i128 {
    fn float(self) -> f64 {
        self as f64
    }
}

fn sum(values: &[impl Number], of: impl Fn(f64) -> f64) -> f64 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += of(value.float());
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|value| of(value.float())).sum::<f64>()
}

impl Moments {
    pub(crate) fn new(data_type: &DataType) -> Self {
        let unit = if let DataType::Numeric { scale, .. } = data_type { 10f64.powi((*scale).into()) } else { 1.0 };
        Self { groups: Vec::new(), unit }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.groups.resize(groups, Moment::default());
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Moment>()
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        match values {
            Values::Integers(values) => self.add_all(groups, values),
            Values::Wide(values) => self.add_all(groups, values),
            Values::Floats(values) => self.add_all(groups, values),
            _ => return Err(misfit()),
        }
        Ok(())
    }

    fn add_all(&mut self, groups: Groups<'_>, values: &[impl Number]) {
        match groups {
            Groups::Same(_, _) if values.is_empty() => {}
            Groups::Same(group, _) => self.groups[group as usize].merge(Moment::of(values)),
            Groups::Each(groups) => {
                for (group, value) in groups.iter().zip(values) {
                    self.groups[*group as usize].add(value.float());
                }
            }
        }
    }

    /// Takes those of others, of the same groups.
    pub(crate) fn merge(&mut self, others: Self) {
        self.groups.iter_mut().zip(others.groups).for_each(|(moment, other)| {
            if other.rows > 0.0 {
                moment.merge(other);
            }
        });
    }

    pub(crate) fn column(&self, part: Part, groups: &[u32]) -> ArrayRef {
        let of = |group: &u32| {
            let moment = &self.groups[*group as usize];
            let number = match part {
                Part::Mean => moment.mean / self.unit,
                Part::Squares => moment.squares / self.unit / self.unit,
            };
            (moment.rows > 0.0).then_some(number)
        };
        Arc::new(groups.iter().map(of).collect::<Float64Array>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Far from 0 and close together, in windows of one group and of several: each digit that floats have is there.
        #[test]
        fn one_by_one_or_at_once(values in prop::collection::vec((0u32..3, -1000i64..1000), 1..300), far: bool, cut in 0usize..300) {
            let origin = if far { 1_000_000_000_000 } else { 0 };
            let groups: Vec<u32> = values.iter().map(|(group, _)| *group).collect();
            let numbers: Vec<i64> = values.iter().map(|(_, value)| origin + value).collect();
            let cut = cut.min(values.len());
            let mut found = Moments::new(&DataType::Numeric { precision: 18, scale: 1 });
            found.grow(3);
            found.add(Groups::Each(&groups[..cut]), &Values::Integers(numbers[..cut].to_vec())).unwrap();
            let mut other = Moments::new(&DataType::BigInt);
            other.grow(3);
            for group in 0..3u32 {
                let of = groups[cut..].iter().zip(&numbers[cut..]).filter(|(of, _)| **of == group);
                let of: Vec<f64> = of.map(|(_, number)| *number as f64).collect();
                other.add(Groups::Same(group, of.len()), &Values::Floats(of)).unwrap();
            }
            found.merge(other);
            for group in 0..3u32 {
                let of: Vec<i64> = values.iter().filter(|(of, _)| *of == group).map(|(_, value)| *value).collect();
                let (mean, squares) = (found.column(Part::Mean, &[group]), found.column(Part::Squares, &[group]));
                let one = |column: &ArrayRef| {
                    use arrow::array::AsArray;
                    column.as_primitive::<arrow::datatypes::Float64Type>().iter().next().unwrap()
                };
                let rows = of.len() as f64;
                // Of small integers both are exact.
                let total: i64 = of.iter().sum();
                let apart = of.iter().map(|value| value * value).sum::<i64>() as f64 - (total * total) as f64 / rows;
                match (one(&mean), one(&squares)) {
                    (None, None) => prop_assert!(of.is_empty()),
                    (Some(mean), Some(squares)) => {
                        let expected = (origin as f64 + total as f64 / rows) / 10.0;
                        prop_assert!((mean - expected).abs() <= expected.abs() * 1e-12 + 1e-9, "{} {}", mean, expected);
                        prop_assert!((squares * 100.0 - apart).abs() <= apart * 1e-4 + 1e-3, "{} {}", squares, apart / 100.0);
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}
