//! The deterministic heart of a pipeline: what comes in, in its order, says what comes out, and nothing else does.
//!
//! ```text
//! Arrival ─► steps ─► event time, late? ─► operators, with steps between them ─► steps ─► rows of the output
//! ```
//!
//! No clock, no file, no thread: the runner feeds it, keeps its pictures and replays arrivals into it. What always holds: the same arrivals after the same
//! picture give the same rows in the same order.

pub(crate) mod arrivals;
mod dedup;
mod event_time;
mod flow;
mod groups;
mod joining;
mod keyed;
mod lanes;
mod operators;
mod packing;
mod process;
mod ranked;
mod sessions;
pub(crate) mod spill;
pub(crate) mod state_file;
#[cfg(test)]
mod tests;
mod updating;
mod versions;
mod windowed;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches};
use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};
use tidemill_storage::ids::{SourceId, StreamId};

pub(crate) use self::{
    event_time::{EventTime, Flow, NEVER},
    groups::Dump,
};
use self::{
    flow::{Flowing, Part, Taken},
    lanes::Lanes,
    operators::{Fault, Piece, delay_of, prepare},
    spill::Store,
    state_file::StateFile,
};
use super::{
    bisect::bisect,
    checks::row_reject,
    expression::Uncomputed,
    late::{Late, LatePolicy},
    plan::{Lane, Origin, Plan},
    tables::{Answers, Asking, TableRows},
    watermark::Watermark,
};
use crate::{
    Error, Result,
    landmark::Landmark,
    message::{Reject, SourceBatch},
};

/// A source of a pipeline, for its machine.
#[derive(Clone, Debug)]
pub(crate) struct MachineSource {
    pub(crate) id: SourceId,
    pub(crate) watermark: Option<Arc<Watermark>>,
}

/// What comes to a machine.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    /// Rows that passed the source's checks.
    Rows {
        source: usize,
        batch: Box<SourceBatch>,
        landmark: Option<Landmark>,
    },
    /// A stream begins at an offset.
    Begin {
        stream: StreamId,
        offset: u64,
    },
    /// All streams of a source that are there were begun.
    Known {
        source: SourceId,
    },
    Flow {
        stream: StreamId,
        flow: Flow,
    },
    /// Messages up to an offset are gone.
    Skip {
        stream: StreamId,
        to: u64,
    },
    /// Rows of dead letters, by the places of their sources: they come a second time, and move neither offsets nor event time.
    Again {
        batches: Vec<(usize, SourceBatch)>,
    },
    /// It is time to give groups that changed.
    Give,
    /// It is time to put what an operator holds into files: of each place, all that it has in memory.
    Spill {
        operator: usize,
        at: Vec<i64>,
    },
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// In the columns of the plan's output.
    pub(crate) rows: Vec<RecordBatch>,
    /// Rows that could not be computed, and messages that were no rows.
    pub(crate) rejects: Vec<(StreamId, Reject)>,
    /// Rows that came too late, where these are dead letters.
    pub(crate) late: Vec<(StreamId, Reject)>,
}

/// How a machine goes about time, and where state goes that is spilled.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) jump_max_us: i64,
    pub(crate) late: Late,
    pub(crate) store: Arc<dyn Store>,
    /// Of each operator that has keys.
    pub(crate) lanes: usize,
}

/// Counts since the pipeline was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub rows_in: u64,
    pub rows_out: u64,
    /// Those that were counted nowhere.
    pub late_rows: u64,
    /// Those that came late and changed what was given.
    #[serde(default)]
    pub late_updates: u64,
    pub rejected: u64,
    /// Rows that DISTINCT ON left out.
    #[serde(default)]
    pub duplicates: u64,
    /// Right rows of joins that no left row came for, and of these those whose key came at another time only.
    #[serde(default)]
    pub unmatched: u64,
    #[serde(default)]
    pub out_of_bound: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.late_rows += other.late_rows;
        self.late_updates += other.late_updates;
        self.rejected += other.rejected;
        self.duplicates += other.duplicates;
        self.unmatched += other.unmatched;
        self.out_of_bound += other.out_of_bound;
    }
}

