//! Star-tree: groups of a segment made ahead, for any choice of a few dimensions.
//!
//! Rows that agree in all dimensions are one *document*: their number, and the states of some aggregates. A *rollup* is such documents over
//! some of the dimensions; the others are left out, are *stars*. Each rollup is made of a larger one by leaving dimensions out:
//!
//! ```text
//! restaurant, status, hour      400,000 documents      sorted by their dimensions, in this order
//!  ├─ *, status, hour                120
//!  │   └─ *, *, hour                  24
//!  ├─ restaurant, status, *       50,000
//!  └─ *, *, *                          1
//! ```
//!
//! A request is answered by the rollup that has all dimensions of its keys and conditions and the fewest documents to read; a condition on the
//! rollup's first dimension leaves a run of them. A rollup is *a segment file inside* of the index file, whose rows are the documents: conditions,
//! groups and sums over them are those of segments ([`cover`] says which), so that there is one engine.
//!
//! Pinot's star-tree (v2) leaves a dimension out node by node, below each value of those before it, and reads a leaf of up to `max_leaf_records`
//! documents per node. Here a dimension is left out of a whole rollup at once: vectors read a hundred documents in the time that stepping to
//! a node takes, one run is read where there would be thousands of leaves, and OR over several dimensions is a condition as any other. Which of the
//! 2ⁿ rollups are worth their bytes is chosen greedily by what they save (Harinarayan, Rajaraman, Ullman 1996): [`plan`].
//!
//! Exact are: counts, sums of integers and decimals, extremes. A sum of floats is added in the order of the documents, not of the rows.

pub(crate) mod cover;
pub(crate) mod format;
pub(crate) mod plan;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Function, GroupKey, SUM_PRECISION, state_type},
    ids::ColumnId,
    schema::{Column, DataType, TableSchema},
    segment::committed::CommittedSegment,
};

/// Dimensions at most: every set of them may become a rollup.
pub const DIMENSIONS_MAX: usize = 8;
/// Aggregates at most.
pub const AGGREGATES_MAX: usize = 32;
/// Documents that are read rather than rolled up further, where nothing else is said.
pub const LEAF_RECORDS: u32 = 10_000;

/// What a star-tree is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StarTree {
    /// In the order in which documents are sorted: those of conditions first.
    pub dimensions: Vec<GroupKey>,
    pub aggregates: Vec<Function>,
    /// A rollup of at most so many documents is not rolled up further: reading it costs too little.
    pub max_leaf_records: u32,
}

impl StarTree {
    /// The states of a document beside its number of rows. With a sum go the rows that have a value, for `avg`.
    pub(crate) fn states(&self) -> Vec<Function> {
        let mut states: Vec<Function> = Vec::new();
        for function in &self.aggregates {
            let with = match function {
                Function::Rows => continue,
                Function::Sum(column) => Some(Function::Count(*column)),
                _ => None,
            };
            for function in [Some(*function), with].into_iter().flatten() {
                if !states.contains(&function) {
                    states.push(function);
                }
            }
        }
        states
    }

    /// All columns that it is made of, dimensions first.
    pub fn columns(&self) -> Vec<ColumnId> {
        let mut columns = Vec::new();
        let of_aggregates = self.aggregates.iter().filter_map(Function::column);
        for column in self.dimensions.iter().map(|dimension| dimension.column).chain(of_aggregates) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        columns
    }

    /// Whether rows of the schema can have it.
    pub(crate) fn fits(&self, schema: &TableSchema) -> bool {
        let type_of = |id: ColumnId| schema.column(id).map(|column| &column.data_type);
        let has_dimensions = self.dimensions.iter().all(|key| type_of(key.column).is_some_and(|t| key.is_supported(t)));
        let has_states = self.states().iter().all(|function| {
            function.column().and_then(type_of).is_some_and(|t| state_type(function, Some(t)).is_some())
        });
        has_dimensions && has_states && (1..=DIMENSIONS_MAX).contains(&self.dimensions.len())
    }
}

/// The column of a document that has dimension `index`.
pub(crate) fn dimension_id(index: usize) -> ColumnId {
    ColumnId(index as u32)
}

/// The column with the rows of a document.
pub(crate) const ROWS: ColumnId = ColumnId(1000);

/// The column with state `index`.
pub(crate) fn state_id(index: usize) -> ColumnId {
    ColumnId(ROWS.0 + 1 + index as u32)
}

/// The type in which documents keep a state of a column; `None` where there is none.
pub(crate) fn kept_type(function: &Function, column: &DataType) -> Option<DataType> {
    state_type(function, Some(column))?;
    Some(match (function, column) {
        (Function::Rows | Function::Count(_), _) => DataType::BigInt,
        (Function::Sum(_), DataType::Real | DataType::Double) => DataType::Double,
        (Function::Sum(_), DataType::Numeric { scale, .. }) => {
            DataType::Numeric { precision: SUM_PRECISION, scale: *scale }
        }
        (Function::Sum(_), _) => DataType::Numeric { precision: SUM_PRECISION, scale: 0 },
        (Function::Distinct(_) | Function::Quantiles(_) | Function::DistinctOf(_) | Function::QuantilesOf(_), _) => {
            DataType::Bytea
        }
        (_, column) => column.clone(),
    })
}

/// A column of documents.
pub(crate) fn document_column(id: ColumnId, data_type: DataType, nullable: bool) -> Column {
    Column { nullable, ..Column::new(id, format!("c{id}"), data_type) }
}

/// Documents over some of the dimensions.
#[derive(Debug)]
pub(crate) struct Rollup {
    /// Bit `i`: it has dimension `i`.
    pub(crate) dimensions: u32,
    pub(crate) documents: Arc<CommittedSegment>,
}

/// The star-tree of one segment, opened.
#[derive(Debug)]
pub(crate) struct StarIndex {
    pub(crate) tree: StarTree,
    pub(crate) rollups: Vec<Rollup>,
}
