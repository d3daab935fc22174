//! Rows first by index, then by test.
//!
//! ```text
//! a = 1  AND  b IN (2, 3)  AND  c LIKE '%x%'       leaves that indexes know of: ask how many rows, take the fewest first
//!   └ 40 rows   └ 9,000 rows    └ no index
//! rows of a, one bit each ─► blocks without one are not looked at ─► the other tests, on the rows that are left
//! ```
//!
//! An index is worth it where listing its rows costs less than finding them in the packed column, which SIMD does at ten rows a
//! nanosecond: what either costs was measured by `storage/benches/index.rs`.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use super::{CommittedSegment, filter::Filter};
use crate::{
    Result,
    bitpack::Bitmask,
    ids::IndexId,
    index::{Found, Part, attached::AttachedIndex},
    predicate::Predicate,
    scan::{IndexUse, ScanHints, ScanMetrics},
    schema::TableSchema,
    upsert::Validity,
};

/// Nanoseconds for a row that an index lists.
const LISTING: f64 = 1.2;
/// Nanoseconds for a row of the segment in a bitmap, whether it is set there or not.
const BIT: f64 = 0.01;
/// Nanoseconds for testing one of few rows that are left.
const TESTING: f64 = 2.0;
/// Nanoseconds for asking at all.
const ASKING: f64 = 400.0;
/// Nanoseconds for a row of a column that is decoded and cast before it is compared.
const WIDENING: f64 = 5.0;

/// Rows that are known to pass, or to be all that may, not listed yet.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Of an index.
    Index { index: Arc<AttachedIndex>, found: Found },
    /// Of a sorted column: all that pass.
    Runs(Vec<Range<u32>>),
}

impl Lookup {
    /// Rows of the whole segment, at most.
    fn rows(&self) -> u64 {
        match self {
            Self::Index { found, .. } => found.rows,
            Self::Runs(runs) => runs.iter().map(|run| run.len() as u64).sum(),
        }
    }

    /// Whether it goes by values, not by ids of a dictionary.
    pub(super) fn is_by_value(&self) -> bool {
        match self {
            Self::Index { found, .. } => !found.parts.iter().all(|part| matches!(part, Part::Keys(_))),
            Self::Runs(_) => false,
        }
    }

    /// The rows of both, of one column; `None` where that is not known.
    pub(super) fn both(&self, other: &Self) -> Option<Self> {
        let common = |a: &Range<u32>, b: &Range<u32>| a.start.max(b.start)..a.end.min(b.end).max(a.start.max(b.start));
        match (self, other) {
            (Self::Runs(these), Self::Runs(those)) => {
                let all = these.iter().flat_map(|a| those.iter().map(move |b| common(a, b)));
                Some(Self::Runs(all.filter(|run| !run.is_empty()).collect()))
            }
            (Self::Index { index, found: a }, Self::Index { index: same, found: b }) if index.id == same.id => {
                Some(Self::Index { index: Arc::clone(index), found: a.both(b)? })
            }
            _ => None,
        }
    }

    /// Adds those in `rows` to `out`, whose bit 0 is row `base`: whether all of them pass. `None` when an index failed.
    fn list(&self, segment: &CommittedSegment, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Option<bool> {
        match self {
            Self::Index { index, found } => match index.add(found, rows, base, out) {
                Ok(()) => Some(found.exact),
                Err(error) => {
                    segment.lose_index(index.id, &error);
                    None
                }
            },
            Self::Runs(runs) => {
                for run in runs {
                    let (start, end) = (run.start.max(rows.start), run.end.min(rows.end));
                    if start < end {
                        out.set_in((start - base) as usize..(end - base) as usize);
                    }
                }
                Some(true)
            }
        }
    }
}

/// Rows of a run, one bit each.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The row of bit 0.
    base: u32,
    mask: Bitmask,
}

impl Candidates {
    pub(super) fn apply(&self, rows: &Range<u32>, mask: &mut Bitmask) {
        mask.and_at(&self.mask, (rows.start - self.base) as usize);
    }
}

impl Filter {
    /// The filter for some rows of a segment, with what its indexes know.
    pub(super) fn of_rows(
        predicate: &Predicate,
        current: &TableSchema,
        segment: &CommittedSegment,
        rows: &Range<u32>,
        indexes: IndexUse,
        metrics: &ScanMetrics,
    ) -> Result<Self> {
        let filter = Self::new(predicate, current, segment, indexes != IndexUse::Off)?;
        if indexes == IndexUse::Off { Ok(filter) } else { filter.with_rows_known(segment, rows, indexes, metrics) }
    }

