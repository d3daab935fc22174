//! How old rows are, in tables that do not know keys for ever (`key_ttl`), and what follows from it. Nothing here asks a clock: a row is as old as it is
//! far behind the newest row of its partition.
//!
//! ```text
//!   times of rows of one key    ·· a ·· b ·················· c ··►         ≤ key_ttl between a and b: b takes the place of a
//!                                                                          > key_ttl between b and c: c is another key's row, both are seen
//!   the newest row is at N      ──────┬──────────┬────────── N
//!                              N - 2 ttl     N - ttl
//!   a row that comes            not seen, not seen │ on time
//!   a key in the map         left │ stays, so that a row on time finds all that it is near to
//! ```
//!
//! - Two rows of a key are *near* if their times are at most key_ttl apart, a property of the two alone. Of rows that are near one wins, by rank; others
//!   know nothing of each other.
//! - A row that comes *late*, more than key_ttl behind the newest row that came before it, is not seen: nobody knows any more what it is near to. So
//!   every order of arrival in which no row comes late ends in the same table.
//! - Whatever a row on time is near to is at most 2 key_ttl behind the newest row: what is older has left the map.
//! - A row without a time is near to every row of its key that is still in the map, and is never late.

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Date32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};

use super::KeyAges;
use crate::{Error, Result, ids::ColumnId, scalar::Scalar, segment::Segment};

const DAY_US: i64 = 86_400_000_000;

/// The times of rows, microseconds since 1970; an infinite one is the largest or smallest there is.
pub(super) fn micros(times: &ArrayRef) -> Result<Int64Array> {
    match times.data_type() {
        DataType::Date32 => {
            Ok(times.as_primitive::<Date32Type>().unary::<_, Int64Type>(|days| i64::from(days).saturating_mul(DAY_US)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
        }
        other => Err(Error::Invalid(format!("rows cannot be aged by a column of type {other}"))),
    }
}

/// The times of the oldest and the newest row of a segment, by its statistics, microseconds since 1970. `None` when no row has one, or none is known.
pub fn segment_span_us(segment: &dyn Segment, column: ColumnId) -> Option<(i64, i64)> {
    let stats = segment.stats(column)?;
    let (Some(Scalar::Int(oldest)), Some(Scalar::Int(newest))) = (&stats.min, &stats.max) else { return None };
    let is_date = segment.schema().column(column)?.data_type == crate::schema::DataType::Date;
    let micros = |time: i64| if is_date { time.saturating_mul(DAY_US) } else { time };
    Some((micros(*oldest), micros(*newest)))
}

/// The newest of them.
pub fn segment_newest_us(segment: &dyn Segment, column: ColumnId) -> Option<i64> {
    segment_span_us(segment, column).map(|(_, newest)| newest)
}

impl KeyAges {
    /// Whether rows of one key with these times know of each other.
    pub(super) fn near(&self, a: Option<i64>, b: Option<i64>) -> bool {
        match (self.key_us, a, b) {
            (Some(key_us), Some(a), Some(b)) => a.abs_diff(b) <= key_us.unsigned_abs(),
            _ => true,
        }
    }

    /// The largest time at which a row comes late.
    pub(super) fn late_below(&self, newest: i64) -> Option<i64> {
        self.key_us.map(|key_us| newest.saturating_sub(key_us))
    }

    /// Keys of rows that are all older may leave the map.
    pub(super) fn leaves_below(&self, newest: i64) -> Option<i64> {
        self.key_us.map(|key_us| newest.saturating_sub(key_us).saturating_sub(key_us))
    }

    /// Tombstones that are older may be forgotten.
    pub fn forgotten_below(&self, newest: i64) -> Option<i64> {
        self.tombstone_us.map(|tombstone_us| newest.saturating_sub(tombstone_us))
    }
}

/// Which of new rows come late, and the newest time after them. `newest` is that before.
pub(super) fn late_rows(
    ages: Option<&KeyAges>,
    mut newest: Option<i64>,
    rows: usize,
    time: impl Fn(usize) -> Option<i64>,
) -> (Option<Vec<bool>>, Option<i64>) {
    let Some(ages) = ages else { return (None, newest) };
    let mut late: Option<Vec<bool>> = None;
    for row in 0..rows {
        let Some(at) = time(row) else { continue };
        if newest.and_then(|newest| ages.late_below(newest)).is_some_and(|bound| at < bound) {
            late.get_or_insert_with(|| vec![false; rows])[row] = true;
        }
        newest = newest.max(Some(at));
    }
    (late, newest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int32Array, TimestampMicrosecondArray};

    use super::*;

    fn ages(key_us: Option<i64>) -> KeyAges {
        KeyAges { column: ColumnId(0), key_us, tombstone_us: Some(5) }
    }

    #[test]
    fn rows_are_near_or_not_and_come_late_when_they_are_far_behind() {
        let ages = ages(Some(10));
        for (a, b, is_near) in [(0, 10, true), (10, 0, true), (0, 11, false), (i64::MIN, i64::MAX, false)] {
            assert_eq!(ages.near(Some(a), Some(b)), is_near, "{a} {b}");
        }
        assert!(ages.near(None, Some(1)) && ages.near(None, None));
        let times = [Some(5), None, Some(20), Some(10), Some(9), Some(31), Some(20)];
        let (late, newest) = late_rows(Some(&ages), None, times.len(), |row| times[row]);
        assert_eq!((late.unwrap(), newest), (vec![false, false, false, false, true, false, true], Some(31)));
        assert_eq!(late_rows(Some(&ages), Some(15), 1, |_| Some(5)).0, None);
        assert_eq!(late_rows(None, None, 2, |_| Some(5)), (None, None));
        assert_eq!((ages.leaves_below(30), ages.forgotten_below(30)), (Some(10), Some(25)));
        assert_eq!(ages.late_below(i64::MIN), Some(i64::MIN));
    }

    #[test]
    fn times_are_microseconds_whatever_their_type() {
        let of = |array: ArrayRef| micros(&array).map(|times| times.iter().collect::<Vec<_>>());
        assert_eq!(of(Arc::new(Date32Array::from(vec![Some(2), None]))).unwrap(), [Some(2 * DAY_US), None]);
        assert_eq!(of(Arc::new(TimestampMicrosecondArray::from(vec![7]))).unwrap(), [Some(7)]);
        assert!(of(Arc::new(Int32Array::from(vec![7]))).is_err());
    }
}
