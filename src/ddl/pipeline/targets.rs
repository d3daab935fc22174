//! What a pipeline writes into: which of its columns goes where, and whether it may.

use std::sync::Arc;

use tidemill_ingest::{
    Error,
    pipeline::{
        Late,
        plan::{Placement, Plan},
    },
    sink::{Shape, SinkOptions},
};

use super::updates;
use crate::{
    catalog::definition::{PipelineTargetDefinition, SinkDefinition, TableDefinition},
    runtime,
    server::{live::arriving, sinks},
    session::error::{Result, SqlError, state},
    sql::ast::PipelineTarget,
};

/// What targets are checked against.
pub(super) struct Check<'a> {
    pub(super) plan: &'a Plan,
    pub(super) late: Late,
    /// Where `late` stands.
    pub(super) late_position: Option<u32>,
    pub(super) by_name: bool,
}

impl Check<'_> {
    pub(super) fn table(
        &self,
        table: &Arc<TableDefinition>,
        target: &PipelineTarget,
    ) -> Result<PipelineTargetDefinition> {
        if target.is_sink {
            let message = format!("\"{}\" is a table, not a sink", table.name);
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message).at(target.table.position));
        }
        let listed = listed(target);
        let names = self.plan.place(&arriving(table), &table.name, self.placement(&listed))?;
        let column = |name: &String| table.schema.columns.iter().find(|column| column.name == *name);
        let columns = names.iter().filter_map(|name| column(name).map(|column| column.id)).collect();
        updates::check(self.plan, self.late, table, &names)
            .map_err(|error| error.at(self.late_position.unwrap_or(target.table.position)))?;
        Ok(PipelineTargetDefinition { table: table.id, columns, names: Vec::new() })
    }

    pub(super) fn sink(&self, sink: &SinkDefinition, target: &PipelineTarget) -> Result<PipelineTargetDefinition> {
        let at_target = |error: Error| SqlError::from(error).at(target.table.position);
        let options = SinkOptions::parse(&sink.options).map_err(at_target)?;
        let listed = listed(target);
        let given = match listed.is_empty() {
            true => self.plan.names(),
            false => &listed,
        };
        let schema = sinks::schema(sink, self.plan, given);
        let names = self.plan.place(&schema, &sink.name, self.placement(&listed))?;
        let column = |name: &String| schema.columns.iter().find(|column| column.name == *name);
        let columns = names.iter().filter_map(|name| column(name).map(|column| column.id)).collect();
        Shape::new(&options.shape, &schema).map_err(at_target)?;
        updates::check_sink(self.plan, self.late, &sink.name, &options.shape.key, &names)
            .map_err(|error| error.at(self.late_position.unwrap_or(target.table.position)))?;
        let own = if sink.schema.is_none() { given.to_vec() } else { Vec::new() };
        Ok(PipelineTargetDefinition { table: sink.id, columns, names: own })
    }

    fn placement<'n>(&self, listed: &'n [String]) -> Placement<'n> {
        match (self.by_name, listed.is_empty()) {
            (true, _) => Placement::Name,
            (false, true) => Placement::Position,
            (false, false) => Placement::Columns(listed),
        }
    }
}

/// Gives schema registries the schemas of what sinks are to hold: what they refuse is refused before the pipeline is made.
pub(super) async fn register(shapes: Vec<Arc<Shape>>) -> Result<()> {
    let register = move || shapes.iter().try_for_each(|shape| shape.wire().map(|_| ()));
    runtime::blocking(register).await.map_err(|error| match error {
        Error::Unavailable(message) => SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message),
        error => SqlError::from(error),
    })
}

fn listed(target: &PipelineTarget) -> Vec<String> {
    target.columns.iter().map(|column| column.value.clone()).collect()
}
