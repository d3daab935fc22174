//! Star-trees: what documents answer is what the plain twin finds in the rows, for random trees and requests; a tree that is damaged, foreign or
//! missing changes no answer.

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::{Array, AsArray};
use proptest::prelude::*;
use tidemill_storage::{
    aggregate::{Aggregate, AggregateRequest, BY_STAR_TREE, Bin, Function, GroupKey, state_type},
    ids::{ColumnId, IndexId, SchemaVersion, SegmentId},
    index::{IndexKind, IndexSpec, StarTree},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::ScanMetrics,
    schema::{Column, DataType, TableSchema},
    segment::{Segment, consuming::ConsumingSegment},
    testing::{
        Random, aggregate, generate,
        oracle::{Value, Written},
    },
};

use crate::{
    aggregate::grouped,
    index::{of, predicate},
    scan::{committed, consuming},
};

pub(crate) fn spec(id: u32, tree: StarTree) -> IndexSpec {
    let columns = tree.columns();
    IndexSpec { id: IndexId(id), name: format!("tree_{id}"), kind: IndexKind::StarTree(Box::new(tree)), columns }
}

/// Sums that do not depend on the order of the rows.
fn is_exact(function: &Function, schema: &TableSchema) -> bool {
    let column = function.column().and_then(|id| schema.column(id));
    !matches!(
        (function, column.map(|column| &column.data_type)),
        (Function::Sum(_), Some(DataType::Real | DataType::Double))
    )
}

fn functions(schema: &TableSchema) -> Vec<Function> {
    use Function::{And, Count, Distinct, Max, Min, Or, Quantiles, Rows, Sum};
    let of = |column: &Column| [Count, Sum, Min, Max, And, Or, Distinct, Quantiles].map(|function| function(column.id));
    let all = schema.columns.iter().flat_map(of).chain([Rows]);
    all.filter(|function| {
        let column = function.column().and_then(|id| schema.column(id));
        state_type(function, column.map(|column| &column.data_type)).is_some() && is_exact(function, schema)
    })
    .collect()
}

fn bin(random: &mut Random) -> Bin {
    Bin {
        width: *random.pick(&[1, 7, 1_000_000, 3_600_000_000, 86_400_000_000]),
        origin: *random.pick(&[0, 0, 3, -1_000_000]),
    }
}

/// A tree of the schema's columns; `None` when none can be a dimension.
pub(crate) fn tree(random: &mut Random, schema: &TableSchema) -> Option<StarTree> {
    let mut dimensions = Vec::new();
    for column in &schema.columns {
        for bin in [Some(bin(random)), None] {
            let key = GroupKey { column: column.id, bin };
            if key.is_supported(&column.data_type) && !random.one_in(3) && dimensions.len() < 6 {
                dimensions.push(key);
            }
        }
    }
    let at = random.below(dimensions.len());
    dimensions.rotate_left(at);
    let aggregates = functions(schema).into_iter().filter(|_| !random.one_in(3)).collect();
    let max_leaf_records = *random.pick(&[1, 4, 50, 10_000]);
    (!dimensions.is_empty()).then_some(StarTree { dimensions, aggregates, max_leaf_records })
}

/// Conditions that bins can answer.
fn at_borders(random: &mut Random, tree: &StarTree, written: &Written) -> Option<Predicate> {
    let GroupKey { column, bin } = random.pick(&tree.dimensions).clone();
    let index = written.schema.index_of(column)?;
    let Value::One(Scalar::Int(value)) = random.pick(&written.rows)[index] else { return None };
    let border = bin?.floor(value)?;
    use CompareOp::{Greater, GreaterEq, Less, LessEq};
    let op = *random.pick(&[GreaterEq, Less, Greater, LessEq]);
    let value = if matches!(op, Greater | LessEq) { border.checked_sub(1)? } else { border };
    Some(Predicate::Compare { column, op, value: Scalar::Int(value) })
}

