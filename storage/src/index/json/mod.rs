//! JSON: the documents that hold a value at a path.
//!
//! ```text
//! {"a": 1, "tags": ["x", "y"]}  →  a = 1 · tags[] = "x" · tags[] = "y"       a document's terms: path and scalar, places in arrays left out
//! terms:  … a=1 … tags[]="x" tags[]="y" …                                    sorted, front-coded
//! rows:       3 8         0 3                                                of each term, as an inverted index has them
//! ```
//!
//! Everything below a path lies side by side among the terms, and so do the numbers at it, in their order: that something is there, or a number
//! within bounds, is a range of terms.
//!
//! What is found is a superset: numbers are rounded to floats, texts are cut, elements of arrays have no places, what is deep is not told
//! apart. Whoever asks tests the documents that are found. An index of some [paths] says nothing of what is elsewhere.

mod builder;
pub(crate) mod paths;
mod reader;
mod terms;

pub(super) use builder::build;
pub(crate) use reader::JsonIndex;

#[cfg(test)]
mod tests;
