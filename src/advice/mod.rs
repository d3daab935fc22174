//! `rt.advise('x')`: what could be better about a table or a source, and why.
//!
//! ```text
//! table    statistics of its segments ┐
//!          statements that ended last ┴─► proposals: indexes, a star-tree, types; and how each column is kept
//! source   a sample of its messages ────► types that fit better, members that are no columns
//! ```
//!
//! It looks and proposes; nothing is changed. What is proposed is a statement to be run, where one does it.

mod sources;
mod tables;
mod workload;

pub(crate) use self::{sources::of_source, tables::of_table};

/// One line of advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// `None`: it is about all of it.
    pub(crate) column: Option<String>,
    /// `type`, `encoding`, `index` or `star-tree`.
    pub(crate) kind: &'static str,
    pub(crate) proposal: String,
    pub(crate) reason: String,
    /// What does it, where one statement can.
    pub(crate) statement: Option<String>,
}

/// A name as SQL reads it.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
