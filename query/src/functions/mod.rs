//! PostgreSQL's functions where DataFusion has none, or one that answers otherwise.

pub(crate) mod angles;
pub(crate) mod any;
pub(crate) mod approximate;
pub(crate) mod arithmetic;
pub(crate) mod array_order;
pub(crate) mod array_sets;
pub(crate) mod arrays;
pub(crate) mod average;
pub(crate) mod buckets;
pub(crate) mod bytes;
pub(crate) mod cast;
pub(crate) mod chain;
pub(crate) mod datetime;
mod float_extremes;
mod float_frames;
pub(crate) mod floats;
pub(crate) mod geo;
pub(crate) mod integers;
pub(crate) mod interval;
pub(crate) mod interval_extremes;
pub(crate) mod json;
pub(crate) mod json_build;
pub(crate) mod json_rows;
pub(crate) mod jsonb;
pub(crate) mod like;
pub(crate) mod logarithms;
pub(crate) mod math;
mod model;
pub(crate) mod ntile;
pub(crate) mod nulls;
pub(crate) mod number_pattern;
pub(crate) mod numbers;
pub(crate) mod ordered_set;
pub(crate) mod padding;
pub(crate) mod pieces;
pub(crate) mod record;
mod record_uuid;
pub(crate) mod regexp;
pub(crate) mod regexp_replace;
pub(crate) mod rows;
pub(crate) mod search;
pub mod session;
pub(crate) mod simple;
pub(crate) mod sleep;
mod sum;
pub mod system;
pub(crate) mod text;
pub(crate) mod text_input;
pub(crate) mod text_output;
pub mod user;
pub(crate) mod uuid;
pub mod wasm;
pub(crate) mod zone;

use std::sync::Arc;

use crate::{Engine, SqlError};

/// Puts our functions into every session of `engine`; ours replace DataFusion's of the same name.
pub(crate) fn register(engine: &Arc<Engine>) -> Result<(), SqlError> {
    let ours = [
        session::udfs(),
        angles::udfs(),
        any::udfs(),
        arrays::udfs(),
        buckets::udfs(),
        bytes::udfs(),
        datetime::bin::udfs(),
        datetime::bucket::udfs(),
        datetime::format::udfs(),
        datetime::gapfill::udfs(),
        datetime::make::udfs(),
        datetime::moments::udfs(),
        datetime::part::udfs(),
        datetime::trunc::udfs(),
        geo::udfs(),
        integers::udfs(),
        json::udfs(),
        logarithms::udfs(),
        math::udfs(),
        json_build::udfs(),
        json_rows::udfs(),
        jsonb::udfs(),
        like::udfs(),
        nulls::udfs(),
        number_pattern::udfs(),
        numbers::udfs(),
        ordered_set::udfs(),
        padding::udfs(),
        pieces::udfs(),
        record::udfs(),
        record_uuid::udfs(),
        regexp::udfs(),
        vec![regexp_replace::udf(), chain::udf()],
        rows::udfs(),
        search::udfs(),
        sleep::udfs(),
        text::udfs(),
        crate::rules::common_types::udfs(),
    ];
    for udf in ours.into_iter().flatten() {
        engine.register_function(udf)?;
    }
    engine.extend(|state| {
        use datafusion::{
            execution::FunctionRegistry,
            functions_aggregate::{bool_and_or::bool_and_udaf, variance::var_samp_udaf},
        };
        for (aggregate, alias) in [(bool_and_udaf(), "every"), (var_samp_udaf(), "variance")] {
            state.register_udaf(Arc::new(aggregate.as_ref().clone().with_aliases([alias])))?;
        }
        for aggregate in
            approximate::udafs().into_iter().chain([average::udaf(), sum::udaf()]).chain(float_extremes::udafs())
        {
            state.register_udaf(aggregate)?;
        }
        state.register_udwf(ntile::udwf())?;
        datafusion_functions_json::register_all(state)?;
        // Where it is not planned as rows, this would give one array.
        for name in ["generate_series", "range"] {
            state.deregister_udf(name)?;
        }
        for (name, function) in rows::relation::functions() {
            state.register_udtf(name, function);
        }
        Ok(())
    })
}
