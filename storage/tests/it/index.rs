//! Every kind of index, on every type that it takes: what is scanned with indexes is what is scanned without, consuming and sealed, and it is what
//! the oracle gives; an index that is damaged, foreign or missing changes no answer.

use std::{
    fs,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch};
use proptest::prelude::*;
use tidemill_storage::{
    documents::DocumentTest,
    ids::{ColumnId, IndexId, SchemaVersion, SegmentId},
    index::{IndexKind, IndexSpec, parse_file_name},
    predicate::{CompareOp, Condition, Predicate},
    scalar::Scalar,
    scan::{IndexUse, ScanHints, ScanMetrics, ScanRequest},
    schema::{Column, DataType, TableSchema},
    segment::{Segment, committed::CommittedSegment, consuming::ConsumingSegment},
    table::Table,
    testing::{
        Random, aggregate, generate,
        oracle::{self, Row, Value, Written},
    },
};

use crate::scan::{committed, consuming, request, scanned};

const KINDS: [IndexKind; 5] =
    [IndexKind::Inverted, IndexKind::Range, IndexKind::Bloom { fpp: 0.01 }, IndexKind::Json, IndexKind::Text];

fn spec(id: u32, kind: IndexKind, column: ColumnId) -> IndexSpec {
    IndexSpec { id: IndexId(id), name: format!("index_{id}"), kind, columns: vec![column] }
}

pub(crate) fn of(segment: &Arc<dyn Segment>) -> &CommittedSegment {
    segment.as_committed().expect("a committed segment")
}

/// All indexes that the segment's columns take, of some or all of the kinds.
pub(crate) fn specs(schema: &TableSchema, wanted: impl Fn(&IndexKind) -> bool) -> Vec<IndexSpec> {
    let mut specs = Vec::new();
    for column in &schema.columns {
        for kind in KINDS.iter().filter(|kind| wanted(kind) && kind.takes(&column.data_type)) {
            specs.push(spec(specs.len() as u32 + 1, kind.clone(), column.id));
        }
    }
    specs
}

pub(crate) fn with(request: &Arc<ScanRequest>, indexes: IndexUse) -> Arc<ScanRequest> {
    Arc::new(ScanRequest { hints: ScanHints { indexes, ..ScanHints::default() }, ..request.as_ref().clone() })
}

/// A predicate, often about values that are there.
pub(crate) fn predicate(random: &mut Random, schema: &TableSchema, written: &Written) -> Predicate {
    if random.one_in(3) || written.rows.is_empty() {
        return generate::predicate(random, schema, 2);
    }
    let mut leaves = Vec::new();
    for _ in 0..1 + random.below(3) {
        let column = random.pick(&schema.columns);
        let Some(index) = written.schema.index_of(column.id) else { continue };
        if written.schema.columns[index].data_type != column.data_type {
            continue;
        }
        let mut there = || match &random.pick(&written.rows)[index] {
            Value::One(value) => Some(value.clone()),
            _ => None,
        };
        let (Some(a), Some(b)) = (there(), there()) else { continue };
        use CompareOp::{Eq, Greater, GreaterEq, Less, LessEq, NotEq};
        let compare = |op, value| Predicate::Compare { column: column.id, op, value };
        leaves.push(match random.below(4) {
            0 => Predicate::In { column: column.id, values: vec![a, b], negated: random.one_in(4) },
            1 => Predicate::And(vec![compare(GreaterEq, a), compare(LessEq, b)]),
            _ => compare(*random.pick(&[Eq, Eq, Eq, NotEq, Less, LessEq, Greater, GreaterEq]), a),
        });
    }
    if random.one_in(2) { Predicate::And(leaves) } else { Predicate::Or(leaves) }
}

