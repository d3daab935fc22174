//! The distinct values of each group, as lists: what `count(DISTINCT x)` beside other aggregates is made of.
//!
//! | values come as | a pair of group and value is |
//! |---|---|
//! | ids, or integers inside bounds | a bit, where all pairs are few; else a number of 64 bits in a hash table |
//! | other integers, floats | a number of 128 bits in a hash table |
//! | texts, decimals beyond 64 bits | as ids, by a number for each new value |
//!
//! -0 is 0, and all NaNs are one.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ListArray, UInt32Array},
    buffer::OffsetBuffer,
    compute::take,
    datatypes::Field,
};

use super::{
    block::{self, Values},
    keys::Interner,
    states::{Groups, Subject, each, misfit},
    table::Table,
    values::{array_of_floats, array_of_integers},
};
use crate::{Error, Result, forward::format::corrupt, schema::DataType};

/// Words of the bits for pairs: 8 MiB.
const WORDS_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Sets {
    groups: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// By the distance from `base`, which is below `span`.
    Near {
        base: i64,
        span: u64,
        pairs: Pairs,
    },
    /// By ids of floats, of which several may be of one number: the first of these stands for all.
    FloatIds {
        first: Vec<u32>,
        pairs: Pairs,
    },
    /// By the bits of an integer or a float.
    Far(Table<u128>),
    Interned {
        interner: Interner,
        pairs: Table<u64>,
    },
}

/// Pairs of a group and a number below 2^32.
#[derive(Debug)]
enum Pairs {
    /// So many words for each group.
    Bits {
        words: usize,
        bits: Vec<u64>,
    },
    Hashed(Table<u64>),
}

fn pair(group: usize, number: u64) -> u64 {
    (group as u64) << 32 | number
}

impl Pairs {
    fn grow(&mut self, groups: usize) {
        let Self::Bits { words, bits } = self else { return };
        let needed = groups.saturating_mul(*words);
        if needed <= WORDS_MAX {
            bits.resize(needed, 0);
            return;
        }
        let mut table = Table::default();
        for group in 0..bits.len() / (*words).max(1) {
            numbers_in(&bits[group * *words..(group + 1) * *words], |number| {
                table.number(pair(group, number));
            });
        }
        *self = Self::Hashed(table);
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Bits { bits, .. } => bits.capacity() * size_of::<u64>(),
            Self::Hashed(table) => table.memory_bytes(),
        }
    }

    /// How many numbers each of these groups has, and the numbers, group by group. `all`: how many groups there are.
    fn of(&self, groups: &[u32], all: usize) -> (Vec<usize>, Vec<u64>) {
        match self {
            Self::Bits { words, bits } => {
                let mut numbers = Vec::new();
                let lengths = groups.iter().map(|group| {
                    let (at, before) = (*group as usize * words, numbers.len());
                    numbers_in(&bits[at..at + words], |number| numbers.push(number));
                    numbers.len() - before
                });
                (lengths.collect(), numbers)
            }
            Self::Hashed(table) => by_group(table.keys(), groups, all, halves),
        }
    }

    #[inline]
    fn insert(&mut self, group: usize, number: u64) {
        match self {
            Self::Bits { words, bits } => bits[group * *words + number as usize / 64] |= 1 << (number % 64),
            Self::Hashed(table) => {
                table.number(pair(group, number));
            }
        }
    }
}

/// A pair's group and number.
fn halves(pair: u64) -> (u64, u64) {
    (pair >> 32, pair & u64::from(u32::MAX))
}

fn numbers_in(words: &[u64], mut each: impl FnMut(u64)) {
    for (at, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            each(at as u64 * 64 + u64::from(left.trailing_zeros()));
            left &= left - 1;
        }
    }
}

fn bits_of(value: f64) -> u64 {
    let one = if value.is_nan() { f64::NAN } else { value + 0.0 };
    one.to_bits()
}

