//! Statistics of one column of one segment, taken while it is encoded.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, GenericByteViewArray, StringViewArray},
    datatypes::{
        ArrowPrimitiveType, ByteViewType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
        Int64Type, TimestampMicrosecondType,
    },
};

use crate::{
    scalar::{Scalar, compare_floats},
    schema::DataType,
    segment::ColumnStats,
};

/// Longer texts are cut to this many bytes in statistics.
const TEXT_BYTES_MAX: usize = 64;

/// What is known about the values of consecutive chunks, all of the Arrow form of `data_type`. `distinct` is left open.
pub(crate) fn column_stats(data_type: &DataType, chunks: &[ArrayRef]) -> ColumnStats {
    let nulls = chunks.iter().map(|chunk| chunk.null_count() as u64).sum();
    let mut stats = ColumnStats { nulls, exact: true, ..ColumnStats::default() };
    match data_type {
        DataType::Boolean => {
            let values = chunks.iter().flat_map(|chunk| chunk.as_boolean().iter().flatten());
            set(&mut stats, extremes(values, bool::cmp), Scalar::Boolean);
        }
        DataType::SmallInt => ints::<Int16Type>(&mut stats, chunks),
        DataType::Int => ints::<Int32Type>(&mut stats, chunks),
        DataType::BigInt => ints::<Int64Type>(&mut stats, chunks),
        DataType::Date => ints::<Date32Type>(&mut stats, chunks),
        DataType::Timestamp | DataType::TimestampTz => ints::<TimestampMicrosecondType>(&mut stats, chunks),
        DataType::Real => {
            let found = extremes(primitives::<Float32Type>(chunks).map(f64::from), |a, b| compare_floats(*a, *b));
            set(&mut stats, found, Scalar::Float);
        }
        DataType::Double => {
            let found = extremes(primitives::<Float64Type>(chunks), |a, b| compare_floats(*a, *b));
            set(&mut stats, found, Scalar::Float);
        }
        DataType::Numeric { .. } => {
            set(&mut stats, extremes(primitives::<Decimal128Type>(chunks), i128::cmp), Scalar::Decimal);
        }
        DataType::Text | DataType::Uuid => {
            let values = chunks.iter().flat_map(|chunk| chunk.as_string_view().iter().flatten());
            if let Some((min, max, sorted)) = extremes(values, |a, b| a.cmp(b)) {
                stats.sorted = sorted;
                set_texts(&mut stats, min, max);
            }
        }
        DataType::Bytea => {
            let values = chunks.iter().flat_map(|chunk| chunk.as_binary_view().iter().flatten());
            if let Some((min, max, sorted)) = extremes(values, |a, b| a.cmp(b)) {
                stats.sorted = sorted;
                set_bytes(&mut stats, min, max);
            }
        }
        DataType::Jsonb | DataType::Array(_) => {}
    }
    stats
}

/// As [`column_stats`], of texts or bytes whose distinct values are known: `values`, ascending, and whether the rows are, too.
pub(crate) fn sorted_stats(data_type: &DataType, values: &ArrayRef, chunks: &[ArrayRef], sorted: bool) -> ColumnStats {
    let nulls = chunks.iter().map(|chunk| chunk.null_count() as u64).sum();
    let ends = match values.len() {
        0 | 1 => vec![ArrayRef::clone(values)],
        count => vec![values.slice(0, 1), values.slice(count - 1, 1)],
    };
    ColumnStats { nulls, sorted: sorted && !values.is_empty(), ..column_stats(data_type, &ends) }
}

/// Sets the bounds of the texts of one array, of which there may be none: a look at the first four bytes of each is enough for most.
pub(crate) fn set_text_bounds(stats: &mut ColumnStats, array: &StringViewArray) {
    if let Some((min, max)) = view_extremes(array, |row| array.value(row).as_bytes()) {
        set_texts(stats, array.value(min), array.value(max));
    }
}

/// As [`set_text_bounds`], of bytes.
pub(crate) fn set_byte_bounds(stats: &mut ColumnStats, array: &BinaryViewArray) {
    if let Some((min, max)) = view_extremes(array, |row| array.value(row)) {
        set_bytes(stats, array.value(min), array.value(max));
    }
}

