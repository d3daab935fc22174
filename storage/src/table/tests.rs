//! Plans by bounds against plans that look at every segment.

use super::*;
use crate::{
    predicate::Predicate,
    scan::ScanHints,
    segment::consuming::ConsumingSegment,
    testing::{Random, generate},
};

fn every_segment(snapshot: &TableSnapshot, request: &ScanRequest) -> ScanPlan {
    let mut plan = ScanPlan::default();
    for segment in snapshot.views.iter().flat_map(|view| view.segments()) {
        let from = From { partition: PartitionId(0), validities: &Validities::default() };
        consider(segment, request, from, &mut plan);
    }
    plan
}

/// Segments of two versions of a schema, committed one by one with plans in between, so that bounds are made and extended.
#[test]
fn bounds_rule_out_what_statistics_do() {
    let mut pruned = 0;
    for seed in 0..300 {
        let random = &mut Random::new(seed);
        let (first, shapes) = generate::schema(random);
        let later = generate::altered(random, &first);
        let (first, later) = (Arc::new(first), Arc::new(later));
        let table = Table::new(TableId(1), Arc::clone(&later), 1);
        let partition = &table.partitions()[0];
        for id in 0..30 {
            let rows = random.below(4);
            let batch = generate::batch(random, &first, &shapes, id * 10, rows);
            let segment = ConsumingSegment::new(SegmentId(id as u64), Arc::clone(&first)).with(&batch, &[]).unwrap();
            partition.put(Arc::new(segment.with_state(SegmentState::Committed)));
            if id % 10 == 7 {
                partition.remove(&[SegmentId(id as u64 - 3)]);
            }
            let parts = (0..1 + random.below(3)).map(|_| generate::predicate(random, &later, 1)).collect();
            let request = ScanRequest {
                schema: Arc::clone(&later),
                projection: Vec::new(),
                predicate: Some(Predicate::And(parts)),
                limit: None,
                batch_rows: 8192,
                hints: ScanHints::default(),
            };
            let snapshot = table.snapshot();
            let (found, expected) = (snapshot.plan(&request), every_segment(&snapshot, &request));
            let ids = |plan: &ScanPlan| plan.units.iter().map(|unit| unit.segment.id()).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(&expected), "seed {seed}: {:?}", request.predicate);
            let counts = |plan: &ScanPlan| (plan.segments_total, plan.pruned_by_time, plan.pruned_by_min_max);
            assert_eq!(counts(&found), counts(&expected), "seed {seed}: {:?}", request.predicate);
            pruned += found.pruned_by_time + found.pruned_by_min_max;
        }
    }
    assert!(pruned > 1000, "only {pruned} were pruned: the test says nothing");
}
