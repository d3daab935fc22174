//! The oracle: a scan's answer, one row and one value at a time, without Arrow's kernels, statistics or encodings.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{
        Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};

use super::generate::scalars_array;
use crate::{
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{DataType, TableSchema},
    search::{Node, TextQuery, Word},
};

/// A value of a row.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    One(Scalar),
    List(Vec<Option<Scalar>>),
}

/// To the bit: NaN equals a NaN of the same bits, and -0 is not 0.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        fn same(a: &Scalar, b: &Scalar) -> bool {
            match (a, b) {
                (Scalar::Float(a), Scalar::Float(b)) => a.to_bits() == b.to_bits(),
                (a, b) => a == b,
            }
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::One(a), Self::One(b)) => same(a, b),
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|pair| match pair {
                        (None, None) => true,
                        (Some(a), Some(b)) => same(a, b),
                        _ => false,
                    })
            }
            _ => false,
        }
    }
}

pub type Row = Vec<Value>;

/// Rows with the schema they were written under.
#[derive(Clone, Debug)]
pub struct Written {
    pub schema: TableSchema,
    pub rows: Vec<Row>,
}

/// The values of a batch whose columns have these types.
pub fn rows_of(types: &[DataType], batch: &RecordBatch) -> Vec<Row> {
    let mut rows = vec![Vec::with_capacity(types.len()); batch.num_rows()];
    for (data_type, array) in types.iter().zip(batch.columns()) {
        for (index, row) in rows.iter_mut().enumerate() {
            row.push(value(data_type, array, index));
        }
    }
    rows
}

pub(super) fn value(data_type: &DataType, array: &ArrayRef, index: usize) -> Value {
    if array.is_null(index) {
        return Value::Null;
    }
    if let DataType::Array(item) = data_type {
        let items = array.as_list::<i32>().value(index);
        let scalars = (0..items.len()).map(|at| items.is_valid(at).then(|| scalar(item, &items, at)));
        return Value::List(scalars.collect());
    }
    Value::One(scalar(data_type, array, index))
}

fn scalar(data_type: &DataType, array: &ArrayRef, index: usize) -> Scalar {
    match data_type {
        DataType::Boolean => Scalar::Boolean(array.as_boolean().value(index)),
        DataType::SmallInt => Scalar::Int(array.as_primitive::<Int16Type>().value(index).into()),
        DataType::Int => Scalar::Int(array.as_primitive::<Int32Type>().value(index).into()),
        DataType::BigInt => Scalar::Int(array.as_primitive::<Int64Type>().value(index)),
        DataType::Real => Scalar::Float(array.as_primitive::<Float32Type>().value(index).into()),
        DataType::Double => Scalar::Float(array.as_primitive::<Float64Type>().value(index)),
        DataType::Numeric { .. } => Scalar::Decimal(array.as_primitive::<Decimal128Type>().value(index)),
        DataType::Text | DataType::Uuid | DataType::Jsonb => Scalar::Text(array.as_string_view().value(index).into()),
        DataType::Bytea => Scalar::Bytes(array.as_binary_view().value(index).into()),
        DataType::Date => Scalar::Int(array.as_primitive::<Date32Type>().value(index).into()),
        DataType::Timestamp | DataType::TimestampTz => {
            Scalar::Int(array.as_primitive::<TimestampMicrosecondType>().value(index))
        }
        DataType::Array(_) => unreachable!("arrays of arrays are no type"),
    }
}

/// What the scan must give: the selected rows in order, in the current types.
pub fn scan(
    written: &Written,
    current: &TableSchema,
    projection: &[ColumnId],
    predicate: Option<&Predicate>,
) -> Vec<Row> {
    written
        .rows
        .iter()
        .filter(|row| predicate.is_none_or(|predicate| holds(predicate, written, current, row)))
        .map(|row| projection.iter().map(|id| read(written, current, row, *id)).collect())
        .collect()
}

/// Column `id` of a row in its current type.
pub(super) fn read(written: &Written, current: &TableSchema, row: &Row, id: ColumnId) -> Value {
    let column = current.column(id).unwrap();
    match written.schema.index_of(id) {
        None => column.default.clone().map_or(Value::Null, Value::One),
        Some(index) => match &row[index] {
            Value::One(scalar) => {
                Value::One(widen(scalar, &written.schema.columns[index].data_type, &column.data_type))
            }
            other => other.clone(),
        },
    }
}