/// A request that the tree is likely to answer.
pub(crate) fn request(
    random: &mut Random,
    tree: &StarTree,
    current: &TableSchema,
    written: &Written,
) -> AggregateRequest {
    let mut keys = Vec::new();
    for GroupKey { column, bin } in &tree.dimensions {
        if random.one_in(2) && current.column(*column).is_some() {
            let coarser = bin.filter(|_| random.one_in(2)).and_then(|bin| {
                Some(Bin { width: bin.width.checked_mul(3)?, origin: bin.origin.checked_add(bin.width)? })
            });
            let key = GroupKey { column: *column, bin: coarser.or(*bin) };
            if key.is_supported(&current.column(*column).unwrap().data_type) {
                keys.push(key);
            }
        }
    }
    let dimensions = TableSchema {
        columns: current
            .columns
            .iter()
            .filter(|column| tree.dimensions.iter().any(|key| key.column == column.id && key.bin.is_none()))
            .cloned()
            .collect(),
        ..current.clone()
    };
    let condition = |random: &mut Random| {
        if random.one_in(3) && !written.rows.is_empty() {
            return at_borders(random, tree, written).filter(|condition| match condition {
                Predicate::Compare { column, .. } => current.column(*column).is_some(),
                _ => true,
            });
        }
        if random.one_in(3) || dimensions.columns.is_empty() {
            return None;
        }
        Some(predicate(random, &dimensions, written))
    };
    let there = functions(current);
    let mut aggregates = Vec::new();
    for function in tree.aggregates.iter().chain([&Function::Rows]).filter(|function| there.contains(function)) {
        if !random.one_in(3) {
            let filter = if random.one_in(4) { condition(random) } else { None };
            aggregates.push(Aggregate { function: *function, filter });
        }
    }
    let conditions: Vec<Predicate> = (0..random.below(3)).filter_map(|_| condition(random)).collect();
    let predicate = match conditions.len() {
        0 => None,
        1 => conditions.into_iter().next(),
        _ => Some(if random.one_in(3) { Predicate::Or(conditions) } else { Predicate::And(conditions) }),
    };
    AggregateRequest {
        schema: Arc::new(current.clone()),
        keys,
        aggregates,
        computed: Vec::new(),
        predicate,
        indexes: Default::default(),
        results: None,
        star_tree: true,
    }
}

/// How many of the requests were answered by trees.
fn check(seed: u64, rows: usize) -> usize {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let segment = committed(&consuming, dir.path());
    let mut trees = Vec::new();
    for id in 1..=1 + random.below(2) as u32 {
        let Some(tree) = tree(random, &written.schema) else { continue };
        let spec = spec(id, tree.clone());
        assert!(of(&segment).wants_index(&spec));
        let bytes = of(&segment).build_index(&spec).unwrap();
        assert_eq!(of(&segment).index_bytes(spec.id), Some(bytes));
        // What was built is what is opened.
        assert!(of(&segment).attach_index(&spec).unwrap());
        trees.push(tree);
    }
    let mut answered = 0;
    for round in 0..12 {
        if trees.is_empty() {
            break;
        }
        let current = if round < 9 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let request = if round == 0 {
            aggregate::request(random, &current)
        } else {
            let tree = random.pick(&trees).clone();
            request(random, &tree, &current, &written)
        };
        let request = Arc::new(request);
        let expected = aggregate::groups(&written, &request);
        answered += usize::from(of(&segment).star_tree(&request).is_some());
        let without = Arc::new(AggregateRequest { star_tree: false, ..request.as_ref().clone() });
        assert_eq!(of(&segment).star_tree(&without), None);
        for request in [&request, &without] {
            match (grouped(&segment, 0..rows as u32, request), &expected) {
                (Ok(found), Some(expected)) => assert!(
                    aggregate::agree(&found, expected),
                    "seed {seed}, {trees:#?} asked {request:#?}:\n{found:?}\n{expected:?}",
                ),
                (Err(tidemill_storage::Error::OutOfRange(_)), _) => {}
                (found, expected) => panic!("seed {seed}: {found:?} for {expected:?} of {request:#?}"),
            }
        }
    }
    answered
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn documents_and_rows_agree(seed: u64, rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000]) {
        check(seed, rows);
    }
}

#[test]
fn they_agree_on_many_rows_and_trees_answer() {
    let answered: usize = (0..12).map(|seed| check(seed, 20_000)).sum();
    assert!(answered >= 20, "{answered} requests were answered by trees");
}

const RESTAURANT: ColumnId = ColumnId(0);
const STATUS: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const PRICE: ColumnId = ColumnId(3);
const RATING: ColumnId = ColumnId(4);
const HOUR: Bin = Bin { width: 3_600_000_000, origin: 0 };

