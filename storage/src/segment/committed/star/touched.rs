//! The least and the greatest values of the valid rows of groups: what documents say of all rows, where none of those that are not valid can have been it;
//! of the other groups, which these rows touched, the valid rows are read.
//!
//! First only rows at least as far out as the least far of the ends that were lost: where several rows of a group have its end that finds one of
//! them among few rows. Of these first a part of the segment: where values are few, each group's end is soon met again, and nothing is beyond it. Then all
//! rows of the groups that are left.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array},
    compute::{interleave, kernels::cmp::eq, take},
};

use super::{
    super::{CommittedSegment, aggregate::CommittedAggregation},
    less::rows_as_bytes,
};
use crate::{
    Error, Result,
    aggregate::{Aggregate, AggregateRequest, Aggregation, Function},
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::ScanMetrics,
    schema::DataType,
    segment::ColumnStats,
    stats::column_stats,
    upsert::Validity,
};

/// More groups, or values of a key, are no condition any more.
const GROUPS_MAX: usize = 4096;
const VALUES_MAX: usize = 1000;

/// Whether the ends of a column can be told so.
pub(super) fn is_comparable(data_type: &DataType) -> bool {
    is_plain(data_type) && *data_type != DataType::Text
}

/// Whether values are what conditions compare, without another form of the same value.
fn is_plain(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::SmallInt
            | DataType::Int
            | DataType::BigInt
            | DataType::Numeric { .. }
            | DataType::Date
            | DataType::Timestamp
            | DataType::TimestampTz
            | DataType::Text
    )
}

/// The part of the rows that is read first.
const FIRST_PART: u32 = 16;
/// Of fewer rows all are read.
const ROWS_OF_PARTS: u32 = 64 * 1024;

/// What a pass reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pass {
    /// Rows as far out as the ends, of a part of the segment.
    Part,
    Bounded,
    All,
}

/// What to read.
pub(super) struct Touched<'a> {
    pub(super) segment: &'a Arc<CommittedSegment>,
    pub(super) validity: &'a Validity,
    pub(super) request: &'a AggregateRequest,
    pub(super) metrics: &'a Arc<ScanMetrics>,
    /// The groups; keys come first.
    pub(super) all: &'a RecordBatch,
    /// For each group its place among those of the rows that are not valid.
    pub(super) places: &'a [Option<usize>],
}

/// What is known of a group.
#[derive(Clone, Copy)]
enum End {
    None,
    OfAll,
    Open,
    /// In the batch of a pass, at a row.
    Read(usize, usize),
}

