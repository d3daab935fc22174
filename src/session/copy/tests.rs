//! What is written reads back, in every format and however the bytes are cut.

use std::sync::Arc;

use arrow::{
    array::{Array, Int32Array, RecordBatch, StringViewArray},
    datatypes::SchemaRef,
};
use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion, TableId},
    schema::{Column, DataType, TableSchema},
};

use super::{
    options::{Format, Options},
    read::CopyIn,
    write::CopyWriter,
};
use crate::session::{
    WriteTarget,
    error::SqlError,
    value::{build::ReadStyle, calendar::Zone, encode::Style},
};

fn target() -> WriteTarget {
    let column = |id, name: &str, data_type, nullable| Column {
        nullable,
        ..Column::new(ColumnId(id), name.to_owned(), data_type)
    };
    let columns = vec![column(1, "a", DataType::Int, false), column(2, "b", DataType::Text, true)];
    let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None });
    WriteTarget { id: TableId(1), name: "t".to_owned(), schema }
}

fn copied(options: Options, data: &[u8], piece: usize) -> Result<Vec<(i32, Option<String>)>, SqlError> {
    let style = ReadStyle { zone: Zone::UTC, now_us: 0 };
    let mut copy = CopyIn::new(target(), &[], options, style)?;
    for piece in data.chunks(piece.max(1)) {
        copy.push(piece)?;
    }
    let (_, staged) = copy.finish()?;
    let mut rows = Vec::new();
    for batch in staged.batches {
        let a = batch.column(0).as_any().downcast_ref::<Int32Array>().unwrap();
        let b = batch.column(1).as_any().downcast_ref::<StringViewArray>().unwrap();
        rows.extend((0..a.len()).map(|row| (a.value(row), b.is_valid(row).then(|| b.value(row).to_owned()))));
    }
    Ok(rows)
}

fn batch(rows: &[(i32, Option<String>)]) -> (SchemaRef, RecordBatch) {
    let schema = target().schema.arrow();
    let a: Int32Array = rows.iter().map(|(a, _)| Some(*a)).collect();
    let b: StringViewArray = rows.iter().map(|(_, b)| b.as_deref()).collect();
    (Arc::clone(&schema), RecordBatch::try_new(schema, vec![Arc::new(a), Arc::new(b)]).unwrap())
}

fn options(format: Format, header: bool) -> Options {
    Options { header, ..Options::new(format) }
}

#[test]
fn text_is_read_as_postgres_reads_it() {
    let rows =
        copied(options(Format::Text, false), b"1\ta\\tb\\n\\x41\\101\\\\\n2\t\\N\r\n3\t\n\\.\nrubbish", 3).unwrap();
    assert_eq!(rows, [(1, Some("a\tb\nAA\\".to_owned())), (2, None), (3, Some(String::new()))]);
}

#[test]
fn csv_is_read_as_postgres_reads_it() {
    let data = b"a,b\n1,\"x,\"\"y\"\"\nz\"\n2,\n3,\"\"\r\n4,plain";
    let rows = copied(options(Format::Csv, true), data, 5).unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [(1, text("x,\"y\"\nz")), (2, None), (3, text("")), (4, text("plain"))]);
}

#[test]
fn errors_name_line_and_column() {
    let failed = |format, data: &[u8]| copied(options(format, false), data, 100).unwrap_err();
    let error = failed(Format::Text, b"1\ta\nx\tb\n");
    assert_eq!((error.state, error.context.as_deref()), ("22P02", Some("COPY t, line 2, column a: \"x\"")));
    let error = failed(Format::Csv, b"1,a\n2,b,c\n");
    assert_eq!((error.state, error.message.as_str()), ("22P04", "extra data after last expected column"));
    let error = failed(Format::Csv, b"1\n");
    assert_eq!(error.message, "missing data for column \"b\"");
    let error = failed(Format::Text, b"\\N\ta\n");
    assert_eq!(error.state, "23502");
    let error = failed(Format::Csv, b"1,\"open\n");
    assert_eq!(error.state, "22P04");
    let error = failed(Format::Text, b"1\t\xff\n");
    assert_eq!((error.state, error.context.unwrap().starts_with("COPY t, line 1, column b")), ("22021", true));
    let error = failed(Format::Binary, b"not binary at all");
    assert_eq!(error.state, "22P04");
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        rows in proptest::collection::vec((any::<i32>(), proptest::option::of("[a-z,\"\\\\\\n\\r\\t|.N é]{0,12}")), 0..20),
        piece in 1_usize..40,
        header in any::<bool>(),
        format in prop_oneof![Just(Format::Text), Just(Format::Csv), Just(Format::Binary)],
    ) {
        let options = options(format, header && format != Format::Binary);
        let (schema, batch) = batch(&rows);
        let writer = CopyWriter::new(options.clone(), schema, Style::default());
        let mut data = writer.header().to_vec();
        writer.rows(&batch, |row| data.extend_from_slice(row)).unwrap();
        data.extend_from_slice(&writer.trailer());
        prop_assert_eq!(copied(options, &data, piece).unwrap(), rows);
    }

    #[test]
    fn no_bytes_make_copy_panic(data in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..40) {
        for format in [Format::Text, Format::Csv, Format::Binary] {
            let _ = copied(options(format, false), &data, piece);
        }
        let mut binary = super::binary::SIGNATURE.to_vec();
        binary.extend([0; 8]);
        binary.extend(&data);
        let _ = copied(options(Format::Binary, false), &binary, piece);
    }
}
