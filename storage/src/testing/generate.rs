//! Random schemas, rows, predicates and schema changes. Values come from small sets often enough that predicates meet them.

use std::{fmt, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringViewArray,
        TimestampMicrosecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::DataType as ArrowType,
};

use super::{Random, oracle};
use crate::{
    Result,
    ids::{ColumnId, SchemaVersion},
    predicate::{CompareOp, Condition, Predicate},
    scalar::Scalar,
    schema::{Column, Compression, DataType, TableSchema, UTC},
    search::{Node, TextQuery, Word},
};

/// One of every type.
pub fn every_type() -> Vec<DataType> {
    let scalars = [
        DataType::Boolean,
        DataType::SmallInt,
        DataType::Int,
        DataType::BigInt,
        DataType::Real,
        DataType::Double,
        DataType::Numeric { precision: 12, scale: 2 },
        DataType::Text,
        DataType::Bytea,
        DataType::Date,
        DataType::Timestamp,
        DataType::TimestampTz,
        DataType::Uuid,
        DataType::Jsonb,
    ];
    let arrays = scalars.iter().map(|item| DataType::Array(Box::new(item.clone())));
    scalars.iter().cloned().chain(arrays).collect()
}

/// How the values of a column are spread.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Constant,
    /// A handful of values.
    Few,
    /// Never decreasing.
    Rising,
    Any,
    AllNull,
}

/// A schema of one to six columns (every type has its turn), and how each is filled.
pub fn schema(random: &mut Random) -> (TableSchema, Vec<Shape>) {
    let types = every_type();
    let count = 1 + random.below(6);
    let mut columns = Vec::new();
    let mut shapes = Vec::new();
    // Of a generator of their own, so that what a seed has given so far stays as it was.
    let mut compressions = Random::new(random.clone().next());
    for index in 0..count {
        let data_type = random.pick(&types).clone();
        let nullable = !random.one_in(3);
        let shapes_here: &[Shape] = if nullable {
            &[Shape::Constant, Shape::Few, Shape::Rising, Shape::Any, Shape::Any, Shape::AllNull]
        } else {
            &[Shape::Constant, Shape::Few, Shape::Rising, Shape::Any]
        };
        shapes.push(*random.pick(shapes_here));
        columns.push(Column {
            nullable,
            compression: *compressions.pick(&Compression::ALL),
            ..Column::new(ColumnId(10 + index as u32), format!("c{index}"), data_type)
        });
    }
    let time_column = columns
        .iter()
        .find(|column| matches!(column.data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz))
        .map(|column| column.id);
    (TableSchema { version: SchemaVersion(1), columns, time_column }, shapes)
}

/// A later version: columns widened, added (with or without a default), dropped, reordered.
pub fn altered(random: &mut Random, schema: &TableSchema) -> TableSchema {
    let mut next = schema.clone();
    next.version = SchemaVersion(schema.version.0 + 1);
    for column in &mut next.columns {
        if random.one_in(2) {
            let wider: Vec<_> = wider_types().into_iter().filter(|to| column.data_type.widens_to(to)).collect();
            if !wider.is_empty() {
                column.data_type = random.pick(&wider).clone();
            }
        }
    }
    if next.columns.len() > 1 && random.one_in(3) {
        let at = random.below(next.columns.len());
        let dropped = next.columns.remove(at);
        if next.time_column == Some(dropped.id) {
            next.time_column = None;
        }
    }
    for index in 0..random.below(3) {
        let data_type = random.pick(&every_type()).clone();
        let default = if random.one_in(3) { None } else { scalar(random, &data_type) };
        let nullable = default.is_none() || random.one_in(2);
        next.columns.push(Column {
            nullable,
            default,
            ..Column::new(ColumnId(100 + index as u32), format!("added{index}"), data_type)
        });
    }
    let at = random.below(next.columns.len());
    next.columns.rotate_left(at);
    next
}

fn wider_types() -> Vec<DataType> {
    vec![
        DataType::Int,
        DataType::BigInt,
        DataType::Double,
        DataType::Numeric { precision: 30, scale: 0 },
        DataType::Numeric { precision: 30, scale: 5 },
        DataType::Text,
        DataType::Timestamp,
    ]
}

