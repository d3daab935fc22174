//! Snapshots see a table at one moment; plans leave out what statistics rule out.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidemill_storage::{
    ids::{ColumnId, OffsetRange, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::{Column, DataType, TableSchema},
    segment::{
        Segment, SegmentState,
        builder::seal,
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    table::{PartitionWriter, Table, TableSnapshot},
};

use crate::scan::CONTEXT;

const TIME: ColumnId = ColumnId(1);
const NUMBER: ColumnId = ColumnId(2);

fn schema() -> Arc<TableSchema> {
    let column = |id, name: &str, data_type| Column { nullable: false, ..Column::new(id, name, data_type) };
    let columns = vec![column(TIME, "time", DataType::Timestamp), column(NUMBER, "n", DataType::BigInt)];
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Some(TIME) })
}

/// `n` from the range; the time is a thousand times that.
fn batch(range: std::ops::Range<i64>) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(range.clone().map(|n| n * 1000));
    let numbers = Int64Array::from_iter_values(range);
    RecordBatch::try_new(schema().arrow(), vec![Arc::new(times), Arc::new(numbers)]).unwrap()
}

fn progress(from: u64, to: u64) -> OffsetRange {
    OffsetRange { stream: StreamId { source: SourceId(1), partition: 0 }, from, to }
}

fn commit(segment: &ConsumingSegment, dir: &std::path::Path) -> Arc<dyn Segment> {
    let file = seal(segment, dir, &format!("{}.segment", segment.id()), &CONTEXT).unwrap();
    assert_eq!(file.time_range.is_some(), segment.rows() > 0);
    open(&file.path, &Expected { id: segment.id(), bytes: file.bytes, checksum: file.checksum }).unwrap()
}

fn request(predicate: Option<Predicate>) -> Arc<ScanRequest> {
    Arc::new(ScanRequest {
        schema: schema(),
        projection: vec![NUMBER],
        predicate,
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    })
}

fn numbers(snapshot: &TableSnapshot, request: &Arc<ScanRequest>) -> Vec<i64> {
    let metrics = Arc::new(ScanMetrics::default());
    let mut found = Vec::new();
    for unit in snapshot.plan(request).units {
        for batch in unit.scan(request, &metrics).unwrap() {
            let batch = batch.unwrap();
            let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            found.extend_from_slice(column.values());
        }
    }
    found
}

fn compare(column: ColumnId, op: CompareOp, value: i64) -> Predicate {
    Predicate::Compare { column, op, value: Scalar::Int(value) }
}

#[test]
fn a_snapshot_never_changes_while_segments_seal_and_commit() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(TableId(1), schema(), 1);
    let partition = Arc::clone(&table.partitions()[0]);
    let mut writer = PartitionWriter::new(Arc::clone(&partition), schema(), SegmentId(1));
    let mut taken: Vec<(TableSnapshot, i64)> = vec![(table.snapshot(), 0)];
    let mut sealing = Vec::new();
    for index in 0..40i64 {
        writer.append(&batch(index * 100..index * 100 + 100), &[progress(index as u64, index as u64 + 1)]).unwrap();
        taken.push((table.snapshot(), (index + 1) * 100));
        if index % 4 == 3 {
            sealing.push(writer.rotate(schema()).unwrap());
            taken.push((table.snapshot(), (index + 1) * 100));
        }
        // Commits come late, and the last one first.
        if sealing.len() == 3 {
            for segment in sealing.drain(..).rev() {
                assert_eq!(segment.state(), SegmentState::Sealing);
                partition.put(commit(&segment, dir.path()));
                taken.push((table.snapshot(), (index + 1) * 100));
            }
        }
    }
    for (snapshot, rows) in &taken {
        assert_eq!(snapshot.rows(), *rows as u64);
        assert_eq!(numbers(snapshot, &request(None)), (0..*rows).collect::<Vec<_>>());
    }
    let ids: Vec<_> = table.snapshot().views[0].segments().map(|segment| segment.id().0).collect();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());

    partition.remove(&[SegmentId(2), SegmentId(10)]);
    assert_eq!(table.snapshot().rows(), 3200);
    let (last, rows) = taken.last().unwrap();
    assert_eq!(last.rows(), *rows as u64);
}

#[test]
fn plans_leave_out_what_statistics_rule_out() {
    let dir = tempfile::tempdir().unwrap();
    let table = Table::new(TableId(1), schema(), 1);
    let partition = Arc::clone(&table.partitions()[0]);
    let mut writer = PartitionWriter::new(Arc::clone(&partition), schema(), SegmentId(1));
    for index in 0..5i64 {
        writer.append(&batch(index * 100..index * 100 + 100), &[]).unwrap();
        if index < 4 {
            let ended = writer.rotate(schema()).unwrap();
            if index < 3 {
                partition.put(commit(&ended, dir.path()));
            }
        }
    }
    // Three committed, one sealing, one consuming: all the same to a plan.
    let snapshot = table.snapshot();
    let check = |predicate: Predicate, units: usize, by_time: usize, by_min_max: usize, rows: std::ops::Range<i64>| {
        let request = request(Some(predicate));
        let plan = snapshot.plan(&request);
        assert_eq!(plan.segments_total, 5);
        assert_eq!((plan.units.len(), plan.pruned_by_time, plan.pruned_by_min_max), (units, by_time, by_min_max));
        assert_eq!(numbers(&snapshot, &request), rows.collect::<Vec<_>>());
    };
    check(compare(NUMBER, CompareOp::Less, 100), 1, 0, 4, 0..100);
    check(compare(TIME, CompareOp::GreaterEq, 350_000), 2, 3, 0, 350..500);
    let both = vec![compare(TIME, CompareOp::Less, 200_000), compare(NUMBER, CompareOp::GreaterEq, 150)];
    check(Predicate::And(both), 1, 3, 1, 150..200);
    let either = vec![compare(TIME, CompareOp::Less, 1000), compare(NUMBER, CompareOp::Eq, 499)];
    let request = request(Some(Predicate::Or(either)));
    let plan = snapshot.plan(&request);
    assert_eq!((plan.units.len(), plan.pruned_by_time, plan.pruned_by_min_max), (2, 0, 3));
    assert_eq!(numbers(&snapshot, &request), [0, 499]);
}

#[test]
fn an_unused_consuming_segment_takes_the_new_schema_in_place() {
    let table = Table::new(TableId(1), schema(), 1);
    let mut writer = PartitionWriter::new(Arc::clone(&table.partitions()[0]), schema(), SegmentId(4));
    let next = Arc::new(TableSchema { version: SchemaVersion(2), ..schema().as_ref().clone() });
    assert!(writer.rotate(Arc::clone(&next)).is_none());
    assert_eq!((writer.consuming().id(), writer.consuming().schema().version), (SegmentId(4), SchemaVersion(2)));
    // Offsets without rows are worth keeping.
    writer.append(&RecordBatch::new_empty(next.arrow()), &[progress(0, 5)]).unwrap();
    assert!(writer.rotate(schema()).is_some());
    assert_eq!(writer.consuming().id(), SegmentId(5));
}
