//! An operator in lanes: each has the keys whose hashes are in its range, with all that is kept of them, and takes its rows in a thread of its own.
//!
//! ```text
//! rows ─ hash of the key ─┬─► lane 0 ─┐
//!                         └─► lane 1 ─┴─► what they give, that of lane 0 first
//! ```
//!
//! A picture does not say how many lanes there were: what was in memory goes to lanes by its keys, and a file to all lanes that have keys in it. So their number may change
//! at any moment. What is given is the same, but for the order of rows of different keys.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, UInt32Array},
    compute::take,
    datatypes::{Field, Schema, SchemaRef},
};
use datafusion::common::DataFusionError;
use parking_lot::Mutex;

use super::{
    flow::{Part, Taken},
    operators::{Piece, Running},
    spill::{Parting, Share, Store},
};
use crate::{
    pipeline::{
        expression::Expression,
        late::Late,
        plan::{Kind, windows::Window},
    },
    runtime::side_by_side,
};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Rows for which threads are worth their while.
const ROWS: usize = 1024;

pub(super) struct Lanes {
    lanes: Vec<Running>,
    /// `None` for one lane.
    parting: Option<Parting>,
    /// Which columns of its parts are keys.
    keys: usize,
    watermark: i64,
}

impl Lanes {
    /// Of an operator without keys there is one lane, and of one whose keys are floats, which are equal without having the same bytes. So it is of those whose rows keep their places.
    pub(super) fn new(kind: &Kind, late: Late, store: &Arc<dyn Store>, wanted: usize) -> Result<Self> {
        let parting = match keys_of(kind) {
            Some(keys) if wanted > 1 && !keys.fields().is_empty() => Some(Parting::new(&keys)?),
            _ => None,
        };
        let parting = parting.filter(Parting::is_plain);
        let count = if parting.is_some() { wanted } else { 1 };
        let lanes = (0..count).map(|_| Running::new(kind, late, store)).collect::<Result<_>>()?;
        let keys = match kind {
            Kind::Aggregate(aggregate) => {
                let is_session = |window: &Window| matches!(window, Window::Session { .. });
                usize::from(aggregate.timing.as_ref().is_some_and(|timing| is_session(&timing.window)))
            }
            _ => 1,
        };
        Ok(Self { lanes, parting, keys, watermark: i64::MIN })
    }

    /// `kind`: what it runs.
    pub(super) fn take(&mut self, kind: &Kind, piece: Piece) -> Result<Taken> {
        let mut taken = match &self.parting {
            None => self.lanes[0].take(piece)?,
            Some(parting) => {
                let rows = piece.rows();
                let pieces = places(parting, piece.keys(), rows, self.lanes.len())?;
                let pieces = pieces.iter().map(|rows| piece.take(rows)).collect::<Result<_>>()?;
                merged(self.each(pieces, rows >= ROWS, |lane, piece| lane.take(piece))?)
            }
        };
        if let Kind::Aggregate(aggregate) = kind
            && aggregate.sets.len() > 1
        {
            // A row came once for each set, and all are late, or none.
            taken.late.sort_unstable();
            taken.late = taken.late.chunks(aggregate.sets.len()).map(|row| row[0]).collect();
            taken.counts.late_updates /= aggregate.sets.len() as u64;
        }
        Ok(taken)
    }

    /// What comes of the watermark. `delay`: how far the operator's times are behind it.
    pub(super) fn advance(&mut self, watermark: i64, delay: i64) -> Result<Taken> {
        let is_new = watermark > self.watermark;
        self.watermark = watermark;
        self.all(is_new, |lane| lane.advance(watermark, delay)).map(merged)
    }

    /// What is given when the runner says that it is time.
    pub(super) fn give(&mut self) -> Result<Taken> {
        self.all(true, Running::give).map(merged)
    }

    /// Whether there is something that waits for that.
    pub(super) fn is_waiting(&self) -> bool {
        self.lanes.iter().any(Running::is_waiting)
    }

    /// What may go to files: where it is, and its bytes in all lanes, the coldest first.
    pub(super) fn spillable(&self) -> Vec<(i64, usize)> {
        let mut of_lanes = self.lanes.iter().map(Running::spillable);
        let mut found = of_lanes.next().unwrap_or_default();
        let mut places: BTreeMap<i64, usize> = found.iter().enumerate().map(|(at, (place, _))| (*place, at)).collect();
        for (place, bytes) in of_lanes.flatten() {
            match places.get(&place) {
                Some(at) => found[*at].1 += bytes,
                None => {
                    places.insert(place, found.len());
                    found.push((place, bytes));
                }
            }
        }
        found
    }

    pub(super) fn spill(&mut self, at: &[i64]) -> Result<()> {
        self.all(true, |lane| lane.spill(at)).map(|_| ())
    }

