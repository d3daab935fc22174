//! The engine at its surface: tables built in memory, statements in, rows or errors out.

mod cancel;
mod errors;
mod postgres;
mod scans;
mod sessions;
mod support;
