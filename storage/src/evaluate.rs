//! Predicates and projections over an Arrow batch: the plain twin of what sealed segments do on encoded columns, and what consuming
//! segments use.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, BooleanBufferBuilder, Datum, Decimal128Array,
        Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions,
        StringViewArray, new_empty_array, new_null_array,
    },
    buffer::{BooleanBuffer, OffsetBuffer},
    compute::{
        and_kleene, cast, filter_record_batch, is_not_null, is_null,
        kernels::{cmp, comparison},
        not, or_kleene,
    },
    datatypes::{DataType as ArrowType, Decimal128Type, Float32Type, Float64Type, Int64Type, SchemaRef},
};

use crate::{
    Error, Result,
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    scan::ScanRequest,
    schema::{Column, DataType, TableSchema},
};

/// Which rows of `batch` (which has the columns of `written`) the request's predicate selects; `None` means all.
pub fn evaluate(request: &ScanRequest, written: &TableSchema, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
    request.predicate.as_ref().map(|predicate| mask(predicate, &request.schema, written, batch)).transpose()
}

/// Which rows of `array`, a column in its current type, a leaf of a predicate on that column selects.
pub(crate) fn evaluate_leaf(leaf: &Predicate, column: &Column, array: &ArrayRef) -> Result<BooleanArray> {
    Ok(match leaf {
        Predicate::And(_) | Predicate::Or(_) => {
            return Err(Error::Invalid("AND and OR are not conditions on one column".into()));
        }
        Predicate::Compare { op, value, .. } => compare(array, *op, value, &column.data_type)?,
        Predicate::In { values, negated, .. } => {
            let mut any = BooleanArray::from(vec![false; array.len()]);
            for value in values {
                any = or_kleene(&any, &compare(array, CompareOp::Eq, value, &column.data_type)?)?;
            }
            let any = if *negated { not(&any)? } else { any };
            // An empty list compares with nothing, so nulls must be taken out by hand.
            and_kleene(&any, &is_not_null(array)?)?
        }
        Predicate::Like { pattern, negated, case_insensitive, .. } => {
            let pattern = StringViewArray::new_scalar(pattern.as_str());
            match (negated, case_insensitive) {
                (false, false) => comparison::like(array, &pattern)?,
                (true, false) => comparison::nlike(array, &pattern)?,
                (false, true) => comparison::ilike(array, &pattern)?,
                (true, true) => comparison::nilike(array, &pattern)?,
            }
        }
        Predicate::Matches { query, negated, .. } => {
            let Some(texts) = array.as_string_view_opt() else {
                return Err(Error::Invalid(format!("a column of type {} has no words", column.data_type)));
            };
            let mut room = Vec::new();
            texts.iter().map(|text| text.map(|text| query.finds(text, &mut room) != *negated)).collect()
        }
        Predicate::IsNull { negated, .. } => {
            if *negated {
                is_not_null(array)?
            } else {
                is_null(array)?
            }
        }
        Predicate::Holds { condition, .. } => {
            let found = condition.holds(array)?;
            if found.len() != array.len() {
                return Err(Error::Invalid(format!("{} verdicts on {} values", found.len(), array.len())));
            }
            and_kleene(&found, &is_not_null(array)?)?
        }
    })
}

/// An array of a column as it was written in the type that the column has now.
pub(crate) fn widened(array: ArrayRef, column: &Column) -> Result<ArrayRef> {
    let wanted = column.data_type.arrow();
    if array.data_type() == &wanted { Ok(array) } else { Ok(cast(&array, &wanted)?) }
}

/// The selected rows, at most `limit`, as the request's output columns.
pub fn project(
    request: &ScanRequest,
    written: &TableSchema,
    output: &SchemaRef,
    batch: &RecordBatch,
    mask: Option<&BooleanArray>,
    limit: usize,
) -> Result<RecordBatch> {
    let columns = request
        .projection
        .iter()
        .map(|id| column_as(&request.schema, written, batch, *id))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let mut all = RecordBatch::try_new_with_options(Arc::clone(output), columns, &options)?;
    if let Some(mask) = mask {
        all = filter_record_batch(&all, mask)?;
    }
    Ok(if all.num_rows() > limit { all.slice(0, limit) } else { all })
}

/// Column `id` of `batch` in its current type: cast where it was widened, its default where it is younger than the rows.
pub fn column_as(current: &TableSchema, written: &TableSchema, batch: &RecordBatch, id: ColumnId) -> Result<ArrayRef> {
    let column = known(current, id)?;
    match written.index_of(id) {
        None => default_array(column, batch.num_rows()),
        Some(index) => widened(Arc::clone(batch.column(index)), column),
    }
}