fn check(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let only = random.below(KINDS.len() + 1);
    let specs = specs(&written.schema, |kind| KINDS.get(only).is_none_or(|only| only == kind));
    let plain_bytes = consuming.bytes();
    let mut built = 0;
    while consuming.build_next_index(&specs).unwrap() {
        built += 1;
    }
    assert_eq!(consuming.bytes() > plain_bytes, built > 0);
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    for spec in &specs {
        assert!(of(&committed).wants_index(spec));
        assert!(!of(&committed).attach_index(spec).unwrap());
        let bytes = of(&committed).build_index(spec).unwrap();
        assert_eq!(of(&committed).index_bytes(spec.id), Some(bytes));
    }
    let table = Table::new(Default::default(), Arc::new(written.schema.clone()), 1);
    table.set_indexes(specs.clone());
    table.partitions()[0].put(Arc::clone(&committed));
    for round in 0..8 {
        let current = if round < 5 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let projection: Vec<ColumnId> =
            current.columns.iter().map(|column| column.id).filter(|_| random.one_in(2)).collect();
        let predicate = predicate(random, &current, &written);
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
        let expected = oracle::scan(&part, &current, &projection, Some(&predicate));
        let request = request(&current, projection, Some(predicate), None, 8192);
        for indexes in [IndexUse::Off, IndexUse::WhereFaster, IndexUse::Always] {
            let request = with(&request, indexes);
            for segment in [&committed, &consuming] {
                let found = scanned(segment, range.clone(), &request);
                assert_eq!(found, expected, "seed {seed}, {range:?} of {request:#?}");
            }
            let hints = ScanHints { backwards: true, ..request.hints.clone() };
            let backwards = Arc::new(ScanRequest { hints, ..request.as_ref().clone() });
            let in_order = |rows: &[Row]| {
                let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                rows.sort_unstable();
                rows
            };
            let found = scanned(&committed, range.clone(), &backwards);
            assert_eq!(in_order(&found), in_order(&expected), "seed {seed}, {range:?} of {backwards:#?}");
            // What is pruned by Bloom filters has no such row.
            table.set_schema(Arc::new(current.clone()));
            let plan = table.snapshot().plan(&request);
            assert!(plan.pruned_by_bloom == 0 || expected.is_empty(), "seed {seed}, {request:#?}");
        }
        let groups = aggregate::request(random, &current);
        if let Some(expected) = aggregate::groups(&part, &groups) {
            for indexes in [IndexUse::Off, IndexUse::Always] {
                let groups = Arc::new(tidemill_storage::aggregate::AggregateRequest { indexes, ..groups.clone() });
                for segment in [&committed, &consuming] {
                    if let Ok(found) = crate::aggregate::grouped(segment, range.clone(), &groups) {
                        assert!(aggregate::agree(&found, &expected), "seed {seed}, {range:?} of {groups:#?}");
                    }
                }
            }
        }
    }
    for spec in &specs {
        of(&committed).drop_index(spec.id).unwrap();
        assert_eq!(of(&committed).index_bytes(spec.id), None);
    }
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "only the segment is left");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_the_same_with_and_without_indexes(
        seed: u64,
        rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000],
    ) {
        check(seed, rows);
    }
}

/// More rows than a window and a block have.
#[test]
fn they_are_the_same_on_many_rows() {
    for seed in 0..4 {
        check(seed, 30_000);
    }
    for seed in 4..20 {
        check(seed, 5_000 + 100 * seed as usize);
    }
}

/// Chunks of rows in memory have every index that fits them, and what is not wanted any more goes.
#[test]
fn rows_in_memory_have_indexes_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_, schema, consuming) = numbers(dir.path(), 40_000);
    let specs = specs(&schema, |kind| *kind == IndexKind::Range);
    let plain = consuming.bytes();
    while consuming.build_next_index(&specs).unwrap() {}
    let indexed = consuming.bytes();
    assert!(plain < indexed && indexed < 2 * plain, "{plain} bytes, {indexed} with indexes");
    let segment: Arc<dyn Segment> = Arc::new(consuming.clone());
    let value = tidemill_storage::scalar::Scalar::Int(7_919_777);
    let one = Predicate::Compare { column: schema.columns[0].id, op: CompareOp::Eq, value };
    let request = request(&schema, vec![schema.columns[0].id], Some(one), None, 8192);
    let (by_index, looked_at) = counted(&segment, &with(&request, IndexUse::Always));
    assert_eq!((by_index, looked_at), (1, 1));
    assert_eq!(counted(&segment, &with(&request, IndexUse::Off)).0, 0);
    while consuming.build_next_index(&[]).unwrap() {}
    assert_eq!(consuming.bytes(), plain);
    assert_eq!(counted(&segment, &with(&request, IndexUse::Always)).0, 0);
}

