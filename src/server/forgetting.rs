//! The certificate of `CALL rt.forget`.

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::instance::Instance;
use crate::{
    catalog::{
        certificates::{Certificate, CertifiedObject},
        definition::SourceDefinition,
    },
    runtime,
    session::error::{Result, SqlError},
};

/// Keeps what was forgotten, together with what could not be looked through; the number of the certificate.
pub(super) async fn certify(
    instance: &Arc<Instance>,
    column: &str,
    value: &str,
    mut objects: Vec<CertifiedObject>,
) -> Result<u64> {
    let unseen = |kind: &str, name: &str, detail: String| CertifiedObject {
        kind: kind.into(),
        name: name.into(),
        rows: 0,
        segments: 0,
        state: "not looked through".into(),
        detail: Some(detail),
    };
    let definitions = instance.catalog.definitions();
    for table in definitions.tables.values() {
        if let Some(reason) = instance.broken(table.id) {
            objects.push(unseen("table", &table.name, format!("it could not be opened: {reason}")));
        }
    }
    let renewing = Arc::clone(instance);
    for (table, error) in runtime::blocking(move || renewing.ingest.renew_copies()).await {
        let name = definitions.tables.get(&table).map_or("", |table| table.name.as_str());
        let detail = format!("copies of its segments may have the value until they can be deleted: {error}");
        objects.push(unseen("table", name, detail));
    }
    for pipeline in definitions.pipelines.values() {
        let detail = "its state, its log and its dead letters may have the value until they are replaced; rows in its tables are gone";
        objects.push(unseen("pipeline", &pipeline.name, detail.into()));
    }
    let sha = digest(&SHA256, value.as_bytes());
    let certificate = Certificate {
        at_us: instance.clock.now_us(),
        column: column.to_owned(),
        value_sha256: sha.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        objects,
    };
    let instance = Arc::clone(instance);
    let written = runtime::blocking(move || instance.catalog.certify(&certificate)).await;
    written.map_err(|error| SqlError::internal(format!("the certificate cannot be written: {error}")))
}

/// What a column of a source is called in its messages, if the source has it by this name or the messages do.
pub(super) fn names<'a>(source: &'a SourceDefinition, column: &'a str) -> impl Iterator<Item = String> + 'a {
    source.columns.iter().flat_map(move |known| {
        let member =
            known.path.as_deref().and_then(|path| path.rsplit(['.', '[', '\'', '"']).find(|step| !step.is_empty()));
        let is_it = known.name == column || member == Some(column);
        let names = [Some(known.name.as_str()), member];
        names.into_iter().flatten().filter(move |_| is_it).map(str::to_owned)
    })
}
