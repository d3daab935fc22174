//! Tables, partitions, and the snapshots that queries read.
//!
//! ```text
//! Table ── Partition 0 ── view ─► [segment][segment]…[sealing][consuming]      one pointer swap publishes a new view
//!       ├─ Partition 1 ── view ─► …
//! TableSnapshot = the schema and one view of each partition, taken once at the start of a query
//! ```
//!
//! What always holds: a view never changes; a row is in exactly one segment of a view; a segment that is sealed replaces the consuming
//! one it was written from in one swap, so that no reader sees its rows twice or not at all.

mod bounds;
mod changes;
mod key_map;
mod lookup;
mod owning;
mod partners;
mod watchers;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};

pub use self::key_map::{KeyMapFile, KeyMapUse, WrittenKeyMap};
pub use self::writer::{
    Change, PartitionKeys, PartitionWriter, PreparedChange, PreparedClearing, PreparedLeaving, PreparedRewriting,
    Rewriting,
};
use self::{
    bounds::{Bounds, Leaves},
    watchers::Watchers,
};
pub use self::{changes::Changes, watchers::TableWatcher};
pub use self::{
    lookup::{Found, FoundRows},
    partners::Partners,
};
use crate::{
    Result,
    bitpack::Bitmask,
    ids::{PartitionId, SegmentId, TableId},
    index::{IndexKind, IndexSpec},
    prune::{Run, Verdict, judge},
    scan::{IndexUse, ScanPlan, ScanRequest, ScanUnit},
    schema::TableSchema,
    segment::{Lineage, Segment, SegmentState, consuming::ConsumingSegment},
    upsert::{KeyMemory, KeySpec, Keys, Validities, key_fingerprints},
};

/// Rows a lane takes at a time.
const UNIT_ROWS: u32 = 256 * 1024;

#[derive(Debug)]
pub struct Table {
    id: TableId,
    schema: ArcSwap<TableSchema>,
    indexes: Arc<TableIndexes>,
    key: Option<Arc<KeySpec>>,
    key_memory: Arc<KeyMemory>,
    partitions: ArcSwap<Vec<Arc<Partition>>>,
    /// Held by who publishes in several partitions at once, and by who takes a snapshot of these.
    moment: RwLock<()>,
    watchers: Arc<Watchers>,
    is_dropped: AtomicBool,
}

impl Table {
    /// An empty table that keeps every row.
    pub fn new(id: TableId, schema: Arc<TableSchema>, partitions: u32) -> Self {
        Self::with_key(id, schema, partitions, None)
    }

    /// An empty table; with a key, of the rows that have the same one is there for readers.
    pub fn with_key(id: TableId, schema: Arc<TableSchema>, partitions: u32, key: Option<KeySpec>) -> Self {
        Self::with_key_in(id, schema, partitions, key, KeyMemory::unbounded())
    }

    /// The same, its key maps in memory that tables share.
    pub fn with_key_in(
        id: TableId,
        schema: Arc<TableSchema>,
        partitions: u32,
        key: Option<KeySpec>,
        key_memory: Arc<KeyMemory>,
    ) -> Self {
        let indexes = Arc::new(TableIndexes::default());
        let key = key.map(Arc::new);
        let table = Self {
            id,
            schema: ArcSwap::new(schema),
            partitions: ArcSwap::default(),
            key,
            key_memory,
            indexes,
            moment: RwLock::default(),
            watchers: Arc::default(),
            is_dropped: AtomicBool::new(false),
        };
        table.partitions.store(Arc::new(table.unattached(partitions)));
        table
    }

    /// New partitions, without rows, that [`Self::set_partitions`] may make those of the table.
    pub fn unattached(&self, count: u32) -> Vec<Arc<Partition>> {
        let partition = |id| Arc::new(Partition::new(PartitionId(id), self));
        (0..count).map(partition).collect()
    }

    /// From now on snapshots are of these, which hold the rows that the others held. Nothing is published in those any more.
    pub fn set_partitions(&self, partitions: Vec<Arc<Partition>>) {
        let moment = self.moment.write();
        self.partitions.store(Arc::new(partitions));
        drop(moment);
        self.watchers.tell();
    }

    /// From now on the watcher is told of changes, as long as it is held elsewhere. A snapshot that is taken after this shows all that it is not told of.
    pub fn watch(&self, watcher: &Arc<dyn TableWatcher>) {
        self.watchers.add(watcher);
    }

