//! Conditions on the columns of a table that a scan evaluates itself.
//!
//! SQL's third truth value is settled here by form: there is no NOT. The planner pushes NOT down to the leaves, and a leaf
//! selects only rows whose column is not null (`IsNull` excepted). So "the rows where the condition is TRUE" of AND and OR
//! are the intersection and the union of the rows of their children, and nothing has to tell FALSE from NULL.

use std::{fmt, sync::Arc};

use arrow::array::{ArrayRef, BooleanArray};

use crate::{Result, documents::DocumentTest, ids::ColumnId, scalar::Scalar, search::TextQuery};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    /// `column op value`; the value is of the kind that the column's type has ([`Scalar`]).
    Compare {
        column: ColumnId,
        op: CompareOp,
        value: Scalar,
    },
    /// `column [NOT] IN (values)`; no value is null.
    In {
        column: ColumnId,
        values: Vec<Scalar>,
        negated: bool,
    },
    /// `column [NOT] [I]LIKE pattern`, escape character `\`; on TEXT columns.
    Like {
        column: ColumnId,
        pattern: String,
        negated: bool,
        case_insensitive: bool,
    },
    /// `[NOT] column @@ query`: the words of a text; on TEXT columns.
    Matches {
        column: ColumnId,
        query: Arc<TextQuery>,
        negated: bool,
    },
    /// `column IS [NOT] NULL`.
    IsNull {
        column: ColumnId,
        negated: bool,
    },
    /// A condition on the column's value that the layer above evaluates: `lower(column) = 'oslo'`. It may fail for a value, and is
    /// asked only about values of rows that all other parts of an AND before it select, or none of an OR; where it is asked about a
    /// dictionary and fails, it is asked again row by row.
    Holds {
        column: ColumnId,
        condition: Arc<dyn Condition>,
    },
}

/// What is not known here of a condition on one column.
pub trait Condition: Send + Sync + fmt::Debug + fmt::Display {
    /// For each of `values`, which are of the column's current type, whether the condition is TRUE; FALSE and NULL count as one.
    fn holds(&self, values: &ArrayRef) -> Result<BooleanArray>;

    /// What a document must hold, at least, for the condition to be TRUE of it, where that is known.
    fn documents(&self) -> Option<&Arc<DocumentTest>> {
        None
    }
}

impl PartialEq for dyn Condition {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

impl Predicate {
    /// Whether it can only be TRUE of rows that have a value in the column.
    pub fn needs_value_of(&self, id: ColumnId) -> bool {
        match self {
            Self::And(children) => children.iter().any(|child| child.needs_value_of(id)),
            Self::Or(children) => !children.is_empty() && children.iter().all(|child| child.needs_value_of(id)),
            Self::In { values, .. } if values.is_empty() => false,
            Self::Compare { column, .. }
            | Self::In { column, .. }
            | Self::Like { column, .. }
            | Self::Matches { column, .. }
            | Self::IsNull { column, negated: true } => *column == id,
            Self::IsNull { negated: false, .. } | Self::Holds { .. } => false,
        }
    }

    /// The column that a leaf is about.
    pub fn column(&self) -> Option<ColumnId> {
        match self {
            Self::And(_) | Self::Or(_) => None,
            Self::Compare { column, .. }
            | Self::In { column, .. }
            | Self::Like { column, .. }
            | Self::Matches { column, .. }
            | Self::IsNull { column, .. }
            | Self::Holds { column, .. } => Some(*column),
        }
    }

    /// Whether a part of it is about the column.
    pub(crate) fn is_about(&self, id: ColumnId) -> bool {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().any(|child| child.is_about(id)),
            leaf => leaf.column() == Some(id),
        }
    }

    /// Whether a part of it is a condition that may fail.
    pub(crate) fn may_fail(&self) -> bool {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().any(Self::may_fail),
            leaf => matches!(leaf, Self::Holds { .. }),
        }
    }
}