    fn with_rows_known(
        self,
        segment: &CommittedSegment,
        rows: &Range<u32>,
        indexes: IndexUse,
        metrics: &ScanMetrics,
    ) -> Result<Self> {
        let parts = match self {
            Self::Nothing | Self::Everything => return Ok(self),
            Self::And(parts) => parts,
            one => vec![one],
        };
        let share = f64::from(rows.len() as u32) / f64::from(segment.rows.max(1));
        let mut known = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let Some(found) = part.known_rows() else { continue };
            let listing = part.listing_cost(segment) * share;
            if listing == 0.0
                || indexes == IndexUse::Always
                || ASKING + listing < part.plain_cost(segment)? * rows.len() as f64
            {
                known.push((found, at));
            }
        }
        known.sort_unstable();
        let base = rows.start & !63;
        let mut mask: Option<Bitmask> = None;
        let mut answered = vec![false; parts.len()];
        for (_, at) in known {
            let listing = parts[at].listing_cost(segment) * share;
            if let Some(mask) = &mask
                && indexes != IndexUse::Always
                && listing > TESTING.max(parts[at].plain_cost(segment)?) * mask.count() as f64
            {
                continue;
            }
            let mut listed = Bitmask::none((rows.end - base) as usize);
            let Some(exact) = parts[at].list(segment, rows, base, &mut listed) else { continue };
            for index in parts[at].asked() {
                metrics.found(index, listed.count() as u64);
            }
            answered[at] = exact;
            mask = Some(match mask {
                None => listed,
                Some(mut mask) => {
                    mask.and(&listed);
                    mask
                }
            });
        }
        let mut left: Vec<Self> =
            parts.into_iter().zip(answered).filter(|(_, answered)| !answered).map(|(part, _)| part).collect();
        if let Some(mask) = mask {
            let count = mask.count();
            metrics.rows_by_index.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
            if count == 0 {
                return Ok(Self::Nothing);
            }
            if count < rows.len() {
                left.insert(0, Self::Rows(Candidates { base, mask }));
            }
        }
        Ok(match left.len() {
            0 => Self::Everything,
            1 => left.swap_remove(0),
            _ => Self::And(left),
        })
    }

    /// The filter, and of the rows that it leaves those whose places may pass, as far as indexes know.
    pub(super) fn with_hints(
        self,
        segment: &CommittedSegment,
        rows: &Range<u32>,
        hints: &ScanHints,
        metrics: &ScanMetrics,
    ) -> Self {
        if hints.indexes == IndexUse::Off || matches!(self, Self::Nothing) {
            return self;
        }
        let base = rows.start & !63;
        let mut found: Option<Bitmask> = None;
        // A place costs as much as listing ten.
        let worth = |count: u64| hints.indexes == IndexUse::Always || count < u64::from(segment.rows) * 3 / 4;
        let places = hints.places.iter().map(|test| segment.places(test, rows, base, worth));
        for listed in places.flatten() {
            found = Some(match found {
                None => listed,
                Some(mut found) => {
                    found.and(&listed);
                    found
                }
            });
        }
        let Some(mask) = found else { return self };
        metrics.rows_by_index.fetch_add(mask.count() as u64, std::sync::atomic::Ordering::Relaxed);
        self.with_rows(base, mask)
    }

    /// The filter, and of the rows that it leaves those that are valid.
    pub(super) fn with_validity(self, validity: Option<&Validity>, rows: &Range<u32>) -> Self {
        match validity {
            Some(validity) if !matches!(self, Self::Nothing) && validity.invalid_in(rows.clone()) > 0 => {
                let (base, mask) = validity.mask(rows);
                self.with_rows(base, mask)
            }
            _ => self,
        }
    }

    /// The filter, and of the rows that it leaves those of `mask`, whose bit 0 is row `base`: the first of the run, or up to 63 before it.
    fn with_rows(self, base: u32, mut mask: Bitmask) -> Self {
        let mut parts = match self {
            Self::Everything => Vec::new(),
            Self::And(parts) => parts,
            one => vec![one],
        };
        if let Some(Self::Rows(known)) = parts.first() {
            mask.and(&known.mask);
            parts.remove(0);
        }
        if mask.is_none() {
            return Self::Nothing;
        }
        parts.insert(0, Self::Rows(Candidates { base, mask }));
        if parts.len() == 1 { parts.swap_remove(0) } else { Self::And(parts) }
    }

    /// How many rows indexes would list, at most; `None` when they do not know all that pass.
    fn known_rows(&self) -> Option<u64> {
        match self {
            Self::Encoded { lookup, .. } => lookup.as_ref().map(Lookup::rows),
            Self::Or(parts) => parts.iter().map(Self::known_rows).sum(),
            Self::And(parts) => parts.iter().filter_map(Self::known_rows).min(),
            _ => None,
        }
    }

    /// Nanoseconds for listing the rows that are known, of the whole segment; runs of rows cost next to nothing.
    fn listing_cost(&self, segment: &CommittedSegment) -> f64 {
        match self {
            Self::Encoded { lookup: Some(Lookup::Index { found, .. }), .. } => {
                let bits = found.bitmaps as f64 * f64::from(segment.rows);
                LISTING * found.rows.saturating_sub(found.as_bits).max(1) as f64 + BIT * bits
            }
            Self::Or(parts) => parts.iter().map(|part| part.listing_cost(segment)).sum(),
            Self::And(parts) => {
                let known = parts.iter().filter(|part| part.known_rows().is_some());
                known.min_by_key(|part| part.known_rows()).map_or(0.0, |part| part.listing_cost(segment))
            }
            _ => 0.0,
        }
    }

    /// Adds what the indexes know to `out`, whose bit 0 is row `base`: whether all of these rows pass. `None` when an index failed.
    fn list(&self, segment: &CommittedSegment, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Option<bool> {
        match self {
            Self::Encoded { lookup: Some(lookup), .. } => lookup.list(segment, rows, base, out),
            Self::Or(parts) => {
                let mut exact = true;
                for part in parts {
                    exact &= part.list(segment, rows, base, out)?;
                }
                Some(exact)
            }
            Self::And(parts) => {
                let known = parts.iter().filter(|part| part.known_rows().is_some());
                known.min_by_key(|part| part.known_rows())?.list(segment, rows, base, out).map(|_| false)
            }
            _ => None,
        }
    }

    /// The indexes that [`Self::list`] asks; `None`: the order of the rows is one.
    fn asked(&self) -> BTreeSet<Option<IndexId>> {
        match self {
            Self::Encoded { lookup: Some(Lookup::Index { index, .. }), .. } => BTreeSet::from([Some(index.id)]),
            Self::Encoded { lookup: Some(Lookup::Runs(_)), .. } => BTreeSet::from([None]),
            Self::Or(parts) => parts.iter().flat_map(Self::asked).collect(),
            Self::And(parts) => {
                let known = parts.iter().filter(|part| part.known_rows().is_some());
                known.min_by_key(|part| part.known_rows()).map(Self::asked).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Nanoseconds for a row without an index.
    fn plain_cost(&self, segment: &CommittedSegment) -> Result<f64> {
        Ok(match self {
            Self::Nothing | Self::Everything | Self::Rows(_) | Self::Fails(_) => 0.0,
            Self::Encoded { index, test, .. } => segment.reader(*index)?.select_cost(test),
            Self::Widened { .. } => WIDENING,
            Self::And(parts) | Self::Or(parts) => {
                let mut cost = 0.0;
                for part in parts {
                    cost += part.plain_cost(segment)?;
                }
                cost
            }
        })
    }

    /// The first row at or above `row` that may pass, as far as indexes know.
    pub(super) fn first_from(&self, row: u32) -> Option<u32> {
        let Some(Candidates { base, mask }) = self.candidates() else { return Some(row) };
        mask.next_from((row - base) as usize).map(|found| base + found as u32)
    }

    /// The last row below `end` that may pass, as far as indexes know.
    pub(super) fn last_below(&self, end: u32) -> Option<u32> {
        let Some(Candidates { base, mask }) = self.candidates() else { return end.checked_sub(1) };
        mask.last_below((end - base) as usize).map(|found| base + found as u32)
    }

    /// The share of the rows that may pass, as far as indexes know.
    pub(super) fn share_left(&self) -> f64 {
        match self.candidates() {
            Some(Candidates { mask, .. }) if !mask.is_empty() => mask.count() as f64 / mask.len() as f64,
            _ => 1.0,
        }
    }

    fn candidates(&self) -> Option<&Candidates> {
        match self {
            Self::Rows(candidates) => Some(candidates),
            Self::And(parts) => match parts.first() {
                Some(Self::Rows(candidates)) => Some(candidates),
                _ => None,
            },
            _ => None,
        }
    }
}
