//! The engine at its surface: tables built in memory, statements in, rows or errors out.

#![allow(clippy::unwrap_used, reason = "for tests")]

mod aggregates;
mod cancel;
mod errors;
mod narrowing;
mod planning;
mod postgres;
mod reuse;
mod rounded_times;
mod scans;
mod sessions;
mod support;
