//! Sinks as ingestion knows them.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_ingest::{
    Error,
    pipeline::{Rules, plan::Plan, run::SinkSpec},
    sink::{Shape, SinkOptions},
};
use tidemill_storage::{
    ids::{ColumnId, SchemaVersion},
    schema::{Column, TableSchema},
};

use super::pipelines::transform_into;
use crate::catalog::definition::{PipelineDefinition, PipelineTargetDefinition, SinkDefinition};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The columns of a sink; of one that has none of its own, those that a pipeline gives, called `names`.
pub fn schema(sink: &SinkDefinition, plan: &Plan, names: &[String]) -> TableSchema {
    if let Some(schema) = &sink.schema {
        return schema.clone();
    }
    let given = plan.output().columns.iter().zip(names).enumerate();
    let column = |(at, (column, name)): (usize, (&Column, &String))| {
        Column::new(ColumnId(at as u32), name.clone(), column.data_type.clone())
    };
    TableSchema { version: SchemaVersion(1), columns: given.map(column).collect(), time_column: None }
}

/// What delivers a pipeline's rows into a sink.
pub fn spec(
    expressions: &dyn Rules,
    sink: &SinkDefinition,
    pipeline: &PipelineDefinition,
    target: &PipelineTargetDefinition,
    plan: &Plan,
) -> Result<SinkSpec> {
    let options = SinkOptions::parse(&sink.options)?;
    let schema = schema(sink, plan, &target.names);
    Ok(SinkSpec {
        id: sink.id,
        name: sink.name.clone(),
        identity: identity(pipeline, sink),
        connector: options.connect(),
        delivery: options.delivery,
        commit_interval_us: options.commit_interval.as_micros() as i64,
        backlog: options.backlog,
        transform: transform_into(expressions, &schema, Some(target), plan)?,
        shape: Arc::new(Shape::new(&options.shape, &schema)?),
    })
}

/// What no other pipeline of any server delivers as: a pipeline that is renamed keeps it, and one that is made anew under the same name has another one.
pub fn identity(pipeline: &PipelineDefinition, sink: &SinkDefinition) -> String {
    let made = pipeline.created_at_us.unsigned_abs();
    format!("{}-{}-{made:x}", pipeline.id, sink.id)
}

/// Options by key, as a definition keeps them: settings of clients as they are, ours in lower case.
pub fn settle(pairs: &[crate::sql::ast::OptionPair]) -> BTreeMap<String, String> {
    let key = |key: &str| if key.starts_with("properties.") { key.to_owned() } else { key.to_lowercase() };
    pairs.iter().map(|pair| (key(&pair.key.value), pair.value.clone())).collect()
}
