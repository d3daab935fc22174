//! `/api/v1/schemas`: the schema registry, as clients of Confluent's know it.
//!
//! | path | methods |
//! |---|---|
//! | `/subjects`, `/subjects/{s}` | GET; POST (look a schema up), DELETE |
//! | `/subjects/{s}/versions`, `…/{v}`, `…/{v}/schema`, `…/{v}/referencedby` | GET, POST; GET, DELETE |
//! | `/schemas/ids/{id}`, `…/schema`, `…/subjects`, `…/versions`; `/schemas/types` | GET |
//! | `/compatibility/subjects/{s}/versions`, `…/{v}` | POST |
//! | `/config`, `/config/{s}` | GET, PUT, DELETE |
//! | `/mode` | GET |
//!
//! It answers before tables are open: sources that wait for their schemas may ask it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_ingest::schemas::{Kind, Level};

use super::State;
use crate::{
    catalog::subjects::{KnownSchema, Picture, SchemaReference},
    runtime,
    subjects::{self, Found, RegistryError, Sent, Wanted},
};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

type Answer = Result<Reply, RegistryError>;
type Options = Query<BTreeMap<String, String>>;

/// JSON with the registry's content type.
struct Reply(Value);

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Reply(json!({ "error_code": self.code, "message": self.message }))).into_response()
    }
}

pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(async || Reply(json!({}))))
        .route("/subjects", get(list))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .route("/schemas/types", get(async || Reply(Kind::ALL.iter().map(|kind| kind.name()).collect())))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/subjects", get(subjects_of))
        .route("/schemas/ids/{id}/versions", get(versions_of))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check_one))
        .route("/config", get(level).put(set_level).delete(reset_level))
        .route("/config/{subject}", get(level_of).put(set_level_of).delete(reset_level_of))
        .route("/mode", get(async || Reply(json!({ "mode": "READWRITE" }))))
        .fallback(async || RegistryError::no_path())
        .method_not_allowed_fallback(async || RegistryError::no_method())
}

/// What POST brings. Members that only tell what the answer may have are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    schema: Option<String>,
    schema_type: Option<String>,
    references: Option<Vec<SchemaReference>>,
    metadata: Option<Value>,
    rule_set: Option<Value>,
}

fn posted(body: &Bytes) -> Result<Sent, RegistryError> {
    let posted: Posted = serde_json::from_slice(body)
        .map_err(|error| RegistryError::invalid_request(&format!("the body is not {{\"schema\": \"…\"}}: {error}")))?;
    // Rules transform or encrypt what clients write: who believes that they are kept writes other data than readers expect.
    for (name, given) in [("metadata", &posted.metadata), ("ruleSet", &posted.rule_set)] {
        if given.as_ref().is_some_and(|given| !given.is_null()) {
            return Err(RegistryError::invalid_request(&format!("'{name}' is not kept here; leave it out")));
        }
    }
    let kind = match posted.schema_type.as_deref() {
        None => Kind::Avro,
        Some(name) => Kind::parse(name).ok_or_else(|| {
            RegistryError::invalid_request(&format!("'{name}' is no type: there are AVRO, PROTOBUF and JSON"))
        })?,
    };
    let text = posted.schema.filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| RegistryError::invalid_request("the body has no 'schema'"))?;
    Ok(Sent { kind, text, references: posted.references.unwrap_or_default() })
}

