//! Every type and encoding against plain Arrow: values come back, selections are filters, tests agree with [`evaluate`], and
//! bytes changed at will lead to an error or to other values, never further.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Float32Array, Float64Array,
        Int64Array, ListArray, RecordBatch, StringViewArray, new_null_array,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer},
    compute::{cast, concat, filter},
    datatypes::{DataType as ArrowType, Float32Type, Float64Type, Int32Type, Int64Type, Schema as ArrowSchema},
};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    bitpack::Bitmask,
    evaluate::evaluate,
    ids::{ColumnId, SchemaVersion},
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::{ScanHints, ScanRequest},
    schema::{Column, Compression, DataType, TableSchema},
};

/// A small generator of its own: shapes matter here, not shrinking each value.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Few,
    Runs,
    Many,
    Steady,
    Extreme,
    Same,
    /// 64 numbers that come again eleven times: packed, they are worth compressing.
    Echo,
    /// Floats of one exponent that are no decimals.
    Narrow,
}

fn number(random: &mut Random, shape: Shape, row: usize) -> i64 {
    match shape {
        Shape::Few => random.below(7) as i64 - 3,
        Shape::Runs => row as i64 / 90,
        Shape::Many => random.next() as i64 >> 20,
        Shape::Steady => 1_700_000_000_000_000 + row as i64 * 20_000 + random.below(5000) as i64,
        Shape::Extreme => [i64::MIN, i64::MAX, 0, -1][random.below(4) as usize],
        Shape::Same => 42,
        Shape::Echo => Random((row % 64 + row / 768 * 64) as u64).next() as i64 >> 40,
        Shape::Narrow => random.below(1 << 40) as i64,
    }
}

fn float(random: &mut Random, shape: Shape, row: usize) -> f64 {
    match shape {
        Shape::Many if random.below(3) == 0 => f64::from_bits(random.next()),
        Shape::Extreme => {
            [f64::NAN, -f64::NAN, 0.0, -0.0, f64::INFINITY, f64::MIN_POSITIVE, -1.5, f64::MAX][random.below(8) as usize]
        }
        Shape::Narrow => 48.0 + number(random, shape, row) as f64 / (1u64 << 40) as f64,
        _ => (number(random, shape, row) % 1_000_000) as f64 / 100.0,
    }
}

fn text(random: &mut Random, shape: Shape, row: usize) -> String {
    let number = number(random, shape, row);
    match random.below(5) {
        _ if matches!(shape, Shape::Same) => "the same é text for all rows".into(),
        _ if matches!(shape, Shape::Echo) => format!("{number}"),
        0 if !matches!(shape, Shape::Runs) => String::new(),
        1 => format!("é{}", number % 1000),
        2 => format!("{number} with more than twelve bytes €"),
        _ => format!("a{}", number % 100),
    }
}

