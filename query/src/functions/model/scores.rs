//! What a model gives, as a column of the type that the function returns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, BooleanArray, ListArray, PrimitiveArray, StringViewArray},
    buffer::OffsetBuffer,
    datatypes::{Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
};
use tidemill_storage::schema::DataType;
use tract_onnx::tract_core::internal::{Datum, DatumType, TDim, Tensor};

use super::columns::type_name;
use crate::functions::user::Failed;

/// An output of a graph.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) datum_type: DatumType,
    pub(super) shape: Vec<TDim>,
}

/// Values that an output has for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// `[N]`, `[N, 1]`
    One,
    /// `[N, C]`
    Several,
}

impl Output {
    fn width(&self, rows: &TDim) -> Option<Width> {
        match &self.shape[..] {
            [] if *rows == 1.into() => Some(Width::One),
            [first] if first == rows => Some(Width::One),
            [first, second] if first == rows && *second == 1.into() => Some(Width::One),
            [first, _] if first == rows => Some(Width::Several),
            _ => None,
        }
    }

    /// Whether it can be returned as the type, of which there is one for each row of `rows`.
    pub(super) fn is(&self, returns: &DataType, rows: &TDim) -> bool {
        match (self.width(rows), returns) {
            (Some(_), DataType::Array(item)) => is_of(self.datum_type, item),
            (Some(Width::One), returns) => is_of(self.datum_type, returns),
            _ => false,
        }
    }

    /// The type that says most of it.
    pub(super) fn natural(&self, rows: &TDim) -> Option<String> {
        let types = [DataType::Double, DataType::BigInt, DataType::Boolean, DataType::Text];
        let one = types.into_iter().find(|data_type| is_of(self.datum_type, data_type))?;
        Some(match self.width(rows)? {
            Width::One => one.to_string(),
            Width::Several => DataType::Array(Box::new(one)).to_string(),
        })
    }

    pub(super) fn describe(&self, rows: &TDim) -> String {
        let axis = |axis: &TDim| if axis == rows { "N".to_owned() } else { axis.to_string() };
        let shape: Vec<String> = self.shape.iter().map(axis).collect();
        format!("{} {} [{}]", self.name, type_name(self.datum_type), shape.join(", "))
    }
}

fn is_of(datum_type: DatumType, returns: &DataType) -> bool {
    use DatumType::{Bool, F16, F32, F64, I8, I16, I32, I64, TDim, U8, U16, U32};
    match returns {
        DataType::Real | DataType::Double => matches!(datum_type, F16 | F32 | F64),
        DataType::SmallInt | DataType::Int | DataType::BigInt => {
            matches!(datum_type, I8 | I16 | I32 | I64 | U8 | U16 | U32 | TDim)
        }
        DataType::Boolean => matches!(datum_type, Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 | TDim),
        DataType::Text => datum_type == DatumType::String,
        _ => false,
    }
}

/// The scores of so many rows.
pub(super) fn column(made: &Tensor, rows: usize, returns: &DataType) -> Result<ArrayRef, Failed> {
    if let DataType::Array(item) = returns {
        let width = made.len().checked_div(rows).unwrap_or_default();
        let items = column(made, rows * width, item)?;
        let offsets = OffsetBuffer::from_repeated_length(width, rows);
        let field = Arc::new(item.field("item", true));
        let list = ListArray::try_new(field, offsets, items, None);
        return list.map(|list| Arc::new(list) as ArrayRef).map_err(|error| Failed::Trapped(error.to_string()));
    }
    if made.len() != rows {
        return Err(Failed::Trapped(format!("it gave {} scores for {rows} rows", made.len())));
    }
    Ok(match returns {
        DataType::Real => primitive::<Float32Type>(values(made)?),
        DataType::Double => primitive::<Float64Type>(values(made)?),
        DataType::BigInt => primitive::<Int64Type>(values(made)?),
        DataType::Int => primitive::<Int32Type>(narrowed(values(made)?, returns)?),
        DataType::SmallInt => primitive::<Int16Type>(narrowed(values(made)?, returns)?),
        DataType::Boolean => {
            Arc::new(BooleanArray::from_iter(values::<i64>(made)?.iter().map(|value| Some(*value != 0))))
        }
        _ => Arc::new(StringViewArray::from_iter_values(values::<String>(made)?)),
    })
}

fn values<T: Datum>(made: &Tensor) -> Result<Vec<T>, Failed> {
    let strange = |error: tract_onnx::tract_core::internal::TractError| Failed::Trapped(error.root_cause().to_string());
    let made = made.cast_to::<T>().map_err(strange)?;
    let view = made.try_as_plain_ram().map_err(strange)?;
    Ok(view.as_slice::<T>().map_err(strange)?.to_vec())
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), None))
}

fn narrowed<T: TryFrom<i64>>(values: Vec<i64>, returns: &DataType) -> Result<Vec<T>, Failed> {
    let fits: Option<Vec<T>> = values.into_iter().map(|value| T::try_from(value).ok()).collect();
    fits.ok_or_else(|| Failed::Trapped(format!("it gave a number that is no {returns}")))
}