    /// Nobody can name the table any more. Readers keep what they hold.
    pub fn set_dropped(&self) {
        self.is_dropped.store(true, Ordering::SeqCst);
        self.watchers.tell();
    }

    pub fn is_dropped(&self) -> bool {
        self.is_dropped.load(Ordering::SeqCst)
    }

    /// What tells rows of the table apart; `None`: it keeps every row.
    pub fn key(&self) -> Option<&Arc<KeySpec>> {
        self.key.as_ref()
    }

    /// The indexes that its segments are to have.
    pub fn indexes(&self) -> Arc<[IndexSpec]> {
        self.indexes.load()
    }

    /// From now on segments are to have these; those that are there get them in the background.
    pub fn set_indexes(&self, indexes: Vec<IndexSpec>) {
        self.indexes.0.store(Arc::new(indexes.into()));
    }

    pub fn id(&self) -> TableId {
        self.id
    }

    pub fn schema(&self) -> Arc<TableSchema> {
        self.schema.load_full()
    }

    /// From now on snapshots answer in `schema`. Writers rotate their consuming segment on their own.
    pub fn set_schema(&self, schema: Arc<TableSchema>) {
        self.schema.store(schema);
        self.watchers.tell();
    }

    /// Those that it has now.
    pub fn partitions(&self) -> Arc<Vec<Arc<Partition>>> {
        self.partitions.load_full()
    }

    /// As long as it is held no snapshot is taken: what several partitions publish meanwhile is seen together.
    pub fn publishing(&self) -> impl Drop + '_ {
        self.moment.write()
    }

    pub fn snapshot(&self) -> TableSnapshot {
        let partitions = self.partitions();
        let _moment = (partitions.len() > 1).then(|| self.moment.read());
        // Should they be others by now, these still hold all that there was until then.
        TableSnapshot {
            schema: self.schema(),
            indexes: self.indexes(),
            key: self.key.clone(),
            set: partitions.first().map(|partition| partition.lineage),
            views: partitions.iter().map(|partition| partition.view.load_full()).collect(),
        }
    }
}

/// The indexes of a table, known to its partitions.
#[derive(Debug)]
struct TableIndexes(ArcSwap<Arc<[IndexSpec]>>);

impl Default for TableIndexes {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(Arc::new([]) as Arc<[IndexSpec]>))
    }
}

impl TableIndexes {
    fn load(&self) -> Arc<[IndexSpec]> {
        Arc::clone(&self.0.load())
    }
}

#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    /// Partitions are made together: that of the first one tells the set from others.
    lineage: Lineage,
    watchers: Arc<Watchers>,
    indexes: Arc<TableIndexes>,
    key: Option<Arc<KeySpec>>,
    key_memory: Arc<KeyMemory>,
    view: ArcSwap<PartitionView>,
    /// Of the writer, once there is one; `None` without a key.
    keys: ArcSwapOption<Keys>,
    /// Held while a new view is made from the present one.
    edit: Mutex<()>,
}

impl Partition {
    fn new(id: PartitionId, table: &Table) -> Self {
        Self {
            id,
            lineage: Lineage::new(),
            watchers: Arc::clone(&table.watchers),
            indexes: Arc::clone(&table.indexes),
            key: table.key.clone(),
            key_memory: Arc::clone(&table.key_memory),
            view: ArcSwap::default(),
            keys: ArcSwapOption::default(),
            edit: Mutex::new(()),
        }
    }

    /// The indexes that its segments are to have.
    pub fn indexes(&self) -> Arc<[IndexSpec]> {
        self.indexes.load()
    }

    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Hashes of the keys of all rows of one of its segments, one after the other; none without a key. Errors: those of reading it.
    pub fn key_fingerprints(&self, segment: &dyn Segment) -> Result<Vec<u64>> {
        self.key.as_ref().map_or_else(|| Ok(Vec::new()), |key| key_fingerprints(key, segment))
    }

    pub fn view(&self) -> Arc<PartitionView> {
        self.view.load_full()
    }

    /// Puts `segment` in the place of the one with its id, or at the end when there is none. Costs what the segments that are not yet
    /// committed cost, except when one becomes committed.
    pub fn put(&self, segment: Arc<dyn Segment>) {
        self.publish(Some(segment), None);
    }

