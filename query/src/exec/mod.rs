//! The operators that read segments.

pub(crate) mod snapshots;
