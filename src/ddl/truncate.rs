//! TRUNCATE: tables as new, but for where their sources are read on.

use std::sync::Arc;

use tidemill_ingest::consumer;

use super::undefined_table;
use crate::{runtime, server::instance::Instance, session::error::Result, sql::ast::Truncate};

pub(super) async fn truncate(instance: &Arc<Instance>, statement: Truncate) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    // All names are looked up before the first rows go.
    let mut live = Vec::with_capacity(statement.names.len());
    for name in &statement.names {
        let Some(table) = definitions.table_named(&name.value) else {
            return Err(undefined_table(&definitions, name));
        };
        live.push(instance.table(&table.name).map_err(|error| error.at(name.position))?.1);
    }
    let tables: Vec<_> = live.iter().map(|live| Arc::clone(&live.ingest)).collect();
    consumer::truncate(&tables).await?;
    // What INSERT brought stands in the tables' logs, too.
    runtime::blocking(move || live.iter().for_each(|live| live.shed_log())).await;
    Ok(Vec::new())
}
