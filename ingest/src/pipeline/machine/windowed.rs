//! The operator behind TUMBLE, HOP and CUMULATE: groups by pane, windows made of panes.
//!
//! ```text
//! time     ──┬─────┬─────┬─────┬──►        a pane is the stretch whose times are in the same windows: TUMBLE's window, HOP's and CUMULATE's step
//! panes      p0    p1    p2    p3
//! windows    [0 ── 2)                      p0 + p1
//!                  [1 ── 3)                p1 + p2: p1 was counted once
//! ```
//!
//! A row goes to one pane. When the watermark passes the end of a window, its panes are merged and its groups given; a pane goes when its last window has been
//! given. What always holds: what a window gives depends on the rows that came before the watermark passed its end, not on how they came in batches.
//!
//! With `late = 'update'` panes stay until the watermark passes the end of their last window and the allowed lateness. A row that comes in that time *corrects*
//! windows that were given: its group is given again, once for all rows that came together.
//!
//! Groups of a pane may be in files (`spill/`), and what comes after that in memory: a window that has such panes is given part by part of its keys' hashes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array},
    compute::{filter_record_batch, take},
    datatypes::{DataType as ArrowType, TimestampMicrosecondType},
    row::{RowConverter, SortField},
};
use datafusion::common::DataFusionError;

use super::{
    flow::{InFile, Part, Taken},
    groups::{Dump, Groups, Rows},
    spill::{self, Merging, Parted, Parting, Reader, Run, Store, Writing},
};
use crate::pipeline::{
    late::Late,
    plan::{
        Aggregate, Timing,
        windows::{Span, Window, window_array},
    },
};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Rows with all that the operator computes of them alone.
pub(crate) struct Prepared {
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) arguments: Vec<Vec<ArrayRef>>,
    pub(crate) filters: Vec<Option<BooleanArray>>,
    /// The watermark before each row.
    pub(crate) before: Vec<i64>,
    /// Which row of its source's batch each is.
    pub(crate) places: Vec<u32>,
}

impl Prepared {
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let pick = |array: &ArrayRef| Ok(take(array, rows, None)?);
        // Without a window there are none.
        let times = if self.times.is_empty() { UInt32Array::from(Vec::<u32>::new()) } else { rows.clone() };
        let all = |arrays: &[ArrayRef]| arrays.iter().map(pick).collect::<Result<Vec<_>>>();
        Ok(Self {
            times: take(&self.times, &times, None)?.as_primitive::<TimestampMicrosecondType>().clone(),
            keys: all(&self.keys)?,
            arguments: self.arguments.iter().map(|arguments| all(arguments)).collect::<Result<_>>()?,
            filters: self
                .filters
                .iter()
                .map(|filter| match filter {
                    Some(filter) => {
                        let filter: ArrayRef = Arc::new(filter.clone());
                        Ok(Some(pick(&filter)?.as_boolean().clone()))
                    }
                    None => Ok(None),
                })
                .collect::<Result<_>>()?,
            before: rows.values().iter().map(|row| self.before[*row as usize]).collect(),
            places: rows.values().iter().map(|row| self.places[*row as usize]).collect(),
        })
    }
}

/// A pane's groups: those in files, and then those in memory.
#[derive(Default)]
struct Pane {
    runs: Vec<Run>,
    /// Of them, those that become one.
    merging: Option<Merging>,
    held: Option<Held>,
    /// Of the operator's count of batches, when it last took rows.
    touched: u64,
}

/// Groups in memory.
enum Held {
    Open(Groups),
    /// All of it is before the watermark: merged again and again, seldom written to.
    Resting(Dump),
}

/// The operator.
pub(crate) struct Windowed {
    aggregate: Arc<Aggregate>,
    window: Window,
    time_type: ArrowType,
    late: Late,
    panes: BTreeMap<i64, Pane>,
    /// Batches that panes took, to know which of them are cold.
    batches: u64,
    store: Arc<dyn Store>,
    /// `None` for a single group.
    parting: Option<Arc<Parting>>,
    /// Windows that have rows and were not given yet.
    waiting: BTreeSet<Span>,
    /// Windows that were given, and the groups of them that changed since. Never anything between two arrivals.
    corrected: BTreeMap<Span, HashSet<Box<[u8]>>>,
    keys: RowConverter,
    /// Windows that end by then were given.
    watermark: i64,
}

