//! The schema registry: what its requests mean, with the words and codes of Confluent's, whose clients ask it.
//!
//! ```text
//! subject ─► versions 1, 2, 3 … (some deleted) ─► id ─► schema      one id for one schema, in however many subjects
//! register: known in the subject → its id; else checked against the versions that the level asks for, and tried out on all that depends on the subject → the next version
//! ```
//!
//! Deleting is done in two steps: at first a version is out of sight, and its id still answers for messages that were written with it; with `permanent` it is gone.

mod change;
mod error;
mod users;
mod verdicts;
mod writers;

use std::{collections::BTreeSet, sync::Arc};

use ring::digest::{SHA256, digest};
use tidemill_ingest::schemas::{Kind, Level, Misfit, Schema, misfits};

pub use self::{
    change::{Added, Proposal, check, delete_subject, delete_version, list, propose, register, set_level},
    error::RegistryError,
    users::Users,
    verdicts::Verdict,
};
use crate::catalog::subjects::{KnownSchema, Picture, SchemaReference, SubjectVersion};

type Result<T> = std::result::Result<T, RegistryError>;

/// Schemas that one schema may refer to, through others included.
const REFERENCES_MAX: usize = 200;
const SUBJECT_BYTES_MAX: usize = 500;

/// A schema that somebody sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub kind: Kind,
    pub text: String,
    pub references: Vec<SchemaReference>,
}

/// A version as it is answered.
#[derive(Clone, Debug)]
pub struct Found {
    pub subject: String,
    pub version: u32,
    pub id: u32,
    pub schema: Arc<KnownSchema>,
}

/// `latest`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Latest,
    Number(u32),
}

impl Wanted {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "latest" | "-1" => Ok(Self::Latest),
            text => match text.parse() {
                Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(Self::Number(number)),
                _ => Err(RegistryError::invalid_version(text)),
            },
        }
    }
}

/// The version of a subject that has the schema.
pub fn look_up(picture: &Picture, subject: &str, sent: &Sent, with_deleted: bool) -> Result<Found> {
    let versions = picture.subjects.get(subject).ok_or_else(|| RegistryError::no_subject(subject))?;
    if !with_deleted && versions.values().all(|version| version.is_deleted) {
        return Err(RegistryError::no_subject(subject));
    }
    let (_, digest) = read(picture, sent)?;
    let id = picture.by_digest.get(&digest).copied();
    let mut of_schema =
        versions.iter().filter(|(_, version)| Some(version.id) == id && (with_deleted || !version.is_deleted));
    let (version, known) = of_schema.next_back().ok_or_else(RegistryError::no_schema)?;
    found(picture, subject, *version, known)
}

/// A version of a subject.
pub fn version(picture: &Picture, subject: &str, wanted: Wanted, with_deleted: bool) -> Result<Found> {
    let versions = picture.subjects.get(subject).ok_or_else(|| RegistryError::no_subject(subject))?;
    let mut seen = versions.iter().filter(|(_, version)| with_deleted || !version.is_deleted);
    if seen.clone().next().is_none() {
        return Err(RegistryError::no_subject(subject));
    }
    let one = match wanted {
        Wanted::Latest => seen.next_back(),
        Wanted::Number(number) => seen.find(|(version, _)| **version == number),
    };
    let (number, known) = one.ok_or_else(|| RegistryError::no_version(wanted))?;
    found(picture, subject, *number, known)
}

fn found(picture: &Picture, subject: &str, version: u32, known: &SubjectVersion) -> Result<Found> {
    let schema = schema(picture, known.id)?;
    Ok(Found { subject: subject.to_owned(), version, id: known.id, schema })
}

pub fn schema(picture: &Picture, id: u32) -> Result<Arc<KnownSchema>> {
    picture.schemas.get(&id).cloned().ok_or_else(|| RegistryError::no_id(id))
}

/// A schema with what it refers to, read again.
pub fn parsed(picture: &Picture, schema: &KnownSchema) -> Result<Schema> {
    let Sent { kind, text, references } =
        Sent { kind: schema.kind, text: schema.text.clone(), references: schema.references.clone() };
    parse(picture, kind, &text, &references)
}