/// `rows` times the column's default, or NULL.
pub fn default_array(column: &Column, rows: usize) -> Result<ArrayRef> {
    let wanted = column.data_type.arrow();
    match &column.default {
        None => Ok(new_null_array(&wanted, rows)),
        Some(value) => {
            let one = scalar_array(value, &column.data_type)?;
            let indices = arrow::array::UInt32Array::from(vec![0u32; rows]);
            Ok(arrow::compute::take(&one, &indices, None)?)
        }
    }
}

/// An array of one value of the type's Arrow form.
pub fn scalar_array(value: &Scalar, data_type: &DataType) -> Result<ArrayRef> {
    let wanted = data_type.arrow();
    let misfit = || Error::Invalid(format!("{value:?} is not a value of type {data_type}"));
    let array: ArrayRef = match (value, &wanted) {
        (Scalar::Boolean(v), ArrowType::Boolean) => Arc::new(BooleanArray::from(vec![*v])),
        (Scalar::Int(v), ArrowType::Int16) => {
            Arc::new(Int16Array::from(vec![i16::try_from(*v).map_err(|_| misfit())?]))
        }
        (Scalar::Int(v), ArrowType::Int32) => {
            Arc::new(Int32Array::from(vec![i32::try_from(*v).map_err(|_| misfit())?]))
        }
        (Scalar::Int(v), ArrowType::Int64) => Arc::new(Int64Array::from(vec![*v])),
        (Scalar::Int(v), ArrowType::Date32) => {
            let days = i32::try_from(*v).map_err(|_| misfit())?;
            cast(&Int32Array::from(vec![days]), &wanted)?
        }
        (Scalar::Int(v), ArrowType::Timestamp(..)) => cast(&Int64Array::from(vec![*v]), &wanted)?,
        (Scalar::Float(v), ArrowType::Float32) => Arc::new(Float32Array::from(vec![*v as f32])),
        (Scalar::Float(v), ArrowType::Float64) => Arc::new(Float64Array::from(vec![*v])),
        (Scalar::Decimal(v), ArrowType::Decimal128(p, s)) => {
            Arc::new(Decimal128Array::from(vec![*v]).with_precision_and_scale(*p, *s)?)
        }
        (Scalar::Text(v), ArrowType::Utf8View) => Arc::new(StringViewArray::from(vec![v.as_ref()])),
        (Scalar::Bytes(v), ArrowType::BinaryView) => Arc::new(BinaryViewArray::from(vec![v.as_ref()])),
        _ => return Err(misfit()),
    };
    Ok(array)
}

/// An array of one value of the type that says nothing and is not NULL: zero, or empty.
pub fn zero_array(data_type: &DataType) -> Result<ArrayRef> {
    let value = match data_type {
        DataType::Boolean => Scalar::Boolean(false),
        DataType::SmallInt | DataType::Int | DataType::BigInt => Scalar::Int(0),
        DataType::Date | DataType::Timestamp | DataType::TimestampTz => Scalar::Int(0),
        DataType::Real | DataType::Double => Scalar::Float(0.0),
        DataType::Numeric { .. } => Scalar::Decimal(0),
        DataType::Text => Scalar::Text("".into()),
        DataType::Bytea => Scalar::Bytes([].into()),
        DataType::Uuid => Scalar::Text("00000000-0000-0000-0000-000000000000".into()),
        DataType::Jsonb => Scalar::Text("null".into()),
        DataType::Array(_) => {
            let ArrowType::List(item) = data_type.arrow() else {
                return Err(Error::Invalid(format!("{data_type} is no array")));
            };
            let values = new_empty_array(item.data_type());
            return Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths([0]), values, None)?));
        }
    };
    scalar_array(&value, data_type)
}

fn mask(
    predicate: &Predicate,
    current: &TableSchema,
    written: &TableSchema,
    batch: &RecordBatch,
) -> Result<BooleanArray> {
    let rows = batch.num_rows();
    Ok(match predicate {
        Predicate::And(children) => {
            let mut all = BooleanArray::from(vec![true; rows]);
            for child in safe_first(children) {
                if all.true_count() == 0 {
                    break;
                }
                let found = mask_of(child, current, written, batch, &all)?;
                all = and_kleene(&all, &found)?;
            }
            all
        }
        Predicate::Or(children) => {
            let mut any = BooleanArray::from(vec![false; rows]);
            for child in safe_first(children) {
                let found = match child.may_fail() {
                    true => mask_of(child, current, written, batch, &BooleanArray::new(!&true_rows(&any), None))?,
                    false => mask(child, current, written, batch)?,
                };
                any = or_kleene(&any, &found)?;
            }
            any
        }
        leaf => {
            let id = leaf.column().ok_or_else(|| Error::Invalid("a condition without a column".into()))?;
            let array = column_as(current, written, batch, id)?;
            evaluate_leaf(leaf, known(current, id)?, &array)?
        }
    })
}

