//! What is known of each group of one input column: counts, sums, extremes.
//!
//! All loops are over plain slices: the group of each row, and its value. Where all rows of a window are of one group, it is known once and
//! the values are taken as a whole.

use std::{cmp::Ordering, collections::HashSet};

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};

use super::{
    block::Values,
    ends::{End, Ends},
    moments::{Moments, Part},
    sets::Sets,
    sketches::{DistinctValues, Merged, Spreads},
    values::{array_of_floats, array_of_integers, array_of_wide, decimals},
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, lanes},
    ids::ColumnId,
    scalar::compare_floats,
    schema::DataType,
    sketch::{Distinct, Quantiles},
};

/// The groups of the rows of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Groups<'a> {
    /// All rows are of this one.
    Same(u32, usize),
    Each(&'a [u32]),
}

impl<'a> Groups<'a> {
    pub(crate) fn of(groups: &'a [u32]) -> Self {
        let Some(first) = groups.first() else { return Self::Each(groups) };
        // Where groups alternate that shows soon.
        let same = |groups: &[u32]| groups.iter().fold(true, |same, group| same & (group == first));
        if groups.chunks(256).all(same) { Self::Same(*first, groups.len()) } else { Self::Each(groups) }
    }
}

/// Up to this many groups a counter has several copies, so that rows of one group next to each other do not wait for each other.
const COPIED_GROUPS_MAX: usize = 512;
const COPIES: usize = 4;

/// Rows of each group.
#[derive(Debug)]
pub(crate) struct Counts {
    counts: Vec<u64>,
    /// `COPIES` for each group, or none.
    copies: Vec<u64>,
}

impl Counts {
    pub(crate) fn new(groups: usize) -> Self {
        let copied = if groups <= COPIED_GROUPS_MAX { groups } else { 0 };
        Self { counts: vec![0; groups], copies: vec![0; copied * COPIES] }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        (self.counts.capacity() + self.copies.capacity()) * size_of::<u64>()
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>) {
        match groups {
            Groups::Same(group, rows) => self.counts[group as usize] += rows as u64,
            Groups::Each(groups) if self.copies.len() == self.counts.len() * COPIES => {
                let (copies, rest) = groups.as_chunks::<COPIES>();
                let counts = &mut self.copies[..];
                for [a, b, c, d] in copies {
                    bump(counts, *a as usize * COPIES);
                    bump(counts, *b as usize * COPIES + 1);
                    bump(counts, *c as usize * COPIES + 2);
                    bump(counts, *d as usize * COPIES + 3);
                }
                rest.iter().for_each(|group| bump(&mut self.counts, *group as usize));
            }
            Groups::Each(groups) => groups.iter().for_each(|group| bump(&mut self.counts, *group as usize)),
        }
    }

    /// Takes those of others, of the same groups.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.settle();
        self.counts.iter_mut().zip(other.settle()).for_each(|(count, other)| *count += other);
    }

    /// The counts, all copies together.
    pub(crate) fn settle(&mut self) -> &[u64] {
        for (count, copies) in self.counts.iter_mut().zip(self.copies.chunks_mut(COPIES)) {
            *count += copies.iter().sum::<u64>();
            copies.fill(0);
        }
        &self.counts
    }
}

#[inline]
fn bump(counts: &mut [u64], at: usize) {
    counts[at] = counts[at].wrapping_add(1);
}

/// Exact sums of integers: 64 bits while they cannot overflow, then moved to 128.
#[derive(Debug)]
pub(crate) struct IntegerSums {
    low: Vec<i64>,
    high: Vec<i128>,
    /// No `low` is farther from 0 than this.
    reach: u128,
    /// No value is farther from 0 than this.
    farthest: u64,
}

impl IntegerSums {
    fn new(bounds: Option<(i64, i64)>) -> Self {
        let farthest = bounds.map_or(u64::MAX, |(least, greatest)| least.unsigned_abs().max(greatest.unsigned_abs()));
        Self { low: Vec::new(), high: Vec::new(), reach: 0, farthest }
    }

