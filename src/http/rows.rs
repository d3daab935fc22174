//! `POST /api/v1/tables/{table}/rows`: one JSON object per line becomes one row, acknowledged when it is on disk and visible.
//!
//! A line that does not fit refuses the whole request and nothing is stored; with `?on_error=skip` the good lines are stored and the bad
//! ones named in the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::{filter_record_batch, kernels::zip::zip},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State as Shared},
    http::StatusCode,
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidemill_ingest::{
    decode::{self, EpochUnit, Format, SourceColumn},
    message::{Message, MessageBatch, Reject},
};
use tidemill_storage::{evaluate::scalar_array, schema::TableSchema};

use super::{State, error::ApiError};
use crate::session::SqlError;

/// Bad lines that an answer lists; it counts all of them.
const LISTED_MAX: usize = 100;

pub(super) async fn post(
    Shared(state): Shared<Arc<State>>,
    Path(table): Path<String>,
    Query(options): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let skip = match options.get("on_error").map(String::as_str) {
        None | Some("refuse") => false,
        Some("skip") => true,
        Some(other) => return Err(ApiError::bad_request(format!("on_error is refuse or skip, not '{other}'"))),
    };
    if let Some(unknown) = options.keys().find(|key| *key != "on_error") {
        return Err(ApiError::bad_request(format!("unknown parameter '{unknown}'; there is on_error")));
    }
    let target = state.shared.backend.write_target(&table)?;
    let schema = Arc::clone(&target.schema);
    let (rows, rejects) = crate::runtime::blocking(move || read(&schema, body)).await?;
    if !rejects.is_empty() && !skip {
        let message = format!("{} of the lines cannot be rows of table \"{table}\"; nothing was stored", rejects.len());
        let error = ApiError::new(StatusCode::BAD_REQUEST, "22P02", message);
        return Err(error
            .with("lines", listed(&rejects))
            .with("hint", "correct them, or send ?on_error=skip to store the others".into()));
    }
    let stored = rows.num_rows();
    if stored > 0 {
        state.shared.backend.append(&target, vec![rows]).await?;
    }
    ::metrics::counter!("tidemill_http_rows_total", "table" => target.name).increment(stored as u64);
    Ok(Json(json!({ "rows": stored, "rejected": rejects.len(), "lines": listed(&rejects) })))
}

fn listed(rejects: &[Reject]) -> Value {
    let lines = rejects.iter().take(LISTED_MAX);
    lines.map(|reject| json!({ "line": reject.offset, "column": reject.column, "reason": reject.reason })).collect()
}

/// The lines as rows of the table, and what does not fit. The offset of a reject is the number of its line, from 1.
fn read(schema: &TableSchema, body: Bytes) -> Result<(RecordBatch, Vec<Reject>), ApiError> {
    let columns = schema
        .columns
        .iter()
        // A column with a default may be missing from a line; see `fill_defaults`.
        .map(|column| {
            SourceColumn::new(&column.name, column.data_type.clone(), column.nullable || column.default.is_some())
        })
        .collect::<Vec<_>>();
    let format = Format::Json { epoch: EpochUnit::ByMagnitude };
    let mut decoder = decode::decoder(&format, &columns).map_err(SqlError::from)?;
    let messages = messages(body);
    let decoded = decoder.decode(&messages).map_err(SqlError::from)?;
    let mut rejects = decoded.rejects;
    let rows = fill_defaults(schema, decoded.rows, &decoded.row_offsets, &messages, &mut rejects)?;
    rejects.sort_by_key(|reject| reject.offset);
    Ok((rows, rejects))
}

/// One message per line that is not blank.
fn messages(body: Bytes) -> MessageBatch {
    let mut messages = Vec::new();
    let (mut start, mut line) = (0, 0);
    for text in body.split(|byte| *byte == b'\n') {
        line += 1;
        let end = start + text.len();
        if !text.trim_ascii().is_empty() {
            messages.push(Message {
                payload: start as u32..end as u32,
                is_null: false,
                offset: line,
                timestamp_ms: -1,
            });
        }
        start = end + 1;
    }
    MessageBatch { partition: 0, payloads: body, messages, from: 0, to: line + 1 }
}

/// Puts defaults where a line does not name the column. A line that says `null` means NULL.
fn fill_defaults(
    schema: &TableSchema,
    rows: RecordBatch,
    row_offsets: &[u64],
    messages: &MessageBatch,
    rejects: &mut Vec<Reject>,
) -> Result<RecordBatch, ApiError> {
    let wrong = |error: arrow::error::ArrowError| SqlError::internal(error.to_string());
    let by_line = messages.messages.iter().map(|message| (message.offset, message)).collect::<BTreeMap<_, _>>();
    let mut keep = vec![true; rows.num_rows()];
    let mut arrays: Vec<ArrayRef> = rows.columns().to_vec();
    for (column, array) in schema.columns.iter().zip(&mut arrays) {
        let Some(default) = column.default.as_ref().filter(|_| array.null_count() > 0) else { continue };
        let mut absent = vec![false; array.len()];
        for row in (0..array.len()).filter(|row| array.is_null(*row)) {
            let Some(message) = by_line.get(&row_offsets[row]) else { continue };
            let names =
                serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(messages.payload(message)).unwrap_or_default();
            absent[row] = !names.contains_key(&column.name);
            if !absent[row] && !column.nullable {
                keep[row] = false;
                rejects.push(Reject {
                    offset: message.offset,
                    timestamp_ms: -1,
                    column: Some(column.name.clone()),
                    reason: format!("column \"{}\" is NOT NULL", column.name),
                    raw: Bytes::copy_from_slice(messages.payload(message)),
                });
            }
        }
        let value = arrow::array::Scalar::new(
            scalar_array(default, &column.data_type).map_err(|error| SqlError::internal(error.to_string()))?,
        );
        *array = zip(&BooleanArray::from(absent), &value, array).map_err(wrong)?;
    }
    // A line is refused once, whatever is wrong with it.
    let mut seen = BTreeSet::new();
    rejects.retain(|reject| seen.insert(reject.offset));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let nullable = RecordBatch::try_new_with_options(rows.schema(), arrays, &options).map_err(wrong)?;
    let kept = filter_record_batch(&nullable, &BooleanArray::from(keep)).map_err(wrong)?;
    let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.arrow(), kept.columns().to_vec(), &options).map_err(wrong)?)
}
