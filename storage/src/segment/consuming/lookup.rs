//! What the indexes of full chunks know of the rows that a request selects.
//!
//! The rows that they find are picked, and all of the request is evaluated on these: what an index says need not be exact.

use std::sync::Arc;

use super::Chunk;
use crate::{
    Result,
    bitpack::Bitmask,
    index::{Found, chunk::ChunkIndex},
    predicate::Predicate,
    scan::{IndexUse, PlaceTest, ScanMetrics, ScanRequest},
    schema::TableSchema,
};

/// What one question about a chunk is answered from.
struct Asked<'a> {
    indexes: &'a [Arc<ChunkIndex>],
    written: &'a TableSchema,
    current: &'a TableSchema,
    rows: u64,
    always: bool,
    metrics: &'a ScanMetrics,
}

/// What indexes, by their places, say of a leaf or of several of one column.
#[derive(Default)]
struct OfLeaf {
    found: Vec<(usize, Found)>,
    /// Listing more rows costs more than testing all.
    most: u64,
}

impl OfLeaf {
    /// The rows of both, where one index knows them.
    fn both(&self, other: &Self) -> Option<Self> {
        let same = |(place, found): &(usize, Found)| {
            let (_, of_other) = other.found.iter().find(|(known, _)| known == place)?;
            Some((*place, found.both(of_other)?))
        };
        let found: Vec<_> = self.found.iter().filter_map(same).collect();
        (!found.is_empty()).then(|| Self { found, most: self.most.min(other.most) })
    }
}

/// The rows of the chunk that may be wanted, as far as its indexes know and listing them is worth it; `None`: any. An index that contradicts itself is
/// not asked.
pub(super) fn candidates(
    chunk: &Chunk,
    written: &TableSchema,
    request: &ScanRequest,
    metrics: &ScanMetrics,
) -> Option<Bitmask> {
    if request.hints.indexes == IndexUse::Off {
        return None;
    }
    let indexes = chunk.indexes();
    if indexes.is_empty() {
        return None;
    }
    let asked = Asked {
        indexes: &indexes,
        written,
        current: &request.schema,
        rows: chunk.batch().num_rows() as u64,
        always: request.hints.indexes == IndexUse::Always,
        metrics,
    };
    let by_predicate = request.predicate.iter().map(|predicate| asked.predicate(predicate));
    let by_places = request.hints.places.iter().map(|test| asked.places(test));
    let mut all: Option<Bitmask> = None;
    for listed in by_predicate.chain(by_places) {
        let Ok(Some(listed)) = listed else { continue };
        all = Some(match all {
            None => listed,
            Some(mut all) => {
                all.and(&listed);
                all
            }
        });
    }
    all
}

impl Asked<'_> {
    fn predicate(&self, predicate: &Predicate) -> Result<Option<Bitmask>> {
        match predicate {
            Predicate::And(children) => self.all_of(children),
            Predicate::Or(children) => {
                let mut any = Bitmask::none(self.rows as usize);
                for child in children {
                    match self.predicate(child)? {
                        Some(listed) => any.or(&listed),
                        None => return Ok(None),
                    }
                }
                Ok(Some(any))
            }
            leaf => self.listed(&self.leaf(leaf)?),
        }
    }

    /// Two ranges of one column are one, of which much less may be left.
    fn all_of(&self, children: &[Predicate]) -> Result<Option<Bitmask>> {
        let (mut leaves, mut all): (Vec<OfLeaf>, Option<Bitmask>) = (Vec::new(), None);
        let mut and = |listed: Option<Bitmask>| match (&mut all, listed) {
            (_, None) => {}
            (Some(all), Some(listed)) => all.and(&listed),
            (none, listed) => *none = listed,
        };
        for child in children {
            if matches!(child, Predicate::And(_) | Predicate::Or(_)) {
                and(self.predicate(child)?);
                continue;
            }
            let leaf = self.leaf(child)?;
            match leaves.iter_mut().find_map(|known| Some((leaf.both(known)?, known))) {
                Some((both, known)) => *known = both,
                None => leaves.push(leaf),
            }
        }
        for leaf in &leaves {
            and(self.listed(leaf)?);
        }
        Ok(all)
    }

    /// What each index says of a leaf.
    fn leaf(&self, leaf: &Predicate) -> Result<OfLeaf> {
        let mut of_leaf = OfLeaf::default();
        let Some(id) = leaf.column() else { return Ok(of_leaf) };
        let (Some(now), Some(then)) = (self.current.column(id), self.written.column(id)) else { return Ok(of_leaf) };
        if !then.data_type.compares_as(&now.data_type) {
            return Ok(of_leaf);
        }
        // Looking for words in a text costs more than listing its row, and a document more than listing many; a value is compared as fast
        // as four are listed.
        of_leaf.most = match leaf {
            _ if self.always => u64::MAX,
            Predicate::Holds { .. } => self.rows * 4,
            Predicate::Matches { .. } => self.rows,
            _ => self.rows / 4,
        };
        for (place, index) in self.indexes.iter().enumerate() {
            of_leaf.found.extend(index.find(leaf, id, &then.data_type)?.map(|found| (place, found)));
        }
        Ok(of_leaf)
    }

    /// The rows that the index lists that has the fewest, if that is worth it.
    fn listed(&self, leaf: &OfLeaf) -> Result<Option<Bitmask>> {
        let cheap = leaf.found.iter().filter(|(_, found)| found.rows <= leaf.most);
        let Some((place, found)) = cheap.min_by_key(|(_, found)| found.rows) else { return Ok(None) };
        let mut listed = Bitmask::none(self.rows as usize);
        self.indexes[*place].add(found, &mut listed)?;
        self.metrics.found(Some(self.indexes[*place].id), listed.count() as u64);
        Ok(Some(listed))
    }

    fn places(&self, test: &PlaceTest) -> Result<Option<Bitmask>> {
        let most = if self.always { u64::MAX } else { self.rows * 3 / 4 };
        for index in self.indexes {
            if let Some(listed) = index.places((test.lat, test.lng), &test.cells, most)? {
                return Ok(Some(listed));
            }
        }
        Ok(None)
    }
}
