//! What the segments' statistics say of a scan's rows, in DataFusion's form.
//!
//! `Exact` is a promise: `count(*)`, `min` and `max` are answered from it without reading a row. It is given only when nothing was
//! filtered, every segment knows, and all rows of all segments are there.

use arrow::datatypes::Schema;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics, stats::Precision};
use tidemill_storage::{
    ids::ColumnId,
    scalar::Scalar,
    scan::{ScanPlan, ScanRequest},
    schema::DataType,
    segment::{ColumnStats, SegmentState},
    table::TableSnapshot,
};

/// `has_key`: the table shows one row of each key.
pub(crate) fn of_scan(
    snapshot: &TableSnapshot,
    has_key: bool,
    plan: &ScanPlan,
    request: &ScanRequest,
    output: &Schema,
) -> Statistics {
    let rows: usize = plan.units.iter().map(|unit| unit.rows.len()).sum();
    let mut statistics = Statistics::new_unknown(output);
    if request.predicate.is_some() {
        statistics.num_rows = Precision::Inexact(rows.div_ceil(4));
        return statistics;
    }
    if !snapshot.is_whole() || has_key && has_damaged(snapshot) {
        // What segments know is about rows that lost, too; and nobody knows which lost against those of a damaged segment.
        let there = usize::try_from(snapshot.rows()).unwrap_or(usize::MAX);
        statistics.num_rows = Precision::Inexact(there.min(request.limit.unwrap_or(usize::MAX)));
        return statistics;
    }
    statistics.num_rows = match request.limit {
        None => Precision::Exact(rows),
        Some(limit) => Precision::Inexact(rows.min(limit)),
    };
    if request.limit.is_none() {
        statistics.column_statistics =
            request.projection.iter().map(|id| of_column(snapshot, request, *id).unwrap_or_default()).collect();
    }
    statistics
}

fn has_damaged(snapshot: &TableSnapshot) -> bool {
    let mut segments = snapshot.views.iter().flat_map(|view| view.segments());
    segments.any(|segment| segment.state() == SegmentState::Quarantined)
}

/// `None` when one segment does not know, or knows bounds only.
fn of_column(snapshot: &TableSnapshot, request: &ScanRequest, id: ColumnId) -> Option<ColumnStatistics> {
    let data_type = &request.schema.column(id)?.data_type;
    if matches!(data_type, DataType::Real | DataType::Double | DataType::Jsonb | DataType::Array(_)) {
        // NaN and -0 make min and max of floats a matter of order that Arrow and SQL see differently.
        return None;
    }
    let mut nulls = 0u64;
    let mut least: Option<Scalar> = None;
    let mut greatest: Option<Scalar> = None;
    for segment in snapshot.views.iter().flat_map(|view| view.segments()) {
        if segment.rows() == 0 {
            continue;
        }
        // A column that was widened since has its values in another form.
        if segment.schema().column(id).map(|column| &column.data_type) != Some(data_type) {
            return None;
        }
        let ColumnStats { min, max, exact, nulls: here, .. } = segment.stats(id)?.clone();
        nulls += here;
        if here < u64::from(segment.rows()) && (!exact || min.is_none() || max.is_none()) {
            return None;
        }
        least = smaller(least, min, std::cmp::Ordering::Less)?;
        greatest = smaller(greatest, max, std::cmp::Ordering::Greater)?;
    }
    let value = |scalar: Option<Scalar>| match scalar.map(|scalar| scalar_value(&scalar, data_type)) {
        Some(Some(value)) => Precision::Exact(value),
        _ => Precision::Absent,
    };
    Some(ColumnStatistics {
        null_count: Precision::Exact(usize::try_from(nulls).ok()?),
        min_value: value(least),
        max_value: value(greatest),
        ..ColumnStatistics::default()
    })
}

fn smaller(a: Option<Scalar>, b: Option<Scalar>, wanted: std::cmp::Ordering) -> Option<Option<Scalar>> {
    Some(match (a, b) {
        (Some(a), Some(b)) => Some(if b.compare(&a)? == wanted { b } else { a }),
        (a, b) => a.or(b),
    })
}

/// A stored value in the column's Arrow form.
pub(crate) fn scalar_value(scalar: &Scalar, data_type: &DataType) -> Option<ScalarValue> {
    Some(match (scalar, data_type) {
        (Scalar::Boolean(v), DataType::Boolean) => ScalarValue::Boolean(Some(*v)),
        (Scalar::Int(v), DataType::SmallInt) => ScalarValue::Int16(Some(i16::try_from(*v).ok()?)),
        (Scalar::Int(v), DataType::Int) => ScalarValue::Int32(Some(i32::try_from(*v).ok()?)),
        (Scalar::Int(v), DataType::BigInt) => ScalarValue::Int64(Some(*v)),
        (Scalar::Int(v), DataType::Date) => ScalarValue::Date32(Some(i32::try_from(*v).ok()?)),
        (Scalar::Int(v), DataType::Timestamp) => ScalarValue::TimestampMicrosecond(Some(*v), None),
        (Scalar::Int(v), DataType::TimestampTz) => ScalarValue::TimestampMicrosecond(Some(*v), Some("UTC".into())),
        (Scalar::Float(v), DataType::Double) => ScalarValue::Float64(Some(*v)),
        (Scalar::Float(v), DataType::Real) => ScalarValue::Float32(Some(*v as f32)),
        (Scalar::Decimal(v), DataType::Numeric { precision, scale }) => {
            ScalarValue::Decimal128(Some(*v), *precision, *scale)
        }
        (Scalar::Text(v), DataType::Text | DataType::Uuid) => ScalarValue::Utf8View(Some(v.to_string())),
        (Scalar::Bytes(v), DataType::Bytea) => ScalarValue::BinaryView(Some(v.to_vec())),
        _ => return None,
    })
}
