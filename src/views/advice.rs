//! `rt.advise('name')`.

use std::sync::Arc;

use tidemill_query::SqlError;

use super::{
    Kind::{self, Text},
    Rows, engine_error,
};
use crate::{
    advice::{Proposal, of_source, of_table},
    server::instance::Instance,
};

pub(super) const ADVICE: &[(&str, Kind)] =
    &[("column", Text), ("kind", Text), ("proposal", Text), ("reason", Text), ("statement", Text)];

pub(super) async fn advice(instance: &Arc<Instance>, name: &str) -> Result<Rows, SqlError> {
    let source = instance.catalog.definitions().source_named(name).cloned();
    let proposals = match source {
        Some(source) => of_source(instance, &source).await,
        None => {
            let (table, live) = instance.table(name).map_err(engine_error)?;
            of_table(instance, &table, &live).await
        }
    };
    let row = |one: Proposal| {
        vec![one.column.into(), one.kind.into(), one.proposal.into(), one.reason.into(), one.statement.into()]
    };
    Ok(proposals.map_err(engine_error)?.into_iter().map(row).collect())
}