fn widen(value: &Scalar, from: &DataType, to: &DataType) -> Scalar {
    match (value, from, to) {
        (Scalar::Int(v), _, DataType::Double) => Scalar::Float(*v as f64),
        (Scalar::Int(v), _, DataType::Numeric { scale, .. }) => {
            Scalar::Decimal(i128::from(*v) * 10i128.pow(*scale as u32))
        }
        (Scalar::Decimal(v), DataType::Numeric { scale: s1, .. }, DataType::Numeric { scale: s2, .. }) => {
            Scalar::Decimal(v * 10i128.pow((s2 - s1) as u32))
        }
        (Scalar::Int(v), DataType::Date, DataType::Timestamp) => Scalar::Int(v * 86_400_000_000),
        (value, ..) => value.clone(),
    }
}

/// Whether the predicate is TRUE of the row.
pub fn holds(predicate: &Predicate, written: &Written, current: &TableSchema, row: &Row) -> bool {
    let read = |id: &ColumnId| match read(written, current, row, *id) {
        Value::One(scalar) => Some(scalar),
        _ => None,
    };
    match predicate {
        Predicate::And(children) => children.iter().all(|child| holds(child, written, current, row)),
        Predicate::Or(children) => children.iter().any(|child| holds(child, written, current, row)),
        Predicate::Compare { column, op, value } => read(column).is_some_and(|found| {
            let order = found.compare(value).unwrap();
            match op {
                CompareOp::Eq => order == Ordering::Equal,
                CompareOp::NotEq => order != Ordering::Equal,
                CompareOp::Less => order == Ordering::Less,
                CompareOp::LessEq => order != Ordering::Greater,
                CompareOp::Greater => order == Ordering::Greater,
                CompareOp::GreaterEq => order != Ordering::Less,
            }
        }),
        Predicate::In { column, values, negated } => read(column)
            .is_some_and(|found| values.iter().any(|value| found.compare(value) == Some(Ordering::Equal)) != *negated),
        Predicate::Like { column, pattern, negated, case_insensitive } => {
            let Some(Scalar::Text(text)) = read(column) else { return false };
            let fold = |text: &str| if *case_insensitive { text.to_ascii_lowercase() } else { text.to_owned() };
            let (text, pattern): (Vec<char>, Vec<char>) =
                (fold(&text).chars().collect(), fold(pattern).chars().collect());
            like(&text, &pattern) != *negated
        }
        Predicate::Matches { column, query, negated } => {
            let Some(Scalar::Text(text)) = read(column) else { return false };
            let words: Vec<String> = text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .map(str::to_lowercase)
                .collect();
            query.root().is_some_and(|root| finds(root, query, &words)) != *negated
        }
        Predicate::Holds { column, condition } => read(column).is_some_and(|value| {
            let data_type = &current.column(*column).unwrap().data_type;
            let found = condition.holds(&scalars_array(data_type, vec![Some(value)])).unwrap();
            found.is_valid(0) && found.value(0)
        }),
        Predicate::IsNull { column, negated } => {
            matches!(self::read(written, current, row, *column), Value::Null) != *negated
        }
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['%', rest @ ..], _) => (0..=text.len()).any(|at| like(&text[at..], rest)),
        (['_', rest @ ..], [_, text @ ..]) => like(text, rest),
        (['\\', c, rest @ ..], [first, text @ ..]) => c == first && like(text, rest),
        ([c, rest @ ..], [first, text @ ..]) => c == first && like(text, rest),
        (_, []) => false,
    }
}

/// Whether words have what is asked for, of questions whose phrases are made of parts that stand at one place.
fn finds(node: &Node, query: &TextQuery, words: &[String]) -> bool {
    match node {
        Node::Word(_) => (0..words.len() as i64).any(|place| stands(node, query, words, place)),
        Node::Not(inner) => !finds(inner, query, words),
        Node::And(parts) => parts.iter().all(|part| finds(part, query, words)),
        Node::Or(parts) => parts.iter().any(|part| finds(part, query, words)),
        Node::Phrase(parts) => (-10..words.len() as i64 + 10).any(|start| {
            let mut place = start;
            parts.iter().enumerate().all(|(at, (distance, part))| {
                place += if at == 0 { 0 } else { i64::from(*distance) };
                stands(part, query, words, place)
            })
        }),
    }
}

fn stands(node: &Node, query: &TextQuery, words: &[String], place: i64) -> bool {
    match node {
        Node::Word(word) => {
            let found = usize::try_from(place).ok().and_then(|place| words.get(place));
            let Word { text, is_prefix } = &query.words()[*word];
            found.is_some_and(|found| if *is_prefix { found.starts_with(text) } else { found == text })
        }
        Node::Not(inner) => !stands(inner, query, words, place),
        Node::And(parts) => parts.iter().all(|part| stands(part, query, words, place)),
        Node::Or(parts) => parts.iter().any(|part| stands(part, query, words, place)),
        Node::Phrase(_) => unreachable!("phrases in phrases are not generated"),
    }
}
