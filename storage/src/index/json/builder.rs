//! Making an index of documents.

use arrow::array::{Array, AsArray};

use super::{
    super::{lexicon::Collected, source::Source},
    paths::JsonPaths,
    terms,
};
use crate::Result;

/// The sections of the [terms](super::super::lexicon) of all documents, or of the parts of them that `paths` leave.
pub(in crate::index) fn build(source: &Source<'_>, paths: Option<&JsonPaths>) -> Result<Vec<Vec<u8>>> {
    let mut collected = Collected::default();
    source.each_array(|array| {
        let texts = array.as_string_view();
        for row in 0..texts.len() {
            collected.row(|each| {
                if texts.is_valid(row) {
                    terms::of_document(texts.value(row), paths, each);
                }
            });
        }
        Ok(())
    })?;
    collected.sections()
}