/// What of a pane was in memory, and a run of it; `at` is where it begins.
const PANE: &str = "pane";
const RUN: &str = "run";

impl Windowed {
    pub(crate) fn new(aggregate: Arc<Aggregate>, timing: &Timing, late: Late, store: Arc<dyn Store>) -> Result<Self> {
        let fields = aggregate.key_schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let keys = RowConverter::new(fields.collect())?;
        let has_keys = !aggregate.key_schema.fields().is_empty();
        let parting = has_keys.then(|| Parting::new(&aggregate.key_schema).map(Arc::new)).transpose()?;
        Ok(Self {
            aggregate,
            window: timing.window,
            time_type: timing.time_type.clone(),
            late,
            panes: BTreeMap::new(),
            batches: 0,
            store,
            parting,
            waiting: BTreeSet::new(),
            corrected: BTreeMap::new(),
            keys,
            watermark: i64::MIN,
        })
    }

    pub(crate) fn update(&mut self, rows: &Prepared) -> Result<Taken> {
        let (window, late) = (self.window, self.late);
        let mut taken = Taken::default();
        // Rows that share a window with rows that came too late for it must not meet them: windows are given before such a row is taken.
        let mut places: Vec<u32> = Vec::with_capacity(rows.before.len());
        for (row, before) in (0u32..).zip(&rows.before) {
            let time = rows.times.value(row as usize);
            if late.is_closed(window.last_end(time), *before) {
                taken.late.push(rows.places[row as usize]);
                continue;
            }
            let first_end = window.first_end(time);
            if late.is_closed(first_end, *before) {
                self.add(rows, &places)?;
                places.clear();
                taken.extend(Taken::of(self.advance(*before)?));
            }
            if late.allowed_us > 0 && first_end <= *before {
                let corrects = |span: &Span| span.end <= *before && !late.is_closed(span.end, *before);
                taken.counts.late_updates += u64::from(window.spans(time).iter().any(corrects));
            }
            places.push(row);
        }
        self.add(rows, &places)?;
        Ok(taken)
    }

    /// Puts rows into their panes.
    fn add(&mut self, rows: &Prepared, places: &[u32]) -> Result<()> {
        let window = self.window;
        if places.is_empty() {
            return Ok(());
        }
        let mut by_pane: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        // Neighbours are mostly of one pane.
        let mut run: (i64, Vec<u32>) = (window.pane_of(rows.times.value(places[0] as usize)), Vec::new());
        for row in places {
            let pane = window.pane_of(rows.times.value(*row as usize));
            if pane != run.0 {
                let (ended, list) = std::mem::replace(&mut run, (pane, Vec::new()));
                by_pane.entry(ended).or_default().extend(list);
            }
            run.1.push(*row);
        }
        by_pane.entry(run.0).or_default().extend(run.1);
        for (start, of_pane) in by_pane {
            let taken;
            let of_pane = if of_pane.len() == rows.before.len() {
                rows
            } else {
                taken = rows.take(&UInt32Array::from(of_pane))?;
                &taken
            };
            if let Entry::Vacant(place) = self.panes.entry(start) {
                place.insert(Pane::default());
                let spans = window.spans(start).into_iter();
                self.waiting.extend(spans.filter(|span| span.end > self.watermark));
            }
            let Some(pane) = self.panes.get_mut(&start) else { continue };
            self.batches += 1;
            pane.touched = self.batches;
            pane.open(&self.aggregate)?.update(&Rows {
                count: of_pane.before.len(),
                keys: &of_pane.keys,
                arguments: &of_pane.arguments,
                filters: &of_pane.filters,
            })?;
        }
        self.correct(rows, places)
    }

