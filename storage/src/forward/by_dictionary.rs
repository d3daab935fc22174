//! Whether a dictionary pays for a column, and the column by dictionary.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, Decimal128Array, Float32Array, Float64Array, StringViewArray},
    datatypes::{Decimal128Type, Float32Type, Float64Type},
};

use super::{
    Encoding,
    codec::Codec,
    encode::{Choice, EncodeOptions, Place, Values, encode_node},
    numbers::{array_of, integers_of},
};
use crate::{
    Error, Result,
    dictionary::{Distinct, Seen, distinct, encode_ids, float_order, ids_bytes},
    schema::DataType,
};

/// Rows after which the share of new values among them is taken for that of the others: before, even a dictionary of 100,000 values
/// that pays looks like a column of nothing but new ones.
const SURE_ROWS: usize = 65_536;

/// What a dictionary may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// In all.
    pub(super) bytes: usize,
    /// For each value, at a guess, beside the bytes of a text.
    pub(super) key_bytes: usize,
}

/// What of the bytes of distinct texts, sorted, is left at a guess once they are compressed, one in so many. In the end the real bytes decide.
fn shrinks_to_one_in(options: &EncodeOptions) -> usize {
    match options.compression.codec() {
        Some(Codec::Zstd) => 3,
        Some(Codec::Lz4) => 2,
        None => 1,
    }
}

/// How many times as many distinct values as were `seen` there are in `ahead` times as many rows, when nearly all of them were new and each value
/// comes as often as another.
fn evenly(seen: Seen, ahead: f64) -> f64 {
    // Of n rows drawn from d values the share 1 - n / 2d is new, as long as it is nearly all.
    let drawn = 2.0 * (1.0 - seen.distinct as f64 / seen.rows as f64);
    if drawn > 0.0 { (drawn * -ahead).exp_m1() / (-drawn).exp_m1() } else { ahead }
}

impl Budget {
    /// Whether a dictionary of `rows` rows in all may still stay within the budget.
    fn allows(self, rows: usize, seen: Seen, shrinks: usize) -> bool {
        // What was seen is a lower bound. Where most rows so far had a new value, most of the others are expected to.
        let ahead = rows as f64 / seen.rows.max(1) as f64;
        let growth = if seen.rows >= SURE_ROWS && seen.distinct * 4 > seen.rows * 3 {
            (ahead * 0.7).max(evenly(seen, ahead)).max(1.0)
        } else {
            1.0
        };
        let distinct = (seen.distinct as f64 * growth) as usize;
        let texts = (seen.bytes as f64 * growth) as usize / shrinks;
        let by_runs = (seen.runs as f64 * ahead * 3.0) as usize;
        ids_bytes(rows, distinct).min(by_runs) + texts + distinct * self.key_bytes <= self.bytes
    }
}

/// The column by dictionary; `None` when that takes more bytes than it may, or the type has none.
pub(super) fn by_dictionary(
    data_type: &DataType,
    chunks: &[ArrayRef],
    budget: Budget,
    options: &EncodeOptions,
) -> Result<Option<Choice>> {
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let shrinks = shrinks_to_one_in(options);
    let pays = |seen| budget.allows(rows, seen, shrinks);
    let found: Option<(Vec<u32>, ArrayRef)> = match data_type {
        DataType::Boolean | DataType::Array(_) => None,
        DataType::Text | DataType::Uuid | DataType::Jsonb => {
            let values = chunks.iter().flat_map(|chunk| chunk.as_string_view().iter());
            distinct(values, rows, str::len, |a, b| a.cmp(b), pays)
                .map(|Distinct { keys, ids }| (ids, Arc::new(StringViewArray::from_iter_values(keys)) as ArrayRef))
        }
        DataType::Bytea => {
            let values = chunks.iter().flat_map(|chunk| chunk.as_binary_view().iter());
            distinct(values, rows, <[u8]>::len, |a, b| a.cmp(b), pays)
                .map(|Distinct { keys, ids }| (ids, Arc::new(BinaryViewArray::from_iter_values(keys)) as ArrayRef))
        }
        // Floats are told apart by their bits, so that each comes back as it was.
        DataType::Real => {
            let values =
                chunks.iter().flat_map(|chunk| chunk.as_primitive::<Float32Type>().iter().map(|v| v.map(f32::to_bits)));
            let value = |bits: u32| f64::from(f32::from_bits(bits));
            let order = |a: &u32, b: &u32| float_order((value(*a), u64::from(*a)), (value(*b), u64::from(*b)));
            distinct(values, rows, |_| 0, order, pays).map(|Distinct { keys, ids }| {
                (ids, Arc::new(Float32Array::from_iter_values(keys.into_iter().map(f32::from_bits))) as ArrayRef)
            })
        }
        DataType::Double => {
            let values =
                chunks.iter().flat_map(|chunk| chunk.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)));
            let order = |a: &u64, b: &u64| float_order((f64::from_bits(*a), *a), (f64::from_bits(*b), *b));
            distinct(values, rows, |_| 0, order, pays).map(|Distinct { keys, ids }| {
                (ids, Arc::new(Float64Array::from_iter_values(keys.into_iter().map(f64::from_bits))) as ArrayRef)
            })
        }
        _ => match integers_of(data_type, chunks) {
            Some(values) => match distinct(values.into_iter().map(Some), rows, |_| 0, i64::cmp, pays) {
                Some(Distinct { keys, ids }) => Some((ids, array_of(data_type, keys.as_slice(), None)?)),
                None => None,
            },
            None => decimals(data_type, chunks, rows, pays)?,
        },
    };
    let Some((ids, values)) = found else { return Ok(None) };
    let count = values.len();
    let mut writer = encode_ids(&ids, count);
    writer.append(encode_node(data_type, &[Arc::clone(&values)], count as u32, Place::Dictionary, options)?.writer);
    let dictionary = Some(Values { values, ascending: ids.is_sorted() });
    let choice = Choice { encoding: Encoding::Dictionary, writer, dictionary };
    Ok(Some(choice).filter(|choice| choice.writer.bytes() <= budget.bytes))
}

/// Decimals beyond 64 bits.
fn decimals(
    data_type: &DataType,
    chunks: &[ArrayRef],
    rows: usize,
    pays: impl Fn(Seen) -> bool,
) -> Result<Option<(Vec<u32>, ArrayRef)>> {
    let DataType::Numeric { precision, scale } = data_type else {
        return Err(Error::Invalid(format!("a column of type {data_type} has no dictionary")));
    };
    let values = chunks.iter().flat_map(|chunk| chunk.as_primitive::<Decimal128Type>().iter());
    Ok(match distinct(values, rows, |_| 0, i128::cmp, pays) {
        Some(Distinct { keys, ids }) => {
            let values = Decimal128Array::from(keys).with_precision_and_scale(*precision, *scale)?;
            Some((ids, Arc::new(values)))
        }
        None => None,
    })
}