    /// Bytes in files.
    pub(super) fn spilled(&self) -> u64 {
        self.lanes.iter().map(Running::spilled).sum()
    }

    pub(super) fn dump(&mut self) -> Result<Vec<Part>> {
        let count = self.lanes.len();
        let mut parts = Vec::new();
        for (lane, running) in self.lanes.iter_mut().enumerate() {
            let own = Share::of_lane(lane, count);
            parts.extend(running.dump()?.into_iter().map(|part| Part {
                in_file: part.in_file.map(|file| {
                    let share = file.share().told_by(own);
                    file.with_share(share)
                }),
                ..part
            }));
        }
        Ok(parts)
    }

    /// Begins as one that has seen the watermark.
    pub(super) fn begin(&mut self, watermark: i64, delay: i64) {
        self.lanes.iter_mut().for_each(|lane| lane.begin(watermark, delay));
    }

    /// Takes a part of a picture, whatever lanes there were.
    pub(super) fn restore(&mut self, mut part: Part) -> Result<()> {
        let count = self.lanes.len();
        if let Some(file) = part.in_file.take() {
            for (lane, running) in self.lanes.iter_mut().enumerate() {
                let Some(share) = file.share().within(Share::of_lane(lane, count)) else { continue };
                running.restore(Part { in_file: Some(file.clone().with_share(share)), ..part.clone() })?;
            }
            return Ok(());
        }
        let keys = part.columns.get(self.keys).filter(|keys| !keys.is_empty());
        let (Some(parting), Some(keys)) = (&self.parting, keys) else { return self.lanes[0].restore(part) };
        for (rows, running) in places(parting, keys, part.rows, count)?.iter().zip(&mut self.lanes) {
            if rows.is_empty() {
                continue;
            }
            let pick = |arrays: &Vec<ArrayRef>| arrays.iter().map(|array| Ok(take(array, rows, None)?)).collect();
            let columns = part.columns.iter().map(pick).collect::<Result<_>>()?;
            let (kind, at) = (part.kind.clone(), part.at);
            running.restore(Part { operator: part.operator, kind, at, rows: rows.len(), columns, in_file: None })?;
        }
        Ok(())
    }

    /// Bytes, and groups or rows.
    pub(super) fn size(&self) -> (usize, usize) {
        self.lanes.iter().map(Running::size).fold((0, 0), |(bytes, groups), (b, g)| (bytes + b, groups + g))
    }

    fn all<T: Send>(&mut self, is_much: bool, work: impl Fn(&mut Running) -> Result<T> + Sync) -> Result<Vec<T>> {
        let inputs = vec![(); self.lanes.len()];
        self.each(inputs, is_much, |lane, ()| work(lane))
    }

    fn each<I: Send, T: Send>(
        &mut self,
        inputs: Vec<I>,
        is_much: bool,
        work: impl Fn(&mut Running, I) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let lanes = self.lanes.iter_mut().zip(inputs);
        if !is_much || lanes.len() == 1 {
            return lanes.map(|(lane, input)| work(lane, input)).collect();
        }
        let lanes: Vec<_> = lanes.map(|lane| Mutex::new(Some(lane))).collect();
        let work = |lane: &Mutex<Option<(&mut Running, I)>>| lane.lock().take().map(|(lane, input)| work(lane, input));
        side_by_side(&lanes, lanes.len(), work).into_iter().flatten().collect()
    }
}

/// By what an operator is parted.
fn keys_of(kind: &Kind) -> Option<SchemaRef> {
    let schema_of = |keys: &[Expression]| -> SchemaRef {
        let fields = keys.iter().enumerate();
        let fields = fields.map(|(at, key)| Field::new(format!("k{at}"), key.field.data_type().clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    match kind {
        Kind::Aggregate(aggregate) => Some(Arc::clone(&aggregate.key_schema)),
        Kind::Join(join) => Some(schema_of(&join.sides[0].keys)),
        Kind::AsOf(as_of) => Some(schema_of(&as_of.sides[0].keys)),
        Kind::Ranking(ranking) => Some(schema_of(&ranking.keys)),
        Kind::Dedup(_) | Kind::Process(_) => None,
    }
}

/// Rows by the lanes that have their keys.
fn places(parting: &Parting, keys: &[ArrayRef], rows: usize, lanes: usize) -> Result<Vec<UInt32Array>> {
    let mut of_lane = vec![Vec::with_capacity(rows / lanes + rows / 8); lanes];
    for (row, hash) in (0u32..).zip(parting.hashes(keys, rows)?) {
        of_lane[Share::lane_of(hash, lanes)].push(row);
    }
    Ok(of_lane.into_iter().map(UInt32Array::from).collect())
}

fn merged(taken: Vec<Taken>) -> Taken {
    let mut all = Taken::default();
    taken.into_iter().for_each(|taken| all.extend(taken));
    all
}
