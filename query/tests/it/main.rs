//! The engine at its surface: tables built in memory, statements in, rows or errors out.

mod errors;
mod postgres;
mod scans;
mod sessions;
mod support;
