//! Aggregates that are approximate by name: `approx_distinct`, `approx_percentile` (also `approx_percentile_cont`, `approx_median`).
//!
//! Their states are the sketches of [`tidemill_storage::sketch`], in bytes: segments and star-trees make the same ones, and answers depend on
//! the set of values alone, whoever made which part.

mod distinct;
mod percentile;
mod sketched;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;

pub(crate) fn udafs() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(distinct::ApproxDistinct::new())),
        Arc::new(AggregateUDF::new_from_impl(percentile::ApproxPercentile::of_share())),
        Arc::new(AggregateUDF::new_from_impl(percentile::ApproxPercentile::median())),
    ]
}