/// Rows of a scan that indexes found, and rows that were looked at.
pub(crate) fn counted(segment: &Arc<dyn Segment>, request: &Arc<ScanRequest>) -> (u64, u64) {
    let metrics = Arc::new(ScanMetrics::default());
    let rows: Range<u32> = 0..segment.rows();
    for batch in Arc::clone(segment).scan(rows, Arc::clone(request), Arc::clone(&metrics)).unwrap() {
        batch.unwrap();
    }
    (metrics.rows_by_index.load(Ordering::Relaxed), metrics.rows_scanned.load(Ordering::Relaxed))
}

/// A column of numbers and one of texts, without dictionaries, sealed; its schema, and the rows before.
pub(crate) fn numbers(dir: &Path, rows: i64) -> (Arc<dyn Segment>, TableSchema, ConsumingSegment) {
    use tidemill_storage::{
        ids::SchemaVersion,
        schema::{Column, DataType},
    };
    let column =
        |id: u32, data_type| Column { nullable: false, ..Column::new(ColumnId(id), format!("n{id}"), data_type) };
    let columns = vec![column(0, DataType::BigInt), column(1, DataType::Text)];
    let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
    let values: Vec<i64> = (0..rows).map(|row| row.wrapping_mul(7_919_777) % (rows * 1000)).collect();
    let texts = values.iter().map(|value| format!("{:x}", value.wrapping_mul(0x9e37_79b9_7f4a)));
    let batch = arrow::array::RecordBatch::try_new(
        schema.arrow(),
        vec![
            Arc::new(arrow::array::Int64Array::from(values.clone())),
            Arc::new(arrow::array::StringViewArray::from_iter_values(texts)),
        ],
    )
    .unwrap();
    let segment = ConsumingSegment::new(SegmentId(5), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
    (committed(&segment, dir), schema, segment)
}

#[test]
fn an_index_spares_looking_at_most_rows() {
    let dir = tempfile::tempdir().unwrap();
    let rows = 100_000;
    let (segment, schema, _) = numbers(dir.path(), rows);
    let value = tidemill_storage::scalar::Scalar::Int(7_919_777 * 3 % (rows * 1000));
    let equal = Predicate::Compare { column: ColumnId(0), op: CompareOp::Eq, value };
    let request = request(&schema, vec![ColumnId(1)], Some(equal), None, 8192);
    assert_eq!(counted(&segment, &request), (0, rows as u64));
    of(&segment).build_index(&spec(1, IndexKind::Range, ColumnId(0))).unwrap();
    let (by_index, scanned) = counted(&segment, &request);
    assert!(by_index == 1 && scanned <= 16 * 1024, "{by_index} of {scanned}");
    of(&segment).drop_index(IndexId(1)).unwrap();
    // Buckets of a hash: about two rows.
    of(&segment).build_index(&spec(2, IndexKind::Inverted, ColumnId(0))).unwrap();
    let (by_index, scanned) = counted(&segment, &request);
    assert!((1..20).contains(&by_index) && scanned <= 20 * 16 * 1024, "{by_index} of {scanned}");
}

#[test]
fn bloom_filters_rule_segments_out() {
    let dir = tempfile::tempdir().unwrap();
    let rows = 50_000;
    let (segment, schema, _) = numbers(dir.path(), rows);
    let bloom = spec(1, IndexKind::Bloom { fpp: 0.01 }, ColumnId(1));
    of(&segment).build_index(&bloom).unwrap();
    assert!(of(&segment).index_bytes(IndexId(1)).unwrap() < 2 * rows as u64);
    let table = Table::new(Default::default(), Arc::new(schema.clone()), 1);
    table.set_indexes(vec![bloom]);
    table.partitions()[0].put(segment);
    let pruned = |text: String| {
        let value = tidemill_storage::scalar::Scalar::Text(text.into());
        let equal = Predicate::Compare { column: ColumnId(1), op: CompareOp::Eq, value };
        let request = request(&schema, Vec::new(), Some(equal), None, 8192);
        assert_eq!(table.snapshot().plan(&with(&request, IndexUse::Off)).pruned_by_bloom, 0);
        table.snapshot().plan(&request).pruned_by_bloom
    };
    let false_answers = (0..2000).filter(|n| pruned(format!("5{n:08x}g")) == 0).count();
    assert!(false_answers <= 60, "{false_answers} of 2000 absent values were not ruled out");
    let present = 7_919_777i64.wrapping_mul(0x9e37_79b9_7f4a);
    assert_eq!(pruned(format!("{present:x}")), 0);
}

/// Every byte of an index file may be another one: the answers stay, and the index is refused or given up.
#[test]
fn a_damaged_index_changes_no_answer() {
    let mut random = Random::new(11);
    let (consuming, written) = consuming(&mut random, 700);
    let dir = tempfile::tempdir().unwrap();
    let segment = committed(&consuming, dir.path());
    let all: Vec<ColumnId> = written.schema.columns.iter().map(|column| column.id).collect();
    for spec in specs(&written.schema, |_| true) {
        of(&segment).build_index(&spec).unwrap();
        let name = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|ending| ending == "index"))
            .unwrap();
        let sound = fs::read(&name).unwrap();
        for _ in 0..25 {
            let mut damaged = sound.clone();
            match random.below(4) {
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
            let predicate = predicate(&mut random, &written.schema, &written);
            let expected = oracle::scan(&written, &written.schema, &all, Some(&predicate));
            let request = request(&written.schema, all.clone(), Some(predicate), None, 8192);
            let found: Vec<Row> = scanned(&segment, 0..700, &with(&request, IndexUse::Always));
            assert_eq!(found, expected, "attached: {attached}");
        }
        // Built anew it is whole again.
        let bytes = of(&segment).build_index(&spec).unwrap();
        assert_eq!((bytes, fs::read(&name).unwrap()), (sound.len() as u64, sound));
        of(&segment).drop_index(spec.id).unwrap();
    }
}

