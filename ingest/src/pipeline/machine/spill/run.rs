//! Runs: groups in a file, by their parts.

use std::{ops::Range, sync::Arc};

use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};
use tidemill_storage::Error as StorageError;

use super::{
    super::{
        groups::{Dump, Groups},
        state_file::StateFile,
    },
    Beside, Filling, GivenUp, Kept, Share, Store, bits_for, full_level,
    parts::{Parted, Parting},
    stretch,
};
use crate::{Error, Result, pipeline::plan::Aggregate};

/// Groups of one part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    at: u64,
    bytes: u64,
    /// Uncompressed.
    plain: u64,
    groups: u64,
    checksum: u32,
}

/// A run, as a picture has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunHead {
    file: StateFile,
    level: u8,
    /// There are 2 to the power of this stretches.
    bits: u8,
    stretches: Vec<Stretch>,
}

/// A run. One of a picture that was read has no file before it is [taken over](Run::adopt).
#[derive(Clone, Debug)]
pub(crate) struct Run {
    head: Arc<RunHead>,
    kept: Option<Arc<dyn Kept>>,
    share: Share,
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        (&self.head, self.share) == (&other.head, other.share)
    }
}

impl Run {
    /// As it stands in a picture; its stretches are checked when they are read.
    pub(crate) fn of(head: RunHead) -> Result<Self, String> {
        if usize::from(head.bits) >= u32::BITS as usize || head.stretches.len() != 1 << head.bits {
            return Err(format!("a run of {} stretches by {} bits", head.stretches.len(), head.bits));
        }
        Ok(Self { head: Arc::new(head), kept: None, share: Share::ALL })
    }

    pub(crate) fn adopt(self, store: &dyn Store) -> Self {
        let kept = store.adopt(&self.head.file);
        Self { kept: Some(kept), ..self }
    }

    pub(crate) fn share(&self) -> Share {
        self.share
    }

    pub(crate) fn with_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    pub(crate) fn head(&self) -> &RunHead {
        &self.head
    }

    pub(crate) fn file(&self) -> &StateFile {
        &self.head.file
    }

    pub(crate) fn kept(&self) -> Option<&Arc<dyn Kept>> {
        self.kept.as_ref()
    }

    pub(crate) fn bits(&self) -> u8 {
        self.head.bits
    }

    pub(crate) fn groups(&self) -> usize {
        self.head.stretches.iter().map(|stretch| stretch.groups as usize).sum()
    }

    /// On disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.head.stretches.iter().map(|stretch| stretch.bytes).sum()
    }

    fn plain(&self) -> u64 {
        self.head.stretches.iter().map(|stretch| stretch.plain).sum()
    }

    fn read(&self, stretch: usize, aggregate: &Aggregate) -> Result<Dump> {
        let Stretch { at, bytes, plain, groups, checksum } = self.head.stretches[stretch];
        let kept = self.kept.as_ref().ok_or_else(|| Error::Unavailable("a run was read before its file".into()))?;
        let damaged = |found: String| {
            let wanted = format!("{groups} groups in {bytes} bytes of checksum {checksum:08x} at {at}");
            Error::from(StorageError::corrupt(kept.path(), "spilled state of a pipeline", wanted, found))
        };
        let packed = kept.read(at, bytes as usize)?;
        match crc32c::crc32c(&packed) {
            found if found != checksum => Err(damaged(format!("checksum {found:08x}"))),
            _ => stretch::decode(&packed, plain, groups, aggregate).map_err(damaged),
        }
    }
}

/// Gives the parts of a run one after the other.
pub(crate) struct Reader<'a> {
    run: &'a Run,
    aggregate: &'a Aggregate,
    parting: &'a Parting,
    /// The stretch at hand, where a stretch has several parts.
    loaded: Option<(usize, Parted)>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(run: &'a Run, aggregate: &'a Aggregate, parting: &'a Parting) -> Self {
        Self { run, aggregate, parting, loaded: None }
    }

    /// The groups of a part of 2^bits; the run has no more.
    pub(crate) fn part(&mut self, part: usize, bits: u8) -> Result<Option<Dump>> {
        let more = bits - self.run.bits();
        let stretch = part >> more;
        if self.run.head.stretches[stretch].groups == 0 || !self.run.share.meets(part, bits) {
            return Ok(None);
        }
        if more == 0 {
            return self.read(stretch);
        }
        let first = stretch << more;
        let loaded = match self.loaded.take() {
            Some((at, parted)) if at == stretch => parted,
            _ => match self.read(stretch)? {
                Some(dump) => self.parting.part(dump, bits, first, 1 << more)?,
                None => return Ok(None),
            },
        };
        let found = loaded.get(part - first)?;
        self.loaded = Some((stretch, loaded));
        Ok(found)
    }

    fn read(&self, stretch: usize) -> Result<Option<Dump>> {
        let dump = self.run.read(stretch, self.aggregate)?;
        match self.run.share {
            share if share.is_mixed() => Ok(self.parting.only(dump, share)?),
            _ => Ok(Some(dump)),
        }
    }
}