    /// Whether so many of the values may be added to `low`, which has room for them then.
    fn is_low(&mut self, values: &[i64]) -> bool {
        let count = values.len() as u128;
        let mut reach = u128::from(self.farthest) * count;
        if reach >= 1 << 56 {
            // Bounds that are too wide, or none: what these values are says more.
            reach = reach.min((u128::from(lanes::reach(values)) + 1) * count);
        }
        if reach >= 1 << 62 {
            return false;
        }
        if self.reach + reach >= 1 << 63 {
            self.settle();
        }
        self.reach += reach;
        true
    }

    /// Takes the values of one group that `rows` holds.
    pub(crate) fn add_among(&mut self, group: u32, values: &[i64], rows: &Bitmask) {
        let group = group as usize;
        if self.is_low(values) {
            self.low[group] = self.low[group].wrapping_add(lanes::sum_among(values, rows.words()));
        } else {
            self.high[group] += rows.iter().map(|row| i128::from(values[row])).sum::<i128>();
        }
    }

    fn add(&mut self, groups: Groups<'_>, values: &[i64]) {
        if !self.is_low(values) {
            match groups {
                Groups::Same(group, _) => {
                    self.high[group as usize] += values.iter().map(|value| i128::from(*value)).sum::<i128>();
                }
                Groups::Each(groups) => {
                    groups.iter().zip(values).for_each(|(group, value)| {
                        let sum = &mut self.high[*group as usize];
                        *sum = sum.wrapping_add(i128::from(*value));
                    });
                }
            }
            return;
        }
        match groups {
            Groups::Same(group, _) => {
                self.low[group as usize] = self.low[group as usize].wrapping_add(lanes::sum(values));
            }
            Groups::Each(groups) => {
                let sums = &mut self.low[..];
                for (group, value) in groups.iter().zip(values) {
                    let sum = &mut sums[*group as usize];
                    *sum = sum.wrapping_add(*value);
                }
            }
        }
    }

    fn settle(&mut self) {
        if self.reach == 0 {
            return;
        }
        for (high, low) in self.high.iter_mut().zip(&mut self.low) {
            // A segment's rows times 64 bits stay far below 128.
            *high += i128::from(std::mem::take(low));
        }
        self.reach = 0;
    }
}

/// Sums of floats. An infinite one of nothing but finite values is an overflow.
#[derive(Debug, Default)]
pub(crate) struct FloatSums {
    sums: Vec<f64>,
    /// Groups with an infinite value, as few as they are.
    infinite: HashSet<u32>,
}

impl FloatSums {
    fn add(&mut self, groups: Groups<'_>, values: &[f64]) {
        if values.iter().fold(false, |any, value| any | value.is_infinite()) {
            let Self { infinite, .. } = self;
            each(groups, values.len(), |group, row| {
                if values[row].is_infinite() {
                    infinite.insert(group as u32);
                }
            });
        }
        // In the order of the rows, as one would by hand: a sum of floats depends on it.
        match groups {
            Groups::Same(group, _) => {
                let sum = &mut self.sums[group as usize];
                *sum = values.iter().fold(*sum, |sum, value| sum + value);
            }
            Groups::Each(groups) => {
                let sums = &mut self.sums[..];
                groups.iter().zip(values).for_each(|(group, value)| sums[*group as usize] += value);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, other)| *sum += other);
        self.infinite.extend(other.infinite);
    }

    /// The sums of these groups.
    fn of(&self, groups: &[u32]) -> Result<Vec<f64>> {
        let sum = |group: &u32| {
            let sum = self.sums[*group as usize];
            match sum.is_infinite() && !self.infinite.contains(group) {
                true => Err(Error::OutOfRange("value out of range: overflow".into())),
                false => Ok(sum),
            }
        };
        groups.iter().map(sum).collect()
    }
}

