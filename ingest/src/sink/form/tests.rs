//! What a form writes, a source of the same format reads.

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    schema::{Column as SchemaColumn, DataType, TableSchema},
};

use super::{super::json::Column, Form, Registration, SinkFormat, Wire, protobuf::ProtobufForm, shortest};
use crate::{
    decode::{
        CsvOptions, DebeziumOptions, DecimalMode, EpochUnit, Format, SchemaSource, SourceColumn, decoder,
        registry::RegistryAddress,
    },
    message::{Message, MessageBatch},
};

const EPOCH: EpochUnit = EpochUnit::ByMagnitude;

fn types() -> Vec<(&'static str, DataType)> {
    let array = |of: DataType| DataType::Array(Box::new(of));
    vec![
        ("b", DataType::Boolean),
        ("s", DataType::SmallInt),
        ("i", DataType::Int),
        ("l", DataType::BigInt),
        ("r", DataType::Real),
        ("d", DataType::Double),
        ("n", DataType::Numeric { precision: 38, scale: 4 }),
        ("t", DataType::Text),
        ("y", DataType::Bytea),
        ("day", DataType::Date),
        ("ts", DataType::Timestamp),
        ("tz", DataType::TimestampTz),
        ("u", DataType::Uuid),
        ("j", DataType::Jsonb),
        ("ai", array(DataType::Int)),
        ("at", array(DataType::Text)),
        ("an", array(DataType::Numeric { precision: 9, scale: 2 })),
    ]
}

const ROWS: &[&str] = &[
    r#"{"b":true,"s":-32768,"i":-2147483648,"l":-9223372036854775808,"r":-0.1,"d":1e-300,"n":-1.0001,"t":"","y":"\\x",
        "day":"0001-01-01","ts":"0001-01-01T00:00:00","tz":"9999-12-31T23:59:59.999999Z","u":"0b1a51e6-7d8b-4d5a-9c0e-000000000001",
        "j":{"a":[1,"x\n",null]},"ai":[],"at":[""],"an":[-0.01]}"#,
    r#"{"b":false,"s":32767,"i":2147483647,"l":9223372036854775807,"r":3.25e38,"d":"NaN","n":9999999999999999999999999999999999.9999,
        "t":"a,\"b\"\r\n☃","y":"\\x00ff80","day":"2024-02-29","ts":"2024-03-01T12:00:00.25","tz":"1969-12-31T23:59:59.999999Z",
        "u":"ffffffff-ffff-ffff-ffff-ffffffffffff","j":"x","ai":[-1,0,2147483647],"at":["x","\"y\",z"],"an":[1.5,-9999999.99]}"#,
    r#"{"b":false,"s":0,"i":0,"l":0,"r":0,"d":0,"n":0,"t":"\ufeffx","y":"\\x80","day":"1970-01-01","ts":"1970-01-01T00:00:00",
        "tz":"1970-01-01T00:00:00Z","u":"00000000-0000-0000-0000-000000000000","j":null,"ai":[0],"at":["\n"],"an":[0]}"#,
    r#"{"n":-128,"t":"NULL"}"#,
    r#"{"n":0.0128}"#,
];

fn columns() -> Vec<SourceColumn> {
    types().into_iter().map(|(name, of)| SourceColumn::new(name, of, true)).collect()
}

fn schema(types: &[(&str, DataType)]) -> TableSchema {
    let column =
        |(at, (name, of)): (usize, &(&str, DataType))| SchemaColumn::new(ColumnId(at as u32), *name, of.clone());
    let columns = types.iter().enumerate().map(column).collect();
    TableSchema { version: SchemaVersion(1), columns, time_column: None }
}

fn decode(format: &Format, payloads: &[Vec<u8>]) -> RecordBatch {
    decode_as(format, &columns(), payloads)
}

fn decode_as(format: &Format, columns: &[SourceColumn], payloads: &[Vec<u8>]) -> RecordBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (at, payload) in payloads.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(payload);
        let payload = start..bytes.len() as u32;
        messages.push(Message { payload, is_null: false, offset: at as u64, timestamp_ms: -1 });
    }
    let to = messages.len() as u64;
    let batch = MessageBatch { partition: 0, payloads: Bytes::from(bytes), messages, from: 0, to };
    let decoded = decoder(format, columns).unwrap().decode(&batch).unwrap();
    assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
    decoded.rows
}

