//! The deterministic heart of a pipeline: what comes in, in its order, says what comes out, and nothing else does.
//!
//! ```text
//! Arrival ─► branch steps ─► event time, late? ─► windows ─► steps ─► rows of the output
//! ```
//!
//! No clock, no file, no thread: the runner feeds it, keeps its pictures and replays arrivals into it. What always holds: the same arrivals after the same
//! picture give the same rows in the same order.

mod event_time;
mod groups;
pub(crate) mod state_file;
#[cfg(test)]
mod tests;
mod windowed;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::{concat_batches, prep_null_mask_filter},
    datatypes::TimestampMicrosecondType,
};
use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};
use tidemill_storage::ids::{SourceId, StreamId};

pub(crate) use self::event_time::{EventTime, Flow, NEVER};
use self::windowed::{PaneDump, Prepared, Windowed};
use super::{
    bisect::bisect,
    checks::row_reject,
    late::{Late, LatePolicy},
    plan::{Aggregate, Branch, Plan, steps},
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

/// How a machine goes about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) jump_max_us: i64,
    pub(crate) late: Late,
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
    pub(crate) panes: Vec<PaneDump>,
}

impl Picture {
    pub(crate) fn groups(&self) -> u64 {
        self.panes.iter().map(|pane| pane.dump.groups as u64).sum()
    }
}

pub(crate) struct Machine {
    plan: Arc<Plan>,
    sources: Arc<[MachineSource]>,
    positions: BTreeMap<StreamId, u64>,
    landmarks: BTreeMap<StreamId, Landmark>,
    time: EventTime,
    counts: Counts,
    late: Late,
    windowed: Option<Windowed>,
}

/// Rows of one branch, ready for the aggregate or for the output.
enum Piece {
    Rows(RecordBatch),
    Prepared(Box<Prepared>),
}

/// What a dead letter says that came too late.
const LATE: &str = "the row is late: all windows that it is in were given";

/// A row of a batch that cannot be computed, and why.
type Fault = (usize, String);

impl Machine {
    pub(crate) fn new(plan: Arc<Plan>, sources: Arc<[MachineSource]>, settings: Settings) -> Result<Self> {
        let time = EventTime::new(sources.iter().map(|source| source.id).collect(), settings.jump_max_us);
        let late = settings.late;
        let windowed = plan_windows(&plan).map(|aggregate| Windowed::new(aggregate, late)).transpose()?;
        Ok(Self {
            plan,
            sources,
            positions: BTreeMap::new(),
            landmarks: BTreeMap::new(),
            time,
            counts: Counts::default(),
            late,
            windowed,
        })
    }

    pub(crate) fn restore(
        plan: Arc<Plan>,
        sources: Arc<[MachineSource]>,
        settings: Settings,
        picture: Picture,
    ) -> Result<Self> {
        let Picture { progress, panes } = picture;
        let late = settings.late;
        let windowed = match plan_windows(&plan) {
            Some(aggregate) => Some(Windowed::restore(aggregate, late, panes, progress.time.combined())?),
            None => None,
        };
        Ok(Self {
            plan,
            sources,
            positions: progress.positions.into_iter().collect(),
            landmarks: progress.landmarks.into_iter().collect(),
            time: progress.time,
            counts: progress.counts,
            late,
            windowed,
        })
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
        let panes = self.windowed.as_mut().map_or_else(|| Ok(Vec::new()), Windowed::dump)?;
        Ok(Picture { progress: self.progress(), panes })
    }

