//! The schemas of the registry in the metadata file, and the picture of them that everybody reads.
//!
//! ```text
//!   registry_schemas    id → JSON KnownSchema
//!   registry_versions   (subject, version) → JSON SubjectVersion
//!   registry_levels     subject, or "" for all → compatibility level
//!   registry_next       "id" → next id
//! ```
//!
//! What always holds: a change is durable before anybody sees it; an id is never used twice; a schema is there as long as a version has it, deleted for the time being or not; a picture never changes, a
//! change makes the next one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use redb::{ReadTransaction, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tidemill_ingest::schemas::{Kind, Level};

use super::database::{Change, Database, DatabaseError, Result};

const SCHEMAS: TableDefinition<u32, &[u8]> = TableDefinition::new("registry_schemas");
const VERSIONS: TableDefinition<(&str, u32), &[u8]> = TableDefinition::new("registry_versions");
const LEVELS: TableDefinition<&str, &str> = TableDefinition::new("registry_levels");
const NEXT: TableDefinition<&str, u32> = TableDefinition::new("registry_next");

/// Where the level of all subjects stands.
const ALL: &str = "";

/// A version of a subject that another schema uses, by the name that it has for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SchemaReference {
    pub name: String,
    pub subject: String,
    pub version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSchema {
    pub kind: Kind,
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<SchemaReference>,
    /// The same for schemas that are the same.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectVersion {
    pub id: u32,
    /// It may come back; nobody but who asks for it sees it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
    pub at_us: i64,
}

/// All schemas at one moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub schemas: BTreeMap<u32, Arc<KnownSchema>>,
    pub by_digest: HashMap<String, u32>,
    /// Versions of subjects, deleted ones too.
    pub subjects: BTreeMap<String, BTreeMap<u32, SubjectVersion>>,
    levels: BTreeMap<String, Level>,
}

impl Picture {
    /// Of all subjects that have none of their own.
    pub fn level(&self) -> Level {
        self.levels.get(ALL).copied().unwrap_or(Level::DEFAULT)
    }

    /// That of a subject alone.
    pub fn level_of(&self, subject: &str) -> Option<Level> {
        self.levels.get(subject).copied()
    }

    /// The same with one more version of a subject, which nobody has added.
    pub fn followed_by(&self, subject: &str, schema: KnownSchema) -> Self {
        let mut next = self.clone();
        let known = next.by_digest.get(&schema.digest).copied();
        let id = known.unwrap_or_else(|| next.schemas.keys().next_back().map_or(1, |last| last + 1));
        next.by_digest.insert(schema.digest.clone(), id);
        next.schemas.insert(id, Arc::new(schema));
        let versions = next.subjects.entry(subject.to_owned()).or_default();
        let version = versions.keys().next_back().map_or(1, |last| last + 1);
        versions.insert(version, SubjectVersion { id, is_deleted: false, at_us: 0 });
        next
    }

    /// Whether any version of any subject refers to a version of a subject; those that do, by id.
    pub fn referring_to(&self, subject: &str, version: u32) -> Vec<u32> {
        let refers = |schema: &KnownSchema| {
            schema.references.iter().any(|reference| reference.subject == subject && reference.version == version)
        };
        self.schemas.iter().filter(|(_, schema)| refers(schema)).map(|(id, _)| *id).collect()
    }
}

/// The registry's schemas, durable.
#[derive(Debug)]
pub struct Subjects {
    database: Arc<Database>,
    present: RwLock<Arc<Picture>>,
    /// Held over a change and the picture that follows it.
    edit: Mutex<()>,
}

impl Subjects {
    pub fn open(database: Arc<Database>) -> Result<Self> {
        database.write(|change| {
            let transaction = change.transaction();
            transaction.open_table(SCHEMAS)?;
            transaction.open_table(VERSIONS)?;
            transaction.open_table(LEVELS)?;
            transaction.open_table(NEXT)?;
            Ok(())
        })?;
        let present = database.read(load)?;
        Ok(Self { database, present: RwLock::new(Arc::new(present)), edit: Mutex::new(()) })
    }

    pub fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.present.read())
    }

    /// Decides on the present picture and makes the change, durable at return; nothing else changes in between. Blocks for a sync of the disk. An error
    /// of `decide` changes nothing.
    pub fn change<T, E: From<DatabaseError>>(
        &self,
        decide: impl FnOnce(&Picture) -> Result<Decision<T>, E>,
    ) -> Result<T, E> {
        let _edit = self.edit.lock();
        let present = self.picture();
        let (edits, value) = match decide(&present)? {
            Decision::Nothing(value) => return Ok(value),
            Decision::Make(edits, value) => (edits, value),
        };
        let made = self.database.write(|change| {
            let mut next = (*present).clone();
            let mut id = None;
            for edit in &edits {
                id = apply(change, &mut next, edit)?.or(id);
            }
            Ok((next, id))
        });
        match made {
            Ok((next, id)) => {
                *self.present.write() = Arc::new(next);
                Ok(value(id))
            }
            Err(error) => {
                // The commit may have taken place all the same.
                if let Ok(read) = self.database.read(load) {
                    *self.present.write() = Arc::new(read);
                }
                Err(error.into())
            }
        }
    }
}

