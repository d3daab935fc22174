//! Values against what PostgreSQL 15 prints and reads; the expected texts and bytes are its own.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, Decimal128Array, Float32Array, Float64Array, Int32Array, IntervalMonthDayNanoArray, ListArray,
        StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
    },
    datatypes::{Field, Int32Type, IntervalMonthDayNano},
};
use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    PgType, Scalar,
    build::{ColumnBuilder, ReadStyle},
    calendar::{Zone, civil, days},
    encode::{ColumnEncoder, Format, Style},
};

fn style(zone: &str) -> Style {
    Style { zone: Zone::parse(zone).unwrap() }
}

fn read(zone: &str) -> ReadStyle {
    ReadStyle { zone: Zone::parse(zone).unwrap(), now_us: 0 }
}

fn written(array: ArrayRef, format: Format, zone: &str) -> Vec<Vec<u8>> {
    let field = Field::new("c", array.data_type().clone(), true);
    let encoder = ColumnEncoder::new(&field, &array, style(zone)).unwrap();
    (0..array.len())
        .map(|row| {
            let mut out = BytesMut::new();
            encoder.write(format, row, &mut out).unwrap();
            out.to_vec()
        })
        .collect()
}

fn texts(array: ArrayRef) -> Vec<String> {
    written(array, Format::Text, "UTC").into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

fn hex(array: ArrayRef) -> Vec<String> {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    written(array, Format::Binary, "UTC").into_iter().map(hex).collect()
}

/// What text reads as, in a type.
fn parsed(scalar: Scalar, text: &str, zone: &str) -> Result<ArrayRef, String> {
    let mut builder = ColumnBuilder::for_parameter(PgType::scalar(scalar), read(zone));
    builder.append_text(text).map_err(|error| error.state.to_owned())?;
    Ok(builder.finish().unwrap())
}

/// Reads text and prints it again.
fn echoed(scalar: Scalar, text: &str, zone: &str) -> String {
    let array = parsed(scalar, text, zone).unwrap_or_else(|error| panic!("{text}: {error}"));
    String::from_utf8(written(array, Format::Text, zone).remove(0)).unwrap()
}

#[test]
fn floats_are_printed_as_postgres_prints_them() {
    let doubles = [
        (1e20, "1e+20"),
        (1e-7, "1e-07"),
        (0.1, "0.1"),
        (123_456_789_012_345.0, "123456789012345"),
        (1_234_567_890_123_456.0, "1.234567890123456e+15"),
        (1e15, "1e+15"),
        (1e14, "100000000000000"),
        (-0.0, "-0"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (100.0, "100"),
        (3.5, "3.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
    ];
    let values: Float64Array = doubles.iter().map(|(value, _)| Some(*value)).collect();
    assert_eq!(texts(Arc::new(values)), doubles.map(|(_, text)| text));
    let reals = [
        (1e20_f32, "1e+20"),
        (123_456.0, "123456"),
        (1_234_567.0, "1.234567e+06"),
        (1e6, "1e+06"),
        (1e-5, "1e-05"),
        (f32::MAX, "3.4028235e+38"),
        (1.1, "1.1"),
    ];
    let values: Float32Array = reals.iter().map(|(value, _)| Some(*value)).collect();
    assert_eq!(texts(Arc::new(values)), reals.map(|(_, text)| text));
}

#[test]
fn intervals_read_and_print_as_in_postgres() {
    for (given, printed) in [
        ("1 year 2 mons 3 days 04:05:06.789", "1 year 2 mons 3 days 04:05:06.789"),
        ("-1 days +02:03:04", "-1 days +02:03:04"),
        ("1 day -00:00:01", "1 day -00:00:01"),
        ("-1 year 3 days", "-1 years +3 days"),
        ("0", "00:00:00"),
        ("1.5 hours", "01:30:00"),
        ("P1Y2M3DT4H5M6S", "1 year 2 mons 3 days 04:05:06"),
        ("1 day ago", "-1 days"),
        ("-14 months", "-1 years -2 mons"),
        ("90 seconds", "00:01:30"),
        ("100:00:00", "100:00:00"),
    ] {
        assert_eq!(echoed(Scalar::Interval, given, "UTC"), printed, "{given}");
    }
    let value = IntervalMonthDayNano::new(14, 3, 14_706_789_000_000);
    let array: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![value]));
    assert_eq!(hex(array), ["000000036c97ca88000000030000000e"]);
}

#[test]
fn moments_read_and_print_as_in_postgres() {
    for (given, printed) in [
        ("2024-02-29 12:34:56.789", "2024-02-29 12:34:56.789"),
        ("2024-02-29T12:34:56Z", "2024-02-29 12:34:56"),
        ("20240229", "2024-02-29 00:00:00"),
        ("2/29/2024 1:02", "2024-02-29 01:02:00"),
        ("0044-03-15 BC", "0044-03-15 00:00:00 BC"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("10000-01-01", "10000-01-01 00:00:00"),
        ("1969-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
        ("0001-01-01", "0001-01-01 00:00:00"),
        ("epoch", "1970-01-01 00:00:00"),
    ] {
        assert_eq!(echoed(Scalar::Timestamp, given, "UTC"), printed, "{given}");
    }
    for (zone, given, printed) in [
        ("Asia/Kolkata", "2024-01-01 00:00:00+00", "2024-01-01 05:30:00+05:30"),
        ("America/New_York", "2024-11-03 01:30:00", "2024-11-03 01:30:00-05"),
        ("America/New_York", "2024-03-10 02:30:00", "2024-03-10 03:30:00-04"),
        ("America/New_York", "1850-01-01 00:00+00", "1849-12-31 19:03:58-04:56:02"),
        ("UTC", "2024-01-01 00:00:00 Asia/Kolkata", "2023-12-31 18:30:00+00"),
        ("UTC", "2024-01-01 00:00:00+05:30", "2023-12-31 18:30:00+00"),
        ("+02:00", "2024-01-01 00:00:00", "2024-01-01 00:00:00+02"),
    ] {
        assert_eq!(echoed(Scalar::TimestampTz, given, zone), printed, "{given} in {zone}");
    }
    for wrong in ["", "nonsense", "2024-13-01", "2024-02-30", "2024-01-01 25:00:00", "2024-01-01 Nowhere/Else", "12"] {
        assert!(parsed(Scalar::Timestamp, wrong, "UTC").is_err(), "{wrong}");
    }
    let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![946_684_800_000_000, i64::MAX]));
    assert_eq!(hex(array), ["0000000000000000", "7fffffffffffffff"]);
}

#[test]
fn arrays_and_records_quote_as_postgres_does() {
    let items = StringArray::from(vec![
        Some("a"),
        Some("b c"),
        None,
        Some(""),
        Some("NULL"),
        Some("x\"y"),
        Some("a\\b"),
        Some("{}"),
        Some(","),
    ]);
    let item = Arc::new(Field::new("item", items.data_type().clone(), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([items.len()]);
    let list: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(items), None));
    let printed = r#"{a,"b c",NULL,"","NULL","x\"y","a\\b","{}",","}"#;
    assert_eq!(texts(Arc::clone(&list)), [printed]);
    let mut builder = ColumnBuilder::for_parameter(PgType::array(Scalar::Text), read("UTC"));
    builder.append_text(printed).unwrap();
    assert_eq!(texts(builder.finish().unwrap()), [printed]);
    let numbers =
        || ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None, Some(3)]), Some([None; 3])]);
    assert_eq!(
        hex(Arc::new(numbers().slice(0, 1))),
        ["00000001000000010000001700000003000000010000000400000001ffffffff0000000400000003"]
    );
    let empty = ListArray::from_iter_primitive::<Int32Type, [Option<i32>; 0], _>([Some([])]);
    assert_eq!(hex(Arc::new(empty.clone())), ["000000000000000000000017"]);
    assert_eq!(texts(Arc::new(empty)), ["{}"]);
    let record = StructArray::try_new(
        vec![
            Field::new("a", arrow::datatypes::DataType::Int32, true),
            Field::new("b", arrow::datatypes::DataType::Utf8, true),
            Field::new("c", arrow::datatypes::DataType::Utf8, true),
        ]
        .into(),
        vec![
            Arc::new(Int32Array::from(vec![Some(1)])),
            Arc::new(StringArray::from(vec![None::<&str>])),
            Arc::new(StringArray::from(vec!["x\"y"])),
        ],
        None,
    )
    .unwrap();
    assert_eq!(texts(Arc::new(record)), ["(1,,\"x\"\"y\")"]);
}