    /// Notes which groups rows change of windows that were given.
    fn correct(&mut self, rows: &Prepared, places: &[u32]) -> Result<()> {
        if self.late.allowed_us == 0 {
            return Ok(());
        }
        let (window, watermark) = (self.window, self.watermark);
        let time = |row: u32| rows.times.value(row as usize);
        let behind: Vec<u32> = places.iter().copied().filter(|row| window.first_end(time(*row)) <= watermark).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let keys = (!rows.keys.is_empty()).then(|| self.keys.convert_columns(&rows.keys)).transpose()?;
        for row in behind {
            let key = keys.as_ref().map_or_else(Box::default, |keys| Box::from(keys.row(row as usize).as_ref()));
            for span in window.spans(time(row)) {
                if span.end <= watermark && !self.late.is_closed(span.end, watermark) {
                    self.corrected.entry(span).or_default().insert(Box::clone(&key));
                }
            }
        }
        Ok(())
    }

    /// The groups of windows that end at or before the watermark, in the order of their ends; those that were given and changed first.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Vec<RecordBatch>> {
        let mut given = Vec::new();
        for (span, keys) in std::mem::take(&mut self.corrected) {
            self.give(span, Some(&keys), &mut given)?;
        }
        self.watermark = self.watermark.max(watermark);
        while let Some(span) = self.waiting.first().copied().filter(|span| span.end <= watermark) {
            self.waiting.remove(&span);
            self.give(span, None, &mut given)?;
            self.forget(span.end.saturating_sub(self.late.allowed_us));
        }
        if self.late.allowed_us > 0 {
            self.forget(self.watermark.saturating_sub(self.late.allowed_us));
        }
        Ok(given)
    }

    /// Gives the groups of a window, or some of them.
    fn give(&mut self, span: Span, only: Option<&HashSet<Box<[u8]>>>, given: &mut Vec<RecordBatch>) -> Result<()> {
        if self.panes.range(span.start..span.end).any(|(_, pane)| !pane.runs.is_empty()) {
            return self.give_parts(span, only, given);
        }
        if let Some(groups) = self.groups(span)? {
            given.push(self.batch(span, groups, only)?);
        }
        Ok(())
    }

    /// The same for one that has groups in files: those of one part of the hashes after the other.
    fn give_parts(
        &mut self,
        span: Span,
        only: Option<&HashSet<Box<[u8]>>>,
        given: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        let aggregate = Arc::clone(&self.aggregate);
        let (mut bits, mut held) = (0, Vec::new());
        for pane in self.panes.range_mut(span.start..span.end).map(|(_, pane)| pane) {
            let dump = pane.rest()?.cloned();
            let of_held = dump.as_ref().map_or(0, |dump| spill::bits_for(dump.bytes(), self.store.stretch_bytes()));
            bits = pane.runs.iter().map(Run::bits).fold(of_held.max(bits), u8::max);
            held.push(dump);
        }
        let parting = self.parting()?;
        let panes = self.panes.range(span.start..span.end).zip(held).map(|((_, pane), dump)| {
            let runs = pane.runs.iter().map(|run| Reader::new(run, &aggregate, parting)).collect();
            let held = dump.map(|dump| parting.part(dump, bits, 0, 1 << bits)).transpose()?;
            Ok((runs, held))
        });
        let mut panes = panes.collect::<Result<Vec<(Vec<Reader<'_>>, Option<Parted>)>>>()?;
        let wanted = only.map(|keys| parting.parts_with(keys.iter().map(|key| &**key), bits));
        for part in 0..1 << bits {
            if wanted.as_ref().is_some_and(|wanted| !wanted[part]) {
                continue;
            }
            let mut merged: Option<Groups> = None;
            for (runs, held) in &mut panes {
                for run in runs {
                    if let Some(dump) = run.part(part, bits).map_err(spill::failed)? {
                        spill::join(&mut merged, &dump, &aggregate)?;
                    }
                }
                if let Some(dump) = held.as_ref().map(|held| held.get(part)).transpose()?.flatten() {
                    spill::join(&mut merged, &dump, &aggregate)?;
                }
            }
            if let Some(groups) = merged {
                let batch = self.batch(span, groups, only)?;
                if batch.num_rows() > 0 {
                    given.push(batch);
                }
            }
        }
        if self.is_given_once() {
            self.panes.remove(&span.start);
        }
        Ok(())
    }

    /// Whether a pane is a window, and goes with it.
    fn is_given_once(&self) -> bool {
        matches!(self.window, Window::Tumble { .. }) && self.late.allowed_us == 0
    }

    fn parting(&self) -> Result<&Arc<Parting>> {
        self.parting.as_ref().ok_or_else(|| DataFusionError::Internal("a single group is not spilled".into()))
    }

    /// Panes that have something in memory which may go to files, with its bytes, the one that took rows last behind.
    pub(crate) fn spillable(&self) -> Vec<(i64, usize)> {
        if self.parting.is_none() {
            return Vec::new();
        }
        let held = self.panes.iter().filter_map(|(start, pane)| Some((pane.touched, *start, pane.held.as_ref()?)));
        let mut all: Vec<(u64, i64, usize)> =
            held.map(|(touched, start, held)| (touched, start, held.bytes())).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, start, bytes)| (start, bytes)).collect()
    }

    /// Puts what panes have in memory into files.
    pub(crate) fn spill(&mut self, panes: &[i64]) -> Result<()> {
        let (store, aggregate) = (Arc::clone(&self.store), Arc::clone(&self.aggregate));
        let mut writing: Option<Writing> = None;
        let mut spilled = Vec::new();
        for start in panes {
            let Some(pane) = self.panes.get_mut(start) else { continue };
            pane.rest()?;
            let Some(Held::Resting(dump)) = pane.held.take() else { continue };
            if dump.groups == 0 {
                continue;
            }
            let writing = match &mut writing {
                Some(writing) => writing,
                None => writing.insert(Writing::new(&*store).map_err(spill::failed)?),
            };
            writing.add(dump, self.parting()?, &*store).map_err(spill::failed)?;
            spilled.push(*start);
        }
        let Some(writing) = writing else { return Ok(()) };
        let runs = writing.finish().map_err(spill::failed)?;
        let parting = self.parting.as_ref();
        let (Some(parting), panes) = (parting, &mut self.panes) else { return Ok(()) };
        for (start, run) in spilled.into_iter().zip(runs) {
            if let Some(pane) = panes.get_mut(&start) {
                pane.put(run, &aggregate, parting, &store).map_err(spill::failed)?;
            }
        }
        Ok(())
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.panes.values().flat_map(|pane| &pane.runs).map(Run::bytes).sum()
    }

    /// The groups of a window that are all in memory.
    fn groups(&mut self, span: Span) -> Result<Option<Groups>> {
        if self.is_given_once() {
            return match self.panes.remove(&span.start).and_then(|pane| pane.held) {
                Some(Held::Open(groups)) => Ok(Some(groups)),
                Some(Held::Resting(dump)) => Groups::of(&self.aggregate, &dump).map(Some),
                None => Ok(None),
            };
        }
        let aggregate = Arc::clone(&self.aggregate);
        let mut merged: Option<Groups> = None;
        for pane in self.panes.range_mut(span.start..span.end).map(|(_, pane)| pane) {
            if let Some(dump) = pane.rest()? {
                spill::join(&mut merged, dump, &aggregate)?;
            }
        }
        Ok(merged)
    }

    /// Drops panes whose last window ended.
    fn forget(&mut self, end: i64) {
        while let Some(first) = self.panes.first_entry() {
            if self.window.last_end(*first.key()) > end {
                return;
            }
            first.remove();
        }
    }

    /// Rows of GROUP BY's columns and the aggregates, of all groups or of some.
    fn batch(&self, span: Span, groups: Groups, only: Option<&HashSet<Box<[u8]>>>) -> Result<RecordBatch> {
        let (count, keys, results) = groups.finish()?;
        let window = window_array(&self.time_type, span, count)
            .map_err(|error| DataFusionError::Execution(error.to_string()))?;
        let window = RecordBatch::try_from_iter([("window", window)])?;
        let batch = self.aggregate.assemble(count, &keys, results, Some(&window))?;
        let Some(only) = only.filter(|_| !keys.is_empty()) else { return Ok(batch) };
        let keys = self.keys.convert_columns(&keys)?;
        let mask: BooleanArray = keys.iter().map(|key| Some(only.contains(key.as_ref()))).collect();
        Ok(filter_record_batch(&batch, &mask)?)
    }

    /// A picture of the state.
    pub(crate) fn dump(&mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for (start, pane) in &mut self.panes {
            let of_run =
                |run: &Run| Part { in_file: Some(InFile::Run(run.clone())), ..Part::new(RUN, *start, 0, Vec::new()) };
            parts.extend(pane.runs.iter().map(of_run));
            let Dump { groups, keys, states } = match &mut pane.held {
                Some(Held::Open(groups)) => groups.dump()?,
                Some(Held::Resting(dump)) => dump.clone(),
                None => continue,
            };
            parts.push(Part::new(PANE, *start, groups, [vec![keys], states].concat()));
        }
        Ok(parts)
    }

    /// Begins as one that has given what a watermark ends.
    pub(crate) fn begin(&mut self, watermark: i64) {
        self.watermark = watermark;
    }

    /// Takes a pane of a picture, at the watermark of that.
    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        let (at, is_run) = (part.at, part.kind == RUN);
        match part.in_file {
            Some(InFile::Run(run)) if is_run => {
                let parting = self.parting.as_ref().ok_or_else(|| super::foreign(&part.kind))?;
                let pane = self.panes.entry(at).or_default();
                pane.runs.push(run.adopt(&*self.store));
                pane.settle(&self.aggregate, parting, &self.store).map_err(spill::failed)?;
            }
            None if part.kind == PANE => {
                let dump = self.aggregate.dump_of(part.rows, part.columns)?;
                self.panes.entry(at).or_default().hold(dump, &self.aggregate)?;
            }
            _ => return Err(super::foreign(&part.kind)),
        }
        let spans = self.window.spans(at).into_iter();
        self.waiting.extend(spans.filter(|span| span.end > self.watermark));
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.panes.values().filter_map(|pane| pane.held.as_ref()).map(Held::bytes).sum()
    }

    /// Groups of all panes; one that is in several runs counts in each.
    pub(crate) fn open_groups(&self) -> usize {
        let of_held = |held: &Held| match held {
            Held::Open(groups) => groups.groups(),
            Held::Resting(dump) => dump.groups,
        };
        let of = |pane: &Pane| pane.held.as_ref().map_or(0, of_held) + pane.runs.iter().map(Run::groups).sum::<usize>();
        self.panes.values().map(of).sum()
    }
}

