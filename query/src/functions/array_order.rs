//! Which of two arrays comes first, item by item. A null item is one above all others, as in ORDER BY; Arrow's comparisons have it below.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int32Array, make_comparator},
    compute::SortOptions,
};
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::simple::{Returns, Simple, any};

/// -1, 0 or 1; null where one of the arrays is.
pub(crate) fn udf() -> Arc<ScalarUDF> {
    let returns = Returns::Type(arrow::datatypes::DataType::Int32);
    Simple::udf("tidemill_array_compare", any(2, Volatility::Immutable), returns, |call| {
        let (left, right) = (&call.arrays[0], &call.arrays[1]);
        let nulls_last = SortOptions { descending: false, nulls_first: false };
        let compare = make_comparator(left, right, nulls_last)?;
        let order = |row| (left.is_valid(row) && right.is_valid(row)).then(|| compare(row, row) as i32);
        Ok(Arc::new((0..call.rows).map(order).collect::<Int32Array>()) as ArrayRef)
    })
}
