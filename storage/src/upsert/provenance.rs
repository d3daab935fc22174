//! Where rows came from: four columns that segments of tables with a key have beside those of the table. The table's schema does not have them, so
//! that no query can name or see them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    compute::concat,
    datatypes::Int64Type,
};

use super::Keep;
use crate::{
    Error, Result,
    ids::{ColumnId, StreamId},
    schema::{Column, DataType},
    segment::Segment,
};

/// A row that a statement changed ranks so far above the one that it was: rows of one message are fewer.
const CHANGE_STEP: i64 = 1 << 32;

/// Ids of the columns, above those of any table's own.
const FIRST_ID: u32 = 0x7fff_ff00;
const COLUMNS: [(&str, DataType); 4] = [
    ("$source", DataType::BigInt),
    ("$partition", DataType::BigInt),
    ("$offset", DataType::BigInt),
    ("$row", DataType::BigInt),
];

/// Source, partition of it, offset of the message, row of the message: the ids, in the order in which they rank.
pub fn ids() -> impl Iterator<Item = ColumnId> {
    (0..COLUMNS.len() as u32).map(|index| ColumnId(FIRST_ID + index))
}

/// Whether the column of a segment tells where its rows came from.
pub fn is_provenance(column: ColumnId) -> bool {
    ids().any(|id| id == column)
}

pub(super) fn columns() -> impl Iterator<Item = Column> {
    ids().zip(COLUMNS).map(|(id, (name, data_type))| Column { nullable: false, ..Column::new(id, name, data_type) })
}

/// Where each row of a batch came from.
#[derive(Clone, Debug)]
pub struct Provenance([ArrayRef; 4]);

impl Provenance {
    /// Of rows of one stream, in the order of their messages: `offsets` has the offset of each row's message and never decreases.
    pub fn of(stream: StreamId, offsets: &[u64]) -> Self {
        let rows = offsets.len();
        let mut ordinals = Vec::with_capacity(rows);
        for (row, offset) in offsets.iter().enumerate() {
            let follows = row > 0 && offsets[row - 1] == *offset;
            ordinals.push(if follows { ordinals[row - 1] + 1 } else { 0 });
        }
        Self([
            Arc::new(Int64Array::from(vec![stream.source.0 as i64; rows])),
            Arc::new(Int64Array::from(vec![i64::from(stream.partition); rows])),
            Arc::new(offsets.iter().map(|offset| Some(*offset as i64)).collect::<Int64Array>()),
            Arc::new(Int64Array::from(ordinals)),
        ])
    }

    /// Of the rows of all of these, one after the other.
    pub fn concat(all: &[Self]) -> Result<Self> {
        let mut joined = Self::of(StreamId::default(), &[]);
        for (at, column) in joined.0.iter_mut().enumerate() {
            let parts: Vec<&dyn Array> = all.iter().map(|one| one.0[at].as_ref()).collect();
            if !parts.is_empty() {
                *column = concat(&parts)?;
            }
        }
        Ok(joined)
    }

    /// Of some rows of a segment, which ascend, as a statement changes them: those that it makes take the places of these, and of no rows that
    /// came later.
    pub fn of_changed(segment: &dyn Segment, rows: &[u32], keep: Keep) -> Result<Self> {
        let ids: Vec<ColumnId> = ids().collect();
        let taken = segment.take(&ids, rows)?;
        let [source, partition, offset, ordinal] = taken.as_slice() else {
            return Err(Error::Invalid("the segment does not know where its rows came from".into()));
        };
        let step = match keep {
            Keep::Last => CHANGE_STEP,
            Keep::First => -CHANGE_STEP,
        };
        let changed: Int64Array = ordinal.as_primitive::<Int64Type>().unary(|ordinal| ordinal.saturating_add(step));
        Ok(Self([Arc::clone(source), Arc::clone(partition), Arc::clone(offset), Arc::new(changed)]))
    }

    pub fn rows(&self) -> usize {
        self.0[0].len()
    }

    pub fn columns(&self) -> &[ArrayRef] {
        &self.0
    }
}