/// `rows` random rows. `from` says how many came before, so that rising columns go on rising.
pub fn batch(random: &mut Random, schema: &TableSchema, shapes: &[Shape], from: usize, rows: usize) -> RecordBatch {
    let columns = schema
        .columns
        .iter()
        .zip(shapes)
        .map(|(column, shape)| {
            let values: Vec<Option<Cell>> = (from..from + rows)
                .map(|row| {
                    let null = matches!(shape, Shape::AllNull) || (column.nullable && random.one_in(6));
                    if null { None } else { Some(cell(random, &column.data_type, *shape, row)) }
                })
                .collect();
            array(&column.data_type, values)
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.arrow(), columns, &options).unwrap()
}

#[derive(Clone, Debug)]
enum Cell {
    One(Scalar),
    List(Vec<Option<Scalar>>),
}

fn cell(random: &mut Random, data_type: &DataType, shape: Shape, row: usize) -> Cell {
    match data_type {
        DataType::Array(item) => {
            let count = if random.one_in(4) { 0 } else { random.below(4) };
            Cell::List(
                (0..count)
                    .map(|_| if random.one_in(5) { None } else { Some(value(random, item, shape, row)) })
                    .collect(),
            )
        }
        _ => Cell::One(value(random, data_type, shape, row)),
    }
}

fn value(random: &mut Random, data_type: &DataType, shape: Shape, row: usize) -> Scalar {
    match shape {
        Shape::Constant => numbered(data_type, 3),
        Shape::Few | Shape::AllNull => numbered(data_type, random.below(5) as i64),
        Shape::Rising => numbered(data_type, row as i64 / 3),
        Shape::Any => scalar(random, data_type).expect("a scalar type"),
    }
}

/// The `n`th of a rising row of values.
fn numbered(data_type: &DataType, n: i64) -> Scalar {
    match data_type {
        DataType::Boolean => Scalar::Boolean(n > 3),
        DataType::SmallInt => Scalar::Int(n.min(32_767)),
        DataType::Real | DataType::Double => Scalar::Float(n as f64 * 0.5),
        DataType::Numeric { .. } => Scalar::Decimal(i128::from(n) * 25),
        DataType::Timestamp | DataType::TimestampTz => Scalar::Int(1_700_000_000_000_000 + n * 1_000_000),
        DataType::Date => Scalar::Int(19_000 + n),
        DataType::Text => Scalar::Text(format!("value number {n:06}").into()),
        DataType::Uuid => Scalar::Text(format!("00000000-0000-4000-8000-{n:012x}").into()),
        DataType::Jsonb => Scalar::Text(format!("{{\"n\": {n}}}").into()),
        DataType::Bytea => Scalar::Bytes(n.to_be_bytes().into()),
        _ => Scalar::Int(n),
    }
}

/// Any value of a scalar type; `None` for arrays.
pub fn scalar(random: &mut Random, data_type: &DataType) -> Option<Scalar> {
    if random.one_in(3) && !matches!(data_type, DataType::Array(_)) {
        let n = random.below(8) as i64;
        return Some(numbered(data_type, n));
    }
    let bits = random.next();
    // Of all magnitudes.
    let any = (bits as i64) >> random.below(64);
    Some(match data_type {
        DataType::Boolean => Scalar::Boolean(bits & 1 == 1),
        DataType::SmallInt => Scalar::Int((any as i16).into()),
        DataType::Int => Scalar::Int((any as i32).into()),
        DataType::BigInt => Scalar::Int(any),
        DataType::Date => Scalar::Int(any % 100_000),
        DataType::Timestamp | DataType::TimestampTz => Scalar::Int(any),
        DataType::Real => Scalar::Float(match random.below(8) {
            0 => {
                f64::from(*random.pick(&[0.0f32, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE]))
            }
            1 => f64::from(f32::from_bits((bits >> 32) as u32)),
            _ => f64::from((any % 1000) as f32 / 8.0),
        }),
        DataType::Double => Scalar::Float(match random.below(8) {
            0 => *random.pick(&[0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE]),
            1 => f64::from_bits(bits),
            _ => (any % 100_000) as f64 / 100.0,
        }),
        DataType::Numeric { precision, .. } => {
            Scalar::Decimal(i128::from(any) % 10i128.pow(u32::from(*precision).min(18)))
        }
        DataType::Text => Scalar::Text(text(random).into()),
        DataType::Jsonb => Scalar::Text(format!("\"{}\"", text(random)).into()),
        DataType::Uuid => {
            let hex = format!("{bits:016x}{:016x}", random.next());
            let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
            Scalar::Text(uuid.into())
        }
        DataType::Bytea => Scalar::Bytes((0..random.below(30)).map(|_| random.next() as u8).collect()),
        DataType::Array(_) => return None,
    })
}

fn text(random: &mut Random) -> String {
    let length = match random.below(10) {
        0 => 0,
        1 => 60 + random.below(100),
        2 => 13,
        _ => random.below(16),
    };
    (0..length).map(|_| *random.pick(&['a', 'b', 'A', 'z', ' ', '%', '_', '\\', 'é', '☂'])).collect()
}

fn array(data_type: &DataType, cells: Vec<Option<Cell>>) -> ArrayRef {
    let DataType::Array(item) = data_type else {
        let scalars = cells
            .into_iter()
            .map(|cell| match cell {
                Some(Cell::One(scalar)) => Some(scalar),
                _ => None,
            })
            .collect();
        return scalars_array(data_type, scalars);
    };
    let nulls = NullBuffer::from_iter(cells.iter().map(Option::is_some));
    let lists: Vec<Vec<Option<Scalar>>> = cells
        .into_iter()
        .map(|cell| match cell {
            Some(Cell::List(list)) => list,
            _ => Vec::new(),
        })
        .collect();
    let offsets = OffsetBuffer::from_lengths(lists.iter().map(Vec::len));
    let items = scalars_array(item, lists.into_iter().flatten().collect());
    let ArrowType::List(field) = data_type.arrow() else { unreachable!("an array is a list") };
    Arc::new(ListArray::new(field, offsets, items, Some(nulls)))
}

/// An array of scalars, all of the type.
pub fn scalars_array(data_type: &DataType, values: Vec<Option<Scalar>>) -> ArrayRef {
    fn int(value: Option<Scalar>) -> Option<i64> {
        match value {
            Some(Scalar::Int(v)) => Some(v),
            _ => None,
        }
    }
    fn float(value: Option<Scalar>) -> Option<f64> {
        match value {
            Some(Scalar::Float(v)) => Some(v),
            _ => None,
        }
    }
    let values = values.into_iter();
    match data_type {
        DataType::Boolean => Arc::new(
            values
                .map(|value| match value {
                    Some(Scalar::Boolean(v)) => Some(v),
                    _ => None,
                })
                .collect::<BooleanArray>(),
        ),
        DataType::SmallInt => Arc::new(values.map(|v| int(v).map(|v| v as i16)).collect::<Int16Array>()),
        DataType::Int => Arc::new(values.map(|v| int(v).map(|v| v as i32)).collect::<Int32Array>()),
        DataType::BigInt => Arc::new(values.map(int).collect::<Int64Array>()),
        DataType::Date => Arc::new(values.map(|v| int(v).map(|v| v as i32)).collect::<Date32Array>()),
        DataType::Timestamp => Arc::new(values.map(int).collect::<TimestampMicrosecondArray>()),
        DataType::TimestampTz => Arc::new(values.map(int).collect::<TimestampMicrosecondArray>().with_timezone(UTC)),
        DataType::Real => Arc::new(values.map(|v| float(v).map(|v| v as f32)).collect::<Float32Array>()),
        DataType::Double => Arc::new(values.map(float).collect::<Float64Array>()),
        DataType::Numeric { precision, scale } => {
            let decimals = values.map(|value| match value {
                Some(Scalar::Decimal(v)) => Some(v),
                _ => None,
            });
            let array = decimals.collect::<Decimal128Array>();
            Arc::new(array.with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Text | DataType::Uuid | DataType::Jsonb => Arc::new(
            values
                .map(|value| match value {
                    Some(Scalar::Text(v)) => Some(v),
                    _ => None,
                })
                .collect::<StringViewArray>(),
        ),
        DataType::Bytea => Arc::new(
            values
                .map(|value| match value {
                    Some(Scalar::Bytes(v)) => Some(v),
                    _ => None,
                })
                .collect::<BinaryViewArray>(),
        ),
        DataType::Array(_) => panic!("arrays of arrays are no type"),
    }
}

/// A condition as the layer above has them: on how long a value is when written.
#[derive(Debug)]
struct Length {
    data_type: DataType,
    remainder: usize,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "length % 3 = {}", self.remainder)
    }
}

impl Condition for Length {
    fn holds(&self, values: &ArrayRef) -> Result<BooleanArray> {
        let length = |index| match oracle::value(&self.data_type, values, index) {
            oracle::Value::Null => None,
            value => Some(format!("{value:?}").len() % 3 == self.remainder),
        };
        Ok((0..values.len()).map(length).collect())
    }
}

/// A predicate on the columns of `schema`, at most `depth` deep.
pub fn predicate(random: &mut Random, schema: &TableSchema, depth: usize) -> Predicate {
    if depth > 0 && random.one_in(2) {
        let children = (0..random.below(4)).map(|_| predicate(random, schema, depth - 1)).collect();
        return if random.one_in(2) { Predicate::And(children) } else { Predicate::Or(children) };
    }
    let column = random.pick(&schema.columns);
    let id = column.id;
    let Some(value) = scalar(random, &column.data_type).filter(|_| !random.one_in(8)) else {
        return Predicate::IsNull { column: id, negated: random.one_in(2) };
    };
    if column.data_type == DataType::Text && random.one_in(4) {
        return Predicate::Matches { column: id, query: Arc::new(question(random)), negated: random.one_in(3) };
    }
    if column.data_type == DataType::Text && random.one_in(3) {
        let mut pattern: String = text(random).chars().filter(|c| *c != '\\').take(3).collect();
        if random.one_in(3) {
            pattern = format!("value number 00{}", random.below(3));
        }
        if random.one_in(4) {
            pattern.push_str("\\%");
        }
        pattern.push_str(random.pick::<&str>(&["%", "_", "", "%a%"]));
        return Predicate::Like { column: id, pattern, negated: random.one_in(3), case_insensitive: random.one_in(3) };
    }
    if random.one_in(6) {
        let condition = Length { data_type: column.data_type.clone(), remainder: random.below(3) };
        return Predicate::Holds { column: id, condition: Arc::new(condition) };
    }
    if random.one_in(4) {
        let values = (0..random.below(4)).filter_map(|_| scalar(random, &column.data_type)).collect();
        return Predicate::In { column: id, values, negated: random.one_in(3) };
    }
    use CompareOp::{Eq, Greater, GreaterEq, Less, LessEq, NotEq};
    let op = *random.pick(&[Eq, NotEq, Less, LessEq, Greater, GreaterEq]);
    Predicate::Compare { column: id, op, value }
}

/// A question about words, some of which texts have.
pub fn question(random: &mut Random) -> TextQuery {
    if random.one_in(20) {
        return TextQuery::default();
    }
    let words = (0..4).map(|_| word(random)).collect();
    let root = node(random, 2);
    TextQuery::new(words, Some(root))
}

fn word(random: &mut Random) -> Word {
    let text = match random.below(4) {
        0 => (*random.pick(&["value", "number", "num", "000001", "000002", "00000", "nowhere"])).to_owned(),
        1 => "é".to_owned(),
        _ => (0..1 + random.below(2)).map(|_| *random.pick(&['a', 'b', 'z'])).collect(),
    };
    Word { text, is_prefix: random.one_in(3) }
}

fn node(random: &mut Random, depth: usize) -> Node {
    let some = |random: &mut Random, depth| (0..2 + random.below(2)).map(|_| node(random, depth)).collect();
    match random.below(if depth == 0 { 2 } else { 6 }) {
        0 | 1 => Node::Word(random.below(4)),
        2 => Node::And(some(random, depth - 1)),
        3 => Node::Or(some(random, depth - 1)),
        4 => Node::Not(Box::new(node(random, depth - 1))),
        _ => Node::Phrase((0..2 + random.below(2)).map(|_| (random.below(3) as u16, part(random))).collect()),
    }
}

/// A part of a phrase that stands at one place.
fn part(random: &mut Random) -> Node {
    let words = |random: &mut Random| (0..2).map(|_| Node::Word(random.below(4))).collect();
    match random.below(6) {
        0 => Node::Not(Box::new(Node::Word(random.below(4)))),
        1 => Node::Or(words(random)),
        2 => Node::And(words(random)),
        _ => Node::Word(random.below(4)),
    }
}
