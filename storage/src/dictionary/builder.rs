//! Finding the distinct values of a column.

use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

use foldhash::fast::RandomState;

/// The distinct values of a column, ascending, and the id of each row's.
#[derive(Debug)]
pub(crate) struct Distinct<K> {
    pub(crate) keys: Vec<K>,
    pub(crate) ids: Vec<u32>,
}

/// New values between two looks at whether a dictionary still pays.
const PATIENCE: usize = 256;

/// What was found so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rows: usize,
    pub(crate) distinct: usize,
    /// Bytes of the distinct values.
    pub(crate) bytes: usize,
    /// Runs of rows of one value.
    pub(crate) runs: usize,
}

/// Collects the values of `rows`. A null row takes the id of the row before it. `pays` is asked now and then; `None` as soon as it says
/// no.
pub(crate) fn distinct<K: Copy + Eq + Hash>(
    rows: impl Iterator<Item = Option<K>>,
    rows_count: usize,
    bytes_of: impl Fn(K) -> usize,
    compare: impl Fn(&K, &K) -> Ordering,
    pays: impl Fn(Seen) -> bool,
) -> Option<Distinct<K>> {
    let mut known: HashMap<K, u32, RandomState> = HashMap::default();
    let mut keys: Vec<K> = Vec::new();
    let mut ids: Vec<u32> = Vec::with_capacity(rows_count);
    let (mut seen, mut last) = (Seen::default(), None::<(K, u32)>);
    for row in rows {
        let id = match (row, last) {
            (None, last) => last.map_or(0, |(_, id)| id),
            (Some(key), Some((same, id))) if key == same => id,
            (Some(key), _) => {
                let id = match known.entry(key) {
                    Entry::Occupied(entry) => *entry.get(),
                    Entry::Vacant(entry) => {
                        let id = keys.len() as u32;
                        entry.insert(id);
                        keys.push(key);
                        seen.bytes += bytes_of(key);
                        (seen.rows, seen.distinct) = (ids.len(), keys.len());
                        if keys.len().is_multiple_of(PATIENCE) && !pays(seen) {
                            return None;
                        }
                        id
                    }
                };
                seen.runs += 1;
                last = Some((key, id));
                id
            }
        };
        ids.push(id);
    }
    (seen.rows, seen.distinct) = (ids.len(), keys.len());
    if !pays(seen) {
        return None;
    }
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_unstable_by(|a, b| compare(&keys[*a as usize], &keys[*b as usize]));
    let mut place = vec![0u32; keys.len()];
    order.iter().enumerate().for_each(|(new, old)| place[*old as usize] = new as u32);
    if !keys.is_empty() {
        ids.iter_mut().for_each(|id| *id = place[*id as usize]);
    }
    Some(Distinct { keys: order.iter().map(|old| keys[*old as usize]).collect(), ids })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_lead_back_to_the_values(rows in prop::collection::vec(prop::option::of(-30i64..30), 0..500)) {
            let found = distinct(rows.iter().copied(), rows.len(), |_| 8, i64::cmp, |_| true).expect("always pays");
            prop_assert!(found.keys.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(found.ids.len(), rows.len());
            for (row, id) in rows.iter().zip(&found.ids) {
                if let Some(value) = row {
                    prop_assert_eq!(found.keys[*id as usize], *value);
                }
            }
        }
    }

    #[test]
    fn it_gives_up_when_told() {
        let give_up = |seen: Seen| seen.distinct < 4_000;
        assert!(distinct((0..100_000i64).map(Some), 100_000, |_| 8, i64::cmp, give_up).is_none());
        let rows = (0..100_000i64).map(|row| Some(row / 50_000));
        let two = |seen: Seen| (seen.rows, seen.distinct, seen.bytes, seen.runs) == (100_000, 2, 16, 2);
        assert!(distinct(rows, 100_000, |_| 8, i64::cmp, two).is_some());
    }
}
