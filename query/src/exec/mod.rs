//! The operators that read segments and group their rows, and what stops operators.

pub mod aggregate;
pub(crate) mod display;
pub mod scan;
pub(crate) mod snapshots;
pub(crate) mod states;
pub(crate) mod work;
