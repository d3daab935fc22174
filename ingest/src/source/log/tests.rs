use std::{fs, time::Duration};

use arrow::array::{Array, Int64Array, ListBuilder, StringViewArray, StringViewBuilder};
use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion, TableId},
    scalar::Scalar,
    schema::{Column, DataType},
};

use super::*;
use crate::source::Fetched;

fn column(id: u32, name: &str, data_type: DataType) -> Column {
    Column::new(ColumnId(id), name, data_type)
}

fn schema(version: u32, columns: Vec<Column>) -> Arc<TableSchema> {
    Arc::new(TableSchema { version: SchemaVersion(version), columns, time_column: None })
}

fn plain() -> Arc<TableSchema> {
    schema(1, vec![column(1, "n", DataType::BigInt), column(2, "s", DataType::Text)])
}

fn rows(schema: &TableSchema, numbers: Range<i64>) -> RecordBatch {
    let texts: StringViewArray =
        numbers.clone().map(|n| (n % 3 != 0).then(|| format!("text that is longer than a view {n}"))).collect();
    RecordBatch::try_new(schema.arrow(), vec![Arc::new(Int64Array::from_iter_values(numbers)), Arc::new(texts)])
        .unwrap()
}

fn read_all(log: &Arc<Log>, from: u64) -> Vec<SourceBatchRows> {
    let mut reader = log.connector(SourceId(7)).open(&BTreeMap::from([(0, from)])).unwrap();
    let mut all = Vec::new();
    loop {
        let fetched = reader.poll(3, 1 << 20, Duration::ZERO).unwrap();
        if fetched.is_empty() {
            return all;
        }
        for fetched in fetched {
            let Fetched::Rows(batch) = fetched else { panic!("{fetched:?}") };
            assert_eq!(batch.row_offsets, (batch.from..batch.to).collect::<Vec<_>>());
            assert_eq!(batch.rows.num_rows() as u64, batch.to - batch.from);
            all.push((batch.from, batch.rows));
        }
    }
}

type SourceBatchRows = (u64, RecordBatch);

fn numbers(batches: &[SourceBatchRows]) -> Vec<i64> {
    let column = |rows: &RecordBatch| rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    batches.iter().flat_map(|(_, rows)| column(rows)).collect()
}

#[test]
fn gives_back_what_was_appended_also_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    assert_eq!(log.append(&schema, &[rows(&schema, 0..5)]).unwrap(), 0..5);
    assert_eq!(log.append(&schema, &[]).unwrap(), 5..5);
    assert_eq!(log.append(&schema, &[rows(&schema, 5..6), rows(&schema, 6..10).slice(1, 3)]).unwrap(), 5..9);
    let before = read_all(&log, 0);
    assert_eq!(numbers(&before), [0, 1, 2, 3, 4, 5, 7, 8, 9]);
    drop(log);
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    assert_eq!(read_all(&log, 0), before);
    assert_eq!(numbers(&read_all(&log, 6)), [7, 8, 9]);
    assert_eq!(log.append(&schema, &[rows(&schema, 20..21)]).unwrap(), 9..10);
    assert!(log.connector(SourceId(1)).open(&BTreeMap::from([(0, 11)])).is_err(), "beyond the end");
}

#[test]
fn keeps_every_type_through_a_frame() {
    let list = DataType::Array(Box::new(DataType::Text));
    let schema = schema(1, vec![column(1, "tags", list), column(2, "u", DataType::Uuid)]);
    let mut tags = ListBuilder::new(StringViewBuilder::new());
    tags.append_value([Some("a"), None, Some("a text that is too long to be inlined")]);
    tags.append_null();
    let ids = StringViewArray::from(vec![None, Some("01234567-89ab-cdef-0123-456789abcdef")]);
    let batch = RecordBatch::try_new(schema.arrow(), vec![Arc::new(tags.finish()), Arc::new(ids)]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    log.append(&schema, std::slice::from_ref(&batch)).unwrap();
    assert_eq!(read_all(&log, 0), [(0, batch)]);
}

#[test]
fn refuses_rows_of_other_columns() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions::default(), plain()).unwrap();
    let other = schema(1, vec![column(1, "n", DataType::BigInt)]);
    assert!(log.append(&other, &[rows(&plain(), 0..1)]).is_err());
    assert_eq!(log.end(), 0);
}

