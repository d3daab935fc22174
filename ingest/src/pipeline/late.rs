//! What becomes of rows that come after the watermark has passed the end of their windows.
//!
//! ```text
//! window [12:00, 12:01)      given            closed
//! watermark ──────────────── 12:01 ────────── 12:01 + allowed ──►
//! a row of it                  changes it, and it is given again    is dropped, or a dead letter
//! ```

use serde::{Deserialize, Serialize};

/// Where late rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatePolicy {
    #[default]
    Drop,
    /// Windows that were given stay for a while, and are given again when rows change them.
    Update,
    /// To the dead letters.
    Dlq,
}

/// The policy, and for how long windows stay that were given. Only [`LatePolicy::Update`] has a time above zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    pub policy: LatePolicy,
    pub allowed_us: i64,
}

impl Late {
    /// Whether what ends at `end` takes no more rows when the watermark is at `watermark`.
    pub(crate) fn is_closed(self, end: i64, watermark: i64) -> bool {
        end.saturating_add(self.allowed_us) <= watermark
    }
}