impl Touched<'_> {
    /// The column of an aggregate, which is `Min` or `Max`: from what it is of all rows, what it is of those that are not valid, and how many values are left.
    pub(super) fn ends(
        &self,
        aggregate: &Aggregate,
        all: &ArrayRef,
        lost: &ArrayRef,
        left: &[i64],
    ) -> Result<ArrayRef> {
        let (id, is_least) = match aggregate.function {
            Function::Min(id) => (id, true),
            Function::Max(id) => (id, false),
            _ => return Err(Error::Invalid("no aggregate of ends".into())),
        };
        let data_type = &self.request.column(id)?.data_type;
        let places: UInt32Array = self.places.iter().map(|place| place.map(|place| place as u32)).collect();
        // Null where the group, or none of its values, is among them.
        let is_lost = eq(all, &take(lost, &places, None)?)?;
        let end = |(group, left): (usize, &i64)| match (left, is_lost.is_valid(group) && is_lost.value(group)) {
            (0, _) => End::None,
            (_, true) => End::Open,
            (_, false) => End::OfAll,
        };
        let mut ends: Vec<End> = left.iter().enumerate().map(end).collect();
        let mut read: Vec<ArrayRef> = vec![Arc::clone(all), new_null_array(all.data_type(), 1)];
        for pass in [Pass::Part, Pass::Bounded, Pass::All] {
            let open: Vec<usize> = (0..ends.len()).filter(|group| matches!(ends[*group], End::Open)).collect();
            if open.is_empty() {
                break;
            }
            let rows = match pass {
                Pass::Part if self.segment.rows < ROWS_OF_PARTS => continue,
                Pass::Part => 0..self.segment.rows / FIRST_PART,
                _ => 0..self.segment.rows,
            };
            let bound = if pass == Pass::All { None } else { self.bound(id, data_type, all, &open, is_least)? };
            let found = self.read(aggregate, &open, bound, rows)?;
            let end = found.column(self.request.keys.len());
            let groups = self.groups_of(&found, &open)?;
            // Of a part only the very end is the end of the whole.
            let of_all: UInt32Array = groups.iter().map(|group| group.map(|group| group as u32)).collect();
            let is_end = eq(end, &take(all, &of_all, None)?)?;
            for (row, group) in groups.into_iter().enumerate() {
                let is_known = end.is_valid(row) && (pass != Pass::Part || is_end.is_valid(row) && is_end.value(row));
                if let Some(group) = group.filter(|_| is_known) {
                    ends[group] = End::Read(read.len(), row);
                }
            }
            read.push(Arc::clone(end));
        }
        let places = ends.iter().enumerate().map(|(group, end)| match end {
            End::None => Ok((1, 0)),
            End::OfAll => Ok((0, group)),
            End::Read(pass, row) => Ok((*pass, *row)),
            End::Open => Err(Error::Invalid("values are left of a group that no row is of".into())),
        });
        let places = places.collect::<Result<Vec<_>>>()?;
        Ok(interleave(&read.iter().map(AsRef::as_ref).collect::<Vec<_>>(), &places)?)
    }

    /// Rows that are as far out as one of these ends.
    fn bound(
        &self,
        column: ColumnId,
        data_type: &DataType,
        all: &ArrayRef,
        groups: &[usize],
        is_least: bool,
    ) -> Result<Option<Predicate>> {
        let groups: UInt32Array = groups.iter().map(|group| *group as u32).collect();
        let ColumnStats { min, max, .. } = column_stats(data_type, &[take(all, &groups, None)?]);
        let (op, value) = if is_least { (CompareOp::LessEq, max) } else { (CompareOp::GreaterEq, min) };
        Ok(value.map(|value| Predicate::Compare { column, op, value }))
    }

    /// The ends of those valid rows of these groups, and perhaps of others, that lie in `rows`.
    fn read(
        &self,
        aggregate: &Aggregate,
        groups: &[usize],
        bound: Option<Predicate>,
        rows: Range<u32>,
    ) -> Result<RecordBatch> {
        let mut conditions: Vec<Predicate> = self.request.predicate.iter().cloned().chain(bound).collect();
        // Where most groups are wanted it is no use to look for them.
        if groups.len() * 2 < self.all.num_rows() && groups.len() <= GROUPS_MAX {
            for (place, key) in self.request.keys.iter().enumerate() {
                let data_type = &self.request.column(key.column)?.data_type;
                if key.bin.is_none() && is_plain(data_type) {
                    conditions.extend(condition(key.column, data_type, self.all.column(place), groups));
                }
            }
        }
        let request = Arc::new(AggregateRequest {
            aggregates: vec![aggregate.clone()],
            predicate: (!conditions.is_empty()).then_some(Predicate::And(conditions)),
            results: None,
            star_tree: false,
            ..self.request.clone()
        });
        let expected = rows.len();
        let mut run =
            CommittedAggregation::new(self.segment, rows, Some(self.validity), expected, &request, self.metrics)?;
        while run.step()? {}
        run.take()
    }

    /// For each row of what was read which of the groups it is.
    fn groups_of(&self, found: &RecordBatch, groups: &[usize]) -> Result<Vec<Option<usize>>> {
        let keys = self.request.keys.len();
        if keys == 0 {
            return Ok(vec![Some(0); found.num_rows()]);
        }
        let [of_all, of_found] = rows_as_bytes([self.all, found], keys)?;
        let by_key: HashMap<&[u8], usize, foldhash::fast::FixedState> =
            groups.iter().map(|group| (of_all.row(*group).data(), *group)).collect();
        Ok(of_found.iter().map(|row| by_key.get(row.data()).copied()).collect())
    }
}

/// Rows whose key is one of those of the groups; `None` where that says too little.
fn condition(column: ColumnId, data_type: &DataType, keys: &ArrayRef, groups: &[usize]) -> Option<Predicate> {
    let mut values: Vec<Scalar> = Vec::new();
    for group in groups.iter().filter(|group| keys.is_valid(**group)) {
        let value = value(data_type, keys, *group)?;
        if !values.contains(&value) {
            values.push(value);
        }
        if values.len() > VALUES_MAX {
            return None;
        }
    }
    let has_null = groups.iter().any(|group| keys.is_null(*group));
    let is_one = Predicate::In { column, values, negated: false };
    Some(match has_null {
        true => Predicate::Or(vec![is_one, Predicate::IsNull { column, negated: false }]),
        false => is_one,
    })
}

/// `None`: null, or a text that is too long to be told.
fn value(data_type: &DataType, array: &ArrayRef, row: usize) -> Option<Scalar> {
    let stats = column_stats(data_type, &[array.slice(row, 1)]);
    stats.min.filter(|_| stats.exact)
}
