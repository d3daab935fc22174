//! Reading a column that is kept by dictionary.

use std::{cmp::Ordering, ops::Range, sync::OnceLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array},
    buffer::NullBuffer,
    compute::take,
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};

use super::ids::Ids;
use crate::{
    Error, Result,
    bitpack::views::take_views,
    forward::{
        ColumnReader, Picked,
        format::{Reader, corrupt},
    },
    scalar::{Scalar, compare_floats},
    schema::DataType,
};

#[derive(Debug)]
pub(crate) struct Dictionary {
    ids: Ids,
    values: Box<ColumnReader>,
    /// The values, ascending; read at the first use.
    loaded: OnceLock<ArrayRef>,
}

impl Dictionary {
    pub(crate) fn open(data_type: &DataType, rows: usize, reader: &mut Reader) -> Result<Self> {
        let ids = Ids::open(rows, reader)?;
        let values = Box::new(ColumnReader::open_node(data_type, None, false, reader)?);
        if values.null_count() > 0 {
            return Err(corrupt("dictionary", "no null value", values.null_count()));
        }
        Ok(Self { ids, values, loaded: OnceLock::new() })
    }

    pub(crate) fn name(&self) -> String {
        format!("{}({})", self.ids.layout(), self.values.rows())
    }

    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Number of values.
    pub(crate) fn len(&self) -> u32 {
        self.values.rows()
    }

    pub(crate) fn values(&self) -> Result<&ArrayRef> {
        if let Some(values) = self.loaded.get() {
            return Ok(values);
        }
        let values = self.values.decode(0..self.values.rows())?;
        if let Some(at) = (1..values.len()).find(|at| !ascends(&values, *at)) {
            return Err(corrupt("dictionary", "ascending values", format!("value {at} not above the one before")));
        }
        Ok(self.loaded.get_or_init(|| values))
    }

    pub(crate) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let mut ids = Vec::new();
        self.ids.read(rows, &mut ids)?;
        self.array(ids, nulls)
    }

    pub(crate) fn gather(&self, Picked { rows, selection, nulls }: Picked<'_>) -> Result<ArrayRef> {
        self.array(self.ids.gather(rows, selection)?, nulls)
    }

    fn array(&self, ids: Vec<u32>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let values = self.values()?;
        let largest = ids.iter().fold(0, |max, id| max.max(*id));
        if largest as usize >= values.len() && !ids.is_empty() {
            return Err(corrupt("ids", format!("below {}", values.len()), largest));
        }
        match values.data_type() {
            ArrowType::Utf8View | ArrowType::BinaryView => take_views(values, &ids, nulls)
                .ok_or_else(|| Error::Invalid("null rows do not fit the ids of a dictionary".into())),
            _ => Ok(take(values, &UInt32Array::try_new(ids.into(), nulls)?, None)?),
        }
    }

    /// The ids whose values equal `value`: below the range are the smaller values, above it the larger ones.
    pub(crate) fn equal_range(&self, value: &Scalar) -> Result<Range<u32>> {
        let values = self.values()?;
        let misfit = || Error::Invalid(format!("{value:?} is not a value of type {}", self.values.data_type()));
        // Whether a value has an order with these is a matter of its type alone.
        if !values.is_empty() && compare(values, 0, value).is_none() {
            return Err(misfit());
        }
        let point = |below: &dyn Fn(Ordering) -> bool| {
            let (mut low, mut high) = (0, values.len());
            while low < high {
                let middle = (low + high) / 2;
                if compare(values, middle, value).is_some_and(below) { low = middle + 1 } else { high = middle }
            }
            low as u32
        };
        Ok(point(&Ordering::is_lt)..point(&Ordering::is_le))
    }
}

/// Value `at` of `values` compared with a scalar.
fn compare(values: &ArrayRef, at: usize, scalar: &Scalar) -> Option<Ordering> {
    Some(match (values.data_type(), scalar) {
        (ArrowType::Int16, Scalar::Int(v)) => i64::from(values.as_primitive::<Int16Type>().value(at)).cmp(v),
        (ArrowType::Int32, Scalar::Int(v)) => i64::from(values.as_primitive::<Int32Type>().value(at)).cmp(v),
        (ArrowType::Int64, Scalar::Int(v)) => values.as_primitive::<Int64Type>().value(at).cmp(v),
        (ArrowType::Date32, Scalar::Int(v)) => i64::from(values.as_primitive::<Date32Type>().value(at)).cmp(v),
        (ArrowType::Timestamp(..), Scalar::Int(v)) => {
            values.as_primitive::<TimestampMicrosecondType>().value(at).cmp(v)
        }
        // REAL is compared at its own precision, as the scalar's cast to the column's type does.
        (ArrowType::Float32, Scalar::Float(v)) => {
            compare_floats(f64::from(values.as_primitive::<Float32Type>().value(at)), f64::from(*v as f32))
        }
        (ArrowType::Float64, Scalar::Float(v)) => compare_floats(values.as_primitive::<Float64Type>().value(at), *v),
        (ArrowType::Decimal128(..), Scalar::Decimal(v)) => values.as_primitive::<Decimal128Type>().value(at).cmp(v),
        (ArrowType::Utf8View, Scalar::Text(v)) => values.as_string_view().value(at).cmp(v),
        (ArrowType::BinaryView, Scalar::Bytes(v)) => values.as_binary_view().value(at).cmp(v),
        _ => return None,
    })
}

/// The order of floats, each with its bits, in a dictionary: Postgres', and by bits where that sees no difference (-0 and 0, the NaNs).
pub(crate) fn float_order(a: (f64, u64), b: (f64, u64)) -> Ordering {
    compare_floats(a.0, b.0).then(a.1.cmp(&b.1))
}

/// Whether value `at` is above the one before it.
fn ascends(values: &ArrayRef, at: usize) -> bool {
    macro_rules! primitive {
        ($type:ty) => {{
            let values = values.as_primitive::<$type>().values();
            values[at - 1] < values[at]
        }};
    }
    match values.data_type() {
        ArrowType::Int16 => primitive!(Int16Type),
        ArrowType::Int32 => primitive!(Int32Type),
        ArrowType::Int64 => primitive!(Int64Type),
        ArrowType::Date32 => primitive!(Date32Type),
        ArrowType::Timestamp(..) => primitive!(TimestampMicrosecondType),
        ArrowType::Decimal128(..) => primitive!(Decimal128Type),
        ArrowType::Float32 => {
            let values = values.as_primitive::<Float32Type>().values();
            let keyed = |value: f32| (f64::from(value), u64::from(value.to_bits()));
            float_order(keyed(values[at - 1]), keyed(values[at])).is_lt()
        }
        ArrowType::Float64 => {
            let values = values.as_primitive::<Float64Type>().values();
            let keyed = |value: f64| (value, value.to_bits());
            float_order(keyed(values[at - 1]), keyed(values[at])).is_lt()
        }
        ArrowType::Utf8View => {
            let values = values.as_string_view();
            values.value(at - 1) < values.value(at)
        }
        ArrowType::BinaryView => {
            let values = values.as_binary_view();
            values.value(at - 1) < values.value(at)
        }
        _ => false,
    }
}
