//! What happens to decoded rows before they reach a table: CHECK constraints, filter and derived columns.
//!
//! Everything is vectorised; a row that fails (a false CHECK, a division by zero, an overflow) becomes a reject and never
//! holds up its neighbours.

mod assignment;
mod bisect;
mod checks;
mod expression;
mod late;
mod machine;
pub mod plan;
pub mod plugin;
mod row_json;
mod rules;
pub mod run;
mod select;
mod services;
mod tables;
mod transform;
mod watermark;

#[cfg(test)]
mod tests;

pub use self::{
    checks::Checks,
    late::{Late, LatePolicy},
    machine::Counts,
    rules::{Misunderstood, Rules},
    services::ServiceOptions,
    tables::TableRows,
    transform::{Transform, TransformedBatch},
    watermark::Watermark,
};
