//! Tests of the package at its surface.

mod corruption;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fuzz;
mod golden;
mod scan;
mod table;
