//! Which rows of a segment are valid: a bit for each that is not, in chunks of 64 Ki rows that are copied when they change.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::{
    bitpack::{Bitmask, lanes},
    ids::SegmentId,
    row_set::RowSet,
};

/// Words of a chunk.
const WORDS: usize = 1024;
/// Rows of a chunk.
const ROWS: u32 = WORDS as u32 * 64;

/// The rows of a segment that are not valid; all others are, however many the segment has. A clone shares its chunks.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    /// Bits of rows that are not valid; `None`: all of the chunk are valid.
    chunks: Vec<Option<Arc<[u64; WORDS]>>>,
    invalid: u32,
}

impl Validity {
    /// Rows that are not valid.
    pub fn invalid(&self) -> u32 {
        self.invalid
    }

    pub fn is_valid(&self, row: u32) -> bool {
        let at = row % ROWS;
        match self.chunks.get((row / ROWS) as usize) {
            Some(Some(words)) => words[(at / 64) as usize] >> (at % 64) & 1 == 0,
            _ => true,
        }
    }

    /// The row is not valid from now on.
    pub(crate) fn invalidate(&mut self, row: u32) {
        let (chunk, at) = ((row / ROWS) as usize, row % ROWS);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        let words = Arc::make_mut(self.chunks[chunk].get_or_insert_with(|| Arc::new([0; WORDS])));
        let (word, bit) = (&mut words[(at / 64) as usize], 1u64 << (at % 64));
        self.invalid += u32::from(*word & bit == 0);
        *word |= bit;
    }

    /// The row is valid again.
    pub(super) fn revalidate(&mut self, row: u32) {
        if !self.is_valid(row)
            && let Some(Some(words)) = self.chunks.get_mut((row / ROWS) as usize)
        {
            Arc::make_mut(words)[(row % ROWS / 64) as usize] &= !(1 << (row % 64));
            self.invalid -= 1;
        }
    }