/// What of a machine is kept beside its groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The next offset of each stream.
    pub(crate) positions: Vec<(StreamId, u64)>,
    pub(crate) landmarks: Vec<(StreamId, Landmark)>,
    pub(crate) time: EventTime,
    pub(crate) counts: Counts,
}

/// A picture of a machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) progress: Progress,
    pub(crate) parts: Vec<Part>,
}

pub(crate) struct Machine {
    plan: Arc<Plan>,
    sources: Arc<[MachineSource]>,
    positions: BTreeMap<StreamId, u64>,
    landmarks: BTreeMap<StreamId, Landmark>,
    time: EventTime,
    counts: Counts,
    late: Late,
    operators: Vec<Lanes>,
    lanes: usize,
    asking: Asking,
}

/// What a dead letter says that came too late.
const LATE: &str = "the row is late: what it belongs to was given";

/// Rows that go on together: of a large state that comes out of files each copy would take as much memory.
const TOGETHER_MAX: usize = 256 * 1024;

/// State that is none of the operator that finds it.
fn foreign(what: &str) -> DataFusionError {
    DataFusionError::Execution(format!("the state is of another query, or of another version of the server ({what})"))
}

/// Where a lane goes: a side of an operator, or the output.
#[derive(Clone, Copy)]
enum Target {
    Operator(usize, usize),
    Output,
}

/// The lanes that begin at a source or an operator.
fn lanes(plan: &Plan, from: Origin) -> impl Iterator<Item = (Target, &Lane)> {
    let sides = plan.operators.iter().enumerate().flat_map(|(at, operator)| {
        let sides = operator.sides.iter().enumerate();
        sides.flat_map(move |(side, lanes)| lanes.iter().map(move |lane| (Target::Operator(at, side), lane)))
    });
    let all = sides.chain(plan.output.iter().map(|lane| (Target::Output, lane)));
    all.filter(move |(_, lane)| lane.from == from)
}

impl Picture {
    /// The files that it names beside its own, durable at return.
    pub(crate) fn spilled(&self) -> Result<Vec<StateFile>> {
        let mut files: BTreeMap<&str, &StateFile> = BTreeMap::new();
        for spilled in self.parts.iter().filter_map(|part| part.in_file.as_ref()) {
            if files.insert(&spilled.file().file, spilled.file()).is_none()
                && let Some(kept) = spilled.kept()
            {
                kept.sync()?;
            }
        }
        Ok(files.into_values().cloned().collect())
    }
}

impl Machine {
    pub(crate) fn new(
        plan: Arc<Plan>,
        sources: Arc<[MachineSource]>,
        tables: Arc<[Arc<dyn TableRows>]>,
        settings: Settings,
    ) -> Result<Self> {
        let mut time = EventTime::new(sources.iter().map(|source| source.id).collect(), settings.jump_max_us);
        if plan.waits_for_all() {
            time.wait_for_all();
        }
        let late = settings.late;
        let operators =
            plan.operators.iter().map(|operator| Lanes::new(&operator.kind, late, &settings.store, settings.lanes));
        let operators = operators.collect::<Result<_, _>>()?;
        Ok(Self {
            plan,
            sources,
            positions: BTreeMap::new(),
            landmarks: BTreeMap::new(),
            time,
            counts: Counts::default(),
            late,
            operators,
            lanes: settings.lanes,
            asking: Asking::new(tables),
        })
    }

