//! The plain twin of aggregation in the segment: groups rows one at a time, and random requests for both to answer.

use arrow::array::RecordBatch;

use super::{
    Random, generate,
    oracle::{self, Row, Value, Written, holds, read},
};
use crate::{
    aggregate::{
        Aggregate, AggregateRequest, Bin, Computation, Computed, Function, GroupKey, SUM_PRECISION, state_type,
    },
    hash,
    ids::ColumnId,
    scalar::{Scalar, compare_floats},
    schema::{DataType, TableSchema},
    sketch::{self, Sketch},
};
use std::sync::Arc;

/// Computes a column that is the same as its one input.
#[derive(Debug)]
struct Same;

impl Computation for Same {
    fn values(&self, rows: &RecordBatch) -> crate::Result<arrow::array::ArrayRef> {
        Ok(Arc::clone(rows.column(0)))
    }
}

/// The stored column that one of the request is, or is computed to be the same as.
fn stored(request: &AggregateRequest, id: ColumnId) -> ColumnId {
    request.computed.iter().find(|computed| computed.column.id == id).map_or(id, |computed| computed.inputs[0])
}

/// A request about the columns of `schema`.
pub fn request(random: &mut Random, schema: &TableSchema) -> AggregateRequest {
    let mut keys = Vec::new();
    let mut aggregates = Vec::new();
    let mut computed = Vec::new();
    let computes = random.one_in(4);
    for column in &schema.columns {
        let bin = random.one_in(2).then(|| Bin {
            width: *random.pick(&[1, 7, 1_000_000, 3_600_000_000, 86_400_000_000, 1 << 40]),
            origin: *random.pick(&[0, 3, -1_000_000]),
        });
        for bin in [bin, None] {
            let key = GroupKey { column: column.id, bin };
            if random.one_in(3) && key.is_supported(&column.data_type) {
                keys.push(key);
            }
        }
        let mut id = column.id;
        if computes && random.one_in(3) {
            id = Computed::id(computed.len());
            let same = crate::schema::Column { id, ..column.clone() };
            computed.push(Computed { column: same, inputs: vec![column.id], computation: Arc::new(Same) });
        }
        use Function::{And, Count, Distinct, First, Last, Max, Mean, Min, Or, Quantiles, Rows, Set, Squares, Sum};
        let by = random.pick(&schema.columns).id;
        let type_of = |id| schema.column(id).map(|column| &column.data_type);
        let functions = [
            Rows,
            Count(id),
            Sum(id),
            Min(id),
            Max(id),
            And(id),
            Or(id),
            Distinct(id),
            Quantiles(id),
            Mean(id),
            Squares(id),
            Set(id),
            First { value: id, by },
            Last { value: id, by },
        ];
        for function in functions {
            let exists = state_type(&function, Some(&column.data_type)).is_some() && function.is_ordered_by(type_of);
            if random.one_in(2) && exists {
                let filter = random.one_in(4).then(|| generate::predicate(random, schema, 1));
                aggregates.push(Aggregate { function, filter });
            }
        }
    }
    let predicate = random.one_in(2).then(|| generate::predicate(random, schema, 2));
    AggregateRequest {
        schema: Arc::new(schema.clone()),
        keys,
        aggregates,
        computed,
        predicate,
        indexes: Default::default(),
        results: None,
        star_tree: true,
    }
}

/// Requests for nothing but the distinct values of each column of `schema`, of all rows or of some.
pub fn distinct_requests(random: &mut Random, schema: &TableSchema) -> Vec<AggregateRequest> {
    let keys = schema.columns.iter().map(|column| (GroupKey { column: column.id, bin: None }, &column.data_type));
    let supported = keys.filter(|(key, data_type)| key.is_supported(data_type));
    supported
        .map(|(key, _)| AggregateRequest {
            schema: Arc::new(schema.clone()),
            keys: vec![key],
            aggregates: Vec::new(),
            computed: Vec::new(),
            predicate: random.one_in(4).then(|| generate::predicate(random, schema, 1)),
            indexes: Default::default(),
            results: None,
            star_tree: true,
        })
        .collect()
}