/// A kind of aggregate over one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Sum,
    Min,
    Max,
    Distinct,
    Quantiles,
    /// Of sketches.
    DistinctOf,
    QuantilesOf,
    Moments,
    Set,
    /// Of the rows that are first or last by the input column, this one's values.
    End(End, ColumnId),
}

impl Operation {
    /// Whether it reckons with the numbers that ids stand for.
    pub(crate) fn is_of_numbers(self) -> bool {
        matches!(self, Self::Sum | Self::Quantiles | Self::Moments)
    }
}

/// What a state is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// In the form that they come in.
    pub(crate) values: &'a Values,
    pub(crate) data_type: &'a DataType,
    /// The values of ids.
    pub(crate) dictionary: Option<&'a ArrayRef>,
    /// Of the integers that come, where they are known.
    pub(crate) bounds: Option<(i64, i64)>,
}

#[derive(Debug)]
pub(crate) enum State {
    IntegerSums(IntegerSums),
    WideSums(Vec<i128>),
    FloatSums(FloatSums),
    /// Of ids, integers, decimals, floats. What a group without values has means nothing.
    Ids(Vec<u32>, Extreme),
    Integers(Vec<i64>, Extreme),
    Wide(Vec<i128>, Extreme),
    Floats(Vec<Option<f64>>, Extreme),
    Texts(Vec<Option<Box<str>>>, Extreme),
    Distinct(DistinctValues),
    Quantiles(Spreads),
    DistinctOf(Merged<Distinct>),
    QuantilesOf(Merged<Quantiles>),
    Moments(Moments),
    Set(Sets),
    Ends(Ends),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extreme {
    Least,
    Greatest,
}

impl Extreme {
    fn replaces(self, order: Ordering) -> bool {
        order == if self == Self::Least { Ordering::Less } else { Ordering::Greater }
    }
}

impl State {
    /// For values of the form that the subject's have.
    pub(crate) fn new(operation: Operation, subject: &Subject<'_>, groups: usize) -> Result<Self> {
        let values = subject.values;
        let extreme = if operation == Operation::Min { Extreme::Least } else { Extreme::Greatest };
        let mut state = match (operation, values) {
            (Operation::Sum, Values::Integers(_)) => Self::IntegerSums(IntegerSums::new(subject.bounds)),
            (Operation::Sum, Values::Wide(_)) => Self::WideSums(Vec::new()),
            (Operation::Sum, Values::Floats(_)) => Self::FloatSums(FloatSums::default()),
            (Operation::Min | Operation::Max, Values::Ids(_)) => Self::Ids(Vec::new(), extreme),
            (Operation::Min | Operation::Max, Values::Integers(_)) => Self::Integers(Vec::new(), extreme),
            (Operation::Min | Operation::Max, Values::Wide(_)) => Self::Wide(Vec::new(), extreme),
            (Operation::Min | Operation::Max, Values::Floats(_)) => Self::Floats(Vec::new(), extreme),
            (Operation::Min | Operation::Max, Values::None | Values::Texts(_)) => Self::Texts(Vec::new(), extreme),
            (Operation::Distinct, _) => Self::Distinct(DistinctValues::new(subject)),
            (Operation::Quantiles, _) => Self::Quantiles(Spreads::new(subject.data_type)),
            (Operation::DistinctOf, _) => Self::DistinctOf(Merged::new(subject)),
            (Operation::QuantilesOf, _) => Self::QuantilesOf(Merged::new(subject)),
            (Operation::Moments, Values::Integers(_) | Values::Wide(_) | Values::Floats(_)) => {
                Self::Moments(Moments::new(subject.data_type))
            }
            (Operation::Set, _) => Self::Set(Sets::new(subject)?),
            (Operation::End(end, _), _) => Self::Ends(Ends::new(end, values)),
            (operation, _) => return Err(Error::Invalid(format!("{operation:?} of values that have none"))),
        };
        state.grow(groups);
        Ok(state)
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        fn worst<T>(extreme: Extreme, least: T, greatest: T) -> T {
            if extreme == Extreme::Least { greatest } else { least }
        }
        match self {
            Self::IntegerSums(sums) => {
                sums.low.resize(groups, 0);
                sums.high.resize(groups, 0);
            }
            Self::WideSums(sums) => sums.resize(groups, 0),
            Self::FloatSums(sums) => sums.sums.resize(groups, 0.0),
            Self::Ids(best, extreme) => best.resize(groups, worst(*extreme, 0, u32::MAX)),
            Self::Integers(best, extreme) => best.resize(groups, worst(*extreme, i64::MIN, i64::MAX)),
            Self::Wide(best, extreme) => best.resize(groups, worst(*extreme, i128::MIN, i128::MAX)),
            Self::Floats(best, _) => best.resize(groups, None),
            Self::Texts(best, _) => best.resize(groups, None),
            Self::Distinct(values) => values.grow(groups),
            Self::Quantiles(spreads) => spreads.grow(groups),
            Self::DistinctOf(merged) => merged.grow(groups),
            Self::QuantilesOf(merged) => merged.grow(groups),
            Self::Moments(moments) => moments.grow(groups),
            Self::Set(sets) => sets.grow(groups),
            Self::Ends(ends) => ends.grow(groups),
        }
    }

