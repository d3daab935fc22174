//! Making an index of words.

use arrow::array::{Array, AsArray};

use super::super::{lexicon::Collected, source::Source};
use crate::{Result, search::each_word};

/// The sections of the [terms](super::super::lexicon) of all texts.
pub(in crate::index) fn build(source: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    let mut collected = Collected::default();
    source.each_array(|array| {
        let texts = array.as_string_view();
        for row in 0..texts.len() {
            collected.row(|each| {
                if texts.is_valid(row) {
                    each_word(texts.value(row), |word, _| each(word.as_bytes()));
                } else {
                    each(&[]);
                }
            });
        }
        Ok(())
    })?;
    collected.sections()
}
