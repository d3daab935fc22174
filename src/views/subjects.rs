//! `rt.subjects`: the versions of the schema registry's subjects.

use tidemill_query::SqlError;

use super::{
    Cell,
    Kind::{self, Boolean, Int, Text, Time},
    Rows,
};
use crate::server::instance::Instance;

pub(super) const SUBJECTS: &[(&str, Kind)] = &[
    ("subject", Text),
    ("version", Int),
    ("id", Int),
    ("type", Text),
    ("compatibility", Text),
    ("deleted", Boolean),
    ("references", Text),
    ("schema", Text),
    ("registered_at", Time),
];

pub(super) fn subjects(instance: &Instance) -> Result<Rows, SqlError> {
    let picture = instance.subjects.picture();
    let mut rows = Vec::new();
    for (subject, versions) in &picture.subjects {
        let level = picture.level_of(subject).unwrap_or_else(|| picture.level());
        for (number, version) in versions {
            let Some(schema) = picture.schemas.get(&version.id) else { continue };
            let references: Vec<String> = schema
                .references
                .iter()
                .map(|reference| format!("{} version {}", reference.subject, reference.version))
                .collect();
            rows.push(vec![
                subject.as_str().into(),
                u64::from(*number).into(),
                u64::from(version.id).into(),
                schema.kind.name().into(),
                level.name().into(),
                version.is_deleted.into(),
                references.join(", ").into(),
                schema.text.as_str().into(),
                Cell::Time(version.at_us),
            ]);
        }
    }
    Ok(rows)
}