/// Keys, then states; in the order of what they look like.
pub type Groups = Vec<(String, Row)>;

/// The groups of the rows, the hard way. `None`: a value lies outside its type.
pub fn groups(written: &Written, request: &AggregateRequest) -> Option<Groups> {
    let current = &request.schema;
    let mut groups: Vec<(Row, Vec<&Row>)> = Vec::new();
    if request.keys.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    let mut places = std::collections::HashMap::new();
    for row in &written.rows {
        if request.predicate.as_ref().is_some_and(|predicate| !holds(predicate, written, current, row)) {
            continue;
        }
        let keys = request
            .keys
            .iter()
            .map(|key| floor(read(written, current, row, key.column), key, current))
            .collect::<Option<Row>>()?;
        let place = *places.entry(shown(&keys)).or_insert_with(|| {
            if !request.keys.is_empty() {
                groups.push((keys, Vec::new()));
            }
            groups.len() - 1
        });
        groups[place].1.push(row);
    }
    let mut out = groups
        .into_iter()
        .map(|(keys, rows)| {
            let states = request.aggregates.iter().map(|aggregate| state(written, request, &rows, aggregate));
            let all: Row = keys.into_iter().map(Some).chain(states).collect::<Option<Row>>()?;
            Some((shown(&all[..request.keys.len()]), all))
        })
        .collect::<Option<Groups>>()?;
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Some(out)
}

fn floor(value: Value, key: &GroupKey, current: &TableSchema) -> Option<Value> {
    match (value, key.bin) {
        (Value::One(Scalar::Int(value)), Some(bin)) => {
            let wide = (i128::from(value) - i128::from(bin.origin)).div_euclid(bin.width.into());
            let floor = i64::try_from(wide * i128::from(bin.width) + i128::from(bin.origin)).ok()?;
            if current.column(key.column).unwrap().data_type == DataType::Date {
                i32::try_from(floor).ok()?;
            }
            Some(Value::One(Scalar::Int(floor)))
        }
        (value, _) => Some(value),
    }
}

fn shown(values: &[Value]) -> String {
    format!("{values:?}")
}

fn state(written: &Written, request: &AggregateRequest, rows: &[&Row], aggregate: &Aggregate) -> Option<Value> {
    let current = &request.schema;
    let rows =
        rows.iter().filter(|row| aggregate.filter.as_ref().is_none_or(|filter| holds(filter, written, current, row)));
    let Some(id) = aggregate.function.column() else { return Some(Value::One(Scalar::Int(rows.count() as i64))) };
    let id = stored(request, id);
    if let Function::First { value, .. } | Function::Last { value, .. } = aggregate.function {
        let value = stored(request, value);
        let mut best: Option<(i64, &Row)> = None;
        for row in rows {
            let Value::One(Scalar::Int(rank)) = read(written, current, row, id) else { continue };
            let replaces = match (&best, &aggregate.function) {
                (None, _) => true,
                (Some((best, _)), Function::First { .. }) => rank < *best,
                (Some((best, _)), _) => rank >= *best,
            };
            if replaces {
                best = Some((rank, *row));
            }
        }
        return Some(best.map_or(Value::Null, |(_, row)| read(written, current, row, value)));
    }
    let values = rows.map(|row| read(written, current, row, id)).filter(|value| !matches!(value, Value::Null));
    if let Function::Count(_) = aggregate.function {
        return Some(Value::One(Scalar::Int(values.count() as i64)));
    }
    let scalars: Vec<Scalar> = values
        .map(|value| match value {
            Value::One(scalar) => scalar,
            other => panic!("{other:?} in an aggregate"),
        })
        .collect();
    if let Function::Set(_) = aggregate.function {
        return Some(set(scalars.into_iter().map(plain).map(Some).collect()));
    }
    if scalars.is_empty() {
        return Some(Value::Null);
    }
    let first = scalars[0].clone();
    let data_type = &current.column(id).unwrap().data_type;
    if matches!(aggregate.function, Function::Mean(_) | Function::Squares(_)) {
        return Some(moment(&aggregate.function, &scalars, data_type));
    }
    Some(Value::One(match aggregate.function {
        Function::Distinct(_) => Scalar::Bytes(distinct(&scalars, data_type).into()),
        Function::Quantiles(_) => Scalar::Bytes(quantiles(&scalars, data_type).into()),
        Function::Sum(_) => match first {
            Scalar::Float(_) => {
                let floats = scalars.iter().map(|scalar| if let Scalar::Float(v) = scalar { *v } else { f64::NAN });
                let sum = floats.clone().fold(0.0, |sum, value| sum + value);
                if sum.is_infinite() && !floats.clone().any(f64::is_infinite) {
                    return None;
                }
                Scalar::Float(sum)
            }
            _ => {
                let mut sum = 0i128;
                for scalar in &scalars {
                    sum = sum.checked_add(match scalar {
                        Scalar::Int(value) => i128::from(*value),
                        Scalar::Decimal(value) => *value,
                        other => panic!("a sum of {other:?}"),
                    })?;
                }
                if sum.unsigned_abs() >= 10u128.pow(SUM_PRECISION.into()) {
                    return None;
                }
                Scalar::Decimal(sum)
            }
        },
        Function::Min(_) | Function::And(_) => {
            scalars.into_iter().fold(first, |a, b| if b.compare(&a).is_some_and(|order| order.is_lt()) { b } else { a })
        }
        _ => {
            scalars.into_iter().fold(first, |a, b| if b.compare(&a).is_some_and(|order| order.is_gt()) { b } else { a })
        }
    }))
}

