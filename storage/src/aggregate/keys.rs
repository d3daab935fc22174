//! From the values of a key column to small numbers and back: the *ids* of the key.
//!
//! | the segment gives | id | known ahead |
//! |---|---|---|
//! | dictionary ids | the id, or for a key rounded down the id of the rounded value | how many |
//! | integers inside bounds | distance to the least, in bins | how many |
//! | texts, decimals beyond 64 bits | a number for each new value | nothing |
//!
//! A null row has the id after the last one ahead (the first two), or 0 (the third).

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, StringViewArray, UInt32Array},
    compute::take,
};

use super::{
    block::{self, Block, Shape, Values},
    divide::Divisor,
    request::Bin,
    table::Table,
    values::{array_of_integers, array_of_wide},
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, lanes},
    forward::format::corrupt,
    schema::DataType,
};

/// The key of a row, in the form in which groups are found.
#[derive(Debug)]
pub(crate) struct Key {
    data_type: DataType,
    space: Space,
    bin: Option<Bin>,
    scratch: Vec<i64>,
}

#[derive(Debug)]
enum Space {
    Ids { values: ArrayRef, translated: Option<Vec<u32>> },
    Range { base: i64, span: u64, bin: Option<Divide> },
    Interned(Interner),
}

/// The bin at a distance from the first one.
#[derive(Clone, Copy, Debug)]
enum Divide {
    Fast(Divisor),
    /// Distances below a power of two that is 2^50 at most, of no more than 2^31 bins: many at once.
    Near {
        divisor: Divisor,
        inverse: f64,
        end: u64,
    },
    /// Distances of 2^63 and more.
    Slow(u64),
}

impl Divide {
    #[inline]
    fn bin(self, value: i64, base: i64) -> u64 {
        let distance = value.wrapping_sub(base) as u64;
        match self {
            // What lies outside the bounds (null rows, damage) gives some number.
            Self::Fast(divisor) | Self::Near { divisor, .. } => divisor.divide(distance & (u64::MAX >> 1)),
            Self::Slow(width) => distance / width,
        }
    }

    fn of(width: u64, span: u64) -> Self {
        // The last bin reaches beyond its first value.
        match span.checked_add(width).filter(|end| *end < 1 << 63) {
            None => Self::Slow(width),
            Some(end) => {
                let (divisor, end) = (Divisor::new(width), end.next_power_of_two());
                match end <= 1 << 50 && span / width < 1 << 31 {
                    true => Self::Near { divisor, inverse: 1.0 / width as f64, end },
                    false => Self::Fast(divisor),
                }
            }
        }
    }

    /// The bins of all values.
    fn bins(self, values: &[i64], base: i64, out: &mut Vec<u32>) {
        if let Self::Near { inverse, end, .. } = self {
            out.clear();
            out.resize(values.len(), 0);
            // What lies elsewhere (null rows, damage) must not be taken for a bin near by.
            if lanes::bins(values, base, inverse, out) < end {
                return;
            }
        }
        out.clear();
        out.extend(values.iter().map(|value| narrowed(self.bin(*value, base))));
    }
}

impl Key {
    pub(crate) fn new(data_type: &DataType, bin: Option<Bin>, shape: &Shape) -> Result<Self> {
        let space = match shape {
            Shape::Ids(values) => match bin {
                None => Space::Ids { values: Arc::clone(values), translated: None },
                Some(bin) => binned(data_type, values, bin)?,
            },
            Shape::Integers(bounds) => {
                let (min, max) = bounds.unwrap_or((0, 0));
                let floor = |value| match bin {
                    None => Some(value),
                    Some(bin) => bin.floor_of(data_type, value),
                };
                let (Some(base), Some(last)) = (floor(min), floor(max)) else {
                    return Err(out_of_range());
                };
                let span = last.wrapping_sub(base) as u64;
                match bin {
                    // Every integer is a bin of this width.
                    None | Some(Bin { width: 1, .. }) => Space::Range { base, span, bin: None },
                    Some(bin) => {
                        let width = bin.width as u64;
                        let divide = Divide::of(width, span);
                        Space::Range { base, span: span / width, bin: Some(divide) }
                    }
                }
            }
            Shape::Wide | Shape::Texts => Space::Interned(Interner::default()),
            Shape::Validity | Shape::Floats => return Err(Error::Invalid(format!("rows grouped by {data_type}"))),
        };
        Ok(Self { data_type: data_type.clone(), space, bin, scratch: Vec::new() })
    }

