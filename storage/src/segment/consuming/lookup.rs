//! What the indexes of full chunks know of the rows that a request selects.
//!
//! The rows that they find are picked, and all of the request is evaluated on these: what an index says need not be exact.

use std::sync::Arc;

use super::Chunk;
use crate::{
    Result,
    bitpack::Bitmask,
    index::chunk::ChunkIndex,
    predicate::Predicate,
    scan::{IndexUse, PlaceTest, ScanRequest},
    schema::TableSchema,
};

/// What one question about a chunk is answered from.
struct Asked<'a> {
    indexes: &'a [Arc<ChunkIndex>],
    written: &'a TableSchema,
    current: &'a TableSchema,
    rows: u64,
    always: bool,
}

/// The rows of the chunk that may be wanted, as far as its indexes know and listing them is worth it; `None`: any. An index that contradicts itself is
/// not asked.
pub(super) fn candidates(chunk: &Chunk, written: &TableSchema, request: &ScanRequest) -> Option<Bitmask> {
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
            Predicate::And(children) => {
                let mut all: Option<Bitmask> = None;
                for child in children {
                    let Some(listed) = self.predicate(child)? else { continue };
                    match &mut all {
                        None => all = Some(listed),
                        Some(all) => all.and(&listed),
                    }
                }
                Ok(all)
            }
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
            leaf => self.leaf(leaf),
        }
    }

    fn leaf(&self, leaf: &Predicate) -> Result<Option<Bitmask>> {
        let Some(id) = leaf.column() else { return Ok(None) };
        let (Some(now), Some(then)) = (self.current.column(id), self.written.column(id)) else { return Ok(None) };
        if !then.data_type.compares_as(&now.data_type) {
            return Ok(None);
        }
        // Looking for words in a text costs more than listing its row, and a document more than listing many; a value is compared as fast
        // as four are listed.
        let most = match leaf {
            _ if self.always => u64::MAX,
            Predicate::Holds { .. } => self.rows * 4,
            Predicate::Matches { .. } => self.rows,
            _ => self.rows / 4,
        };
        let mut best: Option<(u64, Bitmask)> = None;
        for index in self.indexes {
            let Some(found) = index.find(leaf, id, &then.data_type)? else { continue };
            if found.rows <= most && best.as_ref().is_none_or(|(least, _)| found.rows < *least) {
                let mut listed = Bitmask::none(self.rows as usize);
                index.add(&found, &mut listed)?;
                best = Some((found.rows, listed));
            }
        }
        Ok(best.map(|(_, listed)| listed))
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
