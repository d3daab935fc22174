//! Conditions on JSON documents that indexes may know something of.
//!
//! They are hints: whoever scans with one tests the rows that come back. Where an index knows of a column's documents, rows that cannot
//! pass are left out; elsewhere all come.

use crate::ids::ColumnId;

#[derive(Clone, Debug, PartialEq)]
pub enum DocumentTest {
    And(Vec<DocumentTest>),
    Or(Vec<DocumentTest>),
    /// The document in the column has such a value at the path.
    At {
        column: ColumnId,
        path: Vec<Step>,
        value: ValueTest,
    },
}

/// A step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The member of an object.
    Key(String),
    /// Any element of an array.
    Element,
}

/// What is asked of a value in a document.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueTest {
    /// It is there.
    Exists,
    /// It is JSON's null.
    Null,
    Boolean(bool),
    /// It is a number within these bounds, both included.
    Number {
        low: f64,
        high: f64,
    },
    /// It is a string, this one.
    String(String),
    /// Its text, as `->>` gives it, is this.
    Text(String),
    /// Its text reads as a number within these bounds, both included, or as none.
    Cast {
        low: f64,
        high: f64,
    },
}

impl DocumentTest {
    /// The one column that it is about; `None` when it is about several.
    pub fn column(&self) -> Option<ColumnId> {
        match self {
            Self::At { column, .. } => Some(*column),
            Self::And(tests) | Self::Or(tests) => {
                let mut columns = tests.iter().map(Self::column);
                let first = columns.next()??;
                columns.all(|column| column == Some(first)).then_some(first)
            }
        }
    }
}
