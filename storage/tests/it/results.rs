//! Kept answers are those that would be found: for random segments, requests and schema changes, all in one small cache.

use std::sync::Arc;

use proptest::prelude::*;
use tidemill_storage::{
    aggregate::{Aggregate, AggregateRequest, Function, GroupKey, ResultCache},
    clock::ManualClock,
    ids::{ColumnId, PartitionId, SchemaVersion},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{ScanMetrics, ScanUnit},
    segment::Segment,
    testing::{
        Random,
        aggregate::{self, Groups},
        generate,
    },
};

use crate::scan::{committed, consuming};

/// The groups, and how they came about.
fn asked(
    unit: &ScanUnit,
    request: &AggregateRequest,
    cache: Option<&Arc<ResultCache>>,
) -> Option<(Groups, &'static str)> {
    let request = Arc::new(AggregateRequest { results: cache.cloned(), ..request.clone() });
    let mut run = unit.aggregate(&request, &Arc::new(ScanMetrics::default())).ok()?;
    while run.step().ok()? {}
    let batch = run.take().ok()?;
    assert_eq!(batch.schema(), request.output_schema().unwrap());
    assert!(request.keys.is_empty() || run.take().unwrap().num_rows() == 0, "an answer is given once");
    Some((aggregate::answered(&request, &batch), run.way()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn kept_answers_are_those_that_would_be_found(seed: u64, rows in prop_oneof![1usize..20, 100usize..800], bytes in prop_oneof![Just(1usize << 14), Just(1 << 24)]) {
        let mut random = Random::new(seed);
        let random = &mut random;
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(ResultCache::keeping(bytes, 0, Arc::new(ManualClock::default())));
        // Segments of two tables may have the same ids; these have.
        let (mut units, mut requests) = (Vec::new(), Vec::new());
        for table in 0..2u32 {
            let (segment, written) = consuming(random, rows);
            let folder = dir.path().join(table.to_string());
            std::fs::create_dir(&folder).unwrap();
            units.push(ScanUnit { partition: PartitionId(0), segment: committed(&segment, &folder), rows: 0..rows as u32 });
            units.push(ScanUnit { partition: PartitionId(0), segment: committed(&segment, &folder), rows: 0..rows as u32 / 2 });
            units.push(ScanUnit { partition: PartitionId(0), segment: Arc::new(segment), rows: 0..rows as u32 });
            let mut some: Vec<AggregateRequest> = Vec::new();
            for version in 0..4 {
                let mut schema = if version == 0 { written.schema.clone() } else { generate::altered(random, &written.schema) };
                schema.version = SchemaVersion(schema.version.0 + version);
                for _ in 0..3 {
                    some.push(aggregate::request(random, &schema));
                }
            }
            requests.push(some);
        }
        for _ in 0..120 {
            let place = random.below(units.len());
            let unit = &units[place];
            let some = &requests[place / 3];
            let request = &some[random.below(some.len())];
            let (kept, found) = (asked(unit, request, Some(&cache)), asked(unit, request, None));
            match (kept, found) {
                (Some((kept, _)), Some((found, _))) => prop_assert!(aggregate::agree(&kept, &found), "{request:?}: {kept:?} {found:?}"),
                (kept, found) => prop_assert!(kept.is_none() && found.is_none(), "{request:?}: {kept:?} {found:?}"),
            }
            prop_assert!(cache.bytes() <= bytes as u64, "{} of {bytes} bytes", cache.bytes());
        }
    }
}

fn in_steps(segment: &Arc<dyn Segment>, column: ColumnId, predicate: Predicate) -> AggregateRequest {
    AggregateRequest {
        schema: Arc::clone(segment.schema()),
        keys: vec![GroupKey { column, bin: None }],
        aggregates: vec![Aggregate { function: Function::Rows, filter: None }],
        computed: Vec::new(),
        predicate: Some(predicate),
        indexes: Default::default(),
        results: None,
        star_tree: true,
    }
}

/// A moving condition that all rows of a segment satisfy does not make its answer another one.
#[test]
fn what_all_rows_satisfy_is_no_part_of_the_question() {
    let mut random = Random::new(11);
    // Some column whose statistics tell that all values are above something.
    let (segment, column, least) = loop {
        let (segment, written) = consuming(&mut random, 500);
        let found = written.schema.columns.iter().find_map(|column| match segment.stats(column.id) {
            Some(stats)
                if stats.nulls == 0 && GroupKey { column: column.id, bin: None }.is_supported(&column.data_type) =>
            {
                match &stats.min {
                    Some(Scalar::Int(least)) if *least > i64::from(i16::MIN) + 10 => Some((column.id, *least)),
                    _ => None,
                }
            }
            _ => None,
        });
        if let Some((column, least)) = found {
            break (segment, column, least);
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let unit =
        ScanUnit { partition: PartitionId(0), rows: 0..segment.rows(), segment: committed(&segment, dir.path()) };
    let cache = Arc::new(ResultCache::keeping(1 << 20, 0, Arc::new(ManualClock::default())));
    let above = |value: i64| {
        let moving = Predicate::Compare { column, op: CompareOp::Greater, value: Scalar::Int(value) };
        in_steps(&unit.segment, column, moving)
    };
    let way = |request: &AggregateRequest| asked(&unit, request, Some(&cache)).unwrap();
    let (first, how) = way(&above(least - 5));
    assert_ne!(how, "kept answer");
    let (second, how) = way(&above(least - 3));
    assert_eq!(how, "kept answer");
    assert!(aggregate::agree(&first, &second));
    // One that leaves rows out is another question.
    let (third, how) = way(&above(least));
    assert_ne!(how, "kept answer");
    assert!(!aggregate::agree(&first, &third));
    assert_eq!((cache.hits(), cache.misses()), (1, 2));
}

/// Without room nothing is kept, and nothing fails.
#[test]
fn a_cache_of_no_bytes_keeps_nothing() {
    let mut random = Random::new(5);
    let (segment, written) = consuming(&mut random, 200);
    let dir = tempfile::tempdir().unwrap();
    let unit =
        ScanUnit { partition: PartitionId(0), rows: 0..segment.rows(), segment: committed(&segment, dir.path()) };
    let cache = Arc::new(ResultCache::keeping(0, 0, Arc::new(ManualClock::default())));
    let request = aggregate::request(&mut random, &written.schema);
    for _ in 0..2 {
        assert_ne!(asked(&unit, &request, Some(&cache)).unwrap().1, "kept answer");
    }
    assert_eq!((cache.bytes(), cache.answers()), (0, 0));
}
