//! The distinct values of a column without reading a row: those of its dictionary, which has no value that no row has.
//!
//! Where the segment has rows that are not valid it is not known whose values these are, so rows are read. Columns of one value (least and
//! greatest are the same), of nothing but nulls, or younger than the segment are known as well.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, new_null_array},
    compute::concat,
};

use super::{CommittedSegment, detach::detach};
use crate::{
    Result,
    aggregate::{AggregateRequest, Aggregation, GroupKey, metadata},
    evaluate::{default_array, scalar_array, widened},
    forward::Encoding,
    prune::widen,
    scalar::Scalar,
    scan::ScanMetrics,
    schema::Column,
    upsert::Validity,
};

/// Where the values of the key come from.
enum Source {
    Default,
    /// The column at this index has nulls only.
    Null,
    Dictionary(usize),
    One(Scalar),
}

/// Whether the groups are known.
pub(super) fn is_known(segment: &CommittedSegment, validity: Option<&Validity>, request: &AggregateRequest) -> bool {
    source(segment, &(0..segment.rows), validity, request).is_some()
}

/// The groups of `rows`, if they are known.
pub(super) fn begin(
    segment: &Arc<CommittedSegment>,
    rows: &Range<u32>,
    validity: Option<&Validity>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Option<Box<dyn Aggregation>>> {
    let Some((column, source)) = source(segment, rows, validity, request) else { return Ok(None) };
    let values = values(segment, column, &source).map_err(|error| segment.failed(error))?;
    let Some(values) = values else { return Ok(None) };
    let groups = metadata::Answered::of(request.output_schema()?, vec![values], rows.end, metrics);
    Ok(Some(Box::new(groups)))
}

fn source<'r>(
    segment: &CommittedSegment,
    rows: &Range<u32>,
    validity: Option<&Validity>,
    request: &'r AggregateRequest,
) -> Option<(&'r Column, Source)> {
    let [GroupKey { column, bin: None }] = request.keys.as_slice() else { return None };
    let has_invalid = validity.is_some_and(|validity| validity.invalid_in(rows.clone()) > 0);
    if !request.aggregates.is_empty() || has_invalid || !metadata::is_of_all_rows(segment, rows, request) {
        return None;
    }
    let column = request.column(*column).ok()?;
    let Some(index) = segment.schema.index_of(column.id) else { return Some((column, Source::Default)) };
    let stats = &segment.stats[index];
    if stats.nulls >= u64::from(segment.rows) {
        return Some((column, Source::Null));
    }
    if segment.columns[index].encoding == Encoding::Dictionary as u8 {
        return Some((column, Source::Dictionary(index)));
    }
    let (min, max) = (stats.min.as_ref()?, stats.max.as_ref()?);
    if !stats.exact || min != max || stats.nulls > 0 {
        return None;
    }
    let one = widen(min, &segment.schema.columns[index].data_type, &column.data_type)?;
    Some((column, Source::One(one.into_owned())))
}

/// Each value once, in no order that counts, and a null where a row has none.
fn values(segment: &CommittedSegment, column: &Column, source: &Source) -> Result<Option<ArrayRef>> {
    Ok(Some(match source {
        Source::Default => default_array(column, 1)?,
        Source::Null => new_null_array(&column.data_type.arrow(), 1),
        Source::One(value) => scalar_array(value, &column.data_type)?,
        Source::Dictionary(index) => {
            let named = |error| segment.named(error, *index);
            let reader = segment.reader(*index)?;
            let Some(values) = reader.dictionary().map_err(named)? else { return Ok(None) };
            let values = detach(&segment.file, &widened(values, column)?)?;
            let values = match reader.null_count() {
                0 => values,
                _ => concat(&[values.as_ref(), &new_null_array(values.data_type(), 1)])?,
            };
            // As in a scan: nothing in it points into the map, which is sound now.
            segment.file.check()?;
            values
        }
    }))
}