    /// The same, with what is valid from then on, in one swap.
    fn publish(&self, segment: Option<Arc<dyn Segment>>, validities: Option<Validities>) {
        let _edit = self.edit.lock();
        let view = self.view.load();
        let validities = validities.unwrap_or_else(|| view.validities.clone());
        let next = match segment {
            Some(segment) => view.with(segment),
            None => PartitionView {
                committed: Arc::clone(&view.committed),
                recent: view.recent.clone(),
                ..Default::default()
            },
        };
        self.show(PartitionView { validities, ..next });
    }

    /// From here on snapshots have it.
    fn show(&self, view: PartitionView) {
        self.view.store(Arc::new(view));
        self.watchers.tell();
    }

    /// Takes segments out of every later view and puts one of their rows in, in one swap. Readers keep what they hold.
    fn exchange(&self, new: Option<Arc<dyn Segment>>, retired: &[SegmentId], validities: Validities) {
        let _edit = self.edit.lock();
        let next = self.view.load().without(retired);
        let next = match new {
            Some(new) => next.with(new),
            None => next,
        };
        self.show(PartitionView { validities, ..next });
    }

    /// Takes segments out of every later view. Readers keep what they hold.
    pub fn remove(&self, ids: &[SegmentId]) {
        let _edit = self.edit.lock();
        let view = self.view.load();
        let validities = view.validities.without(ids);
        self.show(PartitionView { validities, ..view.without(ids) });
    }
}

/// The segments of one partition at one moment, in the order in which they were begun.
#[derive(Debug)]
pub struct PartitionView {
    /// Committed segments before the first that is not, ascending by id. Shared by all views between two commits.
    committed: Arc<Committed>,
    /// The others: few, because sealing keeps up or consumption waits.
    recent: Vec<Arc<dyn Segment>>,
    /// Rows that are not there for readers, of any of them.
    validities: Validities,
}

#[derive(Debug, Default)]
struct Committed {
    segments: Vec<Arc<dyn Segment>>,
    /// Rows of each: a plan over thousands looks at these instead of at every segment.
    sizes: Vec<u32>,
    rows: u64,
    /// Whether one of them is quarantined.
    damaged: bool,
    bounds: Bounds,
}

impl Committed {
    fn new(segments: Vec<Arc<dyn Segment>>) -> Self {
        let sizes = segments.iter().map(|segment| segment.rows()).collect();
        Self { rows: rows(&segments), sizes, damaged: are_damaged(&segments), segments, bounds: Bounds::default() }
    }

    fn extended(&self, more: Vec<Arc<dyn Segment>>) -> Self {
        Self {
            rows: self.rows + rows(&more),
            damaged: self.damaged || are_damaged(&more),
            bounds: self.bounds.extended(&more),
            sizes: self.sizes.iter().copied().chain(more.iter().map(|segment| segment.rows())).collect(),
            segments: self.segments.iter().cloned().chain(more).collect(),
        }
    }
}

fn are_damaged(segments: &[Arc<dyn Segment>]) -> bool {
    segments.iter().any(|segment| segment.state() == SegmentState::Quarantined)
}

fn rows(segments: &[Arc<dyn Segment>]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.rows())).sum()
}

impl Default for PartitionView {
    fn default() -> Self {
        Self::new(Committed::default(), Vec::new())
    }
}

impl PartitionView {
    fn new(committed: Committed, recent: Vec<Arc<dyn Segment>>) -> Self {
        Self { committed: Arc::new(committed), recent, validities: Validities::default() }
    }

    /// A view, all of whose rows are valid, of the other segments.
    fn without(&self, ids: &[SegmentId]) -> Self {
        let keep = |segment: &&Arc<dyn Segment>| !ids.contains(&segment.id());
        let committed = self.committed.segments.iter().filter(keep).cloned().collect();
        Self::new(Committed::new(committed), self.recent.iter().filter(keep).cloned().collect())
    }

    /// A view, all of whose rows are valid, with `segment` in the place of the one with its id, or at the end.
    fn with(&self, segment: Arc<dyn Segment>) -> Self {
        match self.committed.segments.binary_search_by_key(&segment.id(), |known| known.id()) {
            Ok(at) => {
                let mut segments = self.committed.segments.clone();
                segments[at] = segment;
                Self::new(Committed::new(segments), self.recent.clone())
            }
            Err(_) => {
                let mut recent = self.recent.clone();
                match recent.iter_mut().find(|known| known.id() == segment.id()) {
                    Some(known) => *known = segment,
                    None => recent.insert(recent.partition_point(|known| known.id() < segment.id()), segment),
                }
                Self::settled(&self.committed, recent)
            }
        }
    }