    /// A byte for each chunk that says whether it has rows that are not valid, and then its words.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in &self.chunks {
            bytes.push(u8::from(chunk.is_some()));
            chunk.iter().flat_map(|words| words.iter()).for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        }
        bytes
    }

    /// `None` for bytes that [`Self::to_bytes`] did not make for a segment of so many rows.
    pub(super) fn from_bytes(mut bytes: &[u8], rows: u32) -> Option<Self> {
        let mut read = Self::default();
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            read.chunks.push(match kind {
                0 => None,
                1 => {
                    let (of_chunk, rest) = bytes.split_at_checked(8 * WORDS)?;
                    bytes = rest;
                    let mut words = [0; WORDS];
                    for (word, bytes) in words.iter_mut().zip(of_chunk.as_chunks::<8>().0) {
                        *word = u64::from_le_bytes(*bytes);
                        read.invalid += word.count_ones();
                    }
                    Some(Arc::new(words))
                }
                _ => return None,
            });
        }
        (read.chunks.len() <= rows.div_ceil(ROWS) as usize && read.invalid_in(0..rows) == read.invalid).then_some(read)
    }

    /// Bits 64 · `index` and on.
    fn word(&self, index: usize) -> u64 {
        match self.chunks.get(index / WORDS) {
            Some(Some(words)) => words[index % WORDS],
            _ => 0,
        }
    }

    /// Rows of the run that are not valid.
    pub fn invalid_in(&self, rows: Range<u32>) -> u32 {
        let all = self.chunks.len() as u32 * ROWS;
        let (start, end) = (rows.start.min(all), rows.end.min(all).max(rows.start.min(all)));
        // Of a whole segment there are few bits beside it.
        match end - start > all / 2 {
            true => self.invalid - self.invalid_bits(0..start) - self.invalid_bits(end..all),
            false => self.invalid_bits(start..end),
        }
    }

    /// Whether any row of the run is valid. Where most are, that shows at once.
    pub(crate) fn any_in(&self, rows: Range<u32>) -> bool {
        let mut row = rows.start;
        while row < rows.end {
            let end = rows.end.min((row / 64 + 1) * 64);
            let run = (u64::MAX >> (64 - (end - row))) << (row % 64);
            if self.word((row / 64) as usize) & run != run {
                return true;
            }
            row = end;
        }
        false
    }

    /// [`Self::invalid_in`] of a run that lies within the chunks.
    fn invalid_bits(&self, rows: Range<u32>) -> u32 {
        let mut count = 0;
        for (at, chunk) in self.chunks.iter().enumerate() {
            let Some(words) = chunk else { continue };
            let first = at as u32 * ROWS;
            let (from, to) = (rows.start.max(first), rows.end.min(first + ROWS));
            if from >= to {
                continue;
            }
            let (from, to) = (from - first, to - first);
            let (first, last) = ((from / 64) as usize, ((to - 1) / 64) as usize);
            // Bits before the run in its first word, and behind it in its last one.
            let before = words[first] & !(u64::MAX << (from % 64));
            let behind = words[last] & !(u64::MAX >> (63 - (to - 1) % 64));
            count += lanes::ones(&words[first..=last]) as u32 - before.count_ones() - behind.count_ones();
        }
        count
    }

    /// The valid rows of a run, one bit each; bit 0 is the row that comes first here, at most 63 before the run.
    pub(crate) fn mask(&self, rows: &Range<u32>) -> (u32, Bitmask) {
        let base = rows.start & !63;
        let mut mask = Bitmask::none(rows.end.max(base) as usize - base as usize);
        mask.set_in((rows.start - base) as usize..rows.end.max(rows.start) as usize - base as usize);
        let (mut at, mut words) = (base as usize / 64, mask.words_mut());
        while !words.is_empty() {
            let (here, rest) = words.split_at_mut(words.len().min(WORDS - at % WORDS));
            if let Some(Some(chunk)) = self.chunks.get(at / WORDS) {
                let invalid = &chunk[at % WORDS..];
                here.iter_mut().zip(invalid).for_each(|(word, invalid)| *word &= !invalid);
            }
            at += here.len();
            words = rest;
        }
        (base, mask)
    }

    /// Of `rows` rows those are valid here that are not there.
    pub(crate) fn inverted(&self, rows: u32) -> Self {
        let mut chunks = Vec::with_capacity(rows.div_ceil(ROWS) as usize);
        for first in (0..rows).step_by(ROWS as usize) {
            let mut words = [0u64; WORDS];
            let here = (rows - first).min(ROWS) as usize;
            let base = first as usize / 64;
            for (index, word) in words.iter_mut().enumerate().take(here.div_ceil(64)) {
                let rest = here - index * 64;
                *word = !self.word(base + index) & if rest < 64 { (1 << rest) - 1 } else { u64::MAX };
            }
            chunks.push(Some(Arc::new(words)));
        }
        let invalid = chunks.iter().flatten().flat_map(|words| words.iter()).map(|word| word.count_ones()).sum();
        Self { chunks, invalid }
    }

    /// Of `rows` rows those that are valid under `now` and, as far as they are among the first `known`, were not under `then`: as the only valid ones. `None`
    /// when there are none. Where nothing is said of rows, all are valid.
    pub(crate) fn gained(now: Option<&Arc<Self>>, rows: u32, then: Option<&Arc<Self>>, known: u32) -> Option<Self> {
        let chunk = |of: Option<&Arc<Self>>, at: usize| of.and_then(|of| of.chunks.get(at)).cloned().flatten();
        let mut whole = None;
        let (mut chunks, mut invalid) = (Vec::with_capacity(rows.div_ceil(ROWS) as usize), 0);
        for (at, first) in (0..rows).step_by(ROWS as usize).enumerate() {
            let (here, there) = (chunk(now, at), chunk(then, at));
            let end = rows.min(first.saturating_add(ROWS));
            let is_same = match (&here, &there) {
                (None, None) => true,
                (Some(here), Some(there)) => Arc::ptr_eq(here, there),
                _ => false,
            };
            if end <= known && is_same {
                if end - first == ROWS {
                    chunks.push(Some(Arc::clone(whole.get_or_insert_with(|| Arc::new([u64::MAX; WORDS])))));
                    invalid += ROWS;
                    continue;
                }
            } else if first >= known {
                invalid += here.as_ref().map_or(0, |words| lanes::ones(words.as_slice()) as u32);
                chunks.push(here);
                continue;
            }
            let mut words = [0u64; WORDS];
            for (index, word) in words.iter_mut().enumerate().take((end - first).div_ceil(64) as usize) {
                let row = first + index as u32 * 64;
                let is_there = ones(rows.saturating_sub(row));
                let was_there = ones(known.saturating_sub(row)) & !there.as_ref().map_or(0, |there| there[index]);
                *word = is_there & (here.as_ref().map_or(0, |here| here[index]) | was_there);
                invalid += word.count_ones();
            }
            chunks.push(Some(Arc::new(words)));
        }
        (invalid < rows).then_some(Self { chunks, invalid })
    }

    /// The rows that are not valid here but are there; `None` when some are valid here that are not there.
    pub(crate) fn beyond(&self, known: &Self) -> Option<Self> {
        let mut beyond = Self { chunks: Vec::with_capacity(self.chunks.len()), invalid: 0 };
        for at in 0..self.chunks.len().max(known.chunks.len()) {
            let chunk = |of: &Self| of.chunks.get(at).cloned().flatten();
            let (here, there) = (chunk(self), chunk(known));
            beyond.chunks.push(match (here, there) {
                (here, None) => here,
                (Some(here), Some(there)) if Arc::ptr_eq(&here, &there) => None,
                (here, Some(there)) => {
                    let mut words = here.map_or([0; WORDS], |here| *here);
                    let mut is_less = false;
                    words.iter_mut().zip(there.iter()).for_each(|(word, known)| {
                        is_less |= known & !*word != 0;
                        *word &= !known;
                    });
                    if is_less {
                        return None;
                    }
                    words.iter().any(|word| *word != 0).then(|| Arc::new(words))
                }
            });
        }
        beyond.invalid = self.invalid - known.invalid;
        Some(beyond)
    }

    /// The same rows in another order: `order` has for each place the row that comes there.
    pub(crate) fn permuted(&self, order: &[u32]) -> Self {
        let mut permuted = Self::default();
        if self.invalid > 0 {
            for (place, row) in (0..).zip(order) {
                if !self.is_valid(*row) {
                    permuted.invalidate(place);
                }
            }
        }
        permuted
    }
}

