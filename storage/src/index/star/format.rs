//! The bytes of a star-tree beside its rollups: what names it, and the list of rollups. See `storage/README.md`, "Index files".

use super::StarTree;
use crate::{Result, forward::format::corrupt, segment::format::bytes::Writer};

/// Rollups at most: one section each.
pub(crate) const ROLLUPS_MAX: usize = 62;

/// The definition, as the footer of the index file repeats it: a file of another one is not ours.
pub(crate) fn write_definition(w: &mut Writer, tree: &StarTree) {
    w.u32(tree.max_leaf_records);
    w.u8(tree.dimensions.len() as u8);
    for dimension in &tree.dimensions {
        w.u32(dimension.column.0);
        match dimension.bin {
            None => w.u8(0),
            Some(bin) => {
                w.u8(1);
                w.i64(bin.width);
                w.i64(bin.origin);
            }
        }
    }
    w.u8(tree.aggregates.len() as u8);
    for function in &tree.aggregates {
        w.u8(function.code());
        w.u32(function.column().map_or(0, |column| column.0));
    }
}

/// The first section: the dimensions of each rollup.
pub(crate) fn head(rollups: &[u32]) -> Vec<u8> {
    rollups.iter().flat_map(|dimensions| dimensions.to_le_bytes()).collect()
}

/// The dimensions of each rollup, of a tree of `dimensions` dimensions.
pub(crate) fn read_head(bytes: &[u8], dimensions: usize) -> Result<Vec<u32>> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || words.len() > ROLLUPS_MAX {
        return Err(corrupt("head of a star-tree", format!("at most {ROLLUPS_MAX} words"), bytes.len()));
    }
    let sets: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    match sets.iter().find(|set| u64::from(**set) >> dimensions != 0) {
        Some(set) => Err(corrupt("rollup of a star-tree", format!("a set of {dimensions} dimensions"), set)),
        None => Ok(sets),
    }
}
