//! What csv and raw make of messages, and what all decoders' tests share.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::Message;

/// Messages with offsets 10, 12, 14, …; `None` is a tombstone.
pub(super) fn batch<'a>(payloads: impl IntoIterator<Item = Option<&'a [u8]>>) -> MessageBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (at, payload) in payloads.into_iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(payload.unwrap_or_default());
        messages.push(Message {
            payload: start..bytes.len() as u32,
            is_null: payload.is_none(),
            offset: 10 + 2 * at as u64,
            timestamp_ms: 1000 + at as i64,
        });
    }
    let to = 10 + 2 * messages.len() as u64;
    MessageBatch { partition: 0, payloads: Bytes::from(bytes), messages, from: 10, to }
}

/// One value as text: integers in decimal (dates in days, timestamps in microseconds), numerics unscaled.
pub(super) fn cell(array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        ArrowType::Boolean => array.as_boolean().value(row).to_string(),
        ArrowType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        ArrowType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        ArrowType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        ArrowType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        ArrowType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        ArrowType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        ArrowType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        ArrowType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        ArrowType::Utf8View => array.as_string_view().value(row).to_owned(),
        ArrowType::BinaryView => format!("{:02x?}", array.as_binary_view().value(row)),
        ArrowType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<_> = (0..items.len()).map(|at| cell(&items, at).unwrap_or_else(|| "NULL".into())).collect();
            format!("[{}]", items.join(","))
        }
        other => panic!("no column has type {other}"),
    })
}

/// Everything a decoded batch must keep, whatever came in.
pub(super) fn assert_sound(decoded: &Decoded, messages: &MessageBatch, columns: &[SourceColumn]) {
    assert_eq!(decoded.rows.schema(), source_schema(columns));
    assert_eq!(decoded.rows.num_rows(), decoded.row_offsets.len());
    let mut offsets: Vec<u64> =
        decoded.row_offsets.iter().copied().chain(decoded.rejects.iter().map(|reject| reject.offset)).collect();
    offsets.sort_unstable();
    let wanted: Vec<u64> = messages.messages.iter().filter(|m| !m.is_null).map(|m| m.offset).collect();
    assert_eq!(offsets, wanted, "each message is one row or one reject");
    assert!(decoded.row_offsets.is_sorted());
    for reject in &decoded.rejects {
        let message = messages.messages.iter().find(|m| m.offset == reject.offset).unwrap();
        assert_eq!(reject.raw, messages.payload(message));
        assert_eq!(reject.timestamp_ms, message.timestamp_ms);
        assert!(!reject.reason.is_empty());
    }
}

/// Decodes one message to the values of its row, or the reason why it is none.
pub(super) fn one(format: &Format, columns: &[SourceColumn], payload: &[u8]) -> Result<Vec<Option<String>>, String> {
    let messages = batch([Some(payload)]);
    let decoded = decoder(format, columns).unwrap().decode(&messages).unwrap();
    assert_sound(&decoded, &messages, columns);
    match decoded.rejects.as_slice() {
        [reject] => Err(reject.reason.clone()),
        _ => Ok(decoded.rows.columns().iter().map(|array| cell(array, 0)).collect()),
    }
}

fn csv(options: CsvOptions) -> Format {
    Format::Csv { options, epoch: EpochUnit::ByMagnitude }
}

