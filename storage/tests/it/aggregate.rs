//! Consuming and committed segments group their rows as the plain twin does: for random schemas, rows, requests and schema changes.

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use proptest::prelude::*;
use tidemill_storage::{
    Error,
    aggregate::{AggregateRequest, Computed, Function, MergedGroups, bounds},
    ids::{ColumnId, PartitionId},
    scan::{ScanMetrics, ScanUnit},
    schema::{DataType, TableSchema},
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
        for asked in aggregate::distinct_requests(random, &current) {
            let asked = Arc::new(asked);
            let expected = aggregate::groups(&part, &asked).unwrap();
            for segment in [&consuming, &committed] {
                let found = grouped(segment, range.clone(), &asked).unwrap();
                assert!(aggregate::agree(&found, &expected), "seed {seed}, {asked:#?}:\n{found:?}\n{expected:?}");
            }
        }
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

fn column_type(computed: &[Computed], schema: &TableSchema, id: ColumnId) -> DataType {
    let computed = computed.iter().map(|computed| &computed.column).find(|column| column.id == id);
    computed.or_else(|| schema.column(id)).unwrap().data_type.clone()
}

/// The same groups in places for those of all segments: some rows in the committed segment, others in the consuming one, by one lane or two.
fn check_merged(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    for round in 0..8 {
        let current = if round < 4 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let cut = random.below(rows + 1) as u32;
        let mut units = vec![
            ScanUnit { partition: PartitionId(0), segment: Arc::clone(&committed), rows: 0..cut },
            ScanUnit { partition: PartitionId(0), segment: Arc::clone(&consuming), rows: cut..rows as u32 },
        ];
        units.retain(|unit| !unit.rows.is_empty());
        let lanes = 1 + random.below(2);
        let mut request = aggregate::request(random, &current);
        request.aggregates.retain(|one| {
            let data_type = one.function.column().map(|id| column_type(&request.computed, &current, id));
            match (&one.function, data_type) {
                (Function::Min(_) | Function::Max(_), Some(DataType::Text)) => false,
                (Function::Distinct(_) | Function::Quantiles(_) | Function::Set(_), _) => false,
                // Depend on the order.
                (Function::Sum(_), Some(DataType::Real | DataType::Double)) => lanes == 1,
                _ => true,
            }
        });
        let asked = std::mem::take(&mut request.keys);
        let mut keys = Vec::new();
        for key in asked {
            keys.push(key);
            let tried = AggregateRequest { keys: keys.clone(), ..request.clone() };
            let fits = bounds(&units, &tried).unwrap().and_then(|bounds| MergedGroups::places(&tried, &bounds));
            if fits.is_none_or(|places| places > 100_000) {
                keys.pop();
            }
        }
        request.keys = keys;
        let request = Arc::new(request);
        let Some(bounds) = bounds(&units, &request).unwrap() else { continue };
        let metrics = Arc::new(ScanMetrics::default());
        let run = || -> Result<Vec<RecordBatch>, Error> {
            let mut all: Option<MergedGroups> = None;
            for lane in 0..lanes {
                let mut groups = MergedGroups::new(&request, &bounds)?;
                for unit in units.iter().skip(lane).step_by(lanes) {
                    let mut run = groups.read(unit, &metrics)?;
                    while run.step()? {}
                    groups = run.into_groups()?;
                }
                match &mut all {
                    None => all = Some(groups),
                    Some(all) => all.add(groups)?,
                }
            }
            let mut all = all.unwrap();
            let mut batches = Vec::new();
            while let Some(batch) = all.take(1 + seed as usize % 3000)? {
                batches.push(batch);
            }
            Ok(batches)
        };
        match (run(), aggregate::groups(&written, &request)) {
            (Ok(batches), Some(expected)) => {
                let mut found: Groups = batches.iter().flat_map(|batch| aggregate::answered(&request, batch)).collect();
                found.sort_by(|a, b| a.0.cmp(&b.0));
                assert!(aggregate::agree(&found, &expected), "seed {seed}, {request:#?}:\n{found:?}\n{expected:?}");
            }
            (Err(Error::OutOfRange(_)), _) => {}
            (found, expected) => panic!("seed {seed}: {found:?} for {expected:?} of {request:#?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn groups_of_all_segments_are_those_of_all_rows(seed: u64, rows in prop_oneof![1usize..20, 1usize..400, 1000usize..3000]) {
        check_merged(seed, rows);
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

/// Distinct values of a column that has a dictionary, of one value and of none are known, whatever reads them, unless rows are not valid.
#[test]
fn distinct_values_are_those_of_the_dictionary() {
    let (mut random, mut known) = (Random::new(7), 0);
    for _ in 0..20 {
        let (consuming, written) = consuming(&mut random, 400);
        let dir = tempfile::tempdir().unwrap();
        let committed = committed(&consuming, dir.path());
        let one_less = Arc::clone(&committed).masked(Arc::new([3].into_iter().collect()));
        for asked in aggregate::distinct_requests(&mut random, &written.schema) {
            let request = Arc::new(AggregateRequest { predicate: None, ..asked });
            let way = |segment: &Arc<dyn Segment>, rows| {
                let metrics = Arc::new(ScanMetrics::default());
                Arc::clone(segment).aggregate(rows, Arc::clone(&request), metrics).unwrap().way()
            };
            let by_dictionary = committed.encoding(request.keys[0].column).unwrap().contains("dictionary");
            known += usize::from(by_dictionary);
            let is_known = committed.answers_by_metadata(&request);
            assert!(is_known || !by_dictionary);
            assert_eq!(way(&committed, 0..400) == "metadata", is_known);
            assert!(!one_less.answers_by_metadata(&request));
            assert_ne!(way(&one_less, 0..400), "metadata");
            assert_ne!(way(&committed, 0..399), "metadata");
        }
    }
    assert!(known > 5, "{known}");
}
