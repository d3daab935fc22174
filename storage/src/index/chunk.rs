//! Indexes of a full chunk of a consuming segment: the same sections that a sealed segment has in a file, in memory.
//!
//! They are made by the thread that makes indexes, not by whoever appends or asks, and go with the chunk. An array has no
//! dictionary, so inverted indexes go by hash, and what is found is tested again.

use std::ops::RangeInclusive;

use arrow::{array::RecordBatch, buffer::Buffer};

use super::{
    Found, Index, IndexKind, IndexSpec,
    source::{Source, sections},
};
use crate::{
    Result,
    bitpack::Bitmask,
    ids::{ColumnId, IndexId},
    predicate::Predicate,
    schema::{DataType, TableSchema},
};

#[derive(Debug)]
pub(crate) struct ChunkIndex {
    pub(crate) id: IndexId,
    kind: IndexKind,
    columns: Vec<ColumnId>,
    rows: u32,
    bytes: u64,
    /// None where it could not be made: it knows nothing.
    index: Option<Index>,
}

impl ChunkIndex {
    /// One that knows nothing.
    pub(crate) fn empty(spec: &IndexSpec) -> Self {
        let columns = spec.columns.clone();
        Self { id: spec.id, kind: spec.kind.clone(), columns, rows: 0, bytes: 0, index: None }
    }

    /// Whether rows in memory written under the schema can have it.
    pub(crate) fn is_for(spec: &IndexSpec, schema: &TableSchema) -> bool {
        !matches!(spec.kind, IndexKind::StarTree(_)) && spec.places_in(schema).is_some()
    }

    /// The index of the rows of `batch`, whose columns are those of the schema.
    pub(crate) fn build(spec: &IndexSpec, schema: &TableSchema, batch: &RecordBatch) -> Result<Self> {
        let Some((first, second)) = spec.places_in(schema) else { return Ok(Self::empty(spec)) };
        let source = |index: usize| Source::array(batch.column(index));
        let sections = sections(&source(first), second.map(source).as_ref(), spec)?;
        let bytes = sections.iter().map(|section| section.len() as u64).sum();
        let sections: Vec<Buffer> = sections
            .into_iter()
            .map(|mut section| {
                section.shrink_to_fit();
                Buffer::from_vec(section)
            })
            .collect();
        let rows = batch.num_rows() as u32;
        Ok(Self { rows, bytes, index: Some(Index::open(&spec.kind, &sections, rows)?), ..Self::empty(spec) })
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn of_column(&self, column: ColumnId) -> Option<&Index> {
        self.index.as_ref().filter(|_| self.columns.first() == Some(&column))
    }

    /// The rows that may pass a leaf on the column, which has this type; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate, column: ColumnId, data_type: &DataType) -> Result<Option<Found>> {
        match self.of_column(column) {
            Some(index) if index.excludes(leaf, data_type) => Ok(Some(Found { exact: true, ..Found::default() })),
            Some(index) => index.find(leaf, None, data_type),
            None => Ok(None),
        }
    }

    /// Adds the rows found to `out`.
    pub(crate) fn add(&self, found: &Found, out: &mut Bitmask) -> Result<()> {
        match &self.index {
            Some(index) if !found.parts.is_empty() => index.add(found, &(0..self.rows), 0, out),
            _ => Ok(()),
        }
    }

    /// The rows that lie in cells of places in these columns; `None` when the index knows nothing of them, or they are more than `most`.
    pub(crate) fn places(
        &self,
        (lat, lng): (ColumnId, ColumnId),
        cells: &[RangeInclusive<u64>],
        most: u64,
    ) -> Result<Option<Bitmask>> {
        let known = self.index.as_ref().filter(|_| self.kind == IndexKind::Geo && self.columns == [lat, lng]);
        let Some(index) = known else { return Ok(None) };
        let inside = index.find_places(cells)?;
        if inside.rows() > most {
            return Ok(None);
        }
        index.places(&inside, &(0..self.rows), 0).map(Some)
    }
}
