use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, Int64Array, StringViewArray};

use super::*;
use crate::{
    ids::{SchemaVersion, SourceId, StreamId},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::ScanHints,
    schema::{Column, DataType},
};

fn schema() -> Arc<TableSchema> {
    let column = |id, name: &str, data_type| Column { nullable: id == 2, ..Column::new(ColumnId(id), name, data_type) };
    let columns = vec![column(1, "n", DataType::BigInt), column(2, "t", DataType::Text)];
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None })
}

/// Rows numbered from `from`, with texts that are too long to be kept inside their views.
fn batch(from: usize, rows: usize) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((from..from + rows).map(|n| n as i64)));
    let texts: ArrayRef =
        Arc::new(StringViewArray::from_iter_values((from..from + rows).map(|n| format!("the text of row {n:08}"))));
    RecordBatch::try_new(schema().arrow(), vec![numbers, texts]).unwrap()
}

fn empty() -> ConsumingSegment {
    ConsumingSegment::new(SegmentId(1), schema())
}

fn numbers(segment: &ConsumingSegment) -> Vec<i64> {
    segment
        .chunks()
        .flat_map(|chunk| chunk.batch().column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec())
        .collect()
}

fn check(segment: &ConsumingSegment, rows: usize) {
    assert_eq!(segment.rows() as usize, rows);
    assert_eq!(numbers(segment), (0..rows as i64).collect::<Vec<_>>());
    let bytes: u64 = segment.chunks().map(|chunk| chunk.bytes()).sum();
    assert_eq!(segment.bytes(), bytes);
    let measured: usize = segment
        .chunks()
        .map(|chunk| chunk.batch().columns().iter().map(|c| c.get_array_memory_size()).sum::<usize>())
        .sum();
    assert_eq!(bytes, measured as u64);
    assert!(segment.tail.len() <= 7 * FULL_LEVEL as usize + 7, "{} chunks in the tail", segment.tail.len());
    assert!(segment.tail.windows(2).all(|pair| pair[0].level() >= pair[1].level()));
    if rows > 0 {
        let stats = segment.stats(ColumnId(1)).unwrap();
        assert_eq!((&stats.min, &stats.max), (&Some(Scalar::Int(0)), &Some(Scalar::Int(rows as i64 - 1))));
    }
}

#[test]
fn rows_stay_in_order_in_batches_of_any_size() {
    let sizes: [&[usize]; 6] =
        [&[1], &[1000], &[5000], &[1, 5000], &[3, 100, 1, 700, 9000, 2, 64], &[512, 7, 63, 4095, 1]];
    for sizes in sizes {
        let mut segment = empty();
        let mut rows = 0;
        for size in sizes.iter().cycle().take(300) {
            segment = segment.with(&batch(rows, *size), &[]).unwrap();
            rows += size;
        }
        check(&segment, rows);
    }
}

/// What an append copies is bounded by levels and not by what is there: count the rows of chunks that are new in each version.
#[test]
fn an_append_costs_the_rows_appended() {
    for size in [1usize, 10, 1000] {
        let mut segment = empty();
        let (mut copied, mut most) = (0, 0);
        let appends = 40_000 / size.max(4);
        for index in 0..appends {
            let next = segment.with(&batch(index * size, size), &[]).unwrap();
            let known: std::collections::HashSet<_> = segment.chunks().map(Arc::as_ptr).collect();
            let new: usize =
                next.chunks().filter(|c| !known.contains(&Arc::as_ptr(c))).map(|c| c.batch().num_rows()).sum();
            copied += new;
            most = most.max(new);
            segment = next;
        }
        let rows = appends * size;
        assert!(copied <= rows * 6, "{copied} rows copied for {rows} in batches of {size}");
        assert!(most <= FAN_IN * 4096, "{most} rows copied by one append of {size}");
    }
}

#[test]
fn a_slice_of_a_large_batch_does_not_pin_it() {
    let large = batch(0, 100_000);
    let segment = empty().with(&large.slice(0, 10), &[]).unwrap();
    assert!(segment.bytes() < 10_000, "{} bytes for ten rows", segment.bytes());
    check(&segment, 10);
    let texts = segment.chunks().next().unwrap().batch().column(1).as_string_view().value(9).to_owned();
    assert_eq!(texts, "the text of row 00000009");
}

#[test]
fn old_versions_stay_as_they_were() {
    let first = empty().with(&batch(0, 3000), &[]).unwrap();
    let mut last = first.clone();
    for index in 3..50 {
        last = last.with(&batch(index * 1000, 1000), &[]).unwrap();
    }
    check(&first, 3000);
    check(&last, 50_000);
}

#[test]
fn offsets_follow_each_other_per_stream() {
    let range = |partition, from, to| OffsetRange { stream: StreamId { source: SourceId(1), partition }, from, to };
    let segment = empty().with(&batch(0, 1), &[range(0, 5, 6), range(1, 0, 9)]).unwrap();
    let moved = segment.with(&batch(0, 0), &[range(0, 6, 8)]).unwrap();
    assert_eq!(moved.offsets(), [range(0, 5, 8), range(1, 0, 9)]);
    assert_eq!(moved.rows(), 1);
    for wrong in [range(0, 7, 8), range(0, 5, 8), range(1, 9, 8)] {
        let error = segment.with(&batch(1, 1), &[wrong]).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
    }
    assert_eq!(segment.offsets(), [range(0, 5, 6), range(1, 0, 9)]);
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
    let nulls = RecordBatch::try_from_iter([("n", Arc::clone(&numbers)), ("t", Arc::clone(&texts))]).unwrap();
    let error = empty().with(&nulls, &[]).unwrap_err();
    assert!(error.to_string().contains("null"), "{error}");
    let few = RecordBatch::try_from_iter([("t", Arc::clone(&texts))]).unwrap();
    assert!(empty().with(&few, &[]).is_err());
    let swapped = RecordBatch::try_from_iter([("t", texts), ("n", numbers)]).unwrap();
    assert!(empty().with(&swapped, &[]).is_err());
}

#[test]
fn chunks_that_cannot_match_are_not_read() {
    let mut segment = empty();
    for index in 0..8 {
        segment = segment.with(&batch(index * 5000, 5000), &[]).unwrap();
    }
    let request = Arc::new(ScanRequest {
        schema: schema(),
        projection: vec![ColumnId(1)],
        predicate: Some(Predicate::Compare {
            column: ColumnId(1),
            op: CompareOp::GreaterEq,
            value: Scalar::Int(37_000),
        }),
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    });
    let metrics = Arc::new(ScanMetrics::default());
    let rows: usize = Arc::new(segment)
        .scan(0..40_000, request, Arc::clone(&metrics))
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 3000);
    assert_eq!(metrics.rows_scanned.load(Ordering::Relaxed), 5000);
}