fn is_set(options: &BTreeMap<String, String>, name: &str) -> bool {
    options.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn picture(state: &State) -> Arc<Picture> {
    state.instance.subjects.picture()
}

/// A schema without its id. Of Avro the type is not told, and empty references are not, as clients are used to.
fn shown(picture: &Picture, schema: &KnownSchema, format: Option<&String>) -> Result<Value, RegistryError> {
    let mut text = schema.text.clone();
    if format.is_some_and(|format| format == "serialized") && schema.kind == Kind::Protobuf {
        let file = subjects::parsed(picture, schema)?.descriptor().unwrap_or_default();
        text = STANDARD.encode(file);
    }
    let mut answer = json!({ "schema": text });
    if schema.kind != Kind::Avro {
        answer["schemaType"] = schema.kind.name().into();
    }
    if !schema.references.is_empty() {
        let reference = |of: &SchemaReference| json!({ "name": of.name, "subject": of.subject, "version": of.version });
        answer["references"] = schema.references.iter().map(reference).collect();
    }
    Ok(answer)
}

fn shown_version(picture: &Picture, found: &Found, format: Option<&String>) -> Answer {
    let mut answer = shown(picture, &found.schema, format)?;
    answer["subject"] = found.subject.as_str().into();
    answer["version"] = found.version.into();
    answer["id"] = found.id.into();
    Ok(Reply(answer))
}

async fn list(Shared(state): Shared<Arc<State>>, Query(options): Options) -> Reply {
    let picture = picture(&state);
    let prefix = options.get("subjectPrefix").map_or("", String::as_str);
    let (all, only) = (is_set(&options, "deleted"), is_set(&options, "deletedOnly"));
    let names = picture.subjects.iter().filter(|(name, versions)| {
        let is_deleted = versions.values().all(|version| version.is_deleted);
        name.starts_with(prefix) && if only { is_deleted } else { all || !is_deleted }
    });
    Reply(names.map(|(name, _)| name.as_str()).collect())
}

async fn versions(Shared(state): Shared<Arc<State>>, Path(subject): Path<String>, Query(options): Options) -> Answer {
    let picture = picture(&state);
    let (all, only) = (is_set(&options, "deleted"), is_set(&options, "deletedOnly"));
    // Says whether there is any, and what else.
    subjects::version(&picture, &subject, Wanted::Latest, all || only)?;
    let versions = picture.subjects.get(&subject).into_iter().flatten();
    let seen = versions.filter(|(_, version)| if only { version.is_deleted } else { all || !version.is_deleted });
    Ok(Reply(seen.map(|(number, _)| *number).collect()))
}

async fn register(
    Shared(state): Shared<Arc<State>>,
    Path(subject): Path<String>,
    Query(options): Options,
    body: Bytes,
) -> Answer {
    let (sent, force) = (posted(&body)?, is_set(&options, "force"));
    let added = runtime::blocking(move || subjects::register(&state.instance, &subject, &sent, None, force)).await?;
    Ok(Reply(json!({ "id": added.id, "version": added.version })))
}

async fn look_up(
    Shared(state): Shared<Arc<State>>,
    Path(subject): Path<String>,
    Query(options): Options,
    body: Bytes,
) -> Answer {
    let picture = picture(&state);
    let found = subjects::look_up(&picture, &subject, &posted(&body)?, is_set(&options, "deleted"))?;
    shown_version(&picture, &found, None)
}

async fn version(
    Shared(state): Shared<Arc<State>>,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Options,
) -> Answer {
    let picture = picture(&state);
    let found = subjects::version(&picture, &subject, Wanted::parse(&version)?, is_set(&options, "deleted"))?;
    shown_version(&picture, &found, options.get("format"))
}

async fn version_text(
    Shared(state): Shared<Arc<State>>,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Options,
) -> Result<Response, RegistryError> {
    let picture = picture(&state);
    let found = subjects::version(&picture, &subject, Wanted::parse(&version)?, is_set(&options, "deleted"))?;
    Ok(text(&found.schema))
}

async fn referenced_by(Shared(state): Shared<Arc<State>>, Path((subject, version)): Path<(String, String)>) -> Answer {
    let picture = picture(&state);
    let found = subjects::version(&picture, &subject, Wanted::parse(&version)?, false)?;
    Ok(Reply(picture.referring_to(&subject, found.version).into()))
}

async fn delete_subject(
    Shared(state): Shared<Arc<State>>,
    Path(subject): Path<String>,
    Query(options): Options,
) -> Answer {
    let (is_permanent, force) = (is_set(&options, "permanent"), is_set(&options, "force"));
    let delete = move || subjects::delete_subject(&state.instance, &subject, is_permanent, force);
    Ok(Reply(runtime::blocking(delete).await?.into()))
}

async fn delete_version(
    Shared(state): Shared<Arc<State>>,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Options,
) -> Answer {
    let (is_permanent, force) = (is_set(&options, "permanent"), is_set(&options, "force"));
    let wanted = Wanted::parse(&version)?;
    let delete = move || subjects::delete_version(&state.instance, &subject, wanted, is_permanent, force);
    Ok(Reply(runtime::blocking(delete).await?.into()))
}

async fn schema(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, Query(options): Options) -> Answer {
    let picture = picture(&state);
    let known = by_id(&picture, &id)?;
    shown(&picture, &known, options.get("format")).map(Reply)
}

async fn schema_text(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Result<Response, RegistryError> {
    Ok(text(&*by_id(&picture(&state), &id)?))
}

fn text(schema: &KnownSchema) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], schema.text.clone()).into_response()
}

fn by_id(picture: &Picture, id: &str) -> Result<Arc<KnownSchema>, RegistryError> {
    subjects::schema(picture, id.parse().map_err(|_| RegistryError::no_path())?)
}