    /// A view whose recent segments that are settled by now have joined the committed ones, up to the first that is not.
    fn settled(committed: &Arc<Committed>, mut recent: Vec<Arc<dyn Segment>>) -> Self {
        let is_settled = |segment: &&Arc<dyn Segment>| {
            matches!(segment.state(), SegmentState::Committed | SegmentState::Quarantined)
        };
        let settled = recent.iter().take_while(is_settled).count();
        if settled == 0 {
            return Self { committed: Arc::clone(committed), recent, validities: Validities::default() };
        }
        let joining: Vec<_> = recent.drain(..settled).collect();
        let last = committed.segments.last().map(|segment| segment.id());
        if last.is_none_or(|last| last < joining[0].id()) {
            return Self::new(committed.extended(joining), recent);
        }
        // One that was begun while a statement made a segment comes before that.
        let mut all: Vec<_> = committed.segments.iter().cloned().chain(joining).collect();
        all.sort_by_key(|segment| segment.id());
        Self::new(Committed::new(all), recent)
    }

    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<dyn Segment>> {
        self.committed.segments.iter().chain(&self.recent)
    }

    /// The segment that takes rows, if one does.
    pub fn consuming(&self) -> Option<&ConsumingSegment> {
        self.recent.iter().rev().find_map(|segment| segment.as_consuming())
    }

    /// Rows that are there for readers.
    pub fn rows(&self) -> u64 {
        self.committed.rows + rows(&self.recent) - self.validities.invalid()
    }

    /// Which segments have rows that are not there for readers.
    pub fn validities(&self) -> &Validities {
        &self.validities
    }
}

/// What one query sees of a table.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    pub schema: Arc<TableSchema>,
    /// Of the table; a segment may lack one that is still being built.
    pub indexes: Arc<[IndexSpec]>,
    pub key: Option<Arc<KeySpec>>,
    /// The partitions that the views are of.
    pub set: Option<Lineage>,
    pub views: Vec<Arc<PartitionView>>,
}

impl TableSnapshot {
    pub fn rows(&self) -> u64 {
        self.views.iter().map(|view| view.rows()).sum()
    }

    /// Whether all rows of all segments are there for readers.
    pub fn is_whole(&self) -> bool {
        self.views.iter().all(|view| view.validities.is_empty())
    }

    /// The snapshot with every row that was ever appended, also those that lost against others of their key.
    pub fn with_every_version(self) -> Self {
        let whole = |view: Arc<PartitionView>| match view.validities.is_empty() {
            true => view,
            false => Arc::new(PartitionView {
                committed: Arc::clone(&view.committed),
                recent: view.recent.clone(),
                validities: Validities::default(),
            }),
        };
        Self { views: self.views.into_iter().map(whole).collect(), ..self }
    }

    /// The units that may hold rows the request selects: segments that their partition, their statistics or Bloom filters rule out are left out and
    /// counted. Reads nothing else.
    pub fn plan(&self, request: &ScanRequest) -> ScanPlan {
        let mut plan = ScanPlan { indexes: Arc::clone(&self.indexes), ..ScanPlan::default() };
        let leaves = Leaves::of(request.predicate.as_ref(), &request.schema);
        let owning = self.key.as_ref().and_then(|key| {
            let predicate = request.predicate.as_ref();
            owning::owning(key, &request.schema, predicate, self.views.len())
        });
        for (partition, view) in (0..).map(PartitionId).zip(&self.views) {
            if owning.as_ref().is_some_and(|owning| !owning[partition.0 as usize]) {
                let segments = view.segments().count();
                plan.segments_total += segments;
                plan.pruned_by_partition += segments;
                continue;
            }
            let from = From { partition, validities: &view.validities };
            view.committed.plan(request, &leaves, from, &mut plan);
            view.recent.iter().for_each(|segment| consider(segment, request, from, &mut plan));
        }
        plan
    }
}

/// Where segments of a plan come from.
#[derive(Clone, Copy)]
struct From<'a> {
    partition: PartitionId,
    validities: &'a Validities,
}