fn registration() -> Registration {
    let address = RegistryAddress::parse("http://127.0.0.1:1", None).unwrap();
    Registration { address, subject: "t-value".into(), name: "com.shop.Order".into() }
}

/// The values that a format makes of the rows.
fn written(format: &SinkFormat, rows: &RecordBatch) -> (Form, Vec<Vec<u8>>) {
    let schema = schema(&types());
    let of_form: Vec<_> = schema.columns.iter().enumerate().collect();
    let form = Form::new(format, &of_form, None).unwrap();
    let arrow = schema.arrow();
    let columns: Vec<Column<'_>> =
        rows.columns().iter().zip(arrow.fields()).map(|(array, field)| Column::new(array, field)).collect();
    let wire = Wire::bare((1..=of_form.len() as u32).collect());
    let mut scratch = String::new();
    let value = |row| {
        let mut out = Vec::new();
        form.write(&wire, &columns, row, &mut scratch, &mut out).unwrap();
        out
    };
    let values = (0..rows.num_rows()).map(value).collect();
    (form, values)
}

fn rows() -> RecordBatch {
    decode(&Format::Json { epoch: EPOCH }, &ROWS.iter().map(|row| row.as_bytes().to_vec()).collect::<Vec<_>>())
}

#[test]
fn avro_comes_back() {
    let rows = rows();
    let (form, values) = written(&SinkFormat::Avro(registration()), &rows);
    let Form::Avro(form) = form else { panic!("avro") };
    assert!(form.text().starts_with(r#"{"type":"record","name":"Order","namespace":"com.shop","fields":[{"name":"b","type":["null","boolean"],"default":null},"#));
    crate::schemas::Schema::parse(crate::schemas::Kind::Avro, form.text(), &[]).unwrap();
    let schema = SchemaSource::Given { schema: form.text().into(), message: None };
    assert_eq!(decode(&Format::Avro { schema, epoch: EPOCH }, &values), rows);
}

#[test]
fn protobuf_comes_back() {
    let rows = rows();
    let (form, values) = written(&SinkFormat::Protobuf(registration()), &rows);
    let Form::Protobuf(form) = form else { panic!("protobuf") };
    let schema = SchemaSource::Given { schema: form.text_after(None), message: None };
    let read = decode(&Format::Protobuf { schema, epoch: EPOCH }, &values);
    for (at, (name, of)) in types().into_iter().enumerate() {
        match of {
            // A document is a string like others.
            DataType::Jsonb => {}
            // NULL and nothing are one here.
            DataType::Array(_) => {
                assert_eq!(read.column(at).slice(0, 3).as_ref(), rows.column(at).slice(0, 3).as_ref())
            }
            _ => assert_eq!(read.column(at), rows.column(at), "{name}"),
        }
    }
}

#[test]
fn csv_comes_back() {
    let rows = rows();
    for options in
        [CsvOptions::default(), CsvOptions { delimiter: b'\t', quote: b'\'', header: None, null: "NULL".into() }]
    {
        let (_, values) = written(&SinkFormat::Csv(options.clone()), &rows);
        assert_eq!(decode(&Format::Csv { options, epoch: EPOCH }, &values), rows);
    }
}

#[test]
fn debezium_comes_back() {
    let rows = rows();
    let (_, values) = written(&SinkFormat::Debezium("gone".into()), &rows);
    let options = DebeziumOptions { delete_column: "gone".into(), decimals: Some(DecimalMode::Digits) };
    let format = Format::DebeziumJson { options, epoch: EPOCH };
    let gone = SourceColumn::new("gone", DataType::Boolean, true);
    let read = decode_as(&format, &[columns(), vec![gone]].concat(), &values);
    for (at, (name, _)) in types().into_iter().enumerate() {
        assert_eq!(read.column(at), rows.column(at), "{name}");
    }
}

/// A row that says so is a delete, and a time of records is one of changes.
#[test]
fn debezium_has_deletes_and_times() {
    let types = [("id", DataType::Int), ("__deleted", DataType::Boolean), ("at", DataType::TimestampTz)];
    let schema = schema(&types);
    let of_form: Vec<_> = schema.columns.iter().enumerate().collect();
    let form = Form::new(&SinkFormat::Debezium("__deleted".into()), &of_form, Some(2)).unwrap();
    let columns: Vec<_> = types.iter().map(|(name, of)| SourceColumn::new(*name, of.clone(), true)).collect();
    let rows =
        [r#"{"id":1,"at":"1970-01-01T00:00:01.5Z"}"#, r#"{"id":2,"__deleted":true}"#, r#"{"id":3,"__deleted":false}"#];
    let rows = rows.map(|row| row.as_bytes().to_vec());
    let rows = decode_as(&Format::Json { epoch: EPOCH }, &columns, &rows);
    let arrow = schema.arrow();
    let columns: Vec<Column<'_>> =
        rows.columns().iter().zip(arrow.fields()).map(|(array, field)| Column::new(array, field)).collect();
    let value = |row| {
        let mut out = Vec::new();
        form.write(&Wire::default(), &columns, row, &mut String::new(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(value(0), r#"{"before":null,"after":{"id":1,"at":"1970-01-01T00:00:01.5Z"},"op":"c","ts_ms":1500}"#);
    assert_eq!(value(1), r#"{"before":{"id":2,"at":null},"after":null,"op":"d"}"#);
    assert_eq!(value(2), r#"{"before":null,"after":{"id":3,"at":null},"op":"c"}"#);
    let wrong = Form::new(&SinkFormat::Debezium("id".into()), &of_form, None).unwrap_err();
    assert!(wrong.to_string().contains("\"id\""), "{wrong}");
}

/// Readers know fields by their numbers: a column keeps its own, whatever comes before it, and a number that is free again is not given away.
#[test]
fn protobuf_numbers_stay_with_names() {
    let text = |types: &[(&str, DataType)], earlier: Option<&str>| {
        let schema = schema(types);
        let of_form: Vec<_> = schema.columns.iter().enumerate().collect();
        ProtobufForm::new(&registration(), &of_form).unwrap().text_after(earlier)
    };
    let first = text(&[("a", DataType::Int), ("b", DataType::Text)], None);
    assert!(first.contains("optional int32 a = 1;") && first.contains("optional string b = 2;"), "{first}");
    let second = text(&[("c", DataType::Date), ("b", DataType::Text)], Some(&first));
    assert!(second.contains("optional string c = 3;") && second.contains("optional string b = 2;"), "{second}");
    assert!(second.contains("reserved 1;"), "{second}");
    assert_eq!(text(&[("c", DataType::Date), ("b", DataType::Text)], Some(&second)), second, "the same again");
    let third = text(&[("a", DataType::BigInt)], Some(&second));
    assert!(third.contains("optional int64 a = 4;") && third.contains("reserved 1, 2, 3;"), "{third}");
    let parse = |text: &str| crate::schemas::Schema::parse(crate::schemas::Kind::Protobuf, text, &[]).unwrap();
    assert!(crate::schemas::misfits(&parse(&second), &parse(&first)).is_empty());
}

#[test]
fn what_has_no_form_is_refused() {
    let form = |format: &SinkFormat, types: &[(&str, DataType)]| {
        let schema = schema(types);
        let of_form: Vec<_> = schema.columns.iter().enumerate().collect();
        Form::new(format, &of_form, None).map(|_| ()).map_err(|error| error.to_string())
    };
    let (avro, protobuf) = (SinkFormat::Avro(registration()), SinkFormat::Protobuf(registration()));
    assert!(form(&avro, &[("a-b", DataType::Int)]).unwrap_err().contains("a-b"));
    assert!(form(&protobuf, &[("?column?", DataType::Int)]).unwrap_err().contains("?column?"));
    assert!(form(&avro, &[("n", DataType::Numeric { precision: 3, scale: -2 })]).is_err());
    assert!(form(&SinkFormat::Raw, &types()).unwrap_err().contains("17"));
    form(&SinkFormat::Raw, &[("a", DataType::Bytea)]).unwrap();
    // The same name in JSON.
    assert!(form(&protobuf, &[("a_b", DataType::Int), ("aB", DataType::Int)]).is_err());
}

#[test]
fn integers_are_as_short_as_they_can_be() {
    let of = |value: i128| {
        let (bytes, first) = shortest(value);
        bytes[first..].to_vec()
    };
    for (value, wanted) in [
        (0, vec![0]),
        (127, vec![127]),
        (128, vec![0, 128]),
        (-1, vec![255]),
        (-128, vec![128]),
        (-129, vec![255, 127]),
        (255, vec![0, 255]),
    ] {
        assert_eq!(of(value), wanted, "{value}");
    }
    assert_eq!((of(i128::MAX).len(), of(i128::MIN).len()), (16, 16));
}
