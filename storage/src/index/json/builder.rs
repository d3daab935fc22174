//! Making an index of documents.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};

use super::{
    super::{attached::Source, postings},
    BLOCK, NOTHING, TERMS, terms,
};
use crate::Result;

/// Terms of all documents, counted in each.
const PAIRS_MAX: usize = 1 << 28;
/// Bytes of all terms.
const BYTES_MAX: usize = 1 << 30;

/// The sections: layout and number of terms, starts of the blocks of terms, the terms, then their rows.
pub(in crate::index) fn build(source: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    let mut numbers: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState> = HashMap::default();
    // The terms of each row, as numbers, and where those of the next begin.
    let (mut found, mut ends) = (Vec::<u32>::new(), Vec::with_capacity(source.rows as usize));
    let mut bytes = 0;
    source.each_array(|array| {
        let texts = array.as_string_view();
        for row in 0..texts.len() {
            let first = found.len();
            if texts.is_valid(row) && first <= PAIRS_MAX && bytes <= BYTES_MAX {
                terms::of_document(texts.value(row), &mut |term| {
                    let next = numbers.len() as u32;
                    found.push(match numbers.get(term) {
                        Some(number) => *number,
                        None => {
                            bytes += term.len();
                            numbers.insert(term.into(), next);
                            next
                        }
                    });
                });
                found[first..].sort_unstable();
                let mut kept = first;
                for at in first..found.len() {
                    if at == first || found[at] != found[kept - 1] {
                        found[kept] = found[at];
                        kept += 1;
                    }
                }
                found.truncate(kept);
            }
            ends.push(found.len());
        }
        Ok(())
    })?;
    if found.len() > PAIRS_MAX || bytes > BYTES_MAX {
        return Ok(vec![vec![NOTHING, 0, 0, 0, 0]]);
    }
    let mut sorted: Vec<(Box<[u8]>, u32)> = numbers.into_iter().collect();
    sorted.sort_unstable();
    let mut places = vec![0u32; sorted.len()];
    sorted.iter().enumerate().for_each(|(place, (_, number))| places[*number as usize] = place as u32);
    found.iter_mut().for_each(|number| *number = places[*number as usize]);

    let mut head = vec![TERMS];
    head.extend_from_slice(&(sorted.len() as u32).to_le_bytes());
    let (starts, data) = front_coded(sorted.iter().map(|(term, _)| term.as_ref()));
    let mut sections = vec![head, starts, data];
    let each = |out: &mut dyn FnMut(u32, u32)| {
        let mut first = 0;
        for (row, end) in ends.iter().enumerate() {
            found[first..*end].iter().for_each(|term| out(row as u32, *term));
            first = *end;
        }
    };
    sections.extend(postings::encode_each(source.rows, sorted.len() as u32, each)?);
    Ok(sections)
}

/// Where each block of terms begins, and the terms: of each how many bytes it shares with the one before (none, for the first of a block), how many
/// follow, and these.
fn front_coded<'a>(terms: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Vec<u8>) {
    let (mut starts, mut data, mut last): (Vec<u8>, Vec<u8>, &[u8]) = (Vec::new(), Vec::new(), &[]);
    for (place, term) in terms.enumerate() {
        let shared = if place.is_multiple_of(BLOCK) {
            starts.extend_from_slice(&(data.len() as u32).to_le_bytes());
            0
        } else {
            term.iter().zip(last).take_while(|(a, b)| a == b).count()
        };
        for length in [shared, term.len() - shared] {
            // Paths are short: sixteen keys of 66 bytes and a text.
            data.extend_from_slice(&(length as u16).to_le_bytes());
        }
        data.extend_from_slice(&term[shared..]);
        last = term;
    }
    (starts, data)
}