async fn subjects_of(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, Query(options): Options) -> Answer {
    let users = users(&picture(&state), &id, is_set(&options, "deleted"))?;
    let mut names: Vec<String> = users.into_iter().map(|(subject, _)| subject).collect();
    names.dedup();
    Ok(Reply(names.into()))
}

async fn versions_of(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, Query(options): Options) -> Answer {
    let users = users(&picture(&state), &id, is_set(&options, "deleted"))?;
    Ok(Reply(users.into_iter().map(|(subject, version)| json!({ "subject": subject, "version": version })).collect()))
}

/// Subjects and versions that have a schema.
fn users(picture: &Picture, id: &str, with_deleted: bool) -> Result<Vec<(String, u32)>, RegistryError> {
    by_id(picture, id)?;
    let id: u32 = id.parse().map_err(|_| RegistryError::no_path())?;
    let all = picture.subjects.iter().flat_map(|(name, versions)| versions.iter().map(move |version| (name, version)));
    let of = all.filter(|(_, (_, version))| version.id == id && (with_deleted || !version.is_deleted));
    Ok(of.map(|(name, (number, _))| (name.clone(), *number)).collect())
}

async fn check_all(
    Shared(state): Shared<Arc<State>>,
    Path(subject): Path<String>,
    Query(options): Options,
    body: Bytes,
) -> Answer {
    check(state, subject, None, &options, &body).await
}

async fn check_one(
    Shared(state): Shared<Arc<State>>,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Options,
    body: Bytes,
) -> Answer {
    check(state, subject, Some(Wanted::parse(&version)?), &options, &body).await
}

async fn check(
    state: Arc<State>,
    subject: String,
    wanted: Option<Wanted>,
    options: &BTreeMap<String, String>,
    body: &Bytes,
) -> Answer {
    let sent = posted(body)?;
    let check = move || subjects::check(&state.instance, &picture(&state), &subject, &sent, wanted);
    let found = runtime::blocking(check).await?;
    let mut answer = json!({ "is_compatible": found.is_empty() });
    if is_set(options, "verbose") {
        answer["messages"] = found.into();
    }
    Ok(Reply(answer))
}

async fn level(Shared(state): Shared<Arc<State>>) -> Reply {
    Reply(json!({ "compatibilityLevel": picture(&state).level().name() }))
}

async fn level_of(Shared(state): Shared<Arc<State>>, Path(subject): Path<String>, Query(options): Options) -> Answer {
    let picture = picture(&state);
    let own = picture.level_of(&subject);
    let level = own.or_else(|| is_set(&options, "defaultToGlobal").then(|| picture.level()));
    let level = level.ok_or_else(|| RegistryError::no_level(&subject))?;
    Ok(Reply(json!({ "compatibilityLevel": level.name() })))
}

#[derive(Deserialize)]
struct NewLevel {
    compatibility: String,
}

async fn set(state: Arc<State>, subject: Option<String>, body: Bytes) -> Answer {
    let new: NewLevel =
        serde_json::from_slice(&body).map_err(|error| RegistryError::invalid_level(&error.to_string()))?;
    let level = Level::parse(&new.compatibility).ok_or_else(|| RegistryError::invalid_level(&new.compatibility))?;
    runtime::blocking(move || subjects::set_level(&state.instance, subject.as_deref(), Some(level))).await?;
    Ok(Reply(json!({ "compatibility": level.name() })))
}

async fn set_level(Shared(state): Shared<Arc<State>>, body: Bytes) -> Answer {
    set(state, None, body).await
}

async fn set_level_of(Shared(state): Shared<Arc<State>>, Path(subject): Path<String>, body: Bytes) -> Answer {
    set(state, Some(subject), body).await
}

/// Answers with what was.
async fn reset(state: Arc<State>, subject: Option<String>) -> Answer {
    let picture = picture(&state);
    let before = match &subject {
        Some(subject) => picture.level_of(subject).ok_or_else(|| RegistryError::no_level(subject))?,
        None => picture.level(),
    };
    runtime::blocking(move || subjects::set_level(&state.instance, subject.as_deref(), None)).await?;
    Ok(Reply(json!({ "compatibilityLevel": before.name() })))
}

async fn reset_level(Shared(state): Shared<Arc<State>>) -> Answer {
    reset(state, None).await
}

async fn reset_level_of(Shared(state): Shared<Arc<State>>, Path(subject): Path<String>) -> Answer {
    reset(state, Some(subject)).await
}
