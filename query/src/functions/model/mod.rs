//! Models of machine learning as functions: `CREATE FUNCTION fare(distance REAL, hour INT) RETURNS REAL LANGUAGE model AS 'fare.onnx'`.
//!
//! ```text
//! load   bytes ─► protobuf (graph.rs: what it asks for, what it may not) ─► tract ─► facts ─► the output that is meant ─► plan
//! call   columns of Arrow ─► tensors [rows, columns] (columns.rs) ─► plan ─► tensor ─► column (scores.rs)      some thousand rows a time
//! ```
//!
//! tract runs the graph; what scikit-learn, LightGBM and XGBoost export beyond its operators is in `operators/`. A model computes and does nothing else: it reads no other file, draws no random
//! numbers, has no loops, and is only of operators that [`graph::OPERATORS`] names, whose results are not much larger than what they are given. tract is a large library that was not written
//! for hostile models: what panics in it is an error of the model here.

mod columns;
mod graph;
mod operators;
mod runner;
mod scores;
#[cfg(test)]
mod tests;

pub(super) use self::runner::Model;
