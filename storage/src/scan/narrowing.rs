//! Conditions that become known while a scan runs.
//!
//! The k best rows found so far, or the keys on the other side of a join, rule out rows that nobody has read yet. Whoever knows such
//! a condition hands it to the scan as a [`Narrowing`]; the scan asks for it before each window, leaves out segments that
//! statistics rule out, and decodes only rows that satisfy it:
//!
//! ```text
//! ORDER BY ts DESC LIMIT 10
//! window     1 024 rows of the newest segment        ─► the ten best so far: ts > 12:04:51
//! windows    ts > 12:04:51, on packed values         ─► few rows, a stricter bound
//! segments   max(ts) = 12:04:50                      ─► not touched
//! ```
//!
//! It saves work and promises nothing: rows that were read before the condition was known may come out all the same.

use std::{fmt, sync::Arc};

use crate::predicate::Predicate;

/// A condition that only ever gets stricter.
pub trait Narrowing: Send + Sync + fmt::Debug {
    /// Another number whenever the condition is another one. Asked often.
    fn version(&self) -> u64;

    /// Rows for which this is not TRUE need not be returned; `None` while all are wanted.
    fn condition(&self) -> Option<Arc<Predicate>>;
}

/// What one scan knows of its narrowing.
#[derive(Debug)]
pub(crate) struct Watch {
    narrowing: Arc<dyn Narrowing>,
    version: Option<u64>,
}

impl Watch {
    pub(crate) fn new(narrowing: Arc<dyn Narrowing>) -> Self {
        Self { narrowing, version: None }
    }

    /// The condition, when it is another one than at the last call.
    pub(crate) fn changed(&mut self) -> Option<Option<Arc<Predicate>>> {
        // The version first: a condition newer than its version is asked for again, never missed.
        let version = self.narrowing.version();
        if self.version == Some(version) {
            return None;
        }
        self.version = Some(version);
        Some(self.narrowing.condition())
    }
}