    pub(crate) fn is_of_numbers(&self) -> bool {
        matches!(
            self,
            Self::IntegerSums(_) | Self::WideSums(_) | Self::FloatSums(_) | Self::Quantiles(_) | Self::Moments(_)
        )
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::IntegerSums(sums) => sums.low.capacity() * (size_of::<i64>() + size_of::<i128>()),
            Self::WideSums(best) | Self::Wide(best, _) => best.capacity() * size_of::<i128>(),
            Self::FloatSums(sums) => {
                sums.sums.capacity() * size_of::<f64>() + sums.infinite.capacity() * size_of::<u64>()
            }
            Self::Ids(best, _) => best.capacity() * size_of::<u32>(),
            Self::Integers(best, _) => best.capacity() * size_of::<i64>(),
            Self::Floats(best, _) => best.capacity() * size_of::<Option<f64>>(),
            Self::Texts(best, _) => {
                best.capacity() * size_of::<Option<Box<str>>>()
                    + best.iter().flatten().map(|text| text.len()).sum::<usize>()
            }
            Self::Distinct(values) => values.memory_bytes(),
            Self::Quantiles(spreads) => spreads.memory_bytes(),
            Self::DistinctOf(merged) => merged.memory_bytes(),
            Self::QuantilesOf(merged) => merged.memory_bytes(),
            Self::Moments(moments) => moments.memory_bytes(),
            Self::Set(sets) => sets.memory_bytes(),
            Self::Ends(ends) => ends.memory_bytes(),
        }
    }