#[test]
fn reads_old_frames_under_a_new_schema_and_holds_newer_ones_back() {
    let directory = tempfile::tempdir().unwrap();
    let old = schema(1, vec![column(1, "n", DataType::Int), column(2, "gone", DataType::Text)]);
    let batch = RecordBatch::try_new(
        old.arrow(),
        vec![Arc::new(arrow::array::Int32Array::from(vec![1, 2])), Arc::new(StringViewArray::from(vec!["x", "y"]))],
    )
    .unwrap();
    let mut added = column(3, "added", DataType::Text);
    added.default = Some(Scalar::Text("d".into()));
    let new = schema(2, vec![column(1, "n", DataType::BigInt), added]);
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&old)).unwrap();
    log.append(&old, std::slice::from_ref(&batch)).unwrap();
    log.append(&new, &[rows(&new, 4..5)]).unwrap();

    let mut reader = log.connector(SourceId(1)).open(&BTreeMap::from([(0, 0)])).unwrap();
    let Fetched::Rows(first) = reader.poll(1, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
    assert_eq!(first.rows, batch.slice(0, 1));
    assert_eq!(reader.poll(10, 1 << 20, Duration::ZERO).unwrap().len(), 1);
    assert!(reader.poll(10, 1 << 20, Duration::ZERO).unwrap().is_empty(), "the reader does not know `added` yet");
    log.set_schema(Arc::clone(&new));
    let Fetched::Rows(last) = reader.poll(10, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
    assert_eq!((last.from, last.rows.schema()), (2, new.arrow()));

    let all = read_all(&log, 0);
    assert_eq!(numbers(&all), [1, 2, 4]);
    let texts = all[0].1.column(1).as_any().downcast_ref::<StringViewArray>().unwrap().clone();
    assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("d"), Some("d")]);
}

#[test]
fn rotates_and_trims_whole_files_only() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let options = LogOptions { file_bytes: 2000, ..LogOptions::default() };
    let log = Log::open(directory.path(), options.clone(), Arc::clone(&schema)).unwrap();
    for n in 0..40 {
        log.append(&schema, &[rows(&schema, n..n + 1)]).unwrap();
    }
    let count = || fs::read_dir(directory.path()).unwrap().count();
    let before = count();
    assert!(before > 4, "{before} files");
    assert_eq!(numbers(&read_all(&log, 0)), (0..40).collect::<Vec<_>>());
    let connector = log.connector(SourceId(1));
    connector.committed(TableId(1), &BTreeMap::from([(0, 20)]));
    assert!(count() < before);
    let low = connector.watermarks(0).unwrap().low;
    assert!((1..=20).contains(&low), "{low}");
    let mut late = connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let gap = late.poll(10, 1 << 20, Duration::ZERO).unwrap().remove(0);
    assert!(matches!(gap, Fetched::Gap { partition: 0, wanted: 0, found } if found == low));
    assert!(late.poll(10, 1 << 20, Duration::ZERO).unwrap().is_empty());
    late.seek(0, low).unwrap();
    assert!(matches!(late.poll(10, 1 << 20, Duration::ZERO).unwrap()[0], Fetched::Rows(_)));
    connector.committed(TableId(1), &BTreeMap::from([(0, 40)]));
    assert_eq!(count(), 1);
    drop((late, connector, log));
    let log = Log::open(directory.path(), options, Arc::clone(&schema)).unwrap();
    assert_eq!(log.end(), 40);
    assert_eq!(log.append(&schema, &[rows(&schema, 0..1)]).unwrap(), 40..41);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test has callers of its own")]
