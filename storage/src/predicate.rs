//! Conditions on the columns of a table that a scan evaluates itself.
//!
//! SQL's third truth value is settled here by form: there is no NOT. The planner pushes NOT down to the leaves, and a leaf
//! selects only rows whose column is not null (`IsNull` excepted). So "the rows where the condition is TRUE" of AND and OR
//! are the intersection and the union of the rows of their children, and nothing has to tell FALSE from NULL.

use std::sync::Arc;

use crate::{ids::ColumnId, scalar::Scalar, search::TextQuery};

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
}