impl Sets {
    pub(crate) fn new(subject: &Subject<'_>) -> Result<Self> {
        let bits = |span: u64| Pairs::Bits { words: span.div_ceil(64) as usize, bits: Vec::new() };
        let near = |base, span| Form::Near { base, span, pairs: bits(span) };
        let form = match (subject.values, subject.dictionary, subject.bounds) {
            (Values::Ids(_), Some(dictionary), _) if dictionary.data_type().is_floating() => {
                let mut known = Table::<u64>::default();
                let mut ids = Vec::new();
                let mut first = Vec::with_capacity(dictionary.len());
                let mut floats = Vec::new();
                block::floats(dictionary, &mut floats)?;
                for (id, value) in floats.iter().enumerate() {
                    let number = known.number(bits_of(*value)) as usize;
                    if number == ids.len() {
                        ids.push(id as u32);
                    }
                    first.push(ids[number]);
                }
                Form::FloatIds { pairs: bits(first.len() as u64), first }
            }
            (Values::Ids(_), Some(dictionary), _) => near(0, dictionary.len() as u64),
            (Values::Integers(_), _, Some((min, max))) if max.abs_diff(min) < u64::from(u32::MAX) => {
                near(min, max.abs_diff(min) + 1)
            }
            (Values::Integers(_) | Values::Floats(_), ..) => Form::Far(Table::default()),
            // Of a column that is all null no value comes.
            (Values::Wide(_) | Values::Texts(_) | Values::None, ..) => {
                Form::Interned { interner: Interner::default(), pairs: Table::default() }
            }
            (Values::Ids(_), None, _) => return Err(misfit()),
        };
        Ok(Self { groups: 0, form })
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.groups = groups;
        if let Form::Near { pairs, .. } | Form::FloatIds { pairs, .. } = &mut self.form {
            pairs.grow(groups);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match &self.form {
            Form::Near { pairs, .. } => pairs.memory_bytes(),
            Form::FloatIds { first, pairs } => first.capacity() * size_of::<u32>() + pairs.memory_bytes(),
            Form::Far(table) => table.memory_bytes(),
            Form::Interned { interner, pairs } => interner.memory_bytes() + pairs.memory_bytes(),
        }
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        let mut is_inside = true;
        match (&mut self.form, values) {
            (Form::Near { span, pairs, .. }, Values::Ids(ids)) => {
                is_inside = ids.iter().all(|id| u64::from(*id) < *span);
                if is_inside {
                    each(groups, ids.len(), |group, row| pairs.insert(group, ids[row].into()));
                }
            }
            (Form::Near { base, span, pairs }, Values::Integers(values)) => {
                let distance = |value: &i64| value.wrapping_sub(*base) as u64;
                is_inside = values.iter().all(|value| distance(value) < *span);
                if is_inside {
                    each(groups, values.len(), |group, row| pairs.insert(group, distance(&values[row])));
                }
            }
            (Form::FloatIds { first, pairs }, Values::Ids(ids)) => {
                is_inside = ids.iter().all(|id| (*id as usize) < first.len());
                if is_inside {
                    each(groups, ids.len(), |group, row| pairs.insert(group, first[ids[row] as usize].into()));
                }
            }
            (Form::Far(table), Values::Integers(values)) => each(groups, values.len(), |group, row| {
                table.number((group as u128) << 64 | u128::from(values[row] as u64));
            }),
            (Form::Far(table), Values::Floats(values)) => each(groups, values.len(), |group, row| {
                table.number((group as u128) << 64 | u128::from(bits_of(values[row])));
            }),
            (_, Values::None) => {}
            (Form::Interned { interner, pairs }, values) => {
                let mut numbers = Vec::new();
                interner.numbers(values, None, |number| numbers.push(number))?;
                each(groups, numbers.len(), |group, row| {
                    pairs.number(pair(group, numbers[row].into()));
                });
            }
            _ => return Err(misfit()),
        }
        if !is_inside {
            return Err(corrupt("values of a column", "inside of its bounds", "one outside"));
        }
        Ok(())
    }

    /// The list of each of these groups, which may be empty.
    pub(crate) fn column(
        &self,
        data_type: &DataType,
        dictionary: Option<&ArrayRef>,
        groups: &[u32],
    ) -> Result<ArrayRef> {
        let taken = |numbers: &[u64]| -> Result<ArrayRef> {
            let dictionary = dictionary.ok_or_else(misfit)?;
            let ids: UInt32Array = numbers.iter().map(|number| *number as u32).collect();
            Ok(take(dictionary, &ids, None)?)
        };
        let (lengths, values) = match &self.form {
            Form::Near { base, pairs, .. } => {
                let (lengths, numbers) = pairs.of(groups, self.groups);
                let values = if dictionary.is_some() {
                    taken(&numbers)?
                } else {
                    let values: Vec<i64> = numbers.iter().map(|number| base.wrapping_add(*number as i64)).collect();
                    array_of_integers(data_type, &values, |_| true)?
                };
                (lengths, values)
            }
            Form::FloatIds { pairs, .. } => {
                let (lengths, numbers) = pairs.of(groups, self.groups);
                let mut floats = Vec::new();
                block::floats(&taken(&numbers)?, &mut floats)?;
                floats.iter_mut().for_each(|value| *value = f64::from_bits(bits_of(*value)));
                (lengths, array_of_floats(data_type, &floats, |_| true)?)
            }
            Form::Far(table) => {
                let halves = |key: u128| ((key >> 64) as u64, key as u64);
                let (lengths, bits) = by_group(table.keys(), groups, self.groups, halves);
                let values = match data_type {
                    DataType::Real | DataType::Double => {
                        let values: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
                        array_of_floats(data_type, &values, |_| true)?
                    }
                    _ => {
                        let values: Vec<i64> = bits.into_iter().map(|bits| bits as i64).collect();
                        array_of_integers(data_type, &values, |_| true)?
                    }
                };
                (lengths, values)
            }
            Form::Interned { interner, pairs } => {
                let (lengths, ids) = by_group(pairs.keys(), groups, self.groups, halves);
                let ids: Vec<u128> = ids.into_iter().map(u128::from).collect();
                (lengths, interner.values(data_type, &ids)?)
            }
        };
        if i32::try_from(values.len()).is_err() {
            return Err(Error::OutOfRange("more distinct values than a list of 2147483647 holds".into()));
        }
        let field = Arc::new(Field::new_list_field(data_type.arrow(), true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None)?))
    }
}