/// What a request comes to.
pub enum Decision<T> {
    Nothing(T),
    /// Changes, and the answer; it is given the id of a schema that is new.
    Make(Vec<Edit>, Box<dyn FnOnce(Option<u32>) -> T>),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// A new version of a subject, with a schema that is new or known.
    Add { subject: String, version: u32, at_us: i64, schema: NewSchema },
    /// Deletes a version for the time being, or takes that back.
    Delete { subject: String, version: u32, is_deleted: bool },
    /// Deletes a version for good, and the schema that no other version has.
    Forget { subject: String, version: u32 },
    /// `None` as subject is all; `None` as level is what is said of all, or the default.
    Level { subject: Option<String>, level: Option<&'static str> },
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NewSchema {
    Known(u32),
    New(KnownSchema),
}

/// Makes one edit; the id of a schema that is new.
fn apply(change: &mut Change<'_>, next: &mut Picture, edit: &Edit) -> Result<Option<u32>> {
    let transaction = change.transaction();
    let mut made = None;
    match edit {
        Edit::Add { subject, version, at_us, schema } => {
            let id = match schema {
                NewSchema::Known(id) => *id,
                NewSchema::New(schema) => {
                    let mut counter = transaction.open_table(NEXT)?;
                    let id = counter.get("id")?.map_or(1, |next| next.value());
                    counter.insert("id", id + 1)?;
                    transaction.open_table(SCHEMAS)?.insert(id, serde_json::to_vec(schema)?.as_slice())?;
                    next.by_digest.insert(schema.digest.clone(), id);
                    next.schemas.insert(id, Arc::new(schema.clone()));
                    made = Some(id);
                    id
                }
            };
            put(change, next, subject, *version, SubjectVersion { id, is_deleted: false, at_us: *at_us })?;
        }
        Edit::Delete { subject, version, is_deleted } => {
            if let Some(known) = next.subjects.get(subject).and_then(|versions| versions.get(version)).cloned() {
                put(change, next, subject, *version, SubjectVersion { is_deleted: *is_deleted, ..known })?;
            }
        }
        Edit::Forget { subject, version } => {
            transaction.open_table(VERSIONS)?.remove((subject.as_str(), *version))?;
            let versions = next.subjects.get_mut(subject);
            let gone = versions.and_then(|versions| versions.remove(version));
            next.subjects.retain(|_, versions| !versions.is_empty());
            let is_used = |id: u32| next.subjects.values().flat_map(BTreeMap::values).any(|version| version.id == id);
            if let Some(id) = gone.map(|gone| gone.id).filter(|id| !is_used(*id)) {
                transaction.open_table(SCHEMAS)?.remove(id)?;
                if let Some(schema) = next.schemas.remove(&id) {
                    next.by_digest.remove(&schema.digest);
                }
            }
        }
        Edit::Level { subject, level } => {
            let key = subject.as_deref().unwrap_or(ALL);
            let mut levels = transaction.open_table(LEVELS)?;
            match level.and_then(Level::parse) {
                Some(level) => {
                    levels.insert(key, level.name())?;
                    next.levels.insert(key.to_owned(), level);
                }
                None => {
                    levels.remove(key)?;
                    next.levels.remove(key);
                }
            }
        }
    }
    change.record("registry.change", edit)?;
    Ok(made)
}

fn put(change: &Change<'_>, next: &mut Picture, subject: &str, version: u32, of: SubjectVersion) -> Result<()> {
    change.transaction().open_table(VERSIONS)?.insert((subject, version), serde_json::to_vec(&of)?.as_slice())?;
    next.subjects.entry(subject.to_owned()).or_default().insert(version, of);
    Ok(())
}

fn load(transaction: &ReadTransaction) -> Result<Picture> {
    let mut picture = Picture::default();
    for entry in transaction.open_table(SCHEMAS)?.iter()? {
        let (id, schema) = entry?;
        let schema: KnownSchema = serde_json::from_slice(schema.value())?;
        picture.by_digest.insert(schema.digest.clone(), id.value());
        picture.schemas.insert(id.value(), Arc::new(schema));
    }
    for entry in transaction.open_table(VERSIONS)?.iter()? {
        let (key, version) = entry?;
        let (subject, number) = key.value();
        let version: SubjectVersion = serde_json::from_slice(version.value())?;
        picture.subjects.entry(subject.to_owned()).or_default().insert(number, version);
    }
    for entry in transaction.open_table(LEVELS)?.iter()? {
        let (subject, level) = entry?;
        let read = Level::parse(level.value());
        let read =
            read.ok_or_else(|| DatabaseError::Refused(format!("'{}' is no compatibility level", level.value())))?;
        picture.levels.insert(subject.value().to_owned(), read);
    }
    Ok(picture)
}
