//! What functions that give rows give, as arrays, which `unnest` makes rows of. Their names are known to the planner alone.

mod ordinals;
pub(crate) mod relation;
mod series;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use ordinals::ordinals_udf;

/// `generate_series`.
pub(crate) const SERIES: &str = "tidemill_series";
/// The same of constant integers and bigints, as a relation.
pub(crate) const INT4_RELATION: &str = "tidemill_int4_series";
pub(crate) const INT8_RELATION: &str = "tidemill_int8_series";
/// `generate_subscripts`.
pub(crate) const SUBSCRIPTS: &str = "tidemill_subscripts";
/// 1, 2, … as many as the longest of the arrays has items.
pub(crate) const ORDINALS: &str = "tidemill_ordinals";
/// `regexp_matches`.
pub(crate) const REGEXP_MATCHES: &str = "tidemill_regexp_matches";
/// Items of a JSON array, as JSON and as text.
pub(crate) const JSON_ELEMENTS: &str = "tidemill_json_elements";
pub(crate) const JSON_ELEMENTS_TEXT: &str = "tidemill_json_elements_text";
/// Keys of a JSON object, and its values as JSON and as text.
pub(crate) const JSON_KEYS: &str = "tidemill_json_keys";
pub(crate) const JSON_VALUES: &str = "tidemill_json_values";
pub(crate) const JSON_VALUES_TEXT: &str = "tidemill_json_values_text";
/// `jsonb_path_query`.
pub(crate) const JSONB_PATH_QUERY: &str = "tidemill_jsonb_path_query";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![series::udf(), ordinals::ordinals_udf(), ordinals::subscripts_udf()]
}
