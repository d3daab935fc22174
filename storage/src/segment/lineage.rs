//! What tells versions of one run of rows from other runs: of which rows a reader has seen already.

use std::sync::atomic::{AtomicU64, Ordering};

/// The next one.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// No other run of rows of this process has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage(u64);

impl Lineage {
    /// Of a run that nobody has seen.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
