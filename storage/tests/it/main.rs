//! Tests of the package at its surface.

#![allow(clippy::unwrap_used, reason = "for tests")]

mod aggregate;
mod corruption;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fuzz;
mod golden;
mod index;
mod lateness;
mod masked;
mod merging;
mod narrowing;
mod results;
mod scan;
mod sorted;
mod star_tree;
mod table;
mod upsert;
