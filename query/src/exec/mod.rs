//! The operators that read segments, and what stops operators.

pub(crate) mod display;
pub mod scan;
pub(crate) mod snapshots;
pub(crate) mod work;
