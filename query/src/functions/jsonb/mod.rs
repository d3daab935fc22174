//! JSON documents: their parts, their rows, their changes.

mod access;
mod change;
mod facts;
pub(crate) mod key;
mod member;
mod members;
mod number;
pub(crate) mod path;
pub(crate) mod tree;

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};
use tidemill_storage::schema::TYPE_KEY;

use super::simple::Returns;

pub(crate) use access::{delete_udf, exists_all_udf, exists_any_udf, exists_udf, path_udf, text_path_udf};
pub(crate) use change::{concat_udf, delete_path_udf};
pub(crate) use member::{text_udf as member_text_udf, udf as member_udf};

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    [access::udfs(), change::udfs(), facts::udfs(), members::udfs(), path::udfs(), vec![key::udf()]]
        .into_iter()
        .flatten()
        .collect()
}

/// A field of text known as JSON of type `marker`.
pub(crate) fn json_field(marker: &str) -> FieldRef {
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), marker.to_owned())]);
    Arc::new(Field::new("json", DataType::Utf8View, true).with_metadata(metadata))
}

/// A function that gives jsonb.
fn jsonb() -> Returns {
    Returns::Field(|_: &ReturnFieldArgs<'_>| -> Result<FieldRef, DataFusionError> { Ok(json_field("jsonb")) })
}