/// How many keys there are of each of the groups, and what they hold, group by group. `all`: how many groups there are; `parts`: a key's group
/// and what it holds.
fn by_group<K: Copy>(
    keys: &[K],
    groups: &[u32],
    all: usize,
    parts: impl Fn(K) -> (u64, u64),
) -> (Vec<usize>, Vec<u64>) {
    // Where those of a group begin, group after group: counted, then dealt.
    let mut ends = vec![0usize; all + 1];
    keys.iter().for_each(|key| ends[parts(*key).0 as usize + 1] += 1);
    let counts: Vec<usize> = ends[1..].to_vec();
    for group in 1..ends.len() {
        ends[group] += ends[group - 1];
    }
    let mut dealt = vec![0; keys.len()];
    for key in keys {
        let (group, held) = parts(*key);
        let place = &mut ends[group as usize];
        dealt[*place] = held;
        *place += 1;
    }
    if groups.len() == all {
        return (counts, dealt);
    }
    let lengths: Vec<usize> = groups.iter().map(|group| counts[*group as usize]).collect();
    let of = |group: &u32| {
        let end = ends[*group as usize];
        dealt[end - counts[*group as usize]..end].iter().copied()
    };
    let held = groups.iter().flat_map(of).collect();
    (lengths, held)
}
