//! What changed between two snapshots, beside what both of them have.

use std::collections::BTreeMap;

use super::{IndexUse, TableSnapshot, amounts};

/// The rows before, less those that went, with those that came, are the rows now. How many came and went, rows that were only written again among them.
pub(super) fn check(before: &TableSnapshot, now: &TableSnapshot) -> usize {
    let changes = now.changes_since(before);
    let (came, went) = (amounts(&changes.came, IndexUse::WhereFaster), amounts(&changes.went, IndexUse::WhereFaster));
    assert_eq!((came.len() as u64, went.len() as u64), (changes.came.rows(), changes.went.rows()));
    assert_eq!(changes.is_empty(), came.is_empty() && went.is_empty());
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    let mut count = |amounts: Vec<i64>, one: i64| {
        amounts.into_iter().for_each(|amount| *counts.entry(amount).or_default() += one);
    };
    let moved = came.len() + went.len();
    count(amounts(before, IndexUse::Off), 1);
    count(came, 1);
    count(went, -1);
    count(amounts(now, IndexUse::Off), -1);
    counts.retain(|_, count| *count != 0);
    assert!(counts.is_empty(), "amounts that are there too often or too seldom: {counts:?}");
    moved
}