fn uuid(number: u128) -> String {
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn items(data_type: &DataType, random: &mut Random, shape: Shape, rows: usize) -> ArrayRef {
    let numbers = |random: &mut Random| (0..rows).map(|row| number(random, shape, row)).collect::<Vec<_>>();
    match data_type {
        DataType::Boolean => {
            Arc::new(BooleanArray::from(numbers(random).iter().map(|v| v % 2 == 0).collect::<Vec<_>>()))
        }
        DataType::SmallInt => {
            let values = Int64Array::from_iter_values(numbers(random).iter().map(|v| i64::from(*v as i16)));
            cast(&values, &ArrowType::Int16).expect("fits")
        }
        DataType::Int | DataType::Date => {
            let values = Int64Array::from_iter_values(numbers(random).iter().map(|v| i64::from(*v as i32)));
            cast(&cast(&values, &ArrowType::Int32).expect("fits"), &data_type.arrow()).expect("casts")
        }
        DataType::BigInt | DataType::Timestamp | DataType::TimestampTz => {
            cast(&Int64Array::from(numbers(random)), &data_type.arrow()).expect("casts")
        }
        DataType::Numeric { precision, scale } => {
            let wide = random.below(2) == 0;
            let values = numbers(random).into_iter().map(|v| if wide { i128::from(v) << 40 } else { i128::from(v) });
            let values = Decimal128Array::from_iter_values(values);
            Arc::new(values.with_precision_and_scale(*precision, *scale).expect("a valid type"))
        }
        DataType::Real => {
            Arc::new(Float32Array::from_iter_values((0..rows).map(|row| float(random, shape, row) as f32)))
        }
        DataType::Double => Arc::new(Float64Array::from_iter_values((0..rows).map(|row| float(random, shape, row)))),
        DataType::Text | DataType::Jsonb => {
            Arc::new(StringViewArray::from_iter_values((0..rows).map(|row| text(random, shape, row))))
        }
        DataType::Bytea => Arc::new(BinaryViewArray::from_iter_values((0..rows).map(|row| {
            let mut bytes = text(random, shape, row).into_bytes();
            bytes.push(0xff);
            bytes
        }))),
        DataType::Uuid => {
            let broken = random.below(8) == 0;
            Arc::new(StringViewArray::from_iter_values((0..rows).map(|row| {
                let low = number(random, shape, row) as u64;
                let number = u128::from(low) << 64 | u128::from(low.wrapping_mul(7));
                if broken && row == 5 { uuid(number).to_uppercase() } else { uuid(number) }
            })))
        }
        DataType::Array(item) => {
            let lengths: Vec<usize> = (0..rows).map(|_| random.below(4) as usize).collect();
            let values = array(item, random, shape, lengths.iter().sum());
            let field = Arc::new(item.field("item", true));
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None))
        }
    }
}

/// Rows of a type, some null.
fn array(data_type: &DataType, random: &mut Random, shape: Shape, rows: usize) -> ArrayRef {
    let all = items(data_type, random, shape, rows);
    let valid = match random.below(5) {
        0 => return new_null_array(&data_type.arrow(), rows),
        1 => (0..rows).map(|_| random.below(3) > 0).collect::<Vec<_>>(),
        2 => (0..rows).map(|row| row % 100 > 20).collect(),
        _ => return all,
    };
    let nulls = NullBuffer::from(valid);
    arrow::array::make_array(all.to_data().into_builder().nulls(Some(nulls)).build().expect("sound"))
}

fn types() -> impl Strategy<Value = DataType> {
    prop_oneof![
        Just(DataType::Boolean),
        Just(DataType::SmallInt),
        Just(DataType::Int),
        Just(DataType::BigInt),
        Just(DataType::Real),
        Just(DataType::Double),
        Just(DataType::Numeric { precision: 38, scale: 4 }),
        Just(DataType::Text),
        Just(DataType::Bytea),
        Just(DataType::Date),
        Just(DataType::Timestamp),
        Just(DataType::TimestampTz),
        Just(DataType::Uuid),
        Just(DataType::Jsonb),
        Just(DataType::Array(Box::new(DataType::Text))),
        Just(DataType::Array(Box::new(DataType::Int))),
        Just(DataType::Array(Box::new(DataType::Double))),
    ]
}

prop_compose! {
    /// A type and a column of it in several chunks, one of them a slice.
    fn columns()(
        data_type in types(), seed in any::<u64>(),
        shape in prop_oneof![
            Just(Shape::Few), Just(Shape::Runs), Just(Shape::Many), Just(Shape::Steady), Just(Shape::Extreme), Just(Shape::Same),
            Just(Shape::Echo), Just(Shape::Narrow)
        ],
        sizes in prop_oneof![prop::collection::vec(0usize..40, 0..4), prop::collection::vec(0usize..2500, 1..4)],
    ) -> (DataType, Vec<ArrayRef>, u64) {
        let mut random = Random(seed);
        let chunks = sizes.iter().map(|rows| {
            let cut = random.below(9) as usize;
            array(&data_type, &mut random, shape, rows + cut).slice(cut, *rows)
        }).collect();
        (data_type, chunks, seed)
    }
}

/// Every compression in turn.
fn options(seed: u64) -> EncodeOptions {
    let compression = Compression::ALL[(seed >> 32) as usize % Compression::ALL.len()];
    EncodeOptions { compression, ..EncodeOptions::default() }
}

