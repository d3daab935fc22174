//! Full-text search: the words of a text, and questions about them, as PostgreSQL's `simple` configuration has it.
//!
//! ```text
//! "The timeout: 30 s"  →  the 1 · timeout 2 · 30 3 · s 4          words in lower case, with their places
//! 'time':* & !( 'fatal' | 'error' )                                a question, of words, their beginnings and where they stand
//! ```
//!
//! [`TextQuery::finds`] is the plain twin of the [index of words](crate::index).

mod needle;
mod phrase;
mod query;
mod words;

pub(crate) use needle::Needles;
pub use query::{Node, TextQuery, Word, WordPlaces};
pub use words::{WORD_BYTES_MAX, each_word};

#[cfg(test)]
mod tests;