/// In the order in which they are evaluated: what may fail comes last.
fn safe_first(children: &[Predicate]) -> impl Iterator<Item = &Predicate> {
    let safe = children.iter().filter(|child| !child.may_fail());
    safe.chain(children.iter().filter(|child| child.may_fail()))
}

/// The mask of the batch; what may fail is evaluated for the rows of `asked` alone and counts as FALSE for others.
fn mask_of(
    predicate: &Predicate,
    current: &TableSchema,
    written: &TableSchema,
    batch: &RecordBatch,
    asked: &BooleanArray,
) -> Result<BooleanArray> {
    if !predicate.may_fail() || asked.true_count() == asked.len() {
        return mask(predicate, current, written, batch);
    }
    let found = mask(predicate, current, written, &filter_record_batch(batch, asked)?)?;
    let mut all = BooleanBufferBuilder::new(asked.len());
    all.append_n(asked.len(), false);
    for (row, found) in true_rows(asked).set_indices().zip(true_rows(&found).iter()) {
        all.set_bit(row, found);
    }
    Ok(BooleanArray::new(all.finish(), None))
}

fn true_rows(mask: &BooleanArray) -> BooleanBuffer {
    match mask.nulls() {
        None => mask.values().clone(),
        Some(valid) => mask.values() & valid.inner(),
    }
}

fn known(schema: &TableSchema, id: ColumnId) -> Result<&Column> {
    schema.column(id).ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}")))
}

fn compare(array: &ArrayRef, op: CompareOp, value: &Scalar, data_type: &DataType) -> Result<BooleanArray> {
    // Arrow orders floats by their bits (-0 below 0, NaN at both ends); Postgres has one zero and one NaN.
    let (array, value) = match value {
        Scalar::Float(v) => (&plain_floats(array), Scalar::Float(plain_float(*v))),
        _ => (array, value.clone()),
    };
    let value = arrow::array::Scalar::new(scalar_array(&value, data_type)?);
    let value: &dyn Datum = &value;
    Ok(match op {
        CompareOp::Eq => cmp::eq(array, value)?,
        CompareOp::NotEq => cmp::neq(array, value)?,
        CompareOp::Less => cmp::lt(array, value)?,
        CompareOp::LessEq => cmp::lt_eq(array, value)?,
        CompareOp::Greater => cmp::gt(array, value)?,
        CompareOp::GreaterEq => cmp::gt_eq(array, value)?,
    })
}

/// A value of an array as a [`Scalar`]; `None`: NULL, or of a type that has none (arrays).
pub fn scalar_of(array: &ArrayRef, row: usize) -> Option<Scalar> {
    if array.is_null(row) {
        return None;
    }
    let one = array.slice(row, 1);
    let int = || {
        let plain = match one.data_type() {
            ArrowType::Date32 => cast(&one, &ArrowType::Int32).ok()?,
            _ => Arc::clone(&one),
        };
        Some(Scalar::Int(cast(&plain, &ArrowType::Int64).ok()?.as_primitive_opt::<Int64Type>()?.value(0)))
    };
    match array.data_type() {
        ArrowType::Boolean => Some(Scalar::Boolean(one.as_boolean().value(0))),
        ArrowType::Int16 | ArrowType::Int32 | ArrowType::Int64 | ArrowType::Date32 | ArrowType::Timestamp(..) => int(),
        ArrowType::Float32 => Some(Scalar::Float(f64::from(one.as_primitive::<Float32Type>().value(0)))),
        ArrowType::Float64 => Some(Scalar::Float(one.as_primitive::<Float64Type>().value(0))),
        ArrowType::Decimal128(..) => Some(Scalar::Decimal(one.as_primitive_opt::<Decimal128Type>()?.value(0))),
        ArrowType::Utf8View => Some(Scalar::Text(one.as_string_view().value(0).into())),
        ArrowType::BinaryView => Some(Scalar::Bytes(one.as_binary_view().value(0).into())),
        _ => None,
    }
}

fn plain_float(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

/// Floats with one zero and one NaN; other arrays as they are.
pub fn plain_floats(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        ArrowType::Float32 => {
            let plain = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(plain))
        }
        ArrowType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(plain_float)),
        _ => Arc::clone(array),
    }
}
