//! Segments some of whose rows are not valid answer as if these were not there: scans and aggregations, with and without indexes and star-trees,
//! consuming and sealed, by statistics and merged over segments.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringViewArray},
    datatypes::Int64Type,
};
use proptest::prelude::*;
use tidemill_storage::{
    Error,
    aggregate::{
        Aggregate, AggregateRequest, BY_STAR_TREE_LESS_ROWS, Function, GroupKey, MergedGroups, ResultCache, bounds,
    },
    clock::ManualClock,
    ids::{ColumnId, PartitionId, SchemaVersion, SegmentId},
    index::star::StarTree,
    predicate::{CompareOp, Condition, Predicate},
    scalar::Scalar,
    scan::{IndexUse, ScanHints, ScanMetrics, ScanRequest, ScanUnit},
    schema::{Column, DataType, TableSchema},
    segment::{Segment, consuming::ConsumingSegment},
    testing::{
        Random, aggregate, generate,
        oracle::{self, Written},
    },
    upsert::Validity,
};

use crate::{
    aggregate::grouped,
    index::{of, predicate, specs, with},
    scan::{committed, consuming, request, scanned},
    star_tree,
};

/// Few, many, all or runs of the rows.
fn invalid(random: &mut Random, rows: usize) -> Vec<u32> {
    let one_in = *random.pick(&[1, 2, 2, 20, 1000]);
    let run = *random.pick(&[1, 1, 70, 2000]);
    (0..rows)
        .step_by(run)
        .filter(|_| random.one_in(one_in))
        .flat_map(|row| row..rows.min(row + run))
        .map(|row| row as u32)
        .collect()
}

fn check(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    let all = specs(&written.schema, |_| true);
    for spec in all.iter().filter(|_| random.one_in(2)) {
        of(&committed).build_index(spec).unwrap();
    }
    let tree = star_tree::tree(random, &written.schema);
    if let Some(tree) = &tree {
        of(&committed).build_index(&star_tree::spec(100, tree.clone())).unwrap();
    }
    let cache = Arc::new(ResultCache::keeping(1 << 24, 0, Arc::new(ManualClock::default())));
    for round in 0..6 {
        let gone = invalid(random, rows);
        let validity = Arc::new(gone.iter().copied().collect::<Validity>());
        assert_eq!(validity.invalid() as usize, gone.len());
        let masked = [&consuming, &committed].map(|segment| Arc::clone(segment).masked(Arc::clone(&validity)));
        let current = if round < 4 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let range = if random.one_in(2) {
            0..rows as u32
        } else {
            let start = random.below(rows + 1);
            start as u32..(start + random.below(rows + 1 - start)) as u32
        };
        let valid = |row: &u32| validity.is_valid(*row);
        let part = Written {
            schema: written.schema.clone(),
            rows: range.clone().filter(valid).map(|row| written.rows[row as usize].clone()).collect(),
        };
        let projection: Vec<ColumnId> =
            current.columns.iter().map(|column| column.id).filter(|_| random.one_in(2)).collect();
        let condition = if random.one_in(3) { None } else { Some(predicate(random, &current, &written)) };
        let expected = oracle::scan(&part, &current, &projection, condition.as_ref());
        let wanted = request(&current, projection, condition, None, 8192);
        for segment in &masked {
            assert!(segment.as_committed().is_none(), "nobody reads around the mask");
            for indexes in [IndexUse::Off, IndexUse::WhereFaster, IndexUse::Always] {
                let found = scanned(segment, range.clone(), &with(&wanted, indexes));
                assert_eq!(found, expected, "seed {seed}, {:?}, {range:?} of {wanted:#?}", segment.state());
            }
            let limit = random.below(rows + 1);
            let limited = Arc::new(ScanRequest { limit: Some(limit), ..wanted.as_ref().clone() });
            let found = scanned(segment, range.clone(), &limited);
            assert_eq!(found, expected[..limit.min(expected.len())], "seed {seed}, {limited:#?}");
            let hints = ScanHints { backwards: true, ..ScanHints::default() };
            let backwards = Arc::new(ScanRequest { hints, ..wanted.as_ref().clone() });
            assert_eq!(scanned(segment, range.clone(), &backwards).len(), expected.len());
        }
        // Borders of bins may be no values of the column's type: only packed values are compared with these.
        let (asked, segments) = match &tree {
            Some(tree) if random.one_in(2) => (star_tree::request(random, tree, &current, &written), &masked[1..]),
            _ => (aggregate::request(random, &current), &masked[..]),
        };
        let counts = AggregateRequest {
            keys: Vec::new(),
            predicate: asked.predicate.clone().filter(|_| random.one_in(3)),
            aggregates: asked
                .aggregates
                .iter()
                .cloned()
                .chain([Aggregate { function: Function::Rows, filter: None }])
                .collect(),
            ..asked.clone()
        };
        for asked in aggregate::distinct_requests(random, &current).into_iter().chain([asked, counts]) {
            let asked = Arc::new(AggregateRequest { results: Some(Arc::clone(&cache)), ..asked });
            let Some(expected) = aggregate::groups(&part, &asked) else { continue };
            for segment in segments {
                match grouped(segment, range.clone(), &asked) {
                    Ok(found) => assert!(
                        aggregate::agree(&found, &expected),
                        "seed {seed}, {:?} segment, {range:?} without {gone:?} of {asked:#?}:\n{found:?}\n{expected:?}",
                        segment.state()
                    ),
                    Err(Error::OutOfRange(_)) => {}
                    Err(error) => panic!("seed {seed}: {error} of {asked:#?}"),
                }
            }
            if segments.len() == masked.len() {
                merged(seed, &masked, &asked, &part, &range);
            }
        }
    }
}

