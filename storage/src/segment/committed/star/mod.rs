//! The star-tree of a committed segment: how it is built from the rows, and how it answers instead of them.

mod answer;
mod build;
mod image;
pub(super) mod less;
pub(crate) mod renewed;
mod touched;

pub(super) use answer::begin;
pub(crate) use build::sections;

use std::sync::Arc;

use super::CommittedSegment;
use crate::{
    Result,
    index::{
        file::IndexFile,
        star::{Rollup, StarIndex, StarTree, format},
    },
};

/// Opens the star-tree of an index file. What is not read here is verified when it is first used.
pub(crate) fn open(file: &IndexFile, tree: &StarTree) -> Result<StarIndex> {
    let head = file.section(0)?;
    let sets = format::read_head(head.as_slice(), tree.dimensions.len())?;
    let rollups = sets
        .iter()
        .enumerate()
        .map(|(at, dimensions)| {
            let documents = image::open(file.map(), file.place(at + 1)?)?;
            Ok(Rollup { dimensions: *dimensions, documents: Arc::new(documents) })
        })
        .collect::<Result<_>>()?;
    Ok(StarIndex { tree: tree.clone(), rollups })
}

impl StarIndex {
    /// Verifies and opens every column of every rollup.
    pub(crate) fn verify(&self) -> Result<()> {
        let segments = self.rollups.iter().map(|rollup| rollup.documents.as_ref());
        segments
            .flat_map(|segment: &CommittedSegment| {
                (0..segment.columns.len()).map(|index| segment.reader(index).map(|_| ()))
            })
            .collect()
    }
}
