//! The view of deep stores.

use tidemill_query::SqlError;

use super::{
    Cell,
    Kind::{self, Int, Text},
    Rows,
};
use crate::server::instance::Instance;

pub(super) const STORAGE: &[(&str, Kind)] = &[
    ("role", Text),
    ("url", Text),
    ("copied", Int),
    ("copied_bytes", Int),
    ("fetched", Int),
    ("fetched_bytes", Int),
    ("failures", Int),
    ("error", Text),
];

pub(super) fn storage(instance: &Instance) -> Result<Rows, SqlError> {
    let stores = &instance.deep_stores;
    let roles = [("segments", &stores.segments), ("checkpoints", &stores.checkpoints)];
    let rows = roles.into_iter().map(|(role, store)| {
        let Some(store) = store else {
            let mut row = vec![Cell::Null; STORAGE.len()];
            row[0] = role.into();
            return row;
        };
        let status = store.status();
        vec![
            role.into(),
            store.url().into(),
            status.copied.into(),
            status.copied_bytes.into(),
            status.fetched.into(),
            status.fetched_bytes.into(),
            status.failures.into(),
            status.error.into(),
        ]
    });
    Ok(rows.collect())
}