/// Both segments into one set of groups.
fn merged(
    seed: u64,
    masked: &[Arc<dyn Segment>; 2],
    asked: &Arc<AggregateRequest>,
    part: &Written,
    range: &std::ops::Range<u32>,
) {
    let mut asked = asked.as_ref().clone();
    asked.aggregates.retain(|one| {
        let data_type = one.function.column().and_then(|id| asked.schema.column(id)).map(|column| &column.data_type);
        match (&one.function, data_type) {
            (Function::Min(_) | Function::Max(_), Some(DataType::Text) | None) => false,
            (Function::Distinct(_) | Function::Quantiles(_) | Function::Set(_), _) => false,
            (Function::Sum(_), Some(DataType::Real | DataType::Double) | None) => false,
            (Function::Rows, _) => true,
            (_, data_type) => data_type.is_some(),
        }
    });
    asked.computed.clear();
    let asked = Arc::new(asked);
    let units: Vec<ScanUnit> = masked
        .iter()
        .map(|segment| ScanUnit { partition: PartitionId(0), segment: Arc::clone(segment), rows: range.clone() })
        .collect();
    let Some(bounds) = bounds(&units, &asked).unwrap() else { return };
    if MergedGroups::places(&asked, &bounds).is_none_or(|places| places > 100_000) {
        return;
    }
    let metrics = Arc::new(ScanMetrics::default());
    let run = || -> Result<_, Error> {
        let mut groups = MergedGroups::new(&asked, &bounds)?;
        for unit in &units {
            let mut run = groups.read(unit, &metrics)?;
            while run.step()? {}
            groups = run.into_groups()?;
        }
        let mut found = aggregate::Groups::new();
        while let Some(batch) = groups.take(1000)? {
            found.extend(aggregate::answered(&asked, &batch));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    };
    let twice = Written { schema: part.schema.clone(), rows: [part.rows.clone(), part.rows.clone()].concat() };
    match (run(), aggregate::groups(&twice, &asked)) {
        (Ok(found), Some(expected)) => {
            assert!(aggregate::agree(&found, &expected), "seed {seed}, {asked:#?}:\n{found:?}\n{expected:?}");
        }
        (Err(Error::OutOfRange(_)), _) => {}
        (found, expected) => panic!("seed {seed}: {found:?} for {expected:?} of {asked:#?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn rows_that_are_not_valid_are_not_there(seed: u64, rows in prop_oneof![1usize..20, 1usize..400, 1000usize..3000]) {
        check(seed, rows);
    }
}

/// More rows than a window, a chunk and a chunk of validity have.
#[test]
fn nor_among_many_rows() {
    for seed in 0..3 {
        check(seed, 90_000);
    }
}

/// Groups whose least and greatest values were those of rows that are not valid, once or several times; by a tree as by the rows.
#[test]
fn ends_are_those_of_valid_rows() {
    use Function::{Count, Max, Min, Rows, Sum};
    let types = [DataType::Int, DataType::Text, DataType::BigInt, DataType::Date];
    let columns: Vec<Column> = (0..)
        .zip(types)
        .map(|(id, data_type)| Column {
            nullable: id % 2 == 1,
            ..Column::new(ColumnId(id), format!("c{id}"), data_type)
        })
        .collect();
    let [k, l, v, w] = [0, 1, 2, 3].map(ColumnId);
    let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
    let key = |column| GroupKey { column, bin: None };
    let (mut by_tree, mut renewed, mut by_renewed) = (0, 0, 0);
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let rows = if seed % 20 == 19 { 100_000 } else { *random.pick(&[200, 3000, 20_000]) };
        let (few, values) = (*random.pick(&[3, 40, 500]), *random.pick(&[4, 100, 1_000_000]));
        let texts: StringViewArray =
            (0..rows).map(|_| if random.one_in(20) { None } else { Some(*random.pick(&["a", "b", "c"])) }).collect();
        let numbers: Int32Array = (0..rows).map(|_| Some(random.below(few) as i32)).collect();
        let bigs: Int64Array = (0..rows).map(|_| Some(random.below(values) as i64)).collect();
        let dates: Date32Array =
            (0..rows).map(|_| if random.one_in(3) { None } else { Some(random.below(values) as i32) }).collect();
        let arrays: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts), Arc::new(bigs), Arc::new(dates)];
        let batch = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let consuming = ConsumingSegment::new(SegmentId(1), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
        let segment = committed(&consuming, dir.path());
        let tree = StarTree {
            dimensions: vec![key(k), key(l)],
            aggregates: vec![Rows, Sum(v), Min(v), Max(v), Count(w), Min(w), Max(w)],
            max_leaf_records: 10,
        };
        of(&segment).build_index(&star_tree::spec(1, tree)).unwrap();
        let mut lost: Vec<u32> = Vec::new();
        for _ in 0..20 {
            // Rows go on being lost, or it is another view.
            if random.one_in(3) {
                lost.clear();
            }
            let one_in = *random.pick(&[4, 20, 100, 1000]);
            lost.extend((0..rows as u32).filter(|_| random.one_in(one_in)));
            let validity: Validity = lost.iter().copied().collect();
            let is_renewed = random.one_in(2) && Arc::clone(&segment).renew_star_trees(&validity).unwrap() == 1;
            renewed += usize::from(is_renewed);
            let masked = Arc::clone(&segment).masked(Arc::new(validity));
            let keys = random.pick(&[vec![], vec![k], vec![l], vec![l, k]]).clone();
            let predicate = random.one_in(2).then(|| Predicate::Compare {
                column: k,
                op: *random.pick(&[CompareOp::Less, CompareOp::NotEq]),
                value: Scalar::Int(random.below(few) as i64),
            });
            let aggregates = [Rows, Min(v), Max(v), Min(w), Max(w), Sum(v)];
            let asked = AggregateRequest {
                schema: Arc::new(schema.clone()),
                keys: keys.iter().map(|column| key(*column)).collect(),
                aggregates: aggregates
                    .into_iter()
                    .filter(|_| random.one_in(2))
                    .map(|function| Aggregate { function, filter: None })
                    .collect(),
                computed: Vec::new(),
                predicate,
                indexes: IndexUse::WhereFaster,
                results: None,
                star_tree: true,
            };
            let plain = Arc::new(AggregateRequest { star_tree: false, ..asked.clone() });
            // Where statistics say that no row passes, no tree is asked.
            if is_renewed && let Some((_, less)) = masked.answering_tree(&asked) {
                assert_eq!(less, 0, "seed {seed}: renewed documents count no row that is not valid");
                by_renewed += 1;
            }
            let metrics = Arc::new(ScanMetrics::default());
            let mut run = Arc::clone(&masked).aggregate(0..rows as u32, Arc::new(asked), metrics).unwrap();
            by_tree += usize::from(run.way() == BY_STAR_TREE_LESS_ROWS);
            while run.step().unwrap() {}
            let found = aggregate::answered(&plain, &run.take().unwrap());
            assert_eq!(found, grouped(&masked, 0..rows as u32, &plain).unwrap(), "seed {seed}: {plain:#?}");
        }
    }
    assert!(by_tree > 600, "{by_tree} of 1200 by the tree");
    assert!(renewed > 100 && by_renewed * 10 > renewed * 7, "{by_renewed} answers of {renewed} renewed trees");
}

