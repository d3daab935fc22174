//! CREATE, ALTER and DROP SUBJECT: the same registry that answers over HTTP.

use std::sync::Arc;

use tidemill_ingest::schemas::{Kind, Level};

use crate::{
    catalog::subjects::Picture,
    runtime,
    server::instance::Instance,
    session::error::{Result, SqlError, state},
    sql::{
        ast::{AlterSubject, AlterSubjectAction, CreateSubject, DropSubject, Name, OptionPair, SchemaText},
        options::unknown,
    },
    subjects::{self, RegistryError, Sent, Verdict, Wanted},
    suggest,
};

const LEVELS: &str =
    "it takes none, backward, backward_transitive, forward, forward_transitive, full, full_transitive or default";

/// What ALTER SUBJECT says, and the rows of PROPOSE.
#[derive(Default)]
pub(super) struct Altered {
    pub(super) notices: Vec<String>,
    pub(super) verdicts: Vec<[String; 4]>,
}

impl From<RegistryError> for SqlError {
    fn from(error: RegistryError) -> Self {
        let of_others = error.broken.iter().any(|verdict| verdict.kind != "subject");
        let state = match (error.status, error.code) {
            (_, 42206) => state::DEPENDENT_OBJECTS_STILL_EXIST,
            (404, _) => state::UNDEFINED_OBJECT,
            (409, _) if of_others => state::DEPENDENT_OBJECTS_STILL_EXIST,
            (409, _) => state::DATATYPE_MISMATCH,
            (422, _) => state::INVALID_PARAMETER_VALUE,
            _ => state::IO_ERROR,
        };
        match error.broken.is_empty() {
            true => Self::new(state, error.message),
            false => Self::new(state, "the schema breaks what depends on the subject"),
        }
    }
}

/// Errors: 42710 for a subject that is there, 22023 for a schema that is none.
pub(super) async fn create(instance: &Arc<Instance>, statement: CreateSubject) -> Result<Vec<String>> {
    let CreateSubject { name, if_not_exists, options, schema } = statement;
    let picture = instance.subjects.picture();
    if is_there(&picture, &name.value) {
        let message = format!("subject \"{}\" already exists", name.value);
        return match if_not_exists {
            true => Ok(vec![format!("{message}, skipping")]),
            false => Err(SqlError::new(state::DUPLICATE_OBJECT, message)
                .at(name.position)
                .with_hint("ALTER SUBJECT … ADD VERSION adds another schema to it")),
        };
    }
    let (mut kind, mut level) = (Kind::Avro, None);
    for pair in &options {
        match pair.key.value.to_lowercase().as_str() {
            "type" => {
                kind = Kind::parse(pair.value.trim()).ok_or_else(|| {
                    wrong(pair, format!("type '{}' is no language of schemas", pair.value))
                        .with_hint("it takes avro, protobuf or json")
                })?;
            }
            "compatibility" => level = level_of(pair)?,
            other => return Err(unknown("subject", other, ["type", "compatibility"]).at(pair.key.position)),
        }
    }
    let SchemaText { text, position } = schema;
    let sent = Sent { kind, text, references: Vec::new() };
    let instance = Arc::clone(instance);
    runtime::blocking(move || subjects::register(&instance, &name.value, &sent, level, false))
        .await
        .map(|_| Vec::new())
        .map_err(|error| SqlError::from(error).at(position))
}

/// Errors: 42704 for a subject that is not there; of ADD VERSION 22023 for a schema that is none, 42804 for one that does not go with the subject's earlier ones, 2BP01 when it breaks
/// what depends on the subject.
pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterSubject) -> Result<Altered> {
    let AlterSubject { name, if_exists, action } = statement;
    let picture = instance.subjects.picture();
    if !is_there(&picture, &name.value) {
        let error = undefined_subject(&picture, &name);
        return match if_exists {
            true => Ok(Altered { notices: vec![format!("{}, skipping", error.message)], ..Altered::default() }),
            false => Err(error),
        };
    }
    let instance = Arc::clone(instance);
    match action {
        AlterSubjectAction::Set(options) => {
            let mut level = None;
            for pair in &options {
                match pair.key.value.to_lowercase().as_str() {
                    "compatibility" => level = Some(level_of(pair)?),
                    "type" => {
                        return Err(SqlError::unsupported("the type of a subject cannot be changed")
                            .at(pair.key.position)
                            .with_hint("make another subject"));
                    }
                    other => return Err(unknown("subject", other, ["compatibility"]).at(pair.key.position)),
                }
            }
            let Some(level) = level else { return Ok(Altered::default()) };
            runtime::blocking(move || subjects::set_level(&instance, Some(&name.value), level)).await?;
            Ok(Altered::default())
        }
        AlterSubjectAction::Propose(SchemaText { text, position }) => {
            let sent = sent(&picture, &name.value, text)?;
            let proposal = runtime::blocking(move || subjects::propose(&instance, &picture, &name.value, &sent)).await;
            let proposal = proposal.map_err(|error| SqlError::from(error).at(position))?;
            let row = |verdict: &Verdict| {
                let reason = verdict.breaks.clone().unwrap_or_default();
                [verdict.object.clone(), verdict.kind.to_owned(), verdict.name().to_owned(), reason]
            };
            Ok(Altered { verdicts: proposal.verdicts.iter().map(row).collect(), ..Altered::default() })
        }
        AlterSubjectAction::Add { schema: SchemaText { text, position }, force } => {
            let sent = sent(&picture, &name.value, text)?;
            let subject = name.value.clone();
            let added = runtime::blocking(move || subjects::register(&instance, &subject, &sent, None, force)).await;
            let added = added.map_err(|error| refused(&name.value, error).at(position))?;
            let notice = format!("subject \"{}\" has the schema already, as version {}", name.value, added.version);
            Ok(Altered { notices: if added.is_new { Vec::new() } else { vec![notice] }, ..Altered::default() })
        }
    }
}

