//! The plans of the statements that a session sent last, by their text: a dashboard sends the same few again and again, and many
//! drivers prepare anew for each execution.
//!
//! A plan is found again while no definition and no setting has changed since it was made.

use std::{collections::HashMap, sync::Arc};

use super::Prepared;

/// Statements remembered.
const PLANS_MAX: usize = 256;
/// Bytes of a statement that is remembered.
const TEXT_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Plans {
    known: HashMap<Arc<str>, Known>,
    /// Counts look-ups, to tell what was used last.
    clock: u64,
}

#[derive(Debug)]
struct Known {
    prepared: Prepared,
    settings: u64,
    used: u64,
}

impl Plans {
    /// What was prepared from the same text with the same types, under the same definitions and settings, as `wanted` was.
    pub(super) fn find(&mut self, wanted: &Prepared, settings: u64) -> Option<Prepared> {
        self.clock += 1;
        let known = self.known.get_mut(&wanted.statement.text)?;
        let same = known.settings == settings
            && known.prepared.version == wanted.version
            && known.prepared.types == wanted.types;
        if !same {
            return None;
        }
        known.used = self.clock;
        metrics::counter!("tidemill_plans_reused_total").increment(1);
        // The same text may stand elsewhere in another string.
        Some(Prepared { statement: Arc::clone(&wanted.statement), ..known.prepared.clone() })
    }

    /// Remembers a statement that reads nothing but stored tables.
    pub(super) fn keep(&mut self, prepared: &Prepared, settings: u64) {
        let text = &prepared.statement.text;
        let lasts = prepared.plan.as_ref().is_some_and(|plan| plan.reads_stored_tables());
        if !lasts || text.len() > TEXT_MAX {
            return;
        }
        if self.known.len() >= PLANS_MAX
            && !self.known.contains_key(text)
            && let Some(oldest) =
                self.known.iter().min_by_key(|(_, known)| known.used).map(|(text, _)| Arc::clone(text))
        {
            self.known.remove(&oldest);
        }
        let known = Known { prepared: prepared.clone(), settings, used: self.clock };
        self.known.insert(Arc::clone(text), known);
    }
}