impl Committed {
    fn plan(&self, request: &ScanRequest, leaves: &Leaves<'_>, from: From<'_>, plan: &mut ScanPlan) {
        let Self { segments, sizes, bounds, .. } = self;
        // What the bounds of the time column leave, and of these what those of the others leave.
        let mut in_time = Bitmask::all(segments.len());
        // Those whose bounds are not known.
        let mut unknown = Bitmask::none(segments.len());
        leaves.by_time.iter().for_each(|leaf| bounds.select(leaf, segments, &mut in_time, &mut unknown));
        let mut left = in_time.clone();
        leaves.others.iter().for_each(|leaf| bounds.select(leaf, segments, &mut left, &mut unknown));
        let pruned_by_time = segments.len() - in_time.count();
        plan.segments_total += pruned_by_time;
        plan.pruned_by_time += pruned_by_time;
        if leaves.about_time {
            // Only statistics tell whether time would have ruled them out as well.
            let undecided = |at: &usize| !leaves.are_all || unknown.get(*at);
            in_time.iter().filter(undecided).for_each(|at| left.set(at));
        }
        let pruned_by_min_max = in_time.count() - left.count();
        plan.segments_total += pruned_by_min_max;
        plan.pruned_by_min_max += pruned_by_min_max;
        plan.units.reserve(left.count());
        let blooms = asks_blooms(plan, request);
        for at in left.iter() {
            // Where the bounds are all that the predicate is about, statistics know no more.
            if leaves.are_all && !unknown.get(at) {
                plan.segments_total += 1;
                if blooms && is_excluded(segments[at].as_ref(), request) {
                    plan.pruned_by_bloom += 1;
                } else {
                    add_units(&segments[at], sizes[at], from, plan);
                }
            } else {
                consider(&segments[at], request, from, plan);
            }
        }
    }
}

/// Takes one segment into the plan, or counts why not.
fn consider(segment: &Arc<dyn Segment>, request: &ScanRequest, from: From<'_>, plan: &mut ScanPlan) {
    plan.segments_total += 1;
    match pruned_by(segment.as_ref(), request, asks_blooms(plan, request)) {
        Some(Pruned::Time) => plan.pruned_by_time += 1,
        Some(Pruned::MinMax) => plan.pruned_by_min_max += 1,
        Some(Pruned::Bloom) => plan.pruned_by_bloom += 1,
        None => add_units(segment, segment.rows(), from, plan),
    }
}

/// The valid rows of a segment. From here on nobody has the segment without its mask.
fn add_units(segment: &Arc<dyn Segment>, rows: u32, from: From<'_>, plan: &mut ScanPlan) {
    match from.validities.of(segment.id()) {
        None => plan.units.extend(units(segment, rows, from.partition)),
        Some(validity) => {
            let masked = Arc::clone(segment).masked(Arc::clone(validity));
            let has_rows = |unit: &ScanUnit| validity.any_in(unit.rows.clone());
            plan.units.extend(units(&masked, rows, from.partition).filter(has_rows));
        }
    }
}

/// Whether segments may have Bloom filters that are to be asked.
fn asks_blooms(plan: &ScanPlan, request: &ScanRequest) -> bool {
    request.hints.indexes != IndexUse::Off
        && plan.indexes.iter().any(|index| matches!(index.kind, IndexKind::Bloom { .. }))
}

/// Whether Bloom filters of the segment rule out that any row passes.
fn is_excluded(segment: &dyn Segment, request: &ScanRequest) -> bool {
    match (&request.predicate, segment.as_committed()) {
        (Some(predicate), Some(segment)) => segment.excludes(predicate, &request.schema),
        _ => false,
    }
}

enum Pruned {
    Time,
    MinMax,
    Bloom,
}

fn pruned_by(segment: &dyn Segment, request: &ScanRequest, blooms: bool) -> Option<Pruned> {
    let predicate = request.predicate.as_ref()?;
    let written = segment.schema();
    let run = Run {
        rows: u64::from(segment.rows()),
        written,
        stats: |index: usize| segment.stats(written.columns[index].id),
    };
    if judge(predicate, &request.schema, &run, None) != Verdict::Never {
        return (blooms && is_excluded(segment, request)).then_some(Pruned::Bloom);
    }
    let by_time = request
        .schema
        .time_column
        .is_some_and(|time| judge(predicate, &request.schema, &run, Some(time)) == Verdict::Never);
    Some(if by_time { Pruned::Time } else { Pruned::MinMax })
}

fn units(segment: &Arc<dyn Segment>, rows: u32, partition: PartitionId) -> impl Iterator<Item = ScanUnit> + '_ {
    (0..rows).step_by(UNIT_ROWS as usize).map(move |start| ScanUnit {
        partition,
        segment: Arc::clone(segment),
        rows: start..rows.min(start.saturating_add(UNIT_ROWS)),
    })
}

#[cfg(test)]
mod tests;