#[test]
fn numeric_keeps_every_digit() {
    for (given, bytes) in [
        ("0", "0000000000000000"),
        ("0.00", "0000000000000002"),
        ("1.5", "000200000000000100011388"),
        ("-12345.6789", "0003000140000004000109291a85"),
        ("10000", "00010001000000000001"),
        ("0.0001", "0001ffff000000040001"),
        ("123456789012345678901234567890.12345678", "000a000700000008000c0d801ed204d2162e23340d801ed204d2162e"),
        ("-0.00012", "0002ffff40000005000107d0"),
        ("100000000", "00010002000000000001"),
    ] {
        let array = parsed(Scalar::Numeric, given, "UTC").unwrap();
        assert_eq!(texts(Arc::clone(&array)), [given]);
        assert_eq!(hex(Arc::clone(&array)), [bytes], "{given}");
        let raw: Vec<u8> = written(array, Format::Binary, "UTC").remove(0);
        let mut builder = ColumnBuilder::for_parameter(PgType::scalar(Scalar::Numeric), read("UTC"));
        builder.append_binary(&raw).unwrap();
        assert_eq!(texts(builder.finish().unwrap()), [given]);
    }
    assert_eq!(texts(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
    let wide = Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(38, 3).unwrap();
    assert_eq!(texts(Arc::new(wide)), ["-0.005", "12.345"]);
}

#[test]
fn wrong_text_has_the_right_sqlstate() {
    for (scalar, text, state) in [
        (Scalar::Int4, "abc", "22P02"),
        (Scalar::Int4, "99999999999", "22003"),
        (Scalar::Int2, "", "22P02"),
        (Scalar::Float8, "1e400", "22003"),
        (Scalar::Float8, "x", "22P02"),
        (Scalar::Bool, "maybe", "22P02"),
        (Scalar::Uuid, "1234", "22P02"),
        (Scalar::Jsonb, "{", "22P02"),
        (Scalar::Bytea, "\\xabc", "22P02"),
        (Scalar::Numeric, "1.2.3", "22P02"),
        (Scalar::Numeric, "NaN", "22003"),
        (Scalar::Timestamp, "2024-02-30", "22008"),
        (Scalar::Date, "yesterdayish", "22007"),
    ] {
        assert_eq!(parsed(scalar, text, "UTC").unwrap_err(), state, "{scalar:?} {text}");
    }
}

#[test]
fn sql_null_dictionaries_and_odd_types_are_shown() {
    let dictionary: arrow::array::DictionaryArray<Int32Type> = ["b", "a", "b"].into_iter().collect();
    assert_eq!(texts(Arc::new(dictionary)), ["b", "a", "b"]);
    let null: ArrayRef = Arc::new(arrow::array::NullArray::new(1));
    let field = Field::new("n", null.data_type().clone(), true);
    assert!(ColumnEncoder::new(&field, &null, Style::default()).unwrap().is_null(0));
    assert_eq!(PgType::of_field(&field), PgType::scalar(Scalar::Text));
}

proptest! {
    #[test]
    fn days_and_dates_are_the_same_thing(day in -2_000_000_i64..4_000_000) {
        let (year, month, of_month) = civil(day);
        prop_assert_eq!(days(year, month, of_month), Some(day));
    }

    #[test]
    fn what_is_printed_reads_back(us in any::<i32>().prop_map(|n| i64::from(n) * 1_234_567), float in any::<f64>(), int in any::<i64>()) {
        for (scalar, array) in [
            (Scalar::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![us])) as ArrayRef),
            (Scalar::Float8, Arc::new(Float64Array::from(vec![float]))),
            (Scalar::Int8, Arc::new(arrow::array::Int64Array::from(vec![int]))),
        ] {
            let text = texts(Arc::clone(&array)).remove(0);
            let back = parsed(scalar, &text, "UTC").unwrap();
            prop_assert_eq!(texts(back), [text]);
            let mut builder = ColumnBuilder::for_parameter(PgType::scalar(scalar), read("UTC"));
            builder.append_binary(&written(Arc::clone(&array), Format::Binary, "UTC")[0]).unwrap();
            prop_assert_eq!(texts(builder.finish().unwrap()), texts(array));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for scalar in Scalar::ALL {
            for pg_type in [PgType::scalar(*scalar), PgType::array(*scalar)] {
                let mut builder = ColumnBuilder::for_parameter(pg_type, read("UTC"));
                let _ = builder.append_binary(&bytes);
                let _ = builder.append_text(&text);
            }
        }
    }

    #[test]
    fn no_text_makes_a_moment_panic(text in "[-+0-9:./ TZPYMDHSa-z]{0,40}") {
        for scalar in [Scalar::Timestamp, Scalar::TimestampTz, Scalar::Date, Scalar::Time, Scalar::Interval, Scalar::Numeric] {
            let _ = parsed(scalar, &text, "Europe/Paris");
        }
    }
}