fn whole(data_type: &DataType, chunks: &[ArrayRef]) -> ArrayRef {
    let empty = new_null_array(&data_type.arrow(), 0);
    let mut all: Vec<&dyn Array> = vec![&empty];
    all.extend(chunks.iter().map(AsRef::as_ref));
    concat(&all).expect("one type")
}

fn sections(column: &EncodedColumn) -> Vec<Buffer> {
    assert!(column.sections.len() <= SECTIONS_MAX);
    column.sections.iter().map(Buffer::from_slice_ref).collect()
}

fn open(data_type: &DataType, column: &EncodedColumn) -> ColumnReader {
    ColumnReader::open(data_type, column.encoding as u8, column.rows, sections(column)).expect("own bytes are sound")
}

/// Equal to the bit: Arrow's `==` takes floats by value.
fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    if a.data_type() != b.data_type() || a.len() != b.len() {
        return false;
    }
    match a.data_type() {
        ArrowType::Float32 => {
            let bits =
                |array: &ArrayRef| array.as_primitive::<Float32Type>().unary::<_, Int32Type>(|v| v.to_bits() as i32);
            bits(a) == bits(b)
        }
        ArrowType::Float64 => {
            let bits =
                |array: &ArrayRef| array.as_primitive::<Float64Type>().unary::<_, Int64Type>(|v| v.to_bits() as i64);
            bits(a) == bits(b)
        }
        ArrowType::List(_) => {
            let (a, b) = (a.as_list::<i32>(), b.as_list::<i32>());
            (0..a.len())
                .all(|row| a.is_null(row) == b.is_null(row) && (a.is_null(row) || same(&a.value(row), &b.value(row))))
        }
        _ => a.as_ref() == b.as_ref(),
    }
}

/// A value of the column at `row`, if the type has scalars.
fn scalar_at(data_type: &DataType, array: &ArrayRef, row: usize) -> Option<Scalar> {
    let one: ArrayRef = array.slice(row, 1);
    if one.is_null(0) {
        return None;
    }
    crate::stats::column_stats(if *data_type == DataType::Jsonb { &DataType::Text } else { data_type }, &[one]).min
}

fn request(data_type: &DataType, leaf: &Predicate) -> ScanRequest {
    let column = Column::new(ColumnId(7), "c", data_type.clone());
    let schema = TableSchema { version: SchemaVersion(1), columns: vec![column], time_column: None };
    ScanRequest {
        schema: Arc::new(schema),
        projection: vec![],
        predicate: Some(leaf.clone()),
        limit: None,
        batch_rows: 1,
        hints: ScanHints::default(),
    }
}

