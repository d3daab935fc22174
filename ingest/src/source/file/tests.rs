use std::{fs, sync::Arc};

use arrow::{
    array::{
        Array, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{Int32Type, Schema},
};
use parquet::arrow::ArrowWriter;
use tidemill_storage::{clock::ManualClock, schema::DataType};

use super::*;
use crate::source::SourceOptions;

fn connected(pairs: &[(&str, &str)], columns: Vec<SourceColumn>) -> Result<super::super::Connected> {
    let mut all: BTreeMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert("connector".into(), "file".into());
    SourceOptions::settle(&mut all, 0);
    SourceOptions::parse(&all)?.connect(&context_of(columns))
}

/// (partition, offset, text) of every message, and the partitions in the order in which they ended.
fn messages(connector: &dyn Connector, from: &[(u32, u64)], step: usize) -> (Vec<(u32, u64, String)>, Vec<u32>) {
    let mut reader = connector.open(&from.iter().copied().collect()).unwrap();
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    let mut at: BTreeMap<u32, u64> = from.iter().copied().collect();
    while ends.len() < from.len() {
        for fetched in reader.poll(step, 1 << 20, Duration::ZERO).unwrap() {
            match fetched {
                Fetched::Messages(batch) => {
                    assert_eq!(at.insert(batch.partition, batch.to), Some(batch.from));
                    for message in &batch.messages {
                        let text = String::from_utf8(batch.payload(message).to_vec()).unwrap();
                        all.push((batch.partition, message.offset, text));
                    }
                }
                Fetched::End { partition } => ends.push(partition),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(reader.poll(step, 1 << 20, Duration::ZERO).unwrap().is_empty());
    for (partition, to) in at {
        assert_eq!(connector.watermarks(partition).unwrap(), Watermarks { low: 0, high: to });
    }
    (all, ends)
}

#[test]
fn reads_lines_of_sorted_files_to_their_ends() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.ndjson"), "{\"n\":4}").unwrap();
    fs::write(directory.path().join("a.ndjson"), "{\"n\":1}\r\n\n{\"n\":3}\n").unwrap();
    fs::write(directory.path().join("other.txt"), "no").unwrap();
    let pattern = directory.path().join("*.ndjson");
    let source = connected(&[("path", pattern.to_str().unwrap())], Vec::new()).unwrap();
    assert!(matches!(source.format, Some(Format::Json { .. })));
    assert_eq!(source.connector.partitions().unwrap(), [0, 1]);
    for step in [1, 2, 100] {
        let (all, ends) = messages(source.connector.as_ref(), &[(0, 0), (1, 0)], step);
        assert_eq!(ends, [0, 1]);
        assert_eq!(all, [(0, 0, "{\"n\":1}".into()), (0, 2, "{\"n\":3}".into()), (1, 0, "{\"n\":4}".into())]);
    }
    assert_eq!(messages(source.connector.as_ref(), &[(0, 1)], 10).0, [(0, 2, "{\"n\":3}".into())]);
    let mut beyond = source.connector.open(&BTreeMap::from([(1, 2)])).unwrap();
    assert!(beyond.poll(1, 1, Duration::ZERO).unwrap_err().to_string().contains("b.ndjson"));
}

#[test]
fn a_partition_stays_its_file_when_others_come() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.csv"), "1\n").unwrap();
    let path = directory.path().to_str().unwrap();
    let mut options = BTreeMap::from(
        [("connector", "file"), ("path", path), ("format", "csv")].map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    SourceOptions::settle(&mut options, 0);
    fs::write(directory.path().join("a.csv"), "2\n").unwrap();
    let source = SourceOptions::parse(&options).unwrap().connect(&context_of(Vec::new())).unwrap();
    assert_eq!(messages(source.connector.as_ref(), &[(0, 0)], 10).0, [(0, 0, "1".into())]);
    assert_eq!(source.connector.partitions().unwrap(), [0]);
}

fn context_of(columns: Vec<SourceColumn>) -> ConnectContext {
    ConnectContext {
        source: SourceId(5),
        name: "f".into(),
        columns,
        clock: Arc::new(ManualClock::default()),
        log: None,
    }
}

#[test]
fn csv_records_may_span_lines_and_have_a_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.csv");
    fs::write(&path, "\u{feff}id, \"the \"\"name\"\"\"\n1,\"two\nlines, \"\"quoted\"\"\"\n2,5\" pipe\n").unwrap();
    let pairs = [("path", path.to_str().unwrap()), ("header", "true")];
    let source = connected(&pairs, Vec::new()).unwrap();
    let Some(Format::Csv { options, .. }) = &source.format else { panic!() };
    assert_eq!(options.header.as_ref().unwrap()[0], "id");
    let (all, _) = messages(source.connector.as_ref(), &[(0, 0)], 10);
    assert_eq!(all, [(0, 0, "1,\"two\nlines, \"\"quoted\"\"\"".into()), (0, 1, "2,5\" pipe".into())]);
    let second = directory.path().join("y.csv");
    fs::write(&second, "id,other\n1,2\n").unwrap();
    let pattern = directory.path().join("*.csv");
    let both = connected(&[("path", pattern.to_str().unwrap()), ("header", "true")], Vec::new()).unwrap();
    let mut reader = both.connector.open(&BTreeMap::from([(1, 0)])).unwrap();
    let error = reader.poll(1, 1, Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("y.csv") && error.contains("id,other"), "{error}");
}

#[test]
fn parquet_rows_are_cast_exactly_or_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.parquet");
    let batch = RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![Some(1), Some(1 << 40), None, Some(4)])) as _),
        ("d", Arc::new(Float64Array::from(vec![1.0, 2.0, 2.5, 4.0])) as _),
        ("s", Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), Some("d")])) as _),
        ("m", Arc::new(Decimal128Array::from(vec![100, 250, 300, 450]).with_precision_and_scale(10, 2).unwrap()) as _),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3, 4]).with_timezone("UTC")) as _),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let columns = vec![
        SourceColumn::new("n", DataType::Int, true),
        SourceColumn::new("d", DataType::BigInt, false),
        SourceColumn::new("m", DataType::Numeric { precision: 12, scale: 3 }, false),
        SourceColumn::new("t", DataType::TimestampTz, false),
        SourceColumn::new("not_there", DataType::Text, true),
        SourceColumn::new("s", DataType::Text, true),
    ];
    let source = connected(&[("path", path.to_str().unwrap())], columns.clone()).unwrap();
    assert!(source.format.is_none());
    assert_eq!(source.connector.watermarks(0).unwrap().high, 4);
    let mut reader = source.connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let Fetched::Rows(rows) = reader.poll(100, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
    assert_eq!(rows.row_offsets, [0, 3]);
    assert_eq!((rows.from, rows.to), (0, 4));
    assert_eq!(rows.rows.schema(), crate::decode::source_schema(&columns));
    assert_eq!(rows.rows.column(0).as_primitive::<Int32Type>().values(), &[1, 4]);
    assert_eq!(rows.rows.column(4).null_count(), 2);
    let faults: Vec<_> = rows.rejects.iter().map(|r| (r.offset, r.column.as_deref().unwrap())).collect();
    assert_eq!(faults, [(1, "n"), (2, "d")]);
    let raw = std::str::from_utf8(&rows.rejects[0].raw).unwrap();
    assert!(raw.contains("n: 1099511627776") && raw.contains("s: NULL"), "{raw}");
    assert!(matches!(reader.poll(1, 1, Duration::ZERO).unwrap()[0], Fetched::End { partition: 0 }));

    let mut late = source.connector.open(&BTreeMap::from([(0, 3)])).unwrap();
    let Fetched::Rows(rows) = late.poll(100, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
    assert_eq!(rows.row_offsets, [3]);

    for (column, wanted) in [
        (SourceColumn::new("s", DataType::BigInt, true), "cannot become bigint"),
        (SourceColumn::new("t", DataType::Timestamp, true), "cannot become timestamp"),
        (SourceColumn::new("none", DataType::Text, false), "no column 'none'"),
    ] {
        let source = connected(&[("path", path.to_str().unwrap())], vec![column]).unwrap();
        let error = source.connector.open(&BTreeMap::from([(0, 0)])).unwrap().poll(1, 1, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

/// The texts of a file that stand in a JSONB column are documents; such a source waited for ever, since no text became JSONB.
#[test]
fn texts_of_files_become_documents() {
    let directory = tempfile::tempdir().unwrap();
    let texts = [Some("{\"b\":1, \"a\":[1e2]}"), None, Some("{"), Some(" 7 "), Some("\"t\"")];
    let batch = RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])) as Arc<dyn Array>),
        ("j", Arc::new(StringArray::from(texts.to_vec())) as _),
    ])
    .unwrap();
    let parquet = directory.path().join("x.parquet");
    let mut writer = ArrowWriter::try_new(fs::File::create(&parquet).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let avro = directory.path().join("x.avro");
    // Fields of Avro files are nullable only where the schema says so.
    let schema = Schema::new(batch.schema().fields().clone());
    let mut writer = arrow_avro::writer::AvroWriter::new(fs::File::create(&avro).unwrap(), schema).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    for path in [parquet, avro] {
        let columns = vec![SourceColumn::new("j", DataType::Jsonb, true), SourceColumn::new("n", DataType::Int, false)];
        let source = connected(&[("path", path.to_str().unwrap())], columns).unwrap();
        let mut reader = source.connector.open(&BTreeMap::from([(0, 0)])).unwrap();
        let Fetched::Rows(rows) = reader.poll(100, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
        assert_eq!((rows.row_offsets.as_slice(), rows.to), ([0, 1, 3, 4].as_slice(), 5));
        let documents: Vec<_> = rows.rows.column(0).as_string_view().iter().collect();
        assert_eq!(documents, [Some("{\"a\": [100], \"b\": 1}"), None, Some("7"), Some("\"t\"")]);
        assert_eq!(rows.rejects.len(), 1);
        let reject = &rows.rejects[0];
        assert_eq!((reject.offset, reject.column.as_deref()), (2, Some("j")));
        assert!(std::str::from_utf8(&reject.raw).unwrap().contains("j: {"));
    }
}

/// Documents that become very much larger than their texts end a batch early, and none is lost.
#[test]
fn documents_that_grow_come_in_small_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.parquet");
    let texts: Vec<String> = (0..600).map(|n| format!("[1e131000, {n}]")).collect();
    let batch = RecordBatch::try_from_iter([("j", Arc::new(StringArray::from(texts)) as Arc<dyn Array>)]).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let columns = vec![SourceColumn::new("j", DataType::Jsonb, true)];
    let source = connected(&[("path", path.to_str().unwrap())], columns).unwrap();
    let mut reader = source.connector.open(&BTreeMap::from([(0, 0)])).unwrap();
    let mut seen = 0;
    loop {
        match reader.poll(1000, 1 << 20, Duration::ZERO).unwrap().remove(0) {
            Fetched::Rows(rows) => {
                assert!((1..300).contains(&rows.rows.num_rows()), "{}", rows.rows.num_rows());
                for document in rows.rows.column(0).as_string_view() {
                    assert!(document.unwrap().ends_with(&format!("0, {seen}]")));
                    seen += 1;
                }
            }
            Fetched::End { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, 600);
}

#[test]
fn avro_containers_give_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.avro");
    let batch = RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as Arc<dyn Array>),
        ("s", Arc::new(StringArray::from(vec!["a", "b", "c"])) as _),
    ])
    .unwrap();
    let schema = Schema::new(batch.schema().fields().clone());
    let mut writer = arrow_avro::writer::AvroWriter::new(fs::File::create(&path).unwrap(), schema).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let columns = vec![SourceColumn::new("s", DataType::Text, false), SourceColumn::new("n", DataType::Int, false)];
    let source = connected(&[("path", path.to_str().unwrap())], columns).unwrap();
    assert_eq!(source.connector.watermarks(0).unwrap().high, 3);
    let mut reader = source.connector.open(&BTreeMap::from([(0, 1)])).unwrap();
    let Fetched::Rows(rows) = reader.poll(100, 1 << 20, Duration::ZERO).unwrap().remove(0) else { panic!() };
    assert_eq!(rows.row_offsets, [1, 2]);
    assert_eq!(rows.rows.column(1).as_primitive::<Int32Type>().values(), &[2, 3]);
}