fn orders() -> TableSchema {
    let column = |id: ColumnId, name: &str, data_type| Column::new(id, name, data_type);
    let columns = vec![
        column(RESTAURANT, "restaurant", DataType::Int),
        column(STATUS, "status", DataType::Text),
        column(AT, "at", DataType::TimestampTz),
        column(PRICE, "price", DataType::Numeric { precision: 10, scale: 2 }),
        column(RATING, "rating", DataType::Double),
    ];
    TableSchema { version: SchemaVersion(1), columns, time_column: Some(AT) }
}

/// Orders of 2,000 restaurants over a day.
fn fill(dir: &Path, rows: usize) -> Arc<dyn Segment> {
    use arrow::array::{
        Decimal128Array, Float64Array, Int32Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    };
    let mut random = Random::new(5);
    let restaurants: Int32Array = (0..rows).map(|_| Some((random.below(45) * random.below(45)) as i32)).collect();
    let statuses: StringViewArray = (0..rows)
        .map(|_| if random.one_in(50) { None } else { Some(*random.pick(&["new", "paid", "sent"])) })
        .collect();
    let times: TimestampMicrosecondArray =
        (0..rows).map(|row| Some(row as i64 * 86_400_000_000 / rows as i64)).collect();
    let prices: Decimal128Array = (0..rows).map(|_| Some(random.below(10_000) as i128 - 100)).collect();
    let ratings: Float64Array =
        (0..rows).map(|_| if random.one_in(3) { None } else { Some(random.below(11) as f64 * 0.5) }).collect();
    let batch = RecordBatch::try_new(
        orders().arrow(),
        vec![
            Arc::new(restaurants),
            Arc::new(statuses),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(prices.with_precision_and_scale(10, 2).unwrap()),
            Arc::new(ratings),
        ],
    )
    .unwrap();
    let segment = ConsumingSegment::new(SegmentId(5), Arc::new(orders())).with(&batch, &[]).unwrap();
    committed(&segment, dir)
}

fn key(column: ColumnId) -> GroupKey {
    GroupKey { column, bin: (column == AT).then_some(HOUR) }
}

fn dashboard() -> StarTree {
    StarTree {
        dimensions: [RESTAURANT, STATUS, AT].map(key).to_vec(),
        aggregates: vec![Function::Rows, Function::Sum(PRICE), Function::Max(PRICE), Function::Sum(RATING)],
        max_leaf_records: 100,
    }
}

fn ask(keys: &[ColumnId], functions: &[Function], predicate: Option<Predicate>) -> Arc<AggregateRequest> {
    Arc::new(AggregateRequest {
        schema: Arc::new(orders()),
        keys: keys.iter().map(|column| key(*column)).collect(),
        aggregates: functions.iter().map(|function| Aggregate { function: *function, filter: None }).collect(),
        computed: Vec::new(),
        predicate,
        indexes: Default::default(),
        results: None,
        star_tree: true,
    })
}

fn equal(column: ColumnId, value: Scalar) -> Predicate {
    Predicate::Compare { column, op: CompareOp::Eq, value }
}

/// Documents that were read for the request, which a tree answers as the rows do.
fn documents(segment: &Arc<dyn Segment>, request: &Arc<AggregateRequest>) -> u64 {
    let metrics = Arc::new(ScanMetrics::default());
    let rows = 0..segment.rows();
    let mut run = Arc::clone(segment).aggregate(rows.clone(), Arc::clone(request), Arc::clone(&metrics)).unwrap();
    assert_eq!(run.way(), BY_STAR_TREE);
    while run.step().unwrap() {}
    let found = aggregate::answered(request, &run.take().unwrap());
    let plain = Arc::new(AggregateRequest { star_tree: false, ..request.as_ref().clone() });
    assert_eq!(found, grouped(segment, rows, &plain).unwrap());
    metrics.rows_scanned.load(Ordering::Relaxed)
}