/// Errors: 42704 for what is not there, 2BP01 for what somebody uses.
pub(super) async fn drop(instance: &Arc<Instance>, statement: DropSubject) -> Result<Vec<String>> {
    let DropSubject { name, if_exists, version, force } = statement;
    let picture = instance.subjects.picture();
    let missing = match version {
        _ if !is_there(&picture, &name.value) => Some(undefined_subject(&picture, &name)),
        Some(number) => subjects::version(&picture, &name.value, Wanted::Number(number), false).err().map(|_| {
            let message = format!("subject \"{}\" has no version {number}", name.value);
            SqlError::new(state::UNDEFINED_OBJECT, message).at(name.position)
        }),
        None => None,
    };
    if let Some(error) = missing {
        return if if_exists { Ok(vec![format!("{}, skipping", error.message)]) } else { Err(error) };
    }
    let (instance, subject) = (Arc::clone(instance), name.value.clone());
    let dropped = runtime::blocking(move || match version {
        Some(number) => subjects::delete_version(&instance, &subject, Wanted::Number(number), false, force).map(|_| ()),
        None => subjects::delete_subject(&instance, &subject, false, force).map(|_| ()),
    });
    dropped.await.map(|()| Vec::new()).map_err(|error| {
        let detail = error.message.clone();
        let is_used = error.code == 42206;
        let error = SqlError::from(error).at(name.position);
        match is_used {
            true => SqlError { message: format!("cannot drop subject \"{}\" because others use it", name.value), ..error }
                .with_detail(detail)
                .with_hint(
                    "drop them first; FORCE drops it all the same, but not what other schemas refer to: messages stay readable by the ids of their schemas",
                ),
            false => error,
        }
    })
}

fn refused(subject: &str, error: RegistryError) -> SqlError {
    let broken = error.broken.clone();
    let made = SqlError::from(error);
    if broken.is_empty() {
        return made;
    }
    let lines: Vec<String> = broken.iter().map(|verdict| subjects::list(std::slice::from_ref(verdict))).collect();
    let message =
        format!("the schema cannot be the next version of subject \"{subject}\": it breaks {}", objects(&broken));
    SqlError { message, ..made }
        .with_detail(lines.join("\n"))
        .with_hint("ALTER SUBJECT … PROPOSE shows all verdicts; ADD VERSION '…' FORCE adds it all the same")
}

fn objects(broken: &[Verdict]) -> String {
    let names: Vec<String> = broken.iter().map(|verdict| format!("{} \"{}\"", verdict.kind, verdict.object)).collect();
    names.join(", ")
}

/// A schema as the subject's newest one is: of its language, with what that refers to.
fn sent(picture: &Picture, subject: &str, text: String) -> Result<Sent> {
    let latest = subjects::version(picture, subject, Wanted::Latest, false)?;
    Ok(Sent { kind: latest.schema.kind, text, references: latest.schema.references.clone() })
}

fn is_there(picture: &Picture, subject: &str) -> bool {
    subjects::version(picture, subject, Wanted::Latest, false).is_ok()
}

fn wrong(pair: &OptionPair, message: String) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(pair.value_position)
}

/// `None`: as all subjects that have no level of their own.
fn level_of(pair: &OptionPair) -> Result<Option<Level>> {
    match pair.value.trim() {
        "default" => Ok(None),
        text => Level::parse(text)
            .map(Some)
            .ok_or_else(|| wrong(pair, format!("compatibility '{text}' is not known")).with_hint(LEVELS)),
    }
}

fn undefined_subject(picture: &Picture, name: &Name) -> SqlError {
    let message = format!("subject \"{}\" does not exist", name.value);
    let error = SqlError::new(state::UNDEFINED_OBJECT, message).at(name.position);
    let visible = picture.subjects.iter().filter(|(_, versions)| versions.values().any(|version| !version.is_deleted));
    match suggest::hint(&name.value, visible.map(|(name, _)| name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