/// So many bits, from the lowest on; 64 at most.
fn ones(count: u32) -> u64 {
    if count < 64 { (1 << count) - 1 } else { u64::MAX }
}

/// Of the rows that are not valid.
impl FromIterator<u32> for Validity {
    fn from_iter<T: IntoIterator<Item = u32>>(rows: T) -> Self {
        let mut validity = Self::default();
        rows.into_iter().for_each(|row| validity.invalidate(row));
        validity
    }
}

/// The validity of those segments of a view that have rows that are not valid, ascending by segment.
#[derive(Clone, Debug, Default)]
pub struct Validities(Option<Arc<[OfSegment]>>);

type OfSegment = (SegmentId, Arc<Validity>);

impl Validities {
    /// `all` ascends by segment.
    pub(crate) fn new(all: Vec<OfSegment>) -> Self {
        Self((!all.is_empty()).then(|| all.into()))
    }

    /// Whether all rows of all segments are valid.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `None`: all rows of the segment are valid.
    pub fn of(&self, segment: SegmentId) -> Option<&Arc<Validity>> {
        let all = self.0.as_ref()?;
        all.binary_search_by_key(&segment, |(id, _)| *id).ok().map(|at| &all[at].1)
    }

    /// Rows that are not valid, of all segments.
    pub fn invalid(&self) -> u64 {
        self.0.iter().flat_map(|all| all.iter()).map(|(_, validity)| u64::from(validity.invalid())).sum()
    }

    /// With more rows that are not valid.
    pub(crate) fn with_deleted(&self, deleted: &[(SegmentId, RowSet)]) -> Self {
        let mut all: BTreeMap<SegmentId, Arc<Validity>> = self.0.iter().flat_map(|all| all.iter()).cloned().collect();
        for (segment, rows) in deleted.iter().filter(|(_, rows)| !rows.is_empty()) {
            let validity = Arc::make_mut(all.entry(*segment).or_default());
            rows.iter().for_each(|row| validity.invalidate(row));
        }
        Self::new(all.into_iter().collect())
    }

