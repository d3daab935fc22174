//! Where rows are: two columns that a statement which changes rows reads beside those of the table.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};

use crate::{
    Error, Result,
    ids::{ColumnId, PartitionId, SegmentId},
    row_set::RowSet,
    schema::{Column, DataType, TableSchema},
};

/// Ids of the columns, above those of any table's own.
const SEGMENT: ColumnId = ColumnId(0x7fff_fe00);
pub(crate) const POSITION: ColumnId = ColumnId(0x7fff_fe01);
/// Their names, which no statement can write: it would have to end in the middle.
pub const SEGMENT_NAME: &str = "\u{1}segment";
pub const POSITION_NAME: &str = "\u{1}position";

/// Of an address's number of a segment, those that are the segment's own.
const SEGMENT_BITS: u32 = 44;

/// The table's schema with the two columns at its end. The position is NULL where a row is not in a committed segment.
pub fn addressed(schema: &TableSchema) -> TableSchema {
    let mut addressed = schema.clone();
    addressed.columns.push(Column::new(SEGMENT, SEGMENT_NAME, DataType::BigInt));
    addressed.columns.push(Column::new(POSITION, POSITION_NAME, DataType::Int));
    addressed
}

/// A row of a committed segment.
type Address = (PartitionId, SegmentId, u32);

/// The addresses of rows whose last two columns are those of [`addressed`]; `None` for those that are not in a committed segment.
pub fn address_of(batch: &RecordBatch) -> Result<Vec<Option<Address>>> {
    let (segments, positions) = match batch.columns() {
        [.., segments, positions] => {
            (segments.as_primitive_opt::<Int64Type>(), positions.as_primitive_opt::<Int32Type>())
        }
        _ => (None, None),
    };
    let (Some(segments), Some(positions)) = (segments, positions) else {
        return Err(Error::Invalid("rows came without their addresses".into()));
    };
    let address = |row: usize| {
        let number = segments.value(row) as u64;
        let (partition, segment) = (number >> SEGMENT_BITS, number & ((1 << SEGMENT_BITS) - 1));
        let position = positions.is_valid(row).then(|| positions.value(row) as u32)?;
        Some((PartitionId(partition as u32), SegmentId(segment), position))
    };
    Ok((0..batch.num_rows()).map(address).collect())
}

/// Rows of committed segments of a table, each of them once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Addresses {
    rows: BTreeMap<(PartitionId, SegmentId), RowSet>,
}

impl Addresses {
    /// Takes rows in whose last two columns are those of [`addressed`]. For each, whether it was taken: rows that are not in a committed segment and
    /// those that were taken before are not.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<Vec<bool>> {
        let is_new = |address: Option<Address>| {
            address
                .is_some_and(|(partition, segment, row)| self.rows.entry((partition, segment)).or_default().insert(row))
        };
        Ok(address_of(batch)?.into_iter().map(is_new).collect())
    }

    pub fn rows(&self) -> u64 {
        self.rows.values().map(|rows| rows.rows()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// By partition and segment.
    pub fn segments(&self) -> impl Iterator<Item = (PartitionId, SegmentId, &RowSet)> {
        self.rows.iter().map(|((partition, segment), rows)| (*partition, *segment, rows))
    }
}

/// Puts the segment into batches of a scan that asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressing {
    column: usize,
    number: i64,
}

impl Addressing {
    /// `None`: the request does not ask.
    pub(super) fn new(projection: &[ColumnId], partition: PartitionId, segment: SegmentId) -> Option<Self> {
        let column = projection.iter().position(|id| *id == SEGMENT)?;
        Some(Self { column, number: ((u64::from(partition.0) << SEGMENT_BITS) | segment.0) as i64 })
    }

    pub(super) fn put(self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[self.column] = Arc::new(Int64Array::from(vec![self.number; batch.num_rows()]));
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;
    use crate::ids::SchemaVersion;

    #[test]
    fn rows_are_taken_once_whatever_order_they_come_in() {
        let table = TableSchema { version: SchemaVersion(1), columns: Vec::new(), time_column: None };
        let batch = |rows: &[(i64, Option<i32>)]| {
            let segments: Int64Array = rows.iter().map(|(segment, _)| Some(*segment)).collect();
            let positions: Int32Array = rows.iter().map(|(_, position)| *position).collect();
            RecordBatch::try_new(addressed(&table).arrow(), vec![Arc::new(segments), Arc::new(positions)]).unwrap()
        };
        let other = (3i64 << SEGMENT_BITS) + 7;
        let mut addresses = Addresses::default();
        let rows = [(7, Some(9)), (7, None), (other, Some(1)), (7, Some(2)), (7, Some(9)), (7, Some(5))];
        assert_eq!(addresses.take(&batch(&rows)).unwrap(), [true, false, true, true, false, true]);
        assert_eq!(addresses.take(&batch(&[(7, Some(5)), (7, Some(11))])).unwrap(), [false, true]);
        let found: Vec<_> = addresses
            .segments()
            .map(|(partition, segment, rows)| (partition.0, segment.0, Vec::from_iter(rows.iter())))
            .collect();
        assert_eq!(found, [(0, 7, vec![2, 5, 9, 11]), (3, 7, vec![1])]);
        assert_eq!(addresses.rows(), 5);
    }
}