/// The tokens of a sketch of few values (form 0) in their order, each once: it writes them as they lie in its table, or as they came.
fn in_order(bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        Some((0, tokens)) => {
            let mut tokens = tokens.as_chunks::<4>().0.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            [&[0], tokens.as_flattened()].concat()
        }
        _ => bytes.to_vec(),
    }
}

/// Each once, in the order of what they look like.
fn set(mut values: Vec<Option<Scalar>>) -> Value {
    values.sort_by_key(|value| format!("{value:?}"));
    values.dedup_by_key(|value| format!("{value:?}"));
    Value::List(values)
}

/// Zeros are one, and so are NaNs.
fn plain(scalar: Scalar) -> Scalar {
    match scalar {
        Scalar::Float(value) => Scalar::Float(if value.is_nan() { f64::NAN } else { value + 0.0 }),
        other => other,
    }
}

/// Sketches depend on nothing but the set of values, to the byte, but for the order of tokens and how often they are written.
fn distinct(scalars: &[Scalar], data_type: &DataType) -> Vec<u8> {
    let mut sketch = sketch::Distinct::default();
    for scalar in scalars {
        let hash = match scalar {
            Scalar::Boolean(value) => Some(hash::of_int((*value).into())),
            scalar => hash::of_scalar(scalar, data_type),
        };
        sketch.insert(sketch::token(hash.unwrap()));
    }
    in_order(&sketch.to_bytes())
}

fn quantiles(scalars: &[Scalar], data_type: &DataType) -> Vec<u8> {
    let mut sketch = sketch::Quantiles::default();
    scalars.iter().for_each(|scalar| sketch.insert(float(scalar, data_type)));
    sketch.to_bytes()
}

fn float(scalar: &Scalar, data_type: &DataType) -> f64 {
    match (scalar, data_type) {
        (Scalar::Int(value), _) => *value as f64,
        (Scalar::Float(value), _) => *value,
        (Scalar::Decimal(value), DataType::Numeric { scale, .. }) => *value as f64 / 10f64.powi((*scale).into()),
        (other, _) => panic!("{other:?} is no number"),
    }
}

