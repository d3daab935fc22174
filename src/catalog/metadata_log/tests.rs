use tidemill_ingest::commit::{MetadataLog, PartitionChange, PartitionState, SegmentCommit, SegmentRecord};
use tidemill_storage::{
    clock::ManualClock,
    ids::{OffsetRange, SchemaVersion},
};

use super::*;

const TABLE: TableId = TableId(7);
const PARTITION: PartitionId = PartitionId(1);
const STREAM: StreamId = StreamId { source: SourceId(3), partition: 5 };

fn open(directory: &tempfile::TempDir) -> (Arc<Database>, RedbMetadataLog) {
    let clock = Arc::new(ManualClock::at(1_000));
    let database = Database::open(directory.path().join("metadata.redb"), clock).unwrap();
    let log = RedbMetadataLog::open(Arc::clone(&database)).unwrap();
    (database, log)
}

fn with_table(directory: &tempfile::TempDir) -> (Arc<Database>, RedbMetadataLog) {
    let (database, log) = open(directory);
    database.write(|change| RedbMetadataLog::create_table(change, TABLE, 2)).unwrap();
    (database, log)
}

fn commit(id: u64, from: u64, to: u64) -> SegmentCommit {
    let progress = vec![OffsetRange { stream: STREAM, from, to }];
    SegmentCommit {
        table: TABLE,
        partition: PARTITION,
        segment: Some(SegmentRecord {
            id: SegmentId(id),
            file: format!("{id}.seg"),
            bytes: 10,
            checksum: 1,
            rows: to.saturating_sub(from) as u32,
            schema_version: SchemaVersion(1),
            time_range: Some((1, 2)),
            offsets: progress.clone(),
            committed_at_us: 5,
            tombstones: 0,
            purged: 0,
            keys_left_us: None,
        }),
        progress,
        watermarks: vec![(STREAM, to as i64 * 1_000_000)],
        landmarks: vec![(STREAM, Landmark::new(to.saturating_sub(1), 17, Some(b"last")))],
        dead_letters: Some(DeadLetterRecord { file: format!("{id}.dlq"), bytes: 1, checksum: 2, rows: 3 }),
        replaced_dead_letters: None,
        lost: Vec::new(),
    }
}

fn retired(id: u64) -> PartitionChange {
    PartitionChange { partition: PARTITION, retired: vec![SegmentId(id)], ..Default::default() }
}

#[test]
fn deleted_rows_add_up_and_go_with_their_segment() {
    let directory = tempfile::tempdir().unwrap();
    let (database, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    let rows = |rows: &[u32]| RowSet::from_iter(rows.iter().copied());
    let delete = |id: u64, of: &[u32]| PartitionChange {
        partition: PARTITION,
        deleted: vec![(SegmentId(id), rows(of))],
        ..Default::default()
    };
    log.change(TABLE, &[delete(1, &[2, 3])]).unwrap();
    let new = commit(5, 0, 0).segment.unwrap();
    log.change(TABLE, &[PartitionChange { added: vec![new], ..delete(1, &[3, 7]) }]).unwrap();
    let known = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!(known.deleted, [(SegmentId(1), rows(&[2, 3, 7]))]);
    assert_eq!(known.next_segment, SegmentId(6));
    // All of it or nothing.
    let refused = log.change(TABLE, &[delete(1, &[9]), delete(4, &[0])]).unwrap_err();
    assert!(refused.to_string().contains("has no segment 4"), "{refused}");
    assert_eq!(log.partition(TABLE, PARTITION).unwrap(), known);
    // What was begun before the new one comes after it.
    log.commit(&commit(4, 10, 20)).unwrap();
    drop((log, database));
    let (_database, log) = open(&directory);
    assert_eq!(log.partition(TABLE, PARTITION).unwrap().deleted, known.deleted);
    log.change(TABLE, &[retired(1)]).unwrap();
    let after = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!((after.deleted, after.next_segment), (vec![], SegmentId(6)));
    assert_eq!(after.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn rows_are_lost_with_a_commit_and_keys_leave() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, log) = with_table(&directory);
    let rows = |rows: &[u32]| RowSet::from_iter(rows.iter().copied());
    log.commit(&commit(1, 0, 10)).unwrap();
    // Of a segment that is gone nothing is kept.
    let lost = vec![(SegmentId(2), rows(&[1])), (SegmentId(1), rows(&[2, 3])), (SegmentId(9), rows(&[4]))];
    log.commit(&SegmentCommit { lost, ..commit(2, 10, 20) }).unwrap();
    let left = PartitionChange {
        partition: PARTITION,
        lost: vec![(SegmentId(1), rows(&[3, 5]))],
        left: vec![(SegmentId(1), 77)],
        ..Default::default()
    };
    log.change(TABLE, std::slice::from_ref(&left)).unwrap();
    let known = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!(known.lost, [(SegmentId(1), rows(&[2, 3, 5])), (SegmentId(2), rows(&[1]))]);
    assert_eq!(known.segments.iter().map(|segment| segment.keys_left_us).collect::<Vec<_>>(), [Some(77), None]);
    let unknown = PartitionChange { lost: Vec::new(), left: vec![(SegmentId(9), 77)], ..left };
    assert!(log.change(TABLE, &[unknown]).unwrap_err().to_string().contains("has no segment 9"));
    log.change(TABLE, &[retired(1)]).unwrap();
    assert_eq!(log.partition(TABLE, PARTITION).unwrap().lost, [(SegmentId(2), rows(&[1]))]);
}

#[test]
fn a_replay_takes_its_file_off_the_list_or_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    let replay = |id: u64| SegmentCommit {
        progress: Vec::new(),
        watermarks: Vec::new(),
        dead_letters: None,
        replaced_dead_letters: Some("1.dlq".into()),
        ..commit(id, 0, 0)
    };
    log.commit(&replay(2)).unwrap();
    let after = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!((after.segments.len(), after.dead_letters.len()), (2, 0));
    log.commit(&replay(3)).unwrap_err();
    assert_eq!(log.partition(TABLE, PARTITION).unwrap(), after);
}