    /// Whether all windows are given that what was read so far ends.
    pub(crate) fn is_settled(&self) -> bool {
        self.windowed.is_none() || self.counts.rows_in == 0 || self.time.is_settled()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// [`NEVER`] before anything is known.
    pub(crate) fn watermark(&self) -> i64 {
        self.time.combined()
    }

    /// Bytes of state, and groups.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.windowed.as_ref().map_or((0, 0), |windowed| (windowed.bytes(), windowed.open_groups()))
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
        }
        let watermark = self.time.combined();
        let complete = match &mut self.windowed {
            Some(windowed) => windowed.advance(watermark)?,
            None => Vec::new(),
        };
        self.give(complete, &mut outcome)?;
        Ok(outcome)
    }

    fn take(&mut self, source: usize, batch: &SourceBatch, outcome: &mut Outcome) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let rows = batch.rows.num_rows();
        self.counts.rows_in += rows as u64;
        let before = match &self.sources[source].watermark {
            Some(watermark) => self.time.advance(batch.stream, &watermark.values(&batch.rows)),
            None => vec![NEVER; rows],
        };
        let mut rejects = batch.rejects.clone();
        let mut late = Vec::new();
        for branch in plan.branches.iter().filter(|branch| branch.source == source) {
            let (mut pieces, mut faults, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            if rows > 0 {
                bisect(
                    0..rows,
                    &mut |range| {
                        let piece = batch.rows.slice(range.start, range.len());
                        prepare(&plan, branch, piece, range.start, &before[range])
                    },
                    &mut |range, (piece, of_piece): (Piece, Vec<Fault>)| {
                        pieces.push(piece);
                        faults.extend(of_piece.into_iter().map(|(row, reason)| (range.start + row, reason)));
                    },
                    &mut |row, reason| failed.push((row, reason)),
                );
            }
            faults.append(&mut failed);
            faults.sort_by_key(|(row, _)| *row);
            rejects.extend(faults.into_iter().map(|(row, reason)| row_reject(batch, row, None, reason)));
            for piece in pieces {
                match piece {
                    Piece::Rows(rows) => self.give(vec![rows], outcome)?,
                    Piece::Prepared(prepared) => {
                        let Some(windowed) = &mut self.windowed else { continue };
                        let taken = windowed.update(&prepared)?;
                        self.counts.late_rows += taken.late.len() as u64;
                        self.counts.late_updates += taken.corrections;
                        late.extend(taken.late);
                        self.give(taken.given, outcome)?;
                    }
                }
            }
        }
        self.counts.rejected += rejects.len() as u64;
        rejects.sort_by_key(|reject| reject.offset);
        // A row that two branches cannot compute is one dead letter for each reason.
        rejects.dedup();
        outcome.rejects.extend(rejects.into_iter().map(|reject| (batch.stream, reject)));
        if self.late.policy == LatePolicy::Dlq {
            late.sort_unstable();
            late.dedup();
            self.counts.rejected += late.len() as u64;
            let late = late.into_iter().map(|row| row_reject(batch, row as usize, None, LATE.into()));
            outcome.late.extend(late.map(|reject| (batch.stream, reject)));
        }
        self.positions.insert(batch.stream, batch.to);
        Ok(())
    }

    /// Brings rows through the last steps into the output.
    fn give(&mut self, batches: Vec<RecordBatch>, outcome: &mut Outcome) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        let failed = |reason: String| Error::DataFusion(Arc::new(DataFusionError::Execution(reason)));
        let schema = batches[0].schema();
        let rows = match batches.as_slice() {
            [one] => one.clone(),
            all => concat_batches(&schema, all)?,
        };
        let given = steps::run(&self.plan.steps, rows).map_err(failed)?.rows;
        if given.num_rows() > 0 {
            let rows = self.plan.outputs().conform(&given).map_err(failed)?;
            self.counts.rows_out += rows.num_rows() as u64;
            outcome.rows.push(rows);
        }
        Ok(())
    }
}

fn plan_windows(plan: &Arc<Plan>) -> Option<Arc<Aggregate>> {
    plan.aggregate.as_ref().map(Arc::clone)
}

/// Computes all of rows that may fail for one of them. `first`: the place of the first of them in their batch.
fn prepare(
    plan: &Plan,
    branch: &Branch,
    rows: RecordBatch,
    first: usize,
    before: &[i64],
) -> Result<(Piece, Vec<Fault>), String> {
    let stepped = steps::run(&branch.steps, rows)?;
    let Some(aggregate) = &plan.aggregate else { return Ok((Piece::Rows(stepped.rows), Vec::new())) };
    let mut rows = stepped.rows;
    let mut places: Option<Vec<u32>> = stepped.places.map(|places| places.values().to_vec());
    let time = |rows: &RecordBatch| {
        let times = aggregate.time.evaluate(rows)?;
        let times = times.as_primitive_opt::<TimestampMicrosecondType>().cloned();
        times.ok_or_else(|| "the event time is no timestamp of microseconds".to_owned())
    };
    let mut times = time(&rows)?;
    let mut faults = Vec::new();
    if times.null_count() > 0 {
        let place = |row: usize| places.as_ref().map_or(row, |places| places[row] as usize);
        let without = (0..times.len()).filter(|row| times.is_null(*row));
        faults
            .extend(without.map(|row| (place(row), "the event time is null, so that the row is in no window".into())));
        let mask = arrow::compute::is_not_null(&times).map_err(|error| error.to_string())?;
        places = Some(mask.values().set_indices().map(|row| place(row) as u32).collect());
        rows = arrow::compute::filter_record_batch(&rows, &mask).map_err(|error| error.to_string())?;
        times = time(&rows)?;
    }
    let all = |expressions: &[super::expression::Expression]| {
        expressions.iter().map(|expression| expression.evaluate(&rows)).collect::<Result<Vec<_>, _>>()
    };
    let keys = all(&aggregate.keys)?;
    let arguments = aggregate.calls.iter().map(|call| all(&call.arguments)).collect::<Result<_, _>>()?;
    let filters = aggregate.calls.iter().map(|call| match &call.filter {
        None => Ok(None),
        Some(filter) => {
            let mask = filter.evaluate(&rows)?;
            let mask = mask.as_boolean_opt().ok_or("the condition of FILTER is not boolean")?;
            Ok(Some(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }))
        }
    });
    let filters = filters.collect::<Result<_, String>>()?;
    let places = places.unwrap_or_else(|| (0..before.len() as u32).collect());
    let before = places.iter().map(|row| before[*row as usize]).collect();
    let places = places.into_iter().map(|row| first as u32 + row).collect();
    Ok((Piece::Prepared(Box::new(Prepared { times, keys, arguments, filters, before, places })), faults))
}
