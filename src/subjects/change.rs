//! Changes of the registry, by whichever way they are asked for, and what they are checked against: the subject's own rule, and all that depends on it.

use tidemill_ingest::{
    decode::trial::Writer,
    events::{Event, EventSink, Severity},
    schemas::{Level, Misfit, Schema},
};

use super::{
    RegistryError, Result, Sent, Users, Verdict, Wanted, against, check_name, read, references_of, verdicts, version,
    visible, writers,
};
use crate::{
    catalog::subjects::{Decision, Edit, KnownSchema, NewSchema, Picture},
    server::instance::Instance,
};

/// What a new version would do.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The version that the schema does not go with by the subject's own rule, and why.
    pub misfits: Option<(u32, Vec<Misfit>)>,
    pub level: Level,
    /// The subject's own first.
    pub verdicts: Vec<Verdict>,
}

impl Proposal {
    /// Those that break.
    pub fn broken(&self) -> Vec<Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.breaks.is_some()).cloned().collect()
    }

    /// Refuses what breaks anything.
    fn check(&self, subject: &str) -> Result<()> {
        let broken = self.broken();
        match &self.misfits {
            _ if broken.is_empty() => Ok(()),
            Some((version, misfits)) => {
                Err(RegistryError::incompatible(subject, *version, self.level, misfits).with(broken))
            }
            None => Err(RegistryError::breaks(subject, broken)),
        }
    }
}

/// What registering a schema gave.
#[derive(Clone, Debug)]
pub struct Added {
    pub id: u32,
    pub version: u32,
    /// Whether the subject did not have it before.
    pub is_new: bool,
}

/// What a schema would do as the next version of a subject. Blocks: it is tried out.
pub fn propose(instance: &Instance, picture: &Picture, subject: &str, sent: &Sent) -> Result<Proposal> {
    let (parsed, digest) = read(picture, sent)?;
    proposal(instance, picture, subject, sent, &parsed, &digest)
}

fn proposal(
    instance: &Instance,
    picture: &Picture,
    subject: &str,
    sent: &Sent,
    parsed: &Schema,
    digest: &str,
) -> Result<Proposal> {
    let level = picture.level_of(subject).unwrap_or_else(|| picture.level());
    let earlier: Vec<u32> = visible(picture, subject).map(|(version, _)| version).collect();
    let misfits = against(picture, subject, parsed, level, &earlier)?;
    let words = misfits.as_ref().map(|(version, misfits)| {
        let first = misfits.first().map(|misfit| format!("{} at {}", misfit.description, misfit.path));
        let rule = level.name();
        format!("it does not go with version {version} as compatibility {rule} asks: {}", first.unwrap_or_default())
    });
    let mut all = vec![Verdict { object: subject.to_owned(), kind: "subject", breaks: words }];
    if let Ok(latest) = version(picture, subject, Wanted::Latest, false) {
        let definitions = instance.catalog.definitions();
        let users = Users::of(instance, &definitions, subject);
        if !users.sources.is_empty() {
            let before = references_of(picture, latest.schema.kind, &latest.schema.references)?;
            let after = references_of(picture, sent.kind, &sent.references)?;
            let old = Writer { kind: latest.schema.kind, text: &latest.schema.text, references: &before };
            let new = Writer { kind: sent.kind, text: &parsed.text, references: &after };
            all.extend(verdicts::of_sources(instance, &definitions, &users.sources, &old, &new));
        }
        let known = KnownSchema {
            kind: sent.kind,
            text: parsed.text.clone(),
            references: sent.references.clone(),
            digest: digest.to_owned(),
        };
        for sink in &users.sinks {
            let verdict = writers::verdict(instance, &definitions, sink, picture, subject, known.clone());
            // It may stand there as somebody's target already.
            match all.iter_mut().find(|known| known.kind == "sink" && known.object == sink.name) {
                Some(known) => known.breaks = known.breaks.take().or(verdict.breaks),
                None => all.push(verdict),
            }
        }
    }
    Ok(Proposal { misfits, level, verdicts: all })
}

