//! Retention by time column: which segments are over their time.
//!
//! A segment goes as a whole, when its newest row is older than the table keeps rows; a consuming one is sealed for it. A segment without a time range (no time column when it was
//! written, or all NULL) stays.

use tidemill_storage::{
    ids::SegmentId,
    scalar::Scalar,
    schema::{DataType, TableSchema},
    segment::{Segment, consuming::ConsumingSegment},
};

use crate::commit::SegmentRecord;

const DAY_US: i64 = 86_400_000_000;

/// The oldest value of the time column, in its own unit, that is kept. `None` when the table has no time column.
pub(crate) fn cutoff(schema: &TableSchema, now_us: i64, keep_us: i64) -> Option<i64> {
    let column = schema.column(schema.time_column?)?;
    let oldest_us = now_us.saturating_sub(keep_us);
    match column.data_type {
        DataType::Date => Some(oldest_us.div_euclid(DAY_US)),
        DataType::Timestamp | DataType::TimestampTz => Some(oldest_us),
        _ => None,
    }
}

/// The segments whose every row is older than `cutoff`.
pub(crate) fn expired(segments: &[SegmentRecord], cutoff: i64) -> Vec<SegmentId> {
    segments
        .iter()
        .filter(|segment| segment.time_range.is_some_and(|(_, newest)| newest < cutoff))
        .map(|segment| segment.id)
        .collect()
}

/// Whether every row of a consuming segment is older than `cutoff`.
pub(crate) fn is_consuming_expired(segment: &ConsumingSegment, cutoff: i64) -> bool {
    let time = segment.schema().time_column.and_then(|column| segment.stats(column));
    matches!(time.and_then(|stats| stats.max.as_ref()), Some(Scalar::Int(newest)) if *newest < cutoff)
}

#[cfg(test)]
mod tests {
    use tidemill_storage::{
        ids::{ColumnId, SchemaVersion},
        schema::Column,
    };

    use super::*;

    fn schema(data_type: DataType, time_column: Option<ColumnId>) -> TableSchema {
        let column = Column::new(ColumnId(1), "at", data_type);
        TableSchema { version: SchemaVersion(1), columns: vec![column], time_column }
    }

    fn segment(id: u64, time_range: Option<(i64, i64)>) -> SegmentRecord {
        SegmentRecord {
            id: SegmentId(id),
            file: String::new(),
            bytes: 0,
            checksum: 0,
            rows: 1,
            schema_version: SchemaVersion(1),
            time_range,
            offsets: Vec::new(),
            committed_at_us: 0,
            tombstones: 0,
            purged: 0,
            keys_left_us: None,
        }
    }

    #[test]
    fn the_cutoff_is_in_the_columns_unit() {
        let at = Some(ColumnId(1));
        assert_eq!(cutoff(&schema(DataType::TimestampTz, at), 10 * DAY_US + 5, 3 * DAY_US), Some(7 * DAY_US + 5));
        assert_eq!(cutoff(&schema(DataType::Date, at), 10 * DAY_US + 5, 3 * DAY_US), Some(7));
        assert_eq!(cutoff(&schema(DataType::Date, at), DAY_US, 3 * DAY_US + 1), Some(-3));
        assert_eq!(cutoff(&schema(DataType::Text, at), 10, 3), None);
        assert_eq!(cutoff(&schema(DataType::Date, None), 10, 3), None);
    }

    #[test]
    fn only_whole_old_segments_go() {
        let segments =
            [segment(1, Some((0, 9))), segment(2, Some((0, 10))), segment(3, None), segment(4, Some((-5, -1)))];
        assert_eq!(expired(&segments, 10), [SegmentId(1), SegmentId(4)]);
    }
}