/// The mean or the sum of the squares of the differences from it, in two passes, and how far off a float may be that was found otherwise.
fn moment(function: &Function, scalars: &[Scalar], data_type: &DataType) -> Value {
    let values: Vec<f64> = scalars.iter().map(|scalar| float(scalar, data_type)).collect();
    let rows = values.len() as f64;
    let mean = values.iter().sum::<f64>() / rows;
    let squares = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>();
    let noise = values.iter().fold(1e-280f64, |most, value| most.max(value.abs())) * rows * 1e-14;
    let (value, noise) = match function {
        Function::Mean(_) => (mean, noise),
        _ => (squares, noise * noise + squares * 1e-9 + squares.sqrt() * noise + f64::MIN_POSITIVE),
    };
    Value::List(vec![Some(Scalar::Float(value)), Some(Scalar::Float(noise))])
}

/// The groups of answers whose groups differ.
pub fn answered(request: &AggregateRequest, batch: &RecordBatch) -> Groups {
    let type_of = |id: ColumnId| request.schema.column(stored(request, id)).unwrap().data_type.clone();
    let mut types: Vec<DataType> = request.keys.iter().map(|key| type_of(key.column)).collect();
    types.extend(request.aggregates.iter().map(|aggregate| match aggregate.function {
        Function::Rows | Function::Count(_) => DataType::BigInt,
        Function::Sum(id) => match type_of(id) {
            DataType::Real | DataType::Double => DataType::Double,
            DataType::Numeric { scale, .. } => DataType::Numeric { precision: SUM_PRECISION, scale },
            _ => DataType::Numeric { precision: SUM_PRECISION, scale: 0 },
        },
        Function::Min(id) | Function::Max(id) | Function::And(id) | Function::Or(id) => type_of(id),
        Function::First { value, .. } | Function::Last { value, .. } => type_of(value),
        Function::Set(id) => DataType::Array(Box::new(type_of(id))),
        Function::Mean(_) | Function::Squares(_) => DataType::Double,
        Function::Distinct(_) | Function::Quantiles(_) | Function::DistinctOf(_) | Function::QuantilesOf(_) => {
            DataType::Bytea
        }
    }));
    let mut rows = oracle::rows_of(&types, batch);
    for (index, _) in request.aggregates.iter().enumerate().filter(|(_, one)| matches!(one.function, Function::Set(_)))
    {
        for row in &mut rows {
            let given = &mut row[request.keys.len() + index];
            let Value::List(values) = given else { panic!("{given:?} is no list") };
            let count = values.len();
            *given = set(std::mem::take(values));
            assert!(matches!(given, Value::List(values) if values.len() == count), "a value comes once: {given:?}");
        }
    }
    for (index, aggregate) in request.aggregates.iter().enumerate() {
        if !matches!(aggregate.function, Function::Distinct(_) | Function::DistinctOf(_)) {
            continue;
        }
        for row in &mut rows {
            if let Value::One(Scalar::Bytes(bytes)) = &mut row[request.keys.len() + index] {
                *bytes = in_order(bytes).into();
            }
        }
    }
    let mut out: Groups = rows.into_iter().map(|row| (shown(&row[..request.keys.len()]), row)).collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// Whether what was found says what is expected; floats may differ in what SQL does not see (the sign of 0, which NaN), means and what lies around them by
/// as much as the plain twin says. (Where numbers leave what floats can hold they are anything.)
pub fn agree(found: &Groups, expected: &Groups) -> bool {
    let same = |(found, expected): (&Value, &Value)| match (found, expected) {
        (Value::One(Scalar::Float(a)), Value::One(Scalar::Float(b))) => compare_floats(*a, *b).is_eq(),
        (Value::One(Scalar::Float(found)), Value::List(expected)) => match expected.as_slice() {
            [Some(Scalar::Float(value)), Some(Scalar::Float(noise))] => {
                (found - value).abs() <= *noise || !found.is_finite() || !value.is_finite() || !noise.is_finite()
            }
            _ => false,
        },
        // NaN is NaN here.
        (Value::List(found), Value::List(expected)) => format!("{found:?}") == format!("{expected:?}"),
        (found, expected) => found == expected,
    };
    let same_rows = |a: &Row, b: &Row| a.len() == b.len() && a.iter().zip(b).all(same);
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| same_rows(&a.1, &b.1))
}
