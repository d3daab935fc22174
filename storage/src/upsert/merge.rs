//! A column of new rows merged with what their keys had: one pass over the rows, in the order in which they follow each other, per column.
//!
//! ```text
//! stored  7 │ NULL        new  NULL │ 3 │ 5      row 0 after stored 0, row 1 after stored 1, row 2 after row 1
//! overwrite, of these rows the last of each key:  stored 0, new 2  ─► 7, 5         values are picked where they are, and copied once
//! ```
//!
//! Of the values only sums are new ones, and arrays, which are made of the items of others.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, ListArray, NullBufferBuilder, PrimitiveArray, UInt32Array},
    buffer::{NullBuffer, OffsetBuffer},
    compute::{concat, interleave, take},
    datatypes::{
        ArrowPrimitiveType, DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type,
        Int32Type, Int64Type, TimestampMicrosecondType,
    },
    row::{RowConverter, SortField},
};

use crate::{
    Error, Result,
    evaluate::{default_array, plain_floats},
    schema::{Column, Merge},
};

/// Most items of an array that grew by being merged: each new row of its key writes all of them again.
const ITEMS_MAX: usize = 10_000;
/// From so many items on a set tells which are there.
const SET_ITEMS: usize = 16;

/// What a row is merged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Its key is new, or was deleted: what it does not bring has the column's default.
    Nothing,
    /// This one of the rows that were there.
    Stored(usize),
    /// An earlier one of the new rows, as that was merged; at most one row is merged with each.
    Arriving(usize),
}

/// Whether values that were there are wanted, given those of the new rows.
pub(super) fn needs_stored(merge: Merge, new: &ArrayRef) -> bool {
    merge != Merge::Overwrite || new.null_count() > 0
}

/// The values of the rows `kept`, merged. `bases` has what each row of `new` is merged with; `stored`, in the column's type, is empty where
/// [`needs_stored`] says no.
pub(super) fn merged(
    column: &Column,
    stored: &ArrayRef,
    new: &ArrayRef,
    bases: &[Base],
    kept: &[u32],
) -> Result<ArrayRef> {
    let values = Values::new(column, stored, new)?;
    match column.merge {
        Merge::Overwrite if column.default.is_none() && new.null_count() == 0 => picked(new, kept),
        Merge::Overwrite => values.picked(bases, kept, |_, new| new),
        Merge::Ignore => values.picked(bases, kept, |known, _| known),
        Merge::Max => values.extreme(bases, kept, true),
        Merge::Min => values.extreme(bases, kept, false),
        Merge::Increment => values.sums(bases, kept),
        Merge::Append | Merge::Union => values.arrays(bases, kept, column.merge == Merge::Union),
    }
}

/// Some rows, which ascend.
pub(super) fn picked(array: &ArrayRef, rows: &[u32]) -> Result<ArrayRef> {
    if rows.len() == array.len() {
        return Ok(Arc::clone(array));
    }
    Ok(take(array, &UInt32Array::from(rows.to_vec()), None)?)
}

/// An array of [`Values`], and a place in it.
type Place = (usize, usize);

const STORED: usize = 0;
const NEW: usize = 1;
const DEFAULT: usize = 2;

struct Values {
    /// Those that were there, the new ones, and the column's default or NULL.
    arrays: [ArrayRef; 3],
    nulls: [Option<NullBuffer>; 3],
}

impl Values {
    fn new(column: &Column, stored: &ArrayRef, new: &ArrayRef) -> Result<Self> {
        let arrays = [Arc::clone(stored), Arc::clone(new), default_array(column, 1)?];
        let nulls = [0, 1, 2].map(|at: usize| arrays[at].nulls().cloned());
        Ok(Self { arrays, nulls })
    }

    fn is_null(&self, (array, at): Place) -> bool {
        self.nulls[array].as_ref().is_some_and(|nulls| nulls.is_null(at))
    }

    /// Where each row's value is before it is merged: of a row that is merged with nothing and brings nothing that is the default.
    fn own(&self, row: usize, base: Base) -> Place {
        if base == Base::Nothing && self.is_null((NEW, row)) { (DEFAULT, 0) } else { (NEW, row) }
    }

    /// Of the known value and the new one, neither of them NULL, the one that `choose` says.
    fn picked(&self, bases: &[Base], kept: &[u32], choose: impl Fn(Place, Place) -> Place) -> Result<ArrayRef> {
        let mut places: Vec<Place> = Vec::with_capacity(bases.len());
        for (row, base) in bases.iter().enumerate() {
            let own = self.own(row, *base);
            let known = match *base {
                Base::Nothing => None,
                Base::Stored(at) => Some((STORED, at)),
                Base::Arriving(before) => Some(places[before]),
            };
            places.push(match known.filter(|known| !self.is_null(*known)) {
                None => own,
                Some(known) if self.is_null(own) => known,
                Some(known) => choose(known, own),
            });
        }
        let places: Vec<Place> = kept.iter().map(|row| places[*row as usize]).collect();
        let arrays = [0, 1, 2].map(|at: usize| self.arrays[at].as_ref());
        Ok(interleave(&arrays, &places)?)
    }

