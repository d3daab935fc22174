//! Sinks that write a subject: whether the registry still takes the schema of their records after another version of it.

use tidemill_ingest::{
    Error,
    decode::trial::Writer,
    sink::{Shape, SinkOptions},
};

use super::{RegistryError, Sent, Verdict, against, read, references_of, visible};
use crate::{
    catalog::{
        Definitions,
        definition::SinkDefinition,
        subjects::{KnownSchema, Picture},
    },
    server::{instance::Instance, pipelines, sinks},
};

/// Its shape may be several: a sink without columns of its own has those of each pipeline.
pub(super) fn verdict(
    instance: &Instance,
    definitions: &Definitions,
    sink: &SinkDefinition,
    picture: &Picture,
    subject: &str,
    new: KnownSchema,
) -> Verdict {
    let breaks = match shapes(instance, definitions, sink) {
        Err(error) => Some(format!("it cannot be tried out: {error}")),
        Ok(shapes) => {
            let after = picture.followed_by(subject, new.clone());
            shapes.iter().find_map(|shape| refused(shape, picture, &after, subject, &new))
        }
    };
    Verdict { object: sink.name.clone(), kind: "sink", breaks }
}

fn shapes(instance: &Instance, definitions: &Definitions, sink: &SinkDefinition) -> Result<Vec<Shape>, Error> {
    let options = SinkOptions::parse(&sink.options)?.shape;
    if let Some(schema) = &sink.schema {
        return Ok(vec![Shape::new(&options, schema)?]);
    }
    let mut shapes = Vec::new();
    for pipeline in definitions.pipelines_into(sink.id) {
        let Some(target) = pipeline.targets.iter().find(|target| target.table == sink.id) else { continue };
        let plan = pipelines::plan(instance, pipeline, definitions)?;
        shapes.push(Shape::new(&options, &sinks::schema(sink, &plan, &target.names))?);
    }
    Ok(shapes)
}

fn refused(shape: &Shape, before: &Picture, after: &Picture, subject: &str, new: &KnownSchema) -> Option<String> {
    let registered = || -> Result<Option<String>, RegistryError> {
        // What the subject has already is given its id without a question.
        let is_known = |picture: &Picture, sent: &Sent| -> Result<bool, RegistryError> {
            let (_, digest) = read(picture, sent)?;
            let id = picture.by_digest.get(&digest);
            Ok(visible(picture, subject).any(|(_, version)| Some(&version.id) == id))
        };
        let references = references_of(after, new.kind, &new.references)?;
        let latest = Writer { kind: new.kind, text: &new.text, references: &references };
        let Ok(Some((kind, text))) = shape.schema_after(Some(&latest)) else { return Ok(None) };
        let sent = Sent { kind, text, references: Vec::new() };
        if is_known(before, &sent)? || is_known(after, &sent)? {
            return Ok(None);
        }
        let level = after.level_of(subject).unwrap_or_else(|| after.level());
        let versions: Vec<u32> = visible(after, subject).map(|(version, _)| version).collect();
        let (parsed, _) = read(after, &sent)?;
        let found = against(after, subject, &parsed, level, &versions)?;
        Ok(found.map(|(_, misfits)| {
            let first = misfits.first().map(|misfit| format!("{} at {}", misfit.description, misfit.path));
            format!(
                "the schema of its records does not go with it as compatibility {} asks: {}; rows wait until the registry takes it",
                level.name(),
                first.unwrap_or_default()
            )
        }))
    };
    registered().unwrap_or_else(|error| Some(error.message))
}
