//! Segments whose rows are sorted when they are sealed: the rows are those that came, in the order of the values, and what is found by
//! position is what the oracle gives.

use std::{cmp::Ordering, ops::Range, path::Path, sync::Arc};

use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, IndexId},
    index::{IndexKind, IndexSpec},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{IndexUse, ScanHints, ScanRequest},
    segment::{
        Segment,
        builder::seal_sorted,
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    testing::{
        Random, aggregate, generate,
        oracle::{self, Row, Value, Written},
    },
};

use crate::{
    index::{counted, numbers, of, predicate},
    scan::{CONTEXT, committed, consuming, request, scanned},
};

fn sealed(segment: &ConsumingSegment, dir: &Path, by: &[ColumnId]) -> Arc<dyn Segment> {
    let file = seal_sorted(segment, dir, "segment", &CONTEXT, by).unwrap();
    open(&file.path, &Expected { id: segment.id(), bytes: file.bytes, checksum: file.checksum }).unwrap()
}

/// Nulls last.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::One(a), Value::One(b)) => a.compare(b).unwrap(),
        (a, b) => matches!(a, Value::Null).cmp(&matches!(b, Value::Null)),
    }
}

fn check(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, mut written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let takes = |id: &ColumnId| IndexKind::Sorted.takes(&written.schema.column(*id).unwrap().data_type);
    let mut by: Vec<ColumnId> = written.schema.columns.iter().map(|column| column.id).filter(takes).collect();
    if random.one_in(2) {
        by.reverse();
    }
    by.truncate(1 + random.below(2));
    let committed = sealed(&consuming, dir.path(), &by);
    let places: Vec<usize> = by.iter().map(|id| written.schema.index_of(*id).unwrap()).collect();
    written.rows.sort_by(|a, b| {
        places.iter().map(|at| compare(&a[*at], &b[*at])).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    for id in by.iter().take(1) {
        assert!(of(&committed).is_sorted_by(*id), "seed {seed}");
        let spec = IndexSpec { id: IndexId(1), name: "sorted".into(), kind: IndexKind::Sorted, columns: by.clone() };
        assert!(!of(&committed).wants_index(&spec), "there is no file to build");
        assert!(!of(&committed).attach_index(&spec).unwrap());
    }
    assert_eq!(committed.offsets(), consuming.offsets());
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
        let expected: Vec<Row> = oracle::scan(&part, &current, &projection, Some(&predicate));
        let request = request(&current, projection, Some(predicate), None, 8192);
        for indexes in [IndexUse::Off, IndexUse::WhereFaster, IndexUse::Always] {
            let hints = ScanHints { indexes, ..ScanHints::default() };
            let request = Arc::new(ScanRequest { hints, ..request.as_ref().clone() });
            assert_eq!(
                scanned(&committed, range.clone(), &request),
                expected,
                "seed {seed}, {range:?} of {request:#?}"
            );
        }
        let groups = aggregate::request(random, &current);
        if let Some(expected) = aggregate::groups(&part, &groups) {
            for indexes in [IndexUse::Off, IndexUse::Always] {
                let groups = Arc::new(tidemill_storage::aggregate::AggregateRequest { indexes, ..groups.clone() });
                if let Ok(found) = crate::aggregate::grouped(&committed, range.clone(), &groups) {
                    assert!(aggregate::agree(&found, &expected), "seed {seed}, {range:?} of {groups:#?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn sorted_rows_are_found_by_position(
        seed: u64,
        rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000],
    ) {
        check(seed, rows);
    }
}

/// More rows than a window, a block and a step of sorting have.
#[test]
fn they_are_found_among_many_rows() {
    for seed in 0..3 {
        check(seed, 90_000);
    }
}

#[test]
fn positions_spare_looking_at_other_rows() {
    let dir = tempfile::tempdir().unwrap();
    let rows = 100_000;
    let (unsorted, schema, segment) = numbers(dir.path(), rows);
    assert!(!of(&unsorted).is_sorted_by(ColumnId(0)));
    let sorted = sealed(&segment, dir.path(), &[ColumnId(0)]);
    let compare = |column: u32, op, value| Predicate::Compare { column: ColumnId(column), op, value };
    let value = Scalar::Int(7_919_777 * 3 % (rows * 1000));
    let equal = request(&schema, vec![ColumnId(1)], Some(compare(0, CompareOp::Eq, value)), None, 8192);
    assert_eq!(counted(&unsorted, &equal), (0, rows as u64));
    let (by_index, scanned) = counted(&sorted, &equal);
    assert!(by_index == 1 && scanned <= 16 * 1024, "{by_index} of {scanned}");
    // By a text of which there is one a row.
    let by_text = sealed(&segment, dir.path(), &[ColumnId(1)]);
    assert!(of(&by_text).is_sorted_by(ColumnId(1)) && !of(&by_text).is_sorted_by(ColumnId(0)));
    let below = compare(1, CompareOp::Less, Scalar::Text("1".into()));
    let below = request(&schema, vec![ColumnId(0)], Some(below), None, 8192);
    let (by_index, scanned) = counted(&by_text, &below);
    let found: Range<u64> = 1..rows as u64 / 4;
    assert!(found.contains(&by_index) && scanned < by_index + 16 * 1024, "{by_index} of {scanned}");
}

/// Rows may come in order although some have no value: these are not behind the others, and nothing is found by position.
#[test]
fn values_that_came_in_order_with_nulls_between_are_not_sorted() {
    let mut random = Random::new(3);
    let (mut seen_between, mut seen_last) = (false, false);
    for _ in 0..300 {
        let (segment, written) = consuming(&mut random, 200);
        let dir = tempfile::tempdir().unwrap();
        let committed = committed(&segment, dir.path());
        for (index, column) in written.schema.columns.iter().enumerate() {
            let values: Vec<&Value> = written.rows.iter().map(|row| &row[index]).collect();
            let rises = values.windows(2).all(|pair| compare(pair[0], pair[1]).is_le());
            let takes = IndexKind::Sorted.takes(&column.data_type);
            assert_eq!(
                of(&committed).is_sorted_by(column.id),
                rises && takes || values.iter().all(|v| **v == Value::Null)
            );
            seen_last |= rises && values.last().is_some_and(|last| **last == Value::Null);
            seen_between |= !rises && committed.stats(column.id).is_some_and(|stats| stats.sorted);
        }
    }
    assert!(seen_between && seen_last);
}
