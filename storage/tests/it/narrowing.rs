//! A scan under a condition that gets stricter while it runs gives rows of the plain scan, each at most once, and of those that satisfy the
//! condition in its end none is missing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use tidemill_storage::{
    ids::ColumnId,
    predicate::Predicate,
    scan::{Narrowing, ScanHints, ScanMetrics, ScanRequest},
    segment::Segment,
    testing::{
        Random, generate,
        oracle::{self, Written},
    },
};

use crate::scan::{committed, consuming};

/// Another condition becomes known each time that somebody looks.
#[derive(Debug)]
struct Growing {
    conditions: Vec<Arc<Predicate>>,
    looks: AtomicU64,
    known: Mutex<usize>,
}

impl Narrowing for Growing {
    fn version(&self) -> u64 {
        self.looks.fetch_add(1, Ordering::Relaxed) / 2
    }

    fn condition(&self) -> Option<Arc<Predicate>> {
        let mut known = self.known.lock().unwrap();
        *known = (*known + 1).min(self.conditions.len());
        match self.conditions[..*known] {
            [] => None,
            [ref one] => Some(Arc::clone(one)),
            ref many => Some(Arc::new(Predicate::And(many.iter().map(|one| one.as_ref().clone()).collect()))),
        }
    }
}

fn check(seed: u64, rows: usize) {
    let random = &mut Random::new(seed);
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    for round in 0..4 {
        let current = if round < 2 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let projection: Vec<ColumnId> = current.columns.iter().map(|column| column.id).collect();
        let predicate = if random.one_in(2) { None } else { Some(generate::predicate(random, &current, 1)) };
        let conditions: Vec<_> =
            (0..random.below(4)).map(|_| Arc::new(generate::predicate(random, &current, 1))).collect();
        let all = oracle::scan(&written, &current, &projection, predicate.as_ref());
        let strictest: Vec<Predicate> =
            predicate.iter().cloned().chain(conditions.iter().map(|one| one.as_ref().clone())).collect();
        let least = oracle::scan(&written, &current, &projection, Some(&Predicate::And(strictest)));
        for (segment, backwards) in [(&consuming, false), (&consuming, true), (&committed, false), (&committed, true)] {
            let growing = Growing { conditions: conditions.clone(), looks: AtomicU64::new(0), known: Mutex::new(0) };
            let request = Arc::new(ScanRequest {
                schema: Arc::new(current.clone()),
                projection: projection.clone(),
                predicate: predicate.clone(),
                limit: None,
                batch_rows: *random.pick(&[1, 1000, 8192]),
                hints: ScanHints { narrowing: Some(Arc::new(growing)), backwards, ..ScanHints::default() },
            });
            let found = found(segment, &written, &request);
            let what = format!("{:?} segment, backwards {backwards}, of {request:#?}", segment.state());
            assert!(is_part(&found, &all), "rows that the plain scan does not give: {what}");
            assert!(is_part(&least, &found), "rows are missing: {what}");
        }
    }
}

fn found(segment: &Arc<dyn Segment>, written: &Written, request: &Arc<ScanRequest>) -> Vec<oracle::Row> {
    let types: Vec<_> = request.schema.columns.iter().map(|column| column.data_type.clone()).collect();
    let metrics = Arc::new(ScanMetrics::default());
    let batches =
        Arc::clone(segment).scan(0..written.rows.len() as u32, Arc::clone(request), Arc::clone(&metrics)).unwrap();
    batches.flat_map(|batch| oracle::rows_of(&types, &batch.unwrap())).collect()
}

/// Whether each row of `part` is in `whole`, as often at least.
fn is_part(part: &[oracle::Row], whole: &[oracle::Row]) -> bool {
    let whole: Vec<String> = whole.iter().map(|row| format!("{row:?}")).collect();
    let mut left = HashMap::<&str, usize>::new();
    whole.iter().for_each(|row| *left.entry(row).or_default() += 1);
    part.iter().all(|row| match left.get_mut(format!("{row:?}").as_str()) {
        Some(times) if *times > 0 => {
            *times -= 1;
            true
        }
        _ => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn narrowed_scans_lose_no_row_that_is_wanted(seed: u64, rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000]) {
        check(seed, rows);
    }
}

#[test]
fn also_over_many_windows() {
    for seed in 0..3 {
        check(seed, 30_000);
    }
}
