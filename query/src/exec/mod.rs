//! The operators that read segments and group their rows, what narrows their reading, and what stops operators.

pub mod aggregate;
pub(crate) mod computed;
pub(crate) mod display;
pub(crate) mod gapfill;
pub(crate) mod in_order;
pub(crate) mod lookup;
pub(crate) mod merging;
mod narrowing;
pub mod scan;
pub(crate) mod shared;
mod single_input;
pub(crate) mod sliced;
pub(crate) mod snapshots;
pub(crate) mod states;
pub(crate) mod unfixed;
mod unit_order;
pub(crate) mod work;
