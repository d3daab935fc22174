//! Tidemill.

pub mod pgwire;
pub mod session;

pub mod catalog;
