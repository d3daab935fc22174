//! `rt.certificates`: what `CALL rt.forget` took away, and from where.

use tidemill_query::SqlError;

use super::{
    Rows,
    catalog::failed,
    rows::{
        Cell,
        Kind::{self, Int, Text, Time},
    },
};
use crate::{catalog::certificates::CertifiedObject, server::instance::Instance};

pub(super) const CERTIFICATES: &[(&str, Kind)] = &[
    ("certificate", Int),
    ("at", Time),
    ("column_name", Text),
    ("value_sha256", Text),
    ("kind", Text),
    ("object", Text),
    ("rows", Int),
    ("segments", Int),
    ("state", Text),
    ("detail", Text),
];

/// A row for each object of each certificate.
pub(super) fn certificates(instance: &Instance) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for (number, certificate) in instance.catalog.certificates().map_err(|error| failed(&error))? {
        let row = |object: &CertifiedObject| {
            vec![
                number.into(),
                Cell::Time(certificate.at_us),
                certificate.column.as_str().into(),
                certificate.value_sha256.as_str().into(),
                object.kind.as_str().into(),
                object.name.as_str().into(),
                object.rows.into(),
                object.segments.into(),
                object.state.as_str().into(),
                object.detail.clone().into(),
            ]
        };
        rows.extend(certificate.objects.iter().map(row));
    }
    Ok(rows)
}
