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
    Result,
    bitpack::lanes,
    hash,
    schema::DataType,
    sketch::{Distinct, FEW_MAX, Quantiles, Sketch, bytes_of_different, memory_bytes, token},
};

/// Pairs of a group and an id up to which those that were met are remembered, a bit each: 8 MiB.
const PAIRS_MAX: usize = 1 << 26;

/// Tokens that wait for their sketch, of one group at most. The sketches of some hundred groups do not fit into a core's cache together, so that
/// each row would wait for memory; the ends of as many lists do.
const WAITING_MAX: usize = FEW_MAX;

/// A sketch for each group, and the tokens that it has not taken yet.
#[derive(Debug, Default)]
struct Sketches {
    taken: Vec<Distinct>,
    waiting: Vec<Vec<u32>>,
}

impl Sketches {
    fn grow(&mut self, groups: usize) {
        self.taken.resize_with(groups, Distinct::default);
        self.waiting.resize_with(groups, Vec::new);
    }

    #[inline]
    fn insert(&mut self, group: usize, token: u32) {
        let waiting = &mut self.waiting[group];
        waiting.push(token);
        if waiting.len() == WAITING_MAX {
            self.taken[group].extend(waiting);
            waiting.clear();
        }
    }

    fn insert_all(&mut self, groups: Groups<'_>, tokens: &[u32]) {
        match groups {
            Groups::Same(group, _) => self.insert_many(group as usize, tokens),
            Groups::Each(groups) => {
                groups.iter().zip(tokens).for_each(|(group, token)| self.insert(*group as usize, *token));
            }
        }
    }

    fn insert_many(&mut self, group: usize, mut tokens: &[u32]) {
        let (taken, waiting) = (&mut self.taken[group], &mut self.waiting[group]);
        while !taken.is_full() && !tokens.is_empty() {
            let (next, rest) = tokens.split_at(tokens.len().min(WAITING_MAX - waiting.len()));
            waiting.extend_from_slice(next);
            tokens = rest;
            if waiting.len() == WAITING_MAX {
                taken.extend(waiting);
                waiting.clear();
            }
        }
        taken.extend(tokens);
    }

    fn memory_bytes(&self) -> usize {
        let waiting = self.waiting.iter().map(|tokens| tokens.capacity() * size_of::<u32>() + size_of::<Vec<u32>>());
        memory_bytes(&self.taken) + waiting.sum::<usize>()
    }

    /// The group's sketch with all of its tokens.
    fn to_bytes(&self, group: usize) -> Vec<u8> {
        let (taken, waiting) = (&self.taken[group], &self.waiting[group]);
        if taken.is_empty()
            && let Some(bytes) = bytes_of_different(waiting)
        {
            return bytes;
        }
        let mut sketch = taken.clone();
        sketch.extend(waiting);
        sketch.to_bytes()
    }
}

/// The distinct values of each group.
#[derive(Debug)]
pub(crate) struct DistinctValues {
    sketches: Sketches,
    /// The value is an unscaled decimal, in whatever form it comes.
    is_decimal: bool,
    ids: Option<Ids>,
    /// Of the rows of a window.
    hashes: Vec<u64>,
    tokens: Vec<u32>,
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
        Self { sketches: Sketches::default(), is_decimal, ids, hashes: Vec::new(), tokens: Vec::new() }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.sketches.grow(groups);
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
        self.sketches.memory_bytes() + ids.sum::<usize>()
    }

    pub(crate) fn add(&mut self, groups: Groups<'_>, values: &Values) -> Result<()> {
        let Self { sketches, is_decimal, ids, hashes, tokens } = self;
        hashes.clear();
        match (values, ids) {
            (Values::Ids(values), Some(ids)) => return ids.add(groups, values, sketches),
            (Values::Integers(values), _) if *is_decimal => {
                hashes.extend(values.iter().map(|value| hash::of_decimal((*value).into())));
            }
            (Values::Integers(values), _) => {
                hashes.resize(values.len(), 0);
                lanes::hashes(values, hashes);
            }
            (Values::Wide(values), _) => hashes.extend(values.iter().map(|value| hash::of_decimal(*value))),
            (Values::Floats(values), _) => hashes.extend(values.iter().map(|value| hash::of_float(*value))),
            (Values::Texts(values), _) => hash::of_array(values, |hash| hashes.push(hash.unwrap_or_default()))?,
            _ => return Err(misfit()),
        }
        tokens.clear();
        tokens.extend(hashes.iter().map(|hash| token(*hash)));
        sketches.insert_all(groups, tokens);
        Ok(())
    }

    pub(crate) fn column(&self, groups: &[u32], has_value: impl Fn(usize) -> bool) -> ArrayRef {
        bytes(groups, has_value, |group| self.sketches.to_bytes(group))
    }
}

impl Ids {
    fn add(&mut self, groups: Groups<'_>, values: &[u32], sketches: &mut Sketches) -> Result<()> {
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
            sketches.insert(group, tokens[id]);
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
        bytes(groups, has_value, |group| self.sketches[group].to_bytes())
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
        bytes(groups, has_value, |group| self.sketches[group].to_bytes())
    }
}

/// A column of sketches.
fn bytes(groups: &[u32], has_value: impl Fn(usize) -> bool, of: impl Fn(usize) -> Vec<u8>) -> ArrayRef {
    let found = groups.iter().enumerate().map(|(at, group)| has_value(at).then(|| of(*group as usize)));
    std::sync::Arc::new(found.collect::<BinaryViewArray>())
}