    /// Without these segments.
    pub(crate) fn without(&self, gone: &[SegmentId]) -> Self {
        let Some(all) = &self.0 else { return Self::default() };
        Self::new(all.iter().filter(|(id, _)| !gone.contains(id)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn a_set_of_rows_beside_a_plain_set() {
        let random = &mut Random::new(1);
        for _ in 0..30 {
            let most = [200_000, 300][random.below(2)];
            let rows = 1 + random.below(most) as u32;
            let (mut validity, mut plain, mut kept) = (Validity::default(), BTreeSet::new(), None);
            for step in 0..random.below(400) {
                let row = random.below(rows as usize) as u32;
                validity.invalidate(row);
                plain.insert(row);
                if step == 100 {
                    kept = Some((validity.clone(), plain.clone()));
                }
            }
            let check = |validity: &Validity, plain: &BTreeSet<u32>, random: &mut Random| {
                assert_eq!(validity.invalid() as usize, plain.len());
                let from = random.below(rows as usize) as u32;
                let range = from..from + random.below((rows - from) as usize + 1) as u32;
                let expected = range.clone().filter(|row| !plain.contains(row)).collect::<Vec<_>>();
                let (base, mask) = validity.mask(&range);
                assert_eq!(mask.iter().map(|at| base + at as u32).collect::<Vec<_>>(), expected);
                assert_eq!(validity.invalid_in(range.clone()) as usize, range.len() - expected.len());
                assert_eq!(validity.any_in(range.clone()), !expected.is_empty());
                assert!(range.into_iter().all(|row| validity.is_valid(row) != plain.contains(&row)));
            };
            check(&validity, &plain, random);
            if let Some((validity, plain)) = &kept {
                check(validity, plain, random);
            }
            let before = random.below(rows as usize) as u32;
            let known: Validity = plain.iter().copied().filter(|row| *row < before).collect();
            let later: BTreeSet<u32> = plain.iter().copied().filter(|row| *row >= before).collect();
            check(&validity.beyond(&known).unwrap(), &later, random);
            check(&validity.beyond(&validity.clone()).unwrap(), &BTreeSet::new(), random);
            assert!(later.is_empty() || known.beyond(&validity).is_none(), "rows that are valid again");
            // Between what was kept and what is there now, with rows that came since.
            if let Some((then, before)) = &kept {
                let known = 1 + random.below(rows as usize) as u32;
                let (then, now) = (Arc::new(then.clone()), Arc::new(validity.clone()));
                for (now, is_gone, then, was_gone) in [
                    (Some(&now), &plain, Some(&then), before),
                    (Some(&then), before, Some(&now), &plain),
                    (Some(&now), &plain, None, &BTreeSet::new()),
                    (None, &BTreeSet::new(), Some(&now), &plain),
                    (Some(&now), &plain, Some(&now), &plain),
                    (None, &BTreeSet::new(), None, &BTreeSet::new()),
                ] {
                    let gained = |row: &u32| !is_gone.contains(row) && (*row >= known || was_gone.contains(row));
                    let others: BTreeSet<u32> = (0..rows).filter(|row| !gained(row)).collect();
                    match Validity::gained(now, rows, then, known) {
                        Some(mask) => check(&mask, &others, random),
                        None => assert_eq!(others.len(), rows as usize),
                    }
                }
            }
            let bytes = validity.to_bytes();
            let mut read = Validity::from_bytes(&bytes, rows).unwrap();
            check(&read, &plain, random);
            assert!(bytes.is_empty() || Validity::from_bytes(&bytes[..bytes.len() - 1], rows).is_none());
            if let Some(last) = plain.last() {
                assert!(Validity::from_bytes(&bytes, *last).is_none(), "a segment of fewer rows");
                read.revalidate(*last);
                assert!(read.is_valid(*last) && read.invalid() == validity.invalid() - 1);
                read.revalidate(*last);
                read.invalidate(*last);
                check(&read, &plain, random);
            }
            let mut order: Vec<u32> = (0..rows).collect();
            (1..order.len()).for_each(|at| order.swap(at, random.below(at + 1)));
            let permuted = validity.permuted(&order);
            assert!((0..rows).all(|place| permuted.is_valid(place) == validity.is_valid(order[place as usize])));
        }
    }
}