#[test]
fn commits_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (database, log) = with_table(&directory);
    log.commit(&commit(4, 100, 120)).unwrap();
    log.commit(&commit(6, 120, 130)).unwrap();
    let before = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!(before.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(before.dead_letters.len(), 2);
    assert_eq!(before.positions, [(STREAM, 130)]);
    assert_eq!(before.watermarks, [(STREAM, 130_000_000)]);
    assert_eq!(before.next_segment, SegmentId(7));
    assert_eq!(log.partition(TABLE, PartitionId(0)).unwrap(), PartitionState::default());
    let records = database.log(1, 100).unwrap();
    assert_eq!(records.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(serde_json::from_value::<SegmentCommit>(records[1].1.body.clone()).unwrap(), commit(6, 120, 130));
    drop((log, database));

    let (database, log) = open(&directory);
    assert_eq!(log.partition(TABLE, PARTITION).unwrap(), before);
    assert_eq!(database.version().unwrap(), 2);
}

#[test]
fn progress_that_does_not_continue_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (database, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    let before = log.partition(TABLE, PARTITION).unwrap();
    for (id, from, to, says) in [
        (2, 11, 20, "does not begin at"),
        (2, 9, 20, "does not begin at"),
        (2, 0, 10, "does not begin at"),
        (2, 10, 9, "does not begin at"),
        (1, 10, 20, "is not new"),
    ] {
        let error = log.commit(&commit(id, from, to)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(log.partition(TABLE, PARTITION).unwrap(), before);
        assert_eq!(database.version().unwrap(), 1);
    }
    log.commit(&commit(2, 10, 20)).unwrap();
}

#[test]
fn a_table_that_is_gone_takes_nothing_and_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (database, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    database.write(|change| RedbMetadataLog::drop_table(change, TABLE)).unwrap();
    assert!(log.commit(&commit(2, 10, 20)).unwrap_err().to_string().contains("is gone"));
    assert!(log.change(TABLE, &[retired(1)]).unwrap_err().to_string().contains("is gone"));
    assert_eq!(log.partition(TABLE, PARTITION).unwrap(), PartitionState::default());
}

#[test]
fn a_retired_segment_is_off_the_list_and_its_id_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let (_, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    log.commit(&commit(2, 10, 20)).unwrap();
    log.change(TABLE, &[retired(2)]).unwrap();
    let state = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!(state.segments.iter().map(|segment| segment.id.0).collect::<Vec<_>>(), [1]);
    assert_eq!((state.next_segment, state.positions), (SegmentId(3), vec![(STREAM, 20)]));
}

#[test]
fn a_file_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    {
        let other = redb::Database::create(&path).unwrap();
        let transaction = other.begin_write().unwrap();
        transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 99).unwrap();
        transaction.commit().unwrap();
    }
    let error = Database::open(path, Arc::new(ManualClock::at(0))).unwrap_err();
    assert!(error.to_string().contains("format 99"), "{error}");
}

#[test]
fn a_reset_moves_streams_and_forgets_their_landmarks_in_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, log) = with_table(&directory);
    log.commit(&commit(1, 0, 10)).unwrap();
    let known = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!(known.landmarks, [(STREAM, Landmark::new(9, 17, Some(b"last")))]);
    let to = |table, to| StreamReset { table, partition: PARTITION, stream: STREAM, to };
    log.reset(&[to(TABLE, Some(3)), to(TableId(8), Some(3))]).unwrap_err();
    assert_eq!(log.partition(TABLE, PARTITION).unwrap(), known, "a table that is gone: nothing moved");
    log.reset(&[to(TABLE, Some(3))]).unwrap();
    log.commit(&commit(2, 10, 20)).unwrap_err();
    let moved = log.partition(TABLE, PARTITION).unwrap();
    assert_eq!((moved.positions, moved.landmarks), (vec![(STREAM, 3)], vec![]));
    assert_eq!((moved.segments, moved.dead_letters), (known.segments, known.dead_letters));
    log.commit(&commit(2, 3, 20)).unwrap();
    log.reset(&[to(TABLE, None)]).unwrap();
    assert_eq!(log.partition(TABLE, PARTITION).unwrap().positions, []);
}
