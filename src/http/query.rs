//! `POST /api/v1/query`: `{"sql": "…"}` or the bare text; the answer is of the last statement.
//!
//! JSON holds at most `max_rows` rows and says in `truncated` whether there are more; NDJSON and CSV (by the Accept header) are streams of
//! all rows. A client that goes away ends the query.

use std::{fmt::Write, sync::Arc};

use arrow::datatypes::SchemaRef;
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State as Shared,
    http::{HeaderMap, header},
    response::{IntoResponse, Response as HttpResponse},
};
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{State, cell, error::ApiError};
use crate::session::{self, Response, RowsTag, Session, Startup, statement};

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
    let (schema, batches, tag) = match last {
        None => return Err(ApiError::bad_request("there is no statement in the text")),
        Some(Response::Rows(rows)) if rows.live && !is_stream => {
            return Err(ApiError::bad_request("the rows of SUBSCRIBE never end, an answer in JSON does").with(
                "hint",
                "ask with Accept: application/x-ndjson, or text/csv, and read the lines as they come".into(),
            ));
        }
        Some(Response::Rows(rows)) => (rows.schema, rows.batches, rows.tag),
        Some(Response::Command(tag)) => {
            session.end_implicit();
            let elapsed_ms = elapsed(&state, started_us);
            let empty: [Value; 0] = [];
            let answer = json!({ "command": tag, "columns": empty, "rows": empty, "row_count": 0, "truncated": false, "elapsed_ms": elapsed_ms });
            return Ok(Json(answer).into_response());
        }
        Some(Response::CopyIn(_) | Response::CopyOut(_)) => {
            return Err(ApiError::bad_request("COPY needs the Postgres protocol")
                .with("hint", "POST rows to /api/v1/tables/<table>/rows; read them with Accept: text/csv".into()));
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
    // What its functions said is sent.
    session.end_implicit();
    let columns = schema
        .fields()
        .iter()
        .map(|field| json!({ "name": field.name(), "type": cell::type_name(field) }))
        .collect::<Value>();
    let command = match tag {
        RowsTag::Written { .. } => tag.complete(0),
        _ => RowsTag::Select.complete(rows.len() as u64),
    };
    Ok(Json(json!({
        "command": command,
        "columns": columns,
        "row_count": rows.len(),
        "rows": rows,
        "truncated": truncated,
        "elapsed_ms": elapsed(&state, started_us),
    }))
    .into_response())
}

/// The rows of a query as objects, for other parts of the API.
pub(super) async fn objects(state: &State, sql: &str) -> Result<Vec<Value>, ApiError> {
    let startup =
        Startup { user: "tidemill".into(), database: "tidemill".into(), client: "http".into(), settings: Vec::new() };
    let mut session = Session::open(&state.shared, &startup)?;
    let Some(Response::Rows(rows)) = run(&mut session, sql).await? else { return Ok(Vec::new()) };
    let names: Vec<String> = rows.schema.fields().iter().map(|field| field.name().clone()).collect();
    let (rows, _) = collect(&rows.schema, rows.batches, usize::MAX).await?;
    let object = |row: Value| match row {
        Value::Array(values) => Value::Object(names.iter().cloned().zip(values).collect()),
        other => other,
    };
    Ok(rows.into_iter().map(object).collect())
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
async fn run(session: &mut Session, sql: &str) -> Result<Option<Response>, ApiError> {
    let mut last = None;
    for statement in statement::parse(sql)? {
        if let Some(Response::Rows(mut rows)) = last.take() {
            if rows.live {
                return Err(ApiError::bad_request("SUBSCRIBE never ends: it must be the last statement"));
            }
            while let Some(batch) = rows.batches.next().await {
                batch?;
            }
        }
        match session.run(&statement).await {
            Ok(response) => last = Some(response),
            Err(error) => {
                session.failed();
                return Err(error.shifted(statement.offset).into());
            }
        }
    }
    Ok(last)
}

async fn collect(
    schema: &SchemaRef,
    mut batches: session::Batches,
    max_rows: usize,
) -> Result<(Vec<Value>, bool), ApiError> {
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
    batches: session::Batches,
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
