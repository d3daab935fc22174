//! The rows of a segment in another order than they came in: what a sorted index is.
//!
//! Rows are ordered by the bytes that Arrow's row format gives their values (nulls last, floats as PostgreSQL has them), equal ones
//! stay as they came. The first 16 of these bytes, as a number, tell most rows apart. Only row numbers are sorted; the columns follow one
//! by one while they are encoded, so that no more than one of them is in memory twice.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef},
    compute::{SortOptions, interleave},
    row::{RowConverter, Rows, SortField},
};

use crate::{
    Result,
    evaluate::plain_floats,
    ids::ColumnId,
    index::IndexKind,
    schema::TableSchema,
    segment::{Segment, consuming::ConsumingSegment},
};

/// Rows of an array that is put together at a time.
const STEP: usize = 64 * 1024;

/// Where each row comes from: chunk, and row of the chunk.
#[derive(Debug)]
pub(super) struct Order(Vec<(u32, u32)>);

impl Order {
    /// The order of the rows by the values of some columns, the first of them first. `None` when they are in it already. Columns that the
    /// segment has not are left out.
    pub(super) fn of(segment: &ConsumingSegment, by: &[ColumnId]) -> Result<Option<Self>> {
        let places = places(segment.schema(), by);
        if places.is_empty() {
            return Ok(None);
        }
        let options = SortOptions { descending: false, nulls_first: false };
        let columns = &segment.schema().columns;
        let fields = places
            .iter()
            .map(|place| SortField::new_with_options(columns[*place].data_type.arrow(), options))
            .collect();
        let converter = RowConverter::new(fields)?;
        let mut rows = converter.empty_rows(segment.chunks().map(|chunk| chunk.batch().num_rows()).sum(), 0);
        let mut from = Vec::with_capacity(rows.num_rows());
        for (number, chunk) in segment.chunks().enumerate() {
            let arrays: Vec<ArrayRef> = places.iter().map(|place| plain_floats(chunk.batch().column(*place))).collect();
            converter.append(&mut rows, &arrays)?;
            from.extend((0..chunk.batch().num_rows() as u32).map(|row| (number as u32, row)));
        }
        if (1..rows.num_rows()).all(|row| rows.row(row - 1) <= rows.row(row)) {
            return Ok(None);
        }
        let mut order: Vec<(u128, u32)> =
            (0..rows.num_rows()).map(|row| (start_of(rows.row(row).as_ref()), row as u32)).collect();
        order.sort_unstable_by(|a, b| compare(&rows, a, b));
        Ok(Some(Self(order.into_iter().map(|(_, row)| from[row as usize]).collect())))
    }

    /// Which row of the segment comes at each place.
    pub(super) fn rows(&self, segment: &ConsumingSegment) -> Vec<u32> {
        let mut starts = Vec::new();
        let mut rows = 0;
        for chunk in segment.chunks() {
            starts.push(rows);
            rows += chunk.batch().num_rows() as u32;
        }
        self.0.iter().map(|(chunk, row)| starts[*chunk as usize] + row).collect()
    }

    /// The values of `chunks` in this order.
    pub(super) fn apply(&self, chunks: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let arrays: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        let mut ordered = Vec::with_capacity(self.0.len().div_ceil(STEP));
        for some in self.0.chunks(STEP) {
            let places: Vec<(usize, usize)> =
                some.iter().map(|(chunk, row)| (*chunk as usize, *row as usize)).collect();
            ordered.push(interleave(&arrays, &places)?);
        }
        Ok(ordered)
    }
}

/// The columns at these places of the schema; those that it has not, or that have no order, end the list.
fn places(schema: &TableSchema, by: &[ColumnId]) -> Vec<usize> {
    let place =
        |id: &ColumnId| schema.index_of(*id).filter(|at| IndexKind::Sorted.takes(&schema.columns[*at].data_type));
    by.iter().map_while(place).collect()
}

/// The first bytes as a number, zeros behind them.
fn start_of(row: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = row.len().min(16);
    bytes[..length].copy_from_slice(&row[..length]);
    u128::from_be_bytes(bytes)
}

fn compare(rows: &Rows, a: &(u128, u32), b: &(u128, u32)) -> Ordering {
    a.0.cmp(&b.0).then_with(|| rows.row(a.1 as usize).cmp(&rows.row(b.1 as usize))).then(a.1.cmp(&b.1))
}
