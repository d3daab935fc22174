//! Whether grouping in the segments pays: by the statistics of the keys.
//!
//! Where nearly every row is a group of its own, partial aggregation does work that the final one does again; then rows go up as they are.

use tidemill_storage::{
    aggregate::{AggregateRequest, GroupKey},
    index::IndexKind,
    scalar::Scalar,
    scan::{ScanPlan, ScanUnit},
    schema::DataType,
    segment::{ColumnStats, Segment, SegmentState},
};

/// Rows of a group, on average, at least.
const ROWS_PER_GROUP_MIN: u64 = 2;
/// Rows of a value of a key of which another key is computed.
const ROWS_PER_VALUE_MIN: u64 = 8;
/// So many groups of a segment are always worth it.
const GROUPS_SMALL: u64 = 64 * 1024;

pub(super) fn pays(plan: &ScanPlan, request: &AggregateRequest) -> bool {
    if request.keys.is_empty() || is_known(plan, request) {
        return true;
    }
    let (rows, groups) = groups(plan, request);
    groups.saturating_mul(ROWS_PER_GROUP_MIN) <= rows
}

/// Whether committed segments know their groups without reading rows.
pub(super) fn is_known(plan: &ScanPlan, request: &AggregateRequest) -> bool {
    let committed = |unit: &&ScanUnit| unit.segment.state() == SegmentState::Committed;
    request.keys.len() == 1
        && request.aggregates.is_empty()
        && plan.units.iter().any(|unit| committed(&unit))
        && plan.units.iter().filter(committed).all(|unit| unit.segment.answers_by_metadata(request))
}

/// Whether the values of a column are so few that what is computed of each is computed of few.
pub(super) fn has_few_values(plan: &ScanPlan, key: &GroupKey) -> bool {
    let mut last = None;
    plan.units.iter().all(|unit| {
        let segment = unit.segment.as_ref();
        if last.replace(segment.id()) == Some(segment.id()) {
            return true;
        }
        match distinct(segment, key) {
            Some(values) => values.saturating_mul(ROWS_PER_VALUE_MIN) <= u64::from(segment.rows()) || values <= 2,
            // Texts of a consuming segment have no statistics, and are few more often than not.
            None => segment.schema().column(key.column).is_some_and(|column| column.data_type == DataType::Text),
        }
    })
}

/// Rows of committed segments, and their groups: at most, each segment by itself, without those that have few.
pub(super) fn groups(plan: &ScanPlan, request: &AggregateRequest) -> (u64, u64) {
    let may_have_trees =
        request.star_tree && plan.indexes.iter().any(|index| matches!(index.kind, IndexKind::StarTree(_)));
    let (mut rows, mut groups, mut last) = (0u64, 0u64, None);
    for unit in &plan.units {
        // Texts of a consuming segment have no statistics; there are few of its rows beside those of committed ones.
        if unit.segment.state() != SegmentState::Committed || last == Some(unit.segment.id()) {
            continue;
        }
        last = Some(unit.segment.id());
        let segment = unit.segment.as_ref();
        let here = u64::from(segment.rows());
        rows += here;
        // Documents are groups already.
        if may_have_trees && segment.answering_tree(request).is_some() {
            continue;
        }
        let product =
            request.keys.iter().fold(1u64, |all, key| all.saturating_mul(distinct(segment, key).unwrap_or(here)));
        groups += if product <= GROUPS_SMALL { 0 } else { product.min(here) };
    }
    (rows, groups)
}

/// Values that the key has in a segment, at most; `None` when that is not known.
fn distinct(segment: &dyn Segment, key: &GroupKey) -> Option<u64> {
    if segment.schema().column(key.column).is_none() {
        return Some(1);
    }
    let ColumnStats { min, max, distinct, nulls, .. } = segment.stats(key.column)?;
    let null = u64::from(*nulls > 0);
    let range = match (min, max) {
        (Some(Scalar::Int(min)), Some(Scalar::Int(max))) => {
            let steps = max.abs_diff(*min) / key.bin.map_or(1, |bin| bin.width.unsigned_abs().max(1));
            // All bigints are one more than a u64 counts.
            Some(steps.saturating_add(1))
        }
        (Some(Scalar::Boolean(_)), _) => Some(2),
        (None, _) if *nulls == u64::from(segment.rows()) => Some(0),
        _ => None,
    };
    let counted = distinct.filter(|distinct| *distinct > 0);
    [range, counted].into_iter().flatten().min().map(|values| values.saturating_add(null).max(1))
}
