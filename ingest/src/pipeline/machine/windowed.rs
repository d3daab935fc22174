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

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
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
    flow::{Part, Taken},
    groups::{Dump, Groups, Rows},
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
        let all = |arrays: &[ArrayRef]| arrays.iter().map(pick).collect::<Result<Vec<_>>>();
        let times: ArrayRef = Arc::new(self.times.clone());
        Ok(Self {
            times: pick(&times)?.as_primitive::<TimestampMicrosecondType>().clone(),
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

/// A pane's groups.
enum Pane {
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
    /// Windows that have rows and were not given yet.
    waiting: BTreeSet<Span>,
    /// Windows that were given, and the groups of them that changed since. Never anything between two arrivals.
    corrected: BTreeMap<Span, HashSet<Box<[u8]>>>,
    keys: RowConverter,
    /// Windows that end by then were given.
    watermark: i64,
}

/// A pane in a file; `at` is where it begins.
const PANE: &str = "pane";

impl Windowed {
    pub(crate) fn new(aggregate: Arc<Aggregate>, timing: &Timing, late: Late) -> Result<Self> {
        let fields = aggregate.key_schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let keys = RowConverter::new(fields.collect())?;
        Ok(Self {
            aggregate,
            window: timing.window,
            time_type: timing.time_type.clone(),
            late,
            panes: BTreeMap::new(),
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
            if !self.panes.contains_key(&start) {
                self.panes.insert(start, Pane::Open(Groups::new(&self.aggregate)?));
                let spans = window.spans(start).into_iter();
                self.waiting.extend(spans.filter(|span| span.end > self.watermark));
            }
            let Some(pane) = self.panes.get_mut(&start) else { continue };
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
            if let Some(groups) = self.groups(span)? {
                let batch = self.batch(span, groups, Some(&keys))?;
                given.push(batch);
            }
        }
        self.watermark = self.watermark.max(watermark);
        while let Some(span) = self.waiting.first().copied().filter(|span| span.end <= watermark) {
            self.waiting.remove(&span);
            if let Some(groups) = self.groups(span)? {
                given.push(self.batch(span, groups, None)?);
            }
            self.forget(span.end.saturating_sub(self.late.allowed_us));
        }
        if self.late.allowed_us > 0 {
            self.forget(self.watermark.saturating_sub(self.late.allowed_us));
        }
        Ok(given)
    }

    /// The groups of a window.
    fn groups(&mut self, span: Span) -> Result<Option<Groups>> {
        if let Window::Tumble { .. } = self.window
            && self.late.allowed_us == 0
        {
            return match self.panes.remove(&span.start) {
                Some(Pane::Open(groups)) => Ok(Some(groups)),
                Some(Pane::Resting(dump)) => Groups::of(&self.aggregate, &dump).map(Some),
                None => Ok(None),
            };
        }
        let aggregate = Arc::clone(&self.aggregate);
        let mut merged: Option<Groups> = None;
        for pane in self.panes.range_mut(span.start..span.end).map(|(_, pane)| pane) {
            let dump = pane.rest()?;
            match &mut merged {
                Some(groups) => groups.merge(dump)?,
                None => merged = Some(Groups::of(&aggregate, dump)?),
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
        let dump = |(start, pane): (&i64, &mut Pane)| {
            let Dump { groups, keys, states } = match pane {
                Pane::Open(groups) => groups.dump()?,
                Pane::Resting(dump) => dump.clone(),
            };
            Ok(Part::new(PANE, *start, groups, [vec![keys], states].concat()))
        };
        self.panes.iter_mut().map(dump).collect()
    }

    /// Begins as one that has given what a watermark ends.
    pub(crate) fn begin(&mut self, watermark: i64) {
        self.watermark = watermark;
    }

    /// Takes a pane of a picture, at the watermark of that.
    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        if part.kind != PANE {
            return Err(super::foreign(&part.kind));
        }
        let dump = self.aggregate.dump_of(part.rows, part.columns)?;
        let spans = self.window.spans(part.at).into_iter();
        self.waiting.extend(spans.filter(|span| span.end > self.watermark));
        self.panes.insert(part.at, Pane::Resting(dump));
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        let of = |pane: &Pane| match pane {
            Pane::Open(groups) => groups.bytes(),
            Pane::Resting(dump) => dump.bytes(),
        };
        self.panes.values().map(of).sum()
    }

    /// Groups of all panes.
    pub(crate) fn open_groups(&self) -> usize {
        let of = |pane: &Pane| match pane {
            Pane::Open(groups) => groups.groups(),
            Pane::Resting(dump) => dump.groups,
        };
        self.panes.values().map(of).sum()
    }
}

impl Pane {
    fn open(&mut self, aggregate: &Aggregate) -> Result<&mut Groups> {
        if let Self::Resting(dump) = self {
            *self = Self::Open(Groups::of(aggregate, dump)?);
        }
        match self {
            Self::Open(groups) => Ok(groups),
            Self::Resting(_) => Err(DataFusionError::Internal("a pane that was opened is open".into())),
        }
    }

    fn rest(&mut self) -> Result<&Dump> {
        if let Self::Open(groups) = self {
            *self = Self::Resting(groups.take()?);
        }
        match self {
            Self::Resting(dump) => Ok(dump),
            Self::Open(_) => Err(DataFusionError::Internal("a pane that was laid to rest rests".into())),
        }
    }
}