/// What the plain twin selects.
fn expected(data_type: &DataType, leaf: &Predicate, array: &ArrayRef) -> Vec<usize> {
    let request = request(data_type, leaf);
    let schema = Arc::new(ArrowSchema::new(vec![data_type.field("c", true)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::clone(array)]).expect("fits");
    let passed = evaluate(&request, &request.schema, &batch).expect("evaluates").expect("a predicate");
    (0..passed.len()).filter(|row| passed.is_valid(*row) && passed.value(*row)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn values_come_back((data_type, chunks, seed) in columns(), ends in any::<(Index, Index)>()) {
        let all = whole(&data_type, &chunks);
        let column = encode_column(&data_type, &chunks, &options(seed)).expect("encodes");
        prop_assert_eq!(column.rows as usize, all.len());
        prop_assert_eq!(column.stats.nulls as usize, all.null_count());
        let reader = open(&data_type, &column);
        prop_assert_eq!(reader.null_count() as usize, all.null_count());
        let (a, b) = (ends.0.index(all.len() + 1), ends.1.index(all.len() + 1));
        let rows = a.min(b)..a.max(b);
        for range in [0..all.len(), rows.clone()] {
            let decoded = reader.decode(range.start as u32..range.end as u32).expect("decodes");
            decoded.to_data().validate_full().expect("a sound array");
            prop_assert!(same(&decoded, &all.slice(range.start, range.len())), "{decoded:?} is not {all:?} at {range:?}");
        }

        let mut random = Random(seed);
        for every in [1, 2, 50] {
            let mut mask = Bitmask::none(rows.len());
            (0..rows.len()).filter(|_| random.below(every) == 0).for_each(|row| mask.set(row));
            let range = rows.start as u32..rows.end as u32;
            let decoded = reader.decode_selected(range.clone(), &mask).expect("decodes");
            decoded.to_data().validate_full().expect("a sound array");
            let slice = all.slice(rows.start, rows.len());
            let filtered = filter(&slice, &BooleanArray::new(mask.to_boolean_buffer(), None)).expect("filters");
            prop_assert!(same(&decoded, &filtered), "{decoded:?} is not {filtered:?}");
        }

        if let Some(values) = reader.dictionary().expect("reads") {
            prop_assert_eq!(column.stats.distinct, Some(values.len() as u64));
            let mut ids = Vec::new();
            reader.ids(rows.start as u32..rows.end as u32, &mut ids).expect("reads");
            for (row, id) in rows.zip(ids) {
                prop_assert_eq!(all.is_null(row), id as usize == values.len());
                if all.is_valid(row) {
                    prop_assert!(same(&all.slice(row, 1), &values.slice(id as usize, 1)));
                }
            }
        }
    }

    #[test]
    fn tests_agree_with_the_plain_twin(
        (data_type, chunks, seed) in columns(), ends in any::<(Index, Index)>(), picks in prop::collection::vec(any::<Index>(), 1..6),
        op in prop_oneof![
            Just(CompareOp::Eq), Just(CompareOp::NotEq), Just(CompareOp::Less), Just(CompareOp::LessEq),
            Just(CompareOp::Greater), Just(CompareOp::GreaterEq)
        ],
        negated in any::<bool>(), case_insensitive in any::<bool>(),
        pattern in prop_oneof![Just("a%"), Just("%1%"), Just(""), Just("é_"), Just("%MORE%"), Just("%")],
    ) {
        let all = whole(&data_type, &chunks);
        let column = encode_column(&data_type, &chunks, &options(seed)).expect("encodes");
        let reader = open(&data_type, &column);
        let (a, b) = (ends.0.index(all.len() + 1), ends.1.index(all.len() + 1));
        let rows = a.min(b)..a.max(b);
        let id = ColumnId(7);
        let mut leaves = vec![Predicate::IsNull { column: id, negated }];
        if !matches!(data_type, DataType::Array(_)) {
            let mut random = Random(seed ^ 1);
            // Values of the column, and ones it does not have.
            let strange = items(&data_type, &mut random, Shape::Extreme, 4);
            let values: Vec<Scalar> = picks.iter().enumerate().filter_map(|(n, pick)| {
                if n % 3 == 2 || all.is_empty() { scalar_at(&data_type, &strange, n % 4) } else { scalar_at(&data_type, &all, pick.index(all.len())) }
            }).collect();
            if let Some(value) = values.first() {
                leaves.push(Predicate::Compare { column: id, op, value: value.clone() });
            }
            leaves.push(Predicate::In { column: id, values, negated });
            if matches!(data_type, DataType::Text | DataType::Uuid | DataType::Jsonb) {
                leaves.push(Predicate::Like { column: id, pattern: pattern.into(), negated, case_insensitive });
            }
        }
        for leaf in leaves {
            let test = reader.prepare(&leaf).expect("prepares");
            for range in [0..all.len(), rows.clone()] {
                let mut mask = Bitmask::all(range.len());
                reader.select(range.start as u32..range.end as u32, &test, &mut mask).expect("selects");
                let expected = expected(&data_type, &leaf, &all.slice(range.start, range.len()));
                prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected.clone(), "{:?} on {}: {:?}", leaf, reader.encoding_name(), test);
                if test.selects_nothing() {
                    prop_assert!(expected.is_empty());
                }
                if test.selects_everything() {
                    prop_assert_eq!(expected.len(), range.len());
                }
                // Rows taken out before stay out.
                let mut mask = Bitmask::none(range.len());
                reader.select(range.start as u32..range.end as u32, &test, &mut mask).expect("selects");
                prop_assert!(mask.is_none());
            }
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_other_values(
        (data_type, chunks, seed) in columns(),
        flips in prop::collection::vec(any::<(Index, Index, u8)>(), 1..6), cut in prop::option::of(any::<(Index, Index)>()),
    ) {
        let mut column = encode_column(&data_type, &chunks, &options(seed)).expect("encodes");
        for (section, at, byte) in flips {
            // Heads and directories come first and are worth the most flips.
            let number = section.index(column.sections.len() * 2) % column.sections.len();
            let section = &mut column.sections[number];
            if !section.is_empty() {
                let at = at.index(section.len()) % if byte % 2 == 0 { 64 } else { section.len() };
                let len = section.len();
                section[at % len] = byte;
            }
        }
        if let Some((section, at)) = cut {
            let number = section.index(column.sections.len());
            let len = at.index(column.sections[number].len() + 1);
            column.sections[number].truncate(len);
        }
        let Ok(reader) = ColumnReader::open(&data_type, column.encoding as u8, column.rows, sections(&column)) else { return Ok(()) };
        let rows = 0..reader.rows();
        if let Ok(array) = reader.decode(rows.clone()) {
            prop_assert_eq!(array.len(), rows.len());
            array.to_data().validate_full().expect("a sound array");
        }
        let mut random = Random(seed);
        let mut mask = Bitmask::none(rows.len());
        (0..rows.len()).filter(|_| random.below(30) == 0).for_each(|row| mask.set(row));
        if let Ok(array) = reader.decode_selected(rows.clone(), &mask) {
            prop_assert_eq!(array.len(), mask.count());
            array.to_data().validate_full().expect("a sound array");
        }
        let _ = reader.ids(rows.clone(), &mut Vec::new());
        if let Some(value) = scalar_at(&data_type, &items(&data_type, &mut random, Shape::Few, 1), 0) {
            let leaf = Predicate::Compare { column: ColumnId(7), op: CompareOp::LessEq, value };
            if let Ok(test) = reader.prepare(&leaf) {
                let _ = reader.select(rows, &test, &mut mask);
            }
        }
    }
}

#[test]
fn wrong_calls_are_errors() {
    let chunk: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    assert!(encode_column(&DataType::Text, std::slice::from_ref(&chunk), &EncodeOptions::default()).is_err());
    let column = encode_column(&DataType::BigInt, &[chunk], &EncodeOptions::default()).expect("encodes");
    let reader = open(&DataType::BigInt, &column);
    assert!(reader.decode(0..4).is_err());
    assert!(reader.decode_selected(0..3, &Bitmask::all(2)).is_err());
    let leaf = Predicate::Compare { column: ColumnId(0), op: CompareOp::Eq, value: Scalar::Text("1".into()) };
    assert!(reader.prepare(&leaf).is_err());
    assert!(reader.prepare(&Predicate::And(vec![])).is_err());
    assert!(ColumnReader::open(&DataType::BigInt, column.encoding as u8, 4, sections(&column)).is_err());
    assert!(ColumnReader::open(&DataType::BigInt, 0, 3, sections(&column)).is_err());
    assert!(ColumnReader::open(&DataType::BigInt, column.encoding as u8, 3, vec![]).is_err());
}

#[test]
fn what_repeats_at_a_distance_is_compressed() {
    let cases = [
        (DataType::BigInt, Shape::Echo, "zstd dictionary(832)"),
        (DataType::Text, Shape::Echo, "zstd dictionary(832)"),
        (DataType::Numeric { precision: 12, scale: 2 }, Shape::Echo, "zstd dictionary(832)"),
        (DataType::Double, Shape::Narrow, "ordered"),
        (DataType::Real, Shape::Narrow, "ordered"),
        (DataType::BigInt, Shape::Narrow, "integers"),
        (DataType::Int, Shape::Few, "dictionary(7)"),
    ];
    for (data_type, shape, expected) in cases {
        let chunk = items(&data_type, &mut Random(3), shape, 10_000 - 16);
        let column = encode_column(&data_type, &[chunk], &EncodeOptions::default()).expect("encodes");
        assert_eq!(open(&data_type, &column).encoding_name(), expected, "{data_type} {shape:?}");
    }
    // Each block has its own range, so that a dictionary of all values does not pay.
    let echo = |row: u64| (row / 1024, Random(row % 64 + row / 512 * 64).next() % 4096);
    let integers = Int64Array::from_iter_values((0..20_000).map(echo).map(|(block, n)| (block << 40 | n) as i64));
    let floats = (0..20_000).map(echo).map(|(block, n)| (block * 1_000_000 + n) as f64 / 100.0);
    let others = (0..20_000).map(echo).map(|(block, n)| f64::from_bits((1023 + block) << 52 | n));
    let cases: [(DataType, ArrayRef, &str); 3] = [
        (DataType::BigInt, Arc::new(integers), "zstd integers"),
        (DataType::Double, Arc::new(Float64Array::from_iter_values(floats)), "zstd scaled"),
        (DataType::Double, Arc::new(Float64Array::from_iter_values(others)), "zstd ordered"),
    ];
    for (data_type, array, expected) in cases {
        let column = encode_column(&data_type, &[Arc::clone(&array)], &EncodeOptions::default()).expect("encodes");
        let reader = open(&data_type, &column);
        assert_eq!(reader.encoding_name(), expected);
        assert!(same(&reader.decode(0..20_000).expect("decodes"), &array));
        let mut mask = Bitmask::none(9000);
        [0, 7, 500, 8190, 8999].into_iter().for_each(|row| mask.set(row));
        let found = reader.decode_selected(5000..14_000, &mask).expect("decodes");
        let bits = BooleanArray::new(mask.to_boolean_buffer(), None);
        assert!(same(&found, &filter(&array.slice(5000, 9000), &bits).expect("filters")));
    }
}

#[test]
fn a_column_is_compressed_as_it_was_asked_to_be() {
    let rows = 0..20_000u64;
    let words = ["order", "rider", "kitchen", "delivered", "cancelled", "late", "refund", "address"];
    let sentence = |row: u64| {
        let mut random = Random(row);
        (0..12).map(|_| words[random.below(8) as usize]).collect::<Vec<_>>().join(" ")
    };
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.clone().map(sentence)));
    let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(
        rows.clone().map(|row| format!("the name of customer number {}", Random(row).below(3000))),
    ));
    let echo = |row: u64| (row / 1024, Random(row % 64 + row / 512 * 64).next() % 4096);
    let integers: ArrayRef =
        Arc::new(Int64Array::from_iter_values(rows.clone().map(echo).map(|(block, n)| (block << 40 | n) as i64)));
    let uuids: ArrayRef = Arc::new(StringViewArray::from_iter_values(
        rows.clone().map(|row| uuid(u128::from(Random(row % 4096 + (row >> 13 << 12)).next()) << 64 | 7)),
    ));
    let expected = [
        (Compression::Default, ["zstd blocks", "dictionary(2996)", "zstd integers", "uuids"]),
        (Compression::Zstd, ["zstd blocks", "dictionary(2996)", "zstd integers", "zstd uuids"]),
        (Compression::Lz4, ["lz4 blocks", "dictionary(2996)", "lz4 integers", "lz4 uuids"]),
        (Compression::None, ["blocks", "dictionary(2996)", "integers", "uuids"]),
    ];
    let mut sizes = Vec::new();
    for (compression, names_expected) in expected {
        let options = EncodeOptions { compression, ..EncodeOptions::default() };
        let columns = [
            (DataType::Text, &texts),
            (DataType::Text, &names),
            (DataType::BigInt, &integers),
            (DataType::Uuid, &uuids),
        ];
        for ((data_type, array), expected) in columns.into_iter().zip(names_expected) {
            let column = encode_column(&data_type, std::slice::from_ref(array), &options).expect("encodes");
            let reader = open(&data_type, &column);
            assert_eq!(reader.encoding_name(), expected, "{compression:?}");
            assert!(same(&reader.decode(0..20_000).expect("decodes"), array));
            sizes.push(column.sections.iter().map(Vec::len).sum::<usize>());
        }
    }
    // The values of the dictionary are compressed, too.
    for column in 0..3 {
        let [_, zstd, lz4, none] = [0, 4, 8, 12].map(|first| sizes[first + column]);
        assert!(zstd < lz4 && lz4 < none, "column {column}: {zstd}, {lz4}, {none} bytes");
    }
}