fn many_callers_share_syncs_and_a_reader_sees_all_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let options = LogOptions { pending_bytes_max: 4000, ..LogOptions::default() };
    let log = Log::open(directory.path(), options, Arc::clone(&schema)).unwrap();
    let mut reader = log.connector(SourceId(1)).open(&BTreeMap::from([(0, 0)])).unwrap();
    let callers: Vec<_> = (0..8i64)
        .map(|caller| {
            let (log, schema) = (Arc::clone(&log), Arc::clone(&schema));
            std::thread::spawn(move || {
                for n in 0..20 {
                    let range = log.append(&schema, &[rows(&schema, caller * 100 + n..caller * 100 + n + 2)]).unwrap();
                    assert_eq!(range.end - range.start, 2);
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    while seen.len() < 320 {
        for fetched in reader.poll(1000, 1 << 20, Duration::from_secs(20)).unwrap() {
            let Fetched::Rows(batch) = fetched else { panic!("{fetched:?}") };
            assert_eq!(batch.from, seen.len() as u64);
            seen.extend(numbers(&[(batch.from, batch.rows)]));
        }
    }
    for caller in callers {
        caller.join().unwrap();
    }
    for caller in 0..8 {
        let own: Vec<i64> = seen.iter().copied().filter(|n| n / 100 == caller).collect();
        let wanted: Vec<i64> = (0..20).flat_map(|n| [caller * 100 + n, caller * 100 + n + 1]).collect();
        assert_eq!(own, wanted);
    }
    assert_eq!(log.queue.lock().bytes, 0);
    assert!(log.queue.lock().outcomes.is_empty());
}

#[test]
fn survives_being_cut_at_every_byte() {
    let made = tempfile::tempdir().unwrap();
    let schema = plain();
    let log = Log::open(made.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    let mut ends = vec![(file::FILE_HEADER_BYTES, 0)];
    for n in 0..3 {
        log.append(&schema, &[rows(&schema, n..n + 2)]).unwrap();
        ends.push((log.writer.lock().log.bytes, log.end()));
    }
    drop(log);
    let bytes = fs::read(made.path().join(file::name(0))).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file::name(0));
    for length in 0..=bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
        let (_, rows_left) = ends.iter().rev().find(|(end, _)| *end <= length as u64).copied().unwrap_or((0, 0));
        assert_eq!(log.end(), rows_left, "cut at {length}");
        assert_eq!(log.append(&schema, &[rows(&schema, 9..10)]).unwrap(), rows_left..rows_left + 1);
        drop(log);
        let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
        assert_eq!(numbers(&read_all(&log, 0)).len() as u64, rows_left + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A flipped byte is either an error naming the file, or costs the last frame (which nothing tells from a torn one).
    #[test]
    fn never_loses_a_synced_frame_in_silence(at in 0usize..4000, flip in 1u8..=255) {
        let directory = tempfile::tempdir().unwrap();
        let schema = plain();
        let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
        for n in 0..3 {
            log.append(&schema, &[rows(&schema, n * 2..n * 2 + 2)]).unwrap();
        }
        drop(log);
        let path = directory.path().join(file::name(0));
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        match Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)) {
            Err(error) => prop_assert!(error.to_string().contains("00000000000000000000.log"), "{}", error),
            Ok(log) => prop_assert!(log.end() == 4, "{} rows are left", log.end()),
        }
    }
}

/// A crash may leave later pages of one unsynced write on disk without the earlier ones.
#[test]
fn cuts_a_group_whose_first_frame_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    log.append(&schema, &[rows(&schema, 0..2)]).unwrap();
    let durable = log.writer.lock().log.bytes as usize;
    let draft = |n| Draft::encode(&schema, &[rows(&schema, n..n + 1)]).unwrap();
    let mut group: Vec<Ticket> = (2..4).map(|n| Ticket { id: n as u64, draft: draft(n) }).collect();
    log.write(&mut group).unwrap();
    drop(log);
    let path = directory.path().join(file::name(0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[durable + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    assert_eq!(log.end(), 2);
}

/// Puts another file in the place of the one that is written.
fn break_file(log: &Log, file: File) {
    log.writer.lock().file = file;
}

#[test]
fn a_failed_sync_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    log.append(&schema, &[rows(&schema, 0..1)]).unwrap();
    // The null device takes every write and no sync.
    let sound =
        std::mem::replace(&mut log.writer.lock().file, OpenOptions::new().write(true).open("/dev/null").unwrap());
    let first = log.append(&schema, &[rows(&schema, 1..2)]).unwrap_err().to_string();
    assert!(first.contains("syncing log file") && first.contains("00000000000000000000.log"), "{first}");
    break_file(&log, sound);
    let later = log.append(&schema, &[rows(&schema, 1..2)]).unwrap_err().to_string();
    assert!(later.contains("takes no more rows"), "{later}");
    assert_eq!(numbers(&read_all(&log, 0)), [0], "what is there can be read");
    drop(log);
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    assert_eq!(log.append(&schema, &[rows(&schema, 1..2)]).unwrap(), 1..2);
}

#[test]
fn a_failed_write_that_cannot_be_taken_back_is_final() {
    let directory = tempfile::tempdir().unwrap();
    let schema = plain();
    let log = Log::open(directory.path(), LogOptions::default(), Arc::clone(&schema)).unwrap();
    break_file(&log, OpenOptions::new().write(true).open("/dev/full").unwrap());
    let first = log.append(&schema, &[rows(&schema, 0..1)]).unwrap_err().to_string();
    assert!(first.contains("writing log file"), "{first}");
    assert!(log.append(&schema, &[rows(&schema, 0..1)]).is_err());
    assert_eq!(log.end(), 0);
}