/// The rows of the smallest and of the largest value.
fn view_extremes<'a, T: ByteViewType + ?Sized>(
    array: &GenericByteViewArray<T>,
    value: impl Fn(usize) -> &'a [u8],
) -> Option<(usize, usize)> {
    let views = array.views();
    // A view holds the length and the first four bytes, zeros behind a shorter value: their order as a number is that of the values, or none.
    let prefix = |row: usize| ((views[row] >> 32) as u32).swap_bytes();
    let first = array.nulls().map_or(0, |nulls| nulls.valid_indices().next().unwrap_or(array.len()));
    if first >= array.len() {
        return None;
    }
    let (mut min, mut max) = (first, first);
    let (mut low, mut high) = (prefix(first), prefix(first));
    let mut look = |row: usize| {
        let found = prefix(row);
        if low < found && found < high {
            return;
        }
        // A short value is all in its view.
        if found < low || (found == low && views[row] != views[min] && value(row) < value(min)) {
            (min, low) = (row, found);
        }
        if found > high || (found == high && views[row] != views[max] && value(row) > value(max)) {
            (max, high) = (row, found);
        }
    };
    match array.nulls() {
        None => (first + 1..array.len()).for_each(&mut look),
        Some(nulls) => nulls.valid_indices().for_each(&mut look),
    }
    Some((min, max))
}

fn set_texts(stats: &mut ColumnStats, min: &str, max: &str) {
    let ((min, min_exact), (max, max_exact)) = (text_at_most(min), text_at_least(max));
    stats.exact = min_exact && max_exact;
    (stats.min, stats.max) = (Some(Scalar::Text(min)), Some(Scalar::Text(max)));
}

fn set_bytes(stats: &mut ColumnStats, min: &[u8], max: &[u8]) {
    let ((min, min_exact), (max, max_exact)) = (bytes_at_most(min), bytes_at_least(max));
    stats.exact = min_exact && max_exact;
    (stats.min, stats.max) = (Some(Scalar::Bytes(min)), Some(Scalar::Bytes(max)));
}

fn ints<T: ArrowPrimitiveType<Native: Into<i64> + Ord>>(stats: &mut ColumnStats, chunks: &[ArrayRef]) {
    let found = extremes(primitives::<T>(chunks), T::Native::cmp);
    set(stats, found, |value| Scalar::Int(value.into()));
}

fn primitives<T: ArrowPrimitiveType>(chunks: &[ArrayRef]) -> impl Iterator<Item = T::Native> + '_ {
    chunks.iter().flat_map(|chunk| chunk.as_primitive::<T>().iter().flatten())
}

fn set<T>(stats: &mut ColumnStats, found: Option<(T, T, bool)>, scalar: impl Fn(T) -> Scalar) {
    if let Some((min, max, sorted)) = found {
        stats.sorted = sorted;
        (stats.min, stats.max) = (Some(scalar(min)), Some(scalar(max)));
    }
}

/// Smallest, largest, and whether the values never decrease.
fn extremes<T: Copy>(
    mut values: impl Iterator<Item = T>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Option<(T, T, bool)> {
    let first = values.next()?;
    let (mut min, mut max, mut last, mut sorted) = (first, first, first, true);
    for value in values {
        if compare(&value, &last).is_lt() {
            sorted = false;
            if compare(&value, &min).is_lt() {
                min = value;
            }
        } else if compare(&value, &max).is_gt() {
            max = value;
        }
        last = value;
    }
    Some((min, max, sorted))
}

/// A text no longer than the limit that is not above `text`, and whether it is the same.
fn text_at_most(text: &str) -> (Box<str>, bool) {
    (text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into(), text.len() <= TEXT_BYTES_MAX)
}

/// A short text that is not below `text`: a prefix whose last character was raised. `text` itself where none can be.
fn text_at_least(text: &str) -> (Box<str>, bool) {
    if text.len() <= TEXT_BYTES_MAX {
        return (text.into(), true);
    }
    let mut prefix = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned();
    while let Some(last) = prefix.pop() {
        // The surrogates are no characters: the one after U+D7FF is U+E000. The order of UTF-8 is that of the code points.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            prefix.push(next);
            return (prefix.into(), false);
        }
    }
    (text.into(), true)
}

