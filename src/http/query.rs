//! `POST /api/v1/query`: `{"sql": "…"}` or the bare text; the answer is of the last statement.
//!
//! JSON holds at most `max_rows` rows and says in `truncated` whether there are more; NDJSON and CSV (by the Accept header) are streams of
//! all rows. A client that goes away ends the query.

use std::{fmt::Write, pin::Pin, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State as Shared,
    http::{HeaderMap, header},
    response::{IntoResponse, Response as HttpResponse},
};
use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{State, cell, error::ApiError};
use crate::{
    session::{self, Response, Session, Startup},
    sql,
};

/// Rows of a JSON answer when the request does not say.
const MAX_ROWS: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    sql: String,
    /// Rows of a JSON answer, at most.
    max_rows: Option<usize>,
    /// Settings as SET would take them: TimeZone, statement_timeout, search_path, …
    #[serde(default)]
    settings: std::collections::BTreeMap<String, String>,
}

type Rows = Pin<Box<dyn Stream<Item = session::Result<RecordBatch>> + Send>>;

pub(super) async fn post(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<HttpResponse, ApiError> {
    state.check_ready()?;
    let started_us = state.instance.clock.monotonic_us();
    let request = request(&headers, &body)?;
    let startup = Startup {
        user: "tidemill".into(),
        database: "tidemill".into(),
        client: "http".into(),
        settings: request.settings.clone().into_iter().collect(),
    };
    let mut session = Session::open(&state.shared, &startup)?;
    let last = run(&mut session, &request.sql).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_stream = accept.contains("application/x-ndjson") || accept.contains("text/csv");
    let (schema, batches) = match last {
        Response::Rows { schema, batches } => (schema, batches as Rows),
        Response::Command(tag) => {
            return Ok(Json(json!({ "command": tag, "columns": [], "rows": [], "row_count": 0, "truncated": false,
            "elapsed_ms": elapsed(&state, started_us) }))
            .into_response());
        }
        Response::Empty => return Err(ApiError::bad_request("there is no statement in the text")),
        #[allow(unreachable_patterns, reason = "COPY comes to sessions later than to this page")]
        _ => {
            return Err(ApiError::bad_request(
                "COPY needs the Postgres protocol; here, POST rows to /api/v1/tables/<table>/rows",
            ));
        }
    };
    if is_stream {
        let is_csv = accept.contains("text/csv");
        let content_type = if is_csv { "text/csv; charset=utf-8" } else { "application/x-ndjson" };
        return Ok((
            [(header::CONTENT_TYPE, content_type)],
            Body::from_stream(lines(session, schema, batches, is_csv)),
        )
            .into_response());
    }
    let (rows, truncated) = collect(&schema, batches, request.max_rows.unwrap_or(MAX_ROWS)).await?;
    let columns = schema
        .fields()
        .iter()
        .map(|field| json!({ "name": field.name(), "type": cell::type_name(field) }))
        .collect::<Value>();
    Ok(Json(json!({
        "command": format!("SELECT {}", rows.len()),
        "columns": columns,
        "row_count": rows.len(),
        "rows": rows,
        "truncated": truncated,
        "elapsed_ms": elapsed(&state, started_us),
    }))
    .into_response())
}

fn request(headers: &HeaderMap, body: &Bytes) -> Result<Request, ApiError> {
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if is_json {
        return serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("the body is not {{\"sql\": \"…\"}}: {error}")));
    }
    match std::str::from_utf8(body) {
        Ok(sql) => Ok(Request { sql: sql.to_owned(), max_rows: None, settings: Default::default() }),
        Err(_) => Err(ApiError::bad_request("the body is not UTF-8")),
    }
}

fn elapsed(state: &State, started_us: i64) -> f64 {
    (state.instance.clock.monotonic_us() - started_us) as f64 / 1_000.0
}

/// Runs all statements in one session; the rows of all but the last are read and thrown away.
async fn run(session: &mut Session, sql: &str) -> Result<Response, ApiError> {
    let statements = sql::parse(sql)?;
    let mut last = Response::Empty;
    for statement in statements {
        if let Response::Rows { mut batches, .. } = std::mem::replace(&mut last, Response::Empty) {
            while let Some(batch) = batches.next().await {
                batch?;
            }
        }
        let before = u32::try_from(sql[..statement.span.start].chars().count()).unwrap_or(u32::MAX);
        last = session.execute(&sql[statement.span]).await.map_err(|error| error.shifted(before))?;
    }
    Ok(last)
}

async fn collect(schema: &SchemaRef, mut batches: Rows, max_rows: usize) -> Result<(Vec<Value>, bool), ApiError> {
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            if rows.len() == max_rows {
                return Ok((rows, true));
            }
            rows.push(
                schema
                    .fields()
                    .iter()
                    .zip(batch.columns())
                    .map(|(field, column)| cell::json(field, column, row))
                    .collect(),
            );
        }
    }
    Ok((rows, false))
}

/// One chunk of text per batch. An error in the middle cuts the connection, so that the client sees that rows are missing.
fn lines(
    session: Session,
    schema: SchemaRef,
    batches: Rows,
    is_csv: bool,
) -> impl Stream<Item = std::io::Result<String>> + Send {
    let header = is_csv.then(|| {
        let mut line = String::new();
        for (index, field) in schema.fields().iter().enumerate() {
            line.push_str(if index == 0 { "" } else { "," });
            cell::csv_text(field.name(), &mut line);
        }
        line + "\r\n"
    });
    let rows = batches.map(move |batch| {
        // The session lives as long as its result.
        let _ = &session;
        let batch = batch.map_err(|error| std::io::Error::other(error.to_string()))?;
        let mut out = String::new();
        for row in 0..batch.num_rows() {
            for (index, (field, column)) in schema.fields().iter().zip(batch.columns()).enumerate() {
                out.push_str(match (is_csv, index) {
                    (true, 0) => "",
                    (false, 0) => "{",
                    _ => ",",
                });
                if is_csv {
                    cell::csv(field, column, row, &mut out);
                } else {
                    let _ = write!(out, "{}:{}", Value::from(field.name().as_str()), cell::json(field, column, row));
                }
            }
            out.push_str(match (is_csv, schema.fields().is_empty()) {
                (true, _) => "\r\n",
                (false, true) => "{}\n",
                (false, false) => "}\n",
            });
        }
        Ok(out)
    });
    stream::iter(header.map(Ok)).chain(rows)
}
