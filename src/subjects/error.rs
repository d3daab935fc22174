//! What a registry says no with: a status of HTTP, a code of Confluent's, and words.

use tidemill_ingest::schemas::{Kind, Level, Misfit};

use super::{Verdict, Wanted, change};
use crate::catalog::database::DatabaseError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryError {
    pub status: u16,
    pub code: u32,
    pub message: String,
    /// What a schema would break.
    pub broken: Vec<Verdict>,
}

impl From<DatabaseError> for RegistryError {
    fn from(error: DatabaseError) -> Self {
        Self::new(500, 50001, format!("the change could not be stored: {error}"))
    }
}

impl RegistryError {
    fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), broken: Vec::new() }
    }

    pub(super) fn with(self, broken: Vec<Verdict>) -> Self {
        Self { broken, ..self }
    }

    /// The subject's own rule would allow it.
    pub(super) fn breaks(subject: &str, broken: Vec<Verdict>) -> Self {
        let message = format!(
            "Schema being registered breaks what depends on subject \"{subject}\", details: [{}]",
            change::list(&broken)
        );
        Self::new(409, 409, message).with(broken)
    }

    pub(super) fn used(subject: &str, users: &[String]) -> Self {
        let message = format!("One or more references exist to subject '{subject}': {}", users.join(", "));
        Self::new(422, 42206, message)
    }

    pub fn no_path() -> Self {
        Self::new(404, 404, "HTTP 404 Not Found")
    }

    pub fn no_method() -> Self {
        Self::new(405, 405, "HTTP 405 Method Not Allowed")
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::new(404, 40401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(wanted: Wanted) -> Self {
        let shown = match wanted {
            Wanted::Latest => -1,
            Wanted::Number(number) => i64::from(number),
        };
        Self::new(404, 40402, format!("Version {shown} not found."))
    }

    pub(super) fn no_schema() -> Self {
        Self::new(404, 40403, "Schema not found")
    }

    pub(super) fn no_id(id: u32) -> Self {
        Self::new(404, 40403, format!("Schema {id} not found"))
    }

    pub(super) fn subject_deleted(subject: &str) -> Self {
        Self::new(404, 40404, format!("Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"))
    }

    pub(super) fn subject_not_deleted(subject: &str) -> Self {
        Self::new(404, 40405, format!("Subject '{subject}' was not deleted first before being permanently deleted"))
    }

    pub(super) fn version_deleted(subject: &str, version: u32) -> Self {
        let message =
            format!("Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently");
        Self::new(404, 40406, message)
    }

    pub(super) fn version_not_deleted(subject: &str, version: u32) -> Self {
        let message =
            format!("Subject '{subject}' Version {version} was not deleted first before being permanently deleted");
        Self::new(404, 40407, message)
    }

    pub fn no_level(subject: &str) -> Self {
        let message = format!("Subject '{subject}' does not have subject-level compatibility configured");
        Self::new(404, 40408, message)
    }

    pub(super) fn incompatible(subject: &str, version: u32, level: Level, misfits: &[Misfit]) -> Self {
        let details: Vec<String> = misfits.iter().map(Misfit::to_string).collect();
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: [{}, \
             {{oldSchemaVersion: {version}}}, {{compatibility: '{}'}}]",
            details.join(", "),
            level.name()
        );
        Self::new(409, 409, message)
    }

    pub(super) fn invalid_schema(kind: Kind, reason: &str) -> Self {
        Self::new(422, 42201, format!("Invalid schema of type {}: {reason}", kind.name()))
    }

    /// What is no request at all.
    pub fn invalid_request(reason: &str) -> Self {
        Self::new(422, 42201, format!("Invalid schema: {reason}"))
    }

    pub(super) fn invalid_version(text: &str) -> Self {
        let message = format!(
            "The specified version '{text}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
        );
        Self::new(422, 42202, message)
    }

    pub fn invalid_level(text: &str) -> Self {
        let known: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
        Self::new(422, 42203, format!("Invalid compatibility level '{text}'. Valid values are {}", known.join(", ")))
    }

    pub(super) fn referred_to(subject: &str, version: u32, id: u32) -> Self {
        let message = format!(
            "One or more references exist to version {version} of subject '{subject}': the schema with id {id} uses it"
        );
        Self::new(422, 42206, message)
    }

    pub(super) fn invalid_subject(subject: &str) -> Self {
        Self::new(422, 42208, format!("The specified subject '{}' is not a valid subject", subject.escape_debug()))
    }
}
