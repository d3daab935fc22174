//! `@>`, `<@` and `&&` of arrays: a NULL in an array is equal to nothing, not to another NULL either. The rest is DataFusion's.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt64Array},
    buffer::OffsetBuffer,
    compute::take,
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    functions_nested::array_has::{array_has_all_udf, array_has_any_udf},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
    scalar::ScalarValue,
};

/// Whether the first array holds all of the second.
pub(crate) fn contains_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Compared { known: array_has_all_udf(), is_all: true }))
}

/// Whether the two have an item in common.
pub(crate) fn overlaps_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Compared { known: array_has_any_udf(), is_all: false }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Compared {
    /// DataFusion's, which takes NULL for an item like others.
    known: Arc<ScalarUDF>,
    is_all: bool,
}

impl ScalarUDFImpl for Compared {
    fn name(&self) -> &str {
        if self.is_all { "array_contains_all" } else { "array_overlaps" }
    }

    fn signature(&self) -> &Signature {
        self.known.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let rows = args.number_rows;
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(format!("{} takes two arrays", self.name())));
        };
        let is_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let (left, right) = (Side::new(left)?, Side::new(right)?);
        let fails = self.is_all && right.lists.as_ref().is_some_and(has_null_items);
        if let (false, Some(lists)) = (self.is_all, right.lists.as_ref().filter(|lists| has_null_items(lists))) {
            let lists: ArrayRef = Arc::new(without_nulls(lists)?);
            args.args[1] = match right.is_scalar {
                true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?),
                false => ColumnarValue::Array(lists),
            };
        }
        let answers = self.known.invoke_with_args(args)?.into_array(rows)?;
        let answers = answers.as_boolean();
        let answers: BooleanArray = (0..rows)
            .map(|row| {
                let is_null = left.is_null(row) || right.is_null(row);
                (!is_null).then(|| answers.value(row) && !(fails && right.has_null_item(row)))
            })
            .collect();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?),
            false => ColumnarValue::Array(Arc::new(answers)),
        })
    }
}

/// One argument: lists, or one list for all rows.
struct Side {
    array: ArrayRef,
    lists: Option<ListArray>,
    is_scalar: bool,
}

impl Side {
    fn new(value: &ColumnarValue) -> Result<Self, DataFusionError> {
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let array = value.to_array(1)?;
        let lists = array.as_list_opt::<i32>().cloned();
        Ok(Self { array, lists, is_scalar })
    }

    fn at(&self, row: usize) -> usize {
        if self.is_scalar { 0 } else { row }
    }

    fn is_null(&self, row: usize) -> bool {
        *self.array.data_type() == DataType::Null || self.array.is_null(self.at(row))
    }

    fn has_null_item(&self, row: usize) -> bool {
        self.lists.as_ref().is_some_and(|lists| {
            let items = lists.value(self.at(row));
            items.logical_null_count() > 0
        })
    }
}

fn has_null_items(lists: &ListArray) -> bool {
    lists.values().logical_null_count() > 0
}

fn without_nulls(lists: &ListArray) -> Result<ListArray, DataFusionError> {
    let DataType::List(item) = lists.data_type() else {
        return Err(DataFusionError::Internal("lists are of a list type".to_owned()));
    };
    let nulls = lists.values().logical_nulls();
    let is_valid = |place: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place));
    let (mut places, mut sizes) = (Vec::new(), Vec::with_capacity(lists.len()));
    for row in lists.value_offsets().windows(2) {
        let before = places.len();
        places.extend((row[0] as usize..row[1] as usize).filter(|place| is_valid(*place)).map(|place| place as u64));
        sizes.push(places.len() - before);
    }
    let values = take(lists.values(), &UInt64Array::from(places), None)?;
    let offsets = OffsetBuffer::from_lengths(sizes);
    Ok(ListArray::try_new(Arc::clone(item), offsets, values, lists.nulls().cloned())?)
}
