//! Copies of a pipeline's checkpoints in a deep store: a checkpoint is recorded when they are there, and a start fetches what is missing or damaged here.
//!
//! ```text
//! c…07.state      ─► c…07.state.5a1c33f0              one object; its name has the checksum
//! s…042.spill     ─► s…042.spill.00c41b9e
//! c…05.dead       ─► c…05.dead.77ab0c12
//! c…08-….diary    ─► c…08-….diary/0…0-0…4096          each checkpoint adds what it wrote
//!                    c…08-….diary/0…4096-0…5120
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    super::machine::state_file::{self, StateFile},
    CheckpointRecord,
    diary::{self, Diary},
};
use crate::{Error, Result, commit::DeadLetterRecord, deep_store::DeepStore};

/// What the store has of a pipeline.
pub(super) struct Copies {
    store: DeepStore,
    /// Names of objects; `None` before they were asked for.
    known: Option<BTreeSet<String>>,
}

/// The object of a file that does not change.
fn whole(file: &str, checksum: u32) -> String {
    format!("{file}.{checksum:08x}")
}

fn part(file: &str, from: u64, to: u64) -> String {
    format!("{file}/{from:020}-{to:020}")
}

fn letters(record: &DeadLetterRecord) -> StateFile {
    StateFile { file: record.file.clone(), bytes: record.bytes, checksum: record.checksum }
}

/// Files of a checkpoint that do not change.
fn files(record: &CheckpointRecord) -> impl Iterator<Item = StateFile> {
    let letters = record.dead_letters.iter().map(letters);
    [&record.state].into_iter().chain(&record.spilled).cloned().chain(letters)
}

/// Parts of a diary, as far as they follow each other from its beginning: their names, and where the last one ends.
fn parts(known: impl Iterator<Item = impl AsRef<str>>, file: &str) -> (Vec<String>, u64) {
    let prefix = format!("{file}/");
    let range = |name: &str| {
        let (from, to) = name.strip_prefix(&prefix)?.split_once('-')?;
        Some((from.parse::<u64>().ok()?, (to.parse::<u64>().ok()?, name.to_owned())))
    };
    let found: BTreeMap<u64, (u64, String)> = known.filter_map(|name| range(name.as_ref())).collect();
    let (mut names, mut end) = (Vec::new(), 0);
    while let Some((to, name)) = found.get(&end).filter(|(to, _)| *to > end) {
        names.push(name.clone());
        end = *to;
    }
    (names, end)
}

impl Copies {
    pub(super) fn new(store: DeepStore) -> Self {
        Self { store, known: None }
    }

    fn known(&mut self) -> Result<&mut BTreeSet<String>> {
        if self.known.is_none() {
            self.known = Some(self.store.list()?.into_iter().map(|(name, _)| name).collect());
        }
        Ok(self.known.get_or_insert_default())
    }

    /// Copies what a checkpoint names and the store does not have, durable at return.
    pub(super) fn keep(&mut self, directory: &Path, record: &CheckpointRecord) -> Result<()> {
        let store = self.store.clone();
        let known = self.known()?;
        for file in files(record) {
            let name = whole(&file.file, file.checksum);
            if !known.contains(&name) {
                store.put(&name, &directory.join(&file.file), 0..file.bytes)?;
                known.insert(name);
            }
        }
        if let Some(diary) = &record.diary {
            let (_, end) = parts(known.iter(), &diary.file);
            if end < diary.bytes {
                let name = part(&diary.file, end, diary.bytes);
                store.put(&name, &directory.join(&diary.file), end..diary.bytes)?;
                known.insert(name);
            }
        }
        Ok(())
    }

    /// Deletes what no kept checkpoint names. What stays because the store does not answer goes with the next one.
    pub(super) fn clean(&mut self, kept: &[CheckpointRecord], dead_letters: &[DeadLetterRecord]) {
        let Some(known) = &mut self.known else { return };
        let all = kept.iter().flat_map(files).chain(dead_letters.iter().map(letters));
        let wholes: BTreeSet<String> = all.map(|file| whole(&file.file, file.checksum)).collect();
        let diaries: BTreeSet<&str> =
            kept.iter().filter_map(|record| record.diary.as_ref()).map(|diary| diary.file.as_str()).collect();
        let is_named = |name: &String| {
            wholes.contains(name) || name.split_once('/').is_some_and(|(file, _)| diaries.contains(file))
        };
        let unnamed: Vec<String> = known.iter().filter(|name| !is_named(name)).cloned().collect();
        if unnamed.is_empty() {
            return;
        }
        match self.store.delete(&unnamed) {
            Ok(()) => known.retain(|name| is_named(name)),
            Err(error) => tracing::warn!(%error, "copies of older checkpoints stay until the next one"),
        }
    }
}

/// Makes sure that what a checkpoint names is there as it was written, with the help of a deep store if there is one; the errors of those that were fetched.
pub(super) fn restore(directory: &Path, record: &CheckpointRecord, store: Option<&DeepStore>) -> Result<Vec<Error>> {
    let mut fetched = Vec::new();
    for file in [&record.state].into_iter().chain(&record.spilled) {
        restore_file(directory, file, store, &mut fetched)?;
    }
    if let Some(diary) = &record.diary {
        let check = || diary::check(directory, diary);
        sound_or_fetched(check, store, &mut fetched, |store| fetch_diary(directory, diary, store))?;
    }
    Ok(fetched)
}

/// The same of dead letters. What cannot be had is told to who reads them.
pub(super) fn restore_letters(directory: &Path, records: &[DeadLetterRecord], store: &DeepStore) -> Vec<Error> {
    let mut fetched = Vec::new();
    for record in records {
        if let Err(error) = restore_file(directory, &letters(record), Some(store), &mut fetched) {
            tracing::warn!(%error, "dead letters of a pipeline cannot be read");
        }
    }
    fetched
}

fn restore_file(directory: &Path, file: &StateFile, store: Option<&DeepStore>, fetched: &mut Vec<Error>) -> Result<()> {
    let fetch = |store: &DeepStore| store.fetch(&[whole(&file.file, file.checksum)], &directory.join(&file.file));
    sound_or_fetched(|| state_file::check(directory, file), store, fetched, fetch)
}

fn fetch_diary(directory: &Path, diary: &Diary, store: &DeepStore) -> Result<()> {
    let known = store.list()?;
    let (names, end) = parts(known.iter().map(|(name, _)| name), &diary.file);
    if end < diary.bytes {
        let (file, bytes, url) = (&diary.file, diary.bytes, store.url());
        return Err(Error::Unavailable(format!(
            "the deep store {url} has {end} bytes of {file}, and {bytes} are needed"
        )));
    }
    store.fetch(&names, &directory.join(&diary.file))
}

fn sound_or_fetched(
    check: impl Fn() -> Result<()>,
    store: Option<&DeepStore>,
    fetched: &mut Vec<Error>,
    fetch: impl Fn(&DeepStore) -> Result<()>,
) -> Result<()> {
    let Err(error) = check() else { return Ok(()) };
    let Some(store) = store else { return Err(error) };
    fetch(store).and_then(|()| check()).map_err(|failed| Error::Unavailable(format!("{error}; {failed}")))?;
    fetched.push(error);
    Ok(())
}