/// A file of another segment, index or kind is not taken for ours.
#[test]
fn a_foreign_index_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (segment, ..) = numbers(here.path(), 1000);
    let (other, ..) = numbers(there.path(), 1001);
    let range = spec(1, IndexKind::Range, ColumnId(0));
    of(&other).build_index(&range).unwrap();
    let name = "segment.1.index";
    assert_eq!(parse_file_name(name), Some(("segment", IndexId(1))));
    fs::copy(there.path().join(name), here.path().join(name)).unwrap();
    of(&segment).attach_index(&range).unwrap_err();
    of(&segment).build_index(&range).unwrap();
    assert!(of(&segment).attach_index(&range).unwrap());
    of(&segment).attach_index(&spec(1, IndexKind::Inverted, ColumnId(0))).unwrap_err();
    fs::rename(here.path().join(name), here.path().join("segment.2.index")).unwrap();
    of(&segment).attach_index(&spec(2, IndexKind::Range, ColumnId(0))).unwrap_err();
}

/// Documents that cannot pass are left out, whatever else is asked; without the index, or with a damaged one, all come.
/// A condition that takes every document; only indexes leave some out.
#[derive(Debug)]
struct Asks(Arc<DocumentTest>);

impl std::fmt::Display for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Condition for Asks {
    fn holds(&self, values: &arrow::array::ArrayRef) -> tidemill_storage::Result<arrow::array::BooleanArray> {
        Ok(vec![true; values.len()].into())
    }

