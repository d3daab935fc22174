//! SUBSCRIBE: prepared as the query that it is about, with more columns before the query's, and rows that go on coming.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use tidemill_query::subscription::subscribed_schema;

use super::{
    Batches, Prepared, Response, Rows, RowsTag, Session, arrow_types, columns,
    error::{Result, SqlError},
    parameter_types,
    statement::{Kind, Subscribe},
};

impl Session {
    pub(super) async fn prepare_subscribe(&self, subscribe: &Subscribe, prepared: &mut Prepared) -> Result<()> {
        let query = &subscribe.query;
        let Kind::Query(ast) = &query.kind else { return Err(SqlError::internal("a subscription without a query")) };
        let shift = query.offset.saturating_sub(prepared.statement.offset);
        let types = arrow_types(&prepared.types);
        let plan = self.query.plan_typed(ast, &query.text, &types);
        let plan = self.interruptible(async { Ok(plan.await?) }).await.map_err(|error| match subscribe.is_name {
            true => SqlError { position: None, ..error },
            false => error.shifted(shift),
        })?;
        plan.check_subscribable()?;
        let schema = subscribed_schema(plan.schema(), subscribe.options);
        let mut origins = vec![None; schema.fields().len() - plan.schema().fields().len()];
        origins.extend_from_slice(plan.origins());
        prepared.parameters = parameter_types(&plan, &prepared.types);
        prepared.columns = Some(columns(&schema, &origins));
        prepared.plan = Some(plan);
        Ok(())
    }

    pub(super) fn subscribe(
        &self,
        subscribe: &Subscribe,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<Response> {
        let (schema, batches) = self.subscription(subscribe, prepared, values)?;
        let columns = prepared.columns.clone().unwrap_or_else(|| columns(&schema, &[]));
        Ok(Response::Rows(Rows { schema, columns, batches, tag: RowsTag::Subscribe, binary: false, live: true }))
    }

    fn subscription(
        &self,
        subscribe: &Subscribe,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
    ) -> Result<(SchemaRef, Batches)> {
        let plan = self.query.bind(planned(prepared)?, values)?;
        let sql = Arc::clone(&prepared.statement.text);
        Ok(self.stoppable(self.query.subscribe(&plan, sql, subscribe.options)?))
    }

    /// Runs a query or a subscription without parameters, and tells whether its rows go on coming.
    pub(super) fn start_prepared(&self, prepared: &Prepared) -> Result<(SchemaRef, Batches, bool)> {
        if let Kind::Subscribe(subscribe) = &prepared.statement.kind {
            let (schema, batches) = self.subscription(subscribe, prepared, Vec::new())?;
            return Ok((schema, batches, true));
        }
        let (schema, batches) = self.start(planned(prepared)?, Vec::new())?;
        Ok((schema, batches, false))
    }
}

fn planned(prepared: &Prepared) -> Result<&tidemill_query::Plan> {
    prepared.plan.as_ref().ok_or_else(|| SqlError::internal("a query was executed without its plan"))
}