/// Adds a version with the schema, unless the subject has one. With `level` the subject has that compatibility from then on. Nothing is added that breaks anything, but by `force`. Blocks.
pub fn register(instance: &Instance, subject: &str, sent: &Sent, level: Option<Level>, force: bool) -> Result<Added> {
    check_name(subject)?;
    let mut broken = Vec::new();
    let added = instance.subjects.change(|picture| {
        let (parsed, digest) = read(picture, sent)?;
        let id = picture.by_digest.get(&digest).copied();
        if let Some(id) = id
            && level.is_none()
            && let Some((version, _)) = visible(picture, subject).find(|(_, version)| version.id == id)
        {
            return Ok(Decision::Nothing(Added { id, version, is_new: false }));
        }
        let proposal = proposal(instance, picture, subject, sent, &parsed, &digest)?;
        if force {
            broken = proposal.broken();
        } else if let Err(error) = proposal.check(subject) {
            broken = error.broken.clone();
            return Err(error);
        }
        let version =
            picture.subjects.get(subject).and_then(|versions| versions.keys().next_back()).map_or(1, |last| last + 1);
        let schema = match id {
            Some(id) => NewSchema::Known(id),
            None => NewSchema::New(KnownSchema {
                kind: sent.kind,
                text: parsed.text,
                references: sent.references.clone(),
                digest,
            }),
        };
        let mut edits =
            vec![Edit::Add { subject: subject.to_owned(), version, at_us: instance.clock.now_us(), schema }];
        if let Some(level) = level {
            edits.push(Edit::Level { subject: Some(subject.to_owned()), level: Some(level.name()) });
        }
        let known = id.unwrap_or_default();
        Ok(Decision::Make(edits, Box::new(move |new| Added { id: new.unwrap_or(known), version, is_new: true })))
    });
    // First versions are told by rt.subjects alone: there may be thousands.
    match &added {
        Ok(added) if !broken.is_empty() => {
            let message =
                format!("version {} of subject '{subject}' was added by force: {}", added.version, list(&broken));
            event(instance, Severity::Warning, "schema_forced", message);
        }
        Ok(added) if added.is_new && added.version > 1 => {
            let message = format!("version {} of subject '{subject}' was added (id {})", added.version, added.id);
            event(instance, Severity::Info, "schema_added", message);
        }
        Err(_) if !broken.is_empty() => {
            let message = format!("a new version of subject '{subject}' was refused: {}", list(&broken));
            event(instance, Severity::Warning, "schema_refused", message);
        }
        _ => {}
    }
    added
}