/// A file of runs that is being written.
pub(crate) struct Writing {
    filling: Box<dyn Filling>,
    at: u64,
    /// Level, bits and stretches of each run.
    runs: Vec<(u8, u8, Vec<Stretch>)>,
}

impl Writing {
    pub(crate) fn new(store: &dyn Store) -> Result<Self> {
        Ok(Self { filling: store.create()?, at: 0, runs: Vec::new() })
    }

    /// Adds a run of groups.
    pub(crate) fn add(&mut self, dump: Dump, parting: &Parting, store: &dyn Store) -> Result<()> {
        let bits = bits_for(dump.bytes(), store.stretch_bytes());
        let parted = parting.part(dump, bits, 0, 1 << bits)?;
        let stretches = (0..1 << bits).map(|part| self.put(parted.get(part)?)).collect::<Result<_>>()?;
        self.runs.push((0, bits, stretches));
        Ok(())
    }

    fn put(&mut self, dump: Option<Dump>) -> Result<Stretch> {
        let at = self.at;
        let Some(dump) = dump else { return Ok(Stretch { at, bytes: 0, plain: 0, groups: 0, checksum: 0 }) };
        let (bytes, plain) = stretch::encode(&dump)?;
        self.filling.put(&bytes)?;
        self.at += bytes.len() as u64;
        let (groups, checksum) = (dump.groups as u64, crc32c::crc32c(&bytes));
        Ok(Stretch { at, bytes: bytes.len() as u64, plain, groups, checksum })
    }

    pub(crate) fn finish(self) -> Result<Vec<Run>> {
        let kept = self.filling.finish()?;
        let run = |(level, bits, stretches)| {
            let head = RunHead { file: kept.file().clone(), level, bits, stretches };
            Run { head: Arc::new(head), kept: Some(Arc::clone(&kept)), share: Share::ALL }
        };
        Ok(self.runs.into_iter().map(run).collect())
    }
}

/// Runs that become one.
pub(crate) struct Merging {
    range: Range<usize>,
    made: Beside<Run>,
}

impl Merging {
    /// Begins when there are as many runs of a level as the store says. What they hold keeps its order.
    pub(crate) fn begin(
        runs: &[Run],
        aggregate: &Arc<Aggregate>,
        parting: &Arc<Parting>,
        store: &Arc<dyn Store>,
    ) -> Result<Option<Self>> {
        let levels: Vec<u8> = runs.iter().map(|run| run.head.level).collect();
        let Some(range) = full_level(&levels, store.runs_max()) else { return Ok(None) };
        let (aggregate, parting, to) = (Arc::clone(aggregate), Arc::clone(parting), Arc::clone(store));
        let runs = runs[range.clone()].to_vec();
        let made = Beside::begin(&**store, move |given_up| merge(&runs, &aggregate, &parting, &*to, given_up))?;
        Ok(Some(Self { range, made }))
    }

    /// Waits for the new run, and puts it in the place of those that it is made of.
    pub(crate) fn finish(self, runs: &mut Vec<Run>) -> Result<()> {
        runs.splice(self.range, [self.made.wait()?]);
        Ok(())
    }
}

fn merge(runs: &[Run], aggregate: &Aggregate, parting: &Parting, store: &dyn Store, given_up: &GivenUp) -> Result<Run> {
    let plain = runs.iter().map(Run::plain).sum::<u64>();
    let wanted = bits_for(plain as usize, store.stretch_bytes());
    let bits = runs.iter().map(Run::bits).fold(wanted, u8::max);
    let level = runs.iter().map(|run| run.head.level).fold(0, u8::max).saturating_add(1);
    let mut writing = Writing::new(store)?;
    let mut readers: Vec<Reader<'_>> = runs.iter().map(|run| Reader::new(run, aggregate, parting)).collect();
    let mut stretches = Vec::with_capacity(1 << bits);
    for part in 0..1 << bits {
        let mut merged: Option<Groups> = None;
        for reader in &mut readers {
            if let Some(dump) = reader.part(part, bits)? {
                join(&mut merged, &dump, aggregate)?;
            }
        }
        let dump = merged.map(|mut groups| groups.take()).transpose()?;
        stretches.push(writing.put(dump)?);
        given_up.check()?;
    }
    writing.runs.push((level, bits, stretches));
    let mut made = writing.finish()?;
    made.pop().ok_or_else(|| Error::Unavailable("a file of one run has none".into()))
}

/// Adds groups to those that there are.
pub(crate) fn join(merged: &mut Option<Groups>, dump: &Dump, aggregate: &Aggregate) -> Result<(), DataFusionError> {
    match merged {
        Some(groups) => groups.merge(dump),
        None => {
            *merged = Some(Groups::of(aggregate, dump)?);
            Ok(())
        }
    }
}
