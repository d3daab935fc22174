//! Text: the rows whose text has a word.
//!
//! ```text
//! row 3: "Timeout: no route"   →  no · route · timeout
//! terms:  "" … no … route … timeout …        sorted; "" has the rows without a text
//! rows:   7    3 9    3       0 3 8
//! ```
//!
//! Words that begin alike are one range of terms. AND, OR and NOT are done on the rows, exactly. Of a phrase the rows with all of its words are found, and
//! whoever asks tests these: places are not kept.

mod builder;
mod reader;

pub(super) use builder::build;
pub(crate) use reader::TextIndex;

#[cfg(test)]
mod tests;
