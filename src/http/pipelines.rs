//! `/api/v1/pipelines`: the life of pipelines in JSON.
//!
//! | request | statement |
//! |---|---|
//! | `GET /` , `GET /{name}` | rows of `rt.pipelines` |
//! | `GET /{name}/checkpoints` | rows of `rt.checkpoints` |
//! | `POST /validate` | EXPLAIN CREATE PIPELINE |
//! | `POST /` | CREATE PIPELINE |
//! | `PATCH /{name}` | ALTER PIPELINE … SET, RENAME TO |
//! | `POST /{name}/pause`, `/resume`, `/restart` | ALTER PIPELINE … PAUSE, RESUME, RESTART [FROM CHECKPOINT n] |
//! | `DELETE /{name}` | DROP PIPELINE |
//!
//! Each is the statement beside it and nothing more, so what it answers, refuses and says of errors is that.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State as Shared},
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{State, error::ApiError, query};
use crate::{
    ddl,
    session::{SqlError, backend::DdlOutcome},
};

pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(list).post(create))
        .route("/validate", post(validate))
        .route("/{name}", get(one).patch(alter).delete(drop))
        .route("/{name}/checkpoints", get(checkpoints))
        .route("/{name}/{action}", post(act))
}

/// What CREATE PIPELINE says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    into: Vec<Target>,
    query: String,
    #[serde(default)]
    options: BTreeMap<String, Value>,
    #[serde(default)]
    or_replace: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Target {
    Name(String),
    Columns { name: String, columns: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: Option<String>,
    #[serde(default)]
    options: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    checkpoint: Option<u64>,
}

impl Definition {
    /// The statement, and where in it the query begins, in characters from 0.
    fn sql(&self, verb: &str) -> Result<(String, u32), ApiError> {
        if self.into.is_empty() {
            return Err(ApiError::bad_request("\"into\" names no table and no sink"));
        }
        let target = |target: &Target| match target {
            Target::Name(name) => identifier(name),
            Target::Columns { name, columns } => {
                let columns: Vec<String> = columns.iter().map(|column| identifier(column)).collect();
                format!("{} ({})", identifier(name), columns.join(", "))
            }
        };
        let into: Vec<String> = self.into.iter().map(target).collect();
        let replace = if self.or_replace { "OR REPLACE " } else { "" };
        let with = match self.options.is_empty() {
            true => String::new(),
            false => format!(" WITH {}", options(&self.options)?),
        };
        let name = identifier(&self.name);
        let head = format!("{verb} {replace}PIPELINE {name} INTO {}{with} AS ", into.join(", "));
        let begin = head.chars().count() as u32;
        Ok((head + &self.query, begin))
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `("key" = 'value', …)`
fn options(options: &BTreeMap<String, Value>) -> Result<String, ApiError> {
    let pair = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                return Err(ApiError::bad_request(format!("option \"{key}\" takes a string, a number, true or false")));
            }
        };
        Ok(format!("{} = {}", identifier(key), literal(&value)))
    };
    Ok(format!("({})", options.iter().map(pair).collect::<Result<Vec<_>, _>>()?.join(", ")))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the body is not what is wanted: {error}"))
            .with("hint", "/api/v1/openapi.json describes it".into())
    })
}

/// Runs a statement of which the client sent names and options, so that a position in it would say nothing to it.
async fn execute(state: &State, sql: &str) -> Result<DdlOutcome, ApiError> {
    Ok(ddl::execute(&state.instance, sql).await.map_err(|error| SqlError { position: None, ..error })?)
}

/// Runs one with the client's query in it, which begins at `begin`.
async fn execute_query(state: &State, (sql, begin): (String, u32)) -> Result<DdlOutcome, ApiError> {
    ddl::execute(&state.instance, &sql).await.map_err(|error| in_query(error, begin))
}

/// Positions are those in the query that was sent.
fn in_query(error: SqlError, begin: u32) -> ApiError {
    let position = error.position.and_then(|position| position.checked_sub(begin)).filter(|position| *position > 0);
    SqlError { position, ..error }.into()
}

async fn described(state: &State, name: &str) -> Result<Value, ApiError> {
    let sql = format!("SELECT * FROM rt.pipelines WHERE name = {}", literal(name));
    let found = query::objects(state, &sql).await?.pop();
    found.ok_or_else(|| ApiError::not_found(format!("pipeline \"{name}\" does not exist")))
}

async fn list(Shared(state): Shared<Arc<State>>) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let pipelines = query::objects(&state, "SELECT * FROM rt.pipelines ORDER BY name").await?;
    Ok(Json(json!({ "pipelines": pipelines })))
}

async fn one(Shared(state): Shared<Arc<State>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    described(&state, &name).await.map(Json)
}

async fn checkpoints(Shared(state): Shared<Arc<State>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    described(&state, &name).await?;
    let sql = format!("SELECT * FROM rt.checkpoints WHERE pipeline = {} ORDER BY id", literal(&name));
    Ok(Json(json!({ "checkpoints": query::objects(&state, &sql).await? })))
}

async fn validate(Shared(state): Shared<Arc<State>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let done = execute_query(&state, read::<Definition>(&body)?.sql("EXPLAIN CREATE")?).await?;
    Ok(Json(json!({ "valid": true, "plan": done.lines, "notices": done.notices })))
}

async fn create(Shared(state): Shared<Arc<State>>, body: Bytes) -> Result<(StatusCode, Json<Value>), ApiError> {
    state.check_ready()?;
    let definition: Definition = read(&body)?;
    let done = execute_query(&state, definition.sql("CREATE")?).await?;
    Ok((StatusCode::CREATED, answer(&state, &definition.name, done).await?))
}

async fn alter(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let change: Change = read(&body)?;
    let mut notices = Vec::new();
    if !change.options.is_empty() {
        let sql = format!("ALTER PIPELINE {} SET {}", identifier(&name), options(&change.options)?);
        notices.extend(execute(&state, &sql).await?.notices);
    }
    let name = match &change.name {
        Some(new) => {
            let sql = format!("ALTER PIPELINE {} RENAME TO {}", identifier(&name), identifier(new));
            notices.extend(execute(&state, &sql).await?.notices);
            new.clone()
        }
        None => name,
    };
    answer(&state, &name, DdlOutcome { notices, ..DdlOutcome::default() }).await
}

async fn act(
    Shared(state): Shared<Arc<State>>,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let clause = match action.as_str() {
        "pause" => "PAUSE".to_owned(),
        "resume" => "RESUME".to_owned(),
        "restart" => {
            let Restart { checkpoint } = if body.is_empty() { Restart::default() } else { read(&body)? };
            checkpoint.map_or_else(|| "RESTART".to_owned(), |id| format!("RESTART FROM CHECKPOINT {id}"))
        }
        _ => {
            return Err(ApiError::not_found(format!(
                "a pipeline has no \"{action}\"; it has pause, resume and restart"
            )));
        }
    };
    let done = execute(&state, &format!("ALTER PIPELINE {} {clause}", identifier(&name))).await?;
    answer(&state, &name, done).await
}

async fn drop(Shared(state): Shared<Arc<State>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    state.check_ready()?;
    let done = execute(&state, &format!("DROP PIPELINE {}", identifier(&name))).await?;
    Ok(Json(json!({ "dropped": name, "notices": done.notices })))
}

/// The pipeline as it is now, and what the statement said.
async fn answer(state: &State, name: &str, done: DdlOutcome) -> Result<Json<Value>, ApiError> {
    let mut pipeline = described(state, name).await?;
    pipeline["notices"] = done.notices.into();
    Ok(Json(pipeline))
}