/// Fails for 3.
#[derive(Debug)]
struct NotForThree;

impl std::fmt::Display for NotForThree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not for three")
    }
}

impl Condition for NotForThree {
    fn holds(&self, values: &ArrayRef) -> Result<BooleanArray, Error> {
        let values = values.as_primitive::<Int64Type>();
        if values.iter().any(|value| value == Some(3)) {
            return Err(Error::Invalid("three".into()));
        }
        Ok(values.iter().map(|value| Some(value.is_some_and(|value| value % 2 == 0))).collect())
    }
}

/// A condition that fails for a row fails only where that row is there.
#[test]
fn conditions_are_not_asked_of_rows_that_are_not_valid() {
    let column = |id: u32| Column::new(ColumnId(id), format!("c{id}"), DataType::BigInt);
    let schema = TableSchema { version: SchemaVersion(1), columns: vec![column(0), column(1)], time_column: None };
    let numbers = |of: fn(i64) -> i64| Arc::new((0..3000).map(|row| Some(of(row))).collect::<Int64Array>()) as ArrayRef;
    let columns = vec![numbers(|row| row * 7_919 % 3_001), numbers(|row| row % 5)];
    let rows = RecordBatch::try_new(schema.arrow(), columns).unwrap();
    let consuming = ConsumingSegment::new(SegmentId(1), Arc::new(schema.clone())).with(&rows, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    for (at, segment) in [Arc::new(consuming) as Arc<dyn Segment>, committed].into_iter().enumerate() {
        for column in [ColumnId(0), ColumnId(1)] {
            let threes = rows.column(column.0 as usize).as_primitive::<Int64Type>();
            let threes = threes.iter().zip(0..).filter(|(value, _)| *value == Some(3)).map(|(_, row)| row);
            let validity: Validity = threes.collect();
            let predicate = Predicate::Holds { column, condition: Arc::new(NotForThree) };
            let wanted = request(&schema, vec![column], Some(predicate), None, 8192);
            let scan = |segment: &Arc<dyn Segment>| -> Result<Vec<RecordBatch>, Error> {
                Arc::clone(segment).scan(0..3000, Arc::clone(&wanted), Arc::default())?.collect()
            };
            assert!(scan(&segment).is_err(), "{at}, {column}");
            let found = scan(&Arc::clone(&segment).masked(Arc::new(validity))).unwrap();
            assert!(found.iter().map(RecordBatch::num_rows).sum::<usize>() > 1000, "{at}, {column}");
        }
    }
}
