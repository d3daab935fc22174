//! What became other between two snapshots of a table.
//!
//! ```text
//! before  [a][b][c: 100 rows]            came  [c: rows 100 to 130][d]      read like any snapshot: segments, masked
//! now     [a: row 7 gone][c: 130 rows][d]     went  [a: row 7][b]
//! ```
//!
//! Segments of one [`Lineage`](crate::segment::Lineage) are compared by numbers of rows and bits alone, so that a batch costs what the batch is, and a seal
//! nothing. All others came, or went, as a whole: what compaction wrote again is in both, and who counts rows finds that they cancel out.
//!
//! What always holds: the rows of the older snapshot, less those that went, and with those that came, are the rows of the newer one, as multisets.

use std::{collections::HashMap, sync::Arc};

use super::{Committed, PartitionView, TableSnapshot};
use crate::{
    ids::SegmentId,
    segment::Segment,
    upsert::{Validities, Validity},
};

/// Both answer in the schema of the newer snapshot.
#[derive(Clone, Debug)]
pub struct Changes {
    pub came: TableSnapshot,
    pub went: TableSnapshot,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.came.rows() == 0 && self.went.rows() == 0
    }
}

impl TableSnapshot {
    /// What is there now, and what is there no more. Reads no row.
    pub fn changes_since(&self, before: &Self) -> Changes {
        if self.set != before.set || self.views.len() != before.views.len() {
            let went = Self { views: before.views.clone(), set: before.set, ..self.clone() };
            return Changes { came: self.clone(), went };
        }
        let pairs = self.views.iter().zip(&before.views).map(|(now, before)| now.changes_since(before));
        let (came, went) = pairs.unzip();
        Changes { came: Self { views: came, ..self.clone() }, went: Self { views: went, ..self.clone() } }
    }
}

/// Segments of a view in the making, with what of each is not in it.
#[derive(Default)]
struct Part {
    segments: Vec<Arc<dyn Segment>>,
    validities: Vec<(SegmentId, Arc<Validity>)>,
}

impl Part {
    fn add(&mut self, segment: &Arc<dyn Segment>, validity: Option<Arc<Validity>>) {
        if segment.rows() > 0 {
            self.segments.push(Arc::clone(segment));
            self.validities.extend(validity.map(|validity| (segment.id(), validity)));
        }
    }

    fn view(mut self) -> Arc<PartitionView> {
        self.validities.sort_unstable_by_key(|(id, _)| *id);
        let view = PartitionView::new(Committed::default(), self.segments);
        Arc::new(PartitionView { validities: Validities::new(self.validities), ..view })
    }
}

impl PartitionView {
    fn changes_since(&self, before: &Self) -> (Arc<Self>, Arc<Self>) {
        let (mut came, mut went) = (Part::default(), Part::default());
        let mut known: HashMap<SegmentId, &Arc<dyn Segment>> =
            before.unlike(self).map(|segment| (segment.id(), segment)).collect();
        for segment in self.unlike(before) {
            let (now, then) = (self.validities.of(segment.id()), before.validities.of(segment.id()));
            match known.remove(&segment.id()) {
                Some(older) if older.lineage() == segment.lineage() && older.rows() <= segment.rows() => {
                    let rows = older.rows();
                    if let Some(gained) = Validity::gained(now, segment.rows(), then, rows) {
                        came.add(segment, Some(Arc::new(gained)));
                    }
                    if let Some(lost) = Validity::gained(then, rows, now, rows) {
                        went.add(older, Some(Arc::new(lost)));
                    }
                }
                older => {
                    came.add(segment, now.cloned());
                    older.into_iter().for_each(|older| went.add(older, then.cloned()));
                }
            }
        }
        for older in known.into_values() {
            went.add(older, before.validities.of(older.id()).cloned());
        }
        (came.view(), went.view())
    }

    /// The segments that may have other rows than in another view of the partition.
    fn unlike<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<dyn Segment>> {
        let shared = Arc::ptr_eq(&self.committed, &other.committed);
        let is_alike = move |segment: &&Arc<dyn Segment>| {
            let id = segment.id();
            shared
                && match (self.validities.of(id), other.validities.of(id)) {
                    (None, None) => true,
                    (Some(here), Some(there)) => Arc::ptr_eq(here, there),
                    _ => false,
                }
        };
        self.committed.segments.iter().filter(move |segment| !is_alike(segment)).chain(&self.recent)
    }
}