impl Pane {
    /// Adds a run behind the others. What became one of them takes their place now and at no other time, so that it does not depend on how quickly it was made.
    fn put(
        &mut self,
        run: Run,
        aggregate: &Arc<Aggregate>,
        parting: &Arc<Parting>,
        store: &Arc<dyn Store>,
    ) -> crate::Result<()> {
        if let Some(merging) = self.merging.take() {
            merging.finish(&mut self.runs)?;
        }
        self.runs.push(run);
        self.settle(aggregate, parting, store)
    }

    /// Has runs become one if they are so many.
    fn settle(
        &mut self,
        aggregate: &Arc<Aggregate>,
        parting: &Arc<Parting>,
        store: &Arc<dyn Store>,
    ) -> crate::Result<()> {
        if self.merging.is_none() {
            self.merging = Merging::begin(&self.runs, aggregate, parting, store)?;
        }
        Ok(())
    }

    /// Takes groups of a picture: those of one lane after those of another.
    fn hold(&mut self, dump: Dump, aggregate: &Aggregate) -> Result<()> {
        match &self.held {
            Some(_) => self.open(aggregate)?.merge(&dump),
            None => {
                self.held = Some(Held::Resting(dump));
                Ok(())
            }
        }
    }

    fn open(&mut self, aggregate: &Aggregate) -> Result<&mut Groups> {
        let open = match self.held.take() {
            Some(Held::Open(groups)) => groups,
            Some(Held::Resting(dump)) => Groups::of(aggregate, &dump)?,
            None => Groups::new(aggregate)?,
        };
        match self.held.insert(Held::Open(open)) {
            Held::Open(groups) => Ok(groups),
            Held::Resting(_) => Err(DataFusionError::Internal("a pane that was opened is open".into())),
        }
    }

    /// What it has in memory, at rest.
    fn rest(&mut self) -> Result<Option<&Dump>> {
        if let Some(Held::Open(groups)) = &mut self.held {
            self.held = Some(Held::Resting(groups.take()?));
        }
        match &self.held {
            Some(Held::Resting(dump)) => Ok(Some(dump)),
            _ => Ok(None),
        }
    }
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Open(groups) => groups.bytes(),
            Self::Resting(dump) => dump.bytes(),
        }
    }
}