/// One line of what breaks.
pub fn list(broken: &[Verdict]) -> String {
    let one = |verdict: &Verdict| {
        format!("{} \"{}\": {}", verdict.kind, verdict.object, verdict.breaks.as_deref().unwrap_or_default())
    };
    broken.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn event(instance: &Instance, severity: Severity, kind: &'static str, message: String) {
    let at_us = instance.clock.now_us();
    instance.events.record(Event { at_us, severity, kind, table: None, partition: None, stream: None, message });
}

/// What a schema goes against: of a version, or of all that the level asks for, and of what depends on the subject. Blocks.
pub fn check(
    instance: &Instance,
    picture: &Picture,
    subject: &str,
    sent: &Sent,
    wanted: Option<Wanted>,
) -> Result<Vec<String>> {
    let mut proposal = propose(instance, picture, subject, sent)?;
    if let Some(wanted) = wanted {
        // One version, whatever the level says of others.
        match version(picture, subject, wanted, false) {
            Ok(of) => {
                let (parsed, _) = read(picture, sent)?;
                proposal.misfits = against(picture, subject, &parsed, proposal.level, &[of.version])?;
            }
            // Whatever is first goes with nothing.
            Err(_) if wanted == Wanted::Latest => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    let mut all: Vec<String> =
        proposal.misfits.iter().flat_map(|(_, misfits)| misfits).map(Misfit::to_string).collect();
    let others = proposal.broken().into_iter().filter(|verdict| verdict.kind != "subject");
    all.extend(others.map(|verdict| list(&[verdict])));
    Ok(all)
}

/// Deletes all versions of a subject; their numbers. What somebody uses goes by `force` alone.
pub fn delete_subject(instance: &Instance, subject: &str, is_permanent: bool, force: bool) -> Result<Vec<u32>> {
    instance.subjects.change(|picture| {
        let versions = picture.subjects.get(subject).ok_or_else(|| RegistryError::no_subject(subject))?;
        let are_gone = versions.values().all(|version| version.is_deleted);
        match (is_permanent, are_gone) {
            (false, true) => return Err(RegistryError::subject_deleted(subject)),
            (true, false) => return Err(RegistryError::subject_not_deleted(subject)),
            _ => {}
        }
        if !force {
            check_users(instance, subject)?;
        }
        let of: Vec<u32> = versions
            .iter()
            .filter(|(_, version)| is_permanent || !version.is_deleted)
            .map(|(number, _)| *number)
            .collect();
        for version in &of {
            check_unused(picture, subject, *version)?;
        }
        let mut edits: Vec<Edit> = of.iter().map(|version| removal(subject, *version, is_permanent)).collect();
        if is_permanent && picture.level_of(subject).is_some() {
            edits.push(Edit::Level { subject: Some(subject.to_owned()), level: None });
        }
        Ok(Decision::Make(edits, Box::new(move |_| of)))
    })
}

/// Deletes one version; its number. The last one that is left of a subject goes as the subject does.
pub fn delete_version(
    instance: &Instance,
    subject: &str,
    wanted: Wanted,
    is_permanent: bool,
    force: bool,
) -> Result<u32> {
    instance.subjects.change(|picture| {
        let found = version(picture, subject, wanted, true)?;
        let wanted = match wanted {
            Wanted::Latest => version(picture, subject, wanted, is_permanent)?.version,
            Wanted::Number(_) => found.version,
        };
        let is_deleted = picture.subjects[subject][&wanted].is_deleted;
        match (is_permanent, is_deleted) {
            (false, true) => return Err(RegistryError::version_deleted(subject, wanted)),
            (true, false) => return Err(RegistryError::version_not_deleted(subject, wanted)),
            _ => {}
        }
        let is_last = visible(picture, subject).all(|(version, _)| version == wanted);
        if is_last && !force {
            check_users(instance, subject)?;
        }
        check_unused(picture, subject, wanted)?;
        Ok(Decision::Make(vec![removal(subject, wanted, is_permanent)], Box::new(move |_| wanted)))
    })
}

fn check_users(instance: &Instance, subject: &str) -> Result<()> {
    let users = Users::of(instance, &instance.catalog.definitions(), subject).names();
    if users.is_empty() { Ok(()) } else { Err(RegistryError::used(subject, &users)) }
}

/// What others refer to stays.
fn check_unused(picture: &Picture, subject: &str, version: u32) -> Result<()> {
    match picture.referring_to(subject, version).first() {
        None => Ok(()),
        Some(id) => Err(RegistryError::referred_to(subject, version, *id)),
    }
}

fn removal(subject: &str, version: u32, is_permanent: bool) -> Edit {
    let subject = subject.to_owned();
    match is_permanent {
        true => Edit::Forget { subject, version },
        false => Edit::Delete { subject, version, is_deleted: true },
    }
}

/// Sets a level, of all subjects or of one; `None` takes back what was set.
pub fn set_level(instance: &Instance, subject: Option<&str>, level: Option<Level>) -> Result<()> {
    if let Some(subject) = subject {
        check_name(subject)?;
    }
    instance.subjects.change(|_| {
        let edit = Edit::Level { subject: subject.map(str::to_owned), level: level.map(Level::name) };
        Ok(Decision::Make(vec![edit], Box::new(|_| ())))
    })
}