    fn extreme(&self, bases: &[Base], kept: &[u32], greatest: bool) -> Result<ArrayRef> {
        // -0 and 0 are one, and NaN is above all others, as in comparisons of queries.
        let plain = [0, 1, 2].map(|at: usize| plain_floats(&self.arrays[at]));
        match plain[NEW].data_type() {
            ArrowType::Int16 => self.extreme_number::<Int16Type>(&plain, bases, kept, greatest),
            ArrowType::Int32 => self.extreme_number::<Int32Type>(&plain, bases, kept, greatest),
            ArrowType::Int64 => self.extreme_number::<Int64Type>(&plain, bases, kept, greatest),
            ArrowType::Float32 => self.extreme_number::<Float32Type>(&plain, bases, kept, greatest),
            ArrowType::Float64 => self.extreme_number::<Float64Type>(&plain, bases, kept, greatest),
            ArrowType::Decimal128(..) => self.extreme_number::<Decimal128Type>(&plain, bases, kept, greatest),
            ArrowType::Date32 => self.extreme_number::<Date32Type>(&plain, bases, kept, greatest),
            ArrowType::Timestamp(..) => self.extreme_number::<TimestampMicrosecondType>(&plain, bases, kept, greatest),
            ArrowType::Boolean => {
                let arrays = [0, 1, 2].map(|at: usize| plain[at].as_boolean());
                self.greater(bases, kept, greatest, |a, b| arrays[a.0].value(a.1) & !arrays[b.0].value(b.1))
            }
            ArrowType::Utf8View => {
                let arrays = [0, 1, 2].map(|at: usize| plain[at].as_string_view());
                self.greater(bases, kept, greatest, |a, b| arrays[a.0].value(a.1) > arrays[b.0].value(b.1))
            }
            ArrowType::BinaryView => {
                let arrays = [0, 1, 2].map(|at: usize| plain[at].as_binary_view());
                self.greater(bases, kept, greatest, |a, b| arrays[a.0].value(a.1) > arrays[b.0].value(b.1))
            }
            other => Err(no_rule("greatest or least", other)),
        }
    }

    fn extreme_number<T: ArrowPrimitiveType>(
        &self,
        plain: &[ArrayRef; 3],
        bases: &[Base],
        kept: &[u32],
        greatest: bool,
    ) -> Result<ArrayRef> {
        let values = [0, 1, 2].map(|at: usize| plain[at].as_primitive::<T>().values().as_ref());
        self.greater(bases, kept, greatest, |a, b| values[a.0][a.1].is_gt(values[b.0][b.1]))
    }

    /// The greatest values, or the least ones.
    fn greater(
        &self,
        bases: &[Base],
        kept: &[u32],
        greatest: bool,
        is_greater: impl Fn(Place, Place) -> bool,
    ) -> Result<ArrayRef> {
        match greatest {
            true => self.picked(bases, kept, |known, new| if is_greater(new, known) { new } else { known }),
            false => self.picked(bases, kept, |known, new| if is_greater(known, new) { new } else { known }),
        }
    }

    /// Sums stay at the limits of their type: rows that are in the table's log already cannot be refused.
    fn sums(&self, bases: &[Base], kept: &[u32]) -> Result<ArrayRef> {
        match self.arrays[NEW].data_type() {
            ArrowType::Int16 => self.sums_of::<Int16Type>(bases, kept, i16::saturating_add),
            ArrowType::Int32 => self.sums_of::<Int32Type>(bases, kept, i32::saturating_add),
            ArrowType::Int64 => self.sums_of::<Int64Type>(bases, kept, i64::saturating_add),
            ArrowType::Float32 => self.sums_of::<Float32Type>(bases, kept, |a, b| a + b),
            ArrowType::Float64 => self.sums_of::<Float64Type>(bases, kept, |a, b| a + b),
            ArrowType::Decimal128(precision, _) => {
                let limit = 10_i128.pow((*precision).into()) - 1;
                self.sums_of::<Decimal128Type>(bases, kept, |a, b| a.saturating_add(b).clamp(-limit, limit))
            }
            other => Err(no_rule("sums", other)),
        }
    }