#[test]
fn few_documents_are_read_for_any_choice_of_dimensions() {
    let dir = tempfile::tempdir().unwrap();
    let segment = fill(dir.path(), 60_000);
    of(&segment).build_index(&spec(1, dashboard())).unwrap();
    let all =
        [Function::Rows, Function::Sum(PRICE), Function::Max(PRICE), Function::Count(RATING), Function::Sum(RATING)];
    let read = |keys: &[ColumnId], predicate| documents(&segment, &ask(keys, &all, predicate));
    assert_eq!(read(&[STATUS], None), 4);
    assert!(read(&[AT], None) <= 96);
    assert!(read(&[], Some(equal(STATUS, Scalar::Text("paid".into())))) <= 96);
    assert!(read(&[STATUS, AT], None) <= 24 * 4);
    let one = read(&[AT], Some(equal(RESTAURANT, Scalar::Int(12))));
    assert!(one > 0 && one < 500, "{one}");
    let few =
        Predicate::In { column: RESTAURANT, values: [12, 77, 12, -5, 1936].map(Scalar::Int).to_vec(), negated: false };
    assert!(read(&[AT, STATUS], Some(few)) < 1000);
    // Restaurants from 1,000 on, and what no segment has.
    let range = |op| Some(Predicate::Compare { column: RESTAURANT, op, value: Scalar::Int(1000) });
    assert!(read(&[RESTAURANT], range(CompareOp::GreaterEq)) < 1000);
    assert_eq!(read(&[STATUS, RESTAURANT, AT], Some(equal(RESTAURANT, Scalar::Int(1935)))), 0);
    // OR over two dimensions.
    let either =
        Predicate::Or(vec![equal(RESTAURANT, Scalar::Int(12)), Predicate::IsNull { column: STATUS, negated: false }]);
    assert!(read(&[], Some(either)) < 30_000);
    // A day of whole hours, and what the statistics say is true of all rows.
    let since =
        |hour: i64| Predicate::Compare { column: AT, op: CompareOp::GreaterEq, value: Scalar::Int(hour * HOUR.width) };
    assert!(read(&[STATUS], Some(since(7))) <= 96);
    assert_eq!(read(&[STATUS], Some(since(-1))), 4);
    let odd = Predicate::Compare { column: AT, op: CompareOp::Less, value: Scalar::Int(HOUR.width + 1) };
    assert_eq!(of(&segment).star_tree(&ask(&[STATUS], &all, Some(odd))), None);
    assert_eq!(of(&segment).star_tree(&ask(&[], &[Function::Min(PRICE)], None)), None);
}

#[test]
fn of_several_trees_the_one_with_fewer_documents_answers() {
    let dir = tempfile::tempdir().unwrap();
    let segment = fill(dir.path(), 20_000);
    let small = StarTree { dimensions: vec![key(STATUS)], ..dashboard() };
    let large = StarTree { max_leaf_records: 1 << 30, ..dashboard() };
    of(&segment).build_index(&spec(1, large)).unwrap();
    of(&segment).build_index(&spec(2, small)).unwrap();
    let tree = |keys: &[ColumnId]| of(&segment).star_tree(&ask(keys, &[Function::Rows], None));
    assert_eq!(tree(&[STATUS]), Some(IndexId(2)));
    assert_eq!(tree(&[STATUS, AT]), Some(IndexId(1)));
    of(&segment).drop_index(IndexId(2)).unwrap();
    assert_eq!(tree(&[STATUS]), Some(IndexId(1)));
}