    /// Takes the values of a window's rows, none of them null. Those of [`Operation::End`] are taken by [`Ends::add`].
    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        match (self, values) {
            (Self::IntegerSums(sums), Values::Integers(values)) => sums.add(groups, values),
            (Self::WideSums(sums), Values::Wide(values)) => {
                let add = |sum: &mut i128, value: i128| -> Result<()> {
                    *sum = sum.checked_add(value).ok_or_else(overflow)?;
                    Ok(())
                };
                match groups {
                    Groups::Same(group, _) => {
                        values.iter().try_for_each(|value| add(&mut sums[group as usize], *value))?
                    }
                    Groups::Each(groups) => {
                        groups
                            .iter()
                            .zip(values)
                            .try_for_each(|(group, value)| add(&mut sums[*group as usize], *value))?;
                    }
                }
            }
            (Self::FloatSums(sums), Values::Floats(values)) => sums.add(groups, values),
            (Self::Ids(best, extreme), Values::Ids(values)) => extremes(best, *extreme, groups, values),
            (Self::Integers(best, extreme), Values::Integers(values)) => extremes(best, *extreme, groups, values),
            (Self::Wide(best, extreme), Values::Wide(values)) => extremes(best, *extreme, groups, values),
            (Self::Floats(best, extreme), Values::Floats(values)) => {
                each(groups, values.len(), |group, row| {
                    let (best, value) = (&mut best[group], values[row]);
                    if best.is_none_or(|best| extreme.replaces(compare_floats(value, best))) {
                        *best = Some(value);
                    }
                });
            }
            (Self::Texts(best, extreme), Values::Texts(values)) => {
                let texts = values
                    .as_string_view_opt()
                    .ok_or_else(|| Error::Invalid(format!("texts of type {}", values.data_type())))?;
                each(groups, texts.len(), |group, row| {
                    let (best, value) = (&mut best[group], texts.value(row));
                    if best.as_ref().is_none_or(|best| extreme.replaces(value.cmp(best))) {
                        *best = Some(value.into());
                    }
                });
            }
            (Self::Distinct(state), values) => state.add(groups, values)?,
            (Self::Quantiles(state), values) => state.add(groups, values)?,
            (Self::DistinctOf(state), values) => state.add(groups, values)?,
            (Self::QuantilesOf(state), values) => state.add(groups, values)?,
            (Self::Moments(state), values) => state.add(groups, values)?,
            (Self::Set(state), values) => state.add(groups, values)?,
            _ => return Err(misfit()),
        }
        Ok(())
    }

    /// Takes the states of others, of the same groups in the same form.
    pub(crate) fn merge(&mut self, other: Self) -> Result<()> {
        fn fold<T: Copy + Ord>(best: &mut [T], others: &[T], extreme: Extreme) {
            let pick = |best: T, other: T| if extreme == Extreme::Least { best.min(other) } else { best.max(other) };
            best.iter_mut().zip(others).for_each(|(best, other)| *best = pick(*best, *other));
        }
        match (self, other) {
            (Self::IntegerSums(sums), Self::IntegerSums(mut others)) => {
                sums.settle();
                others.settle();
                sums.high.iter_mut().zip(others.high).for_each(|(sum, other)| *sum += other);
            }
            (Self::WideSums(sums), Self::WideSums(others)) => {
                for (sum, other) in sums.iter_mut().zip(others) {
                    *sum = sum.checked_add(other).ok_or_else(overflow)?;
                }
            }
            (Self::FloatSums(sums), Self::FloatSums(others)) => sums.merge(others),
            (Self::Moments(moments), Self::Moments(others)) => moments.merge(others),
            (Self::Integers(best, extreme), Self::Integers(others, _)) => fold(best, &others, *extreme),
            (Self::Wide(best, extreme), Self::Wide(others, _)) => fold(best, &others, *extreme),
            (Self::Floats(best, extreme), Self::Floats(others, _)) => {
                for (best, other) in best.iter_mut().zip(others) {
                    if let Some(other) = other
                        && best.is_none_or(|best| extreme.replaces(compare_floats(other, best)))
                    {
                        *best = Some(other);
                    }
                }
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }

    /// The state column of these groups (`part` of it where it has several); `has_value` says by place in `groups` which have one. `dictionary` has the values of ids.
    pub(crate) fn column(
        &mut self,
        data_type: &DataType,
        dictionary: Option<&ArrayRef>,
        groups: &[u32],
        part: Part,
        has_value: impl Fn(usize) -> bool,
    ) -> Result<ArrayRef> {
        fn of<T: Copy>(all: &[T], groups: &[u32]) -> Vec<T> {
            groups.iter().map(|group| all[*group as usize]).collect()
        }
        let scale = if let DataType::Numeric { scale, .. } = data_type { *scale } else { 0 };
        Ok(match self {
            Self::IntegerSums(sums) => {
                sums.settle();
                sum_column(&of(&sums.high, groups), scale, has_value)?
            }
            Self::WideSums(sums) => sum_column(&of(sums, groups), scale, has_value)?,
            Self::FloatSums(sums) => array_of_floats(&DataType::Double, &sums.of(groups)?, has_value)?,
            Self::Ids(best, _) => {
                let ids: arrow::array::UInt32Array =
                    groups.iter().enumerate().map(|(at, group)| has_value(at).then(|| best[*group as usize])).collect();
                let values = dictionary.ok_or_else(|| Error::Invalid("ids without their dictionary".into()))?;
                arrow::compute::take(values, &ids, None)?
            }
            Self::Integers(best, _) => {
                array_of_integers(data_type, &masked(&of(best, groups), &has_value), &has_value)?
            }
            Self::Wide(best, _) => array_of_wide(data_type, &masked(&of(best, groups), &has_value), &has_value)?,
            Self::Floats(best, _) => {
                let best: Vec<f64> = groups.iter().map(|group| best[*group as usize].unwrap_or_default()).collect();
                array_of_floats(data_type, &best, has_value)?
            }
            Self::Texts(best, _) => std::sync::Arc::new(
                groups.iter().map(|group| best[*group as usize].as_deref()).collect::<StringViewArray>(),
            ),
            Self::Distinct(values) => values.column(groups, has_value),
            Self::Quantiles(spreads) => spreads.column(groups, has_value),
            Self::DistinctOf(merged) => merged.column(groups, has_value),
            Self::QuantilesOf(merged) => merged.column(groups, has_value),
            Self::Moments(moments) => moments.column(part, groups),
            Self::Set(sets) => sets.column(data_type, dictionary, groups)?,
            Self::Ends(ends) => ends.column(data_type, dictionary, groups)?,
        })
    }
}

/// Null places get a plain 0.
fn masked<T: Copy + Default>(values: &[T], has_value: impl Fn(usize) -> bool) -> Vec<T> {
    values.iter().enumerate().map(|(at, value)| if has_value(at) { *value } else { T::default() }).collect()
}

fn sum_column(sums: &[i128], scale: i8, has_value: impl Fn(usize) -> bool) -> Result<ArrayRef> {
    const LARGEST: u128 = 10u128.pow(super::SUM_PRECISION as u32) - 1;
    if sums.iter().any(|sum| sum.unsigned_abs() > LARGEST) {
        return Err(overflow());
    }
    decimals(sums, super::SUM_PRECISION, scale, has_value)
}

fn overflow() -> Error {
    Error::OutOfRange("a sum of numbers has more than 38 digits".into())
}

pub(super) fn misfit() -> Error {
    Error::Invalid("values in another form than they were prepared for".into())
}

pub(super) fn each(groups: Groups<'_>, rows: usize, mut act: impl FnMut(usize, usize)) {
    match groups {
        Groups::Same(group, _) => (0..rows).for_each(|row| act(group as usize, row)),
        Groups::Each(groups) => groups.iter().enumerate().for_each(|(row, group)| act(*group as usize, row)),
    }
}

fn extremes<T: Copy + Ord>(best: &mut [T], extreme: Extreme, groups: Groups<'_>, values: &[T]) {
    fn fold<T: Copy + Ord>(best: &mut [T], groups: Groups<'_>, values: &[T], pick: impl Fn(T, T) -> T) {
        match groups {
            Groups::Same(group, _) => {
                let best = &mut best[group as usize];
                *best = values.iter().fold(*best, |best, value| pick(best, *value));
            }
            Groups::Each(groups) => {
                for (group, value) in groups.iter().zip(values) {
                    let best = &mut best[*group as usize];
                    *best = pick(*best, *value);
                }
            }
        }
    }
    match extreme {
        Extreme::Least => fold(best, groups, values, |a, b| a.min(b)),
        Extreme::Greatest => fold(best, groups, values, |a, b| a.max(b)),
    }
}
