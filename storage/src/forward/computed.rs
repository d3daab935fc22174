//! Conditions that the layer above evaluates: for the rows that are left, until it pays to evaluate the values of the dictionary.

use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use super::select::Decoded;
use crate::{Result, bitpack::IdSet, dictionary::Dictionary};

/// Where there are fewer values than one in this many rows, the condition may be evaluated on the values.
const ROWS_PER_VALUE: u64 = 4;

#[derive(Debug)]
pub(super) struct Computed {
    pub(super) decoded: Decoded,
    /// Rows that were left so far.
    asked: AtomicUsize,
    /// The ids that pass; `None` where rows are decoded: the condition fails for a value, which need not be a row's that is left.
    ids: OnceLock<Option<IdSet>>,
}

impl Computed {
    /// Of a column without a dictionary, or with one for whose values the condition fails.
    pub(super) fn by_row(decoded: Decoded) -> Self {
        Self { decoded, asked: AtomicUsize::new(0), ids: OnceLock::from(None) }
    }

    pub(super) fn by_value(decoded: Decoded, dictionary: &Dictionary, rows: u32) -> Self {
        if u64::from(dictionary.len()) * ROWS_PER_VALUE > u64::from(rows) {
            return Self::by_row(decoded);
        }
        Self { decoded, asked: AtomicUsize::new(0), ids: OnceLock::new() }
    }

    /// The ids that pass, from when on as many rows were left as there are values.
    pub(super) fn ids(&self, left: usize, dictionary: &Dictionary) -> Result<Option<&IdSet>> {
        if let Some(known) = self.ids.get() {
            return Ok(known.as_ref());
        }
        let asked = self.asked.fetch_add(left, Ordering::Relaxed).saturating_add(left);
        if asked < dictionary.len() as usize {
            return Ok(None);
        }
        let values = dictionary.values()?;
        let found = self.ids.get_or_init(|| {
            let passed = self.decoded.select(values).ok()?;
            Some(IdSet::of(passed.len(), passed.iter().map(|id| id as u32)))
        });
        Ok(found.as_ref())
    }
}