fn columns(types: &[(&str, DataType)]) -> Vec<SourceColumn> {
    types.iter().map(|(name, data_type)| SourceColumn::new(*name, data_type.clone(), true)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

#[test]
fn csv_by_position_and_by_header() {
    let two = columns(&[("id", DataType::BigInt), ("name", DataType::Text)]);
    let plain = csv(CsvOptions::default());
    assert_eq!(one(&plain, &two, b"7,Anna\r\n"), Ok(some(&["7", "Anna"])));
    assert_eq!(one(&plain, &two, b"7,\"Anna \"\"A\"\", \nB\""), Ok(some(&["7", "Anna \"A\", \nB"])));
    assert_eq!(one(&plain, &two, b"7,"), Ok(vec![Some("7".into()), None]));
    assert_eq!(one(&plain, &two, b"7,\"\""), Ok(some(&["7", ""])));
    assert_eq!(one(&plain, &two, "\u{feff}7,ü".as_bytes()), Ok(some(&["7", "ü"])));
    let header = CsvOptions { header: Some(vec!["name".into(), "x".into(), "id".into()]), ..Default::default() };
    assert_eq!(one(&csv(header.clone()), &two, b"Anna,,7"), Ok(some(&["7", "Anna"])));
    assert!(decoder(&csv(header), &columns(&[("city", DataType::Text)])).is_err());
    let third = vec![SourceColumn::new("c", DataType::Text, true).with_path(parse_path("$[2]").unwrap())];
    assert_eq!(one(&plain, &third, b"a,b,c"), Ok(some(&["c"])));
}

#[test]
fn csv_reasons_name_what_is_wrong() {
    let mut two = columns(&[("id", DataType::BigInt), ("name", DataType::Text)]);
    let plain = csv(CsvOptions::default());
    for (line, reason) in [
        ("7", "the record has 1 fields instead of 2"),
        ("7,a,b", "the record has 3 fields instead of 2"),
        ("7,\"a", "the quote at byte 2 is not closed"),
        ("7,\"a\"b", "text after a closing quote at byte 5"),
        ("7,a\"b", "a quote inside an unquoted field at byte 3"),
        ("7,a\nb", "a line break outside quotes at byte 3"),
        ("7.5,a", "column \"id\" (bigint): \"7.5\" has digits after the decimal point that would be lost"),
        ("7,a\0", "column \"name\" (text): \"a\\0\" holds a NUL character (\\u0000), which text cannot hold"),
    ] {
        assert_eq!(one(&plain, &two, line.as_bytes()), Err(reason.to_owned()), "{line:?}");
    }
    assert_eq!(one(&plain, &two, b"7,\xff"), Err("the message is not valid UTF-8 from byte 2 on".into()));
    two[0].nullable = false;
    assert_eq!(one(&plain, &two, b",a"), Err("column \"id\" is NOT NULL and field 0 of the record is null".into()));
}

#[test]
fn csv_values_of_every_type() {
    for (data_type, text, value) in [
        (DataType::Boolean, "t", "true"),
        (DataType::Boolean, "FALSE", "false"),
        (DataType::SmallInt, " 5 ", "5"),
        (DataType::Double, "1e3", "1000.0"),
        (DataType::Numeric { precision: 5, scale: 2 }, "1.5", "150"),
        (DataType::Date, "1970-01-02", "1"),
        (DataType::TimestampTz, "1970-01-01 01:00:00+01", "0"),
        (DataType::TimestampTz, "1709208000", "1709208000000000"),
        (DataType::Bytea, "\\x00ff", "[00, ff]"),
        (DataType::Uuid, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ] {
        assert_eq!(
            one(&csv(CsvOptions::default()), &columns(&[("c", data_type)]), text.as_bytes()),
            Ok(some(&[value]))
        );
    }
    let tabs = csv(CsvOptions { delimiter: b'\t', quote: b'~', ..Default::default() });
    let two = columns(&[("a", DataType::Array(Box::new(DataType::Int))), ("b", DataType::Jsonb)]);
    assert_eq!(one(&tabs, &two, b"[1,null]\t{\"b\":1,\"a\":2}"), Ok(some(&["[1,NULL]", "{\"a\": 2, \"b\": 1}"])));
    assert!(one(&tabs, &two, b"[1,{]\tnull").is_err());
    assert!(one(&tabs, &two, b"[1]\t{").is_err());
}

#[test]
fn raw_takes_bytes_as_they_are() {
    let text = columns(&[("line", DataType::Text)]);
    assert_eq!(one(&Format::Raw, &text, b"{not json"), Ok(some(&["{not json"])));
    assert_eq!(one(&Format::Raw, &text, b""), Ok(some(&[""])));
    assert!(one(&Format::Raw, &text, b"\xff").is_err());
    assert!(one(&Format::Raw, &text, b"a\0").unwrap_err().contains("byte 1"));
    assert_eq!(one(&Format::Raw, &columns(&[("b", DataType::Bytea)]), b"\xff\0"), Ok(some(&["[ff, 00]"])));
    assert!(decoder(&Format::Raw, &columns(&[("a", DataType::Int)])).is_err());
    assert!(decoder(&Format::Raw, &columns(&[("a", DataType::Text), ("b", DataType::Text)])).is_err());
}

/// The plain twin of the field splitter: one character at a time.
fn split_plainly(line: &str) -> Option<Vec<(bool, String)>> {
    let mut fields = vec![];
    let mut chars = line.chars().peekable();
    loop {
        let (mut text, is_quoted) = (String::new(), chars.next_if_eq(&'"').is_some());
        if is_quoted {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => text.push('"'),
                    '"' => break,
                    other => text.push(other),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '"' | '\n')) {
                text.push(c);
            }
        }
        fields.push((is_quoted, text));
        match chars.next() {
            None => return Some(fields),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

proptest! {
    #[test]
    fn csv_agrees_with_its_twin(line in "[a\",\nü]{0,16}") {
        let text = line.strip_suffix('\n').unwrap_or(&line);
        let wanted = split_plainly(text);
        let count = wanted.as_ref().map_or(1, Vec::len);
        let names: Vec<String> = (0..count).map(|at| format!("c{at}")).collect();
        let columns: Vec<_> = names.iter().map(|name| SourceColumn::new(name, DataType::Text, true)).collect();
        let found = one(&csv(CsvOptions::default()), &columns, line.as_bytes()).ok();
        let wanted = wanted.map(|fields| {
            fields.into_iter().map(|(is_quoted, text)| (is_quoted || !text.is_empty()).then_some(text)).collect::<Vec<_>>()
        });
        prop_assert_eq!(found, wanted);
    }
}

/// What the fuzz targets of formats once found or started from.
#[test]
fn the_fuzz_targets_corpora_are_read_again() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 4] =
        [("json", fuzz::json), ("debezium", fuzz::debezium), ("avro", fuzz::avro), ("protobuf", fuzz::protobuf)];
    for (name, target) in targets {
        let corpus = format!("{}/../tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(corpus).expect("a corpus") {
            target(&std::fs::read(entry.expect("a file").path()).expect("reads"));
        }
    }
}

/// Nine bytes of a number become 131,072 characters of JSONB: such a batch comes in pieces, and no message is lost or comes twice.
#[test]
fn documents_that_grow_come_in_pieces() {
    let columns = [SourceColumn::new("j", DataType::Jsonb, true), SourceColumn::new("n", DataType::Int, true)];
    let payloads: Vec<Option<String>> = (0..700)
        .map(|n| match n % 7 {
            0 => None,
            1 => Some("no".to_owned()),
            _ => Some(format!("{{\"n\": {n}, \"j\": [1e131071]}}")),
        })
        .collect();
    let mut rest = Some(batch(payloads.iter().map(|payload| payload.as_ref().map(String::as_bytes))));
    let whole = rest.clone().unwrap();
    let mut decoder = decoder(&Format::Json { epoch: EpochUnit::ByMagnitude }, &columns).unwrap();
    let stream = StreamId { source: tidemill_storage::ids::SourceId(1), partition: 0 };
    let (mut at, mut pieces, mut fates) = (whole.from, 0, Vec::new());
    while let Some(messages) = rest {
        let decoded;
        (decoded, rest) = decode_batch(&mut *decoder, stream, messages).unwrap();
        assert_eq!(decoded.from, at);
        assert!(decoded.rows.num_rows() < 300);
        fates.extend(decoded.row_offsets.iter().copied().chain(decoded.rejects.iter().map(|reject| reject.offset)));
        (at, pieces) = (decoded.to, pieces + 1);
    }
    assert_eq!(at, whole.to);
    assert!(pieces > 1);
    fates.sort_unstable();
    let wanted: Vec<u64> = whole.messages.iter().filter(|m| !m.is_null).map(|m| m.offset).collect();
    assert_eq!(fates, wanted);
}