    /// How many ids there are, null's included; `None` when that is not known ahead, or too many to count.
    pub(crate) fn ids(&self) -> Option<u64> {
        match &self.space {
            Space::Ids { values, .. } => Some(values.len() as u64 + 1),
            Space::Range { span, .. } => span.checked_add(2),
            Space::Interned(_) => None,
        }
    }

    /// Bits of an id.
    pub(crate) fn bits(&self) -> u32 {
        self.ids().map_or(if matches!(self.space, Space::Interned(_)) { 32 } else { 65 }, |ids| {
            u64::BITS - (ids - 1).leading_zeros()
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.space {
            Space::Interned(interner) => interner.bytes,
            _ => 0,
        }
    }

    /// The ids of a window's rows, where there are less than 2^32 of them. The block's own ids may be taken.
    pub(crate) fn narrow(&mut self, block: &mut Block, out: &mut Vec<u32>) -> Result<()> {
        match (&mut self.space, &mut block.values) {
            (Space::Ids { values, translated }, Values::Ids(ids)) => {
                out.clear();
                match translated {
                    // A null row has the id after the last already.
                    None => out.extend_from_slice(ids),
                    Some(table) => {
                        let null = table.len();
                        let last = values.len() as u32;
                        out.extend(ids.iter().map(|id| table.get(*id as usize).copied().unwrap_or(last)));
                        debug_assert!(ids.iter().all(|id| *id as usize <= null));
                    }
                }
                if let Some(valid) = &block.valid {
                    nulls_to(valid, values.len() as u32, out);
                }
                // The column's reader has checked them.
                Ok(())
            }
            (Space::Range { base, span, bin }, Values::Integers(values)) => {
                let (base, null) = (*base, *span as u32 + 1);
                out.clear();
                match bin {
                    None => out.extend(values.iter().map(|value| narrowed(value.wrapping_sub(base) as u64))),
                    Some(bin) => {
                        let whole = constant_bin(values, block.valid.is_none(), base, *bin);
                        match whole {
                            Some(id) => out.resize(values.len(), narrowed(id)),
                            None => bin.bins(values, base, out),
                        }
                    }
                }
                if let Some(valid) = &block.valid {
                    nulls_to(valid, null, out);
                }
                check(out, *span + 1)
            }
            (Space::Interned(interner), values) => {
                out.clear();
                interner.numbers(values, block.valid.as_ref(), |number| out.push(number))
            }
            _ => Err(Error::Invalid("a key in another form than it was prepared for".into())),
        }
    }

    /// As [`Key::narrow`], whatever the number of ids is.
    pub(crate) fn wide(&mut self, block: &mut Block, out: &mut Vec<u128>) -> Result<()> {
        if self.bits() <= 32 {
            let mut narrow = Vec::new();
            self.narrow(block, &mut narrow)?;
            out.clear();
            out.extend(narrow.iter().map(|id| u128::from(*id)));
            return Ok(());
        }
        let (Space::Range { base, span, bin }, Values::Integers(values)) = (&self.space, &block.values) else {
            return Err(Error::Invalid("a key in another form than it was prepared for".into()));
        };
        out.clear();
        let distance = |value: &i64| value.wrapping_sub(*base) as u64;
        match bin {
            None => out.extend(values.iter().map(|value| u128::from(distance(value)))),
            Some(bin) => out.extend(values.iter().map(|value| u128::from(bin.bin(*value, *base)))),
        }
        if let Some(valid) = &block.valid {
            nulls_to(valid, u128::from(*span) + 1, out);
        }
        if let Some(id) = out.iter().find(|id| **id > u128::from(*span) + 1) {
            return Err(corrupt("values of a key", "inside the column's bounds", id));
        }
        Ok(())
    }

    /// The values of ids.
    pub(crate) fn values(&mut self, ids: &[u128]) -> Result<ArrayRef> {
        match &self.space {
            Space::Ids { values, .. } => {
                let null = values.len() as u128;
                let ids: UInt32Array = ids.iter().map(|id| (*id < null).then_some(*id as u32)).collect();
                Ok(take(values, &ids, None)?)
            }
            Space::Range { base, span, .. } => {
                let (base, null, width) = (*base, u128::from(*span) + 1, self.bin.map_or(1, |bin| bin.width));
                let value = |id: &u128| base.wrapping_add((*id as u64 as i64).wrapping_mul(width));
                self.scratch.clear();
                self.scratch.extend(ids.iter().map(value));
                array_of_integers(&self.data_type, &self.scratch, |row| ids[row] != null)
            }
            Space::Interned(interner) => interner.values(&self.data_type, ids),
        }
    }
}

impl Bin {
    /// `None` when the result leaves 64 bits.
    pub fn floor(&self, value: i64) -> Option<i64> {
        let (value, origin, width) = (i128::from(value), i128::from(self.origin), i128::from(self.width));
        i64::try_from(origin + (value - origin).div_euclid(width) * width).ok()
    }

    /// `None` when the result leaves the type.
    fn floor_of(&self, data_type: &DataType, value: i64) -> Option<i64> {
        self.floor(value).filter(|floor| *data_type != DataType::Date || i32::try_from(*floor).is_ok())
    }
}

/// So that what is damaged does not look sound: what does not fit becomes the largest id, which no key has.
#[inline]
fn narrowed(id: u64) -> u32 {
    id.min(u64::from(u32::MAX)) as u32
}

/// The one bin that all values lie in.
fn constant_bin(values: &[i64], none_is_null: bool, base: i64, bin: Divide) -> Option<u64> {
    if values.is_empty() || !none_is_null {
        return None;
    }
    let (min, max) = lanes::extremes(values);
    let first = bin.bin(min, base);
    (min >= base && first == bin.bin(max, base)).then_some(first)
}

fn nulls_to<T>(valid: &Bitmask, null: T, out: &mut [T])
where
    T: Copy,
{
    for (chunk, word) in out.chunks_mut(64).zip(valid.words()) {
        let mut left = !word;
        while left != 0 {
            match chunk.get_mut(left.trailing_zeros() as usize) {
                Some(id) => *id = null,
                None => break,
            }
            left &= left - 1;
        }
    }
}

/// No id lies above `last`.
fn check(ids: &[u32], last: u64) -> Result<()> {
    let largest = lanes::largest(ids);
    if u64::from(largest) > last {
        return Err(corrupt("values of a key", format!("ids up to {last}"), largest));
    }
    Ok(())
}

fn out_of_range() -> Error {
    Error::OutOfRange("a time rounded down is out of range".into())
}

/// Ids of values rounded down: found once per value of the dictionary.
fn binned(data_type: &DataType, values: &ArrayRef, bin: Bin) -> Result<Space> {
    let mut integers = Vec::new();
    block::integers(values, &mut integers)?;
    let (mut floors, mut translated): (Vec<i64>, Vec<u32>) = (Vec::new(), Vec::with_capacity(integers.len()));
    for value in integers {
        let floor = bin.floor_of(data_type, value).ok_or_else(out_of_range)?;
        // The dictionary ascends, and so do they.
        if floors.last() != Some(&floor) {
            floors.push(floor);
        }
        translated.push(floors.len() as u32 - 1);
    }
    Ok(Space::Ids { values: array_of_integers(data_type, &floors, |_| true)?, translated: Some(translated) })
}

/// Gives texts and wide decimals numbers, from 1 on; null is 0.
#[derive(Debug, Default)]
pub(super) struct Interner {
    /// Texts of up to 12 bytes by their Arrow view, which is all of them; longer ones by a number for the text; decimals as they are.
    keys: Table<u128>,
    long: std::collections::HashMap<Box<[u8]>, u32, foldhash::fast::FixedState>,
    /// By their number.
    long_texts: Vec<Box<[u8]>>,
    bytes: usize,
}

/// A view's length that no short text has.
const LONG: u128 = 13;

impl Interner {
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn numbers(
        &mut self,
        values: &Values,
        valid: Option<&Bitmask>,
        mut each: impl FnMut(u32),
    ) -> Result<()> {
        let is_valid = |row: usize| valid.is_none_or(|valid| valid.get(row));
        match values {
            Values::Wide(values) => {
                for (row, value) in values.iter().enumerate() {
                    each(if is_valid(row) { self.keys.number(*value as u128) + 1 } else { 0 });
                }
            }
            Values::Texts(array) => {
                let texts = array
                    .as_string_view_opt()
                    .ok_or_else(|| Error::Invalid(format!("texts of type {}", array.data_type())))?;
                for (row, view) in texts.views().iter().enumerate() {
                    if !is_valid(row) {
                        each(0);
                        continue;
                    }
                    let key = if *view as u32 <= 12 { *view } else { self.long(texts.value(row).as_bytes()) };
                    each(self.keys.number(key) + 1);
                }
            }
            _ => return Err(Error::Invalid("a key in another form than it was prepared for".into())),
        }
        self.bytes = self.keys.memory_bytes() + self.long_texts.iter().map(|text| text.len() + 64).sum::<usize>();
        Ok(())
    }

    fn long(&mut self, text: &[u8]) -> u128 {
        let number = match self.long.get(text) {
            Some(number) => *number,
            None => {
                let number = self.long_texts.len() as u32;
                self.long.insert(text.into(), number);
                self.long_texts.push(text.into());
                number
            }
        };
        u128::from(number) << 32 | LONG
    }

    pub(super) fn values(&self, data_type: &DataType, ids: &[u128]) -> Result<ArrayRef> {
        let key = |id: &u128| (*id as usize).checked_sub(1).map(|number| self.keys.keys()[number]);
        if let DataType::Numeric { .. } = data_type {
            let values: Vec<i128> = ids.iter().map(|id| key(id).unwrap_or(0) as i128).collect();
            return array_of_wide(data_type, &values, |row| ids[row] != 0);
        }
        let short: Vec<Option<[u8; 16]>> = ids.iter().map(|id| key(id).map(u128::to_le_bytes)).collect();
        let bytes: BinaryViewArray = short
            .iter()
            .map(|view| {
                let view = view.as_ref()?;
                let length = u32::from_le_bytes([view[0], view[1], view[2], view[3]]);
                if length <= 12 {
                    return Some(&view[4..4 + length as usize]);
                }
                let number = u32::from_le_bytes([view[4], view[5], view[6], view[7]]);
                Some(&*self.long_texts[number as usize])
            })
            .collect();
        let texts: StringViewArray = bytes.to_string_view()?;
        Ok(Arc::new(texts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// Many at once are what each is by itself, at the edges of bins and for values outside of the bounds as well.
        #[test]
        fn bins_are_those_of_division(
            base in -1_000_000_000_000_000i64..3_000_000_000_000_000,
            width in prop_oneof![2u64..5000, Just(60_000_000), Just(3_600_000_000), Just(86_400_000_000), 2u64..1 << 49],
            bits in 1u32..63,
            places in prop::collection::vec((any::<u64>(), -2i64..3), 1..200),
            stray in prop::option::weighted(0.2, any::<i64>()),
        ) {
            let span = u64::MAX >> (64 - bits);
            let divide = Divide::of(width, span / width * width);
            let edge = |(place, by): &(u64, i64)| {
                let distance = (place & span) / width * width;
                base.wrapping_add((distance as i64).saturating_add(*by).clamp(0, span as i64))
            };
            let within = places.iter().map(|(place, _)| base.wrapping_add((place & span) as i64));
            let values: Vec<i64> = places.iter().map(edge).chain(within).chain(stray).collect();
            let mut out = vec![7];
            divide.bins(&values, base, &mut out);
            let plain: Vec<u32> = values.iter().map(|v| narrowed(v.wrapping_sub(base) as u64 / width)).collect();
            for (value, (found, plain)) in values.iter().zip(out.iter().zip(&plain)) {
                let distance = value.wrapping_sub(base) as u64;
                // Beyond 2^63, which no bounds reach, it is some number.
                prop_assert!(found == plain || distance > i64::MAX as u64, "{divide:?} {distance} {found} {plain}");
            }
        }
    }
}
