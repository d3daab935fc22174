//! Any bytes as JSON messages, one a line, into columns of every type.
#![allow(unreachable_pub, reason = "public for the fuzz target; a part of the tests elsewhere")]

use tidemill_storage::schema::DataType;

use crate::{
    decode::{Decoded, EpochUnit, Format, SourceColumn, decoder, parse_path},
    message::{Message, MessageBatch},
};

fn columns() -> Vec<SourceColumn> {
    use DataType::{
        BigInt, Boolean, Bytea, Date, Double, Int, Jsonb, Numeric, Real, SmallInt, Text, Timestamp, TimestampTz, Uuid,
    };
    let types = [
        Boolean,
        SmallInt,
        Int,
        BigInt,
        Real,
        Double,
        Numeric { precision: 38, scale: 10 },
        Numeric { precision: 4, scale: 2 },
        Text,
        Bytea,
        Date,
        Timestamp,
        TimestampTz,
        Uuid,
        Jsonb,
    ];
    let mut columns = Vec::new();
    // One letter each, so that a fuzzer finds the names: a, b, … for single values, A, B, … for arrays.
    for (index, data_type) in types.into_iter().enumerate() {
        let letter = index as u8;
        columns.push(SourceColumn::new(char::from(b'a' + letter), data_type.clone(), true));
        columns.push(SourceColumn::new(char::from(b'A' + letter), DataType::Array(Box::new(data_type)), true));
    }
    for (name, path) in [("whole", "$"), ("deep", "$.z.y"), ("item", "$.x[1]")] {
        let path = parse_path(path).expect("a path");
        columns.push(SourceColumn::new(name, Jsonb, true).with_path(path));
    }
    columns
}

fn messages(payloads: &[&[u8]]) -> MessageBatch {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for (offset, payload) in payloads.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(payload);
        let payload = start..bytes.len() as u32;
        messages.push(Message { payload, is_null: false, offset: offset as u64, timestamp_ms: -1 });
    }
    MessageBatch { partition: 0, payloads: bytes.into(), messages, from: 0, to: payloads.len() as u64 }
}

/// Panics where a rule of the decoders is broken.
pub fn json(input: &[u8]) {
    let payloads: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(64).collect();
    let format = Format::Json { epoch: EpochUnit::ByMagnitude };
    let mut decoder = decoder(&format, &columns()).expect("a decoder");
    let all = decoder.decode(&messages(&payloads));
    assert_eq!(all.rows.num_rows(), all.row_offsets.len());
    for column in all.rows.columns() {
        column.to_data().validate_full().expect("sound arrays");
    }
    let mut fates: Vec<u64> = all.row_offsets.iter().copied().chain(all.rejects.iter().map(|r| r.offset)).collect();
    fates.sort_unstable();
    assert_eq!(fates, (0..payloads.len() as u64).collect::<Vec<_>>(), "each message is a row or a reject");
    // A message never touches its neighbours.
    let mut row = 0;
    for (offset, payload) in payloads.iter().enumerate() {
        let Decoded { rows: alone, .. } = decoder.decode(&messages(&[payload]));
        let accepted = all.row_offsets.get(row) == Some(&(offset as u64));
        assert_eq!(alone.num_rows(), usize::from(accepted), "message {offset} alone");
        if accepted {
            let beside = all.rows.slice(row, 1);
            // NaN is not itself: compared as text.
            assert_eq!(format!("{beside:?}"), format!("{alone:?}"), "message {offset} alone");
            row += 1;
        }
    }
}