    fn documents(&self) -> Option<&Arc<DocumentTest>> {
        Some(&self.0)
    }
}

#[test]
fn documents_are_left_out_by_their_index() {
    use tidemill_storage::{
        documents::{Step, ValueTest},
        ids::SchemaVersion,
        scalar::Scalar,
        schema::{Column, DataType},
    };
    let columns =
        vec![Column::new(ColumnId(0), "id", DataType::BigInt), Column::new(ColumnId(1), "doc", DataType::Jsonb)];
    let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
    let rows = 20_000i64;
    let document = |row: i64| (row % 10 != 9).then(|| format!(r#"{{"a": {}, "t": ["x{}"]}}"#, row % 1000, row % 7));
    let batch = arrow::array::RecordBatch::try_new(
        schema.arrow(),
        vec![
            Arc::new(arrow::array::Int64Array::from_iter_values(0..rows)),
            Arc::new(arrow::array::StringViewArray::from_iter((0..rows).map(document))),
        ],
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let memory = ConsumingSegment::new(SegmentId(5), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
    let segment = committed(&memory, dir.path());
    let at = |path: Vec<Step>, value| DocumentTest::At { column: ColumnId(1), path, value };
    let key = |name: &str| Step::Key(name.into());
    let tests = [
        at(vec![key("a")], ValueTest::Cast { low: 100.0, high: 119.0 }),
        DocumentTest::Or(vec![
            at(vec![key("t"), Step::Element], ValueTest::String("x1".into())),
            at(vec![key("t"), Step::Element], ValueTest::String("x3".into())),
        ]),
    ];
    let asks = tests.map(|test| Predicate::Holds { column: ColumnId(1), condition: Arc::new(Asks(Arc::new(test))) });
    let passes = |row: &i64| row % 10 != 9 && (100..120).contains(&(row % 1000)) && [1, 3].contains(&(row % 7));
    let below = Predicate::Compare { column: ColumnId(0), op: CompareOp::Less, value: Scalar::Int(15_000) };
    let found_in = |segment: &Arc<dyn Segment>, indexes: IndexUse, range: Range<u32>, backwards: bool| {
        let condition = Predicate::And(vec![below.clone(), asks[0].clone(), asks[1].clone()]);
        let request = request(&schema, vec![ColumnId(0)], Some(condition), None, 8192);
        let hints = ScanHints { indexes, backwards, ..ScanHints::default() };
        let request = Arc::new(ScanRequest { hints, ..request.as_ref().clone() });
        let mut ids: Vec<i64> = scanned(segment, range, &request)
            .into_iter()
            .map(|row| match &row[0] {
                Value::One(Scalar::Int(id)) => *id,
                other => panic!("{other:?}"),
            })
            .collect();
        ids.sort_unstable();
        ids
    };
    let found = |indexes, range, backwards| found_in(&segment, indexes, range, backwards);
    let all: Vec<i64> = (0..15_000).filter(|row| row % 10 != 9).collect();
    assert_eq!(found(IndexUse::Always, 0..20_000, false), all);
    let spec = spec(1, IndexKind::Json, ColumnId(1));
    of(&segment).build_index(&spec).unwrap();
    assert!(of(&segment).index_bytes(IndexId(1)).unwrap() < 12 * rows as u64);
    assert_eq!(found(IndexUse::Off, 0..20_000, false), all);
    while memory.build_next_index(std::slice::from_ref(&spec)).unwrap() {}
    let memory: Arc<dyn Segment> = Arc::new(memory);
    for range in [0..20_000, 3_000..17_001, 7..99] {
        let expected: Vec<i64> = (i64::from(range.start)..i64::from(range.end).min(15_000)).filter(passes).collect();
        for (indexes, backwards) in
            [(IndexUse::WhereFaster, false), (IndexUse::Always, false), (IndexUse::Always, true)]
        {
            assert_eq!(found(indexes, range.clone(), backwards), expected);
            assert_eq!(found_in(&memory, indexes, range.clone(), backwards), expected);
        }
    }
    // Other bytes: the index is refused or given up, and no document that passes is missing.
    let path = dir.path().join("segment.1.index");
    let sound = fs::read(&path).unwrap();
    for at in (64..sound.len()).step_by(1999) {
        let mut damaged = sound.clone();
        damaged[at] ^= 4;
        of(&segment).drop_index(IndexId(1)).unwrap();
        fs::write(&path, &damaged).unwrap();
        let _ = of(&segment).attach_index(&spec);
        assert_eq!(
            found(IndexUse::Always, 0..20_000, false).iter().filter(|id| passes(id)).count(),
            all.iter().filter(|id| passes(id)).count()
        );
    }
}

/// Each half of a range selects half of the rows; together they are few, and these are what the index lists.
#[test]
fn a_range_is_asked_as_one() {
    let column =
        |id: u32, data_type| Column { nullable: id == 1, ..Column::new(ColumnId(id), format!("c{id}"), data_type) };
    let schema = TableSchema {
        version: SchemaVersion(1),
        // Few values, which are kept by dictionary; many, which are not.
        columns: vec![column(1, DataType::Int), column(2, DataType::BigInt)],
        time_column: None,
    };
    let rows = 50_000i64;
    let few = Int32Array::from_iter((0..rows).map(|row| (row % 7 > 0).then_some((row * 7919 % 1000) as i32)));
    let many = Int64Array::from_iter_values((0..rows).map(|row| row * 7919 % rows * 1_000_003));
    let columns: Vec<ArrayRef> = vec![Arc::new(few.clone()), Arc::new(many.clone())];
    let batch = RecordBatch::try_new(schema.arrow(), columns).unwrap();
    let segment = ConsumingSegment::new(SegmentId(1), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&segment, dir.path());
    for id in [1u32, 2] {
        let spec =
            IndexSpec { id: IndexId(id), name: format!("i{id}"), kind: IndexKind::Range, columns: vec![ColumnId(id)] };
        of(&committed).build_index(&spec).unwrap();
    }
    let compare = |id: u32, op, value| Predicate::Compare { column: ColumnId(id), op, value: Scalar::Int(value) };
    use CompareOp::{Greater, GreaterEq, Less, LessEq};
    for (id, low, high) in [(1, 500, 502), (2, 20_000 * 1_000_003, 20_020 * 1_000_003)] {
        let range = Predicate::And(vec![compare(id, GreaterEq, low), compare(id, Less, high)]);
        let expected = (0..rows as usize).filter(|row| {
            let value =
                if id == 1 { few.is_valid(*row).then(|| few.value(*row).into()) } else { Some(many.value(*row)) };
            value.is_some_and(|value| value >= low && value < high)
        });
        let expected = expected.count();
        assert!(expected > 10 && expected < 200);
        for indexes in [IndexUse::WhereFaster, IndexUse::Always, IndexUse::Off] {
            let request = with(&request(&schema, vec![ColumnId(id)], Some(range.clone()), None, 8192), indexes);
            let metrics = Arc::new(ScanMetrics::default());
            let found = Arc::clone(&committed).scan(0..rows as u32, request, Arc::clone(&metrics)).unwrap();
            let found: usize = found.map(|batch| batch.unwrap().num_rows()).sum();
            assert_eq!(found, expected);
            let listed = metrics.rows_by_index.load(Ordering::Relaxed);
            assert_eq!(
                listed as usize,
                if indexes == IndexUse::Off { 0 } else { expected },
                "column {id}, {indexes:?}"
            );
        }
        // What contradicts itself is nothing.
        let nothing = Predicate::And(vec![compare(id, Greater, high), compare(id, LessEq, low)]);
        let request = with(&request(&schema, vec![ColumnId(id)], Some(nothing), None, 8192), IndexUse::WhereFaster);
        assert!(scanned(&committed, 0..rows as u32, &request).is_empty());
    }
}