    fn sums_of<T: ArrowPrimitiveType>(
        &self,
        bases: &[Base],
        kept: &[u32],
        add: impl Fn(T::Native, T::Native) -> T::Native,
    ) -> Result<ArrayRef> {
        let values = [0, 1, 2].map(|at: usize| self.arrays[at].as_primitive::<T>().values().as_ref());
        let value = |place: Place| (!self.is_null(place)).then(|| values[place.0][place.1]);
        let mut sums: Vec<Option<T::Native>> = Vec::with_capacity(bases.len());
        for (row, base) in bases.iter().enumerate() {
            let own = value(self.own(row, *base));
            let known = match *base {
                Base::Nothing => None,
                Base::Stored(at) => value((STORED, at)),
                Base::Arriving(before) => sums[before],
            };
            sums.push(match (known, own) {
                (Some(known), Some(own)) => Some(add(known, own)),
                (known, own) => known.or(own),
            });
        }
        let sums: PrimitiveArray<T> = kept.iter().map(|row| sums[*row as usize]).collect();
        Ok(Arc::new(sums.with_data_type(self.arrays[NEW].data_type().clone())))
    }

    fn arrays(&self, bases: &[Base], kept: &[u32], once: bool) -> Result<ArrayRef> {
        let (Some(stored), Some(new)) = (self.arrays[STORED].as_list_opt::<i32>(), self.arrays[NEW].as_list_opt())
        else {
            return Err(no_rule("items", self.arrays[NEW].data_type()));
        };
        let items = concat(&[stored.values().as_ref(), new.values().as_ref()])?;
        let first_new = stored.values().len();
        let alike = if once { Some(numbers(&items)?) } else { None };
        let of = |list: &ListArray, first: usize, row: usize| -> Option<std::ops::Range<u32>> {
            let offsets = list.value_offsets();
            let place = |at: usize| first as u32 + offsets[at].cast_unsigned();
            list.is_valid(row).then(|| place(row)..place(row + 1))
        };
        let mut lists: Vec<Option<List>> = Vec::with_capacity(bases.len());
        for (row, base) in bases.iter().enumerate() {
            let known = match *base {
                Base::Nothing => None,
                Base::Stored(at) => of(stored, 0, at).map(|items| List { items: items.collect(), ..List::default() }),
                Base::Arriving(before) => lists[before].take(),
            };
            let own = of(new, first_new, row);
            lists.push(match (known, own) {
                (known, None) => known,
                (None, Some(own)) => {
                    let mut list = List::default();
                    list.add(own, usize::MAX, alike.as_deref());
                    Some(list)
                }
                (Some(mut list), Some(own)) => {
                    list.add(own, ITEMS_MAX, alike.as_deref());
                    Some(list)
                }
            });
        }
        let (mut picked, mut lengths, mut nulls) =
            (Vec::new(), Vec::with_capacity(kept.len()), NullBufferBuilder::new(kept.len()));
        for row in kept {
            let list = lists[*row as usize].as_ref();
            let items = list.map_or(&[][..], |list| &list.items);
            picked.extend_from_slice(items);
            lengths.push(items.len());
            nulls.append(list.is_some());
        }
        if i32::try_from(picked.len()).is_err() {
            return Err(Error::Invalid(format!("arrays of {} items in all are too many for one batch", picked.len())));
        }
        let ArrowType::List(item) = new.data_type() else { return Err(no_rule("items", new.data_type())) };
        let values = take(&items, &UInt32Array::from(picked), None)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls.finish())?))
    }
}

/// An array that grows: places of its items.
#[derive(Default)]
struct List {
    items: Vec<u32>,
    /// The numbers of all of them, where these are many.
    known: Option<HashSet<u32, foldhash::fast::FixedState>>,
}

impl List {
    /// Adds items until there are `most`. With `alike`, which has a number for each item that there is, not those that it has.
    fn add(&mut self, more: std::ops::Range<u32>, most: usize, alike: Option<&[u32]>) {
        for item in more {
            if self.items.len() >= most {
                return;
            }
            if alike.is_none_or(|alike| self.is_new(item, alike)) {
                self.items.push(item);
            }
        }
    }

    fn is_new(&mut self, item: u32, alike: &[u32]) -> bool {
        let number = |item: &u32| alike[*item as usize];
        if self.known.is_none() && self.items.len() >= SET_ITEMS {
            self.known = Some(self.items.iter().map(number).collect());
        }
        match &mut self.known {
            Some(known) => known.insert(number(&item)),
            None => !self.items.iter().any(|known| number(known) == number(&item)),
        }
    }
}

/// A number for each value, the same for those that are alike; NULL has one as well.
fn numbers(values: &ArrayRef) -> Result<Vec<u32>> {
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
    let rows = converter.convert_columns(&[plain_floats(values)])?;
    let mut known: std::collections::HashMap<&[u8], u32, foldhash::fast::FixedState> = Default::default();
    let mut numbers = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let next = known.len() as u32;
        numbers.push(*known.entry(rows.row(row).data()).or_insert(next));
    }
    Ok(numbers)
}

fn no_rule(what: &str, data_type: &ArrowType) -> Error {
    Error::Invalid(format!("values of type {data_type} have no {what}"))
}