fn bytes_at_most(bytes: &[u8]) -> (Box<[u8]>, bool) {
    (bytes[..bytes.len().min(TEXT_BYTES_MAX)].into(), bytes.len() <= TEXT_BYTES_MAX)
}

fn bytes_at_least(bytes: &[u8]) -> (Box<[u8]>, bool) {
    if bytes.len() <= TEXT_BYTES_MAX {
        return (bytes.into(), true);
    }
    let mut prefix = bytes[..TEXT_BYTES_MAX].to_vec();
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            return (prefix.into(), false);
        }
    }
    (bytes.into(), true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_ordered_as_in_postgres() {
        let chunk: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), None, Some(5.0), Some(-f64::NAN)]));
        let stats = column_stats(&DataType::Double, &[chunk]);
        assert!(stats.sorted && stats.exact);
        assert_eq!((stats.nulls, stats.min), (1, Some(Scalar::Float(0.0))));
        assert!(matches!(stats.max, Some(Scalar::Float(max)) if max.is_nan()));
    }

    #[test]
    fn order_is_judged_over_chunks_and_nulls() {
        let chunks: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX)])),
            Arc::new(Int64Array::from(Vec::<i64>::new())),
            Arc::new(Int64Array::from(vec![i64::MIN])),
        ];
        let stats = column_stats(&DataType::BigInt, &chunks);
        assert!(!stats.sorted);
        assert_eq!((stats.min, stats.max), (Some(Scalar::Int(i64::MIN)), Some(Scalar::Int(i64::MAX))));
        assert!(column_stats(&DataType::BigInt, &chunks[..2]).sorted);
        assert_eq!(column_stats(&DataType::BigInt, &[]).min, None);
    }

    proptest! {
        #[test]
        fn cut_texts_are_bounds(text in "[a\u{d7ff}\u{10ffff}é]{0,40}") {
            let chunk: ArrayRef = Arc::new(StringViewArray::from(vec![text.as_str()]));
            let stats = column_stats(&DataType::Text, &[chunk]);
            let (Some(Scalar::Text(min)), Some(Scalar::Text(max))) = (&stats.min, &stats.max) else { panic!("no extremes") };
            prop_assert!(**min <= *text && *text <= **max);
            prop_assert_eq!(stats.exact, **min == *text && **max == *text);
        }

        #[test]
        fn bounds_by_views_are_those_of_all_values(
            texts in prop::collection::vec(prop::option::weighted(0.8, "[ab\u{0}é]{0,6}(a{40}[a-c]{0,40})?"), 0..60), cut in 0usize..3,
        ) {
            let texts = StringViewArray::from_iter(texts);
            let texts = texts.slice(cut.min(texts.len()), texts.len().saturating_sub(cut));
            let bytes: BinaryViewArray = texts.iter().map(|text| text.map(str::as_bytes)).collect();
            let start = || ColumnStats { exact: true, ..ColumnStats::default() };
            let (mut found_texts, mut found_bytes) = (start(), start());
            set_text_bounds(&mut found_texts, &texts);
            set_byte_bounds(&mut found_bytes, &bytes);
            for (found, data_type, array) in [
                (found_texts, DataType::Text, Arc::new(texts) as ArrayRef), (found_bytes, DataType::Bytea, Arc::new(bytes) as ArrayRef),
            ] {
                let plain = column_stats(&data_type, &[array]);
                prop_assert_eq!((found.min, found.max, found.exact), (plain.min, plain.max, plain.exact));
            }
        }

        #[test]
        fn cut_bytes_are_bounds(bytes in prop::collection::vec(prop_oneof![Just(255u8), any::<u8>()], 0..100)) {
            let chunk: ArrayRef = Arc::new(BinaryViewArray::from(vec![bytes.as_slice()]));
            let stats = column_stats(&DataType::Bytea, &[chunk]);
            let (Some(Scalar::Bytes(min)), Some(Scalar::Bytes(max))) = (&stats.min, &stats.max) else { panic!("no extremes") };
            prop_assert!(**min <= *bytes && *bytes <= **max);
            prop_assert_eq!(stats.exact, **min == *bytes && **max == *bytes);
        }
    }
}
