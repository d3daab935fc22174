//! Consuming and committed segments group their rows as the plain twin does: for random schemas, rows, requests and schema changes.

use std::{ops::Range, sync::Arc};

use proptest::prelude::*;
use tidemill_storage::{
    Error,
    aggregate::AggregateRequest,
    scan::ScanMetrics,
    segment::Segment,
    testing::{
        Random,
        aggregate::{self, Groups},
        generate,
        oracle::Written,
    },
};

use crate::scan::{committed, consuming};

pub(crate) fn grouped(
    segment: &Arc<dyn Segment>,
    rows: Range<u32>,
    request: &Arc<AggregateRequest>,
) -> Result<Groups, Error> {
    let metrics = Arc::new(ScanMetrics::default());
    let mut run = Arc::clone(segment).aggregate(rows, Arc::clone(request), Arc::clone(&metrics))?;
    while run.step()? {}
    let batch = run.take()?;
    assert_eq!(batch.schema(), request.output_schema().unwrap());
    // It begins anew.
    if !request.keys.is_empty() {
        assert_eq!(run.take()?.num_rows(), 0);
    }
    Ok(aggregate::answered(request, &batch))
}

fn check(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    for round in 0..8 {
        let current = if round < 4 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let request = Arc::new(aggregate::request(random, &current));
        let range = if random.one_in(2) {
            0..rows as u32
        } else {
            let start = random.below(rows + 1);
            start as u32..(start + random.below(rows + 1 - start)) as u32
        };
        let part = Written {
            schema: written.schema.clone(),
            rows: written.rows[range.start as usize..range.end as usize].to_vec(),
        };
        let expected = aggregate::groups(&part, &request);
        for segment in [&consuming, &committed] {
            match (grouped(segment, range.clone(), &request), &expected) {
                (Ok(found), Some(expected)) => assert!(
                    aggregate::agree(&found, expected),
                    "seed {seed}, {:?} segment, {range:?} of {request:#?}:\n{found:?}\n{expected:?}",
                    segment.state()
                ),
                // The bounds of all rows may leave the type where those of the chosen rows do not.
                (Err(Error::OutOfRange(_)), _) if request.keys.iter().any(|key| key.bin.is_some()) => {}
                (Err(Error::OutOfRange(_)), None) => {}
                (found, expected) => {
                    panic!("seed {seed}, {:?} segment: {found:?} for {expected:?} of {request:#?}", segment.state())
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn consuming_committed_and_twin_agree(seed: u64, rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000]) {
        check(seed, rows);
    }
}

/// More rows than a window, a step and a full chunk have.
#[test]
fn they_agree_on_many_rows() {
    for seed in 0..4 {
        check(seed, 30_000);
    }
    check(4, 80_000);
}
