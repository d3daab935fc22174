//! Sketches of groups: of values (ids, numbers, texts), and of sketches that the documents of a star-tree hold.

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, UInt32Array},
    compute::take,
};

use super::{
    block::Values,
    states::{Groups, Subject, each, misfit},
};
use crate::{
    Result, hash,
    schema::DataType,
    sketch::{Distinct, Quantiles, Sketch, memory_bytes, token},
};

/// Pairs of a group and an id up to which those that were met are remembered, a bit each: 8 MiB.
const PAIRS_MAX: usize = 1 << 26;

/// The distinct values of each group.
#[derive(Debug)]
pub(crate) struct DistinctValues {
    sketches: Vec<Distinct>,
    /// The value is an unscaled decimal, in whatever form it comes.
    is_decimal: bool,
    ids: Option<Ids>,
}

/// Values that come as ids.
#[derive(Debug)]
struct Ids {
    dictionary: ArrayRef,
    /// By id; 0 until it is asked for.
    tokens: Vec<u32>,
    /// For each group a bit for each id; `None`: too many.
    met: Option<Vec<u64>>,
    fresh: Vec<u32>,
}

impl DistinctValues {
    pub(crate) fn new(subject: &Subject<'_>) -> Self {
        let ids = subject.dictionary.map(|dictionary| Ids {
            dictionary: ArrayRef::clone(dictionary),
            tokens: vec![0; dictionary.len()],
            met: Some(Vec::new()),
            fresh: Vec::new(),
        });
        let is_decimal = matches!(subject.data_type, DataType::Numeric { .. });
        Self { sketches: Vec::new(), is_decimal, ids }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.sketches.resize_with(groups, Distinct::default);
        if let Some(ids) = &mut self.ids {
            let pairs = groups.saturating_mul(ids.dictionary.len());
            match &mut ids.met {
                Some(met) if pairs <= PAIRS_MAX => met.resize(pairs.div_ceil(64), 0),
                met => *met = None,
            }
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let ids = self.ids.iter().map(|ids| ids.tokens.len() * 4 + ids.met.as_ref().map_or(0, |met| met.len() * 8));
        memory_bytes(&self.sketches) + ids.sum::<usize>()
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        let Self { sketches, is_decimal, ids } = self;
        let insert = |of: &dyn Fn(usize) -> u64, rows: usize, sketches: &mut Vec<Distinct>| {
            each(groups, rows, |group, row| sketches[group].insert(token(of(row))));
        };
        match (values, ids) {
            (Values::Ids(values), Some(ids)) => ids.add(groups, values, sketches)?,
            (Values::Integers(values), _) if *is_decimal => {
                insert(&|row| hash::of_decimal(values[row].into()), values.len(), sketches);
            }
            (Values::Integers(values), _) => insert(&|row| hash::of_int(values[row]), values.len(), sketches),
            (Values::Wide(values), _) => insert(&|row| hash::of_decimal(values[row]), values.len(), sketches),
            (Values::Floats(values), _) => insert(&|row| hash::of_float(values[row]), values.len(), sketches),
            (Values::Texts(values), _) => {
                let mut hashes = Vec::with_capacity(values.len());
                hash::of_array(values, |hash| hashes.push(hash.unwrap_or_default()))?;
                insert(&|row| hashes[row], hashes.len(), sketches);
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }

    pub(crate) fn column(&self, groups: &[u32], has_value: impl Fn(usize) -> bool) -> ArrayRef {
        bytes(groups, has_value, &self.sketches)
    }
}

impl Ids {
    fn add(&mut self, groups: Groups<'_>, values: &[u32], sketches: &mut [Distinct]) -> Result<()> {
        let Self { dictionary, tokens, met, fresh } = self;
        fresh.clear();
        fresh.extend(values.iter().filter(|id| tokens[**id as usize] == 0));
        if !fresh.is_empty() {
            fresh.sort_unstable();
            fresh.dedup();
            let found = take(dictionary, &UInt32Array::from(fresh.clone()), None)?;
            let mut fresh = fresh.iter();
            hash::of_array(&found, |hash| {
                if let Some(id) = fresh.next() {
                    tokens[*id as usize] = token(hash.unwrap_or_default());
                }
            })?;
        }
        let distinct = dictionary.len();
        each(groups, values.len(), |group, row| {
            let id = values[row] as usize;
            if let Some(met) = met {
                let pair = group * distinct + id;
                let (word, bit) = (&mut met[pair / 64], 1u64 << (pair % 64));
                if *word & bit != 0 {
                    return;
                }
                *word |= bit;
            }
            sketches[group].insert(tokens[id]);
        });
        Ok(())
    }
}

/// How the numbers of each group are spread.
#[derive(Debug)]
pub(crate) struct Spreads {
    sketches: Vec<Quantiles>,
    /// What an unscaled decimal is divided by.
    unit: f64,
}

impl Spreads {
    pub(crate) fn new(data_type: &DataType) -> Self {
        let unit = match data_type {
            DataType::Numeric { scale, .. } => 10f64.powi((*scale).into()),
            _ => 1.0,
        };
        Self { sketches: Vec::new(), unit }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.sketches.resize_with(groups, Quantiles::default);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        memory_bytes(&self.sketches)
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        let Self { sketches, unit } = self;
        match values {
            Values::Integers(values) => {
                each(groups, values.len(), |group, row| sketches[group].insert(values[row] as f64 / *unit));
            }
            Values::Wide(values) => {
                each(groups, values.len(), |group, row| sketches[group].insert(values[row] as f64 / *unit));
            }
            Values::Floats(values) => each(groups, values.len(), |group, row| sketches[group].insert(values[row])),
            _ => return Err(misfit()),
        }
        Ok(())
    }

    pub(crate) fn column(&self, groups: &[u32], has_value: impl Fn(usize) -> bool) -> ArrayRef {
        bytes(groups, has_value, &self.sketches)
    }
}

/// Sketches put together.
#[derive(Debug)]
pub(crate) struct Merged<S> {
    sketches: Vec<S>,
    dictionary: Option<ArrayRef>,
}

impl<S: Sketch> Merged<S> {
    pub(crate) fn new(subject: &Subject<'_>) -> Self {
        Self { sketches: Vec::new(), dictionary: subject.dictionary.cloned() }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.sketches.resize_with(groups, S::default);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        memory_bytes(&self.sketches)
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        let found = match (values, &self.dictionary) {
            (Values::Texts(found), _) => ArrayRef::clone(found),
            (Values::Ids(ids), Some(dictionary)) => take(dictionary, &UInt32Array::from(ids.clone()), None)?,
            _ => return Err(misfit()),
        };
        let found = found.as_binary_view_opt().ok_or_else(misfit)?;
        let mut result = Ok(());
        each(groups, found.len(), |group, row| {
            if result.is_ok() {
                result = self.sketches[group].merge_bytes(found.value(row));
            }
        });
        result
    }

    pub(crate) fn column(&self, groups: &[u32], has_value: impl Fn(usize) -> bool) -> ArrayRef {
        bytes(groups, has_value, &self.sketches)
    }
}

/// A column of sketches.
fn bytes<S: Sketch>(groups: &[u32], has_value: impl Fn(usize) -> bool, sketches: &[S]) -> ArrayRef {
    let found =
        groups.iter().enumerate().map(|(at, group)| has_value(at).then(|| sketches[*group as usize].to_bytes()));
    std::sync::Arc::new(found.collect::<BinaryViewArray>())
}
