//! `/api/v1/tables` and the description of the API.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State as Shared},
    http::header,
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::{State, error::ApiError};
use crate::{
    catalog::definition::TableDefinition,
    server::{instance::Instance, live::LiveTable},
};

const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.replace("{{version}}", env!("CARGO_PKG_VERSION")))
}

pub(super) async fn tables(Shared(state): Shared<Arc<State>>) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let tables =
        state.instance.all_live().iter().map(|(table, live)| describe(&state.instance, table, live)).collect::<Value>();
    Ok(Json(json!({ "tables": tables })))
}

pub(super) async fn table(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let (table, live) = state.instance.table(&name)?;
    Ok(Json(describe(&state.instance, &table, &live)))
}

fn describe(instance: &Instance, table: &TableDefinition, live: &LiveTable) -> Value {
    let definitions = instance.catalog.definitions();
    let (mut rows, mut bytes, mut segments) = (0, 0, 0_u64);
    for view in &live.table.snapshot().views {
        rows += view.rows();
        for segment in view.segments() {
            bytes += segment.bytes();
            segments += 1;
        }
    }
    let columns = table.schema.columns.iter().map(
        |column| json!({ "name": column.name, "type": column.data_type.to_string(), "nullable": column.nullable }),
    );
    json!({
        "name": table.name,
        "columns": columns.collect::<Value>(),
        "time_column": table.schema.time_column.and_then(|id| table.schema.column(id)).map(|column| &column.name),
        "sources": table.sources.iter().filter_map(|id| definitions.sources.get(id)).map(|source| &source.name).collect::<Vec<_>>(),
        "partitions": table.options.partitions,
        "paused": table.paused,
        "rows": rows,
        "bytes": bytes,
        "segments": segments,
    })
}