    /// A machine as a picture has it, whose parts come one after the other.
    pub(crate) fn restore(
        plan: Arc<Plan>,
        sources: Arc<[MachineSource]>,
        tables: Arc<[Arc<dyn TableRows>]>,
        settings: Settings,
        progress: Progress,
        parts: impl IntoIterator<Item = Result<Part>>,
    ) -> Result<Self> {
        let mut machine = Self::new(plan, sources, tables, settings)?;
        let watermark = progress.time.combined();
        for (operator, running) in machine.plan.operators.iter().zip(&mut machine.operators) {
            running.begin(watermark, delay_of(&operator.kind, 0));
        }
        for part in parts {
            let part = part?;
            let at = part.operator;
            let running = machine.operators.get_mut(at).ok_or_else(|| foreign(&part.kind))?;
            running.restore(part)?;
        }
        machine.positions = progress.positions.into_iter().collect();
        machine.landmarks = progress.landmarks.into_iter().collect();
        machine.time = progress.time;
        machine.counts = progress.counts;
        Ok(machine)
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            positions: self.positions.iter().map(|(stream, offset)| (*stream, *offset)).collect(),
            landmarks: self.landmarks.iter().map(|(stream, landmark)| (*stream, *landmark)).collect(),
            time: self.time.clone(),
            counts: self.counts,
        }
    }

    /// All that is needed to go on from here.
    pub(crate) fn picture(&mut self) -> Result<Picture> {
        let mut parts = Vec::new();
        for (operator, running) in self.operators.iter_mut().enumerate() {
            parts.extend(running.dump()?.into_iter().map(|part| Part { operator, ..part }));
        }
        Ok(Picture { progress: self.progress(), parts })
    }

    /// Whether everything is given that what was read so far ends or changes.
    pub(crate) fn is_settled(&self) -> bool {
        let is_timeless = !self.plan.has_time() || self.counts.rows_in == 0;
        !self.is_waiting() && (is_timeless || self.time.is_settled())
    }

    /// Whether groups changed that [`Arrival::Give`] would give.
    pub(crate) fn is_waiting(&self) -> bool {
        self.operators.iter().any(Lanes::is_waiting)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// [`NEVER`] before anything is known.
    pub(crate) fn watermark(&self) -> i64 {
        self.time.combined()
    }

    /// Sources whose rows let the watermark go on, when others are further.
    pub(crate) fn behind(&self) -> Vec<SourceId> {
        self.time.behind()
    }

    /// Of each operator that has keys.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Bytes of state, and groups or rows in it.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.operators.iter().map(Lanes::size).fold((0, 0), |(bytes, groups), (b, g)| (bytes + b, groups + g))
    }

    /// Bytes of state in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.operators.iter().map(Lanes::spilled).sum()
    }

    /// What makes about so many bytes of memory free, the coldest first; `None` when nothing does.
    pub(crate) fn spilling(&self, bytes: usize) -> Option<Arrival> {
        let of = |(operator, running): (usize, &Lanes)| {
            let found = running.spillable();
            (found.iter().map(|(_, bytes)| *bytes).sum::<usize>(), operator, found)
        };
        let (_, operator, found) = self.operators.iter().enumerate().map(of).max_by_key(|(bytes, ..)| *bytes)?;
        let mut free = 0;
        let at = found.into_iter().filter(|(_, bytes)| *bytes > 0).take_while(|(_, of)| {
            let is_wanted = free < bytes;
            free += of;
            is_wanted
        });
        let at: Vec<i64> = at.map(|(at, _)| at).collect();
        (!at.is_empty()).then_some(Arrival::Spill { operator, at })
    }

    /// What tables said for the arrival that was taken last.
    pub(crate) fn answers(&mut self) -> Answers {
        self.asking.take()
    }

    /// Takes what came before, and was told `answers` then.
    pub(crate) fn apply_again(&mut self, arrival: &Arrival, answers: Answers) -> Result<Outcome> {
        self.asking.tell(answers);
        let outcome = self.apply(arrival)?;
        self.asking.take();
        Ok(outcome)
    }

    /// Goes to where another machine over the same sources is in time, and drops what is given by then.
    pub(crate) fn follow(&mut self, time: &EventTime) -> Result<()> {
        self.time.follow(time);
        let Some(source) = self.sources.first().map(|source| source.id) else { return Ok(()) };
        self.apply(&Arrival::Known { source }).map(|_| ())
    }

    /// Takes what came. After an error the machine is in no state to go on: it is made again from a picture.
    pub(crate) fn apply(&mut self, arrival: &Arrival) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        match arrival {
            Arrival::Rows { source, batch, landmark } => {
                self.take(*source, batch, &mut outcome)?;
                self.landmarks.extend(landmark.map(|landmark| (batch.stream, landmark)));
            }
            Arrival::Begin { stream, offset } => _ = self.positions.insert(*stream, *offset),
            Arrival::Known { source } => self.time.know(*source),
            Arrival::Flow { stream, flow } => self.time.set_flow(*stream, *flow),
            Arrival::Skip { stream, to } => _ = self.positions.insert(*stream, *to),
            Arrival::Again { batches } => {
                for (source, batch) in batches {
                    self.take_again(*source, batch, &mut outcome)?;
                }
            }
            Arrival::Give => {}
            Arrival::Spill { operator, at } => {
                let running = self.operators.get_mut(*operator);
                running.ok_or_else(|| foreign("spilled state of an operator that is not there"))?.spill(at)?;
            }
        }
        let watermark = self.time.combined();
        // An operator has seen all that those before it give of this watermark.
        for at in 0..self.operators.len() {
            let delay = delay_of(&self.plan.operators[at].kind, 0);
            let mut taken = self.operators[at].advance(watermark, delay)?;
            if matches!(arrival, Arrival::Give) {
                taken.extend(self.operators[at].give()?);
            }
            self.forward(at, taken, &mut Vec::new(), &mut outcome)?;
        }
        Ok(outcome)
    }

    fn take(&mut self, source: usize, batch: &SourceBatch, outcome: &mut Outcome) -> Result<()> {
        let rows = batch.rows.num_rows();
        self.counts.rows_in += rows as u64;
        let before = match &self.sources[source].watermark {
            Some(watermark) => self.time.advance(batch.stream, &watermark.values(&batch.rows)),
            None => vec![NEVER; rows],
        };
        let (rejects, late) = (outcome.rejects.len(), outcome.late.len());
        self.process(source, batch, before, self.late.policy == LatePolicy::Dlq, outcome)?;
        self.counts.rejected += (outcome.rejects.len() - rejects + outcome.late.len() - late) as u64;
        self.positions.insert(batch.stream, batch.to);
        Ok(())
    }

    /// Rows that were dead letters: late by the watermark of now, and letters again when they are.
    fn take_again(&mut self, source: usize, batch: &SourceBatch, outcome: &mut Outcome) -> Result<()> {
        let watermark = match &self.sources[source].watermark {
            Some(_) => self.time.combined(),
            None => NEVER,
        };
        self.process(source, batch, vec![watermark; batch.rows.num_rows()], true, outcome)
    }

    /// Brings rows through everything. `before`: the watermark before each; `keeps_late`: rows that come too late are dead letters.
    fn process(
        &mut self,
        source: usize,
        batch: &SourceBatch,
        before: Vec<i64>,
        keeps_late: bool,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let rows = batch.rows.num_rows();
        let mut rejects = batch.rejects.clone();
        let mut late = Vec::new();
        for (target, lane) in lanes(&plan, Origin::Source(source)) {
            let (mut pieces, mut faults, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            if rows > 0 {
                let asking = &mut self.asking;
                bisect(
                    0..rows,
                    &mut |range| {
                        // What no row is to blame for is not looked for among them.
                        if asking.has_failed() {
                            return Err(String::new());
                        }
                        let flowing = Flowing {
                            rows: batch.rows.slice(range.start, range.len()),
                            places: (range.start as u32..range.end as u32).collect(),
                            before: before[range].to_vec(),
                        };
                        let prepared = prepare(kind_of(&plan, target), &lane.steps, flowing, asking);
                        prepared.map_err(|uncomputed| asking.blame(uncomputed))
                    },
                    &mut |_, (piece, of_piece): (Piece, Vec<Fault>)| {
                        pieces.push(piece);
                        faults.extend(of_piece);
                    },
                    &mut |row, reason| failed.push((row as u32, reason)),
                );
            }
            self.asking.failure()?;
            faults.append(&mut failed);
            faults.sort_by_key(|(row, _)| *row);
            rejects.extend(faults.into_iter().map(|(row, reason)| row_reject(batch, row as usize, None, reason)));
            for piece in pieces {
                self.deliver(target, piece, &mut late, outcome)?;
            }
        }
        rejects.sort_by_key(|reject| reject.offset);
        // A row that two branches cannot compute is one dead letter for each reason.
        rejects.dedup();
        outcome.rejects.extend(rejects.into_iter().map(|reject| (batch.stream, reject)));
        if keeps_late {
            late.retain(|place| *place != flow::NOWHERE);
            late.sort_unstable();
            late.dedup();
            let late = late.into_iter().map(|row| row_reject(batch, row as usize, None, LATE.into()));
            outcome.late.extend(late.map(|reject| (batch.stream, reject)));
        }
        Ok(())
    }

    /// Gives rows to an operator and what comes of them to those behind it, or to the output. `late`: places of rows that came too late.
    fn deliver(&mut self, target: Target, piece: Piece, late: &mut Vec<u32>, outcome: &mut Outcome) -> Result<()> {
        match (target, piece) {
            (Target::Operator(at, _), piece) => {
                let taken = self.operators[at].take(&self.plan.operators[at].kind, piece)?;
                self.forward(at, taken, late, outcome)
            }
            (Target::Output, Piece::Rows(rows)) => {
                if rows.num_rows() > 0 {
                    let rows = self.plan.outputs().conform(&rows).map_err(failed)?;
                    self.counts.rows_out += rows.num_rows() as u64;
                    outcome.rows.push(rows);
                }
                Ok(())
            }
            (Target::Output, _) => Err(failed("rows were prepared for an operator".into())),
        }
    }

    /// Brings what an operator gave to where it goes.
    fn forward(&mut self, at: usize, taken: Taken, late: &mut Vec<u32>, outcome: &mut Outcome) -> Result<()> {
        self.counts.add(taken.counts);
        self.counts.late_rows += taken.late.len() as u64;
        late.extend(taken.late);
        let mut given = taken.given.into_iter().peekable();
        while given.peek().is_some() {
            let mut rows = 0;
            let some = std::iter::from_fn(|| {
                let next = given.next_if(|flowing| rows == 0 || rows + flowing.rows.num_rows() <= TOGETHER_MAX)?;
                rows += next.rows.num_rows();
                Some(next)
            });
            if let Some(flowing) = together(some.collect())? {
                self.forward_some(at, &flowing, late, outcome)?;
            }
        }
        Ok(())
    }

    fn forward_some(&mut self, at: usize, flowing: &Flowing, late: &mut Vec<u32>, outcome: &mut Outcome) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for (target, lane) in lanes(&plan, Origin::Operator(at)) {
            let flowing =
                Flowing { rows: flowing.rows.clone(), before: flowing.before.clone(), places: flowing.places.clone() };
            let prepared = prepare(kind_of(&plan, target), &lane.steps, flowing, &mut self.asking);
            self.asking.failure()?;
            let (piece, faults) = prepared.map_err(Uncomputed::error)?;
            if let Some((_, reason)) = faults.into_iter().next() {
                return Err(failed(reason));
            }
            self.deliver(target, piece, late, outcome)?;
        }
        Ok(())
    }
}

fn failed(reason: String) -> Error {
    Error::DataFusion(Arc::new(DataFusionError::Execution(reason)))
}

fn kind_of(plan: &Plan, target: Target) -> Option<(&super::plan::Kind, usize)> {
    match target {
        Target::Operator(at, side) => Some((&plan.operators[at].kind, side)),
        Target::Output => None,
    }
}

/// Rows that follow one another as one batch.
fn together(mut given: Vec<Flowing>) -> Result<Option<Flowing>> {
    if given.len() <= 1 {
        return Ok(given.pop());
    }
    let schema = given[0].rows.schema();
    Ok(Some(Flowing {
        rows: concat_batches(&schema, given.iter().map(|flowing| &flowing.rows))?,
        before: given.iter().flat_map(|flowing| flowing.before.iter().copied()).collect(),
        places: given.iter().flat_map(|flowing| flowing.places.iter().copied()).collect(),
    }))
}