/// Sums that leave their type, and times that cannot be rounded: then there are no documents, and the rows tell.
#[test]
fn what_cannot_be_summed_has_no_tree() {
    let column = |id, data_type| Column::new(ColumnId(id), format!("c{id}"), data_type);
    let wide = DataType::Numeric { precision: 38, scale: 0 };
    let columns = vec![column(0, DataType::Int), column(1, wide), column(2, DataType::Timestamp)];
    let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
    let ints =
        |values: [i64; 3]| generate::scalars_array(&DataType::Timestamp, values.map(|v| Some(Scalar::Int(v))).to_vec());
    let most = Some(Scalar::Decimal(10i128.pow(38) - 1));
    let batch = arrow::array::RecordBatch::try_new(
        schema.arrow(),
        vec![
            generate::scalars_array(&DataType::Int, vec![Some(Scalar::Int(1)); 3]),
            generate::scalars_array(&schema.columns[1].data_type, vec![most; 3]),
            ints([i64::MIN, 0, i64::MAX]),
        ],
    )
    .unwrap();
    let consuming = ConsumingSegment::new(SegmentId(5), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let segment = committed(&consuming, dir.path());
    let whole = GroupKey { column: ColumnId(0), bin: None };
    let binned = GroupKey { column: ColumnId(2), bin: Some(HOUR) };
    for (id, key, function) in [(1, whole, Function::Sum(ColumnId(1))), (2, binned, Function::Rows)] {
        let tree = StarTree { dimensions: vec![key.clone()], aggregates: vec![function], max_leaf_records: 1 };
        of(&segment).build_index(&spec(id, tree)).unwrap();
        let request = Arc::new(AggregateRequest {
            schema: Arc::new(schema.clone()),
            keys: vec![key],
            aggregates: vec![Aggregate { function, filter: None }],
            computed: Vec::new(),
            predicate: None,
            indexes: Default::default(),
            results: None,
            star_tree: true,
        });
        assert_eq!(of(&segment).star_tree(&request), None);
        let error = grouped(&segment, 0..3, &request).unwrap_err();
        assert!(matches!(error, tidemill_storage::Error::OutOfRange(_)), "{error}");
    }
}

/// Every byte of a tree's file may be another one: the answers stay, and the tree is refused or given up.
#[test]
fn a_damaged_tree_changes_no_answer() {
    let mut random = Random::new(3);
    let dir = tempfile::tempdir().unwrap();
    let segment = fill(dir.path(), 3000);
    let spec = spec(1, dashboard());
    of(&segment).build_index(&spec).unwrap();
    let name = dir.path().join("segment.1.index");
    let sound = fs::read(&name).unwrap();
    let all = [Function::Rows, Function::Sum(PRICE), Function::Max(PRICE), Function::Count(RATING)];
    let requests = [
        ask(&[STATUS], &all, None),
        ask(&[RESTAURANT, AT], &all, None),
        ask(&[AT], &all, Some(equal(RESTAURANT, Scalar::Int(12)))),
    ];
    let plain = |request: &Arc<AggregateRequest>| {
        let request = Arc::new(AggregateRequest { star_tree: false, ..request.as_ref().clone() });
        grouped(&segment, 0..3000, &request).unwrap()
    };
    let expected: Vec<_> = requests.iter().map(plain).collect();
    let mut given_up = 0;
    for _ in 0..300 {
        let mut damaged = sound.clone();
        match random.below(8) {
            0 => damaged.truncate(random.below(damaged.len())),
            1 => damaged.extend([1, 2, 3]),
            _ => {
                let at = random.below(damaged.len());
                damaged[at] ^= 1 << random.below(8);
            }
        }
        // A file is never changed in place: another one takes its name.
        of(&segment).drop_index(spec.id).unwrap();
        fs::write(&name, &damaged).unwrap();
        let attached = of(&segment).attach_index(&spec).is_ok_and(|attached| attached);
        for (request, expected) in requests.iter().zip(&expected) {
            assert_eq!(grouped(&segment, 0..3000, request).unwrap(), *expected, "attached: {attached}");
        }
        given_up += usize::from(attached && of(&segment).index_bytes(spec.id).is_none());
        assert_eq!(segment.state(), tidemill_storage::segment::SegmentState::Committed);
    }
    assert!(given_up > 20, "{given_up} trees were given up while they answered");
    // Built anew it is whole again; one of another definition is refused.
    of(&segment).drop_index(spec.id).unwrap();
    of(&segment).build_index(&spec).unwrap();
    assert_eq!(fs::read(&name).unwrap(), sound);
    let other = StarTree { max_leaf_records: 7, ..dashboard() };
    of(&segment).attach_index(&self::spec(1, other)).unwrap_err();
    assert!(of(&segment).attach_index(&spec).unwrap());
    // Sums of floats agree where adding them is exact.
    let request = ask(&[STATUS], &[Function::Sum(RATING)], None);
    assert!(of(&segment).star_tree(&request).is_some());
    let found = grouped(&segment, 0..3000, &request).unwrap();
    assert_eq!(found, plain(&request));
    let metrics = Arc::new(ScanMetrics::default());
    let mut run = Arc::clone(&segment).aggregate(0..3000, request, metrics).unwrap();
    while run.step().unwrap() {}
    assert_eq!(run.take().unwrap().column(1).as_primitive::<arrow::datatypes::Float64Type>().null_count(), 0);
}