/// Versions that are not deleted.
fn visible<'a>(picture: &'a Picture, subject: &str) -> impl DoubleEndedIterator<Item = (u32, &'a SubjectVersion)> {
    let versions = picture.subjects.get(subject).into_iter().flatten();
    versions.filter(|(_, version)| !version.is_deleted).map(|(number, version)| (*number, version))
}

/// The newest of the versions that a schema does not go with.
fn against(
    picture: &Picture,
    subject: &str,
    new: &Schema,
    level: Level,
    versions: &[u32],
) -> Result<Option<(u32, Vec<Misfit>)>> {
    let count = match level {
        Level::None => 0,
        level if level.is_transitive() => versions.len(),
        _ => 1,
    };
    for number in versions.iter().rev().take(count) {
        let old = version(picture, subject, Wanted::Number(*number), false)?;
        let old = parsed(picture, &old.schema)?;
        let mut found = Vec::new();
        if level.is_backward() {
            found.extend(misfits(new, &old));
        }
        if level.is_forward() {
            found.extend(misfits(&old, new));
        }
        if !found.is_empty() {
            return Ok(Some((*number, found)));
        }
    }
    Ok(None)
}

fn check_name(subject: &str) -> Result<()> {
    // ":." begins a context in Confluent's registry, of which there are none here.
    let is_right = !subject.is_empty()
        && subject.len() <= SUBJECT_BYTES_MAX
        && !subject.starts_with(":.")
        && !subject.contains(char::is_control);
    if is_right { Ok(()) } else { Err(RegistryError::invalid_subject(subject)) }
}

/// The schema, and what it has in common with those that are the same.
fn read(picture: &Picture, sent: &Sent) -> Result<(Schema, String)> {
    let schema = parse(picture, sent.kind, &sent.text, &sent.references)?;
    let mut whole = format!("{}\n{}\n", sent.kind.name(), schema.identity);
    let mut references: Vec<_> = sent.references.iter().collect();
    references.sort();
    for SchemaReference { name, subject, version } in references {
        whole += &format!("{}\n", serde_json::json!([name, subject, version]));
    }
    let digest = digest(&SHA256, whole.as_bytes());
    Ok((schema, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Names and texts of what references lead to.
fn references_of(picture: &Picture, kind: Kind, references: &[SchemaReference]) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    collect(picture, kind, references, &mut BTreeSet::new(), &mut texts, 0)?;
    Ok(texts)
}

fn parse(picture: &Picture, kind: Kind, text: &str, references: &[SchemaReference]) -> Result<Schema> {
    let texts = references_of(picture, kind, references)?;
    Schema::parse(kind, text, &texts).map_err(|reason| RegistryError::invalid_schema(kind, &reason))
}

/// The texts that references lead to, what others refer to before them.
fn collect(
    picture: &Picture,
    kind: Kind,
    references: &[SchemaReference],
    seen: &mut BTreeSet<String>,
    texts: &mut Vec<(String, String)>,
    depth: usize,
) -> Result<()> {
    for SchemaReference { name, subject, version: number } in references {
        if !seen.insert(name.clone()) {
            continue;
        }
        if seen.len() > REFERENCES_MAX || depth > REFERENCES_MAX {
            return Err(RegistryError::invalid_schema(
                kind,
                &format!("it refers to more than {REFERENCES_MAX} schemas"),
            ));
        }
        // What is deleted for the time being can still be referred to by what is there already.
        let Ok(found) = version(picture, subject, Wanted::Number(*number), true) else {
            let reason = format!("it refers to version {number} of subject '{subject}', which is not there");
            return Err(RegistryError::invalid_schema(kind, &reason));
        };
        if found.schema.kind != kind {
            let of = found.schema.kind.name();
            return Err(RegistryError::invalid_schema(
                kind,
                &format!("it refers to subject '{subject}', which is {of}"),
            ));
        }
        collect(picture, kind, &found.schema.references, seen, texts, depth + 1)?;
        texts.push((name.clone(), found.schema.text.clone()));
    }
    Ok(())
}
