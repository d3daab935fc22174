//! Tidemill.

pub mod pgwire;
pub mod session;
