//! The order in which a scan deals its units when an ORDER BY with a LIMIT stands above it: by what statistics promise of their best row.

use std::cmp::Ordering;

use tidemill_storage::{ids::ColumnId, scalar::Scalar, scan::ScanUnit};

#[derive(Clone, Copy, Debug)]
pub(super) struct UnitOrder {
    pub(super) column: ColumnId,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

impl UnitOrder {
    /// Best first. Of one segment, rows that came late come first where large values are wanted: where time is what grows, they have them.
    pub(super) fn sort(self, units: &mut [ScanUnit]) {
        // Of the units of one segment the statistics are the same, so each is looked up once per unit and not per comparison.
        units.sort_by_cached_key(|unit| Key { order: self, best: self.best(unit), start: unit.rows.start });
    }

    fn best(self, unit: &ScanUnit) -> Best {
        let Some(stats) = unit.segment.stats(self.column) else { return Best::Unknown };
        if self.nulls_first && stats.nulls > 0 {
            return Best::Unknown;
        }
        match if self.descending { &stats.max } else { &stats.min } {
            Some(value) => Best::Value(value.clone()),
            // Only nulls, or statistics are not kept.
            None if stats.nulls == u64::from(unit.segment.rows()) => Best::Null,
            None => Best::Unknown,
        }
    }
}

/// The best value that a unit may have.
enum Best {
    /// It may be any: it is looked at first.
    Unknown,
    Value(Scalar),
    Null,
}

struct Key {
    order: UnitOrder,
    best: Best,
    start: u32,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |best: &Best| match best {
            Best::Unknown => 0,
            Best::Value(_) => 1,
            Best::Null => 2,
        };
        let by_value = match (&self.best, &other.best) {
            (Best::Value(a), Best::Value(b)) => a.compare(b).unwrap_or(Ordering::Equal),
            (a, b) => return rank(a).cmp(&rank(b)).then(self.by_place(other)),
        };
        let by_value = if self.order.descending { by_value.reverse() } else { by_value };
        by_value.then(self.by_place(other))
    }
}

impl Key {
    fn by_place(&self, other: &Self) -> Ordering {
        let by_place = self.start.cmp(&other.start);
        if self.order.descending { by_place.reverse() } else { by_place }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}
