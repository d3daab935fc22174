//! A new picture of a large state, made beside the pipeline out of the last one and its diary, so that the pipeline does not stand still for it.
//!
//! The machine is deterministic: another one that takes the same arrivals after the same picture has the same state. That other one is made in a thread of its own
//! from what a checkpoint has, and written as the state of that checkpoint; the next checkpoint names it, and of the diary only what came since.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, bounded};

use super::{
    super::{
        machine::{Machine, MachineSource, Picture, Settings, state_file, state_file::StateFile},
        plan::Plan,
        tables::TableRows,
    },
    CheckpointRecord, checkpoint,
    diary::{self, Diary},
};
use crate::{
    Error, Result,
    consumer::committing::panic_text,
    runtime::{ahead, join, spawn},
};

/// What machines of a pipeline are made by.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) plan: Arc<Plan>,
    pub(super) sources: Arc<[MachineSource]>,
    pub(super) tables: Arc<[Arc<dyn TableRows>]>,
}

impl Blueprint {
    pub(super) fn machine(&self, settings: Settings) -> Result<Machine> {
        Machine::new(Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::clone(&self.tables), settings)
    }

    /// A machine that goes on where another one is, with other settings.
    pub(super) fn after(&self, machine: &mut Machine, settings: Settings) -> Result<Machine> {
        let (plan, sources, tables) = (Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::clone(&self.tables));
        let Picture { progress, parts } = machine.picture()?;
        Machine::restore(plan, sources, tables, settings, progress, parts.into_iter().map(Ok))
    }

    /// A machine as it was at a checkpoint. `gives_up` is asked between arrivals.
    pub(super) fn at(
        &self,
        settings: Settings,
        directory: &Path,
        record: &CheckpointRecord,
        gives_up: impl Fn() -> bool,
    ) -> Result<Machine> {
        let (plan, sources, tables) = (Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::clone(&self.tables));
        let (progress, mut parts) = state_file::open(directory, &record.state)?;
        let mut machine = ahead(
            |give| _ = parts.all(give),
            |parts| Machine::restore(plan, sources, tables, settings, progress, parts),
        )?;
        if let Some(diary) = &record.diary {
            diary::read(directory, diary, |arrival, answers| match gives_up() {
                true => Err(Error::Unavailable("it was given up".into())),
                false => machine.apply_again(&arrival, answers).map(|_| ()),
            })?;
        }
        Ok(machine)
    }
}

/// A picture that was written.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) state: StateFile,
    /// Files of spilled state that it names.
    pub(super) spilled: Vec<StateFile>,
}

/// A new picture that is being made, or is there and not named by a checkpoint yet.
pub(super) struct Renewal {
    /// The picture that it stands for, and what of its diary is in it.
    old: StateFile,
    covered: Diary,
    file: String,
    /// With what holds the files of spilled state that no checkpoint names yet.
    made: Option<(Made, Picture)>,
    done: Receiver<Result<(Made, Picture)>>,
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    /// Begins one of a checkpoint that has a diary.
    pub(super) fn begin(
        name: &str,
        blueprint: Blueprint,
        settings: Settings,
        directory: PathBuf,
        record: &CheckpointRecord,
    ) -> Option<Self> {
        let covered = record.diary.clone()?;
        let (file, old, record) = (checkpoint::file_name(record.id), record.state.clone(), record.clone());
        let given_up = Arc::new(AtomicBool::new(false));
        let (finished, done) = bounded(1);
        let (of_thread, its_file) = (Arc::clone(&given_up), file.clone());
        let thread = spawn(format!("picture-{name}"), move || {
            let gives_up = || of_thread.load(Ordering::SeqCst);
            let make = || {
                fail::fail_point!("pipeline::renewal", |_| Err(Error::Unavailable("failpoint".into())));
                let mut machine = blueprint.at(settings, &directory, &record, gives_up)?;
                let mut picture = machine.picture()?;
                drop(machine);
                if gives_up() {
                    return Err(Error::Unavailable("it was given up".into()));
                }
                let spilled = picture.spilled()?;
                let state = state_file::write(&directory, &its_file, &picture)?;
                picture.parts.retain_mut(|part| {
                    part.columns.clear();
                    part.in_file.is_some()
                });
                Ok((Made { state, spilled }, picture))
            };
            let made = catch_unwind(AssertUnwindSafe(make))
                .unwrap_or_else(|panic| Err(Error::Unavailable(format!("it panicked: {}", panic_text(&*panic)))));
            // Nobody listens any more when the pipeline has ended.
            let _ = finished.send(made);
        });
        Some(Self { old, covered, file, made: None, done, given_up, thread: thread.ok() })
    }

    /// The file that it is written to, which no checkpoint names.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Whether a checkpoint goes on from the picture that this one stands for.
    pub(super) fn follows(&self, record: &CheckpointRecord) -> bool {
        record.state == self.old && record.diary.is_some()
    }

    /// Once it is there: the new picture for a checkpoint that goes on from `record`, and what of its diary came since. An error when it could not be made.
    pub(super) fn take(&mut self, record: &CheckpointRecord) -> Result<Option<(Made, Diary)>> {
        if self.made.is_none() {
            match self.done.try_recv() {
                Ok(made) => self.made = Some(made?),
                Err(error) if error.is_empty() => return Ok(None),
                Err(_) => return Err(Error::Unavailable("its thread has ended".into())),
            }
        }
        let (Some((made, _)), Some(diary), true) = (&self.made, &record.diary, self.follows(record)) else {
            return Ok(None);
        };
        let since = Diary {
            file: diary.file.clone(),
            from: self.covered.bytes,
            bytes: diary.bytes,
            plain: diary.plain.saturating_sub(self.covered.plain),
        };
        Ok(Some((made.clone(), since)))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}
