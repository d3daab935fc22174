//! The values of one column at the selected rows of a window: what segments hand to the engine.

use std::ops::Range;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};

use crate::{
    Error, Result,
    bitpack::{self, Bitmask, compact::Lane},
    forward::ColumnReader,
};

/// In which form a segment gives a column, the same for all its windows.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Only which rows are null: all that counting needs.
    Validity,
    /// Ids of these values: distinct, ascending, not null, of the column's current type.
    Ids(ArrayRef),
    /// Booleans (0, 1), integers, dates, timestamps, decimals of 64 bits. All values lie inside the bounds; `None` when all are null.
    Integers(Option<(i64, i64)>),
    /// Decimals.
    Wide,
    Floats,
    /// Texts and bytes.
    Texts,
}

/// Values in one of the forms; those of null rows mean nothing.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    None,
    Ids(Vec<u32>),
    Integers(Vec<i64>),
    Wide(Vec<i128>),
    Floats(Vec<f64>),
    Texts(ArrayRef),
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) values: Values,
    /// One bit per row, set where it is not null; `None`: no row is null.
    pub(crate) valid: Option<Bitmask>,
}

impl Block {
    pub(crate) fn new(shape: &Shape) -> Self {
        let values = match shape {
            Shape::Validity | Shape::Texts => Values::None,
            Shape::Ids(_) => Values::Ids(Vec::new()),
            Shape::Integers(_) => Values::Integers(Vec::new()),
            Shape::Wide => Values::Wide(Vec::new()),
            Shape::Floats => Values::Floats(Vec::new()),
        };
        Self { values, valid: None }
    }

    /// Takes the rows of an array, whose type has values of the block's form.
    pub(crate) fn fill(&mut self, array: &ArrayRef, shape: &Shape) -> Result<()> {
        self.valid = validity(array);
        match (&mut self.values, shape) {
            (_, Shape::Validity) => {}
            (values, Shape::Texts) => *values = Values::Texts(ArrayRef::clone(array)),
            (Values::Integers(out), _) => integers(array, out)?,
            (Values::Wide(out), _) => {
                out.clear();
                match array.data_type() {
                    ArrowType::Decimal128(..) => out.extend_from_slice(array.as_primitive::<Decimal128Type>().values()),
                    other => return Err(misfit(other)),
                }
            }
            (Values::Floats(out), _) => floats(array, out)?,
            _ => return Err(misfit(array.data_type())),
        }
        Ok(())
    }
}

impl Block {
    /// Takes the rows of a window that `selection` holds (`None`: all) from an encoded column that is kept in the block's form.
    pub(crate) fn fill_encoded(
        &mut self,
        reader: &ColumnReader,
        rows: Range<u32>,
        selection: Option<&Bitmask>,
    ) -> Result<()> {
        match &mut self.values {
            Values::Ids(out) => reader.fill_ids(rows, selection, out),
            Values::Integers(out) => reader.fill_integers(rows, selection, out),
            Values::Floats(out) => reader.fill_floats(rows, selection, out),
            _ => Err(Error::Invalid("encoded values in another form than they were prepared for".into())),
        }
    }
}

fn misfit(found: &ArrowType) -> Error {
    Error::Invalid(format!("an array of {found} does not have the values that an aggregation was prepared for"))
}

/// Which rows of the array are not null; `None`: all.
pub(crate) fn validity(array: &ArrayRef) -> Option<Bitmask> {
    match array.data_type() {
        ArrowType::Null => Some(Bitmask::none(array.len())),
        _ => array
            .nulls()
            .filter(|nulls| nulls.null_count() > 0)
            .map(|nulls| Bitmask::from_boolean_buffer(nulls.inner())),
    }
}

/// The integers that stand for the values of an array; those of a decimal beyond 64 bits are cut.
pub(crate) fn integers(array: &ArrayRef, out: &mut Vec<i64>) -> Result<()> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef, out: &mut Vec<i64>, of: impl Fn(T::Native) -> i64) {
        out.extend(array.as_primitive::<T>().values().iter().map(|value| of(*value)));
    }
    out.clear();
    match array.data_type() {
        ArrowType::Boolean => out.extend(array.as_boolean().values().iter().map(i64::from)),
        ArrowType::Int16 => of::<Int16Type>(array, out, i64::from),
        ArrowType::Int32 => of::<Int32Type>(array, out, i64::from),
        ArrowType::Int64 => of::<Int64Type>(array, out, |value| value),
        ArrowType::Date32 => of::<Date32Type>(array, out, i64::from),
        ArrowType::Timestamp(..) => of::<TimestampMicrosecondType>(array, out, |value| value),
        ArrowType::Decimal128(..) => of::<Decimal128Type>(array, out, |value| value as i64),
        other => return Err(misfit(other)),
    }
    Ok(())
}

pub(crate) fn floats(array: &ArrayRef, out: &mut Vec<f64>) -> Result<()> {
    out.clear();
    match array.data_type() {
        ArrowType::Float32 => {
            out.extend(array.as_primitive::<Float32Type>().values().iter().map(|value| f64::from(*value)));
        }
        ArrowType::Float64 => out.extend_from_slice(array.as_primitive::<Float64Type>().values()),
        other => return Err(misfit(other)),
    }
    Ok(())
}

/// The bits of `bits` at the rows that `selection` holds, one behind the other. Both are of the same rows.
pub(crate) fn picked(bits: &Bitmask, selection: &Bitmask) -> Bitmask {
    let mut out = Bitmask::none(selection.count());
    let (words, mut place, mut word) = (out.words_mut(), 0usize, 0u64);
    for (bits, selected) in bits.words().iter().zip(selection.words()) {
        let mut left = *selected;
        while left != 0 {
            word |= (bits >> left.trailing_zeros() & 1) << (place % 64);
            left &= left - 1;
            place += 1;
            if place.is_multiple_of(64) {
                words[place / 64 - 1] = word;
                word = 0;
            }
        }
    }
    if !place.is_multiple_of(64) {
        words[place / 64] = word;
    }
    out
}

/// The values at the rows whose bit is set, one behind the other.
pub(crate) fn compact<T: Lane>(values: &[T], rows: &Bitmask, out: &mut Vec<T>) {
    out.clear();
    bitpack::compact::compact(values, rows.words(), out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_and_values_are_picked(rows in prop::collection::vec(any::<(bool, bool)>(), 0..2400), full: bool) {
            let (mut bits, mut selection) = (Bitmask::none(rows.len()), Bitmask::none(rows.len()));
            for (row, (bit, selected)) in rows.iter().enumerate() {
                if *bit { bits.set(row) }
                if *selected || (full && row < 200) { selection.set(row) }
            }
            let picks: Vec<usize> = selection.iter().collect();
            let found = picked(&bits, &selection);
            prop_assert_eq!(found.len(), picks.len());
            prop_assert!(picks.iter().enumerate().all(|(at, row)| found.get(at) == bits.get(*row)));
            let values: Vec<u32> = (0..rows.len() as u32).collect();
            let mut out = vec![9];
            compact(&values, &selection, &mut out);
            prop_assert_eq!(out, picks.iter().map(|row| *row as u32).collect::<Vec<_>>());
        }
    }
}
