//! The operators that read segments.

pub(crate) mod display;
pub mod scan;
pub(crate) mod snapshots;
