//! Conditions on JSON documents that indexes may know something of.
//!
//! They come with a [condition](crate::predicate::Condition), which is tested on the documents that they leave: those that an index leaves,
//! or whose text has the bytes that it must have.

use crate::{ids::ColumnId, search::Needles};

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

    /// What the text of a document must have, as PostgreSQL prints it, byte for byte, to pass; `None`: anything may.
    fn needles(&self) -> Option<Needles> {
        match self {
            Self::And(tests) => {
                let mut needles: Vec<Needles> = tests.iter().filter_map(Self::needles).collect();
                if needles.len() < 2 { needles.pop() } else { Some(Needles::All(needles)) }
            }
            Self::Or(tests) => tests.iter().map(Self::needles).collect::<Option<_>>().map(Needles::Any),
            Self::At { path, value, .. } => {
                let last_key = path.iter().rev().find_map(|step| match step {
                    Step::Key(key) => Some(key),
                    Step::Element => None,
                });
                let by_key = || quoted(last_key?);
                match value {
                    ValueTest::String(text) => quoted(text).or_else(by_key),
                    // Of a string or a number; that of an array or an object has characters that a string cannot have as they are.
                    ValueTest::Text(text) if is_plain(text) && !text.is_empty() => {
                        Some(Needles::bytes(text.as_bytes()))
                    }
                    ValueTest::Boolean(value) => Some(Needles::bytes(if *value { b"true" } else { b"false" })),
                    ValueTest::Null => Some(Needles::bytes(b"null")),
                    // One number is printed in several ways.
                    ValueTest::Exists | ValueTest::Text(_) | ValueTest::Number { .. } | ValueTest::Cast { .. } => {
                        by_key()
                    }
                }
            }
        }
    }
}

/// A text in quotes, where it is printed so.
fn quoted(text: &str) -> Option<Needles> {
    is_plain(text).then(|| Needles::bytes(format!("\"{text}\"").as_bytes()))
}

/// Whether JSON prints all characters of a text as they are, and no array or object as such a text.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\' | '[' | '{'))
}

/// Tells from its bytes that a document cannot pass a test.
#[derive(Clone, Debug)]
pub struct DocumentSieve(Needles);

impl DocumentSieve {
    /// `None` where bytes tell nothing.
    pub fn of(test: &DocumentTest) -> Option<Self> {
        test.needles().map(Self)
    }

    /// Whether the document with this text, as PostgreSQL prints it, may pass.
    pub fn passes(&self, text: &str) -> bool {
        self.0.are_in(text.as_bytes())
    }
}