#[test]
fn names_what_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no.csv");
    let error = connected(&[("path", missing.to_str().unwrap())], Vec::new()).unwrap_err();
    assert!(error.to_string().contains("no.csv"), "{error}");
    let none = directory.path().join("*.csv");
    assert!(connected(&[("path", none.to_str().unwrap())], Vec::new()).unwrap_err().to_string().contains("*.csv"));
    let garbage = directory.path().join("x.parquet");
    fs::write(&garbage, b"PAR1 no it is not").unwrap();
    let source = connected(&[("path", garbage.to_str().unwrap())], Vec::new()).unwrap();
    assert!(source.connector.watermarks(0).unwrap_err().to_string().contains("x.parquet"));
}

#[test]
fn packed_files_are_unpacked_on_the_way() {
    use std::io::Write;
    let directory = tempfile::tempdir().unwrap();
    let text: String = (0..50_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    // Two members in one file, as appending tools make them.
    let (first, second) = text.split_at(text.len() / 2);
    let mut gzip = Vec::new();
    for part in [first, second] {
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
        encoder.write_all(part.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    fs::write(directory.path().join("a.ndjson.gz"), gzip).unwrap();
    fs::write(directory.path().join("b.ndjson.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    fs::write(directory.path().join("c.ndjson"), &text).unwrap();
    let path = directory.path().to_str().unwrap();
    let source = connected(&[("path", path), ("format", "ndjson")], Vec::new()).unwrap();
    let (all, _) = messages(source.connector.as_ref(), &[(0, 0), (1, 49_990), (2, 25_000)], 7_000);
    for (partition, from) in [(0, 0), (1, 49_990), (2, 25_000)] {
        let lines: Vec<_> = all.iter().filter(|(of, ..)| *of == partition).map(|(.., line)| line.clone()).collect();
        assert_eq!(lines, text.lines().skip(from).collect::<Vec<_>>(), "partition {partition}");
    }
    let one = directory.path().join("a.ndjson.gz");
    assert!(connected(&[("path", one.to_str().unwrap())], Vec::new()).is_ok(), "the format is told by the name");

    // A cut file is an error, not an early end.
    let cut = fs::read(directory.path().join("b.ndjson.zst")).unwrap();
    fs::write(directory.path().join("b.ndjson.zst"), &cut[..cut.len() / 2]).unwrap();
    let mut reader = source.connector.open(&BTreeMap::from([(1, 0)])).unwrap();
    let error = (0..100).find_map(|_| reader.poll(10_000, 1 << 20, Duration::ZERO).err());
    assert!(error.is_some());
}

#[test]
fn names_the_stores_that_are_not_there_yet() {
    for path in ["s3://bucket/x.csv", "https://host/x.parquet"] {
        let Err(Error::Unsupported { message, .. }) = connected(&[("path", path)], Vec::new()) else {
            panic!("{path}")
        };
        assert!(message.contains(path.split("://").next().unwrap()), "{message}");
    }
}
